# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Faults that are caused for real are found with their cause, and nothing else is; redis-cli, stat, promtool and a browser see the same."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import time
import typing as t

import pytest
from lab_hosts import LabHost, Record, changed, kernel_is_ours, kernel_is_right, last_run_changed, play, ran

NAMES = ("h1", "h2")


def admin(host: LabHost, *words: str) -> str:
    return host.as_user("admin", "lab-admin", *words)


def wait(condition: t.Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


class Seen:
    """What one look at both hosts found: ``alarms`` by host, each with its words; what the page and the file for programs say as well."""

    def __init__(self, directory: pathlib.Path, since: float) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        play("report", "-e", f"redisops_report_directory={directory}", "-e", f"redisops_log_since={moment}")
        assert last_run_changed() <= 2  # the report's own files, on the controller
        self.report = json.loads((directory / "redis.json").read_text())
        self.page = (directory / "redis.html").read_text()
        rows = [row for row in self.report["findings"] if row["severity"] in ("critical", "warning")]
        self.alarms = {
            name: {row["code"]: f"{row['detected']} {row['why']} {row['do']}" for row in rows if name in row["hosts"]}
            for name in NAMES
        }


@pytest.fixture(name="look")
def _look(tmp_path: pathlib.Path) -> t.Callable[[], Seen]:
    began = time.time() - 1
    return lambda: Seen(tmp_path / "report", began)


def whole(hosts: dict[str, LabHost]) -> tuple[LabHost, LabHost]:
    """Primary and replica, once they are linked."""

    def linked() -> bool:
        roles = {admin(hosts[name], "ROLE").split("\n", 1)[0]: hosts[name] for name in NAMES}
        return set(roles) == {"master", "slave"} and "master_link_status:up" in admin(
            roles["slave"], "INFO", "replication"
        )

    wait(linked)
    roles = {admin(hosts[name], "ROLE").split("\n", 1)[0]: hosts[name] for name in NAMES}
    return roles["master"], roles["slave"]


# --- in order: each fault is taken back before the next ------------------------------------------------------------------


def test_a_healthy_set_gives_no_alarm(hosts: dict[str, LabHost], record: Record, look: t.Callable[[], Seen]) -> None:
    assert changed(record.converges(check=False)[-1]) == 0
    primary, replica = whole(hosts)
    admin(primary, "EVAL", "for i = 1, 5000 do redis.call('SET', 'key:'..i, string.rep('v', 100)..i) end", "0")
    play("backup")
    play("drill")
    seen = look()
    assert seen.alarms == {"h1": {}, "h2": {}}
    (one,) = seen.report["groups"]
    assert (one["group"], one["status"], one["keys"]) == ("orders", "ok", 5000)
    assert one["verified"]["verdict"] == "met"
    assert one["drill"]["ok"]
    ((group,), (follower,)) = one["topology"], one["topology"][0]["replicas"]
    assert (group["primary"], follower["host"], follower["link"]) == (primary.name, replica.name, "up")
    done = ran("redisops.recovery.health")
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_full_disk_is_named_as_the_cause(hosts: dict[str, LabHost], look: t.Callable[[], Seen]) -> None:
    primary, replica = whole(hosts)
    primary.run("fallocate -l $(( $(stat -f -c '%a * %S' /var/lib/redis) - 8192 )) /var/lib/redis/filler")
    for number in range(40):
        primary.infra.run(
            f"redis-cli --user admin -a lab-admin --no-auth-warning SET filler:{number} $(head -c 20000 /dev/zero | tr '\\0' x)"
        )
    wait(lambda: "aof_last_write_status:err" in admin(primary, "INFO", "persistence"))
    admin(primary, "BGSAVE")
    wait(lambda: "rdb_last_bgsave_status:err" in admin(primary, "INFO", "persistence"))
    seen = look()
    mine = seen.alarms[primary.name]
    print(f"full disk: {', '.join(sorted(mine))}")
    assert {"aof_write_failing", "rdb_save_failed", "disk_room"} <= set(mine)
    assert "No space left on device" in json.dumps(mine)
    # all that rings is about writing to this disk; the replica is well
    about_the_disk = {
        "aof_write_failing",
        "aof_write_error",
        "aof_fills_disk",
        "rdb_save_failed",
        "save_failed",
        "save_overdue",
        "disk_room",
        "disk_full",
    }
    assert set(mine) <= {*about_the_disk, "misconf", "crash_loss_too_large", "aof_rewrite_failing", "rewrite_failed"}
    assert seen.alarms[replica.name] == {}
    assert seen.report["groups"][0]["status"] == "critical"
    primary.run("rm /var/lib/redis/filler")
    wait(lambda: "aof_last_write_status:ok" in admin(primary, "INFO", "persistence"))
    admin(primary, "BGSAVE")
    wait(lambda: "rdb_last_bgsave_status:ok" in admin(primary, "INFO", "persistence"))


def test_a_killed_child_and_an_open_file_are_told_apart_by_host(
    hosts: dict[str, LabHost], look: t.Callable[[], Seen]
) -> None:
    primary, replica = whole(hosts)
    admin(primary, "CONFIG", "SET", "rdb-key-save-delay", "2000")
    admin(primary, "BGSAVE")
    pid = primary.run(f"systemctl show -p MainPID --value {primary.unit}")
    wait(lambda: primary.infra.run(f"pgrep -P {pid}").rc == 0)
    primary.run(f"kill -9 $(pgrep -P {pid})")
    wait(lambda: "rdb_last_bgsave_status:err" in admin(primary, "INFO", "persistence"))
    admin(primary, "CONFIG", "SET", "rdb-key-save-delay", "0")
    replica.run("chmod 0666 /var/lib/redis/dump.rdb; chmod 0755 /var/lib/redis")
    seen = look()
    print(
        f"killed child: {', '.join(sorted(seen.alarms[primary.name]))}; open file: {', '.join(sorted(seen.alarms[replica.name]))}"
    )
    assert set(seen.alarms[primary.name]) == {"rdb_save_failed", "save_killed"}
    assert "signal 9" in seen.alarms[primary.name]["save_killed"]
    assert set(seen.alarms[replica.name]) == {"file_access"}
    assert "dump.rdb" in seen.alarms[replica.name]["file_access"]
    admin(primary, "BGSAVE")
    wait(lambda: "rdb_last_bgsave_status:ok" in admin(primary, "INFO", "persistence"))
    replica.run("chmod 0660 /var/lib/redis/dump.rdb; chmod 0750 /var/lib/redis")


def test_kernel_and_limits(hosts: dict[str, LabHost], look: t.Callable[[], Seen]) -> None:
    """overcommit is the machine's, so both hosts see it; the limit on open files is one unit's."""
    primary, replica = whole(hosts)
    folder = f"/run/systemd/system/{replica.unit}.service.d"
    again = f"systemctl daemon-reload; systemctl restart {replica.unit}"
    replica.run(f"mkdir -p {folder}; printf '[Service]\\nLimitNOFILE=512\\n' > {folder}/zzz-test.conf; {again}")
    whole(hosts)
    with kernel_is_ours():
        primary.run("sysctl -q -w vm.overcommit_memory=0")
        try:
            seen = look()
        finally:
            primary.run("sysctl -q -w vm.overcommit_memory=1")
            replica.run(f"rm -r {folder}/zzz-test.conf; {again}")
    print(
        f"overcommit: {', '.join(sorted(seen.alarms[primary.name]))}; and open files: {', '.join(sorted(seen.alarms[replica.name]))}"
    )
    assert set(seen.alarms[primary.name]) == {"overcommit"}
    assert {"overcommit", "open_files"} <= set(seen.alarms[replica.name])
    whole(hosts)


def test_a_server_that_hangs_and_a_replica_that_hears_nobody(
    hosts: dict[str, LabHost], look: t.Callable[[], Seen]
) -> None:
    primary, replica = whole(hosts)
    pid = primary.run(f"systemctl show -p MainPID --value {primary.unit}")
    primary.run(f"kill -STOP {pid}")
    try:
        time.sleep(12)  # longer than max_lag
        seen = look()
    finally:
        primary.run(f"kill -CONT {pid}")
    print(
        f"hanging: {', '.join(sorted(seen.alarms[primary.name]))}; its replica: {', '.join(sorted(seen.alarms[replica.name]))}"
    )
    assert set(seen.alarms[primary.name]) == {"server_not_responding"}
    assert set(seen.alarms[replica.name]) == {"replica_lag"}
    assert (
        seen.report["groups"][0]["crash_loss"]["known"] is False
        or seen.report["groups"][0]["crash_loss"]["seconds"] is not None
    )
    whole(hosts)


def test_a_file_that_does_not_load_is_the_cause_of_the_end(
    hosts: dict[str, LabHost], look: t.Callable[[], Seen]
) -> None:
    primary, replica = whole(hosts)
    unit = replica.unit
    replica.run(
        f"systemctl stop {unit}; cp -a /var/lib/redis/appendonlydir /root/aof; f=$(ls /var/lib/redis/appendonlydir/*.base.rdb);"
        f" printf 'XXXX' | dd of=$f bs=1 seek=0 conv=notrunc status=none; systemctl start {unit} || true; sleep 3; systemctl stop {unit}"
    )
    seen = look()
    print(f"corrupt file: {', '.join(sorted(seen.alarms[replica.name]))}")
    mine = seen.alarms[replica.name]
    assert "server_down" in mine
    assert "rdb_not_an_rdb" in mine or "Bad file format" in json.dumps(mine) or "Wrong signature" in json.dumps(mine), (
        mine
    )
    assert set(seen.alarms[primary.name]) <= {"too_few_replicas", "replica_lag", "replica_link"}
    done = ran("redisops.recovery.health")
    assert done.returncode == 2
    replica.run(
        f"rm -r /var/lib/redis/appendonlydir; mv /root/aof /var/lib/redis/appendonlydir; systemctl reset-failed {unit}"
    )
    replica.run(f"systemctl start {unit}")
    whole(hosts)


def test_the_metrics_say_the_same(hosts: dict[str, LabHost]) -> None:
    """The timer writes by itself, with the fewest rights; promtool takes it."""
    whole(hosts)
    for name in NAMES:
        host = hosts[name]
        assert host.run("systemctl is-active redisops-metrics-orders.timer") == "active"
        with kernel_is_right():
            host.run("systemctl start redisops-metrics-orders.service")
        text = host.run("cat /srv/textfile/redisops-orders.prom")
        assert "lab-exporter" not in text
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text + "\n", capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 3), done.stderr
        plain = re.sub(r',backup_group="orders(@[^"]+)?"', "", text)
        found = dict(line.rsplit(" ", 1) for line in plain.splitlines() if not line.startswith("#"))
        assert found['redisops_up{group="orders"}'] == "1"
        wrong = [line for line in text.splitlines() if line.startswith("redisops_finding{")]
        assert found['redisops_findings{group="orders",severity="critical"}'] == "0", wrong
    predicted = "".join(hosts[name].run("cat /srv/textfile/redisops-orders.prom") for name in NAMES)
    assert (
        predicted.count("redisops_backup_last_verified_timestamp_seconds{") == 1
    )  # the group's backup lies where it was taken


def test_all_is_well_again(hosts: dict[str, LabHost], look: t.Callable[[], Seen]) -> None:
    whole(hosts)
    play("site")
    assert look().alarms == {"h1": {}, "h2": {}}
