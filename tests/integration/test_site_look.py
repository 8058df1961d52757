# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Playbook site on a real server, with a systemctl that only shows: what any role refuses ends the run before the first write."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYSTEMCTL = """#!/bin/sh
echo "$@" >> {home}/systemctl.log
case "$1" in
show) printf 'Id=redis-server.service\\nLoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nMainPID={pid}\\nDropInPaths=\\nReadWritePaths=\\n'
      printf 'ExecStart={{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server {conf} ; }}\\n' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture(name="site")
def _site(redis_server, tmp_path):
    redis_server.start()
    redis_server.fill(3)
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = tools / "systemctl"
    fake.write_text(SYSTEMCTL.format(home=tmp_path, pid=redis_server.process.pid, conf=redis_server.conf))
    fake.chmod(0o755)
    here = {
        "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False,
        "redis_server_config_file": str(redis_server.conf), "redis_server_login": {"login_port": redis_server.port},
        "redis_server_owner": "root", "redis_server_group": "root", "redis_server_timeout": 30, "redis_server_dir": str(redis_server.data),
        "redis_service_read_write_paths": f"{redis_server.home}", "redis_service_unit": "redis-server", "redis_install_packages": [],
        "redis_service_confinement": {"ProtectSystem": "strict"},
        "redis_server_settings": {"maxclients": 500},
    }  # fmt: skip

    def site(*options, check=False, second=None, **variables) -> subprocess.CompletedProcess[str]:
        hosts = {"r1": {**here, **variables}}
        if second:
            hosts["r2"] = {**here, **second}
        inventory = tmp_path / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"redis": {"hosts": hosts}}))
        return subprocess.run(
            ["ansible-playbook", "-i", str(inventory), "redisops.recovery.site", *options],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PATH": f"{tools}:{os.environ['PATH']}", "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible")},
        )  # fmt: skip

    return site


def plays(done) -> list[str]:
    return [line.split("[", 1)[1].split("]")[0] for line in done.stdout.splitlines() if line.startswith("PLAY [")]


def refused(site, server, *words: str, **options) -> str:
    before, live = server.tree(), server.live_config()
    done = site(**options)
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, told
    assert "Refused; nothing was changed on any host." in told, told
    for word in words:
        assert word in told, told
    assert not any(one.startswith("Bring hosts") for one in plays(done)), plays(done)
    assert (server.tree(), server.live_config()) == (before, live)
    assert not any(
        line.split()[0] != "show" for line in (server.home.parent / "systemctl.log").read_text().splitlines()
    )
    return told


def test_a_log_that_the_unit_cannot_write_is_refused_before_redis_conf_is_written(site, redis_server):
    refused(site, redis_server, "confined_away", "logfile is in /srv/log/redis", redis_server_extra_settings={"logfile": "/srv/log/redis/redis.log"})  # fmt: skip


def test_one_host_that_refuses_keeps_all_others_from_being_changed(site, redis_server):
    refused(site, redis_server, "r2: ", "other_owner", second={"redis_server_owner": "nobody"})


def test_what_replication_would_refuse_is_known_before_the_first_write(site, redis_server):
    refused(site, redis_server, "unresolved_group_host", redis_group_hosts=["r1.invalid", "gone.invalid"])


def test_where_nobody_refuses_the_run_goes_on(site, redis_server):
    done = site()
    assert "Bring hosts to durable Redis" in plays(done), done.stdout + done.stderr
    assert "maxclients 500" in redis_server.conf.read_text()


def test_it_can_be_left_out(site, redis_server):
    done = site("-e", "redisops_first_look=false", redis_server_extra_settings={"logfile": "/srv/log/redis/redis.log"})
    assert [one for one in plays(done) if one.startswith("Bring hosts")]
    assert "Refused; nothing was changed on any host" not in done.stdout
