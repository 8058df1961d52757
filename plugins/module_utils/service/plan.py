# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions of redis_service: is a restart due, and may it be done."""

from __future__ import annotations

import dataclasses
import posixpath
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import (
    PLACE,
    require_listed,
    require_rdb_is_the_data,
    start_loads,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import FITS, require_fits
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import IMMUTABLE, PROTECTED, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, Keyspace
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import render_drop_in

__all__ = [
    "DeclaredUnit",
    "Pending",
    "Process",
    "directive_reasons",
    "missing_keys",
    "plan_boot",
    "plan_unit",
    "process_reasons",
    "require_is_the_units",
    "require_overrides",
    "require_primary",
    "require_restart",
    "require_start",
    "require_unit_file",
    "unit_problem",
    "with_mounts",
]

#: Directives whose effect does not depend on the process: a difference is no reason for a restart.
_COSMETIC = frozenset(["daemonize", "supervised", "pidfile", "always-show-logo", "set-proc-title", "disable-thp"])
#: Commands that take no key away; where any other ran since the start, counts verify nothing.
_HARMLESS = frozenset(
    """acl asking auth bgrewriteaof bgsave bitcount bitpos client cluster command config dbsize debug discard dump echo exists get
    getbit getrange hello hexists hget hgetall hkeys hlen hmget hscan hstrlen hvals info keys lastsave latency lindex llen lpos
    lrange memory mget module monitor multi object pfcount ping psubscribe psync pttl publish pubsub quit randomkey readonly
    replconf role save scan scard script select sentinel sismember slowlog smembers smismember sscan strlen subscribe substr sync
    time touch ttl type unsubscribe unwatch wait waitaof watch xinfo xlen xrange xread xrevrange zcard zcount zrange zrank zrevrange
    zscan zscore""".split()
)


@dataclasses.dataclass(frozen=True)
class Pending:
    """What the tasks before this one would have done by now, where they ran in check mode: directives that they change, and
    those of them that take a restart."""

    changes: frozenset[str] = frozenset()
    restart: frozenset[str] = frozenset()

    @property
    def repairs_data(self) -> bool:
        """Whether they bring places and AOF in order, which before that is no fault."""
        return bool(self.changes & {*PLACE, "appendonly"})


@dataclasses.dataclass(frozen=True)
class Process:
    """What the running process was given: soft limit of open files, umask and OOM score adjustment (None: not known).

    ``replaced`` is its program, where an upgrade has put another file in its place.
    """

    open_files: t.Optional[int] = None
    umask: t.Optional[int] = None
    oom_score_adj: t.Optional[int] = None
    replaced: str = ""


@dataclasses.dataclass(frozen=True)
class DeclaredUnit:
    """The unit as declared: its drop-in at ``path``, as properties and as text, and whether it starts at boot.

    ``data_mode``: permission bits of the data files.
    """

    unit: str
    path: str
    properties: dict[str, str]
    text: str
    enabled: bool
    data_mode: int


def with_mounts(declared: DeclaredUnit, directories: t.Iterable[str]) -> DeclaredUnit:
    """The unit, started only where the file systems of ``directories`` are mounted as well."""
    words = declared.properties.get("RequiresMountsFor", "").split()
    for directory in directories:
        if not any(directory == word or directory.startswith(word.rstrip("/") + "/") for word in words):
            words.append(directory)
    if not words or not declared.properties:
        return declared
    properties = {**declared.properties, "RequiresMountsFor": " ".join(words)}
    return dataclasses.replace(declared, properties=properties, text=render_drop_in(properties))


def plan_unit(declared: DeclaredUnit, state: t.Mapping[str, str], drop_in: str, fresh: bool) -> list[Change]:
    """What differs between the unit and its declaration; ``drop_in`` is the text that is there.

    ``fresh``: reported against a host without Redis.
    """
    path, changes = declared.path, []
    if drop_in != declared.text or fresh:
        before = ("\n" + drop_in.rstrip("\n")) if drop_in else None
        after = "\n" + declared.text.rstrip("\n")
        changes.append(Change("unit", path, before, after, f"write {path} and reload systemd"))
    return changes + plan_boot(declared, {} if fresh else state)


def plan_boot(declared: DeclaredUnit, state: t.Mapping[str, str]) -> list[Change]:
    """Whether it starts at boot, where that differs."""
    enabled = state.get("UnitFileState", "") in ("enabled", "enabled-runtime", "alias")
    if declared.enabled == enabled:
        return []
    words = {True: "enabled yes", False: "enabled no"}
    verb = "enable" if declared.enabled else "disable"
    return [Change("boot", declared.unit, words[enabled], words[declared.enabled], f"{verb} {declared.unit}")]


def directive_reasons(
    in_file: t.Mapping[str, t.Optional[str]],
    live: t.Mapping[str, str],
    overrides: t.Mapping[str, str],
    pending: Pending = Pending(),
) -> list[str]:
    """Directives that the process would have after a restart only; empty where there is none.

    Seen from the process itself, not remembered: a run that was cut off before its restart is found by the next one.
    """
    reasons = []
    for name in sorted((IMMUTABLE | PROTECTED) - _COSMETIC - set(overrides)):
        stated, have = in_file.get(name), live.get(name)
        differs = stated is not None and have is not None and normal(name, stated) != normal(name, have)
        if name in pending.restart or (differs and name not in pending.changes):
            reasons.append(f"{name}: the process has {have}")
    return reasons


def process_reasons(
    declared: t.Mapping[str, str], process: Process, open_files_ceiling: t.Optional[int], oom_score_adj: str = "no"
) -> list[str]:
    """What the unit gives at a start and the process does not have; empty where it has all.

    ``open_files_ceiling``: the most that any process here can get (None: unbounded). ``oom_score_adj``: the directive of that name.
    """
    reasons = []
    if process.replaced:
        reasons.append(f"program: {process.replaced} was upgraded, the process is of the one before")
    limit = declared.get("LimitNOFILE", "")
    if limit.isdigit() and process.open_files is not None:
        reachable = int(limit) if open_files_ceiling is None else min(int(limit), open_files_ceiling)
        if process.open_files < reachable:
            reasons.append(f"LimitNOFILE: the unit gives {reachable}, the process has {process.open_files}")
    umask = declared.get("UMask", "")
    if umask and process.umask is not None and int(umask, 8) != process.umask:
        reasons.append(f"UMask: the unit says {umask}, the process has {process.umask:04o}")
    score = declared.get("OOMScoreAdjust", "")
    # A negative score takes CAP_SYS_RESOURCE; where no unit can have it (ceiling known), it is no reason to restart for ever.
    # Nor is it where Redis moves its score itself.
    given = open_files_ceiling is None and oom_score_adj == "no"
    if score and given and process.oom_score_adj is not None and int(score) != process.oom_score_adj:
        reasons.append(f"OOMScoreAdjust: the unit says {score}, the process has {process.oom_score_adj}")
    return reasons


def require_overrides(overrides: t.Mapping[str, str], in_file: t.Mapping[str, t.Optional[str]]) -> None:
    """The unit's command line must not contradict the file where data depends on it. Raises Refusal."""
    for name in (*PLACE, "appendonly", "save"):
        if name in overrides and normal(name, overrides[name]) != (in_file.get(name) or ""):
            raise Refusal(
                "command_line_override",
                f"the unit starts the server with --{name} {overrides[name]}, the file says {in_file.get(name)}",
                "one place that says where the data is",
                f"take --{name} out of ExecStart (systemctl cat shows which file has it)",
            )


def require_unit_file(exec_start: str, config_file: str) -> None:
    """The unit must start the server with the file that was verified. Raises Refusal."""
    words = exec_start.partition("argv[]=")[2].partition(" ;")[0].split()
    started_with = next((word for word in words[1:2] if not word.startswith("-")), "")
    if started_with and posixpath.normpath(started_with) != posixpath.normpath(config_file):
        raise Refusal(
            "other_config_file",
            f"the unit starts the server with {started_with}, not with {config_file}",
            "a config_file and a unit that belong together",
            f"set config_file: {started_with}, or set unit",
        )


def require_is_the_units(unit: str, state: t.Mapping[str, str], pid: int) -> None:
    """The process that answers must be the unit's own: systemctl would start a second one next to another process. Raises Refusal."""
    main = state.get("MainPID", "0")
    if main != str(pid):
        raise Refusal(
            "not_the_units_process",
            f"the server that answers is process {pid}; {unit}.service has {'none' if main == '0' else 'process ' + main}",
            "a server that the unit started, so that systemd can restart it after a crash",
            f"stop it by hand (redis-cli SHUTDOWN saves first), then: systemctl start {unit}; or set unit",
        )


def require_start(path: str, in_file: t.Mapping[str, str], disk: DataFiles) -> None:
    """A start may not pass over data that lies there. Raises Refusal."""
    loads = start_loads(in_file, disk)
    if in_file.get("appendonly") == "no":
        require_rdb_is_the_data(path, disk)
    if loads == "fails":
        raise Refusal(
            "aof_incomplete", f"{disk.place.manifest} names files that are not there: {', '.join(disk.missing)}", "a complete AOF",
            "restore the missing files or a backup; the server does not start like this",
        )  # fmt: skip
    if loads == "aof":
        require_listed(disk)
    if loads == "nothing" and disk.any:
        raise Refusal(
            "start_would_be_empty",
            f"there is data in {disk.place.dir}, and a start with appendonly {in_file.get('appendonly')} would not read it",
            "a file that says where the data is",
            "run redis_persistence (the role redis_server does) before the start",
        )


def require_role(in_file: t.Mapping[str, str], live: t.Mapping[str, str]) -> None:
    """A restart must not change who replicates whom. Raises Refusal."""
    stated, have = (values.get("replicaof", "").lower().replace("no one", "") for values in (in_file, live))
    if stated != have:
        raise Refusal(
            "role_differs",
            f"the file says replicaof {stated or 'no one'}, the process has {have or 'no one'}: a restart would change its role, "
            "and the data of the one that becomes a replica is thrown away",
            "a file that says what is",
            "redis-cli CONFIG REWRITE if the process is right; else correct the file or the process by hand",
        )


def require_restart(
    in_file: t.Mapping[str, str], live: t.Mapping[str, str], info: Info, aof_in_use: bool, repaired: bool = False
) -> None:
    """What the process holds must be what the next one loads. ``in_file`` is read anew for this. Raises Refusal.

    ``repaired``: check mode, and what comes before this in the same run sees to the places and the AOF.
    """
    require_role(in_file, live)
    require_fits({name: in_file.get(name) for name in FITS}, live, info)
    keys = info.keys
    if not keys or repaired:
        return
    for name in PLACE:
        if in_file[name] != live[name]:
            raise Refusal(
                "place_differs",
                f"{name} is {live[name]} in the process, which holds {keys} keys, and {in_file[name]} in the file: a restart would start EMPTY",
                "the same place in both",
                f"set {name.replace('-', '_')}: {live[name]} in redis_persistence",
            )
    if in_file["appendonly"] != live["appendonly"]:
        raise Refusal(
            "aof_differs",
            f"appendonly is {live['appendonly']} in the process, which holds {keys} keys, and {in_file['appendonly']} in the file",
            "the same in both, or a restart would load something older or nothing",
            "run redis_persistence first: it turns AOF on live, and writes the file when the AOF is verified",
        )
    if live["appendonly"] == "yes" and not aof_in_use:
        raise Refusal(
            "aof_not_verified",
            "AOF is on, but the files that a restart would load are not complete or not the ones the server writes to",
            "a verified AOF",
            "run redis_persistence first: it rewrites and verifies the AOF",
        )
    if info.text("aof_last_write_status", "ok") != "ok":
        raise Refusal(
            "aof_write_error", "the last write to the AOF failed (aof_last_write_status:err)", "an AOF that holds everything",
            "free space or repair the file system; Redis writes again within a second, then run again",
        )  # fmt: skip


def require_primary(info: Info, sentinel_listens: bool) -> None:
    """A restart of a primary that somebody would fail over loses what is written between the two. Raises Refusal."""
    watched = sentinel_listens or info.flag("cluster_enabled")
    if info.text("role") == "master" and info.number("connected_slaves") and watched:
        raise Refusal(
            "primary_is_watched",
            f"this is a primary with {info.number('connected_slaves')} replicas that {'Sentinel' if sentinel_listens else 'the cluster'} "
            "watches: during a restart a replica would be promoted, and writes that this host acknowledges when it comes back are lost",
            "another primary first",
            "run the playbook redisops.recovery.rolling_restart, which moves the primary first; in a cluster, CLUSTER FAILOVER on a replica and run "
            "again; or set restart: never",
        )


def missing_keys(
    before: t.Mapping[int, Keyspace], after: t.Mapping[int, Keyspace], called: t.Iterable[str]
) -> tuple[bool, str]:
    """Whether keys without a time to live are missing after a restart, in words; ``called`` names the commands since the start.

    Clients come back at once and may delete what they like; where one did more than read, counts verify nothing.
    """
    lost = {
        database: space.keys
        - space.expires
        - (after[database].keys - after[database].expires if database in after else 0)
        for database, space in before.items()
    }
    lost = {database: count for database, count in lost.items() if count > 0}
    if not lost:
        return False, "every key without a time to live is there again"
    if not set(called) <= _HARMLESS:
        return False, "not known: clients wrote right after the restart"
    words = ", ".join(f"{count} in db{database}" for database, count in sorted(lost.items()))
    return True, f"keys without a time to live that are missing: {words}"


def unit_problem(unit: str, state: t.Mapping[str, str]) -> t.Optional[Problem]:
    """Why this unit cannot be managed; None where it can."""
    if state.get("LoadState") == "loaded":
        return None
    return Problem(
        "no_unit",
        f"systemd has no unit {unit}.service (LoadState={state.get('LoadState', 'unknown')})",
        "the packaged unit of the server",
        "install Redis first, or set unit (redis-server on Debian and Ubuntu, redis on RHEL)",
    )
