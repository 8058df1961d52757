# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of a Sentinel: planned over what it has, set live, put back where a peer would be locked out."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import AclPlan, Scope
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import Acl
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    ASK_SECONDS,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import (
    Sentinel,
    table_of_sentinel,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_plan import (
    lost_peers,
    plan_users,
    require_logins,
    users_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    connect_as,
    wait_for,
)

__all__ = ["planned_users", "require_peers", "set_users"]

#: Clients of a Sentinel connect again within a second.
_LINK_SECONDS = 15.0
_KICK_SECONDS = 2.0


def planned_users(
    sentinel: Sentinel,
    declared: Acl,
    login: tuple[t.Optional[str], t.Optional[str]],
    peer: t.Optional[tuple[t.Optional[str], t.Optional[str]]],
    scope: Scope,
) -> AclPlan:
    """What to do to Sentinel's own users; ``peer`` is the declared login of the others, None where there are none.

    Raises Problem, or Refusal where somebody would be locked out.
    """
    file = users_of(sentinel.conf.users())
    if not declared:
        return AclPlan(file_after=file)
    table = table_of_sentinel(sentinel.server) if sentinel.server else None
    now = {**sentinel.conf.options(), **sentinel.options}

    others = None
    if peer is not None:
        user, password = (
            now.get(name) if stated is None else stated
            for name, stated in zip(("sentinel-user", "sentinel-pass"), peer)
        )
        others = (user or "default", password)
    after, plan = (
        plan_users(declared, sentinel.users, file, table, sentinel.path, one)
        for one in (dataclasses.replace(scope, withdraw=True), scope)
    )
    require_logins(after.live_after if table else after.file_after, table, (login[0] or "default", login[1]), others)
    return plan


def require_peers(server: Server, plan: AclPlan) -> None:
    """Every connected Sentinel has to come as a user that stays; who does not is asked to log in again. Raises Refusal.

    A Sentinel whose login was made after it had connected goes on as it came, for ever.
    """
    if not any(before is not None for _name, _words, before in plan.live):
        return
    table, lost, last = table_of_sentinel(server), [], [0.0]

    def none_lost() -> bool:
        lost[:] = lost_peers(server.command("CLIENT", "LIST"), plan.live_after, table)
        if lost and time.monotonic() - last[0] > _KICK_SECONDS:
            last[0] = time.monotonic()
            for one in lost:
                server.command("CLIENT", "KILL", "ID", one.id)
        return not lost and time.monotonic() - last[0] > _KICK_SECONDS

    if not wait_for(none_lost, _LINK_SECONDS):
        hosts = ", ".join(sorted({one.host for one in lost}))
        raise Refusal(
            "peer_locked_out",
            f"the Sentinels at {hosts} log in as a user that could not do a peer's work any more; the users are as they were",
            "every Sentinel logged in as a user that stays",
            "run the role on all Sentinels: it gives each sentinel_user first, and takes away second",
        )


def _set_user(server: Server, name: str, words: t.Optional[t.Sequence[str]]) -> None:
    if words is None:
        server.command("ACL", "DELUSER", name)
    else:
        server.command("ACL", "SETUSER", name, "reset", *words)


def _require_own_login(login: Login) -> None:
    """The collection itself can still log in. Raises Refusal."""
    try:
        connect_as(login, ASK_SECONDS).command("SENTINEL", "MASTERS")
    except Problem as problem:
        raise Refusal(
            "sentinel_self_lockout", f"with the users as declared this collection cannot log in: {problem.detected}; the users are as they were",
            "a login for the runs to come", "correct login_user and login_password, or the user of that name",
        ) from None  # fmt: skip


def _order(entry: tuple[str, t.Any, t.Any]) -> tuple[bool, bool]:
    """New users first, the default user last."""
    name, _words, before = entry
    return before is not None, before is not None and name == "default"


def set_users(server: Server, login: Login, plan: AclPlan) -> t.Callable[[], None]:
    """New users first, then what takes away; gives the way back.

    Raises Problem; then the users are as they were.
    """
    done: list[tuple[str, t.Optional[tuple[str, ...]]]] = []

    def back() -> None:
        for name, words in done:
            _set_user(server, name, words)
        server.command("SENTINEL", "FLUSHCONFIG")

    try:
        for name, words, before in sorted(plan.live, key=_order):
            _set_user(server, name, words)
            done.insert(0, (name, before))
        _require_own_login(login)
    except CommandError as error:
        back()
        text = " ".join("#…" if word.startswith("'#") else word for word in error.text.split())
        raise Problem(
            "acl_rejected",
            f"Sentinel does not accept a user: {text}; the users are as they were",
            "rules that it knows",
            "correct rules",
        ) from None
    except Problem:
        back()
        raise
    server.command("SENTINEL", "FLUSHCONFIG")
    return back
