# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the file systems that a path needs are mounted: an empty mount point looks like a directory without data."""

from __future__ import annotations

import contextlib
import glob
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.mounts import (
    above,
    missing_mount,
    mount_unit_where,
    parse_fstab,
    parse_mountinfo,
)

__all__ = ["covered", "require_mounted", "unmounted"]

_UNITS = ("/etc/systemd/system/*.mount", "/run/systemd/system/*.mount")


def _named(host: Host) -> dict[str, str]:
    """Mount point → what names it; units of the package's own folders mount what no data lies on."""
    found = {}
    for pattern in _UNITS:
        for path in sorted(glob.glob(host.path(pattern))):
            point = mount_unit_where(host.read(path) or "")
            if point:
                found[point] = path
    return {**found, **dict.fromkeys(parse_fstab(host.read("/etc/fstab") or ""), "/etc/fstab")}


def _mounted(host: Host) -> frozenset[str]:
    return parse_mountinfo(host.read("/proc/self/mountinfo") or "")


def unmounted(host: Host, paths: t.Iterable[str]) -> str:
    """In words, which file system that ``paths`` lie on (behind links as well) is not mounted; empty where all are."""
    named = _named(host)
    for path in paths:
        with contextlib.suppress(OSError):
            os.listdir(path)  # an automount is mounted by this
        for place in dict.fromkeys((os.path.normpath(path), os.path.realpath(path))):
            point = missing_mount(place, named, _mounted(host))
            if point:
                return f"{named[point]} names a file system at {point}, which is not mounted: {path} is on the disk below it"
    return ""


def require_mounted(host: Host, paths: t.Iterable[str]) -> None:
    """Nothing is decided by what lies under a mount point. Raises Refusal."""
    trouble = unmounted(host, paths)
    if trouble:
        raise Refusal(
            "not_mounted",
            trouble,
            "the file system that holds the data, so that no server starts empty below it",
            "mount it (mount -a, and see what it says), then run again; if it is gone for good, take its line out of fstab, or its unit away",
        )


def covered(host: Host, pid: int, directory: str) -> str:
    """In words, that something was mounted over the directory that process ``pid`` works in; empty where that is not so."""
    try:
        here = os.readlink(host.path(f"/proc/{pid}/cwd"))
        same = os.path.samestat(os.stat(host.path(f"/proc/{pid}/cwd")), os.stat(directory))
    except OSError:
        return ""
    if same or here != directory:
        return ""
    point = max((one for one in _mounted(host) if one != "/" and above(one, directory)), key=len, default="")
    if not point:
        return ""
    return (
        f"process {pid} works in {directory} as it was before something was mounted at {point}: what it writes is on the disk below, "
        "and what lies in that directory now is not its data"
    )
