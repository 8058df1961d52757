# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The real restic, in repositories on a disk, behind SFTP and in an S3 store; all on this host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import typing as t
import urllib.request

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic import Restic
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host, run_command

from tests.support.topology import free_port

SFTP_SERVER = "/usr/lib/openssh/sftp-server"
PASSWORD = "correct-horse-battery"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "staple-staple-staple"}
WHEN = 1704164645
LONG = 120.0
#: Until then restic has tried at least twice, whatever its release.
SHORT = 6.0


@contextlib.contextmanager
def s3_server(**variables: str) -> t.Iterator[int]:
    """moto on loopback; gives its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "moto ended: run `make setup`"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, "moto does not answer"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", name="store")
def _store() -> t.Iterator[str]:
    """The address of a bucket that is there."""
    with s3_server() as port:
        bucket = f"http://127.0.0.1:{port}/backups"
        with urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")) as answer:
            assert answer.status == 200
        yield f"s3:{bucket}"


@pytest.fixture(scope="module", name="strict_store")
def _strict_store() -> t.Iterator[str]:
    """One that takes no key it does not know, and so none."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as port:
        yield f"s3:http://127.0.0.1:{port}/backups"


@pytest.fixture(name="source")
def _source(tmp_path: pathlib.Path) -> pathlib.Path:
    """What is saved: files of all kinds of names, modes and owners."""
    source = tmp_path / "source"
    (source / "data" / "appendonlydir").mkdir(parents=True)
    (source / "manifest.json").write_text('{"keys": 3}')
    (source / "data" / "dump.rdb").write_bytes(os.urandom(4_000_000))
    (source / "data" / "appendonlydir" / "ä b.aof").write_bytes(b"*1\r\n" * 1000)
    (source / "data" / "empty").touch(0o600)
    os.chown(source / "data" / "dump.rdb", 1234, 1235)
    (source / "data").chmod(0o750)
    return source


def local(tmp_path: pathlib.Path, **more: t.Any) -> Repository:
    place = {
        "location": str(tmp_path / "repository"),
        "password": PASSWORD,
        "cache_dir": str(tmp_path / "cache"),
        **more,
    }
    return Repository("here", **place)


@pytest.fixture(name="repository", params=["local", "sftp", "s3"])
def _repository(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Repository:
    """None of these is made yet."""
    if request.param == "local":
        return local(tmp_path)
    if request.param == "sftp":
        return local(tmp_path, location=f"sftp:host:{tmp_path}/repository", options=(f"sftp.command={SFTP_SERVER}",))
    return local(tmp_path, location=f"{request.getfixturevalue('store')}/{tmp_path.name}", environment=KEYS)


@pytest.fixture(name="restic")
def _restic(tmp_path: pathlib.Path) -> Restic:
    """A repository on this disk that was made."""
    one = Restic(Host(), local(tmp_path), LONG)
    one.create()
    return one


def tree(place: pathlib.Path) -> dict[str, tuple[t.Any, ...]]:
    """Everything below a directory: content, mode, owner."""
    found = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(place))] = (
            content,
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
        )
    return found


def fails(code: str, run: t.Callable[..., t.Any], *arguments: t.Any, **options: t.Any) -> Problem:
    """The problem, which has this code and no secret."""
    with pytest.raises(Problem) as caught:
        run(*arguments, **options)
    assert caught.value.code == code, caught.value.message()
    for secret in (PASSWORD, *KEYS.values()):
        assert secret not in caught.value.message()
    return caught.value


@pytest.mark.needs_root
def test_a_life_of_a_repository(repository, source, tmp_path):
    restic = Restic(Host(), repository, LONG)
    assert restic.exists() is False
    restic.create()
    assert restic.exists() is True
    assert restic.snapshots() == []

    first = restic.save(str(source), ["redis", "set-1"], WHEN, LONG, "r1")
    assert first.total == sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert first.added > 4_000_000
    (source / "manifest.json").write_text('{"keys": 4}')
    second = restic.save(str(source), ["redis"], WHEN + 3600, LONG, "r2")
    assert second.added < 100_000
    listed = restic.snapshots("redis")
    assert [one.id for one in listed] == [first.snapshot, second.snapshot]
    assert [(one.at, one.hostname) for one in listed] == [(WHEN, "r1"), (WHEN + 3600, "r2")]
    assert [sorted(one.tags) for one in listed] == [["redis", "set-1"], ["redis"]]
    assert [one.id for one in restic.snapshots("set-1")] == [first.snapshot]
    assert restic.snapshots("nobody") == []

    tagged = restic.tag(second.snapshot, "verified")
    assert tagged != second.snapshot
    assert [one.id for one in restic.snapshots("verified")] == [tagged]
    assert restic.tag(tagged, "verified") == tagged
    again = restic.tag(tagged, "keep")  # the first id is remembered by restic, and not the one between
    assert [(one.id, set(one.tags)) for one in restic.snapshots("keep")] == [(again, {"redis", "verified", "keep"})]
    assert restic.snapshots("keep")[0].at == WHEN + 3600

    restic.fetch(again, str(tmp_path / "target"), LONG)
    assert tree(tmp_path / "target") == tree(source)
    restic.check("100%", LONG)

    restic.forget([first.snapshot], prune=True, timeout=LONG)
    assert [one.id for one in restic.snapshots()] == [again]
    restic.forget([first.snapshot], prune=False)  # gone already
    restic.forget([], prune=True)
    fails("restic_failed", restic.fetch, first.snapshot, str(tmp_path / "none"), LONG)
    fails("restic_failed", restic.tag, first.snapshot, "late")
    restic.check("100%", LONG)
    restic.fetch(again, str(tmp_path / "later"), LONG, verify=False)
    assert tree(tmp_path / "later") == tree(source)


@pytest.mark.needs_root
def test_the_wrong_password(repository, source, tmp_path):
    Restic(Host(), repository, LONG).create()
    stranger = Restic(Host(), dataclasses.replace(repository, password="wrong"), LONG)
    fails("repository_password", stranger.exists)
    fails("repository_password", stranger.snapshots)
    fails("repository_password", stranger.save, str(source), [], WHEN, LONG, "r1")
    assert Restic(Host(), repository, LONG).snapshots() == []


@pytest.mark.needs_root
def test_no_repository_there(repository, source, tmp_path):
    restic = Restic(Host(), repository, LONG)
    fails("repository_missing", restic.snapshots)
    fails("repository_missing", restic.save, str(source), [], WHEN, LONG, "r1")
    fails("repository_missing", restic.fetch, "ab" * 32, str(tmp_path / "target"), LONG)
    assert not (tmp_path / "target").exists()
    assert restic.exists() is False


def test_a_bucket_that_is_not_there(store):
    """restic >= 0.17 hopes for it until its time is over."""
    location = store.replace("/backups", "/nobodys-backups") + "/repository"
    assert Restic(Host(), Repository("far", location, PASSWORD, KEYS), SHORT).exists() is False


@pytest.mark.needs_root
def test_a_second_repository_is_not_made_over_the_first(restic, source):
    saved = restic.save(str(source), [], WHEN, LONG, "r1")
    problem = fails("restic_failed", restic.create)
    assert "already exists" in problem.detected
    assert [one.id for one in restic.snapshots()] == [saved.snapshot]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "location", ["rest:http://user:{password}@127.0.0.1:{port}/", "s3:http://127.0.0.1:{port}/bucket/repository"]
)
def test_a_port_that_refuses(location):
    place = location.format(port=closed_port(), password=PASSWORD)
    restic = Restic(Host(), Repository("far", place, PASSWORD, KEYS), SHORT)
    for run in (restic.exists, restic.snapshots):
        assert "connection refused" in fails("repository_unreachable", run).detected


def test_credentials_that_the_store_does_not_know(strict_store):
    restic = Restic(Host(), Repository("far", f"{strict_store}/repository", PASSWORD, KEYS), SHORT)
    assert "Access Key" in fails("repository_unreachable", restic.exists).detected


@pytest.mark.parametrize("command", ["/bin/false", "/nonexistent/program"])
def test_a_host_that_gives_no_sftp_session(tmp_path, command):
    place = local(tmp_path, location=f"sftp:host:{tmp_path}/repository", options=(f"sftp.command={command}",))
    fails("repository_unreachable", Restic(Host(), place, LONG).exists)


def without_rights(*words: str, **options: t.Any) -> t.Any:
    """root as any other user: what is not his, he may not read."""
    return run_command("setpriv", "--bounding-set=-dac_override,-dac_read_search", *words, **options)


@pytest.mark.needs_root
def test_a_directory_that_may_not_be_entered(restic, tmp_path):
    os.chown(tmp_path / "repository", 1234, 1234)
    (tmp_path / "repository").chmod(0o700)
    problem = fails("repository_unreachable", Restic(Host("/", without_rights), local(tmp_path), SHORT).exists)
    assert "permission denied" in problem.detected
    assert restic.exists() is True


@pytest.mark.needs_root
def test_a_snapshot_that_would_lack_a_file_is_none(restic, source, tmp_path):
    secret = source / "data" / "dump.rdb"
    secret.chmod(0o600)  # another user's
    limited = Restic(Host("/", without_rights), local(tmp_path), LONG)
    problem = fails("restic_failed", limited.save, str(source), ["redis"], WHEN, LONG, "r1")
    assert "taken out again" in problem.detected
    assert "dump.rdb" in problem.detected
    assert restic.snapshots() == []


def test_a_directory_that_is_not_there(restic, tmp_path):
    problem = fails("restic_failed", restic.save, str(tmp_path / "none"), [], WHEN, LONG, "r1")
    assert str(tmp_path / "none") in problem.detected
    assert restic.snapshots() == []


@contextlib.contextmanager
def at_work(repository: Repository) -> t.Iterator[subprocess.Popen[bytes]]:
    """A backup that goes on for as long as its input does."""
    locks = pathlib.Path(repository.location) / "locks"
    process = subprocess.Popen(
        ["restic", "backup", "--stdin", "--quiet", f"--cache-dir={repository.cache_dir}"], stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "RESTIC_REPOSITORY": repository.location, "RESTIC_PASSWORD": repository.password},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not list(locks.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.needs_root
def test_another_run_at_work(restic, source, tmp_path):
    saved = restic.save(str(source), ["redis"], WHEN, LONG, "r1")
    with at_work(local(tmp_path)) as other:
        problem = fails("repository_locked", restic.check)
        assert f"PID {other.pid}" in problem.detected
        fails("repository_locked", restic.forget, [saved.snapshot], prune=True)
        assert [one.id for one in restic.snapshots()] == [saved.snapshot]
        restic.fetch(saved.snapshot, str(tmp_path / "target"), LONG)
        assert tree(tmp_path / "target") == tree(source)
    fails("repository_locked", restic.check)  # it was killed, and its lock is still there
    restic._run("unlock")
    restic.check(None, LONG)
    assert [one.id for one in restic.snapshots()] == [saved.snapshot]


def test_a_run_over_its_time(tmp_path):
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nwhile read -r line; do :; done\n")
    silent.chmod(0o755)
    place = local(tmp_path, location="sftp:host:repository", options=(f"sftp.command={silent}",))
    problem = fails("restic_timeout", Restic(Host(), place, 1.5).exists)
    assert "1.5 seconds" in problem.detected


@pytest.mark.needs_root
@pytest.mark.parametrize("missing", [False, True])
def test_data_that_is_not_what_was_written(restic, source, tmp_path, missing):
    saved = restic.save(str(source), [], WHEN, LONG, "r1")
    pack = max(
        (path for path in (tmp_path / "repository" / "data").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(pack.read_bytes())
    pack.unlink()
    if not missing:
        content[len(content) // 2] ^= 1
        pack.write_bytes(content)
    fails("repository_damaged", restic.check, "100%", LONG)
    with pytest.raises(Problem) as caught:
        restic.fetch(saved.snapshot, str(tmp_path / "target"), SHORT)
    assert caught.value.code in (("restic_failed", "restic_timeout") if missing else ("repository_damaged",)), (
        caught.value.message()
    )


@pytest.mark.needs_root
def test_no_secret_in_any_command_line(source, tmp_path):
    """Seen from the program that restic starts: every process of the host, while restic is at work."""
    spy, seen = tmp_path / "spy", tmp_path / "seen"
    spy.write_text(f"#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >>{seen}\nexec {SFTP_SERVER}\n")
    spy.chmod(0o755)
    place = local(
        tmp_path, location=f"sftp:host:{tmp_path}/repository", environment=KEYS, options=(f"sftp.command={spy}",)
    )
    restic = Restic(Host(), place, LONG)
    restic.create()
    saved = restic.save(str(source), ["redis"], WHEN, LONG, "r1")
    restic.fetch(saved.snapshot, str(tmp_path / "target"), LONG)
    restic.forget([saved.snapshot], prune=True, timeout=LONG)
    text = seen.read_text()
    for command in ("init", "backup", "restore", "forget"):
        assert f" {command} " in text
    assert not [secret for secret in (PASSWORD, *KEYS.values()) if secret in text]


@pytest.mark.needs_root
def test_what_the_caller_has_in_his_environment_is_not_taken(restic, source, tmp_path, monkeypatch):
    (tmp_path / "other-password").write_text("wrong")
    for name, value in {
        "RESTIC_PASSWORD_FILE": str(tmp_path / "other-password"), "RESTIC_PASSWORD": "wrong", "RESTIC_PASSWORD_COMMAND": "echo wrong",
        "RESTIC_REPOSITORY": str(tmp_path / "elsewhere"), "RESTIC_REPOSITORY_FILE": str(tmp_path / "no-file"),
        "RESTIC_HOST": "somebody", "TZ": "Asia/Tokyo",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    saved = restic.save(str(source), [], WHEN, LONG, "r1")
    assert [(one.id, one.at, one.hostname) for one in restic.snapshots()] == [(saved.snapshot, WHEN, "r1")]
    assert not (tmp_path / "elsewhere").exists()


def test_the_version_is_that_of_the_program(restic):
    reported = subprocess.check_output(["restic", "version"], text=True)
    assert "restic " + ".".join(map(str, restic.version())) in reported


def test_no_restic_at_all(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    problem = fails("restic_missing", Restic(Host(), local(tmp_path), LONG).exists)
    assert "not installed" in problem.detected


@pytest.mark.needs_root
def test_the_cache_is_where_it_was_told_to_be(restic, source, tmp_path):
    restic.save(str(source), [], WHEN, LONG, "r1")
    assert list((tmp_path / "cache").iterdir())
    shutil.rmtree(tmp_path / "cache")
    assert len(restic.snapshots()) == 1
