# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as the Sentinels know them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: sentinel
short_description: Servers and Sentinels as the Sentinels know them
version_added: 0.1.0
author: redisops.recovery contributors
description:
  - Asks Redis Sentinels which primaries they watch, and makes hosts of the primaries, the replicas and the Sentinels. So an operation
    goes to the server that is the primary, and not to the one that a file calls so.
  - The file's name has to end in C(.sentinel.yml) or C(.sentinel.yaml).
  - One Sentinel that answers is enough. If several do and name different primaries, they are asked again for three seconds; then the
    source fails.
  - Groups are C(redis_primary), C(redis_replica), C(redis_sentinel), for each watched name C(redis_NAME) with its servers,
    C(redis_NAME_primary), C(redis_NAME_replica) and C(redis_NAME_sentinel), further C(redis_down) and C(redis_sentinel_down). Who is
    down stays in all its groups. A name whose groups would be some of these becomes C(redis_set_NAME).
  - Variables of a server are C(redis_role), C(redis_primary_name), C(redis_primary), C(redis_address), C(redis_port), C(redis_flags),
    C(redis_down), C(redis_quorum), C(redis_config_epoch), C(redis_role_reported) and C(redis_seen_at); of a replica also C(redis_link),
    C(redis_link_down_seconds), C(redis_priority) and C(redis_offset). With O(server_details) also C(redis_answers), C(redis_because),
    C(redis_version), C(redis_product), C(redis_keys), C(redis_lag_seconds) and C(redis_lag_bytes). What is not known is not set.
  - Variables of a Sentinel are C(redis_sentinel_myid), C(redis_sentinel_address), C(redis_sentinel_flags) and
    C(redis_sentinel_watches); without a server on the same host also C(redis_role) and C(redis_down).
extends_documentation_fragment:
  - redisops.recovery.topology
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [redisops.recovery.sentinel]
  sentinels:
    description: Sentinels to ask, as C(host) or C(host:port); the port is 26379 where none is named. Templates are worked out.
    type: list
    elements: str
    required: true
  primary_names:
    description: Names of the primaries to take. With none, all that the Sentinels watch.
    type: list
    elements: str
    default: []
  sentinel_user:
    description:
      - ACL user of the Sentinels. Without it, the default user. It needs C(+ping) and C(+sentinel|masters), C(+sentinel|replicas),
        C(+sentinel|sentinels), C(+sentinel|myid).
    type: str
    env:
      - name: REDISOPS_SENTINEL_USER
  sentinel_password:
    description: Password of that user. May be C(!vault) or a template.
    type: str
    env:
      - name: REDISOPS_SENTINEL_PASSWORD
  sentinel_tls:
    description: Whether the ports of the Sentinels speak TLS. Without a value, as O(tls).
    type: bool
  sentinel_port_variable:
    description: As O(port_variable), for the Sentinel of a host.
    type: str
    default: redis_sentinel_port
"""

EXAMPLES = r"""
# orders.sentinel.yml
plugin: redisops.recovery.sentinel
sentinels: [192.0.2.11, 192.0.2.12, 192.0.2.13]
primary_names: [orders]
sentinel_user: inventory
sentinel_password: "{{ lookup('ansible.builtin.env', 'SENTINEL_PASSWORD') }}"
login_user: inventory
login_password: "{{ lookup('ansible.builtin.env', 'REDIS_PASSWORD') }}"
tls: true
ca_certs: /etc/ssl/certs/redis-ca.pem
keyed_groups:
  - key: redis_version
    prefix: redis_version
groups:
  redis_lagging: redis_lag_bytes | default(0) > 10485760
compose:
  redis_healthy: not redis_down and redis_link | default('up') == 'up'
"""

from ansible_collections.redisops.recovery.plugins.module_utils.inventory.collect import (
    addresses_of,
    ask_servers,
    read_sentinels,
)
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import Endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.sentinel import (
    GROUPS,
    endpoints_of,
    servers_of,
)
from ansible_collections.redisops.recovery.plugins.plugin_utils.topology_inventory import TopologyInventory


class InventoryModule(TopologyInventory):
    NAME = "redisops.recovery.sentinel"
    ENDINGS = (".sentinel.yml", ".sentinel.yaml")
    GROUPS = GROUPS

    def asked(self) -> dict:
        return {
            "sentinels": addresses_of(self.texts("sentinels"), 26379),
            "primary_names": self.texts("primary_names"),
            "server_details": self.get_option("server_details"),
        }

    def read(self) -> tuple[list[Endpoint], list[str]]:
        asked, timeout = self.asked(), self.get_option("timeout")
        login = self.login("sentinel_user", "sentinel_password", self.get_option("sentinel_tls"))
        answers, names, warnings = read_sentinels(asked["sentinels"], asked["primary_names"], login, timeout)
        details = None
        if asked["server_details"]:
            login = self.login("login_user", "login_password")
            details, more = ask_servers(*servers_of(answers, names), login, timeout)
            warnings += more
        return endpoints_of(answers, names, details), warnings

    def _sentinel_port_variable(self) -> str:
        return self.get_option("sentinel_port_variable")
