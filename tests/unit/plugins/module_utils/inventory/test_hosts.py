# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which host of the inventory a server is."""

from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import (
    SENTINEL,
    SERVER,
    Endpoint,
    Existing,
    assign,
    group_of,
    merge,
    normal,
    usable,
)

ROOT = pathlib.Path(__file__).resolve().parents[5]


def server(*addresses, **variables):
    return Endpoint(SERVER, addresses, ("redis_primary",), variables)


def sentinel(*addresses, **variables):
    return Endpoint(SENTINEL, addresses, ("redis_sentinel",), variables)


def host(name, *addresses, **ports):
    return Existing(name, frozenset([name, *addresses]), ports)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("10.0.0.1", ("10.0.0.1", None)),
        ("Redis-1.Example.com.:1", ("redis-1.example.com", 1)),
        ("[2001:DB8::0:1]:6379", ("2001:db8::1", 6379)),
        ("2001:db8:0::1", ("2001:db8::1", None)),
        ("a:b", ("a:b", None)),
    ],
)
def test_normal(text, expected):
    assert normal(text) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1:6379", True), ("[::1]:6379", True), ("redis-1:1", True), (":0", False), ("10.0.0.1:0", False), ("10.0.0.1:70000", False),
        ("-oProxyCommand=id:22", False), ("{{ lookup('pipe','id') }}:22", False), ("a b:1", False), ("a:b", False),
    ],
)  # fmt: skip
def test_usable(address, expected):
    assert usable(address) is expected


def names(endpoints, existing=(), named=None):
    return assign(endpoints, existing, named or {})


def test_without_an_inventory_the_address_is_the_name():
    found = names([server("10.0.0.1:6379"), server("10.0.0.2:6379"), sentinel("10.0.0.1:26379")])
    assert found == (["10.0.0.1", "10.0.0.2", "10.0.0.1"], [])


def test_a_port_is_in_the_name_where_an_address_has_several():
    assert names([server("10.0.0.1:1"), server("10.0.0.1:2"), sentinel("10.0.0.1:3"), server("10.0.0.2:1")])[0] == [
        "10.0.0.1_1", "10.0.0.1_2", "10.0.0.1_3", "10.0.0.2",
    ]  # fmt: skip


def test_hosts_are_found_by_address_name_and_port():
    existing = [
        host("a", "10.0.0.1"), host("b", "10.0.0.2:6380"), host("c", "10.0.0.2", server=6381), host("redis-4.example.com"), host("six", "2001:db8::6")
    ]  # fmt: skip
    endpoints = [
        server("10.0.0.1:6379"), server("10.0.0.2:6380"), server("10.0.0.2:6381"), server("Redis-4.example.com:6379"),
        server("[2001:db8:0::6]:6379"), sentinel("10.0.0.1:26379"), sentinel("10.0.0.9:26379", "redis-4.example.com:26379"),
    ]  # fmt: skip
    assert names(endpoints, existing) == (
        ["a", "b", "c", "redis-4.example.com", "six", "a", "redis-4.example.com"],
        [],
    )


def test_host_and_port_of_a_server_tell_the_host_of_its_sentinel():
    assert names([server("10.0.0.1:6379"), sentinel("10.0.0.1:26379")], [host("a", "10.0.0.1:6379")])[0] == ["a", "a"]
    assert names([server("10.0.0.1:6380")], [host("a", "10.0.0.1:6379")])[0] == ["10.0.0.1"]


def test_given_names_come_first():
    given = {"10.0.0.1:6379": "one", "10.0.0.2": "two"}
    assert names([server("10.0.0.1:6379"), server("10.0.0.2:1")], [host("a", "10.0.0.1")], given)[0] == ["one", "two"]


def test_what_cannot_be_told_apart_gets_a_name_of_its_own():
    found, warnings = names([server("10.0.0.1:1"), server("10.0.0.1:2")], [host("a", "10.0.0.1")])
    assert found == ["10.0.0.1_1", "10.0.0.1_2"]
    assert "a would be several servers (10.0.0.1:1, 10.0.0.1:2)" in warnings[0]
    found, warnings = names([server("10.0.0.1:1")], [host("a", "10.0.0.1"), host("b", "10.0.0.1")])
    assert found == ["10.0.0.1_1"]
    assert "more than one host of the inventory: a, b" in warnings[0]


def test_a_sentinel_beside_a_server_does_not_speak_for_it():
    one = server("10.0.0.1:6379", redis_role="replica", redis_down=False, redis_port=6379)
    two = Endpoint(
        SENTINEL, ("10.0.0.1:26379",), ("redis_sentinel", "redis_sentinel_down", "redis_down"),
        {"redis_role": "sentinel", "redis_down": True, "redis_sentinel_myid": "x"},
    )  # fmt: skip
    for order in ([one, two], [two, one]):
        (found,) = merge(order, ["a", "a"])
        assert found.variables == {
            "redis_role": "replica", "redis_down": False, "redis_port": 6379, "redis_sentinel_myid": "x"
        }  # fmt: skip
        assert found.groups == ["redis_primary", "redis_sentinel", "redis_sentinel_down"]
    (alone,) = merge([two], ["b"])
    assert alone.variables["redis_role"] == "sentinel"
    assert "redis_down" in alone.groups


def test_groups_of_names():
    assert group_of(["orders-1", "b"]) == {"orders-1": "redis_orders_1", "b": "redis_b"}
    for name in ("primary", "replica", "sentinel", "down", "cluster"):
        assert group_of([name]) == {name: f"redis_set_{name}"}
    with pytest.raises(Problem) as caught:
        group_of(["a-b", "a_b"])
    assert caught.value.code == "group_names_collide"


def test_stored_and_restored():
    one = server("10.0.0.1:6379", redis_flags=["master"])
    assert Endpoint.restored(one.stored()) == one


def test_variables_of_hosts_are_no_variables_of_roles():
    """What is seen must not take the place of what is declared."""
    seen = {
        "redis_role", "redis_primary_name", "redis_primary", "redis_address", "redis_port", "redis_flags", "redis_down", "redis_quorum",
        "redis_config_epoch", "redis_role_reported", "redis_seen_at", "redis_link", "redis_link_down_seconds", "redis_priority",
        "redis_offset", "redis_answers", "redis_because", "redis_version", "redis_product", "redis_keys", "redis_lag_seconds",
        "redis_lag_bytes", "redis_sentinel_myid", "redis_sentinel_address", "redis_sentinel_flags", "redis_sentinel_watches",
        "redis_node_id", "redis_slots", "redis_slot_count", "redis_slots_moving", "redis_shard", "redis_state",
    }  # fmt: skip
    source = "".join((ROOT / "plugins" / "inventory" / f"{name}.py").read_text() for name in ("sentinel", "cluster"))
    assert all(f"C({name})" in source for name in seen)
    declared = set()
    for path in (ROOT / "roles").glob("*/defaults/main.yml"):
        declared |= set(yaml.safe_load(path.read_text()) or {})
    assert declared
    assert seen & declared == set()
