# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the commands of an append only file end."""

from __future__ import annotations

import io

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence import aof_parser
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import commands, scan_aof
from hypothesis import given
from hypothesis import strategies as st


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


PARTS = [
    b"#TS:1795340219\r\n" + command(b"SELECT", b"0"),
    command(b"SET", b"binary", b"\x00\r\n*3\r\n#TS:1\r\n\xff"),
    b"#TS:1795340221\r\n"
    + command(b"MULTI")
    + command(b"SET", b"a", b"1")
    + command(b"SET", b"b", b"")
    + command(b"EXEC"),
    command(b"SET", b"big", b"x" * 3_000_000),
]
WHOLE = b"".join(PARTS)
ENDS = [len(b"".join(PARTS[:count])) for count in range(len(PARTS) + 1)]


def scan(data: bytes):
    return scan_aof(io.BytesIO(data))


def test_a_whole_file_is_clean():
    found = scan(WHOLE)
    assert (found.ends, found.good_up_to, found.commands, found.timestamp) == ("clean", len(WHOLE), 7, 1795340221)


@pytest.mark.parametrize("length", [*range(1, ENDS[3] + 12), ENDS[3] + 5000, ENDS[3] + 2_500_000, len(WHOLE) - 1])
def test_a_file_that_was_cut_off_is_good_up_to_its_last_whole_command(length):
    found = scan(WHOLE[:length])
    inside_annotation = WHOLE[:length].endswith(b"\n") and length in (16, ENDS[2] + 16)  # the tool takes it for whole
    good = length if inside_annotation else max(end for end in ENDS if end <= length)
    assert found.good_up_to == good
    assert found.ends == ("clean" if good == length else "truncated")


@pytest.mark.parametrize(
    ("at", "byte"),
    [(ENDS[1], b"!"), (ENDS[1] + 1, b"x"), (ENDS[1] + 4, b"%"), (ENDS[1] + 5, b"2"), (ENDS[1] + 5, b"4")],
)
def test_damage_inside_is_told_from_a_tail(at, byte):
    found = scan(WHOLE[:at] + byte + WHOLE[at + 1 :])
    assert (found.ends, found.good_up_to, found.commands, found.timestamp) == ("corrupt", ENDS[1], 1, 1795340219)
    assert found.why


@pytest.mark.parametrize("count", [1, 64, 4096])
def test_zeros_behind_the_end_are_damage(count):
    found = scan(WHOLE + b"\x00" * count)
    assert (found.ends, found.good_up_to, found.at) == ("corrupt", len(WHOLE), len(WHOLE))


def test_nothing_is_clean():
    assert scan(b"").ends == "clean"


# --- the commands one by one ------------------------------------------------------------------------------------------


def rows(data: bytes):
    found = commands(io.BytesIO(data))
    return list(found), found.scan


def test_commands_come_with_their_place_database_and_time():
    found, end = rows(WHOLE)
    assert end == scan(WHOLE)
    assert [(row.name, row.database, row.timestamp) for row in found] == [
        ("SELECT", 0, 1795340219), ("SET", 0, 1795340219), ("MULTI", 0, 1795340221), ("SET", 0, 1795340221),
        ("SET", 0, 1795340221), ("EXEC", 0, 1795340221), ("SET", 0, 1795340221),
    ]  # fmt: skip
    assert [(row.start, row.end) for row in found[:2]] == [(0, ENDS[1]), (ENDS[1], ENDS[2])]
    assert found[1].args == (b"binary", b"\x00\r\n*3\r\n#TS:1\r\n\xff"[:16])
    assert (found[2].start, found[6].end) == (ENDS[2], len(WHOLE))
    assert [row.multi for row in found] == [None, None, *[ENDS[2]] * 4, None]
    assert (found[4].args, found[6].args) == ((b"b", b""), (b"big", b"x" * 16))


def test_the_database_is_unknown_before_select_and_follows_it_within_multi():
    data = (
        command(b"set", b"a", b"1")
        + command(b"MULTI")
        + command(b"SELECT", b"12")
        + command(b"exec")
        + command(b"FLUSHDB")
    )
    assert [row.database for row in rows(data)[0]] == [None, None, 12, 12, 12]


def test_the_times_of_a_file_that_begins_without_one():
    data = (
        command(b"SET", b"a", b"1") * 3
        + b"#TS:20\r\n"
        + command(b"SET", b"a", b"1")
        + b"#TS:10\r\n"
        + command(b"DEL", b"a")
    )
    found, end = rows(data)
    assert [row.timestamp for row in found] == [None, None, None, 20, 10]
    assert (end.first_timestamp, end.timestamp, end.latest_timestamp, end.unstamped) == (20, 10, 20, 3)


def test_annotations_belong_to_the_command_behind_them():
    first, second = command(b"SET", b"a", b"1"), command(b"SET", b"b", b"2")
    data = first + b"#TS:5\r\n# words\r\n#TS:6\r\n" + second
    found, end = rows(data + b"#TS:7\r\n")
    assert [(row.start, row.end, row.timestamp) for row in found] == [(0, len(first), None), (len(first), len(data), 6)]
    assert (end.ends, end.commands_end, end.good_up_to, end.timestamp) == ("clean", len(data), len(data) + 7, 6)


def test_many_arguments_and_long_names():
    data = command(b"x" * 70, *[b"%020d" % number for number in range(5000)])
    row = rows(data)[0][0]
    assert (row.name, row.args, row.end) == ("X" * 64, tuple(b"%016d" % 0 for _ in range(8)), len(data))


def test_a_file_that_stands_elsewhere_than_at_its_beginning():
    handle = io.BytesIO(b"junk" + WHOLE)
    handle.seek(4)
    assert [row.start for row in commands(handle)][:2] == [4, 4 + ENDS[1]]


words = st.builds(
    lambda name, args: [name, *args], st.binary(min_size=1, max_size=9), st.lists(st.binary(max_size=40), max_size=5)
) | st.sampled_from([[b"MULTI"], [b"EXEC"], [b"multi"], [b"SELECT", b"3"], [b"FLUSHALL"], [b"set", b"k", b"FLUSHALL"]])


def one_by_one(patch) -> None:
    """The plain reader: no runs, nothing by regular expression."""
    patch.setattr(aof_parser._Reader, "_run", lambda self: None)
    patch.setattr(aof_parser, "_quick", lambda block, at: None)


@given(st.lists(words, max_size=12), st.integers(1, 40), st.data())
def test_where_the_blocks_end_makes_no_difference(parts, step, data):
    whole = b"".join(b"#TS:%d\r\n" % number * (number % 3 == 1) + command(*part) for number, part in enumerate(parts))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    expected = rows(cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aof_parser, "_STEP", step)
        in_blocks = rows(cut)
        one_by_one(patch)
        plainly = rows(cut)
    assert in_blocks == expected == plainly
    if cut == whole:
        assert [row.name for row in expected[0]] == [part[0].decode("latin-1").upper() for part in parts]


@given(st.lists(words, max_size=30), st.integers(1, 60), st.booleans(), st.binary(max_size=3), st.data())
def test_runs_of_short_commands_are_read_as_one_by_one(parts, least, stamped, junk, data):
    whole = b"".join(b"#TS:%d\r\n" % number * (number % 5 == 1) + command(*part) for number, part in enumerate(parts))
    at = data.draw(st.integers(0, len(whole)))
    broken = whole[:at] + junk + whole[at + data.draw(st.integers(0, 4)) :]

    def found(only):
        reader = commands(io.BytesIO(broken), only, stamped)
        return [(row, reader.plain) for row in reader], reader.scan, scan_aof(io.BytesIO(broken))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aof_parser, "_LEAST_TRY", least)
        in_runs = [found(only) for only in (None, ("FLUSHALL",), ())]
        one_by_one(patch)
        assert in_runs == [found(only) for only in (None, ("FLUSHALL",), ())]
    if not stamped:
        assert [row.name for row, _plain in in_runs[1][0]] == [
            row.name for row, _plain in in_runs[0][0] if row.name == "FLUSHALL"
        ]


def test_it_reads_up_to_an_offset_as_if_the_file_ended_there():
    for length in (ENDS[1], ENDS[2] + 3, ENDS[3] + 5):
        assert scan_aof(io.BytesIO(WHOLE), length) == scan(WHOLE[:length])


def test_a_transaction_without_its_end_is_told_with_what_stands_behind_it():
    torn = command(b"SET", b"a", b"1") + b"#TS:7\r\n" + command(b"MULTI") + command(b"SET", b"torn", b"1")
    found = scan(torn + command(b"SELECT", b"0") + command(b"SET", b"later", b"1"))
    assert (found.ends, found.open_multi, found.in_multi) == ("truncated", len(command(b"SET", b"a", b"1")), 2)
    assert (scan(WHOLE).open_multi, scan(WHOLE).in_multi) == (None, 0)


def test_a_command_without_a_name_is_damage():
    found = scan(command(b"SET", b"a", b"1") + command(b"", b"x") + command(b"SET", b"b", b"1"))
    assert (found.ends, found.commands) == ("corrupt", 1)


@given(st.lists(words, max_size=6), st.binary(max_size=30), st.data())
def test_damage_is_an_end_and_no_error(parts, junk, data):
    whole = b"".join(command(*part) for part in parts)
    at = data.draw(st.integers(0, len(whole)))
    broken = whole[:at] + junk + whole[at:]
    found, end = rows(broken)
    assert end.ends in ("clean", "truncated", "corrupt")
    assert end.commands_end <= end.good_up_to <= len(broken)
    assert scan(broken[: end.good_up_to]).ends == "clean"
    assert [row.end for row in found] == sorted(row.end for row in found)
