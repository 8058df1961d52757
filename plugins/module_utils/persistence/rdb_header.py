# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first bytes of an RDB file say of it. Format: magic, version, then AUX fields, as in Redis' rdb.c."""

from __future__ import annotations

import dataclasses
import re
import typing as t

__all__ = ["RdbHeader", "RdbHeaderError", "read_header"]

_AUX, _EOF = 0xFA, 0xFF
#: A field is a version, a number or an id of 40 digits; only the scripts that releases before 7.0 put here are longer.
_LONGEST = 64 * 1024
_FIELDS = 4096
_KEPT = 64


class RdbHeaderError(ValueError):
    """These bytes are no beginning of an RDB file, or they end too soon."""


@dataclasses.dataclass(frozen=True)
class RdbHeader:
    """``magic`` is REDIS or VALKEY, ``version`` that of the format (10 is Redis 7.0), ``aux`` the first 64 fields by name.

    ``opcode`` stands behind them.
    """

    magic: str
    version: int
    aux: dict[str, str]
    opcode: int = 0

    @property
    def empty(self) -> bool:
        """Whether the file ends here: no key, no function, nothing of a module."""
        return self.opcode == _EOF

    def number(self, name: str) -> t.Optional[int]:
        """A field as a number; None where it is not there or is none."""
        text = self.aux.get(name, "")
        return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None

    @property
    def ctime(self) -> t.Optional[int]:
        """When the save began, seconds since 1970."""
        return self.number("ctime")


class _Bytes:
    """Takes bytes from memory or from a file, and never fewer than asked for."""

    def __init__(self, source: t.Union[bytes, t.BinaryIO]) -> None:
        self._source, self._at = source, 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises RdbHeaderError."""
        if count > _LONGEST:
            raise RdbHeaderError(f"a field of {count} bytes at offset {self._at}: none is so long")
        found = b""
        while len(found) < count:
            part = self._some(count - len(found))
            if not part:
                raise RdbHeaderError(f"the file ends at offset {self._at}, within its header")
            self._at += len(part)
            found += part
        return found

    def _some(self, count: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[self._at : self._at + count]
        return self._source.read(count)

    def byte(self) -> int:
        return self.take(1)[0]

    def length(self) -> tuple[int, bool]:
        """(length, False), or (the way a value is packed, True)."""
        first = self.byte()
        kind, low = first >> 6, first & 0x3F
        if kind == 0:
            return low, False
        if kind == 1:
            return low << 8 | self.byte(), False
        if kind == 3:
            return low, True
        if first not in (0x80, 0x81):
            raise RdbHeaderError(f"no length begins with byte 0x{first:02x} (offset {self._at - 1})")
        return int.from_bytes(self.take(4 if first == 0x80 else 8), "big"), False

    def plain_length(self) -> int:
        length, packed = self.length()
        if packed:
            raise RdbHeaderError(f"a length should stand before offset {self._at}")
        return length

    def string(self) -> bytes:
        """One value as text, also where it is packed as a number or compressed."""
        length, packed = self.length()
        if not packed:
            return self.take(length)
        if length <= 2:
            return b"%d" % int.from_bytes(self.take(1 << length), "little", signed=True)
        if length != 3:
            raise RdbHeaderError(f"no value is packed in way {length} (offset {self._at - 1})")
        compressed, size = self.plain_length(), self.plain_length()
        return _unpack(self.take(compressed), size)


def _unpack(data: bytes, size: int) -> bytes:
    """LZF: runs of literals, and references to what was already written. Raises RdbHeaderError."""
    wrong = RdbHeaderError("a compressed field that does not unpack")
    if size > _LONGEST:
        raise wrong
    out, at = bytearray(), 0
    try:
        while at < len(data):
            control = data[at]
            at += 1
            if control < 32:
                out += data[at : at + control + 1]
                at += control + 1
                continue
            count = control >> 5
            if count == 7:
                count += data[at]
                at += 1
            start = len(out) - ((control & 0x1F) << 8 | data[at]) - 1
            at += 1
            if start < 0 or len(out) > size:
                raise wrong
            for index in range(start, start + count + 2):  # a reference may run into what it writes
                out.append(out[index])
    except IndexError:
        raise wrong from None
    if len(out) != size:
        raise wrong
    return bytes(out)


def read_header(source: t.Union[bytes, t.BinaryIO]) -> RdbHeader:
    """The header of an RDB from its first bytes, or from a file at its beginning; in constant memory.

    Reads up to the first opcode that is no AUX field, and that one byte. Raises RdbHeaderError.
    """
    data = _Bytes(source)
    match = re.match(rb"(REDIS|VALKEY)[ \t\n\v\f\r]*\+?([0-9]+)", data.take(9))  # atoi() reads the version
    if not match or not int(match.group(2)):
        raise RdbHeaderError("it does not begin with REDIS or VALKEY and a version")
    magic, version = match.group(1), int(match.group(2))
    aux: dict[str, str] = {}
    for _count in range(_FIELDS):
        opcode = data.byte()
        if opcode != _AUX:
            return RdbHeader(magic.decode(), version, aux, opcode)
        name, value = data.string(), data.string()
        if len(aux) < _KEPT:
            aux[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    raise RdbHeaderError(f"more than {_FIELDS} fields in the header")
