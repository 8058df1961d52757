# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""INFO text to typed fields."""

from __future__ import annotations

import dataclasses
import re
import typing as t

__all__ = ["Info", "Keyspace", "parse_info", "version_tuple"]


@dataclasses.dataclass(frozen=True)
class Keyspace:
    """Keys of one database; ``expires`` of them have a time to live."""

    keys: int
    expires: int


@dataclasses.dataclass(frozen=True)
class Info:
    """One INFO answer. Fields that a server version does not have are simply absent."""

    fields: t.Mapping[str, str]
    keyspace: t.Mapping[int, Keyspace]

    def text(self, name: str, default: str = "") -> str:
        return self.fields.get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """A whole number; ``default`` where the field is absent or is none."""
        try:
            return int(self.fields.get(name, ""))
        except ValueError:
            return default

    def flag(self, name: str) -> bool:
        return self.fields.get(name) == "1"

    @property
    def version(self) -> tuple[int, ...]:
        """The Redis version the server is compatible with (Valkey answers its Redis level here)."""
        return version_tuple(self.text("redis_version"))

    @property
    def product(self) -> str:
        """Name and true version, such as ``Redis 7.0.15`` or ``Valkey 8.1.1``."""
        if "valkey_version" in self.fields:
            return "Valkey " + self.fields["valkey_version"]
        return "Redis " + self.text("redis_version", "of unknown version")

    @property
    def dataset_bytes(self) -> int:
        """Memory of the data set. An empty server of Redis 8 may count more overhead than memory, and tells what is below zero as nearly 2^64."""
        count = self.number("used_memory_dataset")
        return count if count <= self.number("used_memory", count) else 0

    @property
    def keys(self) -> int:
        return sum(space.keys for space in self.keyspace.values())


def version_tuple(text: str) -> tuple[int, ...]:
    """``7.0.15`` → (7, 0, 15); what follows the numbers is left out."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


#: What Valkey calls otherwise, by its name there.
_SAME = {"server_mode": "redis_mode"}


def parse_info(text: str) -> Info:
    """Parse the answer of INFO, of one section or of all."""
    fields: dict[str, str] = {}
    keyspace: dict[int, Keyspace] = {}
    for line in text.splitlines():
        name, found, value = line.partition(":")
        if line.startswith("#") or not found:
            continue
        database = re.fullmatch(r"db(\d+)", name)
        if database:
            counts = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            keyspace[int(database.group(1))] = Keyspace(int(counts.get("keys", 0)), int(counts.get("expires", 0)))
        else:
            fields[_SAME.get(name, name)] = value
    return Info(fields, keyspace)
