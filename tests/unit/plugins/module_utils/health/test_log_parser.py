# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Logs of servers whose files were broken, as recorded (fixtures/record_logs.py), and lines that need a machine that fails."""

from __future__ import annotations

import datetime
import pathlib
import re

import hypothesis
import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import (
    iso_utc,
    merged,
    moment,
    scan,
    scan_kernel,
    time_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_patterns import (
    KERNEL,
    KINDS,
    SERVER,
    kind_of,
)
from hypothesis import strategies

ROOT = pathlib.Path(__file__).resolve().parents[5]
RECORDED = sorted((pathlib.Path(__file__).parent / "fixtures" / "log").glob("*.log"))
#: What the log of each case tells of, in order; a code in brackets is over at its end.
TOLD = {
    "healthy": "",
    "rdb-cut-short": "rdb_short_read",
    "rdb-bit-flip": "rdb_bad_checksum",
    "rdb-wrong-signature": "rdb_wrong_signature load_failed",
    "rdb-newer-version": "rdb_version load_failed",
    "rdb-garbage": "rdb_damaged",
    "rdb-more-databases": "too_few_databases",
    "aof-cut-short": "aof_truncated_loaded",
    "aof-cut-short-refused": "aof_truncated_refused",
    "aof-bad-format": "aof_bad_format",
    "aof-unknown-command": "aof_unknown_command",
    "aof-not-last-cut-short": "aof_truncated_loaded aof_not_last_truncated",
    "aof-base-bit-flip": "rdb_bad_checksum",
    "aof-manifest-empty": "aof_manifest_bad",
    "aof-manifest-garbage": "aof_manifest_bad",
    "aof-manifest-missing": "aof_absent",
    "aof-incr-missing": "aof_file_missing",
    "aof-base-missing": "aof_file_missing",
    "config-unknown-directive": "config_error",
    "config-no-directory": "config_error",
    "acl-file-missing": "acl_error",
    "address-not-ours": "cannot_listen",
    "optional-address-not-ours": "(cannot_listen)",
    "module-missing": "module_not_loaded",
    "cluster-config-damaged": "cluster_config_corrupt",
    "tls-without-key": "tls_error",
    "log-not-writable": "config_error log_not_opened",
    "save-no-permission": "no_permission save_failed",
    "save-killed": "no_permission save_failed save_killed",
    "save-killed-then-good": "(no_permission) (save_failed) (save_killed)",
    "save-disk-full": "disk_full save_failed",
    "aof-disk-full": "aof_absent (aof_write_error) (disk_full) save_failed",
    "aof-always-disk-full": "aof_absent aof_write_error aof_write_fatal",
    "few-open-files": "maxclients_reduced",
    "too-few-open-files": "too_few_open_files",
}
#: Words of lines that no recording has, as they stand in the sources of Redis 7.0 and 7.2, of Valkey 8.1 and of Linux.
LINES = {
    "Can't save in background: fork: Cannot allocate memory": "fork_no_memory",
    "Can't rewrite append only file in background: fork: Cannot allocate memory": "fork_no_memory",
    "Can't save in background: fork: Resource temporarily unavailable": "fork_failed",
    "Can't fork for module: Resource temporarily unavailable": "fork_failed",
    "Background AOF rewrite terminated by signal 9": "rewrite_killed",
    "Background saving terminated by signal 11": "child_crashed",
    "Background saving terminated by signal 10": None,  # SIGUSR1: Redis itself, at FLUSHALL or SHUTDOWN
    "Background AOF rewrite terminated by signal 10": None,
    "Write error saving DB on disk: Disk quota exceeded": "disk_quota",
    "Write error writing append only file on disk: Input/output error": "disk_io_error",
    "Failed opening the temp RDB file temp-1.rdb (in server root dir /data) for saving: Read-only file system": "disk_read_only",
    "Error writing to the AOF file: Read-only file system": "disk_read_only",
    "Error writing to the AOF file: Bad file descriptor": "aof_write_error",
    "Can't persist AOF for fsync error when the AOF fsync policy is 'always': Success. Exiting...": "aof_write_fatal",
    "Fail to fsync the AOF file: Unknown error": "aof_fsync_failed",
    "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting for fsync to complete, this may slow down Redis.": "aof_fsync_slow",
    "Background AOF rewrite terminated with error": "rewrite_failed",
    "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in 2 minutes": "rewrite_failed",
    "Error trying to save the DB, can't exit.": "shutdown_refused",
    "Errors trying to shut down the server. Check the logs for more information.": "shutdown_refused",
    "Error trying to save the DB. Exit anyway.": "save_failed",
    "Write error while saving DB to the disk(rdbSaveRio): Unknown": "save_failed",
    "== CRITICAL == This master is sending an error to its replica: 'MISCONF Errors' after processing the command 'set'": "misconf",
    "The RDB file contains module data I can't load: no matching module type 'ReJSON-RL'": "rdb_module_missing",
    "The RDB file contains AUX module data I can't load: no matching module 'x'": "rdb_module_missing",
    "Internal error in RDB reading offset 0, function at rdb.c:2 -> RDB has duplicated key 'a' in DB 0": "rdb_duplicate_key",
    "Error reading the RDB base file appendonly.aof.1.base.rdb, AOF loading aborted": "aof_base_unreadable",
    "Unrecoverable error reading the append only file a.aof: Is a directory": "aof_unreadable",
    "Can't open or create append-only dir appendonlydir: Not a directory": "aof_unreadable",
    "The append log file a.aof doesn't exist: No such file or directory": "aof_file_missing",
    "Fatal error, can't open config file '/etc/redis/redis.conf': Permission denied": "config_error",
    "Can't chdir to '/data': No such file or directory": "cannot_chdir",
    "Sorry, the cluster configuration file nodes.conf is already used by a different Redis Cluster node. Please make sure that": "cluster_config_taken",
    "Out Of Memory allocating 1073741824 bytes!": "out_of_memory",
    "Redis 7.0.15 crashed by signal: 11, si_code: 1": "server_crashed",
    "=== REDIS BUG REPORT START: Cut & paste starting from here ===": "server_crashed",
    "WARNING Memory overcommit must be enabled! Without it, a background save": "started_without_overcommit",
    "WARNING overcommit_memory is set to 0! Background save may fail": "started_without_overcommit",
    "WARNING You have Transparent Huge Pages (THP) support enabled in your kernel.": "started_with_thp",
    "WARNING: The TCP backlog setting of 65000 cannot be enforced because": "started_with_short_backlog",
    "Unable to AUTH to MASTER: -WRONGPASS invalid username-password pair or user is disabled.": "replica_no_auth",
    "Unexpected reply to PSYNC from master: -NOAUTH Authentication required.": "replica_no_auth",
    "Replica was unable to write command to disk.": "replica_cannot_write",
    "Client id=3 addr=192.0.2.1:4 flags=S scheduled to be closed ASAP for overcoming of output buffer limits.": "output_buffer_full",
    "MASTER timeout: no data nor PING received...": "replica_timeout",
    "Disconnecting timedout replica (full sync): 192.0.2.2:6379": "replica_timeout",
    "Failed trying to load the MASTER synchronization DB from socket: Success": "sync_failed",
    "+tilt #tilt mode entered": "sentinel_tilt_entered",
    "WARNING: Sentinel was not able to save the new configuration on disk!!!: Permission denied": "sentinel_not_saved",
    "Fatal error loading the DB, check server logs. Exiting.": "load_failed",
    "redis-server.service: A process of this unit has been killed by the OOM killer.": "unit_out_of_memory",
    "redis-server.service: Failed with result 'oom-kill'.": "unit_out_of_memory",
    "redis-server.service: State 'stop-sigterm' timed out. Killing.": "unit_timed_out",
    "redis-server.service: start operation timed out. Terminating.": "unit_timed_out",
    "redis-server.service: Start request repeated too quickly.": "unit_gave_up",
    "redis-server.service: Main process exited, code=killed, status=9/KILL": "unit_killed",
    "Redis is now ready to exit, bye bye...": "server_stopped",
    "Background saving started by pid 12": None,
    "DB saved on disk": None,
    "Ready to accept connections tcp": None,
}  # fmt: skip
KERNEL_LINES = {
    "Out of memory: Killed process 812 (redis-server) total-vm:9000kB, anon-rss:8000kB": "oom_killer",
    "Memory cgroup out of memory: Killed process 9 (valkey-server) total-vm:1kB": "oom_killer",
    "Memory cgroup out of memory: Kill process 9 (redis-rdb-bgsav) score 1 or sacrifice child": "oom_killer",
    "Out of memory: Killed process 5 (java) total-vm:1kB": "oom_killer_elsewhere",
    "blk_update_request: I/O error, dev sda, sector 2048 op 0x0:(READ)": "kernel_disk_error",
    "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm redis-server": "kernel_disk_error",
    "EXT4-fs (sda1): Remounting filesystem read-only": "kernel_disk_error",
    "XFS (dm-0): Metadata corruption detected; Corruption of in-memory data": "kernel_disk_error",
    "mce: [Hardware Error]: Machine check events logged": "kernel_machine_check",
    "INFO: task redis-server:812 blocked for more than 120 seconds.": "kernel_hung_task",
    "usb 1-1: new high-speed USB device": None,
}
STAMP = "7:M 03 Mar 2024 04:05:06.789 # "


def case_of(path: pathlib.Path) -> str:
    return re.sub(r"^\w+-[\d.]+-", "", path.stem)


def test_every_case_is_recorded():
    assert {case_of(path) for path in RECORDED} == set(TOLD)


@pytest.mark.parametrize("path", RECORDED, ids=case_of)
def test_recorded_logs(path):
    found = [event for event in scan(path.read_text().splitlines()) if event.code != "started_without_overcommit"]
    assert " ".join(f"({event.code})" if event.over else event.code for event in found) == TOLD[case_of(path)]
    for event in found:
        assert event.line in [line.strip() for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("words", "code"), LINES.items())
def test_lines_of_servers(words, code):
    kind = kind_of(STAMP + words)
    assert (kind.code if kind else None) == code


@pytest.mark.parametrize(("words", "code"), KERNEL_LINES.items())
def test_lines_of_the_kernel(words, code):
    assert [event.code for event in scan_kernel([f"[Sun Mar  3 04:05:06 2024] {words}"])] == ([code] if code else [])


def test_every_kind_has_a_line():
    predicted = set(" ".join(TOLD.values()).replace("(", "").replace(")", "").split())
    assert predicted | set(LINES.values()) | set(KERNEL_LINES.values()) - {None} >= {
        kind.code for kind in (*SERVER, *KERNEL)
    }
    assert len(KINDS) == len(SERVER) + len(KERNEL)


def test_a_kind_says_what_to_do():
    for kind in KINDS.values():
        assert kind.severity in ("critical", "warning", "info"), kind.code
        assert kind.topic in ("start", "save", "rewrite", "aof", "disk", "link", ""), kind.code
        assert len(kind.why) > 20, kind.code
        assert len(kind.do) > 15, kind.code


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (STAMP + "x", "2024-03-03T04:05:06Z"),
        ("7:S 3 Mar 2024 04:05:06 # older servers", "2024-03-03T04:05:06Z"),
        ("2024-03-03T04:05:06+0100 host redis-server[7]: 7:M 03 Mar 2024 04:05:06.789 # x", "2024-03-03T03:05:06Z"),
        ("7:M 2024-03-03T04:05:06.789+01:00 # Valkey's iso8601", "2024-03-03T03:05:06Z"),
        ("7:M 1709438706789 # Valkey's milliseconds", "2024-03-03T04:05:06Z"),
        (
            'pid=7 role=primary timestamp="2024-03-03T04:05:06.789Z" level=warning message="logfmt"',
            "2024-03-03T04:05:06Z",
        ),
        ("[Sun Mar  3 04:05:06 2024] dmesg -T", "2024-03-03T04:05:06Z"),
        ("no time at all", None),
        ("7:M 99 Mar 2024 04:05:06.789 # no such day", None),
        ("2024-03-03T04:05:06+9900 no such zone", "2024-03-03T04:05:06Z"),
    ],
)
def test_times(line, wanted):
    at = time_of(line)
    assert (None if at is None else iso_utc(at)) == wanted


def test_the_zone_of_the_host_counts():
    east = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    (event,) = scan([STAMP + "Background saving error"], zone=east)
    assert event.first == "2024-03-02T22:35:06Z"


def test_only_since():
    lines = [
        "1:M 01 Mar 2024 00:00:00.000 # Background saving error",
        "a line without a time belongs to the one before: MISCONF",
        "1:M 05 Mar 2024 00:00:00.000 # Background saving error",
        "1:M 06 Mar 2024 00:00:00.000 # Background saving error",
    ]
    since = datetime.datetime(2024, 3, 4, tzinfo=datetime.UTC).timestamp()
    (event,) = scan(lines, since)
    assert (event.count, event.first, event.last) == (2, "2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z")
    assert [one.count for one in scan(lines)] == [3, 1]


def test_a_trouble_that_comes_back_is_not_over():
    lines = ["1:M 01 Mar 2024 00:00:00.000 # Background saving error", "x Background saving terminated with success"]
    assert [event.over for event in scan(lines)] == [True]
    assert [event.over for event in scan([*lines, lines[0]])] == [False]


def test_a_password_in_a_line_that_is_refused_is_hidden():
    (event,) = scan(["*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***", ">>> 'requirepass \"geheim\" more'"])
    assert event.line == ">>> 'requirepass (hidden)'"
    (event,) = scan([">>> 'no-such-directive \"1\"'"])
    assert event.line == ">>> 'no-such-directive \"1\"'"


def test_two_logs_become_one():
    file = ["1:M 01 Mar 2024 00:00:10.000 # second", "and more of it"]
    unit = ["2024-03-01T00:00:00+0000 h systemd[1]: first", "2024-03-01T00:00:20+0000 h systemd[1]: third"]
    assert [line.split()[-1] for line in merged(file, unit)] == ["first", "second", "it", "third"]
    assert merged([], []) == []


def test_moments():
    now = 1_000_000_000.0
    assert [now - moment(text, now) for text in ("30s", "90min", "24h", "7 d")] == [30, 5400, 86400, 604800]
    assert iso_utc(moment("2024-01-01T10:00:00+02:00", now)) == "2024-01-01T08:00:00Z"
    for text in ("", "24", "yesterday", "h", "-1h", "2024-01-01", "2024-13-01T00:00:00Z"):
        with pytest.raises(Problem) as caught:
            moment(text, now)
        assert caught.value.code == "invalid_value"


def test_junk_is_made_printable():
    (event,) = scan(["\x1b[31m\x00\ufffdMISCONF" + "x" * 5000 + "\x07"])
    assert event.line.isprintable()
    assert len(event.line) < 500


@hypothesis.given(
    strategies.lists(strategies.text(max_size=80), max_size=20),
    strategies.one_of(strategies.none(), strategies.floats()),
)
def test_nothing_makes_it_stumble(lines, since):
    for event in scan(lines, since) + scan_kernel(lines, since):
        assert event.code in KINDS
