# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What walks (tests/walk) have found, each as a small test. redis-cli, the files and a start in a copy judge."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import signal
import time

import pytest

from tests.integration.test_redis_repair import _repair, _unit, aof, refused  # noqa: F401, they are fixtures
from tests.support.topology import wait
from tests.support.unit import PretendedUnit

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
AOF = 'save ""\nappendonly yes\nauto-aof-rewrite-percentage 0\n'
RDB = "save 86400 1\nappendonly no\n"


@pytest.fixture(name="persist")
def _persist(call_module, redis_server):
    def run(check=False, **options):
        done = call_module(
            "redis_persistence", check=check, **redis_server.params(**{**ME, "appendonly": False, "save": ["86400 1"], **options})
        )  # fmt: skip
        assert not done.failed, done.msg
        return done

    return run


def test_writes_of_this_very_second_are_no_loss_of_zero_seconds(redis_server, persist):
    redis_server.write_conf(RDB)
    redis_server.start().fill(3)
    persist()
    redis_server.cli("SAVE")
    redis_server.cli("SET", "just", "now")
    loss = persist().crash_loss
    assert (loss["writes"], loss["seconds"] >= 1) == (1, True)


def test_writes_since_a_save_that_the_clock_says_is_to_come_have_no_bound(redis_server, persist, monkeypatch):
    redis_server.write_conf(RDB)
    redis_server.start().fill(3)
    redis_server.cli("SAVE")
    redis_server.cli("SET", "just", "now")
    persist()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    loss = persist().crash_loss
    assert (loss["writes"], loss["seconds"]) == (1, None)
    assert "clock" in loss["text"]


def test_without_its_rdb_file_all_keys_are_at_stake(redis_server, persist):
    """It counts no write since its last save, and what it saved does not lie there any more."""
    redis_server.write_conf(RDB)
    redis_server.start().fill(3)
    redis_server.cli("SAVE")
    persist()
    assert persist().crash_loss["writes"] == 0
    (redis_server.data / "dump.rdb").rename(redis_server.home / "dump.rdb")
    loss = persist(check=True).crash_loss
    assert (loss["seconds"], loss["writes"], loss["text"]) == (None, None, "all keys")
    redis_server.restart(signal.SIGKILL)
    assert redis_server.keys() == 0


def test_a_cut_that_leaves_a_command_which_redis_does_not_know_is_no_way(redis_server, repair, unit):
    """A command's name rotted, and the end is torn: redis-check-aof cuts the end only."""
    redis_server.write_conf(AOF)
    redis_server.start().fill(1)
    for number in range(5):
        redis_server.cli("SET", f"later:{number}", "1")
    redis_server.stop(signal.SIGKILL)
    path = aof(redis_server)
    raw = path.read_bytes()
    assert raw.count(b"SELECT") == 1
    path.write_bytes(raw.replace(b"SELECT", b"SULECT")[:-5])
    done = refused(repair, unit, "rung_not_possible", method="truncation", allow_truncation=True)
    assert "does not know" in done.msg


@pytest.mark.parametrize("replaced", [False, True])
def test_no_backup_is_predicted_of_an_aof_that_is_not_the_servers(redis_server, call_module, replaced):
    """Its directory was moved away under the running server, or an older copy lies in its place."""
    redis_server.write_conf(AOF)
    redis_server.start().fill(3)
    live = redis_server.data / "appendonlydir"
    if replaced:
        shutil.copytree(live, redis_server.home / "older")
    live.rename(redis_server.home / "moved")
    if replaced:
        (redis_server.home / "older").rename(live)
    for check in (True, False):
        done = call_module(
            "redis_backup", check=check, **redis_server.params(directory=str(redis_server.home / "backups"), group_name="orders", sentinel_file="", method="aof")
        )  # fmt: skip
        assert (done.failed, done.code) == (True, "aof_unsteady"), vars(done)
    assert not list((redis_server.home / "backups").glob("*/2*"))


@pytest.fixture(name="serve")
def _serve(call_module, redis_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_service

    unit = PretendedUnit(redis_server)
    monkeypatch.setattr(redis_service, "SYSTEM_UNITS", str(redis_server.home / "units"))
    host = redis_service.Host
    monkeypatch.setattr(redis_service, "Host", lambda: host("/", unit.run))

    def run(check=False):
        return call_module("redis_service", check=check, **redis_server.params(unit="redis", restart="always"))

    return run


@pytest.mark.parametrize(
    ("how", "told"),
    [("a command", "corrupt_inside"), ("a name", "unknown_command")],
)
def test_no_restart_on_an_aof_that_would_not_load_whole(redis_server, serve, how, told):
    """The process that would go is the only one that has the data whole. A rewrite heals it, and then the restart loses nothing."""
    redis_server.write_conf(AOF)
    redis_server.start().fill(1)
    path = aof(redis_server)
    for number in range(5):
        redis_server.cli("SET", f"later:{number}", "1")
    old, new = (b"$6\r\nSELECT", b"$7\r\nSELECT") if how == "a command" else (b"SELECT", b"SULECT")
    with path.open("r+b") as handle:
        raw = handle.read()
        handle.seek(raw.index(old))
        handle.write(new)
    before, process = redis_server.tree(), redis_server.process.pid
    for check in (True, False):
        done = serve(check=check)
        assert (done.failed, done.code) == (True, "aof_not_verified"), vars(done)
        assert told in done.msg
        assert (redis_server.tree(), redis_server.process.pid) == (before, process)
    redis_server.cli("BGREWRITEAOF")
    wait(
        lambda: (
            redis_server.info("aof_rewrite_in_progress") == "0" and path.with_name("appendonly.aof.2.incr.aof").exists()
        )
    )
    done = serve()
    assert not done.failed, done.msg
    assert (done.keys["before"], redis_server.keys()) == (6, 6)
