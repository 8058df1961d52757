# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The temporary server that loads a copy: nobody else's, and of the release, the modules and the names of the server whose data it is."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence import test_load as backup_test_load
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import loaded
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import Release
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import free_user

from tests.integration.test_redis_backup import AOF, filled, manifest_of, params

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: What another user of the host tries: to look, to enter, to read, to ask.
INTRUDER = """
import os, socket, sys
uid, home, directory, pid = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
got = []
for what, path in (("list", home), ("list", directory), ("read", home + "/redis.conf"), ("read", directory + "/dump.rdb"),
                   ("read", f"/proc/{pid}/environ"), ("read", f"/proc/{pid}/mem"), ("list", f"/proc/{pid}/fd")):
    try:
        os.listdir(path) if what == "list" else open(path, "rb").read(1)
        got.append(what + " " + path)
    except OSError:
        pass
try:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(home + "/s")
        got.append("connect")
except OSError:
    pass
print(*got, sep="\\n")
"""
NOBODY = pwd.getpwnam("nobody").pw_uid


def named_users() -> list[int]:
    """nobody, the server's user where there is one, and one without an account."""
    accounts = {one.pw_name: one.pw_uid for one in pwd.getpwall()}
    return [NOBODY, accounts.get("redis", 4242), 4243]


@pytest.fixture(name="open_home")
def _open_home() -> t.Iterator[pathlib.Path]:
    """A directory that every user may pass through, as those of a system are."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="redisops-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(name="tiny")
def _tiny(open_home) -> str:
    """A module with one data type, compiled here."""
    path = open_home / "tiny.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-w", "-o", str(path), str(ROOT / "tests/support/tiny_module.c")], check=True
    )
    path.chmod(0o755)
    return str(path)


# --- nobody else's ------------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("method", ["rdb", "aof"])
def test_no_other_user_of_the_host_reaches_the_data(redis_server, call_module, method):
    server = filled(redis_server, AOF)
    done = call_module("redis_backup", **params(server, method=method))
    assert not done.failed, done.msg
    manifest = manifest_of(done.directory)
    with loaded(f"{done.directory}/{manifest['data']}", str(server.home / "backups" / "orders"), 30.0) as copy:
        pid, socket = copy.info.number("process_id"), copy.server.login.unix_socket
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        uids = {int(word) for line in status.splitlines() if line.startswith("Uid:") for word in line.split()[1:]}
        assert len(uids) == 1
        assert uids.isdisjoint({0, *named_users()})
        with pytest.raises(KeyError):
            pwd.getpwuid(uids.pop())
        for uid in named_users():
            tried = subprocess.run(
                [sys.executable, "-c", INTRUDER, str(uid), os.path.dirname(socket), copy.directory, str(pid)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert tried.stdout.split("\n") == ["", ""], f"user {uid} got: {tried.stdout}"
        # whoever does reach the socket needs the password as well
        asked = subprocess.run(
            ["redis-cli", "-s", socket, "GET", "string:1"], capture_output=True, text=True, check=True
        )
        assert "NOAUTH" in asked.stdout
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0 " in limits
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_text() + pathlib.Path(f"/proc/{pid}/environ").read_text()
        assert len(copy.server.login.password) == 64
        assert copy.server.login.password not in command


@pytest.mark.needs_root
def test_files_are_as_they_were_once_they_were_loaded(redis_server, call_module):
    server = filled(redis_server, AOF)
    done = call_module("redis_backup", **params(server, method="aof"))
    files = [f"{done.directory}/{file['path']}" for file in manifest_of(done.directory)["files"]]

    def access() -> list[tuple[int, int, int, int]]:
        return [(one.st_uid, one.st_gid, one.st_mode, one.st_nlink) for one in map(os.stat, files)]

    before = access()
    assert {row[:2] for row in before} == {(0, 0)}
    assert call_module("redis_backup", **params(server, state="verified")).state == "verified"
    assert access() == before


@pytest.mark.needs_root
def test_two_at_once_have_two_users():
    with free_user() as one, free_user() as other:
        assert one.uid != other.uid
        assert {str(one.uid), str(other.uid)} <= set(os.listdir("/run/systemd/dynamic-uid"))
    assert not {str(one.uid), str(other.uid)} & set(os.listdir("/run/systemd/dynamic-uid"))


@pytest.mark.needs_root
def test_a_user_id_that_somebody_has_is_not_taken(monkeypatch):
    """One runs a process, one is locked as systemd locks it; the third is free."""
    from ansible_collections.redisops.recovery.plugins.module_utils.server import temporary_server as module

    monkeypatch.setattr(module, "_FREE_UIDS", range(65001, 65004))
    running = subprocess.Popen(["sleep", "60"], user=65001)
    try:
        with free_user() as first:
            assert first.uid in (65002, 65003)
            with free_user() as second:
                assert {first.uid, second.uid} == {65002, 65003}
                with pytest.raises(Problem) as caught, free_user():
                    pass
                assert caught.value.code == "no_free_user"
    finally:
        running.kill()
        running.wait()


# --- the running release, its modules, its names ------------------------------------------------------------------------


def test_the_program_of_the_running_process_loads_the_copy(redis_server, call_module, monkeypatch, open_home):
    """Another one is first in PATH: a package that was left installed."""
    server = filled(redis_server)
    other = open_home / "bin"
    other.mkdir()
    for name in ("redis-server", "valkey-server"):
        (other / name).write_text("#!/bin/sh\necho another release\nexit 3\n")
        (other / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:{os.environ['PATH']}")
    done = call_module("redis_backup", **params(server))
    assert (done.failed, done.state) == (False, "verified"), done.msg
    program = os.readlink(f"/proc/{server.info('process_id')}/exe")
    assert manifest_of(done.directory)["server"]["program"] == program


def test_a_program_that_an_upgrade_replaced_is_taken_by_its_path(new_redis, call_module, open_home, monkeypatch):
    program = open_home / "redis-server"
    shutil.copy(os.path.realpath(shutil.which("redis-server")), program)
    server = new_redis()
    monkeypatch.setenv("PATH", f"{open_home}:{os.environ['PATH']}")
    server.write_conf('save ""\n')
    server.start()
    server.fill(10)
    os.unlink(program)
    shutil.copy(os.path.realpath(shutil.which("redis-server")), program)
    assert os.readlink(f"/proc/{server.info('process_id')}/exe") == f"{program} (deleted)"
    done = call_module("redis_backup", **params(server))
    assert (done.state, manifest_of(done.directory)["server"]["program"]) == ("verified", str(program)), done.msg


@pytest.mark.parametrize("method", ["rdb", "aof", "stream"])
def test_data_of_a_module_is_verified_with_the_module(redis_server, call_module, tiny, method):
    server = redis_server
    server.write_conf(f"{AOF}aof-use-rdb-preamble no\nloadmodule {tiny}\n")
    server.start()
    server.cli("tiny.set", "mine", "value")
    server.fill(20)
    done = call_module("redis_backup", **params(server, method=method))
    assert (done.failed, done.state) == (False, "verified"), done.msg
    assert manifest_of(done.directory)["load_lines"] == [f"loadmodule {tiny}"]
    drill = call_module("redis_drill", directory=str(server.home / "backups"), group_name="orders")
    assert not drill.failed, drill.msg


def test_a_module_that_was_loaded_live_is_known_too(redis_server, call_module, tiny):
    server = redis_server
    server.write_conf('save ""\nenable-module-command local\n')
    server.start()
    server.cli("MODULE", "LOAD", tiny)
    server.cli("tiny.set", "mine", "value")
    done = call_module("redis_backup", **params(server))
    assert (done.failed, done.state) == (False, "verified"), done.msg


RENAMED = 'rename-command FLUSHDB wipe-b840\nrename-command DEL remove\nrename-command FUNCTION fn-7\nrename-command DUMP dump-1\nrename-command DEBUG ""\n'


@pytest.mark.parametrize("method", ["aof", "stream"])
def test_a_copy_with_renamed_commands_loads(redis_server, call_module, method):
    server = redis_server
    server.write_conf(AOF + "aof-use-rdb-preamble no\n" + RENAMED)
    server.start()
    server.fill(30)
    server.cli("remove", "key:1")
    server.cli("SELECT", "0")
    server.raw("-n", "3", "SET", "x", "1")
    server.raw("-n", "3", "wipe-b840")
    done = call_module("redis_backup", **params(server, method=method))
    assert not done.failed, done.msg
    # DUMP and FUNCTION go by other names on the live server, which a backup does not ask by: so less could be compared.
    assert (done.state, done.backup["keys"]) == ("loaded", 29)


def test_where_what_is_asked_has_its_name_a_renamed_write_is_verified(redis_server, call_module):
    server = redis_server
    server.write_conf(AOF + "rename-command FLUSHDB wipe-b840\nrename-command DEL remove\n")
    server.start()
    server.fill(30)
    server.cli("remove", "key:1")
    server.raw("-n", "3", "SET", "x", "1")
    server.raw("-n", "3", "wipe-b840")
    done = call_module("redis_backup", **params(server, method="aof"))
    assert (done.failed, done.state, done.backup["keys"]) == (False, "verified", 29), done.msg


def test_a_restore_loads_with_the_lines_of_the_server_that_it_goes_to(redis_server, call_module):
    """What the server's own file does not know, its next start would not load either."""
    server = redis_server
    server.write_conf(AOF + "rename-command FLUSHDB wipe-b840\n")
    server.start()
    server.fill(30)
    server.raw("-n", "3", "wipe-b840")
    done = call_module("redis_backup", **params(server, method="aof"))
    data = f"{done.directory}/{manifest_of(done.directory)['data']}"
    with pytest.raises(Problem) as caught, loaded(data, str(server.home / "backups" / "orders"), 30.0):
        pass
    assert caught.value.code == "does_not_load"
    assert "unknown command 'wipe-b840'" in caught.value.detected.lower()
    with loaded(
        data, str(server.home / "backups" / "orders"), 30.0, Release("", ("rename-command FLUSHDB wipe-b840",))
    ) as copy:
        assert copy.info.keys == 30


# --- why it does not load -----------------------------------------------------------------------------------------------


def reason(data: pathlib.Path) -> str:
    with pytest.raises(Problem) as caught, loaded(str(data), str(data.parent), 30.0):
        pass
    assert caught.value.code == "does_not_load"
    assert "oO0OoO0" not in caught.value.detected
    return caught.value.detected


def test_a_module_that_is_not_there_is_named(redis_server, tiny, tmp_path):
    server = redis_server
    server.write_conf(f'save ""\nloadmodule {tiny}\n')
    server.start()
    server.cli("tiny.set", "mine", "value")
    server.cli("SAVE")
    shutil.copy(server.data / "dump.rdb", tmp_path / "copy.rdb")
    assert "no matching module type 'tiny-type'" in reason(tmp_path / "copy.rdb")


def test_a_newer_format_is_named(redis_server, tmp_path):
    server = filled(redis_server)
    server.cli("SAVE")
    raw = (server.data / "dump.rdb").read_bytes()
    (tmp_path / "copy.rdb").write_bytes(b"REDIS0099" + raw[9:])
    assert "Can't handle RDB format version 99" in reason(tmp_path / "copy.rdb")


def test_a_large_file_that_breaks_off_while_it_is_loaded_is_no_other_servers_fault(redis_server, tmp_path):
    """By then the server has answered: it says LOADING."""
    server = redis_server
    server.write_conf('save ""\nrdbcompression no\n')
    server.start()
    server.cli("EVAL", "for i=1,60000 do redis.call('SET', 'key:'..i, string.rep('v', 1000)..i) end", "0")
    server.cli("SAVE")
    raw = (server.data / "dump.rdb").read_bytes()
    assert len(raw) > 50_000_000
    (tmp_path / "copy.rdb").write_bytes(raw[: len(raw) - 5000])
    began = time.monotonic()
    assert (
        "end of file" in reason(tmp_path / "copy.rdb").lower() or "short read" in reason(tmp_path / "copy.rdb").lower()
    )
    assert time.monotonic() - began < 60


def test_nothing_is_left_of_a_temporary_server(redis_server, call_module):
    server = filled(redis_server, AOF)
    done = call_module("redis_backup", **params(server, method="aof"))
    store = server.home / "backups" / "orders"
    with loaded(f"{done.directory}/{manifest_of(done.directory)['data']}", str(store), 30.0) as copy:
        home = os.path.dirname(copy.server.login.unix_socket)
        assert [name for name in os.listdir(store) if name.startswith(backup_test_load.WORK_PREFIX)]
    assert not os.path.exists(home)
    assert not [name for name in os.listdir(store) if name.startswith(backup_test_load.WORK_PREFIX)]
