# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declaring directives: in a file with includes, in a live server, within what the host can give."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import (
    ClientLimit,
    client_limit,
    declare,
    file_change,
    live_change,
    needs_restart,
    plan_config,
    require_fits,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import effective, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, Keyspace
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand


def directives(conf, included=""):
    return expand(conf, lambda path: [(path, included)] if included else [])


def read(text, included=""):
    return directives(RedisConf(text), included)


INCLUDED = "hz 20\nsave 5 5\nclient-output-buffer-limit pubsub 1 1 1\nclient-output-buffer-limit normal 7 7 7\n"
LIMITS = "normal 0 0 0 slave 2 2 2 pubsub 3 3 3"


@pytest.mark.parametrize("included", ["", INCLUDED])
@pytest.mark.parametrize(
    "text",
    [
        "", "include x\n", "hz 10\n", "hz 10\nhz 11\ninclude x\n", "include x\nhz 10\n", "hz 10\ninclude x\nhz 11\n",
        "save 1 1\nsave 2 2\n", "save 1 1\ninclude x\n", "include x\nsave 1 1\n", "save 1 1\ninclude x\nsave 2 2\nsave 3 3\n",
        'save ""\ninclude x\n', "client-output-buffer-limit normal 9 9 9\ninclude x\nclient-output-buffer-limit slave 9 9 9\n",
        "a 1\r\nsave 1 1\r\ninclude x\r\n", "save 1 1\ninclude x",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "value"), [("hz", "50"), ("save", "900 1 300 10"), ("save", ""), ("client-output-buffer-limit", LIMITS)]
)
def test_what_is_declared_is_what_redis_reads(text, included, name, value):
    conf = RedisConf(text)
    if effective(directives(conf, included), name) != value:
        declare(conf, directives(conf, included), name, value)
    assert effective(directives(conf, included), name) == value
    again = conf.render()
    others = [entry for entry in read(text, included) if entry.name != name and entry.main]
    assert [(entry.name, entry.args) for entry in read(again, included) if entry.name != name and entry.main] == [
        (entry.name, entry.args) for entry in others
    ]
    declare(conf, directives(conf, included), name, value)
    assert effective(directives(conf, included), name) == value
    assert conf.render() == again, "a second time it should change nothing"


def test_the_included_file_wins_until_our_line_stands_behind_it():
    conf = RedisConf("hz 10\ninclude x\n")
    declare(conf, directives(conf, "hz 20\n"), "hz", "50")
    assert conf.render() == "include x\nhz 50\n"


# --- differences ------------------------------------------------------------------------------------------------------


def test_differences_in_the_file():
    assert file_change(read("maxmemory 64mb\n"), "maxmemory", "67108864", "f") is None
    assert file_change(read(""), "appendonly", "no", "f") is None  # it is Redis' default
    change = file_change(read("maxmemory 1mb\n"), "maxmemory", "67108864", "f")
    assert (change.layer, change.before, change.after, change.action) == (
        "file",
        "1048576",
        "67108864",
        "write maxmemory to f",
    )
    assert file_change(read(""), "maxmemory", "1", "f").before is None
    assert file_change(read("save 900 1\n"), "save", "", "f").after == '""'


def test_differences_in_the_live_server():
    assert live_change({"maxmemory": "67108864"}, "maxmemory", "67108864") is None
    assert (
        live_change(
            {"notify-keyspace-events": "AKE"}, "notify-keyspace-events", normal("notify-keyspace-events", "KEA")
        )
        is None
    )
    change = live_change({"hz": "10"}, "hz", "50")
    assert (change.layer, change.before, change.after, change.action) == ("live", "10", "50", "CONFIG SET hz")
    assert live_change({}, "hz", "50").before is None


def test_no_secret_reaches_a_difference():
    changes = [
        file_change(read("requirepass old\n"), "requirepass", "new", "f"),
        live_change({"requirepass": "old"}, "requirepass", "new"),
    ]
    for change in changes:
        assert (change.before, change.after) == ("********", "********")
        assert "new" not in change.action
        assert "old" not in change.action


@pytest.mark.parametrize(
    ("name", "live", "restart"),
    [
        ("hz", {}, False), ("tcp-backlog", {}, True), ("appendfilename", {}, True), ("dir", {}, True),
        ("dir", {"enable-protected-configs": "no"}, True), ("dir", {"enable-protected-configs": "local"}, False),
        ("dbfilename", {"enable-protected-configs": "yes"}, False),
    ],
)  # fmt: skip
def test_what_needs_a_restart(name, live, restart):
    assert needs_restart(name, live) == restart


# --- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "hard", "ceiling", "limit"),
    [
        (50000, 65535, None, ClientLimit(50000, None, False)),
        (50000, 50032, None, ClientLimit(50000, None, False)),
        (50000, 50031, None, ClientLimit(49999, None, True)),
        (50000, 10240, None, ClientLimit(10208, None, True)),
        (50000, 20000, 20000, ClientLimit(19968, 19968, False)),
        (50000, 10240, 20000, ClientLimit(10208, 19968, True)),
        (50000, 65535, 65535, ClientLimit(50000, None, False)),
        (10000, 2**31, None, ClientLimit(10000, None, False)),
    ],
)
def test_how_many_clients(wanted, hard, ceiling, limit):
    assert client_limit(wanted, hard, ceiling) == limit


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_live_first_then_the_file():
    plan = plan_config(
        {"hz": "50", "tcp-backlog": "600"}, read("hz 10\n"), "f", {"hz": "10", "tcp-backlog": "511"}, None
    )
    assert [(change.layer, change.name) for change in plan.changes] == [
        ("live", "hz"),
        ("file", "hz"),
        ("file", "tcp-backlog"),
    ]
    assert plan.live == {"hz": "50"}
    assert plan.restart_required == ["tcp-backlog"]


def test_a_stopped_server_has_a_file_only():
    plan = plan_config({"hz": "50"}, read("hz 10\n"), "f", None, None)
    assert ([change.layer for change in plan.changes], plan.live, plan.restart_required) == (["file"], {}, [])


def test_nothing_differs():
    plan = plan_config({"hz": "50"}, read("hz 50\n"), "f", {"hz": "50"}, None)
    assert (plan.changes, plan.live, plan.restart_required, plan.limited) == ([], {}, [], [])


def test_clients_that_the_host_cannot_give_are_told_and_not_asked_for_again():
    limit = client_limit(50000, 20000, 20000)
    plan = plan_config({"maxclients": "50000"}, read("maxclients 50000\n"), "f", {"maxclients": "19968"}, limit)
    assert (plan.changes, plan.live, plan.restart_required) == ([], {}, [])
    assert plan.limited == [{"directive": "maxclients", "declared": 50000, "effective": 19968}]


def test_clients_that_a_restart_can_give():
    limit = client_limit(50000, 10240, None)
    plan = plan_config({"maxclients": "50000"}, read(""), "f", {"maxclients": "10000"}, limit)
    assert (plan.live, plan.restart_required, plan.limited) == ({"maxclients": "10208"}, ["maxclients"], [])


def test_told_against_an_empty_host():
    plan = plan_config({"hz": "50", "requirepass": "x"}, read("hz 50\n"), "f", None, None, fresh_install=True)
    assert [(change.before, change.after) for change in plan.changes] == [(None, "50"), (None, "********")]


LIVE = {"maxmemory": "0", "maxmemory-policy": "noeviction", "cluster-enabled": "no"}


@pytest.mark.parametrize(
    ("wanted", "live", "keyspace", "code"),
    [
        ({}, {}, {0: 5}, None),
        ({"maxmemory": "999"}, {}, {0: 5}, "maxmemory_too_low"),
        ({"maxmemory": "999"}, {}, {}, None),
        ({"maxmemory": "1000"}, {}, {0: 5}, None),
        ({"maxmemory": "0"}, {"maxmemory": "999"}, {0: 5}, None),
        ({"maxmemory": "999"}, {"maxmemory": "999"}, {0: 5}, None),  # it is so already
        ({"maxmemory-policy": "allkeys-lru"}, {"maxmemory": "999"}, {0: 5}, "maxmemory_too_low"),
        ({"maxmemory-policy": "allkeys-lru"}, {}, {0: 5}, None),
        ({"maxmemory": None, "maxmemory-policy": None}, {"maxmemory": "999"}, {0: 5}, None),
        ({"databases": "4"}, {}, {0: 5, 4: 1}, "databases_too_few"),
        ({"databases": "4"}, {}, {0: 5, 3: 1}, None),
        ({"databases": "1"}, {}, {}, None),
        ({"databases": None}, {}, {9: 1}, None),
        ({"cluster-enabled": "yes"}, {}, {0: 5}, "cluster_with_keys"),
        ({"cluster-enabled": "no"}, {"cluster-enabled": "yes"}, {0: 5}, "cluster_with_keys"),
        ({"cluster-enabled": "no"}, {}, {0: 5}, None),
        ({"cluster-enabled": "yes"}, {}, {}, None),
        ({"cluster-enabled": None}, {"cluster-enabled": "yes"}, {0: 5}, None),
    ],
)
def test_the_data_must_fit(wanted, live, keyspace, code):
    info = Info({"used_memory": "1000"}, {number: Keyspace(keys, 0) for number, keys in keyspace.items()})
    if code is None:
        require_fits(wanted, {**LIVE, **live}, info)
        return
    with pytest.raises(Refusal) as caught:
        require_fits(wanted, {**LIVE, **live}, info)
    assert caught.value.code == code
