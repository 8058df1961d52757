"""Runs parts of the tests one after the other, each a target of the Makefile; at the end says part, tests and seconds of each.

Usage: parts.py PART...        Stops at the first that fails; the table is printed all the same.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import failures

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / ".cache" / "lab" / "scenarios.json"
PARTS = ("lint", "unit", "modules", "molecule")
_PASSED = re.compile(r"\b(\d+) passed\b")


def run(part: str) -> tuple[int, str, float]:
    """The part's exit code, how many tests passed in it as a word, and its seconds; its output is passed on as it comes."""
    began = time.monotonic()
    process = subprocess.Popen(
        ["make", "--no-print-directory", part], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    tail = ""
    while chunk := os.read(process.stdout.fileno(), 65536):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        tail = (tail + decode(chunk))[-20000:]
    counts = _PASSED.findall("\n".join(map(failures.plain, tail.splitlines())))
    return process.wait(), counts[-1] if counts else "", time.monotonic() - began


def scenarios() -> list[tuple[str, str, str]]:
    """The rows of the scenarios that ran last, the longest first."""
    if not SCENARIOS.exists():
        return []
    told = sorted(json.loads(SCENARIOS.read_text(encoding="utf-8")), key=lambda one: -one["seconds"])
    return [
        (f"  {one['name']}" + ("" if one["passed"] else " FAILED"), str(one["tests"] or ""), f"{one['seconds']:.0f}")
        for one in told
    ]


def main(parts: list[str]) -> int:
    if not parts or set(parts) - set(PARTS):
        print(f"make: PART is one or more of {', '.join(PARTS)}; it is {' '.join(parts) or 'empty'}", file=sys.stderr)
        return 2
    began = time.monotonic()
    rows = [("part", "tests", "seconds")]
    failed = ""
    for part in parts:
        print(f"==> make test: {part}", file=sys.stderr, flush=True)
        SCENARIOS.unlink(missing_ok=True)
        code, tests, seconds = run(part)
        below = scenarios() if part == "molecule" else []
        if part == "molecule":
            tests = str(sum(int(count or 0) for _, count, _ in below) or "")
        rows += [(part + (" FAILED" if code else ""), tests, f"{seconds:.0f}"), *below]
        if code:
            failed = part
            break
    rows.append(("all", str(sum(int(count) for part, count, _ in rows[1:] if count and part[0] != " ")), f"{time.monotonic() - began:.0f}"))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, count, seconds in rows:
        print(f"{name:<{widths[0]}}  {count:>{widths[1]}}  {seconds:>{widths[2]}}")
    left = parts[parts.index(failed) + 1 :] if failed else []
    print(f"make test: {failed} failed" + (f"; not run: {', '.join(left)}" if left else "") if failed else "make test: passed", flush=True)  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
