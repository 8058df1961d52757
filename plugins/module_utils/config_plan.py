# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declaring directives in a file and in a live server (tier 1, pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.directives import (
    DEFAULTS,
    IMMUTABLE,
    PROTECTED,
    effective,
    file_lines,
    masked,
)
from ansible_collections.redisops.recovery.plugins.module_utils.redis_conf import Directive, RedisConf

__all__ = ["declare", "file_change", "live_change", "needs_restart"]

_ADDING_UP = ("save", "client-output-buffer-limit")


def declare(conf: RedisConf, directives: t.Sequence[Directive], name: str, value: str) -> None:
    """Edit ``conf`` so that Redis, reading it with its includes, ends up with ``value`` for ``name``."""
    mine = [entry for entry in directives if entry.name == name]
    own = [index for index, entry in enumerate(mine) if entry.main]
    included = [index for index, entry in enumerate(mine) if not entry.main]
    if name in _ADDING_UP:
        # The whole list is written where it began; an include behind that point would add to it again.
        at_end = bool(own and included and included[-1] > own[0])
        conf.set(name, file_lines(name, value, inherited=bool(included)), at_end)
    else:
        conf.set(name, file_lines(name, value), bool(own and included and included[-1] > own[-1]))


def file_change(directives: t.Sequence[Directive], name: str, wanted: str, path: str) -> t.Optional[Change]:
    """The difference in the file; None if it already says so, or says nothing and that is Redis' default."""
    found = effective(directives, name)
    if (found if found is not None else DEFAULTS.get(name)) == wanted:
        return None
    return Change("file", name, masked(name, found), masked(name, wanted or '""'), f"write {name} to {path}")


def live_change(live: t.Mapping[str, str], name: str, wanted: str) -> t.Optional[Change]:
    """The difference in the running server; None if there is none."""
    if live.get(name) == wanted:
        return None
    return Change("live", name, masked(name, live.get(name)), masked(name, wanted or '""'), f"CONFIG SET {name}")


def needs_restart(name: str, live: t.Mapping[str, str]) -> bool:
    """Whether the server takes ``name`` at its start only."""
    if name in PROTECTED:
        return live.get("enable-protected-configs", "no") == "no"
    return name in IMMUTABLE
