# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owner, group and mode of the data files."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import fsync_dir

__all__ = [
    "Access", "apply_access", "close_directories", "make_directory", "plan_access", "plan_directories", "plan_path_access", "read_access",
]  # fmt: skip

#: Redis opens AOF increments, manifests and the RDB file that a replica receives with 0644, whatever the umask allows beyond it.
REDIS_OPENS_WITH = 0o644


@dataclasses.dataclass(frozen=True)
class Access:
    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid} {self.mode:04o}"


def read_access(disk: DataFiles) -> dict[str, Access]:
    """Access of every data file that is there now; what is no plain file is none of ours."""
    found = {}
    for path in disk.paths:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue  # a rewrite just ended
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            found[path] = Access(status.st_uid, status.st_gid, status.st_mode & 0o7777)
    return found


def plan_access(found: t.Mapping[str, Access], wanted: Access) -> list[Change]:
    """What differs. The mode that Redis itself gives new files (group write missing) is no drift: each rewrite makes AOF files,
    each full synchronisation an RDB file, and correcting those for ever would be fighting Redis."""
    changes = []
    modes = {wanted.mode, wanted.mode & REDIS_OPENS_WITH}
    for path, access in sorted(found.items()):
        same_owner = (access.uid, access.gid) == (wanted.uid, wanted.gid)
        if not same_owner or access.mode not in modes:
            changes.append(Change("mode", path, str(access), str(wanted), f"set owner and mode of {path}"))
    return changes


def apply_access(paths: t.Iterable[str], wanted: Access) -> None:
    """Set owner and mode; a file that a rewrite just removed is passed over.

    The directory belongs to the server's user: a link there, or a second name of a foreign file, must not hand that file over.
    """
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                continue
            raise
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.fchown(descriptor, wanted.uid, wanted.gid)
                os.fchmod(descriptor, wanted.mode)
        finally:
            os.close(descriptor)


def plan_directories(paths: t.Iterable[str], uid: int, mode: int) -> list[Change]:
    """Directories of this user that give more rights than ``mode``; one that gives fewer, or is somebody else's, is left alone."""
    changes = []
    for path in dict.fromkeys(paths):
        try:
            status = os.lstat(path)
        except OSError:
            continue
        found = status.st_mode & 0o7777
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid and found & ~mode:
            changes.append(Change("mode", path, f"{found:04o}", f"{found & mode:04o}", f"set mode of {path}"))
    return changes


def close_directories(changes: t.Iterable[Change], mode: int) -> None:
    """Take away what ``mode`` does not give, by descriptor."""
    for change in changes:
        descriptor = os.open(change.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, os.fstat(descriptor).st_mode & mode)
        finally:
            os.close(descriptor)


def make_directory(path: str, wanted: Access) -> None:
    """Make a data directory that only its owner may enter, and its group read. Raises Problem."""
    try:
        os.makedirs(path, 0o750)
        os.chown(path, wanted.uid, wanted.gid, follow_symlinks=False)
        fsync_dir(os.path.dirname(path))
    except OSError as error:
        raise Problem(
            "dir_not_made", f"the data directory {path} could not be made: {error.strerror or error}", "a place that can be written",
            "make it yourself, or set dir to another one",
        ) from None  # fmt: skip


def plan_path_access(
    path: str, uid: t.Optional[int], gid: t.Optional[int], mode: t.Optional[int]
) -> tuple[Access, t.Optional[Change]]:
    """The access one file should have, and the difference if there is one; None leaves a part as it is."""
    status = os.stat(path)
    found = Access(status.st_uid, status.st_gid, status.st_mode & 0o7777)
    wanted = Access(
        found.uid if uid is None else uid, found.gid if gid is None else gid, found.mode if mode is None else mode
    )
    if found == wanted:
        return wanted, None
    return wanted, Change("mode", path, str(found), str(wanted), f"set owner and mode of {path}")
