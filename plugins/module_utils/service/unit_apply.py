# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's unit: read, planned, and applied with the restart or start that it takes."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import require_aof_replays
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import (
    keep_unloaded,
    torn_changes,
    unloaded_changes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import (
    aof_is_in_use,
    require_aof_is_the_data,
    require_rdb_is_known,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import start_loads
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.sharing_reader import require_unshared
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import sentinel_listens
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import FITS
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import IMMUTABLE, PERSISTENCE
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    read_instance,
    refreshed,
    release_of,
    require_accepted,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.apply import (
    restart_server,
    save_before_stop,
    write_drop_in,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import (
    aof_damage,
    disk_of,
    exposure_of,
    process_of,
    require_last_word,
    require_paths,
    unit_state,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import (
    DeclaredUnit,
    Pending,
    directive_reasons,
    missing_keys,
    plan_unit,
    process_reasons,
    require_is_the_units,
    require_overrides,
    require_primary,
    require_restart,
    require_start,
    require_unit_file,
    unit_problem,
    with_mounts,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.sandboxing import confinement_reasons
from ansible_collections.redisops.recovery.plugins.module_utils.service.start import start_server
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, apply_access
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import command_line_overrides

__all__ = ["Done", "Plan", "State", "apply", "plan_of", "read_state", "require_ends_well"]

#: For the load of an AOF that is looked at before a restart of an empty server.
_LOAD_SECONDS = 600.0
_NAMES = (*PERSISTENCE, *IMMUTABLE, *FITS, "replicaof")


def _file_values(instance: Instance) -> dict[str, t.Optional[str]]:
    """What the file says of everything that matters to a restart."""
    return {name: instance.in_file(name) or ("" if name == "replicaof" else None) for name in _NAMES}


@dataclasses.dataclass(frozen=True)
class State:
    """The unit as declared, as systemd shows it, with the text of our ``drop_in``, and the server.

    ``missing``: it is only about to be installed (check mode). ``in_file``: what redis.conf says, by directive; ``overrides``: what
    the command line does. ``pending``: what the tasks before this one would have done (check mode).
    """

    declared: DeclaredUnit
    host: Host
    shown: dict[str, str]
    missing: bool
    drop_in: str
    instance: Instance
    in_file: dict[str, t.Optional[str]]
    overrides: dict[str, str]
    pending: Pending

    @property
    def stale(self) -> bool:
        """Whether systemd has not read the unit's files as they are now."""
        return self.shown.get("NeedDaemonReload") == "yes"


@dataclasses.dataclass(frozen=True)
class Plan:
    """``unit_changes`` is what the unit lacks, ``reasons`` why the process has to be another, ``due`` whether it will be.

    ``rewrites``: the drop-in changes, ``exposure`` before that, 0 to 10 (None: systemd does not say).
    """

    unit_changes: list[Change]
    reasons: list[str]
    due: bool
    changes: list[Change]
    rewrites: bool
    exposure: t.Optional[float]


@dataclasses.dataclass(frozen=True)
class Done:
    """``exposure`` after it, 0 to 10; ``keys`` before and after a restart, None where there was none."""

    exposure: t.Optional[float]
    keys: t.Optional[dict[str, t.Any]]


def read_state(declared: DeclaredUnit, host: Host, params: t.Mapping[str, t.Any], login: Login, check: bool) -> State:
    """Look at unit and server, which have to belong together. Raises Problem or Refusal."""
    unit, fresh = declared.unit, params["fresh_install"]
    shown = unit_state(host, unit)
    problem = unit_problem(unit, shown)
    if problem and not (fresh and check):
        raise problem
    require_last_word(host, shown, params["drop_in"], declared.properties)
    instance = read_instance(params["config_file"], login, host, params["timeout"], fresh)
    in_file, start = _file_values(instance), shown.get("ExecStart", "")
    declared = with_mounts(declared, _data_directories(in_file))
    overrides = command_line_overrides(start)
    pending = Pending(frozenset(params["pending"]), frozenset(params["pending_restart"])) if check else Pending()
    if not problem:
        if not pending.repairs_data:
            require_overrides(overrides, in_file)
        require_unit_file(start, params["config_file"])
    drop_in = host.read(declared.path) or ""
    if in_file["dir"]:
        require_unshared(host, disk_of(in_file), instance.pid, params["config_file"])
    if instance.text:
        require_paths(instance, unit, shown, drop_in, declared.properties, params["pending_paths"] if check else {})
    return State(declared, host, shown, problem is not None, drop_in, instance, in_file, overrides, pending)


def _data_directories(in_file: t.Mapping[str, t.Optional[str]]) -> list[str]:
    """Where the data is, behind links, as far as systemd can be told by a list of words."""
    place = disk_of(in_file)
    found = [os.path.realpath(path) for path in (place.dir, place.aof_dir)] if os.path.isabs(place.dir) else []
    return [path for path in dict.fromkeys(found) if not set(path) & set(" \t%\\")]


def _restart_reasons(state: State, always: bool) -> list[str]:
    """Why the running process is not the one that a start from file and unit would give. Raises Refusal where it is not the unit's."""
    declared, instance, host = state.declared, state.instance, state.host
    require_is_the_units(declared.unit, state.shown, instance.pid)
    given, confined = process_of(host, instance.pid)
    reasons = [
        *directive_reasons(state.in_file, instance.live, state.overrides, state.pending),
        *process_reasons(
            declared.properties, given, host.open_files_ceiling(), instance.live.get("oom-score-adj", "no")
        ),
        *confinement_reasons(declared.properties, confined),
    ]
    return reasons or (["restart: always"] if always else [])


def _require_start(state: State, stated: t.Mapping[str, str], disk: DataFiles, timeout: float) -> None:
    """A start from the file passes over nothing, and loads the layer that has the data. Raises Refusal or Problem."""
    require_start(state.instance.path, stated, disk)
    if start_loads(stated, disk) == "aof":
        require_aof_is_the_data(state.host, disk, release_of(state.instance), timeout)


def require_ends_well(state: State, info: Info) -> None:
    """The process may end: its files take what it holds, and nobody takes its place before it is back. Raises Refusal."""
    instance = state.instance
    require_rdb_is_known(state.host, info, scan(disk_of(refreshed(instance).live)))
    if info.flag("aof_enabled"):
        require_aof_replays(instance.server, info)
    require_primary(info, sentinel_listens(instance.server))


def _require_safe(state: State, info: Info) -> None:
    """What the process holds is what the next one loads, looked at anew. Raises Refusal."""
    instance, host = state.instance, state.host
    require_ends_well(state, info)
    now = refreshed(instance)
    disk = scan(disk_of(now.live))
    stated = _file_values(now)
    in_use = now.live["appendonly"] != "yes" or aof_is_in_use(host, instance.pid, disk.place)
    require_restart(stated, now.live, info, in_use, state.pending.repairs_data)
    if not info.keys and not state.pending.repairs_data:  # an empty server may be turned to a place that holds data
        _require_start(state, stated, scan(disk_of(stated)), _LOAD_SECONDS)


def _require_whole_aof(state: State, timeout: float) -> None:
    """The AOF that the restart reads is whole from end to end: the process that goes may hold the only good copy. Raises Refusal."""
    instance = state.instance
    if instance.live["appendonly"] != "yes" or not instance.info.keys or state.pending.repairs_data:
        return
    damage = aof_damage(instance, disk_of(instance.live), timeout)
    if damage:
        raise Refusal(
            "aof_not_verified",
            f"AOF is on, and a restart would fail or lose data: {damage}",
            "a verified AOF",
            "have the running server write it anew: redis_repair with method: memory, or redis-cli BGREWRITEAOF; then run again",
        )


def plan_of(state: State, params: t.Mapping[str, t.Any]) -> Plan:
    """What is to be done, and that it may be. Raises Problem or Refusal."""
    declared, instance, fresh, in_file = state.declared, state.instance, params["fresh_install"], state.in_file
    unit, unit_changes = declared.unit, plan_unit(declared, state.shown, state.drop_in, fresh)
    changes = list(unit_changes)
    reasons = _restart_reasons(state, params["restart"] == "always") if instance.running else []
    due = bool(reasons) and params["restart"] != "never"
    if instance.text and (due or not instance.running):
        # A line that was broken by hand shows here, and not when the old process is gone.
        require_accepted(instance, instance.text)
    if due:
        _require_safe(state, instance.info)
        torn = torn_changes(instance.info, scan(disk_of(instance.live)))
        changes += torn
        if not torn:  # else the AOF is written anew before the process goes
            _require_whole_aof(state, params["timeout"])
        words = "save and wait for it to end well, pause writes, restart, wait until loaded, compare the keys"
        changes.append(Change("process", unit, "; ".join(reasons), "as file and unit say", words))
    if not instance.running or fresh:
        if instance.text and in_file["dir"] and not state.pending.repairs_data:
            disk = scan(disk_of(in_file))
            _require_start(state, in_file, disk, params["timeout"])
            changes += unloaded_changes(in_file, disk)
        changes.append(Change("process", unit, "stopped", "running", f"start {unit} and wait until its data is loaded"))
    rewrites = state.drop_in != declared.text and not state.missing
    return Plan(unit_changes, reasons, due, changes, rewrites, exposure_of(state.host, unit) if rewrites else None)


def _apply_unit(state: State, changes: t.Iterable[Change]) -> None:
    """Unit file, then what systemd knows of it. Raises Problem."""
    declared, layers = state.declared, {change.layer for change in changes}
    if "unit" in layers:
        write_drop_in(declared.path, declared.text)
    if state.stale or "unit" in layers:
        systemctl(state.host, "daemon-reload")
    if "boot" in layers:
        systemctl(state.host, "enable" if declared.enabled else "disable", f"{declared.unit}.service")


def _hold(state: State, place: str) -> UnitHold:
    return UnitHold(state.host, state.declared.unit, place, True)


def _restart(state: State, began: float, timeout: float) -> dict[str, t.Any]:
    """The restart, and the mode of the RDB file where it was saved since ``began`` (seconds since 1970); gives the keys.

    Raises Problem where it fails, or keys are missing.
    """
    instance, safe = state.instance, functools.partial(_require_safe, state)
    hold = _hold(state, instance.live["dir"])
    before, after = restart_server(hold, state.host, instance.server, safe, timeout)
    rdb = disk_of(instance.live).rdb
    if os.path.exists(rdb) and os.stat(rdb).st_mtime >= int(began):
        status = os.stat(rdb)
        apply_access([rdb], Access(status.st_uid, status.st_gid, state.declared.data_mode))
    called = [name[len("cmdstat_") :].split("|")[0] for name in after.fields if name.startswith("cmdstat_")]
    lost, verdict = missing_keys(before.keyspace, after.keyspace, called)
    keys = {"before": before.keys, "after": after.keys, "verdict": verdict}
    if lost:
        raise Problem(
            "keys_missing", f"after the restart: {verdict}", "every key", "stop the clients and look at the log now", keys=keys,
        )  # fmt: skip
    return keys


def _start(state: State, login: Login, timeout: float) -> None:
    """Start the stopped server; what it will not load is kept first. Raises Problem."""
    stated = state.in_file
    place = stated["dir"] or "/"
    if stated["dir"]:
        keep_unloaded(stated, scan(disk_of(stated)))
    start_server(state.host, _hold(state, place), login, timeout)


def apply(state: State, plan: Plan, login: Login, timeout: float) -> Done:
    """A verified save, the unit, the restart or start; ``timeout`` in seconds, of each wait. Raises Problem or Refusal."""
    host, unit, instance, keys = state.host, state.declared.unit, state.instance, None
    began = time.time()
    if plan.due:
        save_before_stop(instance.server, host, functools.partial(_require_safe, state), timeout)
    _apply_unit(state, plan.unit_changes)
    exposure = exposure_of(host, unit) if plan.rewrites else None
    if plan.due:
        keys = _restart(state, began, timeout)
    elif not instance.running:
        _start(state, login, timeout)
    return Done(exposure, keys)
