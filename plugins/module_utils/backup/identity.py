# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which server a backup is of, so that two servers of one host do not mix in one store."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupManifest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = ["identity_of", "is_of_hosts", "other_server", "require_own_backup", "require_same_server"]

#: What a server keeps while one of them is changed; two that are equal make it the same server.
_MARKS = ("address", "dir", "config_file")


def identity_of(info: Info, live: t.Mapping[str, str], host: str) -> dict[str, str]:
    """What tells a server from others: its port (or socket), ``dir``, configuration file, run id and lineage, and the host it runs on.

    ``info`` and ``live`` of a stopped server are what is known of it: an empty one tells nothing, and is no other server.
    """
    port, socket = live.get("port", "0"), live.get("unixsocket", "")
    if port == "0":
        port = live.get("tls-port", "0")
    found = {
        "address": port if port != "0" else socket,
        "dir": live.get("dir", ""),
        "config_file": info.text("config_file"),
        "run_id": info.text("run_id"),
        "replid": info.text("master_replid"),
        "replid2": info.text("master_replid2"),
        "host": host,
    }
    return {name: value for name, value in found.items() if value and set(value) != {"0"}}


def other_server(theirs: t.Mapping[str, str], ours: t.Mapping[str, str]) -> str:
    """How ``theirs`` is another server of the same host, in words; empty where it is the same, a copy of the same data, or not known."""
    if not theirs or theirs.get("host") != ours.get("host"):
        return ""
    if theirs.get("run_id") and theirs.get("run_id") == ours.get("run_id"):
        return ""
    lineage = {theirs.get("replid"), theirs.get("replid2")} & {ours.get("replid"), ours.get("replid2")} - {None}
    known = [mark for mark in _MARKS if theirs.get(mark) and ours.get(mark)]
    equal = [mark for mark in known if theirs[mark] == ours[mark]]
    if lineage or len(equal) >= 2 or len(equal) == len(known):
        return ""
    return ", ".join(f"{mark} {theirs[mark]} (here {ours[mark]})" for mark in known if mark not in equal)


def is_of_hosts(manifest: BackupManifest, hosts: t.Sequence[str]) -> bool:
    """Whether a backup is of one of ``hosts`` (HOST:PORT), which the operator has named as those of one group."""
    address = manifest.server.get("address", "")
    return bool(address) and any((host.rsplit(":", 1)[1] if ":" in host else "6379") == address for host in hosts)


def require_same_server(last: t.Optional[BackupManifest], ours: t.Mapping[str, str], group_name: str) -> None:
    """The store's last backup is of this server, as far as that is known. Raises Refusal."""
    words = other_server(last.server, ours) if last else ""
    if last and words:
        raise Refusal(
            "other_server",
            f"the backups of {group_name} are those of another server of this host: {last.label} is of {words}",
            "a group_name or a directory of its own for each server",
            "set group_name (redis_group_name) to a name that no other server of this host has",
        )


def require_own_backup(manifest: BackupManifest, ours: t.Mapping[str, str]) -> None:
    """A backup that shall be restored is of this server, of another host's, or of the same data, as far as that is known. Raises Refusal."""
    words = other_server(manifest.server, ours)
    if words:
        raise Refusal(
            "other_server",
            f"{manifest.label} is a backup of another server of this host: {words}",
            "a backup of this server",
            "name another backup, or set allow_other_server: true if this server shall have the other one's data",
        )
