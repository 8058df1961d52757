# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lossless editor of sentinel.conf: only lines that are named are touched, Sentinel's runtime state never is.

The file is Sentinel's own state. It writes it anew at its start and at every change: ``myid``, epochs, ``known-replica``,
``known-sentinel``, and the primary that is one now. This editor is for a file whose Sentinel does not run.
"""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, join_args

__all__ = ["STATE", "SentinelConf"]

#: Sentinel's runtime state; ``monitor`` counts as well once Sentinel has run.
STATE = ("myid", "current-epoch", "config-epoch", "leader-epoch", "known-replica", "known-slave", "known-sentinel")
#: Options that are not of one primary.
_GLOBAL = frozenset(
    [
        "announce-hostnames", "announce-ip", "announce-port", "current-epoch", "deny-scripts-reconfig", "myid", "resolve-hostnames",
        "sentinel-pass", "sentinel-user",
    ]
)  # fmt: skip


class SentinelConf(RedisConf):
    """One sentinel.conf, held as its lines."""

    def _sentinel(self) -> list[tuple[int, str, str, tuple[str, ...]]]:
        """Line, option, primary ("" for none) and further arguments of every sentinel directive."""
        found = []
        for entry in self.directives():
            if entry.name != "sentinel" or not entry.args:
                continue
            option = entry.args[0].lower()
            if option in _GLOBAL or len(entry.args) < 2:
                found.append((entry.number, option, "", entry.args[1:]))
            else:
                found.append((entry.number, option, entry.args[1], entry.args[2:]))
        return found

    @property
    def fresh(self) -> bool:
        """Whether no Sentinel ever ran with this file: what it monitors is an example, and no state."""
        return not any(option == "myid" for _line, option, _name, _args in self._sentinel())

    def primaries(self) -> dict[str, dict[str, str]]:
        """Options of each monitored primary; ``monitor`` is ``address port quorum``."""
        found: dict[str, dict[str, str]] = {}
        for _line, option, name, _args in self._sentinel():
            if name and option == "monitor":
                found.setdefault(name, {})
        for _line, option, name, args in self._sentinel():
            if name in found and option not in STATE:
                found[name][option] = " ".join(args)
        return found

    def options(self) -> dict[str, str]:
        """What is stated of Sentinel itself: ``announce-ip`` and its like."""
        return {
            option: " ".join(args) for _line, option, name, args in self._sentinel() if not name and option not in STATE
        }

    def users(self) -> list[str]:
        """The lines of users, behind the word user."""
        return [" ".join(entry.args) for entry in self.directives() if entry.name == "user"]

    def set_option(self, option: str, value: t.Optional[str]) -> None:
        """One option of Sentinel itself, before the first primary: names need ``resolve-hostnames`` there. None takes it out."""
        lines = [line for line, found, name, _args in self._sentinel() if found == option and not name]
        wanted = [] if value is None else [join_args(("sentinel", option, value))]
        if lines:
            self._replace(lines, wanted)
            return
        first = [line for line, found, _name, _args in self._sentinel() if found == "monitor"]
        self._insert(first[0] - 1 if first else self._end(), wanted)

    def set_primary(self, name: str, option: str, value: t.Optional[str]) -> None:
        """One option of a primary; ``monitor`` adds it where it is not there. None takes the option out."""
        lines = [line for line, found, whose, _args in self._sentinel() if found == option and whose == name]
        words = tuple(value.split(" ")) if value is not None and option == "monitor" else (value,)
        wanted = [] if value is None else [join_args(("sentinel", option, name, *words))]
        if lines:
            self._replace(lines, wanted)
            return
        monitor = [line for line, found, whose, _args in self._sentinel() if found == "monitor" and whose == name]
        self._insert(monitor[0] if monitor else self._end(), wanted)

    def remove_primary(self, name: str) -> None:
        """Every line about a primary."""
        self._replace([line for line, _found, whose, _args in self._sentinel() if whose == name], [])

    def set_users(self, lines: t.Sequence[str]) -> None:
        """The lines of users, each without the word user, where the first one stood."""
        wanted = [f"user {line}" for line in lines]
        mine = [entry.number for entry in self.directives() if entry.name == "user"]
        if mine:
            self._replace(mine, wanted)
        else:
            self._insert(self._end(), wanted)

    def _replace(self, lines: t.Sequence[int], wanted: t.Sequence[str]) -> None:
        position = lines[0] - 1 if lines else 0
        for line in reversed(lines):
            del self._lines[line - 1]
        self._insert(position, wanted)

    def _end(self) -> int:
        return len(self._lines) - 1 if self._lines[-1] == "" else len(self._lines)

    def _insert(self, position: int, wanted: t.Sequence[str]) -> None:
        new = list(wanted)
        if new and position == len(self._lines):
            new.append("")
        self._lines[position:position] = new
