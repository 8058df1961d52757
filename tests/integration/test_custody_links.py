# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the server's user puts in the place of files that root is going to read or write: a link, a pipe."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.needs_root

SERVICE = 65534


@pytest.fixture(name="owned")
def _owned(redis_server):
    """Debian's layout: the directory of redis.conf, and redis.conf, are the server's user's."""
    redis_server.write_conf("save 3600 1\n")
    for path in (redis_server.home, redis_server.conf, redis_server.data):
        os.chown(path, SERVICE, SERVICE)
    redis_server.home.chmod(0o2770)
    return redis_server


@pytest.fixture(name="secret")
def _secret(tmp_path):
    path = tmp_path / "shadow"
    path.write_text("root:$6$very-secret:19000:0:99999:7:::\n")
    path.chmod(0o600)
    return path


MODULES = {
    "redis_config": {"settings": {"timeout": "100"}},
    "redis_persistence": {"owner": "nobody", "group": "nogroup"},
}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("module", ["redis_config", "redis_persistence"])
def test_root_reads_no_file_that_the_servers_user_could_not(call_module, owned, secret, module, check, running):
    if running:
        owned.start()
    owned.conf.unlink()
    owned.conf.symlink_to(secret)
    before = secret.read_bytes()
    done = call_module(module, check=check, **owned.params(**MODULES[module]))
    assert (done.failed, done.code) == (True, "file_not_theirs"), done.msg
    assert "very-secret" not in str(vars(done))
    assert (secret.read_bytes(), os.readlink(owned.conf)) == (before, str(secret))


def test_nor_by_an_include(call_module, owned, secret):
    owned.start()
    with owned.conf.open("a") as handle:
        handle.write(f"include {owned.home}/more.conf\n")
    (owned.home / "more.conf").symlink_to(secret)
    done = call_module("redis_config", **owned.params(settings={"timeout": "100"}))
    assert (done.failed, done.code) == (True, "file_not_theirs"), done.msg
    assert "very-secret" not in str(vars(done))


def test_nor_by_the_log(call_module, owned, secret):
    owned.start()
    (owned.home / "redis.log").unlink()
    (owned.home / "redis.log").symlink_to(secret)
    done = call_module("redis_health_info", config_file=str(owned.conf), login_port=owned.port)
    assert "very-secret" not in str(vars(done))
    assert "could not read" in str(vars(done))


def test_a_pipe_does_not_keep_root_waiting(call_module, owned):
    owned.start()
    owned.conf.unlink()
    os.mkfifo(owned.conf)
    done = call_module("redis_config", **owned.params(settings={"timeout": "100"}))
    assert (done.failed, done.code) == (True, "file_read"), done.msg


def test_a_link_of_roots_own_is_followed(call_module, redis_server, tmp_path):
    """RHEL has /etc/redis.conf as a link to /etc/redis/redis.conf."""
    redis_server.write_conf("save 3600 1\n")
    link = tmp_path / "redis.conf"
    link.symlink_to(redis_server.conf)
    redis_server.start()
    done = call_module("redis_config", **{**redis_server.params(settings={"timeout": "100"}), "config_file": str(link)})
    assert (done.failed, done.changed) == (False, True), done.msg
    assert link.is_symlink()


def test_the_servers_own_files_are_read(call_module, owned):
    owned.start()
    done = call_module("redis_config", **owned.params(settings={"timeout": "100"}))
    assert (done.failed, done.changed) == (False, True), done.msg
