# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks that fill up in the middle of a backup or a restore, whatever the look beforehand had reported: the live data is what it was, nothing half is
kept as a backup, and the next run works. The disks are real and small; how much is left decides in which phase it ends.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.faults.test_disk_full import MIB, small_disk
from tests.support.unit import PretendedUnit

CONF = 'save ""\nappendonly yes\nrdbcompression no\nenable-debug-command local\n'
#: What is left free, from nothing to nearly enough: the directory, the data, what lies next to it, the manifest, the proof.
LEFT = [0, 4096, 16384, 256 * 1024, MIB, 1100 * 1024, 1160 * 1024]


def fill_but(place, left: int) -> None:
    """Take all of the file system but ``left`` bytes."""
    space = os.statvfs(place)
    with open(place / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(space.f_bavail * space.f_frsize - left, 4096))


@pytest.fixture(name="unseen")
def _unseen(monkeypatch):
    """The look beforehand sees nothing, as where somebody else fills the disk right after it."""
    from ansible_collections.redisops.recovery.plugins.module_utils.backup import create as backup_create
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import plan as restore_plan

    monkeypatch.setattr(backup_create, "require_room", lambda *_args, **_more: None)
    monkeypatch.setattr(restore_plan, "require_fits", lambda *_args, **_more: None)


def full(server):
    server.write_conf(CONF)
    server.start()
    server.cli(
        "EVAL", "for i=1,1000 do redis.call('SET', 'key:'..i, string.rep(string.char(i % 251), 1000)..i) end", "0"
    )
    return server.cli("DEBUG", "DIGEST")


@pytest.mark.needs_root
@pytest.mark.parametrize("method", ["rdb", "aof", "stream"])
def test_where_backups_are_kept(redis_server, call_module, tmp_path, unseen, method):
    digest = full(redis_server)
    disk = tmp_path / "disk"
    wanted = redis_server.params(directory=str(disk / "backups"), group_name="orders", sentinel_file="", method=method)
    ended = set()

    def rows():
        found = call_module("redis_backup_info", directory=str(disk / "backups"), group_name="orders").groups
        return {row["label"]: row["state"] for one in found for row in one["backups"]}

    with small_disk(disk, 8 * MIB):
        for left in LEFT:
            before = rows()
            fill_but(disk, left)
            done = call_module("redis_backup", **wanted)
            ended.add(done.failed)
            after = rows()
            if done.failed:
                assert getattr(done, "code", done.msg) in ("backup_write", "stream_failed"), (left, done.msg)
                # nothing half passes for a backup
                assert {label: state for label, state in after.items() if state == "verified"} == {
                    label: state for label, state in before.items() if state == "verified"
                }, (left, done.msg)
            assert redis_server.cli("DEBUG", "DIGEST") == digest
            (disk / "filler").unlink()
            for label in sorted(after)[: -1 if not done.failed else None]:
                if label not in before or not done.failed:
                    assert not call_module("redis_backup", **{**wanted, "state": "absent", "backup": label}).failed
        done = call_module("redis_backup", **wanted)
        assert not done.failed, done.msg
        assert done.state == "verified"
        assert [
            path.name
            for path in (disk / "backups" / "orders").iterdir()
            if path.name[0] != "2" and "lock" not in path.name
        ] == []
    assert True in ended
    assert redis_server.config("appendonly") == "yes"


@pytest.mark.needs_root
def test_where_redis_saves(redis_server, call_module, tmp_path, unseen):
    """BGSAVE itself finds no room: Redis' last save stays what it was, and nothing is a backup."""
    redis_server.data.rmdir()
    with small_disk(redis_server.data, 8 * MIB):
        redis_server.data.chmod(0o750)
        digest = full(redis_server)
        fill_but(redis_server.data, 64 * 1024)
        wanted = redis_server.params(
            directory=str(tmp_path / "backups"), group_name="orders", sentinel_file="", method="rdb"
        )
        done = call_module("redis_backup", **wanted)
        assert (done.failed, done.code) == (True, "save_failed"), done.msg
        assert (
            call_module("redis_backup_info", directory=str(tmp_path / "backups"), group_name="orders").groups[0][
                "backups"
            ]
            == []
        )
        assert redis_server.cli("DEBUG", "DIGEST") == digest
        (redis_server.data / "filler").unlink()
        assert call_module("redis_backup", **wanted).state == "verified"
        redis_server.stop()


@pytest.mark.needs_root
def test_where_the_data_goes_back(redis_server, call_module, tmp_path, unseen, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    redis_server.data.rmdir()
    with small_disk(redis_server.data, 8 * MIB):
        redis_server.data.chmod(0o750)
        saved = full(redis_server)
        wanted = redis_server.params(directory=str(tmp_path / "backups"), group_name="orders")
        assert call_module("redis_backup", **wanted, sentinel_file="").state == "verified"
        redis_server.cli("SET", "written", "after")
        digest = redis_server.cli("DEBUG", "DIGEST")
        unit, real = PretendedUnit(redis_server), redis_restore.Host
        monkeypatch.setattr(redis_restore, "Host", lambda: real("/", unit.run))
        ended = set()
        for left in LEFT[:6]:
            fill_but(redis_server.data, left)
            done = call_module("redis_restore", **wanted, unit="redis")
            (redis_server.data / "filler").unlink()
            ended.add(done.failed)
            if done.failed:
                # before the stop or after it: what runs is the data from before, whole
                assert done.code in ("backup_write", "temporary_server_files", "restore_undone", "staged_differs"), (
                    left,
                    done.code,
                    done.msg,
                )
                assert redis_server.cli("DEBUG", "DIGEST") == digest
            else:
                assert redis_server.cli("DEBUG", "DIGEST") == saved
                assert not call_module("redis_restore", **wanted, unit="redis", state="rolled_back").failed
                assert redis_server.cli("DEBUG", "DIGEST") == digest
            assert not call_module("redis_restore", **wanted, unit="redis", state="cleaned").failed
        assert True in ended
        done = call_module("redis_restore", **wanted, unit="redis")
        assert not done.failed, done.msg
        assert redis_server.cli("DEBUG", "DIGEST") == saved
        redis_server.stop()


@pytest.mark.parametrize("skew", [-400 * 86400, 400 * 86400])
def test_a_clock_that_was_wrong(redis_server, call_module, tmp_path, monkeypatch, skew):
    """A backup from a clock that was behind or ahead is predicted with that, stays, and does not keep the next one from being taken and chosen."""
    from ansible_collections.redisops.recovery.plugins.module_utils.backup import job as backup_job
    from ansible_collections.redisops.recovery.plugins.modules import redis_backup

    digest = full(redis_server)
    wanted = redis_server.params(directory=str(tmp_path / "backups"), group_name="orders", sentinel_file="")
    with monkeypatch.context() as wrong:
        wrong.setattr(
            redis_backup, "run", lambda job, host, check: backup_job.run(job, host, check, lambda: time.time() + skew)
        )
        first = call_module("redis_backup", **wanted)
    assert not first.failed, first.msg
    assert abs(first.backup["at"] - time.time() - skew) < 60
    redis_server.cli("SET", "written", "since")
    second = call_module("redis_backup", **wanted, max_age=3600)
    assert not second.failed, second.msg
    assert (second.state, second.backup["keys"]) == ("verified", 1001)
    pruned = call_module("redis_backup", **wanted, state="expired", retention={"keep_within_days": 1})
    assert not pruned.failed
    info = call_module("redis_backup_info", directory=str(tmp_path / "backups"), group_name="orders", max_age=3600)
    labels = [row["label"] for row in info.groups[0]["backups"]]
    assert second.backup["label"] in labels  # the newest by a right clock is not what goes
    if skew > 0:
        assert first.backup["label"] in labels  # from the future: it is left to a person
        assert "in the future" in info.text
    assert redis_server.cli("DEBUG", "DIGEST") != digest
