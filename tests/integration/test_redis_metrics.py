# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_metrics under a systemctl that only pretends; the program that it installs is run for real, promtool judges the file."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import time

import pytest

from tests.integration.test_redis_backup_schedule import Systemd, files


@pytest.fixture(name="home")
def _home(tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_metrics as module

    systemd = Systemd()
    host = module.Host
    monkeypatch.setattr(module, "Host", lambda: host("/", systemd.run))
    for name in ("PROGRAM", "SETTINGS", "SYSTEM_UNITS"):
        monkeypatch.setattr(module, name, str(tmp_path / "host" / name.lower()))
    (tmp_path / "textfile").mkdir()
    return tmp_path / "host", systemd


def params(server, **more):
    return {"config_file": str(server.conf), "login_port": server.port, **more}


@pytest.fixture(name="metrics")
def _metrics(call_module, redis_server, home, tmp_path):
    def run(check=False, **options):
        options = {"login_password": "secret", **options}
        return call_module(
            "redis_metrics", check=check,
            **params(
                redis_server, set_name="orders", textfile_directory=str(tmp_path / "textfile"), backup_directory=str(redis_server.home / "backups"),
                sample_seconds=0.1, **options,
            ),
        )  # fmt: skip

    return run


@pytest.fixture(name="secured")
def _secured(redis_server):
    redis_server.write_conf('save 3600 1\nappendonly yes\nrequirepass "secret"\n')
    redis_server.password = "secret"
    return redis_server.start()


def written(place: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """What the timer starts, run as systemd would."""
    unit = (place / "system_units" / "redisops-metrics-orders.service").read_text()
    command = shlex.split(
        next(line for line in unit.splitlines() if line.startswith("ExecStart="))[len("ExecStart=") :]
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "program")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)


def samples(path: pathlib.Path) -> dict[str, float]:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=path.read_text(), capture_output=True, text=True, check=False
    )
    assert checked.returncode in (0, 3), checked.stderr  # 3: matters of naming only
    assert "error" not in checked.stderr.lower(), checked.stderr
    rows = (line.rsplit(" ", 1) for line in path.read_text().splitlines() if not line.startswith("#"))
    return {name.replace('{set="orders"}', "").replace('set="orders",', ""): float(value) for name, value in rows}


def test_the_timer_writes_what_is(secured, metrics, home, tmp_path, call_module):
    place, systemd = home
    secured.fill(40)
    foretold = metrics(check=True, rpo_seconds=5, max_backup_age=93600)
    assert (files(place), systemd.did) == ({}, [])
    done = metrics(rpo_seconds=5, max_backup_age=93600)
    assert not done.failed, done.msg
    assert (foretold.diff, foretold.actions) == (done.diff, done.actions)
    assert not metrics(rpo_seconds=5, max_backup_age=93600).changed
    assert systemd.on == {"redisops-metrics-orders.timer"}
    holding = {path: mode for path, (text, mode) in files(place).items() if "secret" in text and path.endswith(".json")}
    assert list(holding.values()) == [0o600]

    file = tmp_path / "textfile" / "redisops-orders.prom"
    ran = written(place)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = samples(file)
    assert file.stat().st_mode & 0o777 == 0o644
    assert (found["redisops_up"], found["redisops_keys"]) == (1, 40)
    assert (found['redisops_promise{kind="aof"}'], found['redisops_promise{kind="rdb"}']) == (1, 1)
    assert 0 < found["redisops_at_risk_seconds"] <= 3
    assert found['redisops_objective_seconds{kind="at_risk"}'] == 5
    assert abs(time.time() - found["redisops_metrics_timestamp_seconds"]) < 60
    assert "redisops_backup_last_proven_timestamp_seconds" not in found

    backup = call_module(
        "redis_backup",
        **secured.params(
            directory=str(secured.home / "backups"), set_name="orders", sentinel_file="", login_password="secret"
        ),
    )
    assert written(place).returncode == 0
    found = samples(file)
    assert found["redisops_backup_last_proven_timestamp_seconds"] == pytest.approx(backup.backup["at"], abs=0.01)
    assert (found["redisops_backup_status"], found["redisops_backup_keys"], found["redisops_backup_expected"]) == (
        0,
        40,
        1,
    )

    # a restart sets nothing back, and a server that is down is told
    secured.stop()
    assert written(place).returncode == 0
    down = samples(file)
    assert (down["redisops_up"], "redisops_keys" in down) == (0, False)
    assert (
        down["redisops_backup_last_proven_timestamp_seconds"] == found["redisops_backup_last_proven_timestamp_seconds"]
    )
    assert down['redisops_finding{code="server_down",severity="critical"}'] == 1
    secured.start()
    assert written(place).returncode == 0
    assert (
        samples(file)["redisops_backup_last_proven_timestamp_seconds"]
        == found["redisops_backup_last_proven_timestamp_seconds"]
    )

    gone = metrics(state="absent")
    assert not gone.failed, gone.msg
    assert (file.exists(), systemd.on, list(place.rglob("*metrics-orders*"))) == (False, set(), [])
    assert not metrics(state="absent").changed


def test_an_aof_only_server_has_no_rdb_to_be_too_old(redis_server, metrics, home, tmp_path):
    place, _systemd = home
    redis_server.write_conf('save ""\nappendonly yes\n')
    redis_server.start().fill(3)
    assert not metrics(login_password=None).failed
    assert written(place).returncode == 0
    found = samples(tmp_path / "textfile" / "redisops-orders.prom")
    assert (found['redisops_promise{kind="rdb"}'], "redisops_last_save_timestamp_seconds" in found) == (0, False)


def test_the_exporter_gets_its_login_and_is_restarted_when_that_changes(secured, metrics, home):
    place, systemd = home
    wanted = {"exporter_unit": "prometheus-redis-exporter"}
    done = metrics(**wanted)
    assert not done.failed, done.msg
    environment = place / "settings" / "exporter.env"
    drop_in = place / "system_units" / "prometheus-redis-exporter.service.d" / "redisops.conf"
    assert environment.read_text() == f'REDIS_ADDR="redis://127.0.0.1:{secured.port}"\nREDIS_PASSWORD="secret"\n'
    assert environment.stat().st_mode & 0o777 == 0o600
    assert f"EnvironmentFile={environment}\n" in drop_in.read_text()
    assert "restart prometheus-redis-exporter.service" in systemd.did
    systemd.did.clear()
    assert not metrics(**wanted).changed
    assert metrics(**wanted, login_user="monitoring").changed
    assert "restart prometheus-redis-exporter.service" in systemd.did
    gone = metrics(state="absent", **wanted)
    assert not gone.failed
    assert (environment.exists(), drop_in.exists()) == (False, False)
    assert "prometheus-redis-exporter.service" in systemd.on  # it is not ours to stop


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"on_calendar": "sometimes"}, "invalid_value"), ({"weight": 0}, "invalid_value"), ({"max_lag": -1}, "invalid_value"),
        ({"textfile_directory": "/nowhere"}, "no_textfile_directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_changed(redis_server, call_module, home, tmp_path, change, code):
    place, systemd = home
    wanted = {"set_name": "orders", "textfile_directory": str(tmp_path / "textfile"), **change}
    for check in (True, False):
        done = call_module("redis_metrics", check=check, **params(redis_server, **wanted))
        assert (done.failed, done.code) == (True, code)
    assert (files(place), systemd.did) == ({}, [])
