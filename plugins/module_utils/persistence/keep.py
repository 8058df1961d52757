# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps data files that no running process has loaded, before anything may replace them: by hard links, which cost nothing until then.

The directory belongs to the server's user, so all goes by descriptors, and a link of that user is kept as the link it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.kept_reader import kept
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place

__all__ = ["KEEP_SECONDS", "drop_expired", "held_still", "is_kept", "keep", "link_all", "paths_of_aof"]

#: What was kept is removed after a week, by the timers on the host and when something is kept again.
KEEP_SECONDS = 7 * 86400.0


def paths_of_aof(disk: DataFiles) -> tuple[str, ...]:
    """Every file of an AOF, named by a manifest or not."""
    old = (disk.place.old_style_aof,) if disk.old_style_aof else ()
    return tuple(path for path in disk.paths if path != disk.place.rdb) + old


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def is_kept(place: Place, path: str) -> bool:
    """Whether this very file has been kept already."""
    wanted = _identity(path)
    for folder in kept(place):
        for found, _folders, names in os.walk(folder):
            if any(_identity(os.path.join(found, name)) == wanted for name in names):
                return True
    return False


def _new_folder(directory: int, prefix: str, now: float) -> str:
    stem = name = prefix + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=directory)
            return name
        number += 1
        name = f"{stem}-{number}"


def link_all(place: Place, paths: t.Sequence[str], now: float, prefix: str = "redisops-kept-") -> str:
    """A new directory of ours in the data directory, with a link to each of ``paths``; gives its path. Raises OSError."""
    directory = os.open(place.dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        name = _new_folder(directory, prefix, now)
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            for path in paths:
                os.link(path, os.path.basename(path), dst_dir_fd=folder, follow_symlinks=False)
            os.fsync(folder)
            os.fsync(directory)
        finally:
            os.close(folder)
        return os.path.join(place.dir, name)
    finally:
        os.close(directory)


def keep(place: Place, paths: t.Sequence[str], now: t.Callable[[], float] = time.time) -> str:
    """Link ``paths``, plain files in the data directory or the AOF's, into a new directory of ours; gives its path.

    Empty where all of them are kept already. Raises Refusal where they cannot be: then nothing may replace them.
    """
    wanted = [path for path in paths if stat.S_ISREG(os.lstat(path).st_mode) and not is_kept(place, path)]
    if not wanted:
        return ""
    try:
        folder = link_all(place, wanted, now())
    except OSError as error:
        raise Refusal(
            "cannot_keep",
            f"{', '.join(wanted)} was never loaded by a running server, and cannot be kept by a link: {error.strerror or error}",
            "a file system with hard links and room for a name, so that what would be overwritten can be kept",
            f"move what is wanted out of {place.dir} yourself, then run again",
        ) from None
    drop_expired(place, now())
    return folder


def _linked_aof(place: Place) -> t.Optional[str]:
    """A directory with links to the live AOF, all of one moment; None where a rewrite put others in their place meanwhile. Raises OSError."""
    disk = scan(place)
    folder = link_all(place, sorted(paths_of_aof(disk)), time.time())
    named = os.path.join(folder, os.path.basename(place.manifest))
    if disk.manifest is None or (os.path.lexists(named) and _identity(named) == _identity(place.manifest)):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return None


@contextlib.contextmanager
def held_still(place: Place, tries: int = 5) -> t.Iterator[str]:
    """The live AOF under names of ours until the block ends: a rewrite takes nothing away meanwhile, and nothing in the server is changed for it.

    Raises Problem.
    """
    folder: t.Optional[str] = None
    error: t.Optional[OSError] = None
    for _try in range(tries):
        try:
            folder = _linked_aof(place)
        except FileNotFoundError as found:  # a rewrite ended in between
            error = found
        except OSError as found:
            raise _cannot_link(place, found) from None
        if folder:
            break
    if not folder:
        raise _cannot_link(place, error or OSError(0, "rewrites end one after the other"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cannot_link(place: Place, error: OSError) -> Problem:
    return Problem(
        "restore_write",
        f"the AOF in {place.dir} cannot be linked, so that it stays while it is read: {error.strerror or error}",
        "a file system with hard links",
        "restore a backup",
    )


def drop_expired(place: Place, now: float, seconds: float = KEEP_SECONDS) -> list[str]:
    """Remove what was kept longer ago than ``seconds``. Gives what it removed."""
    gone = []
    for path in kept(place):
        if now - os.lstat(path).st_mtime > seconds:
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path)
    return gone
