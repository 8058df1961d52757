# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is fit for durable Redis: texts of the host in, one row for each check out."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = [
    "CHECKS",
    "POLICIES",
    "Facts",
    "Limits",
    "Measured",
    "cgroup_limit",
    "cgroup_paths",
    "check_policies",
    "count_cpu_list",
    "failing",
    "os_release",
    "ping_average",
    "rows",
    "say",
    "server_version",
]

CHECKS = ("cpu", "memory", "swap", "backlog", "overcommit", "thp", "disk_throughput", "rtt")
POLICIES = ("warn", "fail", "ignore")
#: Checks whose cause the role redis_kernel removes.
KERNEL_CHECKS = ("backlog", "overcommit", "thp")
#: Firmware and the crash kernel keep a part of the memory a machine was sold with: a 4096 MB machine shows 3700 to 3950.
MEMORY_TOLERANCE = 0.9
MIB = 1024 * 1024
#: cgroup v1 says "no limit" with a number near 2^63.
_NO_LIMIT = 2**60

Row = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A measurement, or why there is none."""

    value: t.Optional[float] = None
    because: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was read from one host. None: could not be read."""

    cpus: t.Optional[float]
    memory: t.Optional[int]
    memory_is_limit: bool
    swap: t.Optional[int]
    somaxconn: t.Optional[int]
    overcommit: t.Optional[str]
    thp: t.Optional[str]
    thp_supported: bool
    disk: Measured
    rtt: t.Mapping[str, Measured]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The thresholds, named as the module's options."""

    min_cpus: int
    min_memory_mb: int
    min_swap_ratio: float
    tcp_backlog: int
    min_disk_mb_per_second: float
    max_rtt_ms: float
    data_dir: str


def rows(facts: Facts, limits: Limits, expect_kernel_role: bool) -> list[Row]:
    """One row for each of CHECKS, in that order."""
    found = [
        _cpu(facts, limits),
        _memory(facts, limits),
        _swap(facts, limits),
        _backlog(facts, limits),
        _overcommit(facts),
        _thp(facts),
        _disk(facts, limits),
        _rtt(facts, limits),
    ]
    for row in found:
        if row["check"] in KERNEL_CHECKS and row["ok"] is False and expect_kernel_role:
            row["do"] = "nothing: the role redisops.recovery.redis_kernel, which runs after this preflight, corrects it"
    return found


def _row(
    check: str, ok: t.Optional[bool], measured: str, needed: str, otherwise: tuple[str, str], because: str = ""
) -> Row:
    """``otherwise``: what it means where it is not met, and what to do then. ``because``: why it is not known."""
    consequence, do = otherwise
    return {
        "check": check,
        "ok": ok,
        "measured": measured if ok is not None else f"not known, because {because}",
        "needed": needed,
        "consequence": "" if ok else consequence,
        "do": "" if ok else do,
        "because": because if ok is None else "",
    }


def _plain(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _mib(number: float) -> str:
    return f"{int(number // MIB)} MB"


def _cpu(facts: Facts, limits: Limits) -> Row:
    cpus = facts.cpus
    return _row(
        "cpu",
        None if cpus is None else cpus >= limits.min_cpus,
        f"{_plain(cpus or 0)} CPUs",
        f"at least {limits.min_cpus} CPUs",
        (
            "a background save or AOF rewrite takes CPU time from the commands, so latency rises while data is being made safe",
            "give the host more CPUs (in a container: raise its CPU limit), or lower min_cpus",
        ),
        "neither /sys/devices/system/cpu/online nor /proc/cpuinfo could be read",
    )


def _memory(facts: Facts, limits: Limits) -> Row:
    wanted = limits.min_memory_mb * MIB
    tolerance = 1 if facts.memory_is_limit else MEMORY_TOLERANCE
    return _row(
        "memory",
        None if facts.memory is None else facts.memory >= wanted * tolerance,
        _mib(facts.memory or 0) + (" (limit of the container)" if facts.memory_is_limit else ""),
        f"at least {limits.min_memory_mb} MB"
        + ("" if facts.memory_is_limit else " (what firmware reserves, up to 10 %, is allowed for)"),
        (
            "during a background save each page that is written to is copied; short of memory the kernel kills Redis",
            "give the host more memory, or lower min_memory_mb and set maxmemory to match",
        ),
        "/proc/meminfo could not be read",
    )


def _swap(facts: Facts, limits: Limits) -> Row:
    known = facts.swap is not None and facts.memory is not None
    wanted = (facts.memory or 0) * limits.min_swap_ratio
    size = max(int(wanted // MIB) + 1, 1)
    return _row(
        "swap",
        (facts.swap or 0) + MIB >= wanted if known else None,
        _mib(facts.swap or 0),
        f"at least {_mib(wanted)} ({_plain(limits.min_swap_ratio)} times the memory)",
        (
            "when memory runs out there is nothing to give way: the kernel kills Redis, and what was not yet saved is lost",
            f"add swap: fallocate -l {size}M /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile"
            " (and its line in /etc/fstab), or lower min_swap_ratio",
        ),
        "/proc/meminfo could not be read",
    )


def _backlog(facts: Facts, limits: Limits) -> Row:
    return _row(
        "backlog",
        None if facts.somaxconn is None else facts.somaxconn >= limits.tcp_backlog,
        f"net.core.somaxconn = {facts.somaxconn}",
        f"at least {limits.tcp_backlog} (the tcp-backlog of Redis)",
        (
            "the kernel cuts the tcp-backlog of Redis down, and refuses connections when many clients reconnect at once",
            f"run the role redisops.recovery.redis_kernel, or: sysctl -w net.core.somaxconn={limits.tcp_backlog}",
        ),
        "/proc/sys/net/core/somaxconn could not be read",
    )


def _overcommit(facts: Facts) -> Row:
    return _row(
        "overcommit",
        None if facts.overcommit is None else facts.overcommit == "1",
        f"vm.overcommit_memory = {facts.overcommit}",
        "1",
        (
            "the fork of a background save fails when Redis holds about half of the memory, and nothing is saved any more",
            "run the role redisops.recovery.redis_kernel, or: sysctl -w vm.overcommit_memory=1",
        ),
        "/proc/sys/vm/overcommit_memory could not be read",
    )


def _thp(facts: Facts) -> Row:
    needed = "never (madvise does Redis no harm either)"
    if not facts.thp_supported:
        return _row("thp", True, "this kernel has no transparent huge pages", needed, ("", ""))
    return _row(
        "thp",
        None if facts.thp is None else facts.thp != "always",
        facts.thp or "",
        needed,
        (
            "during a background save each write copies up to 2 MB instead of 4 kB: latency peaks, and memory use can double",
            "run the role redisops.recovery.redis_kernel, or: echo never > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        "/sys/kernel/mm/transparent_hugepage/enabled could not be read",
    )


def _disk(facts: Facts, limits: Limits) -> Row:
    rate = facts.disk.value
    return _row(
        "disk_throughput",
        None if rate is None else rate >= limits.min_disk_mb_per_second,
        f"{_plain(rate or 0)} MB/s",
        f"at least {_plain(limits.min_disk_mb_per_second)} MB/s written and synced, on the file system of {limits.data_dir}",
        (
            "saves and AOF rewrites take long, and with appendfsync everysec Redis stops answering while it waits for the disk",
            "move the data directory to a faster disk, or lower min_disk_mb_per_second",
        ),
        facts.disk.because,
    )


def _rtt(facts: Facts, limits: Limits) -> Row:
    slow = {
        peer: one.value for peer, one in facts.rtt.items() if one.value is not None and one.value > limits.max_rtt_ms
    }
    silent = {peer: one.because for peer, one in facts.rtt.items() if one.value is None}
    measured = ", ".join(
        f"{peer} {_plain(one.value)} ms" if one.value is not None else f"{peer} not known ({one.because})"
        for peer, one in facts.rtt.items()
    )
    because = "no peers were named" if not facts.rtt else "; ".join(f"{peer}: {why}" for peer, why in silent.items())
    return _row(
        "rtt",
        False if slow else None if silent or not facts.rtt else True,
        measured,
        f"at most {_plain(limits.max_rtt_ms)} ms to each peer",
        (
            "replicas fall behind, so a failover loses more, and Sentinel or Cluster take a slow network for a dead peer",
            f"put {', '.join(slow) or 'the hosts'} on the same network, or raise max_rtt_ms",
        ),
        because,
    )


# What a failing row comes to


def check_policies(policy: str, by_check: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The policy of every check. Raises Problem."""
    for check, value in by_check.items():
        if check not in CHECKS:
            raise Problem("unknown_check", f"policy_by_check: there is no check {check!r}", f"one of {', '.join(CHECKS)}",
                          "correct policy_by_check")  # fmt: skip
        if value not in POLICIES:
            raise Problem("invalid_value", f"policy_by_check: {check}: {value!r} is no policy", f"one of {', '.join(POLICIES)}",
                          "correct policy_by_check")  # fmt: skip
    return {check: by_check.get(check, policy) for check in CHECKS}


def failing(found: t.Sequence[Row], policies: t.Mapping[str, str], policy: str, expect_kernel_role: bool) -> list[Row]:
    """The rows that are not met and fall under ``policy``."""
    return [
        row
        for row in found
        if row["ok"] is False
        and policies[row["check"]] == policy
        and not (expect_kernel_role and row["check"] in KERNEL_CHECKS)
    ]


def say(row: Row) -> str:
    """One row in one paragraph."""
    return f"{row['check']}: {row['measured']}. Needed: {row['needed']}. Else: {row['consequence']}. Do: {row['do']}."


# Texts of a host


def count_cpu_list(text: str) -> int:
    """How many CPUs ``0-3,8`` names; 0 where it is no such list."""
    total = 0
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            return 0
        total += int(match[2] or match[1]) - int(match[1]) + 1
    return total


def cgroup_paths(text: str, controller: str) -> list[str]:
    """Where in the v1 hierarchy of ``controller`` (or, named ``""``, in v2) /proc/PID/cgroup says a process is, and all above."""
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and controller in fields[1].split(","):
            parts = [part for part in fields[2].split("/") if part and part != ".."]
            return ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [""]


def cgroup_limit(texts: t.Iterable[t.Optional[str]]) -> t.Optional[int]:
    """The lowest of several limits; None where none limits."""
    numbers = [int(text) for text in texts if text and text.strip().isdigit()]
    bounded = [number for number in numbers if number < _NO_LIMIT]
    return min(bounded) if bounded else None


def os_release(text: str) -> dict[str, t.Any]:
    """``id``, ``id_like`` (a list), ``version_id`` and ``codename`` of /etc/os-release."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.strip().partition("=")
        if sign and not name.startswith("#"):
            try:
                fields[name] = " ".join(shlex.split(value))
            except ValueError:
                fields[name] = value.strip("\"'")
    return {
        "id": fields.get("ID"),
        "id_like": fields.get("ID_LIKE", "").split(),
        "version_id": fields.get("VERSION_ID"),
        "codename": fields.get("VERSION_CODENAME"),
    }


def server_version(output: str) -> tuple[t.Optional[str], t.Optional[str]]:
    """(version, product) of what ``redis-server --version`` prints; Valkey answers under that name as well."""
    match = re.search(r"^(Redis|Valkey) server v=(\S+)", output, re.M)
    return (match[2], match[1].lower()) if match else (None, None)


def ping_average(output: str) -> t.Optional[float]:
    """The average round trip in milliseconds that ping (iputils or busybox) printed."""
    match = re.search(r"^(?:rtt|round-trip) min/avg/max(?:/mdev)? = [\d.]+/([\d.]+)/", output, re.M)
    return float(match[1]) if match else None
