# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_backup_info: what there is, in stable numbers and in words; it never changes anything."""

from __future__ import annotations

import os
import pathlib

import pytest


@pytest.fixture(name="home")
def _home(redis_server, call_module) -> dict:
    redis_server.write_conf('save ""\n')
    redis_server.start()
    redis_server.fill(100)
    directory = str(redis_server.home / "backups")
    for name in ("orders", "sessions"):
        call_module("redis_backup", **redis_server.params(directory=directory, group_name=name, sentinel_file=""))
    return {"directory": directory}


def test_nothing_there_is_status_1(tmp_path, call_module):
    found = call_module("redis_backup_info", directory=str(tmp_path / "none"))
    assert (found.changed, found.status, found.groups) == (False, 1, [])
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty" / "orders").mkdir(parents=True)
    assert call_module("redis_backup_info", directory=str(tmp_path / "empty")).status == 1


def test_every_set_is_told(home, call_module):
    found = call_module("redis_backup_info", **home)
    assert [(one["group"], one["status"]) for one in found.groups] == [("orders", 0), ("sessions", 0)]
    assert found.status == 0
    row = found.groups[0]["backups"][0]
    assert (row["keys"], row["state"], row["exact"]) == (100, "verified", True)
    assert row["bytes"] == sum(
        path.stat().st_size for path in pathlib.Path(home["directory"], "orders", row["label"]).rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "proof.json")
    )  # fmt: skip
    assert "set orders: ok (0)" in found.text
    assert "100 keys" in found.text


def test_an_old_one_is_status_3_and_an_unverified_one_2(home, call_module):
    assert call_module("redis_backup_info", group_name="orders", max_age=3600, **home).status == 0
    label = call_module("redis_backup_info", group_name="orders", **home).groups[0]["backups"][0]["label"]
    folder = pathlib.Path(home["directory"], "orders")
    os.unlink(folder / label / "proof.json")
    assert call_module("redis_backup_info", **home).status == 2
    assert [one["status"] for one in call_module("redis_backup_info", **home).groups] == [2, 0]


def test_a_damaged_proof_proves_nothing(home, call_module):
    label = call_module("redis_backup_info", group_name="orders", **home).groups[0]["backups"][0]["label"]
    path = pathlib.Path(home["directory"], "orders", label, "proof.json")
    path.write_text(path.read_text().replace('"keys": 100', '"keys": 101'))
    assert call_module("redis_backup_info", group_name="orders", **home).status == 2


def test_the_proof_of_another_backup_proves_nothing(home, call_module):
    rows = {one["group"]: one["backups"][0]["label"] for one in call_module("redis_backup_info", **home).groups}
    places = {name: pathlib.Path(home["directory"], name, label, "proof.json") for name, label in rows.items()}
    places["orders"].write_text(places["sessions"].read_text())
    assert call_module("redis_backup_info", group_name="orders", **home).status == 2


def test_the_room_of_a_directory_that_is_not_there_yet(call_module, tmp_path):
    free = os.statvfs(tmp_path)
    done = call_module("redis_backup_info", directory=str(tmp_path), room_in=str(tmp_path / "a" / "b"))
    assert abs(done.room_bytes - free.f_bavail * free.f_frsize) < 2**30
    assert call_module("redis_backup_info", directory=str(tmp_path)).room_bytes is None
