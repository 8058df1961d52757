# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings on what a server keeps: RDB, AOF, the next start."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.exposure import (
    configured_durability,
    crash_loss_now,
    rdb_age,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts, Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import Finding, ago, found, unknown
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE, start_loads
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import save_points

__all__ = ["persistence_findings"]

#: A save may begin this much later than its save point says, and its end is noticed by then.
_SLACK = 60
#: A fork that takes longer is reported; one of a second is a trouble.
_FORK_INFO, _FORK_WARNING = 200_000, 1_000_000

Findings = t.Iterator[Finding]


def _no_field(code: str, name: str) -> Finding:
    return unknown(code, f"INFO of this server has no {name}")


def _flag(facts: Facts, code: str, name: str, severity: str, bad: str, good: str) -> Findings:
    """A field that is ``ok`` where all is well."""
    value = facts.info.fields.get(name)
    if value is None:
        yield _no_field(code, name)
    elif value != "ok":
        yield found(code, severity, f"{name} is {value}{bad}")
    else:
        yield found(code, "ok", good)


def _configured_durability(facts: Facts, objectives: Objectives) -> Findings:
    kept = configured_durability(facts)
    if not kept:
        yield unknown("no_persistence", facts.missing.get("live", "CONFIG GET does not say what is kept"))
    elif kept == "nothing":
        meant = objectives.no_persistence
        keys = f"{facts.info.keys} keys"
        yield found(
            "no_persistence", "info" if meant else "critical", f"neither AOF nor RDB is on; {keys} are in memory only"
        )
    else:
        yield found("no_persistence", "ok", kept)


def _crash_loss(facts: Facts, objectives: Objectives) -> Findings:
    crash_loss = crash_loss_now(facts)
    if not crash_loss["known"]:
        yield found("crash_loss_too_large", "unknown", str(crash_loss["how"]))
        return
    seconds = crash_loss["seconds"]
    seen = f"a power cut now would cost {crash_loss['text']} ({crash_loss['how']})"
    if not objectives.crash_loss:
        yield found("crash_loss_too_large", "ok", f"{seen}; no objective is set")
    elif seconds is None or seconds > objectives.crash_loss:
        yield found("crash_loss_too_large", "critical", f"{seen}; the objective is {objectives.crash_loss} s")
    else:
        yield found("crash_loss_too_large", "ok", f"{seen}; the objective is {objectives.crash_loss} s")


_WOULD_LOAD = {
    "nothing": "load NOTHING", "rdb": "load the RDB file, and not the AOF", "aof": "load the AOF that is out of use",
}  # fmt: skip
_LOADS = {"aof": "the AOF", "rdb": "the RDB file", "nothing": "nothing, as there is no file yet"}


def _next_start(facts: Facts) -> Findings:
    """The one question behind everything: what would a start load?"""
    if facts.in_file is None or facts.disk is None or facts.live is None:
        looks = (("in_file", facts.in_file), ("disk", facts.disk), ("live", facts.live))
        because = (facts.missing.get(name, f"{name} was not read") for name, value in looks if value is None)
        yield unknown("next_start", "; ".join(dict.fromkeys(because)))
    elif facts.live.get("appendonly") is None:
        yield unknown("next_start", "CONFIG GET does not say whether the AOF is on")
    else:
        trouble = _declared_twice(facts) or _start_trouble(facts, facts.disk, facts.live, facts.in_file)
        loads = start_loads(facts.in_file, facts.disk)
        yield found("next_start", *(trouble or ("ok", f"a start would load {_LOADS[loads]}")))


def _declared_twice(facts: Facts) -> t.Optional[tuple[str, str]]:
    if not facts.twice:
        return None
    return (
        "critical",
        f"a start would fail: {'; '.join(facts.twice)} (CONFIG REWRITE copies lines of an include into the main file)",
    )


def _left_out(facts: Facts) -> t.Optional[tuple[str, str]]:
    """What lies on the disk and a start leaves out, whatever is declared; None where nothing does."""
    on_disk, disk = facts.on_disk, facts.disk
    if on_disk is None or disk is None:
        return None
    if on_disk.unlisted:
        words = (
            f"{', '.join(on_disk.unlisted)} in {disk.place.aof_dir} is not named by the manifest, and is no leftover"
        )
        return "critical", f"a start would leave data out: {words}"
    if on_disk.empty_nodes and disk.any and not facts.answers:
        return (
            "critical",
            f"{on_disk.empty_nodes} is empty: a start would take a new id, and claim the slots of its keys for that",
        )
    return None


def _start_trouble(
    facts: Facts, disk: DataFiles, live: t.Mapping[str, str], file: t.Mapping[str, str]
) -> t.Optional[tuple[str, str]]:
    """How bad, and in what way, a start would load something else than the process has; None where it would not."""
    loads, on = start_loads(file, disk), live.get("appendonly")
    moved = [name for name in PLACE if name in live and file.get(name) is not None and file[name] != live[name]]
    if moved:
        words = ", ".join(f"{name} is {live[name]} and the file says {file[name]}" for name in moved)
        return "critical", f"a start would look elsewhere for the data: {words}"
    if loads == "fails":
        return "critical", f"a start would fail: {', '.join(disk.missing)} is named by the manifest and is not there"
    if file.get("appendonly") != on:
        words = f"appendonly is {on}, and {facts.config_file} says {file.get('appendonly')}: a start would {_WOULD_LOAD[loads]}"
        return "critical" if facts.info.keys else "warning", words
    if loads == "nothing" and on == "yes" and facts.info.keys and not facts.info.flag("aof_rewrite_in_progress"):
        return "critical", f"a start would load NOTHING: {disk.place.manifest} is not there"
    return _left_out(facts) if loads == "aof" else None


def _rdb_saves(facts: Facts) -> Findings:
    info = facts.info
    stops = facts.setting("stop-writes-on-bgsave-error") == "yes" and bool(facts.setting("save"))
    refuses = "; writes are refused (MISCONF)" if stops else ""
    yield from _flag(facts, "rdb_save_failed", "rdb_last_bgsave_status", "critical", refuses, "the last save went well")
    save, changes, last = (
        facts.setting("save"),
        info.fields.get("rdb_changes_since_last_save"),
        info.number("rdb_last_save_time"),
    )
    if save and changes is not None and last and not info.flag("loading"):
        age = facts.now - last
        lasts = max(0, info.number("rdb_last_bgsave_time_sec"))
        busy = info.flag("rdb_bgsave_in_progress")
        due = [
            (seconds, count)
            for seconds, count in save_points(save.split())
            if age > seconds + _SLACK + lasts and int(changes) >= count
        ]
        if due and not busy:
            seconds, count = due[0]
            yield found(
                "save_overdue",
                "warning",
                f"{changes} changes in {ago(age)}, and the save point {seconds} {count} brought no save",
            )
        else:
            yield found("save_overdue", "ok", "no save point is overdue")
    if facts.setting("stop-writes-on-bgsave-error") == "no" and save:
        yield found("save_errors_ignored", "warning", "stop-writes-on-bgsave-error is no")
    if facts.setting("rdbchecksum") == "no":
        yield found("rdb_unchecked", "warning", "rdbchecksum is no")


def _rdb_file(facts: Facts) -> Findings:
    info, disk = facts.info, facts.disk
    if disk is None:
        yield unknown("rdb_age", facts.missing.get("disk", "the files were not looked at"))
        return
    age = rdb_age(facts)
    if facts.never_loaded:
        yield found("rdb_never_loaded", "critical", facts.never_loaded)
    if facts.on_disk and facts.on_disk.kept:
        yield found("data_kept", "info", f"{', '.join(facts.on_disk.kept)} holds what no running server had loaded")
    if age is None:
        was_there = info.number("rdb_saves") or info.number("rdb_last_load_keys_loaded")
        if was_there and info.keys and facts.setting("appendonly") != "yes" and facts.setting("save"):
            yield found(
                "rdb_missing",
                "critical",
                f"{disk.place.rdb} is not there; INFO says that it was saved {info.text('rdb_saves', '?')} times",
            )
        else:
            yield found(
                "rdb_age",
                "ok" if not info.keys or facts.setting("appendonly") == "yes" else "info",
                f"there is no {disk.place.rdb} yet",
            )
        return
    last = info.number("rdb_last_save_time")
    if facts.role == "primary" and info.number("rdb_saves") and last and not info.flag("rdb_bgsave_in_progress"):
        lasts = max(0, info.number("rdb_last_bgsave_time_sec"))
        if disk.rdb_mtime > last + 5 or disk.rdb_mtime < last - lasts - _SLACK:
            newer = "newer" if disk.rdb_mtime > last else "older"
            yield found(
                "rdb_replaced",
                "warning",
                f"{disk.place.rdb} is {ago(abs(disk.rdb_mtime - last))} {newer} than the last save of the server",
            )
    reset = (
        ""
        if info.number("rdb_saves") or not last
        else f"; INFO counts from the start, {ago(max(0.0, facts.now - last))} ago"
    )
    yield found("rdb_age", "ok", f"{disk.place.rdb} was written {ago(age)} ago{reset}")


def _aof(facts: Facts) -> Findings:
    on = facts.setting("appendonly")
    if on is None:
        yield unknown("aof_incomplete", facts.missing.get("live", "CONFIG GET does not say whether the AOF is on"))
        return
    if on != "yes":
        if facts.disk is not None and facts.disk.manifest:
            yield found("aof_out_of_use", "info", f"appendonly is no, and {facts.disk.place.aof_dir} holds an AOF")
        return
    refused = "; writes are refused (MISCONF)"
    yield from _flag(facts, "aof_write_failing", "aof_last_write_status", "critical", refused, "the AOF takes writes")
    yield from _flag(
        facts, "aof_rewrite_failing", "aof_last_bgrewrite_status", "warning", "", "the last rewrite went well"
    )
    yield _aof_files(facts)
    yield _aof_fsync(facts)
    if facts.setting("no-appendfsync-on-rewrite") == "yes":
        yield found("aof_fsync_paused", "info", "no-appendfsync-on-rewrite is yes")


def _aof_files(facts: Facts) -> Finding:
    """Whether the files of the AOF are those that a start needs."""
    disk = facts.disk
    if "manifest" in facts.missing:
        return found("aof_incomplete", "critical", f"a start would fail: {facts.missing['manifest']}")
    if disk is None:
        return unknown("aof_incomplete", facts.missing.get("disk", "the files were not looked at"))
    if disk.missing:
        return found(
            "aof_incomplete", "critical", f"{disk.place.manifest} names {', '.join(disk.missing)}, which is not there"
        )
    if disk.manifest is not None:
        return found("aof_incomplete", "ok", f"the manifest and all {len(disk.manifest.needed)} files are there")
    if disk.old_style_aof:
        return found("aof_incomplete", "ok", f"{disk.place.old_style_aof} is there, the one file of before 7.0")
    busy = facts.info.flag("aof_rewrite_in_progress") or facts.info.flag("aof_rewrite_scheduled")
    words = "; the first rewrite is under way: until it ends, only the RDB file counts" if busy else ""
    return found("aof_incomplete", "warning" if busy else "critical", f"{disk.place.manifest} is not there{words}")


def _torn(facts: Facts) -> Findings:
    """Whether all that was written since a crash would be thrown away by the next start."""
    on_disk = facts.on_disk
    if on_disk is None or facts.setting("appendonly") != "yes":
        return
    if on_disk.unread:
        yield unknown("aof_open_transaction", on_disk.unread)
    elif on_disk.torn:
        yield found("aof_open_transaction", "critical", on_disk.torn)
    else:
        yield found("aof_open_transaction", "ok", "no transaction is open at the end of the AOF")


def _leftovers(facts: Facts) -> Findings:
    if facts.on_disk is None:
        return
    rows = facts.on_disk.leftovers
    if rows:
        size, names = sum(one.size for one in rows), ", ".join(one.path for one in rows[:5])
        oldest = ago(max(one.age for one in rows))
        yield found(
            "temporary_files_left",
            "warning",
            f"{len(rows)} files of {size} bytes, the oldest written to {oldest} ago: {names}",
        )
    else:
        yield found("temporary_files_left", "ok", "no save or rewrite has left its file behind")


def _aof_fsync(facts: Facts) -> Finding:
    """Whether writes wait for the disk."""
    info, later = facts.info, facts.later if facts.later.fields else facts.info
    delayed = info.fields.get("aof_delayed_fsync")
    if delayed is None:
        return _no_field("aof_fsync_delayed", "aof_delayed_fsync")
    more = later.number("aof_delayed_fsync") - int(delayed)
    if more > 0:
        words = f"{more} writes waited for a sync in the last {facts.apart:.1f} s, {delayed} before that"
        return found("aof_fsync_delayed", "warning", words)
    if int(delayed):
        since = ago(info.number("uptime_in_seconds"))
        return found(
            "aof_fsync_delayed", "info", f"{delayed} writes waited for a sync since the start, {since} ago; none now"
        )
    return found("aof_fsync_delayed", "ok", "no write waited for a sync since the start")


def _fork(facts: Facts) -> Findings:
    text = facts.info.fields.get("latest_fork_usec")
    if text is None:
        yield _no_field("fork_slow", "latest_fork_usec")
        return
    microseconds = facts.info.number("latest_fork_usec")
    severity = "warning" if microseconds >= _FORK_WARNING else "info" if microseconds >= _FORK_INFO else "ok"
    seen = f"the last fork took {microseconds / 1000:.1f} ms" if microseconds else "no fork since the start"
    yield found("fork_slow", severity, seen)


def _custody(facts: Facts) -> Findings:
    """Whether the files at the path are this server's, and its alone."""
    if not facts.local or facts.disk is None:
        return
    yield found(
        "data_shared", "critical" if facts.shared else "ok", facts.shared or "no other server has its data files"
    )
    words = facts.not_mounted
    yield found(
        "data_not_mounted", "critical" if words else "ok", words or "every file system that the data needs is mounted"
    )


def _start_of_stopped(facts: Facts) -> Findings:
    """What a server that is down would load."""
    if "manifest" in facts.missing:
        yield found("next_start", "critical", f"a start would fail: {facts.missing['manifest']}")
    elif facts.in_file is None or facts.disk is None:
        yield unknown(
            "next_start", facts.missing.get("in_file") or facts.missing.get("disk", "the files were not looked at")
        )
    else:
        loads = start_loads(facts.in_file, facts.disk)
        trouble = _declared_twice(facts) or _left_out(facts)
        if trouble:
            yield found("next_start", *trouble)
        elif loads == "fails":
            yield found(
                "next_start",
                "critical",
                f"a start would fail: {', '.join(facts.disk.missing)} is named by the manifest and is not there",
            )
        elif loads == "nothing" and facts.disk.any:
            yield found(
                "next_start",
                "critical",
                f"there is data in {facts.disk.place.dir}, and a start would load NOTHING of it",
            )
        else:
            what = {"aof": "the AOF", "rdb": "the RDB file", "nothing": "nothing, and nothing is there"}[loads]
            yield found("next_start", "ok", f"a start would load {what}, if it is sound")


def persistence_findings(facts: Facts, objectives: Objectives) -> Findings:
    """Of a server that answers, all of it; of another, what a start would find."""
    yield from _custody(facts)
    yield from _torn(facts)
    yield from _leftovers(facts)
    if not facts.answers:
        yield from _start_of_stopped(facts)
        return
    yield from _configured_durability(facts, objectives)
    yield from _crash_loss(facts, objectives)
    yield from _next_start(facts)
    yield from _rdb_saves(facts)
    yield from _rdb_file(facts)
    yield from _aof(facts)
    yield from _fork(facts)
