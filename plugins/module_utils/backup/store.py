# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory that backups are kept in: one directory a backup, with its manifest, its proof and the operator's word.

``STORE/SET/LABEL/manifest.json`` is written last, under another name of the directory; so what has a label is whole, and what was cut off
is found by its name and removed by the next run.
"""

from __future__ import annotations

import calendar
import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import COPIED, FAILED, VERIFIED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import (
    LABEL,
    BackupManifest,
    parse_backup_manifest,
    seal,
    unseal,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import WORK_PREFIX
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import (
    StagedFile,
    digest_of,
    fsync_dir,
    read_text,
)

__all__ = ["Backup", "Store", "missing_files", "verify_files"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: A group that a file is given to see whether it can be: of the range that the temporary server's are from.
_OTHER_GROUP = 61184
_TRIED = ".fit-"
_BEGUN = ".begun-"
_GOING = ".going-"
MANIFEST, PROOF, KEEP, COPIES = "manifest.json", "proof.json", "keep", "copies.json"
#: What may lie in a backup next to the files that its manifest names: written after it, by us; with what a cut leaves of them.
_NAMES = (MANIFEST, PROOF, KEEP, COPIES)
NEXT_TO = frozenset([*_NAMES, *(f".{name}.redisops-new" for name in _NAMES)])


@dataclasses.dataclass(frozen=True)
class Backup:
    """One backup as it lies there. ``proof`` is empty where none was written, or where it is of another manifest or damaged.

    ``damage``: what a look at names and sizes finds wrong; hashes are verify_files' to compare.
    """

    directory: str
    label: str
    manifest: t.Optional[BackupManifest]
    problem: str
    proof: t.Mapping[str, t.Any]
    copies: t.Mapping[str, t.Any]
    pinned: bool
    seal: str = ""
    damage: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """One of levels.STATES."""
        if self.manifest is None or self.damage:
            return FAILED
        return str(self.proof.get("state", COPIED))

    @property
    def verified(self) -> bool:
        return self.state == VERIFIED

    @property
    def at(self) -> float:
        """When it was taken, in seconds since 1970; of a damaged one, what its name says."""
        if self.manifest:
            return self.manifest.taken_at
        return float(_epoch(self.label))


def _epoch(label: str) -> int:
    return calendar.timegm(time.strptime(label[:16], "%Y%m%dT%H%M%SZ"))


def missing_files(directory: str, manifest: BackupManifest) -> list[str]:
    """Files that are not there, or have another size than the manifest says, each in words: what a stat of each tells."""
    found = []
    for file in manifest.files:
        try:
            status = os.lstat(os.path.join(directory, file.path))
        except FileNotFoundError:
            found.append(f"{file.path} is missing")
            continue
        except OSError as error:
            found.append(f"{file.path} cannot be read: {error.strerror or error}")
            continue
        if not stat.S_ISREG(status.st_mode):
            found.append(f"{file.path} is no plain file")
        elif status.st_size != file.size:
            found.append(f"{file.path} has {status.st_size} bytes, and had {file.size}")
    return found


def verify_files(directory: str, manifest: BackupManifest) -> list[str]:
    """Everything in ``directory`` that is not as the manifest says, each in words; empty where all is."""
    found = []
    named = {file.path: file for file in manifest.files}
    for file in manifest.files:
        path = os.path.join(directory, file.path)
        try:
            size, digest = digest_of(path)
        except FileNotFoundError:
            found.append(f"{file.path} is missing")
            continue
        except OSError as error:
            found.append(f"{file.path} cannot be read: {error.strerror or error}")
            continue
        if size != file.size:
            found.append(f"{file.path} has {size} bytes, and had {file.size}")
        elif digest != file.sha256:
            found.append(f"{file.path} was changed: its SHA-256 differs")
    for folder, folders, files in os.walk(directory):
        for name in [*files, *(one for one in folders if os.path.islink(os.path.join(folder, one)))]:
            relative = os.path.relpath(os.path.join(folder, name), directory)
            if relative not in named and relative not in NEXT_TO:
                found.append(f"{relative} is there, and the manifest does not name it")
    return found


def require_fit(near: str) -> None:
    """Owner and mode of a file in ``near`` can be changed, and it can have a second name. Raises OSError; nothing is left behind."""
    work = tempfile.mkdtemp(prefix=_TRIED, dir=near)
    path, other = os.path.join(work, "one"), os.path.join(work, "two")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        if os.geteuid() == 0:
            os.chown(path, -1, _OTHER_GROUP)
            os.chmod(path, 0o640)
        status = os.stat(path)
        if os.geteuid() == 0 and (status.st_gid, stat.S_IMODE(status.st_mode)) != (_OTHER_GROUP, 0o640):
            raise OSError(errno.EPERM, "owner and mode of a file stay what they were")
        os.link(path, other)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _age_of(path: str) -> float:
    """Seconds since something was last changed; 0 where it is gone."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Store:
    """The backups of one group on this host."""

    def __init__(self, root: str, group_name: str) -> None:
        """Raises Problem for a name that is no name."""
        if not _NAME.fullmatch(group_name) or ".." in group_name:
            raise Problem(
                "invalid_value",
                f"group_name: {group_name!r} is no name",
                "letters, digits, dots, dashes and underscores, at most 64",
                "set group_name",
            )
        self.root = root
        self.directory = os.path.join(root, group_name)
        self.group_name = group_name

    def prepare(self) -> None:
        """Make the directories, which only their owner may enter. Raises Problem."""
        try:
            os.makedirs(self.root, 0o700, exist_ok=True)
            os.makedirs(self.directory, 0o700, exist_ok=True)
            if not stat.S_ISDIR(os.lstat(self.directory).st_mode):
                raise OSError(0, "it is no directory")
            os.chmod(self.directory, 0o700)
        except OSError as error:
            raise Problem(
                "backup_write",
                f"{self.directory} could not be made: {error.strerror or error}",
                "a directory for backups",
                "see to that, or name another one",
            ) from None

    @contextlib.contextmanager
    def locked(self, patience: float = 0.0) -> t.Iterator[None]:
        """Only one run at a time works on the group's backups. Raises Refusal where another still does after ``patience`` seconds."""
        descriptor = os.open(
            os.path.join(self.directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            if not wait_for(lambda: _taken(descriptor), patience):
                raise Refusal(
                    "backup_running",
                    f"another run works on the backups in {self.directory}",
                    "one run at a time",
                    "wait for it (systemctl list-units 'redisops-*'), then run again",
                )
            self._clear()
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked in between may have it still
            os.close(descriptor)

    def _clear(self) -> None:
        """What runs that were cut off left: directories without a label, work directories of processes that are gone."""
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            # What a run tries before it takes the lock is there for moments.
            old = name.startswith(_TRIED) and _age_of(path) > 60
            if old or name.startswith((_BEGUN, _GOING, WORK_PREFIX)):
                shutil.rmtree(path, ignore_errors=True)

    def begin(self, label: str) -> str:
        """An empty directory for a backup that is being taken. Raises Problem."""
        path = os.path.join(self.directory, _BEGUN + label)
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            raise Problem(
                "backup_write", f"{path} could not be made: {error.strerror or error}", "", "see to the directory"
            ) from None
        return path

    def finish(self, path: str, manifest: BackupManifest) -> Backup:
        """Write the manifest, last of all, and give the directory its label. Raises Problem."""
        StagedFile(os.path.join(path, MANIFEST), manifest.render(), 0o600).commit()
        target = os.path.join(self.directory, manifest.label)
        try:
            os.rename(path, target)
            fsync_dir(self.directory)
        except OSError as error:
            raise Problem(
                "backup_write", f"{target} could not be made: {error.strerror or error}", "", "see to the directory"
            ) from None
        return self.read(manifest.label)

    def adopt(self, path: str, label: str) -> Backup:
        """Give a directory that was filled elsewhere its label, if its manifest is whole and of this group. Raises Problem."""
        manifest = parse_backup_manifest(read_text(os.path.join(path, MANIFEST)), f"manifest of {label}")
        if (manifest.label, manifest.group_name) != (label, self.group_name):
            raise Problem(
                "manifest_invalid",
                f"what was fetched as {label} of {self.group_name} is {manifest.label} of {manifest.group_name}",
                "the backup that was asked for",
                "find out who wrote it there",
            )
        os.rename(path, os.path.join(self.directory, label))
        fsync_dir(self.directory)
        return self.read(label)

    def labels(self) -> list[str]:
        """Oldest first."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return sorted(
            name for name in names if LABEL.fullmatch(name) and os.path.isdir(os.path.join(self.directory, name))
        )

    def free_label(self, label: str) -> str:
        """``label``, with a number behind it where there is one of that second already."""
        number, found = 1, label
        while os.path.lexists(os.path.join(self.directory, found)):
            number += 1
            found = f"{label}-{number}"
        return found

    def read(self, label: str) -> Backup:
        directory = os.path.join(self.directory, label)
        manifest, problem, sealed = None, "", ""
        try:
            text = read_text(os.path.join(directory, MANIFEST))
            manifest = parse_backup_manifest(text, os.path.join(directory, MANIFEST))
            sealed = unseal(text, MANIFEST)["seal"]
            if manifest.label != label:
                manifest, problem = None, f"its manifest is of {manifest.label}"
        except Problem as found:
            problem = found.detected
        proof = self._next_to(directory, PROOF)
        if proof.get("manifest") != sealed or not sealed:
            proof = {}
        keep = os.path.exists(os.path.join(directory, KEEP))
        damage = tuple(missing_files(directory, manifest)) if manifest else ()
        return Backup(
            directory, label, manifest, problem, proof, self._next_to(directory, COPIES), keep, sealed, damage
        )

    @staticmethod
    def _next_to(directory: str, name: str) -> dict[str, t.Any]:
        try:
            return unseal(read_text(os.path.join(directory, name)), name)
        except Problem:
            return {}

    def _sets(self) -> list[str]:
        with contextlib.suppress(OSError), os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))[:20]
        return []

    def all(self) -> list[Backup]:
        """Every backup, oldest first."""
        return [self.read(label) for label in self.labels()]

    def last(self) -> t.Optional[BackupManifest]:
        """The manifest of the newest backup that has a whole one; None where there is none."""
        found = (self.read(label).manifest for label in reversed(self.labels()))
        return next((manifest for manifest in found if manifest), None)

    def require_fit(self) -> None:
        """The file system takes what a backup and its proof need. Raises Refusal; nothing is left behind."""
        near = self.directory
        while not os.path.isdir(near):
            near = os.path.dirname(near)
        try:
            require_fit(near)
        except OSError as error:
            raise Refusal(
                "store_unfit",
                f"{near}: {error.strerror or error}. That is how a share (NFS with root_squash, CIFS) looks to root",
                "a disk of this host (ext4, XFS, Btrfs): a copy is loaded next to where it lies, by hard links that another user may read",
                "set directory to a disk of this host, and let restic bring the backups to the share (repositories)",
            ) from None

    def put_aside(self, label: str) -> str:
        """Take a damaged backup out of the way, under a name that no list shows; gives its path. Raises OSError."""
        aside = os.path.join(self.directory, f"damaged-{label}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(os.path.join(self.directory, label), aside)
        fsync_dir(self.directory)
        return aside

    def find(self, name: str) -> Backup:
        """A backup by its label, or ``latest``, ``oldest``, ``latest_verified``. Raises Problem."""
        backups = self.all()
        if not backups:
            raise Problem(
                "no_backup",
                f"there is no backup in {self.directory}; {self.root} has those of: {', '.join(self._sets()) or 'no set'}",
                "one",
                "take one (playbook backup), or name group_name, directory or a repository",
            )
        whole = [one for one in backups if one.manifest]
        chosen = {
            "latest": whole[-1:],
            "oldest": whole[:1],
            "latest_verified": [one for one in whole if one.verified][-1:],
        }.get(name, [one for one in backups if one.label == name])
        if not chosen:
            raise Problem(
                "unknown_backup",
                f"there is no backup {name!r} in {self.directory}; there are: {', '.join(one.label for one in backups[-10:])}",
                "one of those, latest, oldest or latest_verified",
                "set backup",
            )
        return chosen[0]

    def note(self, backup: Backup, name: str, content: t.Mapping[str, t.Any]) -> Backup:
        """Write something next to the manifest (``proof.json``, ``copies.json``), durably. Raises Problem."""
        StagedFile(os.path.join(backup.directory, name), seal(content), 0o600).commit()
        return self.read(backup.label)

    def set_pinned(self, backup: Backup, keep: bool) -> None:
        """The operator's word that a backup is to stay, whatever the policy says."""
        path = os.path.join(backup.directory, KEEP)
        if keep:
            StagedFile(path, "", 0o600).commit()
        elif os.path.exists(path):
            os.unlink(path)
            fsync_dir(backup.directory)

    def delete(self, label: str) -> None:
        """Remove a backup: its name goes first, so that none is ever half there. Raises Problem."""
        going = os.path.join(self.directory, _GOING + label)
        try:
            os.rename(os.path.join(self.directory, label), going)
            fsync_dir(self.directory)
            shutil.rmtree(going)
        except OSError as error:
            raise Problem(
                "backup_write", f"{label} could not be removed: {error.strerror or error}", "", "see to the directory"
            ) from None
