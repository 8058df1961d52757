# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands next to a server: its Sentinel, its backups, its drills; nothing is changed."""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import store_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import row_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.health.connect import reached
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Backups, SentinelFacts
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import watched_by
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Login
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["read_backups", "read_sentinel"]

SETTINGS = "/etc/redisops"
_MOST_DRILLS = 50


def read_sentinel(login: t.Optional[Login]) -> t.Optional[SentinelFacts]:
    """One Sentinel and all that it watches; None where none is to be asked."""
    if login is None:
        return None
    server, _code, because, _refused = reached(login)
    if server is None:
        return SentinelFacts(login.address, because)
    try:
        info = server.info()
        watched = watched_by(server)
        quorum = {}
        for name in watched:
            try:
                quorum[name] = str(server.command("SENTINEL", "CKQUORUM", name))
            except CommandError as error:
                quorum[name] = error.text
    except CommandError as error:
        strange = (
            "it is a Redis server, and no Sentinel" if "unknown command" in error.text else f"it refuses {error.text}"
        )
        return SentinelFacts(login.address, strange)
    except Problem as problem:
        return SentinelFacts(login.address, problem.detected)
    finally:
        server.close()
    tilt = info.flag("sentinel_tilt") if "sentinel_tilt" in info.fields else None
    return SentinelFacts(login.address, "", tilt, tuple(watched.values()), quorum)


def _drill(path: str) -> t.Optional[dict[str, t.Any]]:
    """One report; None where it is none."""
    try:
        report = json.loads(read_text(path))
        return {
            "time": float(report["at"]), "ok": not report["missed"], "missed": [str(words) for words in report["missed"]],
            "rpo_seconds": report["measured"]["rpo_seconds"], "rto_seconds": report["measured"]["rto_seconds"], "phases": dict(report["phases"]),
        }  # fmt: skip
    except (Problem, ValueError, TypeError, KeyError, RecursionError):
        return None


def _schedule(host: Host, group_name: str) -> tuple[str, bool, bool, t.Optional[tuple[str, ...]]]:
    """Directory, whether other hosts of the group may take the backups, whether there is a schedule at all, and the repositories that it names."""
    text = host.read(f"{SETTINGS}/backup-{group_name}.json")
    try:
        content = json.loads(text or "")
        repositories = tuple(str(row["repository"]["name"]) for row in content.get("repositories", ()))
        return str(content["settings"]["directory"]), len(content["group_hosts"]) > 1, True, repositories
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", False, text is not None, None


def read_backups(host: Host, group_name: str, directory: str, expected: bool, slots: t.Sequence[str]) -> Backups:
    """The set's backups on this host, of a cluster's node its shard's. Where ``directory`` is empty the schedule says where they lie.

    Raises Problem for a name that is none.
    """
    declared, elsewhere, scheduled, repositories = _schedule(host, group_name)
    directory = directory or declared or "/var/backups/redis"
    store = store_of(directory, group_name, slots)
    found = Backups(
        store.group_name, directory, expected=scheduled or expected, elsewhere=elsewhere, repositories=repositories
    )
    try:
        rows = [row_of(one) for one in store.all()]
        folder = os.path.join(store.directory, "drills")
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json")) if os.path.isdir(folder) else []
    except OSError as error:
        return dataclasses.replace(found, because=f"{store.directory} cannot be looked at: {error.strerror}")
    drills = [_drill(os.path.join(folder, name)) for name in names[-_MOST_DRILLS:]]
    return dataclasses.replace(
        found, rows=tuple(rows), drills=tuple(sorted((one for one in drills if one), key=lambda one: one["time"]))
    )
