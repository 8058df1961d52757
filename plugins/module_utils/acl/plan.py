# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the users that are there to the users that are declared."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.presets import LINK, OURS, PRESETS, SENTINEL
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import (
    Acl,
    CommandTable,
    User,
    allows,
    hash_of,
    shown,
    split_rules,
    user_of,
    words_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal

__all__ = [
    "AclPlan",
    "AclState",
    "Dependent",
    "Scope",
    "declared_users",
    "dependents_of",
    "may_serve",
    "plan_acl",
    "removed_passwords",
    "render_file",
    "replays",
    "replication_login",
    "require_dependents",
    "require_own_login",
    "require_replays",
    "require_typable",
]  # fmt: skip

#: Off is out, whatever its rights; it keeps them all, because Redis replays the transactions of its AOF as this user (see require_replays).
DEFAULT_USER = {
    "off": ("off", "~*", "&*", "+@all"),
    "restricted": ("on", "nopass", "resetchannels", "-@all", "+ping"),
}
#: Words that have options of their own.
_NOT_RULES = frozenset(["on", "off", "nopass", "resetpass", "reset", "clearselectors"])
_NEEDS = {"replica": LINK, "sentinel": SENTINEL}


def _rule(name: str, detected: str, do: str) -> Problem:
    return Problem("acl_rule", f"user {name}: {detected}", "rules as ACL SETUSER takes them", do)


def require_typable(what: str, text: t.Optional[str], do: str) -> None:
    """No control character is in a password: it would be one that nobody can type, most often of the line end of a file. Raises Problem."""
    found = next((char for char in text or "" if ord(char) < 32 or ord(char) == 127), None)
    if found is not None:
        raise Problem(
            "invalid_value",
            f"{what} holds a control character ({found!r}), as a file's line end that came along",
            "a password as people and clients give it",
            f"{do}; a lookup takes rstrip=true, a vault or a secret store is to hold no newline",
        )


def _require_rules(name: str, rules: t.Sequence[str], preset: t.Optional[str]) -> None:
    """Rules say what a user may, and nothing that an option of its own says. Raises Problem."""
    for word in rules:
        if word.lower() in _NOT_RULES or word[0] in "#><!":
            what = f"{word[0]}…" if word[0] in "#><!" else word
            raise _rule(name, f"rules holds {what}", "say enabled, passwords and nopass by their own options")
    if preset == "application" and not any("~" in word or word.lower() == "allkeys" for word in rules):
        raise _rule(
            name, "the preset application leaves the keys to you, and rules names none", 'add rules: ["~app:*"], or ["~*"] for every key',
        )  # fmt: skip


def _require_way_in(name: str, user: t.Mapping[str, t.Any], passwords: t.Sequence[str]) -> None:
    """Who is enabled can log in, in one way. Raises Problem."""
    if user["nopass"] and passwords:
        raise Problem("contradiction", f"user {name} has passwords, and nopass", "one of them", f"correct user {name}")
    if user["enabled"] and not user["nopass"] and not passwords:
        raise Problem(
            "acl_no_password", f"user {name} is enabled and has no password: nobody could log in as {name}", "a way in",
            "set passwords, or nopass: true, or enabled: false",
        )  # fmt: skip
    for password in passwords:
        require_typable(f"a password of user {name}", password, f"correct passwords of {name}")
    if not all(passwords):
        raise Problem(
            "acl_no_password", f"user {name} has an empty password", "passwords that are not empty", "correct passwords"
        )


def _words(user: t.Mapping[str, t.Any]) -> tuple[str, ...]:
    """One declared user as the words of an ACL line. Raises Problem."""
    name, passwords = user["name"], user["passwords"] or []
    if words_of(name) != [name] or "\0" in name:
        raise _rule(name, "a user's name is one word", "correct name")
    rules = split_rules(" ".join(user["rules"] or []))
    _require_way_in(name, user, passwords)
    _require_rules(name, rules, user["preset"])
    secret = ("nopass",) if user["nopass"] else tuple(dict.fromkeys("#" + hash_of(password) for password in passwords))
    # acl-pubsub-default may give new users and selectors all channels: say that they begin with none.
    spelled = tuple(f"(resetchannels {word[1:].lstrip()}" if word.startswith("(") else word for word in rules)
    return ("on" if user["enabled"] else "off", *secret, "resetchannels", *PRESETS.get(user["preset"], ()), *spelled)


def declared_users(users: t.Sequence[t.Mapping[str, t.Any]], default_user: str) -> Acl:
    """The declaration as users by name. Raises Problem."""
    found: Acl = {}
    for user in users:
        if user["name"] in found:
            raise Problem(
                "contradiction",
                f"users names {user['name']} twice",
                "each user once",
                f"take one {user['name']} out of users",
            )
        found[user["name"]] = _words(user)
    if "default" in found and default_user != "keep":
        raise Problem(
            "contradiction", f"users declares the user default, and default_user is {default_user}", "one of the two", "set default_user: keep",
        )  # fmt: skip
    if default_user != "keep":
        found["default"] = DEFAULT_USER[default_user]
    return found


def replication_login(users: t.Sequence[t.Mapping[str, t.Any]], name: t.Optional[str]) -> dict[str, str]:
    """masteruser and masterauth: how this server logs in to its primary; empty where nobody is declared for it. Raises Problem."""
    if name is None:
        found = [user for user in users if user["preset"] == "replication"]
    else:
        found = [user for user in users if user["name"] == name]
    if name and not found:
        raise Problem(
            "no_replication_user",
            f"replication_user is {name}, and users has no {name}",
            "a user of users",
            "declare it, or correct replication_user",
        )
    if not found or name == "":
        return {}
    if len(found) > 1:
        raise Problem(
            "no_replication_user", f"users has {len(found)} users with preset replication: {', '.join(user['name'] for user in found)}",
            "one that this server is as a replica", "set replication_user to one of them",
        )  # fmt: skip
    user = found[0]
    password = (user["passwords"] or [""])[0]
    if not password or password.lower() == "#" + hash_of(password):
        raise Problem(
            "no_replication_user",
            f"the first password of user {user['name']} is {'a hash' if password else 'missing'}, and a replica has to log in with it",
            "its plain text, which Redis keeps in masterauth",
            f"put the plain text first in passwords of {user['name']}, or set replication_user to an empty text and see to masterauth yourself",
        )
    return {"masteruser": user["name"], "masterauth": password}


@dataclasses.dataclass(frozen=True)
class AclState:
    """What is there. ``live`` is None where the server does not run, ``file`` None where redis.conf names no ACL file yet.

    ``conf`` holds the users of redis.conf itself, ``requirepass`` among them (as ``default``). ``table`` None: no server to ask.
    """

    live: t.Optional[Acl]
    file: t.Optional[Acl]
    conf: Acl
    table: t.Optional[CommandTable]
    #: The process was started without the ACL file, so that users who are made live get there by this module only.
    unread: bool = False

    def same(self, one: t.Sequence[str], other: t.Sequence[str]) -> bool:
        """Whether two lists of rules make the same user."""
        if tuple(one) == tuple(other):
            return True
        if self.table is None:
            return False
        first, second = user_of(one, self.table), user_of(other, self.table)
        return first == second and not first.unknown


@dataclasses.dataclass
class AclPlan:
    """``live``: name, words after (None: delete), words before (None: new), in the order in which to set them.

    ``file``: what the ACL file should hold, None where it does; ``live_after`` and ``file_after``: who is there then.
    ``settled``: nothing would be left to take away after this.
    """

    changes: list[Change] = dataclasses.field(default_factory=list)
    live: list[tuple[str, t.Optional[tuple[str, ...]], t.Optional[tuple[str, ...]]]] = dataclasses.field(
        default_factory=list
    )
    live_after: Acl = dataclasses.field(default_factory=dict)
    file_after: Acl = dataclasses.field(default_factory=dict)
    file: t.Optional[Acl] = None
    settled: bool = True
    unknown_users: list[str] = dataclasses.field(default_factory=list)


def _with_passwords(words: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The rules as they are, with the declared passwords that they lack."""
    if any(word.lower() == "nopass" for word in words):
        return words
    missing = tuple(word for word in wanted if word.startswith("#") and word not in words)
    return words[:1] + missing + words[1:]


def _target(current: Acl, declared: Acl, state: AclState, withdraw: bool, purge: bool) -> Acl:
    """``current`` after the work; what means the same keeps its words."""
    after: Acl = {}
    for name, words in current.items():
        if name not in declared:
            if not (purge and withdraw) or name == "default":
                after[name] = words
        elif state.same(words, declared[name]):
            after[name] = words
        elif withdraw:
            after[name] = declared[name]
        else:
            after[name] = words if name == "default" else _with_passwords(words, declared[name])
    for name, words in declared.items():
        if name not in after:
            # Nothing is taken away yet: a file without the default user means the one that is open, or the live one.
            after[name] = (
                words
                if withdraw or name != "default"
                else (state.live or {}).get(name, ("on", "nopass", "~*", "&*", "+@all"))
            )
    return after


def _hashes(declared: Acl, name: str) -> list[str]:
    return [word[1:] for word in declared.get(name, ()) if word.startswith("#")]


def _differences(layer: str, current: Acl, after: Acl, declared: Acl, path: str) -> list[Change]:
    changes = []
    for name in sorted({*current, *after}, key=lambda name: (name == "default", name)):
        before, now = current.get(name), after.get(name)
        if before == now:
            continue
        verb = "remove" if now is None else "write"
        action = (
            f"{verb} user {name} {'from' if now is None else 'to'} {path}"
            if layer == "file"
            else f"ACL {'DELUSER' if now is None else 'SETUSER'} {name}"
        )
        hashes = _hashes(declared, name)
        changes.append(
            Change(
                layer,
                f"user {name}",
                None if before is None else shown(before, hashes),
                None if now is None else shown(now, hashes),
                action,
            )
        )
    return changes


@dataclasses.dataclass(frozen=True)
class Scope:
    """How far a run goes: ``withdraw`` what is not declared, and ``purge`` users that are not.

    ``added``: begin with what a run with ``withdraw`` False would have left (the second half of a check).
    """

    withdraw: bool = True
    purge: bool = False
    added: bool = False


def plan_acl(declared: Acl, state: AclState, path: str, conf_path: str, scope: Scope) -> AclPlan:
    """What to do, to the ACL file ``path``, to the users of ``conf_path``, and live."""
    plan = AclPlan()
    withdraw, purge, added = scope.withdraw, scope.purge, scope.added
    live, file = state.live, state.file
    migrating = file is None
    base = {**state.conf, **((live or {}) if migrating or state.unread else {}), **(file or {})}
    before = dict(file or {})
    if added:
        live = None if live is None else _target(live, declared, state, False, purge)
        base = before = _target(base, declared, state, False, purge)
    wanted_file = _target(base, declared, state, withdraw, purge)
    plan.file_after = wanted_file
    plan.live_after = {} if live is None else _target(live, declared, state, withdraw, purge)
    if live is not None:
        plan.changes += _differences("live", live, plan.live_after, declared, path)
        for change in plan.changes:
            name = change.name[len("user ") :]
            plan.live.append((name, plan.live_after.get(name), live.get(name)))
    if not added:
        for name in sorted(state.conf):
            words = shown(state.conf[name], _hashes(declared, name))
            plan.changes.append(
                Change("file", f"{conf_path}: user {name}", words, None, f"move user {name} from {conf_path} to {path}")
            )
    plan.changes += _differences("file", before, wanted_file, declared, path)
    if wanted_file != before or (migrating and not added):
        plan.file = wanted_file
    final_file = _target(wanted_file, declared, state, True, purge)
    plan.settled = final_file == wanted_file and (
        live is None or _target(plan.live_after, declared, state, True, purge) == plan.live_after
    )
    plan.unknown_users = sorted(({*(live or {}), *base}) - set(declared) - {"default"})
    return plan


def render_file(users: Acl) -> str:
    """The text of an ACL file: a line a user, no comments, since Redis takes none."""
    return "".join(" ".join(("user", name, *words)) + "\n" for name, words in users.items())


def require_own_login(user: str, password: t.Optional[str], after: Acl, table: CommandTable) -> None:
    """This collection must still get in, and do its work. Raises Refusal."""
    found = user_of(after.get(user, ()), table)
    cause = ""
    if user not in after:
        cause = f"there would be no user {user}"
    elif not found.enabled:
        cause = f"the user {user} would be off"
    elif not found.nopass and (not password or hash_of(password) not in found.passwords):
        cause = (
            f"the password in login_password would be none of user {user}'s"
            if password
            else f"user {user} has a password, and login_password is not set"
        )
    else:
        missing = allows(found, OURS)
        cause = f"user {user} might not run {', '.join(missing)}" if missing else ""
    if cause:
        raise Refusal(
            "self_lockout",
            f"this collection logs in as {user}, and with the users as declared it could not any more: {cause}",
            "a login for the runs to come",
            "declare a user with preset admin in users, and set login_user and login_password to it (login_previous_password to what "
            "works today); or set default_user: keep",
        )


def replays(words: t.Sequence[str], table: CommandTable) -> bool:
    """Whether the default user could run every transaction that an AOF may hold."""
    root = user_of(words, table).root
    return root.future and root.commands >= table.everything and ("*", "RW") in root.keys and "*" in root.channels


def require_replays(words: t.Sequence[str], table: CommandTable, version: tuple[int, ...], product: str) -> None:
    """The default user must have all rights, on or off. Raises Refusal.

    Loading an AOF, Redis runs MULTI … EXEC (which scripts with several writes become, too) as the default user, and drops what that one
    may not do: 7.0.15 came up with 4 of 7 keys, and stated so in its log only. Fixed in 8.4.4 (redis/redis#14545); Valkey is not known to be.
    """
    if replays(words, table) or (product.startswith("Redis") and version >= (8, 4, 4)):
        return
    raise Refusal(
        "aof_needs_default",
        "the user default would not have all rights, and this Redis replays the transactions of its AOF (MULTI … EXEC, and scripts with several "
        "writes) as that user: each start would drop what it may not do",
        "a default user that may do everything, on or off: off keeps everybody out just as well",
        "set default_user: off (it keeps its rights and lets nobody in), or give a default user of your own: ~* &* +@all",
    )


@dataclasses.dataclass(frozen=True)
class Dependent:
    """A connection that others need: of a replica, or of a Sentinel."""

    kind: str
    id: str
    address: str
    user: str

    @property
    def host(self) -> str:
        return self.address.rsplit(":", 1)[0]


def dependents_of(client_list: str) -> list[Dependent]:
    """The replicas and Sentinels in the answer of CLIENT LIST."""
    found = []
    for line in client_list.splitlines():
        fields = dict(word.split("=", 1) for word in line.split(" ") if "=" in word)
        if "S" in fields.get("flags", ""):
            kind = "replica"
        elif fields.get("name", "").startswith("sentinel-"):
            kind = "sentinel"
        else:
            continue
        found.append(Dependent(kind, fields["id"], fields["addr"], fields.get("user", "default")))
    return found


def may_serve(user: t.Optional[User], kind: str) -> bool:
    """Whether a replica or a Sentinel could do its work as ``user``."""
    return user is not None and user.enabled and not allows(user, _NEEDS[kind])


def require_dependents(
    dependents: t.Iterable[Dependent], before: Acl, after: Acl, table: CommandTable
) -> list[Dependent]:
    """Those who have to log in as somebody else first. Raises Refusal where there would be nobody they could be.

    Who is logged in as a user that stays as it is loses nothing, whatever that user may do.
    """
    users = {name: user_of(words, table) for name, words in after.items()}
    movers = []
    for dependent in dependents:
        untouched = dependent.user in after and before.get(dependent.user) == after[dependent.user]
        if untouched or may_serve(users.get(dependent.user), dependent.kind):
            continue
        if not any(may_serve(user, dependent.kind) for user in users.values()):
            preset = "replication" if dependent.kind == "replica" else "sentinel"
            raise Refusal(
                f"{dependent.kind}_locked_out",
                f"the {dependent.kind} at {dependent.host} is logged in as {dependent.user}, and with the users as declared nobody could "
                f"do what a {dependent.kind} does",
                f"a user for it, and the {dependent.kind} using it",
                f"declare a user with preset {preset} in users",
            )
        movers.append(dependent)
    return movers


def removed_passwords(before: t.Sequence[str], after: t.Sequence[str], table: CommandTable) -> bool:
    """Whether a password that works today would not any more."""
    old, new = user_of(before, table), user_of(after, table)
    return not new.nopass and (old.nopass or bool(old.passwords - new.passwords))
