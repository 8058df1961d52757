# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What in the documentation is written from the sources. ``python -m tests.support.generated`` writes it; a test compares.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import typing as t

import yaml

from tests.support.house import FILTERS, INVENTORIES, MODULES, PLAYBOOKS, PREFIX, ROLES, ROOT, stems
from tests.support.layers import FLOORS, KINDS, Kind, read_all

_PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _table(head: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _code(words: t.Iterable[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


def packages() -> str:
    """Packages of module_utils, the lowest floor first, with their files by kind."""
    files = read_all(ROOT)
    rows = []
    for number, names in enumerate(FLOORS):
        for package in names:
            mine = [file for file in files if file.package == package]
            rows.append(
                [str(number), f"`{package}`"]
                + [_code(file.name for file in mine if file.kind is kind) for kind in Kind if kind is not Kind.ANSIBLE]
                + ([_code(file.name for file in mine)] if package == "module" else [""])
            )
    return _table(["floor", "package", *(kind.name.lower() for kind in Kind)], rows)


def kinds() -> str:
    rows = [
        [
            kind.name.lower(),
            what,
            may,
            _code(names) or ("package `module`" if kind is Kind.ANSIBLE else "any other name"),
        ]
        for kind, (what, may, names) in KINDS.items()
    ]
    return _table(["kind", "what it is", "may touch", "names"], rows)


def _short(name: str, kind: str) -> str:
    return yaml.safe_load(importlib.import_module(f"{PREFIX}.{kind}.{name}").DOCUMENTATION)["short_description"]


def modules() -> str:
    return _table(["module", "what it does"], ([f"`{name}`", _short(name, "modules")] for name in MODULES))


def plugins() -> str:
    rows = [["inventory", f"`{name}`", _short(name, "inventory")] for name in INVENTORIES]
    rows += [["filter", f"`{name}`", _short(name, "filter")] for name in FILTERS]
    for kind in ("action", "plugin_utils"):
        for name in stems(f"plugins/{kind}"):
            text = importlib.import_module(f"{PREFIX}.{kind}.{name}").__doc__ or ""
            rows.append([kind, f"`{name}`", text.strip().split("\n")[0].rstrip(".")])
    return _table(["kind", "plugin", "what it does"], rows)


def playbooks() -> str:
    """Each playbook with the first sentence of its comment."""
    rows = []
    for path in PLAYBOOKS:
        comment = re.match(r"---\n((?:#[^\n]*\n)+)", path.read_text())
        assert comment, f"{path}: no comment says what it does"
        words = " ".join(line.lstrip("# ") for line in comment[1].splitlines())
        rows.append([f"`{path.stem}`", re.split(r"(?<=[.:])\s", words)[0].rstrip(".:")])
    return _table(["playbook", "what it does"], rows)


def _default(value: t.Any) -> str:
    if value == "" or value is None:
        return "empty"
    if isinstance(value, (dict, list)) and len(json.dumps(value)) > 60:
        return "see [defaults/main.yml](defaults/main.yml)"
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def variables(role: str) -> str:
    """Variables of a role, as its argument_specs say them."""
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    options = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    rows = []
    for name, option in options.items():
        words = option["description"]
        words = " ".join(words) if isinstance(words, list) else words
        choices = f" One of {_code(map(str, option['choices']))}." if option.get("choices") else ""
        rows.append([f"`{name}`", option["type"], _default(option.get("default")), words + choices])
    return _table(["variable", "type", "default", "meaning"], rows)


def parts(path: pathlib.Path) -> dict[str, t.Callable[[], str]]:
    """What may be generated in the file at ``path``, by name."""
    role = path.parent.name if path.parent.name in ROLES else ""
    named: dict[str, t.Callable[[], str]] = {
        "packages": packages, "kinds": kinds, "modules": modules, "plugins": plugins, "playbooks": playbooks,
    }  # fmt: skip
    return {"variables": lambda: variables(role)} if role else named


def render(path: pathlib.Path) -> str:
    """The file with its generated parts as they should be."""
    known = parts(path)
    return _PART.sub(lambda found: found[1] + known[found[2]]() + found[4], path.read_text(encoding="utf-8"))


#: Every file with a generated part.
FILES = [
    ROOT / "docs" / "project" / "architecture.md",
    *(ROOT / "roles" / role / "README.md" for role in ROLES),
]


if __name__ == "__main__":
    import tests.conftest

    tests.conftest.pytest_configure()  # the collection's import path
    for one in FILES:
        one.write_text(render(one), encoding="utf-8")
