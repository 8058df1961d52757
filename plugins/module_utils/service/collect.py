# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd and the kernel say of the server's unit and its process."""

from __future__ import annotations

import dataclasses
import os
import types
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import (
    USABLE,
    Dialect,
    FileVerdict,
    check_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import rename_lines
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import Process
from ansible_collections.redisops.recovery.plugins.module_utils.service.sandboxing import (
    Confined,
    exposure,
    read_confined,
    require_reachable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import (
    CAP_SYS_ADMIN,
    capability_bounds,
    open_files_limit,
    status_field,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import drop_in_values, parse_show

__all__ = [
    "aof_damage",
    "disk_of",
    "exposure_of",
    "find_unit",
    "process_of",
    "require_last_word",
    "require_paths",
    "unit_state",
]


_PROPERTIES = (
    "LoadState,ActiveState,SubState,UnitFileState,MainPID,NeedDaemonReload,ExecStart,DropInPaths,ReadWritePaths"
)


#: What a start loads, or passes over without a loss.
_LOADS = (*USABLE, "unlisted")
#: Seconds in which what the server was just writing, or a rewrite that just ended, is whole.
_SETTLES = 3.0
_UNITS = ("redis-server", "redis", "valkey-server", "valkey")


#: Properties of which every drop-in adds to the list.
_ADDING_UP = ("ReadWritePaths", "RestrictAddressFamilies", "SystemCallArchitectures", "SystemCallFilter")


def aof_damage(instance: Instance, place: Place, timeout: float) -> str:
    """Why a start from the running server's AOF would fail or leave something out, in words; empty where nothing speaks against it.

    The end of the last increment is being written to, and settles.
    """
    if not os.path.exists(place.manifest):
        return ""  # whether the server writes there at all is asked elsewhere
    dialect = Dialect(
        rename_lines(instance.directives), any(entry.name == "loadmodule" for entry in instance.directives)
    )
    found: list[FileVerdict] = []

    def settled() -> bool:
        found[:] = [
            row for row in check_manifest(instance.host, place.manifest, timeout, dialect) if row.verdict not in _LOADS
        ]
        return not found

    wait_for(settled, _SETTLES)
    return "; ".join(f"{row.path} is {row.verdict}: {row.detail}" for row in found)


def find_unit(host: Host) -> str:
    """The packaged unit; where none is installed yet, the name that this family of distributions gives it."""
    shown = systemctl(host, "show", "-p", "Id,LoadState", *(f"{name}.service" for name in _UNITS))
    for block in shown.split("\n\n"):
        unit = parse_show(block)
        if unit.get("LoadState") == "loaded":
            return unit["Id"][: -len(".service")]
    release = host.read("/etc/os-release") or ""
    return "redis-server" if "debian" in release else "redis"


def unit_state(host: Host, unit: str) -> dict[str, str]:
    """The unit's properties. Raises Problem where there is no systemd."""
    return parse_show(systemctl(host, "show", "-p", _PROPERTIES, f"{unit}.service"))


def exposure_of(host: Host, unit: str) -> t.Optional[float]:
    """What systemd says of the unit's confinement, 0 to 10; None where this systemd does not say."""
    return exposure(host.run("systemd-analyze", "security", "--no-pager", f"{unit}.service", timeout=60).output)


def process_of(host: Host, pid: int) -> tuple[Process, Confined]:
    """What the running process was given, and what was taken from it."""
    status = host.read(f"/proc/{pid}/status") or ""
    umask, score = status_field(status, "Umask"), host.read(f"/proc/{pid}/oom_score_adj")
    soft = open_files_limit(host.read(f"/proc/{pid}/limits") or "")[0]
    given = Process(
        soft or None, int(umask, 8) if umask else None, int(score) if score else None, host.replaced_program(pid)
    )
    confined = read_confined(status, host.read(f"/proc/{pid}/mountinfo") or "")
    if not capability_bounds(host.read("/proc/1/status") or "", CAP_SYS_ADMIN):
        # A container whose systemd may not mount: no start of any unit gives it a read-only root.
        confined = dataclasses.replace(confined, root_read_only=None)
    return given, confined


def disk_of(values: t.Mapping[str, t.Optional[str]]) -> Place:
    """Where ``values`` say that the data is."""
    return Place(*(values[name] or "" for name in PLACE))


def require_paths(
    instance: Instance,
    unit: str,
    state: t.Mapping[str, str],
    drop_in: str,
    declared: t.Mapping[str, str],
    pending: t.Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Confined as ``declared``, the server must reach what its file names. Raises Refusal.

    ``drop_in`` is the text of ours as it is now: its paths are not the package's. ``pending``: what the file will name.
    """
    ours = set(drop_in_values(drop_in).get("ReadWritePaths", "").split())
    packaged = [word for word in state.get("ReadWritePaths", "").split() if word not in ours]
    # systemd follows links, and so does what is compared with it.
    packaged += [os.path.realpath(word.lstrip("-+")) for word in packaged + declared.get("ReadWritePaths", "").split()]
    stated = {"dir": instance.in_file("dir"), "config_file": os.path.dirname(os.path.realpath(instance.path))}
    for name in ("logfile", "unixsocket", "aclfile"):
        path = pending.get(name, instance.in_file(name))
        stated[name] = os.path.dirname(path) if path and path.startswith("/") and path != "/dev/null" else None
    writes = {name: os.path.realpath(path) for name, path in stated.items() if path and os.path.isabs(path)}
    require_reachable(declared, " ".join(packaged), writes, unit)


def require_last_word(host: Host, state: t.Mapping[str, str], name: str, declared: t.Mapping[str, str]) -> None:
    """No drop-in that systemd reads behind ours (they go by file name) may say otherwise. Raises Problem."""
    for later in state.get("DropInPaths", "").split():
        if os.path.basename(later) <= name:
            continue
        for key, value in drop_in_values(host.read(later) or "").items():
            if key in declared and value != declared[key] and key not in _ADDING_UP:
                raise Problem(
                    "drop_in_overridden", f"{later} sets {key}={value} behind {name}, which declares {declared[key]}",
                    "the last word on that property", f"take {key} out of {later}, declare {value}, or set drop_in to a name that sorts later",
                )  # fmt: skip
