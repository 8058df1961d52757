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
import hashlib
import json
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, parse_info

__all__ = [
    "LENGTHS",
    "Chosen",
    "Moment",
    "SampleKey",
    "choose_sample",
    "code_digest",
    "encode",
    "moment_of",
    "questions_of",
    "read_moment",
]

#: Type → what tells its length. Each is answered at once, however large the key is.
LENGTHS = {"string": "STRLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN"}
#: The server is not held up for a sample: of a string of more bytes, of anything else with more elements, or of what takes more bytes of
#: memory, the length is compared in place of the content; so it is when the sample as a whole has come to TOTAL bytes of memory.
_MOST_BYTES, _MOST_ELEMENTS = 8 * 1024, 256
LARGEST, TOTAL = 32 * 1024, 256 * 1024
#: Bytes that one read of Redis takes (16 kB, PROTO_IOBUF_LEN in its server.h), less what is asked next to the sample.
ONE_READ = 15 * 1024
_Row = t.Tuple[t.Union[str, int], ...]


def encode(text: str) -> str:
    """Any bytes, as they came in a surrogateescape string, for JSON."""
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


@dataclasses.dataclass(frozen=True)
class SampleKey:
    """``key`` and ``dump`` are base64; ``dump`` is DUMP's answer, empty for a key of which only type and length are compared.

    ``expires_at`` in milliseconds since 1970, -1 for never. ``length`` is -1 where ``dump`` says it all.
    """

    database: int
    key: str
    expires_at: int
    dump: str
    kind: str = ""
    length: int = -1


@dataclasses.dataclass(frozen=True)
class Moment:
    """``slack``: commands of others that ran between the first and the last of ours; 0 means one moment.

    ``functions`` counts libraries, -1 where this user may not list them; ``code`` is their code_digest(). ``went``: keys that expired or
    were evicted between the first and the last.
    """

    info: Info
    slack: int
    sample: tuple[SampleKey, ...] = ()
    functions: int = -1
    code: str = ""
    went: int = 0


class Chosen(t.NamedTuple):
    """A key of the sample; ``whole``: by its content, else by its length."""

    database: int
    key: str
    kind: str
    whole: bool


def code_digest(libraries: t.Sequence[t.Any]) -> str:
    """The SHA-256 of what FUNCTION LIST WITHCODE answered: names, engines and code, in the order of their names."""
    rows = [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2])) for row in libraries]
    named = sorted([str(row.get(name, "")) for name in ("library_name", "engine", "library_code")] for row in rows)
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _at_random(server: Server, database: int, count: int) -> list[tuple[str, str, int]]:
    """Up to ``count`` keys of a database: name, type, length; -1 for a module's type, which has none."""
    names = server.commands([("SELECT", database), *([("RANDOMKEY",)] * (2 * count))])[1:]
    names = list(dict.fromkeys(name for name in names if name is not None))
    kinds = [str(kind) for kind in server.commands([("TYPE", name) for name in names])]
    known = [(name, kind) for name, kind in zip(names, kinds) if kind != "none"][:count]
    sized = [(name, kind) for name, kind in known if kind in LENGTHS]
    lengths = dict(zip(sized, server.commands([(LENGTHS[kind], name) for name, kind in sized])))
    return [(name, kind, int(lengths.get((name, kind), -1))) for name, kind in known]


def _sized(server: Server, database: int, rows: t.Sequence[tuple[str, str, int]]) -> t.Iterator[tuple[Chosen, int]]:
    """Which of them are small enough to be read whole, and what each takes; MEMORY USAGE is asked of those only that it can sum up at once."""
    few = [row for row in rows if 0 <= row[2] <= (_MOST_BYTES if row[1] == "string" else _MOST_ELEMENTS)]
    sizes = server.commands([("MEMORY", "USAGE", name, "SAMPLES", 0) for name, _kind, _length in few])
    takes = {name: int(size or 0) for (name, _kind, _length), size in zip(few, sizes)}
    for name, kind, _length in rows:
        whole = takes.get(name, LARGEST + 1) <= LARGEST
        yield Chosen(database, name, kind, whole), takes[name] if whole else 0


def choose_sample(server: Server, info: Info, count: int) -> list[Chosen]:
    """Up to ``count`` keys at random, spread over the databases. Empty where this user may not look."""
    databases = sorted(info.keyspace)
    if not databases or count < 1:
        return []
    each = max(1, count // len(databases))
    found: list[Chosen] = []
    room = TOTAL
    try:
        if info.flag("cluster_enabled") and info.text("role") == "slave":
            server.command("READONLY")  # or it sends who asks for a key to its primary
        for database in databases:
            for one, size in _sized(server, database, _at_random(server, database, each)):
                room -= size
                found.append(one if room >= 0 else one._replace(whole=False))
        server.commands(
            _ask([one for one in found if one.whole][:1])[0]
        )  # the moment itself is no time to find out that it may not
    except CommandError:
        found = []
    _back(server)
    return _what_fits(found)


def _what_fits(sample: t.Sequence[Chosen]) -> list[Chosen]:
    """As many keys as can be asked for in what Redis reads at once: between two reads it turns to others."""
    room, fit = ONE_READ, []
    for one in sample:
        room -= 2 * len(one.key.encode("utf-8", "surrogateescape")) + 110
        if room < 0:
            break
        fit.append(one)
    return fit


def _back(server: Server) -> None:
    """To the database that a connection begins with."""
    try:
        server.command("SELECT", 0)
    except CommandError:
        pass  # then it never left


def _ask(sample: t.Sequence[Chosen]) -> tuple[list[_Row], list[int]]:
    """What is asked of the sample (it begins and ends in database 0), and where in it the two questions for each key stand."""
    rows: list[_Row] = []
    places, at = [], 0
    for one in sample:
        if one.database != at:
            rows.append(("SELECT", one.database))
            at = one.database
        places.append(len(rows))
        rows += [("PEXPIRETIME", one.key), ("DUMP" if one.whole else LENGTHS.get(one.kind, "TYPE"), one.key)]
    return [*rows, *([("SELECT", 0)] if at else [])], places


def _may_list_functions(server: Server) -> bool:
    try:
        server.command("FUNCTION", "LIST")
    except CommandError:
        return False
    return True


def _sampled(one: Chosen, expires: t.Any, answer: t.Any) -> t.Optional[SampleKey]:
    """None for a key that is gone."""
    if answer is None or int(expires) == -2:
        return None
    dump, length = (encode(answer), -1) if one.whole else ("", int(answer) if one.kind in LENGTHS else -1)
    return SampleKey(one.database, encode(one.key), int(expires), dump, one.kind, length)


class Questions(t.NamedTuple):
    """What one packet asks: ``rows``, of which those of the sample stand at ``places``, and FUNCTION LIST at ``functions`` (0: this user may not)."""

    sample: tuple[Chosen, ...]
    rows: list[_Row]
    places: list[int]
    functions: int


def questions_of(server: Server, sample: t.Sequence[Chosen], then: t.Sequence[_Row] = ()) -> Questions:
    """What read_moment() asks; only whether the functions may be listed is asked here."""
    functions = [("FUNCTION", "LIST", "WITHCODE")] if _may_list_functions(server) else []
    asked, places = _ask(sample)
    rows = [("INFO", "everything"), *asked, *functions, *then, ("INFO", "stats")]
    return Questions(tuple(sample), rows, places, 1 + len(asked) if functions else 0)


def moment_of(questions: Questions, answers: t.Sequence[t.Any]) -> Moment:
    """The moment that ``answers``, one for each row, are of."""
    begun, ended = parse_info(answers[0]), parse_info(answers[-1])
    ran = ended.number("total_commands_processed") - begun.number("total_commands_processed")
    found = [_sampled(one, *answers[1 + place : 3 + place]) for one, place in zip(questions.sample, questions.places)]
    libraries = answers[questions.functions] if questions.functions else None
    return Moment(
        begun,
        max(ran - len(questions.rows) + 1, 0),
        tuple(one for one in found if one),
        -1 if libraries is None else len(libraries),
        "" if libraries is None else code_digest(libraries),
        sum(ended.number(name) - begun.number(name) for name in ("expired_keys", "evicted_keys")),
    )


def read_moment(server: Server, sample: t.Sequence[Chosen] = (), then: t.Sequence[_Row] = ()) -> Moment:
    """Numbers, sample and functions of one moment; ``then`` (BGSAVE, say) is carried out in it. Raises CommandError."""
    questions = questions_of(server, sample, then)
    return moment_of(questions, server.commands(questions.rows))
