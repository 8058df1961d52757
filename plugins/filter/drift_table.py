# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: drift_table
short_description: Make one table of what the roles found different on all hosts
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Reads what the roles of this collection have registered in check mode. What recovery depends on stands first; then come hosts in order.
  - A host that was not reached to the end, or on which a role refused to go on (C(__redisops_drift_whole), C(__redisops_drift_refusal), as the
    playbook drift sets them), has a row that says so; it is never counted as free of drift.
options:
  _input:
    description: Variables of each host that was looked at, host → its C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say what has drifted
  ansible.builtin.debug:
    msg: "{{ (dict(groups['redis'] | zip(groups['redis'] | map('extract', hostvars))) | redisops.recovery.drift_table).text.splitlines() }}"
"""

RETURN = r"""
_value:
  description: The table.
  type: dict
  contains:
    rows:
      description: C(host), C(role), C(layer), C(name), C(declared), C(found), C(since) (UTC, empty where it is not known) and C(critical).
      type: list
    hosts:
      description: Hosts with a row.
      type: list
    text:
      description: The table in Markdown; one line where there is nothing.
      type: str
"""

import datetime
import re
import typing as t
from collections.abc import Mapping

#: What decides about what a disaster costs, and who may cause one.
_CRITICAL = {
    "appendonly", "appendfsync", "save", "dir", "dbfilename", "appenddirname", "appendfilename", "rdbchecksum", "min-replicas-to-write",
    "min-replicas-max-lag", "stop-writes-on-bgsave-error", "user default",
}  # fmt: skip
_CRITICAL_ROLES = {"redis_firewall"}
_REGISTERED = re.compile(r"__(redis_[a-z]+)_[a-z_]+")


def _shown(value: t.Any) -> str:
    return "absent" if value is None else str(value) or '""'


def _moment(since: t.Any) -> str:
    if not since:
        return ""
    return datetime.datetime.fromtimestamp(float(since), datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _row(
    of: tuple[str, str], layer: str, name: str, declared: t.Any, found: t.Any, since: t.Any = None
) -> dict[str, t.Any]:
    """One line of the table; ``of`` is host and role."""
    host, role = of
    critical = name in _CRITICAL or role in _CRITICAL_ROLES or layer == "host"
    return {
        "host": host, "role": role, "layer": layer, "name": name, "declared": _shown(declared), "found": _shown(found), "since": _moment(since),
        "critical": critical,
    }  # fmt: skip


def _rows_of(host: str, role: str, result: t.Mapping[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    """What one task has found. Results of other collections' modules only say that something differs."""
    if "results" in result and "changes" not in result:
        for one in result["results"]:
            if isinstance(one, Mapping):
                yield from _rows_of(host, role, one)
    elif result.get("failed"):
        yield _row(
            (host, role), "host", "refused", "a role that can be carried out", str(result.get("msg", "")).split("\n")[0]
        )
    elif result.get("changed") and "changes" in result:
        for one in result["changes"]:
            yield _row((host, role), one["layer"], one["name"], one["declared"], one["found"], one.get("since"))
    elif result.get("changed"):
        yield _row((host, role), "package", role, "as declared", "different")


def _told(rows: t.Sequence[t.Mapping[str, t.Any]], seen: int) -> str:
    if not rows:
        return f"No drift on {seen} host{'s' if seen != 1 else ''}.\n"
    head = ("host", "what", "declared", "found", "since, or before")
    lines = [
        (one["host"], f"{'! ' if one['critical'] else ''}{one['layer']}: {one['name']}", one["declared"], one["found"], one["since"])
        for one in rows
    ]  # fmt: skip
    cells = [head, *((str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)]
    table = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([table[0], "|" + "---|" * len(head), *table[1:], "", "!: what recovery depends on"]) + "\n"


def drift_table(fleet: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """One table of what the roles found different."""
    rows: list[dict[str, t.Any]] = []
    for host, variables in fleet.items():
        # Only these are looked at: to look at another variable is to template it, which may fail.
        found = {name: variables[name] for name in variables if _REGISTERED.fullmatch(name)}
        found = {name: value for name, value in found.items() if isinstance(value, Mapping)}
        refusal = str(variables.get("__redisops_drift_refusal") or "").split("\n")[0]
        if refusal:
            rows.append(_row((host, ""), "host", "refused", "a role that can be carried out", refusal))
        elif not variables.get("__redisops_drift_whole"):
            rows.append(
                _row(
                    (host, ""),
                    "host",
                    "not known",
                    "a host that answers to the end",
                    "it was not reached, or lost on the way",
                )
            )
        for name, value in found.items():
            match = _REGISTERED.fullmatch(name)
            if match and ("changed" in value or "failed" in value):
                rows += _rows_of(host, match[1], value)
    unique: dict[tuple, dict[str, t.Any]] = {}
    for row in rows:
        unique.setdefault((row["host"], row["layer"], row["name"], row["declared"]), row)
    order = {host: number for number, host in enumerate(fleet)}
    ordered = sorted(unique.values(), key=lambda row: (not row["critical"], order[row["host"]]))
    return {
        "rows": ordered,
        "hosts": list(dict.fromkeys(row["host"] for row in ordered)),
        "text": _told(ordered, len(fleet)),
    }


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"drift_table": drift_table}
