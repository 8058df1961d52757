# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who gives a backup, whether the host can bear it, and what a set's backups are worth."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.plan import (
    Room,
    choose_method,
    choose_source,
    require_room,
    require_unharmed,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import CODES, render_text, status_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import Replica, View
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import parse_info

GB = 1024**3


def view(name: str, role: str = "replica", link: bool = True, offset: int = 1000, replicas=()) -> View:
    return View(name, role, link_up=link, offset=offset, replicas=tuple(replicas))


def heard(name: str, offset: int = 1000, lag: int = 0) -> Replica:
    return Replica(name, True, offset, lag)


@pytest.mark.parametrize(
    ("replicas", "others", "chosen", "words"),
    [
        ([heard("b"), heard("c")], [view("c"), view("b")], "b", "0 bytes behind"),
        ([heard("b", offset=500), heard("c")], [view("b"), view("c")], "c", "a replica"),
        ([heard("b", lag=60), heard("c")], [view("b"), view("c")], "c", "a replica"),
        ([heard("b")], [view("b", link=False)], "a", "the link of b is down"),
        ([heard("b", offset=500)], [view("b")], "a", "b is 500 bytes behind"),
        ([heard("b", lag=60)], [view("b")], "a", "silent for 60 s"),
        ([], [view("b", "unreachable")], "a", "b does not answer"),
        ([], [], "a", "it has no replica"),
    ],
)
def test_a_level_replica_gives_it_else_the_primary(replicas, others, chosen, words):
    views = [view("a", "primary", replicas=replicas), *others]
    for order in (views, views[::-1]):  # every host of the group comes to the same answer
        found = choose_source(order, max_behind=100, max_lag=10)
        assert found[0] == chosen
        assert words in found[1]


@pytest.mark.parametrize("views", [[view("a")], [view("a", "primary"), view("b", "primary")]])
def test_without_one_primary_nobody_is_chosen(views):
    with pytest.raises(Problem) as found:
        choose_source(views, 100, 10)
    assert found.value.code == "unknown_primary"


@pytest.mark.parametrize(
    ("room", "method", "code"),
    [
        (Room(20 * GB, 20 * GB, GB), "rdb", ""),
        (Room(20 * GB - 1, 20 * GB, GB), "rdb", "disk_space"),
        (Room(20 * GB, 20 * GB - 1, GB), "rdb", "disk_space"),
        (Room(20 * GB, 0, GB), "aof", ""),
        (Room(20 * GB, 20 * GB, GB - 1), "rdb", "fork_memory"),
        (Room(20 * GB, 20 * GB, 0), "aof", ""),
        (Room(20 * GB, None, None), "stream", ""),
    ],
)
def test_room_is_asked_for_with_figures(room, method, code):
    info = parse_info(f"used_memory:{4 * GB}\n")
    if not code:
        require_room(info, method, 10 * GB, room, 25)
        return
    with pytest.raises(Refusal) as found:
        require_room(info, method, 10 * GB, room, 25)
    assert found.value.code == code
    assert str(20 * GB if code == "disk_space" else GB) in found.value.message()


def test_methods_are_what_the_server_can_do():
    assert choose_method("auto", parse_info("aof_enabled:1\n")) == "rdb"
    assert choose_method("aof", parse_info("aof_enabled:1\n")) == "aof"
    with pytest.raises(Problem):
        choose_method("aof", parse_info("aof_enabled:0\n"))
    with pytest.raises(Refusal):
        require_unharmed(parse_info("aof_last_write_status:err\n"))
    require_unharmed(parse_info("aof_last_write_status:ok\n"))


def row(state: str, at: float = 1000.0) -> dict:
    return {
        "label": "20261124T201500Z-rdb", "state": state, "at": at, "bytes": 1500, "keys": 3, "source": "replica", "load_seconds": 2.0,
        "repositories": ["far"], "pinned": True, "why": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("states", "max_age", "code"),
    [
        ([], 0, 1),
        (["copied", "failed"], 0, 2),
        (["verified"], 0, 0),
        (["verified"], 99, 3),
        (["verified"], 100, 0),
        (["verified", "failed"], 0, 4),
        (["loaded", "failed"], 0, 2),
        (["verified", "copied"], 0, 0),
    ],
)
def test_the_status_of_a_set(states, max_age, code):
    rows = [row(state) for state in states]
    assert status_of(rows, max_age, now=1100.0) == code
    text = render_text("orders", rows, code, 1100.0)
    assert text.startswith(f"set orders: {CODES[code]} ({code})\n")
    assert text.count("\n") == 1 + len(rows)
    for words in ("1970-01-01 00:16:40 UTC", "1.5 kB", "3 keys", "also in far", "kept") if rows else ():
        assert words in text
