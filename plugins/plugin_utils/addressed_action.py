# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action whose hosts of the group, Sentinels and primary may be hosts of the inventory: they become addresses (controller)."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.redisops.recovery.plugins.plugin_utils.inventory_addresses import InventoryAddresses

_LISTS = ("group_hosts", "sentinels")
_NAMES = ("primary", "address", "target", "away_from")


__all__ = ["AddressedAction"]


class AddressedAction(ActionBase):
    """One call of the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[dict[str, t.Any]] = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        addresses = InventoryAddresses(
            task_vars or {}, arguments.get("address_variables") or ["redis_replication_address", "ansible_host"]
        )
        arguments["address"] = arguments.get("address") or addresses.own
        for name in _LISTS:
            if isinstance(arguments.get(name), (list, tuple)):
                arguments[name] = [addresses.of(str(entry)) for entry in arguments[name]]
        for name in _NAMES:
            if arguments.get(name):
                arguments[name] = addresses.of(str(arguments[name]))
        # An address without a port is that of a member with one, where there is one.
        arguments["address"] = addresses.member(arguments["address"], arguments.get("group_hosts"))
        return {
            **result,
            **self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=task_vars),
        }
