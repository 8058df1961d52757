#!/bin/sh
# Everything that reads the sources without running them. Each line says what it checks; the first that fails ends it.
# Usage: lint.sh [all | changed]   changed: ansible-lint, which takes longest, only over what differs from main, committed or not.
set -eu
cd "$(dirname "$0")/../.."
step() { printf '==> lint: %s\n' "$1" >&2; }

# What differs from where this branch left main, and what is not committed or not known to git yet; on main, the latter alone.
changed() {
    base=HEAD
    for name in origin/main main; do
        if git rev-parse -q --verify "$name^{commit}" >/dev/null; then
            base=$(git merge-base "$name" HEAD) && break
        fi
    done
    { git diff --name-only --diff-filter=d "$base"; git ls-files --others --exclude-standard; } | sort -u
}

# A role is linted as a whole; of all else, what ansible-lint reads.
lintable() {
    sed -n -e 's#^\(roles/[^/]*\)/.*#\1#p' -e '/^roles\//d' -e '/^tests\/unit\/plugins\//d' \
        -e '/^\(playbooks\|molecule\|meta\|examples\)\/.*\.ya\{0,1\}ml$/p' -e '/^plugins\/.*\.py$/p' -e '/^galaxy\.yml$/p' | sort -u
}

step "ruff (Python)"
ruff check --quiet .
ruff format --quiet --check .
step "yamllint (YAML)"
git ls-files '*.yml' '*.yaml' | xargs yamllint --strict -c .config/yamllint.yml
case "${1:-all}" in
    all)
        step "ansible-lint (roles, playbooks, module documentation)"
        ansible-lint --offline -q -c .config/ansible-lint.yml
        ;;
    changed)
        files=$(changed | lintable)
        if [ -n "$files" ]; then
            step "ansible-lint, only over what differs from main: $(printf '%s\n' "$files" | wc -l) roles and files (make lint reads all)"
            # shellcheck disable=SC2086
            ansible-lint --offline -q -c .config/ansible-lint.yml $files
        else
            step "ansible-lint: nothing that it reads differs from main (make lint reads all)"
        fi
        ;;
    *) echo "lint.sh: all or changed" >&2; exit 1 ;;
esac
step "changelog fragments"
antsibull-changelog lint
