# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Sentinel with its unit, users and primaries: read, planned and applied."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import AclPlan, Scope
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.apply import (
    require_file_accepted,
    reset,
    restarted,
    set_live,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import (
    Sentinel,
    addresses_of,
    find_sentinel_unit,
    read_sentinel,
    require_address,
    require_logins_of,
    require_scripts,
    ring_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import SentinelConf
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.plan import (
    SCRIPTS,
    Declared,
    Item,
    Now,
    changes_of,
    declared_of,
    edit,
    options_of,
    plan_items,
    require_names,
    require_port,
    require_quiet,
    require_restartable,
    reset_changes,
    settings_of,
    undeclared,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.service import Service, read_service
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_apply import (
    planned_users,
    require_peers,
    set_users,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_plan import words_of_users
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import mode_of
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import apply_access, plan_path_access

__all__ = ["Plan", "State", "apply", "plan_of", "read_state", "require_safe"]

_Params = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class State:
    """What is declared, and the Sentinel with its unit, as they are. ``fresh``: it is only about to be installed (check mode).

    ``empty``: this run has installed it, so that what changes is reported against nothing. ``addresses``: where primaries are that are
    not watched yet, and ``because`` of whom; ``undeclared``: names that are watched, and that nobody declared.
    """

    declared: Declared
    ring: GroupHosts
    sentinel: Sentinel
    service: Service
    now: Now
    fresh: bool
    empty: bool
    addresses: dict[str, str]
    because: dict[str, str]
    undeclared: list[str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """``items`` of sentinel.conf and its users; ``reasons`` for a restart, and whether it is ``due``.

    ``stale``: primaries of which something is to be forgotten, ``forgotten`` what of it this call resets.
    """

    items: list[Item]
    users: AclPlan
    reasons: list[str]
    due: bool
    stale: list[Change]
    forgotten: list[Change]
    changes: list[Change]


def _to_servers(params: _Params) -> Login:
    """How Sentinel itself reaches the servers, without a user yet."""
    tls = params["tls_replication"]
    files = {"ca_certs": params["tls_ca_cert_file"], "client_cert_file": params["tls_cert_file"], "client_key_file": params["tls_key_file"]}  # fmt: skip
    return Login(tls=tls, validate_certs=params["validate_certs"], **(files if tls else {}))


def _find(params: _Params, host: Host, login: Login, check: bool) -> tuple[Sentinel, str, bool]:
    """The Sentinel, its unit, and whether it is yet to be brought. Raises Problem."""
    unit, package = (params["unit"], "") if params["unit"] != "auto" else find_sentinel_unit(host)
    path = params["config_file"]
    if unit and os.path.exists(path):
        return read_sentinel(path, login, host), unit, False
    if check and params["fresh_install"]:
        return Sentinel(path, "", host), unit, True
    raise Problem(
        "sentinel_missing", f"there is no {path}" if unit else "systemd has no unit of a Sentinel", "an installed Sentinel",
        f"install the package {package or 'of the server'}" + ("" if package else ", or set unit and config_file"), package=package,
    )  # fmt: skip


def read_state(params: _Params, host: Host, login: Login, check: bool, units: str) -> State:
    """Look at the Sentinel, and ask the others for primaries that it does not know; drop-ins are below ``units``.

    Raises Problem or Refusal.
    """
    settings = settings_of(params)
    ring = ring_of(params["sentinels"], params["address"], settings)
    declared = Declared(declared_of(params["primaries"], len(ring.all)), options_of(params), settings)
    require_port(settings, login.port, login.unix_socket)
    sentinel, unit, fresh = _find(params, host, login, check)
    empty = params["fresh_install"] and not sentinel.running
    scripts = [one.options.get(script, "") for one in declared.primaries for script in SCRIPTS]
    service = read_service(sentinel, unit, params, scripts, units, empty)
    now = sentinel.now([member for one in declared.primaries for member in one.group_hosts])
    require_names(params["reset"], now.names, "reset")
    addresses, because = addresses_of(declared, now, ring, login, _to_servers(params), fresh)
    others = undeclared(declared, now)
    return State(declared, ring, sentinel, service, now, fresh, empty, addresses, because, others)


def _users_plan(sentinel: Sentinel, params: _Params, added: bool) -> AclPlan:
    """What to do to Sentinel's own users. Raises Problem, or Refusal where somebody would be locked out."""
    declared = words_of_users(params["users"], params["default_user"])
    login = (params["login_user"], params["login_password"])
    peer = (params["sentinel_user"], params["sentinel_password"]) if len(params["sentinels"]) > 1 else None
    return planned_users(sentinel, declared, login, peer, Scope(params["finish"], params["purge"], added))


def _mode_changes(path: str, mode: int) -> list[Change]:
    """The file gives more rights than ``mode``."""
    change = plan_path_access(path, None, None, mode_of(path) & mode)[1]
    return [change] if change else []


def _restart_reasons(sentinel: Sentinel, items: t.Iterable[Item], service: Service) -> list[str]:
    """What of the declaration a running Sentinel takes at its start only."""
    if not sentinel.running:
        return []
    return [f"{item.option} is declared as {item.after or 'none'}" for item in items if not item.live] + service.reasons


def plan_of(state: State, params: _Params, check: bool) -> Plan:
    """What is to be done; ``params`` with the mode as bits. Raises Problem, or Refusal where somebody would be locked out."""
    sentinel, service, declared, addresses = state.sentinel, state.service, state.declared, state.addresses
    removed = state.undeclared if params["purge"] and params["finish"] else []
    items = plan_items(declared, state.now, addresses, removed)
    # Of a host that this run brought, the diff is reported against nothing: check mode cannot know what the package would bring.
    reported = plan_items(declared, Now(), addresses, []) if state.empty else items
    reasons = _restart_reasons(sentinel, items, service)
    due = bool(reasons) and params["restart"] == "if_needed"
    if sentinel.running and not due:
        items = reported = [item for item in items if item.live]
    users = _users_plan(sentinel, params, check and bool(params["pending"]))
    changes = changes_of(reported, sentinel.running, sentinel.path) + service.changes
    changes += [] if state.empty else _mode_changes(sentinel.path, params["mode"])
    changes += service.process(sentinel.running, due, reasons)
    stale = reset_changes(sentinel.watched, params["reset"], params["reset_after"])
    forgotten = stale if params["finish"] else []
    if check:  # what the call before this one would have done is not reported again
        changes = [change for change in changes if change.name not in params["pending"]]
    return Plan(items, users, reasons, due, stale, forgotten, changes + users.changes + forgotten)


def _starts(state: State, plan: Plan) -> bool:
    return plan.due or not state.sentinel.running


def _text_of(state: State, plan: Plan, conf: SentinelConf) -> str:
    """The file that a Sentinel which does not run should find."""
    running = state.sentinel.running
    text = edit(conf, [item for item in plan.items if not (running and item.live)])
    if running or not plan.users.changes:
        return text
    conf.set_users([" ".join((name, *words)) for name, words in plan.users.file_after.items()])
    return conf.render()


def require_safe(state: State, plan: Plan, params: _Params, login: Login, check: bool) -> None:
    """Everything that could be wrong, before anything is touched. Raises Problem or Refusal."""
    sentinel, declared = state.sentinel, state.declared
    require_address(sentinel, state.ring, declared.options, login)
    require_scripts(plan.items, SCRIPTS)
    require_logins_of(declared, plan.items, sentinel, state.addresses, _to_servers(params))
    if plan.due:
        require_restartable(sentinel.watched.values(), sentinel.tilt)
    if plan.forgotten:
        require_quiet([sentinel.watched[name] for name in params["reset"]], sentinel.tilt, "a reset")
    if _starts(state, plan):
        require_file_accepted(sentinel, _text_of(state, plan, sentinel.conf))
    if not check:  # last: who may have to log in again is asked to
        require_peers(sentinel.server, plan.users)


def _set_live(state: State, plan: Plan, login: Login) -> None:
    """Users, then options and primaries. Raises Problem; then all is as it was."""
    sentinel = state.sentinel
    back = set_users(sentinel.server, login, plan.users)
    try:
        set_live(sentinel, [item for item in plan.items if item.live])
    except Problem:
        back()
        raise


def apply(state: State, plan: Plan, params: _Params, login: Login) -> tuple[Sentinel, list[str]]:
    """Live, then what takes a start, then what is forgotten; gives the Sentinel as it is then, and warnings. Raises Problem."""
    sentinel, service, path, warnings = state.sentinel, state.service, state.sentinel.path, []
    if sentinel.running:
        _set_live(state, plan, login)
    if _starts(state, plan):
        restarted(sentinel, service.unit, functools.partial(_text_of, state, plan), login, service.prepare)
    else:
        service.prepare()
    apply_access([path], plan_path_access(path, None, None, mode_of(path) & params["mode"])[0])
    sentinel = read_sentinel(path, login, sentinel.host)
    for name in dict.fromkeys(change.name.split()[0] for change in plan.forgotten):
        if not reset(sentinel.server, sentinel.watched[name]):
            warnings.append(
                f"{name}: since SENTINEL RESET not all has been found again that was up; wait before the next."
            )
    return sentinel, warnings
