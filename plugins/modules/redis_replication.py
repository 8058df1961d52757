#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_replication
short_description: Keep a Redis server in its replication group, as primary or replica, without undoing a failover
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Sees who is primary, and makes this server its replica or leaves it primary. Sentinel is asked first, then the servers
    themselves. O(primary) decides only where no server of the group holds data or has replicas.
  - After a failover nothing changes. A new server joins as a replica. A primary that comes back as one, after another was promoted,
    becomes a replica if it is empty, or if all that it holds is known to be in the other; else it is refused, with both offsets.
  - The configuration file gets the role that the server has, so that a restart keeps it.
  - Sets C(min-replicas-to-write) and C(min-replicas-max-lag), which bound what a partition can cost, and C(repl-backlog-size).
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  group_hosts:
    description:
      - The servers of the group, this one among them, each as C(host) or C(host:port). Hosts of the inventory stand for their addresses, see
        O(address_variables).
    type: list
    elements: str
    required: true
  address:
    description: Which of O(group_hosts) this server is. Not given, it is the managed host.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  primary:
    description: Which of O(group_hosts) begins as primary, where nothing exists yet.
    type: str
  sentinels:
    description: The Sentinels that watch the group, each as C(host) or C(host:port).
    type: list
    elements: str
    default: []
  primary_name:
    description: The name by which the Sentinels know the primary.
    type: str
    default: redisops
  sentinel_user:
    description: ACL user for the Sentinels.
    type: str
  sentinel_password:
    description: Password for the Sentinels.
    type: str
  min_replicas_to_write:
    description: Replicas without which a primary refuses writes. Not given, 1 in a set of two or more, else 0.
    type: int
  min_replicas_max_lag:
    description: Seconds after which a replica that did not acknowledge does not count.
    type: int
    default: 10
  bound_writes:
    description:
      - Whether to set C(min-replicas-to-write) where it is lower. A primary whose replicas are yet to be linked would refuse writes, so a
        first call links them all with V(false), and a second waits for them. RV(settled) says whether there is need of it.
    type: bool
    default: true
  repl_backlog_size:
    description:
      - What a primary keeps of its stream for a replica that comes back. V(auto) is twice O(write_rate) times O(survive_outage), rounded up to a
        power of two, 1 MB to 1 GB, and never less than what is there.
    type: str
    default: auto
  survive_outage:
    description: Seconds that a replica may be away without having to be copied anew.
    type: int
    default: 300
  write_rate:
    description: Bytes that are written to the group in a second; bytes, kb, mb. A warning tells of a primary that took more on average.
    type: str
    default: 100kb
  config_file:
    description: The configuration file that the server was started with.
    type: path
    default: /etc/redis/redis.conf
  pending:
    description:
      - RV(pending) of the call with O(bound_writes) V(false) before this one. In check mode that call has changed nothing, and what it named
        is not named again. Ignored otherwise.
    type: list
    elements: str
    default: []
  fresh_install:
    description:
      - Whether this run installed Redis itself. The diff is then reported against a host without Redis; in
        check mode, the file may be missing.
    type: bool
    default: false
  timeout:
    description: Longest wait, in seconds, for loading, and for the first copy of the data.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_acl
"""

EXAMPLES = r"""
- name: Keep three servers as one set
  redisops.recovery.redis_replication:
    group_hosts: [redis-1, redis-2, redis-3]
    primary: redis-1
    sentinels: [redis-1, redis-2, redis-3]
    login_user: admin
    login_password: "{{ vault_redis_admin_password }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["REPLICAOF redis-1:6379", "write replicaof to /etc/redis/redis.conf"]
changes:
  description:
    - What differs from what was declared, one row each; what RV(actions) removes.
    - RV(ignore:since) is when the file that differs was last written, in check mode; null where it is no file.
  returned: success
  type: list
  elements: dict
  contains:
    layer:
      description: Where it stands, such as V(file), V(live) or V(boot).
      type: str
    name:
      description: What it is.
      type: str
    found:
      description: What is; null where it is absent.
      type: str
    declared:
      description: What was declared; null where it shall be absent.
      type: str
    since:
      description: Seconds since 1970.
      type: float
crash_loss:
  description: What a partition or a failover may cost, with the settings as they are declared.
  returned: success
  type: str
because:
  description: Who decided which server is primary.
  returned: success
  type: str
  sample: Sentinel says so
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: two_primaries
link_up:
  description: Whether a replica hears its primary, before this run; true for a primary.
  returned: success
  type: bool
pending:
  description: Directives that this run changes, or would change in check mode.
  returned: success
  type: list
  elements: str
primary:
  description: The primary of the group.
  returned: success
  type: str
  sample: redis-1:6379
restart_required:
  description: Directives that the running process will only have after a restart; none of these is one.
  returned: success
  type: list
  elements: str
role:
  description: C(primary) or C(replica), after this run.
  returned: success
  type: str
settled:
  description: Whether a call with O(bound_writes) V(true) would have nothing left to do.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change, pending_names
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.replication.apply import follow, wait_for_replicas
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    GroupHosts,
    ask_sentinels,
    look,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.plan import (
    Decision,
    agreed,
    backlog_bytes,
    decide,
    loss_window,
    require_joinable,
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
    require_accepted,
    stage,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import sentinel_listens
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    "group_hosts": {"type": "list", "elements": "str", "required": True},
    "address": {"type": "str"},
    "address_variables": {"type": "list", "elements": "str", "default": ["redis_replication_address", "ansible_host"]},
    "primary": {"type": "str"},
    "sentinels": {"type": "list", "elements": "str", "default": []},
    "primary_name": {"type": "str", "default": "redisops"},
    "sentinel_user": {"type": "str"},
    "sentinel_password": {"type": "str", "no_log": True},
    "min_replicas_to_write": {"type": "int"},
    "min_replicas_max_lag": {"type": "int", "default": 10},
    "bound_writes": {"type": "bool", "default": True},
    "repl_backlog_size": {"type": "str", "default": "auto"},
    "survive_outage": {"type": "int", "default": 300},
    "write_rate": {"type": "str", "default": "100kb"},
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "pending": {"type": "list", "elements": "str", "default": []},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}


def decision_of(instance: Instance, group_hosts: GroupHosts, params: dict) -> tuple[Decision, View, dict]:
    """Who is primary, this server's part, and everybody's by member. Raises Problem or Refusal."""
    login = instance.server.login
    me = group_hosts.spelled(view_of(instance.server.info(), group_hosts.own))
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
    if me.role == "primary" and decision.primary != me.address and not named and sentinel_listens(instance.server):
        raise Refusal(
            "sentinel_not_asked", f"a Sentinel watches this server, and none of {params['sentinels'] or 'the sentinels'} could tell who is primary",
            "Sentinel's word on who is primary: it would undo what goes against it", "set sentinels and primary_name, or start the Sentinels",
        )  # fmt: skip
    return decision, me, {**views, me.address: me}


def settings_of(instance: Instance, group_hosts: GroupHosts, params: dict) -> dict[str, str]:
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
    said = [entry for entry in instance.directives if entry.name == "replicaof"]
    now = " ".join(said[-1].args) if said and said[-1].text.lower() != "no one" else ""
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


def act(
    instance: Instance,
    group_hosts: GroupHosts,
    me: View,
    primary: str,
    live: dict,
    text: str,
    needed: int,
    timeout: int,
) -> None:
    """Link, then settings, then the file; the primary waits for its replicas before it insists on them."""
    staged = stage(instance, text)
    try:
        if primary not in (me.address, me.upstream):
            follow(instance.server, group_hosts, primary, timeout)
        if live.get("min-replicas-to-write", "0") != "0" and primary == me.address:
            wait_for_replicas(instance.server, needed, min(timeout, 120))
        if live:
            set_live(instance, live)
        if text != instance.text:
            commit(staged, instance, live)
    finally:
        staged.discard()


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    group_hosts = GroupHosts(params["group_hosts"], params["address"] or "")
    empty = params["fresh_install"]
    instance = read_instance(params["config_file"], login_of(params), host, params["timeout"], empty)
    fresh = empty and module.check_mode and not instance.running
    if not instance.running and not fresh:
        raise Problem(
            "not_running", f"the server of {instance.path} does not run", "a running server: a stopped one cannot be asked for its part",
            "start it first (role redis_service)",
        )  # fmt: skip
    if fresh:
        me = View(group_hosts.own, "primary")
        declared = group_hosts.of(GroupHosts.spelling(params["primary"])) if params["primary"] else group_hosts.own
        decision, views = Decision(declared, "it is declared, and nothing existed yet"), {}
    else:
        decision, me, views = decision_of(instance, group_hosts, params)
    primary = decision.primary
    settings = settings_of(instance, group_hosts, params)
    joins = primary not in (me.address, me.upstream)
    if joins and views and primary in views:
        require_joinable(me, views[primary])
    needed = int(settings["min-replicas-to-write"])
    lower = int(instance.value("min-replicas-to-write") or 0) < needed
    waits = lower and not params["bound_writes"]
    now = {name: value for name, value in settings.items() if not (waits and name == "min-replicas-to-write")}
    if instance.running:
        require_known(instance, now)
    text, file_changes = ("", []) if fresh else text_of(instance, now, group_hosts, me, primary)
    config = plan_config(
        now, instance.directives, instance.path, instance.live if instance.running and not empty else None, None, empty
    )
    changes = [Change("live", "replicaof", me.upstream or "no one", primary, f"REPLICAOF {primary}")] if joins else []
    if fresh or empty:
        file_changes = (
            [
                Change(
                    "file",
                    "replicaof",
                    None,
                    " ".join(map(str, split_endpoint(primary))),
                    f"write replicaof to {instance.path}",
                )
            ]
            if joins
            else []
        )
    changes += config.changes + file_changes
    if module.check_mode and params["pending"]:
        changes = [change for change in changes if change.name not in params["pending"]]
    if not fresh and text != instance.text:
        require_accepted(instance, text)
    if changes and not module.check_mode:
        live = plan_config(now, instance.directives, instance.path, instance.live, None).live
        act(instance, group_hosts, me, primary, live, text, needed, params["timeout"])
    rate, declared_rate = me.offset // max(me.uptime, 3600), memory_bytes(params["write_rate"], "write_rate")
    warnings = []
    if me.role == "primary" and rate > declared_rate:
        warnings = [
            f"This primary took {rate} bytes a second on average, more than write_rate ({declared_rate}): the backlog may be too small"
        ]
    return result_of(
        changes,
        warnings=warnings,
        link_up=me.link_up or primary == me.address, pending=pending_names(changes), restart_required=[], primary=primary, because=decision.because, settled=not waits,
        role="primary" if primary == me.address else "replica", crash_loss=loss_window(needed, params["min_replicas_max_lag"]),
    )  # fmt: skip


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
