# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the AOF's wanted on the host, whenever Redis has begun a new file and now and then.

As a program: ``history_job.py SETTINGS.json``. It prints one line of JSON, and ends with 0 if the wanted is kept or the AOF is off.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.keep import drop_expired
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive, archive_dirs, drop_oldest
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.entrypoint import ended
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import DEFAULTS, effective
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_directory

__all__ = ["Archive", "main", "place_in", "run"]


@dataclasses.dataclass(frozen=True)
class Archive:
    """``keep_seconds`` of wanted next to the AOF; less, where less than ``min_free_percent`` of the file system would be free."""

    config_file: str
    keep_seconds: int
    min_free_percent: int

    def render(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"


def place_in(config_file: str) -> tuple[Place, bool]:
    """Where a configuration file says that the data is, and whether the AOF is on. Raises Problem."""
    directives = expand(RedisConf(read_text(config_file), config_file), read_includes)
    stated = {name: effective(directives, name) or DEFAULTS.get(name) or "" for name in (*PLACE, "appendonly")}
    return Place(*(stated[name] for name in PLACE)), stated["appendonly"] == "yes"


def _free_percent(folder: str) -> float:
    space = os.statvfs(folder)
    return 100.0 * space.f_bavail / max(space.f_blocks, 1)


def run(wanted: Archive, now: float, free_percent: t.Callable[[str], float] = _free_percent) -> dict[str, t.Any]:
    """Keep what is there now, expire what is too old or takes the room that Redis needs. Raises Problem."""
    place, aof = place_in(wanted.config_file)
    if not aof:
        return {"state": "off", "linked": [], "removed": []}
    lock_directory(place.dir)
    drop_expired(place, now)
    folder = archive_dirs(place)
    kept = archive(place, folder, wanted.keep_seconds, now)
    removed = [*kept.removed]
    # A disk that is full takes no writes at all, and wanted is worth less than that.
    while free_percent(folder) < wanted.min_free_percent:
        gone = drop_oldest(folder, kept.directory)
        if not gone:
            break
        removed.append(gone)
    return {"state": "kept", "linked": list(kept.linked), "removed": removed}


def main(arguments: t.Sequence[str]) -> int:
    """The program that timer and path unit start."""
    return ended(arguments, lambda text: Archive(**json.loads(text)), lambda wanted: (run(wanted, time.time()), 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
