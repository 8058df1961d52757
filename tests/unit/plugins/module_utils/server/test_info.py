# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""INFO of recorded servers (fixtures/record_redis.py made them)."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Keyspace, parse_info, version_tuple
from hypothesis import given
from hypothesis import strategies as st

RECORDED = sorted((pathlib.Path(__file__).parent / "fixtures" / "info").glob("*.txt"))
VALKEY = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n"


def recorded(name):
    return parse_info(next(path for path in RECORDED if path.stem == name).read_text())


def test_there_are_recordings():
    assert len(RECORDED) >= 3


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recording(path):
    info = parse_info(path.read_text())
    product, version = path.stem.split("-")[:2]
    assert info.product == f"{product.capitalize()} {version}"
    assert info.version == version_tuple(version)
    assert info.number("process_id") > 1
    for name in ("loading", "rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"):
        assert info.text(name) == "0"
        assert not info.flag(name)
    for name in ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"):
        assert info.text(name) == "ok"
    for name in ("rdb_saves", "aof_rewrites", "rdb_changes_since_last_save", "rdb_last_save_time", "used_memory"):
        assert name in info.fields


def test_keys_of_all_databases():
    info = recorded("redis-7.0.15-rdb")
    assert info.keyspace == {0: Keyspace(51, 1), 3: Keyspace(1, 0)}
    assert info.keys == 52
    assert recorded("redis-7.0.15-empty").keys == 0


@pytest.mark.parametrize(("dataset", "expected"), [(1000, 1000), (18446744073709543424, 0), (0, 0)])
def test_a_data_set_below_nothing_is_nothing(dataset, expected):
    """What an empty Redis 8.0 tells: memory less overhead, below zero."""
    assert parse_info(f"used_memory:1500\r\nused_memory_dataset:{dataset}\r\n").dataset_bytes == expected


def test_aof_on_and_off():
    assert not recorded("redis-7.0.15-rdb").flag("aof_enabled")
    aof = recorded("redis-7.0.15-aof")
    assert aof.flag("aof_enabled")
    assert aof.number("aof_base_size") > 0
    assert recorded("redis-7.0.15-rdb").number("aof_base_size", -1) == -1


def test_valkey_is_told_by_its_own_version():
    info = parse_info(VALKEY)
    assert (info.product, info.version) == ("Valkey 8.1.1", (7, 2, 4))


def test_what_is_absent_or_no_number():
    info = parse_info("a:text\r\nb:\r\nc:1:2\r\n")
    assert (info.text("x", "none"), info.number("x", 7), info.number("a", 8), info.flag("a")) == ("none", 7, 8, False)
    assert info.text("c") == "1:2"
    assert info.product == "Redis of unknown version"
    assert (info.version, info.keys) == ((), 0)


@pytest.mark.parametrize(
    ("text", "version"),
    [("7.0.15", (7, 0, 15)), ("8.2-rc1", (8, 2)), ("7", (7,)), ("", ()), ("v7", ()), ("255.255.255", (255, 255, 255))],
)
def test_versions(text, version):
    assert version_tuple(text) == version


@given(st.text())
def test_any_text_is_some_info(text):
    assert parse_info(text).keys >= 0
