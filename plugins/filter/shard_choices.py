# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: shard_choices
short_description: Choose a backup for every shard of a cluster, or say why that cannot be
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - For each primary the backup of its shard, wherever it lies; together they have to cover all 16384 slots, and to be of about one time.
  - Where that cannot be, RV(_value.refusal) says so; nothing is raised.
options:
  _input:
    description: RV(redisops.recovery.redis_restore#module:target) of each node, host → dict.
    type: dict
    required: true
  groups:
    description: RV(redisops.recovery.redis_backup_info#module:groups) of each node, host → list.
    type: dict
  wanted:
    description: V(latest_verified), V(latest) or V(oldest) for all of them, or a label for each primary, host → label.
    type: raw
    default: latest_verified
  not_after:
    description: Only backups from this moment or before, in seconds since 1970 or as V(2026-11-24T22:00:00Z).
    type: str
    default: ""
  max_spread:
    description: Seconds at most between the oldest and the newest of the chosen.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: See what each node is, without changing anything
  redisops.recovery.redis_restore:
    group_name: shop
  check_mode: true
  register: node
  failed_when: false

- name: Read the backups
  redisops.recovery.redis_backup_info:
    group_name: shop
  register: found

- name: Say what would be restored
  ansible.builtin.debug:
    msg: "{{ {inventory_hostname: node.target} | redisops.recovery.shard_choices(groups={inventory_hostname: found.groups}) }}"
"""

RETURN = r"""
_value:
  description: The choices.
  type: dict
  contains:
    choices:
      description: As RV(redisops.recovery.backup_choice#filter:_value), primary → choice.
      type: dict
    spread_seconds:
      description: Seconds between the oldest and the newest of them.
      type: float
    refusal:
      description: Why there are none; empty where there are.
      type: str
"""

import typing as t

from ansible_collections.redisops.recovery.plugins.filter.backup_choice import backup_choice

_SLOTS = 16384


def _covered(ranges: t.Iterable[str]) -> list[int]:
    found: list[int] = []
    for text in ranges:
        first, _dash, last = text.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _refusal(detected: str, do: str) -> dict[str, t.Any]:
    return {
        "choices": {},
        "spread_seconds": 0.0,
        "refusal": f"Refused; this task changed nothing. {detected}. Do: {do}.",
    }


def shard_choices(
    targets: t.Mapping[str, t.Any],
    groups: t.Optional[t.Mapping[str, t.Any]] = None,
    wanted: t.Union[str, t.Mapping[str, str]] = "latest_verified",
    not_after: str = "",
    max_spread: int = 3600,
) -> dict[str, t.Any]:
    """A backup for every shard, or why that cannot be."""
    primaries = {host: target for host, target in targets.items() if target["role"] == "primary" and target["slots"]}
    slots = _covered(one for target in primaries.values() for one in target["slots"])
    if sorted(slots) != list(range(_SLOTS)):
        missing = _SLOTS - len(set(slots))
        return _refusal(
            f"The primaries among {', '.join(sorted(targets))} have {len(slots)} of {_SLOTS} slots ({missing} are nobody's)",
            "name every node of the cluster as redisops_hosts; if a primary is down, start it or see to the slots first (role redis_cluster)",
        )
    choices = {}
    for host, target in primaries.items():
        name = wanted if isinstance(wanted, str) else wanted.get(host, "")
        choices[host] = backup_choice(groups or {}, name, host, target["group_name"], not_after)
        if choices[host]["refusal"]:
            return {**_refusal("", ""), "refusal": choices[host]["refusal"]}
    times = [choice["at"] for choice in choices.values()]
    spread = round(max(times) - min(times), 3)
    if spread > max_spread:
        reported = ", ".join(f"{choice['group']} {choice['label']}" for choice in choices.values())
        return _refusal(
            f"Between the oldest and the newest of the chosen backups are {spread:g} seconds ({reported}), and {max_spread} are allowed",
            "name a moment for which every shard has one (redisops_not_after), or allow more (redisops_max_spread_seconds)",
        )
    return {"choices": choices, "spread_seconds": spread, "refusal": ""}


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"shard_choices": shard_choices}
