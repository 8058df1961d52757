# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a cluster, asked over the network, all at once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import Member, Picture
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    Node,
    parse_cluster_info,
    parse_nodes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import usable
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    ASK_SECONDS,
    GroupHosts,
    login_at,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint, split_endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
)

__all__ = ["Entry", "Nodes"]

_AT_ONCE = 16
#: A failover, or a node that comes back, is over by then, or it is none.
SETTLE_SECONDS = 30.0
#: A replica that comes back is linked by then, if it can be.
_LINK_SECONDS = 10.0
_NODE_ID = re.compile(r"[0-9a-f]{40}")
_SETTINGS = ("cluster-require-full-coverage", "cluster-node-timeout", "cluster-announce-ip", "cluster-announce-port")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A declared node: where this host asks it, what it fails together with, where the others find it."""

    address: str
    domain: str = ""
    announce: str = ""


class Nodes:
    """Connections by node id, and the picture that the answers make."""

    def __init__(self, entries: t.Sequence[Entry], remove: t.Sequence[str], login: Login, fresh: bool = False) -> None:
        """``remove`` are addresses and ids. ``fresh``: check mode, and what makes a cluster node of a server has not been done yet."""
        self.login, self.fresh = login, fresh
        self.entries = {entry.address: entry for entry in entries}
        self.group_hosts = GroupHosts([entry.address for entry in entries], entries[0].address)
        self.leaving_ids = {one for one in remove if _NODE_ID.fullmatch(one)}
        self.leaving = [endpoint(*split_endpoint(one, login.port)) for one in remove if not _NODE_ID.fullmatch(one)]
        both = set(map(self.group_hosts.of, self.leaving)) & set(self.group_hosts.all)
        if both:
            raise Problem(
                "contradiction",
                f"{', '.join(sorted(both))} stands in nodes and in remove",
                "one of them",
                "take it out of the other",
            )
        self._servers: dict[str, Server] = {}
        self.by_id: dict[str, Server] = {}

    def _server(self, address: str) -> Server:
        if address not in self._servers:
            self._servers[address] = connect(login_at(self.login, address), ASK_SECONDS)
        return self._servers[address]

    def _facts(self, server: Server) -> tuple[dict[str, str], list[Node]]:
        try:
            return parse_cluster_info(server.command("CLUSTER", "INFO")), parse_nodes(
                server.command("CLUSTER", "NODES")
            )
        except CommandError as error:
            if "cluster support disabled" not in error.text:
                raise
            raise Problem(
                "not_a_cluster_node", f"{server.login.address} has cluster support disabled", "a server with cluster-enabled yes",
                "declare redis_cluster_nodes before the role redis_server runs (site.yml does); the restart makes it a node",
            ) from None  # fmt: skip

    def _ask(self, address: str, place: str) -> Member:
        entry = self.entries.get(address, Entry(address))
        try:
            server = self._server(address)
            info, nodes = self._facts(server)
            settings = server.config_get(*_SETTINGS)
            facts = server.info()
        except Problem as problem:
            self._servers.pop(address, None)
            if (
                self.fresh
                and place == "declared"
                and (isinstance(problem, ServerDown) or problem.code == "not_a_cluster_node")
            ):
                itself = Node(address, address, ("myself", "master"), "", 0, True)
                return Member(address, place, entry.domain, address, nodes=(itself,))
            if problem.code == "not_a_cluster_node" and place == "declared":
                raise
            return Member(address, place, entry.domain, because=problem.detected)
        own = next(node for node in nodes if node.itself)
        announced = entry.announce or settings.get("cluster-announce-ip", "")
        if announced:
            port = int(settings.get("cluster-announce-port", "0")) or split_endpoint(own.address)[1]
            settings["announced"] = endpoint(*split_endpoint(announced, port))
        replica = facts.text("role") == "slave"
        product, version = facts.product.split(" ", 1)
        return Member(
            address, place, entry.domain, own.id, nodes=tuple(nodes), info=info, settings=settings, keys=facts.keys,
            product=f"{product} {'.'.join(version.split('.')[:2])}", link_up=facts.text("master_link_status") == "up",
            offset=facts.number("slave_repl_offset" if replica else "master_repl_offset"),
        )  # fmt: skip

    def _ask_all(self, wanted: t.Sequence[tuple[str, str]]) -> list[Member]:
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda pair: self._ask(*pair), wanted))

    def observe(self) -> Picture:
        """Everybody that is declared, leaves, or is known to one of those. Raises Problem where none of the declared can be asked."""
        found = self._ask_all(
            [*((one, "declared") for one in self.group_hosts.all), *((one, "leaving") for one in self.leaving)]
        )
        declared = [member for member in found if member.place == "declared"]
        if not any(member.reached for member in declared):
            raise Problem(
                "no_cluster_node", "no node gives an answer: " + "; ".join(f"{one.address}: {one.because}" for one in declared),
                "nodes that answer", "start them, or correct nodes and the login",
            )  # fmt: skip
        found = _without_memories(found)
        rows = {node.id: node for member in found for node in member.nodes if not node.joining}
        found = self._identified(found, rows)
        ids = {member.id for member in found}
        found += self._others([row for row in rows.values() if row.id not in ids])
        found = [member for member in found if member.id or member.place == "declared"]
        self.by_id = {
            member.id: self._servers[member.address]
            for member in found
            if member.reached and member.address in self._servers
        }
        return Picture(found)

    def _identified(self, found: t.Sequence[Member], rows: t.Mapping[str, Node]) -> list[Member]:
        """Members with the id that others know them by, where they do not answer themselves."""
        ids = {member.id for member in found if member.id}
        named = []
        for member in found:
            twin = None
            if not member.reached:
                twin = next(
                    (row for row in rows.values() if row.id not in ids and self._same(row.address, member.address)),
                    None,
                )
            if twin:
                ids.add(twin.id)
            named.append(dataclasses.replace(member, id=twin.id) if twin else member)
        return named

    def _others(self, rows: t.Sequence[Node]) -> list[Member]:
        """Nodes that are neither declared nor named as leaving by their address, asked where others know them."""
        places = {row.id: "leaving" if row.id in self.leaving_ids else "known" for row in rows}
        asked = self._ask_all([(row.address, places[row.id]) for row in rows if usable(row.address)])
        answers = {member.address: member for member in asked}
        found = []
        for row in rows:
            member = answers.get(row.address, Member(row.address, places[row.id], because="it has no address"))
            if member.reached and member.id != row.id:
                member = Member(row.address, places[row.id], because="another node answers there")
            found.append(dataclasses.replace(member, id=row.id))
        return found

    def _same(self, reported: str, address: str) -> bool:
        return reported == address or (
            usable(reported) and self.group_hosts.of(reported) == self.group_hosts.of(address)
        )

    def settle(self, timeout: float = SETTLE_SECONDS) -> Picture:
        """As observe(), when nobody is being introduced, failed over or coming back any more; the last picture if that does not end."""
        began = time.monotonic()
        while True:
            picture, passed = self.observe(), time.monotonic() - began
            if (_quiet(picture) and (_linked(picture) or passed >= _LINK_SECONDS)) or passed >= timeout:
                break
            time.sleep(0.3)
        if picture.open_slots:
            time.sleep(1)
            again = self.observe()
            if again.open_slots != picture.open_slots:
                raise Problem(
                    "reshard_in_progress",
                    "somebody else is moving slots right now",
                    "a cluster at rest",
                    "wait until that has ended, then run again",
                )
        return picture


def _without_memories(found: t.Sequence[Member]) -> list[Member]:
    """One that leaves may remember nodes that nobody else knows: those that left before it."""
    staying = {node.id for member in found if member.place == "declared" for node in member.nodes}
    leaving = {member.id for member in found if member.place == "leaving"}
    return [
        dataclasses.replace(member, nodes=tuple(node for node in member.nodes if node.id in staying | leaving))
        if member.place == "leaving"
        else member
        for member in found
    ]


def _linked(picture: Picture) -> bool:
    return all(
        member.link_up
        for member in picture.members
        if member.reached and picture.primary_of(member.id) and picture.reached(picture.primary_of(member.id))
    )


def _quiet(picture: Picture) -> bool:
    taking_over = any(
        picture.down(one) and any(picture.reached(other) for other in picture.replicas(one))
        for one in picture.primaries
    )
    receiving = {mark.node for mark in picture.open_slots}
    coming_back = any(
        member.reached
        and member.keys
        and member.id not in receiving
        and len(member.nodes) > 1
        and picture.is_primary(member.id)
        and not picture.owned.get(member.id)
        for member in picture.members
    )
    return not (picture.settling or taking_over or coming_back or picture.disagreement())
