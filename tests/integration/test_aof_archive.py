# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archive that a rewrite would delete is kept by links, however the keeping is cut off, and read back as what it is."""

from __future__ import annotations

import os
import pathlib
import shutil
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.pitr import archive as pitr_archive
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive, set_of, sets, window

from tests.support.aof_past import Past, killed_before, tree

DAY = 86400


@pytest.fixture(name="past", params=["appendonly.aof", "my file's.aof"])
def _past(request, redis_server):
    return Past(redis_server, request.param).start()


@pytest.fixture(name="plain")
def _plain(redis_server):
    return Past(redis_server).start()


@pytest.fixture(name="folder")
def _folder(redis_server):
    return str(redis_server.data / "archive")


def keep(past, folder, keep_seconds=DAY, now=None):
    return archive(past.place, folder, keep_seconds, time.time() if now is None else now)


def test_what_a_rewrite_deletes_stays(past, folder):
    past.step(("SET", "a", "1"))
    first = keep(past, folder)
    assert first.changed
    assert len(first.linked) == 2
    later = past.step(("SET", "a", "2"))  # the link grows with the file
    old = tree(past.live)
    past.rewrite()
    second = keep(past, folder)
    assert second.directory != first.directory
    kept = {pathlib.Path(path).name: content for path, content in tree(first.directory).items()}
    assert kept == {pathlib.Path(path).name: content for path, content in old.items()}
    found = sets(folder)
    assert [one.directory for one in found] == [first.directory, second.directory]
    assert (found[0].increments[-1].last_ts, found[0].gaps, found[1].gaps) == (later, (), ())
    assert sorted(os.listdir(folder)) == [os.path.basename(one.directory) for one in found]


def test_the_second_run_changes_nothing(past, folder):
    past.step(("SET", "a", "1"))
    keep(past, folder)
    before = tree(folder), sorted(os.stat(path).st_ctime_ns for path in pathlib.Path(folder).rglob("*"))
    again = keep(past, folder)
    assert not again.changed
    assert (again.linked, again.removed, again.manifest_written) == ((), (), False)
    assert before == (tree(folder), sorted(os.stat(path).st_ctime_ns for path in pathlib.Path(folder).rglob("*")))


def test_only_the_owner_can_look_in_and_the_files_keep_their_mode(plain, folder):
    old = os.umask(0)
    try:
        found = keep(plain, folder)
    finally:
        os.umask(old)
    assert {os.stat(path).st_mode & 0o777 for path in (folder, found.directory)} == {0o700}
    for name in found.linked:
        assert os.path.samestat(os.stat(os.path.join(found.directory, name)), os.stat(plain.live / name))


def test_increments_of_one_base_come_together(plain, folder):
    plain.step(("SET", "a", "1"))
    first = keep(plain, folder)
    plain.failed_rewrite()
    plain.step(("SET", "a", "2"))
    second = keep(plain, folder)
    assert (second.directory, len(second.linked), second.manifest_written) == (first.directory, 1, True)
    assert [entry.seq for entry in sets(folder)[0].increments] == [1, 2]
    assert sets(folder)[0].gaps == ()


def test_during_a_rewrite_both_generations_are_kept(plain, folder):
    plain.step(("SET", "a", "1"))
    plain.server.cli("CONFIG", "SET", "rdb-key-save-delay", "10000000")
    plain.server.cli("BGREWRITEAOF")
    during = keep(plain, folder)
    assert len(during.linked) == 3
    plain.server.cli("CONFIG", "SET", "rdb-key-save-delay", "0")
    middle = plain.step(("SET", "a", "2"))
    while plain.server.info("aof_rewrite_in_progress") != "0":
        time.sleep(0.1)
    keep(plain, folder)
    first, second = sets(folder)
    assert first.increments[-1].name == second.increments[0].name
    assert window([first])[-1][1] == middle


def test_a_file_that_took_the_place_of_another_gets_a_directory_of_its_own(plain, folder):
    plain.step(("SET", "a", "1"))
    first = keep(plain, folder)
    plain.server.stop()
    increment = plain.live / "appendonly.aof.1.incr.aof"
    old = increment.read_bytes()
    increment.unlink()
    increment.write_bytes(old[: old.index(b"#TS", 10)] if b"#TS" in old[10:] else b"")
    second = keep(plain, folder)
    assert second.directory == first.directory + "-2"
    assert (pathlib.Path(first.directory) / increment.name).read_bytes() == old
    assert len(sets(folder)) == 2


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symlink", "fifo", "base"])
def test_what_is_no_file_is_refused(plain, folder, kind):
    plain.step(("SET", "a", "1"))
    plain.server.stop()
    path = plain.live / ("appendonly.aof.1.base.rdb" if kind == "base" else "appendonly.aof.1.incr.aof")
    secret = plain.server.home / "secret"
    secret.write_text("of root")
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(secret)
    with pytest.raises(Refusal) as caught:
        keep(plain, folder)
    assert caught.value.code == "aof_not_a_file"
    assert str(path) in caught.value.message()
    assert tree(folder) == {}
    with pytest.raises(Refusal, match=path.name):
        set_of(str(plain.live))


@pytest.mark.needs_root
def test_a_folder_that_is_not_ours(plain, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.symlink(elsewhere, folder)
    os.mkdir(plain.server.data / "theirs")
    os.chown(plain.server.data / "theirs", 12345, 12345)
    inside, theirs = plain.live / "archive", plain.server.data / "theirs"
    for path, code in [(folder, "history_folder"), (inside, "history_folder"), (theirs, "history_folder")]:
        with pytest.raises(Refusal) as caught:
            keep(plain, str(path))
        assert caught.value.code == code
    with pytest.raises(Problem) as caught:
        keep(plain, str(tmp_path / "no" / "such"))
    assert caught.value.code == "history_folder"
    assert (list(elsewhere.iterdir()), inside.exists(), list(theirs.iterdir())) == ([], False, [])


def test_another_file_system_is_refused(plain):
    other = pathlib.Path("/dev/shm") / f"redisops-{os.getpid()}"
    assert os.stat(other.parent).st_dev != os.stat(plain.live).st_dev
    try:
        with pytest.raises(Refusal) as caught:
            keep(plain, str(other))
        assert caught.value.code == "history_elsewhere"
        assert list(other.iterdir()) == []
    finally:
        shutil.rmtree(other, ignore_errors=True)


def test_without_an_aof(redis_server, folder):
    redis_server.write_conf("")
    redis_server.start()
    with pytest.raises(Refusal) as caught:
        archive(Past(redis_server).place, folder, DAY, time.time())
    assert (caught.value.code, os.path.exists(folder)) == ("no_manifest", False)


def test_a_file_that_is_not_there(plain, folder):
    plain.server.stop()
    (plain.live / "appendonly.aof.1.incr.aof").unlink()
    with pytest.raises(Problem) as caught:
        keep(plain, folder)
    assert caught.value.code == "aof_incomplete"
    assert sets(folder) == []


def test_a_rewrite_in_the_middle_is_followed(plain, folder, monkeypatch):
    plain.step(("SET", "a", "1"))
    real, once = os.link, []

    def link(*args, **options):
        if not once:
            once.append(plain.rewrite())
        return real(*args, **options)

    monkeypatch.setattr(pitr_archive.os, "link", link)
    found = keep(plain, folder)
    assert [one.manifest.base.seq for one in sets(folder)] == [2]
    assert sets(folder)[0].directory == found.directory
    assert sets(folder)[0].gaps == ()


# --- what goes ---------------------------------------------------------------------------------------------------------


def generations(past, folder, count):
    made = []
    for number in range(count):
        past.step(("SET", "a", str(number)))
        made.append(keep(past, folder).directory)
        if number < count - 1:
            past.rewrite()
    return made


def test_what_no_second_within_the_time_needs_goes(plain, folder):
    made = generations(plain, folder, 3)
    live = tree(plain.live)
    second = sets(folder)[1]
    limit = second.base_at + 1  # the second set is needed for this second, the first one for none after it
    for path in pathlib.Path(made[0]).iterdir():
        os.utime(path, (limit - 100, limit - 100))
    found = keep(plain, folder, keep_seconds=50, now=limit + 50)
    assert found.removed == (os.path.basename(made[0]),)
    assert [one.directory for one in sets(folder)] == made[1:]
    assert tree(plain.live) == live
    assert window(sets(folder))[0][0] <= limit


def test_the_newest_stays_however_old(plain, folder):
    made = generations(plain, folder, 2)
    (pathlib.Path(folder) / "notes").mkdir()
    (pathlib.Path(folder) / "notes" / "mine").write_text("not of this collection")
    found = keep(plain, folder, keep_seconds=0, now=time.time() + 10 * DAY)
    assert found.removed == (os.path.basename(made[0]),)
    assert [one.directory for one in sets(folder)] == made[1:]
    assert (pathlib.Path(folder) / "notes" / "mine").exists()


def brought_into(situation, plain, folder):
    """The AOF and its archive, with the next run about to do what ``situation`` says."""
    plain.step(("SET", "a", "1"))
    if situation != "first":
        keep(plain, folder)
    if situation == "new increment":
        plain.failed_rewrite()
    elif situation in ("new base", "removal"):
        plain.rewrite()
    if situation == "removal":
        keep(plain, folder)
    plain.step(("SET", "a", "2"))


@pytest.mark.parametrize("situation", ["first", "new increment", "new base", "removal"])
def test_killed_anywhere_and_run_again(plain, folder, situation):
    brought_into(situation, plain, folder)
    now = time.time() + (10 * DAY if situation == "removal" else 0)
    kept = os.path.exists(folder)
    if kept:
        saved = f"{folder}-saved"
        links(folder, saved)
    points, live = [], tree(plain.live)
    for number in range(1, 200):
        shutil.rmtree(folder, ignore_errors=True)
        if kept:
            links(saved, folder)
        point = killed_before(number, lambda: keep(plain, folder, now=now))
        if os.path.exists(folder):
            for one in sets(folder):  # what a reader sees in between is whole or not there
                assert one.gaps == (), f"{number}: {point}"
        again = keep(plain, folder, now=now)
        assert keep(plain, folder, now=now).changed is False
        assert tree(again.directory) == {
            path.replace(str(plain.live), again.directory): text for path, text in live.items()
        }, point
        assert len(sets(folder)) == len(os.listdir(folder)) == (2 if situation == "new base" else 1), (
            f"{number}: {point}"
        )
        assert tree(plain.live) == live
        if not point:
            break
        points.append(point)
    else:
        raise AssertionError("the run does not come to its end")
    assert {"first": {"mkdir", "link", "replace", "fsync"}, "removal": {"unlink", "rmtree"}}.get(
        situation, {"link", "replace"}
    ) <= set(points)


def links(source, target):
    shutil.copytree(source, target, copy_function=os.link)


# --- what is read ------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(plain, tmp_path):
    plain.step(("SET", "a", "1"))
    plain.failed_rewrite()
    plain.step(("SET", "a", "2"))
    plain.failed_rewrite()
    last = plain.step(("SET", "a", "3"))
    whole = set_of(str(plain.live))
    assert (whole.gaps, [entry.seq for entry in whole.increments]) == ((), [1, 2, 3])
    assert window([whole]) == [(whole.base_at, last)]
    copy = tmp_path / "copy"
    shutil.copytree(plain.live, copy)
    (copy / "appendonly.aof.2.incr.aof").unlink()
    found = set_of(str(copy))
    assert len(found.gaps) == 1
    assert "appendonly.aof.2.incr.aof is missing" in found.gaps[0]
    assert window([found])[0][1] < whole.increments[1].first_ts
    manifest = copy / "appendonly.aof.manifest"
    manifest.write_text("".join(line for line in manifest.read_text().splitlines(True) if ".2.incr" not in line))
    assert "numbers are missing" in set_of(str(copy)).gaps[0]
    assert window([set_of(str(copy))]) == window([found])
    (copy / "appendonly.aof.1.base.rdb").unlink()
    assert "base.rdb is missing" in set_of(str(copy)).gaps[0]
    assert window([set_of(str(copy))]) == []


def test_a_base_of_commands_says_by_its_first_line_when_it_was_made(redis_server):
    past = Past(redis_server).start("aof-use-rdb-preamble no\n")
    past.step(("SET", "a", "1"))
    begun = int(time.time())
    past.rewrite()
    found = set_of(str(past.live))
    assert found.base.endswith(".base.aof")
    assert begun <= found.base_at <= int(time.time())
    assert f"#TS:{found.base_at}\r\n".encode() in pathlib.Path(found.base).read_bytes()


def test_a_directory_without_a_manifest(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Problem) as caught:
            set_of(str(path))
        assert caught.value.code == "no_manifest"
    with pytest.raises(Problem) as caught:
        sets(str(tmp_path / "none"))
    assert caught.value.code == "unreadable"
