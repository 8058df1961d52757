# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles say what they take, and take what they say."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.support.house import (
    ROLES,
    ROOT,
    defaults_of,
)

#: What several roles read is one variable, with one default and one description: the group, and what it is held to.
SHARED = (
    "redis_group_name", "redis_group_hosts",
    "redis_objective_crash_loss_seconds", "redis_objective_rpo_seconds", "redis_objective_rto_seconds",
)  # fmt: skip


def test_shared_variables_are_the_same_everywhere():
    found = {}
    for role in ROLES:
        specs = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        for name in set(defaults_of(role)) & set(SHARED):
            found.setdefault(name, []).append((defaults_of(role)[name], specs["main"]["options"][name]))
    assert set(found) == set(SHARED)
    assert [name for name, each in found.items() if any(one != each[0] for one in each)] == []


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_equal_the_defaults(role):
    specs = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    options, defaults = specs["main"]["options"], defaults_of(role)
    assert list(options) == list(defaults)
    python = {
        "str": str,
        "path": str,
        "int": int,
        "float": (int, float),
        "bool": bool,
        "dict": dict,
        "list": list,
        "raw": object,
    }
    for name, option in options.items():
        assert name.startswith(f"{role}_") or name in SHARED, name
        assert option["description"], name
        assert option.get("default") == defaults[name], name
        if isinstance(defaults[name], str) and "{{" in defaults[name]:
            continue  # computed; its type shows on the host only
        assert isinstance(defaults[name], python[option["type"]]), name
        assert isinstance(defaults[name], bool) == (option["type"] == "bool"), name
        assert ("elements" in option) == (option["type"] == "list"), name
        if "choices" in option:
            assert defaults[name] in option["choices"], name


@pytest.mark.parametrize("role", ROLES)
def test_role_is_whole(role):
    about = yaml.safe_load((ROOT / "roles" / role / "meta" / "main.yml").read_text())
    assert about["galaxy_info"]["description"]
    assert (ROOT / "roles" / role / "tasks" / "main.yml").is_file()
    lines = (ROOT / "roles" / role / "defaults" / "main.yml").read_text().splitlines()
    undescribed = [
        line for number, line in enumerate(lines)
        if re.match(r"\w+:", line) and " #" not in line and not lines[number - 1].startswith("#")
    ]  # fmt: skip
    assert undescribed == []


@pytest.mark.parametrize("role", ROLES)
def test_variables_of_a_role_exist_and_carry_its_name(role):
    defaults = defaults_of(role)
    used = set()
    for path in [*(ROOT / "roles" / role).rglob("*.yml"), *(ROOT / "roles" / role).rglob("*.j2")]:
        if path.parent.name not in ("meta", "defaults"):
            used |= set(re.findall(rf"(?<![\w.]){role}_\w+", path.read_text()))
            used |= set(re.findall(rf"(?<![\w.])(?:{'|'.join(SHARED)})\b", path.read_text())) & set(defaults)
    assert used <= set(defaults), used - set(defaults)
    assert used == set(defaults), f"no task uses {set(defaults) - used}"
    for path in (ROOT / "roles" / role / "tasks").rglob("*.yml"):
        for task in yaml.safe_load(path.read_text()) or []:
            mine = [task.get("register"), *(task.get("ansible.builtin.set_fact") or {})]
            for name in mine:
                assert name is None or name == "cacheable" or name.startswith(f"__{role}_"), f"{path}: {name}"
