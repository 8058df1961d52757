# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups stay and which may go, each with its reasons."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = ["FAILED_KEPT", "Candidate", "Decision", "Policy", "decide", "require_policy"]

_DAY = 86400
_EPOCH = datetime.datetime(1970, 1, 1)
#: So many of those that failed stay, to be looked at.
FAILED_KEPT = 2
#: The first second that has a date.
_FIRST = -62135596800


@dataclasses.dataclass(frozen=True)
class Policy:
    """How much stays; what any rule keeps, stays. 0 turns a rule off; with every rule off nothing is ever deleted.

    ``keep_daily`` to ``keep_yearly`` count the newest days, ISO weeks, months and years (UTC) that have a backup, not those that passed:
    where no backup was made for a year, none is deleted for it. ``minimum_redundancy`` verified backups stay whatever the rules say.
    """

    keep_last: int = 0
    keep_within_days: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    minimum_redundancy: int = 1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A backup: ``at`` in seconds since 1970, ``verified`` that it can be restored, ``pinned`` that somebody wants it for good.

    ``failed``: it is not what it was. Such a one takes no other one's place, and stays for a while only to be looked at.
    """

    label: str
    at: int
    verified: bool = False
    pinned: bool = False
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class Decision:
    """``why`` has every reason that holds. ``damage`` is what was found wrong with a verified backup that others would have gone for."""

    label: str
    retained: bool
    why: str
    damage: str = ""


def _date(at: int) -> datetime.date:
    return (_EPOCH + datetime.timedelta(seconds=max(at, _FIRST))).date()


def _week(at: int) -> str:
    year, week, _day = _date(at).isocalendar()
    return f"{year:04}-W{week:02}"


#: Rule → what its periods are called, and the period that a second is in.
_PERIODS: dict[str, tuple[str, t.Callable[[int], str]]] = {
    "keep_daily": ("day", lambda at: _date(at).isoformat()),
    "keep_weekly": ("week", _week),
    "keep_monthly": ("month", lambda at: _date(at).isoformat()[:7]),
    "keep_yearly": ("year", lambda at: _date(at).isoformat()[:4]),
}
_RULES = ("keep_last", "keep_within_days", *_PERIODS)


def require_policy(policy: Policy) -> None:
    """Raise Problem for a policy that says nothing sensible: a negative number, or no verified backup that has to stay."""
    least = {**dict.fromkeys(_RULES, 0), "minimum_redundancy": 1}
    wrong = [f"{name} is {getattr(policy, name)}" for name in least if getattr(policy, name) < least[name]]
    if wrong:
        raise Problem(
            "invalid_value",
            "retention: " + ", ".join(wrong),
            "0 (off) or more; of minimum_redundancy 1 or more",
            "correct the policy",
        )


def _of_periods(past: t.Sequence[Candidate], rule: str, count: int) -> t.Iterator[tuple[Candidate, str]]:
    """The backup that stands for each of the newest ``count`` periods. What it leaves of a period makes the same choice again."""
    word, period_of = _PERIODS[rule]
    periods: dict[str, list[Candidate]] = {}
    for one in past:
        periods.setdefault(period_of(one.at), []).append(one)
    for period, group_hosts in list(periods.items())[:count]:
        verified = [one for one in group_hosts if one.verified]
        kind = "newest verified one" if verified else "newest one, and none is verified,"
        yield (verified or group_hosts)[0], f"the {kind} of {word} {period} ({rule} {count})"


_Reason = tuple[Candidate, str]


def _regardless(
    order: t.Sequence[Candidate], past: t.Sequence[Candidate], policy: Policy, now: int
) -> t.Iterator[_Reason]:
    """What stays whatever the rules say."""
    for one in order:
        if one.pinned:
            yield one, "marked to be kept"
        if one.at > now:
            yield one, f"dated {one.at - now} seconds in the future: a clock is or was wrong, so its age is unknown"
    verified = [one for one in past if one.verified]
    yield from ((one, "the newest verified backup") for one in verified[:1])
    if policy.minimum_redundancy > 1:
        words = f"one of the newest {policy.minimum_redundancy} verified backups (minimum_redundancy)"
        yield from ((one, words) for one in verified[: policy.minimum_redundancy])


def _by_rule(
    order: t.Sequence[Candidate], past: t.Sequence[Candidate], policy: Policy, now: int
) -> t.Iterator[_Reason]:
    """What the rules of the policy keep."""
    if not any(getattr(policy, rule) for rule in _RULES):
        yield from ((one, "every rule of the policy is off") for one in order)
    failed = [one for one in past if one.failed]
    yield from ((one, f"one of the newest {FAILED_KEPT} that failed, to be looked at") for one in failed[:FAILED_KEPT])
    past = [one for one in past if not one.failed]
    yield from ((one, f"one of the newest {policy.keep_last} (keep_last)") for one in past[: policy.keep_last])
    if policy.keep_within_days:
        words = f"not older than {policy.keep_within_days} days (keep_within_days)"
        yield from ((one, words) for one in past if one.at >= now - policy.keep_within_days * _DAY)
    for rule in _PERIODS:
        yield from _of_periods(past, rule, getattr(policy, rule))


def decide(backups: t.Sequence[Candidate], policy: Policy, now: int) -> list[Decision]:
    """What becomes of each backup, newest first. Raises Problem for a policy that require_policy does not pass.

    Deciding again over what stays deletes nothing more, at the same ``now``. A higher number in a rule that is on keeps no less.
    A backup from the future (a clock was wrong) stays, and takes no other one's place.
    """
    require_policy(policy)
    order = sorted(backups, key=lambda one: (one.at, one.label), reverse=True)
    past = [one for one in order if one.at <= now]
    reasons: dict[int, list[str]] = {id(one): [] for one in order}
    for one, why in (*_regardless(order, past, policy, now), *_by_rule(order, past, policy, now)):
        reasons[id(one)].append(why)
    return [
        Decision(one.label, bool(reasons[id(one)]), "; ".join(reasons[id(one)]) or "no rule keeps it") for one in order
    ]
