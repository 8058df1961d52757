# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of a data server: read, planned, set live and put into its files, with the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import (
    apply_users,
    end_sessions,
    read_dependents,
    read_users,
    refused_by_primary,
    require_rules_accepted,
    restore_file,
    undone,
    wait_until_synchronised,
    without_users,
)
from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import (
    AclPlan,
    AclState,
    Dependent,
    Scope,
    plan_acl,
    render_file,
    require_dependents,
    require_own_login,
    require_replays,
)
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import Acl, file_lines
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_apply import (
    commit,
    require_known,
    set_live,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import ConfigPlan, plan_config
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    OPEN_ACL,
    Instance,
    edited,
    read_instance,
    stage,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import (
    StagedFile,
    group_id,
    read_text,
    user_id,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import (
    Access,
    apply_access,
    plan_path_access,
)

__all__ = ["Declared", "Plan", "State", "apply", "plan_of", "read_state", "require_safe", "warnings_of"]


@dataclasses.dataclass(frozen=True)
class Declared:
    """``users`` in the ACL file ``path`` of ``mode``; ``links``: the directives with which the server logs in to its primary."""

    users: Acl
    links: dict[str, str]
    path: str
    mode: int

    @property
    def directives(self) -> dict[str, str]:
        return {"aclfile": self.path, **self.links}


@dataclasses.dataclass(frozen=True)
class State:
    """The declaration, and the server with the users that it has.

    ``absent``: Redis is only about to be installed (check mode). ``added``: check mode, and a call with ``withdraw`` false was
    predicted before this one.
    """

    declared: Declared
    instance: Instance
    users: AclState
    absent: bool
    added: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """``users`` is what this call does, ``whole`` what it comes to with ``withdraw``; ``text`` is redis.conf after it.

    ``access`` is the ACL file's, ``conf_access`` that of redis.conf where it holds a password. None: as it is.
    """

    users: AclPlan
    whole: AclPlan
    config: ConfigPlan
    text: str
    access: t.Optional[Access]
    conf_access: t.Optional[Access]
    changes: list[Change]


def _require_own(path: str) -> None:
    """The directory is the server's own to write: a link there would lead this run, as root, wherever it likes. Raises Problem."""
    if not os.path.isabs(path):
        raise Problem(
            "invalid_value", f"acl_file: {path!r} is no absolute path", "one file", "set acl_file: /etc/redis/users.acl"
        )
    if os.path.islink(path):
        raise Problem(
            "acl_file", f"{path} is a link to {os.readlink(path)}", "a file", f"move that file to {path}, or set acl_file to where it is",
        )  # fmt: skip


def read_state(declared: Declared, params: t.Mapping[str, t.Any], login: Login, check: bool) -> State:
    """The server and its users. Raises Problem or Refusal."""
    _require_own(declared.path)
    empty = params["fresh_install"]
    instance = read_instance(params["config_file"], login, Host(), params["timeout"], empty)
    absent = empty and not instance.text
    users = AclState(None, None, {}, None) if absent else read_users(instance, declared.path)
    return State(declared, instance, users, absent, bool(check and params["pending"]))


def _access_of(
    state: State, params: t.Mapping[str, t.Any], plan: AclPlan
) -> tuple[Access, t.Optional[Access], list[Change]]:
    """Access of the ACL file, of redis.conf where a password is to stand in it, and what differs. Raises Problem."""
    like = os.stat(state.instance.path)
    access = Access(
        user_id(params["owner"]) if params["owner"] else like.st_uid,
        group_id(params["group"], "group") if params["group"] else like.st_gid,
        state.declared.mode,
    )
    conf_access, found = None, []
    if state.declared.links:  # closed to others
        conf_access, change = plan_path_access(state.instance.path, None, None, like.st_mode & 0o7770)
        found.append(change)
    if os.path.exists(state.declared.path) and plan.file is None:
        found.append(plan_path_access(state.declared.path, access.uid, access.gid, access.mode)[1])
    # Of a host that this run brought, owner and mode are part of "write …": check mode cannot know what the package gave.
    return access, conf_access, [change for change in found if change and not params["fresh_install"]]


def plan_of(state: State, params: t.Mapping[str, t.Any]) -> Plan:
    """What is to be done. Raises Problem."""
    instance, scope = state.instance, Scope(params["withdraw"], params["purge"], state.added)
    if instance.running:
        require_known(instance, state.declared.directives)
    config = plan_config(
        {} if state.added else state.declared.directives, instance.directives, instance.path,
        instance.live if instance.running else None, None, params["fresh_install"] and not params["pending"],
    )  # fmt: skip
    text = "" if state.absent else without_users(instance, edited(instance, state.declared.directives))
    users, whole = (
        plan_acl(state.declared.users, state.users, state.declared.path, instance.path, one)
        for one in (scope, dataclasses.replace(scope, withdraw=True))
    )
    access, conf_access, differs = (None, None, []) if state.absent or state.added else _access_of(state, params, users)
    return Plan(users, whole, config, text, access, conf_access, config.changes + users.changes + differs)


def require_safe(state: State, plan: Plan, login: Login) -> list[Dependent]:
    """Everything that could be wrong with the users as they will be, before any is touched; gives whom to move. Raises Problem."""
    instance, users, whole = state.instance, state.users, plan.whole
    require_rules_accepted(
        instance, plan.text, whole.file if whole.file is not None else users.file or {}, state.declared.users
    )
    started = {**file_lines(OPEN_ACL, ""), **whole.file_after}
    for after in [whole.live_after, started] if instance.running else [started]:
        require_own_login(login.user or "default", login.password, after, users.table)
        require_replays(after["default"], users.table, instance.info.version, instance.info.product)
    if instance.server is None:
        return []
    return require_dependents(read_dependents(instance.server), users.live, whole.live_after, users.table)


@contextlib.contextmanager
def _staged_files(state: State, plan: Plan) -> t.Iterator[tuple[t.Optional[StagedFile], t.Optional[StagedFile]]]:
    """redis.conf and the ACL file, each None where it stays; what was not put in place is gone at the end. Raises Problem."""
    conf = acl = None
    mine, access = plan.conf_access, plan.access
    try:
        # Only what changes: a run that is cut off would leave a copy that no other one takes away.
        if plan.text != state.instance.text:
            conf = stage(state.instance, plan.text, access=mine)
        if plan.users.file is not None:
            acl = StagedFile(
                state.declared.path, render_file(plan.users.file), access.mode, access=access, follow=False
            )
        yield conf, acl
    finally:
        for staged in filter(None, (conf, acl)):
            staged.discard()


def apply(state: State, plan: Plan, params: t.Mapping[str, t.Any], login: Login, movers: t.Sequence[Dependent]) -> None:
    """Stage both files, set live, put the files in place: the ACL file first, which nothing reads until redis.conf names it.

    Raises Problem; then all is as it was.
    """
    instance, live, path, withdraw = state.instance, plan.config.live, state.declared.path, params["withdraw"]
    before = read_text(path) if os.path.exists(path) else None
    back: list[t.Callable[[], None]] = []
    if instance.server and withdraw:
        wait_until_synchronised(instance.server, plan.users, params["timeout"])
    with _staged_files(state, plan) as (conf, acl):
        try:
            if live:
                set_live(instance, live)
                back.append(lambda: instance.server.config_set({name: instance.live[name] for name in live}))
            if plan.users.live:
                users = apply_users(instance.server, login, plan.users, movers if withdraw else [], state.users.table)
                back.append(users.undo)
            if acl:
                back.append(lambda: restore_file(path, before))
                acl.commit()
            if conf:
                commit(conf, instance, {})
            if plan.users.live:
                end_sessions(users, plan.users)
        except Exception as error:
            raise undone(error, *reversed(back)) from None
    apply_access([path], plan.access)
    if plan.conf_access:
        apply_access([instance.path], plan.conf_access)


def warnings_of(state: State, plan: AclPlan, params: t.Mapping[str, t.Any], login: Login, check: bool) -> list[str]:
    """Users that nobody declared, and a primary that would not let this replica in again."""
    warnings = []
    if plan.unknown_users and not params["purge"]:
        names = ", ".join(plan.unknown_users)
        warnings.append(f"Users that are not declared, and stay: {names}. Set purge: true to remove them.")
    login_user = state.declared.links.get("masteruser")
    if any(
        user["name"] == login_user and (user["preset"] != "replication" or user["rules"]) for user in params["users"]
    ):
        warnings.append(
            f"The replication login {login_user} may do more than replicate, and its password stands in redis.conf as it is. Give it the preset "
            "replication, and no rules."
        )
    if state.instance.running and not check and (params["withdraw"] or plan.settled):
        # In the first half of a first run, the primary may yet be about to learn of the user.
        warnings += refused_by_primary(state.instance, login, state.declared.links)
    return warnings
