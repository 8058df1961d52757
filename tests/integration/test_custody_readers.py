# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What redis_file_check and redis_repair make of files, next to what a real server makes of them."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from tests.integration.test_redis_repair import (  # noqa: F401, they are fixtures
    _back_up,
    _repair,
    _unit,
    aof,
    refused,
    rewrite,
)

CONF = 'save ""\nappendonly yes\nauto-aof-rewrite-percentage 0\nenable-debug-command local\n'


def command(*words: str | bytes) -> bytes:
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)


@pytest.fixture(name="server")
def _server(unit):
    unit.server.write_conf(CONF)
    unit.server.start()
    unit.server.fill(20)
    rewrite(unit.server)
    unit.server.fill(20, "later")
    return unit.server


@pytest.fixture(name="check")
def _check(call_module):
    def run(*paths):
        done = call_module("redis_file_check", paths=[str(path) for path in paths])
        assert not done.failed, done.msg
        return {pathlib.Path(row["path"]).name: row for row in done.files}

    return run


def manifest(server) -> pathlib.Path:
    return server.data / "appendonlydir" / "appendonly.aof.manifest"


def append(server, raw: bytes) -> None:
    with aof(server, 2).open("ab") as handle:
        handle.write(raw)


def starts(server) -> bool:
    try:
        server.start()
    except AssertionError:
        return False
    server.stop()
    return True


# --- commands ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "verdict"),
    [
        (command("NOSUCH", "a"), "unknown_command"),
        (command("FUNCTION", "NOSUCH"), "unknown_command"),
        (command("SET", "k"), "corrupt_inside"),
        (command("MULTI") + command("SET", "k") + command("EXEC"), "corrupt_inside"),
        (command("", "a"), "corrupt_inside"),
        (b"*0\r\n", "corrupt_inside"),
        (command("set", "k", "1") + command("XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"), "good"),
    ],
)
def test_commands_that_no_start_takes_are_no_good_file(check, server, raw, verdict):
    server.stop()
    append(server, raw + command("SET", "after", "1"))
    row = check(server.data / "appendonlydir")[aof(server, 2).name]
    assert (row["verdict"], row["usable"]) == (verdict, verdict == "good")
    assert starts(server) is row["usable"]


@pytest.mark.parametrize(
    "words", [("SADD", "files:1", "a"), ("SET", "k", "filename.txt"), ("SET", "k", "x\nfile y seq 1 type b\n")]
)
def test_a_line_that_begins_with_file_is_no_manifest(check, repair, server, words):
    """redis-check-aof of 7.0.15 takes the file for one."""
    server.cli(*words)
    assert check(server.data / "appendonlydir")[aof(server, 2).name]["verdict"] == "good"
    assert check(aof(server, 2))[aof(server, 2).name]["verdict"] == "good"
    done = repair()
    assert (done.failed, done.changed, done.state) == (False, False, "good")
    server.stop()
    done = repair()
    assert (done.failed, done.changed, done.state) == (False, False, "stopped")


def test_a_file_of_another_release_is_not_repaired(repair, unit, server):
    server.stop()
    append(server, command("JSON.SET", "k", "$", "1"))
    assert "JSON.SET" in refused(repair, unit, "unknown_command").msg


def test_a_renamed_command_is_known_to_the_server_that_renamed_it(repair, unit, server):
    server.stop()
    server.write_conf(CONF + "rename-command SETEX put-b840\n")
    append(server, command("put-b840", "k", "1000", "1"))
    done = repair()
    assert (done.failed, done.changed, done.state) == (False, False, "stopped")
    server.start()
    assert server.cli("GET", "k") == "1"
    server.stop()
    append(server, command("SETEX", "k", "1000", "1"))  # which is no name of it any more
    assert not starts(server)
    assert "SETEX" in refused(repair, unit, "unknown_command").msg


def test_a_torn_annotation_is_told_before_the_next_command_stands_in_its_line(check, server):
    server.stop()
    append(server, b"#TS:17953")
    row = check(server.data / "appendonlydir")[aof(server, 2).name]
    assert (row["verdict"], "the next command would stand in the same line" in row["detail"]) == (
        "truncated_tail",
        True,
    )
    server.start()
    server.cli("SET", "k", "1")
    server.stop()
    assert check(server.data / "appendonlydir")[aof(server, 2).name]["verdict"] == "corrupt_inside"
    assert not starts(server)


# --- manifests --------------------------------------------------------------------------------------------------------------


def edited(text: str, how: str) -> str:
    base, increment = text.splitlines(keepends=True)
    return {
        "no newline": text[:-1],
        "twice": text + increment,
        "falls": base + "file x seq 3 type i\n" + increment,
        "seq 0": base + increment.replace("seq 2", "seq 0"),
        "long comment": "#" + "x" * 1100 + "\n" + text,
        "backslash": base + increment.replace(".incr", "\\.incr"),
        "capitals": text.replace("file", "FILE").replace("type", "TYPE"),
        "words": text.replace("type b", "type base").replace("type i", "type incr"),
        "plus": text.replace("seq 2", "seq +2"),
        "order": increment + base,
        "keys in another order": "".join(
            f"seq 2 type {kind} file {name}\n" for kind, name in (("b", base.split()[1]), ("i", increment.split()[1]))
        ),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "no newline",
        "twice",
        "falls",
        "seq 0",
        "long comment",
        "backslash",
        "capitals",
        "words",
        "plus",
        "order",
        "keys in another order",
    ],
)
def test_a_manifest_is_read_as_redis_reads_it(check, repair, server, how):
    server.stop()
    text = edited(manifest(server).read_text(), how)
    manifest(server).write_text(text)
    usable = all(row["usable"] for row in check(server.data / "appendonlydir").values())
    state = repair(check=True).state
    assert starts(server) is usable
    assert (state == "stopped") is usable


def test_an_rdb_that_a_manifest_names_twice_is_refused(check, server):
    server.stop()
    path = manifest(server)
    path.write_text(path.read_text() + f"file {aof(server, 2, 'base.rdb').name} seq 3 type i\n")
    done = [row["verdict"] for row in check_all(check, server)]
    assert "corrupt_inside" in done
    assert not starts(server)


def check_all(check, server) -> list[dict]:
    """Rows by path: the file that is named twice has the verdict of its second line."""
    return list(check(server.data / "appendonlydir").values())


@pytest.mark.parametrize("gone", ["base", "incr"])
def test_a_line_that_is_gone_from_the_manifest_is_found(check, repair, unit, server, gone):
    """Redis starts without the data of the other file."""
    was = server.cli("DEBUG", "DIGEST")
    server.stop()
    path = manifest(server)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if f".{gone}." not in line))
    rows = check(server.data / "appendonlydir")
    (bad,) = (row for row in rows.values() if not row["usable"])
    assert (bad["verdict"], f".{gone}." in bad["path"]) == ("unlisted", True)
    os.utime(aof(server, 2), (2_000_000_000,) * 2)  # not in the second of the base
    done = repair()
    assert not done.failed, done.msg
    assert (done.method, done.loses) == ("manifest", {"bytes": 0, "commands": 0, "seconds": 0})
    assert server.cli("DEBUG", "DIGEST") == was


def test_a_line_that_is_gone_is_not_answered_with_a_backup(repair, back_up, unit, server):
    back_up()
    server.stop()
    path = manifest(server)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if ".incr." not in line))
    os.utime(aof(server, 2), (1, 1))  # as of before the base
    done = refused(repair, unit, "loss_not_known")
    assert "backup" in done.msg
    server.start()  # it has not what that increment holds, and its memory is no source
    done = refused(repair, unit, "loss_not_known")
    assert "does not name" in next(one for one in done.methods if one["method"] == "memory")["because"]


# --- the one file of before 7.0 -----------------------------------------------------------------------------------------------


@pytest.fixture(name="old_style")
def _old_style(unit):
    """What 6.2 leaves with its defaults: an RDB with commands behind it, and an older RDB file next to it."""
    server = unit.server
    server.write_conf(CONF)
    server.start()
    server.fill(20)
    server.cli("SAVE")
    server.fill(10, "rewritten")
    rewrite(server)
    server.fill(10, "tail")
    server.stop()
    folder = server.data / "appendonlydir"
    raw = aof(server, 2, "base.rdb").read_bytes() + aof(server, 2).read_bytes()
    shutil.rmtree(folder)
    (server.data / "appendonly.aof").write_bytes(raw)
    return server


def test_one_file_with_an_rdb_and_commands_is_good(check, old_style):
    row = check(old_style.data / "appendonly.aof")["appendonly.aof"]
    assert (row["verdict"], row["usable"], row["keys"]) == ("good", True, 30)
    path = old_style.data / "appendonly.aof"
    path.write_bytes(path.read_bytes()[:-9])
    assert check(path)["appendonly.aof"]["verdict"] == "truncated_tail"
    path.write_bytes(path.read_bytes() + b"!!")
    assert check(path)["appendonly.aof"]["verdict"] == "corrupt_inside"


def test_good_files_of_a_stopped_server_are_not_replaced(repair, back_up, unit, old_style):
    """Packages upgraded: before the first start of the new release, and after it."""
    before = old_style.tree()
    done = repair()
    assert (done.failed, done.changed, done.state) == (False, False, "stopped"), done.msg
    assert old_style.tree() == before
    old_style.start()
    assert old_style.keys() == 40
    back_up()
    old_style.fill(1, "more")
    old_style.stop()
    done = repair()
    assert (done.failed, done.changed, done.state) == (False, False, "stopped"), done.msg
    old_style.start()
    assert old_style.keys() == 41


def test_a_damaged_one_file_is_replaced_by_what_loses_so_many_seconds(repair, unit, old_style):
    path = old_style.data / "appendonly.aof"
    raw = path.read_bytes()
    path.write_bytes(raw[:-60] + b"!" + raw[-59:])
    os.utime(path, (path.stat().st_mtime + 60,) * 2)
    done = repair(check=True)
    assert not done.failed, vars(done)
    assert (done.method, done.loses["seconds"] >= 60) == ("snapshot", True)
    assert not repair().failed
    assert old_style.keys() == 20
    assert path.exists()


# --- the AOF on a disk of its own -----------------------------------------------------------------------------------------------


@pytest.fixture(name="linked")
def _linked(unit, server, tmp_path):
    """appendonlydir is a link; next to it an older RDB file."""
    server.cli("SAVE")
    server.fill(5, "since")
    server.stop()
    disk = tmp_path / "disk"
    shutil.move(server.data / "appendonlydir", disk)
    (server.data / "appendonlydir").symlink_to(disk)
    return disk


def test_a_disk_that_is_not_mounted_is_no_lost_aof(repair, unit, server, linked):
    linked.rename(linked.with_suffix(".away"))
    done = refused(repair, unit, "aof_dir_is_away")
    assert "mount" in done.msg
    linked.with_suffix(".away").rename(linked)
    server.start()
    assert server.keys() == 45


def test_an_empty_mount_point_is_no_reason_to_go_on_from_an_older_rdb(repair, unit, server, linked):
    linked.rename(linked.with_suffix(".away"))
    linked.mkdir()
    done = refused(repair, unit, "loss_not_known")
    assert "mounted" in done.msg
    refused(repair, unit, "data_is_a_link", method="snapshot")
    assert (server.data / "appendonlydir").is_symlink()


def test_an_aof_that_was_moved_away_is_not_replaced_without_a_word(repair, unit, server):
    server.cli("SAVE")
    server.fill(5, "since")
    server.stop()
    shutil.move(server.data / "appendonlydir", server.home / "elsewhere")
    refused(repair, unit, "loss_not_known")
    done = repair(method="snapshot")
    assert not done.failed, done.msg
    assert server.keys() == 40
