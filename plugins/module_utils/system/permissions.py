# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owner, group and mode of one file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import User

__all__ = ["Access", "apply_access", "passes_as", "plan_path_access"]


class Access(t.NamedTuple):
    """User id, group id, and permission bits."""

    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid} {self.mode:04o}"


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


def passes_as(user: User, flag: str, path: str) -> bool:
    """Whether ``test FLAG PATH`` is true for that user; as the kernel sees it, with every ACL."""
    if os.geteuid() != 0 or not user.uid:
        return True  # root reads everything; and whoever is not root cannot try
    done = subprocess.run(
        ["test", flag, path], user=user.uid, group=user.gid, extra_groups=list(user.groups), cwd="/", check=False
    )
    return done.returncode == 0
