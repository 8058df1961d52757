# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action whose hosts of the group, Sentinels and primary may be hosts of the inventory: they become addresses (controller)."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.plugin_utils.inventory_addresses import InventoryAddresses

_NAMES = ("primary", "target", "away_from")


__all__ = ["AddressedAction"]


class AddressedAction(ActionBase):
    """One call of the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[dict[str, t.Any]] = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        try:
            arguments = self._with_addresses(dict(self._task.args), task_vars or {})
        except Problem as problem:
            return {**result, "failed": True, "msg": problem.message(), "code": problem.code, **problem.details}
        return {
            **result,
            **self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=task_vars),
        }

    @staticmethod
    def _with_addresses(arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The arguments with addresses in the place of names. Raises Problem."""
        addresses = InventoryAddresses(
            task_vars, arguments.get("address_variables") or ["redis_replication_address", "ansible_host"]
        )
        group_hosts = arguments.get("group_hosts")
        named = [str(entry) for entry in group_hosts] if isinstance(group_hosts, (list, tuple)) else []
        own, port = arguments.get("address"), arguments.get("login_port", 6379)
        if isinstance(group_hosts, (list, tuple)):
            arguments["group_hosts"] = addresses.all_of(named)
        if isinstance(arguments.get("sentinels"), (list, tuple)):
            arguments["sentinels"] = [addresses.of(str(entry)) for entry in arguments["sentinels"]]
        for name in _NAMES:
            if arguments.get(name):
                arguments[name] = addresses.among(str(arguments[name]), named)
        arguments["address"] = addresses.among(str(own or addresses.own_name), named, port)
        return arguments
