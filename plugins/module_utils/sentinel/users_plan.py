# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentinel's own users: who may ask it, and who may command it."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import (
    AclPlan,
    AclState,
    Dependent,
    Scope,
    declared_users,
    dependents_of,
    plan_acl,
)
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import (
    Acl,
    CommandTable,
    allows,
    hash_of,
    parse_line,
    user_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal

__all__ = ["OURS", "PEER", "PRESETS", "lost_peers", "plan_users", "require_logins", "users_of", "words_of_users"]

#: What one Sentinel does on another.
PEER = ("ping", "publish", "client|setname", "sentinel|is-master-down-by-addr")
PRESETS = {
    "admin": ("&*", "+@all"),
    # Asks who is primary, and listens for changes; what client libraries do.
    "client": (
        "&*", "-@all", "+@connection", "-client|kill", "-client|pause", "-client|unpause", "-client|no-evict", "-client|list",
        "+subscribe", "+psubscribe", "+unsubscribe", "+punsubscribe", "+role", "+info", "+sentinel|get-master-addr-by-name",
        "+sentinel|master", "+sentinel|masters", "+sentinel|replicas", "+sentinel|slaves", "+sentinel|sentinels", "+sentinel|ckquorum",
        "+sentinel|myid",
    ),
    "peer": ("&*", "-@all", *(f"+{name}" for name in PEER)),
}  # fmt: skip
#: What the modules of this collection send to a Sentinel.
OURS = (
    "ping", "info", "client|kill", "client|list", "acl|cat", "acl|list", "acl|setuser", "acl|deluser", "sentinel|ckquorum", "sentinel|config",
    "sentinel|flushconfig", "sentinel|get-master-addr-by-name", "sentinel|master", "sentinel|masters", "sentinel|monitor",
    "sentinel|myid", "sentinel|remove", "sentinel|replicas", "sentinel|reset", "sentinel|sentinels", "sentinel|set",
)  # fmt: skip


def words_of_users(users: t.Sequence[t.Mapping[str, t.Any]], default_user: str) -> Acl:
    """The option ``users`` as users by name. Raises Problem."""
    return declared_users(
        [
            {**user, "preset": None, "rules": [*PRESETS.get(user["preset"], ()), *(user["rules"] or [])]}
            for user in users
        ],
        default_user,
    )


def users_of(lines: t.Iterable[str]) -> Acl:
    """Lines ``name rules`` of sentinel.conf as users."""
    return dict(found for found in (parse_line(f"user {line}") for line in lines) if found)


def plan_users(
    declared: Acl, live: t.Optional[Acl], file: Acl, table: t.Optional[CommandTable], path: str, scope: Scope
) -> AclPlan:
    """What to do: live where Sentinel runs (it writes its file itself), else in the file."""
    state = AclState(live, dict(file if live is None else live), {}, table)
    plan = plan_acl(declared, state, path, path, scope)
    plan.changes = [change for change in plan.changes if (change.layer == "live") == (live is not None)]
    return plan


def require_logins(
    after: Acl,
    table: t.Optional[CommandTable],
    login: tuple[str, t.Optional[str]],
    peer: t.Optional[tuple[str, t.Optional[str]]],
) -> None:
    """This collection and the other Sentinels must still get in. Raises Refusal.

    ``login`` and ``peer`` are user and password, ``peer`` None where there is no other. Without ``table`` there is no Sentinel to ask
    what rules come to; then only the ways in are looked at.
    """
    table = table or CommandTable({})
    ways = [("this collection", login, OURS, "login_user and login_password")]
    ways += [("the other Sentinels", peer, PEER, "sentinel_user and sentinel_password")] if peer else []
    for who, (user, password), needs, option in ways:
        found = user_of(after.get(user, ()), table)
        cause = ""
        if not found.enabled:
            cause = f"the user {user} would be {'off' if user in after else 'missing'}"
        elif not found.nopass and (not password or hash_of(password) not in found.passwords):
            cause = f"the declared password would be none of user {user}'s"
        else:
            missing = allows(found, [name for name in needs if table.of(name)])
            cause = f"user {user} might not run {', '.join(missing)}" if missing else ""
        if cause:
            raise Refusal(
                "sentinel_self_lockout" if needs is OURS else "peer_locked_out",
                f"with the users as declared {who} could not log in to this Sentinel: {cause}", "a way in for both",
                f"declare a user with preset {'admin' if needs is OURS else 'peer'} in users, and set {option} to it",
            )  # fmt: skip


def lost_peers(client_list: str, after: Acl, table: CommandTable) -> list[Dependent]:
    """Sentinels that are logged in as a user which could do a peer's work no more."""
    users = {name: user_of(words, table) for name, words in after.items()}
    found = []
    for one in dependents_of(client_list):
        user = users.get(one.user)
        if one.kind == "sentinel" and (user is None or not user.enabled or allows(user, PEER)):
            found.append(one)
    return found
