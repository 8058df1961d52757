# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role redis_firewall and its action plugin, played by ansible-playbook inside a network namespace, over a connection that counts."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t

import pytest
import yaml
from ansible.plugins.connection import local

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs_root

#: AfterCorruption Ansible's own local connection: a log of what it did, and a host that is gone once it is connected to anew.
WATCHED = """
import os as _os
from ansible.errors import AnsibleConnectionFailure as _Failure

def _log(word):
    with open(_os.environ["WATCHED_LOG"], "a") as handle:
        handle.write(word + "\\n")

_exec, _gone = Connection.exec_command, []

def exec_command(self, *args, **more):
    _log("exec")
    if _gone:
        raise _Failure("Connection timed out")
    return _exec(self, *args, **more)

def reset(self):
    _log("reset")
    if _os.environ.get("WATCHED_CUT"):
        _gone.append(1)

Connection.exec_command, Connection.reset, Connection.transport = exec_command, reset, "watched"
"""

VARIABLES = {
    "redis_firewall_enabled": True,
    "redis_firewall_redis_sources": ["10.20.0.0/24", "app3"],
    "redis_firewall_redis_groups": ["application"],
    "redis_firewall_cluster_bus_ports": [16379],
}


class Play:
    def __init__(self, home: pathlib.Path, space: str) -> None:
        self.home, self.space = home, space
        self.file = home / "firewall.nft"
        self.log = home / "log"
        source = pathlib.Path(local.__file__).read_text()
        assert "name: local" in source
        (home / "connection").mkdir()
        (home / "connection" / "watched.py").write_text(source.replace("name: local", "name: watched") + WATCHED)
        hosts = {
            "r1": {"ansible_connection": "watched", "ansible_python_interpreter": sys.executable},
            "r2": {"ansible_host": "10.10.0.2"},
            "r3": {"ansible_host": "192.0.2.3", "redis_firewall_addresses": ["10.10.0.3", "fd00::3"]},
            "app1": {"ansible_host": "10.30.0.1"},
            "app2": {"ansible_host": "10.30.0.2"},
            "app3": {"ansible_host": "10.30.0.3"},
        }
        groups = {"redis": ["r1", "r2", "r3"], "application": ["app1", "app2"]}
        children = {
            name: {"hosts": {host: hosts[host] for host in group_hosts}} for name, group_hosts in groups.items()
        }
        (home / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
        play = {"name": "Guard", "hosts": "redis", "gather_facts": False, "roles": ["redisops.recovery.redis_firewall"]}
        (home / "play.yml").write_text(yaml.safe_dump([play]))

    def run(self, *options: str, cut: bool = False, **variables: t.Any) -> tuple[dict[str, t.Any], list[str]]:
        """The result of the role's first task on r1, and what the connection did."""
        self.log.write_text("")
        predicted = {
            **VARIABLES,
            "redis_firewall_nft_file": str(self.file),
            "ansible_remote_tmp": str(self.home / "tmp"),
            **variables,
        }
        environment = {
            **os.environ, "WATCHED_LOG": str(self.log), "ANSIBLE_CONNECTION_PLUGINS": str(self.home / "connection"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **({"WATCHED_CUT": "1"} if cut else {}),
        }  # fmt: skip
        environment.pop("SSH_CONNECTION", None)
        # /run of its own: no systemd there to be predicted anything, whatever runs this machine.
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "-",
             str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.home / "hosts.yml"), "--limit", "r1",
             "-e", json.dumps(predicted), *options, str(self.home / "play.yml")],
            capture_output=True, text=True, env=environment, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.stdout.strip(), done.stderr
        tasks = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]
        # The first of that name; the second is for a host where nftables had to be installed.
        results = {task["task"]["name"]: task["hosts"].get("r1", {}) for task in reversed(tasks)}
        return results.get(
            "redisops.recovery.redis_firewall : Admit declared sources only", {}
        ), self.log.read_text().split()

    def nft(self, *words: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, "nft", *words], capture_output=True, text=True, check=True
        )
        return done.stdout

    def snapshot(self) -> tuple[str, str]:
        return self.nft("list", "ruleset"), self.file.read_text() if self.file.exists() else ""


@pytest.fixture(name="play")
def _play(tmp_path) -> t.Iterator[Play]:
    if os.geteuid() != 0:
        pytest.fail("this test makes a network namespace: run it as root")
    space = f"rfp{os.getpid()}"
    subprocess.run(["ip", "netns", "add", space], check=True)
    yield Play(tmp_path, space)
    subprocess.run(["ip", "netns", "del", space], check=True)


def test_check_run_again(play):
    empty = play.snapshot()
    checked, did = play.run("--check", "--diff")
    assert (checked["changed"], did) == (True, ["exec"])
    assert play.snapshot() == empty
    done, did = play.run("--diff")
    assert (done["changed"], done["commit_confirmed"], did) == (True, True, ["exec", "reset", "exec"])
    assert "commit_confirm" not in done
    assert (checked["diff"], checked["actions"]) == (done["diff"], done["actions"])
    assert done["services"] == {
        "redis": {"ports": [6379], "sources": ["10.20.0.0/24", "10.30.0.1", "10.30.0.2/31"]},
        "cluster_bus": {"ports": [16379], "sources": []},
    }
    assert done["peers"] == ["10.10.0.2/31", "fd00::3"]  # r2 and r3; not r1 itself
    after = play.snapshot()
    assert "elements = { 10.20.0.0/24, 10.30.0.1," in after[0]
    assert "redisops" in after[1]
    again, did = play.run("--diff")
    assert (again["changed"], again["actions"], did) == (False, [], ["exec"])
    assert play.snapshot() == after


def test_a_host_that_cannot_be_reached_again_puts_the_old_table_back(play):
    assert play.run()[0]["changed"]
    before = play.snapshot()
    begun = time.monotonic()
    result, did = play.run(cut=True, redis_firewall_rollback_seconds=3, redis_firewall_redis_sources=["10.66.0.0/16"])
    assert result["unreachable"]
    assert "Connection timed out" in result["msg"]
    assert "puts the old table back by itself 3 seconds after" in result["msg"]
    assert did[:3] == ["exec", "reset", "exec"]
    while play.snapshot() != before:
        assert time.monotonic() - begun < 30
        time.sleep(0.1)
    assert "10.66.0.0" not in play.file.read_text()
    done, did = play.run(redis_firewall_redis_sources=["10.66.0.0/16"])  # the next run finishes the work
    assert (done["changed"], done["commit_confirmed"]) == (True, True)
    assert "10.66.0.0/16" in play.nft("list", "table", "inet", "redisops")


def test_without_a_rehearsal_and_without_sources(play):
    done, did = play.run(redis_firewall_rollback_seconds=0)
    assert (done["changed"], done["commit_confirmed"], did) == (True, False, ["exec"])
    before = play.snapshot()
    for variables, code in (
        ({"redis_firewall_redis_groups": ["aplication"]}, "unknown_inventory_group"),
        ({"redis_firewall_redis_groups": [], "redis_firewall_redis_sources": []}, "empty_allow_list"),
        ({"redis_firewall_redis_sources": ["10.20.0.9/24"]}, "invalid_source"),
    ):
        result, _did = play.run(**variables)
        assert (result["failed"], result["code"]) == (True, code)
        assert play.snapshot() == before


def test_nothing_is_done_before_it_is_asked_for(play):
    empty = play.snapshot()
    _result, did = play.run(redis_firewall_enabled=False)
    assert (did, play.snapshot()) == ([], empty)
