# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the commands of an append only file end."""

from __future__ import annotations

import io

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.aof_scan import scan_aof


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
