# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every finding on a server's health, from facts that differ from a healthy server's in one thing."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.health.catalogue import MEANINGS
from ansible_collections.redisops.recovery.plugins.module_utils.health.check_host import aof_growth
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import (
    Backups,
    Facts,
    FileAccess,
    HostFacts,
    Leftover,
    LogFacts,
    Objectives,
    OnDisk,
    SentinelFacts,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import (
    SEVERITIES,
    Finding,
    ago,
    ordered,
    reached,
    render_text,
    size_text,
    status_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import LogEvent
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_patterns import KINDS
from ansible_collections.redisops.recovery.plugins.module_utils.health.summary import findings_of, report, title
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile, AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import Known, Watched
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, parse_info
from ansible_collections.redisops.recovery.plugins.module_utils.system.load import DiskUse
from ansible_collections.redisops.recovery.plugins.module_utils.system.requirements import KERNEL_CHECKS
from ansible_collections.redisops.recovery.plugins.module_utils.system.smart import Drive, Sensor

ROOT = pathlib.Path(__file__).resolve().parents[5]
NOW = 1_800_000_000.0
GIB = 2**30
INFO = ROOT / "tests/unit/plugins/module_utils/server/fixtures/info"
PLACE = Place("/var/lib/redis", "dump.rdb", "appendonlydir", "appendonly.aof")
MANIFEST = AofManifest((AofFile("a.1.base.rdb", 1, "b"), AofFile("a.1.incr.aof", 1, "i")))
LIVE = {
    "appendonly": "yes", "appendfsync": "everysec", "save": "3600 1", "dir": PLACE.dir, "dbfilename": PLACE.dbfilename,
    "appenddirname": PLACE.appenddirname, "appendfilename": PLACE.appendfilename, "maxclients": "10000", "tcp-backlog": "511",
    "auto-aof-rewrite-percentage": "100", "auto-aof-rewrite-min-size": "67108864", "stop-writes-on-bgsave-error": "yes", "rdbchecksum": "yes",
    "no-appendfsync-on-rewrite": "no", "notify-keyspace-events": "", "min-replicas-to-write": "0", "logfile": "",
}  # fmt: skip
VERIFIED = {"label": "20270115T080000Z-rdb", "at": NOW - 7200, "state": "verified"}
DRILL = {
    "time": NOW - 86400,
    "ok": True,
    "missed": [],
    "rpo_seconds": 7200.0,
    "rto_seconds": 1.5,
    "phases": {"load": 1.5},
}


def info_of(base: Info, **changes) -> Info:
    """``base`` with other fields; None takes one away."""
    fields = {**base.fields, **{name: str(value) for name, value in changes.items()}}
    return Info({name: value for name, value in fields.items() if changes.get(name, "") is not None}, base.keyspace)


RECORDED = parse_info((INFO / "redis-7.0.15-aof.txt").read_text())
BASE = info_of(
    RECORDED, rdb_last_save_time=int(NOW - 600), rdb_saves=2, rdb_changes_since_last_save=5, uptime_in_seconds=86400, latest_fork_usec=1000,
    rdb_last_bgsave_time_sec=0, aof_current_size=4 * 2**20, aof_base_size=2**20, rdb_last_cow_size=2**20, used_memory_rss=64 * 2**20,
)  # fmt: skip
HEALTHY = Facts(
    now=NOW,
    address="192.0.2.1:6379",
    info=BASE,
    later=BASE,
    apart=1.0,
    live=LIVE,
    in_file=LIVE,
    config_file="/etc/redis/redis.conf",
    user=(100, frozenset([100])),
    disk=DataFiles(PLACE, rdb_bytes=2**20, rdb_mtime=NOW - 600, manifest=MANIFEST, aof_mtime=NOW, free_bytes=50 * GIB),
    base_bytes=2**20,
    base_mtime=NOW - 3600,
    free_inodes=1000,
    access=(FileAccess(PLACE.dir, 100, 100, 0o750, True), FileAccess(PLACE.rdb, 100, 100, 0o660)),
    host=HostFacts(
        overcommit="1",
        thp="never",
        somaxconn=4096,
        open_files=65535,
        memory_left=8 * GIB,
        resident=64 * 2**20,
        swapped=0,
        cpu={"iowait": 0.0, "steal": 0.0},
        io_pressure=0.0,
        disk=DiskUse("sda", 1.0, 2.0, 10.0),
        drives=(Drive("/dev/sda", True, 0, 3, 35, 60),),
        sensors=(Sensor("cpu", 50, 90, 100),),
    ),
    log=LogFacts(sources=("/var/log/redis/redis.log (1 KiB)",)),
    sentinel=SentinelFacts(
        "192.0.2.1:26379",
        tilt=False,
        watched=(Watched("orders", "192.0.2.1:6379", ("master",), {"quorum": "2"}),),
        quorum={"orders": "OK 3 usable Sentinels. Quorum and failover authorization can be reached"},
    ),
    backups=Backups("orders", "/var/backups/redis", (VERIFIED,), (DRILL,), expected=True),
)
NONE = Objectives()


def but(facts: Facts = HEALTHY, **changes) -> Facts:
    """``facts`` with other values; those of a part are given as a dict: ``host={"thp": "always"}``."""
    inner = {}
    for name, value in changes.items():
        whole = isinstance(value, dict) and name in ("host", "log", "sentinel", "backups", "disk")
        inner[name] = dataclasses.replace(getattr(facts, name), **value) if whole else value
    return dataclasses.replace(facts, **inner)


def reported(facts: Facts = HEALTHY, **changes) -> Facts:
    """What INFO says otherwise, in both looks."""
    return dataclasses.replace(facts, info=info_of(facts.info, **changes), later=info_of(facts.later, **changes))


def live(facts: Facts = HEALTHY, **changes) -> Facts:
    """What CONFIG GET and the file say otherwise."""
    values = {**LIVE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return dataclasses.replace(facts, live=values, in_file=values)


RDB_ONLY = live(but(disk={"manifest": None}), appendonly="no")
REPLICA = reported(
    role="slave", master_host="192.0.2.9", master_port="6379", master_link_status="up", master_last_io_seconds_ago=0,
)  # fmt: skip
EMPTY = dataclasses.replace(BASE, keyspace={})


def event(code: str, over: bool = False) -> LogEvent:
    return LogEvent(code, 2, "2027-01-15T07:00:00Z", "2027-01-15T07:30:00Z", "the line", over)


def down(trouble: str = "server_down", **changes) -> Facts:
    return but(
        trouble=trouble,
        because="nothing listens there",
        info=Info({}, {}),
        later=Info({}, {}),
        live=None,
        user=None,
        **changes,
    )


def logged(code: str, **changes) -> Facts:
    kernel = code.startswith(("kernel", "oom"))
    return but(log={"kernel_events" if kernel else "events": (event(code),)}, **changes)


#: facts, objectives → code, severity, and words that have to be in what was seen.
CASES = {
    "down": (down(), NONE, "server_down", "critical", "the log names no cause that is known here"),
    "down, log tells": (down(log={"events": (event("server_stopped"), event("rdb_bad_checksum"))}), NONE, "server_down", "critical", "(rdb_bad_checksum): the line"),
    "down, stopped": (down(log={"events": (event("server_stopped"),)}), NONE, "server_down", "critical", "(server_stopped)"),
    "down, what is over is no cause": (down(log={"events": (event("config_error", True),)}), NONE, "server_down", "critical", "names no cause that"),
    "down, an unknown line": (down(log={"last": "Redis port number too high."}), NONE, "server_down", "critical", "its last line is: Redis port number too high."),
    "down, kernel tells": (down(log={"kernel_events": (event("oom_killer"),)}), NONE, "server_down", "critical", "(oom_killer): the line"),
    "down, log unread": (down(log={"because": "no permission"}), NONE, "server_down", "critical", "why is not known, because no permission"),
    "silent": (down("server_not_responding"), NONE, "server_not_responding", "critical", "nothing listens"),
    "unseen": (down("server_unseen"), NONE, "server_unseen", "unknown", "not known, because"),
    "loading": (reported(loading=1, loading_loaded_perc="12.5", loading_eta_seconds=7), NONE, "server_loading", "warning", "12.5 % done, about 7 s"),
    "no config get": (but(live=None, missing={"live": "NOPERM"}), NONE, "facts_missing", "unknown", "NOPERM"),
    "elsewhere": (but(local=False, missing={"host": "no process 7"}), NONE, "facts_missing", "unknown", "no process 7"),
    # what is kept
    "nothing kept": (live(RDB_ONLY, appendonly="no", save=""), NONE, "no_persistence", "critical", "neither AOF nor RDB"),
    "a cache": (live(RDB_ONLY, appendonly="no", save=""), Objectives(no_persistence=True), "no_persistence", "info", "neither"),
    "kept is not known": (but(live=None, missing={"live": "NOPERM"}), NONE, "no_persistence", "unknown", "NOPERM"),
    "within rpo": (HEALTHY, Objectives(crash_loss=2), "crash_loss_too_large", "ok", "up to 2 s of writes"),
    "beyond rpo": (HEALTHY, Objectives(crash_loss=1), "crash_loss_too_large", "critical", "the objective is 1 s"),
    "rpo without bound": (live(RDB_ONLY, appendonly="no", save=""), Objectives(crash_loss=3600), "crash_loss_too_large", "critical", "all keys"),
    "rpo not known": (but(live=None, missing={"live": "NOPERM"}), Objectives(crash_loss=9), "crash_loss_too_large", "unknown", "not known, because NOPERM"),
    # the next start
    "AOF only live": (but(in_file={**LIVE, "appendonly": "no"}), NONE, "next_start", "critical", "load the RDB file, and not the AOF"),
    "AOF only in file": (but(RDB_ONLY, in_file=LIVE), NONE, "next_start", "critical", "load NOTHING"),
    "AOF only in file, an old one there": (but(live(appendonly="no"), in_file=LIVE), NONE, "next_start", "critical", "the AOF that is out of use"),
    "AOF only in file, no keys": (but(RDB_ONLY, in_file=LIVE, info=EMPTY), NONE, "next_start", "warning", "load NOTHING"),
    "another dir": (but(in_file={**LIVE, "dir": "/elsewhere"}), NONE, "next_start", "critical", "the file says /elsewhere"),
    "a file is gone": (but(disk={"missing": ("a.1.incr.aof",)}), NONE, "next_start", "critical", "a start would fail"),
    "manifest gone": (but(disk={"manifest": None}), NONE, "next_start", "critical", "load NOTHING"),
    "no file to compare": (but(in_file=None, missing={"in_file": "no permission"}), NONE, "next_start", "unknown", "no permission"),
    "AOF not predicted": (but(live={"save": ""}), NONE, "next_start", "unknown", "whether the AOF is on"),
    "two servers, one AOF": (but(shared="process 7 works there as well"), NONE, "data_shared", "critical", "process 7"),
    "not mounted": (but(not_mounted="fstab names /data"), NONE, "data_not_mounted", "critical", "fstab names"),
    "not mounted, and no word on the cost": (but(not_mounted="fstab names /data"), NONE, "crash_loss_too_large", "unknown", "fstab names"),
    "next start": (HEALTHY, NONE, "next_start", "ok", "would load the AOF"),
    "stopped, sound": (down(), NONE, "next_start", "ok", "the AOF, if it is sound"),
    "stopped, file gone": (down(disk={"missing": ("a.1.incr.aof",)}), NONE, "next_start", "critical", "would fail"),
    "stopped, manifest gone": (down(disk={"manifest": None, "orphans": ("a.1.incr.aof",)}), NONE, "next_start", "critical", "NOTHING of it"),
    "stopped, manifest damaged": (down(disk=None, missing={"manifest": "line 1: bad"}), NONE, "next_start", "critical", "line 1: bad"),
    "a user twice": (but(twice=("user al stands in a and b",)), NONE, "next_start", "critical", "user al stands in a and b"),
    "stopped, a user twice": (down(twice=("user al stands in a and b",)), NONE, "next_start", "critical", "would fail: user al"),
    "an increment that is not named": (but(on_disk=OnDisk(unlisted=("a.2.incr.aof",))), NONE, "next_start", "critical", "leave data out: a.2.incr.aof"),
    "stopped, not named": (down(on_disk=OnDisk(unlisted=("a.2.incr.aof",))), NONE, "next_start", "critical", "leave data out"),
    "stopped, no node any more": (down(on_disk=OnDisk(empty_nodes="/d/nodes.conf")), NONE, "next_start", "critical", "/d/nodes.conf is empty"),
    "a torn transaction": (but(on_disk=OnDisk(torn="a MULTI")), NONE, "aof_open_transaction", "critical", "a MULTI"),
    "stopped, a torn transaction": (down(on_disk=OnDisk(torn="a MULTI")), NONE, "aof_open_transaction", "critical", "a MULTI"),
    "no torn transaction": (but(on_disk=OnDisk()), NONE, "aof_open_transaction", "ok", "no transaction"),
    "a large increment": (but(on_disk=OnDisk(unread="too large")), NONE, "aof_open_transaction", "unknown", "too large"),
    "old temporary files": (
        but(on_disk=OnDisk(leftovers=(Leftover("/d/temp-8.rdb", 5, 86400.0),))), NONE, "temporary_files_left", "warning", "1 files of 5 bytes",
    ),
    "no temporary files": (but(on_disk=OnDisk()), NONE, "temporary_files_left", "ok", "no save"),
    "stopped, unseen": (down(disk=None, missing={"disk": "no permission"}), NONE, "next_start", "unknown", "no permission"),
    # RDB
    "save failed": (reported(rdb_last_bgsave_status="err"), NONE, "rdb_save_failed", "critical", "writes are refused (MISCONF)"),
    "save failed, writes go on": (live(reported(rdb_last_bgsave_status="err"), stop_writes_on_bgsave_error="no"), NONE, "rdb_save_failed", "critical", "is err"),
    "save status absent": (reported(rdb_last_bgsave_status=None), NONE, "rdb_save_failed", "unknown", "no rdb_last_bgsave_status"),
    "overdue": (reported(rdb_last_save_time=int(NOW - 4000)), NONE, "save_overdue", "warning", "5 changes in 1.1 h"),
    "not overdue without changes": (reported(rdb_last_save_time=int(NOW - 4000), rdb_changes_since_last_save=0), NONE, "save_overdue", "ok", ""),
    "not overdue while it saves": (reported(rdb_last_save_time=int(NOW - 4000), rdb_bgsave_in_progress=1), NONE, "save_overdue", "ok", ""),
    "errors ignored": (live(stop_writes_on_bgsave_error="no"), NONE, "save_errors_ignored", "warning", ""),
    "no checksum": (live(rdbchecksum="no"), NONE, "rdb_unchecked", "warning", ""),
    "RDB gone": (but(RDB_ONLY, disk={"rdb_bytes": None}), NONE, "rdb_missing", "critical", "is not there"),
    "no RDB yet": (reported(but(RDB_ONLY, disk={"rdb_bytes": None}), rdb_saves=0, rdb_last_load_keys_loaded=0), NONE, "rdb_age", "info", "no /var/lib/redis/dump.rdb yet"),
    "RDB replaced": (but(disk={"rdb_mtime": NOW - 90000}), NONE, "rdb_replaced", "warning", "older than the last save"),
    "RDB replaced by a newer": (but(disk={"rdb_mtime": NOW - 10}), NONE, "rdb_replaced", "warning", "newer than"),
    "never loaded": (but(never_loaded="dump.rdb holds 7 keys"), NONE, "rdb_never_loaded", "critical", "7 keys"),
    "kept": (but(on_disk=OnDisk(kept=("/d/redisops-kept-1",))), NONE, "data_kept", "info", "/d/redisops-kept-1 holds"),
    "RDB age by the file": (reported(but(disk={"rdb_mtime": NOW - 10800}), rdb_saves=0, rdb_last_save_time=int(NOW - 60)), NONE, "rdb_age", "ok", "written 3.0 h ago; INFO counts from the start, 1.0 min ago"),
    "RDB unseen": (but(disk=None, missing={"disk": "no permission"}), NONE, "rdb_age", "unknown", "no permission"),
    "slow fork": (reported(latest_fork_usec=1_500_000), NONE, "fork_slow", "warning", "1500.0 ms"),
    "fork worth a note": (reported(latest_fork_usec=300_000), NONE, "fork_slow", "info", "300.0 ms"),
    "no fork": (reported(latest_fork_usec=0), NONE, "fork_slow", "ok", "no fork since"),
    "fork absent": (reported(latest_fork_usec=None), NONE, "fork_slow", "unknown", "no latest_fork_usec"),
    "no memory for a save": (but(host={"memory_left": 2**19}), NONE, "memory_for_save", "critical", "512.0 KiB of memory and swap are left"),
    "little memory for a save": (but(host={"memory_left": 2**22}), NONE, "memory_for_save", "warning", "(25 %) should be left"),
    "enough, not for all": (but(host={"memory_left": 2**25}), NONE, "memory_for_save", "ok", "were every page written"),
    "a larger headroom": (but(host={"memory_left": 2**25}), Objectives(fork_headroom_percent=80), "memory_for_save", "warning", "(80 %)"),
    "memory not known": (but(host={"memory_left": None, "because": {"memory_left": "no /proc"}}), NONE, "memory_for_save", "unknown", "no /proc"),
    "nothing saved, nothing copied": (live(RDB_ONLY, appendonly="no", save=""), NONE, "memory_for_save", "ok", "nothing is saved"),
    # AOF
    "AOF not written": (reported(aof_last_write_status="err"), NONE, "aof_write_failing", "critical", "MISCONF"),
    "rewrite failing": (reported(aof_last_bgrewrite_status="err"), NONE, "aof_rewrite_failing", "warning", ""),
    "AOF file gone": (but(disk={"missing": ("a.1.incr.aof",)}), NONE, "aof_incomplete", "critical", "names a.1.incr.aof"),
    "AOF manifest gone": (but(disk={"manifest": None}), NONE, "aof_incomplete", "critical", "is not there"),
    "AOF manifest damaged": (but(disk=None, missing={"manifest": "line 1: bad", "disk": "line 1: bad"}), NONE, "aof_incomplete", "critical", "line 1"),
    "AOF begins": (reported(but(disk={"manifest": None}), aof_rewrite_in_progress=1), NONE, "aof_incomplete", "warning", "the first rewrite is under way"),
    "AOF of before 7.0": (but(disk={"manifest": None, "old_style_aof": True}), NONE, "aof_incomplete", "ok", "the one file of before 7.0"),
    "AOF unseen": (but(disk=None, missing={"disk": "no permission"}), NONE, "aof_incomplete", "unknown", "no permission"),
    "sync late now": (dataclasses.replace(HEALTHY, later=info_of(BASE, aof_delayed_fsync=3)), NONE, "aof_fsync_delayed", "warning", "3 writes waited"),
    "sync late once": (reported(aof_delayed_fsync=3), NONE, "aof_fsync_delayed", "info", "none now"),
    "sync delay absent": (reported(aof_delayed_fsync=None), NONE, "aof_fsync_delayed", "unknown", "no aof_delayed_fsync"),
    "no sync while saving": (live(no_appendfsync_on_rewrite="yes"), NONE, "aof_fsync_paused", "info", ""),
    "AOF out of use": (live(appendonly="no"), NONE, "aof_out_of_use", "info", "holds an AOF"),
    "rewrite off": (live(auto_aof_rewrite_percentage="0"), NONE, "rewrite_never_fires", "warning", "percentage is 0"),
    "rewrite too late": (but(live(auto_aof_rewrite_min_size=str(80 * GIB)), disk={"free_bytes": GIB}), NONE, "rewrite_never_fires", "warning", "full before"),
    "rewrite in time": (HEALTHY, NONE, "rewrite_never_fires", "ok", "at 64.0 MiB"),
    "full in hours": (
        reported(but(disk={"free_bytes": 9 * GIB}, base_bytes=10 * GIB), aof_base_size=GIB, aof_current_size=2 * GIB), NONE, "aof_fills_disk", "warning", "full in 9.0 h",
    ),
    "full in minutes": (
        reported(but(disk={"free_bytes": GIB // 2}, base_bytes=GIB), aof_base_size=GIB, aof_current_size=2 * GIB), NONE, "aof_fills_disk", "critical", "full in 30.0 min",
    ),
    "full in days": (
        reported(but(disk={"free_bytes": 9 * GIB}, base_bytes=10 * GIB), aof_base_size=GIB, aof_current_size=2 * GIB), Objectives(disk_full=3600), "aof_fills_disk", "ok",
        "full in 9.0 h",
    ),
    "a rewrite comes first": (HEALTHY, NONE, "aof_fills_disk", "ok", "comes first, and has room"),
    "growth not known": (reported(aof_base_size=None), NONE, "aof_fills_disk", "unknown", "aof_base_size"),
    # disk and files
    "directory gone": (but(disk=None, missing={"dir": "/var/lib/redis does not exist"}), NONE, "dir_missing", "critical", "does not exist"),
    "directory gone, down": (down(disk=None, missing={"dir": "/var/lib/redis does not exist"}), NONE, "dir_missing", "critical", "does not exist"),
    "no room": (but(disk={"free_bytes": 2**19}), NONE, "disk_room", "critical", "512.0 KiB are free"),
    "little room": (but(disk={"free_bytes": 2**23}), NONE, "disk_room", "warning", ""),
    "no inode": (but(free_inodes=0), NONE, "disk_room", "critical", "no inode left"),
    "room not known": (but(disk=None, missing={"disk": "no permission"}), NONE, "disk_room", "unknown", "no permission"),
    "file of root": (but(access=(FileAccess(PLACE.rdb, 0, 0, 0o600),)), NONE, "file_access", "critical", "may not read and write /var/lib/redis/dump.rdb (0:0 0600)"),
    "file of a group": (but(access=(FileAccess(PLACE.rdb, 0, 100, 0o660),)), NONE, "file_access", "warning", "of another owner"),
    "file for all": (
        but(access=(FileAccess(PLACE.dir, 100, 100, 0o755, True), FileAccess(PLACE.rdb, 100, 100, 0o644))), NONE, "file_access", "warning", "may be read by everybody",
    ),
    "file for all to write": (
        but(access=(FileAccess(PLACE.dir, 100, 100, 0o755, True), FileAccess(PLACE.rdb, 100, 100, 0o666))), NONE, "file_access", "warning", "may be written by everybody",
    ),
    "open file behind a closed door": (
        but(access=(FileAccess(PLACE.dir, 100, 100, 0o750, True), FileAccess(PLACE.rdb, 100, 100, 0o644))), NONE, "file_access", "ok", "closed to others",
    ),
    "owner not known": (but(user=None, missing={"user": "hidepid"}), NONE, "file_access", "unknown", "hidepid"),
    "disk waits": (but(host={"io_pressure": 30.0}), NONE, "disk_wait", "warning", "in 30 % of the last minute"),
    "disk busy": (but(host={"disk": DiskUse("sda", 0, 0, 99)}), NONE, "disk_wait", "info", "at work 99 %"),
    "disk has no device": (but(host={"disk": None, "because": {"disk": "tmpfs"}}), NONE, "disk_wait", "ok", "throughput not known, because tmpfs"),
    "nothing of disks": (but(host={"disk": None, "cpu": None, "io_pressure": None, "because": {"cpu": "no /proc/stat"}}), NONE, "disk_wait", "unknown", "no /proc/stat"),
    "drive fails": (but(host={"drives": (Drive("/dev/sda", False),)}), NONE, "drive_failing", "critical", "own verdict"),
    "drive has bad sectors": (but(host={"drives": (Drive("/dev/sda", True, 8),)}), NONE, "drive_failing", "warning", "8 bad sectors"),
    "drive is worn": (but(host={"drives": (Drive("/dev/sda", True, 0, 97),)}), NONE, "drive_failing", "warning", "97 %"),
    "no drives": (but(host={"drives": None, "because": {"drives": "no smartctl"}}), NONE, "drive_failing", "info", "no smartctl"),
    "drive is hot": (but(host={"drives": (Drive("/dev/sda", True, 0, 0, 71, 70),)}), NONE, "temperature", "warning", "71 °C"),
    "CPU is hot": (but(host={"sensors": (Sensor("cpu", 95, 90, 100),)}), NONE, "temperature", "warning", "95 °C, its limit is 90"),
    "CPU is too hot": (but(host={"sensors": (Sensor("cpu", 101, 90, 100),)}), NONE, "temperature", "critical", "limit is 100"),
    "no sensors": (but(host={"sensors": None, "because": {"sensors": "no sensors"}}), NONE, "temperature", "info", "no sensors"),
    # kernel and machine
    "overcommit": (but(host={"overcommit": "0"}), NONE, "overcommit", "warning", "= 0"),
    "thp": (but(host={"thp": "always"}), NONE, "thp", "warning", "always"),
    "backlog": (but(host={"somaxconn": 128}), NONE, "backlog", "warning", "128"),
    "backlog not known": (but(host={"somaxconn": None}), NONE, "backlog", "unknown", "not known, because"),
    "backlog as set": (live(tcp_backlog="65000"), NONE, "backlog", "warning", "4096"),
    "few files": (but(host={"open_files": 1024}), NONE, "open_files", "warning", "needs 10032"),
    "maxclients was cut": (but(in_file={**LIVE, "maxclients": "50000"}), NONE, "open_files", "warning", "says 50000"),
    "limits not shown": (but(host={"open_files": None, "because": {"open_files": "hidepid"}}), NONE, "open_files", "unknown", "hidepid"),
    "swapped a little": (but(host={"swapped": 2**10}), NONE, "swapped", "info", "1.0 KiB"),
    "swapped": (but(host={"swapped": 2**26}), NONE, "swapped", "warning", "(50 %)"),
    "swap not shown": (but(host={"swapped": None, "because": {"swapped": "hidepid"}}), NONE, "swapped", "unknown", "hidepid"),
    "steal": (but(host={"cpu": {"steal": 20.0, "iowait": 0.0}}), NONE, "steal", "warning", "20 %"),
    "steal not known": (but(host={"cpu": None, "because": {"cpu": "no /proc/stat"}}), NONE, "steal", "unknown", "no /proc/stat"),
    # the set
    "link up": (REPLICA, NONE, "replica_link", "ok", "192.0.2.9:6379 is up"),
    "link down": (reported(REPLICA, master_link_status="down", master_link_down_since_seconds=90), NONE, "replica_link", "critical", "down for 1.5 min"),
    "copying": (reported(REPLICA, master_link_status="down", master_sync_in_progress=1), NONE, "replica_link", "warning", "whole copy"),
    "primary silent": (reported(REPLICA, master_last_io_seconds_ago=30), NONE, "replica_lag", "warning", "30 s ago"),
    "lag absent": (reported(REPLICA, master_last_io_seconds_ago=None), NONE, "replica_lag", "unknown", "no master_last_io_seconds_ago"),
    "role absent": (reported(role=None), NONE, "replica_link", "unknown", "no role"),
    "replica late": (reported(slave0="ip=192.0.2.2,port=6379,state=online,offset=0,lag=60"), NONE, "replica_lag", "warning", "acknowledged 60 s ago"),
    "replica copying": (reported(slave0="ip=192.0.2.2,port=6379,state=wait_bgsave,offset=0,lag=0"), NONE, "replica_lag", "warning", "is not in sync"),
    "replica in sync": (reported(slave0="ip=192.0.2.2,port=6379,state=online,offset=0,lag=1", master_repl_offset=9), NONE, "replica_lag", "ok", "9 bytes behind"),
    "a longer lag is allowed": (reported(slave0="ip=192.0.2.2,port=6379,state=online,offset=0,lag=60"), Objectives(replica_lag=90), "replica_lag", "ok", ""),
    "too few replicas": (live(reported(min_slaves_good_slaves=0), min_replicas_to_write="1"), NONE, "too_few_replicas", "critical", "0 good replicas"),
    "enough replicas": (live(reported(min_slaves_good_slaves=1), min_replicas_to_write="1"), NONE, "too_few_replicas", "ok", ""),
    "events": (live(notify_keyspace_events="AKE"), NONE, "keyspace_events", "info", "AKE"),
    "cluster fails": (reported(but(cluster={"cluster_state": "fail"}), cluster_enabled=1), NONE, "cluster_state", "critical", "is fail"),
    "cluster in doubt": (reported(but(cluster={"cluster_state": "ok", "cluster_slots_pfail": "9"}), cluster_enabled=1), NONE, "cluster_state", "warning", "9 possibly"),
    "cluster": (reported(but(cluster={"cluster_state": "ok"}), cluster_enabled=1), NONE, "cluster_state", "ok", ""),
    "cluster not shown": (reported(but(missing={"cluster": "NOPERM"}), cluster_enabled=1), NONE, "cluster_state", "unknown", "NOPERM"),
    "Sentinel down": (but(sentinel=SentinelFacts("192.0.2.1:26379", "nothing listens")), NONE, "sentinel_down", "warning", "nothing listens"),
    "TILT": (but(sentinel={"tilt": True}), NONE, "sentinel_tilt", "warning", "in TILT"),
    "TILT absent": (but(sentinel={"tilt": None}), NONE, "sentinel_tilt", "unknown", ""),
    "no quorum": (but(sentinel={"quorum": {"orders": "NOQUORUM 1 usable Sentinels. Not enough"}}), NONE, "sentinel_quorum", "critical", "NOQUORUM"),
    "Sentinel sees it down": (but(sentinel={"watched": (Watched("orders", "192.0.2.1:6379", ("master", "o_down")),)}), NONE, "sentinel_sees_down", "critical", "o_down"),
    "Sentinel misses a replica": (
        but(sentinel={"watched": (Watched("orders", "192.0.2.1:6379", ("master",), replicas=(Known("replica", "192.0.2.2:6379", ("s_down",), "", 75),)),)}),
        NONE, "sentinel_sees_down", "warning", "replica 192.0.2.2:6379 for 1.2 min",
    ),
    "Sentinel names a replica": (but(REPLICA), NONE, "sentinel_disagrees", "critical", "it is a replica of 192.0.2.9:6379"),
    "Sentinel names ours": (
        reported(but(sentinel={"watched": (Watched("orders", "192.0.2.2:6379", ("master",)),)}), slave0="ip=192.0.2.2,port=6379,state=online,offset=0,lag=1"),
        NONE, "sentinel_disagrees", "critical", "192.0.2.2:6379 for the primary, and it is a replica of this server",
    ),
    "Sentinel takes this primary for a replica": (
        but(sentinel={"watched": (Watched("orders", "192.0.2.2:6379", ("master",), replicas=(Known("replica", "192.0.2.1:6379", (), BASE.text("run_id")),)),)}),
        NONE, "sentinel_disagrees", "critical", "this server takes writes as a primary",
    ),
    # backups and drills
    "no backup, none promised": (but(backups=Backups("orders", "/b")), NONE, "backup_none", "info", "no backup on this host"),
    "no backup": (but(backups=Backups("orders", "/b", expected=True)), NONE, "backup_none", "warning", "no backup"),
    "no backup, a member's": (but(backups=Backups("orders", "/b", expected=True, elsewhere=True)), NONE, "backup_none", "info", "another host of the group"),
    "backups unseen": (but(backups=Backups("orders", "/b", because="no permission")), NONE, "backup_none", "unknown", "no permission"),
    "unverified": (but(backups={"rows": ({**VERIFIED, "state": "copied"},)}), NONE, "backup_unverified", "warning", "there is no verified backup"),
    "old backup": (HEALTHY, Objectives(rpo=3600), "backup_old", "warning", "is 2.0 h old"),
    "old backup, a member may have a newer": (but(backups={"elsewhere": True}), Objectives(rpo=3600), "backup_old", "info", "another host of the group"),
    "old drill, a member may have held one": (but(backups={"elsewhere": True}), Objectives(drill_age=3600), "drill_old", "info", "24.0 h ago"),
    "no drill where no backups lie": (
        but(backups=Backups("orders", "/b", expected=True, elsewhere=True)), Objectives(drill_age=86400), "drill_none", "info", "no drill",
    ),
    "young backup": (HEALTHY, Objectives(rpo=86400), "backup_old", "ok", "is 2.0 h old"),
    "the last failed": (but(backups={"rows": (VERIFIED, {**VERIFIED, "label": "x", "state": "failed"})}), NONE, "backup_failed", "warning", "the latest backup failed"),
    "no drill": (but(backups={"drills": ()}), NONE, "drill_none", "info", "no drill"),
    "no drill, one promised": (but(backups={"drills": ()}), Objectives(drill_age=86400), "drill_none", "warning", "no drill"),
    "old drill": (HEALTHY, Objectives(drill_age=3600), "drill_old", "warning", "24.0 h ago"),
    "drill failed": (but(backups={"drills": ({**DRILL, "ok": False, "missed": ["RTO is 9 s"]},)}), NONE, "drill_failed", "warning", "RTO is 9 s"),
    # logs
    "log unread": (but(log={"because": "no permission"}), NONE, "log_unread", "unknown", "no permission"),
    "log read": (HEALTHY, NONE, "log_unread", "ok", "redis.log"),
    "kernel unread": (but(log={"kernel_because": "no permission"}), NONE, "kernel_log_unread", "unknown", "no permission"),
    "killed, kernel tells": (but(log={"events": (event("save_killed"),), "kernel_events": (event("oom_killer"),)}), NONE, "save_killed", "critical", "kernel's log says why: the line"),
    "killed, kernel silent": (logged("save_killed"), NONE, "save_killed", "critical", "has no OOM killer in that time"),
    "killed, not known by whom": (but(log={"events": (event("save_killed"),), "kernel_because": "EPERM"}), NONE, "save_killed", "critical", "not known, because EPERM"),
    "killed and over": (but(log={"events": (event("save_killed", True),)}), NONE, "save_killed", "info", "(over since)"),
    "fork failed": (logged("fork_no_memory", host={"overcommit": "0"}), NONE, "fork_no_memory", "critical", "vm.overcommit_memory is 0; 8.0 GiB of memory"),
    "disk was full": (logged("disk_full"), NONE, "disk_full", "critical", "50.0 GiB are free in /var/lib/redis now"),
    "disk failed": (but(log={"events": (event("disk_io_error"),), "kernel_events": (event("kernel_disk_error"),)}), NONE, "disk_io_error", "critical", "says why: the line"),
    "slow syncs": (logged("aof_fsync_slow", host={"io_pressure": 40.0}), NONE, "aof_fsync_slow", "warning", "in 40 % of the last minute"),
    "owners": (logged("no_permission", access=(FileAccess(PLACE.rdb, 0, 0, 0o600),)), NONE, "no_permission", "critical", "dump.rdb 0:0 0600"),
    "overcommit was off": (logged("started_without_overcommit"), NONE, "started_without_overcommit", "info", "it is right now"),
    "thp is on": (logged("started_with_thp", host={"thp": "always"}), NONE, "started_with_thp", "info", "still wrong now"),
    "a start that failed is past": (logged("rdb_bad_checksum"), NONE, "rdb_bad_checksum", "info", "the line"),
    "kernel event": (logged("kernel_disk_error"), NONE, "kernel_disk_error", "critical", "the line"),
}  # fmt: skip


def test_a_healthy_server_is_ok():
    findings = findings_of(HEALTHY, Objectives(crash_loss=5, rpo=86400, drill_age=864000))
    assert [(one.code, one.severity, one.detected) for one in findings if one.severity != "ok"] == []
    assert status_of(findings) == 0
    assert len(findings) > 20


@pytest.mark.parametrize(("facts", "objectives", "code", "severity", "words"), CASES.values(), ids=CASES)
def test_findings(facts, objectives, code, severity, words):
    findings = findings_of(facts, objectives)
    mine = [one for one in findings if one.code == code and one.severity == severity]
    assert mine, [(one.code, one.severity, one.detected) for one in findings if one.code == code]
    assert any(words in one.detected for one in mine), [one.detected for one in mine]
    for one in mine:
        assert (bool(one.why), bool(one.do)) == ((severity != "ok"),) * 2 or "not known" in one.detected
        assert one.row()["page"] == f"docs/reference/findings.md#{code}"


def test_every_code_is_tested():
    assert {case[2] for case in CASES.values()} - set(KINDS) == {*MEANINGS, *KERNEL_CHECKS}
    assert not set(MEANINGS) & set(KINDS)


@pytest.mark.parametrize(
    "facts", [Facts(NOW, "a"), Facts(NOW, "a", "server_down", "x"), Facts(NOW, "a", local=False), RDB_ONLY, REPLICA]
)
def test_nothing_known_is_no_trouble_and_no_stumble(facts):
    findings = findings_of(facts, NONE)
    assert all(one.detected and one.severity in SEVERITIES for one in findings)
    predicted = report(facts, "orders", Objectives())
    assert predicted["group_name"] == "orders"
    assert title(facts, "orders").startswith("orders at ")


@pytest.mark.parametrize("name", sorted(BASE.fields))
def test_no_field_of_info_is_needed(name):
    """An older or newer server may lack any of them: then something is not known, and nothing is made up."""
    findings = findings_of(reported(**{name: None}), Objectives(crash_loss=5))
    assert {one.code for one in findings if one.severity == "critical"} == set()


def test_what_says_nothing_of_a_process_is_not_judged():
    """Of a server on another host nothing is reported of this one."""
    codes = {one.code for one in findings_of(but(local=False), NONE)}
    assert not codes & {"overcommit", "thp", "file_access", "disk_room", "swapped"}


def test_growth_is_the_mean_since_the_rewrite_or_of_two_looks():
    rate, how = aof_growth(HEALTHY)
    assert (round(rate), how) == (874, "the mean of the last 1.0 h")
    young = dataclasses.replace(HEALTHY, base_mtime=NOW - 5, later=info_of(BASE, aof_current_size=4 * 2**20 + 500))
    assert aof_growth(young) == (500, "what was seen in 1.0 s")
    assert aof_growth(dataclasses.replace(young, apart=0.0))[0] is None
    shrunk = dataclasses.replace(HEALTHY, later=info_of(BASE, aof_current_size=1))
    assert aof_growth(shrunk)[0] == 0.0


def test_a_report_has_what_a_fleet_needs():
    predicted = report(HEALTHY, "orders", Objectives())
    assert predicted["configured_durability"] == "AOF everysec + RDB (3600 1)"
    assert predicted["last_save"] == {"time": "2027-01-15T07:50:00Z", "age_seconds": 600, "source": "file"}
    assert predicted["last_verified_backup"] == {
        "name": "20270115T080000Z-rdb",
        "time": "2027-01-15T06:00:00Z",
        "age_seconds": 7200,
    }
    assert predicted["backups"] == [
        {"name": "20270115T080000Z-rdb", "time": "2027-01-15T06:00:00Z", "status": "verified"}
    ]
    assert predicted["drills"] == [
        {"time": "2027-01-14T08:00:00Z", "ok": True, "rpo_seconds": 7200.0, "rto_seconds": 1.5, "phases": {"load": 1.5}}
    ]
    assert (predicted["role"], predicted["primary"], predicted["keys_total"]) == (
        "primary",
        "192.0.2.1:6379",
        BASE.keys,
    )
    assert predicted["sentinel"]["watched"][0]["name"] == "orders"
    assert report(REPLICA, "orders", Objectives())["primary"] == "192.0.2.9:6379"
    assert report(REPLICA, "orders", Objectives())["replication"]["link"] == "up"
    by_manifest = report(but(disk={"rdb_mtime": NOW - 9000}), "orders", Objectives())
    assert by_manifest["last_save"] == {"time": "2027-01-15T07:00:00Z", "age_seconds": 3600, "source": "manifest"}


def test_order_status_and_text():
    rows = [
        Finding(name, severity, "detected", "why it is", "do it")
        for name, severity in zip("abcde", ("ok", "info", "unknown", "warning", "critical"))
    ]
    assert [one.code for one in ordered([*rows, rows[0]])] == list("edcba")
    assert [status_of(rows[:count]) for count in range(6)] == [0, 0, 0, 3, 1, 2]
    assert [reached(rows[:3], name) for name in ("critical", "warning", "unknown", "info")] == [
        False,
        False,
        True,
        True,
    ]
    text = render_text("orders", ordered(rows), "2 s")
    assert text.startswith(
        "orders: CRITICAL (1 critical, 1 warning, 1 unknown, 1 info, 1 ok)\n  crash loss window: 2 s\n  CRITICAL e: detected. Why it is. Do: do it."
    )
    assert " OK a" not in text


def test_spans_and_sizes():
    assert [ago(seconds) for seconds in (-1, 59, 90, 7200, 100000, 200000)] == [
        "0 s",
        "59 s",
        "1.5 min",
        "2.0 h",
        "27.8 h",
        "2.3 d",
    ]
    assert [size_text(count) for count in (0, 1023, 1536, 2**31, 2**45)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "2.0 GiB",
        "32.0 TiB",
    ]


def section(text: str, code: str) -> str:
    found = re.search(rf"^### `{code}`\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    return " ".join(found.group(1).split()) if found else ""


@pytest.mark.parametrize("code", [*MEANINGS, *KINDS, *KERNEL_CHECKS])
def test_every_code_has_its_paragraph_in_the_same_words(code):
    predicted = section((ROOT / "docs/reference/findings.md").read_text(), code)
    assert predicted, f"docs/reference/findings.md has no section {code}"
    pairs = {**MEANINGS, **{kind.code: (kind.why, kind.do) for kind in KINDS.values()}}
    for words in pairs.get(code, ()):
        assert words.lower() in predicted.lower().replace("`", "")


def test_no_paragraph_without_its_code():
    headings = re.findall(r"^### `([a-z_]+)`", (ROOT / "docs/reference/findings.md").read_text(), re.M)
    assert sorted(headings) == sorted([*MEANINGS, *KINDS, *KERNEL_CHECKS])
