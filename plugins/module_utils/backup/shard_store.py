# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the backups of a cluster's shards lie: each shard is a set of its own, named by its slots.

So that catalogue, retention and repositories tell shards apart: three backups to keep are three of each shard.
"""

from __future__ import annotations

import hashlib
import os
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import parse_nodes
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = ["group_names", "slots_of", "store_of"]

_LONGEST = 24
_SHARD = re.compile(r"\.\d+(-\d+)?(_\d+(-\d+)?)*(_and_[0-9a-f]{8})?")


def slots_of(server: Server, info: Info) -> tuple[str, ...]:
    """Slot ranges of the shard that this node is of, such as ``0-5460``; empty outside a cluster."""
    if not info.flag("cluster_enabled"):
        return ()
    nodes = parse_nodes(str(server.command("CLUSTER", "NODES")))
    mine = next((node for node in nodes if node.itself), None)
    owner = next((node for node in nodes if mine and node.id == (mine.primary_id or mine.id)), None)
    return tuple(owner.ranges) if owner else ()


def store_of(directory: str, group_name: str, slots: t.Sequence[str]) -> Store:
    """The set's store, or that of the shard that has ``slots``; a name that ends with the slots stays as it is. Raises Problem."""
    shard = "_".join(slots)
    if len(shard) > _LONGEST:
        shard = f"{slots[0]}_and_{hashlib.sha256(shard.encode()).hexdigest()[:8]}"
    named = group_name if not shard or group_name.endswith(f".{shard}") else f"{group_name}.{shard}"
    return Store(directory, named)


def group_names(directory: str, group_name: str = "") -> list[str]:
    """Sets that lie in ``directory``, or of these ``group_name`` and its shards. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(
        name
        for name in names
        if not name.startswith(".")
        and os.path.isdir(os.path.join(directory, name))
        and (
            not group_name
            or name == group_name
            or _SHARD.fullmatch(name[len(group_name) :] if name.startswith(group_name) else "")
        )
    )
