# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_acl against real servers, replicas and a Sentinel. The require_rules_accepted is redis-cli, logged in as each user."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

from tests.support.topology import free_port

ADMIN = {"name": "admin", "preset": "admin", "passwords": ["adm1n-pw"]}
REPLICATION = {"name": "replication", "preset": "replication", "passwords": ["repl-pw"]}
BACKUP = {"name": "backup", "preset": "persistence", "passwords": ["backup-pw"]}
SHOP = {
    "name": "shop",
    "preset": "application",
    "rules": ["~shop:*", "%R~catalogue:*", "&shop.*"],
    "passwords": ["shop-pw"],
}
USERS = [ADMIN, REPLICATION, BACKUP, SHOP]
LOGIN = {"login_user": "admin", "login_password": "adm1n-pw"}


def digest(password):
    return hashlib.sha256(password.encode()).hexdigest()


def ask(server, user, password, *words):
    """redis-cli as one user; its answer, or the error."""
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", "-p", str(server.port), "--user", user, *words],
        capture_output=True, text=True, check=False, env={**os.environ, "REDISCLI_AUTH": password},
    )  # fmt: skip
    return (done.stdout + done.stderr).strip()


def admin(server, *words):
    answer = ask(server, "admin", "adm1n-pw", *words)
    assert not answer.startswith(("ERR", "NOAUTH", "NOPERM", "AUTH failed")), answer
    return answer


def line_of(text, name):
    return next((line for line in text.splitlines() if line.startswith(f"user {name} ")), None)


@pytest.fixture(name="acl")
def _acl(call_module, redis_server):
    def run(users=USERS, check=False, server=redis_server, **options):
        options = {**LOGIN, "acl_file": str(server.home / "users.acl"), **options}
        return call_module("redis_acl", check=check, **server.params(users=users, **options))

    return run


@pytest.fixture(name="ready")
def _ready(acl, redis_server):
    """A server that has its users, file and process alike."""
    redis_server.start().fill(10)
    done = acl()
    assert not done.failed, done.msg
    redis_server.restart()
    return redis_server


def picture(server):
    """Everything that must not change."""
    return server.tree(), ask(server, "admin", "adm1n-pw", "ACL", "LIST"), ask(server, "default", "", "ACL", "LIST")


def refused(acl, server, code, users=USERS, **options):
    before = picture(server)
    for check in (True, False):
        result = acl(users, check=check, **options)
        assert result.failed
        assert result.code == code, result.msg
        assert "Unexpected" not in result.msg
        for secret in ("adm1n-pw", "repl-pw", "shop-pw", "backup-pw"):
            assert secret not in result.msg
            assert digest(secret) not in result.msg
    assert picture(server) == before
    return result


# --- from open to closed ----------------------------------------------------------------------------------------------


def test_check_then_run_then_again(acl, redis_server):
    redis_server.start().fill(10)
    before = redis_server.tree()
    predicted = acl(check=True)
    assert not predicted.failed, predicted.msg
    assert redis_server.tree() == before
    assert "user default on nopass " in redis_server.cli("ACL", "LIST")
    done = acl()
    assert not done.failed, done.msg
    assert (predicted.changed, predicted.diff, predicted.actions) == (done.changed, done.diff, done.actions)
    assert done.changed
    assert done.restart_required == ["aclfile"]
    # live at once, in the file for the next start
    assert "NOAUTH" in redis_server.raw("DBSIZE")
    assert admin(redis_server, "DBSIZE") == "10"
    again = acl()
    assert (again.changed, again.actions, again.diff["after"]) == (False, [], "")
    redis_server.restart()
    assert "NOAUTH" in redis_server.raw("DBSIZE")
    assert admin(redis_server, "DBSIZE") == "10"
    assert admin(redis_server, "CONFIG", "GET", "aclfile").splitlines()[1] == str(redis_server.home / "users.acl")
    once_more = acl()
    assert (once_more.changed, once_more.restart_required, once_more.settled) == (False, [], True)


@pytest.mark.parametrize(
    ("user", "allowed", "denied"),
    [
        ("shop", ["SET shop:1 x", "GET shop:1", "GET catalogue:1", "PUBLISH shop.news x"],
         ["SET catalogue:1 x", "GET other", "FLUSHALL", "CONFIG GET dir", "KEYS *", "PUBLISH other x", "ACL LIST", "BGSAVE"]),
        ("backup", ["BGSAVE", "LASTSAVE", "INFO", "PING"],
         ["GET shop:1", "SET shop:1 x", "FLUSHALL", "CONFIG GET dir", "CONFIG SET save x", "SHUTDOWN", "ACL LIST", "REPLICAOF a 1", "SAVE", "KEYS *"]),
        ("replication", ["PING"], ["GET shop:1", "INFO", "CONFIG GET dir", "SYNC", "FLUSHALL"]),
    ],
)  # fmt: skip
def test_each_user_may_do_its_task_and_no_more(ready, user, allowed, denied):
    for command in allowed:
        assert "NOPERM" not in ask(
            ready, user, f"{user}-pw" if user != "replication" else "repl-pw", *command.split()
        ), command
    for command in denied:
        assert "NOPERM" in ask(ready, user, f"{user}-pw" if user != "replication" else "repl-pw", *command.split()), (
            command
        )


def test_only_hashes_are_at_rest_and_nothing_secret_is_told(acl, redis_server):
    redis_server.start()
    done = acl()
    text = (redis_server.home / "users.acl").read_text()
    assert f"#{digest('shop-pw')}" in text
    predicted = json.dumps(vars(done))
    for secret in ("adm1n-pw", "repl-pw", "shop-pw", "backup-pw"):
        assert secret not in text
        assert secret not in predicted
        assert digest(secret) not in predicted
        assert secret not in redis_server.log()
    assert (redis_server.home / "users.acl").stat().st_mode & 0o7777 == 0o640
    # masterauth is the one password that Redis needs as it is; it is masked in the diff
    assert "masterauth repl-pw" in redis_server.conf.read_text()
    assert "masterauth ********" in done.diff["after"]


def test_a_hash_does_as_well_as_the_password(acl, redis_server):
    redis_server.start()
    hashed = [ADMIN, {**BACKUP, "passwords": ["#" + digest("backup-pw")]}]
    assert acl(hashed).changed
    assert ask(redis_server, "backup", "backup-pw", "PING") == "PONG"
    assert not acl([ADMIN, BACKUP]).changed


@pytest.fixture(name="newer")
def _newer(monkeypatch):
    """As a Redis that replays its AOF as it should (8.4.4 and later)."""
    from ansible_collections.redisops.recovery.plugins.module_utils.acl import users_apply

    monkeypatch.setattr(users_apply, "require_replays", lambda *_arguments: None)


@pytest.mark.usefixtures("newer")
def test_restricted_lets_health_checks_ping_and_no_more(acl, redis_server):
    redis_server.start()
    assert acl(default_user="restricted").changed
    assert redis_server.raw("PING") == "PONG"
    assert "NOPERM" in redis_server.raw("INFO")
    assert not acl(default_user="restricted").changed


def test_default_can_be_kept(acl, redis_server):
    redis_server.start()
    done = acl([BACKUP], default_user="keep", login_user=None, login_password=None)
    assert not done.failed, done.msg
    assert redis_server.cli("PING") == "PONG"
    assert not acl([BACKUP], default_user="keep", login_user=None, login_password=None).changed


def test_a_stopped_server_gets_its_users_in_the_files(acl, redis_server):
    predicted = acl(check=True)
    done = acl()
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions, done.running) == (done.diff, done.actions, False)
    assert not acl().changed
    redis_server.start()
    assert "NOAUTH" in redis_server.raw("INFO")
    assert admin(redis_server, "ACL", "WHOAMI") == "admin"
    assert not acl().changed


# --- normal form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "by_hand"),
    [
        (["~a:*", "~b:*", "+get", "+set"], "~b:* ~a:* +set +get"),
        (["~*", "+@all", "-@dangerous"], "allkeys +@read +@all -@dangerous"),
        (["~*", "+@read", "+@write", "-@dangerous"], "~* +@write +@read -@dangerous -@dangerous"),
        (["%R~x", "%W~x", "+get"], "~x +get"),
        (["%RW~x", "+config|get", "+config|set"], "~x +config|set +config|get"),
        (["~x", "+get", "(~y:* +set)", "(%R~z +get)"], "~x +get (%R~z +get) (~y:* +set)"),
        (["~x", "+config", "-config|set"], "~x +config|get +config|resetstat +config|rewrite +config|help"),
        (["~x", "+select|0", "+get"], "~x +get +select|0"),
        (["&a", "&b", "+@pubsub"], "&b &a +@pubsub"),
    ],
)  # fmt: skip
def test_the_same_rights_in_other_words_are_no_change(acl, ready, declared, by_hand):
    user = {"name": "u", "rules": declared, "passwords": ["pw"]}
    users = [*USERS, user]
    assert acl(users).changed
    assert not acl(users).changed
    admin(ready, "ACL", "SETUSER", "u", "reset", "on", ">pw", *_words(by_hand))
    again = acl(users)
    assert again.diff["after"] == "", again.diff
    # Redis' own form of it, too
    admin(ready, "ACL", "SAVE")
    assert not acl(users).changed
    ready.restart()
    assert not acl(users).changed


def _words(text):
    words = []
    for word in text.split():
        if words and words[-1].startswith("(") and not words[-1].endswith(")"):
            words[-1] += " " + word
        else:
            words.append(word)
    return words


@pytest.mark.parametrize(
    "by_hand",
    [
        "+flushall",
        "-get",
        "~other",
        "resetkeys",
        "&news",
        "off",
        ">another",
        "nopass",
        "resetpass",
        "(~x +get)",
        "+@admin",
        "skip-sanitize-payload",
    ],
)
def test_a_user_changed_by_hand_is_drift_and_put_back(acl, ready, by_hand):
    before = line_of(admin(ready, "ACL", "LIST"), "shop")
    admin(ready, "ACL", "SETUSER", "shop", *_words(by_hand))
    assert line_of(admin(ready, "ACL", "LIST"), "shop") != before
    file = (ready.home / "users.acl").read_bytes()
    predicted, done = acl(check=True), acl()
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert done.actions == ["ACL SETUSER shop"]
    assert "live: user shop" in done.diff["before"]
    assert digest("shop-pw") not in json.dumps(done.diff)
    assert (ready.home / "users.acl").read_bytes() == file
    assert ask(ready, "shop", "shop-pw", "SET", "shop:1", "x") == "OK"
    assert "NOPERM" in ask(ready, "shop", "shop-pw", "FLUSHALL")
    assert not acl().changed


def test_a_line_changed_by_hand_in_the_file_is_drift_and_put_back(acl, ready):
    path = ready.home / "users.acl"
    path.write_text(path.read_text().replace("~shop:*", "~*").replace("user backup on", "user backup off"))
    done = acl()
    assert sorted(done.actions) == [f"write user backup to {path}", f"write user shop to {path}"]
    assert "~shop:*" in path.read_text()
    assert not acl().changed
    ready.restart()
    assert "NOPERM" in ask(ready, "shop", "shop-pw", "GET", "other")


def test_unknown_users_stay_and_are_named_or_go_where_that_is_chosen(acl, ready):
    admin(ready, "ACL", "SETUSER", "stranger", "on", ">pw", "~*", "+@all")
    kept = acl()
    assert (kept.changed, kept.unknown_users) == (False, ["stranger"])
    assert any("stranger" in text for text in kept.warned)
    predicted, done = acl(check=True, purge=True), acl(purge=True)
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert done.actions == ["ACL DELUSER stranger"]
    assert "WRONGPASS" in ask(ready, "stranger", "pw", "PING")
    assert not acl(purge=True).changed


# --- both halves, as the role calls them ------------------------------------------------------------------------------


def both(acl, check, **options):
    first = acl(check=check, withdraw=False, **options)
    assert not first.failed, first.msg
    found = [first]
    if not first.settled:
        found.append(acl(check=check, withdraw=True, pending=first.pending, **options))
        assert not found[-1].failed, found[-1].msg
    return [(done.changed, done.diff, done.actions) for done in found]


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    ("lines", "password"),
    [
        ("", None),
        ("requirepass def-pw\n", "def-pw"),
        (
            "user old on >old-pw ~old:* +get\nuser shop on >another ~* +@all\nuser default on >def-pw ~* &* +@all\n",
            "def-pw",
        ),
    ],
    ids=["open", "requirepass", "users"],
)
@pytest.mark.parametrize(
    "options", [{}, {"purge": True}, {"default_user": "restricted"}], ids=["off", "purge", "restricted"]
)
def test_check_mode_foretells_both_halves(acl, redis_server, lines, password, running, options):
    redis_server.write_conf(lines)
    redis_server.conf.chmod(0o644)
    redis_server.password = password
    if running:
        redis_server.start()
    options = {**options, "login_previous_password": password}
    predicted = both(acl, True, **options)
    assert both(acl, False, **options) == predicted
    assert both(acl, False, **options) == [(False, {"before": "", "after": ""}, [])]
    redis_server.restart()
    admin(redis_server, "ACL", "SAVE")
    admin(redis_server, "CONFIG", "REWRITE")
    redis_server.conf.chmod(0o640)
    redis_server.home.joinpath("users.acl").chmod(0o640)
    assert both(acl, False, **options) == [(False, {"before": "", "after": ""}, [])]


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("default_user", ["off", "restricted", "keep"])
def test_check_mode_foretells_both_halves_on_a_host_without_redis(acl, redis_server, default_user):
    options = {"fresh_install": True, "default_user": default_user}
    text = redis_server.conf.read_text()
    redis_server.conf.unlink()
    predicted = both(acl, True, **options)
    redis_server.conf.write_text(text)  # what the roles before have brought by then
    done = both(acl, False, **options)
    assert done == predicted
    assert sum(action.startswith("write aclfile") for _changed, _diff, actions in done for action in actions) == 1
    assert both(acl, False, default_user=default_user) == [(False, {"before": "", "after": ""}, [])]


def test_check_mode_foretells_modes_once(acl, ready):
    """The first half sets them; the second has nothing to say of them."""
    ready.conf.chmod(0o644)
    ready.home.joinpath("users.acl").chmod(0o644)
    users = [*USERS, {"name": "more", "rules": ["+get"], "passwords": ["x"]}]
    for declared in (users[:-1], users):
        predicted = both(acl, True, users=declared)
        assert both(acl, False, users=declared) == predicted
        assert ready.conf.stat().st_mode & 0o7777 == 0o640
        assert ready.home.joinpath("users.acl").stat().st_mode & 0o7777 == 0o640


# --- users that were there before -------------------------------------------------------------------------------------


def test_users_of_redis_conf_move_to_the_file_and_none_is_lost(acl, redis_server):
    redis_server.write_conf(
        "# kept\nuser old on >old-pw ~old:* +get +set\nuser shop on >shop-pw ~* +@all\nuser default on >def-pw ~* &* +@all\nhz 20\n"
    )
    redis_server.password = "def-pw"
    redis_server.start()
    assert redis_server.cli("PING") == "PONG"
    predicted = acl(check=True, login_previous_password="def-pw")
    done = acl(login_previous_password="def-pw")
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    conf, file = redis_server.conf.read_text(), (redis_server.home / "users.acl").read_text()
    assert "\nuser " not in conf
    assert "# kept\n" in conf
    assert "hz 20" in conf
    old = [word for word in line_of(file, "old").split() if word != "sanitize-payload"]  # which 7.0 does not say
    assert old[2:5] == ["on", f"#{digest('old-pw')}", "~old:*"]
    assert "old-pw" not in json.dumps(vars(done))
    redis_server.password = None
    redis_server.restart()
    assert ask(redis_server, "old", "old-pw", "SET", "old:1", "x") == "OK"
    assert "NOPERM" in ask(redis_server, "shop", "shop-pw", "FLUSHALL")
    assert "NOAUTH" in redis_server.raw("PING")
    assert not acl().changed


@pytest.mark.parametrize("running", [True, False])
def test_requirepass_is_moved_and_never_leaves_the_server_open(acl, redis_server, running):
    redis_server.write_conf("requirepass secret-of-old\n")
    redis_server.password = "secret-of-old"
    if running:
        redis_server.start()
    done = acl(default_user="keep", login_previous_password="secret-of-old")
    assert not done.failed, done.msg
    assert "\nrequirepass" not in redis_server.conf.read_text()
    assert "secret-of-old" not in json.dumps(vars(done))
    redis_server.restart()
    assert redis_server.cli("PING") == "PONG"
    redis_server.password = None
    assert "NOAUTH" in redis_server.raw("PING")
    assert not acl(default_user="keep").changed


def test_a_server_that_its_file_leaves_open_is_closed(acl, ready):
    """requirepass with an ACL file that has no default user: Redis lets everybody in."""
    path = ready.home / "users.acl"
    path.write_text(
        "".join(line + "\n" for line in path.read_text().splitlines() if not line.startswith("user default"))
    )
    with ready.conf.open("a") as handle:
        handle.write("requirepass useless\n")
    ready.restart()
    assert ready.raw("PING") == "PONG"
    assert acl().changed
    assert "NOAUTH" in ready.raw("PING")
    ready.restart()
    assert "NOAUTH" in ready.raw("PING")


# --- passwords --------------------------------------------------------------------------------------------------------


def test_a_password_is_changed_without_an_outage(acl, ready):
    both = [{**ADMIN, "passwords": ["new-admin", "adm1n-pw"]}, {**SHOP, "passwords": ["new-shop", "shop-pw"]}]
    first = acl(both, login_password="new-admin", login_previous_password="adm1n-pw")
    assert not first.failed, first.msg
    for password in ("new-shop", "shop-pw"):
        assert ask(ready, "shop", password, "PING") == "PONG"
    assert not acl(both, login_password="new-admin", login_previous_password="adm1n-pw").changed
    new = [{**ADMIN, "passwords": ["new-admin"]}, {**SHOP, "passwords": ["new-shop"]}]
    last = acl(new, login_password="new-admin")
    assert not last.failed, last.msg
    assert "1 not declared" in last.diff["before"]
    assert ask(ready, "shop", "new-shop", "PING") == "PONG"
    assert "WRONGPASS" in ask(ready, "shop", "shop-pw", "PING")
    assert "WRONGPASS" in ask(ready, "admin", "adm1n-pw", "PING")
    assert not acl(new, login_password="new-admin").changed


def test_a_user_that_is_turned_off_is_out_at_once(acl, ready):
    with subprocess.Popen(
        ["redis-cli", "--no-auth-warning", "-p", str(ready.port), "--user", "shop"], env={**os.environ, "REDISCLI_AUTH": "shop-pw"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as held:  # fmt: skip
        held.stdin.write("PING\n")
        held.stdin.flush()
        assert held.stdout.readline() == "PONG\n"
        assert "user=shop" in admin(ready, "CLIENT", "LIST")
        assert acl([ADMIN, {**SHOP, "enabled": False}]).changed
        assert "user=shop" not in admin(ready, "CLIENT", "LIST")
        held.stdin.close()


# --- nobody is locked out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "options"),
    [
        ([BACKUP], {}),
        ([{**ADMIN, "passwords": ["another"]}], {}),
        ([{**ADMIN, "enabled": False}], {}),
        ([{**ADMIN, "rules": ["-bgsave"]}], {}),
        ([{**ADMIN, "rules": ["-config|set"]}], {}),
        ([{**ADMIN, "rules": ["-acl"]}], {}),
        (USERS, {"login_user": None, "login_password": None}),
        (USERS, {"login_password": None}),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_a_declaration_that_locks_this_collection_out_is_refused(acl, redis_server, users, options, running):
    if running:
        redis_server.start()
    result = refused(acl, redis_server, "self_lockout", users, **options)
    assert "preset admin" in result.msg


def pair(new_redis):
    """A primary and its replica, both open."""
    primary, replica = new_redis("primary"), new_redis("replica")
    primary.start().fill(50)
    replica.write_conf(f"replicaof 127.0.0.1 {primary.port}\n")
    replica.start()
    wait_link(replica)
    return primary, replica


def wait_link(server, login=None, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = ask(server, *login, "INFO", "replication") if login else server.raw("INFO", "replication")
        if "master_link_status:up" in text:
            return text
        time.sleep(0.05)
    raise AssertionError(text)


def test_a_replica_keeps_its_link_over_the_closing_of_default(acl, new_redis):
    primary, replica = pair(new_redis)
    full = "sync_full:1"
    assert full in primary.cli("INFO", "stats")
    # what the role does: first on all hosts what opens, then on all hosts what closes
    for server in (primary, replica):
        added = acl(server=server, withdraw=False)
        assert not added.failed, added.msg
        assert not added.settled
    assert "user=default" in primary.cli("CLIENT", "LIST", "TYPE", "replica")
    for server in (primary, replica):
        done = acl(server=server)
        assert not done.failed, done.msg
    wait_link(replica, ("admin", "adm1n-pw"))
    assert "user=replication" in admin(primary, "CLIENT", "LIST", "TYPE", "replica")
    assert full in admin(primary, "INFO", "stats")
    admin(primary, "SET", "after", "1")
    admin(primary, "WAIT", "1", "2000")
    assert admin(replica, "DBSIZE") == "51"
    for server in (primary, replica):
        again = acl(server=server, withdraw=False)
        assert (again.changed, again.settled) == (False, True)


def test_a_full_synchronisation_is_let_end_before_the_replica_has_to_log_in_again(acl, new_redis):
    primary, replica = new_redis("primary"), new_redis("replica")
    primary.write_conf("repl-diskless-sync yes\nrepl-diskless-sync-delay 8\n")
    primary.start().fill(50)
    replica.write_conf(f"replicaof 127.0.0.1 {primary.port}\n")
    replica.start()
    deadline = time.monotonic() + 20
    while "state=wait_bgsave" not in primary.raw("INFO", "replication"):
        assert time.monotonic() < deadline
    for server in (replica, primary):
        assert not acl(server=server, withdraw=False).failed
    stopped = acl(server=primary, timeout=0)
    assert stopped.code == "loading", stopped.msg
    assert "full synchronisation" in stopped.msg
    done = acl(server=primary)
    assert not done.failed, done.msg
    wait_link(replica, ("admin", "adm1n-pw"))
    assert "sync_full:1" in admin(primary, "INFO", "stats")


def test_a_replica_whose_primary_was_left_out_is_warned_of(acl, new_redis):
    """--limit, or serial: the link is up, and would not come up again."""
    primary, replica = pair(new_redis)
    assert not any("primary" in text for text in acl(server=replica, withdraw=False).warned)
    for _run in range(2):
        done = acl(server=replica)
        assert not done.failed, done.msg
        assert any(f"127.0.0.1:{primary.port}" in text and "Run on the primary" in text for text in done.warned)
        assert "repl-pw" not in json.dumps(vars(done))
    assert not acl(server=primary, withdraw=False).failed
    assert not any("primary" in text for text in acl(server=replica).warned)


def test_a_replica_that_cannot_log_in_otherwise_stops_the_closing(acl, new_redis, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.acl import apply as acl_apply

    monkeypatch.setattr(acl_apply, "LINK_SECONDS", 3.0)
    primary, replica = pair(new_redis)
    lines = primary.cli("ACL", "LIST")
    tree = primary.tree()
    done = acl(server=primary)
    assert done.failed
    assert done.code == "replica_locked_out", done.msg
    assert "came back as default" in done.msg
    assert "masterauth" in done.msg
    assert (primary.cli("ACL", "LIST"), primary.tree()) == (lines, tree)
    assert primary.config("masterauth") == ""
    wait_link(replica)


def test_the_password_of_the_replicas_is_changed_without_losing_them(acl, new_redis, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.acl import apply as acl_apply

    primary, replica = pair(new_redis)
    for withdraw in (False, True):
        for server in (primary, replica):
            assert not acl(server=server, withdraw=withdraw).failed
    both = [ADMIN, {**REPLICATION, "passwords": ["repl-new", "repl-pw"]}]
    new = [ADMIN, {**REPLICATION, "passwords": ["repl-new"]}]
    # the replica does not know the new password yet: taking the old one away is undone
    assert not acl(both, server=primary, withdraw=False).failed
    monkeypatch.setattr(acl_apply, "LINK_SECONDS", 3.0)
    before = admin(primary, "ACL", "LIST")
    stopped = acl(new, server=primary)
    assert stopped.code == "replica_locked_out", stopped.msg
    assert admin(primary, "ACL", "LIST") == before
    monkeypatch.setattr(acl_apply, "LINK_SECONDS", 20.0)
    wait_link(replica, ("admin", "adm1n-pw"))
    # and then it does
    assert not acl(both, server=replica, withdraw=False).failed
    for server in (primary, replica):
        done = acl(new, server=server)
        assert not done.failed, done.msg
    wait_link(replica, ("admin", "adm1n-pw"))
    assert digest("repl-pw") not in admin(primary, "ACL", "LIST")
    assert "sync_full:1" in admin(primary, "INFO", "stats")


@pytest.fixture(name="sentinel")
def _sentinel(redis_server, tmp_path):
    redis_server.start()
    port = free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"bind 127.0.0.1\nport {port}\nsentinel monitor m 127.0.0.1 {redis_server.port} 1\n")
    process = subprocess.Popen(["redis-server", str(conf), "--sentinel"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while redis_server.raw("CLIENT", "LIST").count("name=sentinel-") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield port
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_sentinel_keeps_its_access_or_the_closing_is_refused(acl, redis_server, sentinel, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.acl import apply as acl_apply

    watch = {"name": "watch", "preset": "sentinel", "passwords": ["watch-pw"]}
    monkeypatch.setattr(acl_apply, "LINK_SECONDS", 3.0)
    lines = redis_server.cli("ACL", "LIST")
    stopped = acl([ADMIN, watch])
    assert stopped.code == "sentinel_locked_out", stopped.msg
    assert redis_server.cli("ACL", "LIST") == lines
    monkeypatch.setattr(acl_apply, "LINK_SECONDS", 20.0)
    assert not acl([ADMIN, watch], withdraw=False).failed
    for name, value in (("auth-user", "watch"), ("auth-pass", "watch-pw")):
        subprocess.run(
            ["redis-cli", "-e", "-p", str(sentinel), "SENTINEL", "SET", "m", name, value],
            check=True,
            capture_output=True,
        )
    done = acl([ADMIN, watch])
    assert not done.failed, done.msg
    # SENTINEL SET auth-pass makes it drop its links and come back by itself
    deadline = time.monotonic() + 20
    links = []
    while len(links) < 2 and time.monotonic() < deadline:
        links = [line for line in admin(redis_server, "CLIENT", "LIST").splitlines() if "name=sentinel-" in line]
    assert len(links) == 2
    assert all("user=watch" in line for line in links)
    master = subprocess.run(
        ["redis-cli", "-p", str(sentinel), "SENTINEL", "MASTER", "m"], check=True, capture_output=True, text=True
    ).stdout
    assert "\nmaster\n" in master
    assert "\nwatch\n" not in admin(redis_server, "ACL", "LOG")  # nothing that it needs was denied


# --- an error in the middle -------------------------------------------------------------------------------------------


def failing(*_args):
    raise Problem("file_written", "no space is left on the device")


@pytest.mark.parametrize("at", ["StagedFile.commit", "commit", "apply_users", "set_live"])
@pytest.mark.parametrize("had_file", [True, False])
def test_an_error_in_the_middle_leaves_file_and_server_as_they_were(acl, redis_server, monkeypatch, at, had_file):
    from ansible_collections.redisops.recovery.plugins.module_utils.acl import users_apply

    redis_server.write_conf("requirepass secret-of-old\n")
    redis_server.password = "secret-of-old"
    redis_server.start()
    options = {"login_previous_password": "secret-of-old"}
    if had_file:
        assert not acl([ADMIN], **options).failed

    def seen():
        lists = [ask(redis_server, "admin", "adm1n-pw", "ACL", "LIST"), redis_server.raw("ACL", "LIST")]
        return redis_server.tree(), [
            text.replace("sanitize-payload ", "") for text in lists
        ]  # 7.0 says it after a reset only

    as_before = seen()
    with monkeypatch.context() as patch:
        owner, name = (users_apply.StagedFile, "commit") if "." in at else (users_apply, at)
        if "." in at:
            real = users_apply.StagedFile.commit
            patch.setattr(
                owner, name, lambda staged: failing() if staged.path.endswith("users.acl") and not calls.append(1) and len(calls) == 1 else real(staged)
            )  # fmt: skip
            calls = []
        else:
            patch.setattr(owner, name, failing)
        stopped = acl([ADMIN, REPLICATION, BACKUP], **options)
    assert stopped.code == "file_written", stopped.msg
    assert seen() == as_before
    login = ("admin", "adm1n-pw") if had_file else ("default", "secret-of-old")
    for name in ("masterauth", "masteruser"):
        assert ask(redis_server, *login, "CONFIG", "GET", name).splitlines()[1:] in ([""], [])
    assert acl([ADMIN, REPLICATION, BACKUP], **options).changed


def test_one_user_that_cannot_be_put_back_keeps_no_other_from_it(acl, ready, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.acl import users_apply
    from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import _LiveUsers

    before = admin(ready, "ACL", "LIST")
    real = _LiveUsers._send

    def send(self, name, words):
        if name == "zoe" and words is None:
            raise Problem("command_failed", "zoe stays")
        real(self, name, words)

    monkeypatch.setattr(_LiveUsers, "_send", send)
    monkeypatch.setattr(users_apply.StagedFile, "commit", failing)
    more = [{"name": name, "rules": ["+get"], "passwords": ["x"]} for name in ("amy", "zoe")]
    stopped = acl([*USERS, *more])
    assert stopped.code == "not_undone", stopped.msg
    assert "no space" in stopped.msg
    assert "zoe stays" in stopped.msg
    left = [line for line in admin(ready, "ACL", "LIST").splitlines() if " zoe " not in line]
    assert sorted(left) == sorted(before.splitlines())


# --- files that the server's own user may write -----------------------------------------------------------------------


def test_a_link_in_place_of_the_acl_file_is_not_followed(acl, redis_server):
    redis_server.start()
    for target in (redis_server.home / "not-there", redis_server.home / "secret"):
        if target.name == "secret":
            target.write_text("root:top-secret:1\n")
        path = redis_server.home / "users.acl"
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        stopped = refused(acl, redis_server, "acl_file")
        assert str(target) in stopped.msg
        assert "top-secret" not in stopped.msg
    assert not (redis_server.home / "not-there").exists()


def test_a_password_never_stands_in_a_file_that_others_may_read(acl, redis_server):
    redis_server.start()
    redis_server.conf.chmod(0o644)
    predicted, done = acl(check=True), acl()
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert f"set owner and mode of {redis_server.conf}" in done.actions
    assert redis_server.conf.stat().st_mode & 0o7777 == 0o640
    redis_server.conf.chmod(0o644)  # as CONFIG REWRITE does with a common umask
    assert acl().actions == [f"set owner and mode of {redis_server.conf}"]
    assert not acl().changed
    # without a password in it, it is nobody's business
    redis_server.conf.chmod(0o644)
    assert not acl([ADMIN, BACKUP, SHOP]).changed


def test_users_of_a_stopped_server_are_moved_as_hashes(acl, redis_server):
    redis_server.write_conf('user old on ">two words" ">#odd" ~old:* +get\nuser default on nopass ~* &* +@all\n')
    done = acl()
    assert not done.failed, done.msg
    assert "two" not in (redis_server.home / "users.acl").read_text()
    redis_server.start()
    for password in ("two words", "#odd"):
        assert ask(redis_server, "old", password, "GET", "old:1") == ""


def test_an_acl_file_named_from_within_dir_is_found(acl, redis_server):
    (redis_server.data / "users.acl").write_text("user own on nopass ~* &* +@all\nuser default on nopass ~* &* +@all\n")
    redis_server.write_conf("aclfile users.acl\n")
    redis_server.start()
    assert str(redis_server.data / "users.acl") in refused(acl, redis_server, "other_acl_file").msg
    refused(acl, redis_server, "invalid_value", acl_file="users.acl")
    done = acl(acl_file=str(redis_server.data / "users.acl"))
    assert not done.failed, done.msg
    assert done.unknown_users == ["own"]


def test_a_login_that_the_next_start_would_not_know_is_refused(acl, ready):
    admin(ready, "ACL", "SETUSER", "ops", "on", ">ops-pw", "~*", "&*", "+@all")
    options = {"login_user": "ops", "login_password": "ops-pw"}
    assert "ops" in refused(acl, ready, "self_lockout", [BACKUP, ADMIN, {**SHOP, "passwords": ["n"]}], **options).msg


def test_users_made_live_survive_the_restart_that_the_first_run_makes_due(acl, redis_server):
    redis_server.start()
    assert not acl().failed
    admin(redis_server, "ACL", "SETUSER", "late", "on", ">late-pw", "~*", "+get")
    done = acl()
    assert done.actions == [f"write user late to {redis_server.home / 'users.acl'}"]
    redis_server.restart()
    assert ask(redis_server, "late", "late-pw", "GET", "x") == ""


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["~*", "+nosuchcommand"], ["+nosuchcommand", "Unknown command"]),
        (["~*", "+@nosuchcategory"], ["+@nosuchcategory", "Unknown command or category"]),
        (["~*", "+config|nosuch"], ["+config|nosuch"]),
        (["~*", "-nosuchcommand"], ["-nosuchcommand"]),
        (["~*", "~a:*"], ["~a:*", "pattern"]),
        (["rubbish"], ["rubbish", "Syntax error"]),
        (["~*", "(~x +nosuch)"], ["+nosuch", "Unknown command"]),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_a_rule_that_redis_rejects_changes_nobody(acl, redis_server, rules, words, running):
    if running:
        redis_server.start()
    users = [ADMIN, SHOP, {"name": "broken", "rules": rules, "passwords": ["pw"]}]
    result = refused(acl, redis_server, "acl_rejected", users)
    assert "user broken" in result.msg
    for word in words:
        assert word in result.msg, result.msg


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ({"name": "two words", "passwords": ["x"]}, "acl_rule"),
        ({"name": "", "passwords": ["x"]}, "acl_rule"),
        ({"name": "u", "rules": [">sneaked-in"], "passwords": ["x"]}, "acl_rule"),
        ({"name": "u", "rules": ["on"], "passwords": ["x"]}, "acl_rule"),
        ({"name": "u", "rules": ["(~a +get"], "passwords": ["x"]}, "acl_rule"),
        ({"name": "u", "preset": "application", "passwords": ["x"]}, "acl_rule"),
        ({"name": "u", "rules": ["+get"]}, "acl_no_password"),
        ({"name": "u", "rules": ["+get"], "passwords": [""]}, "acl_no_password"),
        ({"name": "u", "nopass": True, "passwords": ["x"]}, "contradiction"),
        ({"name": "admin", "preset": "admin", "passwords": ["x"]}, "contradiction"),
        ({"name": "default", "passwords": ["x"]}, "contradiction"),
        ({"name": "r2", "preset": "replication", "passwords": ["x"]}, "no_replication_user"),
    ],
)
def test_bad_declarations_are_told_apart(acl, redis_server, user, code):
    redis_server.start()
    result = refused(acl, redis_server, code, [*USERS, user])
    assert "sneaked-in" not in result.msg


def test_a_replica_needs_the_password_itself(acl, redis_server):
    redis_server.start()
    hashed = [ADMIN, {**REPLICATION, "passwords": ["#" + digest("repl-pw")]}]
    refused(acl, redis_server, "no_replication_user", hashed)
    refused(acl, redis_server, "no_replication_user", [ADMIN], replication_user="nobody")
    assert acl(hashed, replication_user="").changed
    assert "masteruser" not in redis_server.conf.read_text()


def test_files_that_cannot_be_changed_as_one_are_left_alone(acl, redis_server):
    more = redis_server.home / "more.conf"
    more.write_text("user old on >old-pw ~* +@all\n")
    redis_server.write_conf(f"include {more}\n")
    redis_server.start()
    assert str(more) in refused(acl, redis_server, "users_in_include").msg


def test_another_acl_file_is_not_passed_over(acl, ready):
    other = str(ready.home / "other.acl")
    assert str(ready.home / "users.acl") in refused(acl, ready, "other_acl_file", acl_file=other).msg


@pytest.mark.parametrize("text", ["# a comment\n", "user a on\nuser a off\n", "usr b on\n"])
def test_an_acl_file_that_redis_would_not_read_is_named_with_its_line(acl, ready, text):
    path = ready.home / "users.acl"
    path.write_text(path.read_text() + text)
    assert str(path) in refused(acl, ready, "acl_file").msg


def test_a_wrong_password_is_one_clear_error(acl, ready):
    result = refused(acl, ready, "login_failed", login_password="wrong-one")
    assert "wrong-one" not in result.msg
    assert "login_previous_password" in result.msg


# --- Redis replays the transactions of its AOF as the default user ----------------------------------------------------


def transactions(server, login=("admin", "adm1n-pw")):
    """Writes that stand in the AOF as MULTI … EXEC: a script with two of them, and a transaction."""
    assert ask(server, *login, "CONFIG", "SET", "appendfsync", "always") == "OK"
    assert (
        ask(server, *login, "EVAL", "redis.call('SET', 'script:1', 1) redis.call('SET', 'script:2', 2) return 1", "0")
        == "1"
    )
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", "-p", str(server.port), "--user", login[0]], check=True, capture_output=True, text=True,
        env={**os.environ, "REDISCLI_AUTH": login[1]}, input="MULTI\nSET transaction:1 1\nSET transaction:2 2\nEXEC\n",
    )  # fmt: skip
    assert "QUEUED" in done.stdout
    return ask(server, *login, "DBSIZE")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_transactions_survive_a_restart_with_default_closed(acl, redis_server, how):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(3)
    assert not acl().failed
    redis_server.restart()
    keys = transactions(redis_server)
    assert keys == "7"
    redis_server.restart(how)
    assert admin(redis_server, "DBSIZE") == keys
    assert "NOAUTH" in redis_server.raw("PING")


def test_connections_of_default_end_when_it_is_closed(acl, redis_server):
    redis_server.start()
    with subprocess.Popen(
        ["redis-cli", "-p", str(redis_server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as held:
        held.stdin.write("PING\n")
        held.stdin.flush()
        assert held.stdout.readline() == "PONG\n"
        assert not acl().failed
        assert "cmd=ping user=default" not in admin(redis_server, "CLIENT", "LIST")
        held.stdin.close()


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", ["restricted", "declared"])
def test_a_default_user_that_could_not_replay_the_aof_is_refused(acl, redis_server, running, how):
    redis_server.write_conf("appendonly yes\n")
    if running:
        redis_server.start().fill(3)
    if how == "restricted":
        result = refused(acl, redis_server, "aof_needs_default", default_user="restricted")
    else:
        narrow = {"name": "default", "rules": ["~*", "+@read"], "nopass": True}
        result = refused(acl, redis_server, "aof_needs_default", [*USERS, narrow], default_user="keep")
    assert "MULTI" in result.msg


def test_a_closed_default_without_rights_is_given_them_back(acl, redis_server):
    """As an earlier tool, or a hand, left it: the next restart would drop every transaction of the AOF."""
    redis_server.write_conf("appendonly yes\n")
    redis_server.start()
    assert not acl().failed
    redis_server.restart()
    admin(redis_server, "ACL", "SETUSER", "default", "off", "resetkeys", "-@all")
    admin(redis_server, "ACL", "SAVE")
    keys = transactions(redis_server)
    assert acl().changed
    redis_server.restart(signal.SIGKILL)
    assert admin(redis_server, "DBSIZE") == keys
