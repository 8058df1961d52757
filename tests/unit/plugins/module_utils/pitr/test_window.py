# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which seconds can be recovered, and from which files: what is not known to be whole is never offered."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile, AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import (
    AofSet,
    Increment,
    chains,
    choose,
    window,
)
from hypothesis import given
from hypothesis import strategies as st


def increment(seq, first=None, last=None, unstamped=0, ends="clean"):
    stamped = first is not None
    size = 0 if ends == "missing" else 100 * (stamped + bool(unstamped))
    return Increment(f"/h/a.{seq}.incr.aof", seq, size, first, last or first, unstamped, unstamped + 2 * stamped, ends)


def aof(base, base_at, *increments, name="", **more):
    entries = [AofFile(f"a.{base}.base.rdb", base, "b"), *(AofFile(one.name, one.seq, "i") for one in increments)]
    values = {"base_bytes": 90, "identity": (1, hash((base, name)) % 10**6), **more}
    return AofSet(f"/h/{base}{name}", AofManifest(tuple(entries)), base_at, increments=increments, **values)


FIRST = aof(1, 100, increment(1, 101, 120))
SECOND = aof(2, 130, increment(2, 140, 150))


def code_of(sets, at):
    with pytest.raises(Refusal) as caught:
        choose(sets, at)
    assert all(f"{begins} to {ends}" in caught.value.message() for begins, ends in window(sets))
    return caught.value.code


def test_one_set_reaches_from_its_base_to_its_last_timestamp():
    assert window([FIRST]) == [(100, 120)]
    assert window([dataclasses.replace(FIRST, seen=125)]) == [(100, 125)]
    assert window([aof(1, 100)]) == [(100, 100)]
    assert (code_of([FIRST], 99), code_of([FIRST], 121)) == ("before_history", "after_history")


def test_a_set_that_follows_shows_that_nothing_was_between():
    assert window([SECOND, FIRST]) == [(100, 150)]
    assert [entry.seq for entry in choose([FIRST, SECOND], 129).increments] == [1, 2]
    assert choose([FIRST, SECOND], 130).origin == SECOND
    assert window([FIRST, aof(3, 130, increment(3, 140))]) == [(100, 120), (130, 140)]
    assert code_of([FIRST, aof(3, 130, increment(3, 140))], 125) == "history_gap"
    assert window([FIRST, aof(2, 130, increment(4, 140))]) == [(100, 120), (130, 140)]


def test_a_rewrite_under_way_left_the_next_increment_in_both():
    during = aof(1, 100, increment(1, 101, 120), increment(2, 125))
    assert [(entry.seq, entry.last_ts) for entry in chains([during, SECOND])[0].increments] == [(1, 120), (2, 125)]
    longer = aof(2, 122, increment(2, 125, 150, unstamped=3))
    assert window([during, longer]) == [(100, 150)]


def test_commands_without_a_time_are_in_the_second_that_was_in_force():
    later = aof(2, 120, increment(2, 140, 150, unstamped=5))
    assert window([FIRST, later]) == [(100, 150)]
    assert choose([FIRST, later], 120).origin == later
    assert window([later]) == [(140, 150)]
    assert code_of([later], 130) == "aof_without_timestamps"
    assert window([aof(1, 100, increment(1, 101, 120), increment(2, unstamped=4))]) == [(100, 120)]
    assert window([aof(1, 100, increment(1, unstamped=4), increment(2, 130, 140))]) == [(130, 140)]
    assert window([aof(1, 100, increment(1, unstamped=4), seen=500)]) == []
    assert code_of([aof(1, 100, increment(1, unstamped=4), seen=500)], 400) == "aof_without_timestamps"


@pytest.mark.parametrize(
    "broken",
    [
        aof(1, 100, increment(1, 101, 120), increment(2, ends="missing"), increment(3, 130, 140)),
        aof(1, 100, increment(1, 101, 120), increment(3, 130, 140)),
        aof(1, 100, increment(1, 101, 120, ends="truncated"), increment(2, 130, 140)),
        aof(1, 100, increment(1, 101, 120, ends="corrupt"), increment(2, 130, 140)),
        aof(1, 100, increment(1, 101, 120, ends="corrupt"), seen=500),
    ],
)
def test_a_gap_ends_the_second_before_what_is_left(broken):
    assert window([broken]) == [(100, 119)]
    assert code_of([broken], 120) == code_of([broken], 135) == "history_gap"
    assert window([broken, aof(2, 150, increment(4, 160))]) == [(100, 119), (150, 160)]


def test_a_tail_that_a_crash_cut_off_is_no_gap():
    assert window([aof(1, 100, increment(1, 101, 110), increment(2, 111, 120, ends="truncated"))]) == [(100, 120)]


def test_without_a_base_there_is_nothing():
    lost = dataclasses.replace(FIRST, base_bytes=None)
    assert window([lost]) == []
    assert (code_of([lost], 110), code_of([], 110)) == ("history_gap", "no_aof_history")
    assert code_of([lost, SECOND], 110) == "before_history"


def test_a_fork_is_not_continued_by_what_only_one_branch_led_to():
    left = aof(1, 100, increment(1, 101, 120))
    kept = aof(1, 100, increment(1, 101, 180), name="recovered")
    after = aof(2, 200, increment(2, 201, 210))
    assert window([left, kept, after]) == [(100, 180), (200, 210)]
    assert [choose([left, kept, after], at).origin for at in (110, 120, 121, 205)] == [left, left, kept, after]


def test_copies_are_no_fork():
    whole = aof(1, 100, increment(1, 101, 120), name="copy", seen=122)
    early = aof(1, 100, increment(1, 101, 110), name="early", seen=112)
    assert (
        window([FIRST, whole, SECOND])
        == window([FIRST, early, SECOND])
        == window([FIRST, SECOND, early, whole])
        == [(100, 150)]
    )
    assert choose([FIRST, early, SECOND], 125).origin == FIRST


@st.composite
def histories(draw):
    """Sets as Redis makes them, of which some were lost, and the second up to which each file was written."""
    at, seq, sets = draw(st.integers(1, 50)), 1, []
    for base in range(1, draw(st.integers(2, 6))):
        base_at, files = at, []
        for _file in range(draw(st.integers(1, 3))):
            stamps = sorted(draw(st.sets(st.integers(at + 1, at + 12), max_size=3)))
            files.append(increment(seq, *(stamps[:1] + stamps[-1:])) if stamps else increment(seq))
            at, seq = (stamps or [at])[-1], seq + 1
        if draw(st.booleans()):
            sets.append(aof(base, base_at, *files))
        at += draw(st.integers(0, 5))
    return sets


@given(histories(), st.integers(0, 120))
def test_what_is_offered_can_be_chosen_and_nothing_else(sets, at):
    ranges = window(sets)
    assert ranges == sorted(ranges)
    assert all(begins <= ends for begins, ends in ranges)
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(ranges))
    if any(begins <= at <= ends for begins, ends in ranges):
        found = choose(sets, at)
        assert found.origin.base_at == max(one.base_at for one in sets if one.base_at <= at)
        assert [entry.seq for entry in found.increments] == sorted({entry.seq for entry in found.increments})
    else:
        assert code_of(sets, at) in ("before_history", "after_history", "history_gap", "no_aof_history")
