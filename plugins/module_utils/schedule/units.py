# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units of what a host does for its backups by itself."""

from __future__ import annotations

import dataclasses
import typing as t

__all__ = ["Piece", "path_unit", "service", "timer"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """One program with its settings. ``units``: file name → text, the service first; what starts it comes after it.

    ``program`` is empty for a service of somebody else, which gets ``settings`` by a drop-in; ``others`` are then started in its place.
    """

    program: str
    settings_name: str
    settings: str
    units: t.Mapping[str, str]
    wanted: bool
    others: tuple[str, ...] = ()

    @property
    def starters(self) -> list[str]:
        """What is started, now and at boot, and again when something of the piece differs."""
        return [name for name in self.units if not name.endswith(".service")] if self.program else list(self.others)


def service(words: str, command: str, weight: int, home: str) -> str:
    """A run that yields to others, and ends when it ends."""
    return f"""[Unit]
Description={words}
StartLimitIntervalSec=0

[Service]
Type=oneshot
Environment=PYTHONPATH={home} PYTHONDONTWRITEBYTECODE=1
ExecStart={command}
TimeoutStartSec=infinity
Nice=10
CPUWeight={weight}
IOWeight={weight}
NoNewPrivileges=true
PrivateTmp=true
"""


def timer(words: str, on_calendar: str, delay: int) -> str:
    """``delay``: seconds at most by which chance puts a run off. A run that was missed is made up for."""
    return f"""[Unit]
Description={words}

[Timer]
OnCalendar={on_calendar}
RandomizedDelaySec={delay}
Persistent=true

[Install]
WantedBy=timers.target
"""


def path_unit(words: str, path: str) -> str:
    """Starts the service when something comes into or goes out of the directory ``path``; writing into a file there is no such thing."""
    return f"""[Unit]
Description={words}

[Path]
PathChanged={path}

[Install]
WantedBy=paths.target
"""
