# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guarded steps of redis_persistence on a real server and a real disk."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile, AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import (
    aof_in_use,
    base_is_sound,
    require_rdb_is_known,
    torn_transaction,
    unread_rdb,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.keep import is_kept, keep, paths_of_aof
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE, start_loads
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedTwin, fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = [
    "bring_aof_up",
    "convert_offline",
    "heal_torn",
    "keep_unloaded",
    "keep_unread",
    "place_of",
    "rewrite_aof",
    "settle_aof",
    "torn_changes",
    "unloaded_changes",
    "unread_changes",
    "verified_save",
]

_RESUMABLE = "nothing has been written to the file; run again, it goes on from here"


def _rdb_identity(place: Place) -> tuple[int, int]:
    """Inode and time of the RDB file; a save replaces the file."""
    try:
        status = os.stat(place.rdb)
    except FileNotFoundError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def keep_unread(host: Host, info: Info, disk: DataFiles) -> str:
    """Before anything replaces it: the RDB file that the running server never loaded, kept. Gives where; empty where there is none.

    Raises Refusal where it cannot be.
    """
    unread = unread_rdb(host, info, disk)
    return keep(disk.place, [unread.path]) if unread else ""


def unread_changes(host: Host, info: Info, disk: DataFiles) -> list[Change]:
    """What keep_unread() is going to do."""
    unread = unread_rdb(host, info, disk)
    if unread is None or is_kept(disk.place, unread.path):
        return []
    words = f"keep {unread.path}, which the running server never loaded, by a hard link"
    return [Change("disk", unread.path, None, None, words)]


def place_of(server: Server) -> Place:
    """Where the running server keeps its data."""
    stated = server.config_get(*PLACE)
    return Place(*(stated.get(name, "") for name in PLACE))


def _unloaded(values: t.Mapping[str, str], disk: DataFiles) -> list[str]:
    """What a start from these values passes over, and the first save after it would replace."""
    rdb, base = disk.place.rdb, disk.manifest and disk.manifest.base
    if start_loads(values, disk) != "aof" or disk.rdb_bytes is None or is_kept(disk.place, rdb):
        return []
    # An AOF that was made of this very file loads it.
    loaded = base is not None and filecmp.cmp(rdb, os.path.join(disk.place.aof_dir, base.name), shallow=False)
    return [] if loaded else [rdb]


def unloaded_changes(values: t.Mapping[str, str], disk: DataFiles) -> list[Change]:
    """What keep_unloaded() is going to do."""
    return [
        Change("disk", path, None, None, f"keep {path}, which the start does not load, by a hard link")
        for path in _unloaded(values, disk)
    ]


def keep_unloaded(values: t.Mapping[str, str], disk: DataFiles) -> str:
    """Before a start: the RDB file that it does not load, kept. Gives where; empty where there is none. Raises Refusal."""
    return keep(disk.place, _unloaded(values, disk))


def verified_save(server: Server, host: Host, timeout: float, tick: t.Callable[[], None] = lambda: None) -> Info:
    """BGSAVE, and proof that a new RDB file was completed. Gives the INFO after it. Raises Problem otherwise.

    ``tick`` is called while it waits. Counters and status alone verify nothing: a child that was told to end leaves ``ok``.
    What the file replaces was loaded or written by this process, or is kept; it is refused where that holds far more than the server.
    """
    latest: list[Info] = [server.info()]
    place = place_of(server)

    def idle() -> bool:
        tick()
        latest[:] = [server.info()]
        busy = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        return not any(latest[0].flag(name) for name in busy)

    if not wait_for(idle, timeout):
        raise Problem(
            "save_timeout", f"a save or rewrite is still running after {timeout:g} seconds", "an idle server",
            "wait for it and run again, or set a longer timeout",
        )  # fmt: skip
    disk = scan(place)
    require_rdb_is_known(host, latest[0], disk)
    keep_unread(host, latest[0], disk)
    tick()
    old, saves = _rdb_identity(place), latest[0].number("rdb_saves")
    try:
        server.command("BGSAVE", "SCHEDULE")
    except CommandError as error:
        raise Problem(
            "save_failed", f"BGSAVE was refused: {error.text}", "a verified save", "look into the server's log"
        ) from None
    ended = wait_for(
        lambda: idle() and (latest[0].number("rdb_saves") > saves or latest[0].text("rdb_last_bgsave_status") != "ok"),
        timeout,
    )
    status = latest[0].text("rdb_last_bgsave_status")
    if not ended or status != "ok" or _rdb_identity(place) == old:
        raise Problem(
            "save_failed",
            f"BGSAVE did not end well: rdb_last_bgsave_status:{status}"
            + ("" if _rdb_identity(place) != old else ", no new RDB file"),
            "a verified save",
            "look into the server's log: a full disk, missing memory for fork (vm.overcommit_memory) and wrong owners are the usual causes",
        )
    return latest[0]


def settle_aof(server: Server, host: Host, place: Place, timeout: float, failures: t.Optional[int] = None) -> None:
    """Wait until no rewrite runs or is due, and verify the AOF on disk. Raises Problem.

    ``failures``: how many rewrites in a row had failed before the one that is waited for (None: ask the server).
    """
    latest: list[Info] = [server.info()]
    failures = latest[0].number("aof_rewrites_consecutive_failures") if failures is None else failures

    def settled() -> bool:
        latest[:] = [server.info()]
        info = latest[0]
        # Redis schedules a first rewrite that failed again and again: waiting for the end of that is waiting for ever.
        if info.number("aof_rewrites_consecutive_failures") > failures:
            return True
        return not info.flag("aof_rewrite_in_progress") and not info.flag("aof_rewrite_scheduled")

    if not wait_for(settled, timeout):
        raise Problem(
            "rewrite_timeout",
            f"the AOF rewrite is still running after {timeout:g} seconds; {_RESUMABLE}",
            "",
            "set a longer timeout",
        )
    info = latest[0]
    if not info.flag("aof_enabled") or info.text("aof_last_bgrewrite_status") != "ok":
        raise Problem(
            "rewrite_failed",
            f"the AOF rewrite did not end well: aof_enabled:{info.text('aof_enabled')} "
            f"aof_last_bgrewrite_status:{info.text('aof_last_bgrewrite_status')}",
            "a complete first AOF",
            "look into the server's log: a full disk, missing memory for fork and wrong owners are the usual causes",
        )
    disk = scan(place)
    if not aof_in_use(host, info.number("process_id"), disk) or not base_is_sound(host, disk):
        raise Problem(
            "aof_not_verified",
            f"Redis reports a good AOF rewrite, but the files that {place.manifest} names are not complete, not the ones the "
            "server writes to, or their base does not pass redis-check-rdb",
            "a complete AOF on disk",
            f"look at {place.aof_dir} and at the server's log",
        )


def rewrite_aof(server: Server, place: Place) -> None:
    """BGREWRITEAOF; the files that it may delete, and that the server does not write to, are kept first. Raises Problem."""
    keep(place, paths_of_aof(scan(place)))
    server.command("BGREWRITEAOF")


def torn_changes(info: Info, disk: DataFiles) -> list[Change]:
    """What heal_torn() is going to do."""
    torn = torn_transaction(info, disk)
    words = "BGREWRITEAOF and wait for it to end well: the next start would throw away all that was written behind a transaction without its end"
    return [Change("disk", disk.place.manifest, f"open at offset {torn.offset}", "whole", words)] if torn else []


def heal_torn(server: Server, host: Host, place: Place, timeout: float) -> None:
    """Before a stop: an AOF in which a crash left a transaction without its end is written anew, of what the server holds. Raises Problem."""
    info = server.info()
    if torn_transaction(info, scan(place)):
        rewrite_aof(server, place)
        settle_aof(server, host, place, timeout, info.number("aof_rewrites_consecutive_failures"))


def bring_aof_up(server: Server, host: Host, place: Place, timeout: float) -> None:
    """Turn AOF on in the live server and verify the files. On failure it is off again. Raises Problem.

    The rewrite deletes what lies there of an older AOF: that is kept first, since this process never loaded it.
    """
    before = server.info("persistence")
    keep(place, paths_of_aof(scan(place)))
    try:
        server.command("CONFIG", "SET", "appendonly", "yes")
        if "aof_rewrites" in before.fields:
            rewrites = before.number("aof_rewrites")
            wait_for(lambda: _rewrite_counted(server.info("persistence"), rewrites), timeout)
        settle_aof(server, host, place, timeout, before.number("aof_rewrites_consecutive_failures"))
    except Problem as problem:
        if problem.code == "rewrite_timeout":
            raise  # it may yet end well, and a second run picks it up
        try:
            server.command("CONFIG", "SET", "appendonly", "no")
        except Problem:
            pass
        text = problem.text if isinstance(problem, CommandError) else problem.detected
        raise Problem(
            "aof_not_turned_on", f"AOF could not be turned on, and is off again: {text}", problem.needs,
            problem.do or "look into the server's log: memory for fork, disk space and owners of the data directory",
        ) from None  # fmt: skip


def _rewrite_counted(info: Info, before: int) -> bool:
    """The initial status is ``ok`` before any rewrite ended: only the counter, or a failure, tells that one did."""
    return info.number("aof_rewrites") > before or info.text("aof_last_bgrewrite_status") != "ok"


def convert_offline(disk: DataFiles, set_aside: bool, now: t.Callable[[], float] = time.time) -> t.Optional[str]:
    """Make the stopped server's RDB file the base of a new AOF. Gives the path the older AOF was moved to, if any.

    Built in a directory of another name and renamed into place: a cut at any point leaves the RDB file as it was, and
    either no AOF directory or a complete one.
    """
    place = disk.place
    building = place.aof_dir + ".redisops-new"
    shutil.rmtree(building, ignore_errors=True)  # what a run that was cut off may have left
    status = os.stat(place.rdb)
    base = AofFile(place.appendfilename + ".1.base.rdb", 1, "b")
    moved = None
    try:
        os.mkdir(building, 0o750)
        os.chown(building, status.st_uid, status.st_gid, follow_symlinks=False)
        target = os.path.join(building, base.name)
        with open(place.rdb, "rb") as source, open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)
            copy.flush()
            os.fchown(copy.fileno(), status.st_uid, status.st_gid)
            os.fchmod(copy.fileno(), status.st_mode & 0o777)
            os.fsync(copy.fileno())
        # No newer than its source, so that a run that is cut off before it writes the file is not taken for a newer AOF.
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        manifest = os.path.join(building, place.appendfilename + ".manifest")
        StagedTwin(manifest, AofManifest((base,)).render(), target).commit()
        if set_aside:
            moved = f"{place.aof_dir}.older-{int(now())}"
            while os.path.lexists(moved):
                moved += "-"
            os.rename(place.aof_dir, moved)
        elif os.path.isdir(place.aof_dir):
            os.rmdir(place.aof_dir)  # the scan found nothing in it; anything else makes this fail, and that is right
        os.rename(building, place.aof_dir)
        fsync_dir(place.dir)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise Problem(
            "convert_failed", f"the AOF could not be made from {place.rdb}: {error.strerror or error}; the RDB file is unchanged",
            f"a writable {place.dir} with room for a copy", "see to that, then run again",
        ) from None  # fmt: skip
    return moved
