# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lossless editor of sysctl.d files, and what they amount to at boot.

The rules are those of systemd-sysctl: ``/`` and ``.`` separate alike (the first one in a key decides), a leading ``-`` lets a
failure pass, ``-key`` without ``=`` excludes a key, ``#`` and ``;`` start a comment line, the last assignment of a key wins,
and a glob never touches a key that is assigned by its own name.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import typing as t

__all__ = [
    "Assignment",
    "SysctlConf",
    "dotted",
    "effective",
    "is_glob",
    "is_valid_key",
    "normal_value",
    "proc_path",
    "same_value",
]

_LINE_END = re.compile(r"\r\n|\n\r|[\n\r\0]")
_SPACE = " \t\n\r"


def proc_path(key: str) -> str:
    """A key as its path below /proc/sys: ``net.ipv4.conf.eth0/1.forwarding`` is ``net/ipv4/conf/eth0.1/forwarding``."""
    first = re.search(r"[./]", key)
    if first and first.group() == ".":
        key = key.translate(str.maketrans("./", "/."))
    return "/".join(part for part in key.split("/") if part not in ("", "."))


def dotted(path: str) -> str:
    """The usual spelling of a path below /proc/sys."""
    return path.translate(str.maketrans("./", "/."))


def is_glob(key: str) -> bool:
    return any(char in key for char in "*?[")


def is_valid_key(key: str) -> bool:
    """Whether ``key`` names one setting: no glob, no blank, nothing that leaves /proc/sys."""
    path = proc_path(key)
    return "/" in path and not is_glob(path) and not re.search(r"[\s=#;\0]", path) and ".." not in path.split("/")


def normal_value(value: str) -> str:
    """The normal form of a value: single spaces, numbers in decimal."""
    return " ".join(_decimal(word) for word in value.split())


def _decimal(word: str) -> str:
    if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)", word):
        return str(int(word, 0))
    if re.fullmatch(r"[+-]?0[0-7]+", word):
        return str(int(word, 8))
    return word


def same_value(one: t.Optional[str], other: t.Optional[str]) -> bool:
    if one is None or other is None:
        return one is other
    return normal_value(one) == normal_value(other)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """One line that sets ``path`` (or, with ``value`` None, excludes it) in ``file``."""

    path: str
    value: t.Optional[str]
    file: str
    line: int


@dataclasses.dataclass
class _Line:
    body: str
    end: str


class SysctlConf:
    """The text of one file. Every byte that is not part of a changed value stays as it is."""

    def __init__(self, text: str, file: str = "") -> None:
        self.file = file
        self._lines: list[_Line] = []
        start = 0
        for match in _LINE_END.finditer(text):
            self._lines.append(_Line(text[start : match.start()], match.group()))
            start = match.end()
        if start < len(text):
            self._lines.append(_Line(text[start:], ""))

    def render(self) -> str:
        return "".join(line.body + line.end for line in self._lines)

    def assignments(self) -> list[Assignment]:
        found = []
        for number, line in enumerate(self._lines, 1):
            parsed = _parse(line.body)
            if parsed:
                found.append(Assignment(*parsed, self.file, number))
        return found

    def of(self, path: str) -> list[Assignment]:
        return [one for one in self.assignments() if one.path == path]

    def set(self, path: str, value: str) -> None:
        """Make this file's last line for ``path`` say ``value``; append one where there is none."""
        here = self.of(path)
        if not here:
            self.append(f"{dotted(path)} = {value}")
        elif not same_value(here[-1].value, value):
            line = self._lines[here[-1].line - 1]
            indent = re.match(r"\s*", line.body)
            head, sign, tail = line.body.partition("=")
            if sign:
                stripped = tail.strip(_SPACE)
                lead = tail[: len(tail) - len(tail.lstrip(_SPACE))] if stripped else ""
                trail = tail[len(tail.rstrip(_SPACE)) :] if stripped else ""
                line.body = f"{head}={lead}{value}{trail}"
            else:  # "-key": an exclusion becomes an assignment
                line.body = f"{indent.group() if indent else ''}{dotted(path)} = {value}"

    def append(self, body: str) -> None:
        """Add one line at the end."""
        if self._lines and not self._lines[-1].end:
            self._lines[-1].end = "\n"
        self._lines.append(_Line(body, "\n"))


def _parse(body: str) -> t.Optional[tuple[str, t.Optional[str]]]:
    text = body.strip(_SPACE)
    if not text or text[0] in "#;":
        return None
    key, sign, value = text.partition("=")
    excluded = key.startswith("-")
    if not sign and not excluded:
        return None  # systemd-sysctl: "Line is not an assignment, ignoring"
    path = proc_path(key[1:].strip(_SPACE) if excluded else key.strip(_SPACE))
    return (path, value.strip(_SPACE) if sign else None) if path else None


def _glob_matches(pattern: str, path: str) -> bool:
    parts, wanted = pattern.split("/"), path.split("/")
    return len(parts) == len(wanted) and all(
        fnmatch.fnmatchcase(name, part.replace("[^", "[!")) for part, name in zip(parts, wanted)
    )


def effective(confs: t.Iterable[SysctlConf], path: str) -> t.Optional[Assignment]:
    """The line that decides ``path`` at boot, files in the order in which they are read. None: the kernel's default stays.

    An Assignment without a value is an exclusion: earlier lines for the key are forgotten and globs leave it alone.
    """
    table: dict[str, Assignment] = {}
    for conf in confs:
        for one in conf.assignments():
            known = table.get(one.path)
            if known is not None and known.value != one.value:
                del table[one.path]  # systemd-sysctl moves it to the end, which counts among globs
            table[one.path] = one
    if path in table:
        return table[path]
    globs = [one for key, one in table.items() if one.value is not None and is_glob(key) and _glob_matches(key, path)]
    return globs[-1] if globs else None
