# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's log, or the kernel's, tells of lost safety."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_patterns import KERNEL, SERVER, Kind, kind_of
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import SECRET

__all__ = ["LogEvent", "iso_utc", "merged", "moment", "scan", "scan_kernel", "shown", "time_of"]


@dataclasses.dataclass(frozen=True)
class LogEvent:
    """All lines of one kind. ``code`` is one of log_kinds.KINDS, where its cause and remedy stand.

    ``first`` and ``last`` are ISO 8601 in UTC, None where the lines have no time. ``line`` is the last of them, made printable.
    ``over``: a later line shows that it is so no more (the server became ready, a save went well, …).
    """

    code: str
    count: int
    first: t.Optional[str]
    last: t.Optional[str]
    line: str
    over: bool = False


_MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
#: ``123:M 01 Jan 2024 10:00:00.123 * ``; 6.x and earlier have the same. Redis writes the local time of its host.
_LEGACY = re.compile(r"\b\d+:[A-Z] (\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?\b")
#: Valkey's log-timestamp-format iso8601, its logfmt, and ``journalctl -o short-iso``.
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
#: Valkey's log-timestamp-format milliseconds.
_MILLISECONDS = re.compile(r"\b\d+:[A-Z] (\d{13})\b")
#: ``[Mon Jan  1 10:00:00 2024]`` of dmesg -T.
_DMESG = re.compile(r"^\[[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})\]")
#: What the journal puts before a line.
_JOURNAL = re.compile(r"^\d{4}-\S+T\S+ \S+ [^:\[\s]+(?:\[\d+\])?: ")

#: What shows that a trouble of this topic is over. A start ends troubles of saving as well: the process is another one.
_OVER: t.Mapping[str, t.Pattern[str]] = {
    "start": re.compile(r"Ready to accept connections"),
    "save": re.compile(r"DB saved on disk|Background saving terminated with success|Ready to accept connections"),
    "disk": re.compile(
        r"DB saved on disk|Background saving terminated with success|Background AOF rewrite finished successfully"
        r"|AOF write error looks solved|Ready to accept connections"
    ),
    "rewrite": re.compile(r"Background AOF rewrite finished successfully"),
    "aof": re.compile(r"AOF write error looks solved|Ready to accept connections"),
    "link": re.compile(r"MASTER <-> REPLICA sync: Finished with success|Master accepted a Partial Resynchronization"),
}
#: A longer line is nobody's message.
_LONGEST = 2000


def iso_utc(seconds: float) -> str:
    """Seconds since 1970 as ``2024-01-01T10:00:00Z``."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(fields: t.Sequence[int], zone: datetime.tzinfo) -> t.Optional[float]:
    try:
        year, month, day, hour, minute, second = fields
        return datetime.datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp()
    except (ValueError, OverflowError):
        return None


def _zone(text: t.Optional[str], local: datetime.tzinfo) -> datetime.tzinfo:
    if not text:
        return local
    if text == "Z":
        return datetime.timezone.utc
    hours, minutes = int(text[1:3]), int(text[-2:])
    try:
        return datetime.timezone((-1 if text[0] == "-" else 1) * datetime.timedelta(hours=hours, minutes=minutes))
    except ValueError:
        return local


def time_of(line: str, zone: datetime.tzinfo = datetime.timezone.utc) -> t.Optional[float]:
    """Seconds since 1970 of a line; None where it has no time. ``zone`` is that of a time which names none."""
    found = _ISO.search(line, 0, 200)  # the journal's own stamp comes first, and names its zone
    if found:
        return _seconds([int(part) for part in found.groups()[:6]], _zone(found[7], zone))
    found = _LEGACY.search(line, 0, 200)
    if found and found[2] in _MONTHS:
        rest = [int(found[index]) for index in (4, 5, 6)]
        return _seconds([int(found[3]), _MONTHS[found[2]], int(found[1]), *rest], zone)
    found = _MILLISECONDS.search(line, 0, 200)
    if found:
        return int(found[1]) / 1000
    found = _DMESG.match(line)
    if found and found[1] in _MONTHS:
        rest = [int(found[index]) for index in (3, 4, 5)]
        return _seconds([int(found[6]), _MONTHS[found[1]], int(found[2]), *rest], zone)
    return None


def moment(text: str, now: float) -> float:
    """Seconds since 1970 of ``90min``, ``24h`` or ``7d`` before ``now``, or of a time such as ``2024-01-01T10:00:00Z``. Raises Problem."""
    span = re.fullmatch(r"(\d{1,9})\s*(s|min|h|d)", text.strip())
    if span:
        return now - int(span[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[span[2]]
    at = time_of(text.strip()) if _ISO.fullmatch(text.strip()) else None
    if at is None:
        raise Problem(
            "invalid_value", f"log_since: {text!r} is no span of time, and no time", "such as 24h, 90min, 7d, or 2024-01-01T10:00:00Z",
            "set log_since",
        )  # fmt: skip
    return at


def merged(first: t.Sequence[str], second: t.Sequence[str], zone: datetime.tzinfo = datetime.timezone.utc) -> list[str]:
    """Two logs as one, by time; what has no time stays behind the line before it."""
    rows: list[tuple[float, str]] = []
    for lines in (first, second):
        at = 0.0
        for line in lines:
            own = time_of(line, zone)
            at = at if own is None else own
            rows.append((at, line))
    return [line for _at, line in sorted(rows, key=lambda row: row[0])]


def shown(line: str) -> str:
    """One line that no terminal chokes on, and that gives no password away: Redis repeats a line of its file that it refuses."""
    text = line.strip()
    refused = re.search(r">>> '(\S+) ", text)
    if refused and refused[1].lower() in SECRET:
        text = f"{text[: refused.end()]}(hidden)'"
    kept = "".join(char if char.isprintable() else "\ufffd" for char in text[:400])
    return kept if len(text) <= 400 else kept + " …"


@dataclasses.dataclass
class _Seen:
    kind: Kind
    count: int = 0
    first: t.Optional[float] = None
    last: t.Optional[float] = None
    line: str = ""
    over: bool = False


def _scan(
    lines: t.Iterable[str], kinds: t.Sequence[Kind], since: t.Optional[float], zone: datetime.tzinfo
) -> list[LogEvent]:
    seen: dict[str, _Seen] = {}
    # Lines without a time (a report, a line of the configuration) belong to the one before.
    at: t.Optional[float] = None
    for raw in lines:
        line = raw[:_LONGEST].rstrip("\r\n")
        own = time_of(line, zone)
        at = own if own is not None else at
        if since is not None and at is not None and at < since:
            continue
        words = _JOURNAL.sub("", line, count=1)
        for entry in seen.values():
            if entry.kind.topic and _OVER[entry.kind.topic].search(words):
                entry.over = True
        kind = kind_of(words, kinds)
        if kind is None:
            continue
        entry = seen.setdefault(kind.code, _Seen(kind))
        entry.count += 1
        entry.first = at if entry.first is None else entry.first
        entry.last = at if at is not None else entry.last
        entry.line, entry.over = shown(line), False
    return [
        LogEvent(
            code,
            entry.count,
            None if entry.first is None else iso_utc(entry.first),
            None if entry.last is None else iso_utc(entry.last),
            entry.line,
            entry.over,
        )
        for code, entry in seen.items()
    ]


def scan(
    text_lines: t.Iterable[str], since: t.Optional[float] = None, zone: datetime.tzinfo = datetime.timezone.utc
) -> list[LogEvent]:
    """Events of a server's log, in the order in which each kind was first seen.

    ``since`` is seconds since 1970: older lines count for nothing; lines without a time do where none before them has one.
    ``zone`` is the zone of the host's clock, which Redis' own time stamps are in.
    """
    return _scan(text_lines, SERVER, since, zone)


def scan_kernel(
    text_lines: t.Iterable[str], since: t.Optional[float] = None, zone: datetime.tzinfo = datetime.timezone.utc
) -> list[LogEvent]:
    """The same of the kernel's log (``journalctl -k -o short-iso`` or ``dmesg -T``)."""
    return _scan(text_lines, KERNEL, since, zone)
