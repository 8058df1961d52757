# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ACL rules add up to."""

from __future__ import annotations

import ast
import hashlib
import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.acl.presets import LINK, OURS, PRESETS, SENTINEL
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import (
    CommandTable,
    allows,
    file_lines,
    hash_of,
    parse_line,
    shown,
    split_rules,
    user_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

ROOT = pathlib.Path(__file__).resolve().parents[5]
#: A server in small: what ACL CAT answers, sub-commands and their container alike.
TABLE = CommandTable(
    {
        "read": frozenset(["get", "mget", "keys"]),
        "write": frozenset(["set", "del", "flushall"]),
        "dangerous": frozenset(["flushall", "keys", "config|get", "config|set"]),
        "admin": frozenset(["config|get", "config|set"]),
        # Redis says of the container itself that it is slow; with it come all its sub-commands.
        "slow": frozenset(["keys", "config", "config|get", "config|set"]),
        "fast": frozenset(["ping", "config|info"]),
        "connection": frozenset(["ping", "select"]),
    }
)
A, B = "#" + "a" * 64, "#" + "b" * 64


def user(text):
    return user_of(split_rules(text), TABLE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("on +get +set", "on +set +get"),
        ("on +@read +@write -@dangerous", "on +@write +@read -@dangerous"),
        ("on +@all -@dangerous +@dangerous -flushall -keys -config|get -config|set", "on +@all -@dangerous"),
        ("on allcommands", "on +@all"),
        ("on allkeys", "on ~*"),
        ("on %RW~a", "on ~a"),
        ("on %R~a %W~a", "on ~a"),
        ("on allchannels", "on &*"),
        ("on &a allchannels", "on &*"),
        ("on ~a ~b", "on ~b ~a"),
        ("on +config", "on +config|get +config|set +config|info"),
        ("on +@slow", "on +keys +config|get +config|set +config|info"),
        (f"on {A} {B}", f"on {B} {A}"),
        (f"on {A} nopass", "on nopass"),
        (f"on {A} {B} !{'b' * 64}", f"on {A}"),
        ("on (~a +get) (~b +set)", "on (~b +set) (~a +get)"),
        ("on +GET +@READ", "on +@read"),
        ("on sanitize-payload resetchannels -@all +get", "on +get"),
        ("on +get reset on +set", "on +set"),
        ("on +@all +select|0", "on +@all"),
        ("on +select|0 -select", "on"),
        (">x on", f"on #{hashlib.sha256(b'x').hexdigest()}"),
        (f">{A} on", f"on #{hashlib.sha256(A.encode()).hexdigest()}"),
        ("on +select|0 -@connection", "on"),
        ("on +select|0 +@connection -@connection", "on"),
        ("on +config|info", "on +@fast +config|info -ping"),
        ("on +@all -@slow", "on +@all -keys -config"),
        ("on +@all -get +get", "on +@all"),
        ("on +@all -get", "on +@all -@read +mget +keys"),
        ("on %RW~* ~a", "on ~*"),
    ],
)
def test_the_same_user(one, other):
    assert user(one) == user(other)
    assert user(one).unknown == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("on", "off"),
        ("on nopass", "on"),
        (f"on {A}", f"on {B}"),
        ("on ~a", "on ~A"),
        ("on ~a", "on %R~a"),
        ("on &a", "on ~a"),
        ("on +get", "on +get +set"),
        ("on +config", "on +config|get"),
        ("on +get (~a +set)", "on +get +set ~a"),
        ("on +select|0", "on +select|1"),
        ("on +select|0", "on +select"),
        ("on skip-sanitize-payload", "on"),
        ("on +@all", "on +@read +@write +@dangerous +@admin +@slow +@connection"),  # what a module may yet bring
        ("on -@dangerous +@read", "on +@read -@dangerous"),
        ("on +@all -get", "on +set +@admin +@slow +@connection +mget +del +flushall +config +ping"),
    ],
)
def test_another_user(one, other):
    assert user(one) != user(other)


@pytest.mark.parametrize(
    "rule", ["+nosuch", "-nosuch", "+@nosuch", "+config|nosuch", "+nosuch|x", "rubbish", "(+get +nosuch)"]
)
def test_what_the_server_does_not_know_is_named(rule):
    assert user(f"on {rule}").unknown != ()


def test_lines_of_a_file():
    text = f"user a on {A} ~x +get\n\nuser b off (~y +set) +get\n"
    assert file_lines(text, "f") == {"a": ("on", A, "~x", "+get"), "b": ("off", "(~y +set)", "+get")}
    assert parse_line("   ") is None
    for broken in ("# comment", "usr a on", "user", "user a on\nuser a off", "user a (+get"):
        with pytest.raises(Problem) as caught:
            file_lines(broken, "users.acl")
        assert "users.acl line" in caught.value.message()


def test_hashes_are_taken_as_they_are():
    assert hash_of("pw") == hashlib.sha256(b"pw").hexdigest()
    assert hash_of(A) == "a" * 64
    assert hash_of("#" + "A" * 64) == "a" * 64
    assert hash_of("a" * 64) == hashlib.sha256(b"a" * 64).hexdigest()
    assert hash_of("#short") == hashlib.sha256(b"#short").hexdigest()


def test_what_is_shown_holds_no_secret():
    text = shown(("on", A, ">plain", "!" + "b" * 64, "<other", "~x", "+get"), ["a" * 64])
    assert "a" * 8 not in text
    assert "plain" not in text
    assert "other" not in text.replace("others", "").replace("3 not declared", "")
    assert text.startswith("on [4 passwords, 3 not declared]")
    assert shown(("on", "nopass", "~x")) == "on nopass ~x"
    assert shown(("on", A), ["a" * 64]) == "on [1 password]"


def test_rights_of_selectors_count():
    assert allows(user("on +get (~a +set)"), ["get", "set", "del", "config|get"]) == ["del", "config|get"]


def test_this_collection_asks_for_all_that_it_sends():
    """Every command that is spelled in the code has to be in the list that a login is judged by."""
    sent = set()
    # These speak to temporary servers, where everybody may do all; or ask for what a backup does without where it is not allowed.
    scratch = {
        "persistence/file_check.py",
        "persistence/test_load.py",
        "backup/verify.py",
        "restore/swap.py",
        "backup/fingerprint.py",
        "backup/structure_reader.py",
        "backup/expiries_reader.py",
        "backup/create.py",
    }
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        if "/".join(path.parts[-2:]) in scratch:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("command", "_command"):
                words = [
                    arg.value.lower()
                    for arg in node.args
                    if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                ]
                if words and words[0] != "sentinel":  # those go to a Sentinel
                    sent.add(tuple(words))
    containers = {name.split("|")[0] for name in OURS if "|" in name}
    names = {words[0] + ("|" + words[1] if words[0] in containers else "") for words in sent}
    assert len(names) > 10
    assert names <= set(OURS), names - set(OURS)


def test_presets_hold_no_more_than_their_task():
    assert {rule for rule in PRESETS["replication"] if rule[0] == "+"} == {f"+{name}" for name in LINK}
    assert {rule for rule in PRESETS["sentinel"] if rule[0] == "+"} == {f"+{name}" for name in SENTINEL}
    for name in ("health", "persistence", "monitoring", "replication", "sentinel"):
        assert PRESETS[name].count("-@all") == 1
        assert not any(rule.startswith("+@") or "~" in rule for rule in PRESETS[name])


def test_words_are_what_redis_takes_for_words():
    """Other white space than ASCII's belongs to the word, and ends no line."""
    name, pattern = "caf\u00e9\u00a0bar", "~a\u2003b\x1cc\x85d"
    assert parse_line(f"user {name} on {pattern} +get") == (name, ("on", pattern, "+get"))
    assert file_lines(f"user {name} on {pattern} +get\n\n\tuser b\t off\r\n", "f") == {
        name: ("on", pattern, "+get"),
        "b": ("off",),
    }


def test_a_file_gives_hashes_for_passwords():
    hashed = hashlib.sha256(b"pw").hexdigest()
    assert parse_line("user u on >pw <pw ~a") == ("u", ("on", f"#{hashed}", f"!{hashed}", "~a"))


def test_who_is_made_anew_may_have_all_channels():
    """acl-pubsub-default allchannels."""
    table = CommandTable(TABLE.categories, all_channels=True)
    assert user_of(("on", "+get"), table) == user_of(("on", "&*", "+get"), TABLE)
    assert user_of(("on", "(+get)", "resetchannels"), table) == user_of(("on", "(&* +get)"), TABLE)
    assert user_of(("on", "resetchannels", "&a"), table) == user_of(("on", "&a"), TABLE)
