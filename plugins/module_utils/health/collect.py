# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a server's health is judged by, read once; nothing is changed."""

from __future__ import annotations

import dataclasses
import os
import stat
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.health.collect_disk import read_disk
from ansible_collections.redisops.recovery.plugins.module_utils.health.collect_host import look, read_host
from ansible_collections.redisops.recovery.plugins.module_utils.health.collect_replicas import (
    read_backups,
    read_sentinel,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.connect import reached
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts, FileAccess
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_reader import read_logs
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import ManifestError
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import require_rdb_is_known
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.sharing_reader import shared_with
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Login, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import DEFAULTS, effective, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.duplicates import declared_twice
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, parse_info
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import find_unit, unit_state
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.mounts_reader import covered, unmounted
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import command_line_overrides

__all__ = ["Question", "read_facts"]

_CONF = "/etc/redis/redis.conf"
#: Seconds for a command of which nothing but a finding depends.
_SOON = 60.0


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
    group_name: str = "redis"
    backup_directory: str = ""
    backups_expected: bool = False


# The server


@dataclasses.dataclass
class _Answers:
    """What the server stated, in two looks; ``trouble`` and ``because`` where it did not; ``refused`` where that was its own answer."""

    trouble: str = ""
    because: str = ""
    refused: bool = False
    info: Info = dataclasses.field(default_factory=lambda: Info({}, {}))
    later: Info = dataclasses.field(default_factory=lambda: Info({}, {}))
    live: t.Optional[dict[str, str]] = None
    cluster: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    slots: tuple[str, ...] = ()


def _ask(server: t.Optional[Server], stated: _Answers, wait: t.Callable[[], None], missing: dict[str, str]) -> None:
    """Two looks at the server, with ``wait`` between them, also where there is no server to look at."""
    try:
        if server is not None:
            stated.info = server.info()
            _ask_more(server, stated, missing)
        wait()
        if server is not None:
            stated.later = server.info()
    except CommandError as error:
        stated.trouble, stated.because, stated.refused = "server_unseen", error.detected, True
    except Problem as problem:
        stated.trouble, stated.because = "server_not_responding", problem.detected
    finally:
        if server is not None:
            server.close()


def _ask_more(server: Server, stated: _Answers, missing: dict[str, str]) -> None:
    """What a user with few rights may not ask. Raises ServerDown."""
    try:
        stated.live = server.config_all()
    except CommandError as error:
        missing["live"] = error.detected
    if not stated.info.flag("cluster_enabled"):
        return
    try:
        stated.cluster = parse_info(server.command("CLUSTER", "INFO")).fields
        stated.slots = slots_of(server, stated.info)
    except CommandError as error:
        missing["cluster"] = error.detected


def _is_here(host: Host, login: Login, pid: int) -> tuple[bool, bool]:
    """Whether the server runs on this host, and whether its process can be seen."""
    name = (host.read(f"/proc/{pid}/comm") or "") if pid else ""
    seen = any(part in name for part in ("redis", "valkey", "keydb"))
    return seen or login.local, seen


# Its configuration


def _unit(host: Host, wanted: str) -> tuple[str, dict[str, str]]:
    """The unit and the directives on its command line; empty where there is no systemd or no such unit."""
    named = "" if wanted == "auto" else wanted
    try:
        unit = named or find_unit(host)
        state = unit_state(host, unit)
    except Problem:
        return named, {}
    if state.get("LoadState") != "loaded":
        return named, {}
    return unit, command_line_overrides(state.get("ExecStart", ""))


def _in_file(path: str, unit_says: t.Mapping[str, str], missing: dict[str, str]) -> t.Optional[dict[str, str]]:
    """Normal forms of the configuration file, with Redis' defaults, and what the unit's command line puts above it."""
    if not path:
        missing["in_file"] = "the server was started without a configuration file"
        return None
    try:
        directives = expand(RedisConf(read_text(path), path), read_includes)
        names = {*DEFAULTS, "dir", "logfile", "cluster-enabled", "cluster-config-file"}
        values = {name: effective(directives, name) for name in names}
        above = {name: normal(name, value) for name, value in unit_says.items() if name in names}
    except Problem as problem:
        missing["in_file"] = problem.detected
        return None
    found = {name: DEFAULTS.get(name) if value is None else value for name, value in values.items()}
    return {name: value for name, value in {**found, **above}.items() if value is not None}


def _twice(path: str) -> tuple[str, ...]:
    """Lines that may stand once and stand twice; that the file cannot be read is reported with what it says."""
    try:
        return tuple(declared_twice(expand(RedisConf(read_text(path), path), read_includes))) if path else ()
    except Problem:
        return ()


def _cluster_file(values: t.Optional[t.Mapping[str, str]]) -> str:
    """The name of the cluster's file; empty where the server is of none."""
    found = values or {}
    return found.get("cluster-config-file", "nodes.conf") if found.get("cluster-enabled") == "yes" else ""


def _spell_dir(in_file: t.Optional[dict[str, str]], live: t.Optional[t.Mapping[str, str]]) -> None:
    """Redis answers getcwd() for dir: a link or a slash at the end in the file is no other place."""
    stated = (in_file or {}).get("dir", "")
    if in_file is None or live is None:
        return
    if not os.path.isabs(stated):
        in_file.pop("dir", None)  # where a relative one leads depends on who starts it
    elif os.path.realpath(stated) == live.get("dir"):
        in_file["dir"] = live["dir"]


# Its files


def _place(values: t.Mapping[str, str]) -> t.Optional[Place]:
    if not os.path.isabs(values.get("dir", "")):
        return None
    names = ("dbfilename", "appenddirname", "appendfilename")
    return Place(values["dir"], *(values.get(name, DEFAULTS[name]) for name in names))


def _files(place: Place, missing: dict[str, str]) -> t.Optional[DataFiles]:
    """What lies in the data directory; where it may not be looked at, that is reported, and never taken for empty."""
    for path in (place.dir, place.aof_dir):
        if path != place.dir and not os.path.lexists(path):
            continue
        try:
            os.listdir(path)
        except FileNotFoundError:
            missing["disk"] = missing["dir"] = f"{path} does not exist"
            return None
        except OSError as error:
            missing["disk"] = f"{path} cannot be looked at: {error.strerror}"
            return None
        if not os.access(path, os.X_OK):
            missing["disk"] = f"{path} may not be entered by this user"
            return None
    try:
        return scan(place)
    except ManifestError as problem:
        missing["disk"] = missing["manifest"] = problem.detected
    except Problem as problem:
        missing["disk"] = problem.detected
    except OSError as error:
        missing["disk"] = f"{place.dir} cannot be looked at: {error.strerror}"
    return None


def _access(disk: DataFiles) -> tuple[FileAccess, ...]:
    found = []
    for path in (disk.place.dir, disk.place.aof_dir, *disk.paths):
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
    if base is None:
        return None, None
    try:
        status = os.stat(os.path.join(disk.place.aof_dir, base.name))
    except OSError:
        return None, None
    return status.st_size, status.st_mtime


def _free_inodes(path: str) -> t.Optional[int]:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_favail if space.f_files else None  # some file systems have no such limit


class _Hasty(Host):
    """A host whose commands may not take long."""

    def __init__(self, host: Host) -> None:
        def soon(*args: str, timeout: t.Optional[float] = None, **more: t.Any) -> Completed:
            return host.run(*args, timeout=min(timeout or _SOON, _SOON), **more)

        super().__init__(host.root, soon)


def _never_loaded(host: Host, info: Info, disk: DataFiles) -> str:
    """What speaks against the next save, in words; empty where nothing does."""
    try:
        require_rdb_is_known(_Hasty(host), info, disk)
    except Problem as problem:
        return problem.detected if problem.code == "rdb_never_loaded" else ""
    except OSError:
        pass  # a file that went away meanwhile
    return ""


# The whole


@dataclasses.dataclass(frozen=True)
class _Here:
    """What of the server is on this host. ``pid`` is 0 where no process of it is seen, ``values`` None where neither process nor file tells."""

    local: bool
    pid: int
    in_file: t.Optional[dict[str, str]]
    values: t.Optional[t.Mapping[str, str]]
    place: t.Optional[Place]
    disk: t.Optional[DataFiles]

    @property
    def directory(self) -> str:
        return self.place.dir if self.place else ""

    @property
    def logfile(self) -> t.Optional[str]:
        return self.values.get("logfile", "") if self.local and self.values is not None else None


def _find_place(
    stated: _Answers, in_file: t.Optional[dict[str, str]]
) -> tuple[t.Optional[t.Mapping[str, str]], t.Optional[Place]]:
    """The settings in force, and where by them the data lies."""
    values = stated.live if stated.live is not None else in_file
    place = _place(values or {})
    if place is None and values is not None and values.get("dir") == "":
        place = _place(in_file or {})  # of a directory that is gone Redis does not know the name any more
    return values, place


def _look_here(
    host: Host,
    login: Login,
    stated: _Answers,
    config_file: str,
    unit_says: t.Mapping[str, str],
    missing: dict[str, str],
) -> _Here:
    """Process, configuration and data of the server, as far as they are on this host; ``missing`` says what is not, and why."""
    answers, pid = not stated.trouble, stated.info.number("process_id")
    local, seen = _is_here(host, login, pid) if answers else (login.local, False)
    host.programs = os.path.dirname(host.program_of(pid)) if seen else ""
    in_file = _in_file(config_file, unit_says, missing) if local else None
    _spell_dir(in_file, stated.live)
    values, place = _find_place(stated, in_file)
    disk = None
    if not local:
        process = f": there is no process {pid} of it" if answers else ""
        missing["host"] = f"the server at {login.address} does not run on this host{process}"
        missing["disk"] = missing["in_file"] = missing["host"]
    elif place is None:
        missing["disk"] = missing.get("live") or missing.get("in_file") or "the configuration names no absolute dir"
    else:
        disk = _files(place, missing)
        if answers and not seen:
            missing.pop("dir", None)  # it may be in a container, with another tree of files
    return _Here(local, pid if seen else 0, in_file, values, place, disk)


def _shared(host: Host, here: _Here, stated: _Answers, config_file: str) -> str:
    """Who else has its data files, in words. Of a server that answers nothing the process is not known."""
    if not here.local or here.place is None:
        return ""
    return shared_with(host, here.place, here.pid or (0 if stated.trouble == "server_down" else None), config_file)


def _not_mounted(host: Host, here: _Here) -> str:
    """Which file system is missing below the data, or lies over it, in words."""
    if here.place is None:
        return ""
    return unmounted(host, [here.place.dir, here.place.aof_dir]) or covered(host, here.pid, here.place.dir)


def _user_of(
    host: Host, pid: int, answers: bool, missing: dict[str, str], stated_pid: int
) -> t.Optional[tuple[int, frozenset[int]]]:
    """Whom the server runs as: user id, group ids."""
    user = host.user_of_process(pid) if pid else None
    if user is None:
        missing["user"] = (
            f"/proc does not show whom process {stated_pid} runs as" if answers else "the server does not run"
        )
        return None
    return user.uid, frozenset((user.gid, *user.groups))


def read_facts(
    question: Question,
    host: Host,
    clock: t.Callable[[], float] = time.time,
    sleep: t.Callable[[float], None] = time.sleep,
) -> Facts:
    """Ask the server, its host and its files. What cannot be read is None, and ``missing`` says why.

    Raises Problem only for a group_name that is none.
    """
    login = question.login
    missing: dict[str, str] = {}
    unit, unit_says = _unit(host, question.unit)
    server, trouble, because, refused = reached(login)
    stated = _Answers(trouble, because, refused)
    before, began = look(host), clock()
    _ask(server, stated, lambda: sleep(question.apart), missing)
    after, apart = look(host), max(0.0, clock() - began) if question.apart else 0.0
    answers = not stated.trouble
    config_file = question.config_file or stated.info.text("config_file") or ("" if answers else _CONF)
    here = _look_here(host, login, stated, config_file, unit_says, missing)
    user = _user_of(host, here.pid, answers, missing, stated.info.number("process_id"))
    disk, directory = here.disk, here.directory
    base_bytes, base_mtime = _base(disk) if disk else (None, None)
    return Facts(
        now=began,
        address=login.address,
        trouble=stated.trouble,
        because=stated.because,
        refused=stated.refused,
        info=stated.info,
        later=stated.later,
        apart=apart,
        live=stated.live,
        in_file=here.in_file,
        config_file=config_file,
        local=here.local,
        user=user,
        disk=disk,
        base_bytes=base_bytes,
        base_mtime=base_mtime,
        free_inodes=_free_inodes(directory) if disk else None,
        access=_access(disk) if disk else (),
        shared=_shared(host, here, stated, config_file),
        not_mounted=_not_mounted(host, here) if here.local else "",
        never_loaded=_never_loaded(host, stated.info, disk) if disk and answers else "",
        twice=_twice(config_file) if here.local else (),
        on_disk=read_disk(host, disk, began, _cluster_file(here.values)) if disk else None,
        cluster=stated.cluster,
        host=read_host(host, here.pid, directory, before, after, apart),
        log=read_logs(host, here.logfile, directory, unit, question.since),
        sentinel=read_sentinel(question.sentinel),
        backups=read_backups(
            host, question.group_name, question.backup_directory, question.backups_expected, stated.slots
        ),
        missing=missing,
    )
