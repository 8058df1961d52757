# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_restore back in the AOF's archive: to a second, and to right before a FLUSHALL. DEBUG DIGEST and redis-cli judge."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive, archive_dirs

from tests.integration.test_redis_restore import (  # noqa: F401, they are fixtures
    _back_up,
    _restore,
    _unit,
    kept,
    refused,
)
from tests.support.data_of_all_kinds import fill

CONF = 'save ""\nappendonly yes\naof-timestamp-enabled yes\nenable-debug-command local\n'


def digest(server) -> str:
    return server.cli("DEBUG", "DIGEST")


def next_second() -> int:
    """Wait for the next second to begin; the one that ended."""
    ended = int(time.time())
    while int(time.time()) == ended:
        time.sleep(0.01)
    return ended


@pytest.fixture(name="server")
def _server(unit):
    unit.server.write_conf(CONF)
    unit.server.start()
    fill(unit.server.cli)
    return unit.server


def test_a_flushall_is_undone_to_the_byte_and_that_is_undone(restore, unit, server):
    server.cli("SET", "just", "before")
    server.cli("SET", "binary", "#TS:1\r\n*1\r\n$8\r\nFLUSHALL\r\n")  # a value that looks like one
    saved = digest(server)
    server.cli("FLUSHALL")
    server.fill(5, "after")
    present = digest(server)
    before, pid = server.tree(), server.process.pid
    predicted = restore(check=True, undo_flush=True)
    assert not predicted.failed, predicted.msg
    assert (server.tree(), server.process.pid, unit.did) == (before, pid, [])
    done = restore(undo_flush=True)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions, predicted.plan) == (done.diff, done.actions, done.plan)
    assert (done.plan["command"], done.plan["commands_after"] >= 5, done.keys["before"]) == ("FLUSHALL", True, 5)
    assert digest(server) == saved
    assert server.config("auto-aof-rewrite-percentage") == "100"
    server.cli("SET", "life", "goes on")
    server.restart()
    assert server.cli("GET", "life") == "goes on"
    assert not restore(state="rolled_back").failed
    assert digest(server) == present


def test_a_flushdb_within_a_transaction_is_undone_with_its_transaction(restore, server):
    saved = digest(server)
    server.cli(
        "EVAL",
        "redis.call('SET', 'in', 'one') redis.call('SELECT', 3) redis.call('FLUSHDB') redis.call('SET', 'and', 'more') return 1",
        "0",
    )
    assert digest(server) != saved
    done = restore(undo_flush=True)
    assert not done.failed, done.msg
    assert (done.plan["command"], done.plan["database"]) == ("FLUSHDB", 3)
    assert digest(server) == saved


def test_one_goes_back_to_a_second_through_a_rewrite(restore, back_up, server):
    seen = {}
    for number in range(3):
        next_second()
        server.cli("SET", "step", str(number))
        server.cli("EVAL", "return redis.call('HSET', KEYS[1], '\\0\\255', '#TS:99\\r\\n')", "1", f"hash:{number}")
        state = digest(server)
        seen[next_second()] = state
        if number == 0:
            back_up(method="aof")  # its archive outlives the rewrite
            server.cli("BGREWRITEAOF")
            while "aof_rewrite_in_progress:1" in server.cli("INFO", "persistence"):
                time.sleep(0.05)
            next_second()
    server.cli("FLUSHALL")
    for second, state in seen.items():
        predicted = restore(check=True, to_time=str(second))
        assert not predicted.failed, predicted.msg
        done = restore(to_time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)))
        assert not done.failed, done.msg
        assert digest(server) == state
        assert not restore(state="rolled_back").failed
    assert len(kept(server)) == len(seen)


# --- refused, and nothing changed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"undo_flush": True}, "no_flush"),
        ({"to_time": "yesterday"}, "invalid_value"),
        ({"to_time": "2026-11-24T22:00:00"}, "invalid_value"),
        ({"to_time": "2026-13-24T22:00:00Z"}, "invalid_value"),
        ({"to_time": "1", "undo_flush": True}, "invalid_value"),
        ({"to_time": "1000000000"}, "before_history"),
        ({"to_time": "99999999999"}, "after_history"),
    ],
)
def test_what_is_not_there_is_refused(restore, unit, server, options, code):
    done = refused(restore, unit, code, **options)
    if code.endswith("_archive"):
        assert done.ranges
        assert str(done.ranges[0][0]) in done.msg


def test_without_an_aof_there_is_no_history(restore, unit):
    unit.server.write_conf("save 3600 1\nappendonly no\n")
    unit.server.start().fill(5)
    before = unit.server.tree()
    for options in ({"undo_flush": True}, {"to_time": "1000000000"}):
        done = restore(**options)
        assert done.failed
        assert done.code in ("no_flush", "no_aof_history")
        assert (unit.server.tree(), unit.did) == (before, [])


def test_commands_without_timestamps_are_not_taken_for_a_second(restore, unit):
    unit.server.write_conf('save ""\nappendonly yes\n')
    unit.server.start().fill(5)
    next_second()
    second = next_second()
    unit.server.fill(5, "more")
    done = restore(to_time=str(second))
    assert (done.failed, done.code) == (True, "aof_without_timestamps")
    assert unit.did == []


@pytest.mark.parametrize("method", ["rdb", "aof"])
def test_between_a_backup_and_its_restore_the_data_was_another(restore, back_up, server, method):
    """The restored base says that it is of the backup's second; until the restore the server had other data, and that is what is brought."""
    server.cli("SET", "k", "1")
    label = back_up(method=method).backup["label"]
    next_second()
    server.cli("SET", "k", "2")
    between = next_second()
    next_second()
    place = Place(str(server.data), "dump.rdb", "appendonlydir", "appendonly.aof")
    archive(place, archive_dirs(place), 3600, time.time())  # as the host's timer does
    assert not restore(backup=label).failed
    assert server.cli("GET", "k") == "1"
    server.restart()  # Redis reads what says so as well
    assert server.cli("GET", "k") == "1"
    next_second()
    server.cli("SET", "k", "3")
    after = next_second()
    next_second()
    done = restore(to_time=str(between))
    assert not done.failed, done.msg
    assert server.cli("GET", "k") == "2"
    again = restore(to_time=str(after))
    assert (again.failed, server.cli("GET", "k")) == (
        True,
        "2",
    )  # nobody kept that AOF: it is refused with the ranges that are
    back = restore(state="rolled_back")
    assert not back.failed, back.msg
    assert server.cli("GET", "k") == "3"
    # while the other data was there, it was the other data
    shutil.rmtree(archive_dirs(place))
    wrong = restore(check=True, to_time=str(between))
    assert wrong.failed, wrong.plan
    assert wrong.code in ("before_history", "history_gap"), wrong.msg


def test_nobody_removes_the_history_while_it_is_read(restore, server, monkeypatch):
    """The host's timer waits: what it would drop for want of room is what is being put together."""
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    place = Place(str(server.data), "dump.rdb", "appendonlydir", "appendonly.aof")
    server.cli("SET", "k", "1")
    archive(place, archive_dirs(place), 3600, time.time())
    real, busy = redis_restore.before_flush, []

    def look(*args):
        lock = subprocess.run(["flock", "-n", "-x", archive_dirs(place), "true"], check=False)
        busy.append(lock.returncode)
        return real(*args)

    monkeypatch.setattr(redis_restore, "before_flush", look)
    server.cli("FLUSHALL")
    assert not restore(undo_flush=True).failed
    assert busy == [1]
    assert subprocess.run(["flock", "-n", "-x", archive_dirs(place), "true"], check=False).returncode == 0


def test_until_the_swap_the_data_was_another(restore, back_up, server, monkeypatch):
    """A copy may be test-loaded for minutes, while the server takes writes; those seconds are not the backup's either."""
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import apply as restore_apply

    place = Place(str(server.data), "dump.rdb", "appendonlydir", "appendonly.aof")
    server.cli("SET", "k", "1")
    label = back_up(method="rdb").backup["label"]
    real, seconds = restore_apply.check_staged, []

    def test_load(*arguments):
        real(*arguments)
        next_second()
        server.cli("SET", "k", "written during the test-load")
        seconds.append(next_second())
        next_second()
        archive(place, archive_dirs(place), 3600, time.time())

    monkeypatch.setattr(restore_apply, "check_staged", test_load)
    next_second()  # what is staged is younger than the AOF that is there
    assert not restore(backup=label).failed
    assert server.cli("GET", "k") == "1"
    monkeypatch.setattr(restore_apply, "check_staged", real)
    done = restore(to_time=str(seconds[0]))
    assert not done.failed, done.msg
    assert server.cli("GET", "k") == "written during the test-load"


def test_a_copy_that_ends_within_a_command_says_it_as_well(restore, back_up, server):
    """What Redis would cut off at its start is cut off in the copy, so that what tells of the restore is read."""
    server.cli("SET", "k", "1")
    label = back_up(method="aof").backup["label"]
    folder = server.home / "backups" / "orders" / label
    manifest = json.loads((folder / "manifest.json").read_text())
    (last,) = (row for row in manifest["files"] if row["path"].endswith(".incr.aof"))
    path = folder / last["path"]
    whole = path.read_bytes()
    path.write_bytes(whole + b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nha")
    last.update(size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    del manifest["seal"]
    (folder / "manifest.json").write_text(seal(manifest))
    assert not restore(backup=label, allow_unverified=True).failed
    assert server.cli("GET", "k") == "1"
    files = sorted((server.data / "appendonlydir").glob("*.incr.aof"))
    assert files[0].read_bytes() == whole
    assert files[1].read_bytes().startswith(b"#REDISOPS-SINCE:")
