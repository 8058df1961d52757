# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_metrics under a systemctl that only pretends; the program that it installs is run for real, promtool judges the file."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

from tests.integration.test_redis_backup_schedule import Systemd, files


class Exporters(Systemd):
    """It also knows whom services run as."""

    user = ""

    def run(self, *args, **more):
        from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed

        if args[:4] == ("systemctl", "show", "-p", "User"):
            return Completed(0, f"User={self.user}\n")
        return super().run(*args, **more)


@pytest.fixture(name="home")
def _home(tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_metrics as module

    systemd = Exporters()
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
        options = {"login_password": "secret", "group_name": "orders", **options}
        return call_module(
            "redis_metrics", check=check,
            **params(
                redis_server, textfile_directory=str(tmp_path / "textfile"), backup_directory=str(redis_server.home / "backups"),
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


def samples(path: pathlib.Path, group: str = "") -> dict[str, float]:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=path.read_text(), capture_output=True, text=True, check=False
    )
    assert checked.returncode in (0, 3), checked.stderr  # 3: matters of naming only
    assert "error" not in checked.stderr.lower(), checked.stderr
    rows = (line.rsplit(" ", 1) for line in path.read_text().splitlines() if not line.startswith("#"))
    common = f'group="orders",backup_group="{group or alone()}"'
    assert common in path.read_text()
    return {name.replace(f"{{{common}}}", "").replace(f"{common},", ""): float(value) for name, value in rows}


def alone() -> str:
    """The group of a server that shares its backups with nobody."""
    return f"orders@{socket.gethostname()}"


def test_the_timer_writes_what_is(secured, metrics, home, tmp_path, call_module):
    place, systemd = home
    secured.fill(40)
    predicted = metrics(check=True, crash_loss_seconds=5, rpo_seconds=93600)
    assert (files(place), systemd.did) == ({}, [])
    done = metrics(crash_loss_seconds=5, rpo_seconds=93600)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert not metrics(crash_loss_seconds=5, rpo_seconds=93600).changed
    assert systemd.on == {"redisops-metrics-orders.timer"}
    holding = {path: mode for path, (text, mode) in files(place).items() if "secret" in text and path.endswith(".json")}
    assert list(holding.values()) == [0o600]

    file = tmp_path / "textfile" / "redisops-orders.prom"
    ran = written(place)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = samples(file)
    assert file.stat().st_mode & 0o777 == 0o644
    assert (found["redisops_up"], found["redisops_keys"]) == (1, 40)
    assert (
        found['redisops_configured_durability{kind="aof"}'],
        found['redisops_configured_durability{kind="rdb"}'],
    ) == (1, 1)
    assert 0 < found["redisops_crash_loss_seconds"] <= 30
    assert found['redisops_objective_seconds{kind="crash_loss"}'] == 5
    assert abs(time.time() - found["redisops_metrics_timestamp_seconds"]) < 60
    assert "redisops_backup_last_verified_timestamp_seconds" not in found

    backup = call_module(
        "redis_backup",
        **secured.params(
            directory=str(secured.home / "backups"), group_name="orders", sentinel_file="", login_password="secret"
        ),
    )
    assert written(place).returncode == 0
    found = samples(file)
    assert found["redisops_backup_last_verified_timestamp_seconds"] == pytest.approx(backup.backup["at"], abs=0.01)
    assert (found["redisops_backup_status"], found["redisops_backup_keys"], found["redisops_backup_expected"]) == (
        0,
        40,
        1,
    )

    # a restart sets nothing back, and a server that is down is predicted
    secured.stop()
    assert written(place).returncode == 0
    down = samples(file)
    assert (down["redisops_up"], "redisops_keys" in down) == (0, False)
    assert (
        down["redisops_backup_last_verified_timestamp_seconds"]
        == found["redisops_backup_last_verified_timestamp_seconds"]
    )
    assert down['redisops_finding{code="server_down",severity="critical"}'] == 1
    secured.start()
    assert written(place).returncode == 0
    assert (
        samples(file)["redisops_backup_last_verified_timestamp_seconds"]
        == found["redisops_backup_last_verified_timestamp_seconds"]
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
    assert (found['redisops_configured_durability{kind="rdb"}'], "redisops_last_save_timestamp_seconds" in found) == (
        0,
        False,
    )


def test_a_refusal_is_an_answer_and_what_it_hides_is_told(secured, metrics, home, tmp_path):
    place, _systemd = home
    secured.cli("ACL", "SETUSER", "small", "on", ">secret", "+ping")
    assert not metrics(login_user="small").failed
    assert written(place).returncode == 0
    found = samples(tmp_path / "textfile" / "redisops-orders.prom")
    assert found["redisops_up"] == 1
    assert found['redisops_finding{code="server_unseen",severity="unknown"}'] == 1
    assert "redisops_crash_loss_unbounded" not in found
    assert not metrics(login_user="nobody").failed
    assert written(place).returncode == 0
    assert samples(tmp_path / "textfile" / "redisops-orders.prom")["redisops_up"] == 1
    # where nobody could ask, nothing is reported
    assert not metrics(tls=True, ca_certs="/nowhere/ca.crt").failed
    assert written(place).returncode == 0
    assert "redisops_up" not in samples(tmp_path / "textfile" / "redisops-orders.prom")


@pytest.mark.parametrize("allowed", [True, False])
def test_a_pure_cache_has_no_risk_that_could_be_bounded(redis_server, metrics, home, tmp_path, allowed):
    place, _systemd = home
    redis_server.write_conf('save ""\nappendonly no\n')
    redis_server.start().fill(3)
    assert not metrics(login_password=None, allow_no_persistence=allowed).failed
    assert written(place).returncode == 0
    found = samples(tmp_path / "textfile" / "redisops-orders.prom")
    assert found.get("redisops_crash_loss_unbounded") == (None if allowed else 1)
    assert ('redisops_finding{code="no_persistence",severity="critical"}' in found) is not allowed


def test_what_the_schedule_names_is_expected_and_who_shares_backups_has_one_group(
    secured, metrics, home, tmp_path, call_module, monkeypatch
):
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import Settings
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.job import Job
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import Elsewhere
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.retention import Policy
    from ansible_collections.redisops.recovery.plugins.module_utils.health import collect_replicas
    from ansible_collections.redisops.recovery.plugins.module_utils.monitoring import job as monitoring_job
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
    from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

    place, _systemd = home
    secured.fill(5)
    assert not metrics().failed
    monkeypatch.setattr(collect_replicas, "SETTINGS", str(tmp_path))
    wanted = monitoring_job.Metrics.parse((place / "settings" / "metrics-orders.json").read_text())
    file = tmp_path / "textfile" / "redisops-orders.prom"

    def scheduled(group_hosts: tuple[str, ...], *names: str) -> dict[str, float]:
        places = tuple(Elsewhere(Repository(name, f"/srv/{name}", "secret"), Policy()) for name in names)
        job = Job(Settings(str(secured.home / "backups"), "orders"), Login(), group_hosts, repositories=places)
        (tmp_path / "backup-orders.json").write_text(job.render())
        monitoring_job.run(wanted, Host(), time.time())
        return samples(file, "orders" if len(group_hosts) > 1 else alone())

    found = scheduled((), "vault", "cellar")
    expected = {name for name in found if name.startswith("redisops_backup_repository_expected")}
    assert expected == {f'redisops_backup_repository_expected{{repository="{name}"}}' for name in ("vault", "cellar")}
    assert scheduled(("10.0.0.1", "10.0.0.2"))["redisops_backup_expected"] == 1
    assert not [name for name in scheduled(("10.0.0.1",)) if "repository" in name]

    # a repository that is declared no more lags behind nothing of the objectives
    backup = call_module(
        "redis_backup",
        **secured.params(
            directory=str(secured.home / "backups"), group_name="orders", sentinel_file="", login_password="secret"
        ),
    )
    label = secured.home / "backups" / "orders" / backup.backup["label"]
    (label / "copies.json").write_text(seal({"old": {}, "vault": {}}))
    sent = {name for name in scheduled((), "vault") if "offsite" in name}
    assert sent == {'redisops_backup_last_offsite_timestamp_seconds{repository="vault"}'}
    os.unlink(tmp_path / "backup-orders.json")
    monitoring_job.run(wanted, Host(), time.time())
    assert len([name for name in samples(file) if "offsite" in name]) == 2

    # the latest one is predicted where it failed or is damaged
    assert "redisops_backup_last_failed_timestamp_seconds" not in samples(file)
    (label / "manifest.json").write_text("{")
    monitoring_job.run(wanted, Host(), time.time())
    assert samples(file)["redisops_backup_last_failed_timestamp_seconds"] == pytest.approx(backup.backup["at"], abs=1)


def test_the_group_of_a_shard_is_its_own():
    from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Backups
    from ansible_collections.redisops.recovery.plugins.module_utils.monitoring.metrics import backup_group_of

    assert backup_group_of(Backups("shop.0-5460", "/b", elsewhere=True), "shop", "host1") == "shop.0-5460"
    assert backup_group_of(Backups("shop.0-5460", "/b"), "shop", "host1") == "shop.0-5460@host1"
    assert backup_group_of(None, "redis", "host1") == "redis@host1"


def env_of(place: pathlib.Path, unit: str = "prometheus-redis-exporter") -> pathlib.Path:
    return place / "settings" / f"exporter-{unit}.env"


def drop_in_of(place: pathlib.Path, unit: str = "prometheus-redis-exporter") -> pathlib.Path:
    return place / "system_units" / f"{unit}.service.d" / "redisops.conf"


def test_the_exporter_gets_its_login_and_is_restarted_when_that_changes(secured, metrics, home):
    place, systemd = home
    wanted = {"exporter_unit": "prometheus-redis-exporter"}
    done = metrics(**wanted)
    assert not done.failed, done.msg
    environment, drop_in = env_of(place), drop_in_of(place)
    assert environment.read_text() == (
        f'REDIS_ADDR="redis://127.0.0.1:{secured.port}"\nREDIS_PASSWORD="secret"\nREDIS_EXPORTER_CONFIG_COMMAND="-"\n'
    )
    assert environment.stat().st_mode & 0o777 == 0o600
    assert drop_in.read_text() == f"# redisops set orders\n[Service]\nEnvironmentFile={environment}\n"
    assert "restart prometheus-redis-exporter.service" in systemd.did
    own = metrics(**wanted, exporter_user="exporter", exporter_password="least")
    assert own.changed
    assert 'REDIS_USER="exporter"\nREDIS_PASSWORD="least"\n' in environment.read_text()
    assert metrics(**wanted).changed
    systemd.did.clear()
    assert not metrics(**wanted).changed
    assert metrics(**wanted, login_user="monitoring").changed
    assert "restart prometheus-redis-exporter.service" in systemd.did
    gone = metrics(state="absent", **wanted)
    assert not gone.failed
    assert (environment.exists(), drop_in.exists()) == (False, False)
    assert "prometheus-redis-exporter.service" in systemd.on  # it is not ours to stop


@pytest.mark.parametrize("then", [{}, {"exporter_unit": "other"}, {"state": "absent"}])
def test_a_login_that_is_not_wanted_any_more_is_taken_away(secured, metrics, home, then):
    place, systemd = home
    foreign = place / "system_units" / "prometheus-redis-exporter.service.d" / "override.conf"
    assert not metrics(exporter_unit="prometheus-redis-exporter.service").failed
    foreign.write_text("[Service]\n")
    theirs = place / "system_units" / "nginx.service.d" / "redisops.conf"
    theirs.parent.mkdir()
    theirs.write_text("[Service]\nEnvironmentFile=/etc/other.env\n")
    systemd.did.clear()
    before = files(place)
    predicted = metrics(check=True, **then)
    assert (files(place), systemd.did) == (before, [])
    done = metrics(**then)
    assert not done.failed, done.msg
    assert (predicted.changed, predicted.actions) == (True, done.actions)
    assert (env_of(place).exists(), drop_in_of(place).exists(), foreign.exists(), theirs.exists()) == (
        False,
        False,
        True,
        True,
    )
    assert systemd.did.index("daemon-reload") < systemd.did.index("try-restart prometheus-redis-exporter.service")
    assert (env_of(place, "other").exists(), drop_in_of(place, "other").exists()) == (("exporter_unit" in then),) * 2
    assert not [path for path, (text, _mode) in files(place).items() if "exporter-prometheus" in text]
    systemd.did.clear()
    assert not metrics(**then).changed
    assert systemd.did == []


def test_two_sets_on_a_host_have_an_exporter_each(secured, metrics, home):
    place, systemd = home
    assert not metrics(exporter_unit="one").failed
    first = env_of(place, "one").read_text()
    other = {"group_name": "carts", "exporter_unit": "two", "login_user": "carts"}
    assert not metrics(**other).failed
    assert env_of(place, "one").read_text() == first
    assert 'REDIS_USER="carts"' in env_of(place, "two").read_text()
    assert not metrics(exporter_unit="one").changed
    assert not metrics(**other).changed

    # one exporter cannot have both
    before = files(place)
    systemd.did.clear()
    for check in (True, False):
        refused = metrics(check=check, **{**other, "exporter_unit": "one"})
        assert (refused.failed, refused.code) == (True, "exporter_taken")
    assert (files(place), systemd.did) == (before, [])
    assert not metrics(state="absent").failed
    assert (env_of(place, "one").exists(), env_of(place, "two").exists()) == (False, True)
    assert not metrics(**{**other, "exporter_unit": "one"}).failed
    assert 'REDIS_USER="carts"' in env_of(place, "one").read_text()


@pytest.mark.needs_root
def test_the_exporter_gets_the_tls_files_or_is_refused_if_it_cannot_read_them(secured, metrics, home):
    place, systemd = home
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        names = {name: folder / f"{name}.pem" for name in ("ca_certs", "client_cert_file", "client_key_file")}
        for path in names.values():
            path.write_text("x")
            path.chmod(0o644)
        wanted = {"exporter_unit": "exporter", "tls": True, **{name: str(path) for name, path in names.items()}}
        systemd.user = "nobody"
        names["client_key_file"].chmod(0o600)
        for check in (True, False):
            refused = metrics(check=check, **wanted)
            assert (refused.failed, refused.code) == (True, "exporter_unable")
        assert (files(place), systemd.did) == ({}, [])
        names["client_key_file"].chmod(0o644)
        done = metrics(**wanted)
        assert not done.failed, done.msg
        predicted = dict(line.split("=", 1) for line in env_of(place, "exporter").read_text().splitlines())
        assert predicted == {
            "REDIS_ADDR": f'"rediss://127.0.0.1:{secured.port}"', "REDIS_PASSWORD": '"secret"',
            "REDIS_EXPORTER_CONFIG_COMMAND": '"-"',
            "REDIS_EXPORTER_TLS_CA_CERT_FILE": f'"{names["ca_certs"]}"',
            "REDIS_EXPORTER_TLS_CLIENT_CERT_FILE": f'"{names["client_cert_file"]}"',
            "REDIS_EXPORTER_TLS_CLIENT_KEY_FILE": f'"{names["client_key_file"]}"',
        }  # fmt: skip
        assert metrics(**wanted, validate_certs=False).changed
        assert 'REDIS_EXPORTER_SKIP_TLS_VERIFICATION="true"' in env_of(place, "exporter").read_text()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"on_calendar": "sometimes"}, "invalid_value"), ({"weight": 0}, "invalid_value"), ({"max_lag": -1}, "invalid_value"),
        ({"textfile_directory": "/nowhere"}, "no_textfile_directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_changed(redis_server, call_module, home, tmp_path, change, code):
    place, systemd = home
    wanted = {"group_name": "orders", "textfile_directory": str(tmp_path / "textfile"), **change}
    for check in (True, False):
        done = call_module("redis_metrics", check=check, **params(redis_server, **wanted))
        assert (done.failed, done.code) == (True, code)
    assert (files(place), systemd.did) == ({}, [])
