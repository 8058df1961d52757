# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup says only what was established: of which moment it is, what was compared, of which server, and what is left of it."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import socket
import threading
import time
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup import copy as backup_copy
from ansible_collections.redisops.recovery.plugins.module_utils.backup.identity import identity_of, other_server
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal, unseal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import loaded

from tests.integration.test_redis_backup import AOF, filled, manifest_of, params, writing
from tests.support.topology import free_port


def told(server, call_module, **more: t.Any) -> t.Any:
    return call_module("redis_backup_info", directory=str(server.home / "backups"), group_name="orders", **more)


def states(server, call_module) -> list[str]:
    return [row["state"] for row in told(server, call_module).groups[0]["backups"]]


def resealed(directory: str, change: t.Callable[[dict[str, t.Any]], None]) -> None:
    """The manifest with other content, whole again."""
    path = pathlib.Path(directory) / "manifest.json"
    content = unseal(path.read_text(), "x")
    content.pop("seal")
    change(content)
    path.write_text(seal(content))


def with_data_of(directory: str, other: str) -> None:
    """The data of another backup in this one, with its size and hash: only what is loaded can tell."""
    theirs = {file["path"]: file for file in manifest_of(other)["files"]}["data/dump.rdb"]
    shutil.copy(f"{other}/data/dump.rdb", f"{directory}/data/dump.rdb")
    resealed(
        directory,
        lambda content: content.update(
            files=[theirs if one["path"] == "data/dump.rdb" else one for one in content["files"]]
        ),
    )


# --- one exact moment ---------------------------------------------------------------------------------------------------


def test_a_rewrite_between_the_look_and_the_moment_is_found(redis_server, call_module, monkeypatch):
    """The old increment stands still from then on: without a second look at the manifest the moment seems quiet."""
    server = filled(redis_server, AOF)
    real = backup_copy._held
    looks = []

    def rewritten(place):
        found = real(place)
        looks.append(place)
        if len(looks) == 1:
            server.cli("BGREWRITEAOF")
            deadline = time.monotonic() + 20
            while server.info("aof_rewrite_in_progress") == "1" or server.info("aof_rewrites") == "0":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for number in range(1, 4):
                server.cli("SET", f"string:{number}", "written-after-the-rewrite")
        return found

    monkeypatch.setattr(backup_copy, "_held", rewritten)
    done = call_module("redis_backup", **params(server, method="aof"))
    assert (done.failed, done.state, len(looks)) == (False, "verified", 2), done.msg
    data = f"{done.directory}/{manifest_of(done.directory)['data']}"
    with loaded(data, str(server.home / "backups" / "orders"), 30.0) as copy:
        assert copy.server.command("GET", "string:1") == "written-after-the-rewrite"


def test_a_moment_is_exact_without_a_pause_of_writes(redis_server, call_module):
    """A user that may not pause writes, on a server that is never quiet."""
    server = filled(redis_server, AOF)
    server.cli("ACL", "SETUSER", "backup", "on", ">secret", "+@all", "~*", "&*", "-client|pause")
    with writing(server):
        done = call_module("redis_backup", **params(server, method="aof", login_user="backup", login_password="secret"))
    assert (done.failed, done.state) == (False, "verified"), done.msg
    assert manifest_of(done.directory)["slack"] == 0
    assert "cmdstat_client|pause" not in server.cli("INFO", "commandstats")


def test_what_was_compared_at_no_exact_moment_is_only_loaded(redis_server, call_module, monkeypatch):
    """A user that may not pause writes, and files of which it is not certain which part of them is the moment's."""
    from ansible_collections.redisops.recovery.plugins.module_utils.backup import copy

    monkeypatch.setattr(copy._Held, "lengths_at", lambda *_arguments: {})
    server = filled(redis_server, AOF)
    server.cli("ACL", "SETUSER", "backup", "on", ">secret", "+@all", "~*", "&*", "-client|pause")
    with writing(server):
        done = call_module("redis_backup", **params(server, method="aof", login_user="backup", login_password="secret"))
    assert not done.failed, done.msg
    assert done.state == "loaded"
    assert "it is of no exact moment" in done.backup["why"]
    assert done.backup["compared"] == ["SHA-256 of every file"]
    assert manifest_of(done.directory)["slack"] > 0
    assert told(server, call_module).status == 2
    none = call_module("redis_backup", **params(server, state="pinned", backup="latest_verified"))
    assert (none.failed, none.code) == (True, "unknown_backup")


def test_writes_are_not_held_up(redis_server, call_module):
    server = filled(redis_server, AOF)
    waits: list[float] = []
    stop = threading.Event()

    def client() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as one:
            while not stop.is_set():
                began = time.monotonic()
                one.sendall(b"SET w 1\r\n")
                assert one.recv(16).startswith(b"+OK")
                waits.append(time.monotonic() - began)
                time.sleep(0.0005)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        done = call_module("redis_backup", **params(server, method="aof"))
    finally:
        stop.set()
        thread.join()
    assert (done.failed, done.state) == (False, "verified"), done.msg
    stats = server.cli("INFO", "commandstats")
    assert "client|pause" not in stats
    assert "client|unpause" not in stats
    assert len(waits) > 50
    assert max(waits) < 0.4  # of two cores that others use


def test_the_pause_of_another_run_goes_on(redis_server, call_module):
    """Were it ended here, writes would be acknowledged that the other run does not count on."""
    server = filled(redis_server, AOF)
    server.cli("CLIENT", "PAUSE", "6000", "WRITE")
    until = time.monotonic() + 6
    done = call_module("redis_backup", **params(server, method="aof", verify=False))
    assert (done.failed, done.state) == (False, "copied"), done.msg
    assert time.monotonic() < until - 1, "the backup took longer than the pause"
    server.cli("SET", "after", "the pause")
    assert time.monotonic() > until - 0.1


def test_a_large_value_is_not_read_for_the_sample(redis_server, call_module):
    """A tiny head, and 200 elements of a megabyte: what looks at the head only takes it for small."""
    server = redis_server
    server.write_conf('save ""\n')
    server.start()
    server.cli("RPUSH", "large", "tiny")
    server.cli("EVAL", "for i=1,60 do redis.call('RPUSH', 'large', string.rep(tostring(i), 500000)) end", "0")
    server.cli("EVAL", "for i=1,100 do redis.call('SET', 'middle:'..i, string.rep('x', 7000)..i) end", "0")
    before = server.cli("INFO", "commandstats")
    assert "dump" not in before
    done = call_module("redis_backup", **params(server, sample=1000))
    assert (done.failed, done.state) == (False, "verified"), done.msg
    sample = {row["key"]: row for row in json.loads((pathlib.Path(done.directory) / "sample.json").read_text())}
    large = sample["bGFyZ2U="]
    assert (large["dump"], large["kind"], large["length"]) == ("", "list", 61)
    whole = [row for row in sample.values() if row["dump"]]
    assert 5 <= len(whole) <= 60  # 256 kB of memory, and no more
    assert any("that are large" in words for words in done.backup["compared"])


# --- what is compared ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("XGROUP", "DESTROY", "stream", "group"), "other groups, pending entries or ids"),
        (("XACK", "stream", "group", "1-1"), "other groups, pending entries or ids"),
        (("XSETID", "stream", "900-1"), "other groups, pending entries or ids"),
        (("HSET", "hash", "a", "2"), "has another value"),
        (
            ("FUNCTION", "LOAD", "REPLACE", "#!lua name=lab\nredis.register_function('one', function() return 2 end)"),
            "libraries of functions have other code",
        ),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else "",
)
def test_what_the_digest_does_not_see_is_compared(redis_server, call_module, change, words):
    server = redis_server
    server.write_conf('save ""\n')
    server.start()
    server.cli("XADD", "stream", "1-1", "f", "v")
    server.cli("XADD", "stream", "2-1", "f", "v")
    server.cli("XGROUP", "CREATE", "stream", "group", "0")
    server.cli("XREADGROUP", "GROUP", "group", "me", "COUNT", "1", "STREAMS", "stream", ">")
    server.cli("HSET", "hash", "a", "1")
    server.cli("FUNCTION", "LOAD", "#!lua name=lab\nredis.register_function('one', function() return 1 end)")
    first = call_module("redis_backup", **params(server))
    assert first.state == "verified"
    server.cli(*change)
    second = call_module("redis_backup", **params(server))
    assert second.state == "verified"
    with_data_of(first.directory, second.directory)
    again = call_module("redis_backup", **params(server, state="verified", backup=first.backup["label"]))
    assert again.state == "failed"
    assert words in " ".join(again.backup["differences"])


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_streams_with_groups_are_verified_from_an_aof_too(redis_server, call_module, preamble):
    """Replayed commands leave other times at which consumers were seen, and other nodes: no difference of data."""
    server = redis_server
    server.write_conf(AOF + f"aof-use-rdb-preamble {preamble}\n")
    server.start()
    for number in range(1, 21):
        server.cli("XADD", "stream", f"{number}-1", "field", f"value{number}")
    server.cli("XGROUP", "CREATE", "stream", "group", "0")
    server.cli("XREADGROUP", "GROUP", "group", "me", "COUNT", "3", "STREAMS", "stream", ">")
    server.cli("XDEL", "stream", "3-1")
    server.cli("XREADGROUP", "GROUP", "group", "other", "COUNT", "2", "STREAMS", "stream", ">")
    server.cli("XREADGROUP", "GROUP", "group", "idle", "COUNT", "1", "STREAMS", "stream", "1")
    for _each in range(2):
        done = call_module("redis_backup", **params(server, method="aof"))
        assert not done.failed, done.msg
        assert done.state == "verified", done.backup
        assert "type, expiry and content of 1 keys" in done.backup["compared"]
        server.cli("BGREWRITEAOF")
        time.sleep(0.5)


# --- keys that expire ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["aof", "rdb"])
def test_between_a_backup_and_its_use_keys_may_expire(redis_server, call_module, method):
    server = filled(redis_server, AOF)
    for number in range(5):
        server.cli("SET", f"soon:{number}", "x", "PX", "2500")
    done = call_module("redis_backup", **params(server, method=method))
    assert (done.failed, done.state) == (False, "verified"), done.msg
    time.sleep(3)
    again = call_module("redis_backup", **params(server, state="verified"))
    assert (again.state, again.backup["differences"], again.backup["digest"]) == ("verified", [], done.backup["digest"])
    drill = call_module("redis_drill", directory=str(server.home / "backups"), group_name="orders")
    assert not drill.failed, drill.msg


# --- what is left of them -----------------------------------------------------------------------------------------------


def damaged(path: pathlib.Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(raw[:-1])
    else:
        half = len(raw) // 2
        path.write_bytes(raw[:half] + bytes([raw[half] ^ 1]) + raw[half + 1 :])


@pytest.mark.parametrize("how", ["gone", "short", "flipped"])
def test_the_last_good_backup_is_not_deleted_for_a_broken_one(redis_server, call_module, how):
    server = filled(redis_server)
    good = call_module("redis_backup", **params(server)).backup["label"]
    time.sleep(1.1)
    newest = call_module("redis_backup", **params(server))
    damaged(pathlib.Path(newest.directory) / "data/dump.rdb", how)
    wanted = params(server, state="expired", retention={"keep_last": 1})
    predicted = call_module("redis_backup", check=True, **wanted)
    done = call_module("redis_backup", **wanted)
    assert not done.failed, done.msg
    assert (predicted.actions, predicted.diff) == (done.actions, done.diff)
    assert good in os.listdir(server.home / "backups" / "orders")
    assert states(server, call_module) == ["verified", "failed"]
    found = told(server, call_module)
    assert found.status == 4
    assert found.groups[0]["backups"][1]["differences"]
    # and it does not stand in for a new one
    assert call_module("redis_backup", **params(server, max_age=1)).changed


@pytest.mark.parametrize("name", ["data/dump.rdb", "conf/redis.conf", "acl/users.acl", "sample.json"])
def test_a_backup_that_lacks_a_file_is_not_told_as_good(redis_server, call_module, name):
    server = filled(redis_server)
    done = call_module("redis_backup", **params(server))
    os.unlink(f"{done.directory}/{name}")
    row = told(server, call_module).groups[0]["backups"][0]
    assert (row["state"], row["differences"], row["compared"]) == ("failed", [f"{name} is missing"], [])
    assert told(server, call_module).status == 2
    health = call_module(
        "redis_health_info", **{key: value for key, value in server.params().items() if key != "timeout"},
        backup_directory=str(server.home / "backups"), group_name="orders", rpo_seconds=3600,
    )  # fmt: skip
    codes = {one["code"]: one for one in health.findings}
    assert codes["backup_unverified"]["severity"] == "warning"
    young = call_module("redis_backup", **params(server, max_age=3600))
    assert (young.changed, young.state) == (True, "verified")


def test_backups_that_failed_go_but_for_two(redis_server, call_module):
    server = filled(redis_server)
    good = call_module("redis_backup", **params(server)).backup["label"]
    for _each in range(4):
        done = call_module(
            "redis_backup", **params(server, retention={"keep_last": 1}, assertions=[{"key": "never", "type": "hash"}])
        )
        assert (done.failed, done.code) == (True, "backup_not_verified")
    rows = told(server, call_module).groups[0]["backups"]
    assert [row["state"] for row in rows] == ["verified", "failed", "failed"]
    assert rows[0]["label"] == good


# --- of which server, and how old ---------------------------------------------------------------------------------------


def test_two_servers_of_a_host_do_not_share_a_store(new_redis, call_module):
    one, other = filled(new_redis("one")), filled(new_redis("other"))
    first = call_module("redis_backup", **params(one))
    assert not first.failed, first.msg
    marks = manifest_of(first.directory)["server"]
    assert (marks["address"], marks["dir"], marks["config_file"]) == (str(one.port), str(one.data), str(one.conf))
    assert (marks["run_id"], marks["host"]) == (one.info("run_id"), socket.gethostname())
    theirs = {**params(other), "directory": str(one.home / "backups")}
    saves = other.info("rdb_saves")
    for check in (True, False):
        refused = call_module("redis_backup", check=check, **theirs)
        assert (refused.failed, refused.code) == (True, "other_server")
        assert str(other.port) in refused.msg
    assert other.info("rdb_saves") == saves
    apart = call_module("redis_backup", **{**theirs, "group_name": "another"})
    assert not apart.failed, apart.msg
    # the same one after a restart, under another port, is the same
    one.stop()
    one.port = free_port()
    one.write_conf('save ""\n')
    one.start()
    again = call_module("redis_backup", **params(one))
    assert not again.failed, again.msg


def test_primary_and_replica_of_one_host_may_share_it(new_redis, call_module):
    primary, replica = filled(new_redis("primary")), new_redis("replica")
    replica.write_conf(f'save ""\nreplicaof 127.0.0.1 {primary.port}\n')
    replica.start()
    linked(replica)
    assert call_module("redis_backup", **params(primary)).state == "verified"
    done = call_module("redis_backup", **{**params(replica), "directory": str(primary.home / "backups")})
    assert (done.failed, done.state) == (False, "verified"), done.msg


def test_marks_of_servers():
    here = {"address": "6379", "dir": "/a", "config_file": "/etc/a", "run_id": "1", "replid": "r1", "host": "h"}
    assert not other_server(here, here)
    assert not other_server({}, here)
    assert not other_server({**here, "host": "elsewhere", "address": "1", "dir": "/b"}, here)
    two = {**here, "address": "6380", "dir": "/b", "config_file": "/etc/b", "run_id": "2", "replid": "r2"}
    assert "6380" in other_server(two, here)
    assert not other_server({**two, "replid2": "r1"}, here)
    assert not other_server({**two, "dir": "/a", "config_file": "/etc/a"}, here)
    assert other_server({**two, "dir": "/a"}, here)  # two instances that share a directory
    assert not other_server(two, {**here, "run_id": "2"})


def linked(replica, status: str = "up") -> None:
    deadline = time.monotonic() + 20
    while f"master_link_status:{status}" not in replica.cli("INFO", "replication"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_replica_whose_link_is_down_gives_a_backup_of_then(new_redis, call_module):
    primary, replica = filled(new_redis("primary")), new_redis("replica")
    replica.write_conf(f'save ""\nreplicaof 127.0.0.1 {primary.port}\n')
    replica.start()
    linked(replica)
    primary.stop()
    linked(replica, "down")
    time.sleep(3)
    began = time.time()
    done = call_module("redis_backup", **params(replica))
    assert (done.failed, done.state) == (False, "verified"), done.msg
    manifest = manifest_of(done.directory)
    assert began - 8 < manifest["taken_at"] < began - 2
    assert any("the link of this replica has been down" in note for note in manifest["notes"])
    assert done.backup["label"].startswith(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(manifest["taken_at"])))


def test_a_replica_that_never_had_a_link_gives_none(new_redis, call_module):
    replica = new_redis()
    replica.write_conf('save ""\nreplicaof 127.0.0.1 1\n')
    replica.start()
    for check in (True, False):
        done = call_module("redis_backup", check=check, **params(replica))
        assert (done.failed, done.code) == (True, "replica_not_linked")
    assert not (replica.home / "backups").exists()


# --- on a share ---------------------------------------------------------------------------------------------------------


def refusing(*_arguments: t.Any, **_options: t.Any) -> t.NoReturn:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.needs_root
@pytest.mark.parametrize("call", ["chown", "link"])
def test_a_share_is_refused_before_anything_is_copied(redis_server, call_module, monkeypatch, call):
    server = filled(redis_server)
    saves = server.info("rdb_saves")
    monkeypatch.setattr(os, call, refusing)
    for check in (True, False):
        done = call_module("redis_backup", check=check, **params(server))
        assert (done.failed, done.code) == (True, "store_unfit")
        assert "NFS" in done.msg
        assert "restic" in done.msg
    assert server.info("rdb_saves") == saves
    assert not [path for path in server.home.rglob("*") if path.name.startswith((".work", ".begun", ".fit"))]


@pytest.mark.needs_root
def test_a_share_where_modes_stay_is_refused(redis_server, call_module, monkeypatch):
    """CIFS: chmod goes well, and changes nothing."""
    server = filled(redis_server)
    monkeypatch.setattr(os, "chmod", lambda *_arguments, **_options: None)
    done = call_module("redis_backup", **params(server))
    assert (done.failed, done.code) == (True, "store_unfit")


@pytest.mark.needs_root
@pytest.mark.parametrize("call", ["fchown", "link"])
def test_a_backup_that_was_brought_to_a_share_says_that_it_was_not_loaded(redis_server, call_module, monkeypatch, call):
    server = filled(redis_server)
    assert call_module("redis_backup", **params(server)).state == "verified"
    real = os.fchown

    def refused(descriptor: int, uid: int, gid: int) -> None:
        if gid > 60000:
            refusing()
        real(descriptor, uid, gid)

    monkeypatch.setattr(os, call, refused if call == "fchown" else refusing)
    done = call_module("redis_backup", **params(server, state="verified"))
    assert (done.failed, done.state) == (False, "copied"), done.msg
    assert "not loaded" in done.backup["why"]


def test_an_identity_leaves_out_what_is_not_known():
    class Nothing:
        @staticmethod
        def text(_name: str) -> str:
            return ""

    assert identity_of(Nothing(), {"port": "0", "unixsocket": "/run/r.sock", "dir": "/d"}, "h") == {
        "address": "/run/r.sock", "dir": "/d", "host": "h",
    }  # fmt: skip
