# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What confinement takes away, and what the server needs of it."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import process_of, require_paths
from ansible_collections.redisops.recovery.plugins.module_utils.service.sandboxing import (
    Confined,
    confinement_reasons,
    exposure,
    read_confined,
    require_reachable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

STRICT = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "SystemCallFilter": "~@mount",
}


def test_a_process_is_read_from_proc():
    status = "Name:\tredis-server\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    mounts = "1 0 0:1 / /proc rw - proc proc rw\n2 0 0:2 / / ro,relatime - overlay overlay rw\n"
    assert read_confined(status, mounts) == Confined(True, True, True)
    assert read_confined("NoNewPrivs:\t0\nSeccomp:\t0\n", mounts.replace(" ro,", " rw,")) == Confined(
        False, False, False
    )
    assert read_confined("", "") == Confined(None, None, None)


def test_what_the_process_was_not_started_with_is_a_reason():
    assert len(confinement_reasons(STRICT, Confined(False, False, False))) == 3
    assert confinement_reasons(STRICT, Confined(True, True, True)) == []
    assert confinement_reasons(STRICT, Confined()) == []  # not known is no reason
    assert confinement_reasons({}, Confined(False, False, False)) == []


@pytest.mark.parametrize(
    ("name", "path", "paths", "word"),
    [
        ("dir", "/data/redis", "", "ProtectSystem"),
        ("dir", "/data/redis-other", "/data/redis", "ProtectSystem"),
        ("dir", "/home/redis/data", "-/home/redis/data", "ProtectHome"),
        ("unixsocket", "/tmp", "", "PrivateTmp"),
        ("dir", "/var/tmp/redis", "/var/tmp", "PrivateTmp"),
    ],
)
def test_what_the_server_could_not_reach_is_refused(name, path, paths, word):
    with pytest.raises(Refusal) as caught:
        require_reachable({**STRICT, "ReadWritePaths": paths}, "", {name: path}, "redis")
    assert caught.value.code == "confined_away"
    assert word in caught.value.message()
    assert path in caught.value.message()


def test_a_configuration_that_protect_system_closes_is_refused():
    """CONFIG REWRITE, which Sentinel sends at a failover, writes next to redis.conf."""
    with pytest.raises(Refusal):
        require_reachable({"ProtectSystem": "full"}, "", {"config_file": "/etc/redis"}, "redis")
    require_reachable({"ProtectSystem": "full"}, "-/etc/redis", {"config_file": "/etc/redis", "dir": "/data"}, "redis")
    require_reachable({"ProtectSystem": "yes"}, "", {"config_file": "/etc/redis"}, "redis")


def test_links_lead_systemd_and_redis_to_the_same_place(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    conf = tmp_path / "link" / "redis.conf"
    conf.write_text("")
    text = f"dir {tmp_path}/real\n"
    instance = Instance(str(conf), text, RedisConf(text, str(conf)).directives(), Host())
    strict = {"ProtectSystem": "strict"}
    require_paths(instance, "redis", {"ReadWritePaths": f"-{tmp_path}/link"}, "", strict)
    require_paths(instance, "redis", {}, "", {**strict, "ReadWritePaths": f"-{tmp_path}/link"})
    with pytest.raises(Refusal):
        require_paths(instance, "redis", {}, "", strict)


@pytest.mark.parametrize(("bounds", "known"), [("000001ffffffffff", False), ("00000000a80425fb", None)])
def test_a_root_that_no_unit_here_can_have_read_only_is_no_reason(tmp_path, bounds, known):
    """A container whose systemd may not mount starts units without ProtectSystem: they would be restarted for ever."""
    for pid, text in ((1, f"CapBnd:\t{bounds}\n"), (7, "NoNewPrivs:\t1\nSeccomp:\t2\n")):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "status").write_text(text)
    (tmp_path / "proc" / "7" / "mountinfo").write_text("2 0 0:2 / / rw,relatime - overlay overlay rw\n")
    assert process_of(Host(str(tmp_path)), 7)[1] == Confined(True, True, known)


def test_what_it_can_reach_is_not():
    require_reachable(
        {**STRICT, "ReadWritePaths": "-/data"},
        "-/var/lib/redis",
        {"dir": "/data/redis", "logfile": "/var/lib/redis"},
        "redis",
    )
    require_reachable({}, "", {"dir": "/tmp", "config_file": "/root"}, "redis")


def test_exposure_is_the_last_line():
    text = "  PrivateNetwork=  Service has access to the host's network  0.5\n\n→ Overall exposure level for redis.service: 1.8 OK 🙂\n"
    assert exposure(text) == 1.8
    assert exposure("Unknown command verb security.") is None
