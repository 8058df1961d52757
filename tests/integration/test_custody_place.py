# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A data directory that is not this server's, or not its alone: two servers in one, a file system that is not mounted."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.modules import redis_repair, redis_restore, redis_service

from tests.integration.conftest import RedisUnderTest
from tests.integration.test_redis_health_info import _ask, _host  # noqa: F401, they are fixtures
from tests.support.unit import PretendedUnit


def finding(done, code: str) -> dict:
    return next(row for row in done.findings if row["code"] == code)


def refused(call_module, module: str, code: str, server, **options) -> str:
    """In check mode and in the run alike, and nothing changed."""
    before, live = server.tree(), server.live_config()
    messages = []
    for check in (True, False):
        done = call_module(module, check=check, **options)
        assert (done.failed, getattr(done, "code", "")) == (True, code), (module, done)
        messages.append(done.msg)
    assert (server.tree(), server.live_config()) == (before, live)
    return messages[0]


def persistence(server, **more) -> dict:
    return server.params(owner="root", group="root", **more)


@pytest.fixture(name="second")
def _second(new_redis):
    """As Debian's redis-server@.service has it: a second server, with one ``dir``, of which only dbfilename differs."""

    def make(first, extra: str = ""):
        other = new_redis("other")
        other.write_conf(f"dir {first.data}\ndbfilename other.rdb\n{extra}")
        return other

    return make


@pytest.fixture(name="pretend")
def _pretend(monkeypatch):
    def pretend(server, *modules) -> PretendedUnit:
        unit = PretendedUnit(server)
        for module in modules:
            monkeypatch.setattr(module, "Host", lambda: Host(run=unit.run))
        return unit

    return pretend


def everywhere(call_module, pretend, server, code: str) -> None:
    unit = pretend(server, redis_service, redis_restore)
    refused(call_module, "redis_persistence", code, server, **persistence(server))
    refused(call_module, "redis_service", code, server, **server.params(unit="redis"))
    refused(call_module, "redis_restore", code, server, **server.params(unit="redis", backup="latest"))
    assert unit.did == []


def test_a_second_server_in_one_dir_is_refused_before_it_turns_its_aof_on(
    call_module, redis_server, second, pretend, tmp_path
):
    redis_server.start()
    redis_server.fill(3)
    assert not call_module("redis_persistence", **persistence(redis_server)).failed
    other = second(redis_server).start()
    other.fill(5)
    words = refused(call_module, "redis_persistence", "dir_is_shared", other, **persistence(other))
    assert f"process {redis_server.process.pid} works in {redis_server.data}" in words
    everywhere(call_module, pretend, other, "dir_is_shared")
    backup = {
        "login_port": other.port,
        "config_file": str(other.conf),
        "directory": str(tmp_path / "backups"),
        "group_name": "o",
    }
    refused(call_module, "redis_backup", "dir_is_shared", other, **backup)


def test_a_second_server_that_works_elsewhere_and_has_the_aof_open_is_refused(
    call_module, redis_server, second, tmp_path
):
    redis_server.start()
    other = second(redis_server, "appendonly yes\nenable-protected-configs yes\n").start()
    (tmp_path / "elsewhere").mkdir()
    other.cli("CONFIG", "SET", "dir", str(tmp_path / "elsewhere"))
    words = refused(call_module, "redis_persistence", "dir_is_shared", redis_server, **persistence(redis_server))
    assert f"process {other.process.pid} has a file in {redis_server.data}/appendonlydir open" in words


def test_the_file_of_a_second_server_that_is_stopped_is_refused(call_module, redis_server, pretend):
    redis_server.start()
    twin = redis_server.home / "cache.conf"
    twin.write_text(f"port 1\ndir {redis_server.data}\ndbfilename dump-cache.rdb\nappendonly yes\n")
    words = refused(call_module, "redis_persistence", "dir_is_shared", redis_server, **persistence(redis_server))
    assert f"{twin} names the same dir {redis_server.data} and the same appenddirname appendonlydir" in words
    twin.write_text(f"port 1\ndir {redis_server.data}\n")
    assert "dbfilename dump.rdb" in refused(
        call_module, "redis_persistence", "dir_is_shared", redis_server, **persistence(redis_server)
    )
    redis_server.stop()
    everywhere(call_module, pretend, redis_server, "dir_is_shared")


@pytest.mark.parametrize(
    "text",
    [
        "port 1\ndir {data}\nsentinel monitor a 127.0.0.1 1 1\n",
        "port {port}\ndir {data}\n",
        "port 1\ndir {data}\ndbfilename other.rdb\n",
        "port 1\ndir {home}\n",
        "port 1\ninclude {conf}\n",
        "no redis.conf at all",
    ],
)
def test_other_files_next_to_it_are_no_second_server(call_module, redis_server, text):
    words = {"data": redis_server.data, "home": redis_server.home, "port": redis_server.port, "conf": redis_server.conf}
    (redis_server.home / "other.conf").write_text(text.format(**words))
    redis_server.start()
    done = call_module("redis_persistence", **persistence(redis_server))
    assert not done.failed, done.msg


def test_a_save_of_its_own_is_no_second_server(call_module, redis_server):
    redis_server.write_conf("rdb-key-save-delay 20000\n")
    redis_server.start()
    redis_server.fill(300)
    redis_server.cli("BGSAVE")
    done = call_module("redis_persistence", check=True, **persistence(redis_server))
    assert redis_server.info("rdb_bgsave_in_progress") == "1"
    assert not done.failed, done.msg


def test_health_says_that_two_servers_share_their_data(ask, redis_server, second):
    redis_server.start()
    assert finding(ask(), "data_shared")["severity"] == "ok"
    second(redis_server).start()
    done = ask()
    assert finding(done, "data_shared")["severity"] == "critical"
    assert done.crash_loss["known"] is False


@pytest.fixture(name="fstab")
def _fstab(monkeypatch):
    """What this host's fstab would say."""
    texts: dict[str, str] = {}
    plain = Host.read
    monkeypatch.setattr(Host, "read", lambda self, name: texts.get(name) or plain(self, name))

    def say(point: pathlib.Path | str) -> None:
        texts["/etc/fstab"] = f"# made for a test\n/dev/away {point} ext4 nofail 0 2\n"

    return say


@pytest.fixture(name="mount")
def _mount():
    mounted: list[str] = []

    def mount(point: pathlib.Path) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
        mounted.append(str(point))

    yield mount
    for point in mounted:
        subprocess.run(["umount", "-l", point], check=True)


def test_a_file_system_that_is_not_mounted_is_refused_everywhere(
    call_module, redis_server, pretend, fstab, monkeypatch
):
    """The mount point is empty: nothing there tells that there is data."""
    fstab(redis_server.data)
    everywhere(call_module, pretend, redis_server, "not_mounted")
    unit = pretend(redis_server, redis_repair)
    refused(call_module, "redis_repair", "not_mounted", redis_server, **redis_server.params(unit="redis"))
    refused(
        call_module, "redis_config", "not_mounted", redis_server, **redis_server.params(settings={"maxclients": 50})
    )
    assert unit.did == []


def test_a_running_server_below_a_mount_point_is_refused_and_critical(call_module, ask, redis_server, fstab):
    redis_server.start()
    fstab(redis_server.home)
    refused(call_module, "redis_persistence", "not_mounted", redis_server, **persistence(redis_server))
    done = ask()
    assert finding(done, "data_not_mounted")["severity"] == "critical"
    assert done.crash_loss["known"] is False


def test_the_disk_of_the_aof_behind_a_link_counts(call_module, redis_server, fstab, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (redis_server.data / "appendonlydir").symlink_to(disk)
    fstab(disk)
    words = refused(call_module, "redis_persistence", "not_mounted", redis_server, **persistence(redis_server))
    assert f"/etc/fstab names a file system at {disk}, which is not mounted" in words


def test_what_is_mounted_is_well(call_module, redis_server, fstab, mount):
    mount(redis_server.data)
    fstab(redis_server.data)
    redis_server.start()
    done = call_module("redis_persistence", **persistence(redis_server))
    assert not done.failed, done.msg


def test_a_file_system_over_the_directory_of_a_running_server_is_told(call_module, ask, redis_server, mount):
    redis_server.start()
    redis_server.fill(3)
    assert finding(ask(), "data_not_mounted")["severity"] == "ok"
    mount(redis_server.data)
    words = refused(call_module, "redis_persistence", "mounted_over", redis_server, **persistence(redis_server))
    assert "on the disk below" in words
    row = finding(ask(), "data_not_mounted")
    assert (row["severity"], "was mounted at" in row["detected"]) == ("critical", True)


@pytest.fixture(name="of_redis")
def _of_redis():
    """A server that runs as the user redis, below a directory that this user may enter."""
    home = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o755)
    server = RedisUnderTest(home)
    account = pwd.getpwnam("redis")
    for path in (home, server.data, server.conf):
        os.chown(path, account.pw_uid, account.pw_gid)
    server.process = subprocess.Popen(
        ["redis-server", str(server.conf)],
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        stdout=subprocess.DEVNULL,
    )
    try:
        assert wait_for(lambda: "PONG" in server.raw("PING"), 10)
        yield server
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(home)


@pytest.mark.needs_root
def test_a_directory_that_the_servers_user_may_not_write_is_refused_in_check_mode(call_module, of_redis):
    of_redis.fill(3)
    os.chown(of_redis.data, 0, 0)
    of_redis.data.chmod(0o755)
    options = of_redis.params(owner="redis", group="redis", dir_mode="0755")
    words = refused(call_module, "redis_persistence", "dir_not_writable", of_redis, **options)
    assert f"may not write to {of_redis.data}" in words
    account = pwd.getpwnam("redis")
    os.chown(of_redis.data, account.pw_uid, account.pw_gid)
    done = call_module("redis_persistence", **options)
    assert not done.failed, done.msg


def test_a_renamed_config_is_told_with_what_to_do(call_module, redis_server):
    redis_server.write_conf('rename-command CONFIG ""\n')
    redis_server.start()
    before = redis_server.tree()
    for check in (True, False):
        for module, more in (
            ("redis_persistence", {"owner": "root", "group": "root"}),
            ("redis_config", {"settings": {"hz": 20}}),
        ):
            done = call_module(module, check=check, **redis_server.params(**more))
            assert (done.failed, done.code) == (True, "command_renamed"), done
            assert "take `rename-command CONFIG" in done.msg
            assert "redis_acl" in done.msg
    assert redis_server.tree() == before


def test_the_unit_waits_for_the_file_systems_of_the_data(call_module, redis_server, pretend, tmp_path):
    """Where redis.conf says that the data is, and where the AOF's directory leads to."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (redis_server.data / "appendonlydir").symlink_to(disk)
    redis_server.start()
    pretend(redis_server, redis_service)
    properties = {"UMask": "0007", "RequiresMountsFor": "/var/lib/redis"}
    done = call_module("redis_service", check=True, **redis_server.params(unit="redis", properties=properties))
    assert not done.failed, done.msg
    text = next(row["declared"] for row in done.changes if row["layer"] == "unit")
    assert f"[Unit]\nRequiresMountsFor=/var/lib/redis {redis_server.data} {disk}\n[Service]\nUMask=0007" in text
