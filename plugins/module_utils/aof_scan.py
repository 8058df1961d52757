# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the commands of an append only file end, and how it stops being one (tier 0). Format: RESP arrays and ``#`` lines."""

from __future__ import annotations

import dataclasses
import re
import typing as t

__all__ = ["AofScan", "scan_aof"]

#: Longer than any count and any annotation that Redis writes.
_LINE = 1024
_STEP = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class AofScan:
    """``good_up_to`` bytes are whole commands (a MULTI counts with its EXEC), ``commands`` of them.

    ``ends`` is ``clean``, ``truncated`` (the file stops within a command, as after a crash) or ``corrupt`` (what stands at ``at`` is no part
    of any command, for the reason ``why``). ``timestamp``: the last ``#TS:`` up to there, seconds since 1970; None where there is none.
    """

    good_up_to: int
    commands: int
    ends: str
    at: int
    why: str = ""
    timestamp: t.Optional[int] = None


class _Stop(Exception):
    """Where the reading ended: ``ends`` and ``why`` as in AofScan."""

    def __init__(self, ends: str, at: int, why: str) -> None:
        super().__init__(why)
        self.ends, self.at, self.why = ends, at, why


def _line(handle: t.BinaryIO, begins: bytes) -> bytes:
    """One line without its end; ``begins`` is the pattern of what may stand there where the file ends within it. Raises _Stop."""
    at = handle.tell()
    line = handle.readline(_LINE)
    if line.endswith(b"\n"):
        return line.rstrip(b"\r\n")
    if re.fullmatch(begins, line):
        raise _Stop("truncated", at, "the file ends within a line")
    raise _Stop("corrupt", at, f"no line should begin with {line[:20]!r}")


def _number(handle: t.BinaryIO, mark: bytes, least: int) -> int:
    at = handle.tell()
    line = _line(handle, rb"(?:" + re.escape(mark) + rb"\d{0,18}\r?)?")
    match = re.fullmatch(re.escape(mark) + rb"(\d{1,18})", line)
    if not match or int(match.group(1)) < least:
        raise _Stop("corrupt", at, f"{mark.decode()} and a number should stand here, and {line[:20]!r} does")
    return int(match.group(1))


def _argument(handle: t.BinaryIO) -> bytes:
    """One argument's first bytes; the rest is skipped. Raises _Stop."""
    length = _number(handle, b"$", 0)
    at = handle.tell()
    first = handle.read(min(length, 16))
    left = length - len(first)
    while left and len(first) == min(length, 16):
        step = len(handle.read(min(left, _STEP)))
        if not step:
            break
        left -= step
    end = handle.read(2) if not left and len(first) == min(length, 16) else b""
    if len(end) < 2:
        raise _Stop("truncated", at, "the file ends within a value")
    if end != b"\r\n":
        raise _Stop("corrupt", at + length, f"a value should end here, and {end!r} stands there")
    return first


def scan_aof(handle: t.BinaryIO) -> AofScan:
    """Read ``handle`` from where it is to its end, in constant memory."""
    good, commands, inside, waiting = handle.tell(), 0, False, 0
    timestamp: t.Optional[int] = None
    seen: t.Optional[int] = None
    try:
        while True:
            at = handle.tell()
            first = handle.read(1)
            if not first:
                if inside:
                    raise _Stop("truncated", at, "the file ends between MULTI and EXEC")
                return AofScan(at, commands, "clean", at, timestamp=timestamp)
            handle.seek(at)
            if first == b"#":
                match = re.fullmatch(rb"#TS:(\d{1,12})", _line(handle, rb"#[ -~]*\r?"))
                seen = int(match.group(1)) if match else seen
                continue  # it belongs to the command behind it: Redis cuts before it
            words = [_argument(handle) for _ in range(_number(handle, b"*", 1))]
            name = words[0].upper()
            inside = name == b"MULTI" or (inside and name != b"EXEC")
            waiting += 1
            if not inside:
                good, commands, waiting, timestamp = handle.tell(), commands + waiting, 0, seen
    except _Stop as stop:
        return AofScan(good, commands, stop.ends, stop.at, stop.why, timestamp)
