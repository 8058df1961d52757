# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's data was at a moment, or right before an accident, out of its AOF's archive."""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import rollback_copies
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import (
    archive_dirs,
    base_second,
    homes,
    set_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.collect import (
    DESTROYERS,
    Spot,
    behind_torn_transaction,
    find_commands,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.cut import Cut, stage_at, stage_before
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, chains, choose
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Archive", "Point", "archive_of", "before_flush", "to_moment"]


@dataclasses.dataclass(frozen=True)
class Point:
    """``make`` puts the AOF of that moment into a new directory. ``label`` names it, ``plan`` says what it means, ``bytes`` it takes.

    ``had``: it may not have far fewer keys than this, since nobody gave a word for that.
    """

    label: str
    plan: t.Mapping[str, t.Any]
    bytes: int
    make: t.Callable[[str, Place, tuple[int, int]], Cut]
    had: int = 0


def _settled(info: Info) -> bool:
    return not info.number("aof_buffer_length")


@dataclasses.dataclass(frozen=True)
class Archive:
    """Where sets lie, and up to which second each is known to hold all commands. ``live`` is the server's own AOF, empty where there is none.

    ``replaced_at``: when a restore last put other data in the place of the server's, as its rollback copy shows; 0 where none lies there.
    """

    places: tuple[tuple[str, t.Optional[int]], ...]
    live: str = ""
    replaced_at: float = 0.0

    def all(self) -> list[AofSet]:
        """Every set. Raises Problem."""
        return [set_of(*place) for place in self.places]

    def newest_first(self) -> t.Iterator[AofSet]:
        """One set after the other; what is not asked for is not read. Raises Problem."""
        rows = [(base_second(directory), directory == self.live, directory, seen) for directory, seen in self.places]
        for _base_at, _live, directory, seen in sorted(rows, key=lambda row: row[:3], reverse=True):
            yield set_of(directory, seen)


def _replaced_at(place: Place) -> float:
    """When a restore last exchanged the server's AOF for what it had staged, seconds since 1970; 0 where no rollback copy tells."""
    # What was live lies there now: the rename set its time.
    aside = [one.staged(place) for one in rollback_copies(place) if one.swapped and one.aof]
    return max((os.lstat(path).st_ctime for path in aside if os.path.lexists(path)), default=0.0)


def archive_of(
    place: Place, server: t.Optional[Server], store: Store, folders: t.Sequence[str], live: str = ""
) -> Archive:
    """The live AOF, what was kept of earlier ones next to it and in ``folders``, and what the backups hold. Raises Problem.

    ``live``: a directory with links to the live AOF, where a rewrite must not take it away while it is read.
    """
    seen: t.Optional[int] = None
    if server and wait_for(lambda: _settled(server.info("persistence")), 5.0):
        seen = int(time.time()) - 1
    elif server is None:
        seen = int(time.time())
    live = live or (place.aof_dir if os.path.isfile(place.manifest) else "")
    found = [(live, seen)] if live else []
    own = archive_dirs(place)
    for folder in [
        *([own] if os.path.isdir(own) else []),
        *(one for one in folders if os.path.realpath(one) != os.path.realpath(own)),
    ]:
        found += [(home, None) for home in homes(folder)]
    for backup in store.all():
        if backup.manifest and backup.manifest.data.endswith(".manifest"):
            data = os.path.dirname(os.path.join(backup.directory, backup.manifest.data))
            found.append((data, int(backup.manifest.taken_at)))
    return Archive(tuple(found), live, _replaced_at(place))


def _size(one: AofSet) -> int:
    return (one.base_bytes or 0) + sum(entry.bytes for entry in one.increments)


def to_moment(archive: Archive, at: int, host: Host) -> Point:
    """The data as it was at the end of second ``at``. Raises Refusal, with the ranges that exist."""
    known = archive.all()
    chain = choose(known, at)
    plan = {"to_time": at, "base_at": chain.origin.base_at, "increments": len(chain.increments)}
    size = (chain.origin.base_bytes or 0) + sum(entry.bytes for entry in chain.increments)
    return Point(
        f"second {at}",
        plan,
        size,
        lambda target, place, owner: stage_at(known, at, target, place.appendfilename, host, owner),
    )


#: Between the line that says when data came and the exchange itself.
_EXCHANGE_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class _Accident:
    """The command, the set that it stands in, and the sets that are newer than that, newest first."""

    one: AofSet
    spot: Spot
    newer: t.Sequence[AofSet]


def _is_replaced(archive: Archive, one: AofSet, since: int) -> bool:
    """Whether a restore has put other data in the place of what this set holds: ``since`` is the newest that a set tells of."""
    brought = one.brought.since if one.brought and one.brought.since else 0
    if one.directory == archive.live:
        return False
    return one.base_at < since or (
        one.base_at < archive.replaced_at and brought < archive.replaced_at - _EXCHANGE_SECONDS
    )


def _of_now(one: AofSet, spots: t.Sequence[Spot]) -> list[Spot]:
    """Those that were run since a restore last brought the data: what stands before that was chosen then."""
    begins = one.brought.seq if one.brought else 0
    fresh = {entry.name for entry in one.increments if entry.seq >= begins}
    return [spot for spot in spots if spot.increment in fresh]


def _newest(archive: Archive, names: t.Sequence[str]) -> _Accident:
    """The last command that took everything away, or a whole database, and that no restore has undone. Raises Refusal."""
    newer: list[AofSet] = []
    since, undone = 0, ""
    for one in archive.newest_first():
        hidden = behind_torn_transaction(one, names)
        if hidden and not newer:
            raise _torn(hidden)
        spots = find_commands(one, names)
        replaced = _is_replaced(archive, one, since)
        fresh = [] if replaced else _of_now(one, spots)
        if fresh:
            return _Accident(one, fresh[-1], newer)
        if spots and not undone:
            undone = (
                f"{spots[-1].name} at offset {spots[-1].offset} of {os.path.join(one.directory, spots[-1].increment)}"
            )
        since = max(since, one.brought.since if one.brought and one.brought.since else 0)
        newer.append(one)
    if undone:
        raise _already_undone(undone, max(since, int(archive.replaced_at)))
    raise Refusal(
        "no_flush",
        f"there is no {', '.join(names)} in the archive of the AOF that is there",
        "the AOF in which the accident stands",
        "if a rewrite came after it: name the directory of the kept archive, or restore a backup, or name to_time",
    )


def _already_undone(spot: str, at: int) -> Refusal:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    return Refusal(
        "flush_already_undone",
        f"the newest is {spot}, and since then, at {moment}, a restore has put other data in its place: it is already undone",
        "a FLUSHALL, FLUSHDB or SWAPDB that was run since",
        f"nothing, if that accident was meant: what was written since {moment} would be lost. An older moment has to be named by to_time",
    )


def _torn(hidden: str) -> Refusal:
    return Refusal(
        "flush_in_torn_transaction",
        f"{hidden} stands behind a MULTI without its EXEC, as a crash leaves it: no start runs what stands there",
        "an AOF whose transactions are whole, up to the accident",
        "name to_time, or restore a backup. What was written behind that MULTI before the accident is in that file only: keep a copy of it",
    )


def _lost(archive: Archive, found: _Accident) -> tuple[t.Optional[int], t.Optional[int], int]:
    """Commands and bytes behind the accident in its set and all that follow it, and how many rewrites lie between; None where that is not known."""
    one, spot = found.one, found.spot
    if one.directory == archive.live:
        return spot.commands_after, spot.bytes_after, 0
    sets = [one, *found.newer]
    chain = next(row for row in chains(sets) if row.origin is one)
    live = next((row for row in found.newer if row.directory == archive.live), None)
    last = chain.increments[-1] if chain.increments else None
    own = {entry.seq: entry for entry in one.increments}
    ends = live.increments[-1] if live and live.increments else None
    if not (chain.whole and last and ends and (last.seq, last.bytes) == (ends.seq, ends.bytes)):
        return None, None, len(found.newer)
    # a set that was kept during its rewrite already has the beginning of what follows
    more = [
        (
            entry.plain - (own[entry.seq].plain if entry.seq in own else 0),
            entry.bytes - (own[entry.seq].bytes if entry.seq in own else 0),
        )
        for entry in chain.increments
    ]
    rewrites = (
        (live.manifest.base.seq - one.manifest.base.seq) if live and live.manifest.base and one.manifest.base else 0
    )
    return (
        spot.commands_after + sum(max(row[0], 0) for row in more),
        spot.bytes_after + sum(max(row[1], 0) for row in more),
        rewrites,
    )


def before_flush(archive: Archive, host: Host, renamed: t.Optional[t.Mapping[str, str]] = None) -> Point:
    """The data right before the newest FLUSHALL, FLUSHDB or SWAPDB that was not undone, to the byte. Raises Refusal.

    ``renamed``: other names of commands → their own, by ``rename-command``: Redis writes what the client said. In the plan ``commands_after`` and
    ``bytes_after`` are all that goes with it, in later sets as well; None where a rewrite in between was not kept.
    """
    own_names = {name.upper(): name for name in DESTROYERS}
    own_names.update({other.upper(): name for other, name in (renamed or {}).items() if name in DESTROYERS})
    found = _newest(archive, tuple(own_names))
    one, spot = found.one, found.spot
    commands_after, bytes_after, rewrites = _lost(archive, found)
    plan = {
        "command": own_names.get(spot.name, spot.name),
        "at": spot.at,
        "database": spot.database,
        "increment": spot.increment,
        "offset": spot.offset,
        "commands_after": commands_after,
        "bytes_after": bytes_after,
        "rewrites_after": rewrites,
    }
    return Point(
        f"before {spot.name} at offset {spot.offset} of {spot.increment}",
        plan,
        _size(one),
        lambda target, place, owner: stage_before(
            one, (spot.increment, spot.offset), target, place.appendfilename, host, owner
        ),
    )
