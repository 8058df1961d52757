# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hash slots from one primary to another, with their keys, while clients go on.

Cut off at any point, every key can be reached, and the marks on both ends say what is left to do.
"""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.collect import Nodes
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import text_of_slots
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    Node,
    parse_cluster_info,
    parse_nodes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import split_endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Server,
    ServerDown,
    connect_as,
    wait_for,
)

__all__ = ["SlotMove", "close_leftover"]

#: Slots that are open at one time: enough that their marks cost one write of nodes.conf, few enough that they close soon.
_SLOTS_AT_ONCE = 64
_KEYS_AT_ONCE = 2000
_KEYS_IN_ONE_MIGRATE = 50
#: Longest silence between the two servers within one MIGRATE, and longest wait for one.
_MIGRATE_MS = 30000
_ANSWER_SECONDS = 600.0
#: How often one MIGRATE is tried while a node finds the cluster down for a moment, and the longest wait before each.
_TRIES = 5
_OK_SECONDS = 120.0


class SlotMove:
    """From ``source`` to ``target`` (ids). ``keys`` counts what was moved."""

    def __init__(self, nodes: Nodes, source: str, target: str, tell: t.Callable[[str], None]) -> None:
        self.source_id, self.target_id, self.tell, self.keys = source, target, tell, 0
        # A MIGRATE with large values keeps silent for long.
        self.source, self.target = (connect_as(nodes.by_id[one].login, _ANSWER_SECONDS) for one in (source, target))
        self.others = [server for one, server in nodes.by_id.items() if one not in (source, target)]
        self.name = f"{self.source.login.address} to {self.target.login.address}"

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def run(self, slots: t.Sequence[int]) -> None:
        """Raises Problem; what was moved until then stays moved, and the rest stays where it is."""
        left = list(slots)
        self._wait_until_ok()
        while left:
            batch = self._next_batch(left)
            del left[: len(batch)]
            self._open(batch)
            self._empty(batch)
            self._require_moved(batch)
            self._hand_over(batch)
            self.tell(f"moved {len(slots) - len(left)} of {len(slots)} slots from {self.name}, {self.keys} keys so far")

    def _wait_until_ok(self) -> None:
        """A primary that has just joined finds the cluster down for some seconds, as does one that is briefly cut off; it takes no key then."""
        for server in (self.source, self.target):

            def good(server: Server = server) -> bool:
                return parse_cluster_info(server.command("CLUSTER", "INFO")).get("cluster_state") == "ok"

            if not wait_for(good, _OK_SECONDS):
                raise self._stopped(f"{server.login.address} finds the cluster down, for {_OK_SECONDS:g} seconds now")

    def _next_batch(self, left: t.Sequence[int]) -> list[int]:
        first = left[:_SLOTS_AT_ONCE]
        counts = self.source.commands([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in first])
        batch, keys = [], 0
        for slot, count in zip(first, counts):
            if batch and keys + count > _KEYS_AT_ONCE:
                break
            batch.append(slot)
            keys += count
        return batch

    def _open(self, batch: t.Sequence[int]) -> None:
        """The target first: from then on it takes whom the source sends."""
        self.target.commands([("CLUSTER", "SETSLOT", slot, "IMPORTING", self.source_id) for slot in batch])
        self.source.commands([("CLUSTER", "SETSLOT", slot, "MIGRATING", self.target_id) for slot in batch])

    def _empty(self, batch: t.Sequence[int]) -> None:
        left = list(batch)
        place = next(node.address for node in self._rows(self.source) if node.id == self.target_id)
        while left:
            found = self.source.commands([("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_IN_ONE_MIGRATE) for slot in left])
            for keys in found:
                if keys:
                    self._migrate(place, keys)
            left = [slot for slot, keys in zip(left, found) if keys]

    def _migrate(self, place: str, keys: t.Sequence[str]) -> None:
        try:
            self._send(place, keys)
        except CommandError as error:
            if "BUSYKEY" not in error.text:  # reported within an ERR of the source's own
                raise self._stopped(f"{self.source.login.address} says: {error.text}") from None
            for key in keys:
                self._migrate_one(place, key)
        self.keys += len(keys)

    def _send(self, place: str, keys: t.Sequence[str], *more: str) -> None:
        host, port = split_endpoint(place)
        login = self.target.login
        auth: tuple[str, ...] = ()
        if login.password:
            auth = ("AUTH2", login.user, login.password) if login.user else ("AUTH", login.password)
        for tries_left in reversed(range(_TRIES)):
            try:
                self.source.command("MIGRATE", host, port, "", 0, _MIGRATE_MS, *more, *auth, "KEYS", *keys)
                return
            except CommandError as error:
                if not tries_left or "CLUSTERDOWN" not in error.text:
                    raise
            self._wait_until_ok()  # the target refused; what it took before is gone from here, and not sent twice

    def _migrate_one(self, place: str, key: str) -> None:
        """A MIGRATE that broke half way may have left the key on both ends. It is overwritten only where both are the same."""
        try:
            self._send(place, [key])
        except CommandError as error:
            if "BUSYKEY" not in error.text:  # reported within an ERR of the source's own
                raise self._stopped(f"{self.source.login.address} says: {error.text}") from None
            here, there_too = self._value(self.source, key), self._value(self.target, key)
            if here[0] is not None and there_too[0] is not None and not _same(here, there_too):
                raise Problem(
                    "key_on_both", f"the key {key!r} is on {self.source.login.address} and on {self.target.login.address}, with different values; "
                    "its slot is left open, and clients go on with the first", "one value of it",
                    "compare the two (ASKING, then GET or DUMP, on the second), delete the wrong one, and run again",
                ) from None  # fmt: skip
            self._send(place, [key], "REPLACE")

    @staticmethod
    def _value(server: Server, key: str) -> tuple[t.Any, int]:
        server.command("ASKING")
        value = server.command("DUMP", key)
        server.command("ASKING")
        return value, int(server.command("PTTL", key))

    @staticmethod
    def _rows(server: Server) -> list[Node]:
        return parse_nodes(server.command("CLUSTER", "NODES"))

    def _require_moved(self, batch: t.Sequence[int]) -> None:
        """The source has no key left, and both still are who they were: a failover forgets these marks. Raises Problem.

        While it is marked as leaving, nobody can make a key in a slot of the source; so what is empty stays empty.
        """
        counts = self.source.commands([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in batch])
        source = next(node for node in self._rows(self.source) if node.itself)
        rows = self._rows(self.target)
        target = next(node for node in rows if node.itself)
        seen = next((node for node in rows if node.id == self.source_id), None)
        for slot, count in zip(batch, counts):
            good = (
                not count
                and f"{slot}->-{self.target_id}" in source.moving
                and f"{slot}-<-{self.source_id}" in target.moving
                and _has(source, slot)
                and seen is not None
                and _has(seen, slot)
            )
            if not good:
                raise self._stopped(f"slot {slot} changed hands, or got keys, while it was moved")

    def _hand_over(self, batch: t.Sequence[int]) -> None:
        """The target first, which tells all others; the rest is so that clients learn of it at once."""
        rows = [("CLUSTER", "SETSLOT", slot, "NODE", self.target_id) for slot in batch]
        self.target.commands(rows)
        for server in (self.source, *self.others):
            try:
                server.commands(rows)
            except (CommandError, ServerDown):
                pass  # a replica, or a primary that gave its last slot; they hear of it over the bus

    def _stopped(self, why: str) -> Problem:
        return Problem(
            "reshard_stopped", f"moving slots from {self.name} stopped: {why}", "both nodes up, and their link",
            "no key is lost, and each can be reached; see their logs, then run again: it goes on where it was",
        )  # fmt: skip


def _has(node: Node, slot: int) -> bool:
    return node.role == "primary" and any(first <= slot <= last for first, last in node.slots)


def _same(one: tuple[t.Any, int], other: tuple[t.Any, int]) -> bool:
    """Equal values, and times to live that ran since the same moment."""
    lives = (one[1], other[1])
    return one[0] == other[0] and (lives == (-1, -1) or (min(lives) >= 0 and abs(lives[0] - lives[1]) < 2000))


def close_leftover(nodes: Nodes, node_id: str, owner: str, slots: t.Sequence[int]) -> None:
    """Take the mark of a finished move from the node that gave the slots. Raises Problem where it still has keys of theirs."""
    server = nodes.by_id[node_id]
    counts = server.commands([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots])
    held = [slot for slot, count in zip(slots, counts) if count]
    if held:
        raise Problem(
            "open_slots", f"{server.login.address} still holds keys of slots that {owner} has: {text_of_slots(held)}",
            "keys where their slot is", "redis-cli --cluster fix",
        )  # fmt: skip
    server.commands([("CLUSTER", "SETSLOT", slot, "STABLE") for slot in slots])
