# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ufw and firewalld let through, from their recorded words."""

from __future__ import annotations

import ipaddress
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.firewalld_ufw import (
    firewalld_blocks,
    parse_service,
    parse_ufw,
    parse_zones,
    ufw_blocks,
)

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "firewall"


def recorded(name: str) -> str:
    return (FIXTURES / name).read_text()


def networks(*texts: str) -> list:
    return list(map(ipaddress.ip_network, texts))


@pytest.mark.parametrize(
    ("port", "source", "blocked"),
    [
        (6379, "10.0.0.0/8", []),
        (6379, "192.0.2.0/24", []),  # Anywhere
        (6379, "fd00::/8", []),  # Anywhere (v6)
        (6379, "10.6.6.6", []),  # the rule that admits comes first
        (6381, "10.6.6.6", ["10.6.6.6/32"]),
        (6381, "10.77.1.0/24", []),
        (6381, "10.78.0.0/24", ["10.78.0.0/24"]),
        (6381, "192.168.1.5", []),
        (6381, "192.168.1.4/31", ["192.168.1.4/32"]),  # half of it is admitted
        (6382, "10.78.0.0/16", ["10.78.0.0/16"]),  # only from a certain source port
        (6383, "10.79.3.0/24", []),  # with a comment
        (6380, "10.1.1.1", []),  # on an interface, to an address
        (7003, "10.1.1.1", []),
        (7006, "10.1.1.1", ["10.1.1.1/32"]),
        (6390, "10.1.1.1", ["10.1.1.1/32"]),
        (26379, "2001:db8:1::/48", []),
        (26379, "2001:db9::/48", ["2001:db9::/48"]),
        (26379, "10.1.1.1", ["10.1.1.1/32"]),
    ],
)
def test_ufw(port, source, blocked):
    found = ufw_blocks(parse_ufw(recorded("ufw-0.36.2-rules.txt")), port, networks(source))
    assert [str(one.network) for one in found] == blocked


def test_commands_for_ufw():
    status = parse_ufw(recorded("ufw-0.36.2-rules.txt"))
    assert [one.do for one in ufw_blocks(status, 6381, networks("10.6.6.6", "10.5.5.5"))] == [
        "ufw prepend allow proto tcp from 10.6.6.6/32 to any port 6381",  # a later rule would not be reached
        "ufw allow proto tcp from 10.5.5.5/32 to any port 6381",
    ]


def test_ufw_that_is_not_active_or_lets_in_what_no_rule_names():
    assert parse_ufw(recorded("ufw-0.36.2-inactive.txt")) is None
    text = recorded("ufw-0.36.2-no-rules.txt")
    assert len(ufw_blocks(parse_ufw(text), 6379, networks("10.0.0.0/8"))) == 1
    assert (
        ufw_blocks(parse_ufw(text.replace("deny (incoming)", "allow (incoming)")), 6379, networks("10.0.0.0/8")) == []
    )


ZONES = parse_zones(recorded("firewalld-1.3.3-zones.txt"))
SERVICES = {"redis": parse_service(recorded("firewalld-1.3.3-service.txt")), "ssh": ["22/tcp"], "mdns": ["5353/udp"]}


@pytest.mark.parametrize(
    ("port", "source", "blocked"),
    [
        (6380, "10.9.0.0/24", []),
        (6380, "10.6.1.0/24", ["10.6.1.0/24"]),  # a rich rule drops it
        (7005, "192.0.2.1", []),
        (7006, "192.0.2.1", ["192.0.2.1/32"]),
        (5353, "10.1.0.5", ["10.1.0.5/32"]),  # that is UDP
        (26379, "10.9.0.0/24", []),
        (26379, "11.0.0.0/24", ["11.0.0.0/24"]),
        (16379, "11.0.0.0/24", []),
        (6379, "10.1.0.0/24", []),  # the service redis, in the zone of that source
        (6379, "10.9.0.1", ["10.9.0.1/32"]),
        (6379, "2001:db8:5::/48", []),
        (6379, "2001:db9::/48", ["2001:db9::/48"]),
        (9999, "10.2.0.0/24", []),  # trusted
        (6380, "10.3.0.0/24", ["10.3.0.0/24"]),  # drop
        (6380, "10.1.0.0/24", ["10.1.0.0/24"]),  # open in public, but that source is internal's
    ],
)
def test_firewalld(port, source, blocked):
    found = firewalld_blocks(ZONES, "public", port, networks(source), SERVICES)
    assert [str(one.network) for one in found] == blocked


def test_commands_for_firewalld():
    def commands(port: int, source: str) -> list[str]:
        return [one.do for one in firewalld_blocks(ZONES, "public", port, networks(source), SERVICES)]

    head = "firewall-cmd --permanent --zone="
    assert commands(6379, "fd00::/64") == [
        f'{head}public --add-rich-rule=\'rule family="ipv6" source address="fd00::/64" port port="6379" protocol="tcp" accept\''
    ]
    assert commands(6380, "10.6.1.0/24") == [
        f'{head}public --remove-rich-rule=\'rule family="ipv4" source address="10.6.0.0/16" drop\''
    ]
    assert commands(6380, "10.3.0.0/24")[0].startswith(f"{head}drop --add-rich-rule")


def test_firewalld_without_an_interface_in_any_zone():
    zones = parse_zones(recorded("firewalld-1.3.3-fresh-zones.txt"))
    assert {zone.name for zone in zones} == {
        "block",
        "dmz",
        "drop",
        "external",
        "home",
        "internal",
        "public",
        "trusted",
        "work",
    }
    assert len(firewalld_blocks(zones, "public", 6379, networks("10.0.0.0/8"), SERVICES)) == 1
    assert firewalld_blocks(zones, "trusted", 6379, networks("10.0.0.0/8"), SERVICES) == []


def test_the_way_newer_versions_name_the_default_zone():
    text = recorded("firewalld-1.3.3-zones.txt").replace("public (active)", "public (default, active)")
    assert [zone.name for zone in parse_zones(text) if zone.active] == [zone.name for zone in ZONES if zone.active]


def test_firewalld_that_does_not_run():
    assert parse_zones(recorded("firewalld-1.3.3-not-running.txt")) == []
