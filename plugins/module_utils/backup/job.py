# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup run does from first to last; the module and the timer on the host run the same.

As a program: ``backup_job.py SETTINGS.json``, with the settings as the module has its options. It prints one line of JSON, and ends with 0
if the backup is verified, was not due or is another host of the group's to take.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import (
    Settings,
    ready,
    require_backup,
    take,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import COPIED, FAILED, VERIFIED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.plan import choose_source, own_shard
from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import Elsewhere, let_go, send
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.retention import Policy
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of, store_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import row_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, Store
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change, render_actions
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts, login_at
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import View, view_of
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.entrypoint import ended
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Job", "Outcome", "main", "run"]


@dataclasses.dataclass(frozen=True)
class Job:
    """One set's backup on this host. ``group_hosts`` and ``address`` as in redis_backup; ``max_age`` in seconds."""

    settings: Settings
    login: Login
    group_hosts: tuple[str, ...] = ()
    address: str = ""
    max_behind: int = 10 * 1024**2
    max_lag: int = 10
    max_age: int = 0
    verify: bool = True
    retention: Policy = dataclasses.field(default_factory=Policy)
    repositories: tuple[Elsewhere, ...] = ()

    def store(self, slots: t.Sequence[str] = ()) -> Store:
        """Where its backups lie; of a node of a cluster, its shard's."""
        return store_of(self.settings.directory, self.settings.group_name, slots)

    def render(self) -> str:
        """As text for the program; it holds the password."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Job:
        content = json.loads(text)
        settings = content.pop("settings")
        settings["assertions"] = tuple(settings["assertions"])
        login = Login(**content.pop("login"))
        content["retention"] = Policy(**content["retention"])
        content["repositories"] = tuple(
            Elsewhere(
                Repository(**{**row["repository"], "options": tuple(row["repository"]["options"])}),
                Policy(**row["retention"]),
            )
            for row in content["repositories"]
        )
        return cls(Settings(**settings), login, tuple(content.pop("group_hosts")), **content)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """``backup`` is None where another host of the group takes it (``state`` is ``elsewhere``), or where nothing was carried out."""

    changes: tuple[Change, ...]
    backup: t.Optional[Backup]
    state: str
    source: str


def _source(job: Job) -> tuple[bool, str]:
    """Whether this host gives the backup, and who does and why."""
    if not job.group_hosts:
        return True, "it was asked for here"
    group_hosts = GroupHosts(job.group_hosts, job.address)
    views = []
    for member in group_hosts.all:
        try:
            server = connect(job.login if member == group_hosts.own else login_at(job.login, member), 5.0)
            views.append(group_hosts.spelled(view_of(server.info(), member)))
            server.close()
        except Problem as problem:
            views.append(View(member, "unreachable", because=problem.detected))
    chosen, why = choose_source(own_shard(views, group_hosts.own), job.max_behind, job.max_lag)
    return chosen == group_hosts.own, f"{chosen}: {why}"


def run(
    job: Job, host: Host, check: bool = False, clock: t.Callable[[], float] = time.time, patience: float = 0.0
) -> Outcome:
    """Take and verify a backup, if it is due and this host's to take; ``patience`` as Store.locked has it. Raises Problem or Refusal."""
    mine, source = _source(job)
    if not mine:
        return Outcome((), None, "elsewhere", source)
    server = connect(job.login, max(1.0, min(job.settings.timeout, 30.0)))
    store = job.store(slots_of(server, server.info("cluster")))
    young = [one for one in store.all() if one.verified and 0 <= clock() - one.at < job.max_age]
    if young:
        return Outcome((), young[-1], VERIFIED, source)
    method = ready(server, store, job.settings, host).method
    changes = _planned(job, store, method)
    if check:
        return Outcome(changes, None, COPIED, source)
    store.prepare()
    with store.locked(patience):
        backup = take(server, store, job.settings, host, source, clock)
        if job.verify:
            backup = require_backup(store, backup, job.settings, host, server.info().product)
    with store.locked(patience):
        try:
            backup = _sent(backup, store, job, host, clock())
        finally:
            let_go(store, job.retention, clock(), whole=backup.label if backup.verified else "")
    return Outcome(changes, backup, backup.state, source)


def _planned(job: Job, store: Store, method: str) -> tuple[Change, ...]:
    words = f"take a backup by {method}" + (", load it and compare" if job.verify else "")
    return (
        Change("backup", store.group_name, None, f"taken by {method}", words),
        *(
            Change(
                "repository",
                place.repository.name,
                None,
                "a copy",
                f"send it to {place.repository.name}, and expire there what its policy does not retain",
            )
            for place in job.repositories
        ),
    )


def _sent(backup: Backup, store: Store, job: Job, host: Host, now: float) -> Backup:
    """The backup with its copies in the repositories. Raises Problem: one that failed goes nowhere."""
    row = row_of(backup)
    if row["state"] == FAILED:
        raise Problem(
            "backup_not_verified",
            f"{backup.label} was taken and failed its proof: {row['why']}: {'; '.join(row['differences'][:5])}",
            "a backup that loads to what the server had",
            "it is left in place to be looked at; see the memory and disk of this host (dmesg), take another one",
        )
    return send(backup, store, job.repositories, host, job.settings.timeout, now)


def _taken(job: Job) -> tuple[dict[str, t.Any], int]:
    done = run(job, Host(), patience=job.settings.timeout)  # a drill may be at work
    line = {"state": done.state, "source": done.source, "actions": render_actions(done.changes)}
    line["backup"] = row_of(done.backup) if done.backup else None
    return line, 0 if done.state in (VERIFIED, "elsewhere") or not job.verify else 1


def main(arguments: t.Sequence[str]) -> int:
    """The program that the timer starts."""
    return ended(arguments, Job.parse, _taken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
