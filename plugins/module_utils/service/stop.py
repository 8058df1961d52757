# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way to stop a server: writes paused, looked at again, and ended by its own shutdown, which saves or refuses to end.

The signal is ours and not systemd's, which would kill what cannot save. Redis ends only where its save went well; where it goes on, it has
lost nothing, and the stop is what failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import (
    heal_torn,
    keep_unread,
    place_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server, connect, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["stop_server"]

#: A pause is renewed while anything waits; a run that dies leaves it for no longer than this.
_PAUSE_SECONDS = 30
#: Redis looks for the signal ten times a second: one that answers so long after it has refused to end.
_REFUSED_SECONDS = 3.0
_SOON_SECONDS, _POLL_SECONDS = 1.0, 0.05
#: Ways of ending on SIGTERM that do not save, or end without a save that went well.
_UNSAFE = ("nosave", "force", "now")


def _require_ending_saves(server: Server, info: Info) -> t.Optional[str]:
    """See to it that the shutdown saves where the RDB file is all there will be; gives the setting from before where it was changed."""
    found = server.config_get("shutdown-on-sigterm").get("shutdown-on-sigterm")
    if found is None:
        return None  # before 7.0: it saves where there are save points, and never ends on a save that failed
    wanted = "default" if info.flag("aof_enabled") else "save"
    safe = not any(word in found.split() for word in _UNSAFE)
    if safe and (info.flag("aof_enabled") or "save" in found.split()):
        return None
    server.config_set({"shutdown-on-sigterm": wanted})
    return found


def _answers(server: Server) -> bool:
    """Whether it answers, and is not about to end."""
    try:
        probe = connect(server.login, 1.0)
    except Problem:
        return False
    try:
        return not probe.info("server").text("shutdown_in_milliseconds")
    except Problem:
        return False
    finally:
        probe.close()


def _wait_for_end(host: Host, server: Server, pause: WritePause, who: tuple[int, int], timeout: float) -> str:
    """Until process ``who`` (id, when it began) has ended; else the code that says why it has not."""
    pid, began = who
    signalled, goes_on = time.monotonic(), None
    while host.began(pid) == began:
        now = time.monotonic()
        answers = now - signalled > _SOON_SECONDS and _answers(server)
        goes_on = (goes_on or now) if answers else None
        if goes_on and now - goes_on > _REFUSED_SECONDS:
            return "stop_refused"
        if now - signalled > timeout:
            return "stop_timeout"
        with contextlib.suppress(Problem):
            pause.renew()
        time.sleep(_POLL_SECONDS)
    return ""


def _not_stopped(code: str, unit: str, timeout: float) -> Problem:
    if code == "stop_timeout":
        return Problem(
            code,
            f"Redis was told to end, and has not after {timeout:g} seconds: it saves, or waits for its replicas. {unit} starts again when it has",
            "time to save",
            "look into the server's log, and set a longer timeout",
        )
    return Problem(
        code,
        f"Redis does not end: it goes on with all of its data, since it could not save; {unit} has not been stopped",
        "a save that goes well",
        "look into the server's log: a full disk, missing memory for fork and wrong owners are the usual causes; then run again",
    )


def _end(host: Host, server: Server, pause: WritePause, pid: int, timeout: float) -> str:
    """Send the signal to that very process, and wait; empty once it has ended, else why it has not."""
    began = host.began(pid)
    if began is None:
        return ""
    os.kill(pid, signal.SIGTERM)
    return _wait_for_end(host, server, pause, (pid, began), timeout)


def stop_server(
    hold: UnitHold, host: Host, server: Server, require_safe: t.Callable[[Info], None], timeout: float
) -> Info:
    """End the server with all that it acknowledged on disk, and keep everybody from starting it. Gives its last INFO.

    ``hold`` is engaged and stays so. ``require_safe`` looks once more, under the pause. Raises Problem; then the server goes on, writes too.
    """
    heal_torn(server, host, place_of(server), timeout)
    # While Redis makes an AOF for the first time, as a replica does after each full synchronisation, it does not end.
    wait_for(lambda: not server.info("persistence").flag("aof_rewrite_in_progress"), timeout)
    pause = WritePause(server.command, _PAUSE_SECONDS)
    pause.renew()
    before: t.Optional[str] = None
    try:
        info = server.info()
        require_safe(info)
        keep_unread(host, info, scan(place_of(server)))  # the shutdown saves over it
        before = _require_ending_saves(server, info)
        pause.renew(always=True)
        info = server.info()
        failed = _end(host, server, pause, info.number("process_id"), timeout)
        if failed:
            raise _not_stopped(failed, hold.unit, timeout)
    except BaseException as error:
        if before is not None:
            with contextlib.suppress(Problem):
                server.config_set({"shutdown-on-sigterm": before})
        pause.end()
        if isinstance(error, Problem) and not error.code.startswith("stop_"):
            error.detected += "; the server has not been stopped"
        raise
    server.close()
    systemctl(host, "stop", f"{hold.unit}.service", timeout=timeout)
    return info
