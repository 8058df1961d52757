# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd's confinement takes away from the server, and whether the server can live with it."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal

__all__ = ["Confined", "confinement_reasons", "exposure", "read_confined", "require_reachable"]

_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")
#: What each value of ProtectSystem makes read-only.
_READ_ONLY = {"strict": ("/",), "full": ("/usr", "/boot", "/efi", "/etc"), "yes": ("/usr", "/boot", "/efi")}


@dataclasses.dataclass(frozen=True)
class Confined:
    """What can be seen of a running process' confinement (None: not known)."""

    no_new_privileges: t.Optional[bool] = None
    filtered: t.Optional[bool] = None
    root_read_only: t.Optional[bool] = None


def read_confined(status: str, mountinfo: str) -> Confined:
    """From /proc/PID/status and /proc/PID/mountinfo."""
    flag = re.search(r"^NoNewPrivs:\s*(\d)", status, re.M)
    seccomp = re.search(r"^Seccomp:\s*(\d)", status, re.M)
    root = [line.split()[5] for line in mountinfo.splitlines() if len(line.split()) > 5 and line.split()[4] == "/"]
    return Confined(
        flag.group(1) == "1" if flag else None,
        seccomp.group(1) == "2" if seccomp else None,
        "ro" in root[-1].split(",") if root else None,
    )


def confinement_reasons(declared: t.Mapping[str, str], process: Confined) -> list[str]:
    """What the unit says and the process was not started with: a reason for a restart, seen from the process itself."""
    reasons = []
    if declared.get("NoNewPrivileges") == "yes" and process.no_new_privileges is False:
        reasons.append("NoNewPrivileges: the unit says yes, the process has no")
    if declared.get("SystemCallFilter") and process.filtered is False:
        reasons.append("SystemCallFilter: the unit has one, the process has none")
    if declared.get("ProtectSystem") == "strict" and process.root_read_only is False:
        reasons.append("ProtectSystem: the unit says strict, the process may write anywhere")
    return reasons


def _below(path: str, tops: t.Iterable[str]) -> bool:
    return any(path == top or path.startswith(top.rstrip("/") + "/") for top in tops)


def require_reachable(
    properties: t.Mapping[str, str], packaged_paths: str, writes: t.Mapping[str, str], unit: str
) -> None:
    """The server must be able to write where its file tells it to. Raises Refusal.

    ``packaged_paths`` is the unit's own ReadWritePaths; ``writes`` maps what for to an absolute directory, ``unixsocket`` included.
    """
    open_paths = [
        posixpath.normpath(word.lstrip("-+"))
        for text in (packaged_paths, properties.get("ReadWritePaths", ""))
        for word in text.split()
    ]
    protect = properties.get("ProtectSystem", "")
    for name, directory in writes.items():
        path = posixpath.normpath(directory)
        cause = ""
        if properties.get("ProtectHome") == "yes" and _below(path, _HOMES):
            cause = "ProtectHome=yes hides it from the server"
        elif properties.get("PrivateTmp") == "yes" and _below(path, _TEMPORARY):
            cause = (
                "PrivateTmp=yes gives the server a /tmp of its own, which goes when it stops and which nobody else sees"
            )
        elif _below(path, _READ_ONLY.get(protect, ())) and not _below(path, open_paths):
            cause = f"ProtectSystem={protect} leaves it read-only, and ReadWritePaths does not name it"
        if cause:
            raise Refusal(
                "confined_away",
                f"{name} is in {path}; confined as declared, {unit} could not use it: {cause}",
                "every directory that the server writes within its reach",
                f"add {path} to ReadWritePaths (redis_service_read_write_paths), move {name}, or take the property out of confinement",
            )


def exposure(output: str) -> t.Optional[float]:
    """The overall exposure level that ``systemd-analyze security UNIT`` ends with: 0 is confined, 10 is not."""
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", output)
    return float(match.group(1)) if match else None
