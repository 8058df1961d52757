#!/bin/sh
# Runs Molecule scenarios one after the other, with progress; stops at the first that fails, after taking its hosts down.
# Usage: molecule.sh SCENARIO...
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || { echo "molecule.sh: name at least one scenario" >&2; exit 1; }
mkdir -p .cache/lab
number=0
for scenario in "$@"; do
    number=$((number + 1))
    printf '==> [%s/%s] molecule scenario %s\n' "$number" "$#" "$scenario" >&2
    began=$(date +%s)
    rm -f ".cache/lab/record-$scenario.jsonl"
    code=0
    log=".cache/lab/log-$scenario.txt"
    # A pipe would hide molecule's own exit code, hence the file.
    { molecule test -s "$scenario" --destroy=always 2>&1 || code=$?; echo "$code" >"$log.code"; } | tee "$log"
    code=$(cat "$log.code")
    # What Molecule believes of a lab that was cut off may be wrong; the lab itself knows.
    python tests/lab/lab.py down --lab "mol-$scenario" >/dev/null 2>&1 || true
    [ "$code" = 0 ] || {
        printf '==> scenario %s failed; what failed in it:\n' "$scenario" >&2
        python tests/tools/failures.py "$log" >&2
        exit "$code"
    }
    printf '==> scenario %s passed in %s s\n' "$scenario" "$(($(date +%s) - began))" >&2
done
