# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the inventory as the addresses by which other hosts reach them (controller)."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = ["InventoryAddresses"]


class InventoryAddresses:
    """Names of the inventory in ``host`` or ``host:port``; every other text stays as it is."""

    def __init__(self, task_vars: t.Mapping[str, t.Any], variables: t.Union[str, t.Sequence[str]]) -> None:
        self._variables = [variables] if isinstance(variables, str) else list(variables)
        self._hostvars = task_vars.get("hostvars", {})
        self._known = set(task_vars.get("groups", {}).get("all", ()))
        self._name = task_vars.get("inventory_hostname", "")

    @property
    def own_name(self) -> str:
        """What the managed host is called."""
        return self._name

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

    def all_of(self, entries: t.Sequence[str]) -> list[str]:
        """The addresses of ``entries``. Raises Problem where two that are called differently have one address: they would count as one server."""
        found: dict[str, str] = {}
        for entry in entries:
            address = self.of(entry)
            if found.setdefault(address, entry) != entry:
                raise Problem(
                    "duplicate_group_host",
                    f"{found[address]} and {entry} both have the address {address}",
                    "an address for each server, with its port where two run on one host",
                    f"set {self._variables[0]}: HOST:PORT for each of them in the inventory",
                )
        return [self.of(entry) for entry in entries]

    def among(self, name: str, entries: t.Sequence[str], port: t.Any = None) -> str:
        """The address of ``name`` among ``entries`` (of the inventory, or addresses): by its name, else by its address and ``port``. Raises Problem."""
        named = [entry for entry in entries if name in (entry, entry.rpartition(":")[0])]
        if len(named) == 1:
            return self.of(named[0])
        return self.member(self.of(name), [self.of(entry) for entry in entries], port)

    def member(self, address: str, group_hosts: t.Any, port: t.Any = None) -> str:
        """The one of ``group_hosts`` that ``address`` means, or ``address``; of several on that host the one with ``port``. Raises Problem."""
        if not isinstance(group_hosts, (list, tuple)) or address in group_hosts:
            return address
        same = [str(one) for one in group_hosts if str(one).rsplit(":", 1)[0] in (address, f"[{address}]")]
        at_port = [one for one in same if port and one.rsplit(":", 1)[1] == str(port)]
        if len(same) < 2 or at_port:
            return (at_port or same or [address])[0]
        raise Problem(
            "own_address_unclear",
            f"{self._name or address} has the address {address}, and so have {', '.join(same)}",
            "to know which of the servers on that host this one is",
            f"set {self._variables[0]}: HOST:PORT for each of them in the inventory",
        )
