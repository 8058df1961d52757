# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which commands a release knows, and with how many arguments: a start on an AOF with another one fails, and redis-check-aof does not see it."""

from __future__ import annotations

import dataclasses
import typing as t

__all__ = ["CommandTable", "Shape", "table_of"]


class Shape(t.NamedTuple):
    """How a command stands in an AOF, in small letters: its name, its subcommand where it is one that has such, and its number of words."""

    name: str
    first: str
    words: int


@dataclasses.dataclass(frozen=True)
class CommandTable:
    """``arity`` by name, ``name|subcommand`` for those that have such: so many words, or at least so many where it is negative.

    ``containers``: names that are nothing without a subcommand. ``more``: whether names that are not here may be known all the same, by a module.
    """

    arity: t.Mapping[str, int]
    containers: frozenset[str] = frozenset()
    more: bool = False

    def _arity(self, shape: Shape) -> t.Optional[int]:
        return self.arity.get(
            f"{shape.name}|{shape.first}" if shape.name in self.containers and shape.words > 1 else shape.name
        )

    def knows(self, shape: Shape) -> bool:
        """Whether there is such a command, or may be one by a module."""
        return self.more or self._arity(shape) is not None

    def fault(self, shape: Shape) -> str:
        """Why a start would fail on such a command; empty where it would not."""
        arity, words = self._arity(shape), f"{shape.name} {shape.first}".strip().upper()
        if arity is None:
            return "" if self.more else f"{words} is no command of the installed release"
        if (arity > 0 and shape.words != arity) or shape.words < -arity:
            return (
                f"{words} with {shape.words} words, where {'at least ' if arity < 0 else ''}{abs(arity)} should stand"
            )
        return ""

    def renamed(self, lines: t.Iterable[tuple[str, str]], more: bool) -> CommandTable:
        """The same after ``rename-command`` (name, other name or nothing): the old name is no command any more. ``more``: as above."""
        arity, containers = dict(self.arity), set(self.containers)
        for name, other in ((name.lower(), other.lower()) for name, other in lines):
            for known in [known for known in arity if known == name or known.startswith(f"{name}|")]:
                words = arity.pop(known)
                if other:
                    arity[other + known[len(name) :]] = words
            if name in containers:
                containers.discard(name)
                containers.add(other)
        return CommandTable(arity, frozenset(containers), more)


def _text(value: t.Any) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).lower()


def table_of(reply: t.Sequence[t.Any]) -> CommandTable:
    """The table out of the answer to COMMAND: name, number of words, and from 7.0 on the subcommands as its tenth element, in the same form."""
    arity: dict[str, int] = {}
    containers = set()
    for row in reply:
        name = _text(row[0])
        arity[name] = int(row[1])
        subcommands = row[9] if len(row) > 9 and isinstance(row[9], (list, tuple)) else ()
        if subcommands:
            containers.add(name)
        arity.update({_text(one[0]): int(one[1]) for one in subcommands})
    return CommandTable(arity, frozenset(containers))
