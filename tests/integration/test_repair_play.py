# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook repair by ansible-playbook on a primary that does not start and its replica; systemctl only pretends."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.integration.test_redis_repair import AOF, aof, digest, flip_in_base, later, rewrite, start_of, there
from tests.support.data_of_all_kinds import fill

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: What the playbook needs of systemd: show, stop and start of units, each of which is a configuration file. Timers are taken and never fire.
SYSTEMCTL = """#!/bin/sh
here={home}
[ "$1" = show ] && unit="${{4%.service}}" || unit="${{2%.service}}"
conf=$here/$unit/redis.conf
pid=$(cat "$here/$unit/pid" 2>/dev/null)
kill -0 "$pid" 2>/dev/null && [ "$(cat /proc/$pid/comm)" = redis-server ] || pid=0
case $1 in
show)
  echo "Id=$unit.service"; echo LoadState=loaded; echo "MainPID=$pid"
  echo "ExecStart={{ path=redis-server ; argv[]=redis-server $conf ; }}" ;;
stop)
  [ $pid = 0 ] && exit 0
  kill $pid; while kill -0 $pid 2>/dev/null && [ "$(cut -d' ' -f3 /proc/$pid/stat 2>/dev/null)" != Z ]; do sleep 0.05; done ;;
start)
  [ $pid = 0 ] || exit 0
  [ ! -e "/run/redisops/held/$unit" ] || exit 1
  setsid redis-server "$conf" >/dev/null 2>&1 </dev/null & echo $! >"$here/$unit/pid"
  sleep 0.5; kill -0 "$(cat "$here/$unit/pid")" ;;
esac
"""


class Pair:
    """r1, a primary that was killed and whose base is damaged, and r2, its replica, which goes on without it."""

    def __init__(self, home: pathlib.Path, new_redis) -> None:
        self.home = home
        self.one, self.two = new_redis("r1"), new_redis("r2")
        for server in (self.one, self.two):
            server.write_conf(AOF + f"pidfile {server.home}/pid\n")
            server.start()
            (server.home / "pid").write_text(str(server.process.pid))
        fill(self.one.cli)
        rewrite(self.one)
        later(self.one, 10)
        self.two.cli("REPLICAOF", "127.0.0.1", str(self.one.port))
        self.level()
        self.was = digest(self.one)
        tools = home / "tools"
        tools.mkdir()
        (tools / "systemctl").write_text(SYSTEMCTL.format(home=home))
        (tools / "systemd-run").write_text("#!/bin/sh\n")
        for tool in tools.iterdir():
            tool.chmod(0o755)
        hosts = {
            name: {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "ansible_become": False,
                "redis_replication_address": f"127.0.0.1:{server.port}",
                "redis_group_hosts": ["r1", "r2"],
                "redis_server_config_file": str(server.conf),
                "redis_server_login": {"login_port": server.port},
                "redis_service_unit": name,
                "redis_group_name": "orders",
                "redis_backup_directory": str(server.home / "backups"),
                "redis_server_timeout": 60,
            }
            for name, server in (("r1", self.one), ("r2", self.two))
        }
        (home / "hosts.yml").write_text(yaml.safe_dump({"redis": {"hosts": hosts}}))

    def level(self) -> None:
        deadline = time.monotonic() + 30
        while self.two.raw("INFO", "replication").count("master_link_status:up") == 0 or digest(self.one) != digest(
            self.two
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def play(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ansible-playbook", "-i", str(self.home / "hosts.yml"), "redisops.recovery.repair", "-e", "redisops_hosts=redis", *options],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": f"{self.home / 'tools'}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible")},
        )  # fmt: skip


@pytest.fixture(name="pair")
def _pair(tmp_path, new_redis):
    pair = Pair(tmp_path, new_redis)
    yield pair
    for server in (pair.one, pair.two):
        pid = int((server.home / "pid").read_text() or 0)
        if pid and (pathlib.Path("/proc") / str(pid) / "comm").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.needs_root
def test_a_primary_is_mended_from_its_replica_which_cannot_stream(pair):
    pair.one.stop(signal.SIGKILL)
    flip_in_base(pair.one)
    before = pair.one.tree()
    reported = pair.play("--check")
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert pair.one.tree() == before
    assert "NOMASTERLINK" in reported.stdout
    assert "bad_crc" in reported.stdout
    done = pair.play()
    assert done.returncode == 0, done.stdout + done.stderr
    assert digest(pair.one) == pair.was
    pair.level()
    assert [name for name in os.listdir(pair.one.data) if name.startswith("redisops-restore-")]
    assert "lost: " in done.stdout


@pytest.mark.needs_root
def test_a_replica_that_cannot_stream_can_be_named(pair):
    pair.one.stop(signal.SIGKILL)
    flip_in_base(pair.one)
    done = pair.play("-e", "redisops_repair_method=replica")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digest(pair.one) == pair.was


def test_a_cut_waits_for_a_word_also_where_the_other_member_is_gone(pair):
    for server in (pair.one, pair.two):
        server.stop(signal.SIGKILL)
    path = aof(pair.one, 2)
    raw = path.read_bytes()
    path.write_bytes(raw[:-40])
    before = pair.one.tree()
    reported = pair.play("--limit", "r1")
    assert reported.returncode != 0
    assert f"{len(raw) - 40 - start_of(raw, 9)} bytes, 1 command" in " ".join(reported.stdout.split())
    assert pair.one.tree() == before
    done = pair.play("--limit", "r1", "-e", "redisops_allow_truncation=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert there(pair.one) == set(range(9))
    again = pair.play("--limit", "r1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "changed=0" in again.stdout
