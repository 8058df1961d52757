# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Primary and replica on one host, as ansible-playbook runs the module: which of the two is meant has to be known."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]

_PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - redisops.recovery.redis_replication: {group_hosts: "{{ members }}", config_file: "{{ conf }}", timeout: 30, min_replicas_to_write: 0}
      module_defaults:
        group/redisops.recovery.connection: {login_port: "{{ server_port }}"}
"""


@pytest.fixture(name="pair")
def _pair(new_redis):
    primary, replica = new_redis("primary"), new_redis("replica")
    primary.start()
    primary.cli("SET", "k", "1")
    replica.write_conf(f"replicaof 127.0.0.1 {primary.port}\n")
    replica.start()
    assert wait_for(lambda: replica.info("master_link_status") == "up", 20)
    return primary, replica


@pytest.fixture(name="play")
def _play(pair, tmp_path):
    def play(members, check=False, **host_variables) -> str:
        hosts = {
            name: {
                "ansible_host": "127.0.0.1", "conf": str(server.conf), "server_port": server.port,
                **{key: value[name] for key, value in host_variables.items()},
            }
            for name, server in zip(("n1", "n2"), pair)
        }  # fmt: skip
        inventory = {
            "all": {
                "hosts": hosts,
                "vars": {
                    "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "members": members,
                },
            }
        }  # fmt: skip
        (tmp_path / "hosts.json").write_text(json.dumps(inventory))
        (tmp_path / "play.yml").write_text(_PLAY)
        done = subprocess.run(
            [pathlib.Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", tmp_path / "play.yml",
             *(["--check"] if check else [])],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        return done.stdout + done.stderr

    return play


def replicaof(server) -> list[str]:
    return [line for line in server.conf.read_text().splitlines() if line.startswith("replicaof")]


def test_a_replica_next_to_its_primary_stays_one(play, pair):
    primary, replica = pair
    out = play([f"n1:{primary.port}", f"n2:{replica.port}"])
    assert "failed=1" not in out, out
    assert replicaof(replica) == [f"replicaof 127.0.0.1 {primary.port}"]
    assert replicaof(primary) == []
    assert replica.info("role") == "slave"


@pytest.mark.parametrize("check", [True, False])
def test_two_members_with_one_address_and_no_port_are_refused(play, pair, check):
    before = [server.conf.read_text() for server in pair]
    out = play(["n1", "n2"], check)
    assert "n1 and n2 both have the address 127.0.0.1" in out
    assert "redis_replication_address: HOST:PORT" in out
    assert [server.conf.read_text() for server in pair] == before
    assert "duplicate_group_host" in out


def test_addresses_with_ports_are_enough(play, pair):
    primary, replica = pair
    addresses = {"n1": f"127.0.0.1:{primary.port}", "n2": f"127.0.0.1:{replica.port}"}
    out = play(["n1", "n2"], redis_replication_address=addresses)
    assert "failed=1" not in out, out
    assert replicaof(replica) == [f"replicaof 127.0.0.1 {primary.port}"]


def test_the_module_itself_does_not_take_a_replica_for_its_primary(call_module, pair):
    _primary, replica = pair
    before = replica.tree()
    members = [f"127.0.0.1:{server.port}" for server in pair]
    for check in (True, False):
        done = call_module(
            "redis_replication",
            check=check,
            **replica.params(address=members[0], group_hosts=members, min_replicas_to_write=0),
        )
        assert (done.failed, done.code) == (True, "own_address_unclear"), done
    assert replica.tree() == before
