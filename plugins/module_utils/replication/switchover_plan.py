# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a planned switch of the primary is safe, and to whom."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import View

__all__ = ["Candidate", "SentinelView", "choose", "require_sentinels", "require_set"]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A replica: its view, how many bytes it is behind, and what keeps it from being promoted ("" for nothing)."""

    view: View
    behind: int = 0
    fault: str = ""
    priority: int = 100


@dataclasses.dataclass(frozen=True)
class SentinelView:
    """What one Sentinel says of the primary: CKQUORUM's answer, whether it is in TILT, the primary's flags, who that is."""

    address: str
    quorum: str = ""
    tilt: bool = False
    flags: str = ""
    failover: str = ""
    primary: str = ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _fault(view: View, primary: View, max_behind: int, newer: bool) -> str:
    """What keeps a replica from taking over. ``newer``: one of a later release may, as in an upgrade; one of an earlier never."""
    behind = primary.offset - view.offset
    if view.role == "unreachable":
        return f"does not answer: {view.because}"
    if view.role != "replica" or view.upstream != primary.address:
        return f"does not replicate {primary.address}"
    if not view.link_up:
        return "has no link to the primary"
    if behind > max_behind:
        return f"is {behind} bytes behind, more than {max_behind}"
    if view.version != primary.version and not (newer and _numbers(view.version) > _numbers(primary.version)):
        return f"runs Redis {view.version}, the primary {primary.version}"
    return ""


def require_set(views: t.Sequence[View]) -> View:
    """The one primary of the group. Raises Refusal."""
    primaries = [view for view in views if view.role == "primary"]
    if len(primaries) != 1:
        reported = ", ".join(f"{view.address} {view.role}" for view in views)
        raise Refusal(
            "not_one_primary", f"the set has {len(primaries)} primaries: {reported}", "one primary that answers",
            "run the role redis_replication, or look at the servers that do not answer",
        )  # fmt: skip
    return primaries[0]


def choose(
    primary: View, others: t.Sequence[Candidate], wanted: t.Optional[str], max_behind: int, newer: bool = False
) -> Candidate:
    """The replica to promote: the one that is wanted, or the one that lacks least. ``newer`` as in _fault(). Raises Problem or Refusal."""
    judged = [
        dataclasses.replace(
            one,
            behind=primary.offset - one.view.offset,
            fault=one.fault or _fault(one.view, primary, max_behind, newer),
        )
        for one in others
    ]
    if wanted:
        found = next((one for one in judged if one.view.address == wanted), None)
        if wanted == primary.address:
            return Candidate(primary)
        if found is None:
            raise Problem("unknown_target", f"{wanted} is none of the group_hosts", "one of them", "correct target")
        if found.priority == 0:
            found = dataclasses.replace(found, fault="has replica-priority 0: it is never to be promoted")
        if found.fault:
            raise Refusal(
                "target_unfit", f"{wanted} cannot take over: it {found.fault}", "a replica that is linked, caught up and of the same version",
                "repair_aof it, or name another target (none lets the best one be chosen)",
            )  # fmt: skip
        return found
    fit = [one for one in judged if not one.fault and one.priority]
    if not fit:
        reported = (
            "; ".join(f"{one.view.address} {one.fault or 'has replica-priority 0'}" for one in judged)
            or "there is no replica"
        )
        raise Refusal(
            "no_target", f"no replica can take over from {primary.address}: {reported}", "a replica that is linked, caught up and of the same version",
            "repair_aof one of them first",
        )  # fmt: skip
    return min(fit, key=lambda one: (one.priority, one.behind, one.view.address))


def require_sentinels(views: t.Sequence[SentinelView], declared: int, primary: str) -> None:
    """The Sentinels must be able to carry the switch, be in none, and mean the same primary. Raises Refusal."""
    faults = [f"{declared - len(views)} of {declared} do not answer"] if len(views) * 2 <= declared else []
    for view in views:
        if not view.quorum.startswith("OK"):
            faults.append(f"{view.address}: {view.quorum}")
        if view.tilt:
            faults.append(f"{view.address} is in TILT: it does not trust its clock and acts on nothing")
        if "down" in view.flags or view.failover not in ("", "no-failover", "none"):
            faults.append(
                f"{view.address} sees the primary as {view.flags}{', failover ' + view.failover if view.failover else ''}"
            )
        if view.primary != primary:
            faults.append(f"{view.address} takes {view.primary} for the primary, and {primary} is")
    if faults:
        raise Refusal(
            "sentinels_unfit", f"the Sentinels cannot carry a switch: {'; '.join(faults)}", "a quorum of Sentinels stopped",
            "wait until the failover or TILT is over, start the Sentinels that are missing, then run again",
        )  # fmt: skip
