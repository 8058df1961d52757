# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of modules, filters and inventory plugins equals the code."""

from __future__ import annotations

import ast
import importlib
import re

import pytest
import yaml

from tests.support.house import (
    FILTERS,
    INVENTORIES,
    MODULES,
    PREFIX,
    ROOT,
    documentation,
    tree_of,
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_tested_against_the_world(name):
    path = ROOT / "tests" / "integration" / f"test_{name}.py"
    assert path.is_file() and "def test_" in path.read_text(), name  # noqa: PT018


def test_every_error_code_has_its_paragraph():
    """Every code that a module can fail with stands in docs/reference/refusals.md."""
    sources = [path.read_text() for path in (ROOT / "plugins").rglob("*.py")]
    codes = {
        code
        for text in sources
        for code in re.findall(
            r'(?:Problem|Refusal|ConfSyntaxError|ManifestError|InvalidValue|ServerDown)\(\s*"([a-z_]+[a-z])"', text
        )
    }
    assert len(codes) > 30
    headings = set(re.findall(r"^### `([a-z_]+)`", (ROOT / "docs/reference/refusals.md").read_text(), re.M))
    assert codes - headings == set()


def shape(spec: dict) -> dict:
    """What documentation and argument spec both say of an option."""
    kept = {key: spec.get(key) for key in ("type", "default", "choices", "elements", "aliases")}
    kept["type"] = kept["type"] or "str"
    kept["required"] = bool(spec.get("required"))
    inner = spec.get("options") or spec.get("suboptions")  # the one in an argument spec, the other in documentation
    if inner:
        kept["options"] = {name: shape(value) for name, value in inner.items()}
    return kept


@pytest.mark.parametrize("name", MODULES)
def test_documentation_equals_the_argument_spec(name):
    documented = documentation(name)[0]
    module = importlib.import_module(f"{PREFIX}.modules.{name}")
    assert documented["module"] == name
    options = documented.get("options", {})
    assert {key: shape(value) for key, value in options.items()} == {
        key: shape(value) for key, value in module.SPEC.items()
    }
    assert all(option.get("description") for option in options.values())
    for key, option in options.items():
        if "password" in key:
            assert module.SPEC[key].get("no_log") is True, key
        assert not option.get("default") or not option.get("required"), key


@pytest.mark.parametrize("name", MODULES)
def test_documentation_is_whole(name):
    documented, examples, returned = documentation(name)
    assert {"short_description", "version_added", "author", "description", "attributes"} <= set(documented)
    assert not documented["short_description"].endswith(".")
    assert set(documented["attributes"]) == {"check_mode", "diff_mode", "platform"}
    options = set(documented.get("options", {}))
    assert examples
    for example in examples:
        tasks = [key for key in example if key.startswith("redisops.recovery.")]
        assert example["name"]
        assert len(tasks) == 1
        assert set(example[tasks[0]] or {}) <= options | {"<<"}, example["name"]
    for key, value in returned.items():
        assert {"description", "returned", "type"} <= set(value), key


def returned_names(name: str) -> set[str]:
    """Names that a module's own code puts into its result, as far as they are spelled there."""
    found = {"actions"} if "result_of" in (ROOT / "plugins" / "modules" / f"{name}.py").read_text() else set()
    for node in ast.walk(tree_of(ROOT / "plugins" / "modules" / f"{name}.py")):
        if isinstance(node, ast.Call):
            function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if function == "result_of" or (function == "update" and owner == "result"):
                found |= {keyword.arg for keyword in node.keywords if keyword.arg}
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript) and getattr(target.value, "id", "") == "result":
                    found.add(target.slice.value)
    return found - {"warnings", "changed", "diff", "msg"}


@pytest.mark.parametrize("name", MODULES)
def test_what_is_returned_is_documented(name):
    assert returned_names(name) <= set(documentation(name)[2]), name


@pytest.mark.parametrize("name", FILTERS)
def test_filters_equal_their_documentation(name):
    documented, examples, returned = documentation(name, "filter")
    module = importlib.import_module(f"{PREFIX}.filter.{name}")
    function = module.FilterModule().filters()[name]
    code = function.__code__
    arguments = list(code.co_varnames[1 : code.co_argcount])
    assert [key for key in documented["options"] if key != "_input"] == arguments
    defaults = dict(zip(reversed(arguments), reversed(function.__defaults__ or ())))
    for key in arguments:
        default = documented["options"][key].get("default")
        assert tuple(default) == defaults[key] if isinstance(default, list) else default == defaults[key], key
    assert examples
    assert returned["_value"]["description"]


@pytest.mark.parametrize("name", INVENTORIES)
def test_inventory_plugins_are_documented_and_tested(name):
    module = importlib.import_module(f"{PREFIX}.inventory.{name}")
    documented, example = yaml.safe_load(module.DOCUMENTATION), yaml.safe_load(module.EXAMPLES)
    options = dict(documented["options"])
    for fragment in documented["extends_documentation_fragment"]:
        collection, _dot, part = fragment.rpartition(".")
        base = "ansible.plugins" if collection == "ansible.builtin" else PREFIX
        source = importlib.import_module(f"{base}.doc_fragments.{part}").ModuleDocFragment
        options.update(yaml.safe_load(source.DOCUMENTATION)["options"])
    assert {"short_description", "version_added", "author", "description"} <= set(documented)
    assert (documented["name"], not documented["short_description"].endswith(".")) == (name, True)
    assert f"redisops.recovery.{name}" == module.InventoryModule.NAME == example["plugin"]
    assert options["plugin"]["choices"] == [example["plugin"]]
    for key, option in options.items():
        assert option.get("description"), key
        assert {"type", "default"} & set(option), key
    # what the code asks for is documented, and what is documented here is asked for
    code = "".join(
        (ROOT / "plugins" / place).read_text()
        for place in (f"inventory/{name}.py", "plugin_utils/topology_inventory.py")
    )
    asked = set(re.findall(r'(?:get_option|\.texts?|_worked_out)\("(\w+)"', code))
    assert asked <= set(options)
    assert set(documented["options"]) - {"plugin"} <= {word for word in options if f'"{word}"' in code}
    assert set(example) <= set(options)
    text = (ROOT / "tests" / "integration" / f"test_inventory_{name}.py").read_text()
    assert "def test_" in text


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_glue(name):
    """At most 150 lines that are neither blank, comment, documentation, argument spec nor import."""
    path = ROOT / "plugins" / "modules" / f"{name}.py"
    lines = {
        number
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(tree_of(path)):
        names = {getattr(target, "id", "") for target in getattr(node, "targets", [])}
        if isinstance(node, (ast.Import, ast.ImportFrom)) or names & {"DOCUMENTATION", "EXAMPLES", "RETURN", "SPEC"}:
            lines -= set(range(node.lineno, node.end_lineno + 1))
    assert len(lines) <= 150, f"{name}: {len(lines)} lines of code"


def test_the_action_group_names_every_module_that_logs_in():
    group = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]["connection"]
    named = {entry for entry in group if isinstance(entry, str)}
    assert named == {
        name for name in MODULES if "login_host" in importlib.import_module(f"{PREFIX}.modules.{name}").SPEC
    }
