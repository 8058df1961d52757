# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux labels of directories and ports that are not the policy's own."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = ["PORT_TYPE", "Directory", "Step", "parse_ports", "pattern_of", "plan_directory", "plan_port", "type_of"]

PORT_TYPE = "redis_port_t"
#: Types that cover whole ranges for want of a better one: a port in them is nobody's.
_NOBODYS = re.compile(r"(unreserved|ephemeral|hi_reserved|reserved)_port_t")


@dataclasses.dataclass(frozen=True)
class Step:
    """One change and the command for it."""

    change: Change
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Directory:
    """A directory: the type it shall have, the policy's for it, and the one it carries (None: it is not there)."""

    path: str
    wanted: str
    policy: str
    label: t.Optional[str]


def type_of(context: str) -> str:
    """The type in a context, ``system_u:object_r:redis_var_lib_t:s0``."""
    parts = context.strip().strip("\0").split(":")
    return parts[2] if len(parts) > 2 else context.strip()


def parse_ports(listing: str) -> dict[int, str]:
    """Port → type, from ``semanage port -l``; TCP, single ports only."""
    found: dict[int, str] = {}
    for line in listing.splitlines():
        match = re.match(r"(\w+_t)\s+tcp\s+(.+)$", line)
        for port in match.group(2).split(",") if match and not _NOBODYS.fullmatch(match.group(1)) else ():
            if port.strip().isdigit():
                found.setdefault(int(port), match.group(1))
    return found


def pattern_of(path: str) -> str:
    """The regular expression that semanage takes for a directory and all below it. Raises Problem."""
    if not path.startswith("/") or path.rstrip("/") == "" or any(char in path for char in "\r\n\0"):
        raise Problem(
            "invalid_value",
            f"{path!r} is no directory that could be labelled",
            "an absolute path below /",
            "correct it",
        )
    return re.sub(r"([.^$*+?()\[\]{}|\\])", r"\\\1", path.rstrip("/")) + "(/.*)?"


def plan_directory(found: Directory) -> list[Step]:
    """Policy first, then the labels on disk."""
    steps = []
    if found.policy != found.wanted:
        change = Change(
            "policy", found.path, found.policy, found.wanted, f"semanage fcontext {found.wanted} {found.path}"
        )
        steps.append(Step(change, ("semanage", "fcontext", "-a", "-t", found.wanted, pattern_of(found.path))))
    if found.label is not None and found.label != found.wanted:
        change = Change("label", found.path, found.label, found.wanted, f"restorecon -R {found.path}")
        steps.append(Step(change, ("restorecon", "-R", found.path)))
    return steps


def plan_port(port: int, ports: t.Mapping[int, str]) -> list[Step]:
    """Nothing where the port is Redis' own. Raises Problem where it is another service's."""
    there = ports.get(port)
    if there == PORT_TYPE:
        return []
    if there is not None:
        raise Problem(
            "port_of_another", f"SELinux knows TCP port {port} as {there}: confined as its policy has it, Redis may not bind it",
            "a port that is nobody else's",
            f"use another port; or, if {there} is not used here: semanage port -m -t {PORT_TYPE} -p tcp {port}",
        )  # fmt: skip
    change = Change("policy", f"tcp {port}", None, PORT_TYPE, f"semanage port {PORT_TYPE} tcp {port}")
    return [Step(change, ("semanage", "port", "-a", "-t", PORT_TYPE, "-p", "tcp", str(port)))]
