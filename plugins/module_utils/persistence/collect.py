# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on disk, and whether it is known to the server that runs."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.check_tool_output import (
    Verdict,
    parse_check_rdb,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import (
    PLACE,
    Situation,
    Wanted,
    start_loads,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import PERSISTENCE
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["aof_in_use", "base_is_sound", "check_rdb", "require_rdb_is_known", "respell_dir", "situation_of"]


def check_rdb(host: Host, path: str) -> Verdict:
    """What the installed redis-check-rdb says of ``path``. Raises Problem where no such tool is installed."""
    for tool in ("redis-check-rdb", "valkey-check-rdb"):
        done = host.run(tool, path)
        if done.code != 127:
            return parse_check_rdb(done.code, done.output)
    raise Problem(
        "no_check_tool",
        "redis-check-rdb is not installed",
        "the tool that verifies an RDB file sound",
        "install redis-tools",
    )


def require_rdb_is_known(host: Host, info: Info, disk: DataFiles, now: t.Callable[[], float] = time.time) -> None:
    """Before a save replaces it: an RDB file that this process never read may be all there is. Raises Refusal.

    That is what a server leaves that was restarted with ``appendonly yes`` and no AOF: empty, next to the only good file.
    """
    started = now() - info.number("uptime_in_seconds") - 1
    loaded = info.number("rdb_last_load_keys_loaded") + info.number("rdb_last_load_keys_expired")
    if disk.rdb_bytes is None or info.number("rdb_saves") or disk.rdb_mtime >= started or loaded:
        return
    base = disk.manifest and disk.manifest.base
    path = os.path.join(disk.place.aof_dir, base.name) if base else ""
    if info.flag("aof_enabled") and os.path.exists(path) and os.stat(path).st_mtime < started:
        return  # it began with an AOF that was there before, not with one that it had to make
    keys = check_rdb(host, disk.place.rdb).keys
    if keys > 0:
        raise Refusal(
            "rdb_never_loaded",
            f"{disk.place.rdb} is older than the running server and holds {keys} keys; the server has {info.keys} and never "
            "read it, as after a restart with appendonly yes and no AOF. The next save would overwrite it",
            "to know which of the two is the data",
            f"to get the file's keys back: cp -p {disk.place.rdb} aside now, CONFIG SET save '', SHUTDOWN NOSAVE, move "
            f"{disk.place.aof_dir} aside, put the copy back, run again with the server stopped. "
            "If the file is not wanted: redis-cli BGSAVE, then run again",
        )


def aof_in_use(host: Host, pid: int, disk: DataFiles) -> bool:
    """Whether the AOF on disk is complete and is the one that the server appends to.

    A manifest alone verifies nothing: an older one lies there until the first rewrite after CONFIG SET appendonly yes ends.
    """
    manifest = disk.manifest
    if not (manifest and manifest.base and manifest.increments) or disk.missing:
        return False
    return host.holds_open(pid, os.path.join(disk.place.aof_dir, manifest.increments[-1].name))


def base_is_sound(host: Host, disk: DataFiles) -> bool:
    base = disk.manifest and disk.manifest.base
    path = os.path.join(disk.place.aof_dir, base.name) if base else ""
    # A rewrite that ended meanwhile takes the base away: only one that is still there can count as bad.
    return not path.endswith(".rdb") or check_rdb(host, path).ok or not os.path.exists(path)


def respell_dir(wanted: Wanted, instance: Instance) -> None:
    """A declared directory that is the present one under another spelling (a slash at the end, a link) is no other place."""
    here, declared = instance.value("dir"), wanted.values.get("dir")
    if here and declared and os.path.isabs(here) and os.path.realpath(declared) == os.path.realpath(here):
        wanted.values["dir"] = wanted.spelled["dir"] = here


def situation_of(instance: Instance, wanted: Wanted, fresh_install: bool) -> Situation:
    """Read everything the plan needs. Raises Problem."""
    host = instance.host
    in_file = {name: instance.in_file(name) or "" for name in PERSISTENCE}
    current = instance.live if instance.running else in_file
    place = Place(*(current[name] for name in PLACE))
    disk = scan(place)
    info = instance.info
    leaves_data = bool(info.keys or disk.any)
    if not instance.running and not disk.any:
        # Nothing at the old place: what an operator has moved to the declared one is what the next start has to find.
        disk = scan(Place(*(wanted.values.get(name, current[name]) for name in PLACE)))
    sound = None
    if not instance.running and wanted.aof and disk.rdb_bytes is not None and start_loads(in_file, disk) != "aof":
        verdict = check_rdb(host, disk.place.rdb)
        sound = None if verdict.ok else verdict.reason
    return Situation(
        path=instance.path,
        directives=instance.directives,
        in_file=in_file,
        disk=disk,
        running=instance.running,
        live=instance.live,
        keys=info.keys,
        used_memory=info.number("used_memory"),
        rewriting=info.flag("aof_rewrite_in_progress") or info.flag("aof_rewrite_scheduled"),
        aof_in_use=instance.running and aof_in_use(host, instance.pid, disk),
        rdb_reason=sound,
        fresh_install=fresh_install,
        leaves_data=leaves_data,
        dir_is_missing="dir" in wanted.values and not os.path.isdir(wanted.values["dir"]),
    )
