# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACL rules and their normal form.

What a rule allows is worked out as Redis does it (``ACLSetUser`` and ``ACLSetSelector``), command by command, from the server's
own categories. So order, ``+@all -@dangerous`` phrasing and the way a server version prints its users make no difference; what
a user may do does.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = [
    "Acl", "CommandTable", "Selector", "User", "allows", "file_lines", "hash_of", "join_selectors", "parse_line", "shown", "split_rules",
    "stored", "user_of", "words_of",
]  # fmt: skip

_HASH = re.compile(r"#([0-9a-fA-F]{64})")
#: What separates words for Redis; Python's own idea of white space is wider.
_SPACES = re.compile(r"[ \t\r\n\v\f]+")
#: Tokens that carry a password, or its hash.
_SECRET = ("#", ">", "<", "!")


@dataclasses.dataclass(frozen=True)
class CommandTable:
    """The server's commands by category, sub-commands as ``config|get`` (``ACL CAT`` of each).

    Of a command that has sub-commands only those count: the name alone cannot be run.
    """

    categories: t.Mapping[str, frozenset[str]]
    #: acl-pubsub-default: whether who is made anew may use all channels.
    all_channels: bool = False

    @functools.cached_property
    def everything(self) -> frozenset[str]:
        found = frozenset().union(*self.categories.values())
        return found - {name.split("|")[0] for name in found if "|" in name}

    @functools.cached_property
    def _families(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for name in self.everything:
            for key in {name, name.split("|")[0]}:
                found.setdefault(key, set()).add(name)
        return {name: frozenset(family) for name, family in found.items()}

    def of(self, name: str) -> frozenset[str]:
        """The command itself and, of a container, all its sub-commands; empty where the server has no such command."""
        return self._families.get(name, frozenset())

    def category(self, name: str) -> t.Optional[frozenset[str]]:
        """What ``@name`` stands for: with a container come all its sub-commands. None where there is no such category."""
        if name not in self.categories:
            return None
        return frozenset().union(*map(self.of, self.categories[name]))


@dataclasses.dataclass(frozen=True)
class Selector:
    """One set of permissions: keys as (pattern, "RW"), channels, commands.

    ``future``: commands that a module may yet bring are allowed (``+@all``, whatever is taken away behind it). ``first_args``:
    ``select|0``, the command with that first argument.
    """

    keys: frozenset[tuple[str, str]] = frozenset()
    channels: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()
    future: bool = False
    first_args: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class User:
    """What one user may do. ``unknown`` holds rules that name no command or category of this server."""

    enabled: bool = False
    nopass: bool = False
    passwords: frozenset[str] = frozenset()
    sanitize_payload: bool = True
    root: Selector = Selector()
    selectors: frozenset[Selector] = frozenset()
    unknown: tuple[str, ...] = ()


#: Users by name, each as the words that make it, the way a line of an ACL file has them behind the name.
Acl = dict[str, tuple[str, ...]]


def hash_of(password: str) -> str:
    """The SHA-256 that Redis keeps of a password; one that is given as ``#`` and 64 hexadecimal digits is taken as it is."""
    given = _HASH.fullmatch(password)
    return given.group(1).lower() if given else _sha256(password)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def words_of(text: str) -> list[str]:
    """Split as Redis does."""
    return [word for word in _SPACES.split(text) if word]


def split_rules(text: str) -> tuple[str, ...]:
    """One line of rules as words; a selector in parentheses is one. Raises Problem."""
    return join_selectors(words_of(text))


def join_selectors(given: t.Iterable[str]) -> tuple[str, ...]:
    """Words of rules, with those of a selector in parentheses as one. Raises Problem."""
    words: list[str] = []
    for word in given:
        if words and words[-1].startswith("(") and not words[-1].endswith(")"):
            words[-1] += " " + word
        else:
            words.append(word)
    if words and words[-1].startswith("(") and not words[-1].endswith(")"):
        raise Problem(
            "acl_rule",
            f"the selector {words[-1]!r} has no closing parenthesis",
            "a selector in parentheses",
            "correct rules",
        )
    return tuple(words)


def parse_line(line: str) -> t.Optional[tuple[str, tuple[str, ...]]]:
    """Name and rules of a line ``user NAME RULES``; None for an empty one. Raises Problem for anything else."""
    if "\0" in line:
        raise Problem("acl_file", "an ACL file holds a line with a NUL, behind which Redis reads nothing of it")
    words = words_of(line)
    if not words:
        return None
    if words[0].lower() != "user" or len(words) < 2:
        raise Problem("acl_file", f"an ACL file holds a line that does not begin with user: {words[0]!r}")
    if line.strip(" \t\r\n")[len(words[0]) :].startswith(
        "  "
    ):  # Redis takes what stands between two spaces for the name: nothing
        words.insert(1, "")
    return words[1], stored(join_selectors(words[2:]))


def stored(words: t.Iterable[str]) -> tuple[str, ...]:
    """The rules with the hash of each password in its place, as Redis itself keeps them."""
    hashed = {">": "#", "<": "!"}
    return tuple(hashed[word[0]] + _sha256(word[1:]) if word[0] in hashed else word for word in words)


def file_lines(text: str, path: str) -> Acl:
    """The users of an ACL file. Raises Problem where Redis would refuse it."""
    users: Acl = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found = parse_line(line)
        except Problem as problem:
            raise Problem(
                "acl_file", f"{path} line {number}: {problem.detected}", "lines that begin with user (an ACL file takes no comments)",
                f"correct line {number} of {path}",
            ) from None  # fmt: skip
        if found and found[0] in users:
            raise Problem(
                "acl_file", f"{path} line {number}: user {found[0]} stands there twice", "one line a user", f"take one of them out of {path}",
            )  # fmt: skip
        if found:
            users[found[0]] = found[1]
    return users


class _Building:
    """A selector while its rules are applied."""

    def __init__(self, table: CommandTable) -> None:
        self.table = table
        self.keys: dict[str, set[str]] = {}
        self.channels: set[str] = {"*"} if table.all_channels else set()
        self.commands: set[str] = set()
        self.first_args: set[str] = set()
        self.future = False
        self.unknown: list[str] = []

    def apply(self, word: str) -> bool:
        """Apply one rule; False if it is none of a selector's."""
        low = word.lower()
        key = re.fullmatch(r"(?:%([RW]{1,2}))?~(.*)", word, re.S | re.I)
        if low in ("allkeys", "~*"):
            self.keys = {"*": {"R", "W"}}
        elif low == "resetkeys":
            self.keys = {}
        elif key:
            self.keys.setdefault(key.group(2), set()).update((key.group(1) or "RW").upper())
        elif low in ("allchannels", "&*"):
            self.channels = {"*"}
        elif low == "resetchannels":
            self.channels = set()
        elif word.startswith("&"):
            self.channels.add(word[1:])
        elif low in ("allcommands", "+@all"):
            self.commands, self.first_args, self.future = set(self.table.everything), set(), True
        elif low in ("nocommands", "-@all"):
            self.commands, self.first_args, self.future = set(), set(), False
        elif word[:1] in "+-" and len(word) > 1:
            self._command(low)
        else:
            return False
        return True

    def _command(self, rule: str) -> None:
        adds, name = rule[0] == "+", rule[1:]
        found = self.table.category(name[1:]) if name.startswith("@") else self.table.of(name) or None
        parent, _bar, argument = name.partition("|")
        if found is None and argument and adds and self.table.of(parent) == {parent}:
            self.first_args.add(name)
        elif found is None:
            self.unknown.append(rule)
        else:
            self.commands = self.commands | found if adds else self.commands - found
            # Whatever is stated of a command, its first arguments are forgotten.
            self.first_args = {entry for entry in self.first_args if entry.split("|")[0] not in found}

    def done(self) -> Selector:
        # "*" with both permissions is every key, whatever stands next to it.
        patterns = {"*": self.keys["*"]} if len(self.keys.get("*", "")) == 2 else self.keys
        keys = frozenset((pattern, "".join(sorted(flags))) for pattern, flags in patterns.items())
        first = frozenset(entry for entry in self.first_args if entry.split("|")[0] not in self.commands)
        return Selector(keys, frozenset(self.channels), frozenset(self.commands), self.future, first)


class _UserBuilding:
    """A new user, while its rules are applied in order."""

    def __init__(self, table: CommandTable) -> None:
        self._table = table
        self.unknown: list[str] = []
        self.reset()

    def reset(self) -> None:
        self.enabled, self.sanitize = False, True
        self.root: _Building = _Building(self._table)
        self.selectors: set[t.Any] = set()
        self.reset_passwords()

    def reset_passwords(self, nopass: bool = False) -> None:
        self.nopass: bool = nopass
        self.passwords: set[str] = set()

    def _password(self, word: str) -> bool:
        if word[0] in "#>":
            self.nopass = False
            self.passwords.add(word[1:] if word[0] == "#" else _sha256(word[1:]))
        elif word[0] in "!<":
            self.passwords.discard(word[1:] if word[0] == "!" else _sha256(word[1:]))
        else:
            return False
        return True

    def _selector(self, word: str) -> bool:
        if word[0] != "(" or word[-1] != ")":
            return False
        inner = _Building(self._table)
        self.unknown += [rule for rule in word[1:-1].split() if not inner.apply(rule)] + inner.unknown
        self.selectors.add(inner.done())
        return True

    def _flag(self, low: str) -> bool:
        if low in ("on", "off"):
            self.enabled = low == "on"
        elif low in ("nopass", "resetpass"):
            self.reset_passwords(nopass=low == "nopass")
        elif low == "reset":
            self.reset()
        elif low in ("sanitize-payload", "skip-sanitize-payload"):
            self.sanitize = low == "sanitize-payload"
        elif low == "clearselectors":
            self.selectors = set()
        else:
            return False
        return True

    def apply(self, word: str) -> None:
        if not (self._flag(word.lower()) or self._password(word) or self._selector(word) or self.root.apply(word)):
            self.unknown.append(word)


def user_of(words: t.Iterable[str], table: CommandTable) -> User:
    """What the rules, applied in order to a new user, add up to."""
    user = _UserBuilding(table)
    for word in words:
        user.apply(word)
    return User(
        user.enabled,
        user.nopass,
        frozenset(user.passwords),
        user.sanitize,
        user.root.done(),
        frozenset(user.selectors),
        tuple(user.unknown + user.root.unknown),
    )


def allows(user: User, commands: t.Iterable[str]) -> list[str]:
    """Those of ``commands`` that the user may NOT run, whatever its keys."""
    may = user.root.commands.union(*(selector.commands for selector in user.selectors))
    return [name for name in commands if name not in may]


def shown(words: t.Iterable[str], declared: t.Collection[str] = ()) -> str:
    """The rules without passwords or hashes: how many there are, and how many of them are ``declared`` (hashes).

    Without sanitize-payload, too: it is the default, and 7.0 says so of some users only.
    """
    kept, hashes = [], set()
    for word in words:
        if word[0] in _SECRET:
            hashes.add(word[1:] if word[0] in "#!" else _sha256(word[1:]))
        elif word.lower() != "sanitize-payload":
            kept.append(word)
    others = len(hashes - set(declared))
    passwords = []
    if hashes:
        passwords = [
            f"[{len(hashes)} password{'s' if len(hashes) > 1 else ''}{f', {others} not declared' if others else ''}]"
        ]
    return " ".join(kept[:1] + passwords + kept[1:])
