# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems that this host names, and those that are mounted: texts of fstab, mount units and /proc/PID/mountinfo."""

from __future__ import annotations

import posixpath
import re
import typing as t

__all__ = ["above", "missing_mount", "mount_unit_where", "parse_fstab", "parse_mountinfo"]


def _unescaped(word: str) -> str:
    """fstab and mountinfo write a space as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), word)


def parse_fstab(text: str) -> list[str]:
    """Where fstab wants a file system."""
    rows = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    points = (_unescaped(row[1]) for row in rows if len(row) > 2 and row[2] != "swap")
    return [posixpath.normpath(point) for point in points if point.startswith("/")]


def mount_unit_where(text: str) -> t.Optional[str]:
    """Where a .mount unit wants its file system."""
    found = re.findall(r"^\s*Where\s*=\s*(/.*?)\s*$", text, re.M)
    return posixpath.normpath(found[-1].strip('"')) if found else None


def parse_mountinfo(text: str) -> frozenset[str]:
    """Where something is mounted; what waits to be mounted on the first access (autofs) is not."""
    points = set()
    for line in text.splitlines():
        left, _dash, right = line.partition(" - ")
        fields = left.split()
        if len(fields) > 4 and right.split()[:1] != ["autofs"]:
            points.add(_unescaped(fields[4]))
    return frozenset(points)


def above(point: str, path: str) -> bool:
    """Whether ``path`` is ``point`` or below it."""
    return path == point or path.startswith(point.rstrip("/") + "/")


def missing_mount(path: str, named: t.Iterable[str], mounted: t.Container[str]) -> t.Optional[str]:
    """The first of ``named`` at or above ``path`` where nothing is mounted."""
    return next((point for point in named if point != "/" and above(point, path) and point not in mounted), None)
