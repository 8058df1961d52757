# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts of the inventory as addresses."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.plugin_utils.inventory_addresses import InventoryAddresses

VARS = {
    "groups": {"all": ["r1", "r2", "r3"]},
    "inventory_hostname": "r1",
    "hostvars": {
        "r1": {"ansible_host": "192.0.2.1"},
        "r2": {"ansible_host": "192.0.2.2", "redis_replication_address": "2001:db8::2"},
        "r3": {},
    },
}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("r1", "192.0.2.1"),
        ("r1:6380", "192.0.2.1:6380"),
        ("r2", "2001:db8::2"),
        ("r2:6380", "[2001:db8::2]:6380"),
        ("r3", "r3"),
        ("other:6379", "other:6379"),
        ("2001:db8::9", "2001:db8::9"),
    ],
)
def test_names_become_addresses(text, address):
    assert InventoryAddresses(VARS, ["redis_replication_address", "ansible_host"]).of(text) == address


def test_the_host_itself():
    addresses = InventoryAddresses(VARS, "ansible_host")
    assert addresses.own == "192.0.2.1"
    assert addresses.member("192.0.2.1", ["192.0.2.1:6380", "192.0.2.2:6380"]) == "192.0.2.1:6380"
    assert addresses.member("192.0.2.1", ["192.0.2.1", "192.0.2.1:1"]) == "192.0.2.1"
    assert addresses.member("192.0.2.9", ["192.0.2.1"]) == "192.0.2.9"
    assert addresses.member("192.0.2.9", None) == "192.0.2.9"


TWINS = {
    "groups": {"all": ["n1", "n2"]},
    "inventory_hostname": "n2",
    "hostvars": {"n1": {"ansible_host": "192.0.2.1"}, "n2": {"ansible_host": "192.0.2.1"}},
}


def test_of_two_servers_on_one_host_name_or_port_tells():
    addresses = InventoryAddresses(TWINS, ["redis_replication_address", "ansible_host"])
    assert addresses.among("n2", ["n1:1", "n2:2"]) == "192.0.2.1:2"
    assert addresses.among("n2", ["192.0.2.1:1", "192.0.2.1:2"], 2) == "192.0.2.1:2"
    assert addresses.all_of(["n1:1", "n2:2"]) == ["192.0.2.1:1", "192.0.2.1:2"]


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda one: one.among("n2", ["192.0.2.1:1", "192.0.2.1:2"], 3), "own_address_unclear"),
        (lambda one: one.all_of(["n1", "n2"]), "duplicate_group_host"),
        (lambda one: one.all_of(["n1:5", "n2:5"]), "duplicate_group_host"),
    ],
)
def test_what_does_not_tell_is_an_error_that_names_the_variable(ask, code):
    with pytest.raises(Problem, match="192.0.2.1") as caught:
        ask(InventoryAddresses(TWINS, ["redis_replication_address", "ansible_host"]))
    assert (caught.value.code, "redis_replication_address: HOST:PORT" in caught.value.do) == (code, True)
