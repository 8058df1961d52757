# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore: verified, staged, test-loaded, swapped, started, looked at; or undone."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.expiries import gone_by
from ansible_collections.redisops.recovery.plugins.module_utils.backup.identity import identity_of, require_own_backup
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.backup.verify import compare, read_sample
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import unread_changes
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import (
    RollbackCopy,
    rollback_copies,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import Loaded, memory_available
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.unread import clearly_less
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.recover import Point
from ansible_collections.redisops.recovery.plugins.module_utils.restore import plan as restore_plan
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import (
    Target,
    require_plain,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.exchange import (
    Done,
    start_again,
    swap_and_start,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.open_rollback_copy import (
    OpenRollbackCopy,
    begin,
    reopened,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import (
    Staging,
    check_staged,
    discard,
    note,
    require_exchange,
    require_something,
    stage,
    turn,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import release_of

__all__ = [
    "bring",
    "bring_point",
    "cut_off",
    "kept_changes",
    "put_back",
    "require_backup_fits",
    "require_point_fits",
    "require_put_back",
    "resume",
]


def _require_target(target: Target) -> None:
    """What every way of bringing data asks of the server that it is brought to. Raises Refusal."""
    restore_plan.require_role(target.follower)
    require_plain(target)
    require_exchange(target.place.dir)


def kept_changes(target: Target) -> list[Change]:
    """What is kept before the server is stopped, since its shutdown saves."""
    if not target.instance.running:
        return []
    return unread_changes(target.host, target.instance.info, scan(target.place))


def _limit(target: Target, name: str) -> int:
    """A limit as it may come to be: the smaller of live and file, since the next start takes the file's; 0 where there is none."""
    instance = target.instance
    stated = [int(value) for value in (instance.value(name), instance.in_file(name)) if value and value.isdigit()]
    return min((one for one in stated if one), default=0)


def _databases(target: Target) -> str:
    """How many databases the next start has."""
    return target.instance.in_file("databases") or "16"


def _identity(target: Target) -> dict[str, str]:
    """Which server it is that is restored, by what runs or by its file."""
    instance, names = target.instance, ("port", "tls-port", "unixsocket", "dir")
    live = instance.live or {name: instance.in_file(name) or "" for name in names}
    return {"config_file": instance.path, **identity_of(instance.info, live, socket.gethostname())}


def require_backup_fits(
    target: Target, backup: Backup, group_name: str, test_load: bool, allow_other_server: bool = False
) -> dict[str, t.Any]:
    """Everything that can be reported before anything is touched. Gives the plan. Raises Problem or Refusal."""
    manifest, instance = backup.manifest, target.instance
    if not allow_other_server:
        require_own_backup(manifest, _identity(target))
    differences = verify_files(backup.directory, manifest)
    if differences:
        raise Refusal(
            "backup_damaged",
            f"{backup.label} is not as it was written: {'; '.join(differences[:5])}",
            "a whole backup",
            "use another one, or fetch this one again from a repository",
        )
    info = instance.info if instance.running else None
    is_cluster = (instance.value("cluster-enabled") or "no") == "yes"
    restore_plan.require_target(manifest, group_name, target.slots, is_cluster)
    _require_target(target)
    databases = int(_databases(target))
    highest = max(map(int, manifest.keys), default=0)
    if highest >= databases:
        raise Refusal(
            "databases",
            f"the backup has keys in database {highest}, and the server has {databases} databases",
            f"at least {highest + 1}",
            "raise databases first (redis_config)",
        )
    space = os.statvfs(target.place.dir)
    memory = memory_available(target.host.read("/proc/meminfo") or "")
    used = info.number("used_memory_rss") if info else 0
    restore_plan.require_fits(
        manifest, space.f_bavail * space.f_frsize, memory, used, _limit(target, "maxmemory"), test_load
    )
    plan = {
        "backup": backup.label,
        "taken_at": manifest.taken_at,
        "bytes": manifest.bytes,
        "keys": manifest.total_keys,
        "keys_expired": gone_by(backup.proof.get("expiries"), time.time()),
        "memory": manifest.used_memory,
        "disk": restore_plan.needed_bytes(manifest),
        "form": "aof" if target.aof else "rdb",
        "replaces": target.keys_text,
        "seconds_away": restore_plan.predicted_seconds(backup.proof.get("load_seconds"), info),
    }
    restore_plan.require_unwatched(target.watched, plan)
    return plan


def bring(target: Target, backup: Backup, test_load: bool) -> Done:
    """Restore; what can be verified was verified. Raises Problem: then the server runs on its own data."""
    manifest, release = backup.manifest, release_of(target.instance)
    came: t.Optional[int] = None if manifest.slack else manifest.total_keys

    def look(copy: Loaded) -> None:
        nonlocal came
        differences = compare(copy, manifest, read_sample(backup.directory, manifest), (), time.time())
        known = backup.proof.get("digest")
        if known and known != copy.digest:
            differences.append("its digest is not the one that it was verified with")
        if differences:
            raise Problem(
                "staged_differs",
                f"what was staged of {backup.label} is not what was backed up: {'; '.join(differences[:5])}",
                "a copy that is right",
                "look at the memory and disk of this host; nothing live was touched",
            )
        came = copy.info.keys

    def fill(opened: OpenRollbackCopy) -> None:
        data = os.path.join(backup.directory, manifest.data)
        stage(data, Staging(opened, target.aof, target.owner, backup.label, target.timeout, release))
        if test_load:
            check_staged(opened, target.aof, target.timeout, release, look)

    with begin(target.place, time.time()) as opened:
        _fill(opened, fill)
        return swap_and_start(target, opened, target.aof, came)


def _fill(opened: OpenRollbackCopy, fill: t.Callable[[OpenRollbackCopy], None]) -> None:
    """Stage and verify; what failed before anything live was touched leaves nothing on the disk. Raises what ``fill`` does."""
    try:
        fill(opened)
    except BaseException:
        with contextlib.suppress(OSError):  # what failed is what is told
            discard(opened.path)
        raise


def require_point_fits(target: Target, point: Point) -> dict[str, t.Any]:
    """As require_backup_fits, for data of the server's own archive. Gives the plan. Raises Refusal."""
    _require_target(target)
    if not target.aof:
        raise Refusal(
            "aof_off",
            "the server's AOF is off, so there is no archive to go back in",
            "appendonly yes, at that time",
            "restore a backup",
        )
    space = os.statvfs(target.place.dir)
    free = space.f_bavail * space.f_frsize
    if free < 2 * point.bytes:
        raise Refusal(
            "disk_space",
            f"{free} bytes are free where the data goes",
            f"{2 * point.bytes} bytes (twice what is put together); what is there now is kept",
            "make room, or have a larger disk",
        )
    plan = {**point.plan, "bytes": point.bytes, "replaces": target.keys_text}
    restore_plan.require_unwatched(target.watched, plan)
    return plan


def bring_point(target: Target, point: Point) -> Done:
    """Go back to a point of the AOF's archive; it is loaded next to the running server first. Raises Problem: then nothing was changed."""
    came: list[int] = []

    def fill(opened: OpenRollbackCopy) -> None:
        point.make(os.path.join(opened.at, os.path.basename(target.place.aof_dir)), target.place, target.owner)
        note(opened, True, point.label)
        check_staged(
            opened, True, target.timeout, release_of(target.instance), lambda copy: came.append(copy.info.keys)
        )
        if point.had and clearly_less(came[0], point.had):
            raise Refusal(
                "staged_has_less",
                f"what was put together ({point.label}) loads, and has {came[0]} keys; there were {point.had}",
                "your word on whether that is the data",
                "look at the other methods, and name the one that is wanted",
            )

    with begin(target.place, time.time()) as opened:
        _fill(opened, fill)
        return swap_and_start(target, opened, True, came[0])


def cut_off(target: Target) -> str:
    """The rollback copy of a run that swapped the data in and was cut off before the server was seen to run; empty where there is none."""
    found = [one for one in rollback_copies(target.place) if one.label]
    last = found[-1] if found and not target.instance.running else None
    return last.path if last and last.swapped and not last.finished else ""


def resume(target: Target, rollback_copy: str) -> Done:
    """End a run that was cut off: start the server. Raises Problem."""
    with reopened(target.place, rollback_copy) as opened:
        return start_again(target, opened)


def require_put_back(target: Target, rollback_copy: RollbackCopy) -> None:
    """What was replaced may be put back: asked in check mode too. Raises Refusal."""
    _require_target(target)
    require_something(rollback_copy, target.place)
    if rollback_copy.aof != target.aof:
        holds, reads = ("an AOF" if one else "an RDB file" for one in (rollback_copy.aof, target.aof))
        raise Refusal(
            "form_differs",
            f"what {rollback_copy.path} holds is {holds}, and the server now reads {reads}",
            "appendonly as it was then",
            f"set appendonly {'yes' if rollback_copy.aof else 'no'} first (redis_persistence)",
        )
    restore_plan.require_unwatched(target.watched, {"backup": rollback_copy.label, "from": rollback_copy.path})


def put_back(target: Target, rollback_copy: RollbackCopy) -> Done:
    """Put back what a restore replaced. Raises Problem."""
    require_put_back(target, rollback_copy)
    with reopened(target.place, rollback_copy.path) as opened:
        turn(opened, rollback_copy)
        return swap_and_start(target, opened, rollback_copy.aof, None)
