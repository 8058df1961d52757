# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which commands a start takes."""

from __future__ import annotations

import io

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence import aof_parser
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import shapes_of
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.command_table import Shape, table_of

REST = [[], 1, 1, 1, [], [], []]
REPLY = [
    [b"set", -3, *REST, []],
    [b"multi", 1, *REST, []],
    [b"function", -2, *REST, [[b"function|load", -3, *REST, []], [b"function|flush", -2, *REST, []]]],
    [b"old", 2, [], 1, 1, 1],  # as 6.2 says it
]


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        (Shape("set", "", 3), ""),
        (Shape("set", "", 9), ""),
        (Shape("set", "", 2), "SET with 2 words, where at least 3 should stand"),
        (Shape("multi", "", 2), "MULTI with 2 words, where 1 should stand"),
        (Shape("old", "", 2), ""),
        (Shape("function", "load", 3), ""),
        (Shape("function", "nosuch", 3), "FUNCTION NOSUCH is no command of the installed release"),
        (Shape("nosuch", "", 3), "NOSUCH is no command of the installed release"),
    ],
)
def test_what_a_start_fails_on(shape, fault):
    table = table_of(REPLY)
    assert table.fault(shape) == fault
    assert table.knows(shape) is ("no command" not in fault)
    assert table.renamed((), True).fault(shape) == ("" if "no command" in fault else fault)


def test_a_renamed_command_has_its_new_name_only():
    table = table_of(REPLY).renamed([("SET", "put"), ("FUNCTION", "f"), ("MULTI", "")], False)
    assert [table.knows(Shape(name, first, 3)) for name, first in (("set", ""), ("put", ""), ("f", "load"), ("function", "load"), ("multi", ""))] == [
        False, True, True, False, False,
    ]  # fmt: skip


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def test_shapes_are_the_same_in_runs_and_one_by_one(monkeypatch):
    first = command(b"SET", b"k", b"1") * 40
    data = (
        first
        + command(b"set", b"k")
        + command(b"Function", b"LOAD", b"x")
        + command(b"SET", b"big", b"x" * 2000)
        + first
    )
    expected = {
        Shape("set", "", 3): 0,
        Shape("set", "", 2): len(first),
        Shape("function", "load", 3): len(first) + len(command(b"set", b"k")),
    }
    assert shapes_of(io.BytesIO(data), len(data), {"function"}) == expected
    monkeypatch.setattr(aof_parser._Reader, "_run", lambda self: None)
    assert shapes_of(io.BytesIO(data), len(data), {"function"}) == expected
