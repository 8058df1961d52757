# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cut is made of: the pieces of an AOF, and where in them the commands lie that one may want to undo."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import (
    Command,
    commands,
    scan_aof,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import open_regular, scan_file
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, Increment

__all__ = [
    "DESTROYERS",
    "Piece",
    "Spot",
    "base_piece",
    "behind_torn_transaction",
    "command_at",
    "find_commands",
    "first_after",
    "last_timestamp",
    "piece_of",
    "vanished",
]

#: Commands that take away everything, or a whole database.
DESTROYERS = ("FLUSHALL", "FLUSHDB", "SWAPDB")


@dataclasses.dataclass(frozen=True)
class Spot:
    """One command in an increment. ``offset``: where to cut to undo it: its own start, or that of the MULTI that it is part of.

    ``args``: the first 16 bytes of the first 8 arguments. ``at``: seconds since 1970, None where nothing has a timestamp before it.
    ``commands_after`` and ``bytes_after`` are behind it in this and later increments (SELECT, MULTI and EXEC are not counted as
    commands): what a cut here loses besides it.
    """

    name: str
    args: tuple[bytes, ...]
    database: t.Optional[int]
    increment: str
    offset: int
    at: t.Optional[int]
    commands_after: int
    bytes_after: int
    transaction: bool


@dataclasses.dataclass(frozen=True)
class Piece:
    """So many bytes of a source, and its line in the new manifest. ``then``: another source goes on behind them, from its own offset
    ``bytes`` on, up to the offset that stands there.
    """

    path: str
    entry: AofFile
    bytes: int
    then: tuple[str, int] = ("", 0)

    @property
    def size(self) -> int:
        return self.then[1] if self.then[0] else self.bytes


def last_timestamp(paths: t.Sequence[str]) -> t.Optional[int]:
    """The last one in the increments; raises Refusal where one of them does not end with a whole command."""
    last = None
    for path in paths:
        found = scan_file(path)
        if found.ends != "clean":
            raise Refusal("cut_not_verified", f"{os.path.basename(path)} does not end with a whole command: {found.why}", "files without damage",
                          "look at the sources with redis_file_check; use another copy, or a backup")  # fmt: skip
        last = found.timestamp if found.timestamp is not None else last
    return last


def base_piece(origin: AofSet, appendfilename: str) -> Piece:
    base = origin.manifest.base
    if base is None or origin.base_bytes is None:
        raise Refusal(
            "history_gap",
            f"{origin.directory} has no base: {'; '.join(origin.gaps)}",
            "the base file",
            "find it, or use a backup",
        )
    try:
        with open_regular(origin.base) as handle:
            kind = "rdb" if handle.read(5) in (b"REDIS", b"VALKE") else "aof"
    except FileNotFoundError:
        raise vanished(origin.base) from None
    return Piece(origin.base, AofFile(f"{appendfilename}.{base.seq}.base.{kind}", base.seq, "b"), origin.base_bytes)


def piece_of(entry: Increment, appendfilename: str, size: t.Optional[int] = None) -> Piece:
    name = f"{appendfilename}.{entry.seq}.incr.aof"
    return Piece(entry.path, AofFile(name, entry.seq, "i"), entry.bytes if size is None else size)


@contextlib.contextmanager
def _opened(entry: Increment) -> t.Iterator[t.BinaryIO]:
    try:
        handle = open_regular(entry.path)
    except FileNotFoundError:
        raise vanished(entry.path) from None
    with handle:
        yield handle


def first_after(entry: Increment, at: int) -> int:
    """Where the commands begin that are later than ``at``."""
    with _opened(entry) as handle:
        for command in commands(handle, (), stamped=True, end=entry.bytes):
            if command.timestamp is not None and command.timestamp > at:
                return command.start
    raise vanished(entry.path)


def command_at(entry: Increment, offset: int) -> t.Optional[tuple[int, t.Optional[int]]]:
    """Where to cut before the command that begins at ``offset`` (within a MULTI: before that), and its own time; None where none begins there."""
    if not 0 <= offset < entry.bytes:
        return None
    with _opened(entry) as handle:
        before = scan_aof(handle, offset)
        handle.seek(offset)
        following = next(iter(commands(handle, end=entry.bytes)), None)
    if following is None:
        return None
    stamp = following.timestamp if following.timestamp is not None else before.timestamp
    if before.open_multi is not None and before.at == offset:
        return before.open_multi, stamp
    return (offset, stamp) if before.ends == "clean" and before.commands_end == offset else None


class _Found(t.NamedTuple):
    """A command that was looked for; ``plain`` commands stood before its end."""

    entry: Increment
    command: Command
    stamp: t.Optional[int]
    plain: int


def find_commands(one: AofSet, names: t.Iterable[str] = DESTROYERS, most: int = 1000) -> list[Spot]:
    """Where commands of these names stand in the increments, the newest last; of more than ``most`` the newest.

    A script or function that does one thing stands there as a plain command; one that does more as MULTI … EXEC. Raises Problem.
    """
    wanted = [name.upper() for name in names]
    found: collections.deque[_Found] = collections.deque(maxlen=most)
    total, stamp = 0, None
    for entry in one.increments:
        if entry.ends == "missing":
            continue
        with _opened(entry) as handle:
            reader = commands(handle, wanted, end=entry.bytes)
            for command in reader:  # an increment takes the time over from the one before
                time = command.timestamp if command.timestamp is not None else stamp
                found.append(_Found(entry, command, time, total + reader.plain))
        total += reader.plain
        if reader.scan and reader.scan.timestamp is not None:
            stamp = reader.scan.timestamp
    return [_spot(one, row, total) for row in found]


def _spot(one: AofSet, row: _Found, total: int) -> Spot:
    entry, command = row.entry, row.command
    behind = sum(later.bytes for later in one.increments if later.seq > entry.seq) + entry.bytes - command.end
    offset = command.start if command.multi is None else command.multi
    return Spot(
        command.name,
        command.args,
        command.database,
        entry.name,
        offset,
        row.stamp,
        total - row.plain,
        behind,
        command.multi is not None,
    )


def behind_torn_transaction(one: AofSet, names: t.Iterable[str]) -> str:
    """The last command of these names that stands behind a MULTI without its EXEC, with its place; empty where none does.

    A server that started on a transaction cut off by a crash writes on behind it, and no start runs any of that.
    """
    last = one.increments[-1] if one.increments else None
    if last is None or last.ends != "truncated" or scan_file(last.path).open_multi is None:
        return ""
    with _opened(last) as handle:
        handle.seek(last.bytes)
        hidden = [f"{command.name} at offset {command.start} of {last.path}" for command in commands(handle, names)]
    return hidden[-1] if hidden else ""


def vanished(path: str) -> Refusal:
    return Refusal("archive_moved", f"{path} was taken away or cut while it was read, as by a rewrite", "files that stay as they are",
                   "run again; archive the AOF first, so that a rewrite does not delete it")  # fmt: skip
