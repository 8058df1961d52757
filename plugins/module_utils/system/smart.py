# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What smartctl and sensors say, in JSON. What a tool or a drive does not tell is None, never a guess."""

from __future__ import annotations

import dataclasses
import json
import typing as t

__all__ = ["Drive", "Sensor", "parse_drive", "parse_drives", "parse_sensors"]


@dataclasses.dataclass(frozen=True)
class Drive:
    """``passed`` is the drive's own verdict. ``bad_sectors`` are reallocated, pending and uncorrectable ones, or NVMe's media errors.

    ``worn`` is percent of an SSD's life, ``degrees`` Celsius, ``limit`` what the drive names as its highest.
    """

    name: str
    passed: t.Optional[bool] = None
    bad_sectors: t.Optional[int] = None
    worn: t.Optional[int] = None
    degrees: t.Optional[float] = None
    limit: t.Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Sensor:
    """Degrees Celsius; ``high`` and ``critical`` as the chip names them."""

    name: str
    degrees: float
    high: t.Optional[float] = None
    critical: t.Optional[float] = None


#: Reallocated, reported uncorrectable, pending, offline uncorrectable.
_BAD = (5, 187, 197, 198)


def _mapping(text: str) -> dict[str, t.Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _inner(content: t.Any, *names: str) -> t.Any:
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _number(value: t.Any) -> t.Optional[float]:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def parse_drives(text: str) -> list[tuple[str, str]]:
    """(name, type) of the drives that ``smartctl --scan -j`` found."""
    rows = _mapping(text).get("devices")
    found = []
    for row in rows if isinstance(rows, list) else []:
        name, kind = _inner(row, "name"), _inner(row, "type")
        if isinstance(name, str) and isinstance(kind, str) and name.startswith("/dev/"):
            found.append((name, kind))
    return found


def parse_drive(name: str, text: str) -> t.Optional[Drive]:
    """One drive from ``smartctl -j -H -A``; None where it is no JSON or tells nothing of health."""
    content = _mapping(text)
    passed = _inner(content, "smart_status", "passed")
    table = _inner(content, "ata_smart_attributes", "table")
    rows = [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []
    raw = [_number(_inner(row, "raw", "value")) for row in rows if row.get("id") in _BAD]
    bad = [int(value) for value in raw if value is not None]
    nvme = _inner(content, "nvme_smart_health_information_log")
    media = _number(_inner(nvme, "media_errors"))
    worn = _number(_inner(nvme, "percentage_used"))
    degrees = _number(_inner(content, "temperature", "current"))
    drive = Drive(
        name,
        passed if isinstance(passed, bool) else None,
        sum(bad) if bad else (None if media is None else int(media)),
        None if worn is None else int(worn),
        degrees,
        _number(_inner(content, "temperature", "op_limit_max"))
        or _number(_inner(content, "temperature", "drive_trip")),
    )
    return None if drive == Drive(name) else drive


def parse_sensors(text: str) -> list[Sensor]:
    """Every temperature of ``sensors -j``."""
    found = []
    for chip, parts in _mapping(text).items():
        for label, values in parts.items() if isinstance(parts, dict) else ():
            fields = values if isinstance(values, dict) else {}
            for key, value in fields.items():
                degrees = _number(value)
                if key.startswith("temp") and key.endswith("_input") and degrees is not None:
                    stem = key[: -len("_input")]
                    high = _number(fields.get(f"{stem}_max"))
                    critical = _number(fields.get(f"{stem}_crit"))
                    found.append(Sensor(f"{chip} {label}", degrees, high, critical))
    return found
