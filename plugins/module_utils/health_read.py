# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a server's health is judged by, read once; nothing is changed (tier 2)."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.aof_manifest import ManifestError
from ansible_collections.redisops.recovery.plugins.module_utils.backup_status import row_of
from ansible_collections.redisops.recovery.plugins.module_utils.data_files import scan as scan_files
from ansible_collections.redisops.recovery.plugins.module_utils.data_place import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.directives import DEFAULTS, effective, normal
from ansible_collections.redisops.recovery.plugins.module_utils.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.files import read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.health_facts import (
    Backups,
    Facts,
    FileAccess,
    LogFacts,
    SentinelFacts,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health_host_read import look, read_host
from ansible_collections.redisops.recovery.plugins.module_utils.host import Completed, Host
from ansible_collections.redisops.recovery.plugins.module_utils.info import Info, parse_info
from ansible_collections.redisops.recovery.plugins.module_utils.log_tail import (
    LogText,
    journal,
    kernel_log,
    log_file,
    zone_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence_act import prove_rdb_is_known
from ansible_collections.redisops.recovery.plugins.module_utils.redis_conf import RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel_act import watched_by
from ansible_collections.redisops.recovery.plugins.module_utils.server import CommandError, Login, Server, connect
from ansible_collections.redisops.recovery.plugins.module_utils.server_log import merged, scan, scan_kernel
from ansible_collections.redisops.recovery.plugins.module_utils.service_act import find_unit, unit_state
from ansible_collections.redisops.recovery.plugins.module_utils.shard_store import slots_of, store_of
from ansible_collections.redisops.recovery.plugins.module_utils.systemd_unit import command_line_overrides

__all__ = ["Question", "read_facts"]

SETTINGS = "/etc/redisops"
#: Seconds; a server that stands still for longer is silent.
_PATIENCE = 10.0
_MOST_DRILLS = 50
_CONF = "/etc/redis/redis.conf"


@dataclasses.dataclass(frozen=True)
class Question:
    """Where to look. ``unit`` is ``auto`` for the packaged one; ``since`` is seconds since 1970; ``apart`` between the two looks.

    ``sentinel`` is None where none shall be asked. Empty paths are found: from the server, from the schedule of its backups.
    """

    login: Login
    since: float
    config_file: str = ""
    unit: str = "auto"
    apart: float = 1.0
    sentinel: t.Optional[Login] = None
    set_name: str = "redis"
    backup_directory: str = ""
    backups_expected: bool = False


class _Hasty(Host):
    """A host whose commands may not take long."""

    def __init__(self, host: Host) -> None:
        def soon(*args: str, timeout: t.Optional[float] = None, **more: t.Any) -> Completed:
            return host.run(*args, timeout=min(timeout or 60.0, 60.0), **more)

        super().__init__(host.root, soon)


# The server


def _reached(login: Login) -> tuple[t.Optional[Server], str, str]:
    """A connection, or the code of the trouble and its words."""
    for option in ("ca_certs", "client_cert_file", "client_key_file"):
        path = getattr(login, option)
        if login.tls and path and not os.access(path, os.R_OK):
            return None, "server_unseen", f"{option}: {path} cannot be read"
    try:
        return connect(login, _PATIENCE), "", ""
    except Problem as problem:
        code = {"server_down": "server_down", "not_redis": "server_silent"}.get(problem.code, "server_unseen")
        # A server in the middle of a script that does not end answers so to everything.
        return None, "server_silent" if ": BUSY" in problem.saw else code, problem.saw
    except (OSError, ValueError) as error:  # a certificate that is none
        return None, "server_unseen", f"TLS fails: {error}"


def _live(server: Server, missing: dict[str, str]) -> t.Optional[dict[str, str]]:
    try:
        return server.config_all()
    except CommandError as error:
        missing["live"] = f"Redis refuses CONFIG GET: {error.text}"
        return None


def _cluster(server: Server, info: Info, missing: dict[str, str]) -> t.Mapping[str, str]:
    if not info.flag("cluster_enabled"):
        return {}
    try:
        return parse_info(server.command("CLUSTER", "INFO")).fields
    except CommandError as error:
        missing["cluster"] = f"Redis refuses CLUSTER INFO: {error.text}"
        return {}


def _in_file(path: str, unit_says: t.Mapping[str, str], missing: dict[str, str]) -> t.Optional[dict[str, str]]:
    """Normal forms of the configuration file, with Redis' defaults, and what the unit's command line puts above it."""
    if not path:
        missing["in_file"] = "the server was started without a configuration file"
        return None
    try:
        directives = expand(RedisConf(read_text(path), path), read_includes)
        names = {*DEFAULTS, "dir", "logfile"}
        values = {name: effective(directives, name) for name in names}
        above = {name: normal(name, value) for name, value in unit_says.items() if name in names}
    except Problem as problem:
        missing["in_file"] = problem.saw
        return None
    found = {name: DEFAULTS.get(name) if value is None else value for name, value in values.items()}
    return {name: value for name, value in {**found, **above}.items() if value is not None}


# Files


def _files(place: Place, missing: dict[str, str]) -> t.Optional[DataFiles]:
    """What lies in the data directory; where it may not be looked at, that is told, and never taken for empty."""
    for path in (place.dir, place.aof_dir):
        if path == place.dir or os.path.lexists(path):
            try:
                os.listdir(path)
            except OSError as error:
                missing["disk"] = f"{path} cannot be looked at: {error.strerror}"
                return None
            if not os.access(path, os.X_OK):
                missing["disk"] = f"{path} may not be entered by this user"
                return None
    try:
        return scan_files(place)
    except ManifestError as problem:
        missing["disk"] = problem.saw
        missing["manifest"] = problem.saw
    except (Problem, OSError) as error:
        missing["disk"] = getattr(error, "saw", None) or str(error)
    return None


def _access(disk: DataFiles) -> tuple[FileAccess, ...]:
    found = []
    for path in (disk.place.dir, disk.place.aof_dir, *disk.paths, disk.place.manifest):
        try:
            status = os.lstat(path)
        except OSError:
            continue  # a rewrite just ended
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            directory = stat.S_ISDIR(status.st_mode)
            found.append(FileAccess(path, status.st_uid, status.st_gid, status.st_mode & 0o7777, directory))
    return tuple(dict.fromkeys(found))


def _base(disk: DataFiles) -> tuple[t.Optional[int], t.Optional[float]]:
    """Size and time of the AOF's base."""
    base = disk.manifest.base if disk.manifest else None
    try:
        status = os.stat(os.path.join(disk.place.aof_dir, base.name)) if base else None
    except OSError:
        status = None
    return (status.st_size, status.st_mtime) if status else (None, None)


def _never_loaded(host: Host, info: Info, disk: DataFiles) -> str:
    try:
        prove_rdb_is_known(_Hasty(host), info, disk)
    except Problem as problem:
        return problem.saw if problem.code == "rdb_never_loaded" else ""
    return ""


def _free_inodes(path: str) -> t.Optional[int]:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_favail if space.f_files else None  # some file systems have no such limit


# Logs, Sentinel, backups


def _log(host: Host, question: Question, logfile: t.Optional[str], directory: str, unit: str) -> LogFacts:
    zone = zone_of(host)
    if logfile is None:
        from_file = LogText(because="where the log is is not known, since neither the server nor its file says")
    elif logfile:
        from_file = log_file(os.path.join(directory or "/", logfile), question.since, zone)
    else:
        from_file = LogText()
    from_unit = journal(host, unit, question.since) if unit else LogText(because="no systemd unit was found or named")
    lines = merged(from_unit.lines, from_file.lines, zone) if from_unit.lines else from_file.lines
    because = from_file.because or (
        "" if from_file.source else f"logfile is empty, and {from_unit.because}" if from_unit.because else ""
    )
    kernel = kernel_log(host, question.since)
    return LogFacts(
        tuple(scan(lines, question.since, zone)),
        tuple(one.source for one in (from_file, from_unit) if one.source),
        because,
        tuple(scan_kernel(kernel.lines, question.since, zone)),
        kernel.because,
    )


def _sentinel(login: t.Optional[Login]) -> t.Optional[SentinelFacts]:
    if login is None:
        return None
    server, _code, because = _reached(login)
    if server is None:
        return SentinelFacts(login.address, because)
    try:
        info = server.info()
        watched = watched_by(server)
        quorum = {}
        for name in watched:
            try:
                quorum[name] = str(server.command("SENTINEL", "CKQUORUM", name))
            except CommandError as error:
                quorum[name] = error.text
    except CommandError as error:
        strange = (
            "it is a Redis server, and no Sentinel" if "unknown command" in error.text else f"it refuses {error.text}"
        )
        return SentinelFacts(login.address, strange)
    except Problem as problem:
        return SentinelFacts(login.address, problem.saw)
    finally:
        server.close()
    tilt = info.flag("sentinel_tilt") if "sentinel_tilt" in info.fields else None
    return SentinelFacts(login.address, "", tilt, tuple(watched.values()), quorum)


def _drill(path: str) -> t.Optional[dict[str, t.Any]]:
    """One report; None where it is none."""
    try:
        report = json.loads(read_text(path))
        return {
            "time": float(report["at"]), "ok": not report["missed"], "missed": [str(words) for words in report["missed"]],
            "rpo_seconds": report["measured"]["rpo_seconds"], "rto_seconds": report["measured"]["rto_seconds"], "phases": dict(report["phases"]),
        }  # fmt: skip
    except (Problem, ValueError, TypeError, KeyError, RecursionError):
        return None


def _schedule(host: Host, set_name: str) -> tuple[str, bool, bool]:
    """Directory, whether other members may take the backups, and whether there is a schedule at all."""
    text = host.read(f"{SETTINGS}/backup-{set_name}.json")
    try:
        content = json.loads(text or "")
        return str(content["settings"]["directory"]), len(content["members"]) > 1, True
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", False, text is not None


def _backups(host: Host, question: Question, slots: t.Sequence[str]) -> Backups:
    directory, elsewhere, scheduled = _schedule(host, question.set_name)
    directory = question.backup_directory or directory or "/var/backups/redis"
    store = store_of(directory, question.set_name, slots)
    found = Backups(store.set_name, directory, expected=scheduled or question.backups_expected, elsewhere=elsewhere)
    try:
        rows = [
            row_of(one.label, one.at, one.manifest, one.problem, one.proof, one.copies, one.keep) for one in store.all()
        ]
        folder = os.path.join(store.directory, "drills")
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json")) if os.path.isdir(folder) else []
    except OSError as error:
        return dataclasses.replace(found, because=f"{store.directory} cannot be looked at: {error.strerror}")
    drills = [_drill(os.path.join(folder, name)) for name in names[-_MOST_DRILLS:]]
    return dataclasses.replace(
        found, rows=tuple(rows), drills=tuple(sorted((one for one in drills if one), key=lambda one: one["time"]))
    )


def _unit(host: Host, question: Question) -> tuple[str, dict[str, str]]:
    """The unit and the directives on its command line; empty where there is no systemd or no such unit."""
    try:
        unit = find_unit(host) if question.unit == "auto" else question.unit
        state = unit_state(host, unit)
    except Problem:
        return ("" if question.unit == "auto" else question.unit), {}
    if state.get("LoadState") != "loaded":
        return ("" if question.unit == "auto" else question.unit), {}
    return unit, command_line_overrides(state.get("ExecStart", ""))


def _place(values: t.Mapping[str, str]) -> t.Optional[Place]:
    if not os.path.isabs(values.get("dir", "")):
        return None
    names = ("dbfilename", "appenddirname", "appendfilename")
    return Place(values["dir"], *(values.get(name, DEFAULTS[name]) for name in names))


def _spelled(in_file: t.Optional[dict[str, str]], live: t.Optional[t.Mapping[str, str]]) -> None:
    """Redis answers getcwd() for dir: a link or a slash at the end in the file is no other place."""
    if (
        in_file
        and live
        and os.path.isabs(in_file.get("dir", ""))
        and os.path.realpath(in_file["dir"]) == live.get("dir")
    ):
        in_file["dir"] = live["dir"]
    if in_file and live and not os.path.isabs(in_file.get("dir", "")):
        in_file.pop("dir", None)  # where a relative one leads depends on who starts it


def _is_here(host: Host, login: Login, pid: int) -> tuple[bool, bool]:
    """Whether the server runs on this host, and whether its process can be seen."""
    name = (host.read(f"/proc/{pid}/comm") or "") if pid else ""
    seen = any(part in name for part in ("redis", "valkey", "keydb"))
    return seen or login.local, seen


def read_facts(
    question: Question,
    host: Host,
    clock: t.Callable[[], float] = time.time,
    sleep: t.Callable[[float], None] = time.sleep,
) -> Facts:
    """Ask the server, its host and its files. What cannot be read is None and has its reason; nothing here raises a Problem
    but for a set_name that is none."""
    login, missing, slots = question.login, {}, ()  # type: Login, dict[str, str], tuple[str, ...]
    unit, unit_says = _unit(host, question)
    server, trouble, because = _reached(login)
    info, later, live, cluster = Info({}, {}), Info({}, {}), None, {}  # type: Info, Info, t.Optional[dict[str, str]], t.Mapping[str, str]
    first, began = look(host), clock()
    try:
        if server is not None:
            info = server.info()
            live = _live(server, missing)
            cluster = _cluster(server, info, missing)
            try:
                slots = slots_of(server, info)
            except CommandError as error:
                missing["slots"] = error.text
        sleep(question.apart)
        apart = max(0.0, clock() - began) if question.apart else 0.0
        if server is not None:
            later = server.info()
    except CommandError as error:
        trouble, because = "server_unseen", f"Redis refuses INFO: {error.text}"
    except Problem as problem:
        trouble, because = "server_silent", problem.saw
    finally:
        if server is not None:
            server.close()
    apart = max(0.0, clock() - began) if question.apart else 0.0
    second = look(host)
    pid = info.number("process_id")
    local, seen = _is_here(host, login, pid) if not trouble else (login.local, False)
    config_file = question.config_file or info.text("config_file") or ("" if info.fields else _CONF)
    in_file = _in_file(config_file, unit_says, missing) if local else None
    _spelled(in_file, live)
    place = _place(live or in_file or {})
    disk = None
    if not local:
        missing["host"] = f"the server at {login.address} does not run on this host: there is no process {pid} of it"
        missing["disk"] = missing["in_file"] = missing["host"]
    elif place is None:
        missing["disk"] = missing.get("live") or missing.get("in_file") or "the configuration names no absolute dir"
    else:
        disk = _files(place, missing)
    user = host.user_of_process(pid) if seen else None
    base_bytes, base_mtime = _base(disk) if disk else (None, None)
    values = live if live is not None else in_file
    logfile = (values.get("logfile", "") if values is not None else None) if local else None
    return Facts(
        now=began,
        address=login.address,
        trouble=trouble,
        because=because,
        info=info,
        later=later,
        apart=apart,
        live=live,
        in_file=in_file,
        config_file=config_file,
        local=local,
        user=(user.uid, frozenset((user.gid, *user.groups))) if user else None,
        disk=disk,
        base_bytes=base_bytes,
        base_mtime=base_mtime,
        free_inodes=_free_inodes(place.dir) if place and disk else None,
        access=_access(disk) if disk else (),
        never_loaded=_never_loaded(host, info, disk) if disk and not trouble else "",
        cluster=cluster,
        host=read_host(host, pid if seen else 0, place.dir if place else "", first, second, apart),
        log=_log(host, question, logfile, place.dir if place else "", unit),
        sentinel=_sentinel(question.sentinel),
        backups=_backups(host, question, slots),
        missing=missing,
    )
