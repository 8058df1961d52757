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

from tests.support.topology import wait
from tests.support.unit import PretendedUnit


class Systemd:
    """What systemctl would say of timers and path units."""

    def __init__(self):
        self.on = set()
        self.did = []

    def run(self, *args, **more):
        from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, run_command

        if args[0] == "systemd-analyze":
            return Completed(0 if args[2] != "sometimes" else 1, "")
        if args[0] != "systemctl":
            return run_command(*args, **more)
        if args[1] == "show":
            return Completed(
                0,
                "ActiveState=active\nUnitFileState=enabled\n"
                if args[-1] in self.on
                else "ActiveState=inactive\nUnitFileState=\n",
            )
        self.did.append(" ".join(args[1:]))
        if args[1] == "restart":
            self.on.add(args[2])
        if args[1] == "disable":
            self.on.discard(args[-1])
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


def started(place: pathlib.Path, kind: str) -> subprocess.CompletedProcess[str]:
    """What the unit starts, run as systemd would."""
    unit = (place / "system_units" / f"redisops-{kind}-orders.service").read_text()
    command = shlex.split(
        next(line for line in unit.splitlines() if line.startswith("ExecStart="))[len("ExecStart=") :]
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "program")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)


def params(server, **more):
    return server.params(
        **{
            "directory": str(server.home / "backups"),
            "group_name": "orders",
            "sentinel_file": "",
            "login_password": "secret",
            **more,
        }
    )


def test_the_program_is_installed_and_takes_a_verified_backup(redis_server, call_module, home):
    place, systemd = home
    redis_server.write_conf('save ""\nrequirepass secret\n')
    redis_server.password = "secret"
    redis_server.start().fill(123)
    wanted = params(redis_server)
    predicted = call_module("redis_backup_schedule", check=True, **wanted)
    assert (files(place), systemd.did) == ({}, [])
    done = call_module("redis_backup_schedule", **wanted)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    timer = "redisops-backup-orders.timer"
    assert systemd.did == ["daemon-reload", f"enable {timer}", f"restart {timer}"]
    again = call_module("redis_backup_schedule", **wanted)
    assert (again.changed, again.actions) == (False, [])

    # the password is in one file, which only its owner can read
    holding = {path: mode for path, (text, mode) in files(place).items() if "secret" in text and path.endswith(".json")}
    assert list(holding.values()) == [0o600]
    unit = (place / "system_units" / "redisops-backup-orders.service").read_text()
    assert "secret" not in unit
    assert "secret" not in json.dumps(vars(done))

    ran = started(place, "backup")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    predicted = json.loads(ran.stdout)
    assert (predicted["state"], predicted["backup"]["keys"]) == ("verified", 123)
    assert call_module("redis_backup_info", directory=str(redis_server.home / "backups")).status == 0

    redis_server.stop()
    ran = started(place, "backup")
    assert (ran.returncode, json.loads(ran.stdout)["code"]) == (1, "server_down")


def test_a_drill_by_itself(redis_server, call_module, home):
    place, systemd = home
    redis_server.write_conf('save ""\n')
    redis_server.start().fill(50)
    wanted = params(
        redis_server, login_password=None, drill_on_calendar="Sun *-*-* 05:00:00", rpo_seconds=3600, rto_seconds=600
    )
    done = call_module("redis_backup_schedule", **wanted)
    assert not done.failed, done.msg
    assert systemd.on == {"redisops-backup-orders.timer", "redisops-drill-orders.timer"}
    assert not call_module("redis_backup_schedule", **wanted).changed
    ran = started(place, "drill")
    assert (ran.returncode, json.loads(ran.stdout)["code"]) == (0, "no_backup")
    assert started(place, "backup").returncode == 0
    ran = started(place, "drill")
    predicted = json.loads(ran.stdout)
    assert (ran.returncode, predicted["state"]) == (0, "passed"), ran.stdout + ran.stderr
    assert predicted["measured"]["rto_seconds"] > 0
    assert "orders" in pathlib.Path(predicted["report_file"]).read_text()
    # a backup that is still under way is waited for, and no drill that failed
    lock = redis_server.home / "backups" / "orders" / ".lock"
    with subprocess.Popen(["flock", str(lock), "sh", "-c", "echo held; sleep 2"], stdout=subprocess.PIPE) as busy:
        assert busy.stdout.readline() == b"held\n"
        assert (
            call_module("redis_drill", directory=str(redis_server.home / "backups"), group_name="orders").code
            == "backup_running"
        )
        ran = started(place, "drill")
    assert (ran.returncode, json.loads(ran.stdout)["state"]) == (0, "passed")
    # no longer wanted, it goes alone
    gone = call_module("redis_backup_schedule", **{**wanted, "drill_on_calendar": ""})
    assert len(gone.actions) == 4
    assert systemd.on == {"redisops-backup-orders.timer"}
    assert not list(place.rglob("*drill-orders*"))


def test_the_history_by_itself_outlives_a_rewrite(redis_server, call_module, home, monkeypatch):
    place, systemd = home
    redis_server.write_conf('save ""\nappendonly yes\naof-timestamp-enabled yes\n')
    redis_server.start().fill(50)
    wanted = params(redis_server, login_password=None, archive_hours=48, archive_min_free_percent=0)
    predicted = call_module("redis_backup_schedule", check=True, **wanted)
    done = call_module("redis_backup_schedule", **wanted)
    assert (predicted.failed, done.failed, predicted.diff) == (False, False, done.diff)
    assert systemd.on == {
        f"redisops-{name}" for name in ("backup-orders.timer", "archive-orders.timer", "archive-orders.path")
    }
    watched = (place / "system_units" / "redisops-archive-orders.path").read_text()
    assert f"PathChanged={redis_server.data}/appendonlydir\n" in watched
    ran = started(place, "archive")
    assert (ran.returncode, json.loads(ran.stdout)["state"]) == (0, "kept"), ran.stdout + ran.stderr
    assert json.loads(started(place, "archive").stdout)["linked"] == []
    redis_server.cli("FLUSHALL")
    redis_server.cli("BGREWRITEAOF")  # by now the live AOF knows nothing of the keys
    wait(
        lambda: (
            redis_server.info("aof_rewrite_in_progress") == "0" and redis_server.info("aof_rewrite_scheduled") == "0"
        )
    )
    assert started(place, "archive").returncode == 0
    folder = redis_server.data / "redisops-aof-archive"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2
    assert any(b"FLUSHALL" in path.read_bytes() for path in folder.rglob("*.incr.aof"))

    # what goes back in time finds it by itself
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    real = redis_restore.Host
    monkeypatch.setattr(redis_restore, "Host", lambda: real("/", PretendedUnit(redis_server).run))
    at = call_module(
        "redis_restore", check=True, **redis_server.params(unit="redis", group_name="orders", undo_flush=True)
    )
    assert at.plan["command"] == "FLUSHALL", at.msg

    # less room than is to stay free: all but the present one goes, and Redis is not touched
    wanted["archive_min_free_percent"] = 99
    call_module("redis_backup_schedule", **wanted)
    predicted = json.loads(started(place, "archive").stdout)
    assert (predicted["state"], len(predicted["removed"]), len(list(folder.iterdir()))) == ("kept", 1, 1)
    assert redis_server.cli("PING") == "PONG"

    redis_server.write_conf('save ""\nappendonly no\n')
    assert json.loads(started(place, "archive").stdout)["state"] == "off"


def test_drift_is_corrected_and_the_schedule_goes(redis_server, call_module, home):
    place, systemd = home
    call_module("redis_backup_schedule", **params(redis_server))
    before = files(place)
    timer = place / "system_units" / "redisops-backup-orders.timer"
    timer.write_text(timer.read_text().replace("02:30", "03:30"))
    os.chmod(place / "settings" / "backup-orders.json", 0o644)
    (place / "program/ansible_collections/redisops/recovery/plugins/module_utils/backup/create.py").write_text("")
    systemd.on.clear()
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
    [
        {"on_calendar": "sometimes"},
        {"weight": 0},
        {"randomized_delay": -1},
        {"group_name": "a/b"},
        {"sample": -1},
        {"drill_on_calendar": "sometimes"},
        {"drill_repository": "vault"},
        {"archive_hours": -1},
        {"archive_min_free_percent": 100},
        {"window_days": 0},
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changed(redis_server, call_module, home, change):
    place, systemd = home
    done = call_module("redis_backup_schedule", **{**params(redis_server), **change})
    assert (done.failed, done.code) == (True, "invalid_value")
    assert (files(place), systemd.did) == ({}, [])


def test_the_program_needs_nothing_that_it_does_not_bring(redis_server, call_module, home):
    place, _systemd = home
    call_module("redis_backup_schedule", **params(redis_server))
    code = "import sys; sys.modules['ansible'] = None; import ansible_collections.redisops.recovery.plugins.module_utils.backup.job"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(place / "program")}, cwd="/", check=False
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
