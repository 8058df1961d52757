# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_backup against real servers, also while they are written to. redis-check-rdb, sha256sum and a server of our own judge."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup import copy as backup_copy
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal, unseal

from tests.support.data_of_all_kinds import fill, keys_in_rdb

AOF = 'save ""\nappendonly yes\naof-timestamp-enabled yes\n'


def params(server, **more: t.Any) -> dict[str, t.Any]:
    return server.params(directory=str(server.home / "backups"), group_name="orders", sentinel_file="", **more)


def filled(server, extra: str = 'save ""\n'):
    server.write_conf(extra)
    server.start()
    fill(server.cli)
    return server


def manifest_of(path: str) -> dict[str, t.Any]:
    return json.loads((pathlib.Path(path) / "manifest.json").read_text())


@contextlib.contextmanager
def writing(server) -> t.Iterator[list[int]]:
    """Clients that write without a pause, through redis-benchmark's own protocol client, until the block ends."""
    process = subprocess.Popen(
        ["redis-benchmark", "-p", str(server.port), "-c", "4", "-l", "-q", "-r", "100000", "-n", "100000", "SET", "load:__rand_int__", "value"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while "load:" not in server.cli("RANDOMKEY") and time.monotonic() < deadline:
            time.sleep(0.02)
        yield [process.pid]
        assert process.poll() is None, "the load ended before the backup did"
    finally:
        process.kill()
        process.wait()


def digest_of_data(home: pathlib.Path, path: pathlib.Path, new_redis: t.Any) -> str:
    """DEBUG DIGEST of a copy, in a server of the test's own that is predicted of it by hand."""
    other = new_redis(home.name)
    shutil.copy(path, other.data / "dump.rdb")
    other.write_conf('save ""\nenable-debug-command local\nreplicaof 127.0.0.1 0\n')
    other.start()
    return other.cli("DEBUG", "DIGEST")


# --- one backup, each method --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rdb", "aof", "stream"])
def test_a_backup_is_taken_loaded_and_compared(redis_server, call_module, method):
    server = filled(redis_server, AOF)
    wanted = params(server, method=method)
    predicted = call_module("redis_backup", check=True, **wanted)
    assert not (server.home / "backups").exists()
    done = call_module("redis_backup", **wanted)
    assert not done.failed, done.msg
    assert (done.state, done.changed, predicted.changed) == ("verified", True, True)
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    manifest = manifest_of(done.directory)
    keys = {number: int(re.search(r"keys=(\d+)", server.info(f"db{number}")).group(1)) for number in (0, 3, 15)}
    assert {int(number): counts[0] for number, counts in manifest["keys"].items()} == keys
    assert (manifest["slack"], manifest["functions"], done.backup["keys"]) == (0, 1, sum(keys.values()))
    for file in manifest["files"]:
        reported = subprocess.run(
            ["sha256sum", f"{done.directory}/{file['path']}"], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        assert reported == file["sha256"]
        assert os.stat(f"{done.directory}/{file['path']}").st_size == file["size"]
    if method != "aof":
        assert keys_in_rdb(f"{done.directory}/data/dump.rdb") == sum(keys.values())
    # nobody but root may look
    assert oct(os.stat(server.home / "backups" / "orders").st_mode & 0o777) == "0o700"
    assert not list((server.home / "backups").glob(".scratch*"))


def test_the_digest_is_the_one_that_another_server_comes_to(redis_server, new_redis, call_module, tmp_path):
    server = filled(redis_server)
    done = call_module("redis_backup", **params(server))
    again = call_module("redis_backup", **params(server, method="stream"))
    assert done.backup["digest"] == again.backup["digest"]
    assert done.backup["digest"] == digest_of_data(
        tmp_path / "judge", pathlib.Path(done.directory) / "data/dump.rdb", new_redis
    )


@pytest.mark.parametrize("method", ["rdb", "aof"])
def test_under_a_load_of_writes_the_numbers_are_of_the_copy(redis_server, call_module, method):
    server = filled(redis_server, AOF)
    with writing(server):
        done = call_module("redis_backup", **params(server, method=method))
    assert not done.failed, done.msg
    assert done.state == "verified"
    if method == "rdb":
        assert done.backup["exact"] is True
        assert keys_in_rdb(f"{done.directory}/data/dump.rdb") == done.backup["keys"]


def test_rewrites_meanwhile_do_an_aof_backup_no_harm(redis_server, call_module):
    server = filled(redis_server, AOF)
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            server.raw("BGREWRITEAOF")
            time.sleep(0.01)

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        results = [call_module("redis_backup", **params(server, method="aof")) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert [one.msg for one in results if one.failed] == [], "\n".join(one.msg for one in results if one.failed)
    # Where rewrites follow each other closely no moment may be exact; then it says so.
    assert {one.state for one in results} <= {"verified", "loaded"}
    assert len({one.backup["label"] for one in results}) == 5
    assert {one.backup["digest"] for one in results} == {results[0].backup["digest"]}
    assert server.config("auto-aof-rewrite-percentage") == "100"


def test_a_young_verified_backup_is_enough(redis_server, call_module):
    server = filled(redis_server)
    first = call_module("redis_backup", **params(server, max_age=3600))
    second = call_module("redis_backup", **params(server, max_age=3600))
    assert (first.changed, second.changed, second.backup["label"]) == (True, False, first.backup["label"])
    assert call_module("redis_backup", **params(server)).changed


# --- what is wrong with one is found and named --------------------------------------------------------------------------


def test_a_flipped_bit_in_any_file_is_found_and_named(redis_server, call_module):
    server = filled(redis_server, AOF)
    done = call_module("redis_backup", **params(server, method="aof"))
    home = pathlib.Path(done.directory)
    info = {"directory": str(server.home / "backups"), "verify": True}
    assert call_module("redis_backup_info", **info).status == 0
    for file in manifest_of(done.directory)["files"]:
        path = home / file["path"]
        raw = path.read_bytes()
        assert raw, file
        for place in {0, len(raw) // 2, len(raw) - 1}:
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
            found = call_module("redis_backup_info", **info).groups[0]["backups"][0]
            assert (found["state"], file["path"] in found["differences"][0]) == ("failed", True)
        path.write_bytes(raw)
    assert call_module("redis_backup_info", **info).status == 0
    (home / "data" / "more").write_text("x")
    assert "data/more" in call_module("redis_backup_info", **info).groups[0]["backups"][0]["differences"][0]
    (home / "data" / "more").unlink()
    (home / "acl" / "users.acl").unlink()
    assert call_module("redis_backup_info", **info).groups[0]["backups"][0]["differences"] == [
        "acl/users.acl is missing"
    ]


def test_a_copy_that_is_not_what_the_server_had_is_not_verified(redis_server, call_module, monkeypatch):
    """Somebody's flipped bit between the read and the write, in a value of the AOF: hashes are right, redis-check-aof is content."""
    server = filled(redis_server, AOF + "aof-use-rdb-preamble no\n")
    server.cli("SET", "only", "value-of-the-only-key")
    for number in range(20):
        server.cli("SELECT", "0")
        server.cli("SET", f"string:{number + 1}", "changed-value-" + "x" * 40)
    real = os.pread

    def bent(descriptor: int, size: int, place: int) -> bytes:
        return real(descriptor, size, place).replace(b"changed-value-x", b"changed-value-y")

    monkeypatch.setattr(backup_copy.os, "pread", bent)
    done = call_module("redis_backup", **params(server, method="aof", sample=1000))
    assert (done.failed, done.code) == (True, "backup_not_verified")
    assert "has another value" in done.msg
    found = call_module("redis_backup_info", directory=str(server.home / "backups"))
    assert (found.status, found.groups[0]["backups"][0]["state"]) == (2, "failed")


def test_a_key_too_few_is_not_verified(redis_server, call_module):
    server = filled(redis_server)
    done = call_module("redis_backup", **params(server))
    path = pathlib.Path(done.directory) / "manifest.json"
    content = unseal(path.read_text(), "x")
    content.pop("seal")
    content["keys"]["3"] = [51, 1]
    path.write_text(seal(content))
    again = call_module("redis_backup", **params(server, state="verified"))
    assert (again.state, again.backup["differences"]) == (
        "failed", ["database 3 has 50 keys (1 with a time to live), and had 51 (1)"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("assertion", "words"),
    [
        ({"key": "zset", "type": "zset", "min_count": 200}, ""),
        ({"key": "db3:7", "database": 3}, ""),
        ({"key": "zset", "min_count": 201}, "has 200 elements"),
        ({"key": "zset", "type": "hash"}, "is of type zset"),
        ({"key": "gone"}, "is not there"),
        ({"key": "x", "database": 99}, "out of range"),
    ],
)
def test_the_operators_own_assertions_count(redis_server, call_module, assertion, words):
    done = call_module("redis_backup", **params(filled(redis_server), assertions=[assertion]))
    assert done.failed == bool(words)
    assert words in done.msg


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "data/../../x"])
def test_a_manifest_that_leads_elsewhere_is_refused(redis_server, call_module, name):
    server = filled(redis_server)
    done = call_module("redis_backup", **params(server))
    path = pathlib.Path(done.directory) / "manifest.json"
    content = unseal(path.read_text(), "x")
    content.pop("seal")
    content["files"][0]["path"] = name
    path.write_text(seal(content))
    found = call_module("redis_backup_info", directory=str(server.home / "backups"), verify=True)
    assert found.groups[0]["backups"][0]["state"] == "failed"
    assert "leads out" in found.text
    again = call_module("redis_backup", **params(server, state="verified", backup=done.backup["label"]))
    assert (again.failed, again.code) == (True, "manifest_damaged")


# --- keep, delete --------------------------------------------------------------------------------------------------------


def test_the_last_verified_backup_is_not_deleted(redis_server, call_module):
    server = filled(redis_server)
    first = call_module("redis_backup", **params(server)).backup["label"]
    refused = call_module("redis_backup", **params(server, state="absent", backup=first))
    assert (refused.failed, refused.code) == (True, "last_verified")
    assert call_module("redis_backup_info", directory=str(server.home / "backups")).status == 0
    call_module("redis_backup", **params(server))
    gone = call_module("redis_backup", **params(server, state="absent", backup="oldest"))
    assert (gone.failed, gone.state) == (False, "absent")
    assert first not in os.listdir(server.home / "backups" / "orders")


def test_a_backup_is_pinned_and_unpinned(redis_server, call_module):
    server = filled(redis_server)
    call_module("redis_backup", **params(server))
    for state, kept in (("pinned", True), ("unpinned", False)):
        predicted = call_module("redis_backup", check=True, **params(server, state=state))
        done = call_module("redis_backup", **params(server, state=state))
        assert (done.changed, done.backup["pinned"], predicted.diff) == (True, kept, done.diff)
        assert not call_module("redis_backup", **params(server, state=state)).changed


# --- what is refused, and nothing changed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"group_name": "../up"}, "invalid_value"),
        ({"sample": -1}, "invalid_value"),
        ({"method": "aof"}, "aof_off"),
        ({"fork_headroom_percent": 100_000_000}, "fork_memory"),
        ({"state": "verified"}, "no_backup"),
        ({"login_port": 1}, "server_down"),
    ],
)
def test_what_cannot_be_done_changes_nothing(redis_server, call_module, change, code):
    server = filled(redis_server)
    before = server.tree()
    for check in (True, False):
        done = call_module("redis_backup", check=check, **{**params(server), **change})
        assert (done.failed, done.code) == (True, code), done.msg
    assert server.tree() == before
    assert server.info("rdb_saves") == "0"


@pytest.mark.parametrize("method", ["rdb", "stream"])
def test_an_rdb_file_that_the_server_never_read_is_not_saved_over(redis_server, call_module, method):
    """The oldest trap: a restart with appendonly yes and no AOF. The file is all that is left, and a save would replace it."""
    server = filled(redis_server, "save 3600 1\n")
    server.cli("SAVE")
    server.stop(signal.SIGKILL)
    os.utime(server.data / "dump.rdb", (time.time() - 3600,) * 2)
    server.write_conf("save 3600 1\nappendonly yes\nrepl-diskless-sync no\n")
    server.start()
    assert server.keys() == 0
    before = (server.data / "dump.rdb").read_bytes()
    done = call_module("redis_backup", **params(server, method=method))
    assert done.failed
    assert done.code == ("rdb_never_loaded" if method == "rdb" else "not_diskless"), done.msg
    assert (server.data / "dump.rdb").read_bytes() == before
    assert keys_in_rdb(str(server.data / "dump.rdb")) > 400


def test_an_unknown_backup_is_named_with_those_there_are(redis_server, call_module):
    server = filled(redis_server)
    label = call_module("redis_backup", **params(server)).backup["label"]
    done = call_module("redis_backup", **params(server, state="pinned", backup="yesterday"))
    assert (done.failed, done.code) == (True, "unknown_backup")
    assert label in done.msg


def test_two_runs_at_once_do_not_meet(redis_server, call_module):
    server = filled(redis_server)
    call_module("redis_backup", **params(server))
    held = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,sys,time; f=open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)",
         str(server.home / "backups" / "orders" / ".lock")], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert held.stdout.readline() == "held\n"
        saves = server.info("rdb_saves")
        done = call_module("redis_backup", **params(server))
        assert (done.failed, done.code) == (True, "backup_running")
        assert server.info("rdb_saves") == saves
    finally:
        held.kill()
        held.wait()
    assert not call_module("redis_backup", **params(server)).failed


def test_a_user_that_may_only_save_takes_an_rdb_backup_without_a_sample(redis_server, call_module):
    server = filled(redis_server)
    server.cli(
        "ACL",
        "SETUSER",
        "backup",
        "on",
        ">secret",
        "-@all",
        "+ping",
        "+bgsave",
        "+bgrewriteaof",
        "+lastsave",
        "+info",
        "+config|get",
    )
    done = call_module("redis_backup", **params(server, login_user="backup", login_password="secret"))
    assert not done.failed, done.msg
    assert done.state == "loaded"
    assert "no key was sampled" in done.backup["why"]
    assert "keys and keys with a time to live of each database" in done.backup["compared"]
    assert "sample.json" not in {file["path"] for file in manifest_of(done.directory)["files"]}
    assert "users were not saved" in manifest_of(done.directory)["notes"][0]


# --- who gives it ---------------------------------------------------------------------------------------------------------


def test_a_linked_replica_gives_the_backup_and_else_the_primary(new_redis, call_module):
    primary, replica = filled(new_redis("primary")), new_redis("replica")
    replica.write_conf(f'save ""\nreplicaof 127.0.0.1 {primary.port}\n')
    replica.start()
    deadline = time.monotonic() + 20
    while "master_link_status:up" not in replica.cli("INFO", "replication"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    group_hosts = [f"127.0.0.1:{primary.port}", f"127.0.0.1:{replica.port}"]
    there = {"group_hosts": group_hosts, "max_behind": 10_000_000}
    first = call_module("redis_backup", **params(primary, address=group_hosts[0], **there))
    second = call_module("redis_backup", **params(replica, address=group_hosts[1], **there))
    assert (first.state, first.changed, second.state) == ("elsewhere", False, "verified")
    assert first.source == second.source
    assert group_hosts[1] in first.source
    assert second.backup["source"] == "replica"
    replica.stop()
    third = call_module("redis_backup", **params(primary, address=group_hosts[0], **there))
    assert (third.state, third.backup["source"]) == ("verified", "primary")
    assert f"{group_hosts[1]} does not answer" in third.source


def test_a_save_that_replaces_what_nobody_loaded_keeps_it(redis_server, call_module):
    """An AOF that is about as good was loaded; the RDB file is another moment, and stays."""
    redis_server.write_conf("save 3600 1\nappendonly yes\n")
    redis_server.start().fill(100)
    redis_server.cli("SAVE")
    inode = (redis_server.data / "dump.rdb").stat().st_ino
    redis_server.fill(10, "later")
    redis_server.stop(signal.SIGKILL)
    redis_server.start()
    for _night in range(2):
        done = call_module("redis_backup", **params(redis_server, method="rdb"))
        assert not done.failed, done.msg
    (path,) = redis_server.data.glob("redisops-kept-*/dump.rdb")
    assert path.stat().st_ino == inode
    assert keys_in_rdb(str(path)) == 100


def test_a_backup_and_a_restore_at_once_wait_for_each_other(redis_server, call_module, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.system import lock

    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    redis_server.write_conf("save 3600 1\n")
    redis_server.start().fill(10)
    with subprocess.Popen(["flock", lock.lock_path(str(redis_server.data)), "sleep", "60"]) as holder:
        time.sleep(0.3)
        done = call_module("redis_backup", **params(redis_server))
        assert (done.failed, done.code) == (True, "data_is_locked"), done.msg
        subprocess.run(["pkill", "-P", str(holder.pid)], check=True)
    assert not call_module("redis_backup", **params(redis_server)).failed
