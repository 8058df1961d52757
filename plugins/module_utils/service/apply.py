# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts of redis_service: systemctl, and a restart between a verified save and a comparison."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import verified_save
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    Login,
    Server,
    ServerDown,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import wait_until_loaded
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import TIMED_OUT, Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["pause_writes", "restart_server", "save_before_restart", "start_server", "write_drop_in"]

#: Longer than systemd takes to send its signal; short for the clients, should this run be cut off behind the pause.
_PAUSE_SECONDS = 30


def write_drop_in(path: str, text: str) -> None:
    """Put the drop-in in place, durably. Raises Problem."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(directory, 0o755)
        fsync_dir(os.path.dirname(directory))
    StagedFile(path, text, 0o644).commit()


def _connect_when_up(login: Login, timeout: float) -> Server:
    found: list[Server] = []

    def answers() -> bool:
        try:
            found.append(connect(login))
        except ServerDown:
            return False
        return True

    if not wait_for(answers, timeout):
        raise Problem(
            "server_down",
            f"nothing listens at {login.address} {timeout:g} seconds after the start",
            "a server that comes up",
            "look into its log",
        )
    return found[0]


def start_server(host: Host, unit: str, login: Login, timeout: float) -> Info:
    """Start the unit and wait until its data is loaded. Raises Problem."""
    systemctl(host, "start", f"{unit}.service", timeout=timeout)
    server = _connect_when_up(login, timeout)
    try:
        return wait_until_loaded(server, timeout)
    finally:
        server.close()


def save_before_restart(server: Server, require_safe: t.Callable[[Info], None], timeout: float) -> None:
    """A verified save, between two proofs that a start would find it. Nothing has been touched yet. Raises Problem."""
    require_safe(server.info())  # before the save: it replaces a file
    require_safe(verified_save(server, timeout))


def pause_writes(server: Server, require_safe: t.Callable[[Info], None], timeout: float) -> tuple[WritePause, Info]:
    """Stop acknowledging writes, and look again whether it is safe: what is verified from here on is what there is. Raises Problem."""
    pause = WritePause(server.command, _PAUSE_SECONDS)
    pause.renew()
    try:
        info = server.info()
        require_safe(info)
        if not info.flag("aof_enabled") and info.number("rdb_changes_since_last_save"):
            # Without an AOF the RDB file is all there will be, and how the process ends (shutdown-on-sigterm, a time limit of
            # systemd) is not ours: take in what was written since the first save.
            info = verified_save(server, timeout, tick=pause.renew)
            pause.renew()
    except Problem as problem:
        pause.end()
        raise Problem(
            problem.code, f"{problem.detected}; the server has not been restarted", problem.needs, problem.do
        ) from None
    except BaseException:
        pause.end()
        raise
    return pause, info


def restart_server(
    host: Host, unit: str, server: Server, login: Login, require_safe: t.Callable[[Info], None], timeout: float
) -> tuple[Info, Info]:
    """Writes paused → proof repeated → restart → loaded. Gives INFO before and after. Raises Problem.

    Comes after save_before_restart(). Between the pause and the end of the process no write is acknowledged. The pause ends
    by itself, should this run be cut off.
    """
    pause, before = pause_writes(server, require_safe, timeout)
    done = host.run("systemctl", "restart", f"{unit}.service", timeout=timeout)
    if done.code:
        if done.code != TIMED_OUT:
            pause.end()  # the old process is still there: it refuses to end when it cannot save
        raise Problem(
            "restart_failed", f"systemctl restart {unit}.service failed: {' '.join(done.output.split())[:500]}",
            "", f"look at: journalctl -n 50 -u {unit}; the data was saved before",
        )  # fmt: skip
    fresh = _connect_when_up(login, timeout)
    try:
        wait_until_loaded(fresh, timeout)
        return before, fresh.info("everything")
    finally:
        fresh.close()
