# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a data directory that neither INFO nor the names of files tell of; nothing is changed."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Leftover, OnDisk
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import unlisted
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import open_transaction
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.kept_reader import kept
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["read_disk"]

#: What a child that saves or rewrites writes to, with its process id.
_TEMPORARY = re.compile(r"temp-(?:rewriteaof-)?(?:bg-)?(\d+)\.(?:rdb|aof)")
#: A child writes to its file all the time; one that was not written to for so long is nobody's.
_IDLE_SECONDS = 3600.0
#: So much of the last increment is read at each look.
_MOST_READ = 512 * 1024 * 1024


def read_disk(host: Host, disk: DataFiles, now: float, cluster_file: str) -> OnDisk:
    """``cluster_file``: what cluster-config-file names, empty where the server is of no cluster."""
    folders = [disk.place.dir, *([disk.place.aof_dir] if os.path.isdir(disk.place.aof_dir) else [])]
    torn, unread = _torn(disk)
    nodes = os.path.join(disk.place.dir, cluster_file) if cluster_file else ""
    return OnDisk(
        torn,
        unread,
        tuple(_unlisted(disk)),
        tuple(one for folder in folders for one in _leftovers(host, folder, now)),
        nodes if nodes and _size(nodes) == 0 else "",
        tuple(kept(disk.place)),
    )


def _size(path: str) -> t.Optional[int]:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _torn(disk: DataFiles) -> tuple[str, str]:
    """What stands behind a transaction without its end in the last increment; and why that is not known."""
    if not (disk.manifest and disk.manifest.increments):
        return "", ""
    path = os.path.join(disk.place.aof_dir, disk.manifest.increments[-1].name)
    size = _size(path)
    if size is None:
        return "", ""
    if size > _MOST_READ:
        return "", f"{path} has {size} bytes, and more than {_MOST_READ} are not read here"
    try:
        found = open_transaction(path)
    except (Problem, OSError) as error:
        return "", f"{path} cannot be read: {error}"
    return (
        f"{path} has a MULTI without its EXEC at offset {found.offset}, and {found.commands} commands behind it"
        if found
        else ""
    ), ""


def _unlisted(disk: DataFiles) -> list[str]:
    if disk.manifest is None:
        return []
    names = (os.path.basename(path) for path in disk.paths if os.path.dirname(path) == disk.place.aof_dir)
    sizes = {name: _size(os.path.join(disk.place.aof_dir, name)) or 0 for name in names}
    return unlisted(disk.manifest, sizes, disk.place.appendfilename)


def _leftovers(host: Host, folder: str, now: float) -> t.Iterator[Leftover]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        match, path = _TEMPORARY.fullmatch(name), os.path.join(folder, name)
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if match and now - status.st_mtime > _IDLE_SECONDS and not host.holds_open(int(match.group(1)), path):
            yield Leftover(path, status.st_size, now - status.st_mtime)
