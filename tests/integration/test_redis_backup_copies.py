# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_backup with repositories and policies: the real restic, asked by its own command line; what goes and what stays."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import seal, unseal

from tests.support.data_of_all_kinds import fill

PASSWORD = "a long secret"


def params(server, **more: t.Any) -> dict[str, t.Any]:
    return server.params(directory=str(server.home / "backups"), group_name="orders", sentinel_file="", **more)


def repository(server, name: str = "near", **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "location": str(server.home / f"repository-{name}"), "password": PASSWORD, **more}


def snapshots(server, name: str = "near") -> list[dict]:
    done = subprocess.run(
        ["restic", "-r", str(server.home / f"repository-{name}"), "snapshots", "--json"],
        capture_output=True, text=True, check=True, env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.fixture(name="server")
def _server(redis_server):
    redis_server.write_conf('save ""\nenable-debug-command local\n')
    redis_server.start()
    fill(redis_server.cli)
    return redis_server


def local(server) -> list[str]:
    home = server.home / "backups" / "orders"
    return sorted(name for name in os.listdir(home) if not name.startswith("."))


def older(server, label: str, days: float) -> str:
    """The backup as if it had been taken earlier, with its proof."""
    home = server.home / "backups" / "orders" / label
    content = unseal((home / "manifest.json").read_text(), "x")
    content.pop("seal")
    stamp = subprocess.run(
        ["date", "-u", "-d", f"{days} days ago", "+%Y%m%dT%H%M%SZ %s"], capture_output=True, text=True, check=True
    ).stdout.split()
    content.update(label=f"{stamp[0]}-rdb", taken_at=float(stamp[1]))
    sealed = seal(content)
    (home / "manifest.json").write_text(sealed)
    if (home / "proof.json").exists():
        proof = unseal((home / "proof.json").read_text(), "x")
        proof.pop("seal")
        (home / "proof.json").write_text(seal({**proof, "manifest": unseal(sealed, "x")["seal"]}))
    home.rename(home.with_name(content["label"]))
    return content["label"]


def test_a_verified_backup_is_sent_and_comes_back_whole(server, call_module):
    wanted = params(server, repositories=[repository(server), repository(server, "far")])
    predicted = call_module("redis_backup", check=True, **wanted)
    assert not (server.home / "repository-near").exists()
    done = call_module("redis_backup", **wanted)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert done.backup["repositories"] == ["far", "near"]
    label = done.backup["label"]
    for name in ("near", "far"):
        (snapshot,) = snapshots(server, name)
        assert {"verified", f"label={label}", "redisops-group=orders"} <= set(snapshot["tags"])
    assert PASSWORD not in json.dumps(vars(done))

    was = {
        path.relative_to(done.directory): path.read_bytes()
        for path in pathlib.Path(done.directory).rglob("*")
        if path.is_file()
    }
    shutil.rmtree(server.home / "backups")
    wanted = params(server, state="fetched", backup="latest_verified", repositories=[repository(server)])
    predicted = call_module("redis_backup", check=True, **wanted)
    assert not (server.home / "backups").exists()
    back = call_module("redis_backup", **wanted)
    assert not back.failed, back.msg
    assert (predicted.diff, back.backup["label"], back.state) == (back.diff, label, "verified")
    now = {
        path.relative_to(back.directory): path.read_bytes()
        for path in pathlib.Path(back.directory).rglob("*")
        if path.is_file()
    }
    was.pop(pathlib.Path("copies.json"))  # what was noted after it was sent
    assert now == was
    assert not call_module("redis_backup", **wanted).changed
    again = call_module("redis_backup", **params(server, state="verified"))
    assert (again.state, again.backup["digest"]) == ("verified", done.backup["digest"])


@pytest.mark.parametrize("how", ["flipped", "gone", "manifest"])
def test_a_damaged_local_copy_is_put_aside_and_fetched_anew(server, call_module, how):
    done = call_module("redis_backup", **params(server, repositories=[repository(server)]))
    label, home = done.backup["label"], pathlib.Path(done.directory)
    data = home / "data/dump.rdb"
    raw = data.read_bytes()
    if how == "gone":
        data.unlink()
    elif how == "flipped":
        data.write_bytes(raw[:50] + bytes([raw[50] ^ 1]) + raw[51:])
    else:
        (home / "manifest.json").write_text("{}")
    wanted = params(server, state="fetched", backup=label, repositories=[repository(server)])
    predicted = call_module("redis_backup", check=True, **wanted)
    assert predicted.changed
    back = call_module("redis_backup", **wanted)
    assert (back.failed, back.changed, back.state) == (False, True, "verified"), back.msg
    assert (predicted.diff, predicted.actions) == (back.diff, back.actions)
    assert data.read_bytes() == raw
    assert local(server) == [label, f"damaged-{label}"]
    assert not call_module("redis_backup", **wanted).changed


def test_one_repository_that_is_out_of_reach_stops_neither_the_backup_nor_the_others(server, call_module):
    lost = {"name": "lost", "location": "rest:http://127.0.0.1:9/", "password": PASSWORD}
    done = call_module("redis_backup", **params(server, repositories=[lost, repository(server)], timeout=30))
    assert (done.failed, done.code) == (True, "repository_unreachable")
    assert "of the repositories it is in: near" in done.msg
    assert PASSWORD not in done.msg
    assert len(snapshots(server)) == 1
    info = call_module("redis_backup_info", directory=str(server.home / "backups"))
    assert (info.status, info.groups[0]["backups"][0]["repositories"]) == (0, ["near"])


def test_a_wrong_password_is_told_and_nothing_is_sent(server, call_module):
    call_module("redis_backup", **params(server, repositories=[repository(server)]))
    done = call_module("redis_backup", **params(server, repositories=[repository(server, password="another")]))
    assert (done.failed, done.code) == (True, "repository_password")
    assert len(snapshots(server)) == 1
    got = call_module(
        "redis_backup", **params(server, state="fetched", repositories=[repository(server, password="another")])
    )
    assert (got.failed, got.code) == (True, "repository_password")


def test_where_another_host_is_at_work_in_the_repository_the_copy_is_made_all_the_same(server, call_module):
    """A shared repository: its lock keeps from forgetting only, and the next run does that."""
    places = [repository(server, retention={"keep_last": 1})]
    first = call_module("redis_backup", **params(server, repositories=places)).backup["label"]
    older(server, first, 1)
    lock = subprocess.Popen(
        ["restic", "-r", str(server.home / "repository-near"), "backup", "--stdin"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )  # fmt: skip
    try:
        locks = server.home / "repository-near" / "locks"
        while not list(locks.iterdir()):
            assert lock.poll() is None
        done = call_module("redis_backup", **params(server, repositories=places))
        assert not done.failed, done.msg
        assert done.backup["repositories"] == ["near"]
        assert len(snapshots(server)) == 2
    finally:
        lock.kill()
        lock.wait()
    subprocess.run(
        ["restic", "-r", str(server.home / "repository-near"), "unlock", "--remove-all"],
        check=True, capture_output=True, env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )  # fmt: skip
    assert not call_module("redis_backup", **params(server, repositories=places)).failed
    assert len(snapshots(server)) == 1


@pytest.mark.parametrize(("backup", "code"), [("latest", "no_backup"), ("20200101T000000Z-rdb", "unknown_backup")])
def test_what_is_not_in_a_repository_is_not_fetched(server, call_module, backup, code):
    call_module("redis_backup", **params(server, repositories=[repository(server)]))
    name = "orders" if code == "unknown_backup" else "sessions"
    before = local(server)
    got = call_module(
        "redis_backup",
        **{**params(server, state="fetched", backup=backup, repositories=[repository(server)]), "group_name": name},
    )
    assert (got.failed, got.code) == (True, code)
    assert local(server) == before


def test_a_backup_that_failed_its_proof_is_sent_nowhere(server, call_module):
    done = call_module(
        "redis_backup", **params(server, repositories=[repository(server)], assertions=[{"key": "gone"}])
    )
    assert (done.failed, done.code) == (True, "backup_not_verified")
    assert not (server.home / "repository-near").exists()


def test_what_was_tampered_with_in_between_is_not_taken_over(server, call_module):
    """A snapshot made by hand of a backup that somebody changed: its hashes give it away."""
    done = call_module("redis_backup", **params(server, repositories=[repository(server)]))
    label, home = done.backup["label"], pathlib.Path(done.directory)
    raw = (home / "data/dump.rdb").read_bytes()
    (home / "data/dump.rdb").write_bytes(raw[:100] + b"!" + raw[101:])
    subprocess.run(
        ["restic", "-r", str(server.home / "repository-near"), "backup", "--tag", "redisops-group=orders", "--tag", f"label={label}", "--tag", "verified", "."],
        cwd=home, check=True, capture_output=True, env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )  # fmt: skip
    shutil.rmtree(server.home / "backups")
    got = call_module(
        "redis_backup", **params(server, state="fetched", backup=label, repositories=[repository(server)])
    )
    assert (got.failed, got.code) == (True, "backup_damaged")
    assert "data/dump.rdb" in got.msg
    assert local(server) == []


def test_the_policy_decides_what_stays_here_and_there(server, call_module):
    places = [repository(server, retention={"keep_last": 2})]
    labels = []
    for days in (30, 20, 10):
        label = call_module("redis_backup", **params(server, repositories=places)).backup["label"]
        labels.append(older(server, label, days))
    assert len(snapshots(server)) == 2
    call_module("redis_backup", **params(server, state="pinned", backup=labels[0]))
    wanted = params(server, state="expired", retention={"keep_last": 1})
    before = local(server)
    predicted = call_module("redis_backup", check=True, **wanted)
    assert local(server) == before
    done = call_module("redis_backup", **wanted)
    assert (predicted.diff, predicted.actions, predicted.decisions) == (done.diff, done.actions, done.decisions)
    assert local(server) == [labels[0], labels[2]]  # the one that is marked, and the last
    assert "marked to be kept" in json.dumps(done.decisions)
    assert not call_module("redis_backup", **wanted).changed


def test_the_last_verified_backup_outlives_every_policy(server, call_module):
    verified = call_module("redis_backup", **params(server)).backup["label"]
    verified = older(server, verified, 100)
    for days in (4, 3, 2):
        failed = call_module("redis_backup", **params(server, assertions=[{"key": "gone"}]))
        assert failed.failed
        older(server, local(server)[-1], days)
    call_module("redis_backup", **params(server, state="expired", retention={"keep_last": 1}))
    left = local(server)
    assert verified in left
    assert len(left) == 3  # and the newest two of those that failed


@pytest.mark.parametrize(
    "change",
    [
        {"retention": {"keep_last": -1}},
        {"retention": {"minimum_redundancy": 0}},
        {"repositories": [{"name": "a", "location": "", "password": "x"}]},
        {"repositories": [{"name": "a", "location": "/x", "password": ""}]},
        {"repositories": [{"name": "a", "location": "/x", "password": "x"}] * 2},
        {"state": "fetched"},
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changed(server, call_module, change):
    before = server.tree()
    done = call_module("redis_backup", **params(server, **change))
    assert (done.failed, done.code) == (True, "invalid_value")
    assert server.tree() == before
