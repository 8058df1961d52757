# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups elsewhere: sent to repositories, fetched from them, and retained or expired by a policy, here as there."""

from __future__ import annotations

import dataclasses
import os
import shutil
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import FAILED, VERIFIED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic import Restic
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_output import Snapshot
from ansible_collections.redisops.recovery.plugins.module_utils.backup.retention import (
    Candidate,
    Decision,
    Policy,
    decide,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import (
    COPIES,
    PROOF,
    Backup,
    Store,
    verify_files,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Elsewhere", "fetch", "labelled", "let_go", "named", "send"]


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A repository, and how long backups stay in it."""

    repository: Repository
    retention: Policy


def _tag(group_name: str) -> str:
    return f"redisops-group={group_name}"


def _label(snapshot: Snapshot) -> str:
    return next((tag[len("label=") :] for tag in snapshot.tags if tag.startswith("label=")), "")


def _decided(rows: t.Sequence[Candidate], policy: Policy, now: float) -> list[Decision]:
    return decide(rows, policy, int(now))


def send(backup: Backup, store: Store, places: t.Sequence[Elsewhere], host: Host, timeout: float, now: float) -> Backup:
    """Copy a backup to every repository, and expire there what the policy does not retain. What fails for one does not stop the others.

    Raises Problem, of the first that failed, after all were tried.
    """
    copies = {name: row for name, row in backup.copies.items() if name != "seal"}
    failed: t.Optional[Problem] = None
    manifest = backup.manifest
    for place in places:
        restic, name = Restic(host, place.repository), place.repository.name
        try:
            if not restic.exists():
                restic.create()
            tags = [
                "redisops",
                _tag(store.group_name),
                f"label={backup.label}",
                *([VERIFIED] if backup.verified else []),
            ]
            saved = restic.save(backup.directory, tags, int(manifest.taken_at), timeout, manifest.host)
            copies[name] = {"snapshot": saved.snapshot, "at": now, "added": saved.added}
            backup = store.note(backup, COPIES, copies)
            found = restic.snapshots(_tag(store.group_name))
            rows = [Candidate(one.id, one.at, VERIFIED in one.tags) for one in found]
            gone = [one.label for one in _decided(rows, place.retention, now) if not one.retained]
            _forget(restic, gone, timeout)
        except Problem as problem:
            failed = failed or problem
    if failed:
        there = ", ".join(sorted(copies)) or "none"
        raise Problem(
            failed.code,
            f"{backup.label} is {backup.state} and on this host; of the repositories it is in: {there}. {failed.detected}",
            failed.needs,
            failed.do,
        )
    return backup


def _forget(restic: Restic, gone: t.Sequence[str], timeout: float) -> None:
    """Let snapshots go; where another host is at work in the repository, the next run does it."""
    try:
        restic.forget(gone, prune=True, timeout=timeout)
    except Problem as problem:
        if problem.code != "repository_locked":
            raise


def let_go(store: Store, policy: Policy, now: float, check: bool = False, whole: str = "") -> list[Decision]:
    """Delete what the policy does not keep on this host; the caller holds the lock. Gives every decision, newest first.

    Before anything is deleted, the newest verified backup is read from end to end: it is what the others go for. ``whole`` is the label of
    one that was just read. One that is damaged becomes ``failed``, and counts for nothing.
    """
    damaged: dict[str, str] = {}
    while True:
        backups = store.all()
        good = [one for one in backups if one.verified and one.label not in damaged]
        rows = [
            Candidate(one.label, int(one.at), one in good, one.pinned, one.state == FAILED or one.label in damaged)
            for one in backups
        ]
        decisions = _decided(rows, policy, now)
        newest = max((one for one in good if one.at <= now), key=lambda one: (one.at, one.label), default=None)
        if newest is None or newest.label == whole or all(one.retained for one in decisions):
            break
        differences = verify_files(newest.directory, newest.manifest)
        if not differences:
            break
        damaged[newest.label] = differences[0]
        if not check:
            proof = {name: value for name, value in newest.proof.items() if name != "seal"}
            why = "files are not as they were written"
            store.note(newest, PROOF, {**proof, "state": FAILED, "differences": differences[:50], "why": why})
    if not check:
        for one in decisions:
            if not one.retained:
                store.delete(one.label)
    return [dataclasses.replace(one, damage=damaged.get(one.label, "")) for one in decisions]


def _chosen(found: t.Sequence[Snapshot], wanted: str, place: Repository) -> Snapshot:
    """The snapshot that a name stands for. Raises Problem."""
    labelled = [one for one in found if _label(one)]
    if not labelled:
        raise Problem(
            "no_backup",
            f"there is no backup of this group in the repository {place.name}",
            "one",
            "take one, or name another set or repository",
        )
    fit = {
        "latest": labelled[-1:],
        "oldest": labelled[:1],
        "latest_verified": [one for one in labelled if VERIFIED in one.tags][-1:],
    }.get(wanted, [one for one in labelled if _label(one) == wanted][-1:])
    if not fit:
        there = ", ".join(_label(one) for one in labelled[-10:])
        raise Problem(
            "unknown_backup",
            f"there is no backup {wanted!r} in the repository {place.name}; there are: {there}",
            "one of those, latest, oldest or latest_verified",
            "set backup",
        )
    return fit[0]


def labelled(store: Store, place: Repository, host: Host) -> list[tuple[Snapshot, str, bool]]:
    """The set's backups in a repository, oldest first: snapshot, label, and whether it was verified when it was sent. Raises Problem."""
    found = Restic(host, place).snapshots(_tag(store.group_name))
    return [(one, _label(one), VERIFIED in one.tags) for one in found if _label(one)]


def named(store: Store, wanted: str, place: Repository, host: Host) -> tuple[Snapshot, str]:
    """The snapshot that ``wanted`` stands for, and its label. Raises Problem."""
    restic = Restic(host, place)
    chosen = _chosen(restic.snapshots(_tag(store.group_name)), wanted, place)
    return chosen, _label(chosen)


def fetch(store: Store, snapshot: Snapshot, place: Repository, host: Host, timeout: float) -> Backup:
    """Bring a backup from a repository; the caller holds the lock. Raises Problem; then none with that label is left here."""
    label = _label(snapshot)
    begun = store.begin(label)
    try:
        Restic(host, place).fetch(snapshot.id, begun, timeout)
        os.chmod(begun, 0o700)
        backup = store.adopt(begun, label)
    except Problem:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    differences = verify_files(backup.directory, backup.manifest)
    if differences:
        store.delete(label)
        raise Problem(
            "backup_damaged",
            f"{label}, fetched from {place.name}, is not as it was written: {'; '.join(differences[:5])}",
            "a whole backup",
            "name another one, or another repository",
        )
    return backup
