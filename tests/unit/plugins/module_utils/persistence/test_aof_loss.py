# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""aof_loss against files whose commands are known: what follows a place is counted, damaged or not."""

from __future__ import annotations

import io

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence import aof_loss
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_loss import (
    AfterCorruption,
    after_corruption,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof
from hypothesis import given
from hypothesis import strategies as st

#: Values that look like what a reader of text would look for.
NASTY = [
    b"",
    b"\r\n",
    b"#TS:1\r\n",
    b"\r\n*1\r\n$8\r\nFLUSHALL\r\n#TS:9999999999\r\n",
    b"\x00\xff\x00",
    b"*3\r\n$3\r\nSET\r\n",
]


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def look(raw: bytes, at: int) -> AfterCorruption:
    return after_corruption(io.BytesIO(raw), at)


def test_what_was_overwritten_is_not_counted_as_one_command():
    """A damaged one at the end, and a thousand that were written over, look the same."""
    raw = command(b"SET", b"k", b"v")
    assert look(raw + b"\x55\xaa" * 50000, len(raw)) == AfterCorruption(100000, None)
    assert look(raw + b"\x55\xaa" * 50000 + b"\r\n" + raw, len(raw)).commands == 2


def test_what_is_too_torn_to_be_looked_at_to_its_end_is_not_counted(monkeypatch):
    raw = b"".join(command(b"SET", b"k%d" % number, b"v").replace(b"*3", b"*3\r\n*3") for number in range(20))
    monkeypatch.setattr(aof_loss, "_TRIES", 5)
    assert look(raw, 0).commands is None


SETS = st.lists(st.one_of(st.sampled_from(NASTY), st.binary(max_size=80)), min_size=3, max_size=12)


@given(SETS, st.integers(0, 11))
def test_whole_commands_are_counted(values, begin):
    rows = [command(b"SET", b"k%d" % number, value) for number, value in enumerate(values)]
    begin = min(begin, len(rows))
    raw = command(b"SELECT", b"0") + b"".join(rows)
    at = len(raw) - len(b"".join(rows[begin:]))
    found = look(raw, at)
    assert (found.bytes, found.commands) == (len(raw) - at, len(rows) - begin)


@given(SETS, st.integers(0, 11), st.integers(1, 1000))
def test_a_cut_off_tail_counts_the_command_that_it_cuts(values, begin, cut):
    rows = [command(b"SET", b"k%d" % number, value) for number, value in enumerate(values)]
    raw = b"".join(rows)[:-1]
    cut = min(cut, len(rows[-1]) - 2)
    raw = raw[: len(raw) - cut + 1]
    good = scan_aof(io.BytesIO(raw)).good_up_to
    assert good == len(b"".join(rows[:-1]))
    assert look(raw, good).bytes == len(raw) - good
    begin = min(begin, len(rows) - 1)
    at = len(b"".join(rows[:begin]))
    counted = look(raw, at).commands
    # a value that holds what looks like commands may be taken for them where it is cut off
    assert counted == len(rows) - begin or any(value in NASTY[3:] for value in values[-1:])


@given(st.lists(st.binary(min_size=1, max_size=80), min_size=4, max_size=12), st.integers(0, 11), st.data())
def test_one_damaged_command_costs_itself_and_all_behind_it(values, damaged, data):
    rows = [command(b"SET", b"k%d" % number, value) for number, value in enumerate(values)]
    damaged = min(damaged, len(rows) - 2)
    at = len(b"".join(rows[:damaged]))
    place = data.draw(st.sampled_from([0, 4, 8]))  # *, $, a letter of SET
    row = rows[damaged]
    raw = b"".join([*rows[:damaged], row[:place] + b"\x01" + row[place + 1 :], *rows[damaged + 1 :]])
    good = scan_aof(io.BytesIO(raw))
    if good.ends == "clean":
        return  # the letter: another command, and no damage that anybody could see
    assert good.good_up_to == at
    found = look(raw, at)
    assert (found.bytes, found.commands) == (len(raw) - at, len(rows) - damaged)
    assert found.resumes == len(b"".join(rows[: damaged + 1]))


def test_a_length_that_swallows_the_rest_is_seen_through():
    rows = [command(b"SET", b"k%d" % number, b"x" * 100) for number in range(10)]
    raw = b"".join(rows).replace(b"$100", b"$9900", 1)
    assert scan_aof(io.BytesIO(raw)).ends == "truncated"
    found = look(raw, 0)
    assert (found.commands, found.resumes) == (10, len(rows[0]) + 1)


def test_two_damaged_places_are_both_counted():
    rows = [command(b"SET", b"k%d" % number, b"x" * 100) for number in range(10)]
    rows[2], rows[6] = b"!" + rows[2][1:], b"!" + rows[6][1:]
    found = look(b"".join(rows), len(rows[0]) * 2)
    assert (found.commands, found.resumes) == (8, len(b"".join(rows[:7])))


def test_timestamps_behind_are_told():
    raw = b"#TS:100\r\n" + command(b"SET", b"a", b"1") + b"#TS:105\r\n!" + command(b"SET", b"b", b"2")[1:]
    raw += b"#TS:108\r\n" + command(b"SET", b"c", b"3")
    at = scan_aof(io.BytesIO(raw)).good_up_to
    found = look(raw, at)
    assert (found.commands, found.timestamp) == (2, 108)


@pytest.mark.parametrize("tail", [b"\x00" * 64, b"\x00" * (3 << 20)])
def test_nul_bytes_are_no_trace_of_commands(tail):
    raw = command(b"SET", b"a", b"1") + tail
    found = look(raw, len(raw) - len(tail))
    assert (found.bytes, found.commands) == (len(tail), None)


def test_an_open_transaction_counts_what_is_in_it():
    raw = command(b"MULTI") + command(b"SET", b"a", b"1") + command(b"SET", b"b", b"2")
    assert look(raw, 0).commands == 2
    assert look(raw + b"*2\r\n", 0).commands == 3
    assert look(command(b"MULTI"), 0).commands == 0


def test_an_annotation_at_the_end_is_no_command():
    raw = command(b"SET", b"a", b"1")
    for tail in (b"#TS:1", b"#TS:12\r\n", b"#TS:12\r\n#TS:13"):
        assert look(raw + tail, len(raw)).commands == 0


def test_damage_without_an_end_is_not_known():
    raw = command(b"SET", b"a", b"1") + b"*3\r\n$3\r\nSET\r\n" + b"\xff" * 5000
    found = look(raw, len(command(b"SET", b"a", b"1")))
    assert (found.bytes, found.commands, found.resumes) == (13 + 5000, None, None)
