# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run that died leaves held comes back by itself: the script that the timer runs, run by a shell with a systemctl that only notes."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_directory, release_locks


class Systemd:
    """``ran``: every command. ``timers``: whether systemd-run makes one."""

    def __init__(self, runtime):
        self.ran, self.timers = [], True
        self.host = Host("/", self.run)
        self.host.runtime = str(runtime)

    def run(self, *args, **_more):
        self.ran.append(args)
        return Completed(
            0 if self.timers or args[0] != "systemd-run" else 1, "Unit redisops-release-redis.timer was already loaded"
        )

    @property
    def script(self):
        return next(args[-1] for args in self.ran if args[0] == "systemd-run")


@pytest.fixture(name="systemd")
def _systemd(tmp_path):
    yield Systemd(tmp_path / "run")
    release_locks()


@pytest.fixture(name="tick")
def _tick(tmp_path, systemd):
    """The timer elapses: what systemctl was told."""
    noted = tmp_path / "noted"
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    (fake / "systemctl").chmod(0o755)

    def run():
        subprocess.run(
            ["/bin/sh", "-c", systemd.script], check=True, env={**os.environ, "PATH": f"{fake}:{os.environ['PATH']}"}
        )
        return noted.read_text().splitlines() if noted.exists() else []

    return run


def left(tmp_path):
    return sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file())


HELD = ["redisops/held/redis", "systemd/system/redis.service.d/zzz-redisops-held.conf"]


def test_while_the_run_lives_the_timer_does_nothing(systemd, tick, tmp_path):
    lock_directory(str(tmp_path))
    UnitHold(systemd.host, "redis", str(tmp_path), True).engage()
    assert (tick(), left(tmp_path)) == ([], HELD)


@pytest.mark.parametrize("ran", [True, False])
def test_when_it_has_died_all_comes_back(systemd, tick, tmp_path, ran):
    lock_directory(str(tmp_path))
    UnitHold(systemd.host, "redis", str(tmp_path), ran).engage()
    release_locks()  # as the kernel does for a process that was killed
    start = ["start redis.service"] if ran else []
    assert tick() == ["daemon-reload", *start, "stop redisops-release-redis.timer"]
    assert left(tmp_path) == []


def test_a_run_that_ends_leaves_nothing(systemd, tmp_path):
    lock_directory(str(tmp_path))
    with UnitHold(systemd.host, "redis", str(tmp_path), True) as hold:
        text = (tmp_path / "run" / HELD[1]).read_text()
        assert text == f"[Unit]\nAssertPathExists=!{tmp_path}/run/{HELD[0]}\n[Service]\nRestart=no\n"
        hold.allow()
        assert left(tmp_path) == HELD[1:]
    assert left(tmp_path) == []
    assert systemd.ran[-2:] == [("systemctl", "daemon-reload"), ("systemctl", "stop", "redisops-release-redis.timer")]


def test_without_a_way_back_nothing_is_held(systemd, tmp_path):
    systemd.timers = False
    lock_directory(str(tmp_path))
    with pytest.raises(Problem) as problem:
        UnitHold(systemd.host, "redis", str(tmp_path), True).engage()
    assert problem.value.code == "hold_failed"
    assert "already loaded" in problem.value.detected
    assert left(tmp_path) == []


@pytest.mark.parametrize("ran", [True, False])
def test_what_ends_a_run_between_stop_and_start_leaves_no_server_down(systemd, tmp_path, ran):
    lock_directory(str(tmp_path))

    def interrupted():
        with UnitHold(systemd.host, "redis", str(tmp_path), ran):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(tmp_path) == []
    assert (systemd.ran[-1] == ("systemctl", "start", "redis.service")) == ran
