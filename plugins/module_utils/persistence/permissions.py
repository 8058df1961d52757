# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owner, group and mode of the data files."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access

__all__ = [
    "close_directories",
    "make_directory",
    "plan_access",
    "plan_directories",
    "read_access",
]

#: Redis opens AOF increments, manifests and the RDB file that a replica receives with 0644, whatever the umask allows beyond it.
REDIS_OPENS_WITH = 0o644


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
