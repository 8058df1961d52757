# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements and look-ups on a host that leave nothing behind."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.system import procfs, requirements
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.requirements import MIB, Measured

__all__ = [
    "cpus",
    "disk_throughput",
    "exists",
    "find_program",
    "memory",
    "nearest_directory",
    "package_manager",
    "round_trip",
    "running_server",
    "swap",
    "virtualization",
]

BIN = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/opt/redis/bin",
    "/opt/valkey/bin",
)
CGROUPS = "/sys/fs/cgroup"
_CHUNK = 8 * MIB


def find_program(host: Host, names: t.Sequence[str]) -> t.Optional[str]:
    """The first of ``names`` that is installed."""
    for name in names:
        for directory in BIN:
            if os.access(host.path(f"{directory}/{name}"), os.X_OK):
                return f"{directory}/{name}"
    return None


#: What a server that loads the disk calls itself.
RUNNING = ("redis-server", "valkey-server", "keydb-server")


def running_server(host: Host) -> t.Optional[str]:
    """The name and process id of a Redis server that runs on this host."""
    try:
        names = os.listdir(host.path("/proc"))
    except OSError:
        return None
    for name in names:
        if name.isdigit() and (host.read(f"/proc/{name}/comm") or "").strip() in RUNNING:
            return f"{(host.read(f'/proc/{name}/comm') or '').strip()} (process {name})"
    return None


# Sizes, with the limits of a container


def _v1(host: Host, controller: str, name: str) -> list[t.Optional[str]]:
    """One limit file of cgroup v1, from the cgroup of PID 1 up: in a container, that is where its limits stand."""
    paths = requirements.cgroup_paths(host.read("/proc/1/cgroup") or "", controller)
    return [host.read(f"{CGROUPS}/{controller}/{path}/{name}") for path in paths]


def _v2(host: Host, name: str) -> list[t.Optional[str]]:
    """The same of cgroup v2."""
    paths = requirements.cgroup_paths(host.read("/proc/1/cgroup") or "", "")
    return [host.read(f"{CGROUPS}/{path}/{name}") for path in paths]


def memory(host: Host) -> tuple[t.Optional[int], bool]:
    """(bytes of memory, whether a container's limit is what bounds it)."""
    total = procfs.meminfo_bytes(host.read("/proc/meminfo") or "", "MemTotal") or None
    limit = requirements.cgroup_limit(_v1(host, "memory", "memory.limit_in_bytes") + _v2(host, "memory.max"))
    if limit is not None and (total is None or limit < total):
        return limit, True
    return total, False


def swap(host: Host) -> t.Optional[int]:
    """Bytes of swap, at most what a container may use."""
    meminfo = host.read("/proc/meminfo") or ""
    if "SwapTotal:" not in meminfo:
        return None
    bounds = [procfs.meminfo_bytes(meminfo, "SwapTotal"), requirements.cgroup_limit(_v2(host, "memory.swap.max"))]
    both = requirements.cgroup_limit(_v1(host, "memory", "memory.memsw.limit_in_bytes"))  # memory and swap together
    size, limited = memory(host)
    if both is not None and size is not None and limited:
        bounds.append(max(both - size, 0))
    return min(bound for bound in bounds if bound is not None)


def cpus(host: Host) -> t.Optional[float]:
    """CPUs that are online and that a container may use; a quota can make it a fraction."""
    online = requirements.count_cpu_list(host.read("/sys/devices/system/cpu/online") or "")
    if not online:
        online = (host.read("/proc/cpuinfo") or "").count("processor\t")
    if not online:
        return None
    allowed = procfs.status_field(host.read("/proc/1/status") or "", "Cpus_allowed_list") or ""
    bounds: list[float] = [online, requirements.count_cpu_list(allowed) or online]
    pairs = zip(_v1(host, "cpu", "cpu.cfs_quota_us"), _v1(host, "cpu", "cpu.cfs_period_us"))
    texts = [f"{quota or ''} {period or ''}" for quota, period in pairs] + [text or "" for text in _v2(host, "cpu.max")]
    for fields in (text.split() for text in texts):
        if len(fields) == 2 and all(field.isdigit() for field in fields) and int(fields[1]):
            bounds.append(int(fields[0]) / int(fields[1]))
    lowest = min(bounds)
    return int(lowest) if lowest == int(lowest) else round(lowest, 2)


# The disk


def nearest_directory(path: str) -> str:
    """``path``, or its nearest parent that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def disk_throughput(directory: str, megabytes: int, seconds: float = 2.0) -> Measured:
    """MB/s of sequential writes, each part synced, into a file without a name in ``directory``: it is gone when this returns.

    The parts grow from 1 MB to 8 MB and no further one is begun after ``seconds``, so that a slow disk is not loaded for long.
    """
    try:
        free = os.statvfs(directory)
        if free.f_bavail * free.f_frsize < 2 * megabytes * MIB:
            return Measured(None, f"less than {2 * megabytes} MB are free in {directory}")
        block = os.urandom(MIB)  # nothing that a file system could compress
        written, started, elapsed = 0, time.monotonic(), 0.0
        with tempfile.TemporaryFile(dir=directory, buffering=0) as handle:  # O_TMPFILE; else unlinked at once
            while written < megabytes * MIB and elapsed < seconds:
                for _part in range(max(1, min(_CHUNK, written, megabytes * MIB - written) // MIB)):
                    written += handle.write(block)
                os.fdatasync(handle.fileno())
                elapsed = time.monotonic() - started
    except OSError as error:
        return Measured(None, f"a file in {directory} could not be written: {error.strerror}")
    return Measured(round(written / 1e6 / max(elapsed, 1e-9), 1))


# The network


def round_trip(host: Host, peer: str, port: int) -> Measured:
    """Milliseconds to ``peer`` and back: by ping where it answers, else by the time a TCP connection takes."""
    if find_program(host, ["ping"]):
        done = host.run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "--", peer, timeout=8)
        average = requirements.ping_average(done.output)
        if average is not None:
            return Measured(average)
    return _connect_time(peer, port)


def _connect_time(peer: str, port: int) -> Measured:
    """The median of three connections; a refused one is a round trip as well."""
    times: list[float] = []
    try:
        family, _kind, _proto, _name, address = socket.getaddrinfo(peer, port, type=socket.SOCK_STREAM)[0]
        for _try in range(3):
            with socket.socket(family, socket.SOCK_STREAM) as link:
                link.settimeout(1)
                started = time.monotonic()
                try:
                    link.connect(address)
                except ConnectionRefusedError:
                    pass
                times.append((time.monotonic() - started) * 1000)
    except OSError as error:
        return Measured(None, f"it answers neither ping nor TCP port {port} ({error.strerror or error})")
    return Measured(round(statistics.median(times), 3))


# What the host is


def exists(host: Host, name: str) -> bool:
    return os.path.exists(host.path(name))


def package_manager(host: Host, release: t.Mapping[str, t.Any]) -> t.Optional[str]:
    """``apt`` or ``dnf``: the one of the distribution's family, where both are installed."""
    family = {release.get("id"), *release.get("id_like", [])}
    order = ["dnf", "apt"] if family & {"rhel", "fedora", "centos"} else ["apt", "dnf"]
    programs = {"apt": ["apt-get"], "dnf": ["dnf", "dnf5"]}
    return next((name for name in order if find_program(host, programs[name])), None)


def virtualization(host: Host) -> dict[str, t.Any]:
    """What systemd-detect-virt says."""
    kind = host.run("systemd-detect-virt", timeout=10)
    container = host.run("systemd-detect-virt", "--container", timeout=10)
    if kind.code not in (0, 1) or container.code not in (0, 1):
        return {"type": None, "container": None}
    return {"type": kind.output.strip() or None, "container": container.code == 0}
