# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a backup, from the look at the server to the sealed directory."""

from __future__ import annotations

import contextlib
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
from ansible_collections.redisops.recovery.plugins.module_utils.backup.identity import identity_of, require_same_server
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupFile, BackupManifest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.plan import (
    Room,
    choose_method,
    require_data_age,
    require_room,
    require_unharmed,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import PROOF, Backup, Store
from ansible_collections.redisops.recovery.plugins.module_utils.backup.verify import SAMPLE, Loading, verify
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import keep_unread
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import (
    aof_is_in_use,
    require_rdb_is_known,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.sharing_reader import require_unshared
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import memory_available
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand, join_args
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import loading_lines
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import locked_directory

__all__ = ["Ready", "Settings", "ready", "require_backup", "take"]

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


#: Seconds in which, where rewrites follow each other, one of them is seen between two.
_REWRITES_END = 15.0


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
        return info.dataset_bytes or info.number("used_memory")


class Ready(t.NamedTuple):
    """A server that a backup can be taken of. ``age``: seconds since the newest write that it can have.

    ``identity``: which server it is (identity.py), and its ``program``; ``local``: it runs on this host.
    """

    info: Info
    method: str
    live: t.Mapping[str, str]
    age: int
    identity: t.Mapping[str, str]
    local: bool


def ready(server: Server, store: Store, settings: Settings, host: Host) -> Ready:
    """INFO, method and live settings, if a backup can be taken now. Raises Problem or Refusal; nothing is changed."""
    info = server.info()
    if info.flag("loading"):
        raise Problem("loading", "the server is still loading its data", "a server that has loaded", "run again later")
    live = server.config_all()
    method = choose_method(settings.method, info)
    require_unharmed(info)
    age = require_data_age(info)
    here = info.number("process_id") in host.servers_in(live["dir"])
    identity = identity_of(info, live, socket.gethostname() if here else server.login.host)
    require_same_server(store.last(), identity, store.group_name)
    local = method != "stream"
    if local and not here:
        raise Refusal(
            "other_host",
            f"the server at {server.login.address} does not run on this host: there is no such process with its data in {live['dir']}",
            "a server on this host, and the right to look (root)",
            "run where the server runs, or set method: stream",
        )
    place = place_of(live)
    if here:
        require_unshared(host, place, info.number("process_id"), settings.config_file or info.text("config_file"))
    if method == "aof":
        _require_aof_is_live(host, info, place)
    _require_save_harms_nothing(info, method, live, host, local)
    room = Room(
        _free(settings.directory),
        _free(place.dir) if local else None,
        memory_available(host.read("/proc/meminfo") or "") if local else None,
    )
    require_room(
        info,
        method,
        _last_bytes(place, info, method) if local else info.dataset_bytes,
        room,
        settings.fork_headroom_percent,
    )
    store.require_fit()
    program = host.program_of(info.number("process_id")) if here else ""
    return Ready(info, method, live, age, {**identity, **({"program": program} if program else {})}, here)


def _load_lines(info: Info, server: Server) -> tuple[tuple[str, ...], list[str]]:
    """The lines without which its data does not load, of the file that it was started with, and modules that were loaded since; notes."""
    path = info.text("config_file")
    lines: tuple[str, ...] = ()
    notes = []
    if path:
        try:
            lines = loading_lines(expand(RedisConf(read_text(path), path), read_includes))
        except Problem as problem:
            notes.append(f"rename-command and loadmodule of {path} are not known: {problem.detected}")
    try:
        modules = [dict(zip(row[::2], row[1::2])) for row in server.command("MODULE", "LIST")]
    except CommandError:
        return lines, notes
    named = " ".join(lines)
    since = [one for one in modules if one.get("path") and one["path"] not in named]
    return (*lines, *(join_args(["loadmodule", one["path"], *one.get("args", ())]) for one in since)), notes


def _require_aof_is_live(host: Host, info: Info, place: Place) -> None:
    """The AOF that lies there is complete, and the one that the server writes to. Raises Problem."""
    if not aof_is_in_use(host, info.number("process_id"), place, _REWRITES_END):
        raise Problem(
            "aof_unsteady",
            f"{place.manifest} does not name a complete AOF that the server writes to: it was moved, replaced or never made",
            "a complete AOF",
            "redis_persistence makes a new one of what the server holds (BGREWRITEAOF); or take the backup by method: rdb",
        )


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
    """Take one backup; the caller holds the store's lock. Raises Problem; then nothing with a label was left.

    Nobody of ours stops, moves or saves the data meanwhile, where the server runs on this host.
    """
    directory = server.config_get("dir").get("dir", "")
    here = server.info("server").number("process_id") in host.servers_in(directory)
    with locked_directory(directory) if here else contextlib.nullcontext():
        return _take(server, store, settings, host, why, clock)


def _take(
    server: Server, store: Store, settings: Settings, host: Host, why: str, clock: t.Callable[[], float]
) -> Backup:
    found = ready(server, store, settings, host)
    method, live = found.method, found.live
    began, place = clock(), place_of(live)
    taken_at = began - found.age
    label = store.free_label(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(taken_at)) + f"-{method}")
    if found.local and method != "aof":
        keep_unread(host, found.info, scan(place))  # the save replaces it
    path = store.begin(label)
    if method == "rdb":
        taken = take_rdb(server, place, path, settings.sample, settings.timeout)
    elif method == "aof":
        taken = take_aof(server, place, path, settings.sample)
    else:
        taken = take_stream(server, server.login, host, path, settings.sample, settings.timeout)
    parts, notes = _server_parts(server, live, settings, path)
    if found.age:
        notes.append(f"the link of this replica has been down for {found.age} seconds: the backup is dated by that")
    lines: tuple[str, ...] = ()
    if found.local:
        lines, more = _load_lines(found.info, server)
        notes += more
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
        taken_at=round(taken_at, 3),
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
        code=taken.moment.code,
        server=found.identity,
        load_lines=lines,
    )
    return store.finish(path, manifest)


def require_backup(store: Store, backup: Backup, settings: Settings, host: Host, running: str = "") -> Backup:
    """Verify one backup and note what came of it; ``running`` is the release that runs, empty where none does. Raises Problem where its manifest is damaged."""
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
            store.directory,
            settings.timeout,
            memory_available(host.read("/proc/meminfo") or ""),
            settings.assertions,
            running=running,
        ),
    )
    return store.note(backup, PROOF, result)
