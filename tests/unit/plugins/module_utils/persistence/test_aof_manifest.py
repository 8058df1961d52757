# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest of a multi-part AOF."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    AofFile,
    AofManifest,
    ManifestError,
    parse_manifest,
    unlisted,
)
from hypothesis import given
from hypothesis import strategies as st

BASE = "file appendonly.aof.1.base.rdb seq 1 type b\n"
INCREMENT = "file appendonly.aof.1.incr.aof seq 1 type i\n"


def test_a_manifest_as_redis_writes_it():
    manifest = parse_manifest(BASE + INCREMENT)
    assert manifest.base == AofFile("appendonly.aof.1.base.rdb", 1, "b")
    assert manifest.increments == (AofFile("appendonly.aof.1.incr.aof", 1, "i"),)
    assert manifest.needed == manifest.files
    assert manifest.render() == BASE + INCREMENT


def test_the_offsets_of_redis_8_are_kept():
    text = BASE + "file a seq 1 type i startoffset 10 endoffset 20\nfile b seq 2 type i startoffset 20\n"
    assert [(entry.start, entry.end) for entry in parse_manifest(text).increments] == [(10, 20), (20, -1)]
    assert parse_manifest(text).render() == text


def test_history_is_not_needed():
    manifest = parse_manifest("file old seq 1 type h\n" + BASE + INCREMENT + "file two seq 2 type i\n")
    assert [entry.name for entry in manifest.needed] == [
        "appendonly.aof.1.base.rdb",
        "appendonly.aof.1.incr.aof",
        "two",
    ]
    assert manifest.increments[-1].name == "two"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("file a seq 1 type i startoffset 0\n", "a"),  # Redis 8
        ('file "a b" seq 1 type i\n', "a b"),
        ("# a comment\nfile a seq 1 type i\n", "a"),
        ("file a seq 1 type i\n# a comment without its end", "a"),
        ("FILE a SEQ +1 Type incr\n", "a"),
        ("file x file a seq 2x type i\n", "a"),
        ("  file a seq 1 type i \r\n", "a"),
        ("# " + "x" * 1000 + "\nfile a seq 1 type i\n", "a"),
        ("type i seq 1 file a\n", "a"),
    ],
)
def test_lines_that_redis_reads(line, name):
    assert [entry.name for entry in parse_manifest(line).files] == [name]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1), ("# nothing\n", 1), ("garbage\n", 1), (BASE + "\n" + INCREMENT, 2), ("file a/b seq 1 type i\n", 1),
        ("file a seq x type i\n", 1), ("file a seq ² type i\n", 1), ("file a seq 1 type z\n", 1), ("file a seq 1\n", 1),
        ("file a seq 1 type i", 1), ("file a seq 0 type i\n", 1), ("file a\\b seq 1 type i\n", 1), ("file a seq 1 type I\n", 1),
        (BASE + INCREMENT + INCREMENT, 3), ("file b seq 2 type i\nfile a seq 1 type i\n", 2), ("file a seq -1 type i\n", 1),
        ("#" + "x" * 1100 + "\n" + BASE, 2), (BASE + "file a seq 1 type i " + "x y " * 300 + "\n", 2), ("file a seq 1 type i\0\n", 1),
        ("file a/b file a seq 1 type i\n", 1), (BASE + BASE, 2), ('file "a seq 1 type i\n', 1), ("seq 1 type i\n", 1), ('file "" seq 1 type i\n', 1),
    ],
)  # fmt: skip
def test_what_redis_would_not_start_on(text, line):
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "some.manifest")
    assert f"some.manifest line {line}" in caught.value.detected
    assert caught.value.code == "aof_manifest"


NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\r\n\0"), min_size=1, max_size=100)


@given(
    st.lists(st.tuples(NAME, st.sampled_from("hi"), st.integers(-1, 2**40), st.integers(-1, 2**40)), min_size=1),
    st.none() | st.builds(AofFile, NAME, st.just(1), st.just("b")),
)
def test_what_is_written_is_read_back(rows, base):
    files = [
        AofFile(name, number, kind, *(offsets if kind == "i" else ()))
        for number, (name, kind, *offsets) in enumerate(rows, 1)
    ]
    manifest = AofManifest(tuple([base, *files] if base else files))
    assert parse_manifest(manifest.render()) == manifest


def test_the_base_is_read_first_wherever_it_stands():
    assert [entry.type for entry in parse_manifest(INCREMENT + BASE).needed] == ["b", "i"]


@pytest.mark.parametrize(
    ("text", "lies", "expected"),
    [
        (
            "file a.3.base.rdb seq 3 type b\nfile a.5.incr.aof seq 5 type i\n",
            {"a.4.incr.aof": 9, "a.2.base.rdb": 9},
            [],
        ),
        ("file a.3.base.rdb seq 3 type b\nfile a.5.incr.aof seq 5 type i\n", {"a.6.incr.aof": 9}, ["a.6.incr.aof"]),
        (
            "file a.3.base.rdb seq 3 type b\nfile a.5.incr.aof seq 5 type i\n",
            {"a.6.incr.aof": 0, "a.4.base.rdb": 9},
            [],
        ),
        ("file a.3.base.rdb seq 3 type b\n", {"a.3.incr.aof": 9, "a.2.incr.aof": 9}, ["a.3.incr.aof"]),
        ("file a.5.incr.aof seq 5 type i\n", {"a.3.base.rdb": 9, "other.9.incr.aof": 9}, ["a.3.base.rdb"]),
        ("file a.3.base.rdb seq 3 type b\nfile a.2.incr.aof seq 2 type h\n", {"a.2.incr.aof": 9}, []),
    ],
)
def test_data_that_a_manifest_should_name(text, lies, expected):
    assert unlisted(parse_manifest(text), lies, "a") == expected


@given(st.text())
def test_any_text_is_a_manifest_or_refused(text):
    try:
        assert parse_manifest(text).files
    except ManifestError:
        pass
