# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc says."""

from __future__ import annotations

import re
import typing as t

__all__ = ["capability_bounds", "meminfo_bytes", "open_files_limit", "selected", "status_field"]

CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24


def open_files_limit(limits: str) -> tuple[int, int]:
    """(soft, hard) of "Max open files" in /proc/PID/limits; (0, 0) where it is not there, a huge number for unlimited."""
    match = re.search(r"^Max open files\s+(\S+)\s+(\S+)", limits, re.M)
    if not match:
        return (0, 0)
    soft, hard = (2**31 if value == "unlimited" else int(value) for value in match.groups())
    return (soft, hard)


def status_field(status: str, name: str) -> t.Optional[str]:
    """One field of /proc/PID/status."""
    match = re.search(rf"^{re.escape(name)}:[ \t]*(.*)$", status, re.M)
    return match.group(1).strip() if match else None


def capability_bounds(status: str, capability: int) -> bool:
    """Whether the capability bounding set in /proc/PID/status has ``capability``."""
    mask = status_field(status, "CapBnd")
    return bool(mask) and bool(int(mask or "0", 16) >> capability & 1)


def meminfo_bytes(meminfo: str, name: str) -> int:
    """One field of /proc/meminfo in bytes; 0 where it is not there."""
    match = re.search(rf"^{re.escape(name)}:\s+(\d+) kB", meminfo, re.M)
    return int(match.group(1)) * 1024 if match else 0


def selected(choices: str) -> t.Optional[str]:
    """The value in brackets of a file such as /sys/kernel/mm/transparent_hugepage/enabled; else its whole text."""
    match = re.search(r"\[(\S+)\]", choices)
    return match.group(1) if match else (choices.strip() or None)
