# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be true of a cluster before anything in it is changed."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import (
    OpenSlot,
    Picture,
    spelled,
    text_of_slots,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal

__all__ = [
    "LEAST_PRIMARIES",
    "Moves",
    "head",
    "require_agreed",
    "require_group_hosts",
    "require_one_cluster",
    "require_size",
    "require_startable",
    "sort_open_slots",
]

#: With two, neither is a majority without the other: nothing would fail over.
LEAST_PRIMARIES = 3


def _list(picture: Picture, ids: t.Iterable[str]) -> str:
    return ", ".join(picture.name(one) for one in ids)


def head(picture: Picture, node_id: str) -> str:
    """The primary of the shard that a node is part of."""
    return picture.primary_of(node_id) or node_id


def require_size(picture: Picture, primaries: int, replicas: int) -> None:
    """Nodes for the primaries and their replicas. Raises Refusal."""
    nodes = [member for member in picture.members if member.place == "declared"]
    leaving = [member.address for member in picture.members if member.place == "leaving"]
    needed = max(primaries, LEAST_PRIMARIES) * (1 + replicas)
    if len(nodes) >= needed and primaries >= LEAST_PRIMARIES:
        return
    without = f" without {', '.join(leaving)}" if leaving else ""
    raise Refusal(
        "too_few_nodes",
        f"{len(nodes)} nodes{without} are {primaries} primaries with {replicas} {'replica' if replicas == 1 else 'replicas'} each",
        f"at least {LEAST_PRIMARIES} primaries (with fewer no majority is left when one fails), so {needed} nodes",
        "add nodes, or lower replicas_per_primary or primaries" + ("; or take fewer away" if leaving else ""),
    )


def _slots_of(picture: Picture, groups: t.Iterable[frozenset[str]]) -> set[int]:
    return {slot for group in groups for one in group for slot in picture.owned.get(one, ())}


def _why_foreign(picture: Picture, group: frozenset[str], groups: t.Sequence[frozenset[str]], known: set[str]) -> str:
    """Why a group of nodes is another cluster than the one that most declared nodes are in; empty where it is not. ``groups``: that one first."""
    declared, undeclared = group & known, group - known
    is_main = group is groups[0]
    if undeclared and (not is_main or len(undeclared) >= len(declared)):
        return f"knows {_list(picture, sorted(undeclared, key=picture.name))}"
    both = _slots_of(picture, [group]) & _slots_of(picture, (other for other in groups if other is not group))
    if is_main or not both:
        return ""
    return f"serves {spelled(both)} as others do"


def require_one_cluster(picture: Picture) -> frozenset[str]:
    """The ids of the cluster that the declared nodes are in; empty where there is none yet. Raises Refusal."""
    declared = {member.id for member in picture.members if member.place == "declared" and member.id}
    leaving = {member.id for member in picture.members if member.place == "leaving" and member.id}
    groups = sorted((group for group in picture.groups() if group & declared), key=lambda group: -len(group & declared))
    for group in groups:
        why = _why_foreign(picture, group, groups, declared | leaving)
        if why:
            raise Refusal(
                "other_cluster",
                f"{_list(picture, sorted(group & declared, key=picture.ids.index))} belongs to another cluster: it {why}",
                "nodes of one cluster, and new ones",
                "correct nodes; a node that shall change its cluster is removed from the one it is in first (remove), with its slots",
            )
    return frozenset().union(*groups)


def require_agreed(picture: Picture) -> None:
    """Nodes that say the same. Raises Refusal."""
    differs = picture.disagreement()
    if differs:
        raise Refusal(
            "cluster_disagrees",
            f"the nodes of the cluster disagree: {differs}",
            "nodes that agree on who they are and who serves which slots",
            "run again when a failover has ended; if it stays so, look into the logs of those that are named, and at redis-cli --cluster check",
        )


def _require_no_stray_keys(picture: Picture, ours: frozenset[str]) -> None:
    """No declared node holds keys that its cluster does not serve. Raises Refusal."""
    receiving = {mark.node for mark in picture.open_slots if not mark.migrating}
    for member in picture.members:
        lonely = member.id not in ours or (not member.knows and picture.uncovered)
        idle = not picture.owned.get(member.id) and picture.is_primary(member.id) and member.id not in receiving
        if member.place == "declared" and member.keys and (lonely or idle):
            raise Refusal(
                "node_has_data",
                f"{member.address} holds {member.keys} keys and is in no cluster that serves them",
                "an empty node: its keys would be hidden, or thrown away",
                "correct nodes, or move its data to where it belongs; if nobody needs it: redis-cli -h HOST FLUSHALL",
            )


def _require_owners_up(picture: Picture) -> None:
    """Who has slots is up. Raises Refusal."""
    down: dict[str, list[int]] = collections.defaultdict(list)
    for slot, owner in picture.owners.items():
        if picture.down(owner):
            down[owner].append(slot)
    if down:
        words = "; ".join(f"{picture.name(owner)} is down and has {spelled(slots)}" for owner, slots in down.items())
        raise Refusal(
            "slots_uncovered",
            f"nobody serves some slots: {words}",
            "every slot served",
            "start that node: its data is there. If a replica of it runs, it takes over within seconds (cluster-node-timeout), or by hand: "
            "redis-cli -h REPLICA CLUSTER FAILOVER FORCE. If its data is gone, restore a backup of that shard",
        )


def require_startable(picture: Picture, ours: frozenset[str]) -> None:
    """No node brings keys that would be lost or hidden, and all slots are served, or nothing is there yet. Raises Refusal."""
    _require_no_stray_keys(picture, ours)
    _require_owners_up(picture)
    keys = [member.address for member in picture.members if member.id in ours and member.keys]
    absent = [one for one in ours if not picture.reached(one)]
    if ours and picture.uncovered and (keys or absent):
        why = f"{', '.join(keys)} hold keys" if keys else f"{_list(picture, absent)} cannot be asked"
        raise Refusal(
            "slots_uncovered",
            f"{spelled(picture.uncovered)} belong to nobody, and {why}",
            "every slot served: to give them away could hide the keys of one who had them",
            "find who had them (CLUSTER NODES on every node, nodes.conf in backups) and give them back: redis-cli -h HOST CLUSTER ADDSLOTSRANGE "
            "FIRST LAST; only where their keys are known to be gone, redis-cli --cluster fix",
        )


def require_group_hosts(picture: Picture, ours: frozenset[str]) -> None:
    """All that a change needs: everybody answers, is known, runs the same release and has an address of its own. Raises Refusal."""
    silent = [member for member in picture.members if member.place == "declared" and not member.reached]
    if silent:
        raise Refusal(
            "node_unreachable",
            "; ".join(f"{member.address} cannot be asked: {member.because}" for member in silent),
            "every declared node, where something is to be changed",
            "start it, or name it in remove if it is gone for good",
        )
    undeclared = [one for one in picture.ids if one in ours and picture.place(one) == "known"]
    if undeclared:
        raise Refusal(
            "undeclared_nodes",
            f"the cluster has nodes that are not declared: {_list(picture, undeclared)}",
            "every node of the cluster, where something is to be changed",
            "add them to nodes, or to remove those that shall go",
        )
    products = collections.defaultdict(list)
    for member in picture.members:
        if member.reached and member.product:
            products[member.product].append(member.address)
    if len(products) > 1:
        stated = "; ".join(f"{product} on {', '.join(where)}" for product, where in sorted(products.items()))
        raise Refusal(
            "versions_differ",
            f"the nodes run different releases: {stated}",
            "one release: an older one cannot read the keys of a newer one",
            "upgrade first, replicas before primaries (playbook rolling_restart does not do clusters), then run again",
        )
    places = collections.defaultdict(list)
    for member in picture.members:
        if member.reached and member.settings.get("announced"):
            places[member.settings["announced"]].append(member.address)
    for place, twins in places.items():
        if len(twins) > 1:
            raise Refusal(
                "duplicate_announce",
                f"{' and '.join(twins)} both announce {place}",
                "an address of its own for each",
                "correct cluster-announce-ip and cluster-announce-port",
            )


@dataclasses.dataclass(frozen=True)
class Moves:
    """Slots that a run left half way: ``resumed`` by (from, to), ``closed`` by (where the mark is, who has them)."""

    resumed: t.Mapping[tuple[str, str], list[int]]
    closed: t.Mapping[tuple[str, str], list[int]]


def _target_of(picture: Picture, marks: t.Sequence[OpenSlot], owner: str) -> str:
    """Where a slot with these marks is on its way to; empty where they contradict each other or what is."""
    targets = set()
    for mark in marks:
        # After a failover a mark names the old primary: whoever leads its shard now is meant, or the owner took over from it.
        other = head(picture, mark.other)
        if mark.migrating:
            if mark.node != owner:
                return ""
            targets.add(other)
        else:
            if mark.node == owner or (other != owner and picture.owned.get(other)):
                return ""
            targets.add(mark.node)
    target = targets.pop() if len(targets) == 1 else ""
    fit = (
        target and target != owner and picture.reached(target) and picture.reached(owner) and picture.is_primary(target)
    )
    return target if fit else ""


def _marks_text(picture: Picture, marks: t.Iterable[OpenSlot], owner: str) -> str:
    words = ", ".join(
        f"{picture.name(mark.node)} {'migrating to' if mark.migrating else 'importing from'} {picture.name(mark.other)}"
        for mark in marks
    )
    return f"{words}; owned by {picture.name(owner) if owner else 'nobody'}"


def sort_open_slots(picture: Picture) -> Moves:
    """What can be finished: a move whose two ends agree, and marks that a finished one left behind. Raises Refusal for all else."""
    marks: dict[int, list[OpenSlot]] = collections.defaultdict(list)
    for mark in picture.open_slots:
        if picture.is_primary(mark.node):  # a replica's are no more than memories
            marks[mark.slot].append(mark)
    resumed: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    closed: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    wrong: dict[str, list[int]] = collections.defaultdict(list)
    for slot in sorted(marks):
        owner = picture.owners.get(slot, "")
        over = [one for one in marks[slot] if one.migrating and one.node != owner and head(picture, one.other) == owner]
        for mark in over:
            closed[mark.node, owner].append(slot)
        left = [mark for mark in marks[slot] if mark not in over]
        target = _target_of(picture, left, owner) if left and owner else ""
        if target:
            resumed[owner, target].append(slot)
        elif left:
            wrong[_marks_text(picture, left, owner)].append(slot)
    if wrong:
        listed = " | ".join(f"{text_of_slots(slots)}: {words}" for words, slots in wrong.items())
        raise Refusal(
            "open_slots",
            f"slots were left open in a way that cannot be finished: {listed}",
            "at most moves whose two ends agree",
            "see which node has the keys (CLUSTER COUNTKEYSINSLOT SLOT on both), then on each: CLUSTER SETSLOT SLOT STABLE where it has none "
            "and does not own it; redis-cli --cluster fix does the rest",
        )
    return Moves(dict(resumed), dict(closed))
