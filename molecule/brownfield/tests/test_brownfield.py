# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every key is there, after a restart too; every line of the operator still stands."""

from __future__ import annotations

import difflib
import json
import subprocess

from lab_hosts import ROOT, LabHost, Record, changed, ours


def contents(lab_host: LabHost) -> dict:
    done = subprocess.run(
        ["docker", "exec", "-i", lab_host.container, "python3", "-", "/root/now.json"],
        input=(ROOT / "molecule/shared/files/digest.py").read_bytes(), capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def before(lab_host: LabHost) -> dict:
    return json.loads(lab_host.run("cat /root/before.json"))


def test_a_hundred_thousand_keys_of_every_type_are_there(lab_host: LabHost) -> None:
    assert before(lab_host)["keyspace"]["db0"] == {"keys": 100000, "expires": 33334}
    assert contents(lab_host) == before(lab_host)


def test_persistence_is_what_was_declared(lab_host: LabHost) -> None:
    assert lab_host.config("appendonly") == "yes"
    assert lab_host.config("save") == "900 1 300 10 60 10000"
    assert lab_host.run(f"systemctl is-active {lab_host.unit}") == "active"


def test_only_declared_lines_of_the_file_changed(lab_host: LabHost) -> None:
    old = lab_host.run("cat /root/redis.conf.before").splitlines()
    new = lab_host.run("cat /etc/redis/redis.conf").splitlines()
    delta = [line for line in difflib.ndiff(old, new) if line[:2] in ("- ", "+ ")]
    declared = ("appendonly ", "aof-timestamp-enabled ", "save ", "maxclients ")
    assert delta
    assert all(line[2:].startswith(declared) for line in delta), delta
    for line in (
        "   timeout     300",
        "\ttcp-keepalive\t 60",
        "maxmemory-policy  NOEVICTION",
        "slave-lazy-flush no",
        "# the last word of the night shift",
    ):
        assert line in new
    assert lab_host.run("cat /etc/redis/local.d/50-slow.conf") == "slowlog-log-slower-than 20000\nsave 7200 1"


def test_the_operators_settings_still_hold(lab_host: LabHost) -> None:
    assert lab_host.config("timeout") == "300"
    assert lab_host.config("tcp-keepalive") == "60"
    assert lab_host.config("maxmemory") == "2147483648"
    assert lab_host.config("slowlog-log-slower-than") == "20000"


def test_check_mode_told_exactly_what_the_run_did(record: Record, hosts: dict[str, LabHost]) -> None:
    predicted, done = record.converges(check=True)[0], record.converges(check=False)
    for host in hosts:
        assert ours(predicted, host) == ours(done[0], host)
    assert changed(done[-1]) == 0


def test_no_running_server_lost_more_than_one_process(record: Record) -> None:
    """At most one restart a host."""
    first = record.converges(check=False)[0]
    restarts = [entry["host"] for entry in first if entry.get("restarted")]
    assert len(restarts) == len(set(restarts))


def test_everything_is_there_after_a_clean_restart(lab_host: LabHost) -> None:
    lab_host.run(f"systemctl restart {lab_host.unit}")
    lab_host.wait_for_redis()
    assert contents(lab_host) == before(lab_host)
    assert lab_host.config("save") == "900 1 300 10 60 10000"


def test_everything_is_there_after_a_crash(lab_host: LabHost) -> None:
    lab_host.kill()
    assert contents(lab_host) == before(lab_host)
