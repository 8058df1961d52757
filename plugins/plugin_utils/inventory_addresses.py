# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the inventory as the addresses by which other hosts reach them (controller)."""

from __future__ import annotations

import typing as t

__all__ = ["InventoryAddresses"]


class InventoryAddresses:
    """Names of the inventory in ``host`` or ``host:port``; every other text stays as it is."""

    def __init__(self, task_vars: t.Mapping[str, t.Any], variables: t.Union[str, t.Sequence[str]]) -> None:
        self._variables = [variables] if isinstance(variables, str) else list(variables)
        self._hostvars = task_vars.get("hostvars", {})
        self._known = set(task_vars.get("groups", {}).get("all", ()))
        self._name = task_vars.get("inventory_hostname", "")

    @property
    def own(self) -> str:
        """The managed host itself."""
        return self.of(self._name)

    def of(self, text: str) -> str:
        """The address that ``text`` stands for, its port kept."""
        host, colon, port = text, "", ""
        if text not in self._known and text.count(":") == 1:
            host, colon, port = text.partition(":")
        if host not in self._known:
            return text
        values = self._hostvars[host]
        found = next((str(values[name]) for name in self._variables if values.get(name)), host)
        return f"[{found}]{colon}{port}" if colon and ":" in found else f"{found}{colon}{port}"

    @staticmethod
    def member(address: str, group_hosts: t.Any) -> str:
        """The one of ``group_hosts`` that begins with ``address``, or ``address``."""
        if isinstance(group_hosts, (list, tuple)) and address not in group_hosts:
            return next((str(one) for one in group_hosts if str(one).rsplit(":", 1)[0] == address), address)
        return address
