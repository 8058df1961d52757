# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report on a fleet: what is joined, what is judged, and that nothing unknown is called well."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_page import render_html, render_markdown
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_report import ago, fleet_report

from tests.support.fleet import DRIFT, HOUR, NOW, OBJECTIVES, addresses, fleet, iso


def made(size: int = 9, drift=DRIFT):
    return fleet_report(fleet(size), drift, NOW, addresses(size))


def test_sets_are_joined_and_the_worst_stands_first():
    found = made()
    assert found["totals"]["hosts"] == 9
    assert found["totals"]["status"] == {"critical": 2, "warning": 1, "unknown": 1, "ok": 5}
    sets = {one["group"]: one for one in found["groups"]}
    assert [one["status"] for one in found["groups"]] == ["critical", "critical", "unknown"]
    first = sets["set-001"]
    assert (first["hosts"], first["primaries"]) == (["redis-001", "redis-002", "redis-003"], ["redis-001"])
    assert first["verified"]["verdict"] == "missed"
    assert (first["drill"]["rpo_verdict"], first["drill"]["rto_verdict"]) == ("met", "missed")
    assert (sets["set-002"]["crash_loss"]["seconds"], sets["set-002"]["crash_loss"]["verdict"]) == (None, "missed")
    assert found["totals"]["unbounded"] == 1
    assert sets["set-003"]["crash_loss"]["verdict"] == "met"


def test_a_host_without_an_answer_is_unknown_and_told():
    found = made()
    gone = next(row for row in found["hosts"] if row["host"] == "redis-009")
    assert (gone["status"], gone["keys"], gone["crash_loss"]["known"]) == ("unknown", None, False)
    predicted = next(row for row in found["findings"] if row["code"] == "host_unseen")
    assert (predicted["hosts"], predicted["severity"]) == (["redis-009"], "unknown")
    alone = fleet_report({"a": {"msg": "no route"}}, None, NOW)
    assert (alone["groups"][0]["status"], alone["totals"]["status"]["ok"], alone["drift"]) == ("unknown", 0, None)


def test_the_topology_is_drawn_by_who_follows_whom():
    sets = {one["group"]: one for one in made()["groups"]}
    (group,) = sets["set-001"]["topology"]
    assert group["primary"] == "redis-001"
    assert [(one["host"], one["link"]) for one in group["replicas"]] == [("redis-002", "down"), ("redis-003", "up")]
    # a cluster has several primaries in one set
    results = fleet(6)
    for result in results.values():
        if "facts" in result:
            result["facts"]["group_name"] = "shop"
    results["redis-006"] = fleet(7)["redis-006"]
    results["redis-006"]["facts"]["group_name"] = "shop"
    topology = fleet_report(results, None, NOW, addresses(6))["groups"][0]["topology"]
    assert {group["primary"]: [one["host"] for one in group["replicas"]] for group in topology} == {
        "redis-001": ["redis-002", "redis-003"], "redis-004": ["redis-005", "redis-006"],
    }  # fmt: skip


def test_findings_of_several_hosts_are_one_row():
    rows = made()["findings"]
    note = next(row for row in rows if row["code"] == "keyspace_events")
    assert len(note["hosts"]) == 8
    severities = [row["severity"] for row in rows]
    assert severities == sorted(severities, key=["critical", "warning", "unknown", "info"].index)


def joined(hosts: int, verified: dict[str, float]) -> dict:
    """A cluster ``shop`` of shards of three; host → hours since its last verified backup."""
    results = fleet(hosts + 3)
    results = {host: results[host] for host in list(results)[:hosts]}
    for host, result in results.items():
        result["facts"]["group_name"] = "shop"
        age = verified.get(host)
        result["facts"]["last_verified_backup"] = (
            None if age is None else {"name": host, "time": iso(NOW - age * HOUR), "age_seconds": age * HOUR}
        )
    return results


@pytest.mark.parametrize(
    ("verified", "predicted", "without"),
    [
        ({"redis-001": 2, "redis-004": 50}, "redis-004", 0),
        (
            {"redis-001": 2, "redis-003": 1, "redis-004": 50, "redis-006": 40},
            "redis-006",
            0,
        ),  # the newest of each, and of these the oldest
        ({"redis-002": 2, "redis-005": 3}, "redis-005", 0),  # taken on replicas
        ({"redis-001": 2, "redis-002": 1}, None, 1),
        ({}, None, 1),
    ],
)
def test_a_shard_without_a_verified_backup_is_not_hidden_by_another(verified, predicted, without):
    report = fleet_report(joined(6, verified), None, NOW, addresses(6))
    (one,) = report["groups"]
    assert one["primaries"] == ["redis-001", "redis-004"]
    assert (one["verified"]["name"] if one["verified"] else None) == predicted
    assert report["totals"]["without_verified_backup"] == without
    if predicted:
        assert one["verified"]["age_seconds"] == verified[predicted] * HOUR
        assert one["verified"]["verdict"] == ("missed" if verified[predicted] * HOUR > OBJECTIVES["rpo"] else "met")


def test_servers_alone_that_share_a_name_are_judged_by_the_one_that_is_the_worst_off():
    results = {host: joined(6, {"redis-001": 2, "redis-004": 57})[host] for host in ("redis-001", "redis-004")}
    assert fleet_report(results, None, NOW)["groups"][0]["verified"]["verdict"] == "missed"
    results["redis-004"]["facts"]["last_verified_backup"] = None
    report = fleet_report(results, None, NOW)
    assert (report["groups"][0]["verified"], report["totals"]["without_verified_backup"]) == (None, 1)


def test_replicas_of_replicas_and_of_a_primary_that_is_not_seen_are_heeded():
    results = joined(6, {"redis-003": 2, "redis-004": 3})
    results["redis-003"]["facts"]["primary"] = "10.0.0.2:6379"  # redis-002, which follows redis-001
    (one,) = fleet_report(results, None, NOW, addresses(6))["groups"]
    assert one["verified"]["name"] == "redis-004"
    results["redis-003"]["facts"]["primary"] = "10.0.0.99:6379"
    assert fleet_report(results, None, NOW, addresses(6))["groups"][0]["verified"] is None  # redis-001 has none now
    results["redis-002"]["facts"]["last_verified_backup"] = dict(results["redis-004"]["facts"]["last_verified_backup"])
    assert fleet_report(results, None, NOW, addresses(6))["groups"][0]["verified"] is not None
    results["redis-003"]["facts"]["last_verified_backup"] = None
    assert (
        fleet_report(results, None, NOW, addresses(6))["groups"][0]["verified"] is None
    )  # nor has the shard that is not seen


def test_two_replicas_that_follow_each_other_end_the_search():
    results = joined(9, {"redis-001": 2, "redis-004": 3, "redis-007": 1})
    for host, other in (("redis-005", 6), ("redis-006", 5)):
        results[host]["facts"]["primary"] = f"10.0.0.{other}:6379"
    assert fleet_report(results, None, NOW, addresses(9))["groups"][0]["verified"] is None


@pytest.mark.parametrize("size", [1, 3, 50])
def test_page_json_and_markdown_say_the_same(size):
    found = made(size)
    page, text = render_html(found), render_markdown(found)
    assert json.loads(json.dumps(found)) == found
    for one in found["groups"]:
        assert one["group"] in page
        assert f"| {one['group']} | {one['status']} |" in text
    for row in found["findings"]:
        assert row["code"] in page
    assert "http" not in re.sub(r"http-equiv", "", page)  # nothing is fetched from anywhere


def test_what_a_host_says_is_text_and_never_markup():
    results = fleet(3)
    results["redis-001"]["findings"].append(
        {**results["redis-001"]["findings"][0], "severity": "warning", "detected": "<script>alert(1)</script>"}
    )
    results["redis-001"]["facts"]["configured_durability"] = '"><img src=x onerror=alert(1)>'
    page = render_html(fleet_report(results, DRIFT, NOW))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<b>77</b>" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "0 s"), (0.38, "0.38 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (172800, "2.0 d")],
)
def test_spans_of_time(seconds, text):
    assert ago(seconds) == text
