# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a plan, carried out; each can be done again."""

from __future__ import annotations

import itertools
import socket
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.collect import Nodes
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.plan import Step
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.resharding import SlotMove, close_leftover
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import Picture
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    parse_cluster_info,
    parse_nodes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import split_endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Server,
    connect_as,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import parse_info

__all__ = ["Work"]

#: A greeting that was lost is stated again; nodes tell of each other within a second or two.
_MEET_AGAIN_SECONDS = 3.0
_JOIN_SECONDS = 120.0
_FAILOVER_SECONDS = 30.0
#: A replica throws its copy away in it.
_RESET_SECONDS = 600.0


class Work:
    """``moved`` counts slots and keys."""

    def __init__(self, nodes: Nodes, picture: Picture, timeout: float, tell: t.Callable[[str], None]) -> None:
        self.nodes, self.picture, self.timeout, self.tell = nodes, picture, timeout, tell
        self.moved = {"slots": 0, "keys": 0}

    def run(self, steps: t.Sequence[Step]) -> Picture:
        """All steps; steps of one kind that stand together are waited for together. Gives what then is. Raises Problem."""
        for kind, group in itertools.groupby(steps, lambda step: step.kind):
            some = list(group)
            self.tell(f"{kind}: {', '.join(self.picture.name(step.node) for step in some)}")
            getattr(self, f"_{kind}")(some)
        return self._finish()

    def _finish(self) -> Picture:
        last: list[Picture] = []

        def good() -> bool:
            last[:] = [self.nodes.observe()]
            picture = last[0]
            states = [
                member.info.get("cluster_state")
                for member in picture.members
                if member.reached and member.place == "declared"
            ]
            return set(states) == {"ok"} and not (picture.settling or picture.disagreement() or picture.open_slots)

        if not wait_for(good, _JOIN_SECONDS):
            states = ", ".join(f"{one.address} {one.info.get('cluster_state', 'silent')}" for one in last[0].members)
            raise Problem(
                "cluster_not_settled",
                f"after {_JOIN_SECONDS:g} seconds the nodes do not agree: {states}; {last[0].disagreement()}",
                "a cluster that every node finds ok",
                "see redis-cli --cluster check and the logs, then run again",
            )
        return last[0]

    def _server(self, node_id: str) -> Server:
        return self.nodes.by_id[node_id]

    def _assign(self, steps: t.Sequence[Step]) -> None:
        for number, step in enumerate(steps, 1):
            server = self._server(step.node)
            info = parse_cluster_info(server.command("CLUSTER", "INFO"))
            if info.get("cluster_my_epoch") == "0" and info.get("cluster_known_nodes") == "1":
                epoch = self.picture.ids.index(step.node) + 1
                server.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)  # distinct ones, or they have to sort it out later
            server.command("CLUSTER", "ADDSLOTS", *step.slots)
            self.tell(f"slots given to {number} of {len(steps)} primaries")

    def _address_of(self, node_id: str) -> tuple[str, int, int]:
        """Where the others find a node: IP address, port, bus port."""
        member = self.picture.by_id[node_id]
        own = next(node for node in parse_nodes(self._server(node_id).command("CLUSTER", "NODES")) if node.itself)
        announced = member.settings.get("announced")
        host, port = split_endpoint(announced or own.address)
        ip = _ip(host) if announced else _reachable(member.address, [one.address for one in self.picture.members])
        return ip, port, own.bus or port + 10000

    def _meet(self, steps: t.Sequence[Step]) -> None:
        seed = self._server(steps[0].other)
        everybody = [member.id for member in self.picture.members if member.place == "declared"]
        stated = 0.0

        def joined() -> bool:
            nonlocal stated
            views = {one: parse_nodes(self._server(one).command("CLUSTER", "NODES")) for one in everybody}
            known = {one: {row.id for row in rows if row.connected and not row.joining} for one, rows in views.items()}
            missing = [step.node for step in steps if step.node not in known[steps[0].other]]
            if time.monotonic() - stated >= _MEET_AGAIN_SECONDS:
                stated = time.monotonic()
                for one in missing:
                    host, port, bus = self._address_of(one)
                    seed.command("CLUSTER", "MEET", host, port, bus)
            return all(known[one] >= set(everybody) for one in everybody)

        if not wait_for(joined, _JOIN_SECONDS):
            raise Problem(
                "cluster_not_joined",
                f"after {_JOIN_SECONDS:g} seconds not every node knows every other",
                "the cluster bus open among all of them",
                "let the firewall admit the bus (port + 10000, redis_firewall_cluster_bus_ports), look at cluster-announce-* and "
                "tls-cluster, then run again",
            )

    def _replicate(self, steps: t.Sequence[Step]) -> None:
        for step in steps:
            if not wait_for(lambda step=step: self._told(step), _JOIN_SECONDS):
                raise Problem(
                    "link_down",
                    f"{self.picture.name(step.node)} does not know {self.picture.name(step.other)} as a primary",
                    "nodes that agree on who is primary",
                    "see redis-cli --cluster check, then run again",
                )
        unlinked = [step for step in steps if not wait_for(lambda step=step: self._linked(step), self.timeout)]
        if unlinked:
            names = ", ".join(self.picture.name(step.node) for step in unlinked)
            raise Problem(
                "link_down",
                f"the link of {names} to its primary is not up after {self.timeout:g} seconds; it goes on trying",
                "a primary that lets its replica in",
                "look into the log of both; masteruser and masterauth (role redis_acl) and the firewall are the usual causes",
            )

    def _told(self, step: Step) -> bool:
        """Tell it whom to replicate; it may not have heard of that one yet, or be changing by itself."""
        own = next(node for node in parse_nodes(self._server(step.node).command("CLUSTER", "NODES")) if node.itself)
        if own.primary_id != step.other:
            try:
                self._server(step.node).command("CLUSTER", "REPLICATE", step.other)
            except CommandError as error:
                if "Unknown node" in error.text or "I can only replicate" in error.text:
                    return False
                raise
        return True

    def _linked(self, step: Step) -> bool:
        info = parse_info(self._server(step.node).command("INFO", "replication"))
        return info.text("role") == "slave" and info.text("master_link_status") == "up"

    def _failover(self, steps: t.Sequence[Step]) -> None:
        for step in steps:
            self._server(step.node).command(
                "CLUSTER", "FAILOVER"
            )  # not FORCE: the primary waits until it has every byte

            def done(step: Step = step) -> bool:
                picture = self.nodes.observe()
                return (
                    bool(picture.owned.get(step.node))
                    and not picture.owned.get(step.other)
                    and not picture.disagreement()
                )

            if not wait_for(done, _FAILOVER_SECONDS):
                raise Problem(
                    "failover_not_done",
                    f"{self.picture.name(step.node)} did not take the place of {self.picture.name(step.other)} in "
                    f"{_FAILOVER_SECONDS:g} seconds",
                    "a majority of primaries that agree",
                    "see both logs, then run again",
                )

    def _close(self, steps: t.Sequence[Step]) -> None:
        for step in steps:
            close_leftover(self.nodes, step.node, self.picture.name(step.other), step.slots)

    def _move(self, steps: t.Sequence[Step]) -> None:
        for step in steps:
            move = SlotMove(self.nodes, step.other, step.node, self.tell)
            try:
                move.run(step.slots)
            finally:
                move.close()
                self.moved["keys"] += move.keys
            self.moved["slots"] += len(step.slots)
        wait_for(lambda: not self.nodes.observe().disagreement(), _JOIN_SECONDS)

    _resume = _move

    def _forget(self, steps: t.Sequence[Step]) -> None:
        """All others forget it (what one alone forgets, the others bring back); only then is it reset."""
        picture = self.nodes.observe()
        for step in steps:
            if picture.owned.get(step.node):
                raise Problem(
                    "reshard_stopped",
                    f"{picture.name(step.node)} has slots again",
                    "a node without slots",
                    "run again: they are moved first",
                )
        for member in picture.members:
            if member.place != "declared" or not member.reached:
                continue
            for step in steps:
                if step.node in member.knows:
                    self._server(member.id).command("CLUSTER", "FORGET", step.node)
        for step in steps:
            if picture.reached(step.node):
                server = connect_as(self._server(step.node).login, _RESET_SECONDS)
                server.command("CLUSTER", "RESET", "HARD")  # refused by a primary that holds a key
                server.close()


def _ip(host: str) -> str:
    """CLUSTER MEET takes addresses only."""
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def _reachable(address: str, others: t.Sequence[str]) -> str:
    """The IP address of a node as the others reach it; Debian gives 127.0.1.1 to a host's own name."""
    ip = _ip(split_endpoint(address)[0])
    if not ip.startswith("127.") and ip != "::1":
        return ip
    for other in others:
        far = _ip(split_endpoint(other)[0])
        if not far.startswith("127.") and far != "::1":
            with socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                return str(probe.getsockname()[0])
    return ip
