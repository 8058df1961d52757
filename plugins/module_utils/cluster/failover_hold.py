# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a cluster's replica from taking over while its primary is restored.

Live only: what a cut leaves is forgotten by the replica's next start as well. What was before is noted, and a timer on the host puts it back
by itself, should nobody else; until then it holds a replica that restarts meanwhile again.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.hold_script import (
    DIRECTIVE,
    HoldFiles,
    hold_script,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, Server, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["HELD_SECONDS", "LOOK_SECONDS", "set_failover_hold"]

#: After this time a replica that nobody released may take over again; so often the timer looks.
HELD_SECONDS = 7200
LOOK_SECONDS = 30

_TLS = (("ca_certs", "--cacert"), ("client_cert_file", "--cert"), ("client_key_file", "--key"))


def _redis_cli(login: Login) -> list[str]:
    words = ["redis-cli", "-e", "--no-auth-warning"]
    words += ["-s", login.unix_socket] if login.unix_socket else ["-h", login.host, "-p", str(login.port)]
    words += ["--user", login.user] if login.user else []
    if login.tls:
        words.append("--tls")
        words += [word for name, option in _TLS if getattr(login, name) for word in (option, getattr(login, name))]
        words += [] if login.validate_certs else ["--insecure"]
    return words


class _Hold:
    """The hold of one replica: its notes in ``folder``, and its timer."""

    def __init__(self, server: Server, folder: str, host: Host) -> None:
        self._server, self._folder, self._host = server, folder, host
        name = f"failover-blocked-{server.login.port}"
        stem = os.path.join(folder, name)
        self._files = HoldFiles(stem, f"{stem}.auth", f"{stem}.until")
        self._timer = f"redisops-{name}"

    def before(self) -> t.Optional[tuple[str, str]]:
        """What was set before, and the id of the process that was held; None where nothing is held."""
        if not os.path.exists(self._files.note):
            return None
        lines = [*read_text(self._files.note).split(), ""]
        return lines[0], lines[1]

    def _uptime(self) -> int:
        return int(float((self._host.read("/proc/uptime") or "0").split()[0]))

    def _until(self, seconds: int) -> None:
        StagedFile(self._files.until, f"{self._uptime() + seconds if seconds else 0}\n", 0o600).commit()

    def engage(self, live: str, run_id: str) -> None:
        """Note what was, and make the timer. Raises Problem; then nothing is held."""
        os.makedirs(self._folder, 0o755, exist_ok=True)
        noted = self.before()
        login, before = self._server.login, noted[0] if noted else live
        StagedFile(self._files.password, login.password or "", 0o600).commit()
        if noted is None:
            StagedFile(self._files.note, f"{live}\n{run_id}\n", 0o644).commit()
        self._until(HELD_SECONDS)
        self._host.run(
            "systemctl", "stop", f"{self._timer}.timer", timeout=60
        )  # of an earlier hold, with an earlier login
        done = self._host.run(
            "systemd-run", "--collect", f"--unit={self._timer}", f"--on-active={LOOK_SECONDS}", f"--on-unit-active={LOOK_SECONDS}",
            "--timer-property=AccuracySec=5s", "/bin/sh", "-c", hold_script(_redis_cli(login), self._files, before, self._timer), timeout=60,
        )  # fmt: skip
        if done.code:
            self.forget()
            raise Problem(
                "hold_failed",
                f"systemd-run cannot make the timer that would let this replica go if this run died: {' '.join(done.output.split())[:300]}",
                "a way back without a controller",
                f"see what systemctl status {self._timer}.timer says, stop it, then run again",
            )

    def release(self) -> None:
        """From here on the timer, if it comes first, puts back what was."""
        if os.path.exists(self._files.until):
            self._until(0)

    def forget(self) -> None:
        """Nothing of it is left."""
        self._host.run("systemctl", "stop", f"{self._timer}.timer", timeout=60)
        for path in self._files.all:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _words(held: bool, noted: t.Optional[tuple[str, str]], run_id: str) -> str:
    if held:
        return "let no replica take over while its primary is restored"
    if noted and noted[1] and noted[1] != run_id:
        return f"let it take over again (it restarted while it was held, and was free for up to {LOOK_SECONDS} s)"
    return "let it take over again"


def set_failover_hold(
    server: t.Optional[Server], held: bool, folder: str, timeout: float, check: bool, host: Host
) -> list[Change]:
    """Hold a replica, or let it go and wait until it has copied its primary; of a primary, or a stopped server, nothing is asked.

    ``folder``: where it is noted. Gives what differed. Raises Problem.
    """
    if server is None or server.info("replication").text("role") != "slave":
        return []
    hold, live, run_id = (
        _Hold(server, folder, host),
        server.config_get(DIRECTIVE)[DIRECTIVE],
        server.info("server").text("run_id"),
    )
    noted = hold.before()
    wanted = "yes" if held else noted[0] if noted else live
    changes = [Change("live", DIRECTIVE, live, wanted, _words(held, noted, run_id))] if live != wanted else []
    if check:
        return changes
    if held:
        hold.engage(live, run_id)
        server.config_set({DIRECTIVE: wanted})
        return changes
    hold.release()
    server.config_set({DIRECTIVE: wanted})
    if not wait_for(lambda: server.info("replication").text("master_link_status") == "up", timeout):
        raise Problem(
            "not_copied",
            f"this replica has not copied its primary after {timeout:g} s",
            "a link that is up",
            "look at the log of both; the primary has what was restored",
        )
    if noted is not None:
        hold.forget()
    return changes
