# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch from what is live to what is staged: stop, swap, start, and see that it is that very data; else the way back.

Verified before, identified after: clients are there at once, and what they delete or write says nothing of what was brought.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import verified_save
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import aof_is_in_use
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import live, mark_of
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import Target
from ansible_collections.redisops.recovery.plugins.module_utils.restore.open_rollback_copy import OpenRollbackCopy
from ansible_collections.redisops.recovery.plugins.module_utils.restore.plan import require_role
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import (
    finish,
    say_now,
    serves,
    swap,
    swap_back,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server, connect, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.service.start import start_server
from ansible_collections.redisops.recovery.plugins.module_utils.service.stop import stop_server
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["Done", "start_again", "swap_and_start"]

#: What lets the primary guard pass once: the data that a restore brings may well be less than what a replica holds.
_GUARD, _PASS = "/etc/redisops/primary-guard.json", "/run/redisops/start-without-data"


@dataclasses.dataclass(frozen=True)
class Done:
    """``seconds``: how long the server was away. ``kept`` is the directory with what was there before.

    ``layers`` says where the data is now: on one layer or both.
    """

    kept: str
    seconds: float
    keys: int
    layers: str = ""


@contextlib.contextmanager
def _guard_passed() -> t.Iterator[None]:
    passed = os.path.exists(_GUARD)
    if passed:
        os.makedirs(os.path.dirname(_PASS), 0o755, exist_ok=True)
        with open(_PASS, "w", encoding="ascii"):
            pass
    try:
        yield
    finally:
        if passed and os.path.exists(_PASS):
            os.unlink(_PASS)


def _start(target: Target, hold: UnitHold) -> Info:
    with _guard_passed():
        return start_server(target.host, hold, target.login, target.timeout)


def _require_nobody(target: Target) -> None:
    left = target.host.servers_in(target.place.dir)
    if left:
        raise Problem(
            "still_running",
            f"process {left[0]} works in {target.place.dir} after {target.unit} was stopped",
            "a server that is stopped",
            "see what started it, stop it, then run again",
        )


def _stop(target: Target, hold: UnitHold, server: t.Optional[Server]) -> None:
    """Let the server end, with all that it acknowledged on disk: it is what one may want to go back to."""
    if server is None:
        systemctl(target.host, "stop", f"{target.unit}.service", timeout=target.timeout)
    else:
        stop_server(hold, target.host, server, _require_still_primary, target.timeout)


def _require_still_primary(info: Info) -> None:
    require_role("its role is replica by now" if info.text("role") == "slave" else "")


def _not_what_came(target: Target, aof: bool, came: str, keys: t.Optional[int], info: Info) -> str:
    """Why the process that runs now is not one that loaded what was brought, in words; empty where it is."""
    place, host, pid = target.place, target.host, info.number("process_id")
    if pid not in host.servers_in(place.dir):
        return f"process {pid} answers, and does not work in {place.dir}"
    if info.number("evicted_keys"):
        return f"{info.number('evicted_keys')} keys were evicted since the start: maxmemory is too small for what was brought"
    if aof:
        if came and mark_of(live(place, aof)) != came:
            return f"{place.aof_dir} is not what was brought"
        return "" if aof_is_in_use(host, pid, place) else f"process {pid} does not write to the AOF that was brought"
    if target.may_follow:
        return ""  # a full copy of its primary may have replaced it by now
    if came and not info.number("rdb_saves") and mark_of(place.rdb) != came:
        return f"{place.rdb} is not what was brought"
    loaded = info.number("rdb_last_load_keys_loaded") + info.number("rdb_last_load_keys_expired")
    if keys is not None and loaded != keys:
        return f"the start loaded {loaded} keys, and {keys} were brought"
    return ""


def _stays_primary(target: Target, server: Server) -> str:
    """Whether a cluster leaves it its role, for two of its timeouts, in words; empty where it does."""
    info = server.info()
    if not info.flag("cluster_enabled") or (
        not info.number("connected_slaves") and not target.instance.info.number("connected_slaves")
    ):
        return "its role is replica by now" if info.text("role") == "slave" else ""
    seconds = 2 * int(server.config_get("cluster-node-timeout").get("cluster-node-timeout", "15000")) / 1000
    lost = wait_for(lambda: server.info("replication").text("role") == "slave", seconds)
    return "the cluster has made it a replica: it copies the data of another node" if lost else ""


def _second_layer(target: Target, server: Server) -> str:
    """Both layers are there again before success is told, where both are configured; says what there is."""
    if not target.aof:
        return "RDB"
    if not server.config_get("save").get("save"):
        return "AOF"
    try:
        verified_save(server, target.host, target.timeout)
    except Problem as problem:
        return f"AOF only, since the RDB file could not be saved: {problem.detected}"
    return "AOF and RDB"


def _ended(target: Target, opened: OpenRollbackCopy, away: float, info: Info) -> Done:
    """The server, which was away for ``away`` seconds, runs with what came: say so, and let the second layer follow."""
    finish(opened)
    server = connect(target.login)
    try:
        return Done(opened.path, round(away, 3), info.keys, _second_layer(target, server))
    finally:
        server.close()


def _take_back(target: Target, opened: OpenRollbackCopy, hold: UnitHold, aof: bool, ran: bool) -> None:
    """Undo the switch, whatever state it is in; what clients have written since stays in the rollback copy."""
    try:
        server: t.Optional[Server] = connect(target.login, 5.0)
    except Problem:
        server = None
    if server is not None:
        serves(opened)
    hold.engage()
    if server is None:
        systemctl(target.host, "stop", f"{target.unit}.service", timeout=target.timeout)
    else:
        stop_server(hold, target.host, server, lambda _info: None, target.timeout)
    _require_nobody(target)
    swap_back(opened, aof)
    if ran:  # one that was down before would not come up with its own data either
        _start(target, hold)


def _undone(target: Target, opened: OpenRollbackCopy, wrong: str) -> Problem:
    now = "runs on its own data again" if target.instance.running else "is stopped as it was, with its own data"
    return Problem(
        "restore_undone",
        f"the server did not come up with what was brought, and {now}: {wrong}",
        "a server that loads it",
        f"look into its log (journalctl -u {target.unit}) and at {opened.path}",
    )


def swap_and_start(target: Target, opened: OpenRollbackCopy, aof: bool, keys: t.Optional[int]) -> Done:
    """Stop, swap, start, look; on any trouble swap back and start. ``keys``: how many were brought, None where not known. Raises Problem."""
    began, ran = time.monotonic(), target.instance.running
    inside = os.path.join(opened.at, os.path.basename(live(opened.place, aof)))
    with UnitHold(target.host, target.unit, target.place.dir, ran) as hold:
        _stop(target, hold, target.instance.server)
        try:
            say_now(opened, aof)
            came = mark_of(inside)
            _require_nobody(target)
            swap(opened, aof)
            _require_nobody(target)
            info = _start(target, hold)
            away = time.monotonic() - began
            wrong = _not_what_came(target, aof, came, keys, info)
            wrong = wrong or ("" if target.may_follow else _role_after(target))
        except Problem as problem:
            wrong = problem.detected
        if wrong:
            _take_back(target, opened, hold, aof, ran)
    if wrong:
        raise _undone(target, opened, wrong)
    return _ended(target, opened, away, info)


def _role_after(target: Target) -> str:
    server = connect(target.login)
    try:
        return _stays_primary(target, server)
    finally:
        server.close()


def start_again(target: Target, opened: OpenRollbackCopy) -> Done:
    """End a run that was cut off behind its swap: start the server. Raises Problem."""
    began = time.monotonic()
    info = _start(target, UnitHold(target.host, target.unit, target.place.dir, True))
    return _ended(target, opened, time.monotonic() - began, info)
