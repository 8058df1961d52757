# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else decides what lies at a path, and whether root may open what it finds there.

Debian's /etc/redis belongs to the server's user, as every data directory does: that user may put a link to any file in the place of
redis.conf and wait for root to read it, copy it, or write it. So root reads there only what that user could read as well.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import stat
import typing as t

_BY_DESCRIPTOR = re.compile(r"/proc/\d+/fd/\d+")

__all__ = ["may_be_read", "others_who_control", "require_no_planted_link"]


class Other(t.NamedTuple):
    """A user who may rename entries of a directory on the way: ``uid``, or (-1) the members of ``gid``."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name if self.uid >= 0 else f"group {grp.getgrgid(self.gid).gr_name}"
        except KeyError:
            return f"user id {self.uid}" if self.uid >= 0 else f"group id {self.gid}"


def _parents(path: str, end: str) -> t.Iterator[str]:
    """The directories of a path, from the last one to ``end``."""
    here = os.path.dirname(path)
    while True:
        yield here
        if here in (end, os.path.dirname(here)):
            return
        here = os.path.dirname(here)


def _ways(path: str) -> set[tuple[str, str]]:
    """(path, where it begins): its spelling, and where it leads. What begins at a descriptor of ours begins there: it has no other name."""
    begins = _BY_DESCRIPTOR.match(path)
    return {(path, begins.group())} if begins else {(os.path.abspath(path), "/"), (os.path.realpath(path), "/")}


def others_who_control(path: str) -> tuple[Other, ...]:
    """Those but root, and but this user, who may put something else at ``path``, by its directories and those that it leads to."""
    found: set[Other] = set()
    for name, begins in _ways(path):
        for directory in _parents(name, begins):
            try:
                status = os.stat(directory)
            except OSError:
                continue
            sticky = status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, os.geteuid()):
                found.add(Other(status.st_uid, status.st_gid))
            if status.st_mode & stat.S_IWGRP and not sticky and status.st_gid not in (0, os.getegid()):
                found.add(Other(-1, status.st_gid))
    return tuple(sorted(found))


def _groups_of(uid: int, gid: int) -> set[int]:
    try:
        account = pwd.getpwuid(uid)
        return set(os.getgrouplist(account.pw_name, account.pw_gid))
    except KeyError:
        return {gid}


def _reads(other: Other, status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IROTH or status.st_uid == other.uid:
        return True
    groups = _groups_of(other.uid, other.gid) if other.uid >= 0 else {other.gid}
    return bool(status.st_mode & stat.S_IRGRP) and status.st_gid in groups


def may_be_read(path: str, status: os.stat_result) -> t.Optional[str]:
    """None where root may read what it opened at ``path``; else who could have put it there and could not read it."""
    if os.geteuid() != 0:
        return None
    others = others_who_control(path)
    users = [other for other in others if other.uid >= 0] or list(others)
    return next((other.name for other in users if not _reads(other, status)), None)


def require_no_planted_link(path: str) -> None:
    """Root writes through no link that somebody else could have put there. Raises OSError."""
    if os.geteuid() == 0 and os.path.islink(path) and others_who_control(os.path.join(os.path.dirname(path), "x")):
        raise OSError(errno.ELOOP, f"it is a link in a directory of {others_who_control(path)[0].name}", path)
