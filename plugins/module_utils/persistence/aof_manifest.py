# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a multi-part AOF, read as aofLoadManifestFromFile of Redis' aof.c does.

Format: ``file NAME seq N type b|h|i`` a line; since Redis 8 an increment's may go on with ``startoffset N`` and ``endoffset N``.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import quote, split_args

__all__ = ["AofFile", "AofManifest", "ManifestError", "parse_manifest", "unlisted"]

#: Redis reads so many bytes at a time for a line; what is longer it takes for several.
_LINE = 1024
_TRIMMED = " \t\r\n"
_INT64 = 2**63


class ManifestError(Problem):
    """A manifest that Redis would refuse."""


@dataclasses.dataclass(frozen=True)
class AofFile:
    """One line: file name (no path), sequence number, type b (base), i (increment) or h (history).

    ``start`` and ``end``: the replication offsets at which an increment begins and ends (-1: not said).
    """

    name: str
    seq: int
    type: str
    start: int = -1
    end: int = -1

    def render(self) -> str:
        offsets = "".join(
            f" {key} {value}" for key, value in (("startoffset", self.start), ("endoffset", self.end)) if value != -1
        )
        return f"file {quote(self.name)} seq {self.seq} type {self.type}{offsets if self.type == 'i' else ''}\n"


@dataclasses.dataclass(frozen=True)
class AofManifest:
    files: tuple[AofFile, ...]

    @property
    def base(self) -> t.Optional[AofFile]:
        return next((entry for entry in self.files if entry.type == "b"), None)

    @property
    def increments(self) -> tuple[AofFile, ...]:
        return tuple(entry for entry in self.files if entry.type == "i")

    @property
    def needed(self) -> tuple[AofFile, ...]:
        """The files that a start reads, in its order: base and increments. History is about to be deleted."""
        return (*((self.base,) if self.base else ()), *self.increments)

    def render(self) -> str:
        return "".join(entry.render() for entry in self.files)


def _lines(raw: bytes) -> t.Iterator[bytes]:
    """Lines as Redis' fgets gives them: with their end, and in pieces where they are too long."""
    for line in raw.split(b"\n"):
        whole = line + b"\n"
        yield from (whole[at : at + _LINE] for at in range(0, len(whole), _LINE))


def _number(text: str) -> int:
    """As C's atoll: what a number begins with, 0 where that is nothing."""
    match = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", text)
    return max(min(int(match.group(1)), _INT64 - 1), -_INT64) if match else 0


def _entry(text: str) -> AofFile:
    """One line. Raises ValueError, with Redis' reason."""
    words = split_args(text)
    if len(words) < 6 or len(words) % 2:
        raise ValueError("file, seq and type are needed, each with a value")
    pairs = list(zip(map(str.lower, words[::2]), words[1::2]))
    values = dict(pairs)  # of a word that is there twice Redis takes the last
    name, seq, kind = values.get("file", ""), _number(values.get("seq", "")), values.get("type", "")[:1]
    if any("/" in value or "\\" in value for key, value in pairs if key == "file"):
        raise ValueError("a file's name is no path, and has no backslash")
    if not name or not seq or kind not in ("b", "h", "i"):
        raise ValueError("file, seq (not 0) and type b, h or i are needed")
    return AofFile(name, seq, kind, *(_number(values.get(key, "-1")) for key in ("startoffset", "endoffset")))


def _fault(files: t.Sequence[AofFile], new: AofFile) -> str:
    """Why a line cannot stand behind others; empty where it can."""
    if new.type == "b" and any(entry.type == "b" for entry in files):
        return "a second base file"
    if new.type == "i" and new.seq <= max((entry.seq for entry in files if entry.type == "i"), default=0):
        return "the numbers of increments have to rise"
    return ""


def parse_manifest(text: str, path: str = "manifest") -> AofManifest:
    """Parse a manifest. Raises ManifestError, with the line, where Redis would not start on it, or would start on it without any data."""
    files: list[AofFile] = []

    def bad(number: int, why: str) -> ManifestError:
        return ManifestError(
            "aof_manifest",
            f"{path} line {number}: {why}",
            "a manifest that Redis itself can read",
            "look at the directory by hand: the server would not start, or would start without this data",
        )

    raw = text.encode("utf-8", "surrogateescape")
    for number, line in enumerate(_lines(raw.removesuffix(b"\n")) if raw else (), 1):
        if line.startswith(b"#"):
            continue
        if not line.endswith(b"\n") or b"\0" in line:
            raise bad(number, f"it is longer than {_LINE} bytes, or has a NUL")
        try:
            entry = _entry(line.decode("utf-8", "surrogateescape").strip(_TRIMMED))
        except ValueError as error:
            raise bad(number, str(error)) from None
        fault = _fault(files, entry)
        if fault:
            raise bad(number, fault)
        files.append(entry)
    last = raw.rpartition(b"\n")[2]
    if last and not last.startswith(b"#"):
        raise bad(raw.count(b"\n") + 1, "it does not end with a newline")
    if not files:
        raise bad(1, "it names no file: Redis starts EMPTY, if it starts")
    return AofManifest(tuple(files))


def unlisted(manifest: AofManifest, sizes: t.Mapping[str, int], appendfilename: str) -> list[str]:
    """Files next to a manifest that it should name. ``sizes``: bytes by name, of what lies there.

    What a rewrite leaves behind has lower numbers than what the manifest names, and an increment that was just begun is empty: that is no loss. An
    increment with commands whose number is not below the manifest's, or a base where the manifest has none, is data that no start reads.
    """
    stem = re.escape(appendfilename)
    named = {entry.name for entry in manifest.files}
    first = min((entry.seq for entry in manifest.increments), default=manifest.base.seq if manifest.base else 1)
    found = []
    for name in sorted(set(sizes) - named):
        match = re.fullmatch(stem + r"\.(\d+)\.(?:(incr)\.aof|base\.(?:aof|rdb))", name)
        if not match or not sizes[name]:
            continue
        if manifest.base is None or (match.group(2) and int(match.group(1)) >= first):
            found.append(name)
    return found
