# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that may stand only once in a configuration and its includes: CONFIG REWRITE copies them from an include into the main file."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive

__all__ = ["declared_twice"]


def declared_twice(directives: t.Iterable[Directive]) -> list[str]:
    """Users and modules that stand there a second time, on which no start goes well; in words, with both places."""
    first: dict[tuple[str, str], Directive] = {}
    found = []
    for entry in directives:
        if entry.name not in ("user", "loadmodule") or not entry.args:
            continue
        before = first.setdefault((entry.name, entry.args[0]), entry)
        if before is not entry:
            places = f"{before.source} line {before.number} and {entry.source} line {entry.number}"
            found.append(f"{entry.name} {entry.args[0]} stands in {places}")
    return found
