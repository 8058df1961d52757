# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One finding on a server's health, and how findings are put in order and reported."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.catalogue import MEANINGS

__all__ = [
    "SEVERITIES",
    "STATUS_TEXT",
    "Finding",
    "ago",
    "found",
    "ordered",
    "reached",
    "render_text",
    "size_text",
    "status_of",
    "unknown",
]  # fmt: skip

#: The worst first. ``info`` is for what is worth knowing and no trouble; ``unknown`` for what could not be looked at.
SEVERITIES = ("critical", "warning", "unknown", "info", "ok")
#: The number that monitoring compares, as Nagios has them.
STATUS = {"ok": 0, "info": 0, "warning": 1, "critical": 2, "unknown": 3}
STATUS_TEXT = {0: "ok", 1: "warning", 2: "critical", 3: "unknown"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """``detected`` is what was observed. ``why`` and ``do`` are empty where there is nothing to do."""

    code: str
    severity: str
    detected: str
    why: str = ""
    do: str = ""

    @property
    def page(self) -> str:
        return f"docs/reference/findings.md#{self.code}"

    def row(self) -> dict[str, str]:
        return {**dataclasses.asdict(self), "page": self.page}


def found(code: str, severity: str, detected: str, do: str = "") -> Finding:
    """A finding; why it matters and what to do come from the table, unless ``do`` names something more to the point."""
    why, usual = MEANINGS[code]
    if severity == "ok":
        return Finding(code, severity, detected)
    return Finding(code, severity, detected, why, do or usual)


def unknown(code: str, because: str, do: str = "") -> Finding:
    """What could not be looked at, and why."""
    return found(code, "unknown", f"not known, because {because}", do)


def ordered(findings: t.Iterable[Finding]) -> list[Finding]:
    """The worst first; of one severity in the order given. The same stated twice counts once."""
    unique = list(dict.fromkeys(findings))
    return sorted(unique, key=lambda one: SEVERITIES.index(one.severity))


def status_of(findings: t.Iterable[Finding]) -> int:
    """0 ok, 1 warning, 2 critical, 3 unknown: what is known to be wrong counts before what is not known."""
    seen = {STATUS[one.severity] for one in findings}
    return next((number for number in (2, 1, 3) if number in seen), 0)


def reached(findings: t.Iterable[Finding], severity: str) -> bool:
    """Whether a finding is as bad as ``severity`` or worse."""
    return any(SEVERITIES.index(one.severity) <= SEVERITIES.index(severity) for one in findings)


def render_text(title: str, findings: t.Sequence[Finding], crash_loss: str) -> str:
    """For people: a line on the server, one on the crash loss window, then each finding that is not ok."""
    counts = {name: sum(1 for one in findings if one.severity == name) for name in SEVERITIES}
    reported = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = [f"{title}: {STATUS_TEXT[status_of(findings)].upper()} ({reported})", f"  crash loss window: {crash_loss}"]
    for one in findings:
        if one.severity != "ok":
            rest = f" {one.why[:1].upper()}{one.why[1:]}. Do: {one.do}." if one.why else ""
            lines.append(f"  {one.severity.upper()} {one.code}: {one.detected}.{rest} ({one.page})")
    return "\n".join(lines) + "\n"


def ago(seconds: float) -> str:
    """A time span in words, such as ``3.2 h``."""
    for begin, size, unit in ((2 * 86400, 86400, "d"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= begin:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size_text(count: float) -> str:
    """Bytes in words, in steps of 1024 as Redis counts."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
