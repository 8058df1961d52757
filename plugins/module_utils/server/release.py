# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides whether a file of one server loads elsewhere, next to the data itself: the program, its modules, its renamed commands."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import (
    Directive,
    join_args,
    split_args,
)

__all__ = ["INSTALLED", "Release", "loading_lines", "rename_lines", "renamed_commands", "valid_lines"]

_DECIDE = ("rename-command", "loadmodule")
#: What a temporary server is asked by, under its own name. None of it stands in a data file under the name that a client used.
_NEEDED = frozenset({"auth", "client", "command", "config", "debug", "hello", "info", "ping", "quit"})
#: What it is asked by as well, under the name that it has there; turned off, it could not be asked.
_ASKED = frozenset(
    {
        "del",
        "dump",
        "function",
        "hkeys",
        "hlen",
        "hpexpiretime",
        "llen",
        "module",
        "pexpiretime",
        "restore",
        "save",
        "scan",
        "scard",
    }
    | {"select", "strlen", "type", "xinfo", "xlen", "zcard"}
)


@dataclasses.dataclass(frozen=True)
class Release:
    """``program`` is a path, empty for the one that is installed; ``lines`` are rename-command and loadmodule, as redis.conf has them."""

    program: str = ""
    lines: tuple[str, ...] = ()
    databases: str = "16"

    @property
    def applied(self) -> tuple[str, ...]:
        """The lines that a temporary server is given: it has to be asked as well, and a name that stands in no data file decides nothing."""
        return tuple(line for line in self.lines if not _is_needed(line))

    @property
    def renamed(self) -> dict[str, str]:
        """Command, in lower case → the name that the temporary server knows it by; empty where it is turned off."""
        words = [split_args(line) for line in self.applied]
        return {row[1].lower(): row[2] for row in words if row[0].lower() == "rename-command"}


#: Whatever is installed, with no lines.
INSTALLED = Release()


def _is_needed(line: str) -> bool:
    words = split_args(line)
    if words[0].lower() != "rename-command":
        return False
    return words[1].lower() in _NEEDED or (not words[2] and words[1].lower() in _ASKED)


def loading_lines(directives: t.Sequence[Directive]) -> tuple[str, ...]:
    """The lines of a configuration that decide what loads."""
    return tuple(join_args([entry.name, *entry.args]) for entry in directives if entry.name in _DECIDE)


def valid_lines(lines: t.Any) -> bool:
    """Whether lines that were written down elsewhere are such lines, and nothing else."""
    return isinstance(lines, (list, tuple)) and all(map(_valid, lines))


def _valid(line: t.Any) -> bool:
    if not isinstance(line, str) or any(mark in line for mark in "\n\r\0"):
        return False
    try:
        words = split_args(line)
    except ValueError:
        return False
    return bool(words) and words[0] in _DECIDE and len(words) >= 2 and (words[0] != "rename-command" or len(words) == 3)


def rename_lines(directives: t.Iterable[Directive]) -> tuple[tuple[str, str], ...]:
    """What ``rename-command`` says: (name, other name), the other empty where the command was taken away."""
    return tuple(
        (entry.args[0], entry.args[1])
        for entry in directives
        if entry.name == "rename-command" and len(entry.args) == 2
    )


def renamed_commands(directives: t.Iterable[Directive]) -> dict[str, str]:
    """Other name → the command, in capitals."""
    return {other: name.upper() for name, other in rename_lines(directives) if other}
