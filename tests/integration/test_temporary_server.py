# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The temporary server, whose directory belongs to the server's user: what that user puts there must not serve against root."""

from __future__ import annotations

import os
import pwd
import shutil
import time

import pytest
import redis
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import (
    Candidate,
    temporary_server,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import User

NOBODY = pwd.getpwnam("nobody")


@pytest.mark.needs_root
def test_links_that_the_servers_user_plants_are_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    victim.chmod(0o600)
    before = victim.stat()
    real = os.chown
    planted = []

    def chown(path, uid, gid, **options):
        real(path, uid, gid, **options)
        for name in ("redis.conf", "users.acl", "log") if os.path.isdir(path) else ():
            entry = os.path.join(path, name)
            if os.path.lexists(entry):
                os.unlink(entry)
            os.symlink(victim, entry)
            planted.append(name)

    monkeypatch.setattr(os, "chown", chown)
    binary = shutil.which("redis-server")
    user = User(NOBODY.pw_uid, NOBODY.pw_gid, ())
    with (
        pytest.raises(Problem),
        temporary_server(binary, Candidate("", "redis.conf", [], acl_text="user default on nopass\n"), user),
    ):
        pass
    assert planted
    after = victim.stat()
    assert victim.read_text() == "precious\n"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_temporary_server_never_asks_anybody_for_a_copy(redis_server):
    """Neither the primary that the file names, nor the server that listens on that port here."""
    redis_server.start("--bind", "127.0.0.1", "-::1")  # whichever of them loopback means here
    text = f"replicaof 127.0.0.1 {redis_server.port}\n"
    before = int(redis_server.info("total_connections_received"))
    binary = shutil.which("redis-server")
    user = User(NOBODY.pw_uid, NOBODY.pw_gid, ())
    with temporary_server(binary, Candidate(text, "redis.conf", RedisConf(text).directives()), user) as socket:
        time.sleep(2.5)  # replicationCron, which makes the connection, runs once a second
        assert redis.Redis(unix_socket_path=socket).ping()
    assert redis_server.info("sync_full") == "0"
    assert int(redis_server.info("total_connections_received")) == before + 2  # INFO's own, twice
