# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster put together from what each of its nodes says."""

from __future__ import annotations

import collections
import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    ClusterAnswer,
    Node,
    cluster_disagreement,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import split_endpoint

__all__ = ["SLOTS", "Member", "OpenSlot", "Picture", "spelled", "text_of_slots"]

SLOTS = 16384


def text_of_slots(slots: t.Iterable[int]) -> str:
    """``0-5460 5462``, in order."""
    parts: list[list[int]] = []
    for slot in sorted(slots):
        if parts and slot == parts[-1][1] + 1:
            parts[-1][1] = slot
        else:
            parts.append([slot, slot])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def spelled(slots: t.Collection[int]) -> str:
    """``1 slot (7)``, ``5461 slots (0-5460)``."""
    return f"{len(slots)} slot{'' if len(slots) == 1 else 's'} ({text_of_slots(slots)})"


@dataclasses.dataclass(frozen=True)
class Member:
    """One server. ``place`` is ``declared``, ``leaving``, or ``known`` where only the others name it.

    ``because`` says why it could not be asked; then all but its address (and its ``id``, where others know it) is empty. ``domain`` is what it
    fails together with.
    """

    address: str
    place: str = "declared"
    domain: str = ""
    id: str = ""
    because: str = ""
    nodes: tuple[Node, ...] = ()
    info: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    keys: int = 0
    product: str = ""
    link_up: bool = False
    offset: int = 0

    @property
    def reached(self) -> bool:
        return not self.because

    @property
    def own(self) -> t.Optional[Node]:
        """What it says of itself."""
        return next((node for node in self.nodes if node.itself), None)

    @property
    def knows(self) -> set[str]:
        """Ids of the nodes that it has met, itself left out."""
        return {node.id for node in self.nodes if not node.itself and not node.joining}


@dataclasses.dataclass(frozen=True)
class OpenSlot:
    """A slot that ``node`` says is on its way: to ``other`` where it is ``migrating``, else from it."""

    slot: int
    node: str
    migrating: bool
    other: str


def _slots_of(node: t.Optional[Node]) -> set[int]:
    return {slot for first, last in (node.slots if node else ()) for slot in range(first, last + 1)}


class Picture:
    """Everybody's answers as one. Nodes go by their ids."""

    def __init__(self, members: t.Sequence[Member]) -> None:
        self.members = tuple(members)
        self.by_id = {member.id: member for member in members if member.id}
        self._rows: dict[str, Node] = {}
        stated: dict[str, list[Node]] = collections.defaultdict(list)
        for member in members:
            for node in member.nodes:
                if not node.joining:
                    stated[node.id].append(node)
        for node_id, rows in stated.items():
            own = next((row for row in rows if row.itself), None)
            # Of one that cannot be asked, those who do not yet miss it know its slots as well as the others.
            self._rows[node_id] = own or max(rows, key=lambda row: row.config_epoch)
        self._said = stated
        self.owned = {node_id: _slots_of(row) for node_id, row in self._rows.items()}

    def name(self, node_id: str) -> str:
        """The address by which people know a node."""
        if node_id in self.by_id:
            return self.by_id[node_id].address
        return self._rows[node_id].address if node_id in self._rows else node_id

    def place(self, node_id: str) -> str:
        return self.by_id[node_id].place if node_id in self.by_id else "known"

    def domain(self, node_id: str) -> str:
        member = self.by_id.get(node_id)
        return (member.domain if member else "") or split_endpoint(self.name(node_id))[0]

    def reached(self, node_id: str) -> bool:
        return node_id in self.by_id and self.by_id[node_id].reached

    def is_primary(self, node_id: str) -> bool:
        row = self._rows.get(node_id)
        return row is None or row.role == "primary"

    def primary_of(self, node_id: str) -> str:
        """Whom a replica follows; empty for a primary."""
        row = self._rows.get(node_id)
        return row.primary_id if row is not None and row.role == "replica" else ""

    def down(self, node_id: str) -> bool:
        """Whether half or more of the others call it down; what it says itself beats that."""
        rows = [row for row in self._said.get(node_id, ()) if not row.itself]
        return not self.reached(node_id) and bool(rows) and 2 * sum(row.down for row in rows) >= len(rows)

    def replicas(self, node_id: str) -> list[str]:
        return [other for other in self._rows if self.primary_of(other) == node_id]

    @property
    def ids(self) -> list[str]:
        """Everybody, the declared in their order first."""
        return list(dict.fromkeys([*self.by_id, *self._rows]))

    @property
    def primaries(self) -> list[str]:
        """Those with slots."""
        return [node_id for node_id in self.ids if self.owned.get(node_id) and self.is_primary(node_id)]

    @property
    def owners(self) -> dict[int, str]:
        return {slot: node_id for node_id in self.primaries for slot in self.owned[node_id]}

    @property
    def uncovered(self) -> list[int]:
        owners = self.owners
        return [slot for slot in range(SLOTS) if slot not in owners]

    def alone(self, node_id: str) -> bool:
        """Reached, and it knows nobody and nobody knows it, and it has no slots."""
        known = any(node_id in member.knows for member in self.members)
        return self.reached(node_id) and not self.by_id[node_id].knows and not known and not self.owned.get(node_id)

    def groups(self) -> list[frozenset[str]]:
        """Sets of nodes that know each other, or one alone that has slots; the largest first."""
        parent = {node_id: node_id for node_id in self.ids}

        def root(node_id: str) -> str:
            while parent[node_id] != node_id:
                node_id = parent[node_id]
            return node_id

        for member in self.members:
            for other in member.knows:
                parent[root(member.id)] = root(other)
        found: dict[str, set[str]] = collections.defaultdict(set)
        for node_id in self.ids:
            found[root(node_id)].add(node_id)
        groups = [frozenset(group) for group in found.values() if len(group) > 1 or self.owned.get(next(iter(group)))]
        return sorted(groups, key=lambda group: (-len(group), min(self.ids.index(node_id) for node_id in group)))

    def disagreement(self) -> str:
        """Where nodes of one group say different things; of a node that leaves and has no slots, none matters."""
        gone = {member.id for member in self.members if member.place == "leaving" and not self.owned.get(member.id)}
        reported = []
        for group in self.groups():
            answers = [
                ClusterAnswer(member.address, member.info, tuple(node for node in member.nodes if node.id not in gone))
                for member in self.members
                if member.id in group and member.reached and member.id not in gone
            ]
            reported.append(cluster_disagreement(answers))
        return "; ".join(filter(None, reported))

    @property
    def settling(self) -> bool:
        """Whether somebody is still being introduced."""
        return any(node.joining for member in self.members for node in member.nodes)

    @property
    def open_slots(self) -> list[OpenSlot]:
        """What each node says of itself: nobody else knows."""
        found = []
        for member in self.members:
            for text in member.own.moving if member.own else ():
                match = re.fullmatch(r"(\d+)-([<>])-([0-9a-f]+)", text)
                if match:
                    found.append(OpenSlot(int(match.group(1)), member.id, match.group(2) == ">", match.group(3)))
        return sorted(found, key=lambda one: (one.slot, not one.migrating))
