# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declaring directives in a file and in a live server."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import (
    DEFAULTS,
    IMMUTABLE,
    PROTECTED,
    TEXT,
    effective,
    file_lines,
    masked,
    normal,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import (
    Directive,
    RedisConf,
    join_args,
    split_args,
)

__all__ = [
    "FITS", "ClientLimit", "ConfigPlan", "client_limit", "declare", "file_change", "is_limit_written_down", "live_change", "needs_restart",
    "plan_config", "require_fits", "text_of",
]  # fmt: skip

#: Descriptors that Redis keeps for itself (CONFIG_MIN_RESERVED_FDS in server.h).
RESERVED_FILES = 32

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
    found = live.get(name)
    if found is not None and normal(name, found) == wanted:
        return None
    return Change("live", name, masked(name, found), masked(name, wanted or '""'), f"CONFIG SET {name}")


def needs_restart(name: str, live: t.Mapping[str, str]) -> bool:
    """Whether the server takes ``name`` at its start only."""
    if name in PROTECTED:
        return live.get("enable-protected-configs", "no") == "no"
    return name in IMMUTABLE


@dataclasses.dataclass(frozen=True)
class ClientLimit:
    """How many clients the server can be given (Redis keeps 32 descriptors for itself).

    ``live`` is what the running process can have now, ``limited_to`` what this host can give at all (None: all of it).
    """

    live: int
    limited_to: t.Optional[int]
    restart: bool


def client_limit(wanted: int, hard_limit: int, ceiling: t.Optional[int]) -> ClientLimit:
    """``hard_limit`` is the process' limit of open files, ``ceiling`` the most any process here can get (None: unbounded)."""
    ever = wanted if ceiling is None else min(wanted, ceiling - RESERVED_FILES)
    now = min(ever, hard_limit - RESERVED_FILES)
    return ClientLimit(now, ever if ever < wanted else None, now < ever)


def is_limit_written_down(directives: t.Sequence[Directive], clients: ClientLimit) -> bool:
    """Whether the file says what this host can give in place of what is declared: CONFIG REWRITE, which each failover by Sentinel
    brings, writes down the live value. To correct that would be to fight it for ever."""
    return clients.limited_to is not None and effective(directives, "maxclients") == str(clients.limited_to)


@dataclasses.dataclass
class ConfigPlan:
    """``live`` goes into one CONFIG SET. ``limited`` names what the host cannot give."""

    changes: list[Change] = dataclasses.field(default_factory=list)
    live: dict[str, str] = dataclasses.field(default_factory=dict)
    restart_required: list[str] = dataclasses.field(default_factory=list)
    limited: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)


def _plan_live(
    plan: ConfigPlan, live: t.Mapping[str, str], name: str, want: str, clients: t.Optional[ClientLimit]
) -> None:
    if name == "maxclients" and clients:
        if clients.restart:
            plan.restart_required.append(name)
        if clients.limited_to is not None:
            plan.limited.append({"directive": name, "declared": int(want), "effective": clients.limited_to})
        want = str(clients.live)
    change = live_change(live, name, want)
    if change is None:
        return
    if needs_restart(name, live):
        plan.restart_required.append(name)
    else:
        plan.live[name] = want
        plan.changes.append(change)


def plan_config(
    wanted: t.Mapping[str, str],
    directives: t.Sequence[Directive],
    path: str,
    live: t.Optional[t.Mapping[str, str]],
    clients: t.Optional[ClientLimit],
    fresh_install: bool = False,
) -> ConfigPlan:
    """``wanted`` in normal form; ``live`` None where the server does not run."""
    plan = ConfigPlan()
    if live is not None:
        for name, want in wanted.items():
            _plan_live(plan, live, name, want, clients)
    for name, want in wanted.items():
        if name == "maxclients" and clients and is_limit_written_down(directives, clients):
            continue
        if fresh_install:
            plan.changes.append(Change("file", name, None, masked(name, want or '""'), f"write {name} to {path}"))
        else:
            change = file_change(directives, name, want, path)
            plan.changes += [change] if change else []
    return plan


#: Directives with which a server may not hold what it holds now.
FITS = ("maxmemory", "maxmemory-policy", "databases", "cluster-enabled")


def _whole(text: t.Optional[str]) -> t.Optional[int]:
    """A whole number; None for what is none: the server itself says what is wrong with that."""
    return int(text) if text and text.isascii() and text.isdigit() else None


def require_fits(wanted: t.Mapping[str, t.Optional[str]], live: t.Mapping[str, str], info: Info) -> None:
    """The data that is there must fit what is declared; ``wanted`` in normal form, None where nothing is. Raises Refusal."""
    used, maxmemory = info.number("used_memory"), _whole(wanted.get("maxmemory") or live.get("maxmemory")) or 0
    changes = any(wanted.get(name) not in (None, live.get(name)) for name in ("maxmemory", "maxmemory-policy"))
    if info.keys and changes and 0 < maxmemory < used:
        raise Refusal(
            "maxmemory_too_low",
            f"maxmemory would be {maxmemory} bytes, and {used} are in use: Redis would evict keys, or refuse writes, at once",
            "room for what is there",
            f"set maxmemory above {used}, or 0 for no limit",
        )
    databases = _whole(wanted.get("databases"))
    if databases is not None and info.keyspace and max(info.keyspace) >= databases:
        raise Refusal(
            "databases_too_few",
            f"databases would be {databases}, and db{max(info.keyspace)} holds keys: a start would refuse them or mix them up",
            "every database that is in use",
            f"set databases to {max(info.keyspace) + 1} or more, or empty db{max(info.keyspace)}",
        )
    cluster = wanted.get("cluster-enabled")
    if info.keys and cluster is not None and cluster != live.get("cluster-enabled", "no"):
        raise Refusal(
            "cluster_with_keys",
            f"cluster-enabled would be {cluster} on a server that holds {info.keys} keys",
            "an empty server: turning cluster mode on or off is a migration, not a setting",
            "make a new cluster and move the data there",
        )


def text_of(name: str, value: t.Any) -> str:
    """A value from YAML as configuration text. Raises Problem."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return join_args(str(item) for item in value)
    if value is None or isinstance(value, dict) or any(char in str(value) for char in "\r\n\0"):
        raise Problem(
            "invalid_value",
            f"{name}: {masked(name, str(value))!r} cannot be one line of redis.conf",
            "text, a number, a bool or a list",
            f"correct {name}",
        )
    if name == "unixsocketperm" and not re.fullmatch("0+|0?[67][0-7]{2}", str(value)):
        raise Problem(
            "invalid_value",
            f"{name} is {value!r}, which Redis reads as octal digits: the owner could not read and write it",
            "octal digits in quotes (without quotes YAML makes the number 504 of 0770)",
            f'set {name}: "0770"',
        )
    if name in TEXT:
        return str(value)
    try:
        split_args(str(value))
    except ValueError as error:
        raise Problem("invalid_value", f"{name}: {error}", "balanced quotes", f"correct {name}") from None
    return str(value)
