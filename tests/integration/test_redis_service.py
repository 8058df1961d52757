# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_service against a real server under a unit that only pretends; systemd itself is Molecule's. redis-cli is the judge."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time

import pytest
import redis

from tests.support.topology import free_port
from tests.support.unit import PretendedUnit

RDB_ONLY = "save 900 1\nappendonly no\n"
AOF = "appendonly yes\n"


@pytest.fixture(name="unit")
def _unit(redis_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_service

    unit = PretendedUnit(redis_server)
    monkeypatch.setattr(redis_service, "SYSTEM_UNITS", str(redis_server.home / "units"))
    host = redis_service.Host
    monkeypatch.setattr(redis_service, "Host", lambda: host("/", unit.run))
    return unit


@pytest.fixture(name="serve")
def _serve(call_module, redis_server, unit):
    def run(check=False, **options):
        return call_module("redis_service", check=check, **redis_server.params(unit="redis", **options))

    return run


def due(redis_server, line="tcp-backlog 128\n"):
    """Something in the file that takes a restart."""
    with redis_server.conf.open("a") as handle:
        handle.write(line)


def refused(serve, unit, code):
    """In check mode and for real: the error, nothing changed, and the same process."""
    server = unit.server
    before, pid = server.tree(), server.process.pid
    for check in (True, False):
        result = serve(check=check)
        assert result.failed
        assert result.code == code, result.msg
        assert "Unexpected" not in result.msg
        assert (server.tree(), server.process.pid, unit.did) == (before, pid, [])
    if server.process.poll() is None:
        assert "PONG" in server.raw("PING")
    return result


@pytest.mark.parametrize("persistence", [AOF, RDB_ONLY])
def test_a_restart_loses_nothing_and_is_due_once(serve, unit, persistence):
    unit.server.write_conf(persistence)
    unit.server.start().fill(100)
    due(unit.server)
    assert serve(check=True).restart_required != []
    done = serve()
    assert not done.failed, done.msg
    assert (done.restarted, done.keys["before"], done.keys["after"]) == (True, 100, 100)
    assert "is there again" in done.keys["verdict"]
    assert unit.server.config("tcp-backlog") == "128"
    assert unit.server.cli("SET", "writes", "go on") == "OK"
    again = serve()
    assert (again.changed, again.actions, again.restart_required) == (False, [], [])


@pytest.mark.parametrize("line", ["no-such-directive 1\n", "hz often\n"])
def test_a_file_that_redis_would_not_start_from_is_refused_before_the_old_process_is_gone(serve, unit, line):
    unit.server.write_conf(AOF)
    unit.server.start().fill(10)
    due(unit.server)
    due(unit.server, line)
    assert line.split()[0] in refused(serve, unit, "conf_rejected").msg


def test_no_acknowledged_write_is_lost_however_the_process_ends(serve, unit):
    """Without an AOF, and with a server that does not save when it is predicted to end."""
    server = unit.server
    server.write_conf(RDB_ONLY + "shutdown-on-sigterm nosave\n")
    server.start().fill(2000)
    server.cli("CONFIG", "SET", "rdb-key-save-delay", "200")
    due(server)
    acknowledged, halt = [], threading.Event()

    def write():
        client = redis.Redis(port=server.port)
        try:
            while not halt.is_set():
                client.set(f"w:{len(acknowledged)}", 1)
                acknowledged.append(len(acknowledged))
                time.sleep(0.002)
        except redis.RedisError:
            pass

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.2)
    done = serve()
    halt.set()
    writer.join()
    assert not done.failed, done.msg
    assert done.restarted
    assert len(acknowledged) > 50
    client = redis.Redis(port=server.port)
    assert [number for number in acknowledged if not client.exists(f"w:{number}")] == []


def test_the_pause_ends_soon_after_a_run_that_was_cut_off(serve, unit, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server

    asked, command = [], Server.command

    def watched(self, *words):
        asked.append(words)
        return command(self, *words)

    monkeypatch.setattr(Server, "command", watched)
    unit.server.write_conf(AOF)
    unit.server.start().fill(10)
    due(unit.server)
    assert serve(timeout=3600).restarted
    pauses = [int(words[2]) for words in asked if words[:2] == ("CLIENT", "PAUSE")]
    assert pauses
    assert max(pauses) <= 30000


def test_an_empty_server_beside_its_data(serve, unit):
    server = unit.server
    server.write_conf(RDB_ONLY)
    server.start().fill(100)
    server.stop()
    os.utime(server.data / "dump.rdb", (1, 1))
    server.write_conf(AOF)
    server.start()
    due(server)
    before = (server.data / "dump.rdb").read_bytes()
    refused(serve, unit, "rdb_never_loaded")
    assert (server.data / "dump.rdb").read_bytes() == before


@pytest.mark.parametrize("promoted", [True, False])
def test_a_role_that_the_file_does_not_know(serve, unit, promoted):
    server = unit.server
    server.write_conf(AOF + ("replicaof 127.0.0.1 1\n" if promoted else ""))
    server.start()
    if promoted:
        server.cli("REPLICAOF", "NO", "ONE")
    server.fill(5)
    if not promoted:
        server.cli("REPLICAOF", "127.0.0.1", "1")
    due(server)
    refused(serve, unit, "role_differs")
    assert server.keys() == 5


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("databases_too_few", "databases 4\n"),
        ("maxmemory_too_low", "maxmemory 100kb\n"),
        ("cluster_with_keys", "cluster-enabled yes\n"),
        ("place_differs", "dbfilename other.rdb\n"),
        ("aof_differs", "appendonly no\n"),
    ],
)
def test_what_the_next_process_would_not_hold(serve, unit, code, line):
    unit.server.write_conf(AOF)
    unit.server.start().fill(10)
    unit.server.cli("-n", "9", "SET", "x", "1")
    due(unit.server, "tcp-backlog 128\n" + line)
    refused(serve, unit, code)


@pytest.mark.parametrize("watched", [True, False])
def test_a_primary_that_a_sentinel_watches(serve, unit, new_redis, watched):
    server = unit.server
    server.write_conf(AOF + "repl-diskless-sync-delay 0\n")
    server.start().fill(10)
    replica = new_redis("two")
    replica.write_conf(f"replicaof 127.0.0.1 {server.port}\n")
    replica.start()
    for _ in range(200):
        if replica.info("master_link_status") == "up":
            break
        time.sleep(0.05)
    due(server)
    if watched:
        client = redis.Redis(port=server.port).pubsub()
        client.subscribe("__sentinel__:hello")
        assert client.get_message(timeout=5)
        refused(serve, unit, "primary_is_watched")
    else:
        assert serve().restarted


@pytest.mark.parametrize("spelled", ["slash", "link"])
def test_another_spelling_of_the_directory_is_the_same_place(serve, unit, spelled):
    server = unit.server
    link = server.home / "link"
    link.symlink_to(server.data)
    reported = f"{server.data}/" if spelled == "slash" else str(link)
    server.write_conf(AOF)
    server.conf.write_text(server.conf.read_text().replace(f"dir {server.data}\n", f"dir {reported}\n"))
    server.start().fill(10)
    assert serve().restart_required == []
    due(server)
    assert serve().restarted
    assert server.keys() == 10


def test_a_file_that_changes_behind_the_first_proof(serve, unit, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.service import unit_apply

    save = unit_apply.save_before_stop

    def meanwhile(*arguments):
        save(*arguments)
        due(unit.server, "appendonly no\n")

    monkeypatch.setattr(unit_apply, "save_before_stop", meanwhile)
    unit.server.write_conf(AOF)
    unit.server.start().fill(10)
    due(unit.server)
    pid = unit.server.process.pid
    result = serve()
    assert result.code == "aof_differs", result
    assert "has not been stopped" in result.msg
    assert unit.server.process.pid == pid
    assert unit.server.cli("SET", "writes", "go on") == "OK"


def test_a_unit_that_starts_with_another_file(serve, unit):
    unit.server.start()
    due(unit.server)
    unit.conf = "/etc/redis/other.conf"
    refused(serve, unit, "other_config_file")


@pytest.mark.parametrize("keep_rdb", [True, False])
def test_a_stopped_server_whose_data_is_in_doubt_is_not_started(serve, unit, keep_rdb):
    server = unit.server
    server.write_conf(AOF + "save 900 1\n")
    server.start().fill(10)
    server.cli("SAVE")
    server.fill(90, "new")
    server.stop(signal.SIGKILL)
    if keep_rdb:
        os.utime(server.data / "dump.rdb", (1, 1))
    else:
        (server.data / "dump.rdb").unlink()
    server.write_conf(RDB_ONLY)
    refused(serve, unit, "which_is_newer" if keep_rdb else "aof_switched_off")


def test_a_line_that_was_taken_out_of_the_file_counts_as_redis_default(serve, unit):
    """Where the file is silent the next process has Redis' default (16), not what this process has."""
    server = unit.server
    server.write_conf(AOF + "databases 64\n")
    server.start().cli("-n", "20", "SET", "x", "1")
    server.write_conf(AOF)
    due(server)
    refused(serve, unit, "databases_too_few")


def test_the_other_spelling_of_no_one(serve, unit):
    unit.server.write_conf(AOF + "replicaof NO ONE\n")
    unit.server.start().fill(10)
    due(unit.server)
    done = serve()
    assert not done.failed, done.msg
    assert done.restarted


def test_a_restart_that_is_asked_for_is_done_with_the_same_proofs(serve, unit):
    unit.server.write_conf(AOF)
    unit.server.start().fill(100)
    assert serve().restarted is False
    pid = unit.server.process.pid
    predicted = serve(check=True, restart="always")
    assert (predicted.restart_required, unit.server.process.pid) == (["restart: always"], pid)
    done = serve(restart="always")
    assert not done.failed, done.msg
    assert (done.restarted, done.keys["after"]) == (True, 100)
    assert unit.server.process.pid != pid
    unit.server.cli("CONFIG", "SET", "appendonly", "no")
    assert serve(restart="always").code == "aof_differs"


def test_a_server_that_would_not_replay_its_transactions_is_not_restarted(serve, unit):
    """Redis before 8.4.4 runs the transactions of its AOF as the default user."""
    unit.server.write_conf(AOF)
    unit.server.start().fill(10)
    due(unit.server)
    unit.server.cli("ACL", "SETUSER", "default", "-flushall")
    assert "MULTI" in refused(serve, unit, "aof_needs_default").msg
    unit.server.cli("ACL", "SETUSER", "default", "+@all")
    assert serve().restarted


def test_a_program_that_was_upgraded_under_the_process_is_a_reason_for_a_restart(serve, unit, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "redis-server"
    program.parent.mkdir()
    shutil.copy(os.path.realpath(shutil.which("redis-server")), program)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    unit.server.write_conf(AOF)
    unit.server.start().fill(50)
    pid = unit.server.process.pid
    assert serve().restart_required == []
    newer = program.with_suffix(".new")
    shutil.copy(program, newer)
    newer.rename(program)  # as dpkg and rpm do it
    waits = serve(restart="never")
    assert (waits.restarted, unit.server.process.pid) == (False, pid)
    assert waits.restart_required == [f"program: {program} was upgraded, the process is of the one before"]
    done = serve()
    assert not done.failed, done.msg
    assert (done.restarted, done.keys["after"]) == (True, 50)
    assert os.readlink(f"/proc/{unit.server.process.pid}/exe") == str(program)
    assert serve().changed is False
    program.unlink()  # removed, not upgraded: a restart would find nothing to start
    assert serve(restart="never").restart_required == []


# --- custody -------------------------------------------------------------------------------------------------------------


def test_an_empty_server_is_not_restarted_into_a_place_whose_data_it_passes_over(serve, unit, new_redis):
    server, source = unit.server, new_redis("source")
    source.write_conf(RDB_ONLY)
    source.start().fill(5000)
    source.stop()
    server.write_conf(AOF)
    server.start()
    server.conf.write_text(server.conf.read_text().replace(f"dir {server.data}", f"dir {source.data}"))
    refused(serve, unit, "start_would_be_empty")


def test_the_rdb_that_a_start_does_not_load_is_kept(serve, unit):
    server = unit.server
    server.write_conf("save 3600 1\n" + AOF)
    server.start().fill(100)
    server.stop()
    saved = os.stat(server.data / "dump.rdb").st_ino
    predicted = serve(check=True)
    done = serve()
    assert not done.failed, done.msg
    assert predicted.actions == done.actions
    assert any(action.startswith("keep ") for action in done.actions)
    (path,) = server.data.glob("redisops-kept-*/dump.rdb")
    assert path.stat().st_ino == saved
    server.cli("SAVE")
    assert path.stat().st_ino == saved != os.stat(server.data / "dump.rdb").st_ino
    assert not serve().changed


@pytest.mark.needs_root
def test_a_server_that_cannot_save_is_not_stopped_and_loses_nothing(serve, unit):
    """RDB only, and the disk fills up between the first save and the shutdown: Redis refuses to end, and so do we."""
    import subprocess

    server = unit.server
    server.data.rmdir()
    server.data.mkdir(0o750)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "redisops-test", server.data], check=True)
    try:
        server.write_conf("save 3600 1\nstop-writes-on-bgsave-error no\n")
        server.start().fill(100)
        due(server)
        from ansible_collections.redisops.recovery.plugins.module_utils.service import unit_apply

        save = unit_apply.save_before_stop

        def then_full(*arguments):
            save(*arguments)
            server.fill(300, "later")
            with contextlib.suppress(OSError), (server.data / "junk").open("wb", buffering=0) as handle:
                while handle.write(b"x" * 4096):
                    pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unit_apply, "save_before_stop", then_full)
            pid = server.process.pid
            done = serve()
        assert (done.failed, done.code) == (True, "stop_refused"), done.msg
        assert (server.process.pid, server.keys()) == (pid, 400)
        assert server.cli("SET", "writes", "go on") == "OK"
        assert server.config("shutdown-on-sigterm") == "default"
        assert not unit.held
        (server.data / "junk").unlink()
        assert serve().restarted
        assert server.keys() == 401
    finally:
        server.stop(signal.SIGKILL)
        subprocess.run(["umount", "--lazy", server.data], check=True)


def test_a_shutdown_that_would_not_save_is_told_to(serve, unit):
    server = unit.server
    server.write_conf('save ""\nappendonly no\nshutdown-on-sigterm nosave force\n')
    server.start().fill(100)
    due(server)
    assert serve().restarted
    assert server.keys() == 100


def test_a_rewrite_that_begins_meanwhile_is_no_incomplete_aof(serve, unit, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence import collect

    server, real, looks = unit.server, collect.aof_in_use, []

    def first_look_is_torn(*arguments):
        looks.append(arguments)
        return len(looks) > 1 and real(*arguments)

    monkeypatch.setattr(collect, "aof_in_use", first_look_is_torn)
    server.write_conf(AOF)
    server.start().fill(10)
    due(server)
    assert not serve(check=True).failed


@pytest.mark.parametrize("how", ["the file was edited", "live only"])
def test_a_stopped_server_is_not_started_on_an_aof_that_has_aged(serve, unit, call_module, how):
    """AOF off, thousands of keys since, and the file says yes: nobody can tell by the times alone."""
    server = unit.server
    server.write_conf("save 3600 1\n" + AOF)
    server.start().fill(10)
    if how == "live only":
        server.cli("CONFIG", "SET", "appendonly", "no")
    else:
        server.stop()
        server.write_conf(RDB_ONLY)
        server.start()
    server.fill(5000)
    server.cli("SAVE")
    server.stop(signal.SIGKILL)
    server.write_conf("save 3600 1\n" + AOF)
    before = server.tree()
    for check in (True, False):
        done = serve(check=check)
        assert (done.failed, done.code) == (True, "rdb_has_more"), done.msg
        assert (server.tree(), unit.did) == (before, [])
        other = call_module(
            "redis_persistence", check=check, **server.params(owner="root", group="root", save=["3600 1"])
        )
        assert (other.failed, other.code) == (True, "rdb_has_more"), other.msg
        assert server.tree() == before
    (server.data / "appendonlydir").rename(server.home / "aside")
    assert not call_module("redis_persistence", **server.params(owner="root", group="root", save=["3600 1"])).failed
    assert not serve().failed
    assert server.keys() == 5000


def test_a_torn_transaction_swallows_nothing_that_a_restart_would_lose(serve, unit):
    """A power cut within EXEC: Redis starts, and all that is written from then on stands behind an open MULTI."""
    server = unit.server
    server.write_conf('save ""\n' + AOF)
    server.start().fill(1)
    server.stop()
    path = server.data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    with path.open("ab") as handle:
        handle.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$1\r\n1\r\n*1\r\n$4\r\nEX")
    server.start()
    for number in range(5):  # no script: the EXEC of that would end the torn transaction
        server.cli("SET", f"later:{number}", "1")
    assert server.keys() == 6
    due(server)
    predicted = serve(check=True)
    done = serve()
    assert not done.failed, done.msg
    assert predicted.actions == done.actions
    assert any("BGREWRITEAOF" in action for action in done.actions)
    assert server.keys() == 6
    assert server.restart(signal.SIGKILL).keys() == 6


def test_data_that_a_manifest_does_not_name_stops_a_start(serve, unit):
    server = unit.server
    server.write_conf('save ""\n' + AOF)
    server.start().fill(20)
    server.cli("BGREWRITEAOF")
    deadline = time.monotonic() + 20
    while "2.base" not in (server.data / "appendonlydir" / "appendonly.aof.manifest").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.fill(20, "later")
    server.stop()
    manifest = server.data / "appendonlydir" / "appendonly.aof.manifest"
    lines = manifest.read_text().splitlines(keepends=True)
    for left in lines:
        manifest.write_text(left)
        before = server.tree()
        for check in (True, False):
            done = serve(check=check)
            assert (done.failed, done.code) == (True, "aof_unlisted"), done.msg
            assert (server.tree(), unit.did) == (before, [])


def test_a_client_that_sentinel_closes_asks_once_more(redis_server):
    """CLIENT KILL TYPE normal, as Sentinel sends it to whom it makes a replica; another process is not asked in its place."""
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
        Login,
        ServerDown,
        connect,
    )

    server = connect(Login(port=redis_server.start().port))
    pid = server.info().number("process_id")
    redis_server.cli("CLIENT", "KILL", "TYPE", "normal")
    assert server.info().number("process_id") == pid
    redis_server.cli("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(ServerDown):
        server.command("SET", "a", "1")  # what changes something is never sent twice
    server.info()
    redis_server.restart()
    with pytest.raises(ServerDown):
        server.info()


STOPPED = {"state": "stopped", "enabled": False}


@pytest.mark.parametrize("persistence", [AOF, RDB_ONLY, 'save ""\nappendonly no\n'])
def test_a_server_that_is_stopped_for_good_has_all_of_its_data_on_disk(serve, unit, persistence):
    server = unit.server
    server.write_conf(persistence)
    server.start().fill(100)
    before = server.tree()
    predicted = serve(check=True, **STOPPED)
    assert (predicted.failed, server.tree(), unit.did) == (False, before, []), predicted.msg
    done = serve(**STOPPED)
    assert not done.failed, done.msg
    assert (done.actions, done.diff) == (predicted.actions, predicted.diff)
    assert (unit.pid(), unit.enabled, unit.held) == (0, False, False)
    assert not serve(**STOPPED).changed
    server.start()
    assert server.keys() == 100


def test_a_file_that_the_process_never_loaded_is_kept_when_it_is_stopped(serve, unit):
    """Its shutdown would save over it."""
    server = unit.server
    server.write_conf(RDB_ONLY)
    server.start().fill(100)
    server.stop()
    saved = (server.data / "dump.rdb").read_bytes()
    (server.data / "dump.rdb").rename(server.home / "aside.rdb")
    server.start().fill(60, "new")
    (server.home / "aside.rdb").rename(server.data / "dump.rdb")
    done = serve(**STOPPED)
    assert not done.failed, done.msg
    (kept,) = server.data.glob("redisops-kept-*/dump.rdb")
    assert kept.read_bytes() == saved
    server.start()
    assert server.keys() == 60


def test_a_server_whose_address_is_not_known_is_not_stopped(serve, unit):
    server = unit.server
    server.write_conf(AOF)
    server.start().fill(10)
    pid = server.process.pid
    for check in (True, False):
        done = serve(check=check, **STOPPED, login_port=free_port())
        assert done.failed, done.actions
        assert done.code in ("server_elsewhere", "not_the_units_process", "data_in_use"), (done.code, done.msg)
    assert (server.process.pid, server.keys(), unit.did) == (pid, 10, [])


def test_the_rdb_that_an_aof_was_made_of_is_loaded_with_it(serve, unit, call_module):
    server = unit.server
    server.write_conf(RDB_ONLY)
    server.start().fill(100)
    server.stop()
    made = call_module("redis_persistence", **server.params(appendonly=True))
    assert not made.failed, made.msg
    predicted, done = serve(check=True), serve()
    assert not done.failed, done.msg
    assert predicted.actions == done.actions
    assert (server.keys(), list(server.data.glob("redisops-kept-*"))) == (100, [])


def test_a_server_that_makes_its_first_aof_is_stopped_when_it_is_made(serve, unit, monkeypatch):
    """It begins right after our save. Until it is made Redis does not end on SIGTERM; so it is with each replica after a full synchronisation."""
    from ansible_collections.redisops.recovery.plugins.module_utils.service import stopped_apply

    server = unit.server
    server.write_conf("save 900 1\nappendonly no\n")
    server.start().fill(100)
    save = stopped_apply.save_before_stop

    def then_begins(*arguments):
        save(*arguments)
        for name, value in (("rdb-key-save-delay", "70000"), ("appendonly", "yes"), ("rdb-key-save-delay", "0")):
            server.cli("CONFIG", "SET", name, value)
        assert server.info("aof_rewrite_in_progress") == "1"

    monkeypatch.setattr(stopped_apply, "save_before_stop", then_begins)
    done = serve(**STOPPED)
    assert not done.failed, done.msg
    assert "can't exit" not in server.log()
    server.start("--appendonly", "yes")
    assert server.keys() == 100
