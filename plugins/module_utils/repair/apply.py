# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out one rung of a repair with what restores and backups are made of."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import Settings, prove_backup, ready, take
from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import fetch, named
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import proven_save, settle_aof
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import USABLE
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.cut import Cut
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.recover import Point
from ansible_collections.redisops.recovery.plugins.module_utils.repair.aof_splice import Mended
from ansible_collections.redisops.recovery.plugins.module_utils.repair.diagnose import Sources, read_files
from ansible_collections.redisops.recovery.plugins.module_utils.repair.plan import Rung
from ansible_collections.redisops.recovery.plugins.module_utils.repair.stage import stage_mended
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import there
from ansible_collections.redisops.recovery.plugins.module_utils.restore.apply import (
    Done,
    bring,
    bring_point,
    prove_backup_fits,
    prove_point_fits,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import Target
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import discard_unfinished
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import connect, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["carry_out", "prove", "words"]


def words(target: Target, rung: Rung) -> list[str]:
    """What is done, in order."""
    swap = f"stop {target.unit}, let the two change places, start it and look at its keys, else put the data back"
    if rung.rung == "memory":
        return [
            "keep the damaged files",
            f"{'BGREWRITEAOF' if target.aof else 'BGSAVE'}, and prove the files that it makes",
        ]
    if rung.rung == "backup":
        first = [f"fetch {rung.source} from {rung.where} and verify it"] if rung.where else []
        return [*first, f"copy {rung.source} beside the data", "load the copy and compare it", swap]
    if rung.rung == "replica":
        first = f"take a backup of {rung.source} over the network and prove it"
        return [first, "copy it beside the data", "load the copy and compare it", swap]
    return [rung.do, swap]


# --- before anything is touched --------------------------------------------------------------------------------------------


def _place_for_help(rung: Rung) -> None:
    """What this host cannot do by itself. Raises Refusal."""
    if rung.kind == "member":
        raise Refusal(
            "backup_elsewhere",
            f"{rung.source}, which is to be restored, lies on {rung.where}",
            "the backup on this host",
            "run the playbook redisops.recovery.repair, which brings it; or copy its directory here",
        )
    if rung.kind == "there":
        raise Refusal(
            "replica_cannot_stream",
            f"{rung.source} holds the data, and its link to its primary is down: Redis then gives no copy of its data (NOMASTERLINK)",
            "a backup that was taken on its host",
            "run the playbook redisops.recovery.repair, which takes one there and brings it; or promote that replica in this server's place",
        )


def _point(rung: Rung, mended: Mended, target: Target) -> Point:
    def make(where: str, place: Place, owner: tuple[int, int]) -> Cut:
        stage_mended(mended, where, place.appendfilename, target.host, owner)
        pieces = [piece.entry.name for piece in mended.pieces]
        return Cut(where, pieces[0], tuple(pieces[1:]), mended.bytes or 0, mended.at, mended.at)

    return Point(f"repair by {rung.rung}", {"rung": rung.rung}, mended.size, make)


def prove(target: Target, rung: Rung, sources: Sources, mended: t.Mapping[str, Mended], rehearse: bool) -> None:
    """Everything that can be told before anything is touched. Raises Problem or Refusal."""
    _place_for_help(rung)
    if rung.rung in mended:
        prove_point_fits(target, _point(rung, mended[rung.rung], target))
    elif rung.rung == "replica":
        server = connect(there(target.login, rung.source))
        try:
            ready(server, _settings(sources, target), target.host)
        finally:
            server.close()
    elif rung.rung == "backup" and not rung.where:
        prove_backup_fits(target, sources.store.find(rung.source), sources.store.set_name, rehearse)


# --- the acts --------------------------------------------------------------------------------------------------------------


def _settings(sources: Sources, target: Target) -> Settings:
    store = sources.store
    return Settings(store.root, store.set_name, "stream", timeout=target.timeout)


def _keep(target: Target, now: float) -> str:
    """Links to the damaged files, which a rewrite or a save replaces: evidence, and no data that anything goes back to by itself."""
    place = target.place
    stem = path = os.path.join(place.dir, "redisops-damaged-" + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)))
    number = 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}"
    folder = place.aof_dir if target.aof else place.dir
    try:
        os.mkdir(path, 0o700)
        names = os.listdir(folder) if target.aof and os.path.isdir(folder) else [] if target.aof else [place.dbfilename]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.link(os.path.join(folder, name), os.path.join(path, name), follow_symlinks=False)
        fsync_dir(path)
        fsync_dir(place.dir)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise Problem(
            "restore_write",
            f"the damaged files could not be linked to {path}: {error.strerror or error}; nothing else was touched",
            f"{folder} on the file system of {place.dir}, and room there",
            "see to that, then run again",
        ) from None
    return path


def _prove_whole(target: Target) -> None:
    """What the server reads at its next start is good. Raises Problem."""
    bad = [one for one in read_files(target, target.timeout) if one.verdict not in USABLE]
    if bad:
        raise Problem(
            "repair_not_proven",
            f"after the repair {bad[0].path} is {bad[0].verdict}: {bad[0].detail}",
            "files that are good",
            "look at the disk and the memory of this host",
        )


def _from_memory(target: Target) -> Done:
    server = target.instance.server
    assert server is not None
    kept = _keep(target, time.time())
    if not target.aof:
        info = proven_save(server, target.timeout)
        _prove_whole(target)
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
    _prove_whole(target)
    return Done(kept, 0.0, server.info().keys)


def _fetched(target: Target, rung: Rung, sources: Sources) -> Backup:
    """The backup out of its repository; a copy of it here that is damaged is put aside. The caller holds the lock."""
    store = sources.store
    place = next(one for one in sources.repositories if one.name == rung.where)
    if rung.source in store.labels():
        there_now = store.read(rung.source)
        if there_now.manifest and not verify_files(there_now.directory, there_now.manifest):
            return there_now
        aside = os.path.join(store.directory, f"damaged-{rung.source}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(there_now.directory, aside)
        fsync_dir(store.directory)
    snapshot, _label = named(store, rung.source, place, target.host)
    return fetch(store, snapshot, place, target.host, target.timeout)


def _streamed(target: Target, rung: Rung, sources: Sources) -> Backup:
    """A backup of another member, proven. The caller holds the lock."""
    server = connect(there(target.login, rung.source))
    settings = _settings(sources, target)
    try:
        backup = take(server, sources.store, settings, target.host, f"{rung.source}: to repair this server")
    finally:
        server.close()
    backup = prove_backup(sources.store, backup, settings, target.host)
    if not backup.proven:
        raise Problem(
            "backup_not_proven",
            f"{backup.label}, taken of {rung.source}, failed its proof: {backup.proof.get('why')}; nothing live was touched",
            "a backup that loads to what that server had",
            "see the memory and disk of both hosts, then run again",
        )
    return backup


def _hold_still(target: Target, before: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """A unit that starts again and again is stopped, and its files have to be what they were: Redis itself cuts an AOF when it starts."""
    if target.instance.running:
        return
    systemctl(target.host, "stop", f"{target.unit}.service", timeout=target.timeout)
    if [one.row() for one in read_files(target, target.timeout)] != list(before):
        raise Problem(
            "files_moved",
            "the files are not what they were when they were looked at: the server was started meanwhile. It is stopped now",
            "files that stay as they are",
            "run again: it looks anew",
        )


def carry_out(
    target: Target, rung: Rung, sources: Sources, mended: t.Mapping[str, Mended], rows: t.Sequence[t.Mapping[str, t.Any]], rehearse: bool
) -> Done:  # fmt: skip
    """Do it; what can be proven was proven. Raises Problem."""
    _hold_still(target, rows)
    discard_unfinished(target.place)
    if rung.rung == "memory":
        done = _from_memory(target)
    elif rung.rung in mended:
        done = bring_point(target, _point(rung, mended[rung.rung], target))
    else:
        sources.store.prepare()
        with sources.store.locked():
            if rung.rung == "replica":
                backup = _streamed(target, rung, sources)
            elif rung.where:
                backup = _fetched(target, rung, sources)
            else:
                backup = sources.store.find(rung.source)
        prove_backup_fits(target, backup, sources.store.set_name, rehearse)
        if target.instance.running and not target.aof:  # the server saves when it stops, over the damaged file
            _keep(target, time.time())
        done = bring(target, backup, rehearse)
    return done
