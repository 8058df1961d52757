# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out one method of a repair with what restores and backups are made of."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import (
    Settings,
    ready,
    require_backup,
    take,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.identity import is_of_hosts
from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import fetch, named
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import settle_aof, verified_save
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import USABLE
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.keep import link_all
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.cut import Cut
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.recover import Point
from ansible_collections.redisops.recovery.plugins.module_utils.repair.aof_splice import RepairedAof
from ansible_collections.redisops.recovery.plugins.module_utils.repair.diagnose import Sources, read_files, state_of
from ansible_collections.redisops.recovery.plugins.module_utils.repair.plan import Method
from ansible_collections.redisops.recovery.plugins.module_utils.repair.stage import stage_repaired
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import login_at
from ansible_collections.redisops.recovery.plugins.module_utils.restore.apply import (
    Done,
    bring,
    bring_point,
    require_backup_fits,
    require_point_fits,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import Target, require_plain
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import discard_unfinished
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import connect, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["carry_out", "require_harmless", "words"]


def words(target: Target, method: Method) -> list[str]:
    """What is done, in order."""
    swap = f"stop {target.unit}, switch the two at once, start it and look at its keys, else put the data back"
    if method.method == "memory":
        return [
            "keep the damaged files",
            f"{'BGREWRITEAOF' if target.aof else 'BGSAVE'}, and verify the files that it makes",
        ]
    if method.method == "backup":
        first = [f"fetch {method.source} from {method.where} and verify it"] if method.where else []
        return [*first, f"copy {method.source} next to the data", "load the copy and compare it", swap]
    if method.method == "replica":
        first = f"take a backup of {method.source} over the network and verify it"
        return [first, "copy it next to the data", "load the copy and compare it", swap]
    return [method.do, swap]


def _place_for_help(method: Method) -> None:
    """What this host cannot do by itself. Raises Refusal."""
    if method.kind == "member":
        raise Refusal(
            "backup_elsewhere",
            f"{method.source}, which is to be restored, lies on {method.where}",
            "the backup on this host",
            "run the playbook redisops.recovery.repair, which brings it; or copy its directory here",
        )
    if method.kind == "there":
        raise Refusal(
            "replica_cannot_stream",
            f"{method.source} holds the data, and its link to its primary is down: Redis then gives no copy of its data (NOMASTERLINK)",
            "a backup that was taken on its host",
            "run the playbook redisops.recovery.repair, which takes one there and brings it; or promote that replica in this server's place",
        )


def _point(method: Method, repaired: RepairedAof, target: Target) -> Point:
    def make(where: str, place: Place, owner: tuple[int, int]) -> Cut:
        stage_repaired(repaired, where, place.appendfilename, target.host, owner)
        pieces = [piece.entry.name for piece in repaired.pieces]
        return Cut(where, pieces[0], tuple(pieces[1:]), repaired.bytes or 0, repaired.at, repaired.at)

    return Point(f"repair by {method.method}", {"method": method.method}, repaired.size, make, method.had)


def _so_that_it_starts(target: Target) -> Target:
    """A replica that does not start is brought data that loads; once it runs, its primary's takes the place of it."""
    if target.instance.running or not target.follower:
        return target
    return dataclasses.replace(target, follower="", may_follow=True)


def require_harmless(
    target: Target, method: Method, sources: Sources, repaired: t.Mapping[str, RepairedAof], test_load: bool
) -> None:
    """Everything that can be reported before anything is touched. Raises Problem or Refusal."""
    _place_for_help(method)
    target = _so_that_it_starts(target)
    if method.method != "memory":
        require_plain(target)
    if method.method in repaired:
        require_point_fits(target, _point(method, repaired[method.method], target))
    elif method.method == "replica":
        server = connect(login_at(target.login, method.source))
        try:
            ready(server, sources.store, _settings(sources, target), target.host)
        finally:
            server.close()
    elif method.method == "backup" and not method.where:
        _require_fits(target, sources.store.find(method.source), sources, test_load)


def _require_fits(target: Target, backup: Backup, sources: Sources, test_load: bool) -> None:
    """A backup of another host of the group is what was asked for, also where both are one host. Raises Problem or Refusal."""
    of_group = bool(backup.manifest) and is_of_hosts(backup.manifest, sources.group_hosts)
    require_backup_fits(target, backup, sources.store.group_name, test_load, of_group)


def _settings(sources: Sources, target: Target) -> Settings:
    store = sources.store
    return Settings(store.root, store.group_name, "stream", timeout=target.timeout)


def _keep(target: Target, now: float) -> str:
    """Links to the damaged files, which a rewrite or a save replaces: evidence, and no data that anything goes back to by itself."""
    place, folder = target.place, target.place.aof_dir if target.aof else target.place.dir
    try:
        names = os.listdir(folder) if target.aof and os.path.isdir(folder) else [] if target.aof else [place.dbfilename]
        paths = [os.path.join(folder, name) for name in names]
        return link_all(place, [path for path in paths if os.path.lexists(path)], now, "redisops-damaged-")
    except OSError as error:
        raise Problem(
            "restore_write",
            f"the damaged files could not be linked into a directory in {place.dir}: {error.strerror or error}; nothing else was touched",
            f"{folder} on the file system of {place.dir}, and room there",
            "see to that, then run again",
        ) from None


def _require_whole(target: Target) -> None:
    """What the server reads at its next start is good. Raises Problem."""
    bad = [one for one in read_files(target, target.timeout) if one.verdict not in USABLE]
    if bad:
        raise Problem(
            "repair_not_verified",
            f"after the repair {bad[0].path} is {bad[0].verdict}: {bad[0].detail}",
            "files that are good",
            "look at the disk and the memory of this host",
        )


def _from_memory(target: Target) -> Done:
    server = target.instance.server
    assert server is not None
    kept = _keep(target, time.time())
    if not target.aof:
        info = verified_save(server, target.host, target.timeout)
        _require_whole(target)
        return Done(kept, 0.0, info.keys)
    if not os.path.isdir(target.place.aof_dir):
        os.mkdir(target.place.aof_dir, 0o750)
        os.chown(target.place.aof_dir, *target.owner)
    before = server.info("persistence")
    if not wait_for(lambda: not server.info("persistence").flag("aof_rewrite_in_progress"), target.timeout):
        raise Problem(
            "rewrite_timeout",
            f"an AOF rewrite is still running after {target.timeout:g} seconds",
            "",
            "set a longer timeout",
        )
    server.command("BGREWRITEAOF")
    settle_aof(server, target.host, target.place, target.timeout, before.number("aof_rewrites_consecutive_failures"))
    _require_whole(target)
    return Done(kept, 0.0, server.info().keys)


def _fetched(target: Target, method: Method, sources: Sources) -> Backup:
    """The backup out of its repository; a copy of it here that is damaged is put aside. The caller holds the lock."""
    store = sources.store
    place = next(one for one in sources.repositories if one.name == method.where)
    if method.source in store.labels():
        there_now = store.read(method.source)
        if there_now.manifest and not verify_files(there_now.directory, there_now.manifest):
            return there_now
        aside = os.path.join(store.directory, f"damaged-{method.source}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(there_now.directory, aside)
        fsync_dir(store.directory)
    snapshot, _label = named(store, method.source, place, target.host)
    return fetch(store, snapshot, place, target.host, target.timeout)


def _streamed(target: Target, method: Method, sources: Sources) -> Backup:
    """A backup of another host of the group, verified. The caller holds the lock."""
    server = connect(login_at(target.login, method.source))
    settings = _settings(sources, target)
    try:
        backup = take(server, sources.store, settings, target.host, f"{method.source}: to repair this server")
    finally:
        server.close()
    backup = require_backup(sources.store, backup, settings, target.host)
    if not backup.verified:
        raise Problem(
            "backup_not_verified",
            f"{backup.label}, taken of {method.source}, failed its proof: {backup.proof.get('why')}; nothing live was touched",
            "a backup that loads to what that server had",
            "see the memory and disk of both hosts, then run again",
        )
    return backup


def _hold_still(target: Target, before: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """A unit that starts again and again is stopped, and its files have to be what they were: Redis itself cuts an AOF when it starts."""
    if target.instance.running:
        return
    systemctl(target.host, "stop", f"{target.unit}.service", timeout=target.timeout)
    if [state_of(one.row()) for one in read_files(target, target.timeout)] != [state_of(row) for row in before]:
        raise Problem(
            "files_moved",
            "the files are not what they were when they were looked at: the server was started meanwhile. It is stopped now",
            "files that stay as they are",
            "run again: it looks anew",
        )


def carry_out(
    target: Target, method: Method, sources: Sources, repaired: t.Mapping[str, RepairedAof], rows: t.Sequence[t.Mapping[str, t.Any]], test_load: bool
) -> Done:  # fmt: skip
    """Do it; what can be verified was verified. Raises Problem."""
    _hold_still(target, rows)
    target = _so_that_it_starts(target)
    discard_unfinished(target.place)
    if method.method == "memory":
        done = _from_memory(target)
    elif method.method in repaired:
        done = bring_point(target, _point(method, repaired[method.method], target))
    else:
        sources.store.prepare()
        with sources.store.locked():
            if method.method == "replica":
                backup = _streamed(target, method, sources)
            elif method.where:
                backup = _fetched(target, method, sources)
            else:
                backup = sources.store.find(method.source)
        _require_fits(target, backup, sources, test_load)
        if target.instance.running and not target.aof:  # the server saves when it stops, over the damaged file
            _keep(target, time.time())
        done = bring(target, backup, test_load)
    return done
