# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach which port, from what was declared.

On the controller names of the inventory become addresses; on the host the remaining names, which it has resolved, do.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal

__all__ = ["Declared", "Service", "declared_of", "from_inventory", "names_to_resolve"]

_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_SERVICE_NAME = re.compile(r"[a-z][a-z0-9_]{0,15}")


@dataclasses.dataclass(frozen=True)
class Service:
    """Ports, and the networks that may connect to them besides loopback and the peers."""

    name: str
    ports: tuple[int, ...]
    networks: tuple[t.Any, ...]


@dataclasses.dataclass(frozen=True)
class Declared:
    services: tuple[Service, ...]
    peers: tuple[t.Any, ...]

    @property
    def ports(self) -> list[int]:
        return sorted(port for service in self.services for port in service.ports)

    def admitted(self, port: int) -> list[t.Any]:
        """The networks that reach a port."""
        return [*self.peers, *(one for service in self.services if port in service.ports for one in service.networks)]


def from_inventory(
    sources: t.Sequence[t.Any],
    groups: t.Sequence[str],
    hosts_of: t.Mapping[str, t.Sequence[str]],
    addresses_of: t.Callable[[str], t.Optional[t.Sequence[str]]],
    this_host: str,
) -> list[str]:
    """``sources`` and the hosts of ``groups``, names of inventory hosts replaced by what ``addresses_of`` says of them.

    ``addresses_of`` gives None for what is no host of the inventory. This host itself is left out: it connects over loopback.
    Raises Problem for a group that is not there.
    """
    missing = [str(name) for name in groups if name not in hosts_of]
    if missing:
        raise Problem("unknown_inventory_group", f"groups: the inventory has no group {', '.join(missing)}",
                      "groups that exist, so that a misspelt one shuts nobody out", "correct groups, or add the group to the inventory")  # fmt: skip
    found: list[str] = []
    for name in [*map(str, sources), *(host for group in groups for host in hosts_of[group])]:
        if name != this_host:
            addresses = addresses_of(name)
            found += [name] if addresses is None else map(str, addresses)
    return list(dict.fromkeys(found))


def _is_name(text: str) -> bool:
    return not re.search(r"[:/]", text) and not re.fullmatch(r"[0-9.-]+", text) and bool(_HOST_NAME.fullmatch(text))


def names_to_resolve(services: t.Sequence[t.Mapping[str, t.Any]], peers: t.Sequence[str]) -> list[str]:
    """The declared names that are no addresses."""
    declared = [*peers, *(source for service in services if service["ports"] for source in service["sources"] or ())]
    return [text for text in dict.fromkeys(map(str, declared)) if _is_name(text)]


def _wrong_with(text: str) -> t.Optional[str]:
    """Why a text is no address, network or name; None where it is one."""
    if _is_name(text):
        return None
    if "%" in text:
        return f"{text!r} has a zone, which an allow list has no use for"
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return f"{text!r} is no address, network or host name"
        return (
            f"{text} has bits of a host: write {meant} for the network, or {text.partition('/')[0]} for the one address"
        )
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped and network.prefixlen >= 96:
        return f"{text} travels as IPv4: write {mapped}/{network.prefixlen - 96}"
    return None


def _check(
    services: t.Sequence[t.Mapping[str, t.Any]], peers: t.Sequence[str], resolved: t.Mapping[str, t.Sequence[str]]
) -> None:
    declared = [("peers", str(text)) for text in peers]
    declared += [(f"services, {one['name']}", str(text)) for one in services for text in one["sources"] or ()]
    bad = [f"{where}: {wrong}" for where, text in declared for wrong in [_wrong_with(text)] if wrong]
    if bad:
        raise Problem("invalid_source", "; ".join(dict.fromkeys(bad)), "addresses such as 10.0.0.5, networks such as 2001:db8::/64, host names",
                      "correct them; nothing has been changed", sources=[text for _where, text in declared if _wrong_with(text)])  # fmt: skip
    used = {(where, text) for where, text in declared if text in names_to_resolve(services, peers)}
    unknown = [f"{where}: {text}" for where, text in declared if (where, text) in used and not resolved.get(text)]
    if unknown:
        raise Problem("unresolved_source", f"this host finds no address, other than of itself, for {'; '.join(dict.fromkeys(unknown))}",
                      "an address for every source, so that none is shut out",
                      "write the address, put the name into DNS or /etc/hosts of this host, or (for a host of the inventory) set ansible_host or "
                      "redis_firewall_addresses for it",
                      sources=[text for where, text in declared if (where, text) in used and not resolved.get(text)])  # fmt: skip


def _networks(texts: t.Sequence[str], resolved: t.Mapping[str, t.Sequence[str]]) -> tuple[t.Any, ...]:
    """Fewest networks with the same members, IPv4 first."""
    flat = [address for text in map(str, texts) for address in (resolved[text] if _is_name(text) else [text])]
    networks = list(map(ipaddress.ip_network, flat))
    return tuple(
        one
        for version in (4, 6)
        for one in ipaddress.collapse_addresses(net for net in networks if net.version == version)
    )


def declared_of(
    services: t.Sequence[t.Mapping[str, t.Any]], peers: t.Sequence[str], resolved: t.Mapping[str, t.Sequence[str]]
) -> Declared:
    """The options as values; ``resolved`` has the addresses of each name. Raises Problem for what cannot be meant."""
    _check_services(services)
    _check(services, peers, resolved)
    guarded = [one for one in services if one["ports"]]
    for one in guarded:
        if not one["sources"] and not one["allow_empty"]:
            raise Refusal("empty_allow_list", f"services, {one['name']}: nobody is declared that may reach port {_join(one['ports'])}; only loopback "
                          f"and the {len(peers)} peers could", "sources, or groups with hosts in them",
                          "declare them, or say that this is meant with allow_empty: true")  # fmt: skip
    return Declared(
        tuple(
            Service(one["name"], tuple(sorted(set(one["ports"]))), _networks(one["sources"] or (), resolved))
            for one in guarded
        ),
        _networks(peers, resolved),
    )


def _join(values: t.Iterable[t.Any]) -> str:
    return ", ".join(map(str, values))


def _check_services(services: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    owners: dict[int, str] = {}
    names = [one["name"] for one in services]
    for one in services:
        name = one["name"]
        if not _SERVICE_NAME.fullmatch(name) or names.count(name) > 1:
            raise Problem("invalid_value", f"services: {name!r} is no name of its own for a service",
                          "lower-case letters, digits and _, at most 16, each name once", "correct the name")  # fmt: skip
        for port in one["ports"]:
            if not 0 < port < 65536:
                raise Problem("invalid_value", f"services, {name}: {port} is no TCP port", "1 to 65535", "correct ports")  # fmt: skip
            if owners.setdefault(port, name) != name:
                raise Problem("contradiction", f"services: port {port} is declared by {owners[port]} and by {name}",
                              "one list of sources for a port", "declare it once")  # fmt: skip
    if not owners:
        raise Problem("nothing_to_guard", "services: no port is declared", "at least one port to guard",
                      "declare services, or take the table away with state: absent")  # fmt: skip
