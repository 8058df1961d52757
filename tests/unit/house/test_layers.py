# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""plugins/module_utils keeps to its plan: packages import downwards, and a file touches what its name says."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.support.house import MODULES, PREFIX, ROOT, tree_of
from tests.support.layers import FLOORS, UTILS, Kind, circle, faults, kind_of, read, read_all

FILES = read_all(ROOT)
NAMES = [str(file) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_imports_and_touches_what_its_place_and_name_allow(file):
    assert faults(file) == []
    strangers = file.foreign - set(sys.stdlib_module_names)
    assert strangers <= ({"ansible"} if file.kind is Kind.ANSIBLE else {"redis"} if file.kind > Kind.PURE else set())


def test_there_is_no_circle():
    assert circle(FILES) == []


def test_every_package_has_a_floor_and_files():
    folders = {
        path.name for path in (ROOT / "plugins/module_utils").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert folders == {package for floor in FLOORS for package in floor} == {file.package for file in FILES}
    assert list((ROOT / "plugins/module_utils").glob("*.py")) == []
    assert all((ROOT / "plugins/module_utils" / folder / "__init__.py").read_text() == "" for folder in folders)


@pytest.mark.parametrize(
    ("package", "name", "text", "words"),
    [
        ("server", "info", f"from {UTILS}.backup.plan import x", "not below it"),
        ("acl", "plan", f"from {UTILS}.persistence import plan", "not below it"),  # a neighbour on the same floor
        ("restore", "collect", f"def f():\n    from {UTILS}.restore.apply import x", "restore/apply.py (actor)"),
        ("health", "collect_host", f"from {UTILS}.server import config_apply", "server/config_apply.py (actor)"),
        ("repair", "plan", f"from {UTILS}.system.host import Host", "system/host.py (tool)"),
        ("backup", "plan", "import os.path", "imports os"),
        ("health", "check_log", "print('x')", "calls print()"),
        ("backup", "apply", f"from {UTILS}.backup.store import _hidden", "private there"),
        ("backup", "copy", f"from {UTILS}.backup.job import x", "backup/job.py (program)"),
    ],
)
def test_what_the_plan_forbids_is_found(package, name, text, words):
    assert [fault for fault in faults(read(package, name, text)) if words in fault] != []


def test_a_circle_is_found():
    one = read("acl", "plan", f"from {UTILS}.acl.rules import x")
    other = read("acl", "rules", f"from {UTILS}.acl import plan")
    assert circle([one, other]) == ["acl/plan", "acl/rules", "acl/plan"]
    assert circle([one]) == []


def test_a_whole_package_is_not_imported():
    with pytest.raises(ValueError, match="imports a whole package: acl"):
        read("tls", "plan", f"from {UTILS} import acl")


def test_names_say_kinds():
    assert kind_of("health", "collect_replicas") is kind_of("health", "log_reader") is Kind.READER
    assert kind_of("pitr", "archive_job") is Kind.PROGRAM
    assert kind_of("server", "config_plan") is Kind.PURE


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_util_says_what_it_offers(file):
    module = importlib.import_module(f"{UTILS}.{file.package}.{file.name}")
    assert module.__doc__
    assert [entry for entry in module.__all__ if not hasattr(module, entry)] == []
    for entry in module.__all__:
        offered = getattr(module, entry)
        if isinstance(offered, type) and not entry.endswith("Error"):
            assert offered.__module__ == module.__name__, f"{entry} is not offered by {file}"


def test_no_module_is_imported_by_another_file():
    assert MODULES
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        assert f"from {PREFIX}.modules" not in path.read_text(), path
        assert not any(getattr(node, "level", 0) for node in tree_of(path).body), f"{path}: relative import"
