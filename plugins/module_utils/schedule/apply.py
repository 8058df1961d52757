# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs, settings and units that run by themselves on a host: what differs, and making it so."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.program import sources
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.units import Piece
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import parse_show

__all__ = ["Schedule", "require_calendar"]


def require_calendar(host: Host, option: str, text: str) -> None:
    """Whether systemd takes ``text``; a host without systemd-analyze is not asked. Raises Problem."""
    done = host.run("systemd-analyze", "calendar", text)
    if done.code and done.code != 127:
        raise Problem(
            "invalid_value",
            f"{option}: systemd does not take {text!r}",
            "a calendar event (man systemd.time)",
            f"set {option}",
        )


@dataclasses.dataclass
class Schedule:
    """Pieces under ``home`` (programs) and ``units``; made for one host and one run."""

    host: Host
    home: str
    units: str
    pieces: t.Sequence[Piece]

    def __post_init__(self) -> None:
        self._files = self._wanted_files()
        self._unwanted = {
            path
            for piece in self.pieces
            if not piece.wanted
            for path in (piece.settings_name, *(os.path.join(self.units, one) for one in piece.units))
        }
        self._starters = {unit: piece.wanted for piece in self.pieces for unit in piece.starters}
        self._before = {unit: self._is_on(unit, on) for unit, on in self._starters.items()}

    def _wanted_files(self) -> dict[str, tuple[str, int]]:
        """Path → text and mode, in the order of effects: never what starts a service without it, never a service without its program."""
        found = {
            path: (text, 0o644)
            for piece in self.pieces
            if piece.wanted and piece.program
            for path, text in sources(piece.program, self.home).items()
        }
        for piece in self.pieces:
            found[piece.settings_name] = (piece.settings, 0o600)
            found.update({os.path.join(self.units, name): (text, 0o644) for name, text in piece.units.items()})
        return found

    def _is_on(self, unit: str, wanted: bool) -> bool:
        """Whether it is started now and at boot; of what is not wanted, whether it is either."""
        state = parse_show(systemctl(self.host, "show", "-p", "ActiveState,UnitFileState,NeedDaemonReload", unit))
        if (
            wanted and state.get("NeedDaemonReload") == "yes"
        ):  # of a run that was cut off before systemd had read its files
            return False
        return (all if wanted else any)((state.get("ActiveState") == "active", state.get("UnitFileState") == "enabled"))

    def changes(self) -> list[Change]:
        """What differs, in the order in which it would be put right."""
        found = []
        for path, (text, mode) in self._files.items():
            there = os.path.exists(path)
            if path in self._unwanted:
                if there:
                    found.append(Change("file", path, "present", None, f"remove {path}"))
            elif not (there and read_text(path) == text and os.stat(path).st_mode & 0o7777 == mode):
                found.append(Change("file", path, "different" if there else None, "as declared", f"write {path}"))
        for unit, on in self._starters.items():
            if self._before[unit] != on:
                words = f"{'start' if on else 'stop'} {unit} now and at boot"
                found.append(Change("boot", unit, "on" if self._before[unit] else "off", "on" if on else "off", words))
        return found

    def _stale(self, unit: str, changed: t.Collection[str]) -> bool:
        """Whether it runs with what was before: a timer with its old file, a service of somebody else with its old login."""
        piece = next(one for one in self.pieces if unit in one.starters)
        names = [unit] if piece.program else [*piece.units]
        own = [os.path.join(self.units, name) for name in names] + ([] if piece.program else [piece.settings_name])
        return any(path in changed for path in own)

    def carry_out(self, changes: t.Iterable[Change]) -> None:
        """Make it so. Raises Problem."""
        changed = {change.name for change in changes}
        for unit, on in self._starters.items():
            if self._before[unit] and not on:
                self.host.run("systemctl", "disable", "--now", unit)
        for path, (text, mode) in self._files.items():
            if path in changed and path in self._unwanted:
                os.unlink(path)
            elif path in changed:
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                StagedFile(path, text, mode, access=Access(os.geteuid(), os.getegid(), mode)).commit()
        systemctl(self.host, "daemon-reload")
        for unit, on in self._starters.items():
            if on and (not self._before[unit] or self._stale(unit, changed)):
                systemctl(self.host, "enable", unit)
                systemctl(self.host, "restart", unit)
