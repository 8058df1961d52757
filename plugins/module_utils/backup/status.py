# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backups of a group are worth, as stable codes, and in words for people."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import COPIED, FAILED, VERIFIED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupManifest

__all__ = ["CODES", "render_text", "row_of", "status_of"]

#: Stable: monitoring compares the number. The first that holds counts.
CODES = {
    0: "ok",
    1: "no backup",
    2: "no verified backup",
    3: "the last verified backup is too old",
    4: "the latest backup failed",
}


class Stored(t.Protocol):
    """A backup as it lies there (store.Backup). ``proof`` is what was established of it, ``copies`` where else it is."""

    @property
    def label(self) -> str: ...

    @property
    def at(self) -> float: ...

    @property
    def manifest(self) -> t.Optional[BackupManifest]: ...

    @property
    def problem(self) -> str: ...

    @property
    def proof(self) -> t.Mapping[str, t.Any]: ...

    @property
    def copies(self) -> t.Mapping[str, t.Any]: ...

    @property
    def pinned(self) -> bool: ...

    @property
    def state(self) -> str: ...

    @property
    def damage(self) -> t.Sequence[str]: ...


def _of_manifest(manifest: t.Optional[BackupManifest]) -> dict[str, t.Any]:
    if manifest is None:
        return {
            **dict.fromkeys(("method", "source", "why_source", "product", "bytes", "keys", "exact", "seconds")),
            "slots": [],
        }
    return {
        "method": manifest.method,
        "source": manifest.source,
        "why_source": manifest.why_source,
        "product": manifest.product,
        "bytes": manifest.bytes,
        "keys": manifest.total_keys,
        "exact": manifest.slack == 0,
        "slots": list(manifest.slots),
        "seconds": manifest.seconds,
    }


def row_of(backup: Stored) -> dict[str, t.Any]:
    """One backup as a dict of plain values. ``state`` is one of levels.STATES; ``compared`` is what that word rests on."""
    proof, state, damage = backup.proof, backup.state, list(backup.damage)
    why = backup.problem or ("files are not as they were written" if damage else str(proof.get("why", "")))
    return {
        "label": backup.label,
        "at": backup.at,
        "state": state,
        "why": why or ("no proof was tried" if state == COPIED and not proof else ""),
        "differences": damage or list(proof.get("differences", ())),
        "compared": [] if damage else list(proof.get("compared", ())),
        "pinned": backup.pinned,
        **_of_manifest(backup.manifest),
        "load_seconds": proof.get("load_seconds"),
        "digest": proof.get("digest"),
        "verified_at": proof.get("at") if state == VERIFIED else None,
        "repositories": sorted(name for name in backup.copies if name != "seal"),
    }


def status_of(rows: t.Sequence[t.Mapping[str, t.Any]], max_age: float, now: float) -> int:
    """The code of a group's backups, oldest first. ``max_age`` in seconds, 0 for any age."""
    if not rows:
        return 1
    verified = [row for row in rows if row["state"] == VERIFIED]
    if not verified:
        return 2
    if max_age and now - verified[-1]["at"] > max_age:
        return 3
    return 4 if rows[-1]["state"] == FAILED else 0


def _ago(seconds: float) -> str:
    if seconds < 0:
        return "in the future: the clock was wrong"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _size(count: t.Optional[int]) -> str:
    if count is None:
        return "?"
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def render_text(group_name: str, rows: t.Sequence[t.Mapping[str, t.Any]], code: int, now: float) -> str:
    """For people: a line on the set, then one for each backup, newest first."""
    lines = [f"set {group_name}: {CODES[code]} ({code})"]
    for row in reversed(rows):
        mark = "OK" if row["state"] == VERIFIED else row["state"].upper()
        when = datetime.datetime.fromtimestamp(row["at"], datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        facts = [when, _ago(now - row["at"]), _size(row["bytes"]), f"{row['keys']} keys", f"from the {row['source']}"]
        if row["load_seconds"] is not None:
            facts.append(f"loads in {row['load_seconds']:.1f} s")
        if row["repositories"]:
            facts.append("also in " + ", ".join(row["repositories"]))
        if row["pinned"]:
            facts.append("kept")
        why = f" ({row['why']})" if row["why"] else ""
        lines.append(f"  {row['label']}: {mark}{why}: " + ", ".join(facts))
    return "\n".join(lines) + "\n"
