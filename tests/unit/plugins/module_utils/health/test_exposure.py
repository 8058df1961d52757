# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Seconds crash loss window: the policy's bound where all is well, and worse where something is seen."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.health.exposure import (
    configured_durability,
    crash_loss_now,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts, LogFacts
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import LogEvent
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile, AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import crash_loss
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, Keyspace

NOW = 1_800_000_000.0
PLACE = Place("/var/lib/redis", "dump.rdb", "appendonlydir", "appendonly.aof")
MANIFEST = AofManifest((AofFile("a.1.base.rdb", 1, "b"),))


def facts_of(fields=(), later=(), keys=5, live=(), disk=(), **more) -> Facts:
    info = {
        "rdb_changes_since_last_save": "3",
        "rdb_last_save_time": str(int(NOW - 10)),
        "rdb_saves": "0",
        "aof_last_write_status": "ok",
        **dict(fields),
    }
    files = DataFiles(PLACE, rdb_bytes=9, rdb_mtime=NOW - 7200, manifest=MANIFEST)
    return Facts(
        NOW, "a", info=Info(info, {0: Keyspace(keys, 0)}), later=Info({**info, **dict(later)}, {0: Keyspace(keys, 0)}), apart=1.0,
        live={"appendonly": "yes", "appendfsync": "everysec", "save": "900 1", "no-appendfsync-on-rewrite": "no", **dict(live)},
        disk=dataclasses.replace(files, **dict(disk)), **more,
    )  # fmt: skip


RDB = {"appendonly": "no"}
BUSY = {"no-appendfsync-on-rewrite": "yes"}
CASES = {
    "always": (facts_of(live={"appendfsync": "always"}), 0, "synced before it is acknowledged"),
    "everysec": (facts_of(), 2, "synced every second"),
    "no": (facts_of(live={"appendfsync": "no"}), 30, "left to the kernel"),
    "a sync is late": (facts_of(later={"aof_delayed_fsync": "1"}), 4, "a sync is late"),
    "a sync is pending at both looks": (facts_of({"aof_pending_bio_fsync": "1"}), 4, "a sync is late"),
    "a sync was pending": (facts_of({"aof_pending_bio_fsync": "1"}, {"aof_pending_bio_fsync": "0"}), 2, "every second"),
    "late once": (facts_of({"aof_delayed_fsync": "7"}), 2, "every second"),
    "late, always": (facts_of(later={"aof_delayed_fsync": "1"}, live={"appendfsync": "always"}), 0, "synced before"),
    "no sync in a rewrite": (facts_of({"aof_rewrite_in_progress": "1", "aof_current_rewrite_time_sec": "12"}, live=BUSY), 12, "runs for 12 s"),
    "no sync in a long save": (facts_of({"rdb_bgsave_in_progress": "1", "rdb_current_bgsave_time_sec": "500"}, live=BUSY), 30, "within about 30 s"),
    "no sync, but nothing runs": (facts_of(live=BUSY), 2, "every second"),
    "a rewrite, with syncs": (facts_of({"aof_rewrite_in_progress": "1", "aof_current_rewrite_time_sec": "12"}), 2, "every second"),
    "the AOF takes nothing": (facts_of({"aof_last_write_status": "err", "aof_buffer_length": "77"}), None, "77 bytes wait in memory"),
    "the AOF is not complete": (facts_of(disk={"missing": ("a.1.base.rdb",)}), 7200, "the AOF on disk is not complete; RDB only"),
    "the AOF is not there": (facts_of(disk={"manifest": None, "rdb_bytes": None}), None, "there is no RDB file"),
    "the one AOF of before 7.0": (facts_of(disk={"manifest": None, "old_style_aof": True}), 2, "every second"),
    "RDB, by the file": (facts_of(live=RDB), 7200, "by the time of its file"),
    "RDB, nothing changed": (facts_of({"rdb_changes_since_last_save": "0"}, live=RDB), 0, "no change since"),
    "RDB, no file": (facts_of(live=RDB, disk={"rdb_bytes": None}), None, "there is no RDB file"),
    "RDB, no file, no keys": (facts_of({"rdb_changes_since_last_save": "0"}, live=RDB, disk={"rdb_bytes": None}, keys=0), 0, "there are no keys"),
    "RDB, a clock that went back": (facts_of(live=RDB, disk={"rdb_mtime": NOW + 50}), None, "by the time of its file"),
    "RDB, of this very second": (facts_of(live=RDB, disk={"rdb_mtime": NOW}), 1, "by the time of its file"),
    "nothing": (facts_of(live={**RDB, "save": ""}), None, "neither AOF nor RDB"),
    "nothing, no keys": (facts_of(live={**RDB, "save": ""}, keys=0), 0, "and no keys"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "seconds", "how"), CASES.values(), ids=CASES)
def test_seconds_at_risk(facts, seconds, how):
    risk = crash_loss_now(facts)
    assert (risk["seconds"], risk["known"]) == (seconds, True)
    assert how in risk["how"]
    assert risk["text"]


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_the_bound_is_that_of_redis_persistence(policy):
    declared = crash_loss({"appendonly": "yes", "appendfsync": policy}, None, None)
    seen = crash_loss_now(facts_of(live={"appendfsync": policy}))
    assert (seen["seconds"], seen["how"], seen["writes"]) == (declared["seconds"], declared["how"], None)


def test_writes_are_counted_where_the_server_does():
    assert crash_loss_now(facts_of(live=RDB))["writes"] == 3
    assert crash_loss_now(facts_of(live=RDB))["text"] == crash_loss({"save": "900 1"}, 3, 7200)["text"]


def test_since_when_the_aof_takes_nothing():
    event = LogEvent("aof_write_error", 1, "2027-01-15T07:00:00Z", "2027-01-15T07:00:00Z", "line")
    facts = facts_of({"aof_last_write_status": "err"}, log=LogFacts((event,)))
    assert "since 2027-01-15T07:00:00Z" in crash_loss_now(facts)["how"]
    past = dataclasses.replace(facts, log=LogFacts((dataclasses.replace(event, over=True),)))
    assert "since" not in crash_loss_now(past)["how"]


NOT_KNOWN = {
    "down": Facts(NOW, "a", "server_down", "nothing listens there"),
    "no CONFIG GET": dataclasses.replace(facts_of(), live=None, missing={"live": "nothing listens there"}),
    "no file, no save since the start": dataclasses.replace(facts_of(live=RDB), disk=None, missing={"disk": "nothing listens there"}),
}  # fmt: skip


@pytest.mark.parametrize("facts", NOT_KNOWN.values(), ids=NOT_KNOWN)
def test_what_is_not_known_is_said_so(facts):
    risk = crash_loss_now(facts)
    assert (risk["seconds"], risk["known"], risk["text"]) == (None, False, "not known")
    assert risk["how"].startswith("not known, because nothing listens there")


def test_info_counts_where_the_file_cannot_be_seen():
    facts = dataclasses.replace(facts_of({"rdb_saves": "1"}, live=RDB), disk=None)
    assert crash_loss_now(facts)["seconds"] == 10
    assert "by INFO" in crash_loss_now(facts)["how"]
    absent = facts_of(live=RDB)
    absent = dataclasses.replace(absent, info=Info({}, {}), later=Info({}, {}))
    assert "has no rdb_changes_since_last_save" in crash_loss_now(absent)["how"]


def test_promises():
    assert configured_durability(facts_of()) == "AOF everysec + RDB (900 1)"
    assert configured_durability(facts_of(live={"save": ""})) == "AOF everysec"
    assert configured_durability(facts_of(live=RDB)) == "RDB (900 1)"
    assert configured_durability(facts_of(live={**RDB, "save": ""})) == "nothing"
    assert configured_durability(dataclasses.replace(facts_of(), live=None)) == ""
