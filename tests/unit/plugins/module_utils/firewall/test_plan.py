# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions of redis_firewall: who is meant, which table that makes, what has to change, what must not be cut off."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.firewalld_ufw import Blocked
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.nft_ruleset import short
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.plan import (
    State,
    Tuning,
    file_text,
    left_out,
    left_out_warning,
    plan,
    refuse_blocked,
    refuse_ports_of_ssh,
    table_of,
    unit_text,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.sources import (
    declared_of,
    from_inventory,
    names_to_resolve,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.listening_sockets import (
    ESTABLISHED,
    LISTEN,
    Socket,
    parse_net_tcp,
    ssh_port,
)
from hypothesis import given
from hypothesis import strategies as st

FILE = "/etc/redisops/firewall.nft"


def service(name="redis", ports=(6379,), sources=("10.0.0.0/24",), allow_empty=False):
    return {"name": name, "ports": list(ports), "sources": list(sources), "allow_empty": allow_empty}


def declared(*services, peers=(), resolved=None):
    return declared_of(services or [service()], peers, resolved or {})


def words(networks) -> list[str]:
    return [short(one) for one in networks]


# --- sources -----------------------------------------------------------------------------------------------------------


def test_fewest_networks_with_the_same_members():
    one = declared(
        service(sources=["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7", "fd00::2", "fd00::3", "10.0.0.0/24"])
    ).services[0]
    assert words(one.networks) == ["10.0.0.0/24", "fd00::2/127"]


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_nobody_more_and_nobody_less_is_admitted(pairs, probe):
    texts = [str(ipaddress.ip_network((number, length), strict=False)) for number, length in pairs]
    address = ipaddress.ip_address(probe)
    networks = declared(service(sources=texts)).services[0].networks
    assert any(address in one for one in networks) == any(address in ipaddress.ip_network(text) for text in texts)
    assert list(networks) == sorted(networks)


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("10.0.0.5/24", "write 10.0.0.0/24 for the network, or 10.0.0.5 for the one address"),
        ("2001:db8::1/64", "write 2001:db8::/64 for the network, or 2001:db8::1 for the one address"),
        ("10.0.0.256", "'10.0.0.256' is no address"),
        ("10.0.0", "'10.0.0' is no address"),
        ("10.0.0.0/33", "'10.0.0.0/33' is no address"),
        ("::ffff:10.0.0.1", "write 10.0.0.1/32"),
        ("fe80::1%eth0", "has a zone"),
        ("fe80::1%x }; flush ruleset", "has a zone"),
        ("[::1]", "is no address"),
        ("a b", "'a b' is no address"),
        ("-x", "'-x' is no address"),
        ("", "'' is no address"),
        ("10.0.0.1-10.0.0.9", "is no address"),
        ('x"; flush ruleset; "', "is no address"),
    ],
)  # fmt: skip
def test_what_is_no_source(text, reported):
    with pytest.raises(Problem) as caught:
        declared(service(sources=["10.1.0.0/16", text]))
    assert caught.value.code == "invalid_source"
    assert reported in caught.value.detected


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(Problem) as caught:
        declared(
            service(sources=["10.0.0.5/24", "10.0.0.1"]), service("sentinel", [26379], ["1.2.3"]), peers=["1.2.3.4.5"]
        )
    assert caught.value.details["sources"] == ["1.2.3.4.5", "10.0.0.5/24", "1.2.3"]
    assert "services, sentinel: '1.2.3'" in caught.value.detected
    assert "peers: '1.2.3.4.5'" in caught.value.detected


def test_names_are_what_this_host_says_they_are():
    services = [service(sources=["app.example", "10.0.0.1"]), service("off", [], ["unused.example"])]
    assert names_to_resolve(services, ["r2"]) == ["r2", "app.example"]
    resolved = {"r2": ["10.0.0.2"], "app.example": ["10.0.0.9", "fd00::9"]}
    found = declared(*services, peers=["r2"], resolved=resolved)
    assert words(found.services[0].networks) == ["10.0.0.1", "10.0.0.9", "fd00::9"]
    assert words(found.peers) == ["10.0.0.2"]
    assert words(found.admitted(6379)) == ["10.0.0.2", "10.0.0.1", "10.0.0.9", "fd00::9"]
    with pytest.raises(Problem) as caught:
        declared(*services, peers=["r2"], resolved={"r2": [], "app.example": []})
    assert (caught.value.code, caught.value.details["sources"]) == ("unresolved_source", ["r2", "app.example"])


def test_an_empty_list_is_meant_only_where_it_is_said():
    with pytest.raises(Refusal) as caught:
        declared(service(sources=[]), peers=["10.0.0.1"])
    assert caught.value.code == "empty_allow_list"
    assert declared(service(sources=[], allow_empty=True)).services[0].networks == ()


def test_names_of_the_inventory():
    hosts_of = {"all": ["app1", "app2", "r1"], "application": ["app1", "app2", "r1"], "none": []}
    known = {"app1": ["10.0.0.1", "fd00::1"], "app2": ["app2"], "r1": ["10.0.0.3"]}

    def found(sources, groups):
        return from_inventory(sources, groups, hosts_of, known.get, "r1")

    assert found(["10.1.0.0/16", "r1", "elsewhere"], ["application", "none"]) == [
        "10.1.0.0/16", "elsewhere", "10.0.0.1", "fd00::1", "app2",
    ]  # fmt: skip
    with pytest.raises(Problem) as caught:
        found([], ["application", "aplication"])
    assert caught.value.code == "unknown_inventory_group"
    assert "aplication" in caught.value.detected


# --- the table ---------------------------------------------------------------------------------------------------------


def test_a_table_judges_its_own_ports_alone():
    table = table_of(declared(service(), service("bus", [16379], [], True), peers=["fd00::1"]), Tuning())
    chains = {chain.name: chain for chain in table.chains}
    assert {one.name: one.elements for one in table.sets} == {
        "guarded_ports": ("6379", "16379"), "peers_ipv6": ("fd00::1",), "redis_ports": ("6379",), "redis_ipv4": ("10.0.0.0/24",),
        "bus_ports": ("16379",),
    }  # fmt: skip
    assert chains["input"].rules == ("tcp dport @guarded_ports jump guard",)
    assert "policy accept" in chains["input"].hook
    assert chains["guard"].rules == (
        'iifname "lo" counter accept', "ct state established,related counter accept", "ip6 saddr @peers_ipv6 counter accept",
        "tcp dport @redis_ports jump on_redis", "tcp dport @bus_ports jump on_bus",
    )  # fmt: skip
    assert chains["on_redis"].rules == ("ip saddr @redis_ipv4 counter accept", "counter drop")
    assert chains["on_bus"].rules == ("counter drop",)


def test_rate_and_log():
    table = table_of(declared(service(sources=["10.0.0.1", "fd00::1"])), Tuning(20, 30, True, "x ", 4))
    rules = next(chain.rules for chain in table.chains if chain.name == "on_redis")
    assert (
        rules[0]
        == "ip saddr @redis_ipv4 ct state new update @rate_ipv4 { ip saddr limit rate over 20/second burst 30 packets } counter drop"
    )
    assert rules[-2:] == ('limit rate 4/minute burst 5 packets log prefix "x redis: " level info', "counter drop")
    assert {one.name for one in table.sets if one.dynamic} == {"rate_ipv4", "rate_ipv6"}
    only_four = table_of(declared(), Tuning(20))
    assert {one.name for one in only_four.sets if one.dynamic} == {"rate_ipv4"}


@pytest.mark.parametrize(
    "tuning", [Tuning(-1), Tuning(1, 0), Tuning(log_per_minute=0), Tuning(log_prefix='"'), Tuning(log_prefix="x" * 65)]
)
def test_refused_tuning(tuning):
    with pytest.raises(Problem) as caught:
        tuning.check()
    assert caught.value.code == "invalid_value"


def test_the_unit_follows_nftables_service():
    text = unit_text("/usr/sbin/nft", "/etc/my rules.nft")
    assert "ExecStart=/usr/sbin/nft -f '/etc/my rules.nft'\n" in text
    for line in ("PartOf=nftables.service", "ReloadPropagatedFrom=nftables.service", "WantedBy=multi-user.target nftables.service",
                 "After=local-fs.target nftables.service", "RemainAfterExit=yes"):  # fmt: skip
        assert line in text.splitlines()
    assert "redis-server.service" in next(line for line in text.splitlines() if line.startswith("Before="))


# --- the plan ----------------------------------------------------------------------------------------------------------

WANTED = table_of(declared(), Tuning())
THERE = State(WANTED, False, file_text(WANTED), "unit", True, True, True)


def test_nothing_to_do():
    assert plan(THERE, WANTED, FILE, "unit").changes == ()
    assert plan(State(systemd=False), None, FILE, "unit").changes == ()
    assert plan(State(), None, FILE, "unit").changes == ()


@pytest.mark.parametrize(
    ("spoilt", "layers", "flags"),
    [
        ({"live": None}, {"live"}, ["load"]),
        ({"live": None, "unreadable": True}, {"live"}, ["load"]),
        ({"armed": "1"}, {"live"}, ["load"]),
        ({"file": None}, {"file"}, ["file"]),
        ({"file": file_text(WANTED).replace("\n", "\n\n", 1)}, {"file"}, ["file"]),
        ({"unit": "[Unit]"}, {"unit"}, ["unit"]),
        ({"enabled": False}, {"boot"}, ["enable"]),
        ({"active": False}, {"unit"}, ["start"]),
        ({"systemd": False, "unit": None, "enabled": False, "active": False}, set(), []),
    ],
)
def test_each_layer_alone(spoilt, layers, flags):
    found = plan(dataclasses.replace(THERE, **spoilt), WANTED, FILE, "unit")
    assert {change.layer for change in found.changes} == layers
    assert [name for name in ("load", "file", "unit", "enable", "start") if getattr(found, name)] == flags


def test_what_is_taken_away():
    found = plan(THERE, None, FILE, "unit")
    assert list(dict.fromkeys(change.action for change in found.changes)) == [
        "disable redisops-firewall.service", "remove the unit redisops-firewall.service", f"remove {FILE}", "remove table inet redisops",
    ]  # fmt: skip


# --- what must not be cut off ------------------------------------------------------------------------------------------


def sock(remote: str, port=6379, state=ESTABLISHED, local="10.0.0.1") -> Socket:
    return Socket(ipaddress.ip_address(local), port, ipaddress.ip_address(remote), 40000, state, 1)


def test_who_is_connected_and_would_be_left_out():
    sockets = [
        sock("10.0.0.9"), sock("10.9.0.1"), sock("10.9.0.1"), sock("fd00::5", local="fd00::1"), sock("127.0.0.1", local="127.0.0.1"),
        sock("10.0.0.1"), sock("10.9.0.2", port=22), sock("10.9.0.3", state=LISTEN), sock("10.8.0.1"),
    ]  # fmt: skip
    rows = left_out(declared(peers=["10.8.0.0/16"]), sockets)
    assert rows == [
        {"port": 6379, "address": "10.9.0.1", "connections": 2},
        {"port": 6379, "address": "fd00::5", "connections": 1},
    ]
    assert "10.9.0.1 to port 6379, fd00::5 to port 6379" in left_out_warning(rows)[0]
    assert left_out_warning([]) == []


def test_ports_of_ssh():
    refuse_ports_of_ssh(declared(), {22: "sshd"})
    with pytest.raises(Refusal) as caught:
        refuse_ports_of_ssh(declared(service(ports=[22, 6379])), {22: "sshd"})
    assert caught.value.code == "port_of_ssh"
    assert "port 22 (sshd)" in caught.value.detected


def test_another_firewall():
    refuse_blocked("ufw", [])
    rows = [Blocked(6379, ipaddress.ip_network(f"10.0.{number}.0/24"), "run me") for number in range(12)]
    with pytest.raises(Refusal) as caught:
        refuse_blocked("firewalld", rows)
    assert caught.value.details == {"firewall": "firewalld", "commands": ["run me", "firewall-cmd --reload"]}
    assert "and 2 more" in caught.value.detected


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 ffff8 100 0 0 10 0
   1: 0101630A:18EB 0201630A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 ffff8 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000101630A:18EB 0000000000000000FFFF00000201630A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 x 20
   1: 010099FD000000000000000001000000:18EB 010099FD000000000000000002000000:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4714 1 x 20
"""


def test_sockets_of_the_kernel():
    listening, connected = parse_net_tcp(TCP, "little")
    assert (str(listening.local), listening.local_port, listening.state, listening.inode) == (
        "127.0.0.1",
        6379,
        LISTEN,
        4711,
    )
    assert (str(connected.local), str(connected.remote), connected.remote_port) == ("10.99.1.1", "10.99.1.2", 40000)
    mapped, six = parse_net_tcp(TCP6, "little")
    assert str(mapped.remote) == "10.99.1.2"
    assert (str(six.local), str(six.remote)) == ("fd99:1::1", "fd99:1::2")
    assert str(parse_net_tcp(TCP.replace("0201630A", "0A630102"), "big")[1].remote) == "10.99.1.2"
    assert parse_net_tcp("", "little") == []


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ("A=1\0SSH_CONNECTION=10.0.0.1 50000 10.0.0.2 2222\0B=2", 2222),
        ("SSH_CONNECTION=\0", None),
        ("SSH_CONNECTION=x\0", None),
        ("", None),
    ],
)
def test_the_port_in_ssh_connection(environ, port):
    assert ssh_port(environ) == port
