# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was undone stays undone: neither a repair nor a second undo brings an abandoned history back. DEBUG DIGEST and redis-cli judge."""

from __future__ import annotations

import pathlib

import pytest

from tests.integration.test_redis_repair import (  # noqa: F401, they are fixtures
    Unit,
    _back_up,
    _repair,
    archive,
    change,
    refused,
    rewrite,
    start_of,
)

CONF = 'save ""\nappendonly yes\nauto-aof-rewrite-percentage 0\nenable-debug-command local\naof-timestamp-enabled yes\n'


@pytest.fixture(name="unit")
def _unit(redis_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_repair, redis_restore

    unit = Unit(redis_server)
    host = redis_repair.Host
    for module in (redis_repair, redis_restore):
        monkeypatch.setattr(module, "Host", lambda: host("/", unit.run))
    return unit


@pytest.fixture(name="restore")
def _restore(call_module, unit):
    def run(check=False, **options):
        return call_module(
            "redis_restore", check=check, **unit.server.params(unit="redis", directory=str(unit.server.home / "backups"), group_name="orders", **options)
        )  # fmt: skip

    return run


@pytest.fixture(name="server")
def _server(unit):
    unit.server.write_conf(CONF)
    unit.server.start()
    fill(unit.server, "first", 200)
    return unit.server


def fill(server, prefix, count, value="x" * 20):
    for number in range(count):
        server.cli("SET", f"{prefix}:{number}", value)


def aof(server, number=1) -> pathlib.Path:
    return server.data / "appendonlydir" / f"appendonly.aof.{number}.incr.aof"


def digest(server) -> str:
    return server.cli("DEBUG", "DIGEST")


def damage(server, number, name):
    """A byte of the command that wrote key ``name`` rots."""
    path = aof(server, number)
    raw = path.read_bytes()
    change(path, raw.index(b"$%d\r\n%s\r\n" % (len(name), name.encode())), b"!")


@pytest.mark.parametrize("cleaned", [False, True])
def test_a_repair_does_not_replay_a_flushall_that_was_undone(repair, restore, server, cleaned):
    server.cli("FLUSHALL")
    server.cli("SET", "after", "the accident")
    archive(server)
    done = restore(undo_flush=True)
    assert not done.failed, done.msg
    if cleaned:
        assert not restore(state="cleaned").failed
    fill(server, "second", 50)
    was = digest(server)
    server.stop()
    damage(server, 1, "first:7")
    done = repair()
    assert not done.failed, done.msg
    assert (done.method, done.loses) == ("archive", {"bytes": 0, "commands": 0, "seconds": 0})
    assert digest(server) == was
    assert server.cli("EXISTS", "after") == "0"


def test_a_repair_after_a_restored_backup_does_not_replay_what_followed_it(repair, restore, back_up, server):
    back_up(method="aof")
    fill(server, "first", 200, "abandoned")
    archive(server)
    assert not restore().failed
    fill(server, "second", 50)
    was = digest(server)
    server.stop()
    damage(server, 1, "first:7")
    done = repair()
    assert not done.failed, done.msg
    assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert digest(server) == was


def test_an_increment_that_a_restore_cut_and_that_is_gone_is_not_taken_uncut(repair, restore, unit, server):
    server.cli("FLUSHALL")
    archive(server)
    assert not restore(undo_flush=True).failed
    fill(server, "second", 5)
    server.stop()
    aof(server, 1).unlink()
    done = refused(repair, unit, "truncation_not_allowed")
    assert next(one for one in done.methods if one["method"] == "archive")["possible"] is False


def test_a_longer_copy_of_the_last_increment_is_not_taken_without_a_word(repair, unit, server):
    """Somebody cut the FLUSHALL off by hand; the archive has it still."""
    server.cli("FLUSHALL")
    archive(server)
    server.stop()
    path = aof(server, 1)
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw[: raw.index(b"*1\r\n$8\r\nFLUSHALL")])
    server.start()
    was = server.keys()
    server.stop()
    damage(server, 1, "first:150")
    done = refused(repair, unit, "truncation_not_allowed")
    way = next(one for one in done.methods if one["method"] == "archive")
    assert (was, way["loses"]["commands"]) == (200, None)


def undo_refused(restore, unit, code):
    before, did = unit.server.tree(), list(unit.did)
    for check in (True, False):
        done = restore(check=check, undo_flush=True)
        assert (done.failed, done.code) == (True, code), vars(done)
        assert (unit.server.tree(), unit.did) == (before, did)
    return done


@pytest.mark.parametrize("later", ["nothing", "archived", "rewritten", "cleaned"])
def test_a_second_undo_is_refused_and_takes_nothing_back(restore, unit, server, later):
    server.cli("FLUSHALL")
    server.cli("SET", "after", "the accident")
    archive(server)
    assert not restore(undo_flush=True).failed
    fill(server, "second", 50)
    if later == "archived":
        archive(server)
    if later == "rewritten":
        rewrite(server)
    if later == "cleaned":
        assert not restore(state="cleaned").failed
    was = digest(server)
    done = undo_refused(restore, unit, "flush_already_undone")
    assert "FLUSHALL" in done.msg
    assert digest(server) == was
    server.cli("FLUSHALL")  # a new one is another matter
    done = restore(undo_flush=True)
    assert not done.failed, done.msg
    assert digest(server) == was


def test_an_earlier_accident_is_not_the_newest_once_the_later_is_undone(restore, unit, server):
    server.cli("FLUSHALL")
    fill(server, "between", 10)
    server.cli("FLUSHALL")
    assert not restore(undo_flush=True).failed
    assert server.keys() == 10
    undo_refused(restore, unit, "flush_already_undone")
    assert server.keys() == 10


def test_the_loss_counts_what_later_rewrites_hold(restore, server):
    server.cli("FLUSHALL")
    fill(server, "a", 5)
    archive(server)
    rewrite(server)
    fill(server, "b", 30)
    archive(server)
    rewrite(server)
    fill(server, "c", 7)
    done = restore(check=True, undo_flush=True)
    assert not done.failed, done.msg
    assert (done.plan["commands_after"], done.plan["rewrites_after"]) == (42, 2)
    assert done.plan["bytes_after"] > 42 * 50


def test_where_a_rewrite_in_between_was_not_kept_the_loss_is_not_known(restore, server):
    server.cli("FLUSHALL")
    fill(server, "a", 5)
    archive(server)
    rewrite(server)
    fill(server, "b", 30)
    rewrite(server)
    fill(server, "c", 7)
    done = restore(check=True, undo_flush=True)
    assert not done.failed, done.msg
    assert (done.plan["commands_after"], done.plan["bytes_after"]) == (None, None)


def test_a_renamed_flushall_is_found_by_the_name_it_has_in_the_log(restore, unit, server):
    server.stop()
    server.write_conf(CONF + "rename-command FLUSHALL wipe-b840\n")
    server.start()
    was = digest(server)
    server.cli("wipe-b840")
    fill(server, "after", 3)
    done = restore(check=True, undo_flush=True)
    assert not done.failed, done.msg
    assert (done.plan["command"], done.plan["commands_after"]) == ("FLUSHALL", 3)
    assert server.keys() == 3
    assert not restore(undo_flush=True).failed
    assert digest(server) == was


def test_a_flushall_behind_a_torn_transaction_is_seen(restore, unit, server):
    server.stop()
    with aof(server).open("ab") as handle:
        handle.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$1\r\n1\r\n*1\r\n$4\r\nEXE")
    server.start()
    fill(server, "later", 3)
    server.cli("FLUSHALL")
    done = undo_refused(restore, unit, "flush_in_torn_transaction")
    assert "to_time" in done.msg
