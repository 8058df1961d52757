#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_switchover
short_description: Move the primary of a replication group to another host of the group, on purpose and without losing a write
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Checks first (one primary, a replica that is linked, caught up and of the same version, Sentinels with a quorum and no failover under way), then holds the
    writes of the primary, waits until the replica has every byte, promotes it by Sentinel or by hand, and lets writes go on when the
    old primary is a replica. It tells for how long no server took writes.
  - It asks and tells all hosts of the group over the network, so it is run once for a group, on any host that reaches them.
  - In check mode it does the checks, and says who would take over.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  group_hosts:
    description: The servers of the group, as in M(redisops.recovery.redis_replication).
    type: list
    elements: str
    required: true
  address:
    description: Which of O(group_hosts) the managed host is. It need not be one.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  target:
    description: Which of O(group_hosts) shall be primary. Not given, the replica with the best priority that lacks least.
    type: str
  away_from:
    description: Do something only if this one of O(group_hosts) is primary now. Another one is left primary.
    type: str
  sentinels:
    description: The Sentinels that watch the group. With none, the servers are reported themselves.
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
  max_behind:
    description: Bytes that a replica may be behind before writes are paused.
    type: int
    default: 10485760
  allow_newer:
    description:
      - Whether a replica of a later release than the primary's may take over, as the playbook rolling_upgrade needs it. The old primary can then
        follow only as long as no full copy is needed, so it is to be upgraded next. One of an earlier release never takes over.
    type: bool
    default: false
  timeout:
    description: Longest wait, in seconds, until all other hosts of the group are linked to the new primary.
    type: int
    default: 120
seealso:
  - module: redisops.recovery.redis_replication
"""

EXAMPLES = r"""
- name: See whether a switch would work, and to whom
  redisops.recovery.redis_switchover:
    group_hosts: [redis-1, redis-2, redis-3]
    sentinels: [redis-1, redis-2, redis-3]
  check_mode: true
  run_once: true

- name: Move the primary away from a host that needs maintenance
  redisops.recovery.redis_switchover:
    group_hosts: [redis-1, redis-2, redis-3]
    sentinels: [redis-1, redis-2, redis-3]
    away_from: redis-1
  run_once: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
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
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: target_unfit
gap_ms:
  description: Milliseconds from the moment writes were paused until the new primary took them; null where nothing was switched.
  returned: success
  type: int
from_primary:
  description: The primary before.
  returned: success
  type: str
to_primary:
  description: The primary after, or the one that would be.
  returned: success
  type: str
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts, login_at
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    View,
    endpoint,
    split_endpoint,
    view_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.switchover import (
    Switch,
    read_sentinels,
    wait_for_priority,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.switchover_plan import (
    Candidate,
    SentinelView,
    choose,
    require_sentinels,
    require_set,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, Server, connect

SPEC = {
    **connection_spec(),
    "group_hosts": {"type": "list", "elements": "str", "required": True},
    "address": {"type": "str"},
    "address_variables": {"type": "list", "elements": "str", "default": ["redis_replication_address", "ansible_host"]},
    "target": {"type": "str"},
    "away_from": {"type": "str"},
    "sentinels": {"type": "list", "elements": "str", "default": []},
    "primary_name": {"type": "str", "default": "redisops"},
    "sentinel_user": {"type": "str"},
    "sentinel_password": {"type": "str", "no_log": True},
    "max_behind": {"type": "int", "default": 10485760},
    "allow_newer": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 120},
}
#: For the one that shall be promoted, while Sentinel chooses; what a cut leaves behind is a preference, no harm.
PREFERRED = 1


@dataclasses.dataclass(frozen=True)
class State:
    """The group as it is: connections and ``views`` by member, its ``primary``, and what each of ``sentinels`` says.

    ``asked``: how the Sentinels are logged in to.
    """

    servers: dict[str, Server]
    group_hosts: GroupHosts
    primary: View
    views: list[View]
    sentinels: list[SentinelView]
    asked: Login


def look_at(group_hosts: GroupHosts, login: Login) -> tuple[dict[str, Server], list[View]]:
    """A connection to every host of the group that answers, and everybody's view."""
    servers, views = {}, []
    for member in group_hosts.all:
        try:
            servers[member] = connect(login_at(login, member), 5.0)
            views.append(group_hosts.spelled(view_of(servers[member].info(), member)))
        except Problem as problem:
            views.append(View(member, "unreachable", because=problem.detected))
    return servers, views


def candidate(server: Server, view: View) -> Candidate:
    """A replica that answers, and whether its disk works."""
    info = server.info()
    fault = ""
    if info.text("rdb_last_bgsave_status", "ok") != "ok" or info.text("aof_last_write_status", "ok") != "ok":
        fault = "could not write to its disk lately"
    return Candidate(view, fault=fault, priority=info.number("slave_priority", 100))


def switch(state: State, target: Candidate, params: t.Mapping[str, t.Any]) -> Switch:
    """Hold, promote, release, and see everybody linked. Raises Problem."""
    sentinels, chosen, name = state.sentinels, target.view.address, params["primary_name"]
    rivals = [
        view.address for view in state.views if sentinels and view.link_up and view.upstream == state.primary.address
    ]
    work = Switch(state.servers, state.group_hosts, state.primary, target, rivals)
    prefers = bool(sentinels) and target.priority != PREFERRED
    if prefers:
        work.command(chosen, "CONFIG", "SET", "replica-priority", PREFERRED)
    try:
        if sentinels and not wait_for_priority(
            params["sentinels"], name, state.asked, state.group_hosts, chosen, PREFERRED
        ):
            raise Problem(
                "target_unseen", f"the Sentinels did not take notice of {target.view.address} in time; nothing has been switched",
                "Sentinels that are linked to it", "see SENTINEL REPLICAS on each, then run again",
            )  # fmt: skip
        if sentinels:
            first = connect(login_at(state.asked, endpoint(*split_endpoint(sentinels[0].address, 26379))))
        work.pause_until_caught_up()
        if sentinels:
            work.by_sentinel(first, name)
        else:
            work.by_hand()
    finally:
        if prefers:
            work.restore_priority(target.priority)
    loose = work.wait_for_links(params["timeout"])
    if loose:
        raise Problem(
            "link_down", f"{target.view.address} is primary, and {', '.join(loose)} {'is' if len(loose) == 1 else 'are'} not linked to it",
            "every host of the group linked", "look into their logs; run the role redis_replication",
        )  # fmt: skip
    return work


def candidates_of(state: State) -> list[Candidate]:
    """Everybody but the primary."""
    return [
        candidate(state.servers[view.address], view) if view.address in state.servers else Candidate(view)
        for view in state.views
        if view is not state.primary
    ]


def body(module: AnsibleModule) -> dict:
    params = module.params
    group_hosts = GroupHosts(params["group_hosts"], params["group_hosts"][0] if params["group_hosts"] else "")
    login = login_of(params)
    asked = dataclasses.replace(
        login, user=params["sentinel_user"], password=params["sentinel_password"], previous_password=None
    )
    servers, views = look_at(group_hosts, login)
    primary = require_set(views)
    leave = group_hosts.of(GroupHosts.spelling(params["away_from"])) if params["away_from"] else None
    wanted = group_hosts.of(GroupHosts.spelling(params["target"])) if params["target"] else None
    if leave not in (None, primary.address):
        return result_of([], gap_ms=None, from_primary=primary.address, to_primary=primary.address)
    sentinels = read_sentinels(params["sentinels"], params["primary_name"], asked, group_hosts)
    if params["sentinels"]:
        require_sentinels(sentinels, len(params["sentinels"]), primary.address)
    state = State(servers, group_hosts, primary, views, sentinels, asked)
    target = choose(primary, candidates_of(state), wanted, params["max_behind"], params["allow_newer"])
    if target.view.address == primary.address:
        return result_of([], gap_ms=None, from_primary=primary.address, to_primary=primary.address)
    words = f"pause writes on {primary.address}, wait until {target.view.address} has every byte, promote it, let writes go on"
    changes = [Change("set", "primary", primary.address, target.view.address, words)]
    gap, warnings = None, []
    if not module.check_mode:
        done = switch(state, target, params)
        gap, warnings = done.gap_ms, done.warnings
    return result_of(
        changes, warnings=warnings, gap_ms=gap, from_primary=primary.address, to_primary=target.view.address
    )


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
