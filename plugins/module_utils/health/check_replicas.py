# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings on the other copies: replicas, Sentinel, cluster, backups, drills."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import CODES, status_of
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Backups, Facts, Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import Finding, ago, found, unknown
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import View, view_of
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import Known, usable_of

__all__ = ["last_verified", "set_findings"]

_BACKUP_CODES = {1: "backup_none", 2: "backup_unverified", 3: "backup_old", 4: "backup_failed"}

Findings = t.Iterator[Finding]


def _replica(facts: Facts, view: View, objectives: Objectives) -> Findings:
    info = facts.info
    if not view.link_up:
        down = info.number("master_link_down_since_seconds", -1)
        if info.flag("master_sync_in_progress"):
            yield found(
                "replica_link",
                "warning",
                f"a whole copy of {view.upstream} is being received; until it is here, this replica is old",
            )
        else:
            since = f" for {ago(down)}" if down >= 0 else ""
            yield found("replica_link", "critical", f"the link to the primary {view.upstream} is down{since}")
        return
    yield found("replica_link", "ok", f"the link to the primary {view.upstream} is up")
    silent = info.number("master_last_io_seconds_ago", -1)
    if silent < 0:
        yield unknown("replica_lag", "INFO of this server has no master_last_io_seconds_ago")
    else:
        late = silent > objectives.replica_lag
        yield found("replica_lag", "warning" if late else "ok", f"the primary was heard {silent} s ago")


def _primary(facts: Facts, view: View, objectives: Objectives) -> Findings:
    late = [
        f"{one.address} {'acknowledged ' + str(one.lag) + ' s ago' if one.online else 'is not in sync'}"
        for one in view.replicas
        if not one.online or one.lag > objectives.replica_lag
    ]
    if late:
        yield found("replica_lag", "warning", ", ".join(late))
    elif view.replicas:
        behind = max(view.offset - one.offset for one in view.replicas)
        yield found(
            "replica_lag", "ok", f"{len(view.replicas)} replicas in sync, {max(behind, 0)} bytes behind at most"
        )
    wanted = facts.setting("min-replicas-to-write") or "0"
    good = facts.info.number("min_slaves_good_slaves", -1)
    if wanted.isdigit() and int(wanted) and good >= 0:
        bad = good < int(wanted)
        yield found(
            "too_few_replicas", "critical" if bad else "ok", f"{good} good replicas, min-replicas-to-write is {wanted}"
        )


def _replication(facts: Facts, objectives: Objectives) -> Findings:
    if not facts.role:
        yield unknown("replica_link", "INFO of this server has no role")
        return
    view = view_of(facts.info, facts.address)
    yield from (_replica if facts.role == "replica" else _primary)(facts, view, objectives)


def _sentinel(facts: Facts) -> Findings:
    sentinel = facts.sentinel
    if sentinel is None:
        return
    if sentinel.because:
        yield found(
            "sentinel_down", "warning", f"the Sentinel at {sentinel.address} cannot be asked: {sentinel.because}"
        )
        return
    yield found("sentinel_down", "ok", f"the Sentinel at {sentinel.address} answers")
    if sentinel.tilt is None:
        yield unknown("sentinel_tilt", "INFO of the Sentinel has no sentinel_tilt")
    else:
        yield found(
            "sentinel_tilt",
            "warning" if sentinel.tilt else "ok",
            "it is in TILT" if sentinel.tilt else "it is not in TILT",
        )
    for watched in sentinel.watched:
        answer = sentinel.quorum.get(watched.name, "")
        content, usable = usable_of(answer)
        if not content:
            yield found("sentinel_quorum", "critical", f"{watched.name}: {answer or 'CKQUORUM gave no answer'}")
        else:
            yield found(
                "sentinel_quorum",
                "ok",
                f"{watched.name}: {usable} usable Sentinels, quorum {watched.options.get('quorum', '?')}",
            )
        if watched.down:
            yield found(
                "sentinel_sees_down", "critical", f"{watched.name} at {watched.address} is {', '.join(watched.flags)}"
            )
        gone = [one for one in (*watched.replicas, *watched.sentinels) if not one.up]
        if gone:
            words = ", ".join(f"{one.kind} {one.address} for {ago(one.down_for)}" for one in gone)
            yield found("sentinel_sees_down", "warning", f"{watched.name}: down are {words}")
        if not watched.down and not gone:
            yield found(
                "sentinel_sees_down",
                "ok",
                f"{watched.name}: the primary {watched.address}, its replicas and all Sentinels are up",
            )
        yield from _agreement(facts, watched.name, watched.address, watched.replicas)


def _agreement(facts: Facts, name: str, address: str, replicas: t.Sequence[Known]) -> Findings:
    """Whether this server is what the Sentinel takes it for. Addresses have many spellings, so only what is certain is reported."""
    if not facts.answers or not facts.role:
        return
    view = view_of(facts.info, facts.address)
    named_here = address == facts.address
    own_id = facts.info.text("run_id")
    known_as_replica = bool(own_id) and own_id in {one.run_id for one in replicas}
    if facts.role == "primary" and known_as_replica:
        yield found(
            "sentinel_disagrees",
            "critical",
            f"{name}: the Sentinel takes {address} for the primary and this server for a replica, and this server takes writes as a primary",
        )
    elif facts.role == "replica" and named_here:
        yield found(
            "sentinel_disagrees",
            "critical",
            f"{name}: the Sentinel takes this server for the primary, and it is a replica of {view.upstream}",
        )
    elif facts.role == "primary" and view.replicas and address in {one.address for one in view.replicas}:
        yield found(
            "sentinel_disagrees",
            "critical",
            f"{name}: the Sentinel takes {address} for the primary, and it is a replica of this server",
        )
    else:
        yield found("sentinel_disagrees", "ok", f"{name}: the Sentinel's primary is {address}")


def _cluster(facts: Facts) -> Findings:
    if not facts.info.flag("cluster_enabled"):
        return
    if "cluster" in facts.missing:
        yield unknown("cluster_state", facts.missing["cluster"])
        return
    state = facts.cluster.get("cluster_state")
    counts = {name: facts.cluster.get(f"cluster_slots_{name}", "0") for name in ("assigned", "pfail", "fail")}
    seen = f"cluster_state is {state}, {counts['assigned']} slots assigned, {counts['pfail']} possibly and {counts['fail']} surely failed"
    bad = state != "ok" or counts["fail"] != "0"
    yield found("cluster_state", "critical" if bad else "warning" if counts["pfail"] != "0" else "ok", seen)


def last_verified(backups: Backups) -> t.Optional[t.Mapping[str, t.Any]]:
    """The newest backup that was loaded and compared."""
    return next((row for row in reversed(backups.rows) if row["state"] == "verified"), None)


def _backups(facts: Facts, objectives: Objectives) -> Findings:
    backups = facts.backups
    if backups is None:
        return
    if backups.because:
        yield unknown("backup_none", backups.because, "run with become: true")
        return
    code = status_of(backups.rows, objectives.rpo, facts.now)
    verified = last_verified(backups)
    where = f"group {backups.group_name} in {backups.directory}"
    latest = (
        f"the last verified backup, {verified['label']}, is {ago(facts.now - verified['at'])} old"
        if verified
        else "there is no verified backup"
    )
    if code == 0:
        yield found("backup_old", "ok", f"{where}: {latest}")
    elif code == 1 and (not backups.expected or backups.elsewhere):
        reported = "; another host of the group may have them" if backups.elsewhere else ""
        yield found("backup_none", "info", f"{where}: no backup on this host{reported}")
    elif code == 3 and backups.elsewhere:  # the set's, and who takes them changes with who is the primary
        yield found("backup_old", "info", f"{where}: {latest}; another host of the group may have newer ones")
    else:
        yield found(_BACKUP_CODES[code], "warning", f"{where}: {CODES[code]}; {latest}")
    if not backups.rows and not backups.drills and not objectives.drill_age:
        return
    yield from _drills(facts, backups, objectives)


def _drills(facts: Facts, backups: Backups, objectives: Objectives) -> Findings:
    """Drills lie where the backups are."""
    if not backups.drills:
        yield found(
            "drill_none",
            "warning" if objectives.drill_age and (backups.rows or not backups.elsewhere) else "info",
            f"group {backups.group_name}: no drill was run on this host",
        )
        return
    last = backups.drills[-1]
    age = facts.now - last["time"]
    when = f"the last drill was {ago(age)} ago"
    if not last["ok"]:
        yield found("drill_failed", "warning", f"{when}, and failed: {'; '.join(last['missed'][:3])}")
    elif objectives.drill_age and age > objectives.drill_age:
        yield found(
            "drill_old",
            "info" if backups.elsewhere else "warning",
            f"{when}; the objective is {ago(objectives.drill_age)}",
        )
    else:
        yield found("drill_old", "ok", f"{when}, and passed")


def _events(facts: Facts) -> Findings:
    value = facts.setting("notify-keyspace-events")
    if value:
        yield found("keyspace_events", "info", f"notify-keyspace-events is {value}")


def set_findings(facts: Facts, objectives: Objectives) -> Findings:
    """Of what stands next to the server; of a server that is down, Sentinel and backups are reported all the more."""
    if facts.answers:
        yield from _replication(facts, objectives)
        yield from _cluster(facts)
        yield from _events(facts)
    yield from _sentinel(facts)
    yield from _backups(facts, objectives)
