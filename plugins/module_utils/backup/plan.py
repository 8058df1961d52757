# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions before a backup: who gives it, by which method, and whether the host can bear it."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import View
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = [
    "METHODS",
    "Room",
    "choose_method",
    "choose_source",
    "own_shard",
    "require_data_age",
    "require_room",
    "require_unharmed",
]

#: ``rdb``: BGSAVE and a copy. ``aof``: base and increments of the multi-part AOF. ``stream``: redis-cli --rdb, from another host as well.
METHODS = ("rdb", "aof", "stream")


class Room(t.NamedTuple):
    """Bytes: free where the backup goes, free where Redis saves (None: it does not save), memory that can be had."""

    store_free: int
    data_free: t.Optional[int]
    memory: t.Optional[int]


def choose_method(wanted: str, info: Info) -> str:
    """The method for ``auto``: a snapshot, since its numbers are exact and its file carries a checksum. Raises Problem."""
    if wanted == "aof" and not info.flag("aof_enabled"):
        raise Problem(
            "aof_off",
            "method aof was asked for, and the server's AOF is off",
            "appendonly yes",
            "set method: rdb, or turn the AOF on",
        )
    return "rdb" if wanted == "auto" else wanted


def own_shard(views: t.Sequence[View], own: str) -> list[View]:
    """Of the nodes of a cluster those that have the data of ``own``; everybody of a group without cluster."""
    mine = next((view for view in views if view.address == own), None)
    if mine is None or not mine.cluster:
        return list(views)
    primary = mine.upstream if mine.role == "replica" else own
    return [view for view in views if primary in (view.address, view.upstream)]


def choose_source(views: t.Sequence[View], max_behind: int, max_lag: int) -> tuple[str, str]:
    """Which server of a group gives the backup, and why: a replica that is linked and caught up, by name, else the primary.

    Every member comes to the same answer by itself. ``max_behind`` in bytes, ``max_lag`` in seconds. Raises Problem.
    """
    primaries = [view for view in views if view.role == "primary"]
    if len(primaries) != 1:
        raise Problem(
            "unknown_primary",
            f"{len(primaries)} primaries answer of {', '.join(view.address for view in views)}",
            "one primary, seen by this host",
            "see to the group first (role redis_replication), or take the backup without group_hosts",
        )
    primary = primaries[0]
    reasons = []
    heard = {replica.address: replica for replica in primary.replicas}
    for view in sorted(views, key=lambda one: one.address):
        if view is primary:
            continue
        seen = heard.get(view.address)
        behind = primary.offset - (seen.offset if seen else view.offset)
        if view.role != "replica":
            reasons.append(f"{view.address} does not answer")
        elif not view.link_up:
            reasons.append(f"the link of {view.address} is down")
        elif behind > max_behind:
            reasons.append(f"{view.address} is {behind} bytes behind")
        elif seen and seen.lag > max_lag:
            reasons.append(f"{view.address} was silent for {seen.lag} s")
        else:
            return view.address, f"a replica whose link is up, {max(behind, 0)} bytes behind"
    return primary.address, "the primary, since " + ("; ".join(reasons) if reasons else "it has no replica")


def require_room(info: Info, method: str, last_bytes: int, room: Room, headroom_percent: int) -> None:
    """Room for two copies of the data set, and memory for what is written during a fork. Raises Refusal, with the figures."""
    dataset = max(last_bytes, 1)
    needed = 2 * dataset
    places = [("where backups are kept", room.store_free)]
    if method == "rdb" and room.data_free is not None:
        places.append(("where Redis saves", room.data_free))
    for where, free in places:
        if free < needed:
            raise Refusal(
                "disk_space",
                f"{free} bytes are free {where}, and the data set takes about {dataset}",
                f"{needed} bytes (twice the data set)",
                "make room, or name another directory",
            )
    used = info.number("used_memory")
    copied = used * headroom_percent // 100
    if method != "aof" and room.memory is not None and room.memory < copied:
        raise Refusal(
            "fork_memory",
            f"Redis uses {used} bytes, and {room.memory} bytes of memory and swap can be had",
            f"{copied} bytes ({headroom_percent} %) for what is written while the child saves",
            "take the backup from a replica, add memory, or lower fork_headroom_percent",
        )


def require_unharmed(info: Info) -> None:
    """A server whose last save or AOF write failed gives no backup that is worth its name. Raises Refusal."""
    if info.text("aof_last_write_status", "ok") != "ok":
        raise Refusal(
            "aof_write_failed",
            "aof_last_write_status is not ok: Redis could not write its AOF",
            "a server that can write",
            "see to its disk first (df, the server's log)",
        )


def require_data_age(info: Info) -> int:
    """How many seconds old the newest write is that this server can have: 0 of a primary, and of a replica whose link is up.

    Raises Refusal where that is not known: a replica that is being given its data, or has not had a link since it started.
    """
    if info.text("role") != "slave":
        return 0
    if info.flag("master_sync_in_progress"):
        raise Refusal(
            "replica_syncing",
            "this replica is being given its data by its primary",
            "a replica that has it",
            "wait until master_sync_in_progress is 0 (redis-cli INFO replication), or take the backup from the primary",
        )
    if info.text("master_link_status") == "up":
        return 0
    down = info.number("master_link_down_since_seconds", -1)
    if down < 0:
        raise Refusal(
            "replica_not_linked",
            "this replica has had no link to its primary since it started: how old its data is, is not known",
            "a replica whose link was up, so that the backup can be dated",
            "see to the link (redis-cli INFO replication, the server's log), take the backup from the primary, or promote this one",
        )
    return down
