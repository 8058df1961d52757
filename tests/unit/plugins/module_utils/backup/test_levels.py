# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a level of proof rests on, how old a replica's data is, and when keys run out."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.expiries import MOST_STEPS, gone_by, steps
from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import STATES, compared, missing
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import (
    BackupFile,
    BackupManifest,
    parse_backup_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.plan import require_data_age
from ansible_collections.redisops.recovery.plugins.module_utils.backup.structure_reader import stream_state
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from hypothesis import given
from hypothesis import strategies as st

MANIFEST = BackupManifest(
    "20261124T201500Z-rdb", "orders", "h", "rdb", "primary", "asked", 1.0, 1.0, "Redis 7.0.15", "7.0.15", "r", 1, 0, {"0": [5, 1]}, 10, 1,
    (BackupFile("data/dump.rdb", 1, "0" * 64),), "data/dump.rdb", code="c",
)  # fmt: skip


def test_the_words_are_four():
    assert STATES == ("verified", "loaded", "copied", "failed")


@pytest.mark.parametrize(
    ("change", "sampled", "running", "words"),
    [
        ({}, 3, "Redis 7.0.15", ""),
        ({}, 3, "", ""),
        ({"slack": 4}, 0, "", "4 commands ran in it"),
        ({}, 0, "", "no key was sampled"),
        ({"keys": {}}, 0, "", ""),
        ({"code": ""}, 3, "", "code of functions"),
        ({}, 3, "Redis 8.0.2", "Redis 7.0.15 has loaded it, and Redis 8.0.2 runs"),
    ],
)
def test_why_one_is_not_verified(change, sampled, running, words):
    found = missing(dataclasses.replace(MANIFEST, **change), sampled, "Redis 7.0.15", running)
    assert bool(found) == bool(words)
    assert words in " ".join(found)


def test_what_was_compared_is_listed():
    assert compared(MANIFEST, 3, 2, 1) == [
        "keys and keys with a time to live of each database",
        "type, expiry and content of 3 keys",
        "type, expiry and length of 2 keys that are large, or of a module",
        "code of functions",
        "1 assertions",
    ]
    assert compared(dataclasses.replace(MANIFEST, slack=1), 0, 0, 0) == []


def info(**fields: str) -> Info:
    return Info(fields, {})


@pytest.mark.parametrize(
    ("fields", "age"),
    [
        ({"role": "master"}, 0),
        ({"role": "slave", "master_link_status": "up", "master_sync_in_progress": "0"}, 0),
        ({"role": "slave", "master_link_status": "down", "master_link_down_since_seconds": "77"}, 77),
    ],
)
def test_the_age_of_data(fields, age):
    assert require_data_age(info(**fields)) == age


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"master_link_status": "down", "master_sync_in_progress": "1"}, "replica_syncing"),
        ({"master_link_status": "down", "master_link_down_since_seconds": "-1"}, "replica_not_linked"),
        ({"master_link_status": "down"}, "replica_not_linked"),
    ],
)
def test_data_of_no_known_age(fields, code):
    with pytest.raises(Refusal) as caught:
        require_data_age(info(role="slave", **fields))
    assert caught.value.code == code


@given(st.lists(st.integers(0, 10**13), max_size=60), st.integers(0, 5), st.integers(0, 10**10))
def test_no_more_keys_are_told_as_gone_than_are(times, already, now):
    found = steps(times, already)
    assert sum(count for _second, count in found) == len(times) + already
    assert len(found) <= MOST_STEPS + 1
    told = gone_by(found, now + 2)
    assert told <= sum(time < (now + 2) * 1000 for time in times) + already
    assert gone_by(found, 10**12) == len(times) + already


def test_where_it_was_not_looked_it_is_not_known():
    assert gone_by(None, 5.0) is None
    assert (gone_by([], 5.0), gone_by([[0, 3], [10, 2]], 5.0)) == (0, 3)


FULL = [
    "length", 1, "radix-tree-keys", 1, "last-generated-id", "2-1", "entries", [["1-1", ["f", "v"]]], "groups",
    [["name", "g", "last-delivered-id", "2-1", "entries-read", 2, "lag", 0, "pel-count", 2,
      "pending", [["1-1", "me", 5, 1], ["2-1", "me", 5, 1]], "consumers",
      [["name", "me", "seen-time", 9, "pel-count", 2, "pending", [["1-1", 5, 1], ["2-1", 5, 1]]], ["name", "idle", "pel-count", 0, "pending", []]]]],
]  # fmt: skip


def test_of_a_stream_what_both_forms_of_data_keep():
    assert stream_state(FULL) == {
        "length": 1, "last-generated-id": "2-1",
        "groups": [{"name": "g", "last-delivered-id": "2-1", "pending": [["1-1", "me", 5, 1]],
                    "consumers": [{"name": "me", "pending": [["1-1", 5, 1]]}]}],
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"load_lines": ("save 1 1",)},
        {"load_lines": ("loadmodule /x.so\nrequirepass x",)},
        {"load_lines": ("rename-command X",)},
        {"load_lines": ('loadmodule "/x',)},
        {"server": {"dir": 1}},
        {"settings": {"databases": 16}},
    ],
)
def test_a_manifest_whose_lines_are_others_is_none(change):
    text = dataclasses.replace(MANIFEST, load_lines=("loadmodule /x.so a b", "rename-command DEL remove")).render()
    assert parse_backup_manifest(text).load_lines == ("loadmodule /x.so a b", "rename-command DEL remove")
    with pytest.raises(Problem) as caught:
        parse_backup_manifest(dataclasses.replace(MANIFEST, **change).render())
    assert caught.value.code == "manifest_invalid"
