# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a multi-part AOF. Format: ``file NAME seq N type b|h|i`` a line, as in Redis' aof.c."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import quote, split_args

__all__ = ["AofFile", "AofManifest", "ManifestError", "parse_manifest"]


class ManifestError(Problem):
    """A manifest that Redis would refuse."""


@dataclasses.dataclass(frozen=True)
class AofFile:
    """One line: file name (no path), sequence number, type b (base), i (increment) or h (history)."""

    name: str
    seq: int
    type: str


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
        """The files that a start reads: base and increments. History is about to be deleted."""
        return tuple(entry for entry in self.files if entry.type in "bi")

    def render(self) -> str:
        return "".join(f"file {quote(entry.name)} seq {entry.seq} type {entry.type}\n" for entry in self.files)


def parse_manifest(text: str, path: str = "manifest") -> AofManifest:
    """Parse a manifest. Raises ManifestError, with the line, where Redis would not start on it."""
    files: list[AofFile] = []

    def bad(number: int, why: str) -> ManifestError:
        return ManifestError(
            "aof_manifest",
            f"{path} line {number}: {why}",
            "a manifest that Redis itself can read",
            "look at the directory by hand: the server would not start, or would start without this data",
        )

    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        if line.startswith("#"):
            continue
        try:
            words = split_args(line)
        except ValueError as error:
            raise bad(number, str(error)) from None
        if not words or len(words) % 2:
            raise bad(number, "not pairs of a key and a value")
        pairs = dict(zip(words[::2], words[1::2]))
        name, seq, kind = pairs.get("file", ""), pairs.get("seq", ""), pairs.get("type", "")
        if not name or "/" in name or not (seq.isascii() and seq.isdigit()) or kind not in ("b", "h", "i"):
            raise bad(number, "file, seq and type b, h or i are needed")
        if kind == "b" and any(entry.type == "b" for entry in files):
            raise bad(number, "a second base file")
        files.append(AofFile(name, int(seq), kind))
    if not files:
        raise bad(1, "it names no file")
    return AofManifest(tuple(files))
