# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A unit that only pretends: what systemctl would say of a real server, and do with it. systemd itself is Molecule's."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host, run_command


class PretendedUnit:
    """``did``: what was done to the unit. ``broken``: its next start fails. ``no_timers``: systemd-run fails. A start fails while the unit is held, as systemd would let it."""

    def __init__(self, server: t.Any) -> None:
        self.server = server
        self.conf = server.conf
        self.did: list[str] = []
        self.broken = False
        self.enabled = True
        self.timers: list[str] = []
        self.scripts: list[str] = []
        self.no_timers = False

    def pid(self) -> int:
        process = self.server.process
        return process.pid if process and process.poll() is None else 0

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    @property
    def held(self) -> bool:
        return os.path.exists(os.path.join(Host.runtime, "redisops", "held", "redis"))

    def _show(self) -> Completed:
        command = f"{{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server {self.conf} ; }}"
        return Completed(
            0, f"Id=redis.service\nLoadState=loaded\nUnitFileState={'enabled' if self.enabled else 'disabled'}\nMainPID={self.pid()}\n"
            f"ActiveState={'active' if self.pid() else 'inactive'}\nExecStart={command}\nDropInPaths=\n"
        )  # fmt: skip

    def run(self, *args: str, **more: t.Any) -> Completed:
        if args[0] == "systemd-run":
            if self.no_timers:
                return Completed(1, "Failed to start transient timer unit")
            self.timers.append(args[2])
            self.scripts.append(args[-1])
            return Completed(0, "")
        if args[0] != "systemctl":
            return run_command(*args, **more)
        if args[1] == "show":
            return self._show()
        if args[-1].endswith(".timer") or (args[1] == "daemon-reload" and self.timers):
            return Completed(0, "")
        self.did.append(args[1])
        if args[1] in ("enable", "disable"):
            self.enabled = args[1] == "enable"
        if args[1] in ("stop", "restart"):
            self.stop()
        if args[1] in ("start", "restart"):
            return self._start()
        return Completed(0, "")

    def _start(self) -> Completed:
        if self.held:
            return Completed(1, "Assertion failed on job for redis.service.")
        if self.broken:
            self.broken = False
            return Completed(1, "Job for redis.service failed")
        if not self.pid():  # else it runs already, and systemctl does nothing
            self.start()
        return Completed(0, "")
