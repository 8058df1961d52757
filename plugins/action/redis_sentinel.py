# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of redis_sentinel: hosts of the inventory become addresses, and bring their failure domains."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.plugin_utils.inventory_addresses import InventoryAddresses

_VARIABLES = ["redis_sentinel_address", "redis_replication_address", "ansible_host"]
_DOMAIN = "redis_sentinel_failure_domain"


class ActionModule(ActionBase):
    """One call of the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[dict[str, t.Any]] = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = dict(self._task.args)
        addresses = InventoryAddresses(task_vars, arguments.get("address_variables") or _VARIABLES)
        named = arguments.get("sentinels")
        sentinels = [str(entry) for entry in named] if isinstance(named, (list, tuple)) else []
        if isinstance(named, (list, tuple)):
            arguments["sentinels"] = [addresses.of(entry) for entry in sentinels]
            if arguments.get("failure_domains") is None:
                arguments["failure_domains"] = self._domains(sentinels, addresses, task_vars.get("hostvars", {}))
        try:
            mine = str(arguments.get("address") or addresses.own_name)
            arguments["address"] = addresses.among(mine, sentinels, arguments.get("login_port", 26379))
            if isinstance(arguments.get("primaries"), (list, tuple)):
                arguments["primaries"] = [
                    self._primary(entry, addresses) if isinstance(entry, dict) else entry
                    for entry in arguments["primaries"]
                ]
        except Problem as problem:
            return {**result, "failed": True, "msg": problem.message(), "code": problem.code, **problem.details}
        return {
            **result,
            **self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=task_vars),
        }

    @staticmethod
    def _primary(entry: dict[str, t.Any], addresses: InventoryAddresses) -> dict[str, t.Any]:
        found, named = dict(entry), []
        if isinstance(found.get("group_hosts"), (list, tuple)):
            named = [str(member) for member in found["group_hosts"]]
            found["group_hosts"] = addresses.all_of(named)
        if found.get("primary"):
            found["primary"] = addresses.among(str(found["primary"]), named)
        return found

    @staticmethod
    def _domains(sentinels: list[str], addresses: InventoryAddresses, hostvars: t.Any) -> dict[str, str]:
        """What the hosts of the inventory say of themselves, by the address of their Sentinel."""
        found = {}
        for name in sentinels:
            host = name if name in hostvars else name.rpartition(":")[0]
            domain = hostvars[host].get(_DOMAIN) if host in hostvars else None
            if domain:
                found[addresses.of(name)] = str(domain)
        return found
