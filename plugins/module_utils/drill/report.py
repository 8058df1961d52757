# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill has measured, against the objectives, for people and auditors."""

from __future__ import annotations

import datetime
import typing as t

__all__ = ["measured_rpo", "missed_objectives", "render_markdown"]


def measured_rpo(verified_at: t.Sequence[float], now: float, window: float) -> t.Optional[float]:
    """The most that a disaster within the last ``window`` seconds would have cost, in seconds of writes: the widest gap between verified
    backups, up to now. None where there was no verified backup at all.
    """
    times = sorted(at for at in verified_at if at <= now)
    if not times:
        return None
    begin = now - window
    inside = [at for at in times if at > begin]
    before = [at for at in times if at <= begin]
    # A disaster at a moment of the window costs what was written since the last verified backup before it.
    edges = [*before[-1:], *inside, now]
    return max(later - earlier for earlier, later in zip(edges, edges[1:])) if len(edges) > 1 else 0.0


def missed_objectives(report: t.Mapping[str, t.Any]) -> list[str]:
    """What of the objectives was missed, or what of the comparison failed, each in words; empty where all is well."""
    missed = [f"the backup is not what it was: {words}" for words in report["differences"]]
    for name, what in (
        ("rpo", "writes that a disaster would have cost"),
        ("rto", "time until the data could be had again"),
    ):
        wanted, have = report["objectives"][f"{name}_seconds"], report["measured"][f"{name}_seconds"]
        if wanted and have is None:
            missed.append(f"{name.upper()} is not known, and {wanted} s was the objective")
        elif wanted and have > wanted:
            missed.append(f"{name.upper()} ({what}) is {have:.0f} s, and {wanted} s was the objective")
    return missed


def _when(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _seconds(value: t.Optional[float]) -> str:
    return "not known" if value is None else f"{value:.1f} s"


def render_markdown(report: t.Mapping[str, t.Any]) -> str:
    """The report for people; an auditor can check every hash in it again."""
    measured, objectives = report["measured"], report["objectives"]
    lines = [
        f"# Drill of the group {report['group']}, {_when(report['at'])}",
        "",
        f"**{'Passed' if not report['missed'] else 'FAILED'}** on {report['host']}.",
        *(f"- {words}" for words in report["missed"]),
        "",
        "| objective | declared | measured |",
        "|---|---|---|",
        f"| RPO | {objectives['rpo_seconds'] or 'none'} s | {_seconds(measured['rpo_seconds'])} |",
        f"| RTO | {objectives['rto_seconds'] or 'none'} s | {_seconds(measured['rto_seconds'])} |",
        "",
        "| phase | seconds |",
        "|---|---|",
        *(f"| {name} | {seconds:.3f} |" for name, seconds in report["phases"].items()),
        "",
        f"Backup `{report['backup']}` of {_when(report['taken_at'])}, by {report['method']} from the {report['source']} "
        f"({report['product']}), {report['keys']} keys, {report['bytes']} bytes, out of {report['from']}. "
        f"Loaded by {report['server']}; DEBUG DIGEST `{report['digest']}`.",
        f"State: {report['state']}{' (' + report['why'] + ')' if report['why'] else ''}. "
        f"Compared: {'; '.join(report['compared']) or 'nothing'}.",
        "",
        "| file | bytes | SHA-256 |",
        "|---|---|---|",
        *(f"| {file['path']} | {file['size']} | `{file['sha256']}` |" for file in report["files"]),
        f"| manifest (seal) | | `{report['seal']}` |",
        "",
    ]
    return "\n".join(lines)
