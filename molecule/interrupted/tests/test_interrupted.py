# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The run after the cut finished the work, with every key there."""

from __future__ import annotations

from lab_hosts import LabHost, Record, changed


def test_the_second_run_finished_the_work(lab_host: LabHost) -> None:
    assert lab_host.config("appendonly") == "yes"
    assert lab_host.config("save") == "900 1 300 10 60 10000"
    assert "maxclients 50000" in lab_host.run("cat /etc/redis/redis.conf")
    assert lab_host.run("awk '$1 == \"appendonly\" {last = $2} END {print last}' /etc/redis/redis.conf") == "yes"
    assert lab_host.run(f"systemctl show {lab_host.unit} -p UMask --value") == "0007"
    pid = lab_host.info("process_id")
    assert lab_host.run(f"awk '/^Umask/ {{print $2}}' /proc/{pid}/status") == "0007"


def test_the_run_after_that_changes_nothing(record: Record) -> None:
    assert changed(record.converges(check=False)[-1]) == 0
    assert changed(record.converges(check=False)[-2]) > 0


def test_every_key_is_there_and_stays(lab_host: LabHost) -> None:
    assert lab_host.cli("DBSIZE") == "20000"
    lab_host.run(f"systemctl restart {lab_host.unit}")
    lab_host.wait_for_redis()
    assert lab_host.cli("DBSIZE") == "20000"
    lab_host.kill()
    assert lab_host.cli("DBSIZE") == "20000"
    assert lab_host.cli("GET", "k:20000").endswith("x20000")


def test_nothing_half_written_is_left(lab_host: LabHost) -> None:
    assert lab_host.run("find /etc/redis /var/lib/redis /etc/systemd/system -name '*redisops-new*'") == ""
