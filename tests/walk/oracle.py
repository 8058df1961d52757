# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was acknowledged, and where it is. Every value is written once in the whole walk: its bytes on disk say that the write is there."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing as t

#: A value of the walk. No file holds these bytes by chance, and Redis compresses nothing so short.
VALUE = re.compile(rb"V\d{8}X")

Data = dict[str, str]


class Violation(AssertionError):
    """A law was broken; the message tells which, and the walk that led there."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What is at one moment. ``live``: what the running server has, None while it is stopped. ``next``: what a start after a SIGKILL now
    has, None where it fails. ``on_disk``: every value in any file, of ours or the operator's. ``tree``: every file.
    """

    live: Data | None
    next: Data | None
    on_disk: frozenset[str]
    tree: t.Mapping[str, bytes]

    def reachable(self) -> frozenset[str]:
        return self.on_disk | frozenset((self.live or {}).values()) | frozenset((self.next or {}).values())


def values_on_disk(root: pathlib.Path) -> frozenset[str]:
    """Every value in any file below ``root``. What a save or a rewrite left half done is no place to find data."""
    found: set[bytes] = set()
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.name.startswith("temp-"):
            continue
        try:
            found.update(VALUE.findall(path.read_bytes()))
        except FileNotFoundError:
            continue  # Redis deletes what a rewrite replaced, at its own time
    return frozenset(value.decode() for value in found)


class Oracle:
    """``latest``: of each key the last acknowledged value, None where it was deleted. ``flushed``: what was there before each FLUSHALL.

    ``backups``: what the server had when each was taken. ``replaced``: what the last switch of data replaced. ``seconds``: what was
    there at the end of a second. ``unsure``: keys that were written while data was switched.
    """

    def __init__(self) -> None:
        self.latest: dict[str, str | None] = {}
        self.flushed: list[Data] = []
        self.backups: dict[str, Data] = {}
        self.replaced: Data | None = None
        self.seconds: dict[int, Data] = {}
        self.unsure: set[str] = set()
        self._count = 0

    def new_value(self) -> str:
        self._count += 1
        return f"V{self._count:08d}X"

    def wrote(self, key: str, value: str | None) -> None:
        self.latest[key] = value

    def wanted(self, there: t.Container[str]) -> dict[str, str]:
        """The last acknowledged values, as far as they are there."""
        return {key: value for key, value in self.latest.items() if value is not None and value in there}

    def forget(self, look: Look) -> list[str]:
        """Behind a step that was not ours: what it destroyed is nobody's any more. Gives the keys."""
        there = look.reachable()
        gone = sorted(key for key, value in self.latest.items() if value is not None and value not in there)
        for key in gone:
            del self.latest[key]
        return gone


def lost(oracle: Oracle, before: Look, after: Look) -> dict[str, str]:
    """Acknowledged values that could be reached before a step of ours, and cannot after it."""
    there = after.reachable()
    return {key: value for key, value in oracle.wanted(before.reachable()).items() if value not in there}


def differences(one: t.Mapping[str, str], other: t.Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {key: (one.get(key), other.get(key)) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}


def worse_start(before: Look, after: Look, latest: t.Mapping[str, str | None]) -> str:
    """Why the next start is worse than it was, in words; empty where it is not. A step may only make it know more of what is live, or was
    acknowledged last.
    """
    if before.next is None:
        return ""
    if after.next is None:
        return "the next start fails, and would not have before"
    live = [look.live for look in (before, after) if look.live is not None]
    for key in sorted({*before.next, *after.next}):
        value = after.next.get(key)
        acknowledged = value is not None and value == latest.get(key)
        if not acknowledged and value != before.next.get(key) and value not in [data.get(key) for data in live]:
            return f"the next start has {key} = {value}, and would have had {before.next.get(key)}; live: {[data.get(key) for data in live]}"
    return ""
