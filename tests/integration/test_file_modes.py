# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every option that is a mode, as YAML gives it to the modules; stat is the judge."""

from __future__ import annotations

import getpass
import grp
import os
import pathlib
import stat
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ME, MINE = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
OWNED = {"owner": ME, "group": MINE}

#: Every module and option that is a mode, with what else its call needs.
OPTIONS = {
    ("redis_config", "mode"): {"settings": {"hz": 20}},
    ("redis_persistence", "mode"): OWNED,
    ("redis_persistence", "dir_mode"): OWNED,
    ("redis_acl", "mode"): {"users": [{"name": "app", "preset": "application", "rules": ["~*"], "passwords": ["S3cret"]}]},
    ("redis_tls", "mode"): {"source": "host", **OWNED},
    ("redis_service", "data_mode"): {"unit": "redis-server"},
    ("redis_sentinel", "mode"): {"primaries": [], "sentinels": []},
}  # fmt: skip


def state(server):
    """Every file with its owner and mode, and what the server says."""
    paths = [server.home, *sorted(server.home.rglob("*"))]
    access = {str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in paths if path.name != "redis.log"}  # fmt: skip
    return access, server.tree(), server.raw("CONFIG", "GET", "*"), server.raw("ACL", "LIST")


def bits(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("given", ["432", "u=rw", 660, "0060", True])
@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[".".join(pair) for pair in OPTIONS])
def test_what_is_no_mode_changes_nothing(call_module, redis_server, tmp_path, name, option, given):
    redis_server.start().fill(5)
    options = dict(OPTIONS[name, option])
    if name == "redis_acl":
        options["acl_file"] = str(redis_server.home / "users.acl")
    before = state(redis_server)
    login = {"config_file": str(redis_server.conf), "login_port": redis_server.port, "timeout": 5}
    for check in (True, False):
        done = call_module(name, check=check, **login, **options, **{option: given})
        assert (done.failed, done.changed, done.code) == (True, False, "invalid_value"), done.msg
        assert done.msg.startswith(f"{option} is ")
        assert "in quotes" in done.msg
        assert state(redis_server) == before


def test_digits_without_quotes_mean_what_they_say(call_module, redis_server):
    redis_server.write_conf("save 900 1\nappendonly yes\n")
    redis_server.start().fill(20)
    given = yaml.safe_load("{mode: 0660, dir_mode: 0770, config: 0640}")
    login = redis_server.params()
    told = call_module("redis_config", check=True, settings={"hz": 20}, mode=given["config"], **login)
    done = call_module("redis_config", settings={"hz": 20}, mode=given["config"], **login)
    assert (done.failed, told.diff) == (False, done.diff)
    call_module("redis_persistence", mode=given["mode"], dir_mode=given["dir_mode"], **OWNED, **login)
    files = [path for path in redis_server.data.rglob("*") if path.is_file()]
    assert files
    assert {bits(path) & 0o640 for path in files} == {0o640}
    assert {bits(path) & 0o017 for path in files} == {0}
    assert bits(redis_server.conf) == 0o640
    assert redis_server.restart().keys() == 20  # Redis can open them


@pytest.mark.parametrize(("quote", "mode"), [("", "0660"), ('"', "0660")])
def test_role_server_with_the_digits_of_an_inventory(redis_server, tmp_path, quote, mode):
    redis_server.write_conf("save 900 1\nappendonly yes\n")
    redis_server.start().fill(20)
    play = tmp_path / "modes.yml"
    play.write_text(
        f"""- hosts: localhost
  gather_facts: false
  vars:
    ansible_connection: local
    ansible_python_interpreter: {sys.executable}
    redis_server_config_file: {redis_server.conf}
    redis_server_login: {{login_port: {redis_server.port}}}
    redis_server_settings: {{}}
    redis_server_owner: {ME}
    redis_server_group: {MINE}
    redis_server_config_mode: {quote}0640{quote}
    redis_server_data_mode: {quote}{mode}{quote}
  roles: [redisops.recovery.redis_server]
"""
    )
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(play)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert bits(redis_server.conf) == 0o640
    assert {bits(path) for path in redis_server.data.rglob("*") if path.is_file()} <= {0o660, 0o640}
    assert redis_server.restart().keys() == 20
