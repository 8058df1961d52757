# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The table as nft takes it and as versions of nft list it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.nft_ruleset import (
    parse_table,
    render_table,
    same_rule,
    same_table,
    table_lines,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.plan import Tuning, file_text, table_of
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.sources import declared_of

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "firewall"
RECORDED = sorted(FIXTURES.glob("nft-*-everything.json"))
SERVICES = [
    {"name": "redis", "ports": [6380, 6379], "allow_empty": False,
     "sources": ["10.99.1.2", "10.99.1.3", "10.0.0.0/9", "10.128.0.0/9", "192.0.2.1", "192.0.2.2", "fd99:1::/64", "8000::/1"]},
    {"name": "sentinel", "ports": [26379], "sources": ["0.0.0.0/0"], "allow_empty": False},
    {"name": "cluster_bus", "ports": [16379], "sources": [], "allow_empty": True},
]  # fmt: skip
WANTED = table_of(
    declared_of(SERVICES, ["10.99.1.7", "10.99.1.8", "fd99:1::7"], {}), Tuning(50, 60, True, "redisops drop ", 7)
)


def test_there_are_recordings():
    assert [path.name.split("-")[1] for path in RECORDED] == ["0.9.8", "1.0.6", "1.1.3"]


def test_the_file_is_the_one_that_was_recorded():
    assert file_text(WANTED) == (FIXTURES / "everything.nft").read_text()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_every_version_lists_is_what_was_loaded(path):
    live = parse_table(path.read_text(), "redisops")
    assert same_table(live, WANTED)
    assert [name for name, now, wanted in table_lines(live, WANTED) if now != wanted] == []


def test_a_file_that_removes_the_table():
    assert render_table(None, "redisops") == "table inet redisops\ndelete table inet redisops\n"


def objects() -> list[dict]:
    return json.loads((FIXTURES / "nft-1.0.6-everything.json").read_text())["nftables"]


def listed(entries: list[dict]) -> str:
    return json.dumps({"nftables": entries})


def find(entries: list[dict], kind: str, **keys: str) -> dict:
    return next(
        one[kind] for one in entries if kind in one and all(one[kind].get(key) == value for key, value in keys.items())
    )


def spoilt(how) -> bool:
    entries = copy.deepcopy(objects())
    how(entries)
    return same_table(parse_table(listed(entries), "redisops"), WANTED)


@pytest.mark.parametrize(
    "how",
    [
        lambda entries: find(entries, "table").update(flags=["dormant"]),
        lambda entries: find(entries, "table").update(flags="Lester Gooch #5"),  # what 1.0.6 prints for the same
        lambda entries: find(entries, "chain", name="input").update(policy="drop"),
        lambda entries: find(entries, "chain", name="input").update(prio=0),
        lambda entries: find(entries, "set", name="redis_ipv4")["elem"].append("192.0.2.3"),
        lambda entries: find(entries, "set", name="redis_ipv4").pop("elem"),
        lambda entries: find(entries, "set", name="redis_ipv4").update(flags=["interval", "constant"]),
        lambda entries: find(entries, "set", name="redis_ipv4").update({"auto-merge": True}),
        lambda entries: find(entries, "set", name="rate_ipv4").update(size=10),
        lambda entries: find(entries, "set", name="rate_ipv4").update(timeout=1),
        lambda entries: find(entries, "set", name="redis_ports").update(elem=[{"range": [6379, 6380]}]),
        lambda entries: entries.append({"counter": {"family": "inet", "table": "redisops", "name": "mine"}}),
        lambda entries: entries.append({"chain": {"family": "inet", "table": "redisops", "name": "mine"}}),
        lambda entries: entries.remove(next(one for one in reversed(entries) if "rule" in one)),
        lambda entries: find(entries, "rule", chain="on_redis")["expr"].append({"meta": 1}),
        lambda entries: find(entries, "rule", chain="on_redis")["expr"].pop(2),
        lambda entries: find(entries, "rule", chain="on_redis")["expr"][2]["set"]["stmt"][0]["limit"].update(rate=51),
        lambda entries: find(entries, "rule", chain="on_redis")["expr"][2]["set"]["stmt"][0]["limit"].pop("inv"),
        lambda entries: find(entries, "rule", chain="guard")["expr"][0]["match"].update(op="!="),
        lambda entries: find(entries, "rule", chain="guard")["expr"][0]["match"].update(right="eth0"),
        lambda entries: find(entries, "rule", chain="input")["expr"][1]["jump"].update(target="on_redis"),
    ],
)  # fmt: skip
def test_what_is_different_is_seen(how):
    assert not spoilt(how)


@pytest.mark.parametrize(
    "how",
    [
        lambda entries: None,
        lambda entries: entries.reverse() or [entries.remove(one) or entries.append(one) for one in reversed([one for one in entries if "rule" in one])],
        lambda entries: find(entries, "rule", chain="guard")["expr"][1].update(counter={"packets": 5, "bytes": 300}),
        lambda entries: find(entries, "rule", chain="guard")["expr"][1].update(counter=None),
        lambda entries: find(entries, "set", name="rate_ipv4").update(elem=[{"elem": {"val": "10.0.0.1", "expires": 5}}]),
        lambda entries: find(entries, "set", name="rate_ipv4").update(flags=["dynamic", "timeout"]),
        lambda entries: find(entries, "set", name="peers_ipv4").update(elem=[{"range": ["10.99.1.7", "10.99.1.8"]}]),
        lambda entries: find(entries, "set", name="redis_ports").update(elem=[6380, 6379]),
        lambda entries: find(entries, "rule", chain="input")["expr"].insert(0, {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}),
        lambda entries: find(entries, "rule", chain="on_redis")["expr"].insert(0, {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv4"}}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_the_same(how):
    assert spoilt(how)


def test_only_the_unsaid_limit_is_forgiven():
    rule = "ip saddr @a update @b { ip saddr limit rate over 5/second burst 6 packets } counter drop"
    assert same_rule("ip saddr @a update @b { ip saddr } counter drop", rule)
    assert not same_rule(
        "ip saddr @a update @b { ip saddr limit rate over 6/second burst 6 packets } counter drop", rule
    )
    assert not same_rule("ip saddr @a update @c { ip saddr } counter drop", rule)


def test_no_table_and_a_table():
    assert same_table(None, None)
    assert not same_table(None, WANTED)
    assert not same_table(WANTED, None)
    assert not same_table(dataclasses.replace(WANTED, sets=()), WANTED)
    assert ("table inet redisops", [], ["present"]) in table_lines(None, WANTED)


@pytest.mark.parametrize("text", ["", "Error: no", '{"nftables": [', '{"nftables": 1}', '{"nftables": [1]}'])
def test_what_is_no_listing(text):
    with pytest.raises(ValueError):
        parse_table(text, "redisops")
