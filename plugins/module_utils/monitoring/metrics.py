# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's health, backups and drills in Prometheus' text format.

Every time is a moment that is written down somewhere (a manifest, a report, a file), never one that a restart of Redis sets back. What is
not known is left out: no number is better than a wrong one.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import FAILED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import status_of as backup_status
from ansible_collections.redisops.recovery.plugins.module_utils.health.check_replicas import last_verified
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Backups, Facts, Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import SEVERITIES, Finding

__all__ = ["HELP", "Look", "backup_group_of", "render"]

#: Every metric with what it says; the alert rules use these names. All are gauges, and have the labels ``set`` and ``group``.
HELP = {
    "redisops_metrics_timestamp_seconds": "When these metrics were written",
    "redisops_up": "1 if the server answers, be it with a refusal, else 0; left out where nobody could ask",
    "redisops_keys": "Keys in all databases",
    "redisops_configured_durability": "1 for what this server keeps its data in: kind is aof or rdb",
    "redisops_crash_loss_seconds": "Seconds of writes that a power cut would cost now, at most; left out where there is no bound",
    "redisops_crash_loss_unbounded": "1 if a power cut now would cost more than can be bounded, else 0; left out of a pure cache",
    "redisops_findings": "Findings of redis_health_info by severity",
    "redisops_finding": "1 for each finding that is critical, a warning or not known",
    "redisops_last_save_timestamp_seconds": "When the last whole RDB on disk was written, by its file",
    "redisops_backup_expected": "1 if backups of this group are taken on this host or another host of the group",
    "redisops_backup_status": "As redis_backup_info: 0 ok, 1 none, 2 none verified, 3 too old, 4 the latest failed",
    "redisops_backup_last_taken_timestamp_seconds": "When the newest whole backup on this host was taken",
    "redisops_backup_last_verified_timestamp_seconds": "When the newest verified backup on this host was taken",
    "redisops_backup_last_failed_timestamp_seconds": "When the latest backup on this host was taken, if it failed its proof or is damaged",
    "redisops_backup_repository_expected": "1 for each repository that the schedule of this group sends backups to",
    "redisops_backup_last_offsite_timestamp_seconds": "When the newest backup that is in the repository was taken",
    "redisops_backup_bytes": "Size of the newest verified backup",
    "redisops_backup_keys": "Keys in the newest verified backup",
    "redisops_backup_load_seconds": "How long a temporary server took to load the newest verified backup",
    "redisops_drill_last_timestamp_seconds": "When the last drill on this host was held",
    "redisops_drill_success": "1 if the last drill missed nothing that was objectives, else 0",
    "redisops_drill_rpo_seconds": "RPO that the last drill measured",
    "redisops_drill_rto_seconds": "RTO that the last drill measured",
    "redisops_drill_phase_seconds": "Seconds of each phase of the last drill",
    "redisops_objective_seconds": "The objectives, in seconds: kind is crash_loss, rpo, rto or drill_age; left out where there is none",
    "redisops_run_failed": "1 if the last run of this program's service failed, else 0",
    "redisops_replica_link_up": "On a replica, 1 if it hears its primary, else 0",
}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _sample_text(value: t.Any) -> str:
    return f"{float(value):.17g}"


#: Name, labels, value.
_Sample = tuple[str, dict[str, str], t.Any]


@dataclasses.dataclass(frozen=True)
class Look:
    """One look at a server: what is known, what is wrong, what a crash now would cost, the report's values, and what it is held to."""

    facts: Facts
    findings: t.Sequence[Finding]
    crash_loss: t.Mapping[str, t.Any]
    report: t.Mapping[str, t.Any]
    objectives: Objectives


def _of_copies(backups: Backups, now: float) -> t.Iterator[_Sample]:
    """Of what lies on this host."""
    rows = backups.rows
    if rows:
        yield "redisops_backup_status", {}, backup_status(rows, 0, now)
        if rows[-1]["state"] == FAILED:
            yield "redisops_backup_last_failed_timestamp_seconds", {}, rows[-1]["at"]
    known = [row for row in rows if row["bytes"] is not None]  # of the others the manifest is damaged
    if known:
        yield "redisops_backup_last_taken_timestamp_seconds", {}, known[-1]["at"]
    verified = last_verified(backups)
    if verified:
        yield "redisops_backup_last_verified_timestamp_seconds", {}, verified["at"]
        for name in ("bytes", "keys", "load_seconds"):
            if verified[name] is not None:
                yield f"redisops_backup_{name}", {}, verified[name]


def _of_repositories(backups: Backups) -> t.Iterator[_Sample]:
    """Of what lies elsewhere. A repository that nothing is sent to any more lags for ever, and misses no objective."""
    for name in backups.repositories or ():
        yield "redisops_backup_repository_expected", {"repository": name}, 1
    sent_to = {name for row in backups.rows for name in row["repositories"]}
    for name in sorted(sent_to if backups.repositories is None else sent_to & set(backups.repositories)):
        newest = max(row["at"] for row in backups.rows if name in row["repositories"])
        yield "redisops_backup_last_offsite_timestamp_seconds", {"repository": name}, newest


def _of_drills(backups: Backups) -> t.Iterator[_Sample]:
    """Of the last restore drill on this host."""
    if not backups.drills:
        return
    last = backups.drills[-1]
    yield "redisops_drill_last_timestamp_seconds", {}, last["time"]
    yield "redisops_drill_success", {}, int(last["ok"])
    for name in ("rpo_seconds", "rto_seconds"):
        if last[name] is not None:
            yield f"redisops_drill_{name}", {}, last[name]
    for phase, seconds in last["phases"].items():
        yield "redisops_drill_phase_seconds", {"phase": phase}, seconds


def _of_backups(facts: Facts) -> t.Iterator[_Sample]:
    backups = facts.backups
    if backups is None or backups.because:
        return
    yield "redisops_backup_expected", {}, int(backups.expected)
    yield from _of_copies(backups, facts.now)
    yield from _of_repositories(backups)
    yield from _of_drills(backups)


def _of_crash_loss(crash_loss: t.Mapping[str, t.Any], cache: bool) -> t.Iterator[_Sample]:
    if not crash_loss["known"]:
        return
    if not cache:
        yield "redisops_crash_loss_unbounded", {}, int(crash_loss["seconds"] is None)
    if crash_loss["seconds"] is not None:
        yield "redisops_crash_loss_seconds", {}, crash_loss["seconds"]


def _of_findings(findings: t.Sequence[Finding]) -> t.Iterator[_Sample]:
    for severity in SEVERITIES:
        yield "redisops_findings", {"severity": severity}, sum(1 for one in findings if one.severity == severity)
    for code, severity in dict.fromkeys((one.code, one.severity) for one in findings):
        if severity in ("critical", "warning", "unknown"):
            yield "redisops_finding", {"code": code, "severity": severity}, 1


def _of_server(look: Look) -> t.Iterator[_Sample]:
    facts, report = look.facts, look.report
    if facts.refused or facts.trouble != "server_unseen":
        yield "redisops_up", {}, int(facts.answers or facts.trouble == "server_unseen")
    if report["keys_total"] is not None:
        yield "redisops_keys", {}, report["keys_total"]
    for kind, name, off in (("aof", "appendonly", "no"), ("rdb", "save", "")):
        value = facts.setting(name)
        if value is not None:
            yield "redisops_configured_durability", {"kind": kind}, int(value != off)
    yield from _of_crash_loss(look.crash_loss, look.objectives.no_persistence)
    yield from _of_findings(look.findings)
    if report["last_save"] and facts.setting("save"):
        yield "redisops_last_save_timestamp_seconds", {}, facts.now - report["last_save"]["age_seconds"]
    link = (report["replication"] or {}).get("link")
    if link:
        yield "redisops_replica_link_up", {}, int(link == "up")


def backup_group_of(backups: t.Optional[Backups], group_name: str, hostname: str) -> str:
    """Who shares backups: hosts of a group (of a cluster: of a shard) do, and have one name; a server alone has its host's next to its own."""
    name = backups.group_name if backups else group_name
    return name if backups and backups.elsewhere else f"{name}@{hostname}"


def render(look: Look, failed: t.Mapping[str, bool], hostname: str) -> str:
    """The text of the file. ``failed``: program → whether its last run failed."""
    facts, wanted, name_of_group = look.facts, look.objectives, look.report["group_name"]
    objectives = {"crash_loss": wanted.crash_loss, "rpo": wanted.rpo, "rto": wanted.rto, "drill_age": wanted.drill_age}
    samples: list[_Sample] = [
        ("redisops_metrics_timestamp_seconds", {}, facts.now),
        *_of_server(look),
        *_of_backups(facts),
        *(("redisops_objective_seconds", {"kind": kind}, value) for kind, value in objectives.items() if value),
        *(("redisops_run_failed", {"program": name}, int(value)) for name, value in failed.items()),
    ]
    common = {"group": name_of_group, "backup_group": backup_group_of(facts.backups, name_of_group, hostname)}
    lines: list[str] = []
    for name, words in HELP.items():
        mine = [(labels, value) for one, labels, value in samples if one == name]
        if mine:
            lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
        for labels, value in mine:
            inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in {**common, **labels}.items())
            lines.append(f"{name}{{{inside}}} {_sample_text(value)}")
    return "\n".join(lines) + "\n"
