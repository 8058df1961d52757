# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules for every playbook, role and module where a fleet suffers from one that was forgotten; each is tried on a bad sample too."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re

import jinja2
import pytest
import yaml
from ansible_collections.redisops.recovery.plugins.plugin_utils.asked import (
    PLAYBOOK_OPTIONS,
    is_mode,
    misread,
    options_of_roles,
)
from jinja2 import nodes

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
WITH_PLAYS = sorted((ROOT / "playbooks").rglob("*.yml"))
ROLE_FILES = sorted(
    path for part in ("tasks", "handlers", "defaults", "vars") for path in (ROOT / "roles").glob(f"*/{part}/**/*.yml")
)
TEMPLATES = sorted([*(ROOT / "roles").rglob("*.j2"), *(ROOT / "playbooks").rglob("*.j2")])
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
BOOLEANS = {name for name, option in {**options_of_roles(), **PLAYBOOK_OPTIONS}.items() if option.get("type") == "bool"}
#: What our own plays tell our own roles.
INTERNAL = {"redisops_only_look", "redisops_only_ask", "redisops_rest"}
CONDITIONS = {"when", "failed_when", "changed_when", "until", "that"}
#: Tasks of roles that change data, or who is what, when they are not included to look.
CHANGING = {"restore", "rewind", "repair", "switchover", "retire"}
#: These have the default all the same: writes go on, each step is verified before the next, and a run that has nothing due does nothing.
WITH_DEFAULT = {"rolling_restart", "rolling_upgrade"}
#: These give a place in the set away by roles that others use as well.
WITHOUT_DEFAULT = {"replace_host"}


def names_of(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or []


def tasks_in(node):
    """Every mapping at any depth that is a task or a block."""
    if isinstance(node, list):
        return [task for item in node for task in tasks_in(item)]
    if isinstance(node, dict):
        inner = [task for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always") for task in tasks_in(node.get(key))]  # fmt: skip
        return ([] if "hosts" in node else [node]) + inner
    return []


# --- strategy ---------------------------------------------------------------------------------------------------------


def without_strategy(plays):
    """run_once and any_errors_fatal are nothing to another strategy: free would switch over once for each host."""
    return [play.get("name") for play in plays if "hosts" in play and play.get("strategy") != "ansible.builtin.linear"]


@pytest.mark.parametrize("path", WITH_PLAYS, ids=names_of(WITH_PLAYS))
def test_every_play_says_its_strategy(path):
    assert without_strategy(load(path)) == []


def test_a_play_without_a_strategy_is_seen():
    assert without_strategy([{"name": "a", "hosts": "redis"}, {"name": "b", "hosts": "x", "strategy": "free"}]) == ["a", "b"]  # fmt: skip


# --- what happens on the controller ------------------------------------------------------------------------------------


def that_become_by_inventory(tasks):
    """The variable ansible_become wins over the keyword, so whoever must not become says both."""
    found = []
    for task in tasks:
        here = task.get("delegate_to") in ("localhost", "127.0.0.1") or "local_action" in task
        if not here and task.get("become") is not False and task.get("connection") != "local":
            continue
        told = task.get("vars") or {}
        become = task.get("become") is not False or told.get("ansible_become") is not False
        if become or (here and told.get("ansible_connection") != "local"):
            found.append(task.get("name"))
    return found


@pytest.mark.parametrize("path", [*WITH_PLAYS, *ROLE_FILES], ids=names_of([*WITH_PLAYS, *ROLE_FILES]))
def test_nobody_becomes_on_the_controller(path):
    content = load(path)
    assert that_become_by_inventory(tasks_in(content)) == []
    if isinstance(content, list):
        local = [play for play in content if play.get("connection") == "local" or play.get("hosts") == "localhost"]
        assert that_become_by_inventory([{"connection": "local", **play} for play in local]) == []


@pytest.mark.parametrize(
    "task",
    [
        {"delegate_to": "localhost"},
        {"delegate_to": "localhost", "become": False},
        {"delegate_to": "localhost", "become": False, "vars": {"ansible_connection": "local"}},
        {"delegate_to": "localhost", "become": False, "vars": {"ansible_become": False}},
        {"become": False},
        {"connection": "local"},
    ],
)
def test_who_would_become_is_seen(task):
    assert that_become_by_inventory(tasks_in([{"hosts": "x", "tasks": [{"block": [{"name": "t", **task}]}]}])) == ["t"]


# --- booleans ---------------------------------------------------------------------------------------------------------


def untold(text, booleans, condition=False, kept_as=""):
    """Names of booleans that ``text`` asks without ``| bool``, so that the text "false" is true.

    What is only passed on, to a module or to another boolean (``kept_as``), is asked there.
    """
    tree = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(
        "{{ %s }}" % text if condition else text
    )
    parents = {child: node for node in tree.find_all(nodes.Node) for child in node.iter_child_nodes()}
    parents.update(dict.fromkeys(tree.iter_child_nodes(), tree))
    found = set()
    for name in tree.find_all(nodes.Name):
        node, filters = name, []
        while isinstance(parents[node], nodes.Filter) and parents[node].node is node:
            node = parents[node]
            filters.append(node.name)
        output = parents[node]
        alone = isinstance(output, nodes.Output) and len(output.nodes) == 1 and len(tree.body) == 1
        passed_on = alone and not condition and (not kept_as or kept_as in booleans)
        if name.name in booleans and "bool" not in filters and not passed_on:
            found.add(name.name)
    return sorted(found)


def untold_in(node, booleans, key="", keeps=False):
    """The same for everything below a piece of YAML. ``keeps`` where keys are names of variables."""
    if isinstance(node, dict):
        return {
            name
            for inner, value in node.items()
            for name in untold_in(value, booleans, str(inner), key in ("vars", "ansible.builtin.set_fact") or (keeps and not key))
        }  # fmt: skip
    if isinstance(node, list):
        return {name for value in node for name in untold_in(value, booleans, key, keeps)}
    if isinstance(node, str) and (key in CONDITIONS or "{{" in node or "{%" in node):
        return set(untold(node, booleans, key in CONDITIONS and "{{" not in node, key if keeps else ""))
    return set()


@pytest.mark.parametrize("path", [*WITH_PLAYS, *ROLE_FILES], ids=names_of([*WITH_PLAYS, *ROLE_FILES]))
def test_text_that_says_false_is_false(path):
    assert untold_in(load(path), BOOLEANS | INTERNAL, keeps=path.parent.name in ("defaults", "vars")) == set()


@pytest.mark.parametrize("path", TEMPLATES, ids=names_of(TEMPLATES))
def test_text_that_says_false_is_false_in_templates(path):
    assert untold(path.read_text(encoding="utf-8"), BOOLEANS) == []


@pytest.mark.parametrize(
    "node",
    [
        {"when": "yes_no"},
        {"when": ["a | length > 0", "yes_no and a"]},
        {"when": "not yes_no"},
        {"failed_when": "x.failed and not yes_no | default(false)"},
        {"ansible.builtin.assert": {"that": "yes_no | default(true)"}},
        {"redis_x": {"state": "{{ 'present' if yes_no else 'absent' }}"}},
        {"redis_x": {"checked": "{{ a == 'vendor' or not yes_no }}"}},
        {"block": [{"vars": {"other": "{{ yes_no }}"}}]},
        {"ansible.builtin.set_fact": {"other": "{{ yes_no }}"}},
        {"redis_x": {"text": "{% if yes_no %}Trusted: yes{% endif %}"}},
        {"when": "yes_no == true"},
    ],
)
def test_a_boolean_that_is_not_read_as_one_is_seen(node):
    assert untold_in([{"name": "t", **node}], {"yes_no"}) == {"yes_no"}


@pytest.mark.parametrize(
    "node",
    [
        {"when": "yes_no | bool"},
        {"when": "yes_no | default(true) | bool and a"},
        {"when": "not yes_no | bool"},
        {"redis_x": {"enabled": "{{ yes_no }}", "other": "{{ yes_no | default(false) }}"}},
        {"vars": {"yes_no": "{{ yes_no }}"}},
        {"name": "what yes_no says"},
    ],
)
def test_a_boolean_that_is_read_as_one_is_left_alone(node):
    assert untold_in([{"name": "t", **node}], {"yes_no"}) == set()


def booleans_by_default(text, condition=False):
    """Names of playbook variables that fall back on true or false."""
    tree = jinja2.Environment().parse("{{ %s }}" % text if condition else text)
    return {
        node.node.name
        for node in tree.find_all(nodes.Filter)
        if node.name in ("default", "d") and isinstance(node.node, nodes.Name) and node.node.name.startswith("redisops_")
        if node.args and isinstance(node.args[0], nodes.Const) and isinstance(node.args[0].value, bool)
    }  # fmt: skip


def strings_in(node, key=""):
    if isinstance(node, dict):
        return [pair for inner, value in node.items() for pair in strings_in(value, str(inner))]
    if isinstance(node, list):
        return [pair for value in node for pair in strings_in(value, key)]
    return [(key, node)] if isinstance(node, str) and (key in CONDITIONS or "{{" in node) else []


def test_every_boolean_of_a_playbook_is_looked_at_before_anything_changes():
    found = {
        name
        for path in [*WITH_PLAYS, *ROLE_FILES]
        for key, text in strings_in(load(path))
        for name in booleans_by_default(text, key in CONDITIONS and "{{" not in text)
    }
    assert found - INTERNAL == set(PLAYBOOK_OPTIONS)
    assert booleans_by_default("a and redisops_new_one | default(true) | bool", True) == {"redisops_new_one"}


# --- what is said of text that is neither --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [True, False, "true", "false", "yes", "no", "on", "off", "1", "0", 1, 0, "True", None]
)
def test_what_is_a_boolean(value):
    assert misread("redis_backup_enabled", value, {"type": "bool"}) == []


@pytest.mark.parametrize("value", ["flase", "", "maybe", 2, [], {}, "nein"])
def test_what_is_no_boolean_is_said_once(value):
    assert misread("redis_backup_enabled", value, {"type": "bool"}) == [
        f"redis_backup_enabled is {value!r}, which is neither yes nor no. Do: set it to true or false."
    ]


def test_booleans_inside_are_found():
    options = options_of_roles()
    users = [{"name": "a", "nopass": "no"}, {"name": "b", "enabled": "flase"}]
    said = misread("redis_acl_users", users, options["redis_acl_users"])
    assert [sentence.split(" is ")[0] for sentence in said] == ["redis_acl_users[1].enabled"]
    said = misread("redis_server_login", {"tls": "ture", "login_password": "S3cret"}, options["redis_server_login"])
    assert [sentence.split(" is ")[0] for sentence in said] == ["redis_server_login.tls"]


def test_modes_are_found():
    options = options_of_roles()
    for name, good, bad in (
        ("redis_server_data_mode", 0o660, "432"),
        ("redis_server_dir_mode", "0750", "0660"),
        ("redis_tls_key_mode", "0400", "416"),
        ("redis_service_umask", 0o007, "23"),
    ):
        assert misread(name, good, options[name]) == []
        (sentence,) = misread(name, bad, options[name])
        assert f"Do: set {name}: " in sentence


# --- modes ------------------------------------------------------------------------------------------------------------


def modes_of(spec):
    return {
        name
        for name, option in spec.items()
        if (name == "mode" or is_mode(name, option)) and "choices" not in option and option.get("type") != "bool"
    }


def parsed_modes(source):
    """Options that a module gives to the one parser, itself or by a function of its own that does."""
    tree = ast.parse(source)
    parsers = {"parse_mode"} | {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and any(getattr(getattr(node, "func", None), "id", "") == "parse_mode" for node in ast.walk(function))
    }  # fmt: skip
    return {
        node.args[0].slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in parsers and node.args
        if isinstance(node.args[0], ast.Subscript) and isinstance(node.args[0].slice, ast.Constant)
    }  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_every_mode_goes_through_the_one_parser(name):
    module = importlib.import_module(f"ansible_collections.redisops.recovery.plugins.modules.{name}")
    source = (ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8")
    modes = modes_of(module.SPEC)
    assert modes <= parsed_modes(source)
    assert {module.SPEC[mode]["type"] for mode in modes} <= {"raw"}, "as text, 0660 without quotes becomes 432"


def test_modes_of_modules_and_roles_are_seen_at_all():
    found = {
        (name, mode)
        for name in MODULES
        for mode in modes_of(importlib.import_module(f"ansible_collections.redisops.recovery.plugins.modules.{name}").SPEC)
    }  # fmt: skip
    assert len(found) == 7
    assert modes_of({"file_mode": {"type": "str"}, "fast_mode": {"choices": ["a"]}, "dark_mode": {"type": "bool"}}) == {"file_mode"}  # fmt: skip
    assert parsed_modes("x = int(params['file_mode'], 8)") == set()
    assert parsed_modes("def key(given):\n    return parse_mode(given)\n\nkey(params['file_mode'])") == {"file_mode"}


def test_modes_of_roles_keep_their_type():
    modes = {name: option for name, option in options_of_roles().items() if is_mode(name, option)}
    assert len(modes) > 6
    assert {name for name, option in modes.items() if option.get("type") != "raw"} == set()


# --- hosts ------------------------------------------------------------------------------------------------------------


def has_no_default(name, plays):
    return name in WITHOUT_DEFAULT or (name not in WITH_DEFAULT and changes_data(plays))


def changes_data(plays, folder=ROOT / "playbooks"):
    """Whether a playbook, or one that it imports, changes data or who is what."""
    for play in plays:
        imported = str(play.get("ansible.builtin.import_playbook", "")).removeprefix("redisops.recovery.")
        if imported and changes_data(load(folder / f"{imported.removesuffix('.yml')}.yml")):
            return True
        for task in tasks_in([play]):
            asked = task.get("ansible.builtin.include_role") or {}
            if asked.get("tasks_from") in CHANGING and "check_mode" not in (asked.get("apply") or {}):
                return True
    return False


def faults_of_hosts(name, plays):
    """What a playbook lacks to end with an error where nobody is meant, or nobody was named."""
    found = []
    guard = plays[0] if plays else {}
    told = guard.get("vars") or {}
    if guard.get("ansible.builtin.import_playbook") != "shared/asked.yml" or told.get("__redisops_playbook") != name:
        found.append("it does not begin with shared/asked.yml")
    named = has_no_default(name, plays)
    for place, default in [
        (told.get("__redisops_targets", ""), "''"),
        *((play.get("hosts", ""), "[]") for play in plays),
    ]:
        wanted = f"redisops_hosts | default({default if named else chr(39) + 'redis' + chr(39)})"
        if "redisops_hosts" in place and wanted not in place:
            found.append(f"{place} is not {wanted}")
    return found


@pytest.mark.parametrize("path", PLAYBOOKS, ids=names_of(PLAYBOOKS))
def test_every_playbook_insists_on_hosts(path):
    assert faults_of_hosts(path.stem, load(path)) == []


def test_who_changes_data_has_no_hosts_of_its_own():
    assert {path.stem for path in PLAYBOOKS if has_no_default(path.stem, load(path))} == {
        "remove_host", "repair", "replace_host", "restore", "restore_cluster", "restore_rollback", "switchover", "undo_flushall",
    }  # fmt: skip


def test_a_playbook_that_does_not_insist_is_seen():
    guard = {"ansible.builtin.import_playbook": "shared/asked.yml", "vars": {"__redisops_playbook": "new", "__redisops_targets": "{{ redisops_hosts | default('redis') }}"}}  # fmt: skip
    play = {"hosts": "{{ redisops_hosts | default('redis') }}"}
    assert faults_of_hosts("new", [guard, play]) == []
    assert faults_of_hosts("other", [guard, play]) == ["it does not begin with shared/asked.yml"]
    assert faults_of_hosts("new", [play]) == ["it does not begin with shared/asked.yml"]
    restores = {"tasks": [{"block": [{"ansible.builtin.include_role": {"name": "x", "tasks_from": "restore"}}]}]}
    assert len(faults_of_hosts("new", [guard, {**play, **restores}])) == 2


# --- lookups ----------------------------------------------------------------------------------------------------------

LOOKUPS = sorted(path.stem for path in (ROOT / "plugins" / "lookup").glob("*.py"))


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_are_documented_and_used(name):
    module = importlib.import_module(f"ansible_collections.redisops.recovery.plugins.lookup.{name}")
    documented = yaml.safe_load(module.DOCUMENTATION)
    assert {"name", "short_description", "version_added", "author", "description", "options"} <= set(documented)
    assert documented["name"] == name
    assert all(option["description"] for option in documented["options"].values())
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)["_raw"]["description"]
    assert any(f"redisops.recovery.{name}'" in path.read_text() for path in WITH_PLAYS)


# --- check mode -------------------------------------------------------------------------------------------------------

CHECK = re.compile(r"\bansible_check_mode\b(?! or redisops_only_look\b)")


@pytest.mark.parametrize("path", names_of(ROLE_FILES))
def test_a_role_in_check_mode_knows_it(path):
    """ansible_check_mode says --check alone; a play or an include that has ``check_mode: true`` says redisops_only_look."""
    assert not CHECK.search((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "book", [path for path in WITH_PLAYS if "\n  check_mode: true\n" in path.read_text(encoding="utf-8")], ids=str
)
def test_a_play_in_check_mode_says_so(book):
    plays = [play for play in load(book) if play.get("check_mode")]
    assert plays
    assert all(play.get("vars", {}).get("redisops_only_look") is True for play in plays)
