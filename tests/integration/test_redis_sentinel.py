# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_sentinel with real Sentinels and real servers on loopback, under units that only pretend.

The judges are redis-cli on each Sentinel, and the bytes of sentinel.conf.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import pki
from tests.support.topology import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATE = re.compile(r"^sentinel (?:myid|current-epoch|config-epoch|leader-epoch|known-\w+|monitor) .*$", re.M | re.I)
#: What the packages bring.
EXAMPLE = """# Example sentinel.conf
protected-mode no
port 26379
daemonize no
dir {home}
logfile {home}/sentinel.log
# sentinel monitor <master-name> <ip> <redis-port> <quorum>
sentinel monitor mymaster 127.0.0.1 6379 2
sentinel down-after-milliseconds mymaster 30000
acllog-max-len 128
sentinel parallel-syncs mymaster 1
sentinel failover-timeout mymaster 180000
sentinel deny-scripts-reconfig yes
SENTINEL resolve-hostnames no
SENTINEL announce-hostnames no
SENTINEL master-reboot-down-after-period mymaster 0
"""


def wait(condition, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class SentinelUnderTest:
    """One Sentinel, its file, and the unit that pretends to keep it. ``cli`` is redis-cli, the independent reader."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home, self.conf, self.port = home, home / "sentinel.conf", free_port()
        self.conf.write_text(EXAMPLE.format(home=home))
        self.conf.chmod(0o640)
        self.process: subprocess.Popen | None = None
        self.auth: tuple[str, str] | None = None
        self.tls: list[str] = []
        self.did: list[str] = []
        self.enabled = False

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> bool:
        program = self.home / "redis-sentinel"
        if not program.exists():
            binary = subprocess.run(
                ["which", "redis-server"], capture_output=True, text=True, check=True
            ).stdout.strip()
            program.symlink_to(os.path.realpath(binary))
        self.process = subprocess.Popen([str(program), str(self.conf)], stdout=subprocess.DEVNULL, umask=0o007)
        for _ in range(200):
            if self.process.poll() is not None:
                return False
            if re.search("PONG|NOAUTH|NOPERM|DENIED|closed|reset", self.raw("PING")):
                return True
            time.sleep(0.05)
        return False

    def stop(self, how=signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(20)

    def raw(self, *words: str) -> str:
        login = ["--user", self.auth[0], "--pass", self.auth[1]] if self.auth else []
        done = subprocess.run(
            ["redis-cli", "--no-auth-warning", *login, *self.tls, "-p", str(self.port), *words], capture_output=True, text=True, check=False
        )  # fmt: skip
        return done.stdout.rstrip("\n") + done.stderr

    def master(self, name="m") -> dict[str, str]:
        words = self.raw("SENTINEL", "MASTER", name).splitlines()
        return dict(zip(words[::2], words[1::2]))

    def state(self) -> list[str]:
        """The lines that Sentinel alone may write."""
        return STATE.findall(self.conf.read_text())

    def run(self, *args, timeout=None):
        """systemctl, pretended."""
        from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, run_command

        if args[0] != "systemctl":
            return run_command(*args, timeout=timeout)
        if args[1] == "show":
            pid = self.process.pid if self.process and self.process.poll() is None else 0
            command = f"{{ path=/usr/bin/redis-sentinel ; argv[]=/usr/bin/redis-sentinel {self.conf} ; }}"
            state = "enabled" if self.enabled else "disabled"
            return Completed(
                0, f"Id=redis-sentinel.service\nLoadState=loaded\nUnitFileState={state}\nMainPID={pid}\nExecStart={command}\nDropInPaths=\n"
            )  # fmt: skip
        self.did.append(args[1])
        if args[1] == "stop":
            self.stop()
        elif args[1] == "start" and not self.start():
            return Completed(1, "Job for redis-sentinel.service failed.")
        elif args[1] in ("enable", "disable"):
            self.enabled = args[1] == "enable"
        return Completed(0, "")


@pytest.fixture(name="servers")
def _servers(new_redis):
    made = [new_redis(name) for name in ("a", "b", "c")]
    for server in made:
        server.start()
    for server in made[1:]:
        server.cli("REPLICAOF", "127.0.0.1", str(made[0].port))
    wait(lambda: all("master_link_status:up" in server.raw("INFO") for server in made[1:]))
    return made


@pytest.fixture(name="sentinels")
def _sentinels(tmp_path):
    made = []
    for number in range(3):
        home = tmp_path / f"sentinel{number}"
        home.mkdir()
        made.append(SentinelUnderTest(home))
    yield made
    for sentinel in made:
        sentinel.stop(signal.SIGKILL)


@pytest.fixture(name="declare")
def _declare(call_module, servers, sentinels, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_sentinel

    host = redis_sentinel.Host

    def run(sentinel, check=False, among=None, **options):
        monkeypatch.setattr(redis_sentinel, "Host", lambda: host("/", sentinel.run))
        monkeypatch.setattr(redis_sentinel, "SYSTEM_UNITS", str(sentinel.home / "units"))
        own = options.pop("primary_options", {})
        entry = {
            "name": "m", "quorum": 2, "group_hosts": [f"127.0.0.1:{server.port}" for server in servers],
            "primary": f"127.0.0.1:{servers[0].port}", "down_after_milliseconds": 5000, "failover_timeout": 10000, **own,
        }  # fmt: skip
        given = {
            "primaries": [entry], "sentinels": [one.endpoint for one in among or sentinels], "address": sentinel.endpoint,
            "port": sentinel.port, "login_port": sentinel.port, "config_file": str(sentinel.conf), "settings": {"bind": "127.0.0.1"},
            "timeout": 40, **options,
        }  # fmt: skip
        return call_module("redis_sentinel", check=check, **given)

    return run


def ok(result):
    assert not result.failed, result.msg
    return result


@pytest.fixture(name="watching")
def _watching(declare, sentinels):
    """Three Sentinels that know each other, as the role brings them."""
    for sentinel in sentinels:
        ok(declare(sentinel, finish=False))
    for sentinel in sentinels:
        ok(declare(sentinel))
        wait(lambda sentinel=sentinel: sentinel.master().get("num-slaves") == "2")
        wait(lambda sentinel=sentinel: all_usable(sentinel))
    return sentinels


def all_usable(sentinel):
    """They find, and find again, each other by a hello every two seconds; the module waits for as many as a failover takes."""
    return "OK 3 usable" in sentinel.raw("SENTINEL", "CKQUORUM", "m")


def settled_state(sentinel):
    """Its lines of state, when they are at rest."""
    last = None
    while last != sentinel.state():
        last = sentinel.state()
        time.sleep(1.5)
    return last


def refused(declare, sentinel, code, **options):
    """In check mode and for real: the error, and nothing changed, neither in file nor live."""
    state = settled_state(sentinel)
    live = [
        sentinel.raw("SENTINEL", "CONFIG", "GET", "*"),
        sentinel.raw("ACL", "LIST"),
        sentinel.raw("SENTINEL", "MYID"),
    ]
    text, did, pid = sentinel.conf.read_bytes(), list(sentinel.did), sentinel.process and sentinel.process.pid
    for check in (True, False):
        result = declare(sentinel, check=check, **options)
        assert result.failed, vars(result)
        assert result.code == code, result.msg
        assert "Unexpected" not in result.msg
    assert sentinel.conf.read_bytes() == text
    assert (sentinel.state(), sentinel.did, sentinel.process and sentinel.process.pid) == (state, did, pid)
    assert live == [
        sentinel.raw("SENTINEL", "CONFIG", "GET", "*"),
        sentinel.raw("ACL", "LIST"),
        sentinel.raw("SENTINEL", "MYID"),
    ]
    return result


def twice(declare, sentinel, **options):
    """Check, run, again."""
    predicted = ok(declare(sentinel, check=True, **options))
    done = ok(declare(sentinel, **options))
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    again = ok(declare(sentinel, **options))
    assert (again.changed, again.actions) == (False, []), again.diff
    return done


# --- from the package's example to a watched set ------------------------------------------------------------------------


def test_three_sentinels_come_up_and_stay_as_they_are(declare, servers, sentinels):
    for sentinel in sentinels:
        predicted = ok(declare(sentinel, check=True, finish=False))
        assert "mymaster" in sentinel.conf.read_text()
        assert sentinel.process is None
        done = ok(declare(sentinel, finish=False))
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        assert f"write m monitor to {sentinel.conf}" in done.actions
    for sentinel in sentinels:
        done = ok(declare(sentinel))
        assert done.changed is False, done.diff
        assert done.primaries["m"]["can_fail_over"]
    for sentinel in sentinels:
        wait(lambda sentinel=sentinel: all_usable(sentinel))
        done = ok(declare(sentinel))
        assert done.changed is False, done.diff
        assert done.primaries["m"]["usable"] == 3
        assert done.primaries["m"]["can_fail_over"]
        master = sentinel.master()
        assert (master["port"], master["quorum"]) == (str(servers[0].port), "2")
        assert (master["down-after-milliseconds"], master["failover-timeout"], master["parallel-syncs"]) == (
            "5000",
            "10000",
            "1",
        )
        assert "mymaster" not in sentinel.raw("SENTINEL", "MASTERS")
        text = sentinel.conf.read_text()
        assert "# sentinel monitor <master-name> <ip> <redis-port> <quorum>" in text
        assert sentinel.enabled


def test_settings_are_set_live_and_state_stays_byte_for_byte(declare, watching):
    first = watching[0]
    state, pid = settled_state(first), first.process.pid
    options = {"quorum": 3, "down_after_milliseconds": 7000, "parallel_syncs": 2}
    done = twice(declare, first, primary_options=options)
    assert done.actions == [
        "SENTINEL SET m quorum",
        "SENTINEL SET m down-after-milliseconds",
        "SENTINEL SET m parallel-syncs",
    ]
    assert first.master()["quorum"] == "3"
    assert first.master()["down-after-milliseconds"] == "7000"
    changed = [re.sub(" 3$", " 2", line) if " monitor " in line else line for line in first.state()]
    assert changed == state
    assert first.process.pid == pid
    # by hand, and back
    first.raw("SENTINEL", "SET", "m", "parallel-syncs", "5")
    assert "m parallel-syncs 5" in ok(declare(first, check=True, primary_options=options)).diff["before"]
    ok(declare(first, primary_options=options))
    assert first.master()["parallel-syncs"] == "2"


def test_what_takes_a_start_is_written_while_it_is_stopped(declare, watching, sentinels):
    first, script = watching[0], watching[0].home / "tell"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    state, pid, mine = settled_state(first), first.process.pid, first.raw("SENTINEL", "MYID")
    first.did.clear()
    options = {
        "settings": {"bind": "127.0.0.1", "loglevel": "verbose"},
        "primary_options": {"notification_script": str(script)},
    }
    never = ok(declare(first, restart="never", **options))
    assert {"notification-script", "loglevel"} <= {reason.split()[0] for reason in never.restart_required}
    assert first.process.pid == pid
    done = twice(declare, first, **options)
    assert any("stop redis-sentinel" in action for action in done.actions)
    assert first.did[:1] == ["daemon-reload"] or "stop" in first.did
    assert first.did.count("stop") == 1
    assert first.process.pid != pid
    assert first.raw("SENTINEL", "MYID") == mine
    assert settled_state(first) == state
    assert first.master()["notification-script"] == str(script)
    assert "ExecPaths=-/bin -/usr/bin" in next((first.home / "units").rglob("zz-redisops.conf")).read_text()


def test_a_run_that_was_cut_off_while_it_was_stopped(declare, watching):
    first = watching[0]
    state, mine = settled_state(first), first.raw("SENTINEL", "MYID")
    first.stop()
    predicted = ok(declare(first, check=True, primary_options={"down_after_milliseconds": 6000}))
    done = ok(declare(first, primary_options={"down_after_milliseconds": 6000}))
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert done.actions == [f"write m down-after-milliseconds to {first.conf}", "start redis-sentinel"]
    assert first.master()["down-after-milliseconds"] == "6000"
    assert first.raw("SENTINEL", "MYID") == mine
    assert settled_state(first) == state


def test_a_failover_is_no_drift(declare, servers, watching):
    assert watching[0].raw("SENTINEL", "FAILOVER", "m") == "OK"
    old = str(servers[0].port)
    for sentinel in watching:
        wait(lambda sentinel=sentinel: sentinel.master().get("port") not in (old, None))
        wait(lambda sentinel=sentinel: "failover" not in sentinel.master()["flags"])
    wait(lambda: "role:slave" in servers[0].raw("INFO", "replication"))
    for sentinel in watching:
        state = settled_state(sentinel)
        done = ok(declare(sentinel))
        assert (done.changed, done.actions) == (False, []), done.diff
        assert done.primaries["m"]["address"] != f"127.0.0.1:{old}"
        assert sentinel.state() == state


def test_a_sentinel_that_comes_later_learns_the_primary_from_the_others(declare, servers, sentinels):
    for sentinel in sentinels[:2]:
        ok(declare(sentinel, finish=False))
    for sentinel in sentinels[:2]:
        wait(lambda sentinel=sentinel: sentinel.master().get("num-slaves") == "2")
        wait(lambda sentinel=sentinel: "OK 2" in sentinel.raw("SENTINEL", "CKQUORUM", "m"))
    assert sentinels[0].raw("SENTINEL", "FAILOVER", "m") == "OK"
    for sentinel in sentinels[:2]:
        wait(lambda sentinel=sentinel: sentinel.master().get("port") != str(servers[0].port))
    new = sentinels[0].master()["port"]
    done = ok(declare(sentinels[2]))
    assert done.primaries["m"]["address"] == f"127.0.0.1:{new}"
    assert done.primaries["m"]["because"] == "the other Sentinels say so"


def test_the_first_sentinel_asks_the_servers(declare, servers, sentinels):
    done = ok(declare(sentinels[0], finish=False, primary_options={"primary": f"127.0.0.1:{servers[1].port}"}))
    assert done.primaries["m"]["address"] == f"127.0.0.1:{servers[0].port}"
    assert "only primary" in done.primaries["m"]["because"]


def test_a_running_example_gives_way(declare, servers, sentinels):
    first = sentinels[0]
    first.conf.write_text(first.conf.read_text().replace("port 26379", f"port {first.port}"))
    assert first.start()
    first.enabled = True
    done = ok(declare(first, finish=False, settings={}, primary_options={"name": "mymaster"}))
    assert "SENTINEL MONITOR mymaster" in done.actions
    assert first.master("mymaster")["port"] == str(servers[0].port)
    done = ok(declare(first, finish=False, settings={}, primary_options={"name": "mymaster"}))
    assert not done.changed


def test_a_first_run_over_a_host_without_sentinel(declare, sentinels):
    first = sentinels[0]
    text = first.conf.read_text()
    first.conf.unlink()
    result = declare(first)
    assert (result.failed, result.code) == (True, "sentinel_missing")
    predicted = ok(declare(first, check=True, fresh_install=True, finish=False))
    first.conf.write_text(text)
    done = ok(declare(first, fresh_install=True, finish=False))
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert not ok(declare(first, finish=False)).changed


# --- logins -------------------------------------------------------------------------------------------------------------


def login_for_sentinel(servers, password="watch-1"):
    rules = "resetchannels &* -@all +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill"
    for server in servers:
        server.cli("ACL", "SETUSER", "watch", "reset", "on", ">" + password, *rules.split())


def test_a_login_is_verified_set_and_rotated(declare, servers, watching):
    login_for_sentinel(servers)
    first = watching[0]
    options = {"auth_user": "watch", "auth_password": "watch-1"}
    done = twice(declare, first, primary_options=options)
    assert "SENTINEL SET m auth-pass" in done.actions
    assert "watch-1" not in str(vars(done))
    assert "sentinel auth-pass m watch-1" in first.conf.read_text()
    wait(lambda: "user=watch" in servers[0].cli("CLIENT", "LIST"))
    # another password, which is wrong: seen, refused, and the old one stays
    refused(declare, first, "sentinel_auth_refused", primary_options={**options, "auth_password": "watch-2"})
    login_for_sentinel(servers, "watch-2")
    done = twice(declare, first, primary_options={**options, "auth_password": "watch-2"})
    assert done.actions == ["SENTINEL SET m auth-pass"]
    assert "sentinel auth-pass m watch-2" in first.conf.read_text()


def test_a_login_that_the_servers_do_not_know(declare, watching):
    refused(
        declare, watching[0], "sentinel_auth_refused", primary_options={"auth_user": "nobody", "auth_password": "x"}
    )


@pytest.mark.parametrize("word", ["two words", 'a"quote', "a'quote", "back\\slash", "line\nfeed"])
def test_a_password_with_which_sentinel_would_not_start_again(declare, watching, word):
    assert (
        word
        not in refused(
            declare, watching[0], "unwritable_word", primary_options={"auth_user": "w", "auth_password": word}
        ).msg
    )


def test_sentinels_users_are_made_first_and_the_rest_is_taken_away_last(declare, watching):
    options = {
        "login_user": "ops", "login_password": "ops-1", "sentinel_user": "peer", "sentinel_password": "peer-1", "default_user": "off",
        "users": [
            {"name": "ops", "preset": "admin", "passwords": ["ops-1"]},
            {"name": "peer", "preset": "peer", "passwords": ["peer-1"]},
            {"name": "shop", "preset": "client", "passwords": ["shop-1"]},
        ],
    }  # fmt: skip
    # one alone would lock the others out
    text, users = watching[0].raw("SENTINEL", "CONFIG", "GET", "*"), watching[0].raw("ACL", "LIST")
    result = declare(watching[0], **options)
    assert (result.failed, result.code) == (True, "peer_locked_out")
    assert (watching[0].raw("SENTINEL", "CONFIG", "GET", "*"), watching[0].raw("ACL", "LIST")) == (text, users)
    predicted = [ok(declare(sentinel, check=True, finish=False, **options)) for sentinel in watching]
    done = [ok(declare(sentinel, finish=False, **options)) for sentinel in watching]
    assert [one.diff for one in predicted] == [one.diff for one in done]
    assert not any(one.settled for one in done)
    for sentinel in watching:
        predicted = ok(declare(sentinel, check=True, **options))
        done = ok(declare(sentinel, **options))
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        assert done.actions == ["ACL SETUSER default"]
    for sentinel in watching:
        assert "NOPERM" in sentinel.raw("SENTINEL", "MASTERS") or "NOAUTH" in sentinel.raw("SENTINEL", "MASTERS")
        sentinel.auth = ("shop", "shop-1")
        assert sentinel.raw("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m").startswith("127.0.0.1")
        assert "NOPERM" in sentinel.raw("SENTINEL", "SET", "m", "quorum", "1")
        assert "NOPERM" in sentinel.raw("SHUTDOWN")
        sentinel.auth = ("ops", "ops-1")
        wait(lambda sentinel=sentinel: all_usable(sentinel))
        text = sentinel.conf.read_text()
        assert "user default off" in text
        assert "ops-1" not in text
        assert ok(declare(sentinel, finish=False, **options)).settled
        assert not ok(declare(sentinel, **options)).changed
    # they stay in touch beyond down-after
    time.sleep(7)
    assert all("OK 3 usable" in sentinel.raw("SENTINEL", "CKQUORUM", "m") for sentinel in watching)
    # and what was changed by hand comes back
    watching[0].raw("ACL", "SETUSER", "shop", "+@all")
    done = twice(declare, watching[0], **options)
    assert done.actions == ["ACL SETUSER shop"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"users": [{"name": "ops", "preset": "admin", "passwords": ["x"]}]}, "sentinel_self_lockout"),
        (
            {
                "login_user": "ops",
                "login_password": "x",
                "users": [{"name": "ops", "preset": "admin", "passwords": ["x"]}],
            },
            "peer_locked_out",
        ),
        (
            {
                "login_user": "ops",
                "login_password": "x",
                "users": [{"name": "ops", "preset": "client", "passwords": ["x"]}],
            },
            "sentinel_self_lockout",
        ),
    ],
)
def test_users_that_would_lock_somebody_out(declare, watching, options, code):
    refused(declare, watching[0], code, default_user="off", **options)


# --- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"primary_options": {"quorum": 4}}, "quorum_too_large"),
        ({"primary_options": {"quorum": 0}}, "invalid_value"),
        ({"primary_options": {"name": "bad name"}}, "invalid_value"),
        ({"primary_options": {"name": "typo", "group_hosts": None}}, "unknown_primary_name"),
        ({"primary_options": {"name": "typo"}}, "unknown_primary_name"),
        ({"reset": ["typo"]}, "unknown_primary_name"),
        ({"primary_options": {"down_after_milliseconds": 0}}, "invalid_value"),
        ({"primary_options": {"notification_script": "/no/such/script"}}, "script_not_executable"),
        ({"primary_options": {"auth_user": "w"}}, "contradiction"),
        ({"sentinels": ["127.0.0.1:1x"]}, "invalid_value"),
        ({"tls_port": 1}, "contradiction"),
        ({"settings": {"appendonly": "yes"}}, "unknown_directive"),
        ({"settings": {"loglevel": "loud"}}, "conf_rejected"),
        ({"login_port": 1}, "contradiction"),
        ({"users": [{"name": "x", "rules": ["+nonsense"], "passwords": ["y"]}]}, "acl_rejected"),
    ],
)
def test_bad_declarations(declare, watching, options, code):
    if code == "acl_rejected":
        result = declare(watching[0], **options)
        assert (result.failed, result.code) == (True, code), vars(result)
        assert "user x" not in watching[0].raw("ACL", "LIST")
        return
    text = refused(declare, watching[0], code, **options).msg
    if code == "unknown_primary_name":
        assert re.search(r"\bm\b", text)


def test_an_address_that_another_sentinel_announces(declare, watching):
    other = watching[1]
    refused(declare, watching[0], "duplicate_announce", announce_ip="127.0.0.1", announce_port=other.port)
    refused(declare, watching[0], "invalid_value", announce_port=-1)
    done = twice(declare, watching[0], announce_ip="127.0.0.1", announce_port=watching[0].port)
    assert done.actions == ["SENTINEL CONFIG SET announce-ip", "SENTINEL CONFIG SET announce-port"]


def test_the_same_sentinel_twice(declare, watching):
    port = watching[0].port
    refused(declare, watching[0], "duplicate_group_host", sentinels=[f"127.0.0.1:{port}", f"localhost:{port}"])


def test_two_primaries_of_which_nobody_knows_which(declare, servers, sentinels):
    servers[0].fill(3)
    servers[2].cli("REPLICAOF", "NO", "ONE")
    servers[2].fill(4, "other")
    text = sentinels[0].conf.read_bytes()
    for check in (True, False):
        assert declare(sentinels[0], check=check).code == "two_primaries"
    assert (sentinels[0].conf.read_bytes(), sentinels[0].process) == (text, None)


def test_advice(declare, sentinels, watching):
    domains = {one.endpoint: "rack-1" for one in sentinels}
    warned = ok(declare(watching[0], check=True, failure_domains=domains, primary_options={"quorum": 1})).warned
    assert any("rack-1" in text for text in warned)
    assert any("quorum of 1" in text for text in warned)
    even = ok(declare(watching[0], check=True, among=[*sentinels[:2], *sentinels[:1]])).warned
    assert any("even number" in text for text in even)


# --- trouble ------------------------------------------------------------------------------------------------------------


def test_no_restart_that_would_cost_the_quorum(declare, watching):
    watching[1].stop(signal.SIGKILL)
    wait(lambda: "s_down" in watching[0].raw("SENTINEL", "SENTINELS", "m"))
    refused(declare, watching[0], "quorum_at_risk", settings={"bind": "127.0.0.1", "loglevel": "verbose"})
    # what is taken live goes on
    assert ok(declare(watching[0], finish=False, primary_options={"parallel_syncs": 2})).changed


def test_nothing_is_disturbed_while_the_primary_is_down(declare, servers, watching):
    for server in servers:
        server.stop(signal.SIGKILL)
    for sentinel in watching:
        wait(lambda sentinel=sentinel: "s_down" in sentinel.master()["flags"])
    refused(declare, watching[0], "failover_in_progress", settings={"bind": "127.0.0.1", "loglevel": "verbose"})


def test_tilt_is_told_and_waited_for(declare, watching):
    first = watching[0]
    first.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    first.process.send_signal(signal.SIGCONT)
    wait(lambda: "sentinel_tilt:1" in first.raw("INFO", "sentinel"), 5)
    result = ok(declare(first, check=True))
    assert result.tilt
    assert any("TILT" in text for text in result.warned)
    result = declare(first, settings={"bind": "127.0.0.1", "loglevel": "verbose"})
    assert (result.failed, result.code) == (True, "tilt")


def test_a_stale_replica_is_forgotten_on_request_only(declare, servers, watching):
    servers[2].stop()
    first = watching[0]
    wait(lambda: "s_down" in first.raw("SENTINEL", "REPLICAS", "m"))
    time.sleep(2)
    assert not ok(declare(first)).changed
    assert not ok(declare(first, reset=["m"])).changed  # not gone for long enough
    options = {"reset": ["m"], "reset_after": 5}
    predicted = ok(declare(first, check=True, **options))
    assert predicted.actions == ["SENTINEL RESET m"]
    done = ok(declare(first, **options))
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    wait(lambda: first.master()["num-slaves"] == "1")
    wait(lambda: all_usable(first))
    assert not ok(declare(first, **options)).changed


def test_a_file_with_which_it_does_not_start_is_taken_back(declare, watching, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.sentinel import watch_apply

    monkeypatch.setattr(watch_apply, "require_file_accepted", lambda *_arguments: None)
    first = watching[0]
    state = settled_state(first)
    result = declare(first, settings={"bind": "127.0.0.1", "loglevel": "loud"})
    assert (result.failed, result.code) == (True, "sentinel_not_up"), vars(result)
    assert first.raw("PING") == "PONG"
    assert settled_state(first) == state
    assert not ok(declare(first)).changed


def test_no_quorum_is_an_error_at_the_end(declare, sentinels):
    ok(declare(sentinels[0], finish=False))
    result = declare(sentinels[0], timeout=2)
    assert (result.failed, result.code) == (True, "no_quorum")


def test_names_that_nobody_declared(declare, servers, watching):
    first = watching[0]
    assert first.raw("SENTINEL", "MONITOR", "left", "127.0.0.1", str(servers[1].port), "1") == "OK"
    result = ok(declare(first))
    assert not result.changed
    assert any("left" in text for text in result.warned)
    done = twice(declare, first, purge=True)
    assert done.actions == ["SENTINEL REMOVE left"]
    assert "left" not in first.raw("SENTINEL", "MASTERS")


def test_the_wrong_process(declare, servers, watching):
    result = declare(watching[0], login_port=servers[0].port, port=servers[0].port)
    assert (result.failed, result.code) == (True, "not_a_sentinel")
    result = declare(watching[0], login_port=watching[1].port, port=watching[1].port)
    assert (result.failed, result.code) == (True, "other_config_file")


# --- TLS ----------------------------------------------------------------------------------------------------------------


def test_tls_beside_and_instead_of_the_plain_port(declare, watching, tmp_path):
    ca = pki.authority()
    pair = pki.server(ca)
    files = {}
    for name, text in (("ca_cert", ca.pem), ("cert", pair.pem), ("key", pair.key)):
        (tmp_path / name).write_text(text)
        files[f"tls_{name}_file"] = str(tmp_path / name)
    first, port = watching[0], free_port()
    login = {"tls": True, "ca_certs": files["tls_ca_cert_file"], "validate_certs": False, "login_port": port}
    predicted = ok(declare(first, check=True, tls_port=port, tls_auth_clients="no", **files))
    done = ok(declare(first, tls_port=port, tls_auth_clients="no", **files))
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    plain, first.tls, first.port = first.port, ["--tls", "--cacert", files["tls_ca_cert_file"]], port
    assert first.raw("PING") == "PONG"
    first.port, first.tls = plain, []
    options = {"tls_port": port, "tls_auth_clients": "no", "port": plain, **files, **login}
    assert not ok(declare(first, **options)).changed
    # a renewed certificate is loaded
    time.sleep(2)
    os.utime(files["tls_cert_file"])
    done = ok(declare(first, **options))
    assert any("stop redis-sentinel" in action for action in done.actions)
    time.sleep(1.5)
    assert not ok(declare(first, **options)).changed


# --- as ansible-playbook runs it --------------------------------------------------------------------------------------

SYSTEMCTL = """#!/bin/sh
# What systemctl would do for units named s0, s1, s2.
for unit; do :; done
home={homes}/sentinel${{unit#s}}; home=${{home%.service}}
pid=$(cat "$home/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null || pid=0
echo "$*" >> "$home/did"
case $1 in
show) printf 'LoadState=loaded\\nUnitFileState=enabled\\nMainPID=%s\\nDropInPaths=\\n' "$pid"
      printf 'ExecStart={{ path=x ; argv[]=x %s/sentinel.conf ; }}\\n' "$home" ;;
start) umask 007; "$home/redis-sentinel" "$home/sentinel.conf" > /dev/null 2>&1 & echo $! > "$home/pid" ;;
stop) [ "$pid" = 0 ] || {{ kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done; }} ;;
esac
"""


@pytest.fixture(name="play")
def _play(servers, sentinels, tmp_path):
    program = subprocess.run(["which", "redis-server"], capture_output=True, text=True, check=True).stdout.strip()
    for sentinel in sentinels:
        (sentinel.home / "redis-sentinel").symlink_to(os.path.realpath(program))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(SYSTEMCTL.format(homes=tmp_path))
    (tools / "systemctl").chmod(0o755)
    hosts = {
        f"s{number}": {
            "ansible_connection": "local", "ansible_host": "127.0.0.1", "ansible_python_interpreter": sys.executable,
            "redis_sentinel_unit": f"s{number}", "redis_sentinel_config_file": str(sentinel.conf), "redis_sentinel_port": sentinel.port,
            "redis_sentinel_failure_domain": "rack-1", "sentinel_endpoint": f"s{number}:{sentinel.port}",
        }
        for number, sentinel in enumerate(sentinels)
    }  # fmt: skip
    common = {
        "redis_sentinel_hosts": [host["sentinel_endpoint"] for host in hosts.values()], "redis_sentinel_enabled": True,
        "redis_sentinel_confinement": {}, "redis_sentinel_settings": {"bind": "127.0.0.1"}, "redis_sentinel_timeout": 40,
        "redis_sentinel_peer_user": "peer", "redis_sentinel_peer_password": "peer-1", "redis_sentinel_default_user": "off",
        "redis_sentinel_login": {"login_user": "ops", "login_password": "ops-1"},
        "redis_sentinel_users": [
            {"name": "ops", "preset": "admin", "passwords": ["ops-1"]}, {"name": "peer", "preset": "peer", "passwords": ["peer-1"]},
        ],
        "redis_sentinel_primaries": [
            {
                "name": "m", "quorum": 2, "group_hosts": [f"s{number}:{server.port}" for number, server in enumerate(servers)],
                "primary": f"s0:{servers[0].port}", "down_after_milliseconds": 5000,
            }
        ],
    }  # fmt: skip
    (tmp_path / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
    (tmp_path / "play.yml").write_text(
        json.dumps(
            [{"name": "Play", "hosts": "all", "gather_facts": False, "roles": ["redisops.recovery.redis_sentinel"]}]
        )
    )
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                   "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"), "ANSIBLE_STDOUT_CALLBACK": "default",
                   "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections")}  # fmt: skip

    def run(*arguments):
        done = subprocess.run(
            [pathlib.Path(sys.executable).parent / "ansible-playbook", "-i", "inventory.yml", "play.yml", "--diff", *arguments],
            env=environment, capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        assert "peer-1" not in text
        return text

    yield run
    for sentinel in sentinels:
        if (sentinel.home / "pid").exists():
            subprocess.run(["kill", "-9", (sentinel.home / "pid").read_text().strip()], check=False)


def changed(text):
    """Tasks that changed, and tasks that ran, by host."""
    return {
        host: (int(tasks), int(count))
        for host, tasks, count in re.findall(r"^(s\d) +: ok=(\d+) +changed=(\d+)", text, re.M)
    }


def test_the_role_over_three_hosts(play, sentinels):
    play("--check")
    assert all("mymaster" in sentinel.conf.read_text() for sentinel in sentinels)
    first = play()
    assert "failure domain rack-1" in first
    assert [count for _ok, count in changed(first).values()] == [2, 2, 2], first
    for sentinel in sentinels:
        sentinel.auth = ("ops", "ops-1")
        wait(lambda sentinel=sentinel: all_usable(sentinel))
        assert "user default off" in sentinel.conf.read_text()
    again = play()
    # the check of the arguments, on the controller, and one call of one module
    assert changed(again) == {"s0": (2, 0), "s1": (2, 0), "s2": (2, 0)}, again
    old = sentinels[0].master()["port"]
    assert sentinels[0].raw("SENTINEL", "FAILOVER", "m") == "OK"
    for sentinel in sentinels:
        wait(lambda sentinel=sentinel: sentinel.master().get("port") not in (old, None))
        wait(lambda sentinel=sentinel: "failover" not in sentinel.master()["flags"])
        settled_state(sentinel)
    assert [count for _ok, count in changed(play()).values()] == [0, 0, 0]
