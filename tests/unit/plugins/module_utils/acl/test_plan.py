# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the users that are there to the users that are declared."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import (
    AclState,
    Scope,
    declared_users,
    dependents_of,
    may_serve,
    plan_acl,
    removed_passwords,
    render_file,
    replication_login,
    require_dependents,
    require_own_login,
    require_replays,
)
from ansible_collections.redisops.recovery.plugins.module_utils.acl.presets import OURS, SENTINEL
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import CommandTable, file_lines, user_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal

TABLE = CommandTable(
    {
        "read": frozenset(["get"]),
        "admin": frozenset([*OURS, "psync", "replconf", "ping"]),
        "dangerous": frozenset(["flushall", *SENTINEL]),
    }
)
OPEN = ("on", "nopass", "~*", "&*", "+@all")
A, B = "#" + "a" * 64, "#" + "b" * 64


def declare(name="u", **more):
    return {"name": name, "preset": None, "rules": ["+get"], "passwords": [A], "nopass": False, "enabled": True, **more}


def plan(declared, live=None, file=None, conf=None, **options):
    state = AclState(live, file, conf or {}, TABLE)
    return plan_acl(declared, state, "users.acl", "redis.conf", Scope(**options))


def test_a_new_user_stands_in_file_and_server_and_default_closes_last():
    found = plan(declared_users([declare()], "off"), live={"default": OPEN}, file={})
    assert [name for name, _after, _before in found.live] == ["u", "default"]
    assert found.file == {"u": ("on", A, "resetchannels", "+get"), "default": ("off", "~*", "&*", "+@all")}
    assert [change.action for change in found.changes] == [
        "ACL SETUSER u", "ACL SETUSER default", "write user u to users.acl", "write user default to users.acl",
    ]  # fmt: skip
    assert found.settled


def test_what_means_the_same_keeps_its_words():
    words = ("on", A, "+get", "sanitize-payload")
    found = plan(
        declared_users([declare()], "keep"), live={"u": words, "default": OPEN}, file={"u": words, "default": OPEN}
    )
    assert (found.changes, found.live, found.file, found.settled) == ([], [], None, True)


def test_the_first_half_only_adds_and_the_second_takes_away():
    there = {"u": ("on", B, "+@all"), "default": OPEN}
    declared = declared_users([declare(), declare("v")], "off")
    first = plan(declared, live=there, file=there, withdraw=False)
    assert first.live_after["u"] == ("on", A, B, "+@all")
    assert first.live_after["default"] == OPEN
    assert not first.settled
    second = plan(declared, live=first.live_after, file=first.file)
    assert second.live_after["u"] == declared["u"]
    assert second.live_after["default"] == declared["default"]
    assert second.settled
    # what a check says of the second half before the first was done
    predicted = plan(declared, live=there, file=there, added=True)
    assert predicted.changes == second.changes


def test_check_of_both_halves_on_a_server_whose_users_move():
    conf = {"old": ("on", B, "+get"), "default": ("on", B, "~*", "&*", "+@all")}
    live = dict(conf)
    declared = declared_users([declare()], "off")
    first = plan(declared, live=live, conf=conf, withdraw=False)
    assert first.file == {**conf, "u": declared["u"]}
    second = plan(declared, live=first.live_after, file=first.file)
    predicted = plan(declared, live=live, conf=conf, added=True)
    assert predicted.changes == second.changes
    assert [change.name for change in first.changes if change.after is None] == [
        "redis.conf: user default",
        "redis.conf: user old",
    ]


@pytest.mark.parametrize("purge", [True, False])
def test_unknown_users(purge):
    there = {"stranger": ("on", B, "+@all"), "default": OPEN}
    found = plan({}, live=there, file=there, purge=purge)
    assert ("stranger" in found.live_after) is not purge
    assert "default" in found.live_after
    assert found.unknown_users == ["stranger"]
    assert [after for _name, after, _before in found.live] == ([None] if purge else [])


def test_a_file_without_default_means_an_open_one_until_it_is_closed():
    declared = declared_users([declare()], "off")
    first = plan(declared, live={"default": OPEN}, file={"u": declared["u"]}, withdraw=False)
    assert first.file_after["default"] == OPEN


def test_the_file_reads_back():
    users = declared_users([declare(rules=["~x", "(~y +get)"])], "restricted")
    assert file_lines(render_file(users), "f") == users
    assert users["u"][-1] == "(resetchannels ~y +get)"


def test_own_login():
    admin = {"admin": ("on", A, "+@all")}
    require_own_login("admin", A, admin, TABLE)
    for user, password, users in [
        ("other", A, admin), ("admin", B, admin), ("admin", None, admin), ("admin", A, {"admin": ("off", A, "+@all")}),
        ("admin", A, {"admin": ("on", A, "+@all", "-bgsave")}),
    ]:  # fmt: skip
        with pytest.raises(Refusal) as caught:
            require_own_login(user, password, users, TABLE)
        assert caught.value.code == "self_lockout"
        assert "a" * 64 not in caught.value.message()


def test_who_depends_on_a_login():
    text = (
        "id=3 addr=10.0.0.2:5000 fd=8 name= flags=S user=default cmd=replconf\n"
        "id=4 addr=[2001:db8::1]:6000 name=sentinel-abc-cmd flags=N user=watch\n"
        "id=5 addr=10.0.0.9:1 name=shop flags=N user=shop\n"
        "id=6 addr=127.0.0.1:1 name= flags=M user=(superuser)\n"
    )
    found = dependents_of(text)
    assert [(one.kind, one.id, one.host, one.user) for one in found] == [
        ("replica", "3", "10.0.0.2", "default"), ("sentinel", "4", "[2001:db8::1]", "watch"),
    ]  # fmt: skip
    link = declared_users([declare("r", preset="replication", rules=[])], "off")
    assert require_dependents(found[:1], {}, link, TABLE) == found[:1]
    assert require_dependents(found[:1], {}, {"default": OPEN}, TABLE) == []
    with pytest.raises(Refusal) as caught:
        require_dependents(found, {}, link, TABLE)
    assert caught.value.code == "sentinel_locked_out"
    with pytest.raises(Refusal) as caught:
        require_dependents(found, {}, declared_users([declare()], "off"), TABLE)
    assert caught.value.code == "replica_locked_out"


def test_who_may_serve():
    assert not may_serve(None, "replica")
    assert not may_serve(user_of(("off", "+@all"), TABLE), "replica")
    assert may_serve(user_of(("on", "+@all"), TABLE), "sentinel")


@pytest.mark.parametrize(
    ("before", "after", "removed"),
    [
        (("on", A), ("on", A, B), False),
        (("on", A, B), ("on", A), True),
        (("on", "nopass"), ("on", A), True),
        (("on", A), ("on", "nopass"), False),
    ],
)
def test_removed_passwords(before, after, removed):
    assert removed_passwords(before, after, TABLE) is removed


def test_replication_login():
    link = declare("r", preset="replication", passwords=["plain", "older"])
    assert replication_login([declare(), link], None) == {"masteruser": "r", "masterauth": "plain"}
    assert replication_login([declare()], None) == {}
    assert replication_login([link], "") == {}
    for users, name in [
        ([link, {**link, "name": "s"}], None),
        ([link], "nobody"),
        ([declare("r", preset="replication")], None),
    ]:
        with pytest.raises(Problem) as caught:
            replication_login(users, name)
        assert caught.value.code == "no_replication_user"


def test_who_was_made_live_is_kept_until_the_process_reads_the_file():
    """A process that was started without the ACL file cannot save its users: the restart would lose them."""
    live, file = {"new": ("on", A, "+get"), "default": OPEN}, {"default": OPEN}
    kept = plan_acl({}, AclState(live, file, {}, TABLE, unread=True), "users.acl", "redis.conf", Scope(withdraw=False))
    assert kept.file == {**file, "new": live["new"]}
    assert plan_acl({}, AclState(live, file, {}, TABLE), "users.acl", "redis.conf", Scope(withdraw=False)).file is None


def test_who_is_logged_in_as_an_untouched_user_is_left_alone():
    """Whether its rights are the documented ones is not this run's business."""
    found = dependents_of("id=1 addr=10.0.0.2:1 name= user=own flags=S\n")
    own = {"own": ("on", A, "+psync")}
    assert require_dependents(found, own, own, TABLE) == []
    with pytest.raises(Refusal):
        require_dependents(found, own, {"own": ("on", A, "+get")}, TABLE)


@pytest.mark.parametrize(
    ("words", "version", "product", "refused"),
    [
        (("off", "~*", "&*", "+@all"), (7, 0, 15), "Redis 7.0.15", False),
        (("on", A, "~*", "&*", "+@all"), (7, 0, 15), "Redis 7.0.15", False),
        (("off", "resetchannels", "-@all"), (7, 0, 15), "Redis 7.0.15", True),
        (("on", "nopass", "~*", "&*", "+@all", "-flushall"), (8, 0, 2), "Redis 8.0.2", True),
        (("off", "~app:*", "&*", "+@all"), (7, 2, 4), "Valkey 8.1.1", True),
        (("off", "~*", "+@all"), (), "", True),
        (("off", "-@all"), (8, 4, 4), "Redis 8.4.4", False),
        (("off", "-@all"), (8, 4, 4), "Valkey 9.0.0", True),
    ],
)
def test_the_default_user_has_to_be_able_to_replay_the_aof(words, version, product, refused):
    if not refused:
        require_replays(words, TABLE, version, product)
        return
    with pytest.raises(Refusal) as caught:
        require_replays(words, TABLE, version, product)
    assert caught.value.code == "aof_needs_default"
