"""What every part of the lab shares: its errors, its progress lines, its state directory and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LAB_DIR = Path(__file__).resolve().parent
STATE_DIR = LAB_DIR.parents[1] / ".cache" / "lab"

LABEL_LAB = "redisops.lab"
LABEL_HOST = "redisops.lab.host"
LABEL_FAMILY = "redisops.lab.family"
LABEL_IMAGE = "redisops.lab.image"
LABEL_KERNEL = "redisops.lab.kernel"


class LabError(Exception):
    """A failure that one plain sentence explains; it ends the command without a traceback."""


class Progress:
    """Prints one line per step with the seconds since the start, on stderr so that stdout stays data."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f}s] {text}", file=sys.stderr, flush=True)


progress = Progress()


@contextlib.contextmanager
def locked(what: str) -> Iterator[None]:
    """Hold the lab's lock of that name: two runs must neither build the same image nor save the kernel twice."""
    STATE_DIR.mkdir(parents=True, exist_ok=True)
    with open(STATE_DIR / f"{what}.lock", "w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.step(f"waiting for another lab command that holds the {what} lock")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


__all__ = [
    "LABEL_FAMILY",
    "LABEL_HOST",
    "LABEL_IMAGE",
    "LABEL_KERNEL",
    "LABEL_LAB",
    "LAB_DIR",
    "STATE_DIR",
    "LabError",
    "locked",
    "progress",
]
