# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions of redis_tls."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import ConfigPlan
from ansible_collections.redisops.recovery.plugins.module_utils.tls.plan import (
    PlainLinks,
    declared_directives,
    describe,
    expiry_warnings,
    hold_back_cluster_bus,
    issue_reasons,
    live_address,
    may_read,
    plain_links,
    predict,
    require_combination,
    require_dates,
    require_links,
    require_names,
    set_live_order,
    shown,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import Certificate

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "tls"
DAY = 86400
NOW = 1_800_000_000
LEAF = Certificate(
    "CN=redis-1", "CN=CA", "01", NOW - DAY, NOW + 100 * DAY, ("redis-1", "localhost", "192.0.2.1"), "ab" * 32
)
CA = Certificate("CN=CA", "CN=CA", "00", NOW - DAY, NOW + 3650 * DAY, (), "cd" * 32)
DECLARED = {
    "tls_port": 6380, "tls_protocols": ["TLSv1.2", "TLSv1.3"], "source": "given", "renew_before": 30, "valid_days": 397,
    "tls_only": False, "tls_cert_file": "/t/c", "tls_key_file": "/t/k", "tls_ca_cert_file": "/t/a", "tls_key_file_pass": None,
    "tls_auth_clients": "yes", "tls_replication": True, "tls_cluster": False,
}  # fmt: skip
WANTED = {"tls-port": "6380", "tls-cluster": "no"}


def test_directives():
    assert declared_directives(DECLARED, False) == {
        "tls-port": "6380", "tls-cert-file": "/t/c", "tls-key-file": "/t/k", "tls-ca-cert-file": "/t/a", "tls-auth-clients": "yes",
        "tls-replication": "yes", "tls-cluster": "no", "tls-protocols": "TLSv1.2 TLSv1.3",
    }  # fmt: skip
    only = declared_directives({**DECLARED, "tls_only": True, "tls_key_file_pass": "x"}, False)
    assert list(only)[:2] == ["port", "tls-port"]
    assert (only["port"], only["tls-key-file-pass"]) == ("0", "x")
    assert declared_directives(DECLARED, True)["tls-key-file-pass"] == ""


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("invalid_value", {"tls_port": 0}),
        ("invalid_value", {"tls_port": 65536}),
        ("invalid_value", {"tls_protocols": []}),
        ("invalid_value", {"tls_cert_file": "redis.crt"}),
        ("invalid_value", {"tls_key_file": "/etc/redis/tls/"}),
        ("contradiction", {"tls_key_file": "/t/c"}),
        ("contradiction", {"source": "issued", "valid_days": 30}),
    ],
)
def test_directives_that_cannot_be(code, options):
    with pytest.raises(Problem) as error:
        declared_directives({**DECLARED, **options}, False)
    assert error.value.code == code


def test_certificate_and_key_of_others_may_be_one_file():
    assert declared_directives({**DECLARED, "source": "host", "tls_key_file": "/t/c"}, False)["tls-key-file"] == "/t/c"


@pytest.mark.parametrize(
    ("code", "wanted", "port", "cluster", "bus"),
    [
        ("contradiction", WANTED, "6380", False, "0"),
        ("contradiction", {**WANTED, "port": "0"}, "6379", True, "0"),
        ("invalid_value", {**WANTED, "tls-port": "55536", "tls-cluster": "yes"}, "6379", True, "0"),
    ],
)
def test_combinations_that_cannot_be(code, wanted, port, cluster, bus):
    with pytest.raises(Problem) as error:
        require_combination(wanted, port, cluster, bus)
    assert error.value.code == code


def test_combinations_that_can_be():
    require_combination(WANTED, "6379", False, "0")
    require_combination({**WANTED, "port": "0"}, "6380", False, "0")
    require_combination({**WANTED, "port": "0", "tls-cluster": "yes"}, "6379", True, "0")
    require_combination({**WANTED, "tls-port": "60000", "tls-cluster": "yes"}, "6379", True, "16379")
    require_combination({**WANTED, "tls-port": "60000"}, "6379", True, "0")


def planned(**live):
    values = {name.replace("_", "-"): value for name, value in live.items()}
    return ConfigPlan([Change("live", name, "x", value) for name, value in values.items()], dict(values))


def test_the_bus_of_a_node_alone_waits():
    plan = planned(port="0", tls_port="6380", tls_cluster="yes", tls_auth_clients="no")
    hold_back_cluster_bus(plan, {"cluster-enabled": "yes", "tls-cluster": "no"}, 1)
    assert plan.live == {"tls-auth-clients": "no"}
    assert [change.name for change in plan.changes] == ["tls-auth-clients"]
    assert plan.restart_required == ["tls-cluster", "tls-port", "port"]


def test_the_bus_among_others_is_refused():
    with pytest.raises(Refusal) as error:
        hold_back_cluster_bus(planned(tls_cluster="yes"), {"cluster-enabled": "yes", "tls-cluster": "no"}, 6)
    assert error.value.code == "cluster_bus"
    assert "5 others" in error.value.detected
    with pytest.raises(Refusal, match="its port"):
        hold_back_cluster_bus(planned(tls_port="6390"), {"cluster-enabled": "yes", "tls-cluster": "yes"}, 6)


@pytest.mark.parametrize("live", [{"cluster-enabled": "no"}, {}, {"cluster-enabled": "yes", "tls-cluster": "no"}])
def test_a_bus_that_is_not_touched_holds_nothing_back(live):
    plan = planned(tls_port="6380", port="0")
    hold_back_cluster_bus(plan, live, 6)
    assert plan.live == {"tls-port": "6380", "port": "0"}


def test_the_plain_port_closes_last():
    plan = planned(port="0", tls_port="6380")
    assert set_live_order(plan, "6380", {"port": "6379"}) == ({"tls-port": "6380"}, {"port": "0"})


def test_a_number_that_changes_hands_does_so_at_once():
    first, last = set_live_order(planned(port="0", tls_port="6379"), "6379", {"port": "6379"})
    assert list(first.items()) == [("port", "0"), ("tls-port", "6379")]
    assert last == {}


# --- certificates -----------------------------------------------------------------------------------------------------


def reasons(**more):
    values = {
        "found": LEAF,
        "names": ["redis-1", "localhost"],
        "now": NOW,
        "renew_before": 30,
        "valid_days": 397,
        "ca_not_after": CA.not_after,
    }
    return issue_reasons(**{**values, **more})


def test_a_certificate_that_is_good_is_kept():
    assert reasons() == []  # an address more than is needed is no reason
    assert reasons(now=NOW + 70 * DAY) == []  # exactly renew_before days are left


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("there is none", {"found": None}),
        ("it lacks redis-2", {"names": ["redis-1", "localhost", "redis-2"]}),
        ("it lacks 192.0.2.2", {"names": ["redis-1", "localhost", "192.0.2.2"]}),
        ("it has localhost, which is not declared", {"names": ["redis-1"]}),
        ("it expires at", {"now": NOW + 70 * DAY + 1}),
        ("it expired at", {"now": NOW + 100 * DAY}),
    ],
)
def test_reasons_for_a_new_one(text, options):
    found = reasons(**options)
    assert len(found) == 1
    assert found[0].startswith(text)


def test_no_new_one_where_it_would_not_last_longer():
    near = NOW + 90 * DAY
    assert reasons(now=near, ca_not_after=LEAF.not_after) == []
    assert reasons(now=near, ca_not_after=LEAF.not_after + DAY) != []
    assert reasons(now=LEAF.not_after + 1, ca_not_after=LEAF.not_after) != []


def test_dates():
    require_dates(LEAF, NOW, "f")
    for now, code in (
        (LEAF.not_after, "certificate_expired"),
        (LEAF.not_before - 1, "certificate_not_yet_valid"),
    ):
        with pytest.raises(Problem) as error:
            require_dates(LEAF, now, "f")
        assert error.value.code == code


def test_declared_names():
    require_names(LEAF, ["localhost"])
    with pytest.raises(Problem, match=r"not for other\.example") as error:
        require_names(LEAF, ["localhost", "other.example"])
    assert error.value.code == "certificate_names"


def test_one_line_of_the_diff():
    assert (
        describe(LEAF)
        == "CN=redis-1, names redis-1 localhost 192.0.2.1, issuer CN=CA, expires 2027-04-25T08:00:00Z, sha256 abababababababab"
    )
    assert predict(["redis-1", "b", "a"], CA, 397) == "CN=redis-1, names a b redis-1, issuer CN=CA, made for 397 days"


def test_what_is_shown():
    assert shown(None, NOW, None, True) == {}
    assert shown(LEAF, NOW, LEAF, True)["served"] is True
    assert shown(LEAF, NOW, CA, True)["served"] is False
    assert shown(LEAF, NOW, None, True)["served"] is False
    assert shown(LEAF, NOW, None, False)["served"] is None
    assert shown(LEAF, NOW + DAY // 2, None, False)["days_left"] == 99


def test_warnings_of_an_end():
    assert expiry_warnings(LEAF, [CA], NOW, 30) == []
    assert expiry_warnings(None, [], NOW, 30) == []
    later = NOW + 80 * DAY
    assert expiry_warnings(LEAF, [CA], later, 30) == ["the certificate CN=redis-1 expires at 2027-04-25T08:00:00Z"]
    old = dataclasses.replace(CA, subject="CN=Old", not_after=NOW)
    assert [text[:25] for text in expiry_warnings(LEAF, [CA, old], NOW, 30)] == ["the authority CN=Old expi"]
    # Of a distribution's bundle only the one that signed matters.
    assert expiry_warnings(LEAF, [CA, *[old] * 9], NOW, 30) == []
    assert expiry_warnings(LEAF, [dataclasses.replace(CA, not_after=NOW), *[old] * 9], NOW, 30) == [
        "the authority CN=CA expired at 2027-01-15T08:00:00Z"
    ]


# --- the live server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("", "127.0.0.1"), ("*", "127.0.0.1"), ("* -::*", "127.0.0.1"), ("127.0.0.1 -::1", "127.0.0.1"), ("-::1 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1 127.0.0.1", "127.0.0.1"), ("::*", "::1"), ("-::1", "::1"), ("0.0.0.0", "127.0.0.1"),
    ],
)  # fmt: skip
def test_where_a_server_listens(bind, address):
    assert live_address(bind) == address


def recorded_clients():
    return next(RECORDED.glob("redis-*-client-list.txt")).read_text()


def test_who_is_connected_in_plain_text():
    links = plain_links(recorded_clients(), "6380", "10")
    assert (len(links.replicas), len(links.sentinels), len(links.clients)) == (1, 2, 1)
    assert all(entry.startswith("127.0.0.1:") for entry in (*links.replicas, *links.sentinels, *links.clients))
    everyone = plain_links(recorded_clients(), "0", "10")
    assert (len(everyone.replicas), len(everyone.sentinels), len(everyone.clients)) == (2, 2, 2)


@pytest.mark.parametrize(
    "line",
    [
        "id=3 addr=/run/redis.sock:0 laddr=/run/redis.sock:0 flags=U name=",
        "id=3 addr=192.0.2.1:6379 laddr=192.0.2.2:51000 flags=M name=",
        "id=10 addr=127.0.0.1:1 laddr=127.0.0.1:6379 flags=N name=",
        "id=3 addr=127.0.0.1:1 laddr=[::1]:6380 flags=N name=",
        "",
    ],
)
def test_who_is_not(line):
    assert plain_links(line, "6380", "10") == PlainLinks()


def test_replicas_and_sentinels_are_not_locked_out():
    assert require_links(PlainLinks()) is None
    for links in (
        PlainLinks(replicas=("192.0.2.1:5",)),
        PlainLinks(sentinels=("192.0.2.1:5",), clients=("192.0.2.2:6",)),
    ):
        with pytest.raises(Refusal, match=r"192\.0\.2\.1:5") as error:
            require_links(links)
        assert error.value.code == "plain_links"
    text = require_links(PlainLinks(clients=tuple(f"192.0.2.1:{port}" for port in range(7))))
    assert text.startswith("7 connections")
    assert "192.0.2.1:4, …" in text
    assert "192.0.2.1:5" not in text


@pytest.mark.parametrize(
    ("uid", "gids", "mode", "readable"),
    [
        (0, (0,), 0o000, True), (100, (5,), 0o400, True), (100, (5,), 0o040, False), (200, (7, 5), 0o640, True), (200, (7,), 0o640, False),
        (200, (7,), 0o644, True), (200, (5,), 0o604, False),
    ],
)  # fmt: skip
def test_who_may_read(uid, gids, mode, readable):
    assert may_read(uid, gids, 100, 5, mode) is readable
