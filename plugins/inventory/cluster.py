# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as the nodes of a cluster know them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster
short_description: Servers of a Redis Cluster as its nodes know them
version_added: 0.1.0
author: redisops.recovery contributors
description:
  - Asks nodes of a Redis Cluster who belongs to it, and makes hosts of them.
  - The file's name has to end in C(.cluster.yml) or C(.cluster.yaml).
  - One node that answers is enough. With O(server_details), all the others are asked too. If they disagree on who is in the cluster, in
    which role or with which slots, they are asked again for three seconds; then the source fails.
  - Groups are C(redis_cluster), C(redis_cluster_primary), C(redis_cluster_replica), C(redis_down), and with O(cluster_name) C(redis_NAME),
    C(redis_NAME_primary), C(redis_NAME_replica). Each shard is a group C(redis_NAME_shard_SLOT) (C(redis_cluster_shard_SLOT) without
    a name), by its lowest slot, so that it keeps its name when its primary changes. Who is down stays in all its groups.
  - Variables are C(redis_role), C(redis_primary_name), C(redis_primary), C(redis_address), C(redis_port), C(redis_node_id), C(redis_flags),
    C(redis_down), C(redis_slots) (ranges that the node serves itself), C(redis_slot_count), C(redis_slots_moving), C(redis_shard),
    C(redis_config_epoch), C(redis_state) and C(redis_seen_at). With O(server_details) also C(redis_answers), C(redis_because),
    C(redis_role_reported), C(redis_version), C(redis_product), C(redis_keys), C(redis_offset), and of replicas C(redis_link),
    C(redis_link_down_seconds), C(redis_priority), C(redis_lag_seconds) and C(redis_lag_bytes). What is not known is not set.
extends_documentation_fragment:
  - redisops.recovery.topology
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [redisops.recovery.cluster]
  nodes:
    description: Nodes to ask, as C(host) or C(host:port); the port is 6379 where none is named. Templates are worked out.
    type: list
    elements: str
    required: true
  cluster_name:
    description: Name of the cluster, for its groups. Give each one a name where an inventory has several clusters.
    type: str
    default: cluster
"""

EXAMPLES = r"""
# sessions.cluster.yml
plugin: redisops.recovery.cluster
nodes: [192.0.2.21, 192.0.2.22, 192.0.2.23]
cluster_name: sessions
login_user: inventory
login_password: "{{ lookup('ansible.builtin.env', 'REDIS_PASSWORD') }}"
tls: true
ca_certs: /etc/ssl/certs/redis-ca.pem
groups:
  redis_without_slots: redis_role == 'primary' and redis_slot_count == 0
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/redis-inventory
cache_timeout: 30
"""

from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    CLUSTER_GROUPS,
    cluster_endpoints,
    cluster_servers,
)
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.collect import (
    addresses_of,
    ask_servers,
    read_cluster,
)
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import Endpoint
from ansible_collections.redisops.recovery.plugins.plugin_utils.topology_inventory import TopologyInventory


class InventoryModule(TopologyInventory):
    NAME = "redisops.recovery.cluster"
    ENDINGS = (".cluster.yml", ".cluster.yaml")
    GROUPS = CLUSTER_GROUPS

    def asked(self) -> dict:
        return {
            "nodes": addresses_of(self.texts("nodes"), 6379),
            "cluster_name": self.text("cluster_name"),
            "server_details": self.get_option("server_details"),
        }

    def read(self) -> tuple[list[Endpoint], list[str]]:
        asked, timeout = self.asked(), self.get_option("timeout")
        login = self.login("login_user", "login_password")
        answers, warnings = read_cluster(asked["nodes"], login, timeout, asked["server_details"])
        details = None
        if asked["server_details"]:
            details, more = ask_servers(*cluster_servers(answers), login, timeout)
            warnings += [text for text in more if text.split()[1] not in {heard.split()[1] for heard in warnings}]
        return cluster_endpoints(answers, asked["cluster_name"], details), warnings
