# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments as people write them."""

from __future__ import annotations

import datetime
import re

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = ["moment_of"]

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(Z|[+-]\d\d:?\d\d)")


def moment_of(text: str, name: str = "to_time") -> int:
    """Seconds since 1970 of ``1795555957`` or ``2026-11-24T22:00:00Z``. ``name`` is the option's. Raises Problem."""
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return int(text)
    found = _ISO.fullmatch(text)
    try:
        if found:
            zone = found.group(3).replace("Z", "+0000").replace(":", "")
            return int(
                datetime.datetime.strptime(
                    f"{found.group(1)} {found.group(2)} {zone}", "%Y-%m-%d %H:%M:%S %z"
                ).timestamp()
            )
    except (ValueError, OverflowError):
        pass
    raise Problem(
        "invalid_value",
        f"{name}: {text!r} is no moment",
        "seconds since 1970, or a time with its zone",
        f"set {name} as 2026-11-24T22:00:00Z or 2026-11-24T23:00:00+01:00",
    )
