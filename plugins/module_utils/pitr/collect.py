# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cut is made of: the pieces of an AOF, and where in them the commands lie that one may want to undo."""

from __future__ import annotations

import collections
import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import (
    FRAME,
    Command,
    commands,
    scan_aof,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import open_regular
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, Increment

__all__ = ["DESTROYERS", "Piece", "Spot", "base_piece", "find_commands", "piece_of", "vanished"]

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
        with open_regular(path) as handle:
            found = scan_aof(handle)
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


def _walk(entry: Increment) -> t.Iterator[Command]:
    """The commands of an increment that a server runs."""
    try:
        with open_regular(entry.path) as handle:
            for command in commands(handle):
                if command.end > entry.bytes:
                    return
                yield command
    except FileNotFoundError:
        raise vanished(entry.path) from None


def first_after(entry: Increment, at: int) -> int:
    """Where the commands begin that are later than ``at``."""
    for command in _walk(entry):
        if command.timestamp is not None and command.timestamp > at:
            return command.start
    raise vanished(entry.path)


def commands_of(one: AofSet) -> t.Iterator[tuple[Increment, Command, t.Optional[int]]]:
    """Every command of a group with the time in force, which an increment takes over from the one before."""
    stamp: t.Optional[int] = None
    for entry in one.increments:
        for command in _walk(entry) if entry.ends != "missing" else ():
            stamp = command.timestamp if command.timestamp is not None else stamp
            yield entry, command, stamp


def find_commands(one: AofSet, names: t.Iterable[str] = DESTROYERS, most: int = 1000) -> list[Spot]:
    """Where commands of these names stand in the increments, the newest last; of more than ``most`` the newest.

    A script or function that does one thing stands there as a plain command; one that does more as MULTI … EXEC. Raises Problem.
    """
    wanted = {name.upper() for name in names}
    found: collections.deque[tuple[Increment, Command, t.Optional[int], int]] = collections.deque(maxlen=most)
    total = 0
    for entry, command, stamp in commands_of(one):
        total += command.name not in FRAME
        if command.name in wanted:
            found.append((entry, command, stamp, total))
    spots = []
    for entry, command, stamp, before in found:
        behind = sum(later.bytes for later in one.increments if later.seq > entry.seq) + entry.bytes - command.end
        offset = command.start if command.multi is None else command.multi
        spots.append(
            Spot(
                command.name,
                command.args,
                command.database,
                entry.name,
                offset,
                stamp,
                total - before,
                behind,
                command.multi is not None,
            )
        )
    return spots


def vanished(path: str) -> Refusal:
    return Refusal("archive_moved", f"{path} was taken away or cut while it was read, as by a rewrite", "files that stay as they are",
                   "run again; archive the AOF first, so that a rewrite does not delete it")  # fmt: skip
