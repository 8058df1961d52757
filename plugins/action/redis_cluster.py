# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of redis_cluster: hosts of the inventory become addresses, and bring their failure domains."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.redisops.recovery.plugins.plugin_utils.inventory_addresses import InventoryAddresses

_VARIABLES = ["redis_cluster_address", "redis_replication_address", "ansible_host"]
_DOMAIN = "redis_cluster_failure_domain"


class ActionModule(ActionBase):
    """One call of the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[dict[str, t.Any]] = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = dict(self._task.args)
        addresses = InventoryAddresses(task_vars, arguments.get("address_variables") or _VARIABLES)
        if isinstance(arguments.get("nodes"), (list, tuple)):
            hostvars = task_vars.get("hostvars", {})
            arguments["nodes"] = [self._node(entry, addresses, hostvars) for entry in arguments["nodes"]]
        if isinstance(arguments.get("remove"), (list, tuple)):
            arguments["remove"] = [addresses.of(str(entry)) for entry in arguments["remove"]]
        return {
            **result,
            **self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=task_vars),
        }

    @staticmethod
    def _node(entry: t.Any, addresses: InventoryAddresses, hostvars: t.Any) -> t.Any:
        """An entry, or only its name, with what the inventory says of that host."""
        node = dict(entry) if isinstance(entry, dict) else {"host": str(entry)}
        name = str(node.get("host", ""))
        host = name if name in hostvars else name.rpartition(":")[0]
        if not node.get("failure_domain") and host in hostvars and hostvars[host].get(_DOMAIN):
            node["failure_domain"] = str(hostvars[host][_DOMAIN])
        node["host"] = addresses.of(name)
        return node
