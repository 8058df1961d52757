# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of an append only file, and how it stops being one. Format: RESP arrays and ``#`` lines.

An AOF of gigabytes is read while a server is down. Commands of few and short arguments, which nearly all are, are found by one regular expression
that jumps over values by their length, hundreds at a time; only those that matter for their name or their time are looked at one by one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.command_table import Shape

__all__ = ["FRAME", "AofCommands", "AofScan", "Command", "commands", "scan_aof", "shapes_of", "since_line"]

#: What only frames the commands of others.
FRAME = frozenset(["MULTI", "EXEC", "SELECT"])
#: Longer than any count and any annotation that Redis writes.
_LINE = 1024
_STEP = 1024 * 1024
#: What is kept of a command: so many arguments, of each so many bytes; of the name more, since some are long.
_ARGS, _FIRST, _NAME = 8, 16, 64
#: How many bytes are tried for a run of short commands: more where they are, fewer where long values break it.
_LEAST_TRY, _MOST_TRY = 512, 256 * 1024
#: Fewer commands than that in a row are not worth the search; then so many are read singly before the next one, twice as many each time.
_WORTH, _MOST_SINGLE = 8, 64

# One match for the count and the name, one for the end of a value and the next length.
_HEAD = re.compile(rb"\*([1-9]\d{0,5})\r\n\$(\d{1,2})\r\n(?=[!-~])")
_NEXT = re.compile(rb"\r\n\$(\d{1,9})\r\n")
_STAMP = re.compile(rb"#TS:(\d{1,12})\r\n")
_COMMAND = tuple.__new__  # a NamedTuple's own way takes three times as long
_HASH = ord("#")


@dataclasses.dataclass(frozen=True)
class AofScan:
    """``good_up_to`` bytes are whole commands (a MULTI counts with its EXEC), ``commands`` of them.

    ``ends`` is ``clean``, ``truncated`` (the file stops within a command, as after a crash) or ``corrupt`` (what stands at ``at`` is no part
    of any command, for the reason ``why``). ``timestamp``: the last ``#TS:`` up to there, seconds since 1970; None where there is none.
    ``first_timestamp`` and ``latest_timestamp``: the first one and the greatest; ``unstamped``: commands before the first. ``since``: the
    second in which a restore brought what stands before it to the server, as SINCE says; None where nothing does. ``open_multi``: where the
    MULTI begins that has no EXEC, and ``in_multi`` how many whole commands stand behind it (SELECT is not counted): no start runs them.
    ``plain``: as ``commands``, without SELECT, MULTI and EXEC.
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
    open_multi: t.Optional[int] = None
    in_multi: int = 0
    plain: int = 0


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


class _UpTo:
    """A file as if it ended at ``end``."""

    def __init__(self, handle: t.BinaryIO, end: int) -> None:
        self._handle, self._end = handle, end

    def tell(self) -> int:
        return self._handle.tell()

    def seek(self, at: int) -> int:
        return self._handle.seek(at)

    def read(self, count: int) -> bytes:
        return self._handle.read(max(min(count, self._end - self._handle.tell()), 0))

    def readline(self, count: int) -> bytes:
        return self._handle.readline(max(min(count, self._end - self._handle.tell()), 0))


_Source = t.Union[t.BinaryIO, _UpTo]


def _line(handle: _Source, begins: bytes) -> bytes:
    """One line without its end; ``begins`` is the pattern of what may stand there where the file ends within it. Raises _Stop."""
    at = handle.tell()
    line = handle.readline(_LINE)
    if line.endswith(b"\n"):
        return line.rstrip(b"\r\n")
    if re.fullmatch(begins, line):
        raise _Stop("truncated", at, "the file ends within a line")
    raise _Stop("corrupt", at, f"no line should begin with {line[:20]!r}")


def _read_length(handle: _Source, mark: bytes, least: int) -> int:
    at = handle.tell()
    line = _line(handle, rb"(?:" + re.escape(mark) + rb"\d{0,18}\r?)?")
    match = re.fullmatch(re.escape(mark) + rb"(\d{1,18})", line)
    if not match or int(match.group(1)) < least:
        raise _Stop("corrupt", at, f"{mark.decode()} and a number should stand here, and {line[:20]!r} does")
    return int(match.group(1))


def _argument(handle: _Source, keep: int) -> bytes:
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


def _annotation(handle: _Source) -> tuple[t.Optional[int], t.Optional[int]]:
    """The time of a ``#`` line, and that of since_line(); None for what it is not. Raises _Stop."""
    line = _line(handle, rb"#[ -~]*\r?")
    stamp, since = re.fullmatch(rb"#TS:(\d{1,12})", line), re.fullmatch(rb"#REDISOPS-SINCE:(\d{1,12})", line)
    return int(stamp.group(1)) if stamp else None, int(since.group(1)) if since else None


def _whole(handle: _Source) -> tuple[bytes, tuple[bytes, ...], int]:
    """Name, first arguments and number of words of the command at which the file stands. Raises _Stop."""
    count = _read_length(handle, b"*", 1)
    at = handle.tell()
    name = _argument(handle, _NAME)
    if not name:
        raise _Stop("corrupt", at, "a command has no name")
    kept = []
    for number in range(1, count):
        first = _argument(handle, _FIRST)
        if number <= _ARGS:
            kept.append(first)
    return name, tuple(kept), count


def _quick(block: bytes, at: int) -> t.Optional[tuple[bytes, tuple[bytes, ...], int, int]]:
    """Name, first arguments, end and number of words of the command at ``at``; None where the block does not hold it whole, or it is not the usual case."""
    head = _HEAD.match(block, at)
    if not head:
        return None
    begin = head.end()
    at = begin + int(head[2])
    name = block[begin:at]
    kept = []
    for number in range(int(head[1]) - 1):
        match = _NEXT.match(block, at)
        if not match:
            return None
        begin = match.end()
        at = begin + int(match[1])
        if number < _ARGS:
            kept.append(block[begin : begin + _FIRST] if at - begin > _FIRST else block[begin:at])
    if not name or block[at : at + 2] != b"\r\n":
        return None
    return name, tuple(kept), at + 2, int(head[1])


def _by_length(prefix: str, digits: int) -> str:
    """A pattern for what stands behind ``$PREFIX``: more digits, or the end of the line, so many bytes and the end of the value."""
    count = int(prefix)
    ways = [rf"\r\n.{{{count}}}\r\n" if count else r"\r\n\r\n"]
    if len(prefix) < digits and count:
        ways += [digit + _by_length(prefix + digit, digits) for digit in "0123456789"]
    return f"(?:{'|'.join(ways)})"


@functools.cache
def _short_commands() -> t.Pattern[bytes]:
    """One short command, or one timestamp, or all the rest: findall gives a run of commands and what follows it.

    ``.{LENGTH}`` costs the same for every length, so that values are jumped over whatever they hold. At most 999 bytes and 5 arguments; else
    the expression takes too long to be compiled.
    """
    value = rf"\$(?:{'|'.join(digit + _by_length(digit, 3) for digit in '0123456789')})"
    name = (
        r"\$(?:" + "|".join(rf"{size}\r\n[!-~]{{{size}}}\r\n" for size in (3, 4, 5, 6, 7, 8, 9, 2, 1, 10, 11, 12)) + ")"
    )
    ways = [rf"{count}\r\n{name}" + (f"(?:{value}){{{count - 1}}}" if count > 1 else "") for count in (3, 2, 4, 1, 5)]
    pattern = rf"\*(?:{'|'.join(ways)})|#TS:[0-9]{{1,12}}\r\n|.+"
    return re.compile(pattern.encode("ascii"), re.DOTALL)


class _Run(t.NamedTuple):
    """Short commands and timestamps that follow each other from ``begin`` on."""

    begin: int
    items: t.Sequence[bytes]
    text: bytes


class _Single(t.NamedTuple):
    """One command from ``begin`` to ``end``."""

    begin: int
    end: int
    word: bytes
    args: tuple[bytes, ...]
    count: int


class _Mark(t.NamedTuple):
    """One ``#`` line: its time, and that of since_line(), where it has one."""

    begin: int
    end: int
    time: t.Optional[int]
    since: t.Optional[int]


_Part = t.Union[_Run, _Single, _Mark]


class _Reader:
    """Takes a file apart: runs of short commands, and single entries. Raises _Stop at its end where that is not between two commands."""

    def __init__(self, handle: _Source) -> None:
        self._handle = handle
        self._block, self._origin, self._at = b"", handle.tell(), 0  # origin: where in the file the block begins
        self._try = _LEAST_TRY
        self._single = self._singles = 0  # how many are still read one by one, and how many were told to be

    def __iter__(self) -> t.Iterator[_Part]:
        while True:
            run = self._run()
            if run is not None:
                yield run
                continue
            entry = self._in_block() or self._slow()
            if entry is None:
                return
            yield entry

    def _run(self) -> t.Optional[_Run]:
        if self._single:
            self._single -= 1
            return None
        if len(self._block) - self._at < _LEAST_TRY:
            return None
        begin, tried = self._origin + self._at, self._block[self._at : self._at + self._try]
        items = _short_commands().findall(tried)
        last = items[-1]
        size = len(tried)
        if not _is_whole(last):
            items.pop()
            size -= len(last)
        self._try = min(self._try * 2, _MOST_TRY) if size * 2 > len(tried) else max(self._try // 4, _LEAST_TRY)
        self._singles = 0 if len(items) >= _WORTH else min(self._singles * 2 + 1, _MOST_SINGLE)
        self._single = self._singles
        if not items:
            return None
        self._at += size
        return _Run(begin, items, tried[:size])

    def _in_block(self) -> t.Union[_Single, _Mark, None]:
        begin = self._origin + self._at
        quick = _quick(self._block, self._at)
        if quick is not None:
            word, args, self._at, count = quick
            return _Single(begin, self._origin + self._at, word, args, count)
        stamp = _STAMP.match(self._block, self._at)
        if stamp:
            self._at = stamp.end()
            return _Mark(begin, self._origin + self._at, int(stamp[1]), None)
        return None

    def _slow(self) -> t.Union[_Single, _Mark, None]:
        """What the block does not hold whole, from the file itself; None at its end."""
        handle, begin = self._handle, self._origin + self._at
        handle.seek(begin)
        mark = handle.read(1)
        if not mark:
            return None
        handle.seek(begin)
        found = _annotation(handle) if mark == b"#" else _whole(handle)
        self._origin, self._at = handle.tell(), 0
        self._block = handle.read(_STEP)
        return (_Mark if mark == b"#" else _Single)(begin, self._origin, *found)


def _is_whole(item: bytes) -> bool:
    """Whether the last thing that findall gave is a command or a timestamp, and not the rest."""
    if item[0] == _HASH:
        return bool(_STAMP.fullmatch(item))
    quick = _quick(item, 0)
    return quick is not None and quick[2] == len(item)


class _Progress:
    """What is known of the commands so far. Only what is not within an open MULTI counts: a server runs no more."""

    def __init__(self, at: int) -> None:
        self.good = at
        self.total = self.unstamped = self._waiting = 0
        self.plain = self.in_multi = 0
        self.timestamp: t.Optional[int] = None
        self.first: t.Optional[int] = None
        self.latest: t.Optional[int] = None
        self.multi: t.Optional[int] = None
        self.seen: t.Optional[int] = None
        self.since: t.Optional[int] = None
        self.start = (
            -1
        )  # where the # lines before the next command begin: they belong to it, and Redis cuts before them
        self._database: t.Optional[int] = None

    def annotated(self, begin: int, time: t.Optional[int], since: t.Optional[int]) -> None:
        """A ``#`` line."""
        self.start = begin if self.start < 0 else self.start
        self.seen = self.seen if time is None else time
        self.since = self.since if since is None else since

    def command(self, begin: int, end: int, word: bytes, args: tuple[bytes, ...]) -> Command:
        """A command that may matter by itself."""
        name = word.decode("latin-1").upper()
        start = begin if self.start < 0 else self.start
        self.start = -1
        if name == "SELECT" and args:
            self._database = int(args[0]) if args[0].isdigit() else self._database
        elif name == "MULTI" and self.multi is None:
            self.multi, self.in_multi = start, 0
        found = _COMMAND(Command, (name, self._database, start, end, self.seen, args, self.multi))
        if name == "EXEC":
            self.multi = None
        self._counted(1, end, name not in FRAME)
        return found

    def stretch(self, count: int, end: int) -> None:
        """So many commands that matter by their number only."""
        self._counted(count, end, count)

    def _counted(self, count: int, end: int, plain: int) -> None:
        self.plain += plain
        self._waiting += count
        if self.seen is None:
            self.unstamped += count
        if self.multi is not None:
            self.in_multi += plain
            return
        self.good, self.total, self._waiting = end, self.total + self._waiting, 0
        if self.seen is not None and self.seen != self.timestamp:
            self.first = self.seen if self.first is None else self.first
            self.latest, self.timestamp = max(self.seen, self.latest or 0), self.seen


class AofCommands:
    """The commands of a file from where it stands, in constant memory; ``scan`` says at the end how it ended.

    ``only``: the names of those that are given, None for all; the others are counted. ``stamped``: the first command behind each timestamp is
    given as well. ``plain``: how many there were up to the one that was given, without SELECT, MULTI and EXEC. Commands that end behind
    ``scan.good_up_to`` belong to a MULTI without its EXEC: no server runs them.
    """

    def __init__(
        self,
        handle: t.BinaryIO,
        only: t.Optional[t.Iterable[str]] = None,
        stamped: bool = False,
        end: t.Optional[int] = None,
    ) -> None:
        self._handle: _Source = handle if end is None else _UpTo(handle, end)
        self._only = None if only is None else frozenset(name.upper() for name in only)
        self._stamped = stamped
        self.scan: t.Optional[AofScan] = None
        self._so_far = _Progress(handle.tell())

    @property
    def plain(self) -> int:
        return self._so_far.plain

    def finish(self) -> AofScan:
        """Read what is left, to the end."""
        for _command in self:
            pass
        assert self.scan is not None
        return self.scan

    def __iter__(self) -> t.Iterator[Command]:
        so_far = self._so_far
        end = so_far.good
        try:
            for part in _Reader(self._handle):
                if isinstance(part, _Run):
                    end = part.begin + len(part.text)
                    yield from self._of_run(part)
                    continue
                end = part.end
                if isinstance(part, _Mark):
                    so_far.annotated(part.begin, part.time, part.since)
                    continue
                after_stamp = so_far.start >= 0
                command = so_far.command(part.begin, end, part.word, part.args)
                if self._wanted(command.name, after_stamp):
                    yield command
            if so_far.multi is not None:
                raise _Stop("truncated", end, "the file ends between MULTI and EXEC")
            self.scan = self._scan("clean", end, "")
        except _Stop as stop:
            self.scan = self._scan(stop.ends, stop.at, stop.why)

    def _wanted(self, name: str, after_stamp: bool) -> bool:
        return self._only is None or name in self._only or (self._stamped and after_stamp)

    def _of_run(self, run: _Run) -> t.Iterator[Command]:
        so_far, done, end = self._so_far, 0, run.begin + len(run.text)
        special = self._special(run)
        if not special and so_far.start < 0:
            so_far.stretch(len(run.items), end)
            return
        if so_far.start >= 0 and 0 not in special[:1]:
            special.insert(0, 0)
        begins = list(itertools.accumulate(map(len, run.items), initial=run.begin))
        for index in special:
            if index > done:
                so_far.stretch(index - done, begins[index])
            at, done, item = begins[index], index + 1, run.items[index]
            if item[0] == _HASH:
                so_far.annotated(at, int(item[4:-2]), None)
                continue
            quick = _quick(item, 0)
            assert quick is not None
            after_stamp = so_far.start >= 0
            command = so_far.command(at, begins[index + 1], quick[0], quick[1])
            if self._wanted(command.name, after_stamp):
                yield command
        if done < len(run.items):
            so_far.stretch(len(run.items) - done, end)

    def _special(self, run: _Run) -> list[int]:
        """Where in a run the things stand that have to be looked at one by one, in order."""
        if self._only is None:
            return list(range(len(run.items)))
        items, text = run.items, run.text.upper()
        names = [name for name in (*FRAME, *self._only) if b"\r\n%s\r\n" % name.encode("latin-1") in text]
        stamps = b"#TS:" in text
        if not (names or stamps):
            return []
        mark = _marked(tuple(sorted(names))).match
        found = {index for index, item in enumerate(items) if mark(item)}
        if stamps:  # and the command behind each: it begins where the # line does
            found.update([index + 1 for index in found if items[index][0] == _HASH and index + 1 < len(items)])
        return sorted(found)

    def _scan(self, ends: str, at: int, why: str) -> AofScan:
        whole, so_far = ends == "clean", self._so_far
        return AofScan(
            at if whole else so_far.good, so_far.total, ends, at, why, so_far.timestamp, so_far.first, so_far.latest,
            so_far.unstamped if whole else min(so_far.unstamped, so_far.total), so_far.good, so_far.since, so_far.multi,
            so_far.in_multi if so_far.multi is not None else 0, so_far.plain - (so_far.in_multi if so_far.multi is not None else 0),
        )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _marked(names: tuple[str, ...]) -> t.Pattern[bytes]:
    """A timestamp, or a command of one of these names."""
    ways = b"|".join(re.escape(name.encode("latin-1")) for name in names) or rb"(?!)"
    return re.compile(rb"#|\*\d+\r\n\$\d+\r\n(?:%s)\r\n" % ways, re.IGNORECASE)


def commands(
    handle: t.BinaryIO,
    only: t.Optional[t.Iterable[str]] = None,
    stamped: bool = False,
    end: t.Optional[int] = None,
) -> AofCommands:
    """The commands of ``handle`` from where it is, up to ``end``. Damage ends them without an error; AofCommands.scan tells of it."""
    return AofCommands(handle, only, stamped, end)


def shapes_of(handle: t.BinaryIO, end: int, containers: t.Collection[str]) -> dict[Shape, int]:
    """Every kind of command up to ``end``, with the offset of the first one of it. Of ``containers`` the subcommand is a part."""
    found: dict[Shape, int] = {}
    plain: set[bytes] = set()
    with contextlib.suppress(_Stop):
        for part in _Reader(_UpTo(handle, end)):
            if isinstance(part, _Single):
                found.setdefault(_shape(part.word, part.args, part.count, containers), part.begin)
            elif isinstance(part, _Run):
                _shapes_of_run(part, found, plain, containers)
    return found


def _shape(word: bytes, args: tuple[bytes, ...], count: int, containers: t.Collection[str]) -> Shape:
    name = word.decode("latin-1").lower()
    return Shape(name, args[0].decode("latin-1").lower() if args and name in containers else "", count)


def _shapes_of_run(run: _Run, found: dict[Shape, int], plain: set[bytes], containers: t.Collection[str]) -> None:
    """``plain``: what commands begin with, up to the end of their name, that were seen and need no second look."""
    at = run.begin
    for item in run.items:
        head = item[: item.find(b"\r\n", item.find(b"\r\n", 4) + 2)]
        quick = None if head in plain else _quick(item, 0)
        if quick is not None:
            shape = _shape(quick[0], quick[1], quick[3], containers)
            found.setdefault(shape, at)
            if shape.name not in containers:
                plain.add(head)
        at += len(item)


def scan_aof(handle: t.BinaryIO, end: t.Optional[int] = None) -> AofScan:
    """Read ``handle`` from where it is to its end, or as if it ended at ``end``; in constant memory."""
    return AofCommands(handle, (), end=end).finish()
