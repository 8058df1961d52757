# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an instance keeps its data, and what lies there."""

from __future__ import annotations

import dataclasses
import posixpath
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofManifest

__all__ = ["DataFiles", "Place"]


@dataclasses.dataclass(frozen=True)
class Place:
    """The four directives that say where the data is."""

    dir: str
    dbfilename: str
    appenddirname: str
    appendfilename: str

    @property
    def rdb(self) -> str:
        return posixpath.join(self.dir, self.dbfilename)

    @property
    def aof_dir(self) -> str:
        return posixpath.join(self.dir, self.appenddirname)

    @property
    def manifest(self) -> str:
        return posixpath.join(self.aof_dir, self.appendfilename + ".manifest")

    @property
    def old_style_aof(self) -> str:
        """Where Redis < 7.0 kept its single AOF file; a newer server moves it into the directory when it starts."""
        return posixpath.join(self.dir, self.appendfilename)


@dataclasses.dataclass(frozen=True)
class DataFiles:
    """Sizes in bytes (None: no such file), times in seconds since the epoch.

    ``missing``: files that the manifest names and are not there; ``unlisted``: files with data that it should name; ``orphans``: files of an AOF
    without a manifest.
    """

    place: Place
    rdb_bytes: t.Optional[int] = None
    rdb_mtime: float = 0.0
    manifest: t.Optional[AofManifest] = None
    aof_mtime: float = 0.0
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    old_style_aof: bool = False
    free_bytes: int = 0
    paths: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is data of any kind."""
        return bool(self.rdb_bytes is not None or self.manifest or self.orphans or self.old_style_aof)
