# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run was asked for: variables that are yes or no, or a mode, and are given as something else (controller)."""

from __future__ import annotations

import functools
import pathlib
import typing as t

import yaml
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import parse_mode, parse_umask

__all__ = ["PLAYBOOK_OPTIONS", "is_mode", "misread", "options_of_roles"]

_ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"
_EXAMPLES = {"dir_mode": ("0750", 0o700), "key_mode": ("0640", 0o400)}
#: What the playbooks take by -e and is yes or no.
PLAYBOOK_OPTIONS: dict[str, dict[str, t.Any]] = {
    f"redisops_{name}": {"type": "bool"}
    for name in (
        "allow_truncation",
        "allow_unverified",
        "allow_other_server",
        "drift_fails",
        "first_look",
        "test_load",
        "report_drift",
        "summary",
        "upgrade",
    )
}


@functools.cache
def options_of_roles(folder: pathlib.Path = _ROLES) -> dict[str, dict[str, t.Any]]:
    """The variables of all roles, as their argument specs have them."""
    found: dict[str, dict[str, t.Any]] = {}
    for path in sorted(folder.glob("*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            found.update(entry.get("options") or {})
    return found


def is_mode(name: str, option: t.Mapping[str, t.Any]) -> bool:
    """Whether a variable is a mode or a umask."""
    return name.endswith(("_mode", "_umask")) and "choices" not in option


def misread(name: str, value: t.Any, option: t.Mapping[str, t.Any]) -> list[str]:
    """A sentence for each place in ``value`` that would be taken for something else than was meant."""
    if value is None:
        return []
    if option.get("type") == "bool":
        try:
            boolean(value, strict=True)
        except TypeError:
            return [f"{name} is {value!r}, which is neither yes nor no. Do: set it to true or false."]
        return []
    if is_mode(name, option):
        example, least = next((given for end, given in _EXAMPLES.items() if name.endswith(end)), ("0660", 0o600))
        try:
            parse_umask(value, name) if name.endswith("_umask") else parse_mode(value, name, example, least)
        except Problem as problem:
            return [problem.message()]
        return []
    inner: t.Mapping[str, t.Any] = option.get("options") or {}
    rows = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
    return [
        sentence
        for number, row in rows
        if inner and isinstance(row, t.Mapping)
        for key in inner
        if key in row
        for sentence in misread(f"{name}{'' if number is None else f'[{number}]'}.{key}", row[key], inner[key])
    ]
