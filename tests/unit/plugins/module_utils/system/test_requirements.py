# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions and parsers of redis_host_info."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system import requirements
from ansible_collections.redisops.recovery.plugins.module_utils.system.requirements import (
    CHECKS,
    MIB,
    Facts,
    Limits,
    Measured,
)
from hypothesis import given
from hypothesis import strategies as st

LIMITS = Limits(2, 4096, 1.0, 511, 100, 1.0, "/var/lib/redis")
GOOD = Facts(
    cpus=4,
    memory=8192 * MIB,
    memory_is_limit=False,
    swap=8192 * MIB,
    somaxconn=4096,
    overcommit="1",
    thp="never",
    thp_supported=True,
    disk=Measured(400.0),
    rtt={"192.0.2.2": Measured(0.2)},
)
UNKNOWN = Facts(None, None, False, None, None, None, None, True, Measured(None, "it was not tried"), {})


def row(check: str, limits: Limits = LIMITS, expect: bool = False, **changed):
    found = requirements.rows(dataclasses.replace(GOOD, **changed), limits, expect)
    return next(one for one in found if one["check"] == check)


def test_a_good_host_has_nothing_to_do():
    found = requirements.rows(GOOD, LIMITS, True)
    assert tuple(one["check"] for one in found) == CHECKS
    assert all(one["ok"] is True and not one["do"] and not one["because"] for one in found)


def test_what_could_not_be_read_is_not_guessed():
    found = requirements.rows(UNKNOWN, LIMITS, True)
    for one in found:
        assert one["ok"] is None
        assert one["because"]
        assert one["measured"] == f"not known, because {one['because']}"
    assert requirements.failing(found, requirements.check_policies("fail", {}), "fail", True) == []


@pytest.mark.parametrize(
    ("check", "changed", "ok"),
    [
        ("cpu", {"cpus": 2}, True),
        ("cpu", {"cpus": 1.5}, False),
        ("memory", {"memory": 3735 * MIB}, True),  # a 4 GB machine, less what firmware and crash kernel reserve
        ("memory", {"memory": 3500 * MIB}, False),
        ("memory", {"memory": 3735 * MIB, "memory_is_limit": True}, False),
        ("memory", {"memory": 4096 * MIB, "memory_is_limit": True}, True),
        ("swap", {"swap": 0}, False),
        ("swap", {"swap": 8192 * MIB - 4096}, True),  # a swap file is a page short
        ("backlog", {"somaxconn": 511}, True),
        ("backlog", {"somaxconn": 128}, False),
        ("overcommit", {"overcommit": "0"}, False),
        ("overcommit", {"overcommit": "2"}, False),
        ("thp", {"thp": "madvise"}, True),
        ("thp", {"thp": "always"}, False),
        ("thp", {"thp": None, "thp_supported": False}, True),
        ("disk_throughput", {"disk": Measured(99.9)}, False),
        ("disk_throughput", {"disk": Measured(100.0)}, True),
        ("disk_throughput", {"disk": Measured(0.0)}, False),
        ("rtt", {"rtt": {"a": Measured(0.3), "b": Measured(1.7)}}, False),
        ("rtt", {"rtt": {"a": Measured(0.3), "b": Measured(None, "no answer")}}, None),
        ("rtt", {"rtt": {"a": Measured(1.3), "b": Measured(None, "no answer")}}, False),
        ("rtt", {"rtt": {}}, None),
    ],
)
def test_checks(check, changed, ok):
    one = row(check, **changed)
    assert one["ok"] is ok
    assert bool(one["do"]) is (ok is not True)
    assert bool(one["consequence"]) is (ok is not True)
    assert bool(one["because"]) is (ok is None)


def test_no_swap_needed():
    assert row("swap", dataclasses.replace(LIMITS, min_swap_ratio=0.0), swap=0)["ok"] is True


def test_rows_speak_with_numbers_and_units():
    assert row("memory", memory=2048 * MIB)["measured"] == "2048 MB"
    assert row("rtt", rtt={"a": Measured(0.3), "b": Measured(1.75)})["measured"] == "a 0.3 ms, b 1.75 ms"
    assert "fallocate -l 8193M" in row("swap", swap=0)["do"]


def test_what_the_kernel_role_corrects_neither_warns_nor_fails():
    facts = dataclasses.replace(GOOD, somaxconn=128, overcommit="0", thp="always", cpus=1)
    policies = requirements.check_policies("warn", {})
    expected = requirements.rows(facts, LIMITS, True)
    assert [one["check"] for one in requirements.failing(expected, policies, "warn", True)] == ["cpu"]
    assert {one["check"] for one in expected if "redis_kernel" in one["do"]} == set(requirements.KERNEL_CHECKS)
    alone = requirements.rows(facts, LIMITS, False)
    assert len(requirements.failing(alone, policies, "warn", False)) == 4
    assert "sysctl -w vm.overcommit_memory=1" in next(one["do"] for one in alone if one["check"] == "overcommit")


def test_policies():
    policies = requirements.check_policies("warn", {"swap": "fail", "cpu": "ignore"})
    found = requirements.rows(dataclasses.replace(GOOD, swap=0, cpus=1, disk=Measured(1.0)), LIMITS, True)
    assert [one["check"] for one in requirements.failing(found, policies, "fail", True)] == ["swap"]
    assert [one["check"] for one in requirements.failing(found, policies, "warn", True)] == ["disk_throughput"]


@pytest.mark.parametrize(
    ("by_check", "code"), [({"ram": "fail"}, "unknown_check"), ({"swap": "panic"}, "invalid_value")]
)
def test_refused_policies(by_check, code):
    with pytest.raises(Problem) as caught:
        requirements.check_policies("warn", by_check)
    assert caught.value.code == code


@given(st.integers(0, 2**45), st.integers(0, 2**45), st.floats(0, 4))
def test_the_advice_for_swap_is_enough(memory, swap, ratio):
    limits = dataclasses.replace(LIMITS, min_swap_ratio=ratio)
    one = row("swap", limits, memory=memory, swap=swap)
    if not one["ok"]:
        size = int(one["do"].split("fallocate -l ")[1].split("M")[0])
        assert row("swap", limits, memory=memory, swap=size * MIB)["ok"]


@pytest.mark.parametrize(("text", "count"), [("0-3\n", 4), ("0-1,4,6-7", 5), ("0", 1), ("", 0), ("x", 0)])
def test_cpu_lists(text, count):
    assert requirements.count_cpu_list(text) == count


def test_cgroups():
    v1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/\n1:name=systemd:/init.scope\n0::/init.scope\n"
    assert requirements.cgroup_paths(v1, "memory") == ["docker/abc", "docker", ""]
    assert requirements.cgroup_paths(v1, "cpu") == [""]
    assert requirements.cgroup_paths(v1, "") == ["init.scope", ""]
    assert requirements.cgroup_paths("0::/../../x\n", "") == ["x", ""]
    assert requirements.cgroup_paths("", "memory") == [""]
    assert requirements.cgroup_limit([None, "max\n", "1073741824\n", "9223372036854771712\n"]) == 1073741824
    assert requirements.cgroup_limit([None, "max\n", "9223372036854771712\n"]) is None


DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
# ID=comment
ID=debian
"""
ROCKY = 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'


def test_os_release():
    assert requirements.os_release(DEBIAN) == {
        "id": "debian",
        "id_like": [],
        "version_id": "12",
        "codename": "bookworm",
    }
    assert requirements.os_release(ROCKY) == {
        "id": "rocky",
        "id_like": ["rhel", "centos", "fedora"],
        "version_id": "9.4",
        "codename": None,
    }
    assert requirements.os_release("ID='odd\n")["id"] == "odd"
    assert requirements.os_release("")["id"] is None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=e0b2b1a1\n", ("7.0.15", "redis")),
        ("Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1\n", ("8.1.1", "valkey")),
        ("redis-server: not found", (None, None)),
    ],
)
def test_server_versions(output, expected):
    assert requirements.server_version(output) == expected


@pytest.mark.parametrize(
    ("output", "average"),
    [
        (
            "3 packets transmitted, 3 received, 0% packet loss, time 402ms\nrtt min/avg/max/mdev = 0.031/0.045/0.061/0.012 ms\n",
            0.045,
        ),
        ("rtt min/avg/max/mdev = 0.031/0.045/0.061/0.012 ms, pipe 2\n", 0.045),
        ("round-trip min/avg/max = 0.049/0.081/0.112 ms\n", 0.081),
        ("3 packets transmitted, 0 received, 100% packet loss, time 2043ms\n", None),
        ("ping: not found", None),
    ],
)
def test_ping(output, average):
    assert requirements.ping_average(output) == average
