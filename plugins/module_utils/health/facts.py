# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read of a server and its host before it is judged."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import LogEvent
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import Watched
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.load import DiskUse
from ansible_collections.redisops.recovery.plugins.module_utils.system.smart import Drive, Sensor

__all__ = [
    "Backups",
    "Facts",
    "FileAccess",
    "HostFacts",
    "Leftover",
    "LogFacts",
    "Objectives",
    "OnDisk",
    "SentinelFacts",
]


@dataclasses.dataclass(frozen=True)
class Objectives:
    """What a server is held to, in seconds; 0 for no objective. ``replica_lag`` is what a replica may be without an answer for."""

    crash_loss: int = 0
    rpo: int = 0
    rto: int = 0
    drill_age: int = 0
    replica_lag: int = 10
    disk_full: int = 86400
    fork_headroom_percent: int = 25
    no_persistence: bool = False


@dataclasses.dataclass(frozen=True)
class FileAccess:
    """A file or directory of the data: owner, group, permission bits; ``open`` to others as its directory lets them come to it."""

    path: str
    uid: int
    gid: int
    mode: int
    directory: bool = False


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """None: could not be read; ``because`` says why, by the name of the field. Sizes in bytes, shares in percent."""

    overcommit: t.Optional[str] = None
    thp: t.Optional[str] = None
    thp_supported: bool = True
    somaxconn: t.Optional[int] = None
    open_files: t.Optional[int] = None
    memory_left: t.Optional[int] = None
    resident: t.Optional[int] = None
    swapped: t.Optional[int] = None
    cpu: t.Optional[t.Mapping[str, float]] = None
    io_pressure: t.Optional[float] = None
    disk: t.Optional[DiskUse] = None
    drives: t.Optional[tuple[Drive, ...]] = None
    sensors: t.Optional[tuple[Sensor, ...]] = None
    because: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LogFacts:
    """``sources`` are what was read, each with its extent, in words; ``because`` is empty where anything was. ``last`` is the last line."""

    events: tuple[LogEvent, ...] = ()
    sources: tuple[str, ...] = ()
    because: str = ""
    kernel_events: tuple[LogEvent, ...] = ()
    kernel_because: str = ""
    last: str = ""


@dataclasses.dataclass(frozen=True)
class SentinelFacts:
    """One Sentinel; ``because`` says why it was not heard. ``quorum`` is CKQUORUM's answer for each primary that it watches."""

    address: str
    because: str = ""
    tilt: t.Optional[bool] = None
    watched: tuple[Watched, ...] = ()
    quorum: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Backups:
    """The set's backups on this host, oldest first, as backup_status.row_of has them, and its drills, as their reports have them.

    ``expected``: somebody declared that there are backups here. ``elsewhere``: another host of the group may have taken them.
    ``repositories``: names that the schedule sends them to; None where there is no schedule.
    """

    group_name: str
    directory: str
    rows: tuple[t.Mapping[str, t.Any], ...] = ()
    drills: tuple[t.Mapping[str, t.Any], ...] = ()
    expected: bool = False
    elsewhere: bool = False
    because: str = ""
    repositories: t.Optional[tuple[str, ...]] = None


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A temporary file of a child that is gone: ``size`` in bytes, last written to ``age`` seconds ago."""

    path: str
    size: int
    age: float


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """What lies in the data directory. ``torn``: words on a transaction without its end, ``unread`` why that is not known. ``unlisted``: files that
    the manifest should name. ``empty_nodes``: the path of a cluster's file that has no byte; empty where it has, or there is none.
    ``kept``: directories with what was never loaded.
    """

    torn: str = ""
    unread: str = ""
    unlisted: tuple[str, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    empty_nodes: str = ""
    kept: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything. ``trouble`` is a code of health_codes where the server did not answer, ``because`` the words; ``refused``: it answers, but
    not this user.

    ``info`` and ``later`` are two looks, ``apart`` seconds apart. ``live`` is CONFIG GET, ``in_file`` the normal forms of the configuration
    file; None where they may not be read. ``twice``: lines of the file on which no start goes well. ``never_loaded`` are the words of a refusal,
    ``shared`` who else has the same data files, ``not_mounted`` which file system is missing, or lies over the process' directory.
    ``missing`` says why a part is not known.
    """

    now: float
    address: str
    trouble: str = ""
    because: str = ""
    refused: bool = False
    info: Info = dataclasses.field(default_factory=lambda: Info({}, {}))
    later: Info = dataclasses.field(default_factory=lambda: Info({}, {}))
    apart: float = 0.0
    live: t.Optional[t.Mapping[str, str]] = None
    in_file: t.Optional[t.Mapping[str, str]] = None
    config_file: str = ""
    local: bool = True
    user: t.Optional[tuple[int, frozenset[int]]] = None
    disk: t.Optional[DataFiles] = None
    base_bytes: t.Optional[int] = None
    base_mtime: t.Optional[float] = None
    free_inodes: t.Optional[int] = None
    access: tuple[FileAccess, ...] = ()
    never_loaded: str = ""
    shared: str = ""
    not_mounted: str = ""
    twice: tuple[str, ...] = ()
    on_disk: t.Optional[OnDisk] = None
    cluster: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    host: HostFacts = dataclasses.field(default_factory=HostFacts)
    log: LogFacts = dataclasses.field(default_factory=LogFacts)
    sentinel: t.Optional[SentinelFacts] = None
    backups: t.Optional[Backups] = None
    missing: t.Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def answers(self) -> bool:
        return not self.trouble

    @property
    def role(self) -> str:
        """``primary`` or ``replica``; empty where it is not known."""
        return {"master": "primary", "slave": "replica"}.get(self.info.text("role"), "")

    def setting(self, name: str) -> t.Optional[str]:
        """What is in force: the live value, the file's where the server does not answer; None where it is not known."""
        if self.answers:
            if self.live is not None:
                return self.live.get(name)
            if name == "appendonly" and "aof_enabled" in self.info.fields:
                return "yes" if self.info.flag("aof_enabled") else "no"
            return None
        return self.in_file.get(name) if self.in_file is not None else None
