# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lossless editor of redis.conf and sentinel.conf.

Every byte that is not part of a changed directive stays as it is: comments, order, blank lines, odd spacing, line
endings, unknown directives and the block that CONFIG REWRITE appends. An edit that changes nothing is byte-identical.

The rules are those of Redis' own loader (``loadServerConfigFromString`` and ``sdssplitargs``): one directive a line, no
comments after a directive, single or double quotes, the last occurrence of a scalar wins, ``include`` is expanded in place.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = ["ConfSyntaxError", "Directive", "RedisConf", "canonical_name", "expand", "join_args", "quote", "split_args"]

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}
_UNESCAPES = {value: key for key, value in _ESCAPES.items()}
_SPACE = " \t\r\n\v\f\0"
#: What ends a word; other space only stands before one, or behind a closing quote.
_ENDS = " \t\r\n\0"
_HEX = "0123456789abcdefABCDEF"
#: Valkey's CONFIG REWRITE writes its own names, whichever the file had.
_OTHER_NAMES = {"slaveof": "replicaof", "primaryauth": "masterauth", "primaryuser": "masteruser"}
_MAX_INCLUDE_DEPTH = 16


class ConfSyntaxError(Problem):
    """A line that Redis itself would refuse to read."""


def _escaped(text: str, pos: int, quote: str) -> t.Optional[tuple[str, int]]:
    """What the escape at ``pos``, within ``quote``, stands for, and how long it is; None where there is none."""
    if quote == "'":
        return ("'", 2) if text[pos : pos + 2] == "\\'" else None
    if text[pos] != "\\" or pos + 1 >= len(text):
        return None
    if text[pos + 1] == "x" and _is_hex(text[pos + 2 : pos + 4]):
        return _byte_to_text(int(text[pos + 2 : pos + 4], 16)), 4
    return _ESCAPES.get(text[pos + 1], text[pos + 1]), 2


def _quoted(text: str, pos: int) -> tuple[str, int]:
    """What stands between the quote at ``pos`` and the next one, and where it ends. Raises ValueError."""
    quote, parts = text[pos], []
    pos += 1
    while pos < len(text):
        escape = _escaped(text, pos, quote)
        if escape:
            parts.append(escape[0])
            pos += escape[1]
        elif text[pos] != quote:
            parts.append(text[pos])
            pos += 1
        elif pos + 1 < len(text) and text[pos + 1] not in _SPACE:
            raise ValueError("a closing quote must be followed by a space or by nothing")
        else:
            return "".join(parts), pos + 1
    raise ValueError("unbalanced quotes")


def _word(text: str, pos: int) -> tuple[str, int]:
    """One argument, which begins at ``pos``, and where it ends. Raises ValueError."""
    begin = pos
    while pos < len(text) and text[pos] not in _ENDS:
        if text[pos] in "\"'":
            inner, end = _quoted(text, pos)
            return text[begin:pos] + inner, end
        pos += 1
    return text[begin:pos], pos


def split_args(text: str) -> tuple[str, ...]:
    """Split one line as Redis does. Raises ValueError where Redis says "Unbalanced quotes"."""
    args: list[str] = []
    pos = 0
    while True:
        while pos < len(text) and text[pos] in _SPACE:
            pos += 1
        if pos >= len(text):
            return tuple(args)
        word, pos = _word(text, pos)
        args.append(word)


def _is_hex(pair: str) -> bool:
    return len(pair) == 2 and all(char in _HEX for char in pair)


def _byte_to_text(value: int) -> str:
    # Non-ASCII bytes travel as surrogates, as in text read with errors="surrogateescape".
    return bytes([value]).decode("ascii", "surrogateescape")


def quote(arg: str) -> str:
    """Write one argument so that split_args() gives it back; plain words stay plain."""
    if arg and not any(char in _SPACE or char in "\"'\\" or not char.isprintable() for char in arg) and arg[0] != "#":
        return arg
    out = []
    for char in arg:
        if char in '"\\':
            out.append("\\" + char)
        elif char in _UNESCAPES:
            out.append("\\" + _UNESCAPES[char])
        elif char.isprintable() or (char > "\x7f" and not "\ud800" <= char <= "\udfff"):
            out.append(char)  # escapes are for bytes: of a character of several, split_args would give back the bytes
        else:
            out.extend("\\x%02x" % byte for byte in char.encode("utf-8", "surrogateescape"))
    return '"' + "".join(out) + '"'


def join_args(args: t.Iterable[str]) -> str:
    """Arguments as one piece of configuration text."""
    return " ".join(quote(arg) for arg in args)


def canonical_name(name: str) -> str:
    """One spelling of a directive: lower case, replica for slave; of Valkey's own names the one that Redis knows, too."""
    name = name.lower()
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    if name.startswith("slave-"):
        return "replica-" + name[len("slave-") :]
    if name.startswith("min-slaves-"):
        return "min-replicas-" + name[len("min-slaves-") :]
    return name


@dataclasses.dataclass(frozen=True)
class Directive:
    """One directive as read: where it stands and what it says.

    ``main`` is False in an included file. ``after_include``: an include stands before it in the same file, and from there on
    Redis reads ``save`` lines as CONFIG SET would: each replaces the ones before (measured on 7.0.15).
    """

    name: str
    args: tuple[str, ...]
    source: str
    number: int
    main: bool = True
    after_include: bool = False

    @property
    def text(self) -> str:
        """The value as CONFIG GET would show it: arguments joined by single spaces."""
        return " ".join(self.args)


class RedisConf:
    """One configuration file, held as its lines."""

    def __init__(self, text: str, path: str = "redis.conf") -> None:
        self.path = path
        self._lines = text.split("\n")

    def render(self) -> str:
        return "\n".join(self._lines)

    def directives(self) -> list[Directive]:
        """Every directive in order. Raises ConfSyntaxError, with the line, where Redis would refuse it."""
        found = []
        for number, line in enumerate(self._lines, 1):
            stripped = line.strip(" \t\r\n")
            if "\0" not in line and (not stripped or stripped.startswith("#")):
                continue
            try:
                if "\0" in line:
                    raise ValueError("it has a NUL, behind which Redis reads nothing of it, not even its end")
                words = split_args(stripped)
            except ValueError as error:
                raise ConfSyntaxError(
                    "conf_syntax",
                    f"{self.path} line {number} cannot be read: {error}",
                    "a file that Redis itself can read",
                    f"correct line {number} of {self.path}",
                ) from None
            if words:
                found.append(Directive(canonical_name(words[0]), words[1:], self.path, number))
        return found

    def set(self, name: str, values: t.Sequence[t.Sequence[str]], at_end: bool = False) -> None:
        """Make ``values`` (one tuple of arguments a line) what this file says last about ``name``.

        The last occurrence is rewritten in place (or, with ``at_end``, removed and written at the end, after an include
        that would override it). A directive that takes one line only keeps its earlier, overridden occurrences: they are
        the operator's. Several lines (save points) replace all lines of that name.
        """
        mine = [entry.number for entry in self.directives() if entry.name == name]
        several = len(values) > 1 or name in MULTI_LINE
        doomed = mine if several else mine[-1:]
        ending = "\r" if self._lines[0].endswith("\r") else ""
        if doomed and not at_end:
            keep = self._lines[doomed[0] - 1]
            indent = keep[: len(keep) - len(keep.lstrip(" \t"))]
            spelled = split_args(keep.strip(" \t\r\n"))[0]
        else:
            indent, spelled = "", name
        new = [f"{indent}{spelled} {join_args(args)}".rstrip() + ending for args in values]
        position = doomed[0] - 1 if doomed and not at_end else None
        for number in reversed(doomed):
            del self._lines[number - 1]
        if position is None:
            # A file that ends in a newline splits into a last, empty element: stay in front of it.
            if self._lines[-1] == "":
                position = len(self._lines) - 1
            else:
                position = len(self._lines)
                new.append("")
        self._lines[position:position] = new

    def remove(self, name: str) -> None:
        """Take every line of ``name`` out of this file."""
        for number in reversed([entry.number for entry in self.directives() if entry.name == name]):
            del self._lines[number - 1]


MULTI_LINE = frozenset(["save", "client-output-buffer-limit", "rename-command", "loadmodule", "user", "include"])


def expand(
    conf: RedisConf, read_included: t.Callable[[str], t.Sequence[tuple[str, str]]], _depth: int = 0, _main: bool = True
) -> list[Directive]:
    """All directives in the order in which Redis applies them, includes expanded.

    ``read_included(pattern)`` gives (path, text) pairs for an include argument, none for a glob that matches nothing.
    """
    if _depth > _MAX_INCLUDE_DEPTH:
        raise ConfSyntaxError(
            "conf_include_loop",
            f"{conf.path} includes files more than {_MAX_INCLUDE_DEPTH} levels deep",
            "includes that do not include each other",
            "take the loop out of the include lines",
        )
    found: list[Directive] = []
    included = False
    for entry in conf.directives():
        if entry.name == "include":
            for argument in entry.args:
                for path, text in read_included(argument):
                    found.extend(expand(RedisConf(text, path), read_included, _depth + 1, False))
                    included = True
        else:
            found.append(dataclasses.replace(entry, main=_main, after_include=included))
    return found
