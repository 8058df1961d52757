# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_backup_schedule under a systemctl that only pretends (systemd itself is Molecule's); the program that it installs is run for real."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest


class Systemd:
    """What systemctl would say of the timer."""

    def __init__(self):
        self.on = False
        self.did = []

    def run(self, *args, **more):
        from ansible_collections.redisops.recovery.plugins.module_utils.host import Completed, run_command

        if args[0] == "systemd-analyze":
            return Completed(0 if args[2][0] in "*dw" else 1, "")
        if args[0] != "systemctl":
            return run_command(*args, **more)
        if args[1] == "show":
            return Completed(
                0,
                "ActiveState=active\nUnitFileState=enabled\n" if self.on else "ActiveState=inactive\nUnitFileState=\n",
            )
        self.did.append(args[1])
        if args[1] in ("restart", "disable"):
            self.on = args[1] == "restart"
        return Completed(0, "")


@pytest.fixture(name="home")
def _home(tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_backup_schedule as module

    systemd = Systemd()
    host = module.Host
    monkeypatch.setattr(module, "Host", lambda: host("/", systemd.run))
    for name in ("PROGRAM", "SETTINGS", "SYSTEM_UNITS"):
        monkeypatch.setattr(module, name, str(tmp_path / "host" / name.lower()))
    return tmp_path / "host", systemd


def files(home: pathlib.Path) -> dict:
    return {str(path): (path.read_text(), path.stat().st_mode & 0o777) for path in home.rglob("*") if path.is_file()}


def params(server, **more):
    return server.params(
        directory=str(server.home / "backups"), set_name="orders", sentinel_file="", login_password="secret", **more
    )


def test_the_program_is_installed_and_takes_a_proven_backup(redis_server, call_module, home):
    place, systemd = home
    redis_server.write_conf('save ""\nrequirepass secret\n')
    redis_server.password = "secret"
    redis_server.start().fill(123)
    wanted = params(redis_server)
    foretold = call_module("redis_backup_schedule", check=True, **wanted)
    assert (files(place), systemd.did) == ({}, [])
    done = call_module("redis_backup_schedule", **wanted)
    assert not done.failed, done.msg
    assert (foretold.diff, foretold.actions) == (done.diff, done.actions)
    assert systemd.did == ["daemon-reload", "enable", "restart"]
    again = call_module("redis_backup_schedule", **wanted)
    assert (again.changed, again.actions) == (False, [])

    # the password is in one file, which only its owner can read
    holding = {path: mode for path, (text, mode) in files(place).items() if "secret" in text and path.endswith(".json")}
    assert list(holding.values()) == [0o600]
    unit = (place / "system_units" / "redisops-backup-orders.service").read_text()
    assert "secret" not in unit
    assert "secret" not in json.dumps(vars(done))

    command = shlex.split(
        next(line for line in unit.splitlines() if line.startswith("ExecStart="))[len("ExecStart=") :]
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "program")}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert (told["state"], told["backup"]["keys"]) == ("proven", 123)
    assert call_module("redis_backup_info", directory=str(redis_server.home / "backups")).status == 0

    redis_server.stop()
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert (ran.returncode, json.loads(ran.stdout)["code"]) == (1, "server_down")


def test_drift_is_corrected_and_the_schedule_goes(redis_server, call_module, home):
    place, systemd = home
    call_module("redis_backup_schedule", **params(redis_server))
    before = files(place)
    timer = place / "system_units" / "redisops-backup-orders.timer"
    timer.write_text(timer.read_text().replace("02:30", "03:30"))
    os.chmod(place / "settings" / "backup-orders.json", 0o644)
    (place / "program/ansible_collections/redisops/recovery/plugins/module_utils/backup_run.py").write_text("")
    systemd.on = False
    done = call_module("redis_backup_schedule", **params(redis_server))
    assert len(done.actions) == 4
    assert files(place) == before
    gone = call_module("redis_backup_schedule", **params(redis_server, state="absent"))
    assert len(gone.actions) == 4
    assert not (place / "settings" / "backup-orders.json").exists()
    assert not timer.exists()
    assert not call_module("redis_backup_schedule", **params(redis_server, state="absent")).changed


@pytest.mark.parametrize(
    "change",
    [{"on_calendar": "sometimes"}, {"weight": 0}, {"randomized_delay": -1}, {"set_name": "a/b"}, {"sample": -1}],
)
def test_what_cannot_be_is_refused_and_nothing_changed(redis_server, call_module, home, change):
    place, systemd = home
    done = call_module("redis_backup_schedule", **{**params(redis_server), **change})
    assert (done.failed, done.code) == (True, "invalid_value")
    assert (files(place), systemd.did) == ({}, [])


def test_the_program_needs_nothing_that_it_does_not_bring(redis_server, call_module, home):
    place, _systemd = home
    call_module("redis_backup_schedule", **params(redis_server))
    code = "import sys; sys.modules['ansible'] = None; import ansible_collections.redisops.recovery.plugins.module_utils.backup_job"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(place / "program")}, cwd="/", check=False
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
