# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time for each data directory: an exclusive lock that the kernel lets go when its process dies.

The lock's file is root's, in /run, and named by device and inode of the directory: another spelling, a link or a bind mount is the same
lock, and a name that the server's user can change plays no part. It says who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal

__all__ = ["PATIENCE", "lock_directory", "lock_path", "locked_directory", "release_locks"]

#: Seconds that a run waits for another one on the same data before it is refused.
PATIENCE = 120.0
_LOOK = 0.1
_held: dict[str, int] = {}


def _folder() -> str:
    """Where the locks are: nobody but this user may put anything there. Raises Problem."""
    uid = os.geteuid()
    path = "/run/redisops/lock" if uid == 0 else os.path.join(tempfile.gettempdir(), f"redisops-lock-{uid}")
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        raise Problem(
            "lock_failed", f"{path} cannot be made: {error.strerror}", "a place for locks", "run with become: true"
        ) from None
    if status.st_uid != uid or status.st_mode & 0o022 or os.path.islink(path):
        raise Problem(
            "lock_failed",
            f"{path} is not this user's own",
            "a place for locks that nobody else can write",
            f"remove {path}",
        )
    return path


def lock_path(directory: str) -> str:
    """The lock's file for a data directory that exists. Raises Problem, or OSError where the directory is not there."""
    status = os.stat(directory)
    return os.path.join(_folder(), f"{status.st_dev}-{status.st_ino}")


def _program() -> str:
    """The module or the timer's program that this process is."""
    name = os.path.basename(sys.argv[0] if sys.argv else "") or "a program"
    found = re.fullmatch(r"AnsiballZ_(\w+)\.py", name)
    return found.group(1) if found else name


def _take(path: str) -> t.Optional[int]:
    """A descriptor that holds the lock, None where somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.lexists(path) and os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor  # else its last holder has removed it in between: a lock on a file that has no name locks nobody out
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _holder(path: str) -> str:
    """Who holds it, in words."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = json.load(handle)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(found["since"])))
        return f"{found['program']} (process {found['pid']}) since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def lock_directory(directory: str, patience: t.Optional[float] = None) -> None:
    """Hold the lock of ``directory`` until release_locks() or the end of this process; ``patience`` in seconds (None: PATIENCE).

    What this process holds already is held once. A directory that is not there has nothing to lock. Raises Refusal with the holder's name.
    """
    try:
        path = lock_path(directory)
    except OSError:
        return
    if path in _held:
        return
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    descriptor = _take(path)
    while descriptor is None:
        if time.monotonic() >= end:
            raise Refusal(
                "data_is_locked",
                f"{_holder(path)} works on {directory}",
                "one run at a time: two that stop, save or move the same data at once can lose it",
                "wait until it has ended, then run again; the lock goes with its process",
            )
        time.sleep(_LOOK)
        descriptor = _take(path)
    said = json.dumps({"program": _program(), "pid": os.getpid(), "since": time.time(), "directory": directory})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, said.encode(), 0)
    _held[path] = descriptor


@contextlib.contextmanager
def locked_directory(directory: str) -> t.Iterator[None]:
    """As lock_directory(), for as long as a block lasts; what this process held before it holds after. Raises Refusal."""
    before = set(_held)
    lock_directory(directory)
    try:
        yield
    finally:
        for path in set(_held) - before:
            _release(path)


def _release(path: str) -> None:
    descriptor = _held.pop(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    os.close(descriptor)


def release_locks() -> None:
    """Let go of every lock that this process holds, and leave no file behind."""
    for path in list(_held):
        _release(path)
