# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report on a fleet: what is joined, what is judged, and that nothing unknown is called well."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_page import render_html, render_markdown
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_report import ago, fleet_report

from tests.unit.fleet_made import DRIFT, NOW, OBJECTIVES, addresses, fleet


def made(size: int = 9, drift=DRIFT):
    return fleet_report(fleet(size), drift, OBJECTIVES, NOW, addresses(size))


def test_sets_are_joined_and_the_worst_stands_first():
    found = made()
    assert found["totals"]["hosts"] == 9
    assert found["totals"]["status"] == {"critical": 2, "warning": 1, "unknown": 1, "ok": 5}
    sets = {one["set"]: one for one in found["sets"]}
    assert [one["status"] for one in found["sets"]] == ["critical", "critical", "unknown"]
    first = sets["set-001"]
    assert (first["hosts"], first["primaries"]) == (["redis-001", "redis-002", "redis-003"], ["redis-001"])
    assert first["proven"]["verdict"] == "missed"
    assert (first["drill"]["rpo_verdict"], first["drill"]["rto_verdict"]) == ("met", "missed")
    assert (sets["set-002"]["at_risk"]["seconds"], sets["set-002"]["at_risk"]["verdict"]) == (None, "missed")
    assert found["totals"]["unbounded"] == 1
    assert sets["set-003"]["at_risk"]["verdict"] == "met"


def test_a_host_without_an_answer_is_unknown_and_told():
    found = made()
    gone = next(row for row in found["hosts"] if row["host"] == "redis-009")
    assert (gone["status"], gone["keys"], gone["at_risk"]["known"]) == ("unknown", None, False)
    told = next(row for row in found["findings"] if row["code"] == "host_unseen")
    assert (told["hosts"], told["severity"]) == (["redis-009"], "unknown")
    alone = fleet_report({"a": {"msg": "no route"}}, None, {}, NOW)
    assert (alone["sets"][0]["status"], alone["totals"]["status"]["ok"], alone["drift"]) == ("unknown", 0, None)


def test_the_topology_is_drawn_by_who_follows_whom():
    sets = {one["set"]: one for one in made()["sets"]}
    (group,) = sets["set-001"]["topology"]
    assert group["primary"] == "redis-001"
    assert [(one["host"], one["link"]) for one in group["replicas"]] == [("redis-002", "down"), ("redis-003", "up")]
    # a cluster has several primaries in one set
    results = fleet(6)
    for result in results.values():
        if "facts" in result:
            result["facts"]["set_name"] = "shop"
    results["redis-006"] = fleet(7)["redis-006"]
    results["redis-006"]["facts"]["set_name"] = "shop"
    topology = fleet_report(results, None, {}, NOW, addresses(6))["sets"][0]["topology"]
    assert {group["primary"]: [one["host"] for one in group["replicas"]] for group in topology} == {
        "redis-001": ["redis-002", "redis-003"], "redis-004": ["redis-005", "redis-006"],
    }  # fmt: skip


def test_findings_of_several_hosts_are_one_row():
    rows = made()["findings"]
    note = next(row for row in rows if row["code"] == "keyspace_events")
    assert len(note["hosts"]) == 8
    severities = [row["severity"] for row in rows]
    assert severities == sorted(severities, key=["critical", "warning", "unknown", "note"].index)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_page_json_and_markdown_say_the_same(size):
    found = made(size)
    page, text = render_html(found), render_markdown(found)
    assert json.loads(json.dumps(found)) == found
    for one in found["sets"]:
        assert one["set"] in page
        assert f"| {one['set']} | {one['status']} |" in text
    for row in found["findings"]:
        assert row["code"] in page
    assert "http" not in re.sub(r"http-equiv", "", page)  # nothing is fetched from anywhere


def test_what_a_host_says_is_text_and_never_markup():
    results = fleet(3)
    results["redis-001"]["findings"].append(
        {**results["redis-001"]["findings"][0], "severity": "warning", "seen": "<script>alert(1)</script>"}
    )
    results["redis-001"]["facts"]["promise"] = '"><img src=x onerror=alert(1)>'
    page = render_html(fleet_report(results, DRIFT, OBJECTIVES, NOW))
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
