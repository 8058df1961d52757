# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backup a name stands for, and on which host it is taken from."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.filter.backup_choice import backup_choice


def on(*rows: tuple[str, str, float]) -> list:
    return [{"group": "orders", "backups": [{"label": label, "state": state, "at": at} for label, state, at in rows]}]


SETS = {
    "a": on(("one", "verified", 1.0), ("three", "failed", 3.0)),
    "b": on(("one", "verified", 1.0), ("two", "verified", 2.0), ("four", "failed", 4.0)),
    "c": [],
}


@pytest.mark.parametrize(
    ("wanted", "here", "label", "host"),
    [
        ("latest_verified", "a", "two", "b"),
        ("latest", "a", "two", "b"),
        ("oldest", "b", "one", "b"),
        ("oldest", "a", "one", "a"),
        ("oldest", "c", "one", "a"),
        ("three", "b", "three", "a"),
        ("four", "a", "four", "b"),
    ],
)
def test_the_choice(wanted, here, label, host):
    found = backup_choice(SETS, wanted, here)
    assert (found["label"], found["host"], found["refusal"]) == (label, host, "")


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [(SETS, "five"), ({"a": []}, "latest"), ({"a": on(("one", "loaded", 1.0))}, "latest_verified")],
)
def test_none_is_said_with_what_there_is(groups, wanted):
    found = backup_choice(groups, wanted)
    assert (found["label"], found["refusal"].startswith("Refused; this task changed nothing.")) == ("", True)
    assert wanted in found["refusal"]
    for label in {row["label"] for one in groups.values() for part in one for row in part["backups"]} - {
        "three",
        "four",
    }:
        assert label in found["refusal"]


def test_a_shard_and_a_moment():
    groups = {"a": [{"group": f"shop.{slots}", "backups": on(*rows)[0]["backups"]} for slots, rows in (
        ("0-1", (("one", "verified", 100.0), ("two", "verified", 200.0))), ("2-3", (("three", "verified", 300.0),)),
    )]}  # fmt: skip
    assert backup_choice(groups, group_name="shop.0-1")["label"] == "two"
    assert backup_choice(groups, group_name="shop.2-3")["label"] == "three"
    older = backup_choice(groups, group_name="shop.0-1", not_after="1970-01-01T00:03:19Z")
    assert (older["label"], older["at"], older["group"]) == ("one", 100.0, "shop.0-1")
    none = backup_choice(groups, group_name="shop.2-3", not_after="299")
    assert (none["label"], none["at"]) == ("", None)
    assert "of shop.2-3 from 299 or before" in none["refusal"]
    assert "yesterday" in backup_choice(groups, not_after="yesterday")["refusal"]
