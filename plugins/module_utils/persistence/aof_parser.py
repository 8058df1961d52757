# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of an append only file, and how it stops being one. Format: RESP arrays and ``#`` lines."""

from __future__ import annotations

import dataclasses
import re
import typing as t

__all__ = ["AofCommands", "AofScan", "Command", "commands", "scan_aof", "since_line"]

#: Longer than any count and any annotation that Redis writes.
_LINE = 1024
_STEP = 1024 * 1024
#: What is kept of a command: so many arguments, of each so many bytes; of the name more, since some are long.
_ARGS, _FIRST, _NAME = 8, 16, 64

# One match for the count and the name, one for the end of a value and the next length: what Redis writes nearly always.
_HEAD = re.compile(rb"\*([1-9]\d{0,5})\r\n\$(\d{1,2})\r\n([A-Za-z._|-]{1,64})(?=\r\n)")
_NEXT = re.compile(rb"\r\n\$(\d{1,9})\r\n")
_STAMP = re.compile(rb"#TS:(\d{1,12})\r\n")
_COMMAND = tuple.__new__  # a NamedTuple's own way takes three times as long


@dataclasses.dataclass(frozen=True)
class AofScan:
    """``good_up_to`` bytes are whole commands (a MULTI counts with its EXEC), ``commands`` of them.

    ``ends`` is ``clean``, ``truncated`` (the file stops within a command, as after a crash) or ``corrupt`` (what stands at ``at`` is no part
    of any command, for the reason ``why``). ``timestamp``: the last ``#TS:`` up to there, seconds since 1970; None where there is none.
    ``first_timestamp`` and ``latest_timestamp``: the first one and the greatest; ``unstamped``: commands before the first. ``since``: the
    second in which a restore brought what stands before it to the server, as SINCE says; None where nothing does.
    """

    good_up_to: int
    commands: int
    ends: str
    at: int
    why: str = ""
    timestamp: t.Optional[int] = None
    first_timestamp: t.Optional[int] = None
    latest_timestamp: t.Optional[int] = None
    unstamped: int = 0
    commands_end: int = 0
    since: t.Optional[int] = None


class Command(t.NamedTuple):
    """One command. ``start`` is where it or the ``#`` lines before it begin, ``end`` the first byte behind it.

    ``database`` is None as long as no SELECT was seen: Redis begins every file with one. ``timestamp`` is the ``#TS:`` in force, seconds
    since 1970, or None. ``args`` are the first 16 bytes of the first 8 arguments, without the name. ``multi`` is the start of the MULTI
    that the command is part of (MULTI and EXEC as well), None outside.
    """

    name: str
    database: t.Optional[int]
    start: int
    end: int
    timestamp: t.Optional[int]
    args: tuple[bytes, ...]
    multi: t.Optional[int]


class _Stop(Exception):
    """Where the reading ended: ``ends`` and ``why`` as in AofScan."""

    def __init__(self, ends: str, at: int, why: str) -> None:
        super().__init__(why)
        self.ends, self.at, self.why = ends, at, why


# --- one command, from the file: every case, and where it fails ---------------------------------------------------------


def _line(handle: t.BinaryIO, begins: bytes) -> bytes:
    """One line without its end; ``begins`` is the pattern of what may stand there where the file ends within it. Raises _Stop."""
    at = handle.tell()
    line = handle.readline(_LINE)
    if line.endswith(b"\n"):
        return line.rstrip(b"\r\n")
    if re.fullmatch(begins, line):
        raise _Stop("truncated", at, "the file ends within a line")
    raise _Stop("corrupt", at, f"no line should begin with {line[:20]!r}")


def _read_length(handle: t.BinaryIO, mark: bytes, least: int) -> int:
    at = handle.tell()
    line = _line(handle, rb"(?:" + re.escape(mark) + rb"\d{0,18}\r?)?")
    match = re.fullmatch(re.escape(mark) + rb"(\d{1,18})", line)
    if not match or int(match.group(1)) < least:
        raise _Stop("corrupt", at, f"{mark.decode()} and a number should stand here, and {line[:20]!r} does")
    return int(match.group(1))


def _argument(handle: t.BinaryIO, keep: int) -> bytes:
    """One argument's first bytes; the rest is skipped. Raises _Stop."""
    length = _read_length(handle, b"$", 0)
    at = handle.tell()
    first = handle.read(min(length, keep))
    left = length - len(first)
    while left and len(first) == min(length, keep):
        step = len(handle.read(min(left, _STEP)))
        if not step:
            break
        left -= step
    end = handle.read(2) if not left and len(first) == min(length, keep) else b""
    if len(end) < 2:
        raise _Stop("truncated", at, "the file ends within a value")
    if end != b"\r\n":
        raise _Stop("corrupt", at + length, f"a value should end here, and {end!r} stands there")
    return first


def since_line(at: float) -> bytes:
    """What a restore writes behind what it brings: until then the server's data was another. Redis skips every line that begins so."""
    return b"#REDISOPS-SINCE:%d\r\n" % int(at)


def _annotation(handle: t.BinaryIO) -> tuple[t.Optional[int], t.Optional[int]]:
    """The time of a ``#`` line, and that of since_line(); None for what it is not. Raises _Stop."""
    line = _line(handle, rb"#[ -~]*\r?")
    stamp, since = re.fullmatch(rb"#TS:(\d{1,12})", line), re.fullmatch(rb"#REDISOPS-SINCE:(\d{1,12})", line)
    return int(stamp.group(1)) if stamp else None, int(since.group(1)) if since else None


def _whole(handle: t.BinaryIO) -> tuple[bytes, tuple[bytes, ...]]:
    """Name and first arguments of the command at which the file stands. Raises _Stop."""
    count = _read_length(handle, b"*", 1)
    name = _argument(handle, _NAME)
    kept = []
    for number in range(1, count):
        first = _argument(handle, _FIRST)
        if number <= _ARGS:
            kept.append(first)
    return name, tuple(kept)


# --- one command, from a block of the file: the usual case, quickly ------------------------------------------------------


def _quick(block: bytes, at: int) -> t.Optional[tuple[bytes, tuple[bytes, ...], int]]:
    """Name, first arguments and end of the command at ``at``; None where the block does not hold it whole, or it is not the usual case."""
    head = _HEAD.match(block, at)
    if not head:
        return None
    count, length, name = head.groups()
    if int(length) != len(name):
        return None
    at = head.end()
    kept = []
    for number in range(int(count) - 1):
        match = _NEXT.match(block, at)
        if not match:
            return None
        begin = match.end()
        at = begin + int(match[1])
        if number < _ARGS:
            kept.append(block[begin : begin + _FIRST] if at - begin > _FIRST else block[begin:at])
    if block[at : at + 2] != b"\r\n":
        return None
    return name, tuple(kept), at + 2


class AofCommands:
    """The commands of a file from where it stands, one by one, in constant memory; ``scan`` says at the end how it ended.

    Commands that end behind ``scan.good_up_to`` belong to a MULTI without its EXEC: no server runs them.
    """

    def __init__(self, handle: t.BinaryIO) -> None:
        self._handle = handle
        self.scan: t.Optional[AofScan] = None

    def finish(self) -> AofScan:
        """Read what is left, to the end."""
        for _command in self:
            pass
        assert self.scan is not None
        return self.scan

    def __iter__(self) -> t.Iterator[Command]:
        handle = self._handle
        block, origin, at = b"", handle.tell(), 0  # origin: where in the file the block begins
        good = origin
        start = -1  # where the # lines before the next command begin
        total = waiting = unstamped = 0
        timestamp = seen = first = latest = database = multi = since = None
        try:
            while True:
                quick = _quick(block, at)
                begin = origin + at
                if quick is None:
                    stamp = _STAMP.match(block, at)
                    if not stamp:
                        handle.seek(begin)
                        mark = handle.read(1)
                        if not mark:
                            break
                        handle.seek(begin)
                    if stamp or mark == b"#":  # it belongs to the command behind it: Redis cuts before it
                        start = begin if start < 0 else start
                        time, brought = (int(stamp[1]), None) if stamp else _annotation(handle)
                        seen, since = seen if time is None else time, since if brought is None else brought
                    else:
                        quick = (*_whole(handle), 0)
                    if stamp:
                        at = stamp.end()
                    else:
                        origin, at = handle.tell(), 0
                        block = handle.read(_STEP)
                    if quick is None:
                        continue
                word, args, at = quick
                begin, start, end = (begin if start < 0 else start), -1, origin + at
                name = word.decode("latin-1").upper()
                if name == "SELECT" and args:
                    database = int(args[0]) if args[0].isdigit() else database
                elif name == "MULTI":
                    multi = begin
                waiting += 1
                if seen is None:
                    unstamped += 1
                yield _COMMAND(Command, (name, database, begin, end, seen, args, multi))
                if name == "EXEC":
                    multi = None
                if multi is None:
                    good, total, waiting = end, total + waiting, 0
                    if seen != timestamp:
                        first = seen if first is None else first
                        latest, timestamp = max(seen, latest or 0), seen
            if multi is not None:
                raise _Stop("truncated", begin, "the file ends between MULTI and EXEC")
            self.scan = AofScan(begin, total, "clean", begin, "", timestamp, first, latest, unstamped, good, since)
        except _Stop as stop:
            self.scan = AofScan(
                good, total, stop.ends, stop.at, stop.why, timestamp, first, latest, min(unstamped, total), good, since
            )


def commands(handle: t.BinaryIO) -> AofCommands:
    """The commands of ``handle`` from where it is. Damage ends them without an error; AofCommands.scan tells of it."""
    return AofCommands(handle)


def scan_aof(handle: t.BinaryIO) -> AofScan:
    """Read ``handle`` from where it is to its end, in constant memory."""
    return AofCommands(handle).finish()
