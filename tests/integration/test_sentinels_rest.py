# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stops the Sentinels for a restore, next to a systemd that only notes: nothing stays stopped when the controller dies."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYSTEMCTL = """#!/bin/sh
case "$1 $2" in
"show redis-sentinel") printf 'Id=redis-sentinel.service\\nLoadState=loaded\\nActiveState=%s\\n' "$(cat {home}/state)" ;;
"stop redis-sentinel") echo inactive > {home}/state; echo "$@" >> {home}/did ;;
"start redis-sentinel"*) echo active > {home}/state; echo "$@" >> {home}/did ;;
"is-"*) exit 0 ;;
"--version "*) echo "systemd 252" ;;
*) echo "$@" >> {home}/did ;;
esac
"""
SYSTEMD_RUN = """#!/bin/sh
[ -e {home}/refuses ] && exit 1
echo "systemd-run $2 $3" >> {home}/did
for word; do last="$word"; done
printf '%s' "$last" > {home}/script
"""
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: redisops.recovery.redis_sentinel, tasks_from: rest}
"""


@pytest.fixture(name="rest")
def _rest(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "state").write_text("active\n")
    for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)):
        (tools / name).write_text(text.format(home=tmp_path))
        (tools / name).chmod(0o755)
    (tmp_path / "play.yml").write_text(PLAY)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"),
    }

    def rest(state: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "ansible_python_interpreter": sys.executable, "redis_sentinel_primaries": [{"name": "orders"}], "redis_sentinel_enabled": True,
            "redisops_sentinel_state": state,
        }  # fmt: skip
        return subprocess.run(
            ["ansible-playbook", "-i", "h,", "-c", "local", "-e", json.dumps(variables), str(tmp_path / "play.yml")],
            cwd=ROOT, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip

    def tick() -> None:
        text = (tmp_path / "script").read_text()
        assert (
            "/run/redisops/lock/" in text
        )  # where system/lock.py has them; this machine's own are none of this test's
        subprocess.run(
            ["/bin/sh", "-c", text.replace("/run/redisops/lock", f"{tmp_path}/lock")], check=True, env=environment
        )

    rest.tick = tick
    rest.did = lambda: (tmp_path / "did").read_text().splitlines() if (tmp_path / "did").exists() else []
    return rest


TIMER = "redisops-wake-redis-sentinel"


def test_a_sentinel_that_nobody_starts_again_is_started_by_its_host(rest, tmp_path):
    done = rest("stopped")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rest.did() == [f"stop {TIMER}.timer", f"systemd-run --unit={TIMER} --on-active=2h", "stop redis-sentinel"]
    rest.tick()
    assert (tmp_path / "state").read_text() == "active\n"
    assert rest.did()[3:] == ["start redis-sentinel.service", f"stop {TIMER}.timer"]


def test_not_while_a_run_works_on_data_of_that_host(rest, tmp_path):
    assert rest("stopped").returncode == 0
    before = rest.did()
    (tmp_path / "lock").mkdir()
    with (tmp_path / "lock" / "1-2").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        rest.tick()
        assert rest.did() == before
    assert (tmp_path / "state").read_text() == "inactive\n"
    rest.tick()
    assert (tmp_path / "state").read_text() == "active\n"


def test_without_a_way_back_nothing_is_stopped(rest, tmp_path):
    (tmp_path / "refuses").touch()
    assert rest("stopped").returncode != 0
    assert (tmp_path / "state").read_text() == "active\n"


def test_the_timer_goes_with_the_start(rest, tmp_path):
    assert rest("stopped").returncode == 0
    done = rest("started")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rest.did()[-2:] == ["start redis-sentinel", f"stop {TIMER}.timer"]
    assert (tmp_path / "state").read_text() == "active\n"
