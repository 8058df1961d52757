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
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import require_rdb_is_known
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import sentinel_listens
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance, read_instance
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import disk_of, find_unit, unit_state
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import (
    require_is_the_units,
    require_overrides,
    require_unit_file,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import command_line_overrides

__all__ = ["Target", "read_target", "require_harmless_stop"]


@dataclasses.dataclass(frozen=True)
class Target:
    """The server that is restored. ``aof``: whether its next start reads the AOF; ``owner`` is user and group id of its data."""

    instance: Instance
    login: Login
    host: Host
    unit: str
    place: Place
    aof: bool
    owner: tuple[int, int]
    slots: tuple[str, ...]
    watched: bool
    timeout: float

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
    status = os.stat(place.dir)
    watched = bool(instance.server) and sentinel_listens(instance.server)
    return Target(
        instance,
        login,
        host,
        unit,
        place,
        stated["appendonly"] == "yes",
        (status.st_uid, status.st_gid),
        slots_of(instance.server, instance.info) if instance.server else (),
        watched,
        timeout,
    )


def require_harmless_stop(target: Target) -> None:
    """The stop saves, and the RDB file that it would replace may be all that is left of the data. Raises Refusal."""
    if target.instance.running:
        require_rdb_is_known(target.host, target.instance.info, scan(target.place))
