# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads all that a repair is decided on: the files, the log, backups here and elsewhere, the other hosts of the group, the AOF's archive.

Nothing is changed. What could not be asked becomes a note, and no reason to stop.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import labelled
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, Store, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import LogEvent, scan
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_reader import journal, log_file, zone_of
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_loss import after_corruption
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import require_rdb_is_known
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import (
    USABLE,
    Dialect,
    FileVerdict,
    check_aof,
    check_place,
    check_rdb_file,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan as scan_files
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import rollback_copies
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import (
    archive_dirs,
    open_regular,
    set_of,
    sets,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, Increment
from ansible_collections.redisops.recovery.plugins.module_utils.repair.aof_splice import (
    RepairedAof,
    ctime_of,
    from_names,
    from_rdb,
    repair_aof,
)
from ansible_collections.redisops.recovery.plugins.module_utils.repair.plan import Copy, Facts, Loss, Peer, Way
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    ASK_SECONDS,
    GroupHosts,
    login_at,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import Target, read_target
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import rename_lines
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import find_unit
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["Sources", "find_target", "read", "read_files", "require_aof_dir", "state_of"]

#: Of backups by method aof so many, the newest, are looked at for what the live AOF lacks.
_MOST_SETS = 8
#: Seconds in which the tail of a file that is being written becomes whole.
_WRITING = 3.0
#: How often the files of a running server are looked at while it puts others in their place.
_FILE_LOOKS = 5
#: How far back the log is read for the reason of a start that failed.
_LOG_SECONDS = 30 * 86400


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where else the data may be. ``backup`` is a label or ``latest_verified``; ``elsewhere`` are backups on other hosts of the group (label, at, host)."""

    store: Store
    backup: str = "latest_verified"
    repositories: tuple[Repository, ...] = ()
    elsewhere: tuple[t.Mapping[str, t.Any], ...] = ()
    group_hosts: tuple[str, ...] = ()
    address: str = ""
    archive: tuple[str, ...] = ()


#: How often a server that comes and goes is looked for, with a second in between.
_LOOKS = 15


def find_target(config_file: str, login: Login, host: Host, unit: str, timeout: float, may_stop: bool) -> Target:
    """As read_target, also of a unit that systemd starts again and again: its server is there for moments, and answers while it loads.

    ``may_stop``: once it has ended while it loaded, the unit is stopped. Raises Problem.
    """
    for left in range(_LOOKS, -1, -1):
        try:
            return read_target(config_file, login, host, unit, timeout)
        except Problem as problem:
            # One that ends while somebody connects resets the connection: not_redis.
            if problem.code not in ("server_down", "server_elsewhere", "not_redis") or not left:
                raise
            if problem.code == "server_down" and may_stop:
                systemctl(host, "stop", f"{find_unit(host) if unit == 'auto' else unit}.service", timeout=timeout)
        time.sleep(1.0)
    raise AssertionError("not reached")


def _identity(path: str) -> t.Optional[tuple[int, int]]:
    """Which file stands there; a rewrite or a save puts another one in its place."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def dialect_of(target: Target) -> Dialect:
    """What the server's configuration makes of the commands in its AOF."""
    directives = target.instance.directives
    return Dialect(rename_lines(directives), any(entry.name == "loadmodule" for entry in directives))


def require_aof_dir(place: Place) -> None:
    """A link to nowhere is a disk that is not mounted, and no lost AOF. Raises Refusal."""
    if os.path.islink(place.aof_dir) and not os.path.isdir(place.aof_dir):
        raise Refusal(
            "aof_dir_is_away",
            f"{place.aof_dir} is a link to {os.path.realpath(place.aof_dir)}, where no directory is: as of a disk that is not mounted",
            "the directory that it leads to, with the AOF in it",
            "mount that file system, then run again. If that AOF is gone for good: remove the link, and run again",
        )


def _require_node(target: Target) -> None:
    """A node of a cluster that has keys is known by its file. Raises Refusal."""
    instance, place = target.instance, target.place
    if instance.running or instance.value("cluster-enabled") != "yes":
        return
    path = os.path.join(place.dir, instance.value("cluster-config-file") or "nodes.conf")
    if not os.path.isfile(path) or os.path.getsize(path) or not scan_files(place).any:
        return
    raise Refusal(
        "nodes_conf_empty",
        f"{path} is empty, and {place.dir} holds data: a start would take a new node id, and claim the slots of its keys for that",
        "the file as the node wrote it last",
        "put it back from a backup (each has it), or from the node's id and the nodes.conf of another node; then run again. "
        "If the node is to begin anew: move its data aside",
    )


def _data_path(target: Target) -> str:
    """The file from which a start goes on: the manifest, the one file of before 7.0 where there is no manifest, or the RDB file."""
    place = target.place
    if not target.aof:
        return place.rdb
    old = not os.path.lexists(place.manifest) and os.path.isfile(place.old_style_aof)
    return place.old_style_aof if old else place.manifest


def read_files(target: Target, timeout: float) -> list[FileVerdict]:
    """A verdict on each file that a start reads. Raises Problem."""
    if target.aof:
        require_aof_dir(target.place)
    path = _data_path(target)
    for _look in range(_FILE_LOOKS):
        before = _identity(path)
        found = check_place(target.host, path, timeout, dialect_of(target))
        # A rewrite or a save that ended meanwhile took files away that were being looked at.
        if not target.instance.running or all(one.verdict in USABLE for one in found) or _identity(path) == before:
            break
    if not target.instance.running:
        return found
    return [
        check_aof(target.host, one.path, timeout, dialect_of(target))
        if one.kind == "aof" and one.verdict == "truncated_tail" and _goes_on(one)
        else one
        for one in found
    ]


def state_of(row: t.Mapping[str, t.Any]) -> tuple[t.Any, ...]:
    """What two looks at the same file have in common; the words of a tool may differ (it says its process id)."""
    return tuple(row[name] for name in ("path", "kind", "verdict", "size", "offset", "keys", "timestamp"))


def _goes_on(one: FileVerdict) -> bool:
    """Whether the running server was only about to write the rest of a command when the file was read."""

    def whole() -> bool:
        with open(one.path, "rb") as handle:
            handle.seek(one.offset or 0)
            return scan_aof(handle).commands > 0

    return wait_for(whole, _WRITING)


def _log_events(target: Target, now: float) -> tuple[list[LogEvent], str]:
    """Events of the server's log, and why they are not known."""
    logfile, zone, since = target.instance.value("logfile") or "", zone_of(target.host), now - _LOG_SECONDS
    path = os.path.join(target.place.dir, logfile)
    on_disk = logfile not in ("", "/dev/stdout", "/dev/null")
    found = log_file(path, since, zone) if on_disk else journal(target.host, target.unit, since)
    return scan(found.lines, since, zone), found.because


def _same_save(target: Target, backup: Backup) -> bool:
    """Whether the backup has the file of the very save that made the server's RDB file."""
    if target.aof or not backup.manifest or not os.path.exists(target.place.rdb):
        return False
    theirs = os.path.join(backup.directory, backup.manifest.data)
    made = ctime_of(target.place.rdb)
    same = made is not None and made == ctime_of(theirs)
    return same and os.path.getsize(target.place.rdb) == os.path.getsize(theirs)


def _here(target: Target, sources: Sources) -> list[Copy]:
    """Verified backups on this host, newest first, up to the first whose files are whole."""
    found: list[Copy] = []
    for backup in reversed(sources.store.all()):
        if not (backup.verified and backup.manifest) or sources.backup not in ("latest_verified", backup.label):
            continue
        manifest = backup.manifest
        differences = verify_files(backup.directory, manifest)
        problem = f"damaged: {differences[0]}" if differences else ""
        found.append(
            Copy(
                backup.label,
                backup.at,
                keys=manifest.total_keys,
                same=not problem and _same_save(target, backup),
                state=(manifest.replid, manifest.offset),
                problem=problem,
            )
        )
        if not problem:
            break
    return found


def _copies(target: Target, sources: Sources) -> tuple[list[Copy], list[str]]:
    found, notes = _here(target, sources), []
    for repository in sources.repositories:
        try:
            rows = [row for row in labelled(sources.store, repository, target.host) if row[2]]
        except Problem as problem:
            notes.append(f"{repository.name} could not be asked: {problem.detected}")
            continue
        fit = [row for row in rows if sources.backup in ("latest_verified", row[1])]
        found += [Copy(label, float(one.at), repository.name, "repository") for one, label, _verified in fit[-1:]]
    found += [
        Copy(str(row["label"]), float(row["at"]), str(row["host"]), "member")
        for row in sources.elsewhere
        if row.get("label") and sources.backup in ("latest_verified", row["label"])
    ]
    return found, notes


def _peer(info: Info, address: str, now: float) -> Peer:
    if info.flag("loading"):
        return Peer(address, because="it is loading its data")
    replica = info.text("role") == "slave"
    down = replica and info.text("master_link_status") != "up"
    loaded = info.number("rdb_last_load_keys_loaded", -1)
    return Peer(
        address,
        "replica" if replica else "primary",
        info.keys,
        now - max(info.number("master_link_down_since_seconds"), 0) if down else None,
        None if loaded < 0 else loaded,
        (info.text("master_replid"), info.number("slave_repl_offset" if replica else "master_repl_offset")),
    )


def _peers(target: Target, sources: Sources, now: float) -> list[Peer]:
    if not sources.group_hosts:
        return []
    found = []
    for member in GroupHosts(sources.group_hosts, sources.address).peers:
        try:
            server = connect(login_at(target.login, member), ASK_SECONDS)
            try:
                info = server.info()
                slots = slots_of(server, info)
                if slots != target.slots:
                    found.append(
                        Peer(
                            member,
                            because=f"it has the slots {' '.join(slots) or 'of no cluster'}, and this server others",
                        )
                    )
                else:
                    found.append(_peer(info, member, now))
            finally:
                server.close()
        except Problem as problem:
            found.append(Peer(member, because=problem.detected))
    return found


def _sound(host: Host, one: AofSet, timeout: float) -> AofSet:
    """The set, without its base where that is damaged."""
    bad = one.base_bytes is not None and check_aof(host, one.base, timeout).verdict not in USABLE
    return dataclasses.replace(one, base_bytes=None) if bad else one


def _kept(target: Target, sources: Sources, timeout: float) -> tuple[list[AofSet], list[str]]:
    """What was kept of the AOF elsewhere and is whole."""
    found, notes = [], []
    for folder in dict.fromkeys([*sources.archive, archive_dirs(target.place)]):
        if folder not in sources.archive and not os.path.isdir(folder):
            continue
        try:
            found += [_sound(target.host, one, timeout) for one in sets(folder)]
        except Problem as problem:
            notes.append(problem.detected)
    backups = [one for one in sources.store.all() if one.manifest and one.manifest.data.endswith(".manifest")]
    for backup in backups[-_MOST_SETS:]:
        assert backup.manifest
        if verify_files(backup.directory, backup.manifest):
            notes.append(f"{backup.label} is damaged")
            continue
        data = os.path.dirname(os.path.join(backup.directory, backup.manifest.data))
        found.append(set_of(data, int(backup.manifest.taken_at)))
    return found, notes


def _written(target: Target, live: t.Optional[AofSet]) -> t.Optional[float]:
    """The second of the last write that the files held: by the AOF's timestamps, else by when a file was last written to."""
    stamps = [float(one.last_ts) for one in live.increments if one.last_ts is not None] if live else []
    if stamps and live:
        return max(
            [*stamps, *(_after_corruption(one) for one in live.increments if one.ends not in ("clean", "missing"))]
        )
    paths = [target.place.rdb]
    if target.aof:
        folder = target.place.aof_dir
        names = os.listdir(folder) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in names if name.endswith((".aof", ".rdb"))]
        paths.append(target.place.old_style_aof)
    return max((os.path.getmtime(path) for path in paths if os.path.exists(path)), default=None)


def _begun(place: Place) -> float:
    """When other data last took the place of what was there (a restore, a repair, a conversion); seconds since 1970, 0 where nothing tells."""
    old = [one.staged(place) for one in rollback_copies(place) if one.swapped]
    old += glob.glob(glob.escape(place.aof_dir) + ".older-*")
    return max((os.lstat(path).st_ctime for path in old if os.path.lexists(path)), default=0.0)  # a rename sets it


def _after_corruption(one: Increment) -> float:
    """As _written, for what is after the corruption offset of an increment: that was written as well."""
    with open_regular(one.path) as handle:
        stamp = after_corruption(handle, one.bytes).timestamp
    # A tail that was cut off, without a timestamp, is of the second before it.
    return float(stamp or 0) if stamp or one.ends == "truncated" else os.path.getmtime(one.path)


def _loss(one: RepairedAof) -> Loss:
    """What a repaired AOF lacks. Redis writes a timestamp when the second has changed: commands without a newer one are of the same."""
    if one.unsure:
        return Loss()
    seconds: t.Optional[float] = None
    if one.commands == 0:
        seconds = 0
    elif one.commands is not None and one.at is not None:
        seconds = max(one.until - one.at, 0) if one.until is not None else 0
    return Loss(one.bytes, one.commands, seconds)


def _cut_way(one: RepairedAof, live: AofSet, because: str, wrote: t.Optional[float]) -> Way:
    """``estimate``: the share of what is lost in all that was written since the base was made."""
    spent = (wrote or live.base_at) - live.base_at
    total = sum(piece.size for piece in one.pieces[1:]) + (one.bytes or 0)
    share = 1.0 if one.unsure or one.bytes is None or not total else min(one.bytes / total, 1.0)
    return Way(True, because, _loss(one), max(spent, 0.0) * share)


def _where(one: RepairedAof) -> str:
    return (
        f"{one.pieces[-1].entry.name} is whole up to offset {one.cut_at}"
        if one.cut_at is not None
        else "what comes after it is missing or does not belong to it"
    )


def _stays_in(one: RepairedAof, rows: t.Sequence[FileVerdict]) -> t.Optional[FileVerdict]:
    """What no cut takes away: a command that Redis does not know, in what is kept. redis-check-aof does not look commands up."""
    kept = {piece.path: piece.size for piece in one.pieces}
    if one.cut_at is not None:
        kept[one.pieces[-1].path] = one.cut_at
    unknown = [row for row in rows if row.verdict in ("unknown_command", "corrupt_inside") and row.offset is not None]
    return next((row for row in unknown if t.cast(int, row.offset) < kept.get(row.path, 0)), None)


def _repaired_ways(
    target: Target, live: AofSet, rows: t.Sequence[FileVerdict], kept: t.Sequence[AofSet], notes: t.Sequence[str], wrote: t.Optional[float],
) -> tuple[dict[str, Way], dict[str, RepairedAof]]:  # fmt: skip
    verdicts = {one.path: one.verdict for one in rows}
    good = verdicts.get(live.base, "missing") in USABLE
    alone, helped = repair_aof(live, kept, good, target.place.appendfilename, _begun(target.place))
    ways, repaired = {}, {}
    stated = f" ({'; '.join(notes)})" if notes else ""
    stays = helped and _stays_in(helped, rows)
    if helped and not stays:
        words = f"{', '.join(helped.taken)}" + ("" if helped.bytes == 0 else f"; {_where(helped)}") + stated
        ways["archive"], repaired["archive"] = _cut_way(helped, live, words, wrote), helped
    else:
        ways["archive"] = Way(
            False, f"of {len(kept)} copies of the AOF that were kept none has what is damaged{stated}"
        )
    stays = alone and _stays_in(alone, rows)
    if stays:
        why = f"{stays.path} has a command that Redis does not know before the cut: {stays.detail} (offset {stays.offset})"
        ways["truncation"] = Way(False, why)
    elif alone and alone.bytes != 0:
        tail = all(one.verdict in (*USABLE, "truncated_tail") for one in rows)
        by_itself = tail and target.instance.value("aof-load-truncated") == "yes"
        words = _where(alone) + ("; Redis itself cuts it when it starts (aof-load-truncated yes)" if by_itself else "")
        ways["truncation"], repaired["truncation"] = _cut_way(alone, live, words, wrote), alone
    else:
        why = (
            "our own reader finds nothing to cut" if alone else "the base is damaged, and there is no repair for an RDB"
        )
        ways["truncation"] = Way(False, why)
    return ways, repaired


def _ways(
    target: Target, sources: Sources, rows: t.Sequence[FileVerdict], timeout: float
) -> tuple[dict[str, Way], dict[str, RepairedAof], t.Optional[float]]:
    """What the files next to the damaged ones give, and up to when they were written."""
    place, name = target.place, target.place.appendfilename
    manifest_bad = any(one.path == place.manifest and one.verdict not in USABLE for one in rows)
    one_file = any(one.path == place.old_style_aof for one in rows)
    live = None if manifest_bad or one_file else set_of(place.aof_dir)
    wrote = _written(target, live)
    ways: dict[str, Way] = {"manifest": Way(False, "the manifest is good")}
    repaired: dict[str, RepairedAof] = {}
    unlisted = any(one.verdict == "unlisted" for one in rows)
    if live:
        kept, notes = _kept(target, sources, timeout)
        more, repaired = _repaired_ways(target, live, rows, kept, notes, wrote)
        ways.update(more)
    elif one_file:
        why = f"{place.old_style_aof} is the one file of before 7.0: cut a copy of it with redis-check-aof --fix"
        ways = {name: Way(False, why) for name in ("manifest", "archive", "truncation")}
    if unlisted or not (live or one_file):
        named, why = from_names(place.aof_dir, name)
        if named and check_aof(target.host, named.pieces[0].path, timeout).verdict not in USABLE:
            named, why = None, "the base is damaged as well"
        words = f"its {len(named.pieces)} files are whole, and only the manifest is not" if named else why
        ways["manifest"] = Way(named is not None, words)
        repaired.update({"manifest": named} if named else {})
    if not (live or one_file):
        ways["archive"] = ways["truncation"] = Way(
            False, "without a manifest it is not known which files belong together"
        )
    snapshot, ways["snapshot"] = _snapshot(target, wrote, timeout)
    repaired.update({"snapshot": snapshot} if snapshot else {})
    return ways, repaired, wrote


def _snapshot(target: Target, wrote: t.Optional[float], timeout: float) -> tuple[t.Optional[RepairedAof], Way]:
    """The RDB file next to the AOF, which a save point left."""
    path = target.place.rdb
    if not os.path.exists(path):
        return None, Way(False, f"there is no {path}")
    verdict, made = check_rdb_file(target.host, path, timeout), ctime_of(path)
    if verdict.verdict not in USABLE or not verdict.keys:
        what = f"is {verdict.verdict}" if verdict.verdict not in USABLE else "holds no key"
        return None, Way(False, f"{path} {what}")
    seconds = None if wrote is None or made is None else max(round(wrote - made, 1), 0.0)
    because = f"{path} is good and holds {verdict.keys} keys"
    return from_rdb(path, target.place.appendfilename), Way(True, because, Loss(None, None, seconds), keys=verdict.keys)


def _doubt(target: Target, rows: t.Sequence[FileVerdict]) -> str:
    """Why the memory of a running server may not be what its files should hold; empty where nothing speaks against it."""
    instance, place = target.instance, target.place
    if not target.aof:
        try:
            require_rdb_is_known(target.host, instance.info, scan_files(place))
        except Refusal as refusal:
            return refusal.detected
        return ""
    unlisted = [one.path for one in rows if one.verdict == "unlisted"]
    if unlisted:
        return f"the manifest does not name {', '.join(unlisted)}: a server that started on it has not what that holds"
    try:
        live = set_of(place.aof_dir)
    except Problem:
        return ""
    last = live.increments[-1] if live.increments else None
    if last and last.ends != "missing" and not target.host.holds_open(instance.pid, last.path):
        return f"the running server does not write to {last.path}: these files are not its own, and may be all that is left of the data"
    return ""


def _traces(target: Target) -> bool:
    """Whether files of an AOF lie in its directory, named or not."""
    folder, stem = target.place.aof_dir, target.place.appendfilename + "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return os.path.isfile(target.place.old_style_aof) or any(
        name.startswith(stem) and name.endswith((".aof", ".rdb")) for name in names
    )


def _most(values: t.Iterable[t.Optional[int]]) -> t.Optional[int]:
    return max((one for one in values if one is not None), default=None)


def read(target: Target, sources: Sources, timeout: float) -> tuple[Facts, dict[str, RepairedAof]]:
    """All that is known, and what can be put together of the AOF by the name of its method. Raises Problem.

    Where nothing is damaged, nothing else is asked.
    """
    now, running = time.time(), target.instance.running
    _require_node(target)
    rows = read_files(target, timeout)
    damaged = [one for one in rows if one.verdict not in USABLE]
    events, unread = ([], "") if running and not damaged else _log_events(target, now)
    notes = (unread,) if unread else ()
    facts = Facts([one.row() for one in rows], events, running, target.aof, target.keys or 0, notes=notes)
    if not damaged:
        return facts, {}
    copies, more = _copies(target, sources)
    known = [one.keys for one in copies if one.keys is not None and not one.problem][:1]
    had = _most((*known, *(one.keys for one in rows)))
    doubt = _doubt(target, rows) if running else ""
    peers = _peers(target, sources, now)
    ways, repaired, wrote = _ways(target, sources, rows, timeout) if target.aof else ({}, {}, _written(target, None))
    if not any(one.keys for one in rows):  # the AOF does not say how many: the RDB file next to it does
        had = _most((had, *(way.keys for way in ways.values())))
    whole = dataclasses.replace(
        facts, copies=copies, notes=(*notes, *more), doubt=doubt, had_keys=had, peers=peers, ways=ways, wrote_at=wrote, traces=_traces(target),
    )  # fmt: skip
    return whole, repaired
