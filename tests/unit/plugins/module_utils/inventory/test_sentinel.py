# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recorded answers of Sentinels as hosts."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.host_vars import Detail
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.sentinel import (
    SentinelAnswer,
    disagreement,
    endpoints_of,
    names_of,
    servers_of,
    set_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import parse_info

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures" / "topology"
NAME = "orders-1"
FIRST, SECOND, THIRD = (f"127.0.0.1:{port}" for port in (21001, 21002, 21003))


def recorded(case):
    kept = json.loads((FIXTURES / f"redis-7.0.15-sentinel-{case}.json").read_text())
    answers = [
        SentinelAnswer(
            address,
            reported["myid"],
            {NAME: set_of(reported["masters"][0], reported["replicas"][NAME], reported["sentinels"][NAME])},
        )
        for address, reported in kept["sentinels"].items()
    ]
    return answers, {address: Detail(parse_info(text)) for address, text in kept["info"].items()}


def by_address(found):
    return {one.addresses[0]: one for one in found}


def test_healthy():
    answers, details = recorded("healthy")
    assert names_of(answers, []) == [NAME]
    assert disagreement(answers, [NAME]) == ""
    assert servers_of(answers, [NAME]) == ([FIRST], [SECOND, THIRD])
    found = by_address(endpoints_of(answers, [NAME], details))
    assert len(found) == 6
    assert found[FIRST].groups == ("redis_primary", "redis_orders_1", "redis_orders_1_primary")
    primary, replica = found[FIRST].variables, found[SECOND].variables
    assert (primary["redis_role"], primary["redis_role_reported"], primary["redis_down"]) == (
        "primary",
        "primary",
        False,
    )
    assert (primary["redis_quorum"], primary["redis_keys"], primary["redis_version"]) == (2, 1, "7.0.15")
    assert "redis_link" not in primary
    assert (replica["redis_link"], replica["redis_link_down_seconds"], replica["redis_priority"]) == ("up", 0, 100)
    assert replica["redis_primary"] == FIRST
    assert replica["redis_lag_bytes"] >= 0
    assert replica["redis_lag_seconds"] in (0, 1)
    own = answers[0]
    watcher = found[own.asked]
    assert watcher.groups == ("redis_sentinel", "redis_orders_1_sentinel")
    assert watcher.variables["redis_sentinel_myid"] == own.id
    assert watcher.variables["redis_sentinel_watches"] == [NAME]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_single_sentinel_is_enough(number):
    answers, _details = recorded("healthy")
    alone, all_of_them = endpoints_of(answers[number : number + 1], [NAME]), endpoints_of(answers, [NAME])
    assert sorted(by_address(alone)) == sorted(by_address(all_of_them))
    assert {one.addresses[0]: one.groups for one in alone} == {one.addresses[0]: one.groups for one in all_of_them}


def test_after_a_failover_the_old_primary_is_a_replica_that_is_down():
    answers, details = recorded("failed-over")
    details[FIRST] = Detail(None, "nothing listens", True)
    found = by_address(endpoints_of(answers, [NAME], details))
    lost = found[FIRST]
    assert lost.groups == ("redis_replica", "redis_orders_1", "redis_orders_1_replica", "redis_down")
    assert (lost.variables["redis_link"], lost.variables["redis_down"]) == ("down", True)
    assert lost.variables["redis_link_down_seconds"] >= 9
    assert "s_down" in lost.variables["redis_flags"]
    assert "redis_priority" not in lost.variables  # what nobody measured is not predicted
    assert lost.variables["redis_because"] == "nothing listens"
    (primary,) = (one for one in found.values() if "redis_primary" in one.groups)
    assert primary.variables["redis_config_epoch"] == 1
    assert primary.addresses[0] in (SECOND, THIRD)


def test_who_does_not_listen_is_down_before_sentinel_says_so():
    answers, details = recorded("healthy")
    details[SECOND] = Detail(None, "nothing listens at it", True)
    details[THIRD] = Detail(None, "no answer: timed out", False)  # maybe only from here
    found = by_address(endpoints_of(answers, [NAME], details))
    assert "redis_down" in found[SECOND].groups
    assert "redis_down" not in found[THIRD].groups
    assert found[SECOND].variables["redis_link"] == "down"
    # what its primary says of it is still predicted
    assert found[THIRD].variables["redis_lag_bytes"] >= 0


def changed(answer, **fields):
    watched = answer.sets[NAME]
    primary = {**watched.primary.fields, **fields}
    replicas = [dict(one.fields) for one in watched.replicas]
    others = [dict(one.fields) for one in watched.sentinels]
    return SentinelAnswer(answer.asked, answer.id, {NAME: set_of(primary, replicas, others)})


def test_disagreement_says_who_says_what():
    answers, _details = recorded("healthy")
    answers[1] = changed(answers[1], port="21002", **{"config-epoch": "4"})
    reported = disagreement(answers, [NAME])
    assert f"{FIRST} says {answers[0].asked}, {answers[2].asked} (configuration epoch 0)" in reported
    assert f"{SECOND} says {answers[1].asked} (configuration epoch 4)" in reported


def test_half_of_them_decide_who_is_down():
    answers, _details = recorded("healthy")
    one = [changed(answers[0], flags="master,s_down"), *answers[1:]]
    assert "redis_down" not in by_address(endpoints_of(one, [NAME]))[FIRST].groups
    two = [changed(answers[0], flags="master,s_down"), changed(answers[1], flags="master,s_down,o_down"), answers[2]]
    assert by_address(endpoints_of(two, [NAME]))[FIRST].variables["redis_flags"] == ["master", "s_down"]
    assert "redis_down" in by_address(endpoints_of(two, [NAME]))[FIRST].groups


def test_a_server_under_two_names_is_one_host():
    answers, _details = recorded("healthy")
    twice = [SentinelAnswer(one.asked, one.id, {NAME: one.sets[NAME], "b": one.sets[NAME]}) for one in answers]
    found = endpoints_of(twice, names_of(twice, []))
    assert len(found) == 6
    first = by_address(found)[FIRST]
    assert {"redis_b_primary", "redis_orders_1_primary", "redis_primary"} <= set(first.groups)


def test_unknown_names():
    answers, _details = recorded("healthy")
    with pytest.raises(Problem) as caught:
        names_of(answers, ["sessions"])
    assert caught.value.code == "unknown_primary_name"
    assert f"they watch {NAME}" in caught.value.detected


def test_what_is_no_address_is_no_host():
    answers, _details = recorded("healthy")
    for wrong in ("-oProxyCommand=id", "{{ lookup('pipe','id') }}", ""):
        made = [changed(one, ip=wrong) for one in answers]
        found = endpoints_of(made, [NAME])
        assert all(one.variables["redis_role"] != "primary" for one in found)
