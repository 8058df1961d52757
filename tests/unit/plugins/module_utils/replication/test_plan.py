# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who replicates whom, from what is seen."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.plan import (
    agreed,
    backlog_bytes,
    decide,
    loss_window,
    require_joinable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    Replica,
    View,
    contains,
    endpoint,
    split_endpoint,
    view_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import parse_info

A, B, C = "a:6379", "b:6379", "c:6379"
X, Y = "x" * 40, "y" * 40


def primary(address, **more):
    return View(address, "primary", **{"id": X, **more})


def replica(address, upstream, **more):
    return View(address, "replica", upstream=upstream, **more)


def lost(address):
    return View(address, "unreachable", because="nothing listens")


ONE = (Replica(B, True, 1, 0),)


@pytest.mark.parametrize(
    ("me", "peers", "sentinel", "declared", "wanted"),
    [
        # nothing exists yet: the declaration
        (primary(A), [primary(B), primary(C)], None, A, A),
        (primary(B), [primary(A), primary(C)], None, A, A),
        (primary(B), [primary(A), lost(C)], None, A, A),
        # after a failover the declaration is history
        (replica(A, B), [primary(B, keys=5, replicas=ONE)], None, A, B),
        (primary(B, keys=5, replicas=ONE), [replica(A, B)], None, A, B),
        (replica(A, B), [primary(B, keys=5)], B, A, B),
        # a new, empty host joins whoever holds data
        (primary(C), [primary(A, keys=5), replica(B, A)], None, C, A),
        (primary(C), [primary(A), replica(B, A)], None, C, A),
        # an old primary that came back empty
        (primary(A), [primary(B, keys=5, replicas=ONE)], None, A, B),
        # an old primary that came back with nothing of its own
        (primary(A, keys=5, id=X, offset=99), [primary(B, keys=5, id=Y, second_id=X, second_offset=100)], None, A, B),
        # a primary alone keeps what it has
        (primary(A, keys=5), [lost(B), lost(C)], None, B, A),
        (primary(A, keys=5), [primary(B), primary(C)], None, B, A),
        # Sentinel has the last word
        (primary(A, keys=5), [primary(B, keys=5)], B, A, B),
        # a replica follows whom it follows, also when that one is away
        (replica(A, B), [lost(B)], None, A, B),
        # a replica of a replica is no lost one
        (primary(A, keys=5), [replica(B, A), replica(C, B)], None, A, A),
        # the declared one follows somebody itself
        (primary(C), [replica(A, B), primary(B)], None, A, B),
    ],
)
def test_decisions(me, peers, sentinel, declared, wanted):
    assert decide(me, peers, sentinel, declared).primary == wanted


@pytest.mark.parametrize(
    ("me", "peers", "sentinel", "declared", "code"),
    [
        (primary(A), [primary(B)], None, None, "no_primary"),
        (primary(A), [primary(B)], None, "z:1", "no_primary"),
        (primary(A), [lost(B)], None, B, "primary_unreachable"),
        (primary(A), [primary(B)], "z:1", A, "unknown_primary"),
        # both took writes
        (
            primary(A, keys=5, id=X, offset=100),
            [primary(B, keys=5, id=Y, second_id=X, second_offset=100)],
            None,
            A,
            "two_primaries",
        ),
        (primary(A, keys=5, id=X), [primary(B, keys=5, id=Y)], None, A, "two_primaries"),
        (primary(A, keys=5, id=X), [primary(B, keys=5, id=X)], None, A, "two_primaries"),
        (primary(A), [primary(B, keys=5), primary(C, keys=5)], None, A, "two_primaries"),
        (primary(A, replicas=ONE), [primary(C, keys=5)], None, A, "two_primaries"),
        (primary(C), [replica(A, B), replica(B, A)], None, C, "primary_unreachable"),
        # somebody follows a primary that does not answer: an empty server must not guess
        (primary(C), [replica(B, A), lost(A)], None, C, "primary_unreachable"),
        (primary(C, keys=9), [replica(B, A), lost(A)], None, C, "primary_unreachable"),
    ],
)
def test_what_cannot_be_told_is_refused(me, peers, sentinel, declared, code):
    with pytest.raises(Problem) as caught:
        decide(me, peers, sentinel, declared)
    assert caught.value.code == code
    if code == "two_primaries":
        assert "offset" in caught.value.message()


def test_sentinels_have_to_agree():
    assert agreed({}, "m") is None
    assert agreed({"s1": None, "s2": None}, "m") is None
    assert agreed({"s1": A, "s2": None, "s3": A}, "m") == A
    with pytest.raises(Refusal) as caught:
        agreed({"s1": A, "s2": B}, "m")
    assert caught.value.code == "sentinels_disagree"
    assert "s1 says a:6379" in caught.value.message()


def test_data_is_thrown_away_only_where_the_other_has_it():
    there = primary(B, keys=5, id=Y, second_id=X, second_offset=100)
    require_joinable(primary(A), there)
    require_joinable(primary(A, keys=5, offset=99), there)
    for me in (primary(A, keys=5, offset=100), primary(A, keys=5, id=Y, offset=1)):
        with pytest.raises(Refusal) as caught:
            require_joinable(me, there)
        assert caught.value.code == "two_primaries"
    with pytest.raises(Refusal) as caught:
        require_joinable(primary(A), lost(B))
    assert caught.value.code == "primary_unreachable"
    with pytest.raises(Refusal) as caught:
        require_joinable(primary(A), replica(B, A))
    assert caught.value.code == "not_the_primary"
    assert not contains(primary(B), primary(A))


def test_a_replica_of_a_replica_has_nothing_of_its_own():
    there = primary(B, keys=5, offset=100)
    require_joinable(replica(A, C, keys=5, id=X, offset=100), there)
    for me in (
        replica(A, C, keys=5, id=X, offset=101),
        replica(A, C, keys=5, id=Y, offset=1),
        primary(A, keys=5, id=X, offset=1),
    ):
        with pytest.raises(Refusal):
            require_joinable(me, there)


def test_a_server_that_loads_is_not_empty():
    assert view_of(parse_info("role:master\nloading:1\n"), A).empty is False
    assert view_of(parse_info("role:master\nloading:0\n"), A).empty is True


@pytest.mark.parametrize(
    ("rate", "outage", "size"),
    [(0, 300, 2**20), (1000, 300, 2**20), (10_000, 300, 8 * 2**20), (10**9, 300, 2**30), (1749, 300, 2**21)],
)
def test_backlog(rate, outage, size):
    assert backlog_bytes(rate, outage) == size


def test_the_loss_window_is_said():
    assert "11 seconds" in loss_window(1, 10)
    assert "all of them are lost" in loss_window(0, 10)


INFO = """role:{role}
master_host:10.0.0.1
master_port:6379
master_link_status:up
slave_repl_offset:70
connected_slaves:3
slave0:ip=10.0.0.2,port=6379,state=online,offset=42,lag=1
slave1:ip=fe80::1,port=6380,state=wait_bgsave,offset=0,lag=0
slave2:ip=127.0.0.1,port=0,state=send_bulk,offset=0,lag=0
master_replid:{x}
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:77
second_repl_offset:-1
uptime_in_seconds:9
redis_version:7.0.15
"""


def test_a_view_is_read_from_info():
    found = view_of(parse_info(INFO.format(role="master", x=X)), A)
    assert (found.role, found.upstream, found.offset, found.id, found.second_id) == ("primary", "", 77, X, "")
    assert found.replicas == (Replica("10.0.0.2:6379", True, 42, 1), Replica("[fe80::1]:6380", False, 0, 0))
    other = view_of(parse_info(INFO.format(role="slave", x=X)), B)
    assert (other.role, other.upstream, other.link_up, other.offset) == ("replica", "10.0.0.1:6379", True, 70)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("h", ("h", 6379)), ("h:1", ("h", 1)), ("::1", ("::1", 6379)), ("[::1]:7", ("::1", 7)), ("[::1]", ("::1", 6379))],
)
def test_endpoints(text, parts):
    assert split_endpoint(text) == parts
    assert split_endpoint(endpoint(*parts)) == parts
