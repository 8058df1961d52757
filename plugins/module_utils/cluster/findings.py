# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a cluster, or would be on a bad day, in words."""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.layout import uneven
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.plan import Wish
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import Picture, spelled, text_of_slots

__all__ = ["findings", "shards"]

#: Below this a busy host is taken for a dead one; above it, an outage is long before anything happens.
_TIMEOUTS = (2000, 60000)


def _finding(code: str, severity: str, detected: str, why: str, do: str) -> dict[str, str]:
    return {"code": code, "severity": severity, "detected": detected, "why": why, "do": do}


def shards(picture: Picture) -> list[dict[str, t.Any]]:
    """Primaries with their slots and replicas, the lowest slot first."""
    rows = [
        {
            "primary": picture.name(one),
            "slots": text_of_slots(picture.owned[one]),
            "slot_count": len(picture.owned[one]),
            "replicas": sorted(picture.name(other) for other in picture.replicas(one)),
            "failure_domains": {
                picture.name(node): picture.domain(node)
                for node in (one, *sorted(picture.replicas(one), key=picture.name))
            },
        }
        for one in picture.primaries
    ]
    return sorted(rows, key=lambda row: int(row["slots"].split("-")[0].split()[0]))


def _of_slots(picture: Picture) -> t.Iterator[dict[str, str]]:
    if picture.uncovered:
        yield _finding(
            "slots_uncovered",
            "error",
            f"{spelled(picture.uncovered)} belong to nobody",
            "their keys cannot be read or written; with cluster-require-full-coverage no others can, either",
            "find who had them, and give them back there: CLUSTER ADDSLOTSRANGE",
        )
    for one in picture.primaries:
        if picture.down(one):
            yield _finding(
                "slots_uncovered",
                "error",
                f"{picture.name(one)} is down and has {spelled(picture.owned[one])}",
                "nobody else serves them",
                "start it, or promote a replica of it: CLUSTER FAILOVER FORCE; or restore a backup of that shard",
            )
    marks = collections.defaultdict(set)
    for mark in picture.open_slots:
        ends = (mark.node, mark.other) if mark.migrating else (mark.other, mark.node)
        marks[ends].add(mark.slot)
    for (source, target), slots in marks.items():
        yield _finding(
            "open_slots",
            "warning",
            f"{spelled(slots)} on the way from {picture.name(source)} to {picture.name(target)}",
            "commands with several keys fail there (TRYAGAIN), and a failover now would hide moved keys",
            "run the role redis_cluster, which finishes the move",
        )
    differs = picture.disagreement()
    if differs:
        yield _finding(
            "cluster_disagrees",
            "error",
            differs,
            "clients are sent to and fro",
            "wait for the failover to end; then look at the bus port between them",
        )


def _of_nodes(picture: Picture) -> t.Iterator[dict[str, str]]:
    for one in picture.ids:
        member = picture.by_id.get(one)
        if picture.down(one) and not picture.owned.get(one):
            yield _finding(
                "node_down",
                "warning",
                f"{picture.name(one)} is down",
                "its shard has one copy less",
                "start it, or name it in remove if it is gone for good",
            )
        elif member and not member.reached and not picture.down(one):
            yield _finding(
                "node_unreachable",
                "warning",
                f"{member.address} cannot be asked: {member.because}",
                "the others find it up, or know nothing of it",
                "look at its service, and at login, TLS and firewall between this host and it",
            )
        elif member and member.reached and picture.primary_of(one) and not member.link_up:
            yield _finding(
                "link_down",
                "warning",
                f"{member.address} does not hear its primary {picture.name(picture.primary_of(one))}",
                "it would lack writes when it takes over",
                "look into its log; masteruser and masterauth (role redis_acl) and the firewall are the usual causes",
            )
    for member in picture.members:
        if not member.id and member.place == "declared":
            yield _finding(
                "node_unreachable",
                "warning",
                f"{member.address} cannot be asked: {member.because}",
                "it is declared, and the cluster does not know it",
                "start it, or take it out of nodes",
            )
        elif member.place == "known":
            yield _finding(
                "undeclared_nodes",
                "warning",
                f"{member.address} is in the cluster and not declared",
                "nothing can be changed without it",
                "add it to nodes, or to remove",
            )


def _of_copies(picture: Picture, wish: Wish) -> t.Iterator[dict[str, str]]:
    together, weight = collections.defaultdict(list), collections.Counter()
    for one in picture.primaries:
        weight[picture.domain(one)] += 1
        replicas = [other for other in picture.replicas(one) if not picture.down(other)]
        if wish.replicas and not replicas:
            yield _finding(
                "primary_without_replica",
                "warning",
                f"{picture.name(one)} ({spelled(picture.owned[one])}) has no replica",
                "if it fails, nobody takes over",
                "start its replica, or add a node",
            )
        elif len(replicas) < wish.replicas:
            yield _finding(
                "too_few_replicas",
                "warning",
                f"{picture.name(one)} has {len(replicas)} of {wish.replicas} replicas",
                "one failure less is survived",
                "start the one that is down, or add a node",
            )
        for other in replicas:
            if picture.domain(other) == picture.domain(one):
                together[picture.domain(one)].append(f"{picture.name(other)} of {picture.name(one)}")
    for domain, pairs in together.items():
        yield _finding(
            "same_failure_domain",
            "warning",
            f"replicas in the same failure domain as their primary ({domain}): {', '.join(pairs)}",
            "whatever takes that domain down takes all copies of their slots",
            "give the cluster nodes in more domains, or exchange two: CLUSTER REPLICATE on the replicas",
        )
    for domain, count in weight.items():
        if len(weight) > 1 and 2 * count > len(picture.primaries):
            yield _finding(
                "majority_in_one_domain",
                "warning",
                f"{count} of {len(picture.primaries)} primaries are in failure domain {domain}",
                "without a majority of primaries nothing fails over: losing that domain stops the cluster",
                "CLUSTER FAILOVER on a replica elsewhere, or use three domains",
            )


def _of_shape(picture: Picture, wish: Wish) -> t.Iterator[dict[str, str]]:
    count = len(picture.primaries)
    if count and count != wish.primaries:
        fewer = count < wish.primaries
        yield _finding(
            "fewer_primaries" if fewer else "more_primaries",
            "warning",
            f"{count} nodes have slots, {wish.primaries} are declared",
            "what is stays: a replica is not made a primary, nor a primary emptied, without being asked to",
            "remove a replica and add it again as an empty node"
            if fewer
            else "set primaries, or name those that shall go in remove",
        )
    if count and uneven(picture.owned, picture.primaries, wish.threshold or 10):
        stated = ", ".join(f"{picture.name(one)} {len(picture.owned[one])}" for one in picture.primaries)
        yield _finding(
            "uneven",
            "info",
            f"slots are uneven: {stated}",
            "some nodes have more to do",
            "rebalance: when_needed evens them out",
        )
    products = {member.product for member in picture.members if member.reached and member.product}
    if len(products) > 1:
        yield _finding(
            "versions_differ",
            "warning",
            f"the nodes run {', '.join(sorted(products))}",
            "keys cannot move from a newer one to an older one",
            "end the upgrade",
        )


def _of_settings(picture: Picture) -> t.Iterator[dict[str, str]]:
    stated: dict[str, dict[str, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for member in picture.members:
        for name in ("cluster-require-full-coverage", "cluster-node-timeout"):
            if name in member.settings:
                stated[name][member.settings[name]].append(member.address)
    for name, values in stated.items():
        if len(values) > 1:
            reported = "; ".join(f"{value} on {', '.join(where)}" for value, where in sorted(values.items()))
            yield _finding(
                "settings_differ",
                "warning",
                f"{name} is {reported}",
                "nodes act differently in the same trouble",
                "declare it for all (redis_cluster_settings)",
            )
    if set(stated["cluster-require-full-coverage"]) == {"yes"}:
        yield _finding(
            "full_coverage",
            "info",
            "cluster-require-full-coverage is yes",
            "one shard without a primary stops reads and writes of all the others",
            "no, if your clients can do with a part of the keys",
        )
    for value in stated["cluster-node-timeout"]:
        if not _TIMEOUTS[0] <= int(value) <= _TIMEOUTS[1]:
            yield _finding(
                "node_timeout",
                "warning",
                f"cluster-node-timeout is {value} ms",
                "below 2 seconds a busy host is taken for a dead one; above 60 an outage lasts as long",
                "15000, Redis' own value, or 5000 on a quiet network",
            )


def findings(picture: Picture, wish: Wish) -> list[dict[str, str]]:
    """All of them, the worst first."""
    found = [
        *_of_slots(picture),
        *_of_nodes(picture),
        *_of_copies(picture, wish),
        *_of_shape(picture, wish),
        *_of_settings(picture),
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda one: order[one["severity"]])
