# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_choice
short_description: Choose a backup among those that lie on the hosts of a group
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Finds the backup that a name stands for. Where it lies on several hosts, the one that it is wanted on comes first.
  - Where there is none, RV(_value.refusal) says so, and which ones there are; nothing is raised.
options:
  _input:
    description: RV(redisops.recovery.redis_backup_info#module:groups) of each host, host → list.
    type: dict
    required: true
  wanted:
    description: A label, V(latest_verified), V(latest) or V(oldest).
    type: str
    default: latest_verified
  here:
    description: The host that it is wanted on.
    type: str
    default: ""
  group_name:
    description: Only backups of this group; empty for all that are given.
    type: str
    default: ""
  not_after:
    description: Only backups from this moment or before, in seconds since 1970 or as V(2026-11-24T22:00:00Z).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Read the backups
  redisops.recovery.redis_backup_info:
    group_name: orders
  register: found

- name: Say which one a restore would take
  ansible.builtin.debug:
    msg: "{{ {inventory_hostname: found.groups} | redisops.recovery.backup_choice(wanted='latest_verified', here=inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The choice.
  type: dict
  contains:
    label:
      description: The backup; empty where there is none.
      type: str
    host:
      description: Where it lies.
      type: str
    group:
      description: The group that it is of.
      type: str
    bytes:
      description: How large its files are together; null where that is not known.
      type: int
    at:
      description: When it was taken, in seconds since 1970; null where there is none.
      type: float
    state:
      description: As in RV(redisops.recovery.redis_backup_info#module:groups).
      type: str
    refusal:
      description: Why there is none; empty where there is one.
      type: str
"""

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.core.timestamps import moment_of

_NONE = {"label": "", "host": "", "group": "", "state": "", "at": None, "bytes": None}
_BY_AGE = ("latest_verified", "latest", "oldest")


def _rows(groups: t.Mapping[str, t.Any], wanted: str, group_name: str, latest: float) -> list[dict[str, t.Any]]:
    """Backups that come into question, a row each."""
    found = [
        {**{key: row.get(key) for key in ("label", "state", "at", "bytes")}, "host": host, "group": one["group"]}
        for host, of_host in groups.items()
        for one in of_host
        if group_name in ("", one["group"])
        for row in one["backups"]
    ]
    return [row for row in found if (row["state"] != "failed" or row["label"] == wanted) and row["at"] <= latest]


def _none_of(rows: t.Sequence[t.Mapping[str, t.Any]], what: str, hosts: t.Iterable[str]) -> str:
    there = ", ".join(sorted({row["label"] for row in rows})) or "none"
    return (
        f"Refused; this task changed nothing. There is no backup {what} on {', '.join(hosts)}; there are: {there}. "
        "Do: take one (playbook backup), or set redisops_backup."
    )


def backup_choice(
    groups: t.Mapping[str, t.Any],
    wanted: str = "latest_verified",
    here: str = "",
    group_name: str = "",
    not_after: str = "",
) -> dict[str, t.Any]:
    """The backup that ``wanted`` stands for, or why there is none."""
    try:
        latest = moment_of(not_after, "not_after") if not_after else float("inf")
    except Problem as problem:
        return {**_NONE, "refusal": problem.message()}
    rows = _rows(groups, wanted, group_name, latest)
    fit = [row for row in rows if row["label"] == wanted or wanted in _BY_AGE]
    if wanted == "latest_verified":
        fit = [row for row in fit if row["state"] == "verified"]
    if not fit:
        of_group = f" of {group_name}" if group_name else ""
        before = f" from {not_after} or before" if not_after else ""
        return {**_NONE, "refusal": _none_of(rows, f"{wanted}{of_group}{before}", groups)}
    edge = (min if wanted == "oldest" else max)(row["at"] for row in fit)
    best = [row for row in fit if row["at"] == edge]
    chosen = next((row for row in best if row["host"] == here), best[0])
    return {**chosen, "refusal": ""}


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"backup_choice": backup_choice}
