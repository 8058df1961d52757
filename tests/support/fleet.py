# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A made fleet of any size, as redis_health_info would describe it: mostly well, with each kind of trouble somewhere."""

from __future__ import annotations

import datetime
import typing as t

NOW = 1795000000.0
HOUR, DAY = 3600.0, 86400.0
#: What every host of the fleet is held to, in seconds.
OBJECTIVES = {"crash_loss": 5, "rpo": 93600, "rto": 10}


def iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def finding(severity: str, code: str, seen: str) -> dict[str, str]:
    predicted = severity != "ok"
    return {
        "severity": severity, "code": code, "detected": seen, "why": "a save would fail" if predicted else "", "do": "set vm.overcommit_memory=1" if predicted else "",
        "page": f"docs/reference/findings.md#{code}",
    }  # fmt: skip


def host(number: int, kind: str) -> dict[str, t.Any]:
    """``kind``: primary, replica, old (backups), unbounded, broken (link), down."""
    first = number - number % 3
    name, ok = f"set-{first // 3 + 1:03}", finding("ok", "server_down", "Redis 7.2.4 answers")
    rows, status, risk = (
        [ok],
        0,
        {"known": True, "seconds": 1.0, "writes": None, "text": "up to 1 s of writes", "how": "AOF everysec"},
    )
    backups = [
        {"name": iso(NOW - back * DAY)[:10] + "-rdb", "time": iso(NOW - back * DAY), "status": "verified"}
        for back in range(10, 0, -1)
    ]
    if kind == "old":
        rows.append(finding("critical", "backup_old", "the last verified backup is 6.0 d old"))
        backups, status = [*backups[:5], {"name": "x-rdb", "time": iso(NOW - HOUR), "status": "failed"}], 2
    if kind == "unbounded":
        rows.append(finding("critical", "no_persistence", "neither AOF nor save points"))
        status, risk = (
            2,
            {"known": True, "seconds": None, "writes": None, "text": "everything", "how": "neither AOF nor RDB"},
        )
    if kind == "broken":
        rows.append(finding("warning", "replica_link", "the link to the primary is down for 300 s"))
        status = 1
    replica = number % 3 != 0
    verified = [one for one in backups if one["status"] == "verified"]
    last = verified[-1] if verified and not replica else None
    return {
        "changed": False, "failed": False, "status": status, "crash_loss": risk, "findings": [*rows, finding("info", "keyspace_events", "off")],
        "facts": {
            "group_name": name, "address": "127.0.0.1:6379", "role": "replica" if replica else "primary",
            "primary": f"10.0.{first // 250}.{first % 250 + 1}:6379" if replica else "127.0.0.1:6379", "version": "Redis 7.2.4",
            "uptime_seconds": 86400 + number, "keys_total": 1000000 + number, "used_memory_bytes": 2**30 + number, "configured_durability": "AOF everysec + RDB",
            "last_save": {"time": iso(NOW - HOUR), "age_seconds": 3600, "source": "file"},
            "last_verified_backup": {"name": last["name"], "time": last["time"], "age_seconds": NOW - 86400} if last else None,
            "backups": [] if replica else backups,
            "drills": [] if replica else [
                {"time": iso(NOW - 2 * DAY), "ok": kind != "old", "rpo_seconds": 86400.0, "rto_seconds": 12.5,
                 "phases": {"fetch": 4.0, "check": 2.5, "load": 6.0}}],
            "replication": {"link": ("down" if kind == "broken" else "up") if replica else None, "lag_seconds": 0 if replica else None, "offset": 1,
                            "replicas": []},
            "sentinel": None, "objectives": {f"{name}_seconds": seconds for name, seconds in OBJECTIVES.items()},
        },
    }  # fmt: skip


def fleet(size: int) -> dict[str, dict[str, t.Any]]:
    """``size`` hosts in sets of three. Of each fleet one host is down, one replica has no link, one set has old backups, one no persistence."""
    special = {size - 1: "down", 1: "broken", 0: "old", 3: "unbounded"} if size > 3 else {1: "broken"}
    found = {}
    for number in range(size):
        kind = special.get(number, "replica" if number % 3 else "primary")
        found[f"redis-{number + 1:03}"] = (
            {
                "msg": "Failed to connect to the host via ssh",
                "unreachable": True,
                "group_name": f"set-{number // 3 + 1:03}",
            }
            if kind == "down"
            else host(number, kind)
        )
    return found


def addresses(size: int) -> dict[str, list[str]]:
    return {f"redis-{number + 1:03}": [f"10.0.{number // 250}.{number % 250 + 1}"] for number in range(size)}


DRIFT = [
    {"host": "redis-001", "role": "redis_server", "layer": "live", "name": "save", "declared": "3600 1", "found": '""', "since": "", "critical": True},
    {"host": "redis-002", "role": "redis_server", "layer": "file", "name": "hz", "declared": "10", "found": "<b>77</b>", "since": "2026-11-18", "critical": False},
]  # fmt: skip
