# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's place in its replication group: what it is, what is declared, and the way there. ``params`` are redis_replication's."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.apply import follow, wait_for_replicas
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    GroupHosts,
    ask_sentinels,
    look,
    require_own_address,
    sentinel_listens,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.plan import (
    Decision,
    agreed,
    backlog_bytes,
    decide,
    require_joinable,
    require_same_role,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    View,
    split_endpoint,
    view_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_apply import (
    commit,
    require_known,
    set_live,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import plan_config
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import memory_bytes, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    edited,
    read_instance,
    stage,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Plan", "State", "apply", "plan_of", "read_state", "warnings_of"]


#: Where the server says that it can be reached.
_PORTS = ("port", "tls-port", "replica-announce-port")


def decision_of(
    instance: Instance, group_hosts: GroupHosts, params: t.Mapping[str, t.Any]
) -> tuple[Decision, View, dict]:
    """Who is primary, this server's part, and everybody's by member. Raises Problem or Refusal."""
    login = instance.server.login
    me = group_hosts.spelled(view_of(instance.server.info(), group_hosts.own))
    require_own_address(group_hosts, {instance.live.get(name, "") for name in _PORTS} | {str(login.port)})
    views = {peer: look(group_hosts, peer, login) for peer in group_hosts.peers}
    asked = Login(
        **{
            **vars(login),
            "user": params["sentinel_user"],
            "password": params["sentinel_password"],
            "previous_password": None,
        }
    )
    name = params["primary_name"]
    named = agreed(ask_sentinels(params["sentinels"], name, asked, group_hosts), name)
    declared = group_hosts.of(GroupHosts.spelling(params["primary"])) if params["primary"] else None
    decision = decide(me, list(views.values()), named, declared)
    require_same_role(me, decision)
    if me.role == "primary" and decision.primary != me.address and not named and sentinel_listens(instance.server):
        raise Refusal(
            "sentinel_not_asked", f"a Sentinel watches this server, and none of {params['sentinels'] or 'the sentinels'} could tell who is primary",
            "Sentinel's word on who is primary: it would undo what goes against it", "set sentinels and primary_name, or start the Sentinels",
        )  # fmt: skip
    return decision, me, {**views, me.address: me}


def settings_of(instance: Instance, group_hosts: GroupHosts, params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The directives, in normal form."""
    needed = params["min_replicas_to_write"]
    needed = (1 if group_hosts.peers else 0) if needed is None else needed
    if needed > len(group_hosts.peers):
        raise Problem(
            "too_few_group_hosts", f"min_replicas_to_write is {needed}, and the group has {len(group_hosts.peers)} other group_hosts: no primary could take a write",
            "as many replicas as that", "lower min_replicas_to_write, or add group_hosts",
        )  # fmt: skip
    there = int(normal("repl-backlog-size", instance.value("repl-backlog-size") or "1mb"))
    size = params["repl_backlog_size"]
    if size == "auto":
        size = str(
            max(there, backlog_bytes(memory_bytes(params["write_rate"], "write_rate"), params["survive_outage"]))
        )
    return {
        "min-replicas-to-write": str(needed),
        "min-replicas-max-lag": str(params["min_replicas_max_lag"]),
        "repl-backlog-size": normal("repl-backlog-size", size),
    }


def text_of(
    instance: Instance, settings: dict, group_hosts: GroupHosts, me: View, primary: str
) -> tuple[str, list[Change]]:
    """The file with the settings and the role that the server has, and the change of the role in it.

    What the process already follows is spelled as the process spells it: a restart is refused where the two differ (redis_service).
    """
    text, path = edited(instance, settings), instance.path
    stated = [entry for entry in instance.directives if entry.name == "replicaof"]
    now = " ".join(stated[-1].args) if stated and stated[-1].text.lower() != "no one" else ""
    wanted = "" if primary == group_hosts.own else " ".join(map(str, split_endpoint(primary)))
    if wanted and primary == me.upstream:
        wanted = instance.live.get("replicaof") or wanted
    if now == wanted:
        return text, []
    conf = RedisConf(text, path)
    conf.remove("replicaof")
    if wanted:
        conf.set("replicaof", [tuple(wanted.split())])
    return conf.render(), [
        Change("file", "replicaof", now or "no one", wanted or "no one", f"write replicaof to {path}")
    ]


@dataclasses.dataclass(frozen=True)
class State:
    """The server, its part in the group, and who is primary. ``fresh``: Redis is only about to be installed (check mode)."""

    instance: Instance
    group_hosts: GroupHosts
    me: View
    decision: Decision
    fresh: bool

    @property
    def primary(self) -> str:
        return self.decision.primary

    @property
    def joins(self) -> bool:
        """Whether the server has to follow another primary than now."""
        return self.primary not in (self.me.address, self.me.upstream)


@dataclasses.dataclass(frozen=True)
class Plan:
    """``settings`` that are set now, all that is ``needed`` in replicas, the file's ``text`` after it, and the changes."""

    settings: dict[str, str]
    needed: int
    waits: bool
    text: str
    changes: list[Change]


def read_state(params: t.Mapping[str, t.Any], login: Login, check: bool) -> State:
    """Look at the server and its group. Raises Problem or Refusal."""
    group_hosts, fresh_install = GroupHosts(params["group_hosts"], params["address"] or ""), params["fresh_install"]
    instance = read_instance(params["config_file"], login, Host(), params["timeout"], fresh_install)
    if not instance.running:
        if not (fresh_install and check):
            raise Problem(
                "not_running", f"the server of {instance.path} does not run", "a running server: a stopped one cannot be asked for its part",
                "start it first (role redis_service)",
            )  # fmt: skip
        declared = group_hosts.of(GroupHosts.spelling(params["primary"])) if params["primary"] else group_hosts.own
        decision = Decision(declared, "it is declared, and nothing existed yet")
        return State(instance, group_hosts, View(group_hosts.own, "primary"), decision, True)
    decision, me, views = decision_of(instance, group_hosts, params)
    state = State(instance, group_hosts, me, decision, False)
    if state.joins and state.primary in views:
        require_joinable(me, views[state.primary])
    return state


def _link_change(state: State) -> list[Change]:
    if not state.joins:
        return []
    return [Change("live", "replicaof", state.me.upstream or "no one", state.primary, f"REPLICAOF {state.primary}")]


def plan_of(state: State, params: t.Mapping[str, t.Any], check: bool) -> Plan:
    """What is to be done. Raises Problem."""
    instance = state.instance
    settings = settings_of(instance, state.group_hosts, params)
    needed = int(settings["min-replicas-to-write"])
    waits = int(instance.value("min-replicas-to-write") or 0) < needed and not params["bound_writes"]
    now = {name: value for name, value in settings.items() if not (waits and name == "min-replicas-to-write")}
    if instance.running:
        require_known(instance, now)
    text, file_changes = ("", []) if state.fresh else text_of(instance, now, state.group_hosts, state.me, state.primary)
    live = instance.live if instance.running and not params["fresh_install"] else None
    config = plan_config(now, instance.directives, instance.path, live, None, params["fresh_install"])
    if params["fresh_install"]:
        line = " ".join(map(str, split_endpoint(state.primary)))
        file_changes = (
            [Change("file", "replicaof", None, line, f"write replicaof to {instance.path}")] if state.joins else []
        )
    changes = _link_change(state) + config.changes + file_changes
    if check:  # what the call before this one would have done is not reported again
        changes = [change for change in changes if change.name not in params["pending"]]
    return Plan(now, needed, waits, text, changes)


def apply(state: State, plan: Plan, timeout: int) -> None:
    """Link, then settings, then the file; the primary waits for its replicas before it insists on them."""
    instance, primary = state.instance, state.primary
    live = plan_config(plan.settings, instance.directives, instance.path, instance.live, None).live
    staged = stage(instance, plan.text)
    try:
        if state.joins:
            follow(instance.server, state.group_hosts, primary, timeout)
        if live.get("min-replicas-to-write", "0") != "0" and primary == state.me.address:
            wait_for_replicas(instance.server, plan.needed, min(timeout, 120))
        if live:
            set_live(instance, live)
        if plan.text != instance.text:
            commit(staged, instance, live)
    finally:
        staged.discard()


def warnings_of(me: View, declared: int, group_hosts: GroupHosts) -> list[str]:
    """A backlog that is sized for fewer writes (bytes a second) than there are, and hosts of the group without an address."""
    lost = [
        f"This host finds no address for {member}: it counts as one that does not answer. If it is gone for good, take it out of group_hosts."
        for member in group_hosts.unresolved
    ]
    return lost + _backlog_warnings(me, declared)


def _backlog_warnings(me: View, declared: int) -> list[str]:
    rate = me.offset // max(me.uptime, 3600)
    if me.role != "primary" or rate <= declared:
        return []
    return [
        f"This primary took {rate} bytes a second on average, more than write_rate ({declared}): the backlog may be too small"
    ]
