# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts of redis_service (tier 2): systemctl, and a restart between a proven save and a comparison."""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import proven_save
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance, wait_until_loaded
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import Process
from ansible_collections.redisops.recovery.plugins.module_utils.service.sandboxing import (
    Confined,
    exposure,
    prove_reachable,
    read_confined,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import TIMED_OUT, Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import (
    CAP_SYS_ADMIN,
    capability_bounds,
    open_files_limit,
    status_field,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import drop_in_values, parse_show

__all__ = [
    "disk_of",
    "exposure_of",
    "find_unit",
    "hold_writes",
    "process_of",
    "prove_last_word",
    "prove_paths",
    "restart_server",
    "save_before_restart",
    "sentinel_listens",
    "start_server",
    "systemctl",
    "unit_state",
    "write_drop_in",
]

_PROPERTIES = (
    "LoadState,ActiveState,SubState,UnitFileState,MainPID,NeedDaemonReload,ExecStart,DropInPaths,ReadWritePaths"
)
_UNITS = ("redis-server", "redis", "valkey-server", "valkey")
#: Longer than systemd takes to send its signal; short for the clients, should this run be cut off behind the pause.
_PAUSE_SECONDS = 30
#: Properties of which every drop-in adds to the list.
_ADDING_UP = ("ReadWritePaths", "RestrictAddressFamilies", "SystemCallArchitectures", "SystemCallFilter")
_HELLO = "__sentinel__:hello"


def systemctl(host: Host, *args: str, timeout: t.Optional[float] = None) -> str:
    """Run systemctl. Raises Problem with its words and the way to the log."""
    done = host.run("systemctl", *args, timeout=timeout)
    if done.code:
        raise Problem(
            "systemctl", f"systemctl {' '.join(args)} failed: {' '.join(done.output.split())[:500]}",
            "", f"look at: journalctl -n 50 -u {args[-1]}",
        )  # fmt: skip
    return done.output


def find_unit(host: Host) -> str:
    """The packaged unit; where none is installed yet, the name that this family of distributions gives it."""
    shown = systemctl(host, "show", "-p", "Id,LoadState", *(f"{name}.service" for name in _UNITS))
    for block in shown.split("\n\n"):
        unit = parse_show(block)
        if unit.get("LoadState") == "loaded":
            return unit["Id"][: -len(".service")]
    release = host.read("/etc/os-release") or ""
    return "redis-server" if "debian" in release else "redis"


def unit_state(host: Host, unit: str) -> dict[str, str]:
    """The unit's properties. Raises Problem where there is no systemd."""
    return parse_show(systemctl(host, "show", "-p", _PROPERTIES, f"{unit}.service"))


def exposure_of(host: Host, unit: str) -> t.Optional[float]:
    """What systemd says of the unit's confinement, 0 to 10; None where this systemd does not say."""
    return exposure(host.run("systemd-analyze", "security", "--no-pager", f"{unit}.service", timeout=60).output)


def process_of(host: Host, pid: int) -> tuple[Process, Confined]:
    """What the running process was given, and what was taken from it."""
    status = host.read(f"/proc/{pid}/status") or ""
    umask, score = status_field(status, "Umask"), host.read(f"/proc/{pid}/oom_score_adj")
    soft = open_files_limit(host.read(f"/proc/{pid}/limits") or "")[0]
    given = Process(
        soft or None, int(umask, 8) if umask else None, int(score) if score else None, host.replaced_program(pid)
    )
    confined = read_confined(status, host.read(f"/proc/{pid}/mountinfo") or "")
    if not capability_bounds(host.read("/proc/1/status") or "", CAP_SYS_ADMIN):
        # A container whose systemd may not mount: no start of any unit gives it a read-only root.
        confined = dataclasses.replace(confined, root_read_only=None)
    return given, confined


def disk_of(values: t.Mapping[str, t.Optional[str]]) -> Place:
    """Where ``values`` say that the data is."""
    return Place(*(values[name] or "" for name in PLACE))


def prove_paths(
    instance: Instance, unit: str, state: t.Mapping[str, str], drop_in: str, declared: t.Mapping[str, str]
) -> None:
    """Confined as ``declared``, the server must reach what its file names. Raises Refusal.

    ``drop_in`` is the text of ours as it is now: its paths are not the package's.
    """
    ours = set(drop_in_values(drop_in).get("ReadWritePaths", "").split())
    packaged = [word for word in state.get("ReadWritePaths", "").split() if word not in ours]
    # systemd follows links, and so does what is compared with it.
    packaged += [os.path.realpath(word.lstrip("-+")) for word in packaged + declared.get("ReadWritePaths", "").split()]
    said = {"dir": instance.in_file("dir"), "config_file": os.path.dirname(os.path.realpath(instance.path))}
    for name in ("logfile", "unixsocket", "aclfile"):
        path = instance.in_file(name)
        said[name] = os.path.dirname(path) if path and path.startswith("/") and path != "/dev/null" else None
    writes = {name: os.path.realpath(path) for name, path in said.items() if path and os.path.isabs(path)}
    prove_reachable(declared, " ".join(packaged), writes, unit)


def write_drop_in(path: str, text: str) -> None:
    """Put the drop-in in place, durably. Raises Problem."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(directory, 0o755)
        fsync_dir(os.path.dirname(directory))
    StagedFile(path, text, 0o644).commit()


def prove_last_word(host: Host, state: t.Mapping[str, str], name: str, declared: t.Mapping[str, str]) -> None:
    """No drop-in that systemd reads behind ours (they go by file name) may say otherwise. Raises Problem."""
    for later in state.get("DropInPaths", "").split():
        if os.path.basename(later) <= name:
            continue
        for key, value in drop_in_values(host.read(later) or "").items():
            if key in declared and value != declared[key] and key not in _ADDING_UP:
                raise Problem(
                    "drop_in_overridden", f"{later} sets {key}={value} behind {name}, which declares {declared[key]}",
                    "the last word on that property", f"take {key} out of {later}, declare {value}, or set drop_in to a name that sorts later",
                )  # fmt: skip


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


def sentinel_listens(server: Server) -> bool:
    """Whether a Sentinel watches (or may watch) this server: each one subscribes to its hello channel."""
    try:
        return int(server.command("PUBSUB", "NUMSUB", _HELLO)[1]) > 0
    except CommandError:
        return True  # not allowed to ask: a primary with replicas is then taken for a watched one


def save_before_restart(server: Server, prove: t.Callable[[Info], None], timeout: float) -> None:
    """A proven save, between two proofs that a start would find it. Nothing has been touched yet. Raises Problem."""
    prove(server.info())  # before the save: it replaces a file
    prove(proven_save(server, timeout))


class _Pause:
    """Writes are not acknowledged while this is renewed; the pause ends by itself soon after a run that was cut off."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._renew_at = 0.0

    def renew(self) -> None:
        if time.monotonic() >= self._renew_at:
            self._server.command("CLIENT", "PAUSE", _PAUSE_SECONDS * 1000, "WRITE")
            self._renew_at = time.monotonic() + _PAUSE_SECONDS / 3

    def end(self) -> None:
        try:
            self._server.command("CLIENT", "UNPAUSE")
        except (CommandError, ServerDown):
            pass


def hold_writes(server: Server, prove: t.Callable[[Info], None], timeout: float) -> tuple[_Pause, Info]:
    """Stop acknowledging writes, and prove again: what is proven from here on is what there is. Raises Problem."""
    pause = _Pause(server)
    pause.renew()
    try:
        info = server.info()
        prove(info)
        if not info.flag("aof_enabled") and info.number("rdb_changes_since_last_save"):
            # Without an AOF the RDB file is all there will be, and how the process ends (shutdown-on-sigterm, a time limit of
            # systemd) is not ours: take in what was written since the first save.
            info = proven_save(server, timeout, tick=pause.renew)
            pause.renew()
    except Problem as problem:
        pause.end()
        raise Problem(
            problem.code, f"{problem.saw}; the server has not been restarted", problem.needs, problem.do
        ) from None
    except BaseException:
        pause.end()
        raise
    return pause, info


def restart_server(
    host: Host, unit: str, server: Server, login: Login, prove: t.Callable[[Info], None], timeout: float
) -> tuple[Info, Info]:
    """Writes paused → proof repeated → restart → loaded. Gives INFO before and after. Raises Problem.

    Comes after save_before_restart(). Between the pause and the end of the process no write is acknowledged. The pause ends
    by itself, should this run be cut off.
    """
    pause, before = hold_writes(server, prove, timeout)
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
