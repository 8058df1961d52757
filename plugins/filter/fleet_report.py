# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: Make one report of the health of all hosts
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Joins what M(redisops.recovery.redis_health_info) stated of each host into groups, with the objectives next to what was measured.
  - A host without an answer is C(unknown), never ok.
options:
  _input:
    description: Variables of each host, host → its C(hostvars), after C(tasks_from=health) of role C(redis_monitoring).
    type: dict
    required: true
  drift:
    description: RV(redisops.recovery.drift_table#filter:_value) of the same hosts, its C(rows); none where nobody looked.
    type: list
  now:
    description: The moment that the report is of, in seconds since 1970; 0 for now.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: Look
  ansible.builtin.include_role:
    name: redisops.recovery.redis_monitoring
    tasks_from: health

- name: Say the objectives and what is kept
  ansible.builtin.debug:
    msg: >-
      {{ dict(groups['redis'] | zip(groups['redis'] | map('extract', hostvars))) | redisops.recovery.fleet_report
         | redisops.recovery.fleet_page('markdown') }}
"""

RETURN = r"""
_value:
  description: The report; C(format) is 1.
  type: dict
  contains:
    totals:
      description: Hosts and groups, by status.
      type: dict
    groups:
      description: A row each with configured durability, objectives, last save, last verified backup, crash loss window, last drill, topology, the worst first.
      type: list
    hosts:
      description: A row each.
      type: list
    findings:
      description: The worst first; one that several hosts have is one row.
      type: list
    drift:
      description: As given.
      type: list
"""

import time
import typing as t

from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_report import fleet_report as joined

_NAMES = ("redis_replication_address", "ansible_host")


def _seen(variables: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What redis_health_info stated, or else what there is instead of it."""
    found = variables.get("__redis_monitoring_health") or variables.get("__redisops_ping") or {}
    return {"group_name": variables.get("redis_group_name") or "", **found}


def fleet_report(
    fleet: t.Mapping[str, t.Mapping[str, t.Any]],
    drift: t.Optional[t.Sequence[t.Mapping[str, t.Any]]] = None,
    now: float = 0.0,
) -> dict[str, t.Any]:
    """One report of all hosts."""
    addresses = {
        host: [host, *(str(variables[name]) for name in _NAMES if name in variables)]
        for host, variables in fleet.items()
    }
    return joined(
        {host: _seen(variables) for host, variables in fleet.items()},
        drift,
        now or time.time(),
        addresses,
    )


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"fleet_report": fleet_report}
