# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pauses the writes of a server (CLIENT PAUSE … WRITE): no write is acknowledged until the pause ends, and reads go on."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, ServerDown

__all__ = ["WritePause"]


class WritePause:
    """A pause that whoever waits under it renews, and that ends by itself ``seconds`` after a run that was cut off.

    ``command`` sends one command to the server, as Server.command does.
    """

    def __init__(self, command: t.Callable[..., t.Any], seconds: float) -> None:
        self._command = command
        self.seconds = seconds
        self.began = 0.0
        self._until = 0.0
        #: Whether the pause ran out before it was renewed, so that writes may have been acknowledged meanwhile.
        self.lapsed = False

    def renew(self, always: bool = False) -> None:
        """Pause from now on; a pause that has more than two thirds of its time left is left as it is. Raises what ``command`` does."""
        now = time.monotonic()
        if not always and now < self._until - self.seconds * 2 / 3:
            return
        self.lapsed = self.lapsed or bool(self._until and now > self._until)
        self._command("CLIENT", "PAUSE", int(self.seconds * 1000), "WRITE")
        self.began = self.began or now
        self._until = now + self.seconds

    @property
    def lasted(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def end(self) -> None:
        """Let writes go on; a server that is gone has nothing to be told."""
        try:
            self._command("CLIENT", "UNPAUSE")
        except (CommandError, ServerDown, Problem):
            pass
