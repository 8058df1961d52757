# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill: a backup that picker has chosen is fetched, checked, loaded and compared, timed by phase, and removed again."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import socket
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import FAILED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import (
    BackupManifest,
    parse_backup_manifest,
    unseal,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import labelled
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic import Restic
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import MANIFEST, Store, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.backup.verify import (
    compare,
    level,
    list_compared,
    read_sample,
    release_of_backup,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.drill.report import (
    measured_rpo,
    missed_objectives,
    render_markdown,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import (
    WORK_PREFIX,
    loaded,
    memory_available,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Candidate", "Exercise", "candidates", "drill", "write_report"]


class Candidate(t.NamedTuple):
    """A backup that may be drawn. ``snapshot`` is empty for one on this host."""

    label: str
    at: float
    verified: bool
    snapshot: str


def candidates(store: Store, place: t.Optional[Repository], host: Host) -> list[Candidate]:
    """What lies on this host, or in a repository, oldest first. Raises Problem."""
    if place is None:
        return [Candidate(one.label, one.at, one.verified, "") for one in store.all() if one.manifest]
    return [Candidate(label, one.at, verified, one.id) for one, label, verified in labelled(store, place, host)]


def _pick(found: t.Sequence[Candidate], wanted: str, window: float, now: float, picker: random.Random) -> Candidate:
    """The one that was named, or one of the window by picker. Raises Problem."""
    fit = (
        [one for one in found if one.label == wanted]
        if wanted
        else [one for one in found if 0 <= now - one.at <= window]
    )
    if not fit:
        there = ", ".join(one.label for one in found[-10:]) or "none"
        raise Problem(
            "no_backup",
            f"there is no backup {wanted or f'of the last {window / 86400:g} days'}; there are: {there}",
            "one to restore",
            "take one, or set backup or window_days",
        )
    return picker.choice(fit)


@dataclasses.dataclass(frozen=True)
class Exercise:
    """What is restored for practice: the backup named, or one of the last ``window`` seconds, and what it is held to.

    ``objectives``: ``rpo_seconds`` and ``rto_seconds``, 0 for none. ``assertions`` are what the operator knows of the data.
    """

    backup: str
    window: float
    objectives: t.Mapping[str, int]
    assertions: t.Sequence[t.Mapping[str, t.Any]]
    timeout: float


def _load(directory: str, manifest: BackupManifest, near: str, exercise: Exercise, report: dict[str, t.Any]) -> None:
    """Load and compare; what was measured goes into the report. Raises Problem."""
    with loaded(os.path.join(directory, manifest.data), near, exercise.timeout, release_of_backup(manifest)) as copy:
        report["phases"]["load"] = copy.seconds
        began = time.monotonic()
        copy.server.command("PING")
        report["phases"]["first answer"] = time.monotonic() - began
        report.update(digest=copy.digest, server=copy.info.product)
        began = time.monotonic()
        sample = read_sample(directory, manifest)
        report["differences"] = compare(copy, manifest, sample, exercise.assertions, time.time())
        report["phases"]["compare"] = time.monotonic() - began
        report["compared"] = list_compared(manifest, sample, len(exercise.assertions))
        if not report["differences"]:
            report["state"], report["why"] = level(manifest, sample, copy.info.product)
        copy.server.close()


def _manifest_of(directory: str, chosen: Candidate, store: Store, host: Host) -> tuple[BackupManifest, str]:
    """The manifest of the backup in ``directory``, and its seal. Raises Problem where it is another's, Refusal where it cannot be loaded here."""
    text = read_text(os.path.join(directory, MANIFEST))
    manifest = parse_backup_manifest(text, f"manifest of {chosen.label}")
    if (manifest.label, manifest.group_name) != (chosen.label, store.group_name):
        raise Problem(
            "manifest_invalid",
            f"what lies as {chosen.label} is {manifest.label} of {manifest.group_name}",
            "",
            "find out who wrote it",
        )
    memory, takes = memory_available(host.read("/proc/meminfo") or ""), manifest.used_memory * 11 // 10
    if memory is not None and memory < takes:
        raise Refusal(
            "memory",
            f"{chosen.label} takes about {takes} bytes of memory to load, and {memory} can be had",
            "memory for it",
            "hold the drill on another host",
        )
    return manifest, unseal(text, MANIFEST)["seal"]


def _restore(directory: str, manifest: BackupManifest, near: str, exercise: Exercise, report: dict[str, t.Any]) -> None:
    """Check the files, then load and compare; what went wrong is part of the report."""
    began = time.monotonic()
    report.update(state=FAILED, why="", compared=[])
    report["differences"] = verify_files(directory, manifest)
    report["phases"]["verify"] = time.monotonic() - began
    if report["differences"]:
        return
    try:
        _load(directory, manifest, near, exercise, report)
    except Problem as problem:
        report["differences"] = [problem.detected]


def drill(
    store: Store,
    place: t.Optional[Repository],
    host: Host,
    exercise: Exercise,
    picker: random.Random,
    clock: t.Callable[[], float] = time.time,
) -> dict[str, t.Any]:
    """Restore one backup for practice; the caller holds the lock. Gives the report. Raises Problem where it cannot be tried."""
    now = clock()
    found = candidates(store, place, host)
    chosen = _pick(found, exercise.backup, exercise.window, now, picker)
    working = tempfile.mkdtemp(prefix=WORK_PREFIX, dir=store.directory)
    try:
        phases: dict[str, float] = {}
        directory = os.path.join(store.directory, chosen.label)
        if place is not None:
            began, directory = time.monotonic(), os.path.join(working, chosen.label)
            os.mkdir(directory, 0o700)
            Restic(host, place).fetch(chosen.snapshot, directory, exercise.timeout)
            phases["fetch and decrypt"] = time.monotonic() - began
        manifest, seal = _manifest_of(directory, chosen, store, host)
        report: dict[str, t.Any] = {
            "group": store.group_name, "host": socket.gethostname(), "at": now, "backup": chosen.label, "verified_before": chosen.verified,
            "from": place.name if place else "this host", "taken_at": manifest.taken_at, "method": manifest.method, "source": manifest.source,
            "product": manifest.product, "keys": manifest.total_keys, "bytes": manifest.bytes, "phases": phases, "digest": "", "server": "",
            "files": [vars(file) for file in manifest.files], "seal": seal, "objectives": dict(exercise.objectives),
        }  # fmt: skip
        _restore(directory, manifest, store.directory, exercise, report)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    rto = sum(seconds for name, seconds in phases.items() if name != "compare") if "load" in phases else None
    rpo = measured_rpo([one.at for one in found if one.verified], now, exercise.window)
    report["measured"] = {"rpo_seconds": rpo, "rto_seconds": rto}
    report["missed"] = missed_objectives(report)
    return report


def write_report(store: Store, report: t.Mapping[str, t.Any]) -> str:
    """The report next to the backups, as JSON and as Markdown; the path of the second. Raises Problem."""
    folder = os.path.join(store.directory, "drills")
    os.makedirs(folder, 0o700, exist_ok=True)
    stem = os.path.join(folder, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(report["at"])))
    StagedFile(f"{stem}.json", json.dumps(report, indent=1, sort_keys=True) + "\n", 0o600).commit()
    StagedFile(f"{stem}.md", render_markdown(report), 0o600).commit()
    return f"{stem}.md"
