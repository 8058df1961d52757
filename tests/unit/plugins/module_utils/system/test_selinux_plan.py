# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SELinux labels; the fixtures were printed by semanage 3.4 and matchpathcon 3.4 with Debian 12's policy store."""

from __future__ import annotations

import pathlib
import re

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.selinux_plan import (
    Directory,
    parse_ports,
    pattern_of,
    plan_directory,
    plan_port,
    type_of,
)

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "selinux"


def text(name):
    return (FIXTURES / name).read_text(encoding="utf-8")


def test_ports_of_a_real_policy():
    ports = parse_ports(text("semanage-3.4-debian12-port-l.txt"))
    assert ports[6379] == ports[26379] == "redis_port_t"
    assert ports[3306] == "mysqld_port_t"
    assert 7777 not in ports  # within a range that is nobody's
    assert parse_ports(text("semanage-3.4-debian12-port-l-after-add.txt"))[7777] == "redis_port_t"


def test_ports_are_added_once_and_never_taken_from_another_service():
    ports = parse_ports(text("semanage-3.4-debian12-port-l.txt"))
    assert plan_port(6379, ports) == []
    (step,) = plan_port(7777, ports)
    assert step.command == ("semanage", "port", "-a", "-t", "redis_port_t", "-p", "tcp", "7777")
    with pytest.raises(Problem) as caught:
        plan_port(3306, ports)
    assert caught.value.code == "port_of_another"
    assert "mysqld_port_t" in caught.value.message()
    # what semanage itself says to that
    assert "already defined" in text("semanage-3.4-debian12-port-a-taken.txt")


def test_types():
    first, second = text("selinux-utils-3.4-debian12-matchpathcon.txt").splitlines()
    assert (type_of(first), type_of(second)) == ("redis_var_lib_t", "var_t")
    assert type_of("system_u:object_r:redis_log_t:s0\0") == "redis_log_t"
    # the pattern that was added for "/srv/da+ta.x" reaches what is below it
    assert type_of(text("selinux-utils-3.4-debian12-matchpathcon-after-add.txt")) == "redis_var_lib_t"


def test_patterns_mean_the_directory_and_nothing_else():
    assert pattern_of("/srv/da+ta.x/") == r"/srv/da\+ta\.x(/.*)?"
    assert re.fullmatch(pattern_of("/srv/da+ta.x"), "/srv/da+ta.x/appendonlydir")
    assert not re.fullmatch(pattern_of("/srv/da+ta.x"), "/srv/daatatx")
    for path in ("data", "/", "", "/a\nb"):
        with pytest.raises(Problem):
            pattern_of(path)


@pytest.mark.parametrize(
    ("policy", "label", "words"),
    [
        ("redis_var_lib_t", "redis_var_lib_t", []),
        ("var_t", "var_t", ["semanage", "restorecon"]),
        ("redis_var_lib_t", "var_t", ["restorecon"]),
        ("var_t", None, ["semanage"]),
        ("var_t", "redis_var_lib_t", ["semanage"]),  # a label by chcon, which the next relabel takes away
    ],
)
def test_policy_and_disk_are_two_layers(policy, label, words):
    steps = plan_directory(Directory("/data/redis", "redis_var_lib_t", policy, label))
    assert [step.command[0] for step in steps] == words
