# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin cluster, by ansible-inventory, with a real cluster of six. redis-cli is the judge."""

from __future__ import annotations

import signal
import subprocess

import pytest
import yaml

from tests.support import pki
from tests.support.topology import Source, cli, free_port, wait

SECRET = "not-in-any-output-2"


@pytest.fixture(name="node")
def _node(new_redis):
    def start(name, extra=""):
        server = new_redis(name)
        server.port = free_port()
        server.write_conf(f"cluster-enabled yes\ncluster-node-timeout 4000\nsave ''\n{extra}\n")
        return server.start()

    return start


@pytest.fixture(name="nodes")
def _nodes(node):
    made = [node(f"n{number}") for number in range(6)]
    subprocess.run(
        ["redis-cli", "--cluster", "create", *(f"127.0.0.1:{one.port}" for one in made), "--cluster-replicas", "1", "--cluster-yes"],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    for one in made:
        wait(lambda one=one: "cluster_state:ok" in one.raw("CLUSTER", "INFO"))
        wait(lambda one=one: "cluster_known_nodes:6" in one.raw("CLUSTER", "INFO"))
    for one in made[3:]:
        wait(lambda one=one: "master_link_status:up" in one.raw("INFO", "replication"))
    wait(lambda: len({seen(one) for one in made}) == 1)
    return made


def seen(server):
    """What CLUSTER NODES says of roles and slots, the same on every node that agrees."""
    lines = [line.split() for line in server.cli("CLUSTER", "NODES").splitlines()]
    return tuple(
        sorted((words[0], "slave" in words[2], words[3], " ".join(words[8:])) for words in lines if len(words) >= 8)
    )


@pytest.fixture(name="source")
def _source(tmp_path):
    return Source(tmp_path, "sessions.cluster.yml", "redisops.recovery.cluster")


def addresses(servers):
    return [f"127.0.0.1:{one.port}" for one in servers]


def compare(found, judge):
    """Every host against CLUSTER NODES of one node, asked by redis-cli."""
    rows = [line.split() for line in judge.cli("CLUSTER", "NODES").splitlines()]
    places = {words[0]: words[1].split("@")[0] for words in rows}
    assert len(found.vars) == len(rows)
    for words in rows:
        values = found.of(int(places[words[0]].rsplit(":", 1)[1]))
        assert values["redis_node_id"] == words[0]
        assert values["redis_role"] == ("replica" if "slave" in words[2] else "primary")
        assert values["redis_slots"] == words[8:]
        assert values["redis_primary"] == places.get(words[3], places[words[0]])
        group = "redis_cluster_replica" if "slave" in words[2] else "redis_cluster_primary"
        assert values["redis_port"] in found.ports(group)
        if "slave" not in words[2]:
            assert values["redis_config_epoch"] == int(words[6])


def test_what_is_and_what_is_after_a_failover(nodes, source):
    found = source.write(nodes=addresses(nodes[:2])).read()
    compare(found, nodes[3])
    assert found.ports("redis_cluster") == sorted(one.port for one in nodes)
    assert sum(found.of(one.port)["redis_slot_count"] for one in nodes) == 16384
    assert found.group("redis_down") == []
    assert "WARNING" not in found.said
    for one in nodes:
        values = found.of(one.port)
        assert values["redis_version"] == one.info("redis_version")
        assert values["redis_state"] == "ok"
        if values["redis_role"] == "replica":
            assert values["redis_link"] == "up"
            assert 0 <= values["redis_lag_bytes"] < 2000
    shards = [name for name in found.listed if "_shard_" in name]
    assert sorted(shards) == ["redis_cluster_shard_0", "redis_cluster_shard_10923", "redis_cluster_shard_5461"]
    pair = found.ports("redis_cluster_shard_0")
    assert len(pair) == 2
    assert nodes[0].port in pair
    # one is enough, and the others need not be asked
    less = source.write(nodes=["127.0.0.1:1", *addresses(nodes[5:])], server_details=False).read()
    compare(less, nodes[3])
    assert "redis_version" not in less.of(nodes[0].port)
    assert "node 127.0.0.1:1 was not heard: nothing listens" in less.said

    nodes[0].stop(signal.SIGKILL)
    left = nodes[1:]
    for one in left:
        wait(lambda one=one: " master,fail " in one.cli("CLUSTER", "NODES"))
        wait(lambda one=one: "cluster_state:ok" in one.raw("CLUSTER", "INFO"))
    wait(lambda: len({seen(one) for one in left}) == 1)
    found = source.write(nodes=addresses(left), cluster_name="sessions").read()
    compare(found, left[0])
    assert found.ports("redis_down") == [nodes[0].port]
    assert found.of(nodes[0].port)["redis_flags"] == ["master", "fail"]
    assert found.ports("redis_sessions_shard_0") == [port for port in pair if port != nodes[0].port]
    assert set(found.ports("redis_sessions_shard_0")) < set(found.ports("redis_sessions_primary"))
    assert "nothing listens" in found.of(nodes[0].port)["redis_because"]


def test_hosts_that_are_there_already_and_the_cache(nodes, source, tmp_path):
    before = tmp_path / "hosts.yml"
    hosts = {
        f"node-{number}": {"ansible_host": "127.0.0.1", "redis_port": one.port} for number, one in enumerate(nodes)
    }
    before.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    source.write(
        nodes=addresses(nodes[:1]), cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(tmp_path / "cache"),
    )  # fmt: skip
    found = source.read(before=before)
    assert sorted(found.vars) == sorted(hosts)
    for one in nodes:
        one.stop(signal.SIGKILL)
    assert source.read(before=before).listed == found.listed
    assert "[no_cluster_node]" in source.run("--list", "--flush-cache").stderr


def test_login_and_nodes_that_disagree(nodes, source):
    for one in nodes:
        one.cli("ACL", "SETUSER", "inventory", "on", f">{SECRET}", "+ping", "+info", "+cluster|info", "+cluster|nodes")
        one.cli("ACL", "SETUSER", "poor", "on", f">{SECRET}", "+ping", "+info")
    login = {"login_user": "inventory", "login_password": SECRET}
    found = source.write(nodes=addresses(nodes[:1]), **login).read()
    compare(found, nodes[0])
    assert SECRET not in str(found.listed)
    for wrong in ({**login, "login_password": "wrong"}, {**login, "login_user": "poor"}):
        assert "set login_user and login_password" in source.write(nodes=addresses(nodes[:1]), **wrong).failure(
            "login_failed"
        )
    # one that was predicted to forget another says something else than the others
    lost = nodes[5].cli("CLUSTER", "MYID")
    nodes[0].cli("CLUSTER", "FORGET", lost)
    # where only the one is asked, nobody who is asked knows of it
    assert len(source.write(nodes=addresses(nodes[:1]), server_details=False, **login).read().vars) == 5
    reported = source.write(nodes=addresses(nodes[:2]), **login).failure("cluster_disagrees")
    assert f"127.0.0.1:{nodes[5].port} is" in reported
    assert f"unknown to 127.0.0.1:{nodes[0].port}" in reported


def test_one_node_alone_and_one_of_another_cluster(node, source):
    first, second = node("one"), node("two")
    found = source.write(nodes=addresses([first])).read()
    values = found.of(first.port)
    assert (values["redis_state"], values["redis_slots"], values["redis_role"]) == ("fail", [], "primary")
    assert "redis_shard" not in values
    source.write(nodes=addresses([first, second])).failure("cluster_disagrees")


def test_tls(node, source, tmp_path):
    ca = pki.authority()
    pair = pki.server(ca)
    for name, text in {
        "ca.pem": ca.pem,
        "cert.pem": pair.pem,
        "key.pem": pair.key,
        "other.pem": pki.authority("Other").pem,
    }.items():
        (tmp_path / name).write_text(text)
    server = node(
        "secure",
        f"tls-cert-file {tmp_path}/cert.pem\ntls-key-file {tmp_path}/key.pem\ntls-ca-cert-file {tmp_path}/ca.pem\ntls-auth-clients no",
    )
    port = free_port()
    server.cli("CONFIG", "SET", "tls-port", str(port))
    good = {"nodes": [f"127.0.0.1:{port}"], "tls": True, "ca_certs": str(tmp_path / "ca.pem")}
    assert len(source.write(**good).read().group("redis_cluster_primary")) == 1
    source.write(**{**good, "ca_certs": str(tmp_path / "other.pem")}).failure("tls_failed")


def test_what_is_no_cluster_node(redis_server, source):
    redis_server.start()
    reported = source.write(nodes=addresses([redis_server])).failure("not_a_cluster_node")
    assert "cluster support disabled" in reported
    assert "127.0.0.1:1: nothing listens" in source.write(nodes=["127.0.0.1:1"]).failure("no_cluster_node")
    assert cli(redis_server.port, "PING") == "PONG"


@pytest.mark.parametrize("name", ["sessions.yml", "sessions.sentinel.yml"])
def test_only_files_that_are_named_so(source, name):
    source.write(nodes=["127.0.0.1:1"])
    source.path = source.path.rename(source.path.with_name(name))
    done = source.run()
    assert done.returncode != 0
    assert "nothing listens" not in done.stderr
