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
- name: Keep three servers as one group
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
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import (
    keep_unread,
    place_of,
    unread_changes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import require_rdb_is_known
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.replication.membership_apply import (
    State,
    apply,
    plan_of,
    read_state,
    warnings_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.plan import (
    loss_window,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import memory_bytes
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    require_accepted,
)

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


def replaced(state: State) -> list[Change]:
    """What a full copy of the primary would replace, though the running server never loaded it: kept. Raises Refusal where it is far more."""
    instance = state.instance
    if not (state.joins and instance.running):
        return []
    disk = scan(place_of(instance.server))
    require_rdb_is_known(instance.host, instance.info, disk)
    return unread_changes(instance.host, instance.info, disk)


def body(module: AnsibleModule) -> dict:
    params = module.params
    state = read_state(params, login_of(params), module.check_mode)
    plan = plan_of(state, params, module.check_mode)
    plan.changes[:0] = replaced(state)
    if not state.fresh and plan.text != state.instance.text:
        require_accepted(state.instance, plan.text)
    if plan.changes and not module.check_mode:
        if state.joins:
            keep_unread(state.instance.host, state.instance.info, scan(place_of(state.instance.server)))
        apply(state, plan, params["timeout"])
    primary, me = state.primary, state.me
    return result_of(
        plan.changes,
        warnings=warnings_of(me, memory_bytes(params["write_rate"], "write_rate"), state.group_hosts),
        link_up=me.link_up or primary == me.address,
        pending=pending_names(plan.changes),
        restart_required=[],
        primary=primary,
        because=state.decision.because,
        settled=not plan.waits,
        role="primary" if primary == me.address else "replica",
        crash_loss=loss_window(plan.needed, params["min_replicas_max_lag"]),
    )


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
