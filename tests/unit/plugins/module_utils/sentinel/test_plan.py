# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Sentinel says, what is declared, and what follows from the two."""

from __future__ import annotations

import contextlib
import json
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import SentinelConf
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.plan import (
    Declared,
    Item,
    Now,
    Primary,
    advice,
    cautions,
    changes_of,
    declared_of,
    edit,
    is_example,
    options_of,
    plan_items,
    require_announced,
    require_names,
    require_port,
    require_quiet,
    require_restartable,
    reset_changes,
    settings_of,
    stale_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import (
    Known,
    Watched,
    fields_of,
    usable_of,
    watched_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "sentinel"
SAID = json.loads((FIXTURES / "redis-7.0.15-sentinel.json").read_text())
ENTRY = {
    "name": "m", "quorum": 2, "group_hosts": ["a", "b"], "primary": "a", "down_after_milliseconds": 30000, "failover_timeout": 180000,
    "parallel_syncs": 1, "auth_user": None, "auth_password": None, "notification_script": None, "client_reconfig_script": None,
}  # fmt: skip
PARAMS = {
    "resolve_hostnames": False, "announce_hostnames": False, "announce_ip": "", "announce_port": 0, "sentinel_user": None,
    "sentinel_password": None, "port": 26379, "tls_port": 0, "tls_replication": False, "tls_auth_clients": "yes", "tls_cert_file": None,
    "tls_key_file": None, "tls_ca_cert_file": None, "settings": {},
}  # fmt: skip


def entry(**more):
    return {**ENTRY, **more}


def peers(*flags):
    return tuple(
        Known("sentinel", f"192.0.2.{number}:26379", (flag,), f"id{number}") for number, flag in enumerate(flags, 2)
    )


def watched(*flags, quorum="2", **more):
    return Watched("m", "192.0.2.1:6379", ("master",), {"quorum": quorum}, sentinels=peers(*flags), **more)


# --- reading ------------------------------------------------------------------------------------------------------------


def test_a_recorded_answer():
    one = watched_of(SAID["MASTERS"][0], SAID["REPLICAS orders"], SAID["SENTINELS orders"])
    assert (one.name, one.address, one.flags, one.config_epoch) == ("orders", "127.0.0.1:21379", ("master",), 0)
    assert one.options["quorum"] == "2"
    assert [(known.kind, known.address, known.up) for known in (*one.replicas, *one.sentinels)] == [
        ("replica", "127.0.0.1:21380", False),
        ("sentinel", "127.0.0.1:22380", True),
    ]
    assert one.replicas[0].down_for >= 3
    assert stale_of(one, 3) == [one.replicas[0]]
    assert stale_of(one, 3600) == []
    assert [change.action for change in reset_changes({"orders": one}, ["orders"], 3)] == ["SENTINEL RESET orders"]


def test_recorded_options_and_quorum():
    assert fields_of(SAID["CONFIG GET *"])["announce-ip"] == "127.0.0.1"
    assert fields_of({"a": 1}) == {"a": "1"}
    assert usable_of(SAID["CKQUORUM orders"]) == (True, 2)
    assert usable_of(SAID["CKQUORUM orders, out of reach"]) == (False, 2)


# --- the declaration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([entry(quorum=4)], "quorum_too_large"),
        ([entry(quorum=0)], "invalid_value"),
        ([entry(name="two words")], "invalid_value"),
        ([entry(), entry()], "contradiction"),
        ([entry(parallel_syncs=0)], "invalid_value"),
        ([entry(auth_user="w")], "contradiction"),
        ([entry(auth_password="sesa me")], "unwritable_word"),
        ([entry(auth_password='sesa"me')], "unwritable_word"),
        ([entry(auth_password="sesa\tme")], "unwritable_word"),
        ([entry(notification_script="tell")], "invalid_value"),
        ([entry(notification_script="/opt/two words")], "unwritable_word"),
    ],
)
def test_declarations_that_cannot_be(entries, code):
    with pytest.raises(Problem) as found:
        declared_of(entries, 3)
    assert found.value.code == code
    assert "sesa" not in found.value.message()


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"tls_port": 26380}, "contradiction"),
        ({"port": 0}, "contradiction"),
        ({"settings": {"appendonly": True}}, "unknown_directive"),
        ({"settings": {"port": 1}}, "contradiction"),
    ],
)
def test_settings_that_cannot_be(params, code):
    with pytest.raises(Problem) as found:
        settings_of({**PARAMS, **params})
    assert found.value.code == code


def test_settings_and_options_in_normal_form():
    found = settings_of({**PARAMS, "settings": {"protected_mode": False, "bind": ["*", "-::*"], "loglevel": "Verbose"}})
    assert (found["protected-mode"], found["bind"], found["loglevel"]) == ("no", "* -::*", "verbose")
    assert options_of({**PARAMS, "sentinel_password": "x"})["sentinel-pass"] == "x"
    with pytest.raises(Problem) as refused:
        options_of({**PARAMS, "sentinel_user": "x"})
    assert refused.value.code == "contradiction"
    require_port(found, 26379, None)
    require_port(found, 1, "/run/s")
    with pytest.raises(Problem):
        require_port(found, 26380, None)


# --- the plan -----------------------------------------------------------------------------------------------------------


def plan(now=None, entries=(ENTRY,), addresses=None, gone=(), **params):
    declared = Declared(
        declared_of(list(entries), 3), options_of({**PARAMS, **params}), settings_of({**PARAMS, **params})
    )
    return plan_items(declared, now or Now(), addresses or {"m": "192.0.2.1:6379"}, gone)


def test_what_is_new():
    items = plan(entries=[entry(down_after_milliseconds=5000, auth_user="w", auth_password="x")])
    assert items == [
        Item("m", "monitor", None, "192.0.2.1 6379 2"), Item("m", "down-after-milliseconds", None, "5000"),
        Item("m", "auth-user", None, "w"), Item("m", "auth-pass", None, "x"),
    ]  # fmt: skip
    live, file = changes_of(items, True, "/s.conf"), changes_of(items, False, "/s.conf")
    assert [change.action for change in live][:2] == ["SENTINEL MONITOR m", "SENTINEL SET m down-after-milliseconds"]
    assert {change.layer for change in file} == {"file"}
    assert "x" not in [change.after for change in live]


def test_a_primary_that_is_watched_keeps_its_address():
    now = Now({"m": {"monitor": "192.0.2.9 6379 2"}})
    assert plan(now) == []
    assert plan(now, [entry(quorum=3)]) == [Item("m", "quorum", "2", "3")]


def test_what_is_the_default_needs_no_line():
    assert plan(Now({"m": {"monitor": "192.0.2.9 6379 2", "parallel-syncs": "1"}})) == []
    assert plan(Now({"m": {"monitor": "192.0.2.9 6379 2", "parallel-syncs": "4"}})) == [
        Item("m", "parallel-syncs", "4", "1")
    ]


def test_logins_that_are_not_declared_stay_and_empty_ones_go():
    now = Now(
        {"m": {"monitor": "192.0.2.9 6379 2", "auth-pass": "x", "auth-user": "w"}}, options={"sentinel-pass": "p"}
    )
    assert plan(now) == []
    assert plan(now, [entry(auth_user="", auth_password="")], sentinel_password="") == [
        Item("", "sentinel-pass", "p", ""),
        Item("m", "auth-user", "w", ""),
        Item("m", "auth-pass", "x", ""),
    ]


def test_the_example_goes_and_strangers_stay():
    now = Now({"left": {"monitor": "192.0.2.7 6379 2"}}, {"mymaster": "127.0.0.1 6379 2"})
    items = plan(now)
    assert items[0] == Item("mymaster", "monitor", "127.0.0.1 6379 2", None)
    assert [item.of for item in items] == ["mymaster", "m"]
    assert plan(now, gone=["left"])[0] == Item("left", "monitor", "192.0.2.7 6379 2", None)
    # of the same name, it is replaced
    again = plan(now, [entry(name="mymaster")], {"mymaster": "192.0.2.1:6379"})
    assert again == [Item("mymaster", "monitor", "127.0.0.1 6379 2", "192.0.2.1 6379 2")]


def test_one_primary_under_two_names():
    now = Now({"orders": {"monitor": "192.0.2.1 6379 2"}})
    with pytest.raises(Problem) as found:
        plan(now)
    assert found.value.code == "unknown_primary_name"
    assert "orders" in found.value.message()
    assert [item.of for item in plan(now, gone=["orders"])] == ["orders", "m"]


def test_directives_of_the_start():
    directives = RedisConf("port 26379\nloglevel verbose\n").directives()
    now = Now({"m": {"monitor": "192.0.2.1 6379 2"}}, directives=directives)
    assert plan(now, settings={"tcp-backlog": 511}) == []
    items = plan(now, settings={"loglevel": "notice"})
    assert items == [Item(None, "loglevel", "verbose", "notice", live=False)]
    assert changes_of(items, True, "/s.conf")[0].action == "write loglevel to /s.conf"


def test_the_file_of_a_stopped_sentinel():
    text = "# kept\nport 26379\nsentinel monitor mymaster 127.0.0.1 6379 2\nsentinel parallel-syncs mymaster 1\n"
    conf = SentinelConf(text)
    now = Now({}, {"mymaster": "127.0.0.1 6379 2"}, directives=conf.directives())
    items = plan(now, [entry(auth_password="x")], announce_ip="192.0.2.5", port=26380)
    assert edit(conf, items) == (
        "# kept\nport 26380\nsentinel monitor m 192.0.2.1 6379 2\nsentinel auth-pass m x\n"
    ).replace("port 26380\n", "port 26380\nsentinel announce-ip 192.0.2.5\n")
    conf = SentinelConf("sentinel monitor m 192.0.2.9 6379 2\nsentinel myid x\n")
    assert edit(conf, [Item("m", "quorum", "2", "3")]) == "sentinel monitor m 192.0.2.9 6379 3\nsentinel myid x\n"


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, True),
        ({"address": "127.0.0.1:6380"}, False),
        ({"name": "orders"}, False),
        ({"sentinels": peers("sentinel")}, False),
        ({"config_epoch": 3}, False),
    ],
)
def test_what_counts_as_the_example(more, found):
    assert is_example(Watched(**{"name": "mymaster", "address": "127.0.0.1:6379", **more}), []) is found
    assert not is_example(Watched("mymaster", "127.0.0.1:6379"), ["127.0.0.1:6379"])


# --- proofs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (watched("sentinel", "sentinel"), None),
        (watched("sentinel", "s_down"), "quorum_at_risk"),
        (watched("sentinel", "disconnected"), "quorum_at_risk"),
        (watched("sentinel", "sentinel", quorum="3"), "quorum_at_risk"),
        (watched("sentinel", "sentinel", "sentinel", "s_down", quorum="2"), None),
        (watched("sentinel", "sentinel", "s_down", "s_down", quorum="2"), "quorum_at_risk"),
        (watched("sentinel"), None),
        (watched(), None),
        (Watched("m", "a:1", ("master", "failover_in_progress"), {"quorum": "1"}), "failover_in_progress"),
        (Watched("m", "a:1", ("master", "o_down", "s_down"), {"quorum": "1"}), "failover_in_progress"),
    ],
)
def test_whether_one_may_be_taken_away(one, code):
    with pytest.raises(Refusal) if code else contextlib.nullcontext() as refused:
        require_restartable([one], False)
    assert not code or refused.value.code == code


def test_tilt_waits():
    with pytest.raises(Refusal) as found:
        require_quiet([], True, "a reset")
    assert found.value.code == "tilt"


def test_addresses_that_are_taken():
    one = watched("sentinel", "sentinel")
    require_announced("192.0.2.1:26379", "mine", [one], {"192.0.2.2:26379": "192.0.2.2:26379"})
    require_announced("192.0.2.2:26379", "id2", [one], {})  # its own entry, as others tell it
    for others in ({}, {"other:26379": "192.0.2.2:26379"}):
        with pytest.raises(Refusal) as found:
            require_announced("192.0.2.2:26379", "mine", [one], others)
        assert found.value.code == "duplicate_announce"


def test_a_name_that_is_not_there():
    with pytest.raises(Problem) as found:
        require_names(["typo"], {"orders", "carts"}, "reset")
    assert "carts, orders" in found.value.message()


def test_advice_and_cautions():
    three = ["a:26379", "b:26379", "c:26379"]
    one = Primary("m", 2, {})
    assert advice([one], three, {}) == []
    assert advice([one], three, {"a": "x", "b": "y", "c": "z"}) == []
    assert "failure domain x" in advice([one], three, {"a": "x", "b": "x", "c": "z"})[0]
    assert "even number" in advice([one], [*three, "d:26379"], {})[0]
    assert "at least 3" in advice([one], ["a:26379"], {})[0]
    assert "quorum of 1" in advice([Primary("m", 1, {})], three, {})[0]
    predicted = cautions(True, {"m": {"can_fail_over": False, "usable": 1, "flags": ["s_down"], "address": "a"}}, ["x"], ["y"], False)  # fmt: skip
    assert len(predicted) == 5
    assert cautions(False, {}, ["x"], ["y"], True) == []
