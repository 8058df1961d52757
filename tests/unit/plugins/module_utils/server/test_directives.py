# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Normal forms: what CONFIG GET would answer."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server import directives
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import (
    DEFAULTS,
    InvalidValue,
    effective,
    file_lines,
    masked,
    memory_bytes,
    normal,
    save_points,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from hypothesis import given
from hypothesis import strategies as st


def reported(text, name, **included):
    return effective(expand(RedisConf(text), lambda path: [(path, included[path])]), name)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("100", 100), ("64mb", 67108864), ("64MB", 67108864), ("1g", 1000000000), ("1G", 1000000000), ("1gb", 1073741824),
        ("1k", 1000), ("1kb", 1024), ("1m", 1000000), ("5b", 5), ("-1", -1),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert memory_bytes(text) == size
    assert normal("maxmemory", text) == str(size)


@pytest.mark.parametrize(
    "text", ["", "mb", "1gib", "1.5gb", "64 bananas", "--5", "5-5", "²", "1 mb", "0x10", "1tb", "100%", "-"]
)
def test_sizes_that_redis_refuses(text):
    with pytest.raises(InvalidValue) as caught:
        memory_bytes(text, "repl-backlog-size")
    assert "repl_backlog_size" in caught.value.do


@given(st.text())
def test_a_size_is_a_number_or_refused(text):
    try:
        assert isinstance(memory_bytes(text), int)
    except InvalidValue:
        pass


@given(
    st.sampled_from(
        [*DEFAULTS, "maxmemory", "notify-keyspace-events", "unixsocketperm", "timeout", "oom-score-adj", "requirepass"]
    ),
    st.text(),
)
def test_a_normal_form_is_one_or_the_value_is_refused(name, text):
    try:
        once = normal(name, text)
    except InvalidValue:
        return
    assert normal(name, once) == once


@pytest.mark.parametrize(
    ("args", "points"),
    [
        ((), ()),
        (("",), ()),
        (("900", "1"), ((900, 1),)),
        (("900", "1", "300", "10"), ((900, 1), (300, 10))),
        (("900", "0"), ((900, 0),)),
        (("900", "1", "900", "1"), ((900, 1), (900, 1))),
    ],
)
def test_save_points(args, points):
    assert save_points(args) == points


@pytest.mark.parametrize(
    "args", [("900",), ("900", "x"), ("0", "1"), ("900", "-1"), ("", ""), ("900", "1", "300"), ("²", "1"), ("1", "²")]
)
def test_save_points_that_redis_refuses(args):
    with pytest.raises(InvalidValue):
        save_points(args)


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("save", "900 1 300 10", "900 1 300 10"), ("save", "", ""), ("save", " 900  1", "900 1"), ("save", "0900 01", "900 1"),
        ("appendonly", "YES", "yes"), ("appendfsync", "EverySec", "everysec"),
        ("maxmemory-clients", "5%", "5%"), ("maxmemory-clients", "1mb", "1048576"),
        ("client-output-buffer-limit", "normal 0 0 0", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
        ("client-output-buffer-limit", "replica 1gb 512mb 030", "normal 0 0 0 slave 1073741824 536870912 30 pubsub 33554432 8388608 60"),
        ("client-output-buffer-limit", "SLAVE 1 1 1 pubsub 2 2 2", "normal 0 0 0 slave 1 1 1 pubsub 2 2 2"),
        ("unixsocketperm", "0770", "770"), ("unixsocketperm", "000", "0"), ("unixsocketperm", "770", "770"),
        ("oom-score-adj", "relative", "yes"), ("oom-score-adj", "absolute", "absolute"),
        ("timeout", "007", "7"), ("oom-score-adj-values", "0 200 800", "0 200 800"),
        ("dir", "/Data/Redis", "/Data/Redis"), ("dbfilename", "007", "007"), ("requirepass", "SeCret", "SeCret"),
        ("tls-ciphers", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"), ("tls-protocols", "TLSv1.2 TLSv1.3", "TLSv1.2 TLSv1.3"),
        ("tls-ciphersuites", "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"), ("locale-collate", "de_DE.UTF-8", "de_DE.UTF-8"),
        ("requirepass", 'a "B" c', 'a "B" c'), ("slave-read-only", "Yes", "yes"), ("replicaof", "Host.Example 6379", "Host.Example 6379"),
    ],
)  # fmt: skip
def test_normal_forms(name, text, form):
    assert normal(name, text) == form
    assert normal(name, form) == form


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("KEA", "AKE", True), ("KEg$lshzxetd", "AKE", True), ("Kg", "gK", True), ("Kg", "KE", False), ("", "", True)],
)
def test_keyspace_events_are_a_set(one, other, same):
    assert (normal("notify-keyspace-events", one) == normal("notify-keyspace-events", other)) == same


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("save", "900"), ("maxmemory", "lots"), ("client-output-buffer-limit", "normal 0 0"), ("client-output-buffer-limit", "strange 0 0 0"),
        ("client-output-buffer-limit", "normal 0 0 x"), ("client-output-buffer-limit", "normal x 0 0"), ("client-output-buffer-limit", ""),
    ],
)  # fmt: skip
def test_values_that_redis_refuses(name, text):
    with pytest.raises(InvalidValue):
        normal(name, text)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("", None),
        ("save 900 1\n", "900 1"),
        ("save 900 1\nsave 300 10\n", "900 1 300 10"),
        ("save 900 1 300 10\n", "900 1 300 10"),
        ('save ""\n', ""),
        ('save 900 1\nsave ""\n', ""),
        ('save ""\nsave 300 10\n', "300 10"),
        ("SAVE 900 1\n", "900 1"),
        ("save 1 1\nsave 2 2\ninclude x\n", "1 1 2 2 3 3 4 4"),  # x itself has no include before its lines
        ("include x\nsave 1 1\n", "1 1"),  # behind an include each line replaces
        ("include x\nsave 1 1\nsave 2 2\n", "2 2"),
        ('include x\nsave ""\n', ""),
        ('include x\nsave ""\nsave 1 1 2 2\n', "1 1 2 2"),
        ("include x\n", "3 3 4 4"),
    ],
)
def test_save_lines_of_a_file(text, points):
    assert reported(text, "save", x="save 3 3\nsave 4 4\n") == points


def test_buffer_limits_of_a_file_merge_by_class():
    text = "client-output-buffer-limit normal 1 1 1\nclient-output-buffer-limit replica 2 2 2\nclient-output-buffer-limit slave 3 3 3\n"
    assert reported(text, "client-output-buffer-limit") == "normal 1 1 1 slave 3 3 3 pubsub 33554432 8388608 60"


def test_the_last_line_of_a_scalar_wins():
    assert reported("maxmemory 1mb\nmaxmemory 2mb\n", "maxmemory") == "2097152"
    assert reported("maxmemory 1mb\ninclude x\n", "maxmemory", x="maxmemory 3mb\n") == "3145728"
    assert reported("slave-priority 5\nreplica-priority 6\n", "replica-priority") == "6"
    assert reported("hz 10\n", "maxmemory") is None


def test_every_default_is_in_normal_form():
    assert {name: normal(name, value) for name, value in DEFAULTS.items()} == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "inherited", "lines"),
    [
        ("save", "900 1 300 10", False, [("900", "1", "300", "10")]),
        ("save", "", False, [("",)]),
        ("save", "900 1", True, [("",), ("900", "1")]),
        ("save", "", True, [("",)]),
        (
            "client-output-buffer-limit",
            "normal 0 0 0 replica 1 1 1",
            False,
            [("normal", "0", "0", "0"), ("replica", "1", "1", "1")],
        ),
        ("dir", "/two words", False, [("/two words",)]),
        ("bind", "127.0.0.1 -::1", False, [("127.0.0.1", "-::1")]),
        ("requirepass", "", False, [("",)]),
        ("requirepass", 'a"b', False, [('a"b',)]),
        ("tls-protocols", "TLSv1.2 TLSv1.3", False, [("TLSv1.2 TLSv1.3",)]),
        ("notify-keyspace-events", "", False, [("",)]),
    ],
)
def test_lines_for_a_file(name, value, inherited, lines):
    assert file_lines(name, value, inherited) == lines


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), max_size=4),
    st.sampled_from(["", "save 3 3\n", "save 1 1\nsave 2 2\n"]),
)
def test_written_save_points_are_read_back(points, before):
    value = " ".join(f"{seconds} {changes}" for seconds, changes in points)
    conf = RedisConf(before)
    conf.set("save", file_lines("save", value))
    assert reported(conf.render(), "save") == value


def test_secrets_are_masked():
    assert masked("requirepass", "x") == masked("MASTERAUTH", "x") == "********"
    assert masked("requirepass", "") == ""
    assert masked("requirepass", None) is None
    assert masked("maxmemory", "1") == "1"


def test_tables_do_not_contradict_each_other():
    assert {name for name in directives.SECRET if name not in directives.NOT_GETTABLE} <= directives.TEXT
    assert directives.IMMUTABLE.isdisjoint(directives.PROTECTED)
    assert set(directives.PERSISTENCE) - {"dir"} <= set(DEFAULTS)
