# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a replication group and its Sentinels, asked over the network."""

from __future__ import annotations

import dataclasses
import socket
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    View,
    endpoint,
    split_endpoint,
    view_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    connect,
)

__all__ = ["ASK_SECONDS", "GroupHosts", "ask_sentinels", "login_at", "look", "require_own_address", "sentinel_listens"]


#: Peers and Sentinels are on the same network: who does not answer by then is taken for absent.
ASK_SECONDS = 5.0


def _ips(host: str) -> frozenset[str]:
    try:
        return frozenset(str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError:
        return frozenset()


def _is_here(ip: str) -> bool:
    """Whether an address is one of this host's own."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((ip, 9))
            return str(probe.getsockname()[0]) == ip
    except OSError:
        return False


class GroupHosts:
    """The servers of a group by the endpoints that were declared, whatever spelling or address somebody else uses for them."""

    def __init__(self, declared: t.Sequence[str], own: str) -> None:
        """Raises Problem for what is no endpoint or stands there twice, and where ``own`` has no address.

        Another one without an address is as one that does not answer: of a machine that is gone, the name may be, too.
        """
        self.unresolved: list[str] = []
        self.own = self.spelling(own)
        self.all = list(dict.fromkeys([*map(self.spelling, declared), self.own]))
        self._known: dict[tuple[str, int], str] = {}
        self._cache: dict[str, frozenset[str]] = {}
        #: By port, the hosts of the group that this host knows by a loopback address only: Debian gives 127.0.1.1 to a host's own name.
        self._here: dict[int, list[str]] = {}
        for member in self.all:
            host, port = split_endpoint(member)
            ips = self._resolved(host)
            if not ips and member == self.own:
                raise Problem(
                    "unresolved_group_host", f"this host finds no address for {host}, which is its own name", "an address for every host of the group",
                    "put it into DNS or /etc/hosts, or declare addresses",
                )  # fmt: skip
            if not ips:
                self.unresolved.append(member)
            if all(ip == "::1" or ip.startswith("127.") for ip in ips):
                self._here.setdefault(port, []).append(member)
            for ip in ips:
                twin = self._known.setdefault((ip, port), member)
                if twin != member:
                    raise Problem(
                        "duplicate_group_host", f"{twin} and {member} are the same server ({ip})", "each server once", "take one of them out of group_hosts",
                    )  # fmt: skip

    @staticmethod
    def spelling(text: str) -> str:
        """``text`` as ``host:port``. Raises Problem."""
        try:
            return endpoint(*split_endpoint(text))
        except ValueError:
            raise Problem(
                "invalid_value", f"{text!r} is no host, and no host:port", "such as redis-1:6379", "correct it"
            ) from None

    def _resolved(self, host: str) -> frozenset[str]:
        if host not in self._cache:
            self._cache[host] = _ips(host)
        return self._cache[host]

    def of(self, text: str) -> str:
        """The member that an endpoint means, or the endpoint itself where it is none of them."""
        try:
            host, port = split_endpoint(text)
        except ValueError:
            return text
        ips = sorted(self._resolved(host))
        here = self._here.get(port, []) if any(map(_is_here, ips)) else []
        return next(
            (self._known[(ip, port)] for ip in ips if (ip, port) in self._known), here[0] if len(here) == 1 else text
        )

    @property
    def peers(self) -> list[str]:
        return [member for member in self.all if member != self.own]

    def spelled(self, view: View) -> View:
        """``view`` with its upstream spelled as the member that it is."""
        return dataclasses.replace(view, upstream=self.of(view.upstream)) if view.upstream else view


def require_own_address(group_hosts: GroupHosts, ports: t.Container[str]) -> None:
    """The address that this server is taken for is not that of another one on this host. ``ports``: those it has itself. Raises Problem."""
    host, port = split_endpoint(group_hosts.own)
    twins = [
        one for one in group_hosts.peers if split_endpoint(one)[0] == host and str(split_endpoint(one)[1]) in ports
    ]
    if twins and str(port) not in ports:
        raise Problem(
            "own_address_unclear",
            f"this server is taken for {group_hosts.own}, and it listens as {twins[0]} does",
            "to know which of the servers on that host this one is",
            "set redis_replication_address: HOST:PORT for its host in the inventory, or address",
        )


def login_at(login: Login, address: str) -> Login:
    host, port = split_endpoint(address)
    return dataclasses.replace(login, host=host, port=port, unix_socket=None)


def look(group_hosts: GroupHosts, address: str, login: Login) -> View:
    """Ask one peer for its part; who does not answer, or does not let us in, is ``unreachable``, with the reason."""
    if address in group_hosts.unresolved:
        return View(address, "unreachable", because="this host finds no address for it")
    try:
        server = connect(login_at(login, address), ASK_SECONDS)
        try:
            return group_hosts.spelled(view_of(server.info(), address))
        finally:
            server.close()
    except Problem as problem:
        return View(address, "unreachable", because=problem.detected)


def ask_sentinels(
    sentinels: t.Sequence[str], name: str, login: Login, group_hosts: GroupHosts
) -> dict[str, t.Optional[str]]:
    """What each Sentinel that answers names as the primary of ``name``; None where it does not know that name."""
    answers: dict[str, t.Optional[str]] = {}
    for sentinel in sentinels:
        try:
            server = connect(login_at(login, endpoint(*split_endpoint(sentinel, 26379))), ASK_SECONDS)
        except Problem:
            continue
        try:
            found = server.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            answers[sentinel] = group_hosts.of(endpoint(found[0], int(found[1]))) if found else None
        except CommandError as error:
            raise Problem(
                "sentinel_login_failed", f"the Sentinel at {sentinel} refuses {error.text}", "a login for the Sentinels",
                "set sentinel_user and sentinel_password",
            ) from None  # fmt: skip
        finally:
            server.close()
    return answers


_HELLO = "__sentinel__:hello"


def sentinel_listens(server: Server) -> bool:
    """Whether a Sentinel watches (or may watch) this server: each one subscribes to its hello channel."""
    try:
        return int(server.command("PUBSUB", "NUMSUB", _HELLO)[1]) > 0
    except CommandError:
        return True  # not allowed to ask: a primary with replicas is then taken for a watched one
