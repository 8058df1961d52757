# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bare → durable: the judges are redis-cli, sysctl, stat and systemctl."""

from __future__ import annotations

import subprocess
import time

import pytest
from lab_hosts import LabHost, Record, changed, kernel_is_ours, kernel_is_right, ours, remote_calls

MANUAL = {
    "save": "900 1 300 10 60 10000",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "appendfilename": "appendonly.aof",
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "67108864",
    "replica-read-only": "yes",
    "tcp-backlog": "511",
    "aof-load-truncated": "yes",
    "stop-writes-on-bgsave-error": "yes",
}
THP = "/sys/kernel/mm/transparent_hugepage"


def test_live_server_is_what_the_manual_says(lab_host: LabHost) -> None:
    assert {name: lab_host.config(name) for name in MANUAL} == MANUAL


def test_redis_is_recent(lab_host: LabHost) -> None:
    assert int(lab_host.info("redis_version").split(".")[0]) >= 7


def test_clients_get_what_the_host_can_give(lab_host: LabHost) -> None:
    ceiling = int(lab_host.run("awk '/Max open files/ {print $5}' /proc/1/limits"))
    may_raise = int(lab_host.run("awk '/CapBnd/ {print $2}' /proc/1/status"), 16) >> 24 & 1
    expected = 50000 if may_raise else min(50000, ceiling - 32)
    assert lab_host.config("maxclients") == str(expected)
    assert "maxclients 50000" in lab_host.run("cat /etc/redis/redis.conf")


def test_files_belong_to_redis_alone(lab_host: LabHost) -> None:
    listing = lab_host.run(
        "stat -c '%U:%G %a %n' /etc/redis/redis.conf; find /var/lib/redis -type f -exec stat -c '%U:%G %a %n' {} +"
    ).splitlines()
    assert listing[0] == "redis:redis 640 /etc/redis/redis.conf"
    assert len(listing) >= 4  # base, increment, manifest
    assert {" ".join(line.split()[:2]) for line in listing[1:]} <= {"redis:redis 660", "redis:redis 640"}


def test_service_is_enabled_and_outlasts_long_loads_and_saves(lab_host: LabHost) -> None:
    assert lab_host.run(f"systemctl is-enabled {lab_host.unit}") == "enabled"
    assert lab_host.run(f"systemctl is-active {lab_host.unit}") == "active"
    shown = lab_host.run(
        f"systemctl show {lab_host.unit} -p LimitNOFILE,Restart,TimeoutStartUSec,TimeoutStopUSec,UMask,OOMScoreAdjust"
    )
    assert set(shown.splitlines()) == {
        "LimitNOFILE=65535", "Restart=always", "TimeoutStartUSec=infinity", "TimeoutStopUSec=infinity", "UMask=0007", "OOMScoreAdjust=-800",
    }  # fmt: skip


def test_kernel_now(lab_host: LabHost) -> None:
    with kernel_is_right():
        kernel_now(lab_host)


def kernel_now(lab_host: LabHost) -> None:
    assert lab_host.run("sysctl -n vm.overcommit_memory") == "1"
    assert int(lab_host.run("sysctl -n net.core.somaxconn")) >= 511
    assert "[never]" in lab_host.run(f"cat {THP}/enabled")


def test_check_mode_told_exactly_what_the_run_did(record: Record) -> None:
    predicted, done = record.converges(check=True), record.converges(check=False)
    assert len(predicted) == 1
    assert len(done) == 2
    for host in ("r1", "e1"):
        assert ours(predicted[0], host) == ours(done[0], host)
        assert [entry["changed"] for entry in ours(done[0], host)].count(True) >= 4
    assert changed(done[0]) > 0
    assert changed(done[1]) == 0


def test_a_converged_pass_is_cheap(record: Record) -> None:
    last = record.converges(check=False)[-1]
    for host in ("r1", "e1"):
        # Half of them are the first look, which asks each role once before anything is written.
        assert 1 <= len(remote_calls(last, host)) <= 17, remote_calls(last, host)


def test_a_crash_loses_nothing_that_was_synced(lab_host: LabHost) -> None:
    lab_host.cli("EVAL", "for i=1,2000 do redis.call('SET','crash:'..i,i) end", "0")
    time.sleep(2.1)
    before = lab_host.cli("DBSIZE")
    lab_host.kill()
    assert lab_host.cli("DBSIZE") == before
    assert lab_host.cli("GET", "crash:2000") == "2000"


@pytest.mark.usefixtures("hosts")
def test_a_boot_corrects_the_kernel_and_keeps_the_data(lab_host: LabHost) -> None:
    lab_host.cli("SET", "boot", "kept")
    time.sleep(2.1)
    with kernel_is_ours():
        lab_host.run(
            f"sysctl -w vm.overcommit_memory=0; echo always > {THP}/enabled; echo always > {THP}/defrag; echo 1 > {THP}/khugepaged/defrag"
        )
        assert "[always]" in lab_host.run(f"cat {THP}/enabled")
        subprocess.run(["docker", "restart", "-t", "30", lab_host.container], check=True, capture_output=True)
        deadline = time.monotonic() + 60
        while lab_host.infra.run("systemctl is-system-running").stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        kernel_now(lab_host)
        assert "[never]" in lab_host.run(f"cat {THP}/defrag")
        assert lab_host.run(f"cat {THP}/khugepaged/defrag") == "0"
    lab_host.wait_for_redis()
    assert lab_host.cli("GET", "boot") == "kept"
    test_live_server_is_what_the_manual_says(lab_host)
