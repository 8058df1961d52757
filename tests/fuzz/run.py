#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let our readers and a real Redis read changed files for so many seconds. ``tests/fuzz/run.py [--seconds 60] [--seed N] [--kind aof]``.

The seed is printed: the same one makes the same files. What the two differ about is printed as a Python literal, for a test of its own.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import sys
import tempfile
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests import conftest

if __name__ == "__main__":
    conftest.pytest_configure()

from tests.fuzz.readers import KINDS
from tests.fuzz.real_redis import Room


class Find(t.NamedTuple):
    """``number``: which file of that kind and seed it was."""

    kind: str
    number: int
    words: str
    raw: bytes


def fuzzed(seconds: float, seed: int, only: t.Sequence[str] = ()) -> tuple[dict[str, int], list[Find]]:
    """How many files of each kind were read, and where the two differ; the kinds share the time."""
    counts: dict[str, int] = {}
    finds: list[Find] = []
    kinds = [kind for kind in KINDS if not only or kind.name in only]
    near = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="redisops-fuzz-", dir=near) as root:
        for kind in (one(Room(pathlib.Path(root) / one.name.replace(".", "-"))) for one in kinds):
            kind.prepare()
            rng, done, number = random.Random(f"{seed} {kind.name}"), time.monotonic() + seconds / len(kinds), 0
            while time.monotonic() < done:
                number += 1
                raw = kind.make(rng)
                words = kind.differs(raw)
                if words:
                    finds.append(Find(kind.name, number, words, raw))
                    print(f"{kind.name} {number}: {words}\n  {raw!r}", flush=True)
            counts[kind.name] = number
    return counts, finds


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kind", action="append", default=[])
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    counts, finds = fuzzed(given.seconds, given.seed, given.kind)
    print(
        f"seed {given.seed}: {', '.join(f'{count} of {name}' for name, count in counts.items())}; {len(finds)} differences"
    )
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
