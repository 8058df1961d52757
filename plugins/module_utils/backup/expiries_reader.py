# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a temporary server when its keys run out."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.expiries import steps
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = ["read_expiries"]

#: A proof is not made longer than by some seconds.
_MOST_KEYS, _AT_ONCE = 200_000, 1000


def _of_database(server: Server, database: int) -> t.Iterator[int]:
    server.command("SELECT", database)
    cursor = "0"
    while True:
        cursor, names = server.command("SCAN", cursor, "COUNT", _AT_ONCE)
        yield from (int(at) for at in server.commands([("PEXPIRETIME", name) for name in names]) if int(at) >= 0)
        if str(cursor) == "0":
            return


def read_expiries(server: Server, info: Info) -> t.Optional[list[list[int]]]:
    """As expiries.steps; None where there are too many keys to look at each."""
    with_expiry = {number: space for number, space in info.keyspace.items() if space.expires}
    if sum(space.keys for space in with_expiry.values()) > _MOST_KEYS:
        return None
    try:
        times = [at for number in with_expiry for at in _of_database(server, number)]
        server.command("SELECT", 0)
    except CommandError:
        return None
    # A replica hides what has run out from SCAN, and counts it all the same.
    return steps(times, max(0, sum(space.expires for space in with_expiry.values()) - len(times)))
