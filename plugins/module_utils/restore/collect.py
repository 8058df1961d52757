# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server that a restore is for, as it stands."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import live
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.sharing_reader import require_unshared
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    ASK_SECONDS,
    login_at,
    sentinel_listens,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance, read_instance
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import disk_of, find_unit, unit_state
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import (
    require_is_the_units,
    require_overrides,
    require_unit_file,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import command_line_overrides

__all__ = ["Target", "read_target", "require_plain"]


@dataclasses.dataclass(frozen=True)
class Target:
    """The server that is restored. ``aof``: whether its next start reads the AOF; ``owner`` is user and group id of its data.

    ``follower`` says what makes it a replica at its next start, in words; ``watched`` who would fail a primary over, in words: empty where
    nothing does. ``may_follow``: it is brought data so that it starts, though its primary's takes the place of that.
    """

    instance: Instance
    login: Login
    host: Host
    unit: str
    place: Place
    aof: bool
    owner: tuple[int, int]
    slots: tuple[str, ...]
    follower: str
    watched: str
    timeout: float
    may_follow: bool = False

    @property
    def keys(self) -> t.Optional[int]:
        return self.instance.info.keys if self.instance.running else None

    @property
    def keys_text(self) -> str:
        return "stopped" if self.keys is None else f"{self.keys} keys"


def read_target(config_file: str, login: Login, host: Host, unit: str, timeout: float) -> Target:
    """Read the server and verify that it is the unit's, and that file and process speak of one place. Raises Problem or Refusal."""
    unit = find_unit(host) if unit == "auto" else unit
    instance = read_instance(config_file, login, host, timeout)
    state = unit_state(host, unit)
    require_unit_file(state.get("ExecStart", ""), config_file)
    stated = {name: instance.in_file(name) for name in (*PLACE, "appendonly")}
    require_overrides(command_line_overrides(state.get("ExecStart", "")), stated)
    if instance.running:
        require_is_the_units(unit, state, instance.pid)
        for name in (*PLACE, "appendonly"):
            if instance.live[name] != stated[name]:
                raise Refusal(
                    "place_differs",
                    f"{name} is {instance.live[name]} in the process, and {stated[name]} in {config_file}",
                    "the same in both, so that the place of the data is certain",
                    "run redis_persistence first",
                )
    place = disk_of(stated)
    if not os.path.isdir(place.dir):
        raise Problem(
            "no_dir",
            f"the data directory {place.dir} is not there",
            "the directory that the server works in",
            "make it (role redis_server), then run again",
        )
    require_unshared(host, place, instance.pid, config_file)
    aof = stated["appendonly"] == "yes"
    return Target(
        instance,
        login,
        host,
        unit,
        place,
        aof,
        _owner(instance, place, aof),
        slots_of(instance.server, instance.info) if instance.server else (),
        _follower(instance, place),
        _watched(instance),
        timeout,
    )


def _owner(instance: Instance, place: Place, aof: bool) -> tuple[int, int]:
    """Whose the data is: that of the process, else of the data that is there, else of its directory."""
    process = instance.host.user_of_process(instance.pid) if instance.running else None
    if process:
        return process.uid, process.gid
    for path in (live(place, aof), place.dir):
        if os.path.lexists(path) and not os.path.islink(path):
            status = os.stat(path)
            return status.st_uid, status.st_gid
    raise AssertionError("the directory is there")


def _follower(instance: Instance, place: Place) -> str:
    """What makes the server a replica: its role, or where it is stopped its file or its cluster's."""
    if instance.running:
        return "its role is replica" if instance.info.text("role") == "slave" else ""
    stated = instance.in_file("replicaof") or ""
    if stated and stated.lower() != "no one":
        return f"{instance.path} says replicaof {stated}"
    if instance.in_file("cluster-enabled") != "yes":
        return ""
    nodes = os.path.join(place.dir, instance.in_file("cluster-config-file") or "nodes.conf")
    text = read_text(nodes) if os.path.exists(nodes) else ""
    if any(
        "myself" in line and "slave" in line.split(" ")[2].split(",")
        for line in text.splitlines()
        if line.count(" ") > 2
    ):
        return f"{nodes} says that it is a replica"
    return ""


def _watched(instance: Instance) -> str:
    """Who would promote a replica while this primary is stopped: Sentinel, or a replica of the cluster that is not held."""
    server, info = instance.server, instance.info
    if server is None or info.text("role") != "master" or not info.number("connected_slaves"):
        return ""
    count = info.number("connected_slaves")
    if sentinel_listens(server):
        return f"Sentinel watches this primary, which has {count} replicas"
    if not info.flag("cluster_enabled"):
        return ""
    free = [address for address in _replicas(info) if not _is_held(server.login, address)]
    return f"the cluster may promote {', '.join(free)}, which follows this primary and is not held" if free else ""


def _replicas(info: Info) -> list[str]:
    rows = [
        dict(part.split("=", 1) for part in info.text(f"slave{number}").split(",") if "=" in part)
        for number in range(64)
    ]
    return [f"{row['ip']}:{row['port']}" for row in rows if row.get("ip") and row.get("port", "0") != "0"]


def _is_held(login: Login, address: str) -> bool:
    """Whether this replica takes over from nobody; one that cannot be asked may."""
    try:
        server = connect(login_at(login, address), ASK_SECONDS)
    except Problem:
        return False
    try:
        return server.config_get("cluster-replica-no-failover").get("cluster-replica-no-failover") == "yes"
    except Problem:
        return False
    finally:
        server.close()


def require_plain(target: Target) -> None:
    """What is live is a file or directory of its own, no link to somewhere else. Raises Refusal."""
    path = live(target.place, target.aof)
    if os.path.islink(path):
        raise Refusal(
            "data_is_a_link",
            f"{path} is a link to {os.readlink(path)}",
            "data that can be switched with what is staged next to it, in one step of one file system",
            f"stop the server, move what {path} leads to in its place (or mount that disk at {path}'s directory), start it, then run again",
        )
