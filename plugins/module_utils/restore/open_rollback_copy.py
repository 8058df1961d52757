# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback copy and the data directory by descriptor: whatever the server's user calls them meanwhile, they are the same two directories.

The data directory belongs to that user, who may rename what root makes there and put a link in its place. So root opens both once, sees
that the rollback copy is its own, and names everything below them through the descriptors from then on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place

__all__ = ["OpenRollbackCopy", "begin", "reopened"]


@dataclasses.dataclass(frozen=True)
class OpenRollbackCopy:
    """``path`` is for people, ``at`` leads to the rollback copy by descriptor; ``place`` is the server's, with ``dir`` by descriptor.

    Tools that we start as root find both as well: the way goes through this process, not through their own.
    """

    path: str
    at: str
    place: Place


@contextlib.contextmanager
def _open(place: Place, name: str) -> t.Iterator[OpenRollbackCopy]:
    directory = os.open(place.dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise PermissionError(1, "it is not this user's own")
            ours = dataclasses.replace(place, dir=f"/proc/{os.getpid()}/fd/{directory}")
            yield OpenRollbackCopy(os.path.join(place.dir, name), f"/proc/{os.getpid()}/fd/{folder}", ours)
        finally:
            os.close(folder)
    finally:
        os.close(directory)


def _new_name(place: Place, now: float) -> str:
    stem = name = "redisops-restore-" + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    number = 1
    directory = os.open(place.dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=directory)
                os.fsync(directory)
                return name
            number += 1
            name = f"{stem}-{number}"
    finally:
        os.close(directory)


@contextlib.contextmanager
def begin(place: Place, now: float) -> t.Iterator[OpenRollbackCopy]:
    """An empty rollback copy. Raises Problem."""
    try:
        name = _new_name(place, now)
    except OSError as error:
        raise Problem(
            "restore_write",
            f"no directory could be made in {place.dir}: {error.strerror or error}",
            "a data directory that can be written",
            "see to that, then run again",
        ) from None
    with reopened(place, os.path.join(place.dir, name)) as opened:
        yield opened


@contextlib.contextmanager
def reopened(place: Place, path: str) -> t.Iterator[OpenRollbackCopy]:
    """A rollback copy that is there. Raises Problem where it is not ours."""
    with contextlib.ExitStack() as until:
        try:
            opened = until.enter_context(_open(place, os.path.basename(path)))
        except OSError as error:
            raise Problem(
                "not_our_directory",
                f"{path} is not a directory of this user's own: {error.strerror or error}",
                "a rollback copy that nobody else has touched",
                "see who put it there; what is in it is not used",
            ) from None
        yield opened
