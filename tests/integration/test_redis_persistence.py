# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_persistence against a real server_connection; redis-cli, stat and a restart are the judges."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import signal
import stat
import time

import pytest

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
RDB_ONLY = "save 900 1\nappendonly no\n"


@pytest.fixture(name="persist")
def _persist(call_module, redis_server):
    def run(check=False, **options):
        return call_module("redis_persistence", check=check, **redis_server.params(**{**ME, **options}))

    return run


def settled(persist, **options):
    """Check, run, run again: check mode predicted the truth, and the second run changes nothing. Gives the real run's result."""
    predicted = persist(check=True, **options)
    assert not predicted.failed, predicted.msg
    done = persist(**options)
    assert not done.failed, done.msg
    assert (predicted.changed, predicted.diff, predicted.actions, predicted.restart_required) == (
        done.changed, done.diff, done.actions, done.restart_required,
    )  # fmt: skip
    again = persist(**options)
    assert not again.failed, again.msg
    assert (again.changed, again.actions, again.diff) == (False, [], {"before": "", "after": ""})
    return done


def refused(persist, redis_server, code, **options):
    """In check mode and for real: the error, and nothing changed."""
    before, live = redis_server.tree(), redis_server.process and redis_server.process.poll() is None
    config = redis_server.live_config() if live else ""
    for check in (True, False):
        result = persist(check=check, **options)
        assert result.failed
        assert not result.changed
        assert "Unexpected" not in result.msg
        assert result.code == code, result.msg
        assert redis_server.tree() == before
        if live:
            assert redis_server.live_config() == config
    return result


def modes(redis_server):
    return {stat.S_IMODE(path.stat().st_mode) for path in redis_server.data.rglob("*") if path.is_file()}


# --- a running server_connection -------------------------------------------------------------------------------------------------


def test_rdb_only_server_with_data_gets_an_aof_and_loses_nothing(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(5000)
    done = settled(persist)
    assert done.changed
    assert any("CONFIG SET appendonly yes" in action for action in done.actions)
    assert done.crash_loss["seconds"] == 2
    assert redis_server.config("appendonly") == "yes"
    assert redis_server.config("save") == "900 1 300 10 60 10000"
    assert modes(redis_server) == {0o660}
    text = redis_server.conf.read_text()
    assert text.startswith("# made for a test\n")
    assert text.count("appendonly ") == 1
    redis_server.cli("SET", "after", "1")
    time.sleep(1.1)
    redis_server.restart(signal.SIGKILL)
    assert redis_server.keys() == 5001


def test_check_mode_leaves_no_trace(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(10)
    before, config = redis_server.tree(), redis_server.live_config()
    assert persist(check=True).changed
    assert redis_server.tree() == before
    assert redis_server.live_config() == config


def test_file_says_aof_but_the_live_server_has_none(persist, redis_server):
    """What a role that was cut before its handler leaves behind: the next restart would start empty."""
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(100)
    redis_server.write_conf("appendonly yes\n")
    done = settled(persist)
    assert "until the AOF is verified" in "\n".join(done.actions)
    assert redis_server.restart(signal.SIGKILL).keys() == 100


def test_aof_turned_on_by_hand_is_written_to_the_file_once_verified(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(100)
    redis_server.cli("CONFIG", "SET", "appendonly", "yes")
    assert not persist().failed
    assert "appendonly yes" in redis_server.conf.read_text()
    assert redis_server.restart(signal.SIGKILL).keys() == 100


def test_stale_aof_beside_a_server_whose_aof_is_off(persist, redis_server):
    """yes → no → yes in the file loads the old AOF; the live way does not."""
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10, "old")
    redis_server.cli("CONFIG", "SET", "appendonly", "no")
    redis_server.write_conf(RDB_ONLY)
    redis_server.fill(90, "new")
    settled(persist)
    assert redis_server.restart(signal.SIGKILL).keys() == 100


def test_aof_directory_lost_under_a_running_server(persist, redis_server):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(100)
    shutil.rmtree(redis_server.data / "appendonlydir")
    (redis_server.data / "appendonlydir").mkdir()
    done = persist()
    assert not done.failed, done.msg
    assert any("BGREWRITEAOF" in action for action in done.actions)
    assert redis_server.restart(signal.SIGKILL).keys() == 100


def test_every_directive_is_set_live_and_in_the_file(persist, redis_server):
    redis_server.write_conf("appendonly yes\nappendfsync no\nsave 10 1\nrdbchecksum no\n")
    redis_server.start().fill(10)
    done = settled(
        persist, save=["60 5", "30 50"], appendfsync="always", auto_aof_rewrite_percentage=50,
        auto_aof_rewrite_min_size="1mb", aof_load_truncated=False, aof_timestamp_enabled=True,
        stop_writes_on_bgsave_error=False, rdbchecksum=True,
    )  # fmt: skip
    assert done.restart_required == ["rdbchecksum"]
    assert done.crash_loss["seconds"] == 0
    expected = {
        "save": "60 5 30 50", "appendfsync": "always", "auto-aof-rewrite-percentage": "50",
        "auto-aof-rewrite-min-size": "1048576", "aof-load-truncated": "no", "aof-timestamp-enabled": "yes",
        "stop-writes-on-bgsave-error": "no",
    }  # fmt: skip
    assert {name: redis_server.config(name) for name in expected} == expected
    redis_server.restart()
    assert {name: redis_server.config(name) for name in expected} == expected
    assert redis_server.config("rdbchecksum") == "yes"
    assert redis_server.keys() == 10


def test_config_rewrite_between_two_runs_changes_nothing(persist, redis_server):
    redis_server.start().fill(10)
    settled(persist)
    redis_server.cli("CONFIG", "REWRITE")
    again = persist()
    assert (again.changed, again.actions) == (False, [])


def test_aof_rewrite_between_two_runs_changes_nothing(persist, redis_server):
    redis_server.start().fill(10)
    settled(persist)
    redis_server.cli("BGREWRITEAOF")
    time.sleep(0.1)
    while redis_server.info("aof_rewrite_in_progress") == "1":
        time.sleep(0.05)
    os.umask(0o022)
    for path in (redis_server.data / "appendonlydir").iterdir():
        path.chmod(path.stat().st_mode & 0o640 if "base" not in path.name else 0o660)
    again = persist()
    assert (again.changed, again.actions) == (False, [])


def test_drift_of_modes_is_corrected(persist, redis_server):
    redis_server.start().fill(10)
    redis_server.cli("SAVE")
    settled(persist)
    (redis_server.data / "dump.rdb").chmod(0o644)
    (next((redis_server.data / "appendonlydir").glob("*.incr.aof"))).chmod(0o666)
    done = settled(persist)
    assert len(done.actions) == 2
    assert modes(redis_server) == {0o660}


def test_aof_is_turned_off_only_after_a_verified_save(persist, redis_server):
    redis_server.write_conf("appendonly yes\nsave 900 1\n")
    redis_server.start().fill(100)
    done = settled(persist, appendonly=False)
    assert "BGSAVE" in done.actions[0]
    assert done.actions[-1] == "CONFIG SET appendonly"
    assert redis_server.config("appendonly") == "no"
    assert redis_server.restart(signal.SIGKILL).keys() == 100


def test_a_live_change_by_hand_is_corrected_without_touching_the_file(persist, redis_server):
    redis_server.start().fill(1)
    settled(persist)
    before = redis_server.conf.read_bytes()
    redis_server.cli("CONFIG", "SET", "appendfsync", "no", "save", "")
    done = settled(persist)
    assert done.diff["before"].splitlines() == ["live: save", "live: appendfsync no"]
    assert redis_server.conf.read_bytes() == before
    assert redis_server.config("appendfsync") == "everysec"


def test_rdb_can_be_off_while_the_aof_is_on(persist, redis_server):
    redis_server.start().fill(10)
    settled(persist, save=[])
    assert redis_server.config("save") == ""
    assert 'save ""' in redis_server.conf.read_text()
    assert redis_server.restart().keys() == 10


def test_included_file_that_comes_later_is_overridden(persist, redis_server):
    extra = redis_server.home / "extra.conf"
    extra.write_text("save 1 1\nappendfsync no\n")
    redis_server.write_conf(f"appendfsync always\ninclude {extra}\n")
    redis_server.start().fill(1)
    settled(persist)
    assert extra.read_text() == "save 1 1\nappendfsync no\n"
    redis_server.restart()
    assert redis_server.config("save") == "900 1 300 10 60 10000"
    assert redis_server.config("appendfsync") == "everysec"


# --- a stopped server_connection -------------------------------------------------------------------------------------------------


def test_stopped_server_with_an_rdb_file_is_brought_over(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(1000)
    redis_server.stop()
    dump = (redis_server.data / "dump.rdb").read_bytes()
    done = settled(persist)
    assert not done.running
    assert (redis_server.data / "dump.rdb").read_bytes() == dump
    assert modes(redis_server) == {0o660}
    assert redis_server.start().keys() == 1000
    assert redis_server.config("appendonly") == "yes"
    assert not persist().changed


def test_stopped_server_whose_file_says_aof_already(persist, redis_server):
    """The trap itself: started like this, Redis would be empty."""
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(1000)
    redis_server.stop()
    redis_server.write_conf("appendonly yes\n")
    settled(persist)
    assert redis_server.start().keys() == 1000


def test_stopped_server_with_an_older_aof(persist, redis_server):
    redis_server.write_conf("appendonly yes\nsave 900 1\n")
    redis_server.start().fill(10, "old")
    redis_server.cli("CONFIG", "SET", "appendonly", "no")
    redis_server.fill(90, "new")
    time.sleep(0.05)
    redis_server.stop()
    redis_server.write_conf(RDB_ONLY)
    done = settled(persist)
    assert "aside" in "\n".join(done.actions)
    assert redis_server.start().keys() == 100
    assert list(redis_server.data.glob("appendonlydir.older-*"))


def test_stopped_server_with_its_aof_on(persist, redis_server):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(50)
    redis_server.stop()
    settled(persist)
    assert redis_server.start().keys() == 50


def test_stopped_server_without_data(persist, redis_server):
    settled(persist)
    redis_server.start()
    assert redis_server.config("appendonly") == "yes"
    assert not persist().changed


def test_stopped_with_a_newer_aof_is_refused(persist, redis_server):
    redis_server.write_conf("appendonly yes\nsave 900 1\n")
    redis_server.start().fill(10)
    redis_server.cli("SAVE")
    redis_server.stop()
    os.utime(redis_server.data / "dump.rdb", (1, 1))
    redis_server.write_conf(RDB_ONLY)
    refused(persist, redis_server, "which_is_newer")
    refused(persist, redis_server, "which_is_newer", appendonly=False)


def test_stopped_with_only_an_aof_that_is_off_is_refused(persist, redis_server):
    redis_server.write_conf('appendonly yes\nsave ""\n')
    redis_server.start().fill(10)
    redis_server.stop()
    redis_server.write_conf(RDB_ONLY)
    refused(persist, redis_server, "aof_switched_off")
    refused(persist, redis_server, "aof_switched_off", appendonly=False)


def test_stopped_with_a_corrupt_rdb_is_refused(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(100)
    redis_server.stop()
    dump = redis_server.data / "dump.rdb"
    broken = bytearray(dump.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    dump.write_bytes(bytes(broken))
    result = refused(persist, redis_server, "rdb_unsound")
    assert "redis-check-rdb" in result.msg


def test_stopped_with_aof_files_but_no_manifest_is_refused(persist, redis_server):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10)
    redis_server.stop()
    (redis_server.data / "appendonlydir" / "appendonly.aof.manifest").unlink()
    refused(persist, redis_server, "aof_without_manifest")


def test_stopped_with_a_missing_increment_is_refused(persist, redis_server):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10)
    redis_server.stop()
    next((redis_server.data / "appendonlydir").glob("*.incr.aof")).unlink()
    refused(persist, redis_server, "aof_incomplete")


def test_stopped_server_does_not_lose_its_aof_by_turning_it_off(persist, redis_server):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10)
    redis_server.stop()
    refused(persist, redis_server, "stopped_with_aof", appendonly=False)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    ("option", "value"),
    [("appendfilename", "other.aof"), ("appenddirname", "elsewhere"), ("dbfilename", "other.rdb"), ("dir", "/tmp")],
)
def test_a_place_with_data_is_not_left(persist, redis_server, option, value, running):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10)
    if not running:
        redis_server.stop()
    result = refused(persist, redis_server, "place_has_data", **{option: value})
    assert "EMPTY" in result.msg
    assert f"set {option}:" in result.msg


def test_a_place_changed_in_the_file_by_hand_is_put_back(persist, redis_server):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10)
    redis_server.write_conf("appendonly yes\nappendfilename other.aof\nappenddirname elsewhere\n")
    settled(persist, appenddirname="appendonlydir")
    assert redis_server.restart(signal.SIGKILL).keys() == 10


def test_an_empty_server_may_move(persist, redis_server):
    redis_server.start()
    elsewhere = redis_server.home / "elsewhere"
    elsewhere.mkdir()
    result = persist(dir=str(elsewhere))
    assert not result.failed, result.msg
    assert "dir" in result.restart_required
    redis_server.restart()
    assert redis_server.config("dir") == str(elsewhere)


@pytest.mark.parametrize("aof", [True, False])
def test_data_that_was_moved_while_the_server_was_stopped(persist, redis_server, aof):
    redis_server.write_conf("appendonly yes\n" if aof else RDB_ONLY)
    redis_server.start().fill(100)
    redis_server.stop()
    elsewhere = redis_server.home / "elsewhere"
    redis_server.data.rename(elsewhere)
    redis_server.data.mkdir()
    settled(persist, dir=str(elsewhere))
    assert redis_server.start().keys() == 100
    assert redis_server.config("dir") == str(elsewhere)
    assert redis_server.config("appendonly") == "yes"


def test_a_data_directory_that_is_not_there_yet(persist, redis_server):
    elsewhere = redis_server.home / "a" / "b"
    done = settled(persist, dir=str(elsewhere))
    assert f"make {elsewhere}" in done.actions
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o750
    assert redis_server.start().config("dir") == str(elsewhere)


@pytest.mark.parametrize("spelled", ["slash", "link"])
@pytest.mark.parametrize("where", ["file", "option", "both"])
def test_another_spelling_of_the_directory_is_the_same_place(persist, redis_server, spelled, where):
    link = redis_server.home / "link"
    link.symlink_to(redis_server.data)
    reported = f"{redis_server.data}/" if spelled == "slash" else str(link)
    redis_server.write_conf("appendonly yes\n")
    if where != "option":
        text = redis_server.conf.read_text().replace(f"dir {redis_server.data}\n", f"dir {reported}\n")
        redis_server.conf.write_text(text)
    redis_server.start().fill(10)
    options = {} if where == "file" else {"dir": reported}
    done = settled(persist, **options)
    assert done.restart_required == []
    assert not any(" dir" in action for action in done.actions)
    redis_server.stop()
    settled(persist, **options)
    assert redis_server.start().keys() == 10


def test_data_of_an_earlier_installation_is_not_left(persist, redis_server):
    """The package was just installed, and the data of the one before it is still there."""
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(100)
    redis_server.stop()
    (redis_server.home / "new").mkdir()
    refused(persist, redis_server, "place_has_data", fresh_install=True, dir=str(redis_server.home / "new"))


# --- what a save would replace ----------------------------------------------------------------------------------------


def beside(redis_server, keys=100):
    """What `sed -i s/appendonly no/appendonly yes/` and a restart leave: an empty server_connection next to its data."""
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(keys)
    redis_server.stop()
    os.utime(redis_server.data / "dump.rdb", (1, 1))
    redis_server.write_conf("appendonly yes\n")
    redis_server.start()
    assert redis_server.keys() == 0
    return redis_server.data / "dump.rdb"


@pytest.mark.parametrize("options", [{}, {"appendonly": False}])
def test_an_empty_server_beside_its_data(persist, redis_server, options):
    dump = beside(redis_server)
    before = dump.read_bytes()
    result = refused(persist, redis_server, "rdb_never_loaded", **options)
    assert "100 keys" in result.msg
    assert dump.read_bytes() == before


def test_an_empty_server_beside_its_data_that_got_a_few_keys_since(persist, redis_server):
    dump = beside(redis_server, 1000)
    before = dump.read_bytes()
    redis_server.fill(3, "new")
    refused(persist, redis_server, "rdb_never_loaded")
    assert dump.read_bytes() == before


def test_the_way_back_that_the_message_tells_works(persist, redis_server):
    dump = beside(redis_server)
    shutil.copy2(dump, redis_server.home / "copy")
    redis_server.cli("CONFIG", "SET", "save", "")
    redis_server.raw("SHUTDOWN", "NOSAVE")
    redis_server.process.wait(20)
    (redis_server.data / "appendonlydir").rename(redis_server.home / "aside")
    shutil.copy2(redis_server.home / "copy", dump)
    settled(persist)
    assert redis_server.start().keys() == 100


def test_an_rdb_file_that_was_loaded_or_is_not_wanted(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(100)
    redis_server.stop()
    os.utime(redis_server.data / "dump.rdb", (1, 1))
    redis_server.start()
    assert not persist(check=True).failed  # it was loaded
    redis_server.stop()
    beside(redis_server)
    redis_server.cli("SAVE")
    assert not persist().failed  # somebody decided


def test_a_save_whose_child_was_told_to_end_is_no_proof(redis_server):
    """Redis leaves rdb_last_bgsave_status:ok behind."""
    import subprocess
    import threading

    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence import apply as persistence_apply
    from ansible_collections.redisops.recovery.plugins.module_utils.server import connection as server_connection
    from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

    redis_server.write_conf("save 900 1\nrdb-key-save-delay 1000\n")
    redis_server.start().fill(5000)
    pid = str(redis_server.process.pid)

    def end_the_child():
        for _ in range(200):
            children = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=False).stdout.split()
            if children:
                time.sleep(0.2)
                os.kill(int(children[0]), signal.SIGUSR1)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=end_the_child)
    killer.start()
    with pytest.raises(Problem) as caught:
        persistence_apply.verified_save(
            server_connection.connect(server_connection.Login(port=redis_server.port)), Host(), 20
        )
    killer.join()
    assert caught.value.code == "save_failed", caught.value.message()
    assert not (redis_server.data / "dump.rdb").exists()
    assert redis_server.info("rdb_last_bgsave_status") == "ok"


# --- what is not the server's -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_a_foreign_file_behind_a_link_is_left_alone(persist, redis_server, kind):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start().fill(10)
    foreign = redis_server.home / "shadow"
    foreign.write_text("root:secret\n")
    foreign.chmod(0o600)
    planted = redis_server.data / "appendonlydir" / "appendonly.aof.99.incr.aof"
    if kind == "symlink":
        planted.symlink_to(foreign)
    else:
        planted.hardlink_to(foreign)
    was = foreign.stat()
    options = (
        {"group": next(entry.gr_name for entry in grp.getgrall() if entry.gr_gid != was.st_gid)}
        if not os.getuid()
        else {}
    )
    result = persist(**options)
    assert not result.failed, result.msg
    now = foreign.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    assert foreign.read_text() == "root:secret\n"
    again = persist(**options)
    assert (again.changed, again.actions) == (False, [])


def test_a_server_of_another_name_is_not_taken_for_stopped(persist, redis_server):
    import subprocess

    program = redis_server.home / "redis6-server"
    shutil.copy(os.path.realpath(shutil.which("redis-server")), program)
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(10)
    redis_server.stop()
    redis_server.process = subprocess.Popen([str(program), str(redis_server.conf)], cwd="/", stdout=subprocess.DEVNULL)
    for _ in range(200):
        if "PONG" in redis_server.raw("PING"):
            break
        time.sleep(0.02)
    redis_server.fill(20, "live")
    refused(persist, redis_server, "server_elsewhere", login_port=1)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("invalid_value", {"save": ["900"]}),
        ("invalid_value", {"save": ["900 x"]}),
        ("invalid_value", {"save": ["0 1"]}),
        ("invalid_value", {"save": [""]}),
        ("invalid_value", {"save": ["900 1 300 10"]}),
        ("invalid_value", {"auto_aof_rewrite_min_size": "64 bananas"}),
        ("invalid_value", {"auto_aof_rewrite_percentage": -1}),
        ("invalid_value", {"appendfilename": "a/b"}),
        ("invalid_value", {"dbfilename": ""}),
        ("invalid_value", {"dir": "relative"}),
        ("invalid_value", {"mode": "rw"}),
        ("unknown_user", {"owner": "nobody-of-this-name"}),
        ("unknown_group", {"group": "no-group-of-this-name"}),
        ("no_persistence", {"save": [], "appendonly": False}),
        ("contradiction", {"appendonly": False, "aof_timestamp_enabled": True}),
        ("contradiction", {"appendfsync": "always", "no_appendfsync_on_rewrite": True}),
        ("file_read", {"config_file": "/nonexistent/redis.conf"}),
    ],
)
def test_bad_input_is_one_clear_error(persist, redis_server, code, options):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(3)
    refused(persist, redis_server, code, **options)


def test_unknown_fsync_policy(persist, redis_server):
    redis_server.start()
    before = redis_server.tree()
    result = persist(appendfsync="sometimes")
    assert result.failed
    assert "appendfsync" in result.msg
    assert redis_server.tree() == before


def test_wrong_password(persist, redis_server):
    redis_server.write_conf(RDB_ONLY + "requirepass right\n")
    redis_server.password = "right"
    redis_server.start().fill(3)
    refused(persist, redis_server, "login_failed", login_password="wrong-secret")
    result = refused(persist, redis_server, "login_failed")
    assert "login_password" in result.msg
    assert not persist(login_password="right").failed


def test_another_program_has_the_port(persist, redis_server):
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", redis_server.port))

    def serve():
        for _ in range(2):
            client, _ = listener.accept()
            client.recv(100)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    result = refused(persist, redis_server, "not_redis")
    assert "not answer as Redis" in result.msg
    listener.close()


def test_a_server_that_runs_on_another_port_is_not_taken_for_stopped(persist, redis_server):
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(3)
    refused(persist, redis_server, "server_elsewhere", login_port=1)


def test_a_server_of_another_file(persist, redis_server):
    redis_server.start()
    other = redis_server.home / "other.conf"
    other.write_text(redis_server.conf.read_text())
    refused(persist, redis_server, "other_config_file", config_file=str(other))


def test_a_server_that_was_started_without_a_file(persist, redis_server):
    port = str(redis_server.port)
    conf, redis_server.conf = redis_server.conf, "--port"
    redis_server.start(port, "--dir", str(redis_server.data), "--logfile", str(redis_server.home / "redis.log"))
    redis_server.conf = conf
    refused(persist, redis_server, "no_config_file")


def test_a_line_that_redis_cannot_read(persist, redis_server):
    redis_server.start()
    redis_server.conf.write_text(redis_server.conf.read_text() + 'requirepass "open\n')
    result = refused(persist, redis_server, "conf_syntax")
    assert "line 6" in result.msg


def test_an_unknown_directive_that_stood_there_before(persist, redis_server):
    redis_server.start()
    redis_server.conf.write_text(redis_server.conf.read_text() + "no-such-directive 1\n")
    result = refused(persist, redis_server, "conf_rejected")
    assert "no-such-directive" in result.msg


def test_disk_full_while_writing_the_file(persist, redis_server, monkeypatch):
    """A real full file system is in the faults; here every write of new content says so."""
    import errno

    from ansible_collections.redisops.recovery.plugins.module_utils.system import files as system_files

    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(3)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(system_files.os, "fsync", full)
    before, config = redis_server.tree(), redis_server.live_config()
    result = persist()
    assert result.failed
    assert "no space is left" in result.msg
    assert redis_server.tree() == before
    assert redis_server.live_config() == config


def test_rewrite_that_cannot_be_written_leaves_aof_off(persist, redis_server):
    """A plain file where the AOF directory should be: Redis cannot make it."""
    redis_server.write_conf(RDB_ONLY)
    redis_server.start().fill(3)
    (redis_server.data / "appendonlydir").write_text("in the way")
    text = redis_server.conf.read_text()
    result = persist(appendfsync="always")
    assert result.failed, result
    assert redis_server.config("appendonly") == "no"
    assert redis_server.config("appendfsync") == "everysec"
    assert redis_server.conf.read_text() == text


def test_a_directory_that_redis_made_too_open_is_closed_in_the_same_run(persist, redis_server):
    redis_server.start(umask=0o022).fill(3)
    assert persist().changed
    assert stat.S_IMODE((redis_server.data / "appendonlydir").stat().st_mode) == 0o750
    assert not persist().changed


def test_directories_that_are_too_open_are_closed(persist, redis_server):
    redis_server.start().fill(3)
    assert persist().changed
    for path, mode in ((redis_server.data, 0o777), (redis_server.data / "appendonlydir", 0o755)):
        path.chmod(mode)
    predicted, done = persist(check=True), persist()
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert len(done.actions) == 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in (redis_server.data, redis_server.data / "appendonlydir")] == [
        0o750,
        0o750,
    ]
    redis_server.data.chmod(0o700)
    assert not persist().changed
    assert stat.S_IMODE(redis_server.data.stat().st_mode) == 0o700


def test_no_aof_is_turned_on_whose_transactions_would_be_dropped(persist, redis_server):
    """Redis before 8.4.4 replays them as the default user, who may not do all here."""
    redis_server.start().fill(3)
    redis_server.cli("ACL", "SETUSER", "default", "-flushall")
    refused(persist, redis_server, "aof_needs_default")
    assert redis_server.config("appendonly") == "no"
    redis_server.cli("ACL", "SETUSER", "default", "+@all")
    assert not persist().failed
    assert redis_server.config("appendonly") == "yes"


# --- custody -------------------------------------------------------------------------------------------------------------


def keys_in(path) -> int:
    import re
    import subprocess

    told = subprocess.run(["redis-check-rdb", path], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"(\d+) keys read", told).group(1))


@pytest.fixture(name="elsewhere")
def _elsewhere(redis_server, new_redis):
    """A directory with the dump.rdb of another server, as an operator copies it."""
    source = new_redis("source")
    source.write_conf(RDB_ONLY)
    source.start().fill(5000)
    source.stop()
    return source.data


@pytest.mark.parametrize("appendonly", [True, False])
def test_a_running_server_is_not_turned_to_data_that_it_would_pass_over(persist, redis_server, elsewhere, appendonly):
    """The ordinary migration: the package starts an empty server, a dump.rdb is copied to the declared dir, the role runs."""
    redis_server.write_conf(RDB_ONLY)
    redis_server.start()
    before = (elsewhere / "dump.rdb").read_bytes()
    options = {"dir": str(elsewhere), "appendonly": appendonly}
    if appendonly:
        message = refused(persist, redis_server, "place_holds_data", **options).msg
        assert str(elsewhere) in message
    else:
        assert not persist(**options).failed  # a start from there loads it
    redis_server.stop()
    assert not persist(**options).failed
    assert (elsewhere / "dump.rdb").read_bytes() == before
    assert redis_server.start().keys() == 5000


def test_an_older_aof_is_kept_before_the_first_rewrite_deletes_it(persist, redis_server):
    redis_server.write_conf("appendonly yes\nsave 3600 1\n")
    redis_server.start().fill(10)
    redis_server.stop()
    redis_server.write_conf("appendonly no\nsave 3600 1\n")
    redis_server.start().cli("FLUSHALL")
    redis_server.fill(500, "new")
    redis_server.cli("SAVE")
    predicted = persist(check=True)
    done = persist()
    assert not done.failed, done.msg
    assert predicted.actions == done.actions
    assert any("keep what lies there" in action for action in done.actions)
    (folder,) = redis_server.data.glob("redisops-kept-*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof", "appendonly.aof.manifest",
    ]  # fmt: skip
    assert "SET" in (folder / "appendonly.aof.1.incr.aof").read_text()
    assert not persist().changed


def test_a_stale_aof_that_was_loaded_does_not_let_a_save_replace_the_newer_rdb(persist, redis_server):
    """AOF on once, off since; somebody writes yes and restarts: few keys, next to the only file with all of them."""
    redis_server.write_conf("appendonly yes\nsave 3600 1\n")
    redis_server.start().fill(10)
    redis_server.stop()
    redis_server.write_conf("appendonly no\nsave 3600 1\n")
    redis_server.start().fill(5000)
    redis_server.cli("SAVE")
    redis_server.stop(signal.SIGKILL)
    redis_server.write_conf("appendonly yes\nsave 3600 1\n")
    redis_server.start()
    assert redis_server.keys() == 10
    refused(persist, redis_server, "rdb_never_loaded")
    assert keys_in(redis_server.data / "dump.rdb") == 5000


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_turning_the_aof_off_loses_no_write_that_is_acknowledged_meanwhile(persist, redis_server, monkeypatch, fsync):
    """Whoever writes right after the file says no is answered when the server itself says no, or the save has it."""
    import threading

    from ansible_collections.redisops.recovery.plugins.module_utils.persistence import directives_apply

    redis_server.write_conf(f"appendonly yes\nappendfsync {fsync}\nsave 3600 1\n")
    redis_server.start().fill(100)
    answered = []

    def write():
        answered.append(redis_server.raw("SET", "meanwhile", "1"))

    class CutOff(BaseException):
        pass

    commit = directives_apply.StagedEdit.commit

    def cut(self):
        commit(self)
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.5)
        redis_server.stop(signal.SIGKILL)  # a crash between the file and CONFIG SET
        writer.join()
        raise CutOff

    monkeypatch.setattr(directives_apply.StagedEdit, "commit", cut)
    with pytest.raises(CutOff):
        persist(appendonly=False, appendfsync=fsync)
    redis_server.start()
    assert redis_server.config("appendonly") == "no"
    assert redis_server.keys() == 100 + ("OK" in answered[0])
