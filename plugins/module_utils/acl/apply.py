# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of a live server and of its files: read them, require_rules_accepted them, set them, and undo what locks somebody out."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import (
    AclPlan,
    AclState,
    Dependent,
    dependents_of,
    may_serve,
    removed_passwords,
    render_file,
    require_replays,
)
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import (
    Acl,
    CommandTable,
    file_lines,
    join_selectors,
    parse_line,
    stored,
    user_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    connect_as,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    OPEN_ACL,
    Instance,
    require_accepted,
    temporarily_loaded,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_text

__all__ = [
    "apply_users",
    "end_sessions",
    "read_dependents",
    "read_users",
    "refused_by_primary",
    "require_aof_replays",
    "require_rules_accepted",
    "restore_file",
    "table_of",
    "undone",
    "wait_until_synchronised",
    "without_users",
]  # fmt: skip

#: How long a replica or a Sentinel may take to log in again; Redis tries every second.
LINK_SECONDS = 20.0
_KICK_SECONDS = 2.0
_IN_CONF = ("user", "requirepass")


def table_of(server: Server) -> CommandTable:
    """What the server knows of its own commands, and gives a new user. Raises CommandError."""
    categories = server.command("ACL", "CAT")
    channels = server.config_get("acl-pubsub-default").get("acl-pubsub-default") == "allchannels"
    return CommandTable({name: frozenset(server.command("ACL", "CAT", name)) for name in categories}, channels)


def _live(server: Server) -> Acl:
    return dict(found for found in map(parse_line, server.command("ACL", "LIST")) if found)


def _conf_users(instance: Instance) -> Acl:
    """The users of redis.conf itself; a password of the default user in requirepass counts as one. Raises Refusal."""
    users: Acl = {}
    secret = ""
    for entry in instance.directives:
        if entry.name not in _IN_CONF:
            continue
        if not entry.main:
            raise Refusal(
                "users_in_include",
                f"{entry.source}, which {instance.path} includes, has {'a user' if entry.name == 'user' else 'requirepass'} in line "
                f"{entry.number}: two files cannot be changed as one",
                f"users in {instance.path} itself, from where they are moved to the ACL file in one step",
                f"move the line from {entry.source} into {instance.path}",
            )
        if entry.name == "user" and entry.args:
            users[entry.args[0]] = stored(join_selectors(entry.args[1:]))
        elif entry.name == "requirepass":
            secret = entry.text
    if secret:
        users.setdefault("default", ("on", *stored([">" + secret]), "~*", "&*", "+@all"))
    return users


def without_users(instance: Instance, text: str) -> str:
    """``text`` of redis.conf less its users, which an ACL file excludes."""
    if not any(entry.name in _IN_CONF for entry in instance.directives):
        return text
    conf = RedisConf(text, instance.path)
    for name in _IN_CONF:
        conf.remove(name)
    return conf.render()


def read_users(instance: Instance, path: str) -> AclState:
    """The users that are there, live and in the files. Raises Problem."""
    named = instance.in_file("aclfile")
    named = named and os.path.join(instance.value("dir") or "/", named)  # Redis opens it from within dir
    if named and os.path.realpath(named) != os.path.realpath(path):
        raise Problem(
            "other_acl_file", f"{instance.path} names the ACL file {named}", "one ACL file", f"set acl_file: {named}"
        )
    conf = _conf_users(instance)
    file = None
    if named:
        file = file_lines(read_text(path), path) if os.path.exists(path) else {}
    if instance.server is not None:
        unread = not instance.live.get("aclfile")
        try:
            return AclState(_live(instance.server), file, conf, table_of(instance.server), unread)
        except CommandError as error:
            raise Problem(
                "login_failed", f"Redis at {instance.server.login.address} refuses {error.text}", "a user that may run ACL commands",
                "set login_user and login_password to a user with preset admin",
            ) from None  # fmt: skip
    with temporarily_loaded(instance, without_users(instance, instance.text), OPEN_ACL) as server:
        if server is None:
            raise Problem(
                "no_server_program", "neither redis-server nor valkey-server is on this host, and no server runs", "a server that knows its commands",
                "install Redis first (role redis_install)",
            )  # fmt: skip
        return AclState(None, file, conf, table_of(server))


def require_rules_accepted(instance: Instance, text: str, users: Acl, declared: Acl) -> None:
    """Let the installed server read the file and all users. Raises Problem, with user, rule and Redis' own words."""
    try:
        require_accepted(instance, text, render_file(users))
        return
    except Problem as rejected:
        whole = rejected
    with temporarily_loaded(instance, text, OPEN_ACL) as server:
        for name, words in declared.items() if server else ():
            try:
                server.command("ACL", "SETUSER", f"judged-{name}", "reset", *words)
            except CommandError as error:
                raise Problem(
                    "acl_rejected", f"user {name}: Redis does not accept {_blamed(error.text, words)}; no user has been changed",
                    "rules that this server version knows", f"correct the rules of user {name}",
                ) from None  # fmt: skip
    raise whole


def _blamed(text: str, words: t.Sequence[str]) -> str:
    """Redis' words, in which the rule stands; stated without what carries a hash."""
    for word in words:
        if word.startswith("#"):
            text = text.replace(word, "#…")
    return text.replace("ERR Error in ACL SETUSER modifier ", "the rule ")


def read_dependents(server: Server) -> list[Dependent]:
    """The replicas and Sentinels that are connected."""
    return dependents_of(server.command("CLIENT", "LIST"))


class _LiveUsers:
    """Users being changed, with the way back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._done: list[tuple[str, t.Optional[tuple[str, ...]]]] = []

    def set(self, name: str, words: t.Optional[t.Sequence[str]], before: t.Optional[tuple[str, ...]]) -> None:
        self._done.append((name, before))
        self._send(name, words)

    def _send(self, name: str, words: t.Optional[t.Sequence[str]]) -> None:
        if words is None:
            self.server.command("ACL", "DELUSER", name)
        else:
            self.server.command("ACL", "SETUSER", name, "reset", *words)  # one command: nobody sees the user half made

    def undo(self) -> None:
        """Every user as before; one that cannot be put back does not keep the others from it. Raises Problem."""
        done, self._done = reversed(self._done), []
        put_back(*(functools.partial(self._send, name, before) for name, before in done))


def put_back(*steps: t.Callable[[], None]) -> None:
    """Take all steps back, the rest too where one fails. Raises Problem."""
    failed: list[str] = []
    for step in steps:
        try:
            step()
        except Problem as problem:
            failed.append(problem.detected)
    if failed:
        raise Problem("not_undone", "; ".join(failed))


def undone(cause: Exception, *steps: t.Callable[[], None]) -> Exception:
    """``cause``, after all steps were taken back; where that did not work, it says so."""
    try:
        put_back(*steps)
    except Problem as problem:
        detected = cause.detected if isinstance(cause, Problem) else f"{type(cause).__name__}: {cause}"
        return Problem(
            "not_undone", f"{detected}; and what had been done by then could not be undone: {problem.detected}", "file and server that agree",
            "run again with what is stated first put right: it begins with what is there now",
        )  # fmt: skip
    return cause


def restore_file(path: str, text: t.Optional[str]) -> None:
    """The file as it was; None: it was not there. Raises Problem."""
    if text is not None:
        StagedFile(path, text, follow=False).commit()
    elif os.path.lexists(path):
        os.unlink(path)


def refused_by_primary(instance: Instance, login: Login, links: t.Mapping[str, str]) -> list[str]:
    """A warning where the primary of this replica would not let it in again, should the link break."""
    info = instance.info
    host, port = info.text("master_host"), info.number("master_port")
    if not (links and host and port and info.text("role") == "slave"):
        return []
    tls = instance.live.get("tls-replication") == "yes"
    way = dataclasses.replace(
        login, host=host, port=port, user=links["masteruser"], password=links["masterauth"], unix_socket=None, tls=tls
    )
    try:
        connect_as(way, 5.0).close()
    except Problem as problem:
        if problem.code == "login_failed":
            return [
                f"The primary at {host}:{port} does not let {links['masteruser']} in, as which this replica logs in from now on: should the "
                "link break, it stays broken. Run on the primary, too."
            ]  # a primary that cannot be asked from here is another matter
    return []


def wait_until_synchronised(server: Server, plan: AclPlan, timeout: float) -> None:
    """Where ``plan`` touches a replica's user: a full synchronisation ends first, which a new login would begin anew.

    Raises Problem.
    """
    touched = {name for name, _after, _before in plan.live}
    if not any(entry.kind == "replica" and entry.user in touched for entry in read_dependents(server)):
        return
    busy: list[str] = []

    def done() -> bool:
        lines = [line for line in server.command("INFO", "replication").splitlines() if re.match(r"slave\d+:", line)]
        busy[:] = [line.split("ip=")[-1].split(",")[0] for line in lines if "state=online" not in line]
        return not busy

    if not wait_for(done, timeout):
        raise Problem(
            "loading", f"the replica at {', '.join(busy)} is still in a full synchronisation after {timeout:g} seconds; nothing has been "
            "changed", "a replica that has its data", "wait for it and run again, or set a longer timeout",
        )  # fmt: skip


def _relink(server: Server, dependent: Dependent, after: Acl, table: CommandTable) -> None:
    """End one link and wait until it is there again as a user that may stay. Raises Refusal.

    The replica goes on where it was (partial resynchronisation); a link that comes back as before is ended again, since a
    replica takes up a new masteruser only when it connects.
    """
    users = {name: user_of(words, table) for name, words in after.items()}
    there = {entry.id for entry in read_dependents(server)}
    # A link that has ended by itself, as the second one of a full synchronisation does, may be back by now.
    known = there if dependent.id in there else set()
    last: list[float] = []
    came_as: set[str] = set()

    def back() -> bool:
        mine = [
            entry for entry in read_dependents(server) if (entry.kind, entry.host) == (dependent.kind, dependent.host)
        ]
        if any(entry.id not in known and may_serve(users.get(entry.user), entry.kind) for entry in mine):
            return True
        wrong = [entry for entry in mine if entry.id == dependent.id or entry.id not in known]
        came_as.update(entry.user for entry in wrong if entry.id != dependent.id)
        if wrong and (not last or time.monotonic() - last[0] > _KICK_SECONDS):
            last[:] = [time.monotonic()]
            for entry in wrong:
                server.command("CLIENT", "KILL", "ID", entry.id)
        return False

    if wait_for(back, LINK_SECONDS):
        return
    what = f"came back as {', '.join(sorted(came_as))}" if came_as else "did not come back"
    option = "masteruser and masterauth" if dependent.kind == "replica" else "SENTINEL SET … auth-user and auth-pass"
    raise Refusal(
        f"{dependent.kind}_locked_out",
        f"the {dependent.kind} at {dependent.host} was asked to log in again and {what} within {LINK_SECONDS:g} seconds: with the users as "
        "declared it would have no access; the users are as they were",
        f"a {dependent.kind} that logs in as a user of the declaration",
        f"give it {option} first (role redis_acl does so on every host before it takes anything away), then run again",
    )


def apply_users(
    server: Server, login: Login, plan: AclPlan, movers: t.Sequence[Dependent], table: CommandTable
) -> _LiveUsers:
    """Set the users live: what opens first, then whoever has to move, then what closes. Raises Problem; then all is as it was."""
    closing = {"default", *(mover.user for mover in movers)} - {login.user or "default"}
    users = _LiveUsers(server)
    try:
        for name, words, before in plan.live:
            if name not in closing:
                users.set(name, words, before)
        # From here on as the login that the runs to come will use: it has to work before anything is closed.
        users.server = _verified(login)
        for mover in movers:
            _relink(users.server, mover, plan.live_after, table)
        renewed = []
        for name, words, before in plan.live:
            if name in closing:
                users.set(name, words, before)
            if before and words and removed_passwords(before, words, table):
                renewed.append(name)
        users.server = _verified(login)
        for dependent in read_dependents(users.server):
            if dependent.user in renewed:
                _relink(users.server, dependent, plan.live_after, table)
    except Exception as error:
        raise undone(error, users.undo) from None
    return users


def end_sessions(users: _LiveUsers, plan: AclPlan) -> None:
    """Throw out whoever is logged in as a user that is off now: off alone lets those who are in stay in, with all their rights."""
    for name, words, before in plan.live:
        if before and words and words[0] == "off" != before[0]:
            users.server.command("CLIENT", "KILL", "USER", name)


def require_aof_replays(server: Server, info: Info) -> None:
    """What an AOF holds must be replayed by a default user that may: before one is turned on, and before a restart. Raises Refusal."""
    words = _live(server).get("default", ("on", "~*", "&*", "+@all"))
    require_replays(words, table_of(server), info.version, info.product)


def _verified(login: Login) -> Server:
    try:
        server = connect_as(login)
        server.command("INFO", "server")
        server.command("ACL", "LIST")
        return server
    except Problem as problem:
        raise Refusal(
            "self_lockout", f"with the users as declared, this collection cannot log in: {problem.detected}; the users are as they were",
            "a login for the runs to come", "correct login_user and login_password, or the user of that name",
        ) from None  # fmt: skip
