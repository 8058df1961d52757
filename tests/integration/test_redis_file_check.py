# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_file_check on files that a real server wrote; what a start would make of them is asked of a real server, too."""

from __future__ import annotations

import pathlib

import pytest

AOF = "appendonly yes\naof-timestamp-enabled yes\nauto-aof-rewrite-percentage 0\n"


@pytest.fixture(name="files")
def _files(redis_server):
    """A server's directory after a clean end: an RDB, and an AOF of base and increment."""
    redis_server.write_conf(AOF)
    redis_server.start().fill(50)
    redis_server.cli("SET", "plain", "abcdefgh")
    redis_server.cli("SAVE")
    for number in range(5):
        redis_server.cli("SET", f"later:{number}", "x" * 100)
    redis_server.stop()
    return redis_server.data


@pytest.fixture(name="check")
def _check(call_module):
    def run(*paths, **options):
        first = call_module("redis_file_check", check=True, paths=[str(path) for path in paths], **options)
        again = call_module("redis_file_check", paths=[str(path) for path in paths], **options)
        assert (first.failed, first.changed, again.changed) == (again.failed, False, False)
        if not again.failed:
            assert first.files == again.files
        return again

    return run


def increment(files: pathlib.Path) -> pathlib.Path:
    return files / "appendonlydir" / "appendonly.aof.1.incr.aof"


def test_what_a_server_left_is_good(check, files, redis_server):
    redis_server.start()
    keys = redis_server.cli("DBSIZE")
    redis_server.stop()
    found = check(files / "dump.rdb", files / "appendonlydir")
    assert found.usable is True
    assert [(row["kind"], row["verdict"]) for row in found.files] == [
        ("rdb", "good"), ("manifest", "good"), ("rdb", "good"), ("aof", "good"),
    ]  # fmt: skip
    assert found.files[0]["keys"] == int(keys)


def cut(data: bytes) -> bytes:
    return data[:-40]


def flip(data: bytes) -> bytes:
    assert b"abcdefgh" in data
    return data.replace(b"abcdefgh", b"abcdefgi")


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        (cut, "truncated_tail"),
        (flip, "bad_crc"),
        (lambda data: data[:9], "header_only"),
        (lambda data: b"", "header_only"),
        (lambda data: b"\x89PNG" + data[4:], "not_rdb"),
        (lambda data: b"REDIS0099" + data[9:], "newer_version"),
        (lambda data: data[:-8] + b"\x00" * 8, "unchecked"),
        (lambda data: data + b"??", "corrupt_inside"),
    ],
)
def test_each_fault_of_an_rdb_has_its_name(check, files, damage, verdict):
    path = files / "dump.rdb"
    data = damage(path.read_bytes())
    path.write_bytes(data)
    found = check(path)
    (row,) = found.files
    assert (row["verdict"], row["size"]) == (verdict, len(data))
    assert found.usable is (verdict == "unchecked")
    assert row["do"]
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("damage", "verdict", "starts"),
    [
        (cut, "truncated_tail", True),
        (lambda data: data + b"\x00" * 64, "corrupt_inside", False),
        (lambda data: data[: (at := data.rindex(b"$3\r\nSET"))] + b"!" + data[at + 1 :], "corrupt_inside", False),
        (lambda data: data + b"*1\r\n$5\r\nMULTI\r\n", "truncated_tail", True),
        (lambda data: b"", "empty", True),
    ],
)
def test_each_fault_of_an_increment_has_its_name_and_redis_agrees(check, files, redis_server, damage, verdict, starts):
    path = increment(files)
    data = damage(path.read_bytes())
    path.write_bytes(data)
    row = check(files / "appendonlydir").files[-1]
    assert (row["path"], row["verdict"]) == (str(path), verdict)
    if verdict in ("truncated_tail", "corrupt_inside"):
        assert data[: row["offset"]].endswith(b"\r\n")
        assert str(len(data) - row["offset"]) in row["detail"]
        assert row["timestamp"] is None or row["timestamp"] > 1_700_000_000
    assert path.read_bytes() == data
    if starts:
        redis_server.start()
        assert path.stat().st_size == (row["offset"] if row["offset"] is not None else len(data))
    else:
        with pytest.raises(AssertionError, match="redis-server ended"):
            redis_server.start()


def test_what_the_manifest_and_the_directory_do_not_agree_on_is_told(check, files):
    stray = files / "appendonlydir" / "appendonly.aof.7.incr.aof"
    stray.write_bytes(b"")
    base = files / "appendonlydir" / "appendonly.aof.1.base.rdb"
    base.unlink()
    rows = {pathlib.Path(row["path"]).name: row["verdict"] for row in check(files / "appendonlydir").files}
    assert rows[base.name] == "missing"
    assert rows[stray.name] == "unreferenced"


def test_a_cut_increment_that_is_not_the_last_is_no_mere_tail(check, files):
    path = increment(files)
    path.write_bytes(cut(path.read_bytes()))
    with (path.parent / "appendonly.aof.manifest").open("a") as handle:
        handle.write("file appendonly.aof.2.incr.aof seq 2 type i\n")
    (path.parent / "appendonly.aof.2.incr.aof").write_bytes(b"")
    row = next(row for row in check(files / "appendonlydir").files if row["path"] == str(path))
    assert row["verdict"] == "corrupt_inside"
    assert "not the last file" in row["detail"]


def test_a_manifest_of_junk_is_told(check, files):
    (files / "appendonlydir" / "appendonly.aof.manifest").write_bytes(b"\xff\x00junk\n")
    (row,) = check(files / "appendonlydir").files
    assert (row["kind"], row["verdict"]) == ("manifest", "corrupt_inside")


def test_a_path_that_is_not_there_is_missing(check, tmp_path):
    (row,) = check(tmp_path / "nowhere.rdb").files
    assert (row["verdict"], row["usable"]) == ("missing", False)


def test_a_directory_without_a_manifest_is_refused(check, files):
    (files / "appendonlydir" / "appendonly.aof.manifest").unlink()
    found = check(files / "appendonlydir")
    assert (found.failed, found.code) == (True, "no_manifest")
    assert "EMPTY" in found.msg


def test_without_the_tools_it_says_what_to_install(check, files, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check(files / "dump.rdb")
    assert (found.failed, found.code) == (True, "no_check_tool")


def test_a_tool_that_takes_too_long_is_ended(check, files, monkeypatch, tmp_path):
    slow = tmp_path / "redis-check-rdb"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = check(files / "dump.rdb", timeout=1)
    assert (found.failed, found.code) == (True, "check_timeout")
