# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restic 0.12 to 0.18 prints, read: version, snapshots, the summary of a backup, what an error is."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import typing as t

__all__ = ["Saved", "Snapshot", "Verdict", "error_of", "parse_snapshots", "parse_summary", "parse_version"]

#: restic >= 0.17 says these by its exit code.
_CODES = {10: "missing", 11: "locked", 12: "password"}
#: What the text says, of which restic < 0.17 has nothing else. The first sign that is found counts.
_SIGNS = tuple(
    (kind, re.compile(pattern, re.I))
    for kind, pattern in (
        ("other", r"config file already exists"),  # "unable to open" in newer releases, and it was opened well enough
        ("locked", r"repository is already locked"),
        ("password", r"wrong password or no key found|an empty password is not"),
        ("full", r"no space left on device|disk quota exceeded|insufficient storage|storage (?:backend )?(?:has )?reached its minimum free"
                 r"|QuotaExceeded|quota (?:has been|was) exceeded|\(507\)|\(413\)"),
        # A socket or a program that is not there ("dial", "exec") says nothing of the repository.
        ("missing", r"(?:unable to open config file: |Stat\(<config/>\) (?:returned error|failed))(?!.*\b(?:dial|exec)\b)"
                    r".*(?:no such file or directory|file does not exist|specified (?:key|bucket) does not exist|\(404\))"),
        ("damaged", r"repository contains errors|ciphertext verification failed|config or key \w* ?is damaged|config file has zero size"
                    r"|not found in (?:index|repository)|contains \d+ errors?: "),
        ("unreachable", r"connection (?:refused|reset|lost)|no such host|server misbehaving|i/o timeout|deadline exceeded|timed out"
                        r"|no route to host|is unreachable|\bdial (?:tcp|unix)\b|permission denied|operation not permitted"
                        r"|read-only file system|access ?denied|access key id|signature|credentials|\(40[13]\)|broken pipe"
                        r"|unable to start the sftp session|unable to open repository at|x509:|tls:|unexpected HTTP response"
                        r"|transport endpoint|stale (?:NFS )?file handle"),
    )
)  # fmt: skip
#: Lines that tell nothing: the stack of a Go program, progress, and how to go on.
_NOISE = re.compile(
    r"^\s|^(?:github\.com/|golang\.org/|main\.|runtime\.|\[\d+:\d\d\]|signal \w+ received|\{|\[\{)|^$|^the `unlock` command"
)
_TELLING = re.compile(r"^(?:Fatal|Warning): |error|failed|denied|cannot|could not|unable|invalid|does not exist", re.I)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|([+-])(\d\d):(\d\d))")


@dataclasses.dataclass(frozen=True)
class Saved:
    """A snapshot that was made: its id, bytes that the repository grew by, and bytes of all its files."""

    snapshot: str
    added: int
    total: int


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """``at`` is seconds since 1970; ``original`` is the first id of a snapshot whose tags were changed, else empty."""

    id: str
    at: int
    tags: tuple[str, ...]
    hostname: str
    original: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``kind`` is locked, password, full, missing (no repository there), damaged, unreachable or other; ``line`` is restic's own word."""

    kind: str
    line: str


def _rows(output: str) -> t.Iterator[t.Any]:
    """The lines that are JSON; what restic says besides, on the same or the other stream, is left out."""
    for line in output.splitlines():
        if line.startswith(("{", "[", "null")):
            try:
                yield json.loads(line)
            except ValueError:
                continue


def parse_version(output: str) -> t.Optional[tuple[int, int, int]]:
    """``restic 0.14.0 compiled with …`` as three numbers; None where it says something else."""
    found = re.search(r"^restic v?(\d+)\.(\d+)(?:\.(\d+))?", output, re.M)
    return (int(found.group(1)), int(found.group(2)), int(found.group(3) or 0)) if found else None


def _epoch(text: str) -> int:
    """RFC 3339 as restic writes it, up to nine digits of a second. Raises ValueError."""
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no time")
    numbers = [int(part) for part in found.groups()[:6]]
    offset = (int(found.group(8)) * 3600 + int(found.group(9)) * 60) if found.group(7) else 0
    at = datetime.datetime(*numbers, tzinfo=datetime.timezone.utc)  # type: ignore[misc]
    return int(at.timestamp()) - (offset if found.group(7) != "-" else -offset)


def parse_snapshots(output: str) -> list[Snapshot]:
    """The list that ``snapshots --json`` prints. Raises ValueError where there is none in it, or one that is not understood."""
    for row in _rows(output):
        if row is None:
            return []
        if isinstance(row, list):
            try:
                return [
                    Snapshot(
                        one["id"],
                        _epoch(one["time"]),
                        tuple(one.get("tags") or ()),
                        one.get("hostname", ""),
                        one.get("original") or "",
                    )
                    for one in row
                ]
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"a snapshot lacks {error}") from None
    raise ValueError("it printed no list of snapshots")


def parse_summary(output: str) -> t.Optional[Saved]:
    """The summary of ``backup --json``; None where no snapshot was made. restic before 0.17 gives the short id there."""
    for row in _rows(output):
        if isinstance(row, dict) and row.get("message_type") == "summary" and row.get("snapshot_id"):
            added = row.get("data_added_packed", row.get("data_added", 0))  # compressed, where restic knows that
            return Saved(row["snapshot_id"], int(added), int(row.get("total_bytes_processed", 0)))
    return None


def _lines(output: str) -> list[str]:
    """restic's own words, with those taken out of JSON; stack traces and progress are dropped."""
    found: list[str] = []
    for line in output.splitlines():
        words = [line]
        for row in _rows(line):
            error = (row.get("message") or row.get("error") or "") if isinstance(row, dict) else ""
            if isinstance(error, dict):  # <= 0.16: {"Op": "read", "Path": "mem", "Err": 5}
                error = (
                    error.get("message")
                    or " ".join(str(error[key]) for key in ("Op", "Path") if key in error) + " failed"
                )
            words = str(error).splitlines()
        found += [word.strip() for word in words if not _NOISE.match(word)]
    return found


def error_of(code: int, output: str) -> Verdict:
    """What the error is, by exit code and text; ``output`` has both streams, and no secret any more."""
    lines = _lines(output)
    kinds = [(kind, sign) for kind, sign in _SIGNS if _CODES.get(code, kind) == kind]
    for kind, sign in kinds:
        reported = [line for line in lines if sign.search(line)]
        if reported:
            return Verdict(kind, reported[-1])
    telling = [line for line in lines if _TELLING.search(line)] or lines or [f"exit code {code}, and not a word"]
    fatal = [line for line in telling if line.startswith("Fatal: ")]
    return Verdict(_CODES.get(code, "other"), (fatal or telling)[-1])
