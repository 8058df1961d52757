# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health of all hosts says of the fleet, as plain values (controller, pure); the page, the JSON and the Markdown all come from it."""

from __future__ import annotations

import datetime
import typing as t

__all__ = ["SEVERITIES", "ago", "fleet_report"]

#: The worst first, as redis_health_info has them.
#: How much a crash may cost, how old the last verified backup may be, how long a restore may take.
OBJECTIVES = ("crash_loss", "rpo", "rto")
SEVERITIES = ("critical", "warning", "unknown", "info")
_STATUS = {0: "ok", 1: "warning", 2: "critical", 3: "unknown"}
_RANK = {"critical": 0, "unknown": 1, "warning": 2, "ok": 3}


def ago(seconds: t.Optional[float]) -> str:
    """A time span in words, such as ``3.2 h``; empty for None."""
    if seconds is None:
        return ""
    for begin, size, unit in ((2 * 86400, 86400, "d"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= begin:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s" if 0 < seconds < 10 else f"{max(seconds, 0):.0f} s"


def _epoch(text: t.Optional[str]) -> t.Optional[float]:
    if not text:
        return None
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _host(name: str, result: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """One host as a row. What nobody could ask is not known, and never ok."""
    if "facts" not in result:
        because = str(result.get("msg") or "it did not answer").split("\n")[0]
        return {
            "host": name, "group": result.get("group_name") or "", "role": None, "address": None, "status": "unknown", "version": None, "keys": None,
            "memory": None, "uptime": None, "configured_durability": None, "crash_loss": {"known": False, "seconds": None, "text": "not known", "how": because},
            "last_save": None, "primary": None, "link": None, "lag": None, "findings": {}, "because": because,
        }  # fmt: skip
    facts, rows = result["facts"], result["findings"]
    replication = facts.get("replication") or {}
    return {
        "host": name, "group": facts["group_name"], "role": facts["role"], "address": facts.get("address"), "status": _STATUS[result["status"]],
        "version": facts["version"], "keys": facts["keys_total"], "memory": facts["used_memory_bytes"], "uptime": facts["uptime_seconds"],
        "configured_durability": facts["configured_durability"], "crash_loss": result["crash_loss"], "last_save": facts["last_save"], "primary": facts["primary"],
        "link": replication.get("link"), "lag": replication.get("lag_seconds"),
        "findings": {name: sum(1 for row in rows if row["severity"] == name) for name in SEVERITIES}, "because": "",
    }  # fmt: skip


def _findings(hosts: t.Sequence[str], results: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Findings with something to say, the worst first; the same one of several hosts is one row."""
    merged: dict[tuple, dict[str, t.Any]] = {}
    for host in hosts:
        result = results[host]
        if "facts" not in result:
            because = str(result.get("msg") or "it did not answer").split("\n")[0]
            rows = [
                {"severity": "unknown", "code": "host_unseen", "detected": f"not known, because {because}", "why": "nothing is known of this host",
                 "do": "see that Ansible reaches it, and that redis_health_info may look", "page": "docs/operate/health.md"}
            ]  # fmt: skip
        else:
            rows = [row for row in result["findings"] if row["severity"] in SEVERITIES]
        for row in rows:
            key = (row["severity"], row["code"], row["detected"])
            merged.setdefault(key, {**row, "hosts": []})["hosts"].append(host)
    return sorted(merged.values(), key=lambda row: (SEVERITIES.index(row["severity"]), -len(row["hosts"]), row["code"]))


def _verdict(measured: t.Optional[float], objective: float) -> str:
    """``met``, ``missed``, or empty where there is no objective or nothing was measured."""
    if not objective or measured is None:
        return ""
    return "met" if measured <= objective else "missed"


def _crash_loss_verdict(crash_loss: t.Mapping[str, t.Any], objective: float) -> str:
    """As _verdict; a loss without a bound misses every objective."""
    if not crash_loss["known"]:
        return ""
    return _verdict(float("inf") if crash_loss["seconds"] is None else crash_loss["seconds"], objective)


def _objectives(facts: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, float]:
    """Seconds of each objective, the strictest that any of the hosts has; 0 for none."""
    declared = [fact["objectives"] for fact in facts]
    return {
        name: min((one[f"{name}_seconds"] for one in declared if one[f"{name}_seconds"]), default=0)
        for name in OBJECTIVES
    }


def _weakest_verified(
    rows: t.Sequence[dict[str, t.Any]], names: t.Mapping[str, str], results: t.Mapping[str, t.Any]
) -> t.Optional[dict[str, t.Any]]:
    """The last verified backup; of several primaries (shards, or servers alone that share a name) that of the one who is the worst off."""
    found = [_newest_verified(group, results) for group in _groups(rows, names)]
    return min(found, key=lambda one: one["time"]) if all(found) else None


def _worst_loss(rows: t.Sequence[dict[str, t.Any]]) -> dict[str, t.Any]:
    """The group loses what its primary loses; with several primaries (a cluster) the most."""
    losses = [row["crash_loss"] for row in rows]
    return max(losses, key=lambda one: (not one["known"], one["seconds"] is None, one["seconds"] or 0))


def _judged_drill(drill: t.Mapping[str, t.Any], objectives: t.Mapping[str, float]) -> dict[str, t.Any]:
    verdicts = {f"{kind}_verdict": _verdict(drill[f"{kind}_seconds"], objectives[kind]) for kind in ("rpo", "rto")}
    return {**drill, **verdicts}


def _judged_backup(backup: t.Mapping[str, t.Any], objectives: t.Mapping[str, float], now: float) -> dict[str, t.Any]:
    age = now - (_epoch(backup["time"]) or now)
    return {**backup, "age_seconds": age, "verdict": _verdict(age, objectives["rpo"])}


def _by_time(found: t.Iterable[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    return sorted(found, key=lambda one: one["time"])


def _group(
    name: str,
    rows: t.Sequence[dict[str, t.Any]],
    results: t.Mapping[str, t.Any],
    now: float,
    names: t.Mapping[str, str],
) -> dict[str, t.Any]:
    """A group as one line. What lies on any of its hosts is the group's; a verified backup is that of who shares data with its host."""
    facts = [results[row["host"]]["facts"] for row in rows if "facts" in results[row["host"]]]
    objectives = _objectives(facts)
    primaries = [row for row in rows if row["role"] == "primary"]
    leading = primaries or list(rows)
    backups = {one["name"]: one for fact in facts for one in fact["backups"]}
    verified = _weakest_verified(rows, names, results)
    drills = _by_time(one for fact in facts for one in fact["drills"])
    saves = _by_time(row["last_save"] for row in primaries if row["last_save"])
    worst = _worst_loss(leading)
    return {
        "group": name,
        "status": min((row["status"] for row in rows), key=lambda status: _RANK[status]),
        "hosts": [row["host"] for row in rows],
        "primaries": [row["host"] for row in primaries],
        "keys": sum(row["keys"] or 0 for row in primaries) if primaries else None,
        "configured_durability": leading[0]["configured_durability"],
        "saved": next(iter(saves), None),
        "verified": _judged_backup(verified, objectives, now) if verified else None,
        "crash_loss": {**worst, "verdict": _crash_loss_verdict(worst, objectives["crash_loss"])},
        "drill": _judged_drill(drills[-1], objectives) if drills else None,
        "objectives": objectives,
        "backups": _by_time(backups.values()),
        "drills": drills,
        "topology": _topology(rows, names),
    }


def _newest_verified(hosts: t.Iterable[str], results: t.Mapping[str, t.Any]) -> t.Optional[dict[str, t.Any]]:
    """The newest verified backup on any of ``hosts``."""
    facts = [results[host]["facts"] for host in hosts if "facts" in results[host]]
    verified = [fact["last_verified_backup"] for fact in facts if fact["last_verified_backup"]]
    return max(verified, key=lambda one: one["time"], default=None)


def _groups(rows: t.Sequence[dict[str, t.Any]], names: t.Mapping[str, str]) -> list[list[str]]:
    """Hosts with the same data: each of several primaries with its replicas, also with those of replicas.

    Replicas of a primary that is not seen are a group as well; hosts of which nothing is known are in none.
    """
    primaries = {row["host"] for row in rows if row["role"] == "primary"}
    if len(primaries) < 2:
        return [[row["host"] for row in rows]]
    upstream = {row["host"]: _upstream(row, names) for row in rows if row["role"] == "replica"}
    groups: dict[str, list[str]] = {host: [host] for host in primaries}
    for host in upstream:
        top, seen = host, {""}
        while top in upstream and top not in seen:
            seen.add(top)
            top = upstream[top]
        groups.setdefault(top, []).append(host)
    return list(groups.values())


def _upstream(row: t.Mapping[str, t.Any], names: t.Mapping[str, str]) -> str:
    """The host that a replica follows; where no host is called so, its address."""
    address = str(row["primary"] or "")
    return names.get(address.rsplit(":", 1)[0].strip("[]"), address)


def _topology(rows: t.Sequence[dict[str, t.Any]], names: t.Mapping[str, str]) -> list[dict[str, t.Any]]:
    """Each primary with those that follow it; then those of whom that is not known. ``names``: what a host may be called → host."""
    primaries = [row["host"] for row in rows if row["role"] == "primary"]
    following: dict[t.Optional[str], list[dict[str, t.Any]]] = {host: [] for host in primaries}
    for row in rows:
        if row["role"] == "primary":
            continue
        upstream: t.Optional[str] = _upstream(row, names)
        if row["role"] == "replica" and upstream not in following and len(primaries) == 1:
            upstream = primaries[0]  # whatever the hosts call it
        known = upstream if row["role"] == "replica" and upstream in following else None
        following.setdefault(known, []).append({"host": row["host"], "link": row["link"], "lag": row["lag"]})
    return [{"primary": host, "replicas": found} for host, found in following.items()]


def _totals(hosts: t.Sequence[t.Mapping[str, t.Any]], groups: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    return {
        "hosts": len(hosts),
        "groups": len(groups),
        "status": {
            name: sum(row["status"] == name for row in hosts) for name in ("critical", "warning", "unknown", "ok")
        },
        "without_verified_backup": sum(one["verified"] is None for one in groups),
        "unbounded": sum(one["crash_loss"]["known"] and one["crash_loss"]["seconds"] is None for one in groups),
    }


def fleet_report(
    results: t.Mapping[str, t.Mapping[str, t.Any]],
    drift: t.Optional[t.Sequence[t.Mapping[str, t.Any]]],
    now: float,
    addresses: t.Optional[t.Mapping[str, t.Sequence[str]]] = None,
) -> dict[str, t.Any]:
    """``results``: of redis_health_info by host, each with the objectives that it was held to.

    ``drift``: rows of drift_table, None where nobody looked. ``now``: seconds since 1970. ``addresses``: what each host may be called.
    """
    hosts = [_host(name, result) for name, result in results.items()]
    called = {
        **{host: host for host in results},
        **{name: host for host, found in (addresses or {}).items() for name in found},
    }
    members: dict[str, list[dict[str, t.Any]]] = {}
    for row in hosts:
        members.setdefault(row["group"] or "(group not known)", []).append(row)
    groups = [_group(name, rows, results, now, called) for name, rows in members.items()]
    groups.sort(key=lambda one: (_RANK[one["status"]], one["group"]))
    return {
        "format": 1,
        "generated_at": _iso(now),
        "objectives": _objectives(one["facts"] for one in results.values() if "facts" in one),
        "totals": _totals(hosts, groups),
        "groups": groups,
        "hosts": sorted(hosts, key=lambda row: (_RANK[row["status"]], row["group"], row["host"])),
        "findings": _findings(list(results), results),
        "drift": None if drift is None else list(drift),
    }
