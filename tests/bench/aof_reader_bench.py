#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How fast the reader of AOFs is, next to the same reader without its runs (one command at a time). ``aof_reader_bench.py [MEGABYTES]``."""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time
import typing as t
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests import conftest

conftest.pytest_configure()

from ansible_collections.redisops.recovery.plugins.module_utils.persistence import aof_parser


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def short(number: int) -> bytes:
    return command(b"SET", b"key:%d" % number, b"value %d" % (number * 7))


def mixed(number: int) -> bytes:
    """Every kind of length, a timestamp and a transaction now and then."""
    stamp = b"#TS:%d\r\n" % (1795340000 + number // 300) if number % 300 == 0 else b""
    if number % 50 == 0:
        return stamp + command(b"MULTI") + command(b"INCR", b"n") + command(b"DEL", b"a", b"b") + command(b"EXEC")
    return stamp + command(b"HSET", b"user:%d" % number, b"field", b"x" * (number * 37 % 1500))


def fill(handle: t.BinaryIO, size: int, make: t.Callable[[int], bytes]) -> None:
    handle.write(command(b"SELECT", b"0"))
    number = 0
    while handle.tell() < size:
        handle.write(b"".join(map(make, range(number, number + 1000))))
        number += 1000


def seconds(handle: t.BinaryIO, run: t.Callable[[], object]) -> float:
    handle.seek(0)
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 64) * 1_000_000
    for kind, make in (("short SETs", short), ("mixed lengths", mixed)):
        with tempfile.TemporaryFile() as handle:
            fill(handle, size, make)
            mega = handle.tell() / 1e6
            fast = seconds(handle, lambda handle=handle: aof_parser.scan_aof(handle))
            search = seconds(
                handle, lambda handle=handle: aof_parser.commands(handle, ["FLUSHALL", "FLUSHDB"]).finish()
            )
            with mock.patch.object(aof_parser._Reader, "_run", return_value=None):
                plain = seconds(handle, lambda handle=handle: aof_parser.commands(handle).finish())
        print(
            f"{kind}: {mega:.0f} MB; scan {mega / fast:.0f} MB/s, search {mega / search:.0f} MB/s; one by one {mega / plain:.1f} MB/s: "
            f"{plain / fast:.1f} times"
        )


if __name__ == "__main__":
    main()
