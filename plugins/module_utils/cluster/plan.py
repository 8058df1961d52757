# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster needs to become as it is declared; what is, decides."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.layout import (
    attach,
    balance,
    choose_primaries,
    split_evenly,
)
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.preconditions import (
    Moves,
    head,
    require_agreed,
    require_group_hosts,
    require_one_cluster,
    require_size,
    require_startable,
    sort_open_slots,
)
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import Picture, spelled, text_of_slots
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change

__all__ = ["Step", "Wish", "changes_of", "plan"]


@dataclasses.dataclass(frozen=True)
class Wish:
    """``primaries`` with ``replicas`` each; ``threshold`` percent by which a share may be short (None: slots stay)."""

    primaries: int
    replicas: int
    threshold: t.Optional[int]


@dataclasses.dataclass(frozen=True)
class Step:
    """One effect. ``kind`` is close, resume, assign, meet, replicate, failover, move or forget; ``node`` is who it is about.

    ``other`` is where slots come from (resume, move), who has them (close), whom to replicate, whose place to take (failover).
    """

    kind: str
    node: str
    other: str = ""
    slots: tuple[int, ...] = ()


def plan(picture: Picture, wish: Wish) -> list[Step]:
    """The steps, in order; none where all is as declared. Raises Refusal."""
    require_size(picture, wish.primaries, wish.replicas)
    ours = require_one_cluster(picture)
    require_agreed(picture)
    require_startable(picture, ours)
    moves = sort_open_slots(picture)
    steps = _Planner(picture, wish, ours, moves).steps()
    if steps:
        require_group_hosts(picture, ours)
    return steps


class _Planner:
    """The parts of a plan, which follow from each other. ``owned`` is who will have which slots."""

    def __init__(self, picture: Picture, wish: Wish, ours: frozenset[str], moves: Moves) -> None:
        self.picture, self.wish, self.ours, self.moves = picture, wish, ours, moves
        self.owned = {node_id: set(slots) for node_id, slots in picture.owned.items()}
        self.staying = [member.id for member in picture.members if member.place == "declared" and member.reached]
        self.leaving = [
            member.id for member in picture.members if member.place == "leaving" and self._leaves(member.id)
        ]

    def _leaves(self, node_id: str) -> bool:
        """Whether there is anything left to do for one that shall leave: somebody knows it, or it knows one of ours."""
        if not node_id or not self.ours:
            return False
        known = any(
            node_id in member.knows
            for member in self.picture.members
            if member.id in self.ours and member.id != node_id
        )
        own = self.picture.by_id[node_id]
        return known or bool(own.knows & self.ours - {node_id})

    def steps(self) -> list[Step]:
        opened = self._open_slots()
        failovers = self._failovers()
        primaries = self._primaries()
        assigned = self._assign(primaries)
        met = self._meet(primaries)
        early, late = self._replicate(primaries)
        moved = self._move(primaries)
        forgotten = [Step("forget", node_id) for node_id in self.leaving]
        heirs = [step.node for step in failovers]
        before = [step for step in early if step.other not in heirs]
        after = [step for step in early if step.other in heirs]
        return [*opened, *assigned, *met, *before, *failovers, *after, *moved, *late, *forgotten]

    def _open_slots(self) -> list[Step]:
        for (source, target), slots in self.moves.resumed.items():
            self.owned.setdefault(target, set()).update(slots)
            self.owned[source] -= set(slots)
        closed = [
            Step("close", node, owner, tuple(slots)) for (node, owner), slots in sorted(self.moves.closed.items())
        ]
        return closed + [
            Step("resume", target, source, tuple(slots))
            for (source, target), slots in sorted(self.moves.resumed.items())
        ]

    def _with_slots(self) -> list[str]:
        return [node_id for node_id in self.picture.ids if self.owned.get(node_id) and node_id not in self.leaving]

    def _failovers(self) -> list[Step]:
        """A primary that leaves hands over to a replica that stays, where the number of primaries stays as it is."""
        found = []
        for old in [node_id for node_id in self.leaving if self.owned.get(node_id)]:
            if len(self._with_slots()) >= self.wish.primaries or not self.picture.reached(old):
                continue
            heirs = [
                self.picture.by_id[one]
                for one in self.picture.replicas(old)
                if one in self.staying and self.picture.by_id[one].link_up
            ]
            if heirs:
                heir = max(heirs, key=lambda member: member.offset)
                self.owned[heir.id], self.owned[old] = self.owned[old], set()
                found.append(Step("failover", heir.id, old))
        return found

    def _free(self) -> list[str]:
        """Those who stay and have neither slots nor a primary that stays one."""
        kept = [*self._with_slots(), *self._handed_over()]
        return [one for one in self.staying if not self.owned.get(one) and head(self.picture, one) not in kept]

    def _handed_over(self) -> list[str]:
        return [old for old in self.leaving if not self.owned.get(old) and self.picture.owned.get(old)]

    def _primaries(self) -> list[str]:
        """Who will have slots: those who have them, and new ones as far as they are too few."""
        now = self._with_slots()
        missing = self.wish.primaries - len(now)
        fresh = [one for one in self._free() if self.picture.is_primary(one)]
        if now and self.wish.threshold is None and not self.picture.uncovered:
            fresh = []  # slots stay where they are
        # One that has replicas already was chosen by a run that was cut off.
        begun = choose_primaries(
            [one for one in fresh if self.picture.replicas(one)], max(missing, 0), now, self.picture.domain
        )
        others = [one for one in fresh if one not in begun]
        now += begun
        return now + choose_primaries(others, max(missing - len(begun), 0), now, self.picture.domain)

    def _assign(self, primaries: list[str]) -> list[Step]:
        uncovered = self.picture.uncovered
        if not uncovered or not primaries:
            return []
        parts = split_evenly(uncovered, [one for one in primaries if not self.owned.get(one)] or primaries)
        for one, slots in parts.items():
            self.owned.setdefault(one, set()).update(slots)
        return [Step("assign", one, slots=tuple(slots)) for one, slots in parts.items() if slots]

    def _meet(self, primaries: list[str]) -> list[Step]:
        seed = next((one for one in self.staying if one in self.ours), primaries[0] if primaries else "")
        group = next((group for group in self.picture.groups() if seed in group), frozenset([seed]))
        return [Step("meet", one, seed) for one in self.staying if one not in group]

    def _shards(self, primaries: list[str], free: list[str]) -> dict[str, list[str]]:
        """Primary → the replicas that stay its own, or its heir's."""
        heirs = {heir.other: heir.node for heir in self._heirs()}
        shards: dict[str, list[str]] = {one: [] for one in primaries}
        for one in self.picture.ids:
            if one in self.leaving or one in free or one in primaries:
                continue
            primary = head(self.picture, one)
            primary = heirs.get(primary, primary)
            if primary in shards:
                shards[primary].append(one)
        return shards

    def _spare(self, shards: t.Mapping[str, list[str]], short: int) -> list[str]:
        """Replicas of those who have more than they need, where ``short`` are missing elsewhere; they are taken out of their shards."""
        spare = []
        for shard in sorted(shards.values(), key=len, reverse=True):
            while len(spare) < short and len(shard) > self.wish.replicas:
                spare.append(shard.pop())
        return spare

    def _replicate(self, primaries: list[str]) -> tuple[list[Step], list[Step]]:
        """Before slots are moved, and those after it whose primary still serves slots until then."""
        free = [one for one in self._free() if one not in primaries and head(self.picture, one) not in primaries]
        shards = self._shards(primaries, free)
        short = sum(max(self.wish.replicas - len(shard), 0) for shard in shards.values()) - len(free)
        if all(member.reached for member in self.picture.members if member.place == "declared"):
            free += self._spare(shards, short)
        chosen = attach(shards, free, self.picture.domain)
        steps = [Step("replicate", one, primary) for one, primary in chosen.items()]
        served = {one for one in self.leaving if self.owned.get(one)}
        late = [step for step in steps if head(self.picture, step.node) in served]
        return [step for step in steps if step not in late], late

    def _heirs(self) -> list[Step]:
        return [
            Step("failover", heir, old)
            for old in self._handed_over()
            for heir in self.staying
            if self.picture.primary_of(heir) == old and self.owned.get(heir)
        ]

    def _move(self, primaries: list[str]) -> list[Step]:
        sources = [one for one in self.leaving if self.owned.get(one)]
        if not primaries or not all(self.picture.reached(one) for one in (*primaries, *sources)):
            return []
        return [
            Step("move", target, source, tuple(slots))
            for source, target, slots in balance(self.owned, primaries, sources, self.wish.threshold)
        ]


def _told(step: Step, name: t.Callable[[str], str], before: str) -> Change:
    node, other = name(step.node), name(step.other) if step.other else ""
    slots = spelled(step.slots) if step.slots else ""
    if step.kind == "assign":
        return Change("cluster", f"{node} slots", None, text_of_slots(step.slots), f"give {slots} to {node}")
    if step.kind == "meet":
        return Change("cluster", f"{node} member", "no", "yes", f"CLUSTER MEET {node}")
    if step.kind == "replicate":
        return Change("cluster", f"{node} replica of", before, other, f"CLUSTER REPLICATE: {node} copies {other}")
    if step.kind == "failover":
        return Change(
            "cluster", f"{node} replica of", other, "no one", f"CLUSTER FAILOVER: {node} takes the place of {other}"
        )
    if step.kind == "forget":
        words = f"CLUSTER FORGET {node} on every other node, then CLUSTER RESET on it"
        return Change("cluster", f"{node} member", "yes", "no", words)
    if step.kind == "close":
        return Change(
            "cluster",
            f"{node} open slots",
            text_of_slots(step.slots),
            None,
            f"close {slots} on {node}: they are at {other}",
        )
    verb = "finish the move of" if step.kind == "resume" else "move"
    return Change(
        "cluster",
        f"slots {text_of_slots(step.slots)}",
        other,
        node,
        f"{verb} {slots} with their keys from {other} to {node}",
    )


def changes_of(steps: t.Sequence[Step], picture: Picture) -> list[Change]:
    """What the steps change, in order."""
    upstream: dict[str, str] = collections.defaultdict(str)
    for node_id in picture.ids:
        upstream[node_id] = picture.name(picture.primary_of(node_id)) if picture.primary_of(node_id) else "no one"
    return [_told(step, picture.name, upstream[step.node] or "no one") for step in steps]
