# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``rename-command`` makes of commands. Redis writes to its AOF the name that a client used."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive

__all__ = ["rename_lines", "renamed_commands"]


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
