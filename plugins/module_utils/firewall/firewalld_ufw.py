# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether firewalld or ufw, as their own tools tell, let networks reach a TCP port."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

__all__ = [
    "Blocked",
    "FirewalldZone",
    "UfwStatus",
    "firewalld_blocks",
    "parse_service",
    "parse_ufw",
    "parse_zones",
    "ufw_blocks",
]

Networks = t.Sequence[t.Any]


@dataclasses.dataclass(frozen=True)
class Blocked:
    """A network that does not get through to a port, and the command that lets it."""

    port: int
    network: t.Any
    do: str


def _minus(networks: Networks, taken: t.Any) -> list[t.Any]:
    """``networks`` without what is in ``taken``."""
    left: list[t.Any] = []
    for one in networks:
        if one.version != taken.version or not one.overlaps(taken):
            left.append(one)
        elif taken.prefixlen > one.prefixlen:
            left += one.address_exclude(taken)
    return left


def _minus_all(networks: Networks, taken: Networks) -> list[t.Any]:
    left = list(networks)
    for one in taken:
        left = _minus(left, one)
    return left


def _common(networks: Networks, other: t.Any) -> list[t.Any]:
    """The parts of ``networks`` that are in ``other``."""
    return [
        one if one.prefixlen >= other.prefixlen else other
        for one in networks
        if one.version == other.version and one.overlaps(other)
    ]


def _network(text: str) -> t.Optional[t.Any]:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _everything() -> list[t.Any]:
    return [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


def _in_ports(port: int, listed: str) -> bool:
    """``6379``, ``7000:7005`` or ``7000-7005``, several with commas."""
    for part in listed.split(","):
        match = re.fullmatch(r"(\d+)(?:[:-](\d+))?", part)
        if match and int(match[1]) <= port <= int(match[2] or match[1]):
            return True
    return False


@dataclasses.dataclass(frozen=True)
class _UfwRule:
    to: str
    action: str
    source: str
    v6: bool

    def covers(self, port: int) -> bool:
        """Whether it is about that port, from any source port; one for an interface or an address of the host counts if it allows."""
        target, _on, interface = self.to.partition(" on ")
        address, _space, target = target.rpartition(" ")
        if (interface or address) and self.action not in ("ALLOW", "LIMIT"):
            return False
        ports, _slash, protocol = target.partition("/")
        if protocol not in ("", "tcp"):
            return False
        return ports == "Anywhere" or _network(ports) is not None or _in_ports(port, ports)

    def networks(self) -> list[t.Any]:
        words = self.source.partition(" on ")[0].split()
        if len(words) != 1:
            return []  # only from certain source ports
        if words[0] == "Anywhere":
            return [one for one in _everything() if one.version == (6 if self.v6 else 4)]
        network = _network(words[0])
        return [network] if network else []


@dataclasses.dataclass(frozen=True)
class UfwStatus:
    """What ``ufw status verbose`` says of an active ufw."""

    incoming: str
    rules: tuple[_UfwRule, ...]


def parse_ufw(text: str) -> t.Optional[UfwStatus]:
    """None where ufw is not active."""
    if not re.search(r"^Status: active$", text, re.M):
        return None
    default = re.search(r"^Default: (\w+) \(incoming\)", text, re.M)
    rules = []
    for line in text.splitlines():
        match = re.fullmatch(r"(.+?)\s+(ALLOW|DENY|REJECT|LIMIT)(?: (IN|OUT|FWD))?\s+(.+?)(?:\s+#.*)?\s*", line)
        if match and match[3] in (None, "IN"):
            v6 = "(v6)" in line
            to, source = (match[part].replace(" (v6)", "").strip() for part in (1, 4))
            rules.append(_UfwRule(to, match[2], source, v6))
    return UfwStatus(default[1] if default else "deny", tuple(rules))


def ufw_blocks(status: UfwStatus, port: int, networks: Networks) -> list[Blocked]:
    """The networks that ufw keeps from the port. Its first rule that matches decides."""
    left, found = list(networks), []
    for rule in status.rules:
        if rule.covers(port):
            for network in rule.networks():
                if rule.action not in ("ALLOW", "LIMIT"):
                    command = f"ufw prepend allow proto tcp from {{}} to any port {port}"
                    found += [Blocked(port, one, command.format(one)) for one in _common(left, network)]
                left = _minus(left, network)
    if status.incoming != "allow":
        found += [Blocked(port, one, f"ufw allow proto tcp from {one} to any port {port}") for one in left]
    return found


@dataclasses.dataclass(frozen=True)
class FirewalldZone:
    """One zone of ``firewall-cmd --list-all-zones``."""

    name: str
    active: bool
    fields: t.Mapping[str, str]
    rich: tuple[str, ...]

    def words(self, field: str) -> list[str]:
        return self.fields.get(field, "").split()

    def opens(self, port: int, services: t.Mapping[str, t.Sequence[str]]) -> bool:
        """Whether the port is open to everybody in this zone; ``services`` gives the ports of each."""
        listed = [*self.words("ports"), *(entry for name in self.words("services") for entry in services.get(name, ()))]
        return self.fields.get("target") == "ACCEPT" or any(
            _in_ports(port, entry.partition("/")[0]) for entry in listed if entry.endswith("/tcp")
        )

    def rich_networks(
        self, port: int, services: t.Mapping[str, t.Sequence[str]], accept: bool
    ) -> list[tuple[str, list[t.Any]]]:
        """(rule, networks) of rich rules about the port that accept, or that drop or reject."""
        found = []
        for rule in self.rich:
            bare = re.sub(r'="[^"]*"', "", rule).split()
            if ("accept" in bare) != accept or not {"accept", "drop", "reject"} & set(bare):
                continue
            named = re.search(r'(?<!-)\bport port="([^"]*)" protocol="(\w+)"', rule)
            service = re.search(r'service name="([^"]*)"', rule)
            if named and not (named[2] == "tcp" and _in_ports(port, named[1])):
                continue
            if service and not any(_in_ports(port, one.partition("/")[0]) for one in services.get(service[1], ())):
                continue
            if (
                not named
                and not service
                and re.search(r"\b(protocol value|icmp-|forward-port|source-port|masquerade)", rule)
            ):
                continue
            source = re.search(r'source address="([^"]*)"', rule)
            family = re.search(r'family="ipv(\d)"', rule)
            if source:
                network = _network(source[1])
                networks = [network] if network else []
            elif "source" in bare:
                networks = []  # a MAC address or an ipset: nothing that can be compared
            else:
                networks = [one for one in _everything() if not family or one.version == int(family[1])]
            found.append((rule, networks))
        return found


def parse_zones(text: str) -> list[FirewalldZone]:
    """The zones in what ``firewall-cmd --list-all-zones`` printed."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        head = re.fullmatch(r"(\S+)(?: \((.*)\))?\s*", lines[0]) if lines else None
        if head and len(lines) > 1:
            fields = dict(re.findall(r"^  ([\w -]+): ?(.*?)\s*$", block, re.M))
            rich = tuple(line.strip() for line in lines if line.startswith("\t"))
            found.append(FirewalldZone(head[1], "active" in (head[2] or ""), fields, rich))
    return found


def parse_service(text: str) -> list[str]:
    """The ports (``6379/tcp``) in what ``firewall-cmd --info-service`` printed."""
    match = re.search(r"^  ports: (.*)$", text, re.M)
    return match[1].split() if match else []


def _zone_blocks(
    zone: FirewalldZone, port: int, networks: Networks, services: t.Mapping[str, t.Sequence[str]]
) -> list[Blocked]:
    left, found = list(networks), []
    for rule, denied in zone.rich_networks(port, services, accept=False):
        for network in denied:
            remove = f"firewall-cmd --permanent --zone={zone.name} --remove-rich-rule='{rule}'"
            found += [Blocked(port, one, remove) for one in _common(left, network)]
            left = _minus(left, network)
    if zone.opens(port, services):
        return found
    for _rule, admitted in zone.rich_networks(port, services, accept=True):
        left = _minus_all(left, admitted)
    for one in left:
        rule = f'rule family="ipv{one.version}" source address="{one}" port port="{port}" protocol="tcp" accept'
        found.append(Blocked(port, one, f"firewall-cmd --permanent --zone={zone.name} --add-rich-rule='{rule}'"))
    return found


def firewalld_blocks(
    zones: t.Sequence[FirewalldZone],
    default: str,
    port: int,
    networks: Networks,
    services: t.Mapping[str, t.Sequence[str]],
) -> list[Blocked]:
    """The networks that firewalld keeps from the port.

    A source that is bound to a zone is that zone's. The others are the interfaces' (or the default zone's); which interface
    they come in by is not known, so one zone that lets them through is enough.
    """
    left, found = list(networks), []
    for zone in zones:
        if zone.active:
            for source in filter(None, map(_network, zone.words("sources"))):
                found += _zone_blocks(zone, port, _common(left, source), services)
                left = _minus(left, source)
    by_interface = [zone for zone in zones if zone.active and zone.words("interfaces")]
    by_interface = by_interface or [zone for zone in zones if zone.name == default]
    answers = [_zone_blocks(zone, port, left, services) for zone in by_interface]
    return found + (min(answers, key=len) if answers else [])
