# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server's part in a replication group, as it says itself."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = ["Replica", "View", "contains", "endpoint", "split_endpoint", "view_of"]

_NO_ID = "0" * 40


@dataclasses.dataclass(frozen=True)
class Replica:
    """A replica as its primary lists it; ``lag`` is seconds since it last acknowledged."""

    address: str
    online: bool
    offset: int
    lag: int


@dataclasses.dataclass(frozen=True)
class View:
    """One server. ``role`` is ``primary``, ``replica`` or ``unreachable`` (then ``because`` says why).

    ``upstream`` is the primary that a replica was reported, ``link_up`` whether it hears it. Offsets are bytes of the replication stream;
    up to ``second_offset`` the history named ``second_id`` is part of this server's own.
    """

    address: str
    role: str
    because: str = ""
    upstream: str = ""
    link_up: bool = False
    id: str = ""
    offset: int = 0
    second_id: str = ""
    second_offset: int = -1
    keys: int = 0
    replicas: tuple[Replica, ...] = ()
    version: str = ""
    uptime: int = 0
    cluster: bool = False

    @property
    def empty(self) -> bool:
        return not self.keys


def endpoint(host: str, port: t.Union[int, str]) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_endpoint(text: str, port: int = 6379) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address. Raises ValueError."""
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", text)
    if bracketed:
        return bracketed.group(1), int(bracketed.group(2) or port)
    if text.count(":") == 1:
        host, _colon, number = text.partition(":")
        return host, int(number)
    return text, port


def view_of(info: Info, address: str) -> View:
    """The answer of INFO as a View."""
    replica = info.text("role") == "slave"
    replicas = []
    for name, value in info.fields.items():
        if re.fullmatch(r"slave\d+", name):
            fields = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            if fields.get("port", "0") == "0":
                continue  # takes the stream and serves nobody: redis-cli --rdb, say
            replicas.append(
                Replica(
                    endpoint(fields.get("ip", ""), fields["port"]), fields.get("state") == "online",
                    int(fields.get("offset", 0)), int(fields.get("lag", -1)),
                )
            )  # fmt: skip
    return View(
        address,
        "replica" if replica else "primary",
        upstream=endpoint(info.text("master_host"), info.text("master_port")) if replica else "",
        link_up=info.text("master_link_status") == "up",
        id=info.text("master_replid"),
        offset=info.number("slave_repl_offset" if replica else "master_repl_offset"),
        second_id=info.text("master_replid2").replace(_NO_ID, ""),
        second_offset=info.number("second_repl_offset", -1),
        keys=info.keys or info.number("loading"),  # what is being loaded is not yet counted
        replicas=tuple(replicas),
        version=info.text("redis_version"),
        uptime=info.number("uptime_in_seconds"),
        cluster=info.flag("cluster_enabled"),
    )


def contains(primary: View, other: View) -> bool:
    """Whether every write of ``other`` is known to be in ``primary``: their histories are one up to where ``other`` stopped.

    A replica, also one of a replica, has its primary's history; of two primaries none has.

    ``second_repl_offset`` is the first byte that is NOT shared (replication.c: it is set to offset + 1 when the history forks).
    """
    if other.role == "replica" and primary.role == "primary" and other.id and other.id == primary.id:
        return other.offset <= primary.offset
    return bool(primary.second_id) and other.id == primary.second_id and other.offset < primary.second_offset
