# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions of redis_persistence: what a start would load, what to change, what to refuse.

The one question behind every refusal is :func:`start_loads`: if the server started from this file and this directory now,
where would its data come from? A plan may never turn an answer with data into ``nothing``.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import (
    file_change,
    live_change,
    needs_restart,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive

__all__ = [
    "PLACE",
    "Plan",
    "Situation",
    "Wanted",
    "crash_loss",
    "plan_persistence",
    "require_listed",
    "require_rdb_is_the_data",
    "require_wanted",
    "start_loads",
]

#: The directives that say where the data is; a start with another value does not find it.
PLACE = ("dir", "dbfilename", "appenddirname", "appendfilename")
_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Declared values in normal form (and as they were spelled); a directive that is not declared is not in ``values``."""

    values: dict[str, str]
    spelled: dict[str, str] = dataclasses.field(default_factory=dict)
    allow_no_persistence: bool = False

    @property
    def aof(self) -> bool:
        return self.values["appendonly"] == "yes"


@dataclasses.dataclass(frozen=True)
class Situation:
    """Everything the decision needs.

    ``disk`` is where the data is now: by the live server, else by the file, or (stopped, and nothing there) by the declaration.
    ``leaves_data``: there is data at the place that the live server or the file names.
    ``dir_is_missing``: the declared data directory does not exist.
    ``aof_in_use``: the AOF on disk is complete, and the one the live server appends to.

    ``declared`` is what lies at the declared place where a running server is turned to another one.
    ``rdb_reason`` is the check tool's complaint about the RDB file (None: sound, or not checked because it is not needed).
    """

    path: str
    directives: t.Sequence[Directive]
    in_file: t.Mapping[str, str]
    disk: DataFiles
    running: bool = False
    live: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    keys: int = 0
    used_memory: int = 0
    rewriting: bool = False
    aof_in_use: bool = False
    rdb_reason: t.Optional[str] = None
    declared: t.Optional[DataFiles] = None
    fresh_install: bool = False
    dir_is_missing: bool = False
    leaves_data: bool = False


@dataclasses.dataclass
class Plan:
    """``changes`` in the order of the work; the flags say which of the guarded steps it takes.

    ``live`` is set before the file is written, ``late`` after it: what weakens durability (save points, the AOF) stays in
    force until the file says what replaces it, so that a run that is cut off in between leaves the stronger of the two.
    """

    changes: list[Change] = dataclasses.field(default_factory=list)
    live: dict[str, str] = dataclasses.field(default_factory=dict)
    late: dict[str, str] = dataclasses.field(default_factory=dict)
    disarm_file: bool = False
    save_first: bool = False
    aof_live: t.Optional[str] = None  # "on", "rewrite" or "wait"
    convert: bool = False
    set_aside: bool = False
    make_dir: t.Optional[str] = None
    restart_required: list[str] = dataclasses.field(default_factory=list)


def start_loads(values: t.Mapping[str, str], disk: DataFiles) -> str:
    """What a start from these file values would load from ``disk``: ``aof``, ``rdb``, ``fails`` or ``nothing``."""
    if values.get("appendonly") == "yes":
        if disk.manifest:
            return "fails" if disk.missing else "aof"
        return "aof" if disk.old_style_aof else "nothing"
    return "rdb" if disk.rdb_bytes is not None else "nothing"


def require_listed(disk: DataFiles) -> None:
    """The manifest names every file that has data. Raises Refusal."""
    if disk.unlisted:
        raise Refusal(
            "aof_unlisted",
            f"{disk.place.manifest} does not name {', '.join(disk.unlisted)}, which is not older than what it names: a start would go on without "
            "what is in there",
            "a manifest that names every file with data, as it was",
            "run redis_repair, which can write the manifest anew from the files; or move the file aside if its data is not wanted",
        )


def require_wanted(wanted: Wanted) -> None:
    """Refuse declarations that contradict themselves, whatever the host looks like."""
    values = wanted.values
    if not wanted.aof and not values["save"] and not wanted.allow_no_persistence:
        raise Problem(
            "no_persistence",
            "appendonly is false and save is empty: this would keep the data in memory only",
            "at least one of AOF and RDB",
            "set appendonly: true or save points; for a pure cache set allow_no_persistence: true",
        )
    if not wanted.aof and values.get("aof-timestamp-enabled") == "yes":
        raise Problem(
            "contradiction",
            "aof_timestamp_enabled is true and appendonly is false: there is no AOF that could hold timestamps",
            "settings that agree",
            "set appendonly: true or aof_timestamp_enabled: false",
        )
    if wanted.aof and values["appendfsync"] == "always" and values.get("no-appendfsync-on-rewrite") == "yes":
        raise Problem(
            "contradiction",
            "appendfsync is always and no_appendfsync_on_rewrite is true: the first means that no acknowledged write "
            "is lost, the second stops syncing during every rewrite",
            "settings that agree",
            "set no_appendfsync_on_rewrite: false, or appendfsync: everysec",
        )


def _require_place(now: Situation, wanted: Wanted) -> None:
    """The data must still be found by the next start."""
    current = now.live if now.running else now.in_file
    for name in PLACE:
        want = wanted.values.get(name)
        if want is None or want == current.get(name):
            continue
        if now.leaves_data:
            option = name.replace("-", "_")
            what = f"{now.keys} keys" if now.running else "data files"
            raise Refusal(
                "place_has_data",
                f"{name} is {current.get(name)} and there are {what} in it ({now.disk.place.dir}); {option} asks for {want}",
                "no data at the old place: Redis does not move it, and would start EMPTY with the new one",
                f"set {option}: {current.get(name)}; or stop the server, move the files yourself, and run again",
            )


def _require_declared_place(now: Situation, wanted: Wanted) -> None:
    """What lies at the declared place is what the next start finds there. Raises Refusal."""
    there = now.declared
    if there is None or not there.any:
        return
    loads = start_loads({**now.in_file, **wanted.values}, there)
    if loads in ("aof", "rdb"):
        return
    appendonly = wanted.values["appendonly"]
    words = "would fail on" if loads == "fails" else "would pass over"
    raise Refusal(
        "place_holds_data",
        f"there is data in {there.place.dir}, and a restart with appendonly {appendonly} {words} it: the server that runs has {now.keys} keys and "
        "works in another directory",
        "a stopped server: then what lies there becomes its data",
        "stop the server (systemctl stop, or redis-cli SHUTDOWN), then run again: what lies there is converted before the start",
    )


def _require_disk(now: Situation, bytes_needed: int, what_for: str) -> None:
    if now.disk.free_bytes < bytes_needed:
        raise Refusal(
            "disk_space",
            f"{now.disk.free_bytes // _MIB} MiB are free in {now.disk.place.dir}, {what_for} needs about {bytes_needed // _MIB} MiB",
            "room for a whole copy of the data next to what is there",
            "free space or enlarge the file system, then run again",
        )


def _rewrite_bytes(now: Situation) -> int:
    """What a rewritten AOF may take: 1.5 times the last RDB file, or the memory in use where there is none."""
    by_rdb = (now.disk.rdb_bytes or 0) * 3 // 2
    return (by_rdb if by_rdb > _MIB else now.used_memory) + 16 * _MIB


def _plan_live(now: Situation, wanted: Wanted, plan: Plan) -> list[Change]:
    """Differences that CONFIG SET removes, into ``live`` or ``late``; gives the changes that come after the file."""
    after_file = []
    for name, want in wanted.values.items():
        change = live_change(now.live, name, want)
        if change is None or (name == "appendonly" and wanted.aof):
            continue
        if needs_restart(name, now.live):
            plan.restart_required.append(name)
        elif name == "appendonly" or (name == "save" and not want):
            plan.late[name] = want
            after_file.append(change)
        else:
            plan.live[name] = want
            plan.changes.append(change)
    return after_file


def _plan_running(now: Situation, wanted: Wanted, plan: Plan) -> list[Change]:
    """Fill the plan for a running server; gives the changes that come after the file."""
    aof_is_on, file_says_on = now.live["appendonly"] == "yes", now.in_file["appendonly"] == "yes"
    plan.disarm_file = wanted.aof and file_says_on and not aof_is_on
    if plan.disarm_file or (not wanted.aof and (aof_is_on or file_says_on)):
        # From here on a crash is answered by the RDB file: it has to be there, and to hold everything.
        plan.save_first = True
        plan.changes.append(Change("disk", now.disk.place.rdb, None, None, "BGSAVE and wait for it to end well"))
    after_file = _plan_live(now, wanted, plan)
    if wanted.aof and not aof_is_on:
        _require_disk(now, _rewrite_bytes(now), "the first AOF")
        plan.aof_live = "on"
        words = "CONFIG SET appendonly yes, wait for the rewrite to end well, verify its files"
        if now.disk.manifest or now.disk.orphans or now.disk.old_style_aof:
            words = f"keep what lies there of an older AOF by hard links, {words}"
        if plan.disarm_file:
            words = f"write appendonly no to {now.path} until the AOF is verified, {words}"
        plan.changes.append(Change("live", "appendonly", "no", "yes", words))
    elif wanted.aof and not now.aof_in_use:
        plan.aof_live = "wait" if now.rewriting else "rewrite"
        if plan.aof_live == "rewrite":
            _require_disk(now, _rewrite_bytes(now), "rewriting the AOF")
        words = "wait for the AOF rewrite" if now.rewriting else "BGREWRITEAOF, because the AOF on disk is not complete"
        words += ", verify its files"
        plan.changes.append(
            Change("disk", now.disk.place.manifest, "incomplete" if now.disk.manifest else None, "complete", words)
        )
    return after_file


def require_rdb_is_the_data(path: str, disk: DataFiles) -> None:
    """Where a start would read the RDB file or nothing, an AOF next to it must be the older of the two. Raises Refusal."""
    if disk.rdb_bytes is None and (disk.manifest or disk.old_style_aof):
        raise Refusal(
            "aof_switched_off",
            f"{path} says appendonly no, but the only data in {disk.place.dir} is an AOF",
            "to know whether that AOF is wanted",
            f"to use it, write appendonly yes to {path} yourself; otherwise move it aside",
        )
    if disk.old_style_aof or (disk.manifest and disk.aof_mtime > disk.rdb_mtime):
        raise Refusal(
            "which_is_newer",
            f"{path} says appendonly no, and {disk.place.dir} holds both {disk.place.dbfilename} and an AOF"
            + ("" if disk.old_style_aof else " that was written to later"),
            "to know which of the two is the data",
            "start the server as it is configured, look at the data, and run again; or move the one that is not wanted aside",
        )


def _plan_stopped(now: Situation, wanted: Wanted, plan: Plan) -> None:
    disk = now.disk
    loads = start_loads(now.in_file, disk)
    if loads in ("rdb", "nothing") and now.in_file["appendonly"] == "no":
        require_rdb_is_the_data(now.path, disk)
    if not wanted.aof:
        if loads == "aof":
            raise Refusal(
                "stopped_with_aof",
                f"the server is stopped and its data is in the AOF ({disk.place.aof_dir}); without it a start would load "
                + ("an older RDB file" if disk.rdb_bytes is not None else "nothing"),
                "a running server, which can save all of it to an RDB file first",
                "start the server, then run again",
            )
        return
    if loads == "fails":
        raise Refusal(
            "aof_incomplete",
            f"the server is stopped and {disk.place.manifest} names files that are not there: {', '.join(disk.missing)}",
            "a complete AOF",
            "restore the missing files or a backup; the server does not start like this",
        )
    if loads == "aof":
        require_listed(disk)
        return
    if disk.orphans:
        raise Refusal(
            "aof_without_manifest",
            f"{disk.place.aof_dir} holds AOF files ({', '.join(disk.orphans)}) but no {disk.place.appendfilename}.manifest; "
            "a start with AOF on would ignore them and begin EMPTY",
            "a manifest that names them, or the directory out of the way",
            "restore the manifest from a backup, or move the directory aside if its data is not wanted",
        )
    if disk.rdb_bytes is None:
        return  # nothing there: the first start creates the AOF
    if now.rdb_reason is not None:
        raise Refusal(
            "rdb_unsound",
            f"{disk.place.rdb} does not pass redis-check-rdb: {now.rdb_reason}",
            "a sound RDB file to build the AOF from",
            "restore it from a backup; it has not been touched",
        )
    _require_disk(now, disk.rdb_bytes + _MIB, "the AOF made from the RDB file")
    plan.convert, plan.set_aside = True, bool(disk.manifest)
    words = f"copy {disk.place.rdb} to be the base of a new AOF in {disk.place.aof_dir}, manifest last"
    if plan.set_aside:
        words = f"move the older {disk.place.aof_dir} aside, " + words
    plan.changes.append(Change("disk", disk.place.manifest, "older" if plan.set_aside else None, "complete", words))


def plan_persistence(now: Situation, wanted: Wanted) -> Plan:
    """The way from ``now`` to ``wanted``. Raises Refusal where it cannot be shown that no acknowledged write is lost."""
    require_wanted(wanted)
    _require_place(now, wanted)
    _require_declared_place(now, wanted)
    plan = Plan()
    if now.dir_is_missing:
        plan.make_dir = wanted.values["dir"]
        plan.changes.append(Change("disk", plan.make_dir, None, "directory", f"make {plan.make_dir}"))
    after_file: list[Change] = []
    if now.running:
        after_file = _plan_running(now, wanted, plan)
    else:
        _plan_stopped(now, wanted, plan)
    for name, want in wanted.values.items():
        if now.fresh_install:
            change: t.Optional[Change] = Change("file", name, None, want or '""', f"write {name} to {now.path}")
        else:
            change = file_change(now.directives, name, want, now.path)
        if change:
            plan.changes.append(change)
    plan.changes += after_file
    return plan


def crash_loss(
    values: t.Mapping[str, str],
    unsaved_writes: t.Optional[int],
    seconds_since_save: t.Optional[int],
    on_disk: bool = True,
) -> dict[str, t.Any]:
    """What a power cut now would cost: ``seconds`` of writes at most (None: no bound), and how that was computed.

    ``on_disk``: what the values rely on is there, the server's complete AOF or an RDB file that it saved or loaded.
    """
    if not on_disk:
        return {
            "seconds": None,
            "writes": None,
            "text": "all keys",
            "how": "the disk has neither a complete AOF that the server writes to nor an RDB file that it saved or loaded",
        }
    if values.get("appendonly") == "yes":
        seconds, how = {
            "always": (0, "every write is synced before it is acknowledged"),
            "everysec": (2, "synced every second; a write may wait one second more while a sync is under way"),
        }.get(values.get("appendfsync", ""), (30, "left to the kernel, which usually writes back within 30 seconds"))
        if values.get("no-appendfsync-on-rewrite") == "yes":
            seconds = max(seconds, 30)
            how += "; no-appendfsync-on-rewrite: nothing is synced while a rewrite or a save runs, and the kernel writes back within 30 seconds"
        return {
            "seconds": seconds,
            "writes": None,
            "text": f"up to {seconds} s of writes",
            "how": f"AOF, appendfsync: {how}",
        }
    if values.get("save"):
        known = unsaved_writes is not None
        if known and seconds_since_save is None:
            text = f"{unsaved_writes} writes since the last save; the clock is before it"
            return {
                "seconds": None,
                "writes": unsaved_writes,
                "text": text,
                "how": "RDB only: changes since the last save",
            }
        if unsaved_writes:
            seconds_since_save = max(t.cast(int, seconds_since_save), 1)  # both clocks tell whole seconds
        text = (
            f"{unsaved_writes} writes of the last {seconds_since_save} s"
            if known
            else "all writes since the last RDB file"
        )
        return {
            "seconds": seconds_since_save,
            "writes": unsaved_writes,
            "text": text,
            "how": "RDB only: changes since the last save",
        }
    return {"seconds": None, "writes": None, "text": "all keys", "how": "neither AOF nor RDB"}
