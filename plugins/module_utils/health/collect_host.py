# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's host says: /proc, /sys, smartctl, sensors; nothing is written."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import HostFacts
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import memory_available
from ansible_collections.redisops.recovery.plugins.module_utils.system import benchmarks, procfs, requirements
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.load import (
    DiskUse,
    cpu_shares,
    disk_use,
    pressure,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.smart import (
    Drive,
    Sensor,
    parse_drive,
    parse_drives,
    parse_sensors,
)

__all__ = ["Look", "look", "read_host"]

_THP = "/sys/kernel/mm/transparent_hugepage/enabled"
_CGROUPS = "/sys/fs/cgroup"
_PATIENCE = 10.0
_MOST_DRIVES = 16


@dataclasses.dataclass(frozen=True)
class Look:
    """One of the two looks whose difference is the load."""

    stat: str
    disks: str


def look(host: Host) -> Look:
    return Look(host.read("/proc/stat") or "", host.read("/proc/diskstats") or "")


def _int_or_none(text: t.Optional[str]) -> t.Optional[int]:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _memory_left(host: Host, pid: int) -> t.Optional[int]:
    """Bytes that the server's save can still be given: memory and swap of the host, or what the server's own control group has left."""
    left = memory_available(host.read("/proc/meminfo") or "")
    if not pid:
        return left
    group = requirements.cgroup_paths(host.read(f"/proc/{pid}/cgroup") or "", "")
    for path in group:
        most = _int_or_none(host.read(f"{_CGROUPS}/{path}/memory.max"))
        used = _int_or_none(host.read(f"{_CGROUPS}/{path}/memory.current"))
        if most is not None and used is not None:
            # The cache of files is given up before anybody is ended.
            words = (host.read(f"{_CGROUPS}/{path}/memory.stat") or "").split()
            cache = dict(zip(words[::2], words[1::2])).get("inactive_file", "0")
            room = max(0, most - used + int(cache))
            left = room if left is None else min(left, room)
    return left


def _kilobytes(status: str, name: str) -> t.Optional[int]:
    words = (procfs.status_field(status, name) or "").split()
    return int(words[0]) * 1024 if words and words[0].isdecimal() else None


def _disk(before: Look, after: Look, apart: float, directory: str) -> tuple[t.Optional[DiskUse], str]:
    """What the device of ``directory`` did meanwhile, or why that is not known."""
    if apart <= 0:
        return None, "sample_seconds is 0"
    if not directory:
        return None, "the data directory is not known"
    try:
        device = os.stat(directory).st_dev
    except OSError as error:
        return None, f"{directory} cannot be looked at: {error.strerror}"
    used = disk_use(before.disks, after.disks, apart, (os.major(device), os.minor(device)))
    if used is None:
        return (
            None,
            f"/proc/diskstats has no device of its own for {directory} (a container, a network or a memory file system)",
        )
    return used, ""


def _drives(host: Host) -> tuple[t.Optional[tuple[Drive, ...]], str]:
    program = benchmarks.find_program(host, ["smartctl"])
    if program is None:
        return None, "smartctl is not installed (smartmontools; a virtual machine has no drives of its own)"
    command = host.path(program)
    scanned = host.run(command, "--scan", "-j", timeout=_PATIENCE)
    names = parse_drives(scanned.output)[:_MOST_DRIVES]
    if not names:
        return None, "smartctl finds no drive here (a virtual machine has none of its own; else it needs root)"
    # Its exit code is a set of bits that are also on for old errors; what it prints is what counts.
    found = [
        parse_drive(name, host.run(command, "-j", "-H", "-A", "-d", kind, name, timeout=_PATIENCE).output)
        for name, kind in names
    ]
    reported = tuple(drive for drive in found if drive is not None)
    return (reported, "") if reported else (None, "no drive tells smartctl of its health")


def _sensors(host: Host) -> tuple[t.Optional[tuple[Sensor, ...]], str]:
    program = benchmarks.find_program(host, ["sensors"])
    if program is None:
        return None, "sensors is not installed (lm-sensors; a virtual machine has none)"
    found = parse_sensors(host.run(host.path(program), "-j", timeout=_PATIENCE).output)
    return (tuple(found), "") if found else (None, "sensors finds none")


def read_host(host: Host, pid: int, directory: str, before: Look, after: Look, apart: float) -> HostFacts:
    """``pid`` is the server's process, 0 where there is none; ``before`` and ``after`` lie ``apart`` seconds apart."""
    status = host.read(f"/proc/{pid}/status") or "" if pid else ""
    shown = f"/proc does not show process {pid} to this user" if pid else "there is no process of it"
    limits = host.read(f"/proc/{pid}/limits") or "" if pid else ""
    disk, no_disk = _disk(before, after, apart, directory)
    drives, no_drives = _drives(host)
    sensors, no_sensors = _sensors(host)
    cpu = cpu_shares(before.stat, after.stat)
    because = {
        "open_files": shown, "swapped": shown, "memory_left": "/proc/meminfo cannot be read, or has no MemAvailable",
        "cpu": "sample_seconds is 0" if apart <= 0 and after.stat else "/proc/stat cannot be read, or stands still",
        **({"disk": no_disk} if no_disk else {}), "drives": no_drives, "sensors": no_sensors,
    }  # fmt: skip
    return HostFacts(
        overcommit=(host.read("/proc/sys/vm/overcommit_memory") or "").strip() or None,
        thp=procfs.selected(host.read(_THP) or ""),
        thp_supported=benchmarks.exists(host, _THP),
        somaxconn=_int_or_none(host.read("/proc/sys/net/core/somaxconn")),
        open_files=procfs.open_files_limit(limits)[0] or None,
        memory_left=_memory_left(host, pid),
        resident=_kilobytes(status, "VmRSS"),
        swapped=_kilobytes(status, "VmSwap"),
        cpu=cpu,
        io_pressure=pressure(host.read("/proc/pressure/io") or ""),
        disk=disk,
        drives=drives,
        sensors=sensors,
        because=because,
    )
