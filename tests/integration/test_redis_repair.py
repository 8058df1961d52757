# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_repair on servers whose files were damaged: each kind of damage, each method, each refusal. redis-cli and DEBUG DIGEST judge."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import pytest

from tests.support.data_of_all_kinds import fill
from tests.support.unit import PretendedUnit

AOF = 'save ""\nappendonly yes\nauto-aof-rewrite-percentage 0\nenable-debug-command local\nrepl-diskless-sync-delay 0\n'
RDB = "save 3600 1\nappendonly no\nenable-debug-command local\nrepl-diskless-sync-delay 0\n"


class Unit(PretendedUnit):
    """A server that does not come up fails its unit."""

    def run(self, *args, **more):
        from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed

        try:
            return super().run(*args, **more)
        except AssertionError as error:
            return Completed(1, f"Job for redis.service failed: {error}")


@pytest.fixture(name="unit")
def _unit(redis_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_repair

    unit = Unit(redis_server)
    host = redis_repair.Host
    monkeypatch.setattr(redis_repair, "Host", lambda: host("/", unit.run))
    return unit


@pytest.fixture(name="repair")
def _repair(call_module, unit):
    def run(check=False, **options):
        return call_module(
            "redis_repair", check=check, **unit.server.params(unit="redis", directory=str(unit.server.home / "backups"), group_name="orders", **options)
        )  # fmt: skip

    return run


@pytest.fixture(name="back_up")
def _back_up(call_module, unit):
    def run(server=None, **options):
        server = server or unit.server
        done = call_module(
            "redis_backup", **server.params(directory=str(unit.server.home / "backups"), group_name="orders", sentinel_file="", **options)
        )  # fmt: skip
        assert not done.failed, done.msg
        return done.backup["label"]

    return run


def aof(server, number=1, kind="incr.aof") -> pathlib.Path:
    return server.data / "appendonlydir" / f"appendonly.aof.{number}.{kind}"


def digest(server) -> str:
    return server.cli("DEBUG", "DIGEST")


def does_not_start(server) -> None:
    with pytest.raises(AssertionError):
        server.start()


def taken(repair, unit, expected, **options):
    """Check, run, run again: the same plan, and nothing left to repair."""
    before = unit.server.tree()
    predicted = repair(check=True, **options)
    assert not predicted.failed, predicted.msg
    assert unit.server.tree() == before
    done = repair(**options)
    assert not done.failed, done.msg
    assert (done.method, done.diff, done.actions, done.loses) == (
        expected,
        predicted.diff,
        predicted.actions,
        predicted.loses,
    )
    again = repair()
    assert (again.failed, again.changed, again.state, again.running) == (False, False, "good", True)
    return done


def refused(repair, unit, code, **options):
    before, did = unit.server.tree(), list(unit.did)
    for check in (True, False):
        done = repair(check=check, **options)
        assert (done.failed, done.code) == (True, code), vars(done)
        assert (unit.server.tree(), unit.did) == (before, did)
    return done


@pytest.fixture(name="aof_server")
def _aof_server(unit):
    """A base of all kinds of data, and ten commands behind it."""
    server = unit.server
    server.write_conf(AOF)
    server.start()
    fill(server.cli)
    rewrite(server)
    later(server, 10)
    return server


def rewrite(server) -> None:
    server.cli("BGREWRITEAOF")
    while any(
        f"{name}:1" in server.cli("INFO", "persistence")
        for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    ):
        time.sleep(0.02)


def later(server, count, begin=0) -> None:
    for number in range(begin, begin + count):
        server.cli("SET", f"later:{number}", "x" * 100)


def there(server) -> set[int]:
    return {int(name.split(":")[1]) for name in server.cli("KEYS", "later:*").split()}


def start_of(raw: bytes, number: int) -> int:
    """Where the command that wrote later:NUMBER begins; found by its bytes."""
    return raw.index(b"*3\r\n$3\r\nSET\r\n$7\r\nlater:%d\r\n" % number)


def change(path: pathlib.Path, at: int, new: bytes) -> bytes:
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + new + raw[at + len(new) :])
    return raw


def flip_in_base(server, number=2) -> None:
    """A bit within a value: structure and size stay, the checksum does not fit any more."""
    path = aof(server, number, "base.rdb")
    at = path.read_bytes().index(b"Palermo")
    change(path, at, b"P\x00lermo")


# --- nothing to repair -------------------------------------------------------------------------------------------------------


def test_good_files_are_left_alone(repair, unit, aof_server):
    for check in (True, False):
        before = aof_server.tree()
        done = repair(check=check)
        assert (done.failed, done.changed, done.state, done.running, done.method, done.methods) == (
            False,
            False,
            "good",
            True,
            "",
            [],
        )
        assert aof_server.tree() == before
    aof_server.stop()
    before = aof_server.tree()
    done = repair()
    assert (done.failed, done.changed, done.state, done.running, unit.did) == (False, False, "stopped", False, [])
    assert aof_server.tree() == before


def test_a_new_server_without_data_has_nothing_to_mend(repair, unit):
    for conf in (AOF, RDB):
        unit.server.write_conf(conf)
        done = repair()
        assert (done.failed, done.changed, done.state) == (False, False, "stopped")


def test_files_that_are_being_written_are_no_damage(repair, unit, aof_server):
    writer = subprocess.Popen(
        ["redis-benchmark", "-p", str(aof_server.port), "-t", "set", "-d", "3000", "-n", "10000000", "-r", "100", "-q"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _look in range(3):
            done = repair(check=True)
            assert not done.failed, done.msg
            assert done.state == "good"
            assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


# --- truncation ------------------------------------------------------------------------------------------------------------


def test_a_tail_that_was_cut_off_is_refused_then_cut_and_the_loss_is_right(repair, unit, aof_server):
    aof_server.stop()
    path = aof(aof_server, 2)
    raw = path.read_bytes()
    begins = start_of(raw, 9)
    path.write_bytes(raw[:-40])
    lost = len(raw) - 40 - begins
    predicted = refused(repair, unit, "truncation_not_allowed")
    assert f"{lost} bytes, 1 command" in predicted.msg
    assert f"offset {begins}" in predicted.msg
    done = taken(repair, unit, "truncation", allow_truncation=True)
    assert (done.loses["bytes"], done.loses["commands"]) == (lost, 1)
    assert there(aof_server) == set(range(9))
    assert aof_server.cli("FCALL", "one", "0") == "1"
    # what was damaged is kept, byte for byte
    assert (pathlib.Path(done.kept) / "appendonlydir" / path.name).read_bytes() == raw[:-40]


@pytest.mark.parametrize("damage", ["header", "length", "nul"])
def test_damage_inside_an_increment_costs_what_stands_behind_it(repair, unit, aof_server, damage):
    aof_server.stop()
    path = aof(aof_server, 2)
    raw = path.read_bytes()
    at = start_of(raw, 4)
    if damage == "header":
        change(path, at, b"!")
    elif damage == "length":
        change(
            path, raw.index(b"$100", at), b"$988"
        )  # taken for a tail that was cut off: Redis would start, and cut off all that follows
    else:
        path.write_bytes(raw + b"\x00" * 64)
        at = len(raw)
    if damage != "length":
        does_not_start(aof_server)
    predicted = refused(repair, unit, "truncation_not_allowed")
    if damage != "length":
        assert predicted.cause["code"] == "aof_bad_format"
        assert "Bad file format" in predicted.cause["line"]
    lost = None if damage == "nul" else 6
    done = taken(repair, unit, "truncation", allow_truncation=True)
    assert (done.loses["bytes"], done.loses["commands"]) == (path_size(done.kept, path) - at, lost)
    assert there(aof_server) == set(range(10 if damage == "nul" else 4))


def path_size(kept, path) -> int:
    return (pathlib.Path(kept) / "appendonlydir" / path.name).stat().st_size


def test_with_timestamps_the_seconds_are_known(repair, unit):
    server = unit.server
    server.write_conf(AOF + "aof-timestamp-enabled yes\n")
    server.start()
    seconds = []
    for number in range(3):
        now = int(time.time())
        while int(time.time()) == now:
            time.sleep(0.01)
        server.cli("SET", f"later:{number}", "x" * 100)
        seconds.append(int(server.cli("TIME").split()[0]))
    server.stop()
    change(aof(server, 1), start_of(aof(server, 1).read_bytes(), 1), b"!")
    done = taken(repair, unit, "truncation", allow_truncation=True)
    assert (done.loses["commands"], done.loses["seconds"]) == (2, seconds[2] - seconds[0])
    assert there(server) == {0}


def test_a_cut_increment_that_is_not_the_last_takes_the_later_ones_with_it(repair, unit, aof_server):
    """Redis would cut it at its first start and load it with a hole at the second."""
    aof_server.stop()
    first = aof(aof_server, 2)
    raw = first.read_bytes()
    behind = raw[start_of(raw, 8) :]
    first.write_bytes(raw[:-40])
    aof(aof_server, 3).write_bytes(behind)
    with (first.parent / "appendonly.aof.manifest").open("a") as handle:
        handle.write("file appendonly.aof.3.incr.aof seq 3 type i\n")
    predicted = refused(repair, unit, "truncation_not_allowed")
    assert predicted.files[2]["verdict"] == "corrupt_inside"
    done = taken(repair, unit, "truncation", allow_truncation=True)
    assert (done.loses["commands"], done.loses["bytes"]) == (3, len(raw) - 40 - start_of(raw, 9) + len(behind))
    assert there(aof_server) == set(range(9))


# --- memory ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["base", "increment", "gone", "manifest", "directory"])
def test_a_running_server_writes_its_damaged_aof_anew(repair, unit, aof_server, damage):
    was, pid = digest(aof_server), aof_server.process.pid
    if damage == "base":
        flip_in_base(aof_server)
    elif damage == "increment":
        change(aof(aof_server, 2), start_of(aof(aof_server, 2).read_bytes(), 3), b"\x00\x00")
    elif damage == "gone":
        aof(aof_server, 2, "base.rdb").unlink()
    elif damage == "manifest":
        (aof_server.data / "appendonlydir" / "appendonly.aof.manifest").write_text("junk")
    else:
        shutil.rmtree(aof_server.data / "appendonlydir")
    done = taken(repair, unit, "memory")
    assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert (aof_server.process.pid, unit.did) == (pid, [])
    assert os.path.basename(done.kept).startswith("redisops-damaged-")
    aof_server.restart(signal.SIGKILL)
    assert digest(aof_server) == was


def test_where_the_damaged_files_cannot_be_kept_nothing_is_written(repair, unit, aof_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.repair import apply as repair_apply

    def link(*_names, **_more):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    flip_in_base(aof_server)
    before = aof_server.tree()
    monkeypatch.setattr(repair_apply.os, "link", link)
    done = repair()
    assert (done.failed, done.code) == (True, "restore_write"), done.msg
    assert aof_server.tree() == before


@pytest.mark.parametrize("damage", ["bit", "short"])
def test_a_running_server_saves_its_damaged_rdb_anew(repair, unit, damage):
    server = unit.server
    server.write_conf(RDB)
    server.start()
    fill(server.cli)
    server.cli("SAVE")
    was, path = digest(server), server.data / "dump.rdb"
    raw = path.read_bytes()
    path.write_bytes(raw[:-60] if damage == "short" else raw.replace(b"Palermo", b"palermo"))
    taken(repair, unit, "memory")
    server.restart(signal.SIGKILL)
    assert digest(server) == was


def test_an_rdb_that_the_server_never_read_is_not_saved_over(repair, unit):
    """Started without it, the server is empty: its memory is no source, however well it runs."""
    server = unit.server
    server.write_conf(RDB)
    server.start().fill(300)
    server.cli("SAVE")
    server.stop(signal.SIGKILL)
    path = server.data / "dump.rdb"
    aside = path.read_bytes()
    path.unlink()
    server.start()
    path.write_bytes(aside[:200] + b"\x01" + aside[201:])
    os.utime(path, (time.time() - 3600,) * 2)
    predicted = refused(repair, unit, "no_way_left")
    assert "never read that file" in predicted.msg
    assert "memory" in predicted.msg


def test_files_that_the_running_server_does_not_write_to_are_not_thrown_away(repair, unit, aof_server):
    folder = aof_server.data / "appendonlydir"
    shutil.copytree(folder, aof_server.home / "copy")
    shutil.rmtree(folder)
    shutil.copytree(aof_server.home / "copy", folder)
    flip_in_base(aof_server)
    predicted = refused(repair, unit, "no_way_left")
    assert "does not write to" in predicted.msg


def test_a_live_memory_that_no_file_holds_is_not_ended_for_a_backup(repair, back_up, unit, aof_server):
    """Somebody put other files in the place of the server's own: all that came since the backup is in its memory alone."""
    label = back_up()
    folder = aof_server.data / "appendonlydir"
    shutil.copytree(folder, aof_server.home / "copy")
    shutil.rmtree(folder)
    shutil.copytree(aof_server.home / "copy", folder)
    flip_in_base(aof_server)
    later(aof_server, 5, 10)
    predicted = refused(repair, unit, "doubtful_source")
    assert "name method: backup" in predicted.msg
    assert there(aof_server) == set(range(15))
    assert taken(repair, unit, "backup", method="backup").source == label


def test_a_rewrite_that_ends_while_files_are_looked_at_is_no_damage(repair, unit, aof_server, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.repair import diagnose as repair_diagnose

    real, looks = repair_diagnose.check_place, []

    def slow(host, path, timeout, dialect):
        if not looks:
            rewrite(aof_server)
        looks.append(list(real(host, path, timeout, dialect)))
        if len(looks) == 1:  # what the manifest from before the rewrite named
            looks[0][1:] = [repair_diagnose.FileVerdict(str(aof(aof_server, 2, "base.rdb")), "aof", "missing", 0)]
        return looks[-1]

    monkeypatch.setattr(repair_diagnose, "check_place", slow)
    done = repair(check=True)
    assert (done.failed, done.state, len(looks)) == (False, "good", 2)


# --- backups, here and in a repository -------------------------------------------------------------------------------------


@pytest.fixture(name="rdb_server")
def _rdb_server(unit):
    server = unit.server
    server.write_conf(RDB)
    server.start()
    fill(server.cli)
    server.cli("SAVE")
    return server


DAMAGED_RDB = {
    "bad_crc": lambda raw: raw.replace(b"Palermo", b"palermo"),
    "header_only": lambda raw: raw[:9],
    "not_rdb": lambda raw: b"\x89PNG" + raw[4:],
    "truncated_tail": lambda raw: raw[:-60],
}


@pytest.mark.parametrize("verdict", DAMAGED_RDB)
def test_a_damaged_rdb_is_replaced_by_the_backup_of_it(repair, back_up, unit, rdb_server, verdict):
    label = back_up()
    was, path = digest(rdb_server), rdb_server.data / "dump.rdb"
    rdb_server.stop(signal.SIGKILL)
    raw = path.read_bytes()
    path.write_bytes(DAMAGED_RDB[verdict](raw))
    does_not_start(rdb_server)
    done = taken(repair, unit, "backup")
    assert (done.files[0]["verdict"], done.source) == (verdict, label)
    assert done.cause["code"] in ("rdb_bad_checksum", "rdb_short_read", "rdb_wrong_signature", "rdb_damaged")
    if verdict in ("bad_crc", "truncated_tail") and len(raw) == path_of(done).stat().st_size:
        assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert digest(rdb_server) == was


def path_of(done) -> pathlib.Path:
    return pathlib.Path(done.kept) / "dump.rdb"


def test_an_older_backup_says_how_many_seconds_it_costs(repair, back_up, unit, rdb_server):
    back_up()
    rdb_server.fill(7, "since")
    rdb_server.cli("SAVE")
    rdb_server.stop()
    path = rdb_server.data / "dump.rdb"
    path.write_bytes(path.read_bytes()[:-60])
    os.utime(path, (time.time() + 600,) * 2)  # the last write was ten minutes after the backup
    done = taken(repair, unit, "backup")
    assert (done.loses["bytes"], done.loses["commands"]) == (None, None)
    assert 599 <= done.loses["seconds"] <= 660
    assert rdb_server.cli("EXISTS", "since:1") == "0"


def test_without_any_copy_it_says_so_and_touches_nothing(repair, unit, rdb_server):
    rdb_server.stop()
    path = rdb_server.data / "dump.rdb"
    path.write_bytes(path.read_bytes()[:-60])
    predicted = refused(repair, unit, "no_way_left")
    assert "there is no verified backup" in predicted.msg
    refused(repair, unit, "rung_not_possible", method="truncation", allow_truncation=True)


def test_a_cut_that_loses_less_is_not_passed_over_for_an_old_backup(repair, back_up, unit, aof_server):
    label = back_up()
    later(aof_server, 5, 10)
    aof_server.stop()
    path = aof(aof_server, 2)
    path.write_bytes(path.read_bytes()[:-40])
    os.utime(path, (time.time() + 600,) * 2)
    predicted = refused(repair, unit, "truncation_not_allowed")
    assert label in predicted.msg
    done = taken(repair, unit, "backup", method="backup")
    assert done.source == label
    assert there(aof_server) == set(range(10))


def test_a_backup_that_is_damaged_here_is_fetched_from_a_repository(repair, back_up, unit, rdb_server):
    place = [{"name": "vault", "location": str(rdb_server.home / "vault"), "password": "a secret"}]
    lost = [{"name": "lost", "location": "rest:http://127.0.0.1:9/", "password": "a secret"}]
    label = back_up(repositories=place)
    was = digest(rdb_server)
    rdb_server.stop()
    for path in (rdb_server.data / "dump.rdb", rdb_server.home / "backups" / "orders" / label / "data" / "dump.rdb"):
        path.write_bytes(path.read_bytes().replace(b"Palermo", b"palermo"))
    predicted = refused(repair, unit, "no_way_left", repositories=lost)
    assert "damaged" in predicted.msg
    assert "lost could not be asked" in predicted.msg
    done = taken(repair, unit, "backup", repositories=[*lost, *place])
    assert (done.source, done.where) == (label, "vault")
    assert digest(rdb_server) == was
    assert sorted(name for name in os.listdir(rdb_server.home / "backups" / "orders") if name[0] != ".") == [
        label,
        f"damaged-{label}",
    ]


def test_a_backup_of_a_server_that_had_lost_its_data_is_taken_only_by_name(repair, back_up, unit, rdb_server):
    path = rdb_server.data / "dump.rdb"
    raw = path.read_bytes()
    rdb_server.cli("FLUSHALL")
    rdb_server.fill(3)
    label = back_up()
    rdb_server.stop()
    path.write_bytes(raw[:-60])
    predicted = refused(repair, unit, "doubtful_source")
    assert f"{label}, the newest verified one; it has 3 keys" in predicted.msg
    assert taken(repair, unit, "backup", method="backup").keys["after"] == 3


def test_the_damaged_rdb_of_a_running_server_is_kept_though_its_stop_saves_over_it(repair, back_up, unit, rdb_server):
    back_up()
    rdb_server.cli("SET", "since", "1")
    path = rdb_server.data / "dump.rdb"
    bad = path.read_bytes()[:-60]
    path.write_bytes(bad)
    taken(repair, unit, "backup", method="backup")
    assert [one.read_bytes() for one in rdb_server.data.glob("redisops-damaged-*/dump.rdb")] == [bad]


def test_what_stands_behind_the_damage_was_written_as_well(repair, back_up, unit, aof_server):
    """A backup from before it has less than the cut: with timestamps the last write is behind the damage, not before it."""
    back_up()
    aof_server.stop()
    now = int(time.time())
    with aof(aof_server, 2).open("ab") as file:
        for number, begin in ((20, b"*"), (21, b"!"), (22, b"*")):
            file.write(
                b"#TS:%d\r\n%s3\r\n$3\r\nSET\r\n$8\r\nlater:%d\r\n$1\r\nx\r\n"
                % (now + 100 * (number - 19), begin, number)
            )
    predicted = refused(repair, unit, "truncation_not_allowed")
    assert [one["loses"]["seconds"] for one in predicted.methods if one["method"] == "truncation"] == [200]
    assert [one["loses"]["seconds"] >= 299 for one in predicted.methods if one["method"] == "backup"] == [True]
    taken(repair, unit, "truncation", allow_truncation=True)
    assert there(aof_server) == {*range(10), 20}


def test_a_backup_on_another_member_has_to_be_brought(repair, unit, rdb_server):
    rdb_server.stop()
    path = rdb_server.data / "dump.rdb"
    path.write_bytes(path.read_bytes()[:-60])
    offered = [{"label": "20261124T020000Z-rdb", "at": 1795485600.0, "host": "redis-2"}]
    predicted = refused(repair, unit, "backup_elsewhere", elsewhere=offered)
    assert (predicted.source, predicted.where) == ("20261124T020000Z-rdb", "redis-2")
    refused(repair, unit, "invalid_value", elsewhere=[{"label": "x"}])
    refused(repair, unit, "invalid_value", elsewhere=[{"label": "x", "at": "today", "host": "redis-2"}])


# --- the AOF's archive -----------------------------------------------------------------------------------------------------


def test_a_damaged_base_is_taken_from_a_backup_and_every_command_since_is_kept(repair, back_up, unit, aof_server):
    back_up(method="aof")
    later(aof_server, 5, 10)
    was = digest(aof_server)
    aof_server.stop()
    flip_in_base(aof_server)
    does_not_start(aof_server)
    done = taken(repair, unit, "archive")
    assert (done.cause["code"], done.loses) == (
        "aof_base_unreadable",
        {"bytes": 0, "commands": 0, "seconds": 0},
    ) or done.cause["code"] == "rdb_bad_checksum"
    assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert digest(aof_server) == was


def test_damage_in_what_a_backup_has_too_costs_nothing(repair, back_up, unit, aof_server):
    """The backup's bytes up to where it was taken, the live ones behind."""
    back_up(method="aof")
    later(aof_server, 5, 10)
    was = digest(aof_server)
    aof_server.stop()
    path = aof(aof_server, 2)
    change(path, start_of(path.read_bytes(), 4), b"!!!!")
    done = taken(repair, unit, "archive")
    assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert digest(aof_server) == was


@pytest.mark.parametrize("gone", ["base.rdb", "incr.aof"])
def test_a_file_that_the_manifest_names_and_is_not_there_comes_from_the_kept_history(repair, unit, aof_server, gone):
    archive(aof_server)
    was = digest(aof_server)
    aof_server.stop()
    aof(aof_server, 2, gone).unlink()
    does_not_start(aof_server)
    done = taken(repair, unit, "archive")
    assert done.cause["code"] == "aof_file_missing"
    assert [row["verdict"] for row in done.files].count("missing") == 1
    assert digest(aof_server) == was


def archive(server) -> None:
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
    from ansible_collections.redisops.recovery.plugins.module_utils.pitr import archive as pitr_archive

    place = Place(str(server.data), "dump.rdb", "appendonlydir", "appendonly.aof")
    pitr_archive.archive(place, pitr_archive.archive_dirs(place), 86400, time.time())


def test_an_earlier_base_and_all_since_stand_in_for_a_damaged_one(repair, unit, aof_server):
    archive(aof_server)
    rewrite(aof_server)
    later(aof_server, 5, 10)
    was = digest(aof_server)
    aof_server.stop()
    flip_in_base(aof_server, 3)
    done = taken(repair, unit, "archive")
    assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert digest(aof_server) == was


def test_history_with_a_cut_is_a_cut(repair, back_up, unit, aof_server):
    back_up(method="aof")
    later(aof_server, 5, 10)
    aof_server.stop()
    flip_in_base(aof_server)
    path = aof(aof_server, 2)
    path.write_bytes(path.read_bytes()[:-40])
    assert "archive" in [
        one["method"] for one in refused(repair, unit, "truncation_not_allowed").methods if one["needs"]
    ]
    done = taken(repair, unit, "archive", allow_truncation=True)
    assert done.loses["commands"] == 1
    assert there(aof_server) == set(range(14))


def test_a_file_that_is_shorter_than_its_copy_does_not_lose_nothing(repair, back_up, unit, aof_server):
    """How much was written to it after the copy cannot be known."""
    back_up(method="aof")
    later(aof_server, 5, 10)
    aof_server.stop()
    path = aof(aof_server, 2)
    raw = path.read_bytes()
    path.write_bytes(raw[: start_of(raw, 5) + 20])
    unknown = {"bytes": None, "commands": None, "seconds": None}
    seen = {one["method"]: one for one in repair(check=True).methods}
    assert (seen["archive"]["loses"], seen["truncation"]["loses"]) == (unknown, unknown)
    assert "cut short" in seen["archive"]["because"]
    assert taken(repair, unit, "archive", method="archive", allow_truncation=True).loses == unknown
    assert there(aof_server) == set(range(10))


def test_what_was_kept_before_other_data_came_does_not_lead_to_it(repair, unit, aof_server):
    """The numbers of the files begin anew, and fit those of an earlier life of the server."""
    archive(aof_server)
    aof_server.cli("SAVE")
    aof_server.stop()
    path = aof(aof_server, 2, "base.rdb")
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw[:-60])  # another file than the kept one, which is whole
    taken(repair, unit, "snapshot", method="snapshot")
    for number in range(2):
        later(aof_server, 5, 100 + 10 * number)
        rewrite(aof_server)
    aof_server.stop()
    flip_in_base(aof_server, 3)
    refused(repair, unit, "no_way_left")


# --- manifest, snapshot ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "junk\n"])
def test_a_lost_manifest_is_written_anew_from_the_names(repair, unit, aof_server, text):
    was = digest(aof_server)
    aof_server.stop()
    time.sleep(1.1)
    os.utime(aof(aof_server, 2))
    path = aof_server.data / "appendonlydir" / "appendonly.aof.manifest"
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = taken(repair, unit, "manifest")
    assert done.loses == {"bytes": 0, "commands": 0, "seconds": 0}
    assert digest(aof_server) == was


def test_a_lost_manifest_is_not_guessed(repair, unit, aof_server):
    aof_server.stop()
    (aof_server.data / "appendonlydir" / "appendonly.aof.manifest").unlink()
    os.utime(aof(aof_server, 2), (1, 1))  # as of before the base
    assert "may be in the base already" in refused(repair, unit, "no_way_left").msg
    # a copy has made all times new, and an increment from before the base lies there as well
    shutil.copyfile(aof(aof_server, 2), aof(aof_server, 1))
    for path in (aof(aof_server, 1), aof(aof_server, 2)):
        os.utime(path, (time.time() + 60,) * 2)
    assert "1.incr.aof is older than" in refused(repair, unit, "no_way_left").msg


def test_the_rdb_beside_a_broken_aof_is_what_is_left(repair, unit, aof_server):
    aof_server.cli("SAVE")
    later(aof_server, 5, 10)
    aof_server.stop()
    flip_in_base(aof_server)
    aof(aof_server, 2).write_bytes(aof(aof_server, 2).read_bytes())
    os.utime(aof(aof_server, 2), (time.time() + 300,) * 2)
    done = taken(repair, unit, "snapshot")
    assert 299 <= done.loses["seconds"] <= 330
    assert there(aof_server) == set(range(10))


# --- another host of the group --------------------------------------------------------------------------------------------------------


@pytest.fixture(name="replica")
def _replica(aof_server, new_redis):
    replica = new_redis("replica")
    replica.write_conf(RDB)
    replica.start()
    replica.cli("REPLICAOF", "127.0.0.1", str(aof_server.port))
    deadline = time.monotonic() + 20
    while replica.info("master_link_status") != "up" or replica.cli("DBSIZE") != aof_server.cli("DBSIZE"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return replica


def group_hosts(server, replica) -> dict:
    return {
        "group_hosts": [f"127.0.0.1:{server.port}", f"127.0.0.1:{replica.port}"],
        "address": f"127.0.0.1:{server.port}",
    }


def dead(server, replica) -> str:
    """The primary dies, its base is damaged, its replica goes on alone. Gives the digest of the data."""
    was = digest(server)
    server.stop(signal.SIGKILL)
    flip_in_base(server)
    deadline = time.monotonic() + 20
    while replica.info("master_link_status") == "up":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return was


def test_a_promoted_replica_gives_its_data(repair, unit, aof_server, replica):
    was = dead(aof_server, replica)
    replica.cli("REPLICAOF", "NO", "ONE")
    done = taken(repair, unit, "replica", **group_hosts(aof_server, replica))
    assert done.source == f"127.0.0.1:{replica.port}"
    assert digest(aof_server) == was
    labels = [name for name in os.listdir(aof_server.home / "backups" / "orders") if name.endswith("-stream")]
    assert len(labels) == 1  # kept as a backup of the set


def test_a_replica_without_its_primary_gives_it_by_a_backup_on_its_own_host(repair, back_up, unit, aof_server, replica):
    was = dead(aof_server, replica)
    # The last write is not within the last second: a replica does not tell it more exactly.
    for path in (aof(aof_server, 2), aof(aof_server, 2, "base.rdb")):
        os.utime(path, (time.time() - 5,) * 2)
    predicted = refused(repair, unit, "replica_cannot_stream", **group_hosts(aof_server, replica))
    assert predicted.source == f"127.0.0.1:{replica.port}"
    assert predicted.address == f"127.0.0.1:{aof_server.port}"
    label = back_up(replica, method="rdb")
    done = taken(repair, unit, "backup", **group_hosts(aof_server, replica))
    assert (done.source, done.loses["seconds"]) == (label, 0)
    assert digest(aof_server) == was


@pytest.mark.parametrize("left", [0, 3])
def test_a_replica_of_an_empty_primary_is_no_source(repair, back_up, unit, aof_server, replica, left):
    label = back_up()
    dead(aof_server, replica)
    (aof_server.data / "dump.rdb").unlink()  # of the backup's own save, and of the second after where the host is busy
    replica.cli("REPLICAOF", "NO", "ONE")
    replica.cli("FLUSHALL")
    if left:
        replica.fill(left)
        predicted = refused(repair, unit, "doubtful_source", **group_hosts(aof_server, replica))
        assert f"with {left} keys" in predicted.msg
        assert label in predicted.msg
        done = taken(repair, unit, "replica", method="replica", **group_hosts(aof_server, replica))
        assert done.keys["after"] == left
    else:
        done = taken(repair, unit, "backup", **group_hosts(aof_server, replica))
        method = next(one for one in done.methods if one["method"] == "replica")
        assert (method["possible"], "never had data" in method["because"]) == (False, True)


def test_the_rdb_beside_the_aof_tells_how_many_keys_there_were(repair, unit, aof_server, replica):
    deadline = time.monotonic() + 20
    while aof_server.raw("SAVE") != "OK":  # the one for the replica may still run
        assert time.monotonic() < deadline
        time.sleep(0.05)
    dead(aof_server, replica)
    path = aof(aof_server, 2, "base.rdb")
    path.write_bytes(path.read_bytes()[:12])  # it no longer says
    os.utime(aof(aof_server, 2), (time.time() + 300,) * 2)  # so that the RDB file loses more
    replica.cli("REPLICAOF", "NO", "ONE")
    replica.cli("FLUSHALL")
    replica.fill(3)
    assert "with 3 keys" in refused(repair, unit, "doubtful_source", **group_hosts(aof_server, replica)).msg


# --- what goes wrong on the way ---------------------------------------------------------------------------------------------


def test_a_server_that_does_not_come_up_is_left_as_it_was(repair, unit, aof_server):
    aof_server.stop()
    path = aof(aof_server, 2)
    path.write_bytes(path.read_bytes()[:-40])
    raw = path.read_bytes()
    unit.broken = True
    done = repair(allow_truncation=True)
    assert (done.failed, done.code) == (True, "restore_undone")
    assert "stopped as it was" in done.msg
    assert (path.read_bytes(), unit.did[-1]) == (raw, "stop")
    taken(repair, unit, "truncation", allow_truncation=True)


def test_files_that_move_meanwhile_are_looked_at_again(repair, unit, aof_server, monkeypatch):
    """systemd starts it again and again, and Redis cuts the file at its start."""
    aof_server.stop()
    path = aof(aof_server, 2)
    path.write_bytes(path.read_bytes()[:-40])
    real = unit.run

    def cuts(*args, **more):
        if args[:2] == ("systemctl", "stop"):
            path.write_bytes(path.read_bytes()[:-20])
        return real(*args, **more)

    monkeypatch.setattr(unit, "run", cuts)
    done = repair(allow_truncation=True)
    assert (done.failed, done.code) == (True, "files_moved")


def test_a_server_that_answers_while_it_loads_and_then_ends_is_seen_through(repair, unit, aof_server):
    aof_server.stop()
    change(aof(aof_server, 2), start_of(aof(aof_server, 2).read_bytes(), 4), b"!")
    aof_server.write_conf(AOF + "key-load-delay 4000\nloading-process-events-interval-bytes 1024\n")

    def begin() -> subprocess.Popen:
        process = subprocess.Popen(["redis-server", str(aof_server.conf)], cwd="/", stdout=subprocess.DEVNULL)
        while "LOADING" not in aof_server.raw("GET", "a"):
            assert process.poll() is None
        return process

    for check in (True, False):
        aof_server.process = begin()
        done = repair(check=check)
        assert (done.failed, done.code) == (True, "truncation_not_allowed")
        assert done.cause["code"] == "aof_bad_format"
        assert aof_server.process.poll() is not None
        assert unit.did == ([] if check else ["stop"])  # systemd would start it again and again
    assert repair(allow_truncation=True).keys["after"] > 400
    assert there(aof_server) == set(range(4))


def test_a_server_that_is_killed_while_it_loads_is_looked_for_again(repair, unit, aof_server):
    aof_server.stop()
    aof_server.write_conf(AOF + "key-load-delay 20000\nloading-process-events-interval-bytes 1024\n")
    aof_server.process = subprocess.Popen(["redis-server", str(aof_server.conf)], cwd="/", stdout=subprocess.DEVNULL)
    while "LOADING" not in aof_server.raw("GET", "a"):
        assert aof_server.process.poll() is None
    timer = threading.Timer(0.5, aof_server.process.kill)
    timer.start()
    done = repair(check=True)
    timer.join()
    assert (done.failed, done.state) == (False, "stopped")


def test_a_file_of_a_newer_release_is_not_mended(repair, unit, rdb_server):
    rdb_server.stop()
    change(rdb_server.data / "dump.rdb", 5, b"0099")
    assert "version 99" in refused(repair, unit, "file_is_newer").msg


def test_what_loads_with_far_fewer_keys_than_there_were_takes_a_word(repair, back_up, unit, aof_server):
    """The cut costs one command, and what is left is of a server that had lost its data."""
    aof_server.fill(300)
    back_up()
    aof_server.cli("FLUSHALL")
    later(aof_server, 5)
    aof_server.stop(signal.SIGKILL)
    path = aof(aof_server, 2)
    path.write_bytes(path.read_bytes() + b"!!!!")
    before = {name: one.read_bytes() for name in ("incr.aof", "base.rdb") if (one := aof(aof_server, 2, name)).exists()}
    options = {"allow_truncation": True}
    done = repair(**options)
    assert (done.failed, done.code) == (True, "staged_has_less"), done.msg
    assert "has 5 keys; there were" in done.msg
    assert {name: aof(aof_server, 2, name).read_bytes() for name in before} == before
    assert not list(aof_server.data.glob("redisops-restore-*"))
    done = repair(method="truncation", **options)
    assert not done.failed, done.msg
    assert there(aof_server) == set(range(5))


def test_a_replica_that_does_not_start_is_brought_what_loads(repair, back_up, unit, aof_server, new_redis):
    """Its primary's data takes the place of it, but it has to start for that."""
    primary = new_redis("primary")
    primary.start().fill(7, "primary")
    back_up()
    aof_server.stop(signal.SIGKILL)
    with aof_server.conf.open("a") as handle:
        handle.write(f"replicaof 127.0.0.1 {primary.port}\n")
    flip_in_base(aof_server)
    (aof_server.data / "dump.rdb").unlink()
    does_not_start(aof_server)
    taken(repair, unit, "backup")
    deadline = time.monotonic() + 20
    while aof_server.info("master_link_status") != "up" or aof_server.keys() != 7:
        assert time.monotonic() < deadline
        time.sleep(0.05)
