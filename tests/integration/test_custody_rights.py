# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The presets give the least that their task needs, tried one by one on a real server; and passwords that nobody can type."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.acl.presets import PRESETS

SECRET = "replication-password"
USERS = [
    {"name": name, "preset": name, "passwords": [f"{name}-pw"], "rules": ["~app:*"] if name == "application" else []}
    for name in sorted(PRESETS)
    if name != "replication"
] + [{"name": "replication", "preset": "replication", "passwords": [SECRET]}]
LOGIN = {"login_user": "admin", "login_password": "admin-pw"}

SETTINGS = ["CONFIG GET masterauth", "CONFIG GET *", "CONFIG SET save x", "ACL LIST"]
DATA = [
    "GET app:1",
    "SET app:1 x",
    "DEL app:1",
    "KEYS *",
    "SCAN 0",
    "DUMP app:1",
    "FLUSHALL",
    "SYNC",
    "REPLICAOF NO ONE",
    "SHUTDOWN NOSAVE",
]
STATE = [
    "PING",
    "INFO",
    "CLIENT LIST",
    "DBSIZE",
    "LASTSAVE",
    "ROLE",
    "TIME",
    "SLOWLOG GET",
    "LATENCY LATEST",
    "MEMORY STATS",
]
LIBRARIES = [
    "FUNCTION LOAD x", "FUNCTION DELETE lib", "FUNCTION FLUSH", "FUNCTION RESTORE x", "FUNCTION KILL", "SCRIPT FLUSH", "SCRIPT KILL",
]  # fmt: skip
#: Preset → what it may, and what it may not.
TRIED = {
    "monitoring": (STATE, [*SETTINGS, *DATA, "SLOWLOG RESET", "PSYNC ? -1"]),
    "health": ([*STATE, "CONFIG GET maxmemory"], [*SETTINGS[2:], *DATA, "PSYNC ? -1"]),
    "persistence": (["PING", "BGSAVE SCHEDULE", "LASTSAVE", "INFO", "BGREWRITEAOF"], [*SETTINGS, *DATA, "SAVE", "PSYNC ? -1"]),
    "replication": (["PING", "REPLCONF listening-port 1"], [*SETTINGS, *DATA, "INFO", "CLIENT LIST", "EVAL return(1) 0", *LIBRARIES]),
    "application": (
        ["SET app:1 x", "GET app:1", "EVAL return(1) 0", "SCRIPT EXISTS x", "FUNCTION STATS", "PING"],
        [*SETTINGS, "FLUSHALL", "SHUTDOWN NOSAVE", "KEYS *", "PSYNC ? -1", *LIBRARIES],
    ),
}  # fmt: skip


def ask(server, user: str, password: str, *words: str) -> str:
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", "-p", str(server.port), "--user", user, *words],
        capture_output=True, text=True, check=False, timeout=20, env={**os.environ, "REDISCLI_AUTH": password},
    )  # fmt: skip
    return (done.stdout + done.stderr).strip()


@pytest.fixture(name="acl")
def _acl(call_module, redis_server):
    redis_server.start()

    def run(check=False, users=USERS, **options):
        options = {**LOGIN, "acl_file": str(redis_server.home / "users.acl"), **options}
        return call_module("redis_acl", check=check, **redis_server.params(users=users, **options))

    return run


@pytest.mark.parametrize("preset", sorted(TRIED))
def test_a_preset_gives_the_least(acl, redis_server, preset):
    done = acl()
    assert not done.failed, done.msg
    password = SECRET if preset == "replication" else f"{preset}-pw"
    may, may_not = TRIED[preset]
    for words in may:
        answer = ask(redis_server, preset, password, *words.split())
        assert not answer.startswith(("NOPERM", "ERR unknown", "WRONGPASS", "AUTH failed", "NOAUTH")), (words, answer)
    for words in may_not:
        answer = ask(redis_server, preset, password, *words.split())
        assert "NOPERM" in answer, (words, answer)
        assert SECRET not in answer
    assert "PONG" in ask(redis_server, "admin", "admin-pw", "PING")


def test_only_who_has_the_settings_sees_the_replication_login(acl, redis_server):
    assert not acl().failed
    for user in sorted(PRESETS):
        password = SECRET if user == "replication" else f"{user}-pw"
        seen = SECRET in ask(redis_server, user, password, "CONFIG", "GET", "masterauth")
        assert seen == (user in ("admin", "health")), user


@pytest.mark.parametrize("tail", ["\n", "\r\n", "\t", "\x00", "\x7f"])
@pytest.mark.parametrize("where", ["user", "replication", "login"])
def test_a_password_that_nobody_can_type_is_refused_before_anything(acl, redis_server, where, tail):
    users, options = [dict(user) for user in USERS], {}
    if where == "login":
        options["login_password"] = f"admin-pw{tail}"
    else:
        name = "application" if where == "user" else "replication"
        for user in users:
            if user["name"] == name:
                user["passwords"] = [f"S3cret{tail}"]
    before, live = redis_server.tree(), redis_server.live_config()
    for check in (True, False):
        done = acl(check, users, **options)
        assert (done.failed, done.code) == (True, "invalid_value"), done
        assert "S3cret" not in done.msg
        assert "line end" in done.msg
    assert (redis_server.tree(), redis_server.live_config()) == (before, live)
    assert redis_server.cli("ACL", "USERS") == "default"


def test_the_way_out_of_such_a_password_is_open(acl, redis_server):
    """Who has it already names it as the previous one."""
    assert not acl().failed
    ask(redis_server, "admin", "admin-pw", "ACL", "SETUSER", "admin", "resetpass", ">admin-pw\n")
    done = acl(login_previous_password="admin-pw\n")
    assert not done.failed, done.msg
    assert ask(redis_server, "admin", "admin-pw", "PING") == "PONG"


@pytest.mark.parametrize(
    ("user", "warned"),
    [
        ({"preset": "replication"}, False),
        ({"preset": "admin"}, True),
        ({"preset": "replication", "rules": ["+info"]}, True),
    ],
)
def test_a_replication_login_that_is_worth_more_is_told(acl, user, warned):
    users = [USERS[0], {"name": "link", "passwords": ["link-pw"], **user}]
    done = acl(users=users, replication_user="link")
    assert not done.failed, done.msg
    assert any("may do more than replicate" in one for one in done.warned) == warned
