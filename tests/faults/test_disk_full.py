# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Full disks, as real small file systems: one clear error, and everything is as it was."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import signal
import subprocess

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic import Restic
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import (
    TIMED_OUT,
    Completed,
    Host,
    run_command,
)

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
RDB_ONLY = "save 900 1\nappendonly no\nrdbcompression no\n"
MIB = 1024 * 1024


@contextlib.contextmanager
def small_disk(place, size):
    """A tmpfs of ``size`` bytes at ``place``."""
    if os.geteuid():
        pytest.fail("this test mounts a small tmpfs and has to run as root", pytrace=False)
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "redisops-test", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill_up(place):
    with open(place / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


def write_megabytes(server, count, prefix):
    server.cli("EVAL", f"for i=1,{count} do redis.call('SET', '{prefix}:'..i, string.rep('v', {MIB})) end", "0")


@pytest.fixture(name="persist")
def _persist(call_module, redis_server):
    def run(**options):
        return call_module("redis_persistence", **redis_server.params(**{**ME, **options}))

    return run


def refused(redis_server, run, code):
    """The error, and nothing changed, neither on disk nor live."""
    running = redis_server.process is not None and redis_server.process.poll() is None
    files, live = redis_server.tree(), redis_server.live_config() if running else ""
    result = run()
    assert result.failed
    assert result.code == code, result.msg
    assert redis_server.tree() == files
    if running:
        assert redis_server.live_config() == live
    return result


@pytest.mark.needs_root
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    ("module", "options"),
    [("redis_persistence", ME), ("redis_config", {"settings": {"timeout": 77, "maxmemory-policy": "allkeys-lru"}})],
)
def test_no_room_for_the_configuration_file(call_module, redis_server, module, options, running):
    with small_disk(redis_server.home / "etc", 64 * 1024) as etc:
        redis_server.conf = etc / "redis.conf"
        redis_server.write_conf(RDB_ONLY)
        redis_server.start().fill(100)
        if not running:
            redis_server.stop()
        fill_up(etc)
        result = refused(redis_server, lambda: call_module(module, **redis_server.params(**options)), "file_written")
        assert "no space is left" in result.msg
        assert "free space" in result.msg
        (etc / "filler").unlink()
        done = call_module(module, **redis_server.params(**options))
        assert not done.failed, done.msg
        if not running:
            redis_server.start()
        assert redis_server.keys() == 100
        redis_server.stop()


@pytest.mark.needs_root
def test_no_room_for_the_first_aof_is_seen_beforehand(persist, redis_server):
    with small_disk(redis_server.data, 8 * MIB):
        redis_server.write_conf(RDB_ONLY)
        redis_server.start()
        write_megabytes(redis_server, 2, "big")
        redis_server.cli("SAVE")
        result = refused(redis_server, persist, "disk_space")
        assert "MiB are free" in result.msg
        assert "19 MiB" in result.msg  # 1.5 times the RDB file of 2 MiB, and 16
        assert redis_server.restart().keys() == 2
        redis_server.stop()


@pytest.mark.needs_root
def test_no_room_for_the_aof_of_a_stopped_server(persist, redis_server):
    with small_disk(redis_server.data, 4 * MIB):
        redis_server.write_conf(RDB_ONLY)
        redis_server.start()
        write_megabytes(redis_server, 2, "big")
        redis_server.stop()
        result = refused(redis_server, persist, "disk_space")
        assert "3 MiB" in result.msg
        assert redis_server.start().keys() == 2
        redis_server.stop(signal.SIGKILL)


@pytest.mark.needs_root
def test_a_rewrite_that_runs_out_of_space_leaves_aof_off(persist, redis_server):
    """The last RDB file is small, and says little of what the server holds now: the estimate passes, the rewrite does not."""
    with small_disk(redis_server.data, 24 * MIB):
        redis_server.write_conf(RDB_ONLY)
        redis_server.start()
        write_megabytes(redis_server, 2, "old")
        redis_server.cli("SAVE")
        write_megabytes(redis_server, 40, "new")
        file = redis_server.conf.read_bytes()
        result = persist(appendfsync="always")
        assert result.failed
        assert result.code == "aof_not_turned_on", result.msg
        assert "is off again" in result.msg
        assert "disk space" in result.msg or "full disk" in result.msg
        assert (redis_server.config("appendonly"), redis_server.config("appendfsync")) == ("no", "everysec")
        assert redis_server.config("save") == "900 1"
        assert redis_server.conf.read_bytes() == file
        assert redis_server.keys() == 42
        assert not list(redis_server.home.glob(".redis.conf*"))
        subprocess.run(["mount", "-o", f"remount,size={256 * MIB}", str(redis_server.data)], check=True)
        done = persist()  # enlarged, as the message asks for, the same run gets there
        assert not done.failed, done.msg
        assert not persist().changed
        assert redis_server.stop(signal.SIGKILL).start().keys() == 42
        redis_server.stop(signal.SIGKILL)


@pytest.mark.needs_root
@pytest.mark.parametrize(("module", "options"), [("redis_persistence", ME), ("redis_config", {"settings": {"hz": 20}})])
def test_a_file_system_that_is_read_only(call_module, redis_server, module, options):
    etc = redis_server.home / "etc"
    with small_disk(etc, MIB):
        text = redis_server.conf.read_text()
        redis_server.conf = etc / "redis.conf"
        redis_server.conf.write_text(text + RDB_ONLY)
        redis_server.start()
        subprocess.run(["mount", "-o", "remount,ro", str(etc)], check=True)
        for check in (True, False):
            result = refused(
                redis_server,
                lambda check=check: call_module(module, check=check, **redis_server.params(**options)),
                "file_written",
            )
            assert "not writable" in result.msg
        redis_server.stop(signal.SIGKILL)


@pytest.mark.parametrize(("module", "options"), [("redis_persistence", ME), ("redis_config", {"settings": {"hz": 20}})])
def test_a_file_that_cannot_be_read(call_module, redis_server, module, options):
    """Root reads everything but what is no file."""
    redis_server.conf.unlink()
    redis_server.conf.mkdir()
    result = refused(redis_server, lambda: call_module(module, **redis_server.params(**options)), "file_read")
    assert "it is no plain file" in result.msg


def stands_still(*words, **more):
    """restic 0.14, now and then, when a pack does not fit: no word, and no end."""
    return Completed(TIMED_OUT, "restic: no answer", "") if "backup" in words else run_command(*words, **more)


@pytest.mark.needs_root
def test_a_repository_of_backups_that_is_full(tmp_path):
    """What is in it stays, can be listed and fetched; what did not fit is no snapshot, and goes in once there is room."""
    source, disk, target = tmp_path / "source", tmp_path / "disk", tmp_path / "target"
    source.mkdir()
    first, second = os.urandom(MIB), os.urandom(20 * MIB)
    (source / "dump.rdb").write_bytes(first)
    restic = Restic(Host(), Repository("small", str(disk / "one"), "a password", cache_dir=str(tmp_path / "cache")), 60)
    with small_disk(disk, 8 * MIB):
        restic.create()
        saved = restic.save(str(source), ["set"], 1704164645, 600, "r1")
        (source / "dump.rdb").write_bytes(second)
        for fill in (lambda: None, lambda: fill_up(disk)):  # what it writes does not fit; not even its lock does
            fill()
            with pytest.raises(Problem) as caught:
                restic.save(
                    str(source), ["set"], 1704164646, 20, "r1"
                )  # restic 0.14 may stand still where its pack does not fit
            assert caught.value.code == "repository_full", caught.value.message()
            assert "no space left" in caught.value.message()
            assert restic.exists()
            assert [one.id for one in restic.snapshots()] == [saved.snapshot]
        with pytest.raises(Problem) as caught:
            restic.check()
        assert caught.value.code == "repository_full"
        restic.fetch(saved.snapshot, str(target), 60)
        assert (target / "dump.rdb").read_bytes() == first
        (disk / "filler").unlink()
        still = Restic(Host("/", stands_still), Repository("small", f"local:{disk / 'one'}", "a password"), 60)
        with pytest.raises(Problem) as caught:
            still.save(str(source), ["set"], 1704164646, 1, "r1")
        assert caught.value.code == "repository_full"
        subprocess.run(["mount", "-o", f"remount,size={64 * MIB}", str(disk)], check=True)
        with pytest.raises(Problem) as caught:
            still.save(str(source), ["set"], 1704164646, 1, "r1")
        assert caught.value.code == "restic_timeout"
        later = restic.save(str(source), ["set"], 1704164646, 600, "r1")
        restic.check("100%", 60)
        assert [one.id for one in restic.snapshots()] == [saved.snapshot, later.snapshot]


@pytest.mark.needs_root
def test_a_backup_that_is_fetched_to_a_full_disk(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "dump.rdb").write_bytes(os.urandom(8 * MIB))
    restic = Restic(
        Host(), Repository("large", str(tmp_path / "one"), "a password", cache_dir=str(tmp_path / "cache")), 60
    )
    restic.create()
    saved = restic.save(str(source), [], 1704164645, 60, "r1")
    with small_disk(target, 2 * MIB):
        with pytest.raises(Problem) as caught:
            restic.fetch(saved.snapshot, str(target), 60)
        assert caught.value.code == "target_full", caught.value.message()
        subprocess.run(["mount", "-o", f"remount,size={32 * MIB}", str(target)], check=True)
        restic.fetch(saved.snapshot, str(target), 60)
        assert (target / "dump.rdb").read_bytes() == (source / "dump.rdb").read_bytes()
    restic.check("100%", 60)
