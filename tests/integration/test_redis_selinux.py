# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_selinux with labels on a real file system and tools that only pretend: no SELinux kernel is at hand.

What the tools print was recorded from the real ones (tests/unit/plugins/module_utils/system/fixtures/selinux).
"""

from __future__ import annotations

import os
import pathlib
import re

import pytest

pytestmark = pytest.mark.needs_root
PORTS = (
    pathlib.Path(__file__).resolve().parents[1]
    / "unit/plugins/module_utils/system/fixtures/selinux/semanage-3.4-debian12-port-l.txt"
).read_text()


class Policy:
    """semanage, matchpathcon and restorecon, on a policy that is two dicts."""

    def __init__(self, root):
        self.root = root
        self.patterns = {r"/var/lib/redis(/.*)?": "redis_var_lib_t"}
        self.ports = []
        self.did = []
        self.missing = ""

    def type_of(self, path):
        found = [kind for pattern, kind in self.patterns.items() if re.fullmatch(pattern, path)]
        return found[-1] if found else "var_t"

    def run(self, *args, timeout=None):
        from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed

        if args[0] == self.missing:
            return Completed(127, f"{args[0]}: not found")
        if args[0] == "matchpathcon":
            return Completed(0, f"system_u:object_r:{self.type_of(args[2])}:s0\n")
        if args[:3] == ("semanage", "port", "-l"):
            return Completed(0, PORTS + "".join(f"redis_port_t tcp {port}\n" for port in self.ports))
        self.did.append(args)
        if args[1] == "fcontext":
            self.patterns[args[5]] = args[4]
        elif args[1] == "port":
            self.ports.append(args[-1])
        else:
            label(self.root, args[-1], self.type_of(args[-1]))
        return Completed(0, "")


def label(root, path, kind):
    os.setxattr(root / path.lstrip("/"), "security.selinux", f"system_u:object_r:{kind}:s0\0".encode())


def label_of(root, path):
    return os.getxattr(root / path.lstrip("/"), "security.selinux").decode().split(":")[2]


@pytest.fixture(name="policy")
def _policy(tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_selinux

    policy = Policy(tmp_path)
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1")
    for path in ("data/redis", "var/lib/redis"):
        (tmp_path / path).mkdir(parents=True)
    label(tmp_path, "/data/redis", "default_t")
    label(tmp_path, "/var/lib/redis", "redis_var_lib_t")
    host = redis_selinux.Host
    monkeypatch.setattr(redis_selinux, "Host", lambda: host(str(tmp_path), policy.run))
    return policy


def test_check_run_again(call_module, policy):
    options = {"data_dirs": ["/data/redis", "/var/lib/redis"], "ports": [6379, 7777]}
    predicted = call_module("redis_selinux", check=True, **options)
    assert policy.did == []
    done = call_module("redis_selinux", **options)
    assert (predicted.diff, predicted.actions, predicted.selinux) == (done.diff, done.actions, True)
    assert label_of(policy.root, "/data/redis") == "redis_var_lib_t"
    assert [args[:2] for args in policy.did] == [("semanage", "fcontext"), ("restorecon", "-R"), ("semanage", "port")]
    assert not call_module("redis_selinux", **options).changed
    label(policy.root, "/data/redis", "default_t")
    again = call_module("redis_selinux", **options)
    assert again.actions == ["restorecon -R /data/redis"]
    assert label_of(policy.root, "/data/redis") == "redis_var_lib_t"


def test_without_selinux_nothing_is_asked(call_module, policy):
    (policy.root / "sys/fs/selinux/enforce").unlink()
    policy.missing = "matchpathcon"
    done = call_module("redis_selinux", data_dirs=["/data/redis"], ports=[7777])
    assert (done.failed, done.changed, done.selinux) == (False, False, False)


@pytest.mark.parametrize(
    ("options", "missing", "code"),
    [
        ({"data_dirs": ["/data/redis"]}, "matchpathcon", "semanage_missing"),
        ({"ports": [7777]}, "semanage", "semanage_missing"),
        ({"ports": [7777, 3306]}, "", "port_of_another"),
        ({"data_dirs": ["data"]}, "", "invalid_value"),
    ],
)
def test_refusals_change_nothing(call_module, policy, options, missing, code):
    policy.missing = missing
    result = call_module("redis_selinux", **options)
    assert (result.failed, result.code, policy.did) == (True, code, [])
    assert label_of(policy.root, "/data/redis") == "default_t"
