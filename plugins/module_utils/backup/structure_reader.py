# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What DEBUG DIGEST-VALUE does not see: a stream's ids, groups and pending entries, and when fields of a hash expire."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server

__all__ = ["beyond_digest", "stream_state"]

#: Depends on how the entries came to be there, or on when a consumer was last heard; or Redis itself does not keep it in an AOF (the counter
#: of entries read, consumers with nothing pending, pending entries that were deleted; seen with 7.0.15).
_PASSING = frozenset(
    {
        "radix-tree-keys",
        "radix-tree-nodes",
        "seen-time",
        "active-time",
        "inactive",
        "idle",
        "lag",
        "entries",
        "entries-read",
        "pel-count",
    }
)
_PENDING = frozenset({"pel", "pending"})


def _by_name(row: t.Any) -> dict[str, t.Any]:
    return dict(row) if isinstance(row, dict) else dict(zip(row[::2], row[1::2]))


def _lasting(row: t.Any, entries: t.Collection[str]) -> dict[str, t.Any]:
    """What stays of a stream, group or consumer; of what is pending, that which is still among ``entries``."""
    kept = {name: value for name, value in _by_name(row).items() if name not in _PASSING}
    return {
        name: [one for one in value if one[0] in entries] if name in _PENDING else value for name, value in kept.items()
    }


def _group(row: t.Any, entries: t.Collection[str]) -> dict[str, t.Any]:
    group = _lasting(row, entries)
    consumers = [_lasting(one, entries) for one in group.get("consumers", ())]
    waiting = [one for one in consumers if any(one.get(name) for name in _PENDING)]
    return {**group, "consumers": sorted(waiting, key=lambda one: str(one.get("name")))}


def stream_state(full: t.Any) -> dict[str, t.Any]:
    """Of XINFO STREAM … FULL what is data and no entry: ids, groups with what was delivered, consumers with what is pending."""
    entries = {str(entry[0]) for entry in _by_name(full).get("entries", ())}
    stream = _lasting(full, entries)
    groups = [_group(row, entries) for row in stream.pop("groups", ())]
    return {**stream, "groups": sorted(groups, key=lambda group: str(group.get("name")))}


def _field_expiries(server: Server, key: str) -> dict[str, int]:
    """Field → when it expires; empty before Redis 7.4, which has no such thing."""
    fields = [str(field) for field in server.command("HKEYS", key)]
    try:
        times = server.command("HPEXPIRETIME", key, "FIELDS", len(fields), *fields) if fields else []
    except CommandError:
        return {}
    return {field: int(at) for field, at in zip(fields, times) if int(at) >= 0}


def beyond_digest(server: Server, kind: str, key: str, trial: str) -> str:
    """What of two keys with one digest is not the same, in words; empty where all is."""
    if kind == "stream":
        ours, theirs = (
            stream_state(server.command("XINFO", "STREAM", name, "FULL", "COUNT", 0)) for name in (key, trial)
        )
        return "" if ours == theirs else "other groups, pending entries or ids"
    if kind == "hash" and _field_expiries(server, key) != _field_expiries(server, trial):
        return "fields that expire at another time"
    return ""
