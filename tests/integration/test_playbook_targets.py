# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every playbook by ansible-playbook, asked for what cannot be meant: no host, a value that is none. It ends with an error before anything is done."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
#: That each begins with the same look is what tests/unit/test_fleet_rules.py sees; some of them do for what that look sees.
SOME = ["backup", "report", "rolling_upgrade", "switchover"]
NAMED = [
    "remove_host", "repair", "replace_host", "restore", "restore_cluster", "restore_rollback", "switchover", "undo_flushall",
]  # fmt: skip
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
INVENTORY = {"web": {"hosts": {"w1": HERE}}, "orders": {"hosts": {"o1": HERE}}}


def play(book, *options, **environment):
    return subprocess.run(
        ["ansible-playbook", book, *options], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"), **environment},
    )  # fmt: skip


@pytest.fixture(name="inventory")
def _inventory(tmp_path):
    def made(content):
        path = tmp_path / f"inventory-{len(list(tmp_path.iterdir()))}.yml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return made


def refused(books, options, said):
    """Each of the playbooks, several at a time: an error that says it, and no task of a play that acts."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = dict(zip(books, pool.map(lambda book: play(f"redisops.recovery.{book}", *options), books)))
    for book, run in runs.items():
        told = " ".join((run.stdout + run.stderr).split())
        assert run.returncode != 0, f"{book} {options} ended well: {told}"
        assert said.format(book=book) in told.replace("''", "'"), f"{book}: {told}"
        assert "Refused; nothing was changed." in told
        assert "Traceback" not in told
        assert [line for line in run.stdout.splitlines() if line.startswith("PLAY [")] in (
            [],
            [line for line in run.stdout.splitlines() if line.startswith("PLAY [0. See that it can be done")],
        ), book


def test_a_pattern_that_names_no_host(inventory):
    options = ["-i", inventory(INVENTORY), "-e", "redisops_hosts=ordres"]
    refused(PLAYBOOKS, options, "No host of the inventory is ordres. Groups of the inventory: orders, web.")


def test_a_group_that_was_renamed(inventory):
    refused(["backup", "site", "report"], ["-i", inventory(INVENTORY)], "Do: ansible-playbook redisops.recovery.{book} -i INVENTORY -e redisops_hosts=GROUP.")  # fmt: skip


def test_a_limit_that_leaves_no_host(inventory):
    options = ["-i", inventory(INVENTORY), "--limit", "w1", "-e", "redisops_hosts=orders"]
    refused(SOME, options, "--limit w1 leaves none of the 1 hosts of orders")


def test_hosts_have_to_be_named_where_data_changes(inventory):
    # A variable of the inventory is none of the play's: its pattern does not know it.
    content = {**INVENTORY, "redis": {"hosts": {"r1": HERE}}, "all": {"vars": {"redisops_hosts": "redis"}}}
    refused(NAMED, ["-i", inventory(content)], "redisops_hosts is not set, and the playbook {book} changes data")


def test_no_inventory_at_all():
    refused(["backup"], [], "No host of the inventory is redis. Groups of the inventory: none.")
    refused(["restore"], ["-e", '{"redisops_hosts": []}'], "redisops_hosts is not set")


def test_text_that_is_no_boolean(inventory):
    options = ["-i", inventory(INVENTORY), "-e", "redisops_hosts=orders", "-e", "redis_backup_enabled=flase"]
    refused(SOME, options, "redis_backup_enabled is 'flase', which is neither yes nor no. Do: set it to true or false.")  # fmt: skip


def test_what_a_host_says_of_itself(inventory):
    users = [{"name": "app", "enabled": "flase"}]
    content = {"orders": {"hosts": {"o1": HERE, "o2": {**HERE, "redis_acl_users": users, "redis_server_data_mode": "432"}}}}  # fmt: skip
    options = ["-i", inventory(content), "-e", "redisops_hosts=orders", "-e", "redisops_summary=perhaps"]
    for said in (
        "redis_acl_users[0].enabled is 'flase'",
        "redis_server_data_mode is '432', which is no octal mode.",
        "redisops_summary is 'perhaps'",
    ):
        refused(["site"], options, said)


def test_hosts_that_there_are(inventory, tmp_path):
    """In a pattern, a list, a limit and a file of hosts; the look itself passes."""
    (tmp_path / "hosts.txt").write_text("o1\n")
    book = tmp_path / "book.yml"
    look = {
        "ansible.builtin.import_playbook": str(ROOT / "playbooks" / "shared" / "asked.yml"),
        "vars": {"__redisops_playbook": "test", "__redisops_targets": "{{ redisops_hosts | default('redis') }}"},
    }
    book.write_text(yaml.safe_dump([look]))
    for options in (
        ["-e", "redisops_hosts=orders"],
        ["-e", "redisops_hosts=all:!web"],
        ["-e", '{"redisops_hosts": ["o1", "nobody"]}'],
        ["-e", "redisops_hosts=orders", "--limit", "o1"],
        ["-e", "redisops_hosts=orders", "--limit", f"@{tmp_path / 'hosts.txt'}"],
        ["-e", "redisops_hosts=localhost"],
        ["-e", "redisops_hosts=orders", "-e", "redis_backup_enabled=no", "-e", "redis_server_data_mode=0660"],
    ):
        run = play(str(book), "-i", inventory(INVENTORY), *options)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "ok=1" in run.stdout
        assert "w1" not in run.stdout


# --- text that says false ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["false", "no", "False", "0"])
def test_text_that_says_false_is_false(tmp_path, said):
    """What -e and INI inventories give: nothing is scheduled, and what is not signed is not trusted."""
    sources = tmp_path / "redis.sources"
    book = tmp_path / "book.yml"
    plan = {"source": "mirror", "codename": "bookworm", "fresh_install": False}
    task = {
        "name": "Write the source",
        "ansible.builtin.template": {"src": str(ROOT / "roles/redis_install/templates/redisops-redis.sources.j2"), "dest": str(sources)},
        "vars": {"__redis_install_plan": plan, "redis_install_mirror_url": "http://mirror", "redis_install_mirror_suite": "",
                 "redis_install_mirror_components": "main", "redis_install_mirror_key": ""},
    }  # fmt: skip
    roles = ["redisops.recovery.redis_backup", "redisops.recovery.redis_monitoring"]
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "roles": roles, "tasks": [task]}]))
    names = ("redis_backup_enabled", "redis_backup_retired", "redis_monitoring_enabled", "redis_monitoring_retired", "redis_install_mirror_trusted")  # fmt: skip
    run = play(str(book), *(word for name in names for word in ("-e", f"{name}={said}")))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Trusted" not in sources.read_text()
    assert "skipped=3" in run.stdout
    assert "changed=1 " in run.stdout


# --- a controller without sudo -------------------------------------------------------------------------------------------


def test_what_is_written_on_the_controller_needs_no_become(inventory, tmp_path):
    everywhere = {"ansible_become": True, "ansible_become_exe": "/nonexistent/sudo"}
    content = {
        "all": {"vars": everywhere},
        "redis": {"hosts": {"r1": {**HERE, "ansible_become": False, "redis_server_config_file": str(tmp_path / "none.conf")}}},
    }  # fmt: skip
    path, file = inventory(content), tmp_path / "drift.json"
    allowed = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "1"}
    run = play(
        "redisops.recovery.report", "-i", path, "-e", f"redisops_report_directory={tmp_path / 'report'}", **allowed
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "report" / "redis.json").is_file()
    run = play("redisops.recovery.drift", "-i", path, "-e", f"redisops_drift_file={file}", "-e", "redisops_drift_fails=no", **allowed)  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert [row["host"] for row in json.loads(file.read_text())["rows"]]
