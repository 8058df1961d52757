# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings on what a server stands on: kernel, memory, disk, files, drives."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts, FileAccess, Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import (
    Finding,
    ago,
    found,
    size_text,
    unknown,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system import requirements

__all__ = ["aof_growth", "host_findings"]

_MIB = 1024 * 1024
#: Redis keeps these for itself next to maxclients (server.h, CONFIG_MIN_RESERVED_FDS).
_RESERVED = 32
#: Percent from which it is reported; the second from which it is a trouble.
_STEAL, _PRESSURE, _BUSY = 10.0, 10.0, 95.0
#: A mean over a shorter time says nothing; then the two looks have to do.
_SHORTEST_MEAN = 60.0

Findings = t.Iterator[Finding]


def _kernel(facts: Facts) -> Findings:
    """The preflight's own checks, against what the running server has."""
    host = facts.host
    backlog = facts.setting("tcp-backlog") or "511"
    nothing = requirements.Measured(None, "not looked at")
    seen = requirements.Facts(
        None, None, False, None, host.somaxconn, host.overcommit, host.thp, host.thp_supported, nothing, {}
    )
    limits = requirements.Limits(0, 0, 0, int(backlog) if backlog.isdigit() else 511, 0, 0, "")
    for row in requirements.rows(seen, limits, False):
        if row["check"] in requirements.KERNEL_CHECKS:
            severity = {True: "ok", False: "warning", None: "unknown"}[row["ok"]]
            yield Finding(row["check"], severity, row["measured"], row["consequence"], row["do"])


def _open_files(facts: Facts) -> Findings:
    clients, limit = facts.setting("maxclients"), facts.host.open_files
    declared = (facts.in_file or {}).get("maxclients")
    if clients is None or limit is None:
        because = (
            facts.missing.get("live", "CONFIG GET is refused")
            if clients is None
            else facts.host.because.get("open_files", "")
        )
        yield unknown("open_files", because or "/proc says nothing of the process")
    elif declared and declared.isdigit() and int(clients) < int(declared):
        yield found(
            "open_files", "warning",
            f"maxclients is {clients}, and {facts.config_file} says {declared}: the server cut it down to its limit of {limit} open files",
        )  # fmt: skip
    elif limit < int(clients) + _RESERVED:
        yield found(
            "open_files",
            "warning",
            f"the server may open {limit} files, and maxclients {clients} needs {int(clients) + _RESERVED}",
        )
    else:
        yield found("open_files", "ok", f"the server may open {limit} files, enough for maxclients {clients}")


def _memory(facts: Facts, objectives: Objectives) -> Findings:
    host, info = facts.host, facts.info
    used = host.resident or info.number("used_memory_rss") or info.number("used_memory")
    if host.memory_left is None:
        yield unknown("memory_for_save", host.because.get("memory_left", "/proc/meminfo cannot be read"))
    elif not used:
        yield unknown("memory_for_save", "INFO of this server has no used_memory_rss")
    elif not _saves(facts):
        yield found("memory_for_save", "ok", "nothing is saved, so nothing is copied")
    else:
        peak = max(info.number("rdb_last_cow_size"), info.number("aof_last_cow_size"), info.number("current_cow_peak"))
        usual = used * objectives.fork_headroom_percent // 100
        left = host.memory_left
        seen = f"{size_text(left)} of memory and swap are left; Redis holds {size_text(used)}, and its last save copied {size_text(peak)}"
        if left < peak:
            yield found("memory_for_save", "critical", seen)
        elif left < usual:
            yield found(
                "memory_for_save",
                "warning",
                f"{seen}; {size_text(usual)} ({objectives.fork_headroom_percent} %) should be left for a save",
            )
        elif left < used:
            yield found(
                "memory_for_save", "ok", f"{seen}; were every page written to during a save, it would not be enough"
            )
        else:
            yield found("memory_for_save", "ok", seen)
    if host.swapped is None:
        yield unknown("swapped", host.because.get("swapped", "/proc says nothing of the process"))
    elif host.swapped:
        share = 100 * host.swapped / max(used + host.swapped, 1)
        yield found(
            "swapped",
            "warning" if share >= 5 else "info",
            f"{size_text(host.swapped)} of Redis ({share:.0f} %) are in swap",
        )
    else:
        yield found("swapped", "ok", "nothing of Redis is in swap")


def _saves(facts: Facts) -> bool:
    return facts.setting("appendonly") != "no" or facts.setting("save") != ""


def _load(facts: Facts) -> Findings:
    host = facts.host
    if host.cpu is None:
        yield unknown("steal", host.because.get("cpu", "/proc/stat cannot be read"))
    else:
        steal = host.cpu.get("steal", 0.0)
        yield found(
            "steal",
            "warning" if steal >= _STEAL else "ok",
            f"{steal:.0f} % of the CPU time went to other machines of the hypervisor",
        )
    waits = [f"iowait {host.cpu['iowait']:.0f} %"] if host.cpu is not None else []
    if host.io_pressure is not None:
        waits.append(f"in {host.io_pressure:.0f} % of the last minute all tasks waited for a disk")
    if host.disk is not None:
        waits.append(
            f"{host.disk.name} is at work {host.disk.busy_percent:.0f} % of the time, writes {host.disk.written_mb:.1f} MB/s"
            f" and reads {host.disk.read_mb:.1f} MB/s"
        )
    elif "disk" in host.because:
        waits.append(f"throughput not known, because {host.because['disk']}")
    if not waits:
        yield unknown("disk_wait", host.because.get("cpu", "/proc/stat cannot be read"))
    else:
        slow = (host.io_pressure or 0) >= _PRESSURE
        busy = host.disk is not None and host.disk.busy_percent >= _BUSY
        # The pressure is of a minute; how busy a disk was in one second is no trouble yet.
        yield found("disk_wait", "warning" if slow else "info" if busy else "ok", "; ".join(waits))


# The disk


def aof_growth(facts: Facts) -> tuple[t.Optional[float], str]:
    """Bytes a second that the AOF grows by, and how that was found; None where it is not known.

    The mean since the last rewrite (or the start, if later), where that is a minute ago; else what two looks show.
    """
    info, later = facts.info, facts.later if facts.later.fields else facts.info
    if "aof_current_size" not in info.fields or "aof_base_size" not in info.fields:
        return None, "INFO of this server has no aof_current_size or no aof_base_size"
    started = facts.now - info.number("uptime_in_seconds")
    since = max(facts.base_mtime or started, started)
    lasted = facts.now - since
    if lasted >= _SHORTEST_MEAN:
        grown = later.number("aof_current_size") - info.number("aof_base_size")
        return max(0.0, grown / lasted), f"the mean of the last {ago(lasted)}"
    if facts.apart > 0:
        grown = later.number("aof_current_size") - info.number("aof_current_size")
        return max(0.0, grown / facts.apart), f"what was seen in {facts.apart:.1f} s"
    return None, "the last rewrite is less than a minute ago, and sample_seconds is 0"


def _rewrite_at(facts: Facts) -> t.Optional[int]:
    """The size at which Redis rewrites the AOF by itself; None where it never does."""
    percent, least = (facts.setting(f"auto-aof-rewrite-{name}") or "" for name in ("percentage", "min-size"))
    if not percent.isdigit() or not int(percent):
        return None
    base = facts.info.number("aof_base_size")
    return max(int(least) if least.isdigit() else 0, base * (100 + int(percent)) // 100)


def _short(free: int, copy: int) -> bool:
    """Whether the next save may not find room next to what is written meanwhile."""
    return free < copy * 3 // 2 + 16 * _MIB


def _aof_on_disk(facts: Facts, objectives: Objectives) -> Findings:
    if facts.setting("appendonly") != "yes" or facts.disk is None or not facts.disk.free_bytes or facts.live is None:
        return
    free, size = facts.disk.free_bytes, facts.info.number("aof_current_size")
    rewrite = _rewrite_at(facts)
    copy = max(facts.base_bytes or 0, facts.disk.rdb_bytes or 0)
    if rewrite is None:
        yield found(
            "rewrite_never_fires",
            "warning",
            "auto-aof-rewrite-percentage is 0 (a backup sets it so while it copies; else it is meant to stay)",
        )
    elif _short(free, copy):
        pass  # disk_room says it, and all else follows from that
    elif rewrite - size > free:
        yield found(
            "rewrite_never_fires",
            "warning",
            f"a rewrite comes at {size_text(rewrite)}, and the disk is full before: {size_text(free)} are free",
        )
    else:
        yield found(
            "rewrite_never_fires", "ok", f"a rewrite comes at {size_text(rewrite)}; the AOF has {size_text(size)}"
        )
    rate, how = aof_growth(facts)
    if rate is None:
        yield unknown("aof_fills_disk", how)
        return
    seen = f"the AOF grows by {size_text(rate)}/s ({how}), {size_text(free)} are free"
    if rewrite is not None and rewrite - size + copy <= free:
        yield found("aof_fills_disk", "ok", f"{seen}; the rewrite at {size_text(rewrite)} comes first, and has room")
    elif rate <= 0:
        yield found("aof_fills_disk", "ok", seen)
    else:
        left = free / rate
        severity = (
            "critical" if left < min(3600, objectives.disk_full) else "warning" if left < objectives.disk_full else "ok"
        )
        yield found("aof_fills_disk", severity, f"{seen}: full in {ago(left)}")


def _room(facts: Facts) -> Findings:
    disk = facts.disk
    if "dir" in facts.missing:
        yield found("dir_missing", "critical", facts.missing["dir"])
    elif disk is not None:
        yield found("dir_missing", "ok", f"{disk.place.dir} is there")
    if disk is None:
        yield unknown("disk_room", facts.missing.get("disk", "the files were not looked at"))
        return
    free, copy = disk.free_bytes, max(disk.rdb_bytes or 0, facts.base_bytes or 0)
    if not copy:
        copy = facts.info.dataset_bytes
    seen = f"{size_text(free)} are free in {disk.place.dir}; a save writes about {size_text(copy)} first"
    if facts.free_inodes == 0:
        yield found(
            "disk_room",
            "critical",
            f"no further file can be made in {disk.place.dir}: its file system has no inode left",
        )
    elif free < copy or not free:
        yield found("disk_room", "critical", seen)
    elif _short(free, copy):
        yield found("disk_room", "warning", seen)
    else:
        yield found("disk_room", "ok", seen)


# Files


def _may(entry: FileAccess, user: tuple[int, frozenset[int]], bits: int) -> bool:
    """Whether a user may do all of ``bits`` (4 read, 2 write, 1 enter)."""
    uid, groups = user
    if uid == 0:
        return True
    shift = 6 if uid == entry.uid else 3 if entry.gid in groups else 0
    return (entry.mode >> shift) & bits == bits


def _for_everybody(entry: FileAccess, reachable: bool) -> str:
    """What every user of the host may do with a file or directory; empty for nothing. ``reachable``: others may enter its directory."""
    if not reachable:
        return ""
    if entry.mode & 0o002 and not entry.mode & 0o1000:
        return "may be written by everybody"
    return "may be read by everybody" if entry.mode & 0o004 and not entry.directory else ""


def _access(facts: Facts) -> Findings:
    if facts.disk is None:
        yield unknown("file_access", facts.missing.get("disk", "the files were not looked at"))
        return
    if facts.user is None:
        yield unknown("file_access", facts.missing.get("user", "whom the server runs as is not known"))
    closed, foreign = _not_the_servers(facts)
    open_to_all = _open_to_all(facts, facts.disk.place.dir)
    if closed and facts.user is not None:
        yield found(
            "file_access", "critical", f"the server (user {facts.user[0]}) may not read and write {', '.join(closed)}"
        )
    for words in (", ".join(open_to_all), f"of another owner than the server: {', '.join(foreign)}" if foreign else ""):
        if words:
            yield found("file_access", "warning", words)
    if facts.user is not None and not (closed or open_to_all or foreign):
        yield found(
            "file_access", "ok", f"{len(facts.access)} files and directories are the server's, and closed to others"
        )


def _spelled(entry: FileAccess) -> str:
    return f"{entry.path} ({entry.uid}:{entry.gid} {entry.mode:04o})"


def _not_the_servers(facts: Facts) -> tuple[list[str], list[str]]:
    """What the server may not read and write, and what it may though it is another's."""
    closed: list[str] = []
    foreign: list[str] = []
    for entry in facts.access if facts.user is not None else ():
        if not _may(entry, facts.user, 7 if entry.directory else 6):
            closed.append(_spelled(entry))
        elif facts.user[0] not in (0, entry.uid):
            foreign.append(_spelled(entry))
    return closed, foreign


def _open_to_all(facts: Facts, top: str) -> list[str]:
    """What every user of the host may read or write. What lies in a directory that others may not enter is closed to them."""
    entered = all(entry.mode & 0o001 for entry in facts.access if entry.path == top)
    words = [(entry, _for_everybody(entry, entered or entry.path == top)) for entry in facts.access]
    return [f"{_spelled(entry)} {may}" for entry, may in words if may]


# Drives


def _not_reported(code: str, because: str) -> Finding:
    """A machine without drives or sensors of its own is no trouble."""
    return Finding(code, "info", f"not known, because {because}")


def _drives(facts: Facts) -> Findings:
    host = facts.host
    if host.drives is None:
        yield _not_reported("drive_failing", host.because.get("drives", "smartctl was not asked"))
    for drive in host.drives or ():
        parts = []
        if drive.passed is False:
            parts.append("its own verdict is that it fails")
        if drive.bad_sectors:
            parts.append(f"{drive.bad_sectors} bad sectors or media errors")
        if drive.worn is not None and drive.worn >= 90:
            parts.append(f"{drive.worn} % of its life is used")
        severity = "critical" if drive.passed is False else "warning" if parts else "ok"
        yield found("drive_failing", severity, f"{drive.name}: {', '.join(parts) or 'it finds itself well'}")
        if drive.degrees is not None and drive.limit and drive.degrees >= drive.limit:
            yield found(
                "temperature", "warning", f"{drive.name}: {drive.degrees:.0f} °C, its limit is {drive.limit:.0f} °C"
            )


def _temperatures(facts: Facts) -> Findings:
    sensors = facts.host.sensors
    if sensors is None:
        yield _not_reported("temperature", facts.host.because.get("sensors", "sensors was not asked"))
        return
    hot = [one for one in sensors if any(limit and one.degrees >= limit for limit in (one.high, one.critical))]
    for one in hot:
        over = bool(one.critical) and one.degrees >= (one.critical or 0)
        limit = one.critical if over else one.high
        severity = "critical" if over else "warning"
        yield found("temperature", severity, f"{one.name}: {one.degrees:.0f} °C, its limit is {limit:.0f} °C")
    if not hot:
        highest = max((one.degrees for one in sensors), default=None)
        yield found(
            "temperature", "ok", "no sensor" if highest is None else f"at most {highest:.0f} °C, below every limit"
        )


def host_findings(facts: Facts, objectives: Objectives) -> Findings:
    """Of a server that runs, or would run, on this host."""
    yield from _kernel(facts)
    if facts.answers:
        yield from _open_files(facts)
        yield from _memory(facts, objectives)
    yield from _load(facts)
    if facts.answers:
        yield from _aof_on_disk(facts, objectives)
    yield from _room(facts)
    if facts.answers:
        yield from _access(facts)
    yield from _drives(facts)
    yield from _temperatures(facts)
