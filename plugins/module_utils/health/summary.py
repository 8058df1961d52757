# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's health as a whole: all findings in order, and what a report on a fleet needs."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.check_host import host_findings
from ansible_collections.redisops.recovery.plugins.module_utils.health.check_log import cause_of_the_end, log_findings
from ansible_collections.redisops.recovery.plugins.module_utils.health.check_persistence import persistence_findings
from ansible_collections.redisops.recovery.plugins.module_utils.health.check_replicas import last_verified, set_findings
from ansible_collections.redisops.recovery.plugins.module_utils.health.exposure import configured_durability
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts, Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import (
    Finding,
    ago,
    found,
    ordered,
    unknown,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import iso_utc
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import view_of

__all__ = ["findings_of", "report", "title"]


def _server(facts: Facts) -> t.Iterator[Finding]:
    if facts.trouble == "server_unseen":
        yield unknown("server_unseen", facts.because)
    elif facts.trouble:
        yield found(
            facts.trouble,
            "critical",
            f"{facts.because}; {cause_of_the_end(facts)}" if facts.trouble == "server_down" else facts.because,
        )
    else:
        info = facts.info
        yield found(
            "server_down",
            "ok",
            f"{info.product} answers at {facts.address}, {ago(info.number('uptime_in_seconds'))} after its start",
        )
        if info.flag("loading"):
            part, rest = info.text("loading_loaded_perc", "?"), info.text("loading_eta_seconds", "?")
            yield found(
                "server_loading", "warning", f"it is still loading its data: {part} % done, about {rest} s to go"
            )
        for name in ("info", "live"):
            if name in facts.missing:
                yield unknown("facts_missing", facts.missing[name])


def findings_of(facts: Facts, objectives: Objectives) -> list[Finding]:
    """Every finding, the worst first. What cannot be known says why."""
    findings = list(_server(facts))
    if facts.local or facts.answers:
        findings += persistence_findings(facts, objectives)
    if facts.local:
        findings += host_findings(facts, objectives)
    else:
        because = facts.missing.get("host", "the server does not run on this host")
        findings.append(unknown("facts_missing", because, "run it on the server's own host"))
    findings += set_findings(facts, objectives)
    findings += log_findings(facts)
    return ordered(findings)


def title(facts: Facts, group_name: str) -> str:
    """The server in a few words."""
    what = f"{facts.info.product}, {facts.role or 'role not known'}" if facts.answers else "no answer"
    return f"{group_name} at {facts.address} ({what})"


def _last_save(facts: Facts) -> t.Optional[dict[str, t.Any]]:
    """The last whole RDB on disk: the file that saves write, or the base of the AOF that the manifest names."""
    if facts.disk is None:
        return None
    found_at = []
    if facts.disk.rdb_bytes is not None:
        found_at.append((facts.disk.rdb_mtime, "file"))
    base = facts.disk.manifest.base if facts.disk.manifest else None
    if facts.base_mtime is not None and base is not None and base.name.endswith(".rdb"):
        found_at.append((facts.base_mtime, "manifest"))
    if not found_at:
        return None
    at, source = max(found_at)
    return {"time": iso_utc(at), "age_seconds": int(max(0, facts.now - at)), "source": source}


def _replication(facts: Facts) -> dict[str, t.Any]:
    view = view_of(facts.info, facts.address)
    replica = view.role == "replica"
    silent = facts.info.number("master_last_io_seconds_ago", -1)
    return {
        "link": ("up" if view.link_up else "down") if replica else None,
        "lag_seconds": silent if replica and silent >= 0 else None,
        "offset": view.offset,
        "replicas": [
            {"address": one.address, "online": one.online, "offset": one.offset, "lag_seconds": one.lag if one.lag >= 0 else None}
            for one in view.replicas
        ],
    }  # fmt: skip


def _sentinel(facts: Facts) -> t.Optional[dict[str, t.Any]]:
    sentinel = facts.sentinel
    if sentinel is None:
        return None
    return {
        "address": sentinel.address,
        "answers": not sentinel.because,
        "tilt": sentinel.tilt,
        "watched": [
            {
                "name": one.name, "primary": one.address, "flags": list(one.flags), "quorum": sentinel.quorum.get(one.name, ""),
                "replicas": len(one.replicas), "sentinels": len(one.sentinels) + 1,
            }
            for one in sentinel.watched
        ],
    }  # fmt: skip


def _of_backups(facts: Facts) -> dict[str, t.Any]:
    """Backups and restore drills on this host."""
    backups = facts.backups
    if not backups:
        return {"last_verified_backup": None, "backups": [], "drills": []}
    verified = last_verified(backups)
    last = verified and {
        "name": verified["label"], "time": iso_utc(verified["at"]), "age_seconds": int(max(0, facts.now - verified["at"])),
    }  # fmt: skip
    kept = ("ok", "rpo_seconds", "rto_seconds", "phases")
    return {
        "last_verified_backup": last or None,
        "backups": [{"name": row["label"], "time": iso_utc(row["at"]), "status": row["state"]} for row in backups.rows],
        "drills": [{**{name: row[name] for name in kept}, "time": iso_utc(row["time"])} for row in backups.drills],
    }


def _of_server(facts: Facts) -> dict[str, t.Any]:
    """What only the server can tell."""
    info = facts.info
    if not facts.answers or not info.fields:
        names = ("primary", "version", "uptime_seconds", "keys_total", "used_memory_bytes", "replication")
        return dict.fromkeys(names)
    view = view_of(info, facts.address) if facts.role else None
    return {
        "primary": (facts.address if view.role == "primary" else view.upstream) if view else None,
        "version": info.product,
        "uptime_seconds": info.number("uptime_in_seconds"),
        "keys_total": info.keys,
        "used_memory_bytes": info.number("used_memory"),
        "replication": _replication(facts) if view else None,
    }


def report(facts: Facts, group_name: str, objectives: Objectives) -> dict[str, t.Any]:
    """Plain values for a report on a fleet; null where a value is not known."""
    return {
        "group_name": group_name,
        "address": facts.address,
        "role": facts.role or None,
        **_of_server(facts),
        "configured_durability": configured_durability(facts) or None,
        "last_save": _last_save(facts),
        **_of_backups(facts),
        "sentinel": _sentinel(facts),
        "objectives": {f"{name}_seconds": getattr(objectives, name) for name in ("crash_loss", "rpo", "rto")},
    }
