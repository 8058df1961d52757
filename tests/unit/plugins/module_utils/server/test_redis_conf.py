# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lossless editor of redis.conf."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import (
    ConfSyntaxError,
    RedisConf,
    canonical_name,
    expand,
    join_args,
    quote,
    split_args,
)
from hypothesis import given
from hypothesis import strategies as st

#: What a file read with surrogateescape can hold: any character, and single bytes that are no UTF-8 as U+DC80 to U+DCFF.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
)
TEXT = st.text(CHARACTERS)
ARGUMENT = st.text(CHARACTERS.filter(lambda char: char not in "\r\n"))
NAMES = ["save", "maxmemory", "dir", "client-output-buffer-limit", "Maxmemory", "slave-priority"]
LINE = st.one_of(
    st.just(""),
    st.just("# a comment"),
    st.builds(lambda indent, name, args: f"{indent}{name} {join_args(args)}", st.sampled_from(["", " ", "\t"]),
              st.sampled_from(NAMES), st.lists(ARGUMENT, min_size=1, max_size=3)),
)  # fmt: skip
FILE = st.builds(
    lambda lines, end, last: end.join(lines) + last,
    st.lists(LINE),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n"]),
)


def no_includes(pattern):
    raise AssertionError(f"nothing includes {pattern}")


# --- one line ---------------------------------------------------------------------------------------------------------


@given(ARGUMENT)
def test_what_is_quoted_is_read_back(text):
    assert split_args(quote(text)) == (text,)


@given(st.lists(ARGUMENT))
def test_arguments_are_read_back(args):
    assert split_args(join_args(args)) == tuple(args)


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("", ()),
        ("  save\t900  1 ", ("save", "900", "1")),
        ('save ""', ("save", "")),
        ("requirepass 'a b'", ("requirepass", "a b")),
        (r"requirepass 'it\'s'", ("requirepass", "it's")),
        (r"requirepass 'a\n'", ("requirepass", "a\\n")),
        (r'requirepass "a\"b\\c\n\t"', ("requirepass", 'a"b\\c\n\t')),
        (r'requirepass "\x41\xzz"', ("requirepass", "Axzz")),
        (r'requirepass "\xff"', ("requirepass", "\udcff")),
        ("requirepass a#b", ("requirepass", "a#b")),
        ("requirepass #b", ("requirepass", "#b")),
        ('dir /data/"two words"', ("dir", "/data/two words")),
        (r"requirepass a\nb", ("requirepass", r"a\nb")),
    ],
)
def test_lines_are_split_as_redis_does(line, args):
    assert split_args(line) == args


@pytest.mark.parametrize("line", ['a "b', "a 'b", 'a "b"c', "a 'b'c", 'a "b\\', 'a "b\\"'])
def test_unbalanced_quotes(line):
    with pytest.raises(ValueError, match="quote"):
        split_args(line)
    with pytest.raises(ConfSyntaxError) as caught:
        RedisConf(f"# first\n{line}\n", "some.conf").directives()
    assert "some.conf line 2" in caught.value.message()


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", "plain"),
        ("/a/b-c.d", "/a/b-c.d"),
        ("", '""'),
        ("a b", '"a b"'),
        ("#x", '"#x"'),
        ("a#x", "a#x"),
        ("größe", "größe"),
    ],
)
def test_plain_words_stay_plain(word, written):
    assert quote(word) == written


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("SAVE", "save"), ("slaveof", "replicaof"), ("slave-read-only", "replica-read-only"),
        ("min-slaves-to-write", "min-replicas-to-write"), ("slaves", "slaves"), ("masterauth", "masterauth"),
        ("primaryauth", "masterauth"), ("primaryuser", "masteruser"),
    ],
)  # fmt: skip
def test_todays_names(name, today):
    assert canonical_name(name) == today


# --- the file ---------------------------------------------------------------------------------------------------------


@given(TEXT)
def test_every_text_is_kept(text):
    assert RedisConf(text).render() == text


@given(st.binary())
def test_every_byte_is_kept(content):
    text = content.decode("utf-8", "surrogateescape")
    assert RedisConf(text).render().encode("utf-8", "surrogateescape") == content


@given(FILE, st.sampled_from(["maxmemory", "dir", "replica-priority", "hz"]), ARGUMENT)
def test_set_is_read_back_and_changes_no_other_line(text, name, value):
    conf = RedisConf(text)
    before, mine = text.split("\n"), [entry.number for entry in conf.directives() if entry.name == name]
    conf.set(name, [(value,)])
    after = conf.render().split("\n")
    entries = [entry for entry in conf.directives() if entry.name == name]
    assert entries[-1].args == (value,)
    if mine:
        del before[mine[-1] - 1], after[entries[-1].number - 1]
        assert after == before
    else:
        assert [line for line in after if line] == [line for line in [*before, after[entries[-1].number - 1]] if line]


@given(FILE, st.sampled_from(["maxmemory", "dir"]))
def test_setting_what_is_there_changes_no_other_line(text, name):
    conf = RedisConf(text)
    mine = [entry for entry in conf.directives() if entry.name == name]
    if mine:
        conf.set(name, [mine[-1].args])
        before, after = text.split("\n"), conf.render().split("\n")
        assert len(before) == len(after)
        differing = [number for number, pair in enumerate(zip(before, after), 1) if pair[0] != pair[1]]
        assert set(differing) <= {mine[-1].number}
        assert [entry.args for entry in conf.directives()] == [entry.args for entry in RedisConf(text).directives()]


@given(FILE, st.lists(st.tuples(st.integers(1, 999), st.integers(0, 999)), min_size=1, max_size=3))
def test_save_points_replace_all_their_lines_and_no_other(text, points):
    conf = RedisConf(text)
    values = [tuple(str(number) for number in point) for point in points]
    conf.set("save", values)
    assert [entry.args for entry in conf.directives() if entry.name == "save"] == values
    others = [entry.args for entry in RedisConf(text).directives() if entry.name != "save"]
    assert [entry.args for entry in conf.directives() if entry.name != "save"] == others
    again = conf.render()
    conf.set("save", values)
    assert conf.render() == again


@pytest.mark.parametrize(
    ("text", "values", "result"),
    [
        ("a 1\nhz 10\nb 2\n", [("50",)], "a 1\nhz 50\nb 2\n"),
        ("a 1\n", [("50",)], "a 1\nhz 50\n"),
        ("a 1", [("50",)], "a 1\nhz 50\n"),
        ("", [("50",)], "hz 50\n"),
        ("a 1\r\nhz 10\r\n", [("50",)], "a 1\r\nhz 50\r\n"),
        ("a 1\r\n", [("50",)], "a 1\r\nhz 50\r\n"),
        ("\t  HZ   10  \n", [("50",)], "\t  HZ 50\n"),
        ("hz 1\nhz 2\n", [("50",)], "hz 1\nhz 50\n"),  # the earlier line is the operator's, and without effect
        ("# hz 10\n#hz 20\n", [("50",)], "# hz 10\n#hz 20\nhz 50\n"),
        ("# \udcff\udcfe\n", [("\udcff",)], '# \udcff\udcfe\nhz "\\xff"\n'),
        ("hz 10", [("50",)], "hz 50"),
    ],
)
def test_set(text, values, result):
    conf = RedisConf(text)
    conf.set("hz", values)
    assert conf.render() == result


def test_the_old_spelling_is_kept():
    conf = RedisConf("slave-read-only no\n")
    conf.set("replica-read-only", [("yes",)])
    assert conf.render() == "slave-read-only yes\n"


def test_at_end_stands_behind_an_include():
    conf = RedisConf("hz 10\ninclude extra.conf\n")
    conf.set("hz", [("50",)], at_end=True)
    assert conf.render() == "include extra.conf\nhz 50\n"


def test_remove_takes_all_lines_of_that_name():
    conf = RedisConf("hz 1\n# hz\nHZ 2\na 1\n")
    conf.remove("hz")
    assert conf.render() == "# hz\na 1\n"


# --- includes ---------------------------------------------------------------------------------------------------------


def reader(files):
    return lambda pattern: [(path, files[path]) for path in sorted(files) if pattern in (path, "*")]


def test_includes_are_read_where_they_stand():
    found = expand(RedisConf("a 1\ninclude x\na 3\n", "main"), reader({"x": "a 2\n"}))
    assert [(entry.source, entry.number, entry.args, entry.main, entry.after_include) for entry in found] == [
        ("main", 1, ("1",), True, False),
        ("x", 1, ("2",), False, False),
        ("main", 3, ("3",), True, True),
    ]


def test_after_include_counts_within_one_file():
    found = expand(RedisConf("include x\nd 1\n"), reader({"x": "a 1\ninclude y\nc 1\n", "y": "b 1\n"}))
    assert [(entry.name, entry.after_include) for entry in found] == [
        ("a", False),
        ("b", False),
        ("c", True),
        ("d", True),
    ]


def test_a_glob_that_matches_nothing_is_no_include():
    found = expand(RedisConf("include *\na 1\n"), reader({}))
    assert [(entry.name, entry.after_include) for entry in found] == [("a", False)]


def test_several_files_in_one_include():
    found = expand(RedisConf("include y x\n"), reader({"x": "x 1\n", "y": "y 1\n"}))
    assert [entry.name for entry in found] == ["y", "x"]


def test_includes_that_include_each_other():
    with pytest.raises(ConfSyntaxError) as caught:
        expand(RedisConf("include x\n"), reader({"x": "include y\n", "y": "include x\n"}))
    assert caught.value.code == "conf_include_loop"


def test_a_fault_in_an_included_file_is_found_there():
    with pytest.raises(ConfSyntaxError) as caught:
        expand(RedisConf("include x\n", "main"), reader({"x": '\na "b\n'}))
    assert "x line 2" in caught.value.detected


def test_a_file_without_includes_reads_none():
    assert len(expand(RedisConf("a 1\nb 2\n"), no_includes)) == 2
