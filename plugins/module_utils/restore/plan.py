# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions before a restore: whether this backup may go to this server, and what that would take."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupManifest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.unread import clearly_less
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = [
    "needed_bytes",
    "predicted_seconds",
    "require_fits",
    "require_let_go",
    "require_not_less",
    "require_role",
    "require_target",
    "require_unwatched",
]


def needed_bytes(manifest: BackupManifest) -> int:
    """Bytes of disk: the staged copy, and what the server writes when it first rewrites it."""
    data = sum(file.size for file in manifest.files if file.path.startswith("data/"))
    return 2 * max(data, 1)


def predicted_seconds(load_seconds: t.Optional[float], info: t.Optional[Info]) -> t.Optional[float]:
    """How long no write is answered: the save of the shutdown, as long as the last one took, and the load as it was when the backup was verified.

    None where the backup was not. ``info`` None: the server is stopped.
    """
    saves = max(info.number("rdb_last_bgsave_time_sec"), 0) if info else 0
    return None if load_seconds is None else round(load_seconds + saves + 1.0, 1)


def require_target(
    manifest: BackupManifest,
    group_name: str,
    slots: t.Sequence[str],
    is_cluster: bool,
) -> None:
    """Whether this server is one that this backup may go to. ``slots`` is what its shard has. Raises Refusal."""
    if manifest.group_name != group_name:
        raise Refusal(
            "wrong_set",
            f"the backup is of the group {manifest.group_name!r}, and lies with those of {group_name!r}",
            "a backup of the group that was named",
            f"set group_name: {manifest.group_name} if that is what you want, and put the backup where it belongs",
        )
    if (is_cluster or manifest.slots) and sorted(manifest.slots) != sorted(slots):
        raise Refusal(
            "slots_differ",
            f"the backup holds slots {' '.join(manifest.slots) or 'of no cluster'}, and this server has {' '.join(slots) or 'none'}",
            "the shard that the backup is of",
            "restore each shard's backup to the server that has its slots; move slots back first (redis_cluster)",
        )


def require_role(follower: str) -> None:
    """Whether what is brought to this server would stay; in words, empty where nothing makes it a replica. Raises Refusal."""
    if follower:
        raise Refusal(
            "is_replica",
            f"this server is a replica ({follower}): it would throw away what is restored and copy its primary again",
            "the primary of the group",
            "restore on the primary; its replicas follow",
        )


def require_unwatched(watched: str, plan: t.Mapping[str, t.Any]) -> None:
    """Whether nobody promotes a replica meanwhile; in words, empty where nobody does. Asked last: a look that comes before Sentinels rest has
    been told all else by then, and ``plan`` comes with the refusal. Raises Refusal."""
    if watched:
        raise Refusal(
            "primary_is_watched",
            f"{watched}: while it is restored a replica with the present data would be promoted, and what is restored would be thrown away",
            "Sentinels that rest, and replicas of a cluster that are held",
            "run the playbook redisops.recovery.restore (in a cluster restore_cluster), which stops or holds them first and lets them go last",
            plan=dict(plan),
        )


def require_not_less(chosen: BackupManifest, earlier: t.Mapping[str, int], now: t.Optional[int]) -> None:
    """A backup that nobody named may not have far fewer keys than an earlier one (label → keys), or than the live server. Raises Refusal."""
    had = {**earlier, **({"the server now": now} if now is not None else {})}
    most = max(had, key=lambda name: had[name], default="")
    if not most or not clearly_less(chosen.total_keys, had[most]):
        return
    raise Refusal(
        "backup_has_less",
        f"{chosen.label} is the newest verified backup and has {chosen.total_keys} keys, and {most} has {had[most]}: it may be of a server that had "
        "lost its data",
        "your word on which backup is wanted",
        f"name it: backup: {chosen.label}, or an earlier one (redis_backup_info lists them)",
    )


def require_fits(
    manifest: BackupManifest,
    disk_free: int,
    memory: t.Optional[int],
    memory_in_use: int,
    maxmemory: int,
    test_load: bool,
) -> None:
    """Room on the disk and in memory, with figures. ``memory`` is what processes can still be given; bytes, all. Raises Refusal."""
    needed = needed_bytes(manifest)
    if disk_free < needed:
        raise Refusal(
            "disk_space",
            f"{disk_free} bytes are free where the data goes",
            f"{needed} bytes (twice the backup's data); what is there now is kept",
            "make room, or have a larger disk",
        )
    wanted = manifest.used_memory * 11 // 10
    have = None if memory is None else memory + (0 if test_load else memory_in_use)
    if have is not None and have < wanted:
        raise Refusal(
            "memory",
            f"the backup takes about {wanted} bytes of memory to load, and {have} can be had",
            "memory for it"
            + (" next to the running server, since it is loaded once before that one is stopped" if test_load else ""),
            "add memory" + (", or set test_load: false, which loads it only where it goes" if test_load else ""),
        )
    if maxmemory and maxmemory < manifest.used_memory:
        raise Refusal(
            "maxmemory_too_small",
            f"maxmemory is {maxmemory}, and the backup took {manifest.used_memory} bytes: keys would be evicted as soon as it is loaded",
            "a maxmemory that holds the backup",
            "raise maxmemory first (redis_config)",
        )


class Kept(t.Protocol):
    """What is asked of a rollback copy before it is removed."""

    path: str
    swapped: bool
    stays: bool
    finished: bool


def require_let_go(found: t.Sequence[Kept], running: bool) -> None:
    """What was live before may be deleted: the server runs, and was seen to run with what replaced it. Raises Refusal."""
    doubtful = [one.path for one in found if not one.finished and (one.swapped or one.stays)]
    if doubtful:
        raise Refusal(
            "not_finished",
            f"{doubtful[0]} holds what was live before, and the server was never seen to run with what replaced it (or its journal is damaged)",
            "a server that was seen to run with what was brought",
            "run redis_repair, which ends a restore that was cut off; or look at the directory, and remove it yourself",
        )
    if found and not running:
        raise Refusal(
            "not_running",
            f"the server is stopped, and {found[-1].path} may be the only other data",
            "a server that runs",
            "start it, look at its data, then run again",
        )
