# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: host_summary
short_description: Say in five lines what a server is, keeps and would lose, and what to do next
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Of what M(redisops.recovery.redis_health_info) returned; it holds no password, and neither do the lines.
options:
  _input:
    description: The registered result.
    type: dict
    required: true
  schedule:
    description: The registered result of M(redisops.recovery.redis_backup_schedule), where the host takes backups by itself.
    type: dict
"""

EXAMPLES = r"""
- name: Look
  redisops.recovery.redis_health_info:
  register: health

- name: Say it in five lines
  ansible.builtin.debug:
    msg: "{{ health | redisops.recovery.host_summary }}"
"""

RETURN = r"""
_value:
  description: Role, configured durability, crash loss window, backups, and what to do next.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_report import ago


def _server(facts: t.Mapping[str, t.Any]) -> str:
    """Who it is, and what is in it."""
    if facts["role"] is None:
        return "does not answer"
    link = (facts["replication"] or {}).get("link")
    follows = f" of {facts['primary']}, link {link}" if facts["role"] == "replica" else ""
    return f"{facts['role']}{follows}, {facts['version']}, {facts['keys_total']} keys"


def _backups(facts: t.Mapping[str, t.Any], schedule: t.Optional[t.Mapping[str, t.Any]]) -> str:
    last = facts["last_verified_backup"]
    reported = (
        f"the last verified one on this host is {ago(last['age_seconds'])} old"
        if last
        else "no verified one on this host"
    )
    at = (schedule or {}).get("next_run")
    return (
        f"{reported}; the next run here: {at}" if at else f"{reported}; none is taken by itself (redis_backup_enabled)"
    )


def _next(health: t.Mapping[str, t.Any]) -> str:
    """What is worst, and what to do about it."""
    bad = [row for row in health["findings"] if row["severity"] in ("critical", "warning")]
    if not bad:
        return "nothing"
    rest = f"; and {len(bad) - 1} more: playbook health" if len(bad) > 1 else ""
    return f"{bad[0]['severity']} {bad[0]['code']}: {bad[0]['detected']}. {bad[0]['do']}{rest}"


def host_summary(health: t.Mapping[str, t.Any], schedule: t.Optional[t.Mapping[str, t.Any]] = None) -> list[str]:
    """Five lines."""
    if "facts" not in health:
        because = str(health.get("msg") or "it was not looked at").split("\n")[0]
        return [
            "server:      not known",
            "durability:  not known",
            "crash loss:  not known",
            "backups:     not known",
            f"to do:       {because}",
        ]
    facts, crash_loss = health["facts"], health["crash_loss"]
    return [
        f"server:      {_server(facts)}",
        f"durability:  {facts['configured_durability'] or 'not known'}",
        f"crash loss:  {crash_loss['text']} ({crash_loss['how']})",
        f"backups:     {_backups(facts, schedule)}",
        f"to do:       {_next(health)}",
    ]


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"host_summary": host_summary}
