# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backups stay: examples, and what holds for any backups and any policy."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.retention import (
    Candidate,
    Policy,
    decide,
    require_policy,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from hypothesis import given
from hypothesis import strategies as st

DAY = 86400
RULES = ("keep_last", "keep_within_days", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp())


NOW = at("2024-03-15T12:00:00")


def backup(text: str, verified: bool = True, pinned: bool = False) -> Candidate:
    return Candidate(text, at(text), verified, pinned)


def kept(backups, policy, now=NOW):
    return [one.label for one in decide(backups, policy, now) if one.retained]


def why(backups, policy, label, now=NOW):
    return next(one.why for one in decide(backups, policy, now) if one.label == label)


# --- examples -----------------------------------------------------------------------------------------------------------


def test_newest_first_whatever_the_order_was():
    days = [backup(f"2024-03-{day:02}T01:00:00") for day in (3, 1, 2)]
    assert [one.label[:10] for one in decide(days, Policy(keep_last=1), NOW)] == [
        "2024-03-03",
        "2024-03-02",
        "2024-03-01",
    ]


def test_every_rule_off_keeps_everything():
    backups = [backup(f"20{year:02}-01-01T00:00:00", verified=False) for year in range(10, 24)]
    assert len(kept(backups, Policy())) == len(backups)
    assert len(kept(backups, Policy(minimum_redundancy=3))) == len(backups)
    assert why(backups, Policy(), "2010-01-01T00:00:00") == "every rule of the policy is off"


def test_keep_last_counts_backups():
    backups = [backup(f"2024-03-14T{hour:02}:00:00") for hour in range(6)]
    assert kept(backups, Policy(keep_last=2)) == ["2024-03-14T05:00:00", "2024-03-14T04:00:00"]
    assert why(backups, Policy(keep_last=2), "2024-03-14T00:00:00") == "no rule keeps it"


def test_keep_within_counts_days_to_the_second():
    inside, outside = NOW - 3 * DAY, NOW - 3 * DAY - 1
    backups = [Candidate("in", inside, True), Candidate("out", outside, True)]
    assert kept(backups, Policy(keep_within_days=3)) == ["in"]


@pytest.mark.parametrize(
    ("rule", "times", "expected"),
    [
        # a day ends at midnight UTC
        (
            "keep_daily",
            ["2024-03-14T23:59:59", "2024-03-14T00:00:00", "2024-03-13T23:59:59"],
            ["2024-03-14T23:59:59", "2024-03-13T23:59:59"],
        ),
        # 2024-12-30 is in the first week of 2025
        (
            "keep_weekly",
            ["2025-01-05T00:00:00", "2024-12-30T00:00:00", "2024-12-29T00:00:00"],
            ["2025-01-05T00:00:00", "2024-12-29T00:00:00"],
        ),
        (
            "keep_monthly",
            ["2024-03-31T00:00:00", "2024-03-01T00:00:00", "2024-02-29T00:00:00"],
            ["2024-03-31T00:00:00", "2024-02-29T00:00:00"],
        ),
        (
            "keep_yearly",
            ["2024-12-31T00:00:00", "2024-01-01T00:00:00", "2023-12-31T00:00:00"],
            ["2024-12-31T00:00:00", "2023-12-31T00:00:00"],
        ),
    ],
)
def test_the_newest_of_each_period(rule, times, expected):
    assert kept([backup(time) for time in times], Policy(**{rule: 2}), at("2026-01-01T00:00:00")) == expected


def test_periods_without_a_backup_do_not_count():
    backups = [
        backup("2024-03-14T00:00:00"),
        backup("2023-05-01T00:00:00"),
        backup("2021-01-01T00:00:00"),
        backup("2020-01-01T00:00:00"),
    ]
    assert len(kept(backups, Policy(keep_daily=3))) == 3


def test_a_verified_one_stands_for_its_period():
    backups = [
        backup("2024-03-14T20:00:00", verified=False),
        backup("2024-03-14T10:00:00"),
        backup("2024-03-13T10:00:00", verified=False),
    ]
    assert kept(backups, Policy(keep_daily=2)) == ["2024-03-14T10:00:00", "2024-03-13T10:00:00"]
    assert "newest verified one of day 2024-03-14 (keep_daily 2)" in why(
        backups, Policy(keep_daily=2), "2024-03-14T10:00:00"
    )
    assert "none is verified" in why(backups, Policy(keep_daily=2), "2024-03-13T10:00:00")


def test_the_newest_verified_stays_though_it_is_the_oldest():
    backups = [
        backup("2020-01-01T00:00:00"),
        *(backup(f"2024-03-{day:02}T00:00:00", verified=False) for day in range(1, 10)),
    ]
    policy = Policy(keep_last=1)
    assert kept(backups, policy) == ["2024-03-09T00:00:00", "2020-01-01T00:00:00"]
    assert why(backups, policy, "2020-01-01T00:00:00") == "the newest verified backup"


def test_minimum_redundancy_counts_verified_ones():
    backups = [backup(f"2024-03-{day:02}T00:00:00", verified=day % 2 == 0) for day in range(1, 10)]
    policy = Policy(keep_last=1, minimum_redundancy=3)
    assert kept(backups, policy) == [f"2024-03-{day:02}T00:00:00" for day in (9, 8, 6, 4)]
    assert "minimum_redundancy" in why(backups, policy, "2024-03-04T00:00:00")


def test_what_is_marked_stays():
    backups = [backup("2024-03-14T00:00:00"), backup("2019-01-01T00:00:00", verified=False, pinned=True)]
    assert kept(backups, Policy(keep_last=1)) == ["2024-03-14T00:00:00", "2019-01-01T00:00:00"]
    assert why(backups, Policy(keep_last=1), "2019-01-01T00:00:00") == "marked to be kept"


def test_the_future_stays_and_takes_nobodys_place():
    backups = [Candidate("tomorrow", NOW + 90, True), backup("2024-03-14T00:00:00"), backup("2024-03-13T00:00:00")]
    policy = Policy(keep_last=1)
    assert kept(backups, policy) == ["tomorrow", "2024-03-14T00:00:00"]
    assert "90 seconds in the future" in why(backups, policy, "tomorrow")
    assert "newest verified backup" in why(backups, policy, "2024-03-14T00:00:00")


def test_every_reason_is_said():
    backups = [backup("2024-03-14T00:00:00", pinned=True)]
    reported = why(backups, Policy(2, 5, 1, 1, 1, 1, 2), "2024-03-14T00:00:00")
    assert len(reported.split("; ")) == 9
    for word in ("marked", "newest verified", "minimum_redundancy", *RULES, "2024-W11", "month 2024-03", "year 2024"):
        assert word in reported


def test_times_without_a_date():
    ages = [Candidate("old", -(10**15), True), Candidate("far", 10**15, False)]
    assert kept(ages, Policy(keep_yearly=1)) == ["far", "old"]


@pytest.mark.parametrize("rule", [*RULES, "minimum_redundancy"])
def test_a_policy_that_says_nothing_sensible(rule):
    policy = Policy(**{"keep_last": 1, rule: -1})
    for verify in (lambda: require_policy(policy), lambda: decide([], policy, NOW)):
        with pytest.raises(Problem) as caught:
            verify()
        assert caught.value.code == "invalid_value"
        assert f"{rule} is -1" in caught.value.detected


def test_no_redundancy_at_all_is_none():
    with pytest.raises(Problem, match="minimum_redundancy is 0"):
        require_policy(Policy(minimum_redundancy=0))
    require_policy(Policy())


def test_those_that_failed_take_no_others_place_and_two_of_them_stay():
    backups = [
        *(Candidate(f"failed-{day}", NOW - day * DAY, failed=True) for day in range(1, 5)),
        Candidate("good", NOW - 5 * DAY, True),
        Candidate("older", NOW - 6 * DAY, True),
        Candidate("kept", NOW - 9 * DAY, failed=True, pinned=True),
    ]
    assert kept(backups, Policy(keep_last=1)) == ["failed-1", "failed-2", "good", "kept"]
    assert kept(backups, Policy(keep_last=2)) == ["failed-1", "failed-2", "good", "older", "kept"]
    assert len(kept(backups, Policy())) == len(backups)
    assert "to be looked at" in why(backups, Policy(keep_last=1), "failed-1")


# --- what always holds ----------------------------------------------------------------------------------------------------

#: Close together and far apart, so that periods are shared and are not; some are in the future.
AGES = st.one_of(
    st.integers(-2 * DAY, 10 * DAY), st.integers(0, 1500 * DAY), st.sampled_from([0, 1, DAY, 7 * DAY, 365 * DAY])
)
BACKUPS = st.lists(st.tuples(AGES, st.booleans(), st.booleans()), max_size=40).map(
    lambda rows: [
        Candidate(f"b{number}", NOW - age, verified, keep) for number, (age, verified, keep) in enumerate(rows)
    ]
)
COUNTS = st.integers(0, 6)
POLICIES = st.builds(Policy, *[COUNTS] * len(RULES), st.integers(1, 5))


def of(labels, backups):
    return [one for one in backups if one.label in set(labels)]


@given(BACKUPS, POLICIES)
def test_every_backup_gets_one_decision_with_a_reason(backups, policy):
    decisions = decide(backups, policy, NOW)
    assert sorted(one.label for one in decisions) == sorted(one.label for one in backups)
    assert all(one.why for one in decisions)
    assert all((one.why == "no rule keeps it") != one.retained for one in decisions)
    ages = {one.label: one.at for one in backups}
    assert [ages[one.label] for one in decisions] == sorted(ages.values(), reverse=True)


@given(BACKUPS, POLICIES)
def test_the_newest_verified_ones_are_never_deleted(backups, policy):
    stay = set(kept(backups, policy))
    verified = sorted(
        (one for one in backups if one.verified and one.at <= NOW), key=lambda one: (one.at, one.label), reverse=True
    )
    assert {one.label for one in verified[: policy.minimum_redundancy]} <= stay
    ever = sorted((one for one in backups if one.verified), key=lambda one: one.at, reverse=True)
    assert {one.label for one in ever[:1]} <= stay


@given(BACKUPS, POLICIES)
def test_marked_and_future_ones_are_never_deleted(backups, policy):
    assert {one.label for one in backups if one.pinned or one.at > NOW} <= set(kept(backups, policy))


@given(BACKUPS, POLICIES)
def test_deciding_again_deletes_nothing(backups, policy):
    stay = kept(backups, policy)
    assert kept(of(stay, backups), policy) == stay


@given(BACKUPS, POLICIES, st.sampled_from([*RULES, "minimum_redundancy"]), st.integers(1, 5))
def test_a_policy_that_asks_for_more_keeps_no_less(backups, policy, rule, more):
    if not any(getattr(policy, name) for name in RULES):
        policy = dataclasses.replace(policy, keep_last=1)  # from "everything" any rule is less
    larger = dataclasses.replace(policy, **{rule: getattr(policy, rule) + more})
    assert set(kept(backups, policy)) <= set(kept(backups, larger))


@given(BACKUPS, POLICIES)
def test_the_union_of_the_rules_and_nothing_else(backups, policy):
    rules = [Policy(**{rule: getattr(policy, rule)}) for rule in RULES if getattr(policy, rule)]
    if rules:
        alone = {label for one in rules for label in kept(backups, one)}
        verified = sorted(
            (one for one in backups if one.verified and one.at <= NOW),
            key=lambda one: (one.at, one.label),
            reverse=True,
        )
        assert set(kept(backups, policy)) == alone | {one.label for one in verified[: policy.minimum_redundancy]}


@given(BACKUPS, POLICIES, st.randoms(use_true_random=False))
def test_the_order_of_the_list_says_nothing(backups, policy, random):
    shuffled = list(backups)
    random.shuffle(shuffled)
    assert decide(shuffled, policy, NOW) == decide(backups, policy, NOW)


@given(BACKUPS, st.integers(1, 6))
def test_a_day_whose_backups_were_verified_keeps_a_verified_one(backups, count):
    stay = of(kept(backups, Policy(keep_daily=count)), backups)
    past = sorted((one for one in backups if one.at <= NOW), key=lambda one: one.at, reverse=True)
    days = list(dict.fromkeys(one.at // DAY for one in past))[:count]
    for day in days:
        assert any(one.at // DAY == day for one in stay)
        if any(one.verified for one in past if one.at // DAY == day):
            assert any(one.verified for one in stay if one.at // DAY == day)
