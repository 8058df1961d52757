# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_primary_guard: real servers, a primary that lost its disk, and systemd's question asked by hand. redis-cli is the judge."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "plugins/module_utils/replication/primary_guard.py"


@pytest.fixture(name="guard")
def _guard(call_module, new_redis, tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed
    from ansible_collections.redisops.recovery.plugins.modules import redis_primary_guard as module

    class Guard:
        def __init__(self):
            self.primary, self.replica = new_redis("primary"), new_redis("replica")
            self.primary.write_conf("appendonly yes\n")
            self.primary.start().fill(1000)
            self.replica.write_conf(f"appendonly yes\nreplicaof 127.0.0.1 {self.primary.port}\n")
            self.replica.start()
            self.wait(1000)
            self.script, self.setup = tmp_path / "lib" / "guard.py", tmp_path / "etc" / "guard.json"
            self.units, self.did = tmp_path / "units", []
            for name, value in {"SCRIPT": self.script, "SETUP": self.setup, "SYSTEM_UNITS": self.units}.items():
                monkeypatch.setattr(module, name, str(value))
            host = module.Host

            def run(*args, timeout=None):
                self.did.append(args)
                return Completed(0, "")

            monkeypatch.setattr(module, "Host", lambda: host("/", run))

        def wait(self, keys):
            deadline = time.monotonic() + 20
            while self.replica.raw("DBSIZE") != str(keys):
                assert time.monotonic() < deadline, self.replica.raw("DBSIZE")
                time.sleep(0.05)

        def set_up(self, check=False, **options):
            own = f"127.0.0.1:{self.primary.port}"
            options = {
                "group_hosts": [own, f"127.0.0.1:{self.replica.port}"],
                "address": own,
                "unit": "redis",
                **options,
            }
            return call_module(
                "redis_primary_guard",
                check=check,
                config_file=str(self.primary.conf),
                login_port=self.primary.port,
                **options,
            )

        def asked(self):
            """What systemd would be predicted: exit code and words."""
            done = subprocess.run(
                [sys.executable, str(self.script), str(self.setup)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            return done.returncode, done.stderr

        def lose_the_disk(self):
            self.primary.cli("SHUTDOWN", "NOSAVE")
            self.primary.process.wait(20)
            shutil.rmtree(self.primary.data)
            self.primary.data.mkdir(0o750)

    return Guard()


def test_without_the_guard_the_replica_is_wiped(guard):
    guard.lose_the_disk()
    guard.primary.start()
    guard.wait(0)


@pytest.mark.needs_root
def test_with_the_guard_the_data_survives_and_the_way_out_works(guard):
    assert not guard.set_up().failed
    code, words = guard.asked()
    assert (code, "REFUSED" in words) == (0, False)  # with its data it starts
    guard.lose_the_disk()
    code, words = guard.asked()
    assert code == 75, words
    for part in ("1000 keys", f"127.0.0.1:{guard.replica.port}", "REPLICAOF NO ONE", "start-without-data"):
        assert part in words
    assert guard.replica.raw("DBSIZE") == "1000"
    # what it predicted to do
    guard.replica.cli("REPLICAOF", "NO", "ONE")
    code, words = guard.asked()
    assert code == 0, words
    guard.primary.start()
    guard.primary.cli("REPLICAOF", "127.0.0.1", str(guard.replica.port))
    deadline = time.monotonic() + 20
    while guard.primary.raw("DBSIZE") != "1000":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.needs_root
@pytest.mark.parametrize("case", ["replica", "data", "empty set", "nobody answers", "override", "broken setup"])
def test_it_starts_in_every_other_case(guard, case, monkeypatch):
    guard.set_up()
    if case != "data":
        guard.lose_the_disk()
    if case == "replica":
        with guard.primary.conf.open("a") as handle:
            handle.write("replicaof 127.0.0.1 1\n")
    elif case == "empty set":
        guard.replica.cli("REPLICAOF", "NO", "ONE")
        guard.replica.cli("FLUSHALL")
        guard.replica.cli("REPLICAOF", "127.0.0.1", str(guard.primary.port))
    elif case == "nobody answers":
        guard.replica.stop(signal.SIGKILL)
    elif case == "override":
        text = guard.script.read_text()
        mark = guard.script.with_name("mark")
        mark.touch()
        guard.script.write_text(text.replace("/run/redisops/start-without-data", str(mark)))
    elif case == "broken setup":
        guard.setup.write_text("{")
    code, words = guard.asked()
    assert code == 0, words
    assert {"replica": "starts as a replica", "data": "bytes to load", "empty set": "no replica", "nobody answers": "did not answer",
            "override": "says so", "broken setup": "not judged"}[case] in words  # fmt: skip


@pytest.mark.needs_root
def test_far_too_little_is_as_bad_as_nothing(guard):
    guard.set_up()
    guard.primary.cli(
        "EVAL", "for i=1,200 do redis.call('SET', 'big:'..i, string.rep(tostring(i)..'x', 20000)) end", "0"
    )
    guard.wait(1200)
    guard.lose_the_disk()
    guard.primary.write_conf('appendonly no\nsave ""\n')
    (guard.primary.data / "dump.rdb").write_bytes(b"REDIS0010" + b"x" * 1000)
    code, words = guard.asked()
    assert code == 75, words


@pytest.mark.needs_root
def test_check_run_again_and_away(guard):
    predicted = guard.set_up(check=True)
    assert not guard.script.exists()
    done = guard.set_up()
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert len(done.actions) == 3
    assert guard.script.read_text() == SOURCE.read_text()
    assert stat.S_IMODE(guard.setup.stat().st_mode) == 0o600
    drop_in = guard.units / "redis.service.d" / "zz-redisops-guard.conf"
    line = f"ExecStartPre=+/bin/sh -c 'timeout 60 {sys.executable} {guard.script} {guard.setup}; test $$? -ne 75'\n"
    assert line in drop_in.read_text()
    assert ("systemctl", "daemon-reload") in guard.did
    assert not guard.set_up().changed
    # drift
    guard.setup.chmod(0o644)
    drop_in.unlink()
    assert len(guard.set_up().actions) == 2
    assert stat.S_IMODE(guard.setup.stat().st_mode) == 0o600
    assert not guard.set_up().changed
    assert len(guard.set_up(state="absent").actions) == 3
    assert not any(path.exists() for path in (guard.script, guard.setup, drop_in))
    assert not guard.set_up(state="absent").changed


@pytest.mark.needs_root
def test_the_password_is_in_one_file_for_root_only(guard):
    done = guard.set_up(guard_user="exporter", guard_password="s3cret-of-guard")
    assert "s3cret-of-guard" not in json.dumps(vars(done))
    assert json.loads(guard.setup.read_text())["login"]["password"] == "s3cret-of-guard"
    drop_in = guard.units / "redis.service.d" / "zz-redisops-guard.conf"
    assert "s3cret-of-guard" not in drop_in.read_text() + guard.script.read_text()


def unit_start(guard):
    """What ExecStartPre itself ends with: systemd writes $$ where the shell is to see $."""
    text = (guard.units / "redis.service.d" / "zz-redisops-guard.conf").read_text()
    shell = text.split("/bin/sh -c '", 1)[1].rsplit("'", 1)[0].replace("$$", "$")
    return subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, timeout=60).returncode


@pytest.mark.needs_root
@pytest.mark.parametrize("case", ["a syntax error", "no script", "killed"])
def test_only_a_refusal_keeps_the_server_from_starting(guard, case):
    guard.set_up()
    guard.lose_the_disk()
    assert unit_start(guard) == 1
    if case == "no script":
        guard.script.unlink()
    else:
        guard.script.write_text({"a syntax error": "this is (", "killed": "import os; os.kill(os.getpid(), 9)"}[case])
    assert unit_start(guard) == 0


@pytest.mark.needs_root
@pytest.mark.parametrize("how", ["rdb", "aof", "aof with a space"])
def test_a_small_set_is_no_empty_one(guard, how):
    primary = guard.primary
    primary.cli("FLUSHALL")
    primary.stop()
    shutil.rmtree(primary.data)
    primary.data.mkdir(0o750)
    more = {
        "rdb": "save 3600 1\n",
        "aof": "appendonly yes\n",
        "aof with a space": 'AppendOnly yes\nappendfilename "my set.aof"\n',
    }[how]
    primary.write_conf(more)
    primary.start().cli("SET", "a", "1")
    guard.wait(1)
    guard.set_up()
    primary.stop()
    code, words = guard.asked()
    assert code == 0, words
    assert "REFUSED" not in words


@pytest.mark.needs_root
def test_a_replica_that_knows_this_host_by_another_address(guard):
    guard.set_up()
    setup = json.loads(guard.setup.read_text())
    setup["own"]["host"] = "127.0.1.1"  # what Debian's /etc/hosts makes of a host's own name
    guard.setup.write_text(json.dumps(setup))
    guard.lose_the_disk()
    code, words = guard.asked()
    assert code == 75, words


@pytest.mark.needs_root
def test_the_role_may_stand_in_an_included_file(guard):
    guard.set_up()
    guard.lose_the_disk()
    other = guard.primary.home / "more.conf"
    other.write_text("ReplicaOf 127.0.0.1 1\n")
    with guard.primary.conf.open("a") as handle:
        handle.write(f'include "{guard.primary.home}/mo*.conf"\n')
    code, words = guard.asked()
    assert (code, "starts as a replica" in words) == (0, True), words


@pytest.mark.needs_root
def test_it_waits_for_a_promotion_before_it_refuses(guard):
    guard.set_up()
    guard.lose_the_disk()
    asked = subprocess.Popen([sys.executable, str(guard.script), str(guard.setup)], stderr=subprocess.PIPE, text=True)
    assert "REFUSED" in asked.stderr.readline()
    guard.replica.cli("REPLICAOF", "NO", "ONE")
    assert asked.wait(20) == 0
    assert "start" in asked.stderr.read()


@pytest.mark.needs_root
def test_the_override_counts_once(guard):
    guard.set_up()
    guard.lose_the_disk()
    mark = guard.script.with_name("mark")
    mark.touch()
    text = guard.script.read_text()
    guard.script.write_text(text.replace("/run/redisops/start-without-data", str(mark)))
    assert guard.asked()[0] == 0
    assert guard.asked()[0] == 75


@pytest.mark.needs_root
def test_silent_peers_do_not_add_up(guard):
    guard.set_up()
    setup = json.loads(guard.setup.read_text())
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        setup["peers"] += [{"host": "127.0.0.1", "port": deaf.getsockname()[1]}] * 8
        guard.setup.write_text(json.dumps(setup))
        began = time.monotonic()
        code, words = guard.asked()
    assert (code, time.monotonic() - began < 15) == (0, True), words


@pytest.mark.needs_root
@pytest.mark.parametrize("left", ["one key", "a function", "one key in an AOF"])
def test_a_key_of_its_own_makes_no_primary_of_an_empty_one(guard, left, new_redis):
    """The replica holds 1000 keys; by size alone what is left passes for a copy of it."""
    guard.set_up()
    other = new_redis("other")
    other.write_conf("appendonly yes\n" if left == "one key in an AOF" else "")
    other.start()
    if left == "a function":
        other.cli("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
    else:
        other.cli("SET", "heartbeat", "1")
    other.cli("SAVE")
    guard.lose_the_disk()
    other.stop()
    shutil.rmtree(guard.primary.data)
    shutil.copytree(other.data, guard.primary.data)
    guard.primary.write_conf("appendonly yes\n" if left == "one key in an AOF" else "")
    code, words = guard.asked()
    assert (code, "keys to load" in words or "nothing to load" in words) == (75, True), words
    assert guard.replica.raw("DBSIZE") == "1000"


@pytest.mark.needs_root
@pytest.mark.parametrize(("how", "may"), [(signal.SIGKILL, False), (signal.SIGTERM, True)])
def test_an_rdb_file_that_is_far_behind_its_replica_is_no_start(guard, how, may):
    """The same keys, overwritten since the last save: a start would take the new values from the replica."""
    primary = guard.primary
    primary.write_conf("save 3600 1\n")
    guard.set_up()
    primary.cli("CONFIG", "SET", "save", "3600 1")
    primary.cli("CONFIG", "SET", "appendonly", "no")
    primary.cli("SAVE")
    shutil.rmtree(primary.data / "appendonlydir")
    primary.cli("EVAL", "for i=1,1000 do redis.call('SET', 'key:'..i, string.rep('n', 3000)) end", "0")
    deadline = time.monotonic() + 20
    while guard.replica.info("slave_repl_offset") != primary.info("master_repl_offset"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    primary.stop(how)
    code, words = guard.asked()
    assert (code == 0, "bytes of writes behind" in words) == (may, not may), words
