# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One moment of a live server: its numbers and a sample of its keys, read between two commands of anybody else.

Redis works off what one connection sends at once before it turns to the next connection. So INFO, the sample and BGSAVE, sent in one
packet, are of one moment, and the count of commands that were processed verifies it.
"""

from __future__ import annotations

import base64
import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, parse_info

__all__ = ["Moment", "SampleKey", "choose_sample", "encode", "read_moment"]

#: A key whose copy is larger than this, in bytes of memory, is left out of the sample: DUMP would hold the server up.
LARGEST = 64 * 1024
#: Bytes that one read of Redis takes (16 kB, PROTO_IOBUF_LEN in its server.h), less what is asked next to the sample.
ONE_READ = 15 * 1024
_Row = t.Tuple[t.Union[str, int], ...]


def encode(text: str) -> str:
    """Any bytes, as they came in a surrogateescape string, for JSON."""
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


@dataclasses.dataclass(frozen=True)
class SampleKey:
    """``key`` and ``dump`` are base64; ``dump`` is DUMP's answer. ``expires_at`` in milliseconds since 1970, -1 for never."""

    database: int
    key: str
    expires_at: int
    dump: str


@dataclasses.dataclass(frozen=True)
class Moment:
    """``slack``: commands of others that ran between the first and the last of ours; 0 means one moment.

    ``functions`` counts libraries; -1 where this user may not list them.
    """

    info: Info
    slack: int
    sample: tuple[SampleKey, ...] = ()
    functions: int = -1


def choose_sample(server: Server, info: Info, count: int) -> list[tuple[int, str]]:
    """Up to ``count`` keys at random, spread over the databases: (database, key). Empty where this user may not look."""
    databases = sorted(info.keyspace)
    if not databases or count < 1:
        return []
    each = max(1, count // len(databases))
    found: list[tuple[int, str]] = []
    try:
        for database in databases:
            names = server.commands([("SELECT", database), *([("RANDOMKEY",)] * (2 * each))])[1:]
            names = list(dict.fromkeys(name for name in names if name is not None))
            sizes = server.commands([("MEMORY", "USAGE", name, "SAMPLES", 1) for name in names])
            found += [(database, name) for name, size in zip(names, sizes) if size is not None and size <= LARGEST][
                :each
            ]
        server.commands(_ask(found[:1])[0])  # the moment itself is no time to find out that it may not
    except CommandError:
        found = []
    _back(server)
    return _what_fits(found)


def _what_fits(sample: t.Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """As many keys as can be asked for in what Redis reads at once: between two reads it turns to others."""
    room, fit = ONE_READ, []
    for database, key in sample:
        room -= 2 * len(key.encode("utf-8", "surrogateescape")) + 110
        if room < 0:
            break
        fit.append((database, key))
    return fit


def _back(server: Server) -> None:
    """To the database that a connection begins with."""
    try:
        server.command("SELECT", 0)
    except CommandError:
        pass  # then it never left


def _ask(sample: t.Sequence[tuple[int, str]]) -> tuple[list[_Row], list[int]]:
    """What is asked of the sample (it begins and ends in database 0), and where in it the two questions for each key stand."""
    rows: list[_Row] = []
    places, at = [], 0
    for database, key in sample:
        if database != at:
            rows.append(("SELECT", database))
            at = database
        places.append(len(rows))
        rows += [("PEXPIRETIME", key), ("DUMP", key)]
    return [*rows, *([("SELECT", 0)] if at else [])], places


def _may_list_functions(server: Server) -> bool:
    try:
        server.command("FUNCTION", "LIST")
    except CommandError:
        return False
    return True


def read_moment(server: Server, sample: t.Sequence[tuple[int, str]] = (), then: t.Sequence[_Row] = ()) -> Moment:
    """Numbers, sample and functions of one moment; ``then`` (BGSAVE, say) is carried out in it. Raises CommandError."""
    functions = [("FUNCTION", "LIST")] if _may_list_functions(server) else []
    asked, places = _ask(sample)
    rows = [("INFO", "everything"), *asked, *functions, *then, ("INFO", "stats")]
    answers = server.commands(rows)
    begun, ended = parse_info(answers[0]), parse_info(answers[-1])
    slack = ended.number("total_commands_processed") - begun.number("total_commands_processed") - len(rows) + 1
    found = []
    for (database, key), place in zip(sample, places):
        expires, dump = answers[1 + place : 3 + place]
        if dump is not None:
            found.append(SampleKey(database, encode(key), int(expires), encode(dump)))
    return Moment(begun, max(slack, 0), tuple(found), len(answers[1 + len(asked)]) if functions else -1)
