# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on disk, and whether it is known to the server that runs."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.check_tool_output import (
    Verdict,
    parse_check_rdb,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import (
    OpenTransaction,
    open_transaction,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import (
    PLACE,
    Situation,
    Wanted,
    start_loads,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rdb_header import (
    RdbHeader,
    RdbHeaderError,
    read_header,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.sharing_reader import require_unshared
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import loaded
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.unread import (
    Unread,
    clearly_less,
    is_of_its_history,
    is_own_save,
    require_not_less,
    was_loaded,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import PERSISTENCE
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import Release
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_directory
from ansible_collections.redisops.recovery.plugins.module_utils.system.mounts_reader import require_mounted
from ansible_collections.redisops.recovery.plugins.module_utils.system.own_directory import own_directory
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import passes_as

__all__ = [
    "aof_in_use",
    "aof_is_in_use",
    "base_is_sound",
    "check_rdb",
    "require_aof_is_the_data",
    "require_rdb_is_known",
    "require_writable",
    "respell_dir",
    "situation_of",
    "torn_transaction",
    "unread_rdb",
]


#: Seconds in which a rewrite that just began or ended has named its files.
_SETTLES = 3.0


def check_rdb(host: Host, path: str) -> Verdict:
    """What redis-check-rdb of the release that runs says of ``path``. Raises Problem where no such tool is installed."""
    done = host.run(host.tool("check-rdb"), path)
    if done.code != 127:
        return parse_check_rdb(done.code, done.output)
    raise Problem(
        "no_check_tool",
        "redis-check-rdb is not installed",
        "the tool that verifies an RDB file sound",
        "install redis-tools",
    )


def _header(path: str) -> t.Optional[RdbHeader]:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as handle:
            return read_header(handle)
    except (OSError, RdbHeaderError):
        return None


def unread_rdb(host: Host, info: Info, disk: DataFiles) -> t.Optional[Unread]:
    """The RDB file where it is not shown that the running server has written or loaded it; None where it is, or there is none."""
    if disk.rdb_bytes is None:
        return None
    header = _header(disk.place.rdb)
    if header and (is_own_save(info, header) or is_of_its_history(info, header)):
        return None
    verdict = check_rdb(host, disk.place.rdb)
    if was_loaded(info, disk, verdict.keys):
        return None
    counted = verdict.ok or verdict.keys > 0  # of a damaged file it counts up to the damage
    return Unread(disk.place.rdb, _live_keys(verdict) if counted else None)


def require_rdb_is_known(host: Host, info: Info, disk: DataFiles) -> None:
    """Before a save replaces it: an RDB file that this process never read may be all there is. Raises Refusal where it holds far more.

    That is what a server leaves that was restarted with ``appendonly yes`` next to no AOF, or next to an older one.
    """
    require_not_less(unread_rdb(host, info, disk), info, disk.place.aof_dir)


def _live_keys(verdict: Verdict) -> int:
    return max(verdict.keys - verdict.expired, 0)


def _aof_keys(disk: DataFiles, release: Release, timeout: float) -> int:
    """How many keys a start from the AOF would have: it is loaded once, next to it. Raises Problem."""
    with (
        own_directory(disk.place.dir, ".redisops-look-") as near,
        loaded(disk.place.manifest, near, timeout, release) as copy,
    ):
        return copy.info.keys


def require_aof_is_the_data(host: Host, disk: DataFiles, release: Release, timeout: float) -> None:
    """Where a start would read the AOF, the RDB file next to it may not hold far more. Raises Refusal, or Problem where that cannot be known.

    The times do not tell: an orderly stop saves an RDB file after the last write to the AOF, and an AOF that was turned off ages.
    """
    if disk.rdb_bytes is None or disk.manifest is None or disk.missing:
        return
    lies = _live_keys(check_rdb(host, disk.place.rdb))
    base = disk.manifest.base
    path = os.path.join(disk.place.aof_dir, base.name) if base else ""
    have = _live_keys(check_rdb(host, path)) if path.endswith(".rdb") else 0
    if not clearly_less(have, lies):
        return
    have = _aof_keys(disk, release, timeout)
    if clearly_less(have, lies):
        raise Refusal(
            "rdb_has_more",
            f"the start would load the AOF in {disk.place.aof_dir}, which holds {have} keys, and {disk.place.rdb} holds {lies}",
            "to know which of the two is the data",
            f"if it is the RDB file: move {disk.place.aof_dir} aside, then run again, which makes a new AOF of it; if it is the AOF: move "
            f"{disk.place.rdb} aside",
        )


def aof_in_use(host: Host, pid: int, disk: DataFiles) -> bool:
    """Whether the AOF on disk is complete and is the one that the server appends to.

    A manifest alone verifies nothing: an older one lies there until the first rewrite after CONFIG SET appendonly yes ends.
    """
    manifest = disk.manifest
    if not (manifest and manifest.base and manifest.increments) or disk.missing:
        return False
    return host.holds_open(pid, os.path.join(disk.place.aof_dir, manifest.increments[-1].name))


def torn_transaction(info: Info, disk: DataFiles) -> t.Optional[OpenTransaction]:
    """The transaction without its end that a crash left in the AOF that the server writes to.

    Redis cuts off what is torn of a transaction's end when it starts, leaves its beginning, and writes on behind it. An increment that this
    process began has none.
    """
    if not info.flag("aof_enabled") or info.number("aof_rewrites") or not (disk.manifest and disk.manifest.increments):
        return None
    path = os.path.join(disk.place.aof_dir, disk.manifest.increments[-1].name)
    with contextlib.suppress(FileNotFoundError):  # a rewrite just began or ended
        return open_transaction(path)
    return None


def aof_is_in_use(host: Host, pid: int, place: Place, patience: float = _SETTLES) -> bool:
    """As aof_in_use(), looked at anew for ``patience`` seconds: a rewrite that begins or ends in between puts other files in their place."""
    return wait_for(lambda: aof_in_use(host, pid, scan(place)), patience)


def base_is_sound(host: Host, disk: DataFiles) -> bool:
    base = disk.manifest and disk.manifest.base
    path = os.path.join(disk.place.aof_dir, base.name) if base else ""
    # A rewrite that ended meanwhile takes the base away: only one that is still there can count as bad.
    return not path.endswith(".rdb") or check_rdb(host, path).ok or not os.path.exists(path)


def _is_empty_rdb(disk: DataFiles) -> bool:
    """Whether all that lies there is the RDB file of a server that held nothing."""
    if disk.rdb_bytes is None or disk.manifest or disk.orphans or disk.old_style_aof:
        return False
    header = _header(disk.place.rdb)
    return header is not None and header.empty


def require_writable(instance: Instance, place: Place) -> None:
    """The server's user may write where it is about to save, as the kernel sees it. Raises Refusal."""
    user = instance.host.user_of_process(instance.pid) if instance.running else None
    if user is None:
        return
    for path in (place.dir, place.aof_dir):
        if os.path.isdir(path) and not all(passes_as(user, flag, path) for flag in ("-w", "-x")):
            raise Refusal(
                "dir_not_writable",
                f"the server runs as user id {user.uid}, who may not write to {path}",
                "a directory that the server can save in",
                f"chown {path} to the user that the server runs as, then run again",
            )


def respell_dir(wanted: Wanted, instance: Instance) -> None:
    """A declared directory that is the present one under another spelling (a slash at the end, a link) is no other place."""
    here, declared = instance.value("dir"), wanted.values.get("dir")
    if here and declared and os.path.isabs(here) and os.path.realpath(declared) == os.path.realpath(here):
        wanted.values["dir"] = wanted.spelled["dir"] = here


def situation_of(instance: Instance, wanted: Wanted, fresh_install: bool) -> Situation:
    """Read everything the plan needs. Raises Problem."""
    host = instance.host
    in_file = {name: instance.in_file(name) or "" for name in PERSISTENCE}
    current = instance.live if instance.running else in_file
    place = Place(*(current[name] for name in PLACE))
    disk = scan(place)
    info = instance.info
    nothing = not disk.any or _is_empty_rdb(disk)
    leaves_data = bool(info.keys or not nothing)
    if not instance.running and nothing:
        # Nothing at the old place: what an operator has moved to the declared one is what the next start has to find.
        disk = scan(Place(*(wanted.values.get(name, current[name]) for name in PLACE)))
    there = Place(*(wanted.values.get(name, current[name]) for name in PLACE))
    declared = None
    require_mounted(host, [there.dir, there.aof_dir])
    for one in {place, there}:
        require_unshared(host, one, instance.pid, instance.path)
    if instance.running and there != place:
        lock_directory(there.dir)
        declared = scan(there)
    sound = None
    if not instance.running and wanted.aof and disk.rdb_bytes is not None and start_loads(in_file, disk) != "aof":
        verdict = check_rdb(host, disk.place.rdb)
        sound = None if verdict.ok else verdict.reason
    return Situation(
        path=instance.path,
        directives=instance.directives,
        in_file=in_file,
        disk=disk,
        running=instance.running,
        live=instance.live,
        keys=info.keys,
        used_memory=info.number("used_memory"),
        rewriting=info.flag("aof_rewrite_in_progress") or info.flag("aof_rewrite_scheduled"),
        aof_in_use=instance.running
        and instance.live["appendonly"] == "yes"
        and aof_is_in_use(host, instance.pid, place),
        rdb_reason=sound,
        declared=declared,
        fresh_install=fresh_install,
        leaves_data=leaves_data,
        dir_is_missing="dir" in wanted.values and not os.path.isdir(wanted.values["dir"]),
    )
