# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the data directory of an instance holds."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import parse_manifest, unlisted
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text

__all__ = ["scan"]


def _stat(path: str) -> t.Optional[os.stat_result]:
    try:
        return os.stat(path)
    except OSError:
        return None


def _sizes(folder: str, names: t.Iterable[str]) -> dict[str, int]:
    found = {name: _stat(os.path.join(folder, name)) for name in names}
    return {name: status.st_size for name, status in found.items() if status}


def scan(place: Place) -> DataFiles:
    """Look at the files of ``place``. Raises Problem (through read_text) where they may not be read."""
    rdb = _stat(place.rdb)
    manifest = parse_manifest(read_text(place.manifest), place.manifest) if _stat(place.manifest) else None
    try:
        names = sorted(os.listdir(place.aof_dir))
    except FileNotFoundError:
        names = []
    aof = [name for name in names if name.startswith(place.appendfilename + ".") and not name.startswith("temp-")]
    needed = [entry.name for entry in manifest.needed] if manifest else []
    times = [_stat(os.path.join(place.aof_dir, name)) for name in needed]
    try:
        space = os.statvfs(place.dir)
        free = space.f_bavail * space.f_frsize
    except OSError:
        free = 0
    return DataFiles(
        place=place,
        rdb_bytes=rdb.st_size if rdb else None,
        rdb_mtime=rdb.st_mtime if rdb else 0.0,
        manifest=manifest,
        aof_mtime=max((status.st_mtime for status in times if status), default=0.0),
        missing=tuple(name for name, status in zip(needed, times) if status is None),
        unlisted=tuple(unlisted(manifest, _sizes(place.aof_dir, aof), place.appendfilename)) if manifest else (),
        orphans=() if manifest else tuple(aof),
        old_style_aof=bool(_stat(place.old_style_aof)) and os.path.isfile(place.old_style_aof),
        free_bytes=free,
        paths=((place.rdb,) if rdb else ()) + tuple(os.path.join(place.aof_dir, name) for name in aof),
    )
