# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is named exists, and nothing of the machine that it was written on."""

from __future__ import annotations

import importlib
import pathlib
import re
import subprocess

import pytest
import yaml

from tests.support.house import (
    MODULES,
    PLAYBOOKS,
    PREFIX,
    ROLES,
    ROOT,
    names_of,
    yaml_files,
)


class _Loader(yaml.SafeLoader):
    """Tags such as !vault are somebody else's."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def tasks_in(node) -> list[dict]:
    """Every mapping at any depth."""
    if isinstance(node, list):
        return [task for item in node for task in tasks_in(item)]
    if isinstance(node, dict):
        return [node, *(task for item in node.values() for task in tasks_in(item))]
    return []


PLAYED = [path for path in yaml_files("playbooks", "roles", "molecule") if path.name != "argument_specs.yml"]


@pytest.mark.parametrize("path", PLAYED, ids=names_of(PLAYED))
def test_what_is_included_exists(path):
    for task in tasks_in(yaml.load(path.read_text(), _Loader)):
        for key, value in task.items():
            action = str(key).rpartition(".")[2]
            if action in ("include_tasks", "import_tasks", "import_playbook", "include_vars"):
                file = value if isinstance(value, str) else (value or {}).get("file", "")
                if "{{" in file:
                    file = re.sub(r"\{\{.*?\}\}", "*", file)
                if file.startswith("redisops.recovery."):
                    file = f"{ROOT}/playbooks/{file.rpartition('.')[2]}.yml"
                places = [path.parent, *([path.parent.parent / "vars"] if action == "include_vars" else [])]
                found = (
                    [hit for place in places for hit in place.glob(file)]
                    if not file.startswith("/")
                    else [pathlib.Path(file)]
                )
                assert [hit for hit in found if hit.is_file()], f"{path}: {file}"
            elif action in ("include_role", "import_role", "role"):
                name = value if isinstance(value, str) else (value or {}).get("name", "")
                if isinstance(name, str) and name.startswith("redisops.recovery."):
                    assert name.rpartition(".")[2] in ROLES, f"{path}: {name}"
            elif (
                action in ("template", "copy")
                and isinstance(value, dict)
                and "src" in value
                and "{{" not in value["src"]
            ):
                folder = path.parent.parent / {"template": "templates", "copy": "files"}[action]
                places = [folder, path.parent, path.parent / "files"]
                assert any((place / value["src"]).exists() for place in places), f"{path}: {value['src']}"


@pytest.mark.parametrize("path", PLAYED, ids=names_of(PLAYED))
def test_modules_that_are_used_exist(path):
    text = path.read_text()
    named = set(re.findall(r"^\s*(?:- )?redisops\.recovery\.(\w+):", text, re.M))
    assert named <= set(MODULES), path
    for task in tasks_in(yaml.load(text, _Loader)):
        for key, value in task.items():
            if str(key).startswith("redisops.recovery.") and isinstance(value, dict):
                module = importlib.import_module(f"{PREFIX}.modules.{key.rpartition('.')[2]}")
                assert set(value) <= set(module.SPEC), f"{path}: {task.get('name')}"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=names_of(PLAYBOOKS))
def test_playbooks_are_plays(path):
    plays = yaml.safe_load(path.read_text())
    assert plays
    for play in plays:
        assert play["name"]
        assert "hosts" in play or any(key.endswith("import_playbook") for key in play)


def test_changelog_fragments_parse():
    sections = {"release_summary", "breaking_changes", "major_changes", "minor_changes", "removed_features", "deprecated_features",
                "security_fixes", "bugfixes", "known_issues", "trivial"}  # fmt: skip
    for path in sorted((ROOT / "changelogs" / "fragments").glob("*.y*ml")):
        fragment = yaml.safe_load(path.read_text())
        assert isinstance(fragment, dict), path
        assert set(fragment) <= sections, path


def test_no_path_of_the_machine_it_was_written_on():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    assert files
    pattern = re.compile(rb"(?<![\w.~-])/(?:wor" + rb"k|far" + rb"m)/")
    left = [
        str(path.relative_to(ROOT))
        for path in files
        if path.is_file() and not path.is_symlink() and pattern.search(path.read_bytes())
    ]
    assert left == []
