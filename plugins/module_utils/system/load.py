# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is busy with, from two looks at /proc."""

from __future__ import annotations

import dataclasses
import re
import typing as t

__all__ = ["DiskUse", "cpu_shares", "disk_use", "pressure"]

#: Columns of the line ``cpu`` in /proc/stat (man 5 proc).
_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_SECTOR = 512


def _cpu(text: str) -> t.Optional[list[int]]:
    match = re.search(r"^cpu +([\d ]+)$", text, re.M)
    numbers = [int(word) for word in match.group(1).split()] if match else []
    return numbers[: len(_COLUMNS)] if len(numbers) >= 5 else None


def cpu_shares(before: str, after: str) -> t.Optional[dict[str, float]]:
    """Percent of CPU time by kind between two texts of /proc/stat; None where they do not say, or are the same."""
    first, second = _cpu(before), _cpu(after)
    if first is None or second is None:
        return None
    spent = [max(0, later - earlier) for earlier, later in zip(first, second)]
    total = sum(spent)
    if not total:
        return None
    return {name: 100 * part / total for name, part in zip(_COLUMNS, spent)}


@dataclasses.dataclass(frozen=True)
class DiskUse:
    """MB (1000 * 1000 bytes) per second, and percent of the time that the device was at work."""

    name: str
    read_mb: float
    written_mb: float
    busy_percent: float


def _disk(text: str, device: tuple[int, int]) -> t.Optional[tuple[str, int, int, int]]:
    """Name, sectors read and written, and milliseconds at work of one device in /proc/diskstats."""
    for line in text.splitlines():
        words = line.split()
        whole = len(words) >= 13 and all(word.isdecimal() for word in (*words[:2], *words[3:13]))
        if whole and (int(words[0]), int(words[1])) == device:
            return words[2], int(words[5]), int(words[9]), int(words[12])
    return None


def disk_use(before: str, after: str, seconds: float, device: tuple[int, int]) -> t.Optional[DiskUse]:
    """What a device (major, minor) did between two texts of /proc/diskstats; None where it is not there."""
    first, second = _disk(before, device), _disk(after, device)
    if first is None or second is None or seconds <= 0:
        return None
    read, written, busy = (max(0, second[index] - first[index]) for index in (1, 2, 3))
    scale = _SECTOR / 1e6 / seconds
    return DiskUse(second[0], read * scale, written * scale, min(100.0, busy / 10 / seconds))


def pressure(text: str) -> t.Optional[float]:
    """Percent of the last minute in which every task stood still, of /proc/pressure/io; None where the kernel does not say."""
    match = re.search(r"^full .*\bavg60=(\d+(?:\.\d+)?)", text, re.M)
    return float(match.group(1)) if match else None
