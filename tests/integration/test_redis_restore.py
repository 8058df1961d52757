# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_restore against a real server under a unit that only pretends; systemd itself is Molecule's. DEBUG DIGEST is the judge."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.support.data_of_all_kinds import fill
from tests.support.unit import PretendedUnit

FORMS = {"aof": 'save ""\nappendonly yes\n', "rdb": "save 3600 1\nappendonly no\n"}
DEBUG = "enable-debug-command local\n"


@pytest.fixture(name="unit")
def _unit(redis_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    unit = PretendedUnit(redis_server)
    host = redis_restore.Host
    monkeypatch.setattr(redis_restore, "Host", lambda: host("/", unit.run))
    return unit


@pytest.fixture(name="restore")
def _restore(call_module, unit):
    def run(check=False, **options):
        return call_module(
            "redis_restore", check=check, **unit.server.params(unit="redis", directory=str(unit.server.home / "backups"), group_name="orders", **options)
        )  # fmt: skip

    return run


@pytest.fixture(name="back_up")
def _back_up(call_module, unit):
    def run(**options):
        done = call_module(
            "redis_backup", **unit.server.params(directory=str(unit.server.home / "backups"), group_name="orders", sentinel_file="", **options)
        )  # fmt: skip
        assert not done.failed, done.msg
        return done

    return run


def kept(server) -> list[str]:
    return sorted(name for name in os.listdir(server.data) if name.startswith("redisops-restore-"))


@pytest.mark.parametrize("form", ["aof", "rdb"])
@pytest.mark.parametrize("method", ["rdb", "aof", "stream"])
def test_a_backup_is_restored_and_taken_back(restore, back_up, unit, form, method):
    server = unit.server
    server.write_conf('save ""\nappendonly yes\n' + DEBUG)
    server.start()
    fill(server.cli)
    saved = server.cli("DEBUG", "DIGEST")
    label = back_up(method=method).backup["label"]
    server.write_conf(FORMS[form] + DEBUG)
    if form == "rdb":
        server.cli("CONFIG", "SET", "appendonly", "no", "save", "3600 1")
        shutil.rmtree(server.data / "appendonlydir")
    server.cli("FLUSHALL")
    server.fill(7, "after")
    other = server.cli("DEBUG", "DIGEST")
    before, pid = server.tree(), server.process.pid

    predicted = restore(check=True)
    assert not predicted.failed, predicted.msg
    assert (server.tree(), server.process.pid, unit.did) == (before, pid, [])
    done = restore()
    assert not done.failed, done.msg
    files = [path for path in server.data.rglob("*") if path.is_file() and "redisops" not in str(path)]
    assert {(path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) for path in files} <= {
        (os.getuid(), os.getgid(), 0o660)
    }
    assert (predicted.diff, predicted.actions, predicted.plan) == (done.diff, done.actions, done.plan)
    assert server.cli("DEBUG", "DIGEST") == saved
    assert (done.plan["backup"], done.keys["before"]) == (label, 7)
    assert server.cli("FCALL", "one", "0") == "1"
    assert [os.path.basename(done.kept)] == kept(server)
    server.restart()  # and it stays so
    assert server.cli("DEBUG", "DIGEST") == saved
    server.cli("SET", "written", "since")
    since = server.cli("DEBUG", "DIGEST")

    back = restore(state="rolled_back")
    assert not back.failed, back.msg
    assert server.cli("DEBUG", "DIGEST") == other
    server.restart()
    assert server.cli("DEBUG", "DIGEST") == other
    again = restore(state="rolled_back")  # and forth: what was written since is there as well
    assert not again.failed, again.msg
    assert server.cli("DEBUG", "DIGEST") == since

    cleaned = restore(state="cleaned")
    assert (cleaned.changed, kept(server)) == (True, [])
    assert not restore(state="cleaned").changed
    assert server.cli("DEBUG", "DIGEST") == since


def test_a_stopped_server_whose_data_is_gone_is_restored(restore, back_up, unit):
    server = unit.server
    server.write_conf(FORMS["aof"] + DEBUG)
    server.start()
    fill(server.cli)
    saved = server.cli("DEBUG", "DIGEST")
    back_up()
    server.stop()
    shutil.rmtree(server.data / "appendonlydir")
    done = restore()
    assert not done.failed, done.msg
    assert server.cli("DEBUG", "DIGEST") == saved


@pytest.mark.parametrize("form", ["aof", "rdb"])
def test_a_server_that_does_not_come_up_goes_back_to_its_data(restore, back_up, unit, form):
    server = unit.server
    server.write_conf(FORMS[form] + DEBUG)
    server.start()
    fill(server.cli)
    back_up()
    server.cli("SET", "later", "write")
    present = server.cli("DEBUG", "DIGEST")
    unit.broken = True
    done = restore()
    assert (done.failed, done.code) == (True, "restore_undone")
    assert server.cli("DEBUG", "DIGEST") == present
    assert unit.did == ["stop", "start", "stop", "start"]
    # what had been staged is no data that anybody had; the next run removes it
    assert not restore().failed
    assert len(kept(server)) == 1


def test_a_restore_under_writes_keeps_every_acknowledged_write_to_go_back_to(restore, back_up, unit):
    server = unit.server
    server.write_conf(FORMS["rdb"].replace("3600 1", '""') + DEBUG)
    server.start().fill(50)
    label = back_up().backup["label"]
    server.fill(500, "later")
    assert not restore(backup=label).failed
    assert server.keys() == 50
    assert not restore(state="rolled_back").failed
    assert server.keys() == 550


# --- refused, and nothing changed ------------------------------------------------------------------------------------------


def refused(restore, unit, code, **options):
    server = unit.server
    before, pid = server.tree(), server.process.pid
    for check in (True, False):
        done = restore(check=check, **options)
        assert (done.failed, done.code) == (True, code), done.msg
        assert (server.tree(), server.process.pid, unit.did) == (before, pid, [])
    return done


@pytest.fixture(name="saved")
def _saved(back_up, unit):
    unit.server.write_conf(FORMS["aof"])
    unit.server.start().fill(100)
    return back_up()


def test_an_empty_store_and_an_unknown_name_are_refused(restore, unit, saved):
    assert saved.backup["label"] in refused(restore, unit, "unknown_backup", backup="20200101T000000Z-rdb").msg
    refused(restore, unit, "nothing_to_bring_back", state="rolled_back")
    shutil.rmtree(unit.server.home / "backups" / "orders" / saved.backup["label"])
    refused(restore, unit, "no_backup")


def test_a_damaged_backup_is_refused_and_the_file_named(restore, unit, saved):
    path = pathlib.Path(saved.directory) / "data" / "dump.rdb"
    raw = path.read_bytes()
    path.write_bytes(raw[:50] + bytes([raw[50] ^ 1]) + raw[51:])
    assert "data/dump.rdb was changed" in refused(restore, unit, "backup_damaged").msg


def test_an_unverified_backup_is_refused_unless_asked_for(restore, unit, saved):
    os.unlink(pathlib.Path(saved.directory) / "proof.json")
    refused(restore, unit, "not_verified", backup="latest")
    unit.server.cli("FLUSHALL")
    assert not restore(backup="latest", allow_unverified=True).failed
    assert unit.server.keys() == 100


def test_a_backup_of_another_set_is_refused(restore, unit, saved):
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal, unseal

    path = unit.server.home / "backups" / "orders" / saved.backup["label"] / "manifest.json"
    content = unseal(path.read_text(), "x")
    content.pop("seal")
    path.write_text(seal({**content, "group_name": "sessions"}))
    refused(restore, unit, "wrong_set", backup="latest", allow_unverified=True)
    path.write_text(seal({**content, "slots": ["0-100"]}))
    refused(restore, unit, "slots_differ", backup="latest", allow_unverified=True)
    path.write_text(seal({**content, "used_memory": 1 << 50}))
    refused(restore, unit, "memory", backup="latest", allow_unverified=True)


def test_a_maxmemory_that_would_evict_is_refused(restore, unit, saved):
    unit.server.cli("CONFIG", "SET", "maxmemory", "500000", "maxmemory-policy", "allkeys-lru")
    refused(restore, unit, "maxmemory_too_small")


def test_a_replica_is_refused(restore, unit, saved, new_redis):
    primary = new_redis("primary").start()
    unit.server.cli("REPLICAOF", "127.0.0.1", str(primary.port))
    done = restore()
    assert (done.failed, done.code, unit.did) == (True, "is_replica", [])


def test_a_newer_redis_file_is_not_brought(restore, unit, saved, monkeypatch):
    """A version that this server cannot read: found by loading it, before anything live is touched."""
    from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal, unseal
    from ansible_collections.redisops.recovery.plugins.module_utils.system.files import digest_of

    home = pathlib.Path(saved.directory)
    raw = (home / "data/dump.rdb").read_bytes()
    (home / "data/dump.rdb").write_bytes(b"REDIS0099" + raw[9:])
    content = unseal((home / "manifest.json").read_text(), "x")
    content.pop("seal")
    content["files"] = [
        {**file, "sha256": digest_of(str(home / "data/dump.rdb"))[1]} if file["path"] == "data/dump.rdb" else file for file in content["files"]
    ]  # fmt: skip
    (home / "manifest.json").write_text(seal(content))
    pid = unit.server.process.pid
    done = restore(backup="latest", allow_unverified=True)
    assert (done.failed, done.code) == (True, "does_not_load")
    assert "format version 99" in done.msg
    assert (unit.did, unit.server.process.pid, unit.server.keys()) == ([], pid, 100)


def test_an_rdb_file_that_the_server_never_read_is_not_lost_by_a_restore(restore, unit, saved):
    """Brought up with appendonly yes and no AOF, it is empty, and its stop would save over the only good file."""
    server = unit.server
    server.write_conf("save 3600 1\nappendonly no\n")
    server.stop()
    shutil.rmtree(server.data / "appendonlydir")
    server.start().fill(300, "only in the file")
    server.cli("SAVE")
    server.stop(signal.SIGKILL)
    os.utime(server.data / "dump.rdb", (time.time() - 3600,) * 2)
    server.write_conf("save 3600 1\nappendonly yes\n")
    server.start()
    assert server.keys() == 0
    predicted, done = restore(check=True), restore()
    assert not done.failed, done.msg
    assert predicted.actions == done.actions
    assert "keep" in done.actions[0]
    (kept_file,) = server.data.glob("redisops-kept-*/dump.rdb")
    assert (
        "400 keys read"
        in subprocess.run(["redis-check-rdb", kept_file], capture_output=True, text=True, check=True).stdout
    )


def test_a_holder_whose_word_is_damaged_is_not_removed(restore, unit, saved):
    """It may hold what was live: only cleaned, which is asked for, takes it away."""
    assert not restore().failed
    (name,) = kept(unit.server)
    (unit.server.data / name / "restore.json").write_text("{")
    assert not restore().failed
    assert name in kept(unit.server)
    assert len(kept(unit.server)) == 2


def test_a_swap_that_fails_leaves_the_server_on_its_own_data(restore, unit, saved, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import swap as restore_swap

    server, real, calls = unit.server, restore_swap.exchange, []
    server.cli("SET", "later", "write")

    def fails_once(one, other):
        calls.append(one)
        if len(calls) == 2:  # the first one only asks the file system whether it can
            raise OSError(5, "Input/output error")
        real(one, other)

    monkeypatch.setattr(restore_swap, "exchange", fails_once)
    done = restore()
    assert (done.failed, done.code) == (True, "restore_undone")
    assert (server.cli("GET", "later"), server.keys()) == ("write", 101)
    server.restart()
    assert server.keys() == 101


# --- custody: what a hostile moment does to it ----------------------------------------------------------------------------


def meanwhile(monkeypatch, name, act):
    """Do something right before a step of the switch."""
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import exchange

    step = getattr(exchange, name)

    def stepped(*arguments):
        act()
        return step(*arguments)

    monkeypatch.setattr(exchange, name, stepped)


@pytest.mark.parametrize("form", ["aof", "rdb"])
def test_clients_that_come_back_at_once_undo_nothing_and_lose_nothing(restore, back_up, unit, form):
    """A consumer of queues takes keys away: that says nothing of what was brought."""
    server = unit.server
    server.write_conf(FORMS[form] + DEBUG)
    server.start()
    server.cli("EVAL", "for i=1,300 do redis.call('RPUSH', 'job:'..i, i) end", "0")
    back_up()
    server.cli("FLUSHALL")
    started = unit.start

    def start_with_clients():
        started()
        for number in range(1, 21):
            server.cli("RPOP", f"job:{number}")
            server.cli("INCR", "done")

    unit.start = start_with_clients
    done = restore()
    assert not done.failed, done.msg
    assert (server.keys(), server.cli("GET", "done")) == (281, "20")
    server.restart()
    assert (server.keys(), server.cli("GET", "done")) == (281, "20")


def test_nobody_starts_the_unit_between_stop_and_switch(restore, unit, saved, monkeypatch):
    server, answers = unit.server, []
    server.fill(10, "junk")
    meanwhile(monkeypatch, "swap", lambda: answers.append(unit.run("systemctl", "start", "redis.service").code))
    done = restore()
    assert not done.failed, done.msg
    assert (answers, server.keys()) == ([1], 100)
    assert not unit.held
    assert unit.timers == ["--unit=redisops-release-redis"]


@pytest.mark.parametrize("step", ["say_now", "start_server"])
def test_a_server_that_somebody_started_by_hand_ends_the_switch(restore, unit, saved, monkeypatch, step):
    """Not by systemd, which is held: its data is never taken from under it for good, and what it was told to write is there."""
    server = unit.server
    server.fill(10, "junk")
    present = server.keys()

    def intrude():
        server.start()
        server.cli("SET", "by", "hand")

    meanwhile(monkeypatch, step, intrude)
    done = restore()
    if step == "say_now":
        assert (done.failed, done.code) == (True, "restore_undone"), done.msg
        assert "works in" in done.msg
        assert (server.keys(), server.cli("GET", "by")) == (present + 1, "hand")
        server.restart()
        assert (server.keys(), server.cli("GET", "by")) == (present + 1, "hand")
    else:  # it came up on what was brought, and is the unit's no more than any other
        assert server.cli("GET", "by") == "hand"


def test_another_run_at_the_same_time_is_refused_with_its_name(restore, unit, saved, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.system import lock

    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with subprocess.Popen(["flock", lock.lock_path(str(unit.server.data)), "sleep", "60"]) as holder:
        time.sleep(0.3)
        refused(restore, unit, "data_is_locked")
        refused(restore, unit, "data_is_locked", state="rolled_back")
        refused(restore, unit, "data_is_locked", state="cleaned")
        subprocess.run(["pkill", "-P", str(holder.pid)], check=True)
    assert not restore().failed


def test_a_stopped_server_that_its_file_makes_a_replica_is_refused(restore, unit, saved):
    server = unit.server
    server.stop()
    server.write_conf(FORMS["aof"] + "replicaof 127.0.0.1 1\n")
    before = server.tree()
    for check in (True, False):
        done = restore(check=check)
        assert (done.failed, done.code) == (True, "is_replica"), done.msg
        assert (server.tree(), unit.did) == (before, [])


@pytest.fixture(name="watched")
def _watched(unit, new_redis):
    """A replica, and somebody who listens as Sentinel does."""
    server, replica = unit.server, new_redis("replica")
    replica.start()

    def follow():
        replica.cli("REPLICAOF", "127.0.0.1", str(server.port))
        deadline = time.monotonic() + 20
        while server.info("connected_slaves") != "1":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    listener = []

    def watch():
        follow()
        listener.append(
            subprocess.Popen(["redis-cli", "-p", str(server.port), "SUBSCRIBE", "__sentinel__:hello"], stdout=subprocess.DEVNULL)
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while "__sentinel__:hello" not in server.cli("PUBSUB", "CHANNELS"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    yield watch
    for process in listener:
        process.kill()
        process.wait()


def test_the_way_back_asks_what_the_way_there_asked(restore, unit, saved, watched):
    unit.server.fill(10, "junk")
    assert not restore().failed
    unit.did.clear()
    watched()
    refused(restore, unit, "primary_is_watched")
    refused(restore, unit, "primary_is_watched", state="rolled_back")


def test_the_limits_of_the_file_count_since_the_next_start_takes_them(restore, unit, saved):
    server = unit.server
    with server.conf.open("a") as handle:
        handle.write("maxmemory 500000\nmaxmemory-policy allkeys-lru\n")
    assert server.config("maxmemory") == "0"
    refused(restore, unit, "maxmemory_too_small")


def test_the_backup_of_the_night_after_the_accident_takes_the_operators_word(restore, back_up, unit, saved):
    server = unit.server
    server.cli("FLUSHALL")
    time.sleep(1.1)  # labels count seconds
    empty = back_up().backup["label"]
    server.fill(7, "new")
    message = refused(restore, unit, "backup_has_less").msg
    assert empty in message
    assert saved.backup["label"] in message
    assert not restore(backup=saved.backup["label"]).failed
    assert server.keys() == 100


def test_a_directory_that_two_servers_use_is_refused(restore, unit, saved, new_redis):
    other = new_redis("other")
    other.write_conf(f'dir {unit.server.data}\ndbfilename other.rdb\nsave ""\n')
    other.start()
    refused(restore, unit, "dir_is_shared")


def test_a_link_in_the_place_of_the_aof_is_refused(restore, unit, saved, tmp_path):
    server = unit.server
    server.stop()
    (server.data / "appendonlydir").rename(tmp_path / "disk")
    (server.data / "appendonlydir").symlink_to(tmp_path / "disk")
    server.start()
    refused(restore, unit, "data_is_a_link")


def test_what_fails_before_the_switch_leaves_nothing_on_the_disk(restore, unit, saved, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import apply as restore_apply

    def out_of_time(*_arguments):
        raise Problem("load_timeout", "no answer")

    monkeypatch.setattr(restore_apply, "check_staged", out_of_time)
    assert restore().code == "load_timeout"
    assert kept(unit.server) == []


def test_what_was_live_is_not_removed_before_the_server_was_seen_to_run(restore, unit, saved, monkeypatch):
    """Cut off between the switch and the start."""
    server = unit.server
    server.fill(10, "junk")

    class CutOff(BaseException):
        pass

    def cut():
        raise CutOff

    meanwhile(monkeypatch, "start_server", cut)
    with pytest.raises(CutOff):
        restore()
    monkeypatch.undo()
    server.stop()
    done = restore(state="cleaned")
    assert done.failed
    assert len(kept(server)) == 1


def test_data_is_told_apart_after_a_boot_on_another_disk(restore, unit, saved, monkeypatch, tmp_path):
    """Device and inode numbers change; what was staged and never switched is still no data that was live."""
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import rollback_copies

    server = unit.server

    class CutOff(BaseException):
        pass

    def cut():
        raise CutOff

    meanwhile(monkeypatch, "swap", cut)
    with pytest.raises(CutOff):
        restore()
    server.stop()
    subprocess.run(["cp", "-a", server.data, tmp_path / "image"], check=True)
    found = rollback_copies(Place(str(tmp_path / "image"), "dump.rdb", "appendonlydir", "appendonly.aof"))
    assert [(one.swapped, one.stays) for one in found] == [(False, False)]


def test_both_layers_are_there_before_success_is_told(restore, unit, saved):
    server = unit.server
    server.cli("CONFIG", "SET", "save", "3600 1")
    with server.conf.open("a") as handle:
        handle.write("save 3600 1\n")
    server.cli("FLUSHALL")
    done = restore(backup=saved.backup["label"])
    assert (done.failed, done.layers) == (False, "AOF and RDB")
    told = subprocess.run(
        ["redis-check-rdb", server.data / "dump.rdb"], capture_output=True, text=True, check=True
    ).stdout
    assert "100 keys read" in told


ATTACK = """
import os, sys, time
data, victim = sys.argv[1:]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    for name in os.listdir(data):
        if name.startswith("redisops-restore-") and not name.endswith(".moved"):
            try:
                os.rename(f"{data}/{name}", f"{data}/{name}.moved")
                os.symlink(victim, f"{data}/{name}")
                print("swapped", flush=True)
                sys.exit()
            except OSError:
                pass
"""


@pytest.mark.needs_root
@pytest.mark.parametrize("form", ["aof", "rdb"])
def test_the_servers_user_cannot_have_root_hand_over_files_of_roots(restore, back_up, unit, form, tmp_path):
    """A process of that user puts a link in the place of root's directory while it is filled."""
    server = unit.server
    server.write_conf(FORMS[form])
    server.start()
    server.cli("EVAL", "for i=1,20 do redis.call('SET', i, string.rep(tostring(i), 500000)) end", "0")
    label = back_up().backup["label"]
    victim = tmp_path / "victim"
    (victim / "appendonlydir").mkdir(parents=True)
    secret = victim / "appendonlydir" / "shadow"
    secret.write_text("root's\n")
    for path in (victim, victim / "appendonlydir", secret):
        path.chmod(0o700)
    for path in [server.data, *server.data.rglob("*")]:
        os.chown(path, 65534, 65534)
    parents = [path for path in server.data.parents if str(path).startswith("/tmp/")]
    before = {path: path.stat().st_mode for path in parents}
    for path in parents:
        path.chmod(before[path] | 0o711)
    swapped = False
    try:
        for _attempt in range(5):  # a busy host may not let the attacker in while it matters
            with subprocess.Popen(
                ["python3", "-c", ATTACK, server.data, victim], stdout=subprocess.PIPE, text=True
            ) as attacker:
                assert attacker.stdout.readline() == "ready\n"
                done = restore(backup=label)
                attacker.kill()
                swapped = "swapped" in attacker.stdout.read()
            if swapped:
                break
    finally:
        for path in parents:
            path.chmod(before[path])
    assert swapped, done.msg
    assert {
        (path.stat().st_uid, path.stat().st_mode & 0o777) for path in (victim, victim / "appendonlydir", secret)
    } == {(0, 0o700)}
    assert os.listdir(victim) == ["appendonlydir"]
    assert os.listdir(victim / "appendonlydir") == ["shadow"]
    assert server.keys() == 20


def test_keys_that_have_run_out_since_are_told_and_no_difference(restore, back_up, unit):
    unit.server.write_conf(FORMS["aof"] + DEBUG)
    unit.server.start()
    unit.server.fill(25)
    ends = time.time() + 10  # after the backup, also on a busy host
    script = "for i=1,100 do redis.call('SET', 'soon:'..i, 'x', 'PXAT', ARGV[1]) end"
    unit.server.cli("EVAL", script, "0", str(int(ends * 1000)))
    label = back_up(method="aof").backup["label"]
    time.sleep(max(ends + 1 - time.time(), 0))
    predicted = restore(check=True)
    assert (predicted.failed, predicted.plan["keys"], predicted.plan["keys_expired"]) == (False, 125, 100), (
        predicted.msg
    )
    done = restore()
    assert not done.failed, done.msg
    assert (done.plan["backup"], done.plan["keys_expired"]) == (label, 100)
    deadline = time.monotonic() + 10
    while unit.server.keys() != 25:  # Redis takes them away as it comes to them
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_backup_of_another_server_of_this_host_takes_the_operators_word(
    restore, back_up, unit, new_redis, call_module
):
    other = new_redis("other")
    other.write_conf(FORMS["aof"])
    other.start()
    other.fill(7, "theirs")
    unit.server.write_conf(FORMS["aof"] + DEBUG)
    unit.server.start()
    unit.server.fill(3, "ours")
    taken = call_module(
        "redis_backup",
        **other.params(directory=str(unit.server.home / "backups"), group_name="orders", sentinel_file=""),
    )
    assert not taken.failed, taken.msg
    for stopped in (False, True):
        if stopped:
            unit.server.stop()
        for check in (True, False):
            refused = restore(check=check)
            assert (refused.failed, refused.code) == (True, "other_server"), refused.msg
            assert str(other.port) in refused.msg
    assert "stop" not in unit.did
    unit.server.start()
    assert unit.server.keys() == 3
    done = restore(allow_other_server=True)
    assert not done.failed, done.msg
    assert unit.server.keys() == 7


def test_a_link_in_the_place_of_what_is_removed_is_not_followed(tmp_path):
    from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import discard

    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "shadow").write_text("root's")
    link = tmp_path / "redisops-restore-20261125T000000Z"
    link.symlink_to(victim)
    with pytest.raises(OSError):
        discard(str(link))
    assert (victim / "shadow").read_text() == "root's"
