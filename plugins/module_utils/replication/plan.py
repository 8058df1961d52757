# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who replicates whom: what is seen decides, the declaration only where nothing exists yet."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import View, contains

__all__ = ["Decision", "agreed", "backlog_bytes", "decide", "loss_window", "require_joinable", "require_same_role"]

#: Redis' own default; less would not survive the blink of a switch.
SMALLEST_BACKLOG = 1024**2
LARGEST_BACKLOG = 1024**3


@dataclasses.dataclass(frozen=True)
class Decision:
    """``primary`` is the address of the group's primary; ``because`` says who decided."""

    primary: str
    because: str


def agreed(answers: t.Mapping[str, t.Optional[str]], name: str) -> t.Optional[str]:
    """The primary that the Sentinels name; None where none of them knows ``name``. Raises Refusal where they differ."""
    named = {answer for answer in answers.values() if answer}
    if len(named) > 1:
        stated = ", ".join(f"{sentinel} says {answer}" for sentinel, answer in sorted(answers.items()) if answer)
        raise Refusal(
            "sentinels_disagree", f"the Sentinels name different primaries of {name}: {stated}", "one view of who is primary",
            "wait until the failover is over (some seconds) and run again; if it stays so: SENTINEL RESET on the one that is wrong, "
            "or SENTINEL REMOVE and MONITOR",
        )  # fmt: skip
    return next(iter(named), None)


def require_same_role(me: View, decision: Decision) -> None:
    """A replica is not made a primary by a wrong address. Raises Refusal."""
    if me.role == "replica" and decision.primary == me.address:
        raise Refusal(
            "own_address_unclear",
            f"this server is taken for {me.address}, the primary ({decision.because}), and it is a replica of {me.upstream}",
            "an address of this server that is no other server's",
            "set redis_replication_address: HOST:PORT for its host in the inventory (or address); while a failover is under way, wait and run again",
        )


def _in_use(view: View, everybody: t.Sequence[View]) -> bool:
    """Whether a primary has something to lose: data, or somebody who follows it."""
    return not view.empty or bool(view.replicas) or any(other.upstream == view.address for other in everybody)


def _root(view: View, views: t.Mapping[str, View]) -> str:
    """The primary at the end of the chain that a replica is part of."""
    seen: set[str] = set()
    while view.upstream in views and views[view.upstream].role == "replica" and view.upstream not in seen:
        seen.add(view.upstream)
        view = views[view.upstream]
    return view.upstream


def _server_text(view: View) -> str:
    return f"{view.address} ({view.keys} keys, offset {view.offset} of history {view.id[:8]}, {len(view.replicas)} replicas)"


def _by_sentinel(sentinel: str, everybody: t.Sequence[View]) -> Decision:
    if sentinel not in {view.address for view in everybody}:
        raise Refusal(
            "unknown_primary", f"Sentinel names {sentinel} as primary, which is none of this group's hosts", "a declaration of all hosts of the group",
            f"add {sentinel} to group_hosts, or correct sentinels and primary_name",
        )  # fmt: skip
    return Decision(sentinel, "Sentinel says so")


def _require_primaries_answer(everybody: t.Sequence[View], peers: t.Sequence[View]) -> None:
    """A peer that follows somebody who does not answer names a primary, too. Raises Refusal."""
    by_address = {one.address: one for one in everybody}
    roots = {view.address: _root(view, by_address) for view in peers if view.role == "replica"}
    lost = set(roots.values()) - {view.address for view in everybody if view.role == "primary"}
    if lost:
        raise Refusal(
            "primary_unreachable",
            f"{', '.join(address for address, root in roots.items() if root in lost)} replicates {', '.join(sorted(lost))}, which does not answer "
            "as a primary from here",
            "a primary that can be asked: this server could otherwise be made a replica of the wrong one",
            "start it, or promote the replica that is right by hand (REPLICAOF NO ONE), then run again",
        )


def _require_one_primary(me: View, others: t.Sequence[View], used: bool) -> None:
    """``me``, a primary that is ``used``, may become a replica of the one other that is. Raises Refusal."""
    apart = used and not me.empty and not contains(others[0], me)
    if len(others) > 1 or apart or me.replicas:
        everyone = [me, *others] if used else list(others)
        raise Refusal(
            "two_primaries",
            f"the group has {len(everyone)} primaries that each hold data or have replicas: {'; '.join(map(_server_text, everyone))}. "
            f"{_what_differs(everyone)}",
            "one primary: whoever becomes a replica throws its own data away",
            "compare their data, decide which is right, save what the other has alone, then on the other: redis-cli REPLICAOF HOST PORT",
        )


def decide(me: View, peers: t.Sequence[View], sentinel: t.Optional[str], declared: t.Optional[str]) -> Decision:
    """The group's primary, seen from ``me``. Addresses are in one spelling throughout. Raises Refusal where it is not known."""
    everybody = [me, *peers]
    if sentinel:
        return _by_sentinel(sentinel, everybody)
    if me.role == "replica":
        return Decision(me.upstream, "it replicates it")
    others = [view for view in peers if view.role == "primary" and _in_use(view, everybody)]
    _require_primaries_answer(everybody, peers)
    used = _in_use(me, everybody)
    if others:
        _require_one_primary(me, others, used)
        return Decision(
            others[0].address,
            "it is the only primary that holds data" if me.empty else "it has all that this server has",
        )
    if used:
        return Decision(me.address, "it is the only primary that holds data or has replicas")
    return _from_declaration(me, peers, declared)


def _what_differs(views: t.Sequence[View]) -> str:
    ids = {view.id for view in views}
    if len(ids) == len(views):
        return "Their histories are different ones: neither is known to have the other's writes"
    return "They share a history, and both went on from it"


def _from_declaration(me: View, peers: t.Sequence[View], declared: t.Optional[str]) -> Decision:
    """Nothing exists yet. Raises Problem where nobody is declared, Refusal where the declared one cannot be asked."""
    if declared is None:
        raise Problem(
            "no_primary", "no server of the group holds data or has replicas, and no primary is declared", "one to begin with",
            "set primary (redis_replication_primary) to one of the group_hosts",
        )  # fmt: skip
    if declared == me.address:
        return Decision(me.address, "it is declared, and nothing existed yet")
    view = next((view for view in peers if view.address == declared), None)
    if view is None:
        raise Problem(
            "no_primary",
            f"the declared primary {declared} is none of the group_hosts",
            "one of the group_hosts",
            "correct primary",
        )
    if view.role == "unreachable":
        raise Refusal(
            "primary_unreachable", f"the declared primary {declared} does not answer: {view.because}", "a primary that can be asked",
            "start it first, or correct primary",
        )  # fmt: skip
    # It replicates somebody itself: follow the one that it follows.
    return Decision(view.upstream or view.address, "it is declared, and nothing existed yet")


def require_joinable(me: View, primary: View) -> None:
    """Before ``me``, a primary so far, throws its data away for ``primary``'s. Raises Refusal."""
    if primary.role == "unreachable":
        raise Refusal(
            "primary_unreachable", f"{primary.address} should be replicated, and does not answer: {primary.because}",
            "a primary that answers", "start it, or look at the network, ACL and TLS between the two",
        )  # fmt: skip
    if primary.role != "primary":
        raise Refusal(
            "not_the_primary", f"{primary.address} should be replicated, and is itself a replica of {primary.upstream}",
            "a primary", "wait until the failover is over, or correct what Sentinel monitors, then run again",
        )  # fmt: skip
    if me.empty or contains(primary, me):
        return
    raise Refusal(
        "two_primaries",
        f"{_server_text(me)} would become a replica of {_server_text(primary)} and throw its own data away. {_what_differs([me, primary])}",
        "a server that is empty, or whose writes are all known to be in the primary",
        "compare their data, save what this one has alone, empty it, then run again",
    )


def backlog_bytes(bytes_per_second: float, outage_seconds: int) -> int:
    """How much of the stream a primary keeps for a replica that comes back: twice the rate for the outage, in powers of two."""
    wanted = 2 * bytes_per_second * outage_seconds
    size = SMALLEST_BACKLOG
    while size < wanted and size < LARGEST_BACKLOG:
        size *= 2
    return size


def loss_window(to_write: int, max_lag: int) -> str:
    """What a partition or a failover may cost, in words."""
    if not to_write:
        return "A primary that is cut off from its replicas goes on taking writes until somebody stops it; after a failover all of them are lost."
    return (
        f"A primary that is cut off from its replicas takes writes for at most {max_lag + 1} seconds (min-replicas-max-lag {max_lag} and one "
        "second until Redis looks); after a failover those are lost. So are writes that were acknowledged and not yet sent when a primary dies."
    )
