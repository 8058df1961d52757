# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's data was at a moment, or right before an accident, out of its AOF's archive."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive_dirs, set_of, sets
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.collect import DESTROYERS, Spot, find_commands
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.cut import Cut, stage_at, stage_before
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, choose
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Point", "archive_of", "before_flush", "frozen", "to_moment"]

_REWRITES = "auto-aof-rewrite-percentage"


@dataclasses.dataclass(frozen=True)
class Point:
    """``make`` puts the AOF of that moment into a new directory. ``label`` names it, ``plan`` says what it means, ``bytes`` it takes."""

    label: str
    plan: t.Mapping[str, t.Any]
    bytes: int
    make: t.Callable[[str, Place, tuple[int, int]], Cut]


@contextlib.contextmanager
def frozen(server: t.Optional[Server], timeout: float) -> t.Iterator[None]:
    """No rewrite begins meanwhile, and none runs: it would take away the archive that is looked for. What was set is set again."""
    if server is None:
        yield
        return
    before = server.config_get(_REWRITES)[_REWRITES]
    server.config_set({_REWRITES: "0"})
    try:
        if not wait_for(lambda: _idle(server.info("persistence")), timeout):
            raise Problem(
                "rewrite_timeout",
                f"the AOF rewrite is still running after {timeout:g} seconds",
                "",
                "set a longer timeout",
            )
        yield
    finally:
        with contextlib.suppress(Problem):  # the server may have been restarted, and has it from its file
            server.config_set({_REWRITES: before})


def _idle(info: Info) -> bool:
    return not (info.flag("aof_rewrite_in_progress") or info.flag("aof_rewrite_scheduled"))


def _settled(info: Info) -> bool:
    return not info.number("aof_buffer_length")


def archive_of(place: Place, server: t.Optional[Server], store: Store, folders: t.Sequence[str]) -> list[AofSet]:
    """The live AOF, what was kept of earlier ones next to it and in ``folders``, and what the backups hold. Raises Problem."""
    seen: t.Optional[int] = None
    if server and wait_for(lambda: _settled(server.info("persistence")), 5.0):
        seen = int(time.time()) - 1
    elif server is None:
        seen = int(time.time())
    found = [set_of(place.aof_dir, seen)] if os.path.isfile(place.manifest) else []
    own = archive_dirs(place)
    for folder in [
        *([own] if os.path.isdir(own) else []),
        *(one for one in folders if os.path.realpath(one) != os.path.realpath(own)),
    ]:
        found += sets(folder)
    for backup in store.all():
        if backup.manifest and backup.manifest.data.endswith(".manifest"):
            found.append(
                set_of(
                    os.path.dirname(os.path.join(backup.directory, backup.manifest.data)), int(backup.manifest.taken_at)
                )
            )
    return found


def _size(one: AofSet) -> int:
    return (one.base_bytes or 0) + sum(entry.bytes for entry in one.increments)


def to_moment(archive: t.Sequence[AofSet], at: int, host: Host) -> Point:
    """The data as it was at the end of second ``at``. Raises Refusal, with the ranges that exist."""
    chain = choose(archive, at)
    plan = {"to_time": at, "base_at": chain.origin.base_at, "increments": len(chain.increments)}
    size = (chain.origin.base_bytes or 0) + sum(entry.bytes for entry in chain.increments)
    return Point(
        f"second {at}",
        plan,
        size,
        lambda target, place, owner: stage_at(archive, at, target, place.appendfilename, host, owner),
    )


def _newest(archive: t.Sequence[AofSet]) -> tuple[AofSet, Spot]:
    """The last command that took everything away, or a whole database, in what is known. Raises Refusal."""
    for one in sorted(archive, key=lambda found: found.base_at, reverse=True):
        spots = find_commands(one, DESTROYERS)
        if spots:
            return one, spots[-1]
    raise Refusal(
        "no_flush",
        f"there is no {', '.join(DESTROYERS)} in the archive of the AOF that is there",
        "the AOF in which the accident stands",
        "if a rewrite came after it: name the directory of the kept archive, or restore a backup, or name to_time",
    )


def before_flush(archive: t.Sequence[AofSet], host: Host) -> Point:
    """The data right before the newest FLUSHALL, FLUSHDB or SWAPDB, to the byte. Raises Refusal."""
    one, spot = _newest(archive)
    plan = {
        "command": spot.name,
        "at": spot.at,
        "database": spot.database,
        "increment": spot.increment,
        "offset": spot.offset,
        "commands_after": spot.commands_after,
        "bytes_after": spot.bytes_after,
    }
    return Point(
        f"before {spot.name} at offset {spot.offset} of {spot.increment}",
        plan,
        _size(one),
        lambda target, place, owner: stage_before(
            one, (spot.increment, spot.offset), target, place.appendfilename, host, owner
        ),
    )
