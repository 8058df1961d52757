"""What failed in a run of Ansible or pytest, from its output: the end of a long log says only that something did. Usage: failures.py LOG"""

import re
import sys
from pathlib import Path

#: Colours; as much of a line as fits a screen.
_ESCAPES, _WIDTH = re.compile(r"\x1b\[[0-9;]*m"), 1500

_FAILED = re.compile(r"^(fatal:|failed:|FAILED |ERROR |E  |\[ERROR\])|UNREACHABLE!")


def plain(line: str) -> str:
    """A line without colours and what ends it."""
    return _ESCAPES.sub("", line).rstrip()


def failures(lines: list[str]) -> list[str]:
    """The lines that tell a failure, each after the task that it belongs to; at most the last forty."""
    found: list[str] = []
    task = ""
    for line in map(plain, lines):
        if line.startswith("TASK ["):
            task = line
        elif _FAILED.search(line):
            if task:
                found.append(task)
                task = ""
            found.append("  " + line[:_WIDTH])
    return found[-40:]


def told(log: Path) -> str:
    """What failed in a log, or that nothing looks like it."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(failures(lines)) or f"  nothing that looks like it; see {log}"


if __name__ == "__main__":
    print(told(Path(sys.argv[1])))
