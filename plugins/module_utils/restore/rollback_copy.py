# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of ours next to the data: what a restore staged there, and what was live before it."""

from __future__ import annotations

import dataclasses
import json
import os
import re

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text

__all__ = ["JOURNAL", "RollbackCopy", "identity_of", "live", "rollback_copies"]


_NAME = re.compile(r"redisops-restore-\d{8}T\d{6}Z(-\d+)?")


JOURNAL = "restore.json"


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


def identity_of(path: str) -> list[int]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return []
    return [status.st_dev, status.st_ino]


def live(place: Place, aof: bool) -> str:
    """The one name that a start reads."""
    return place.aof_dir if aof else place.rdb


def rollback_copies(place: Place) -> list[RollbackCopy]:
    """Every rollback copy next to the data, oldest first."""
    found = []
    for name in sorted(os.listdir(place.dir)):
        path = os.path.join(place.dir, name)
        if not _NAME.fullmatch(name) or not os.path.isdir(path) or os.path.islink(path):
            continue
        try:
            content = json.loads(read_text(os.path.join(path, JOURNAL)))
            aof, label, stays = bool(content["aof"]), str(content["label"]), bool(content.get("stays"))
            came, finished = content["came"], bool(content.get("finished", True))
        except (Problem, ValueError, KeyError, TypeError):
            # Without a word it was cut off before it held anything; with one that is damaged it may hold what was live.
            found.append(RollbackCopy(path, False, "", False, os.path.lexists(os.path.join(path, JOURNAL))))
            continue
        inside = identity_of(os.path.join(path, os.path.basename(live(place, aof))))
        # What came is no longer inside: it went to where the data is, even if the server has replaced it there since.
        found.append(RollbackCopy(path, aof, label, bool(came) and inside != came, stays, finished))
    return found
