# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lossless editor of the ``w`` lines of tmpfiles.d files, and what they amount to at boot.

The rules are those of systemd-tmpfiles, tried against version 252: of several ``w`` lines with the very same path the first
counts and the others are reported as duplicates (``w+`` lines among themselves are all applied); paths with and without
patterns are applied one after the other in the order in which they first appear, so of different spellings the last wins;
``w!`` counts at boot;
the argument is the rest of the line, in which C escapes count, but neither quotes nor ``#``. Lines of other types are left out:
``f`` and ``F`` are applied before all ``w`` lines.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import fnmatch
import re
import shlex
import typing as t

__all__ = ["TmpfilesConf", "WriteLine", "effective", "standing"]

_FIELDS = re.compile(
    r"""\s*(?P<type>\S+)\s+(?P<path>"(?:[^"\\]|\\.)*"|'[^']*'|\S+)(?:\s+\S+){4}\s+(?P<argument>\S.*?)\s*$""", re.S
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{3}|[abfnrtvs\\\"'])")
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}


@dataclasses.dataclass(frozen=True)
class WriteLine:
    """One ``w`` line: ``value`` is what it writes into ``path``, which may be a pattern."""

    path: str
    value: str
    append: bool
    file: str
    line: int

    def matches(self, path: str) -> bool:
        parts, wanted = self.path.split("/"), path.split("/")
        return len(parts) == len(wanted) and all(fnmatch.fnmatchcase(name, part) for part, name in zip(parts, wanted))


class TmpfilesConf:
    """The text of one file. Every byte that is not part of a changed argument stays as it is."""

    def __init__(self, text: str, file: str = "") -> None:
        self.file = file
        self._lines = re.split(r"(?<=\n)", text)
        if self._lines[-1] == "":
            self._lines.pop()

    def render(self) -> str:
        return "".join(self._lines)

    def writes(self) -> list[WriteLine]:
        found = []
        for number, line in enumerate(self._lines, 1):
            match = _parse(line)
            if match:
                kind, path = match["type"], _path(match["path"])
                found.append(WriteLine(path, _argument(kind, match["argument"]), "+" in kind, self.file, number))
        return found

    def of(self, path: str) -> list[WriteLine]:
        return [one for one in self.writes() if one.path == path]

    def set(self, path: str, value: str) -> None:
        """Make the line for ``path`` that counts in this file write ``value``; append one where there is none."""
        here = self.of(path)
        if not here:
            self.append(f"w {path} - - - - {value}")
            return
        counts = standing(here)
        if counts.value == value:
            return
        line = self._lines[counts.line - 1]
        match = _parse(line)
        assert match is not None
        start, end = match.span("argument")
        if "~" in match["type"]:
            value = base64.b64encode(value.encode()).decode()
        self._lines[counts.line - 1] = line[:start] + value + line[end:]

    def append(self, body: str) -> None:
        """Add one line at the end."""
        if self._lines and not self._lines[-1].endswith("\n"):
            self._lines[-1] += "\n"
        self._lines.append(body + "\n")


def _parse(line: str) -> t.Optional[re.Match[str]]:
    match = _FIELDS.match(line)
    return match if match and match["type"].startswith("w") and not match["type"].strip("w+-!=~^$") else None


def _path(text: str) -> str:
    if text[0] in "\"'":
        text = shlex.split(text)[0]
    return re.sub(r"/+", "/", text.replace("%%", "%")).rstrip("/")


def _argument(kind: str, text: str) -> str:
    if "~" in kind:
        try:
            return base64.b64decode(text).decode(errors="replace")
        except (binascii.Error, ValueError):
            return text
    return _ESCAPE.sub(lambda match: _unescape(match.group(1)), text)


def _unescape(code: str) -> str:
    if code[0] == "x":
        return chr(int(code[1:], 16))
    return chr(int(code, 8) & 255) if len(code) == 3 else _NAMED.get(code, code)


def standing(lines: t.Sequence[WriteLine]) -> WriteLine:
    """Of lines for the very same path, the one whose value stands after boot: the first, or the last ``w+`` of nothing but those."""
    applied = [lines[0]]
    for one in lines[1:]:
        if one.append and all(other.append for other in applied):
            applied.append(one)
    return applied[-1]


def effective(confs: t.Iterable[TmpfilesConf], path: str) -> t.Optional[WriteLine]:
    """The line whose value stands in ``path`` after boot, files in the order in which they are read."""
    groups: dict[str, list[WriteLine]] = {}
    for conf in confs:
        for one in conf.writes():
            groups.setdefault(one.path, []).append(one)
    last = [standing(group) for group in groups.values() if group[0].matches(path)]
    return last[-1] if last else None
