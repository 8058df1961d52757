# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of ours next to the data: what a restore staged there, and what was live before it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import fsync_dir, read_own

__all__ = ["JOURNAL", "RollbackCopy", "live", "mark_of", "put_mark", "rollback_copies"]


_NAME = re.compile(r"redisops-restore-\d{8}T\d{6}Z(-\d+)?")


JOURNAL = "restore.json"
_MARK = re.compile(r"\.redisops-came-[0-9a-f]{32}")


@dataclasses.dataclass(frozen=True)
class RollbackCopy:
    """A directory next to the data: before the swap it holds what is to come, after it what was. ``aof`` says which name is the data.

    ``swapped`` is seen from the file system, not remembered. ``stays``: what it holds was live once, so it is never removed unasked.
    ``label`` is the backup. ``finished`` False: the run that swapped it was cut off before the server was seen to run.
    """

    path: str
    aof: bool
    label: str
    swapped: bool
    stays: bool
    finished: bool = True

    def staged(self, place: Place) -> str:
        return os.path.join(self.path, os.path.basename(place.aof_dir if self.aof else place.rdb))


def mark_of(path: str) -> str:
    """What tells this data from any other, also after a boot or on another disk: an AOF by a mark in its directory, an RDB by size and checksum.

    Empty where there is none.
    """
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            return next((name for name in sorted(os.listdir(path)) if _MARK.fullmatch(name)), "")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(descriptor, "rb", buffering=0) as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(size - 8, 0))
        return f"{size}-{handle.read(8).hex()}"


def put_mark(path: str) -> str:
    """Give this data a mark of its own, and say it; empty where there is no data."""
    if not os.path.isdir(path) or os.path.islink(path):
        return mark_of(path)
    for name in os.listdir(path):
        if _MARK.fullmatch(name):
            os.unlink(os.path.join(path, name))
    name = f".redisops-came-{secrets.token_hex(16)}"
    descriptor = os.open(os.path.join(path, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.close(descriptor)
    fsync_dir(path)
    return name


def _is_inside(path: str, came: t.Any) -> bool:
    """Whether ``path`` is what came: by its mark, or (as earlier releases noted it) by its inode."""
    if isinstance(came, list):
        with contextlib.suppress(OSError):
            return bool(came) and os.lstat(path).st_ino == came[-1]
        return False
    return bool(came) and mark_of(path) == came


def live(place: Place, aof: bool) -> str:
    """The one name that a start reads."""
    return place.aof_dir if aof else place.rdb


def _is_ours(path: str) -> bool:
    """The server's user may put anything next to its data: only a directory of this user's own counts."""
    status = os.lstat(path)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def rollback_copies(place: Place) -> list[RollbackCopy]:
    """Every rollback copy next to the data, oldest first."""
    found = []
    for name in sorted(os.listdir(place.dir)):
        path = os.path.join(place.dir, name)
        if not _NAME.fullmatch(name) or not _is_ours(path):
            continue
        try:
            content = json.loads(read_own(os.path.join(path, JOURNAL)))
            aof, label, stays = bool(content["aof"]), str(content["label"]), bool(content.get("stays"))
            came, finished = content["came"], bool(content.get("finished", True))
        except (Problem, ValueError, KeyError, TypeError):
            # Without a word it was cut off before it held anything; with one that is damaged it may hold what was live.
            stays = os.path.lexists(os.path.join(path, JOURNAL))
            found.append(RollbackCopy(path, False, "", False, stays, not stays))
            continue
        inside = _is_inside(os.path.join(path, os.path.basename(live(place, aof))), came)
        # What came is no longer inside: it went to where the data is, even if the server has replaced it there since.
        found.append(RollbackCopy(path, aof, label, bool(came) and not inside, stays, finished))
    return found
