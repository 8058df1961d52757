# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_drill: a backup that chance chooses is restored for practice, from the host and from a real repository; nothing of it stays."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from tests.integration.test_redis_backup_copies import PASSWORD, older, params, repository
from tests.support.data_of_all_kinds import fill


@pytest.fixture(name="server")
def _server(redis_server, call_module):
    redis_server.write_conf('save ""\n')
    redis_server.start()
    fill(redis_server.cli)
    done = call_module("redis_backup", **params(redis_server, repositories=[repository(redis_server)]))
    assert not done.failed, done.msg
    return redis_server


def place(server, **more):
    return {"directory": str(server.home / "backups"), "group_name": "orders", **more}


def left(server) -> list[str]:
    return [name for name in os.listdir(server.home / "backups" / "orders") if name.startswith(".") and name != ".lock"]


@pytest.mark.parametrize("far", [False, True])
def test_a_drill_measures_and_reports(server, call_module, far):
    more = {"repository": repository(server), "backup": None} if far else {}
    server.stop()  # the live server is not needed
    before = server.tree()
    predicted = call_module("redis_drill", check=True, **place(server, **more))
    assert server.tree() == before
    done = call_module("redis_drill", **place(server, rpo_seconds=3600, rto_seconds=600, **more))
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    report = json.loads(pathlib.Path(done.report_file).with_suffix(".json").read_text())
    assert report == done.report
    assert (report["keys"] > 300, report["differences"], report["missed"]) == (True, [], [])
    assert (report["state"], report["compared"][0]) == ("verified", "SHA-256 of every file")
    assert "State: verified." in pathlib.Path(done.report_file).read_text()
    assert ("fetch and decrypt" in report["phases"]) == far
    assert report["from"] == ("near" if far else "this host")
    assert report["measured"]["rto_seconds"] >= report["phases"]["load"] > 0
    for file in report["files"]:  # as an auditor does
        path = server.home / "backups" / "orders" / report["backup"] / file["path"]
        assert (
            subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
            == file["sha256"]
        )
    assert "**Passed**" in pathlib.Path(done.report_file).read_text()
    assert left(server) == []
    assert PASSWORD not in json.dumps(vars(done))
    assert call_module("redis_backup_info", directory=str(server.home / "backups")).status == 0


def test_a_missed_objective_fails_and_the_report_says_by_how_much(server, call_module):
    label = next(name for name in os.listdir(server.home / "backups" / "orders") if name.endswith("-rdb"))
    older(server, label, 3)
    done = call_module("redis_drill", **place(server, rpo_seconds=86400))
    assert (done.failed, done.code) == (True, "drill_failed")
    assert done.report["measured"]["rpo_seconds"] > 2 * 86400
    assert "RPO" in done.msg
    assert "**FAILED**" in pathlib.Path(done.report_file).read_text()


def test_a_flipped_bit_and_a_broken_assertion_fail_it(server, call_module):
    done = call_module("redis_drill", **place(server, assertions=[{"key": "gone"}]))
    assert (done.failed, done.code, "is not there" in done.msg) == (True, "drill_failed", True)
    path = next((server.home / "backups" / "orders").glob("*/data/dump.rdb"))
    raw = path.read_bytes()
    path.write_bytes(raw[:60] + bytes([raw[60] ^ 1]) + raw[61:])
    done = call_module("redis_drill", **place(server))
    assert (done.failed, done.code, "data/dump.rdb was changed" in done.msg) == (True, "drill_failed", True)
    assert left(server) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"group_name": "sessions"}, "no_backup"),
        ({"backup": "20200101T000000Z-rdb"}, "no_backup"),
        ({"window_days": 0}, "invalid_value"),
        ({"rto_seconds": -1}, "invalid_value"),
        ({"assertions": [{"type": "hash"}]}, "invalid_value"),
        ({"repository": {"name": "near", "location": "/nowhere/at/all", "password": "x"}}, "repository_missing"),
    ],
)
def test_what_cannot_be_tried_is_told(server, call_module, change, code):
    done = call_module("redis_drill", **{**place(server), **change})
    assert (done.failed, done.code) == (True, code), done.msg
    assert not (server.home / "backups" / "orders" / "drills").exists()
    assert left(server) == []
