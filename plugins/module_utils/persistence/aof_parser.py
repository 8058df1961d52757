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


_Entry = tuple[int, int, t.Optional[bytes], tuple[bytes, ...], t.Optional[int], t.Optional[int]]


def _entry_by_entry(handle: t.BinaryIO) -> t.Iterator[_Entry]:
    """(begin, end, name, first arguments, time, since) of each entry: a command has a name, a ``#`` line none. Raises _Stop."""
    block, origin, at = b"", handle.tell(), 0  # origin: where in the file the block begins
    while True:
        begin = origin + at
        quick = _quick(block, at)
        if quick is not None:
            word, args, at = quick
            yield begin, origin + at, word, args, None, None
            continue
        stamp = _STAMP.match(block, at)
        if stamp:
            at = stamp.end()
            yield begin, origin + at, None, (), int(stamp[1]), None
            continue
        handle.seek(begin)
        mark = handle.read(1)
        if not mark:
            return
        handle.seek(begin)
        word, args, time, since = (None, (), *_annotation(handle)) if mark == b"#" else (*_whole(handle), None, None)
        origin, at = handle.tell(), 0
        block = handle.read(_STEP)
        yield begin, origin, word, args, time, since


class _Progress:
    """What is known of the commands so far. Only what is not within an open MULTI counts: a server runs no more."""

    def __init__(self, at: int) -> None:
        self.good = at
        self.total = self.unstamped = self._waiting = 0
        self.timestamp: t.Optional[int] = None
        self.first: t.Optional[int] = None
        self.latest: t.Optional[int] = None
        self.multi: t.Optional[int] = None
        self._database: t.Optional[int] = None

    def begins(self, name: str, args: tuple[bytes, ...], begin: int, seen: t.Optional[int]) -> t.Optional[int]:
        """A command begins; gives the database that it is for."""
        if name == "SELECT" and args:
            self._database = int(args[0]) if args[0].isdigit() else self._database
        elif name == "MULTI":
            self.multi = begin
        self._waiting += 1
        if seen is None:
            self.unstamped += 1
        return self._database

    def ended(self, name: str, end: int, seen: t.Optional[int]) -> None:
        """A command is whole."""
        if name == "EXEC":
            self.multi = None
        if self.multi is not None:
            return
        self.good, self.total, self._waiting = end, self.total + self._waiting, 0
        if seen is not None and seen != self.timestamp:
            self.first = seen if self.first is None else self.first
            self.latest, self.timestamp = max(seen, self.latest or 0), seen


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
        end = self._handle.tell()
        so_far = _Progress(end)
        start = -1  # where the # lines before the next command begin: they belong to it, and Redis cuts before them
        seen = since = None
        try:
            for begin, end, word, args, time, brought in _entry_by_entry(self._handle):
                start = begin if start < 0 else start
                if word is None:
                    seen, since = seen if time is None else time, since if brought is None else brought
                    continue
                name = word.decode("latin-1").upper()
                database = so_far.begins(name, args, start, seen)
                yield _COMMAND(Command, (name, database, start, end, seen, args, so_far.multi))
                so_far.ended(name, end, seen)
                start = -1
            if so_far.multi is not None:
                raise _Stop("truncated", end, "the file ends between MULTI and EXEC")
            self.scan = self._scan(so_far, since, "clean", end, "")
        except _Stop as stop:
            self.scan = self._scan(so_far, since, stop.ends, stop.at, stop.why)

    @staticmethod
    def _scan(so_far: _Progress, since: t.Optional[int], ends: str, at: int, why: str) -> AofScan:
        whole = ends == "clean"
        return AofScan(
            at if whole else so_far.good, so_far.total, ends, at, why, so_far.timestamp, so_far.first, so_far.latest,
            so_far.unstamped if whole else min(so_far.unstamped, so_far.total), so_far.good, since,
        )  # fmt: skip


def commands(handle: t.BinaryIO) -> AofCommands:
    """The commands of ``handle`` from where it is. Damage ends them without an error; AofCommands.scan tells of it."""
    return AofCommands(handle)


def scan_aof(handle: t.BinaryIO) -> AofScan:
    """Read ``handle`` from where it is to its end, in constant memory."""
    return AofCommands(handle).finish()
