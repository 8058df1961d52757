# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests of the house share: what there is, and how a file is read without running it."""

from __future__ import annotations

import ast
import importlib
import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PREFIX = "ansible_collections.redisops.recovery.plugins"


def stems(folder: str) -> list[str]:
    """Names of the Python files in a folder of the checkout."""
    return sorted(path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


MODULES = stems("plugins/modules")
INVENTORIES = stems("plugins/inventory")
FILTERS = stems("plugins/filter")
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def tree_of(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def yaml_files(*folders: str) -> list[pathlib.Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.yml"))]
    assert found
    return found


def names_of(paths) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def documentation(name: str, kind: str = "modules") -> tuple[dict, list, dict]:
    module = importlib.import_module(f"{PREFIX}.{kind}.{name}")
    documented = yaml.safe_load(module.DOCUMENTATION)
    examples, returned = yaml.safe_load(module.EXAMPLES), yaml.safe_load(module.RETURN)
    for fragment in documented.get("extends_documentation_fragment", []):
        file, _dot, part = fragment[len("redisops.recovery.") :].partition(".")
        source = importlib.import_module(f"{PREFIX}.doc_fragments.{file}").ModuleDocFragment
        merged = yaml.safe_load(getattr(source, (part or "documentation").upper()))
        for key, value in merged.items():
            if isinstance(value, dict):
                documented[key] = {**value, **documented.get(key, {})}
    return documented, examples, returned


def defaults_of(role: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text()) or {}
