# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers and Sentinels as hosts of an inventory: which host each one is, its groups, its variables."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import split_endpoint

__all__ = [
    "DOWN",
    "SENTINEL",
    "SERVER",
    "Endpoint",
    "Existing",
    "Host",
    "assign",
    "group_of",
    "merge",
    "normal",
    "usable",
]

DOWN = "redis_down"
SERVER, SENTINEL = "server", "sentinel"
#: Groups that have a meaning of their own, whatever the watched primaries are called.
_TAKEN = frozenset(
    "redis_primary redis_replica redis_sentinel redis_sentinel_down redis_down "
    "redis_cluster redis_cluster_primary redis_cluster_replica".split()
)
#: What only the server of a host says, where a Sentinel shares that host.
_OF_THE_SERVER = ("redis_role", "redis_down", "redis_address", "redis_port")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server or a Sentinel. ``addresses`` all mean it; by the first one the others reach it."""

    kind: str
    addresses: tuple[str, ...]
    groups: tuple[str, ...] = ()
    variables: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def host(self) -> str:
        return split_endpoint(self.addresses[0])[0]

    @property
    def port(self) -> int:
        return split_endpoint(self.addresses[0])[1]

    def stored(self) -> dict[str, t.Any]:
        """As plain values, for a cache."""
        return {**dataclasses.asdict(self), "addresses": list(self.addresses), "groups": list(self.groups)}

    @classmethod
    def restored(cls, stored: t.Mapping[str, t.Any]) -> Endpoint:
        return cls(stored["kind"], tuple(stored["addresses"]), tuple(stored["groups"]), dict(stored["variables"]))


@dataclasses.dataclass(frozen=True)
class Existing:
    """A host that the inventory already has: what it is reached by, and the ports that it declares, by kind."""

    name: str
    addresses: frozenset[str]
    ports: t.Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Host:
    """A host as it goes into the inventory."""

    name: str
    address: str
    groups: list[str] = dataclasses.field(default_factory=list)
    variables: dict[str, t.Any] = dataclasses.field(default_factory=dict)


def normal(text: str) -> tuple[str, t.Optional[int]]:
    """Host and port (None where none is named), in the one spelling in which they are compared."""
    try:
        host, port = split_endpoint(text.strip(), -1)
    except ValueError:
        host, port = text.strip(), -1
    try:
        host = ipaddress.ip_address(host).compressed
    except ValueError:
        host = host.lower().rstrip(".")
    return host, None if port < 0 else port


def usable(address: str) -> bool:
    """Whether an address that a server reported can be one; it becomes the name of a host, and an argument of ssh."""
    try:
        host, port = split_endpoint(address)
    except ValueError:
        return False
    return bool(re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9._:%-]*", host)) and 0 < port < 65536


def group_of(names: t.Iterable[str]) -> dict[str, str]:
    """Name of a watched primary → its group. Raises Problem where two names would share one."""
    found: dict[str, str] = {}
    for name in sorted(names):
        safe = re.sub(r"\W", "_", name, flags=re.ASCII)
        group = f"redis_{safe}"
        if {group, f"{group}_primary", f"{group}_replica", f"{group}_sentinel"} & _TAKEN:
            group = f"redis_set_{safe}"
        twin = next((other for other, taken in found.items() if taken == group), None)
        if twin is not None:
            raise Problem(
                "group_names_collide", f"the names {twin} and {name} would both become the group {group}", "names that differ in letters or digits",
                "name one of them in primary_names, and read the other by an inventory of its own",
            )  # fmt: skip
        found[name] = group
    return found


def _candidates(one: Endpoint, existing: t.Sequence[Existing]) -> list[str]:
    """Hosts that may be this endpoint; where some say its very port, only those."""
    exact, loose = [], []
    mine = [normal(address) for address in one.addresses]
    for other in existing:
        theirs = {normal(address) for address in other.addresses}
        if any(pair in theirs for pair in mine) and one.kind == SERVER:
            exact.append(other.name)
            continue
        # host:port names the server; of the Sentinel next to it, it tells the host
        hosts = {host for host, port in theirs if port is None or one.kind == SENTINEL}
        for host, port in mine:
            if host in hosts:
                declared = other.ports.get(one.kind)
                if declared is None:
                    loose.append(other.name)
                elif declared == port:
                    exact.append(other.name)
                break
    return exact or loose


def _named(one: Endpoint, named: t.Mapping[str, str]) -> t.Optional[str]:
    known = {normal(address): name for address, name in named.items()}
    for host, port in map(normal, one.addresses):
        for key in ((host, port), (host, None)):
            if key in known:
                return known[key]
    return None


def _by_inventory(
    endpoints: t.Sequence[Endpoint], existing: t.Sequence[Existing], named: t.Mapping[str, str], warnings: list[str]
) -> tuple[list[t.Optional[str]], set[int]]:
    """The name that each endpoint has in the inventory, and the numbers of those of which that is not clear."""
    names: list[t.Optional[str]] = []
    unclear: set[int] = set()
    for number, one in enumerate(endpoints):
        name = _named(one, named)
        candidates = [] if name else _candidates(one, existing)
        if len(candidates) > 1:
            unclear.add(number)
            warnings.append(
                f"{one.addresses[0]} is more than one host of the inventory: {', '.join(sorted(candidates))}"
            )
        names.append(name or (candidates[0] if len(candidates) == 1 else None))
    return names, unclear


def _claimed_twice(
    endpoints: t.Sequence[Endpoint], names: t.Sequence[t.Optional[str]], warnings: list[str]
) -> set[int]:
    """The numbers of endpoints of one kind that would have one name."""
    claims: dict[tuple[str, str], list[int]] = {}
    for number, name in enumerate(names):
        if name:
            claims.setdefault((endpoints[number].kind, name), []).append(number)
    twice = {key: numbers for key, numbers in claims.items() if len(numbers) > 1}
    for (kind, name), numbers in twice.items():
        warnings.append(
            f"{name} would be several {kind}s ({', '.join(endpoints[number].addresses[0] for number in numbers)}); "
            "tell them apart by host_names, or by a port in the inventory"
        )
    return {number for numbers in twice.values() for number in numbers}


def _crowded(endpoints: t.Sequence[Endpoint]) -> set[str]:
    """Addresses that several endpoints of one kind have."""
    found = set()
    for kind in (SERVER, SENTINEL):
        hosts = [normal(one.addresses[0])[0] for one in endpoints if one.kind == kind]
        found |= {host for host in hosts if hosts.count(host) > 1}
    return found


def assign(
    endpoints: t.Sequence[Endpoint], existing: t.Sequence[Existing], named: t.Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The host's name for each endpoint, and what could not be told apart.

    In this order: ``named``, a host of the inventory with that address, the address itself. Where several servers, or several Sentinels,
    have one address, a name of their own holds the port.
    """
    warnings: list[str] = []
    names, unclear = _by_inventory(endpoints, existing, named, warnings)
    twice = _claimed_twice(endpoints, names, warnings)
    crowded = _crowded(endpoints)
    final = []
    for number, one in enumerate(endpoints):
        with_port = number in unclear | twice or normal(one.addresses[0])[0] in crowded
        own = f"{one.host}_{one.port}" if with_port else one.host
        final.append((None if number in twice else names[number]) or own)
    return final, warnings


def merge(endpoints: t.Sequence[Endpoint], names: t.Sequence[str]) -> list[Host]:
    """One host for each name. Where a server and a Sentinel share a host, role, address and state are the server's."""
    hosts: dict[str, Host] = {}
    with_server = {name for one, name in zip(endpoints, names) if one.kind == SERVER}
    for one, name in sorted(zip(endpoints, names), key=lambda pair: (pair[1], pair[0].kind != SERVER)):
        host = hosts.setdefault(name, Host(name, one.host))
        nearby = one.kind == SENTINEL and name in with_server
        for key, value in one.variables.items():
            if not (nearby and key in _OF_THE_SERVER):
                host.variables.setdefault(key, value)
        host.groups += [group for group in one.groups if group not in host.groups and not (nearby and group == DOWN)]
    return list(hosts.values())
