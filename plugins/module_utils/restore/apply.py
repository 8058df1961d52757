# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore: verified, staged, test-loaded, swapped, started, looked at; or undone."""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.backup.test_load import Loaded, memory_available
from ansible_collections.redisops.recovery.plugins.module_utils.backup.verify import compare, read_sample
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.recover import Point
from ansible_collections.redisops.recovery.plugins.module_utils.restore import plan as restore_plan
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import (
    Target,
    require_harmless_stop,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.rollback_copy import (
    RollbackCopy,
    rollback_copies,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import (
    Staging,
    begin,
    check_staged,
    finish,
    note,
    require_exchange,
    say_now,
    stage,
    swap,
    turn,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, Keyspace
from ansible_collections.redisops.recovery.plugins.module_utils.service.apply import pause_writes, start_server
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["Done", "bring", "bring_point", "cut_off", "put_back", "require_backup_fits", "require_point_fits", "resume"]

#: What lets the primary guard pass once: the data that a restore brings may well be less than what a replica holds.
_GUARD, _PASS = "/etc/redisops/primary-guard.json", "/run/redisops/start-without-data"


@dataclasses.dataclass(frozen=True)
class Done:
    """``seconds``: how long the server was away. ``kept`` is the directory with what was there before."""

    kept: str
    seconds: float
    keys: int


def require_backup_fits(target: Target, backup: Backup, group_name: str, test_load: bool) -> dict[str, t.Any]:
    """Everything that can be reported before anything is touched. Gives the plan. Raises Problem or Refusal."""
    manifest, instance = backup.manifest, target.instance
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
    require_harmless_stop(target)
    restore_plan.require_target(manifest, group_name, target.slots, is_cluster, info, target.watched)
    databases = int(instance.value("databases") or 16)
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
        manifest, space.f_bavail * space.f_frsize, memory, used, int(instance.value("maxmemory") or 0), test_load
    )
    require_exchange(target.place.dir)
    return {
        "backup": backup.label,
        "taken_at": manifest.taken_at,
        "bytes": manifest.bytes,
        "keys": manifest.total_keys,
        "memory": manifest.used_memory,
        "disk": restore_plan.needed_bytes(manifest),
        "form": "aof" if target.aof else "rdb",
        "replaces": target.keys_text,
        "seconds_away": restore_plan.predicted_seconds(backup.proof.get("load_seconds")),
    }


def _stop(target: Target) -> None:
    """Let the server end, with all that it acknowledged on disk: it is what one may want to go back to."""
    if target.instance.server:
        pause_writes(target.instance.server, lambda _info: None, target.timeout)
        target.instance.server.close()
    systemctl(target.host, "stop", f"{target.unit}.service", timeout=target.timeout)
    left = target.host.servers_in(target.place.dir)
    if left:
        raise Problem(
            "still_running",
            f"process {left[0]} still works in {target.place.dir} after {target.unit} was stopped",
            "a server that is stopped",
            "see what started it, stop it, then run again",
        )


def _start(target: Target) -> Info:
    passed = os.path.exists(_GUARD)
    if passed:
        os.makedirs(os.path.dirname(_PASS), 0o755, exist_ok=True)
        with open(_PASS, "w", encoding="ascii"):
            pass
    try:
        return start_server(target.host, target.unit, target.login, target.timeout)
    finally:
        if passed and os.path.exists(_PASS):
            os.unlink(_PASS)


def _missing(came: t.Mapping[int, Keyspace], now: t.Mapping[int, Keyspace]) -> str:
    """Keys that should be there and are not; those with a time to live may be past it."""
    for number, space in came.items():
        have = now[number].keys if number in now else 0
        if have < space.keys - space.expires:
            return f"database {number} has {have} keys, and {space.keys} were brought ({space.expires} of them with a time to live)"
    return ""


def _swap_and_start(target: Target, rollback_copy: str, aof: bool, came: t.Optional[t.Mapping[int, Keyspace]]) -> Done:
    """Stop, swap, start, look; on any trouble swap back and start. Raises Problem."""
    began = time.monotonic()
    _stop(target)
    try:
        say_now(rollback_copy, target.place, aof)
        swap(target.place, rollback_copy, aof)
        info = _start(target)
        wrong = _missing(came, info.keyspace) if came is not None else ""
    except Problem as problem:
        wrong = problem.detected
    if not wrong:
        finish(rollback_copy)
        return Done(rollback_copy, round(time.monotonic() - began, 3), info.keys)
    systemctl(target.host, "stop", f"{target.unit}.service", timeout=target.timeout)
    # Seen, not assumed: a swap that failed before it did anything must not be done by undoing it.
    if any(one.swapped for one in rollback_copies(target.place) if one.path == rollback_copy):
        swap(target.place, rollback_copy, aof)
    if target.instance.running:  # one that was down before would not come up with its own data either
        _start(target)
    now = "runs on its own data again" if target.instance.running else "is stopped as it was, with its own data"
    raise Problem(
        "restore_undone",
        f"the server did not come up with what was brought, and {now}: {wrong}",
        "a server that loads it",
        f"look into its log (journalctl -u {target.unit}) and at {rollback_copy}",
    )


def bring(target: Target, backup: Backup, test_load: bool) -> Done:
    """Restore; what can be verified was verified. Raises Problem: then the server runs on its own data."""
    manifest, came = backup.manifest, {}
    rollback_copy = begin(target.place, time.time())
    databases = target.instance.value("databases") or "16"
    stage(
        os.path.join(backup.directory, manifest.data),
        Staging(rollback_copy, target.place, target.aof, target.owner, backup.label, target.timeout, databases),
    )

    def look(copy: Loaded) -> None:
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
        came.update(copy.info.keyspace)

    if test_load:
        check_staged(rollback_copy, target.place, target.aof, target.timeout, databases, look)
    else:
        came.update(
            {int(number): Keyspace(int(counts[0]), int(counts[1])) for number, counts in manifest.keys.items()}
            if not manifest.slack
            else {}
        )
    return _swap_and_start(target, rollback_copy, target.aof, came)


def require_point_fits(target: Target, point: Point) -> dict[str, t.Any]:
    """As require_backup_fits, for data of the server's own archive. Gives the plan. Raises Refusal."""
    info = target.instance.info if target.instance.running else None
    require_harmless_stop(target)
    restore_plan.require_role(info, target.watched)
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
    require_exchange(target.place.dir)
    return {**point.plan, "bytes": point.bytes, "replaces": target.keys_text}


def bring_point(target: Target, point: Point) -> Done:
    """Go back to a point of the AOF's archive; it is loaded next to the running server first. Raises Problem: then nothing was changed."""
    came: dict[int, Keyspace] = {}
    rollback_copy = begin(target.place, time.time())
    made = os.path.join(rollback_copy, os.path.basename(target.place.aof_dir))
    point.make(made, target.place, target.owner)
    note(rollback_copy, target.place, True, point.label)
    check_staged(
        rollback_copy,
        target.place,
        True,
        target.timeout,
        target.instance.value("databases") or "16",
        lambda copy: came.update(copy.info.keyspace),
    )
    return _swap_and_start(target, rollback_copy, True, came)


def cut_off(target: Target) -> str:
    """The rollback copy of a run that swapped the data in and was cut off before the server was seen to run; empty where there is none."""
    found = [one for one in rollback_copies(target.place) if one.label]
    last = found[-1] if found and not target.instance.running else None
    return last.path if last and last.swapped and not last.finished else ""


def resume(target: Target, rollback_copy: str) -> Done:
    """End a run that was cut off: start the server. Raises Problem."""
    began = time.monotonic()
    info = _start(target)
    finish(rollback_copy)
    return Done(rollback_copy, round(time.monotonic() - began, 3), info.keys)


def put_back(target: Target, rollback_copy: RollbackCopy) -> Done:
    """Put back what a restore replaced. Raises Problem."""
    require_harmless_stop(target)
    if rollback_copy.aof != target.aof:
        holds, reads = ("an AOF" if one else "an RDB file" for one in (rollback_copy.aof, target.aof))
        raise Refusal(
            "form_differs",
            f"what {rollback_copy.path} holds is {holds}, and the server now reads {reads}",
            "appendonly as it was then",
            f"set appendonly {'yes' if rollback_copy.aof else 'no'} first (redis_persistence)",
        )
    turned = turn(rollback_copy, target.place)
    return _swap_and_start(target, turned.path, turned.aof, None)
