# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup for every shard, of about one time, or a refusal that says what is missing."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.filter.shard_choices import shard_choices

NODES = {
    "n1": {"role": "primary", "slots": ["0-8191"], "group_name": "shop.0-8191"},
    "n2": {"role": "primary", "slots": ["8192-16383"], "group_name": "shop.8192-16383"},
    "n3": {"role": "replica", "slots": [], "group_name": "shop.0-8191"},
}


def on(name: str, *rows: tuple[str, float]) -> list:
    return [{"group": name, "backups": [{"label": label, "state": "verified", "at": at} for label, at in rows]}]


SETS = {
    "n1": on("shop.0-8191", ("old-low", 100.0)),
    "n2": on("shop.8192-16383", ("old-high", 160.0), ("new-high", 9000.0)),
    "n3": on("shop.0-8191", ("new-low", 8990.0)),
}


def test_each_primary_gets_its_shards_wherever_it_lies():
    found = shard_choices(NODES, SETS)
    assert found["refusal"] == ""
    assert {host: (one["label"], one["host"]) for host, one in found["choices"].items()} == {
        "n1": ("new-low", "n3"),
        "n2": ("new-high", "n2"),
    }
    assert found["spread_seconds"] == 10.0


def test_a_moment_in_the_past_and_labels():
    earlier = shard_choices(NODES, SETS, not_after="1000")
    assert [one["label"] for one in earlier["choices"].values()] == ["old-low", "old-high"]
    named = shard_choices(NODES, SETS, wanted={"n1": "old-low", "n2": "old-high"})
    assert named["choices"] == earlier["choices"]


def test_backups_too_far_apart_are_refused():
    found = shard_choices(NODES, SETS, wanted={"n1": "old-low", "n2": "new-high"})
    assert (found["choices"], "8900 seconds" in found["refusal"], "old-low" in found["refusal"]) == ({}, True, True)
    assert shard_choices(NODES, SETS, wanted={"n1": "old-low", "n2": "new-high"}, max_spread=8900)["refusal"] == ""


def test_a_shard_without_a_primary_or_a_backup_is_refused():
    alone = shard_choices({"n1": NODES["n1"], "n3": NODES["n3"]}, SETS)
    assert "8192 of 16384 slots (8192 are nobody's)" in alone["refusal"]
    none = shard_choices(NODES, {"n1": SETS["n1"]})
    assert "of shop.8192-16383" in none["refusal"]
    assert none["choices"] == {}
    twice = shard_choices({**NODES, "n4": NODES["n1"]}, SETS)
    assert "24576 of 16384" in twice["refusal"]
