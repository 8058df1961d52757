# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Sentinel as it is, and what is done to it: live where it takes that, else stop, edit, start."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    ASK_SECONDS,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import (
    Sentinel,
    quorum_of,
    watched_by,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import SentinelConf
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.plan import (
    Item,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import (
    Watched,
    fields_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import (
    Candidate,
    temporary_server,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedEdit, StagedFile, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["await_quorum", "require_file_accepted", "reset", "restarted", "set_live"]

#: Sentinel connects within a second, and pings every second.
_LINK_SECONDS = 15.0
_BACK_SECONDS = 40.0
_UP_SECONDS = 60.0
_RESTORED = {"down-after-milliseconds": "30000", "failover-timeout": "180000", "parallel-syncs": "1"}


def await_quorum(server: Server, names: t.Iterable[str], timeout: float) -> None:
    """Until every primary could be failed over. Raises Problem."""
    for name in names:
        if not wait_for(lambda name=name: quorum_of(server, name)[0], timeout):
            raise Problem(
                "no_quorum", f"{name}: {quorum_of(server, name)[1]} Sentinels are usable after {timeout:g} seconds, and a failover takes more",
                "enough Sentinels that know each other", "start the others, and look at firewall, sentinel_user and announce_ip: "
                f"redis-cli -p {server.login.port} SENTINEL SENTINELS {name} shows whom this one knows",
            )  # fmt: skip


def require_file_accepted(sentinel: Sentinel, text: str) -> None:
    """Let the installed Sentinel read ``text``, less what it watches: it must meet nobody. Raises Problem."""
    program = sentinel.info.text("executable") or next(
        filter(None, map(shutil.which, ("redis-sentinel", "valkey-sentinel", "redis-server", "valkey-server"))), None
    )
    if not program or not os.path.exists(program):
        return
    conf = RedisConf(text, sentinel.path)
    conf.remove("sentinel")
    stated = {entry.name: entry.text for entry in conf.directives()}
    if stated.get("tls-port", "0") != "0":
        conf.set(
            "tls-replication", [("yes",)]
        )  # the temporary server opens no port, and would not read the certificate
    if stated.get("dir") and not os.path.isdir(stated["dir"]):
        conf.set("dir", [("/",)])
    user = sentinel.host.user_of_process(sentinel.pid) if sentinel.running else None
    folder = tempfile.mkdtemp(prefix="redisops-sentinel-")
    try:
        os.chmod(folder, 0o755)
        binary = os.path.join(folder, "redis-sentinel")  # its name makes it one
        os.symlink(os.path.realpath(program), binary)
        user = user or sentinel.host.user_of_file(sentinel.path)
        with temporary_server(binary, Candidate(conf.render(), sentinel.path, conf.directives()), user):
            pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _linked(server: Server, name: str, since: float) -> bool:
    fields = fields_of(server.command("SENTINEL", "MASTER", name))
    flags = fields.get("flags", "").split(",")
    age = int(fields.get("last-ok-ping-reply", "0")) / 1000
    return not {"disconnected", "s_down"} & set(flags) and age < time.monotonic() - since


def _require_links(server: Server, names: t.Iterable[str], since: float) -> None:
    """Sentinel can ping the primaries with the login that it now has. Raises Refusal."""
    for name in sorted(names):
        if not wait_for(lambda name=name: _linked(server, name, since), _LINK_SECONDS):
            raise Refusal(
                "sentinel_auth_refused", f"{name}: after the change Sentinel has no working link to its primary; what was set is as before",
                "a login with which Sentinel can ping it", f"correct auth_user and auth_password of {name}, and look into the log of both",
            )  # fmt: skip


def _take_back(steps: t.Iterable[t.Callable[[], t.Any]]) -> None:
    for step in steps:
        try:
            step()
        except CommandError:
            continue  # of a primary that is gone by now


def set_live(sentinel: Sentinel, items: t.Sequence[Item]) -> None:
    """SENTINEL CONFIG SET, MONITOR, SET, REMOVE. Raises Problem; then all is as it was."""
    server = sentinel.server
    back: list[t.Callable[[], t.Any]] = []

    def send(undo: t.Sequence[str], *words: str) -> None:
        server.command("SENTINEL", *words)
        back.insert(0, lambda: server.command("SENTINEL", *undo))

    try:
        for item in (one for one in items if one.of == ""):
            undo = ("CONFIG", "SET", item.option, item.before or _NEUTRAL.get(item.option, ""))
            send(undo, "CONFIG", "SET", item.option, item.after or "")
        since = time.monotonic()
        _require_links(server, _set_primaries(sentinel, items, send), since)
        for item in items:
            if item.of and item.option == "monitor" and item.after is None:
                server.command("SENTINEL", "REMOVE", item.of)
    except Problem as problem:
        _take_back(back)
        raise _with_primary_named(problem, items) from None


def _set_options(sentinel: Sentinel, name: str, options: t.Sequence[Item], send: t.Callable[..., None]) -> bool:
    """SET of one primary, in one command; gives whether its link has to be verified."""
    watched = sentinel.watched.get(name)
    undo = [(item.option, _RESTORED.get(item.option, "") if item.before is None else item.before) for item in options]
    # Undone together with its MONITOR, a new one needs no values back.
    back = ("SET", name, *(word for pair in undo for word in pair)) if watched else ("CKQUORUM", name)
    send(back, "SET", name, *(word for item in options for word in (item.option, item.after or "")))
    return any(item.option.startswith("auth-") for item in options) and not (watched and watched.down)


def _set_primaries(sentinel: Sentinel, items: t.Sequence[Item], send: t.Callable[..., None]) -> set[str]:
    """MONITOR what is new, SET the rest, one command for each primary; gives those whose link has to be verified."""
    unverified = set()
    for name in dict.fromkeys(item.of for item in items if item.of):
        mine = [item for item in items if item.of == name]
        monitor = mine[0] if mine[0].option == "monitor" else None
        if monitor and monitor.after is None:
            continue  # what it had known goes with it, and there is no way back: that comes when all else is done
        if monitor and monitor.after is not None:
            if name in sentinel.watched:
                sentinel.server.command("SENTINEL", "REMOVE", name)
            send(("REMOVE", name), "MONITOR", name, *monitor.after.split())
            unverified.add(name)
        options = [item for item in mine if item.option != "monitor"]
        if options and _set_options(sentinel, name, options, send):
            unverified.add(name)
    return unverified


_NEUTRAL = {"announce-port": "0", "resolve-hostnames": "no", "announce-hostnames": "no"}


def _with_primary_named(problem: Problem, items: t.Sequence[Item]) -> Problem:
    """Redis' refusal, without a secret."""
    if not isinstance(problem, CommandError):
        return problem
    text = problem.text
    for item in items:
        if item.option in ("auth-pass", "sentinel-pass") and item.after:
            text = text.replace(item.after, "********")
    return Problem(
        "value_rejected", f"Sentinel refused: {text}; what was set before is as it was", "values that this Sentinel accepts", "correct them",
    )  # fmt: skip


def restarted(
    sentinel: Sentinel, unit: str, make: t.Callable[[SentinelConf], str], login: Login, prepare: t.Callable[[], None]
) -> None:
    """Stop (where it runs), edit what it left, start, and wait until it answers; else back to the old file. Raises Problem."""
    host, path = sentinel.host, sentinel.path
    if sentinel.running:
        systemctl(host, "stop", f"{unit}.service", timeout=_UP_SECONDS)
    old = read_text(path)  # its last word: state that it wrote since we looked
    problem: t.Optional[Problem] = None
    try:
        new = make(SentinelConf(old, path))
        if new != old:
            StagedEdit(path, new, old, 0o640).commit()
        prepare()
    except Problem as found:
        problem = found
    if problem is None:
        try:
            systemctl(host, "start", f"{unit}.service", timeout=_UP_SECONDS)
            _wait_until_up(login)
            return
        except Problem as found:
            why = found.detected
            problem = Problem(
                "sentinel_not_up", f"with the changed file it did not come up ({why}); the file is as it was, and it was started with that",
                "a file that it starts with", f"look at: journalctl -n 50 -u {unit}",
            )  # fmt: skip
            systemctl(host, "stop", f"{unit}.service", timeout=_UP_SECONDS)
            StagedFile(path, old, 0o640).commit()
    if sentinel.running:
        systemctl(host, "start", f"{unit}.service", timeout=_UP_SECONDS)
    raise problem


def _wait_until_up(login: Login) -> None:
    last = [""]

    def answers() -> bool:
        try:
            server = connect(login, ASK_SECONDS)
            server.command("SENTINEL", "MASTERS")
            server.close()
            return True
        except ServerDown as problem:
            last[0] = problem.detected
            return False

    if not wait_for(answers, _UP_SECONDS / 2):
        raise Problem("server_down", last[0])


def reset(server: Server, before: Watched) -> bool:
    """Forget what is gone; False where what was up has not been found again in time."""
    server.command("SENTINEL", "RESET", before.name)
    wanted = {known.address for known in (*before.replicas, *before.sentinels) if known.up}

    def found() -> bool:
        now = watched_by(server)[before.name]
        return wanted <= {known.address for known in (*now.replicas, *now.sentinels)}

    return wait_for(found, _BACK_SECONDS)
