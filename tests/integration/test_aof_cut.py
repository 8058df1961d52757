# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An earlier moment, made from the files and loaded by a real server: all of its data, and nothing of later."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive, set_of, sets, window
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.collect import Spot, find_commands
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.cut import stage_at, stage_before
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host

from tests.support.aof_past import NASTY, Past, killed_before, tree

OWNER = (os.geteuid(), os.getegid())
NAME = "new name.aof"


@pytest.fixture(name="past")
def _past(redis_server):
    return Past(redis_server, "old name.aof").start()


@pytest.fixture(name="folder")
def _folder(redis_server):
    return str(redis_server.data / "archive")


@pytest.fixture(name="loaded")
def _loaded(new_redis):
    """``loaded(directory)``: the digest of all data that a server has which starts on the directory; twice, the second time after a write."""
    numbers = iter(range(100))

    def load(directory):
        server = new_redis(f"loaded-{next(numbers)}")
        shutil.copytree(directory, server.data / "appendonlydir")
        other = Past(server, NAME)
        server.write_conf(
            f'appendonly yes\nappendfilename "{NAME}"\nenable-debug-command yes\naof-load-truncated no\nsave ""\n'
        )
        server.start()
        digest = other.digest()
        other.send(("SELECT", "9"), ("SET", "written later", "1"))
        changed = other.digest()
        server.restart()
        assert other.digest() == changed != digest
        server.stop()
        return digest

    return load


def keep(past, folder):
    return archive(past.place, folder, 86400, time.time())


def known(past, folder):
    """What was kept, and the live directory up to the last second that was written down."""
    return [*sets(folder), set_of(str(past.live), seen=max(past.states))]


def to_second(past, have, at, target):
    return stage_at(have, at, str(target), NAME, Host(), OWNER)


def writes(number):
    """Commands of every kind, which leave other data each time."""
    value = NASTY[number % len(NASTY)]
    return [
        ("SELECT", str(number % 3)),
        ("SET", f"string:{number}", value),
        ("HSET", "hash", f"field:{number}", value),
        ("MULTI",),
        ("RPUSH", "list", value),
        ("SELECT", str((number + 1) % 3)),
        ("INCR", "counter"),
        ("EXEC",),
        (
            "EVAL",
            "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('SADD', 'set', ARGV[1])",
            "1",
            f"script:{number}",
            value,
        ),
        ("DEL", f"string:{number - 2}"),
        ("EVAL", "if ARGV[1] == '5' then redis.call('FLUSHDB') end", "0", str(number)),
    ]


def test_every_second_comes_back(past, folder, loaded, tmp_path):
    for number in range(9):
        past.step(*writes(number))
        if number in (2, 5):
            keep(past, folder)
            past.rewrite()
            past.more(*writes(number + 20))  # in the second of the rewrite: no timestamp stands before it
            keep(past, folder)
        if number == 4:
            past.failed_rewrite()
            past.more(*writes(number + 20))
    past.step(("SET", "end", "1"))
    have = known(past, folder)
    before = tree(past.server.data)
    ranges = window(have)
    assert len(ranges) == 1
    wanted = {second: digest for second, digest in past.states.items() if ranges[0][0] <= second <= ranges[0][1]}
    assert len(set(wanted.values())) >= 6
    for second, digest in wanted.items():
        cut = to_second(past, have, second, tmp_path / f"at-{second}")
        assert loaded(cut.directory) == digest, second
        assert (cut.at, cut.last_ts is None or cut.last_ts <= second) == (second, True)
        assert sorted(os.listdir(cut.directory)) == sorted([cut.base, *cut.increments, f"{NAME}.manifest"])
        assert all(name.startswith(NAME) for name in os.listdir(cut.directory))
        assert os.stat(cut.directory).st_mode & 0o777 == 0o750
        assert {os.stat(os.path.join(cut.directory, name)).st_mode & 0o777 for name in os.listdir(cut.directory)} == {
            0o640
        }
        assert {os.stat(os.path.join(cut.directory, name)).st_nlink for name in os.listdir(cut.directory)} == {1}
    assert {one.manifest.base.seq for one in have} == {1, 2, 3}
    assert tree(past.server.data) == before


@pytest.mark.parametrize("base", ["yes", "no"])
def test_what_is_dropped_is_counted(redis_server, tmp_path, loaded, base):
    past = Past(redis_server).start(f"aof-use-rdb-preamble {base}\n")
    first = past.step(("SET", "a", "1"))
    size = sum(path.stat().st_size for path in past.live.glob("*.incr.aof"))
    digest = past.digest()
    past.failed_rewrite()
    past.step(("SET", "a", "2"))
    past.step(("SET", "b", "3"))
    total = sum(path.stat().st_size for path in past.live.glob("*.incr.aof"))
    cut = to_second(past, [set_of(str(past.live))], first, tmp_path / "new")
    assert (cut.commands_dropped_bytes, cut.last_ts, len(cut.increments)) == (total - size, first, 1)
    assert loaded(cut.directory) == digest


def test_a_base_alone_is_a_moment(past, tmp_path, loaded):
    past.step(("SET", "a", "1"))
    digest = past.digest()
    past.rewrite()
    past.step(("SET", "a", "2"))
    one = set_of(str(past.live))
    cut = to_second(past, [one], one.base_at, tmp_path / "new")
    assert (cut.increments, cut.last_ts) == ((), None)
    assert loaded(cut.directory) == digest


def test_a_command_half_written_is_left_out(past, tmp_path, loaded):
    past.step(("SET", "a", "1"))
    last = past.step(("SET", "b", "2"))
    digest = past.digest()
    copy = tmp_path / "copy"
    shutil.copytree(past.live, copy)
    for tail in (
        b"#TS:9999999999\r\n",
        b"#TS:99999\r\n*3\r\n$3\r\nSET\r\n$1\r\na",
        b"*1\r\n$5\r\nMULTI\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    ):
        path = copy / "old name.aof.1.incr.aof"
        path.write_bytes((past.live / path.name).read_bytes() + tail)
        cut = to_second(past, [set_of(str(copy))], last, tmp_path / f"new-{len(tail)}")
        assert loaded(cut.directory) == digest


# --- what is refused ---------------------------------------------------------------------------------------------------


def refused(code, have, at, target, **other):
    with pytest.raises(Refusal) as caught:
        stage_at(have, at, str(target), NAME, other.get("host", Host()), OWNER)
    assert caught.value.code == code
    assert not os.path.lexists(target)
    assert [name for name in os.listdir(os.path.dirname(target)) if name.endswith("redisops-new")] == []
    return caught.value


def test_seconds_that_do_not_exist_are_refused_with_those_that_do(past, folder, tmp_path):
    target = tmp_path / "new"
    refused("no_aof_history", [], 1, target)
    past.step(("SET", "a", "1"))
    last = past.step(("SET", "a", "2"))
    have = [set_of(str(past.live))]
    ((begins, ends),) = window(have)
    assert (begins, ends) == (have[0].base_at, last)
    for at, code in [
        (begins - 1, "before_history"),
        (1, "before_history"),
        (last + 1, "after_history"),
        (last + 10**6, "after_history"),
    ]:
        problem = refused(code, have, at, target)
        assert f"{begins} to {ends}" in problem.message()
        assert problem.details["ranges"] == [[begins, ends]]
    live = [set_of(str(past.live), seen=last + 5)]
    assert window(live) == [(begins, last + 5)]
    assert to_second(past, live, last + 5, target).last_ts == last


def test_a_gap_is_refused_and_what_is_around_it_is_not(past, folder, tmp_path, loaded):
    first = past.step(("SET", "a", "1"))
    digest = past.digest()
    keep(past, folder)
    past.failed_rewrite()
    lost = past.step(("SET", "a", "2"))
    past.failed_rewrite()
    past.step(("SET", "a", "3"))
    keep(past, folder)
    past.rewrite()
    last = past.step(("SET", "a", "4"))
    end = past.digest()
    keep(past, folder)
    os.unlink(os.path.join(sets(folder)[0].directory, "old name.aof.2.incr.aof"))
    have = sets(folder)
    ranges = window(have)
    assert len(ranges) == 2
    assert first - 1 == ranges[0][1] < lost < ranges[1][0]
    problem = refused("history_gap", have, lost, tmp_path / "new")
    assert all(f"{begins} to {ends}" in problem.message() for begins, ends in ranges)
    assert "old name.aof.2.incr.aof is missing" in problem.message()
    refused("history_gap", have, first, tmp_path / "new")  # the missing file may begin within this second
    assert loaded(to_second(past, have, last, tmp_path / "last").directory) == end != digest


def test_a_rewrite_that_nobody_saw_is_a_gap(past, folder, tmp_path):
    first = past.step(("SET", "a", "1"))
    keep(past, folder)
    past.step(("SET", "a", "2"))
    past.rewrite()
    unseen = past.step(("SET", "a", "3"))
    past.step(("SET", "a", "4"))
    past.rewrite()
    past.step(("SET", "a", "5"))
    keep(past, folder)
    have = sets(folder)
    assert [one.manifest.base.seq for one in have] == [1, 3]
    assert len(window(have)) == 2
    problem = refused("history_gap", have, unseen, tmp_path / "new")
    assert first <= problem.details["ranges"][0][1] < unseen < problem.details["ranges"][1][0]


def test_without_timestamps_nothing_is_guessed(redis_server, tmp_path, loaded):
    past = Past(redis_server)
    past.start("aof-timestamp-enabled no\n")
    past.step(("SET", "a", "1"))
    second = past.step(("SET", "a", "2"))
    have = [set_of(str(past.live))]
    assert window(have) == []
    assert "no second" in refused("aof_without_timestamps", have, second, tmp_path / "new").message()
    past.send(("CONFIG", "SET", "aof-timestamp-enabled", "yes"))
    third = past.step(("SET", "a", "3"))
    have = [set_of(str(past.live))]
    assert window(have) == [(third, third)]
    assert f"{third} to {third}" in refused("aof_without_timestamps", have, second, tmp_path / "new").message()
    assert loaded(to_second(past, have, third, tmp_path / "new").directory) == past.digest()


def test_damage_is_never_staged(past, tmp_path):
    past.step(("SET", "a", "1"))
    past.rewrite()
    second = past.step(("SET", "b", "1" * 100))
    last = past.step(("SET", "c", "2"))
    copy = tmp_path / "copy"
    shutil.copytree(past.live, copy)
    base, increment = next(copy.glob("*.base.rdb")), next(copy.glob("*.incr.aof"))
    good = base.read_bytes()
    base.write_bytes(good[:-12] + bytes([good[-12] ^ 1]) + good[-11:])
    assert "redis-check-aof" in refused("cut_not_verified", [set_of(str(copy))], second, tmp_path / "new").detected
    base.write_bytes(good)
    data = increment.read_bytes()
    increment.write_bytes(data.replace(b"$100", b"$101"))
    assert "damaged" in refused("history_gap", [set_of(str(copy))], last, tmp_path / "new").detected
    have = [set_of(str(past.live))]
    lies = Host(run=lambda *args: Completed(0, "All AOF files and manifest are valid"))
    assert "timestamps say" in refused("cut_not_verified", have, second, tmp_path / "new", host=lies).detected
    with pytest.raises(Problem) as caught:
        stage_at(have, second, str(tmp_path / "new"), NAME, Host(run=lambda *args: Completed(127, "")), OWNER)
    assert caught.value.code == "no_check_tool"


def test_files_that_move_under_the_reader(past, tmp_path):
    past.step(("SET", "a", "1"))
    last = past.step(("SET", "b", "1"))
    have = [set_of(str(past.live))]
    past.rewrite()
    refused("archive_moved", have, last, tmp_path / "new")
    with pytest.raises(Refusal) as caught:
        find_commands(have[0])
    assert caught.value.code == "archive_moved"


def test_a_link_in_place_of_a_file_is_not_followed(past, tmp_path):
    last = past.step(("SET", "a", "1"))
    copy = tmp_path / "copy"
    shutil.copytree(past.live, copy)
    have = [set_of(str(copy))]
    increment = next(copy.glob("*.incr.aof"))
    (tmp_path / "secret").write_bytes(increment.read_bytes())
    increment.unlink()
    increment.symlink_to(tmp_path / "secret")
    refused("aof_not_a_file", have, last, tmp_path / "new")


def test_the_target_is_never_written_over(past, tmp_path):
    last = past.step(("SET", "a", "1"))
    have = [set_of(str(past.live))]
    target = tmp_path / "new"
    target.mkdir()
    (target / "mine").write_text("x")
    for path in (target, tmp_path / "no" / "such"):
        with pytest.raises(Refusal) as caught:
            to_second(past, have, last, path)
        assert caught.value.code == "target_exists"
    assert tree(target) == {str(target / "mine"): b"x"}
    (tmp_path / ".other.redisops-new").write_text("of somebody else")
    with pytest.raises(Refusal) as caught:
        to_second(past, have, last, tmp_path / "other")
    assert caught.value.code == "target_exists"


def test_a_disk_that_is_full(past, tmp_path, monkeypatch):
    last = past.step(("SET", "a", "1"))
    have = [dataclasses.replace(set_of(str(past.live)), base_bytes=1 << 60)]
    refused("disk_space", have, last, tmp_path / "new")


# --- before a command --------------------------------------------------------------------------------------------------

FLUSHES = {
    "plain": [("FLUSHALL",)],
    "async": [("flushall", "async")],
    "database": [("SELECT", "1"), ("FLUSHDB",)],
    "script": [("EVAL", "redis.call('FLUSHALL')", "0")],
    "script of several": [("EVAL", "redis.call('SET', 'x', '1'); redis.call('FLUSHALL'); redis.call('SET', 'y', '1')", "0")],
    "function": [("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() redis.call('INCR', 'x'); redis.call('FLUSHALL') end)"),
                 ("FCALL", "f", "0")],
    "multi": [("MULTI",), ("SET", "x", "1"), ("SELECT", "2"), ("FLUSHALL",), ("SET", "y", "1"), ("EXEC",)],
}  # fmt: skip


@pytest.mark.parametrize("how", FLUSHES)
def test_a_flush_is_undone_to_the_byte(past, tmp_path, loaded, how):
    past.step(*writes(1))
    past.step(*writes(2), *writes(3))
    functions = [words for words in FLUSHES[how] if words[0] == "FUNCTION"]
    flush = [words for words in FLUSHES[how] if words[0] != "FUNCTION"]
    increment = next(past.live.glob("*.incr.aof"))
    size = increment.stat().st_size
    packet = [*functions, *writes(4), *writes(7)]
    answers = past.send(*packet, ("DEBUG", "DIGEST"), *flush, ("SET", "z", "1"))
    before = answers[len(packet)].decode()
    past.send(("SELECT", "0"), ("SET", "after", "1"))
    one = set_of(str(past.live))
    spot = find_commands(one)[-1]
    assert (spot.name, spot.increment) == ("FLUSHDB" if how == "database" else "FLUSHALL", increment.name)
    assert spot.transaction == (how in ("script of several", "function", "multi"))
    source = increment.read_bytes()
    cut = stage_before(one, (spot.increment, spot.offset), str(tmp_path / "new"), NAME, Host(), OWNER)
    staged = pathlib.Path(cut.directory, cut.increments[-1]).read_bytes()
    assert staged == source[: spot.offset]
    assert len(staged) > size  # the writes of the same packet are in it
    begins = (b"*1\r\n$5\r\nmulti", b"*1\r\n$8\r\nflushall", b"*2\r\n$8\r\nflushall", b"*1\r\n$7\r\nflushdb")
    assert source[spot.offset :].lower().startswith(begins)
    assert cut.commands_dropped_bytes == len(source) - spot.offset
    assert loaded(cut.directory) == before != past.digest()


def test_the_flush_of_an_empty_second_takes_its_timestamp_with_it(past, tmp_path, loaded):
    past.step(*writes(1))
    before, size = past.digest(), next(past.live.glob("*.incr.aof")).stat().st_size
    second = past.step(("SELECT", "2"), ("FLUSHALL",))  # the database of the last write: no SELECT is written
    past.step(*writes(2))
    one = set_of(str(past.live))
    (spot,) = find_commands(one, ["flushall"])
    assert (spot.offset, spot.at) == (size, second)
    cut = stage_before(one, (spot.increment, spot.offset), str(tmp_path / "new"), NAME, Host(), OWNER)
    assert (cut.at, os.stat(os.path.join(cut.directory, cut.increments[0])).st_size) == (second, size)
    assert loaded(cut.directory) == before


def test_a_flush_that_begins_an_increment_leaves_the_files_before_it(past, tmp_path, loaded):
    past.step(("SET", "a", "1"))
    before = past.digest()
    past.failed_rewrite()
    past.step(("FLUSHALL",))
    one = set_of(str(past.live))
    (spot,) = find_commands(one)
    cut = stage_before(one, (spot.increment, 0), str(tmp_path / "new"), NAME, Host(), OWNER)
    assert (len(cut.increments), spot.increment) == (1, "old name.aof.2.incr.aof")
    assert loaded(cut.directory) == before


def test_commands_are_found_with_what_came_after(past):
    past.step(("SELECT", "2"), ("SET", "a", "1"), ("DEL", "a"))
    flushed = past.step(
        ("SELECT", "1"), ("SET", "b", "1"), ("MULTI",), ("SET", "c", "1"), ("FLUSHDB",), ("SET", "d", "1"), ("EXEC",)
    )
    past.failed_rewrite()
    swapped = past.step(("SELECT", "0"), ("SWAPDB", "0", "1"), ("SET", "e", b"FLUSHALL\r\n#TS:1\r\n"))
    one = set_of(str(past.live))
    names = [entry.name for entry in one.increments]
    sizes = [entry.bytes for entry in one.increments]
    flush, swap = find_commands(one)
    first, second = ((past.live / name).read_bytes() for name in names)
    multi = first.index(b"*1\r\n$5\r\nMULTI")
    after = first.index(b"FLUSHDB\r\n") + 9
    assert flush == Spot("FLUSHDB", (), 1, names[0], multi, flushed, 3, sizes[0] - after + sizes[1], True)
    behind = second.index(b"SWAPDB") + len("SWAPDB\r\n$1\r\n0\r\n$1\r\n1\r\n")
    assert swap.bytes_after == sizes[1] - behind
    assert (swap.name, swap.args, swap.database, swap.at, swap.commands_after, swap.transaction) == (
        "SWAPDB",
        (b"0", b"1"),
        0,
        swapped,
        1,
        False,
    )
    assert [(row.name, row.args, row.database) for row in find_commands(one, ["del"])] == [("DEL", (b"a",), 2)]
    assert find_commands(one, ["SET"], most=2) == find_commands(one, ["SET"])[-2:]
    assert find_commands(one, ["HSET"]) == []


def test_places_where_no_command_begins(past, tmp_path):
    past.step(("SET", "a", "1"), ("FLUSHALL",), ("SET", "b", "1"))
    past.failed_rewrite()
    past.step(("FLUSHALL",))
    one = set_of(str(past.live))
    name, offset = find_commands(one)[0].increment, find_commands(one)[0].offset
    for spot in [(name, offset + 1), (name, 10**9), ("other.aof", 0), (name, -1)]:
        with pytest.raises(Refusal) as caught:
            stage_before(one, spot, str(tmp_path / "new"), NAME, Host(), OWNER)
        assert caught.value.code == "no_such_command"
    copy = tmp_path / "copy"
    shutil.copytree(past.live, copy)
    (copy / name).unlink()
    broken = set_of(str(copy))
    (spot,) = find_commands(broken)
    with pytest.raises(Refusal) as caught:
        stage_before(broken, (spot.increment, spot.offset), str(tmp_path / "new"), NAME, Host(), OWNER)
    assert caught.value.code == "history_gap"
    assert f"{name} is missing" in caught.value.message()
    assert not (tmp_path / "new").exists()


def test_killed_anywhere_there_is_all_or_nothing(past, tmp_path, loaded):
    first = past.step(("SET", "a", "1"))
    digest = past.digest()
    past.step(("SET", "a", "2"))
    have, target = [set_of(str(past.live))], tmp_path / "new"
    sources = tree(past.live)
    points, wholes = [], set()
    for number in range(1, 200):
        shutil.rmtree(target, ignore_errors=True)
        point = killed_before(number, lambda: to_second(past, have, first, target))
        if target.exists():
            whole = tree(target)
        else:
            to_second(past, have, first, target)
            whole = tree(target)
        assert os.listdir(tmp_path).count(".new.redisops-new") == 0
        wholes.add(tuple(whole.values()))
        if not point:
            break
        points.append(point)
    else:
        raise AssertionError("the run does not come to its end")
    assert {"mkdir", "fsync", "rename", "chown"} <= set(points)
    assert len(wholes) == 1
    assert tree(past.live) == sources
    assert loaded(target) == digest


def test_after_a_recovery_the_history_has_two_branches(past, folder, tmp_path, loaded):
    first = past.step(("SET", "a", "1"))
    digest = past.digest()
    wrong = past.step(("SET", "a", "wrong"))
    mistaken = past.digest()
    keep(past, folder)
    past.server.stop()
    cut = stage_at(sets(folder), first, str(tmp_path / "new"), past.appendfilename, Host(), OWNER)
    shutil.rmtree(past.live)
    shutil.move(cut.directory, past.live)
    past.server.start()
    assert past.digest() == digest
    later = past.step(("SET", "b", "1"))
    now = past.digest()
    keep(past, folder)
    have = sets(folder)
    assert len(have) == 2
    for at, wanted in [(first, digest), (wrong, mistaken), (later, now)]:
        assert loaded(to_second(past, have, at, tmp_path / f"at-{at}").directory) == wanted
