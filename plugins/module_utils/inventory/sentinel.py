# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of Sentinels → servers and Sentinels with groups and variables."""

from __future__ import annotations

import collections
import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.host_vars import Detail, detail_variables
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import (
    DOWN,
    SENTINEL,
    SERVER,
    Endpoint,
    group_of,
    normal,
    usable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint, split_endpoint

__all__ = [
    "GROUPS",
    "Seen",
    "SentinelAnswer",
    "WatchedSet",
    "disagreement",
    "endpoints_of",
    "names_of",
    "servers_of",
    "set_of",
]

GROUPS = ("redis_primary", "redis_replica", "redis_sentinel", "redis_sentinel_down", DOWN)


@dataclasses.dataclass(frozen=True)
class Seen:
    """A server or a Sentinel as one Sentinel describes it."""

    fields: t.Mapping[str, str]

    @property
    def address(self) -> str:
        return endpoint(self.fields.get("ip", ""), self.fields.get("port", "0"))

    @property
    def id(self) -> str:
        return self.fields.get("runid", "")

    @property
    def flags(self) -> list[str]:
        return [flag for flag in self.fields.get("flags", "").split(",") if flag]

    @property
    def down(self) -> bool:
        return bool({"s_down", "o_down", "disconnected"} & set(self.flags))

    def number(self, name: str) -> t.Optional[int]:
        text = self.fields.get(name, "")
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else None


@dataclasses.dataclass(frozen=True)
class WatchedSet:
    """One watched primary, with what belongs to it."""

    primary: Seen
    replicas: tuple[Seen, ...] = ()
    sentinels: tuple[Seen, ...] = ()


@dataclasses.dataclass(frozen=True)
class SentinelAnswer:
    """All that one Sentinel stated; ``asked`` is the address by which it was asked, ``id`` its own."""

    asked: str
    id: str
    sets: t.Mapping[str, WatchedSet]


def _seen(answer: t.Any) -> Seen:
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2])
    return Seen({str(name): str(value) for name, value in pairs})


def set_of(primary: t.Any, replicas: t.Iterable[t.Any], sentinels: t.Iterable[t.Any]) -> WatchedSet:
    """One entry of SENTINEL MASTERS with the answers of SENTINEL REPLICAS and SENTINEL SENTINELS for it."""
    return WatchedSet(_seen(primary), tuple(map(_seen, replicas)), tuple(map(_seen, sentinels)))


def names_of(answers: t.Sequence[SentinelAnswer], wanted: t.Sequence[str]) -> list[str]:
    """The names to take: those wanted, or all that are watched. Raises Problem for one that no Sentinel knows."""
    known = sorted({name for answer in answers for name in answer.sets})
    for name in wanted:
        if name not in known:
            raise Problem(
                "unknown_primary_name", f"no Sentinel that answers knows the primary {name!r}; they watch {', '.join(known) or 'nothing'}",
                "a name that they watch", "correct primary_names",
            )  # fmt: skip
    return list(dict.fromkeys(wanted)) or known


def disagreement(answers: t.Sequence[SentinelAnswer], names: t.Iterable[str]) -> str:
    """Who says what, for the first name for which Sentinels name different primaries; empty if there is none."""
    for name in names:
        stated: dict[tuple[str, t.Optional[int]], list[SentinelAnswer]] = {}
        for answer in answers:
            if name in answer.sets:
                stated.setdefault(normal(answer.sets[name].primary.address), []).append(answer)
        if len(stated) > 1:
            return f"{name}: " + "; ".join(
                f"{group[0].sets[name].primary.address} says {', '.join(one.asked for one in group)} "
                f"(configuration epoch {group[0].sets[name].primary.fields.get('config-epoch', '?')})"
                for group in stated.values()
            )
    return ""


def servers_of(answers: t.Sequence[SentinelAnswer], names: t.Sequence[str]) -> tuple[list[str], list[str]]:
    """Addresses of the primaries, and of the replicas."""
    sets = [answer.sets[name] for name in names for answer in answers if name in answer.sets]
    primaries = {one.primary.address for one in sets if usable(one.primary.address)}
    replicas = {replica.address for one in sets for replica in one.replicas if usable(replica.address)}
    return sorted(primaries), sorted(replicas - primaries)


def _verdict(seen: t.Sequence[Seen]) -> Seen:
    """The description that stands for all: of half of the Sentinels or more, where they call it down."""
    down = 2 * sum(one.down for one in seen) >= len(seen)
    return next(one for one in seen if one.down == down)


def _gathered(rows: t.Iterable[Seen]) -> dict[tuple[str, t.Optional[int]], list[Seen]]:
    found: dict[tuple[str, t.Optional[int]], list[Seen]] = {}
    for one in rows:
        if usable(one.address):
            found.setdefault(normal(one.address), []).append(one)
    return found


def _server(
    seen: Seen, role: str, name: str, group: str, primary: Seen, details: t.Optional[t.Mapping[str, Detail]]
) -> Endpoint:
    variables: dict[str, t.Any] = {
        "redis_role": role,
        "redis_primary_name": name,
        "redis_primary": primary.address,
        "redis_address": seen.address,
        "redis_port": split_endpoint(seen.address)[1],
        "redis_flags": seen.flags,
        "redis_quorum": primary.number("quorum"),
        "redis_config_epoch": primary.number("config-epoch"),
        "redis_role_reported": {"master": "primary", "slave": "replica"}.get(seen.fields.get("role-reported", "")),
    }
    if role == "replica":
        up = seen.fields.get("master-link-status") == "ok" and not seen.down
        broken_for = 0 if up else max(seen.number("master-link-down-time") or 0, seen.number("s-down-time") or 0)
        variables.update(
            redis_link="up" if up else "down",
            redis_link_down_seconds=broken_for // 1000,
            redis_priority=seen.number("slave-priority"),
            redis_offset=seen.number("slave-repl-offset"),
        )
    if seen.number("info-refresh") == 0:  # this Sentinel never had an answer from it: these are values to begin with
        for key in ("redis_role_reported", "redis_priority", "redis_offset"):
            variables.pop(key, None)
    down = seen.down
    if details is not None and seen.address in details:
        upstream = details.get(primary.address) if role == "replica" else None
        variables.update(detail_variables(seen.address, details[seen.address], upstream))
        down = down or details[seen.address].down
    if down and role == "replica":
        variables["redis_link"] = "down"
    variables["redis_down"] = down
    return Endpoint(
        SERVER, (seen.address,), (f"redis_{role}", group, f"{group}_{role}", *([DOWN] if down else [])),
        {key: value for key, value in variables.items() if value is not None},
    )  # fmt: skip


@dataclasses.dataclass
class _Heard:
    """Of one Sentinel: how others see it, the primaries that it watches, and the addresses at which it answered itself."""

    seen: list[Seen] = dataclasses.field(default_factory=list)
    watches: set[str] = dataclasses.field(default_factory=set)
    asked: list[str] = dataclasses.field(default_factory=list)
    own_id: str = ""

    def endpoint(self, groups: t.Mapping[str, str]) -> Endpoint:
        """The Sentinel as a host of the inventory."""
        one = _verdict(self.seen) if self.seen else None
        # Who answers is up, whatever the others say of it.
        down = one is not None and one.down and not self.asked
        addresses = tuple(dict.fromkeys([*(row.address for row in self.seen), *self.asked]))
        names = sorted(self.watches)
        variables = {
            "redis_role": "sentinel",
            "redis_down": down,
            "redis_sentinel_myid": one.id if one else self.own_id,
            "redis_sentinel_address": addresses[0],
            "redis_sentinel_flags": one.flags if one else ["sentinel"],
            "redis_sentinel_watches": names,
        }
        member_of = [f"{groups[name]}_sentinel" for name in names]
        return Endpoint(
            SENTINEL,
            addresses,
            ("redis_sentinel", *member_of, *(["redis_sentinel_down", DOWN] if down else [])),
            variables,
        )


def _sentinels(answers: t.Sequence[SentinelAnswer], groups: t.Mapping[str, str]) -> list[Endpoint]:
    heard: dict[str, _Heard] = collections.defaultdict(_Heard)
    for answer in answers:
        own = heard[answer.id or answer.asked]
        own.asked.append(answer.asked)
        own.own_id = own.own_id or answer.id
        watched = [name for name in groups if name in answer.sets]
        own.watches.update(watched)
        for name in watched:
            for other in answer.sets[name].sentinels:
                if usable(other.address):
                    heard[other.id or other.address].seen.append(other)
                    heard[other.id or other.address].watches.add(name)
    return [heard[key].endpoint(groups) for key in sorted(heard)]


def endpoints_of(
    answers: t.Sequence[SentinelAnswer], names: t.Sequence[str], details: t.Optional[t.Mapping[str, Detail]] = None
) -> list[Endpoint]:
    """Every server and every Sentinel, once. The answers agree on the primaries. Raises Problem where groups collide."""
    groups = group_of(names)
    found: dict[tuple[str, t.Optional[int]], Endpoint] = {}
    for name in names:
        sets = [answer.sets[name] for answer in answers if name in answer.sets]
        primary = _verdict([one.primary for one in sets])
        rows = [("primary", primary)] if usable(primary.address) else []
        replicas = _gathered(replica for one in sets for replica in one.replicas)
        replicas.pop(normal(primary.address), None)
        rows += [("replica", _verdict(replicas[key])) for key in sorted(replicas, key=str)]
        for role, seen in rows:
            one = _server(seen, role, name, groups[name], primary, details)
            first = found.setdefault(normal(seen.address), one)
            if first is not one:  # the same server under a second name
                more = tuple(group for group in one.groups if group not in first.groups)
                found[normal(seen.address)] = dataclasses.replace(first, groups=first.groups + more)
    return [*found.values(), *_sentinels(answers, groups)]
