# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill from first to last; the module and the timer on the host run the same.

As a program: ``drill_job.py SETTINGS.json``. It prints one line of JSON, and ends with 0 if nothing of the objectives was missed, or if
no backup lies here.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import group_names
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.drill.exercise import (
    Exercise,
    candidates,
    drill,
    write_report,
)
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.entrypoint import ended
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Drill", "main", "require_valid", "run"]


@dataclasses.dataclass(frozen=True)
class Drill:
    """``backup`` in place of picker; ``repository`` in place of this host; ``window_days`` back from now; objectives in seconds, 0 for none."""

    directory: str
    group_name: str
    backup: str = ""
    window_days: int = 30
    rpo_seconds: int = 0
    rto_seconds: int = 0
    repository: t.Optional[Repository] = None
    assertions: tuple[t.Mapping[str, t.Any], ...] = ()
    timeout: int = 3600

    def render(self) -> str:
        """As text for the program; it holds the repository's password."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Drill:
        content = json.loads(text)
        place = content.pop("repository")
        if place:
            place = Repository(**{**place, "options": tuple(place["options"])})
        return cls(repository=place, assertions=tuple(content.pop("assertions")), **content)


def require_valid(wanted: Drill) -> None:
    """Whether that can be asked for. Raises Problem."""
    if wanted.window_days < 1 or wanted.rpo_seconds < 0 or wanted.rto_seconds < 0:
        raise Problem(
            "invalid_value",
            "window_days is less than 1, or an objective is negative",
            "days from 1, seconds from 0 on",
            "set them",
        )
    if any(not isinstance(one.get("key"), str) for one in wanted.assertions):
        raise Problem(
            "invalid_value",
            "an assertion has no key",
            "key, and database, type, min_count where wanted",
            "set assertions",
        )


def run(wanted: Drill, host: Host, check: bool = False, patience: float = 0.0) -> tuple[dict[str, t.Any], str]:
    """The report and where it was written; in check mode it only sees that there is something to restore. Raises Problem."""
    require_valid(wanted)
    picker = random.SystemRandom()
    # Of a cluster's node one of the shards that it has backups of; of a label, the one that has it.
    names = group_names(wanted.directory, wanted.group_name) or [wanted.group_name]
    holding = (
        [name for name in names if wanted.backup in Store(wanted.directory, name).labels()] if wanted.backup else []
    )
    store = Store(wanted.directory, picker.choice(holding or names))
    place = wanted.repository
    if not candidates(store, place, host):
        raise Problem(
            "no_backup",
            f"there is no backup of {wanted.group_name} {'in ' + place.name if place else 'in ' + store.directory}",
            "one",
            "take one",
            nothing_here=not place and not store.labels(),
        )
    if check:
        return {}, ""
    store.prepare()
    objectives = {"rpo_seconds": wanted.rpo_seconds, "rto_seconds": wanted.rto_seconds}
    with store.locked(patience):
        exercise = Exercise(wanted.backup, wanted.window_days * 86400.0, objectives, wanted.assertions, wanted.timeout)
        report = drill(store, place, host, exercise, picker)
        path = write_report(store, report)
    if report["missed"]:
        raise Problem(
            "drill_failed", f"the drill with {report['backup']} failed: {'; '.join(report['missed'][:5])}", "backups that can be restored in time",
            f"read {path}", report=report, report_file=path,
        )  # fmt: skip
    return report, path


def _held(wanted: Drill) -> tuple[dict[str, t.Any], int]:
    try:
        report, path = run(wanted, Host(), patience=wanted.timeout)  # a backup may be at work
    except Problem as problem:
        # Of a set every host has the timer, and backups lie where they were taken; that there are none at all is health's to say.
        if not problem.details.get("nothing_here"):
            raise
        return {"state": "nothing_here", "code": problem.code, "msg": problem.message()}, 0
    return {"state": "passed", "backup": report["backup"], "measured": report["measured"], "report_file": path}, 0


def main(arguments: t.Sequence[str]) -> int:
    """The program that the timer starts."""
    return ended(arguments, Drill.parse, _held)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
