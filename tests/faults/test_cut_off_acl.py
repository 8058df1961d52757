# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_acl killed before every effect of both halves: nobody is locked out, nothing is open that was not, and a further run ends it."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

ADMIN = {"name": "admin", "preset": "admin", "passwords": ["admin-pw"]}
USERS = [
    ADMIN,
    {"name": "replication", "preset": "replication", "passwords": ["repl-pw"]},
    {"name": "app", "preset": "application", "rules": ["~app:*"], "passwords": ["app-pw"]},
]
LOGIN = {"login_user": "admin", "login_password": "admin-pw", "login_previous_password": "old-pw"}


def ask(server, user, password, *words):
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", "-p", str(server.port), "--user", user, *words],
        capture_output=True, text=True, check=False, env={**os.environ, "REDISCLI_AUTH": password},
    )  # fmt: skip
    return (done.stdout + done.stderr).strip()


def is_open(server):
    server.password = None
    return server.raw("DBSIZE").isdigit()


def may_all(server, user, password):
    return ask(server, user, password, "DBSIZE").isdigit()


def was_open(server):
    server.write_conf("")
    server.start().fill(5)


def had_requirepass(server):
    server.write_conf("requirepass old-pw\n")
    server.password = "old-pw"
    server.start().fill(5)


def had_users(server):
    server.write_conf(
        "user app on >app-pw ~* +@all\nuser stranger on >x ~* +@all\nuser default on >old-pw ~* &* +@all\n"
    )
    server.password = "old-pw"
    server.start().fill(5)


def had_a_file(server):
    path = server.home / "users.acl"
    path.write_text("user app on >app-pw ~* +@all\nuser default on >old-pw ~* &* +@all\n")
    server.write_conf(f"aclfile {path}\n")
    server.password = "old-pw"
    server.start().fill(5)


def halves(call_module, server, **options):
    """As the role calls them; the last result."""
    options = {**LOGIN, "users": USERS, "acl_file": str(server.home / "users.acl"), **options}
    first = call_module("redis_acl", withdraw=False, **server.params(**options))
    if first.failed or first.settled:
        return first
    return call_module("redis_acl", withdraw=True, pending=first.pending, **server.params(**options))


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("prepare", [was_open, had_requirepass, had_users, had_a_file])
def test_redis_acl_cut_off_anywhere(sweep, call_module, crashed_copy, prepare, purge):
    apps = prepare in (had_users, had_a_file)
    for point, server, cut in sweep(prepare, lambda server: halves(call_module, server, purge=purge)):
        assert cut.cut or not cut.result["failed"], cut.result
        with crashed_copy(server) as copy:
            copy.start()
            for found in (server, copy):
                assert prepare is was_open or not is_open(found), point
                ways = [("admin", "admin-pw"), ("default", "old-pw")]
                assert is_open(found) or any(may_all(found, *way) for way in ways), point
                assert not apps or ask(found, "app", "app-pw", "SET", "app:1", "x") == "OK", point
        done = halves(call_module, server, purge=purge)
        assert not done.failed, f"cut off {point}; run again: {done.msg}"
        again = halves(call_module, server, purge=purge)
        assert (again.changed, again.actions) == (False, []), point
        assert not [path.name for path in server.home.glob(".*")], point
        server.stop(signal.SIGKILL)
        server.start()
        assert not is_open(server), point
        assert may_all(server, "admin", "admin-pw"), point
        assert "masterauth repl-pw" in server.conf.read_text(), point
        assert "stranger" not in ask(server, "admin", "admin-pw", "ACL", "LIST") or not purge, point
        assert not halves(call_module, server, purge=purge).changed, point
