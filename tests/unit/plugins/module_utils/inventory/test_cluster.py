# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recorded answers of cluster nodes as hosts."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    ClusterAnswer,
    cluster_disagreement,
    cluster_endpoints,
    cluster_servers,
    parse_cluster_info,
    parse_nodes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.host_vars import Detail
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import parse_info

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures" / "topology"
PORTS = tuple(range(21020, 21026))


def recorded(case):
    kept = json.loads((FIXTURES / f"redis-7.0.15-cluster-{case}.json").read_text())
    answers = [
        ClusterAnswer(address, parse_cluster_info(reported["info"]), tuple(parse_nodes(reported["nodes"])))
        for address, reported in kept.items()
    ]
    return answers, {address: Detail(parse_info(reported["server"])) for address, reported in kept.items()}


def by_port(found):
    return {one.port: one for one in found}


def test_healthy():
    answers, details = recorded("healthy")
    assert cluster_disagreement(answers) == ""
    primaries, replicas = cluster_servers(answers)
    assert (primaries, replicas) == (
        [f"127.0.0.1:{port}" for port in PORTS[:3]],
        [f"127.0.0.1:{port}" for port in PORTS[3:]],
    )
    found = by_port(cluster_endpoints(answers, "cluster", details))
    assert sorted(found) == list(PORTS)
    first = found[PORTS[0]]
    assert first.groups == ("redis_cluster", "redis_cluster_primary", "redis_cluster_shard_0")
    assert (first.variables["redis_slots"], first.variables["redis_slot_count"]) == (["0-5460"], 5461)
    assert (first.variables["redis_shard"], first.variables["redis_state"]) == (0, "ok")
    assert sum(one.variables["redis_slot_count"] for one in found.values()) == 16384
    for port in PORTS[3:]:
        values = found[port].variables
        assert (values["redis_role"], values["redis_link"], values["redis_slots"]) == ("replica", "up", [])
        assert values["redis_primary"] in primaries
        assert values["redis_lag_bytes"] >= 0
        assert f"redis_cluster_shard_{values['redis_shard']}" in found[port].groups


@pytest.mark.parametrize("number", range(6))
def test_every_single_node_is_enough(number):
    answers, _details = recorded("healthy")
    alone = cluster_endpoints(answers[number : number + 1], "cluster")
    assert {one.port: one.groups for one in alone} == {
        one.port: one.groups for one in cluster_endpoints(answers, "cluster")
    }


def test_after_a_failover_the_shard_keeps_its_name():
    answers, _details = recorded("failed-over")
    assert cluster_disagreement(answers) == ""
    found = by_port(cluster_endpoints(answers, "sessions"))
    lost = found[PORTS[0]]
    assert lost.groups == (
        "redis_cluster",
        "redis_cluster_primary",
        "redis_sessions",
        "redis_sessions_primary",
        "redis_down",
    )
    assert lost.variables["redis_slot_count"] == 0
    (new,) = (one for one in found.values() if "redis_sessions_shard_0" in one.groups)
    assert (new.variables["redis_role"], new.variables["redis_slots"]) == ("primary", ["0-5460"])
    assert new.variables["redis_config_epoch"] == 7


def test_moving_slots_and_a_node_alone():
    (answer,), _details = recorded("moving")
    (source,) = (node for node in answer.nodes if node.itself)
    assert source.moving[0].startswith("93->-")
    assert source.slots == ((0, 5460),)
    (alone,), _details = recorded("alone")
    (found,) = cluster_endpoints([alone], "cluster")
    assert found.addresses == ("127.0.0.1:21020",)  # it does not know its own address yet
    assert found.variables["redis_state"] == "fail"
    assert "redis_shard" not in found.variables


def test_disagreement_names_the_node_and_who_says_what():
    before, _details = recorded("healthy")
    after, _details = recorded("failed-over")
    reported = cluster_disagreement([before[0], after[0]])
    assert reported  # other identities altogether
    healthy = before[0]
    nodes = tuple(node for node in healthy.nodes if not node.address.endswith(":21025"))
    reported = cluster_disagreement([ClusterAnswer("10.0.0.1:6379", healthy.info, nodes), before[1]])
    assert reported.startswith("127.0.0.1:21025 is replica of 127.0.0.1:")
    assert reported.endswith(f"to {before[1].asked}, unknown to 10.0.0.1:6379")


def test_lines_of_other_versions():
    text = (
        "aa 10.0.0.1:6379@16379,host-1,shard-id=ff myself,master - 0 0 1 connected 5 7-9 [10-<-bb]\n"
        "bb [::1]:6379@16379 slave,nofailover aa 0 0 1 disconnected\n"
        "cc ::2:6380@16380 handshake - 0 0 0 disconnected\n"
        "dd :0@0 master,noaddr - 0 0 0 disconnected\n\n"
    )
    first, second, third, fourth = parse_nodes(text)
    assert (first.address, first.ranges, first.slot_count, first.moving) == (
        "10.0.0.1:6379",
        ["5", "7-9"],
        4,
        ("10-<-bb",),
    )
    assert (second.address, second.role, second.primary_id) == ("[::1]:6379", "replica", "aa")
    assert third.address == "[::2]:6380"
    assert third.joining
    assert fourth.down
    found = cluster_endpoints([ClusterAnswer("x:1", {"cluster_state": "ok"}, (first, second, third, fourth))], "c")
    assert [one.addresses[0] for one in found] == ["10.0.0.1:6379", "[::1]:6379"]
    with pytest.raises(ValueError, match="CLUSTER NODES"):
        parse_nodes("ERR something else\n")
