# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands behind a place in an AOF: what is lost by cutting it there."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import FRAME, AofScan, commands

__all__ = ["AfterCorruption", "after_corruption"]

#: Where a command may begin: behind the end of a value, with its timestamp if it has one.
_BEGINS = re.compile(rb"\r\n(?=(?:#TS:\d{1,12}\r\n)?\*[1-9]\d{0,5}\r\n\$\d{1,9}\r\n)")
_BLOCK = 1024 * 1024
_OVERLAP = 64
#: So many places are tried, and so many bytes walked, before it is left at what was found.
_TRIES, _WALK = 2000, 512 * 1024 * 1024
#: So many commands in a row are no accident: bytes within a value can look like one or two.
_ROW = 3


@dataclasses.dataclass(frozen=True)
class AfterCorruption:
    """``bytes`` from the place to the end. ``commands`` that begin there, whole or not, as far as they can be recognised (SELECT, MULTI and
    EXEC are not counted); None where what stands behind the damage is no trace of commands, or so torn that it was not looked at to its end.

    ``timestamp`` is the greatest ``#TS:`` among them (seconds since 1970), ``resumes`` the offset from which on they are whole up to the
    end or a cut-off tail: None where there is no such place behind the damage.
    """

    bytes: int
    commands: t.Optional[int]
    timestamp: t.Optional[int] = None
    resumes: t.Optional[int] = None


def _walk(handle: t.BinaryIO, at: int) -> tuple[int, AofScan, int]:
    """How many commands stand from ``at`` on, how that ended, and where the last whole one did."""
    handle.seek(at)
    reader, count, end = commands(handle), 0, at
    for command in reader:
        count += command.name not in FRAME
        end = command.end
    assert reader.scan is not None
    return count, reader.scan, end


def _begun(handle: t.BinaryIO, end: int) -> bool:
    """Whether anything but annotations stands behind ``end``."""
    handle.seek(end)
    rest = re.sub(rb"^(?:#[^\n]{0,1000}\n)+", b"", handle.read(8192))
    return bool(rest) and not rest.startswith(b"#")


def _only_nul(handle: t.BinaryIO, at: int) -> bool:
    handle.seek(at)
    while True:
        block = handle.read(_BLOCK)
        if not block.strip(b"\0"):
            if len(block) < _BLOCK:
                return True
            continue
        return False


def _next(handle: t.BinaryIO, at: int) -> t.Optional[int]:
    """The first place behind ``at`` where a command may begin."""
    while True:
        handle.seek(at)
        block = handle.read(_BLOCK)
        found = _BEGINS.search(block)
        if found:
            return at + found.end()
        if len(block) < _BLOCK:
            return None
        at += _BLOCK - _OVERLAP


def after_corruption(handle: t.BinaryIO, at: int) -> AfterCorruption:
    """Look at all that stands from ``at`` on; a command begins there, or something damaged does. In constant memory."""
    size = handle.seek(0, 2)
    count, scan, end = _walk(handle, at)
    stamps = [scan.latest_timestamp, scan.timestamp]
    if end == size or not _begun(handle, end):
        return AfterCorruption(size - at, count, max((one for one in stamps if one is not None), default=None), at)
    if _only_nul(handle, end):
        return AfterCorruption(size - at, None, scan.latest_timestamp)
    count += 1  # the one that is damaged or cut off
    place, walked, resumes, all_seen, junk = end, 0, None, False, scan.ends == "corrupt"
    for _try in range(_TRIES):
        if walked >= _WALK:
            break
        begins = _next(handle, place)
        if begins is None:
            all_seen = not junk
            break
        more, scan, end = _walk(handle, begins)
        walked, junk = walked + end - begins, junk and not more
        if scan.ends != "corrupt" and more:
            resumes, count = begins, count + more + (end < size and _begun(handle, end))
            stamps.append(scan.latest_timestamp)
            all_seen = True
            break
        place = begins
        if more >= _ROW:  # whole commands between two places of damage
            place, count = end, count + more + 1
            stamps.append(scan.latest_timestamp)
    known = max((one for one in stamps if one is not None), default=None)
    return AfterCorruption(size - at, count if all_seen else None, known, resumes)
