# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody but us starts the unit between our stop and our start: no watchdog, no second play, not systemd itself.

A drop-in of /run lets each start fail while a file of ours is there, and ends the restarts by systemd. Should this run die, a timer on the
host sees within a minute that nobody holds the lock of the data any more, takes both away, and starts the unit if it ran before.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_path
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["RELEASE_SECONDS", "UnitHold"]

#: So often the timer looks whether this run still lives.
RELEASE_SECONDS = 60


class UnitHold:
    """Holds a unit's starts. ``directory`` is the data directory, whose lock this run has; ``ran``: the unit is to run again at the end."""

    def __init__(self, host: Host, unit: str, directory: str, ran: bool) -> None:
        self._host, self.unit, self._ran = host, unit, ran
        self._directory = directory
        self._mark = os.path.join(host.runtime, "redisops", "held", unit)
        self._drop_in = os.path.join(host.runtime, "systemd", "system", f"{unit}.service.d", "zzz-redisops-held.conf")
        self._timer = f"redisops-release-{unit.replace('@', '-')}"
        self.engaged = False
        self._allowed = False

    def _script(self) -> str:
        """What the timer runs: nothing while the lock is held."""
        start = f"systemctl start {shlex.quote(self.unit)}.service; " if self._ran else ""
        return (
            f"exec 9<>{shlex.quote(lock_path(self._directory))} || exit 0; flock -n 9 || exit 0; "
            f"rm -f {shlex.quote(self._mark)} {shlex.quote(self._drop_in)}; systemctl daemon-reload; {start}"
            f"systemctl stop {self._timer}.timer"
        )

    def engage(self) -> None:
        """From here on the unit does not start. Raises Problem; then it starts as before."""
        self._allowed = False
        try:
            for path, text in (
                (self._mark, "held by redisops.recovery\n"),
                (self._drop_in, f"[Unit]\nAssertPathExists=!{self._mark}\n[Service]\nRestart=no\n"),
            ):
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                StagedFile(path, text, 0o644).commit()
        except OSError as error:
            self.release()
            raise Problem(
                "hold_failed", f"{error.filename} cannot be made: {error.strerror}", "a writable /run", "look at /run"
            ) from None
        self.engaged = True
        try:
            # One that a run left behind which died less than a minute ago: we have the lock now, and its work is ours.
            self._host.run("systemctl", "stop", f"{self._timer}.timer", timeout=60)
            done = self._host.run(
                "systemd-run", "--collect", f"--unit={self._timer}", f"--on-active={RELEASE_SECONDS}", f"--on-unit-active={RELEASE_SECONDS}",
                "--timer-property=AccuracySec=5s", "/bin/sh", "-c", self._script(), timeout=60,
            )  # fmt: skip
            if done.code:
                raise Problem(
                    "hold_failed",
                    f"systemd-run cannot make the timer that would start {self.unit} again if this run died: {' '.join(done.output.split())[:300]}",
                    "a way back without a controller",
                    f"see what systemctl status {self._timer}.timer says, stop it, then run again",
                )
            systemctl(self._host, "daemon-reload")
        except BaseException:
            self.release()
            raise

    def allow(self) -> None:
        """Our own start is next: it may be anybody's from here on."""
        self._allowed = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark)

    def release(self) -> None:
        """Leave nothing of it behind."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark)
        with contextlib.suppress(OSError):
            os.unlink(self._drop_in)
            os.rmdir(os.path.dirname(self._drop_in))
        if self.engaged:
            self._host.run("systemctl", "daemon-reload", timeout=60)
            self._host.run("systemctl", "stop", f"{self._timer}.timer", timeout=60)
            self.engaged = False

    def __enter__(self) -> UnitHold:
        self.engage()
        return self

    def __exit__(self, kind: t.Any, *_error: t.Any) -> None:
        came_to_its_start = self._allowed
        self.release()
        if kind is not None and self._ran and not came_to_its_start:
            # Whatever ended us between stop and start: a server that ran before runs again, on data that is whole.
            self._host.run("systemctl", "start", f"{self.unit}.service", timeout=60)
