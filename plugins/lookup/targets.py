# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: targets
short_description: Insist that a pattern names a host of the inventory
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - For C(hosts) of a play. Ansible itself skips a play whose pattern names no host, and ends well, so that a scheduler never sees that the
    group was renamed.
  - What C(--limit) leaves out does not count.
options:
  _terms:
    description: The pattern; an empty one is an error that says that the hosts have to be named.
    required: true
  playbook:
    description: Name of the playbook, for the message.
    type: str
    default: site
  variable:
    description: The variable that the pattern comes from, for the message.
    type: str
    default: redisops_hosts
"""

EXAMPLES = r"""
- name: Look at hosts that there are
  hosts: "{{ lookup('redisops.recovery.targets', redisops_hosts | default('redis'), playbook='health') }}"
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

import typing as t

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """One look."""

    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        variables = variables or {}
        given = terms[0] if terms else ""
        pattern = ",".join(map(str, given)) if isinstance(given, (list, tuple)) else str(given or "").strip()
        if context.CLIARGS.get("syntax"):
            return [pattern or "localhost"]  # there need be no inventory
        groups = variables.get("groups", {})
        inventory = InventoryManager(self._loader, parse=False)
        for group, hosts in groups.items():
            inventory.add_group(group)
            for host in hosts:
                inventory.add_host(host, group=group)
        named = len(inventory.get_hosts(pattern)) if pattern else 0
        limit = variables.get("ansible_limit")
        if named and limit:
            inventory.subset(limit)
        if named and inventory.get_hosts(pattern):
            return [pattern]
        raise AnsibleError(self._words(pattern, named, limit, sorted(set(groups) - {"all", "ungrouped"})))

    def _words(self, pattern: str, named: int, limit: t.Optional[str], groups: list[str]) -> str:
        playbook, variable = self.get_option("playbook"), self.get_option("variable")
        if not pattern:
            detected = f"{variable} is not set, and the playbook {playbook} changes data or what a server is: it has no hosts of its own"
            needs = "the hosts that are meant"
        elif named:
            detected, needs = (
                f"--limit {limit} leaves none of the {named} hosts of {pattern}",
                f"a host of {pattern} in --limit",
            )
        else:
            detected, needs = f"No host of the inventory is {pattern}", "a host, a group or a pattern of the inventory"
        there = ", ".join(groups[:12]) + (", …" if groups[12:] else "") if groups else "none"
        return (
            f"Refused; nothing was changed. {detected}. Groups of the inventory: {there}. Needed: {needs}. "
            f"Do: ansible-playbook redisops.recovery.{playbook} -i INVENTORY -e {variable}=GROUP."
        )
