#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_cluster
short_description: Create a Redis Cluster, add and remove nodes, move slots with their keys, and tell what is wrong with it
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Asks all nodes first. What is, decides; after a failover the primaries are whoever they are, and nothing changes. Slots and roles are given
    only where nothing exists yet, and to nodes that join.
  - New nodes join, become primaries as long as there are fewer than O(primaries), else replicas of the primaries with the fewest, in another
    failure domain where that can be had. Slots are moved with their keys while clients go on.
  - Nodes in O(remove) hand over (to a replica of theirs that stays, or slot by slot), are forgotten by all others, and are reset when they serve nothing.
  - A run that was cut off, also in the middle of a slot, is finished by the next one.
  - It asks and tells all nodes over the network, so it is run once for a cluster, on any host that reaches them.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  nodes:
    description:
      - The nodes of the cluster. With the action plugin, which Ansible uses by itself, an entry may be only a name.
    type: list
    elements: dict
    required: true
    suboptions:
      host:
        description: C(host) or C(host:port), or a host of the inventory, see O(address_variables). The port is O(login_port) unless given.
        type: str
        required: true
      failure_domain:
        description:
          - What the node fails together with (a rack, a zone). Not given, it is the host. Of a host of the inventory it is its variable
            C(redis_cluster_failure_domain).
        type: str
      announce:
        description: Address by which the other nodes find it, C(ip) or C(ip:port). Not given, what the node announces, or where it is asked.
        type: str
  remove:
    description: Nodes that shall leave, each as in O(nodes[].host), or as its node id where its host is gone.
    type: list
    elements: str
    default: []
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_cluster_address, redis_replication_address, ansible_host]
  replicas_per_primary:
    description: How many replicas each primary has at least.
    type: int
    default: 1
  primaries:
    description: How many primaries there are. Not given, as many as there are nodes for, with their replicas; three at least.
    type: int
  rebalance:
    description:
      - V(when_needed) evens the slots out when a primary has less than its even share by more than O(rebalance_threshold). V(never) moves slots only
        away from nodes that leave, and gives none to nodes that join.
    type: str
    choices: [when_needed, never]
    default: when_needed
  rebalance_threshold:
    description: Percent of an even share by which a primary may fall short of it.
    type: int
    default: 10
  fresh_install:
    description:
      - Whether this run installed Redis itself, or turns cluster mode on, so that in check mode a server that does not run, or is no
        node yet, stands for an empty node.
    type: bool
    default: false
  timeout:
    description: Longest wait, in seconds, for a replica's first copy of the data.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_replication
"""

EXAMPLES = r"""
- name: Keep six nodes as one cluster of three primaries with a replica each
  redisops.recovery.redis_cluster:
    nodes: [redis-1, redis-2, redis-3, redis-4, redis-5, redis-6]
    login_user: admin
    login_password: "{{ vault_redis_admin_password }}"
  run_once: true

- name: See what taking two nodes away would do
  redisops.recovery.redis_cluster:
    nodes:
      - {host: redis-1, failure_domain: rack-a}
      - {host: redis-2, failure_domain: rack-b}
      - {host: redis-3, failure_domain: rack-c}
      - {host: redis-4, failure_domain: rack-b}
      - {host: redis-5, failure_domain: rack-c}
      - {host: redis-6, failure_domain: rack-a}
    remove: [redis-7, redis-8]
  check_mode: true
  run_once: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["give 5461 slots (0-5460) to redis-1:6379", "CLUSTER MEET redis-2:6379"]
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
  sample: slots_uncovered
findings:
  description: What is wrong with the cluster, or would be on a bad day, after this run; the worst first. In failures where it could be worked out.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: Stable name.
      type: str
    severity:
      description: C(error), C(warning) or C(info).
      type: str
    detected:
      description: What was seen.
      type: str
    why:
      description: What it leads to.
      type: str
    do:
      description: What to do.
      type: str
moved:
  description: How many slots and keys were moved.
  returned: success
  type: dict
  sample: {"slots": 4096, "keys": 1200}
shards:
  description: Primaries with slots, replicas and failure domains, after this run.
  returned: success
  type: list
  elements: dict
state:
  description: C(ok) where every node that answers says so, else what the others say; C(none) where there is no cluster yet.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.apply import Work
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.collect import Entry, Nodes
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.findings import findings, shards
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.plan import Wish, changes_of, plan
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import Picture
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint, split_endpoint

SPEC = {
    **connection_spec(),
    "nodes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "host": {"type": "str", "required": True},
            "failure_domain": {"type": "str"},
            "announce": {"type": "str"},
        },
    },
    "remove": {"type": "list", "elements": "str", "default": []},
    "address_variables": {
        "type": "list",
        "elements": "str",
        "default": ["redis_cluster_address", "redis_replication_address", "ansible_host"],
    },
    "replicas_per_primary": {"type": "int", "default": 1},
    "primaries": {"type": "int"},
    "rebalance": {"type": "str", "choices": ["when_needed", "never"], "default": "when_needed"},
    "rebalance_threshold": {"type": "int", "default": 10},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}


def address_of(text: str, port: int) -> str:
    """``text`` as ``host:port``. Raises Problem."""
    try:
        return endpoint(*split_endpoint(text, port))
    except ValueError:
        raise Problem(
            "invalid_value", f"{text!r} is no host, and no host:port", "such as redis-1:6379", "correct it"
        ) from None


def entries_of(params: dict) -> list[Entry]:
    """The declared nodes. Raises Problem."""
    port, found = params["login_port"], []
    for row in params["nodes"]:
        found.append(Entry(address_of(row["host"], port), row["failure_domain"] or "", row["announce"] or ""))
    twice = sorted({one.address for one in found if [other.address for other in found].count(one.address) > 1})
    if twice:
        raise Problem(
            "duplicate_group_host",
            f"{', '.join(twice)} stands in nodes twice",
            "each server once",
            "take one of them out of nodes",
        )
    for option, least in (("replicas_per_primary", 0), ("rebalance_threshold", 1)):
        if params[option] < least:
            raise Problem("invalid_value", f"{option} is {params[option]}", f"{least} or more", "correct it")
    if not found:
        raise Refusal("too_few_nodes", "nodes is empty", "the nodes of the cluster", "declare them")
    return found


def state_of(picture: Picture) -> str:
    """What the nodes say of the cluster."""
    stated = {member.info.get("cluster_state", "") for member in picture.members if member.reached and member.knows} - {
        ""
    }
    return ", ".join(sorted(stated)) or "none"


def body(module: AnsibleModule) -> dict:
    params, entries = module.params, entries_of(module.params)
    primaries = params["primaries"] or len(entries) // (1 + params["replicas_per_primary"])
    threshold = params["rebalance_threshold"] if params["rebalance"] == "when_needed" else None
    wish = Wish(primaries, params["replicas_per_primary"], threshold)
    fresh = module.check_mode and params["fresh_install"]
    nodes = Nodes(entries, params["remove"], login_of(params), fresh)
    picture = nodes.settle()
    try:
        steps = plan(picture, wish)
    except Problem as problem:
        problem.details.update(findings=findings(picture, wish), shards=shards(picture))
        raise
    changes, moved = changes_of(steps, picture), {"slots": 0, "keys": 0}
    if steps and not module.check_mode:
        work = Work(nodes, picture, params["timeout"], module.log)
        work.run(steps)
        picture, moved = nodes.settle(), work.moved
    found = findings(picture, wish) if not (fresh or (steps and module.check_mode)) else []
    return result_of(
        changes,
        warnings=[f"{one['detected']}: {one['why']}. {one['do']}." for one in found if one["severity"] != "info"],
        findings=found, shards=shards(picture), state=state_of(picture), moved=moved,
    )  # fmt: skip


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
