# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The house itself: layers, documentation that equals the code, roles that say what they take, nothing that points nowhere."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
UTILS = sorted(path.stem for path in (ROOT / "plugins" / "module_utils").glob("*.py") if path.stem != "__init__")
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
INVENTORIES = sorted(path.stem for path in (ROOT / "plugins" / "inventory").glob("*.py"))
FILTERS = sorted(path.stem for path in (ROOT / "plugins" / "filter").glob("*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PREFIX = "ansible_collections.redisops.recovery.plugins"

#: Tier of every file in module_utils; imports point to the same tier or down. A new file needs its line here.
TIERS = {
    # 0: pure; text in, values out
    "acl_presets": 0, "acl_rules": 0, "aof_loss": 0, "aof_manifest": 0, "aof_scan": 0, "rdb": 0, "check_output": 0, "data_place": 0, "directives": 0, "errors": 0,
    "info": 0, "moments": 0, "net_tcp": 0, "nft_ruleset": 0, "other_firewalls": 0, "procfs": 0, "redis_conf": 0, "replication_view": 0,
    "sentinel_conf": 0, "sentinel_view": 0,
    "drive_health": 0, "health_codes": 0, "health_facts": 0, "host_load": 0, "log_kinds": 0, "server_log": 0,
    "cluster_topology": 0, "cluster_view": 0, "inventory_hosts": 0, "sentinel_topology": 0, "server_details": 0,
    "sysctl_conf": 0, "systemd_unit": 0, "tmpfiles_conf": 0, "x509": 0,
    "backup_manifest": 0,
    "restic_output": 0, "restic_repository": 0,
    # 1: decisions, pure
    "backup_plan": 1, "drill_report": 1, "metrics": 1, "metrics_job": 2, "exporter_login": 2, "health_options": 3, "schedule_act": 2, "schedule_units": 1, "backup_status": 1, "restore_plan": 1,
    "acl_plan": 1, "changes": 1, "config_plan": 1, "confinement": 1, "firewall_plan": 1, "firewall_sources": 1,
    "install_plan": 1, "persistence_plan": 1, "preflight": 1, "replication_plan": 1, "selinux_plan": 1, "service_plan": 1, "switchover_plan": 1,
    "sentinel_plan": 1, "sentinel_users": 1,
    "cluster_findings": 1, "cluster_layout": 1, "cluster_plan": 1, "cluster_proof": 1,
    "sysctl_plan": 1, "thp_plan": 1, "tls_plan": 1,
    "aof_window": 1,
    "repair_plan": 1,
    "retention": 1,
    "health": 1, "health_finding": 1, "health_host": 1, "health_log": 1, "health_persistence": 1, "health_set": 1, "risk_now": 1,
    # 2: the world
    "health_copies_read": 2, "health_host_read": 2, "health_reach": 2, "health_read": 2,
    "restic": 2,
    "acl_act": 2, "config_act": 2, "data_access": 2, "data_files": 2, "file_verdict": 2, "files": 2, "firewall_host": 2, "host": 2, "instance": 2,
    "kernel_files": 2, "openssl": 2, "persistence_act": 2, "primary_guard": 2, "probe": 2, "probes": 2, "replication_act": 2, "server": 2,
    "sentinel_act": 2, "sentinel_service": 2,
    "cluster_act": 2, "cluster_read": 2, "slot_moves": 2,
    "service_act": 2, "switchover_act": 2, "tls_act": 2, "tls_material": 2, "tls_trial": 2, "topology_read": 2,
    "aof_cut": 2, "aof_history": 2,
    "backup_copies": 2, "drill": 2, "drill_job": 2, "history_job": 2, "backup_job": 2, "host_program": 2, "backup_load": 2, "backup_moment": 2, "backup_proof": 2, "backup_run": 2, "backup_store": 2, "shard_store": 2, "timer_program": 2, "replica_hold": 2, "backup_take": 2,
    "restore_act": 2, "restore_point": 2, "restore_run": 2,
    "aof_mend": 2, "log_tail": 2, "repair_read": 2, "repair_run": 2,
    # 3: Ansible
    "argspec": 3, "runner": 3,
}  # fmt: skip
#: What a pure file has no business with.
_WORLD = frozenset(
    ["os", "subprocess", "socket", "shutil", "tempfile", "glob", "pathlib", "time", "signal", "ctypes", "io"]
)
CODE_LINES = 150


def tree_of(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: pathlib.Path) -> set[str]:
    """Full names of what a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found.update(f"{base}.{alias.name}" if base.endswith("module_utils") else base for alias in node.names)
    return found


def own_utils(names: set[str]) -> set[str]:
    return {name.split(".")[5] for name in names if name.startswith(f"{PREFIX}.module_utils.")}


def foreign(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("ansible_collections.redisops.recovery.")}


def yaml_files(*folders: str) -> list[pathlib.Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.yml"))]
    assert found
    return found


def names_of(paths) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# --- layers -----------------------------------------------------------------------------------------------------------


def test_every_util_has_a_tier():
    assert sorted(TIERS) == UTILS


@pytest.mark.parametrize("name", UTILS)
def test_imports_point_down(name):
    names = imports_of(ROOT / "plugins" / "module_utils" / f"{name}.py")
    upward = {util for util in own_utils(names) if TIERS[util] > TIERS[name]}
    assert not upward, f"{name} (tier {TIERS[name]}) imports {upward}"
    strangers = {entry.split(".")[0] for entry in foreign(names)} - set(sys.stdlib_module_names)
    allowed = {3: {"ansible"}, 2: {"redis"}}.get(TIERS[name], set())
    assert strangers <= allowed


@pytest.mark.parametrize("name", [name for name in UTILS if TIERS.get(name) in (0, 1)])
def test_pure_files_do_not_touch_the_world(name):
    path = ROOT / "plugins" / "module_utils" / f"{name}.py"
    touched = {entry.split(".")[0] for entry in foreign(imports_of(path))} & _WORLD
    opens = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("open", "print", "exec", "eval")
    ]
    assert (touched, opens) == (set(), []), name


@pytest.mark.parametrize("name", UTILS)
def test_every_util_says_what_it_offers(name):
    module = importlib.import_module(f"{PREFIX}.module_utils.{name}")
    assert module.__doc__
    assert [entry for entry in module.__all__ if not hasattr(module, entry)] == []
    for entry in module.__all__:
        if (
            callable(getattr(module, entry))
            and not entry.endswith("Error")
            and isinstance(getattr(module, entry), type)
        ):
            assert getattr(module, entry).__module__ == module.__name__, f"{entry} is not {name}'s to offer"


def test_no_module_is_imported_by_another_file():
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        assert not any(name.startswith(f"{PREFIX}.modules") for name in imports_of(path)), path


# --- modules ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_tested_against_the_world(name):
    path = ROOT / "tests" / "integration" / f"test_{name}.py"
    assert path.is_file() and "def test_" in path.read_text(), name  # noqa: PT018


def test_every_error_code_has_its_paragraph():
    """Every code that a module can fail with stands in docs/refusals.md."""
    sources = [path.read_text() for path in (ROOT / "plugins").rglob("*.py")]
    codes = {
        code
        for text in sources
        for code in re.findall(
            r'(?:Problem|Refusal|ConfSyntaxError|ManifestError|InvalidValue|ServerDown)\(\s*"([a-z_]+[a-z])"', text
        )
    }
    assert len(codes) > 30
    headings = set(re.findall(r"^### `([a-z_]+)`", (ROOT / "docs" / "refusals.md").read_text(), re.M))
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
    assert len(lines) <= CODE_LINES, f"{name}: {len(lines)} lines of code"


def test_the_action_group_names_every_module_that_logs_in():
    group = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]["connection"]
    named = {entry for entry in group if isinstance(entry, str)}
    assert named == {
        name for name in MODULES if "login_host" in importlib.import_module(f"{PREFIX}.modules.{name}").SPEC
    }


# --- roles ------------------------------------------------------------------------------------------------------------


def defaults_of(role: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text()) or {}


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
        assert name.startswith(f"{role}_"), name
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
    assert used <= set(defaults), used - set(defaults)
    assert used == set(defaults), f"no task uses {set(defaults) - used}"
    for path in (ROOT / "roles" / role / "tasks").rglob("*.yml"):
        for task in yaml.safe_load(path.read_text()) or []:
            mine = [task.get("register"), *(task.get("ansible.builtin.set_fact") or {})]
            for name in mine:
                assert name is None or name == "cacheable" or name.startswith(f"__{role}_"), f"{path}: {name}"


# --- what is named exists ----------------------------------------------------------------------------------------------


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


PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


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
