# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that stands still, and one that runs a script: every module says so, within its timeout, and nobody is sent to kill it."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.modules import redis_repair, redis_restore, redis_service

from tests.support.unit import PretendedUnit

MODULES = [
    "redis_config",
    "redis_persistence",
    "redis_acl",
    "redis_backup",
    "redis_service",
    "redis_restore",
    "redis_repair",
]


@pytest.fixture(name="ask")
def _ask(call_module, redis_server, monkeypatch, tmp_path):
    redis_server.write_conf("save 3600 1\nbusy-reply-threshold 100\n")
    redis_server.start()
    redis_server.fill(5)
    unit = PretendedUnit(redis_server)
    for module in (redis_service, redis_restore, redis_repair):
        monkeypatch.setattr(module, "Host", lambda: Host(run=unit.run))
    more = {
        "redis_config": {"settings": {"hz": 20}},
        "redis_persistence": {"owner": "root", "group": "root"},
        "redis_acl": {"users": [{"name": "a", "preset": "admin", "passwords": ["x"]}], "acl_file": str(tmp_path / "users.acl")},
        "redis_backup": {"directory": str(tmp_path / "backups"), "group_name": "o"},
        "redis_service": {"unit": "redis"},
        "redis_restore": {"unit": "redis", "directory": str(tmp_path / "backups"), "group_name": "o"},
        "redis_repair": {"unit": "redis", "directory": str(tmp_path / "backups"), "group_name": "o"},
    }  # fmt: skip

    def ask(module: str, check: bool):
        began = time.monotonic()
        done = call_module(module, check=check, **{**redis_server.params(), "timeout": 2, **more[module]})
        assert unit.did == []
        return done, time.monotonic() - began

    return ask


@pytest.mark.parametrize("module", MODULES)
def test_a_server_that_stands_still(ask, redis_server, module):
    pid = redis_server.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for check in (True, False):
            done, took = ask(module, check)
            assert (done.failed, done.code) == (True, "server_silent"), done
            assert took < 8
            assert "kill -CONT" in done.msg
            assert "free it" not in done.msg
            if module != "redis_backup":  # it reads no configuration file before it asks
                assert f"process {pid} is in state T (stopped)" in done.msg
    finally:
        os.kill(pid, signal.SIGCONT)
    assert redis_server.keys() == 5


@pytest.mark.parametrize("module", MODULES)
def test_a_server_that_runs_a_script(ask, redis_server, module):
    script = subprocess.Popen(
        ["redis-cli", "-p", str(redis_server.port), "EVAL", "while true do end", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert wait_for(lambda: "BUSY" in redis_server.raw("PING"), 10)
        for check in (True, False):
            done, _took = ask(module, check)
            assert (done.failed, done.code) == (True, "server_busy"), done
            assert "SCRIPT KILL" in done.msg
            assert "login" not in done.msg
    finally:
        assert "OK" in redis_server.raw("SCRIPT", "KILL")
        script.wait(10)
    assert redis_server.keys() == 5
