# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of cluster nodes → servers with groups and variables."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.inventory.host_vars import Detail, detail_variables
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import (
    DOWN,
    SERVER,
    Endpoint,
    group_of,
    usable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint, split_endpoint

__all__ = [
    "CLUSTER_GROUPS",
    "ClusterAnswer",
    "Node",
    "cluster_disagreement",
    "cluster_endpoints",
    "cluster_servers",
    "parse_cluster_info",
    "parse_nodes",
]

CLUSTER_GROUPS = ("redis_cluster", "redis_cluster_primary", "redis_cluster_replica", DOWN)
_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Node:
    """One line of CLUSTER NODES. ``moving`` are slots on their way to or from another node; ``bus`` is the port that nodes speak at."""

    id: str
    address: str
    flags: tuple[str, ...]
    primary_id: str
    config_epoch: int
    connected: bool
    slots: tuple[tuple[int, int], ...] = ()
    moving: tuple[str, ...] = ()
    bus: int = 0

    @property
    def itself(self) -> bool:
        return "myself" in self.flags

    @property
    def role(self) -> str:
        return "replica" if "slave" in self.flags else "primary"

    @property
    def down(self) -> bool:
        return bool({"fail", "fail?", "noaddr"} & set(self.flags))

    @property
    def joining(self) -> bool:
        return "handshake" in self.flags

    @property
    def askable(self) -> bool:
        return usable(self.address) and not self.joining

    @property
    def ranges(self) -> list[str]:
        return [str(first) if first == last else f"{first}-{last}" for first, last in self.slots]

    @property
    def slot_count(self) -> int:
        return sum(last - first + 1 for first, last in self.slots)


@dataclasses.dataclass(frozen=True)
class ClusterAnswer:
    """CLUSTER INFO and CLUSTER NODES of one node; ``asked`` is the address by which it was asked."""

    asked: str
    info: t.Mapping[str, str]
    nodes: tuple[Node, ...]

    @property
    def own_id(self) -> str:
        return next((node.id for node in self.nodes if node.itself), self.asked)


def parse_cluster_info(text: str) -> dict[str, str]:
    """CLUSTER INFO as names and values."""
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in text.splitlines()) if colon}


def parse_nodes(text: str) -> list[Node]:
    """CLUSTER NODES. Raises ValueError for a line that is none of it."""
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        words = line.split()
        if len(words) < 8:
            raise ValueError(f"not a line of CLUSTER NODES: {line!r}")
        stated = words[1].split(",", 1)[0]  # host:port@bus,hostname,more
        place, _at, bus = stated.rpartition("@") if "@" in stated else (stated, "", "")
        host, _colon, port = place.rpartition(":")
        slots = [word for word in words[8:] if not word.startswith("[")]
        found.append(
            Node(
                words[0], endpoint(host.strip("[]"), port or 0), tuple(flag for flag in words[2].split(",") if flag != "noflags"),
                "" if words[3] == "-" else words[3], int(words[6]), words[7] == "connected",
                tuple((int(first), int(last or first)) for first, _dash, last in (slot.partition("-") for slot in slots)),
                tuple(word.strip("[]") for word in words[8:] if word.startswith("[")), int(bus or 0),
            )
        )  # fmt: skip
    return found


def _role_text(node: Node, names: t.Mapping[str, str]) -> str:
    if node.role == "replica":
        return f"replica of {names.get(node.primary_id, node.primary_id)}"
    return f"primary of {' '.join(node.ranges) or 'no slots'}"


def cluster_disagreement(answers: t.Sequence[ClusterAnswer]) -> str:
    """Where nodes say different things of who is in the cluster, as what, with which slots; empty if nowhere."""
    # a node may not know its own address yet (:port), so names come from everybody
    names = {node.id: node.address for answer in answers for node in answer.nodes if usable(node.address)}
    stated: dict[str, dict[str, list[str]]] = {}
    for answer in answers:
        known = {node.id: node for node in answer.nodes if not node.joining}
        for node_id in {node.id for one in answers for node in one.nodes if not node.joining}:
            words = _role_text(known[node_id], names) if node_id in known else "unknown"
            stated.setdefault(node_id, {}).setdefault(words, []).append(answer.asked)
    lines = [
        f"{names.get(node_id, node_id)} is "
        + ", ".join(f"{words} to {' '.join(sorted(by))}" for words, by in sorted(opinions.items()))
        for node_id, opinions in sorted(stated.items(), key=lambda pair: names.get(pair[0], pair[0]))
        if len(opinions) > 1
    ]
    more = f"; and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return "; ".join(lines[:_LISTED]) + more


def _described(rows: t.Sequence[Node], down: bool, address: str) -> Node:
    """One node, as it says itself, else as one of those who agree on it says."""
    agreeing = [row for row in rows if row.down == down] or rows
    own = next((row for row in rows if row.itself), agreeing[0])
    return dataclasses.replace(own, address=address)


def _verdicts(answers: t.Sequence[ClusterAnswer]) -> dict[str, tuple[Node, bool]]:
    """Each node with a description, and whether half or more of those who were asked call it down (what it says itself beats that)."""
    nodes = [node for answer in answers for node in answer.nodes]
    addresses = {node.id: node.address for node in nodes if usable(node.address)}
    asked = {answer.own_id: answer.asked for answer in answers}
    found = {}
    for node_id in dict.fromkeys(node.id for node in nodes if not node.joining):
        rows = [node for node in nodes if node.id == node_id]
        down = node_id not in asked and 2 * sum(row.down for row in rows) >= len(rows)
        address = addresses.get(node_id) or asked.get(node_id, "")
        found[node_id] = (_described(rows, down, address), down)
    return found


def cluster_servers(answers: t.Sequence[ClusterAnswer]) -> tuple[list[str], list[str]]:
    """Addresses of the primaries, and of the replicas."""
    nodes = [node for node, _down in _verdicts(answers).values() if usable(node.address)]
    primaries = sorted(node.address for node in nodes if node.role == "primary")
    return primaries, sorted(node.address for node in nodes if node.role == "replica")


def cluster_endpoints(
    answers: t.Sequence[ClusterAnswer], name: str, details: t.Optional[t.Mapping[str, Detail]] = None
) -> list[Endpoint]:
    """Every node that has an address. The answers agree. A shard is named by its lowest slot: that outlives a failover."""
    group = "redis_cluster" if name == "cluster" else group_of([name])[name]
    nodes = _verdicts(answers)
    states = {answer.own_id: answer.info.get("cluster_state", "") for answer in answers}
    found = []
    for node, seen_down in nodes.values():
        if not usable(node.address):
            continue
        primary = nodes.get(node.primary_id, (node, False))[0] if node.role == "replica" else node
        variables: dict[str, t.Any] = {
            "redis_role": node.role,
            "redis_primary_name": name,
            "redis_primary": primary.address,
            "redis_address": node.address,
            "redis_port": split_endpoint(node.address)[1],
            "redis_node_id": node.id,
            "redis_flags": [flag for flag in node.flags if flag != "myself"],
            "redis_slots": node.ranges,
            "redis_slot_count": node.slot_count,
            "redis_slots_moving": list(node.moving),
            "redis_config_epoch": node.config_epoch,
            "redis_state": states.get(node.id) or next(iter(states.values())),
        }
        groups = [f"{one}{end}" for one in dict.fromkeys(["redis_cluster", group]) for end in ("", f"_{node.role}")]
        if primary.slots:
            variables["redis_shard"] = min(first for first, _last in primary.slots)
            groups.append(f"{group}_shard_{variables['redis_shard']}")
        down = seen_down
        if details is not None and node.address in details:
            upstream = details.get(primary.address) if node.role == "replica" else None
            variables.update(detail_variables(node.address, details[node.address], upstream))
            down = down or details[node.address].down
        if down and node.role == "replica":
            variables["redis_link"] = "down"
        variables["redis_down"] = down
        found.append(Endpoint(SERVER, (node.address,), (*groups, *([DOWN] if down else [])), variables))
    return found
