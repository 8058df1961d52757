# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a backup, from the look at the server to the sealed directory."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.copy import (
    take_aof,
    take_rdb,
    take_stream,
    write_file,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupFile, BackupManifest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.plan import (
    Room,
    choose_method,
    require_room,
    require_unharmed,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import PROOF, Backup, Store
from ansible_collections.redisops.recovery.plugins.module_utils.backup.test_load import memory_available
from ansible_collections.redisops.recovery.plugins.module_utils.backup.verify import SAMPLE, Loading, verify
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import require_rdb_is_known
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Settings", "ready", "require_backup", "take"]

#: What a restore has to know of the server that the data is of.
_KEPT = (
    "appendonly",
    "appendfilename",
    "appenddirname",
    "dbfilename",
    "databases",
    "cluster-enabled",
    "aof-timestamp-enabled",
    "maxmemory",
    "maxmemory-policy",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How backups of one group are taken. ``timeout`` in seconds, each step; ``sample`` is how many keys are compared by value."""

    directory: str
    group_name: str
    method: str = "auto"
    sample: int = 100
    timeout: float = 3600.0
    fork_headroom_percent: int = 25
    config_file: str = ""
    sentinel_file: str = ""
    assertions: tuple[t.Mapping[str, t.Any], ...] = ()


def _free(path: str) -> int:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def place_of(live: t.Mapping[str, str]) -> Place:
    return Place(live["dir"], live["dbfilename"], live.get("appenddirname", ""), live.get("appendfilename", ""))


def _last_bytes(place: Place, info: Info, method: str) -> int:
    """How large the copy will be, as far as that can be known before: the last RDB file, the AOF, else the memory in use."""
    if method == "aof":
        return info.number("aof_current_size")
    try:
        return max(os.stat(place.rdb).st_size, 1)
    except OSError:
        return info.number("used_memory_dataset", info.number("used_memory"))


def ready(server: Server, settings: Settings, host: Host) -> tuple[Info, str, t.Mapping[str, str]]:
    """INFO, method and live settings, if a backup can be taken now. Raises Problem or Refusal; nothing is changed."""
    info = server.info()
    if info.flag("loading"):
        raise Problem("loading", "the server is still loading its data", "a server that has loaded", "run again later")
    live = server.config_all()
    method = choose_method(settings.method, info)
    require_unharmed(info)
    local = method != "stream"
    if local and info.number("process_id") not in host.servers_in(live["dir"]):
        raise Refusal(
            "other_host",
            f"the server at {server.login.address} does not run on this host: there is no such process with its data in {live['dir']}",
            "a server on this host, and the right to look (root)",
            "run where the server runs, or set method: stream",
        )
    place = place_of(live)
    _require_save_harms_nothing(info, method, live, host, local)
    room = Room(
        _free(settings.directory),
        _free(place.dir) if local else None,
        memory_available(host.read("/proc/meminfo") or "") if local else None,
    )
    require_room(
        info,
        method,
        _last_bytes(place, info, method) if local else info.number("used_memory_dataset"),
        room,
        settings.fork_headroom_percent,
    )
    return info, method, live


def _require_save_harms_nothing(info: Info, method: str, live: t.Mapping[str, str], host: Host, local: bool) -> None:
    """A save replaces the RDB file, and one that this process never read may be all that is left of the data. Raises Refusal."""
    if method == "aof" or (method == "stream" and live.get("repl-diskless-sync") == "yes"):
        return
    if not local:
        raise Refusal(
            "not_diskless",
            "repl-diskless-sync is no: to stream its data the server would save first, over an RDB file that cannot be looked at from here",
            "repl-diskless-sync yes, as is Redis' default from 7.0 on",
            "set it (redis_config), or take the backup on the server's own host",
        )
    require_rdb_is_known(host, info, scan(place_of(live)))


def _server_parts(
    server: Server, live: t.Mapping[str, str], settings: Settings, path: str
) -> tuple[list[BackupFile], list[str]]:
    """What belongs to the server next to its data: users, configuration, Sentinel's and the cluster's state."""
    files, notes = [], []
    wanted = {
        "conf/redis.conf": settings.config_file,
        "conf/sentinel.conf": settings.sentinel_file,
        "acl/users.acl": live.get("aclfile", ""),
    }
    if live.get("cluster-enabled") == "yes":
        wanted["conf/nodes.conf"] = os.path.join(live["dir"], live.get("cluster-config-file", "nodes.conf"))
    for name, source in wanted.items():
        if not source:
            continue
        full = source if os.path.isabs(source) else os.path.join(live["dir"], source)
        if not os.path.exists(full):
            if name != "conf/sentinel.conf":
                notes.append(f"{full} is not there")
            continue
        files.append(write_file(path, name, read_text(full)))
    if "acl/users.acl" not in {file.path for file in files}:
        try:
            files.append(
                write_file(path, "acl/users.acl", "".join(f"{line}\n" for line in server.command("ACL", "LIST")))
            )
        except CommandError as error:
            notes.append(f"users were not saved: {error.text}")
    return files, notes


def take(
    server: Server, store: Store, settings: Settings, host: Host, why: str, clock: t.Callable[[], float] = time.time
) -> Backup:
    """Take one backup; the caller holds the store's lock. Raises Problem; then nothing with a label was left."""
    _info, method, live = ready(server, settings, host)
    began, place = clock(), place_of(live)
    label = store.free_label(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began)) + f"-{method}")
    path = store.begin(label)
    if method == "rdb":
        taken = take_rdb(server, place, path, settings.sample, settings.timeout)
    elif method == "aof":
        taken = take_aof(server, place, path, settings.sample)
    else:
        taken = take_stream(server, server.login, host, path, settings.sample, settings.timeout)
    parts, notes = _server_parts(server, live, settings, path)
    if taken.moment.sample:
        parts.append(write_file(path, SAMPLE, json.dumps([dataclasses.asdict(one) for one in taken.moment.sample])))
    moment = taken.moment.info
    manifest = BackupManifest(
        label=label,
        group_name=store.group_name,
        host=socket.gethostname(),
        method=method,
        source="replica" if moment.text("role") == "slave" else "primary",
        why_source=why,
        taken_at=round(began, 3),
        seconds=round(clock() - began, 3),
        product=moment.product,
        version=moment.text("redis_version"),
        replid=moment.text("master_replid"),
        offset=moment.number("slave_repl_offset" if moment.text("role") == "slave" else "master_repl_offset"),
        slack=taken.moment.slack,
        keys={str(number): [space.keys, space.expires] for number, space in sorted(moment.keyspace.items())},
        used_memory=moment.number("used_memory"),
        functions=taken.moment.functions,
        files=(*taken.files, *parts),
        data=taken.data,
        slots=slots_of(server, moment),
        settings={name: live[name] for name in _KEPT if name in live},
        notes=(*taken.notes, *notes),
    )
    _let_server_read(path, place)
    return store.finish(path, manifest)


def _let_server_read(path: str, place: Place) -> None:
    """The server's group may read the data, so that a temporary server of that group can; the directory above stays root's."""
    if os.geteuid():
        return
    gid = os.stat(place.dir).st_gid if os.path.isdir(place.dir) else 0
    for folder, _folders, files in os.walk(os.path.join(path, "data")):
        os.chown(folder, 0, gid)
        os.chmod(folder, 0o750)
        for name in files:
            os.chown(os.path.join(folder, name), 0, gid)
            os.chmod(os.path.join(folder, name), 0o640)


def require_backup(store: Store, backup: Backup, settings: Settings, host: Host) -> Backup:
    """Verify one backup and note what came of it. Raises Problem where its manifest is damaged."""
    if backup.manifest is None:
        raise Problem(
            "manifest_damaged",
            f"{backup.label}: {backup.problem}",
            "a whole manifest",
            "use another backup, or fetch this one again from a repository",
        )
    result = verify(
        backup.directory,
        backup.manifest,
        backup.seal,
        Loading(
            store.directory, settings.timeout, memory_available(host.read("/proc/meminfo") or ""), settings.assertions
        ),
    )
    return store.note(backup, PROOF, result)
