# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sentinel's own users."""

from __future__ import annotations

import contextlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import Scope
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import CommandTable, hash_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_plan import (
    OURS,
    PEER,
    PRESETS,
    lost_peers,
    plan_users,
    require_logins,
    users_of,
    words_of_users,
)

CONNECTION = frozenset(
    ["ping", "auth", "hello", "client|setname", "client|kill", "client|list", "client|pause", "client|unpause", "client|no-evict"]
)  # fmt: skip
TABLE = CommandTable(
    {
        "connection": CONNECTION,
        "all": frozenset({*OURS, *PEER, *CONNECTION, "role", "subscribe", "shutdown"}),
    }
)
OPEN = {"default": ("on", "nopass", "~*", "&*", "+@all")}


def user(name, preset, **more):
    return {"name": name, "preset": preset, "rules": [], "passwords": ["x"], "nopass": False, "enabled": True, **more}


USERS = words_of_users([user("ops", "admin"), user("peer", "peer"), user("shop", "client")], "off")


def test_users_of_the_file():
    assert users_of(["default on nopass ~* &* +@all", "a on #" + "b" * 64]) == {**OPEN, "a": ("on", "#" + "b" * 64)}


def test_a_stopped_sentinel_has_them_in_its_file_and_a_running_one_live():
    stopped = plan_users(USERS, None, {}, None, "/s.conf", Scope())
    assert {change.layer for change in stopped.changes} == {"file"}
    assert stopped.file_after["default"][0] == "off"
    running = plan_users(USERS, dict(OPEN), {}, TABLE, "/s.conf", Scope())
    assert {change.layer for change in running.changes} == {"live"}
    first = plan_users(USERS, dict(OPEN), {}, TABLE, "/s.conf", Scope(withdraw=False))
    assert "default" not in [name for name, _words, _before in first.live]
    assert not first.settled
    second = plan_users(USERS, {**OPEN, **{name: USERS[name] for name in ("ops", "peer", "shop")}}, {}, TABLE, "/s.conf", Scope())  # fmt: skip
    assert [change.action for change in second.changes] == ["ACL SETUSER default"]


@pytest.mark.parametrize(
    ("login", "peer", "code"),
    [
        (("ops", "x"), ("peer", "x"), None),
        (("ops", "x"), None, None),
        (("default", None), ("peer", "x"), "sentinel_self_lockout"),
        (("ops", "y"), ("peer", "x"), "sentinel_self_lockout"),
        (("shop", "x"), ("peer", "x"), "sentinel_self_lockout"),
        (("ops", "x"), ("default", None), "peer_locked_out"),
        (("ops", "x"), ("peer", "y"), "peer_locked_out"),
        (("ops", "x"), ("shop", "x"), "peer_locked_out"),
    ],
)
def test_who_would_be_locked_out(login, peer, code):
    with pytest.raises(Refusal) if code else contextlib.nullcontext() as refused:
        require_logins(USERS, TABLE, login, peer)
    assert not code or refused.value.code == code
    assert not code or hash_of("x") not in refused.value.message()


def test_without_a_sentinel_to_ask_the_ways_in_are_looked_at():
    require_logins(USERS, None, ("ops", "x"), ("peer", "x"))
    with pytest.raises(Refusal):
        require_logins(USERS, None, ("ops", "y"), None)


def test_peers_that_are_logged_in_as_somebody_who_goes():
    line = "id=3 addr=192.0.2.{n}:3{n} name=sentinel-b4fa5e31-cmd flags=N user={user}"
    clients = "\n".join(line.format(n=n, user=who) for n, who in ((1, "peer"), (2, "default"), (3, "gone")))

    def hosts(text, after):
        return [one.host for one in lost_peers(text, after, TABLE)]

    assert hosts(clients + "\nid=9 addr=192.0.2.9:1 name= flags=N user=default", USERS) == ["192.0.2.2", "192.0.2.3"]
    assert hosts(clients, {**USERS, **OPEN}) == ["192.0.2.3"]


def test_presets_hold_no_command_of_another_kind():
    assert "+shutdown" not in PRESETS["client"]
    assert set(PRESETS) == {"admin", "client", "peer"}
