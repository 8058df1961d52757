#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_backup_schedule
short_description: Let a host take and verify its backups by itself, by a systemd timer
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Puts the program of M(redisops.recovery.redis_backup) on the managed host (below C(/usr/local/lib/redisops)), its settings in
    C(/etc/redisops/backup-SET.json) (root only, since the password is in it), and the units C(redisops-backup-SET.service) and C(.timer).
  - The AOF's archive (O(archive_hours)) and drills (O(drill_on_calendar)) have units and settings of their own,
    C(redisops-archive-SET) and C(redisops-drill-SET).
  - A run that fails leaves the service in state C(failed), with the reason as one line of JSON in the journal.
  - In a group, give every host the same schedule and O(group_hosts); one of them takes the backup each time.
extends_documentation_fragment:
  - redisops.recovery.backup
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  state:
    description: Whether the timer is there. V(absent) takes timer, settings and service away; backups stay, and so does the program.
    type: str
    choices: [present, absent]
    default: present
  on_calendar:
    description: When, as systemd's C(OnCalendar=).
    type: str
    default: "*-*-* 02:30:00"
  randomized_delay:
    description: Seconds at most by which each run is put off, so that a fleet does not save at once.
    type: int
    default: 1800
  weight:
    description: Share of CPU and disk next to others, as systemd's C(CPUWeight=) and C(IOWeight=); 100 is the usual one.
    type: int
    default: 20
  archive_hours:
    description:
      - For how many hours the AOF's archive is kept, to go back in it (O(redisops.recovery.redis_restore#module:to_time)); V(0) for none.
      - Whenever Redis begins a new file, and every five minutes, what is there is hard-linked into C(redisops-aof-archive) in the data directory
        (open to root only). That costs nothing until a rewrite; from then on it costs what the rewrite would have freed.
    type: int
    default: 0
  archive_min_free_percent:
    description: Percent of the file system that have to stay free. With less, the oldest archive goes, whatever O(archive_hours) says.
    type: int
    default: 25
  drill_on_calendar:
    description: When a backup is restored for practice, as M(redisops.recovery.redis_drill) does, as systemd's C(OnCalendar=); empty for never.
    type: str
    default: ""
  drill_repository:
    description: Name of the one of O(repositories) that drills fetch from; by default they take what lies on the host.
    type: str
  window_days:
    description: Days back out of which a drill draws, and over which RPO is measured.
    type: int
    default: 30
  rpo_seconds:
    description: The drill's objective for what a disaster may cost, in seconds of writes; 0 for none.
    type: int
    default: 0
  rto_seconds:
    description: The drill's objective for the time until the data can be had again, in seconds; 0 for none.
    type: int
    default: 0
seealso:
  - module: redisops.recovery.redis_backup
  - module: redisops.recovery.redis_drill
"""

EXAMPLES = r"""
- name: Take a verified backup every six hours, from a replica where there is one
  redisops.recovery.redis_backup_schedule:
    group_name: orders
    group_hosts: "{{ groups['orders'] }}"
    on_calendar: "*-*-* 00/6:00:00"

- name: Keep two days of AOF archive as well, and hold a drill every Sunday
  redisops.recovery.redis_backup_schedule:
    group_name: orders
    archive_hours: 48
    drill_on_calendar: "Sun *-*-* 05:00:00"
    rpo_seconds: 93600
    rto_seconds: 600
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
changes:
  description:
    - What differs from what was declared, one row each; what RV(actions) removes.
    - RV(ignore:since) is when the file that differs was last written, in check mode; null where it is no file.
  returned: success
  type: list
  elements: dict
  contains:
    layer:
      description: Where it stands, such as V(file), V(live) or V(boot).
      type: str
    name:
      description: What it is.
      type: str
    found:
      description: What is; null where it is absent.
      type: str
    declared:
      description: What was declared; null where it shall be absent.
      type: str
    since:
      description: Seconds since 1970.
      type: float
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: invalid_value
next_run:
  description: When systemd starts the timer's service next, in its own words; empty where it does not, or not yet.
  returned: success
  type: str
  sample: Thu 2026-11-26 02:41:13 UTC
unit:
  description: Name of the timer.
  returned: success
  type: str
"""

import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup import job as backup_job  # noqa: F401, they have to be at hand to be put on the host
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.drill import job as drill_job  # noqa: F401, they have to be at hand to be put on the host
from ansible_collections.redisops.recovery.plugins.module_utils.drill.job import Drill, require_valid
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import (
    backup_spec,
    connection_spec,
    job_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.pitr import archive_job  # noqa: F401, they have to be at hand to be put on the host
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive_job import Archive, place_in
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.apply import Schedule, require_calendar
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.program import HOME, command
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.units import Piece, path_unit, service, timer
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import parse_show

SPEC = {
    **connection_spec(),
    **backup_spec(),
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "on_calendar": {"type": "str", "default": "*-*-* 02:30:00"},
    "randomized_delay": {"type": "int", "default": 1800},
    "weight": {"type": "int", "default": 20},
    "archive_hours": {"type": "int", "default": 0},
    "archive_min_free_percent": {"type": "int", "default": 25},
    "drill_on_calendar": {"type": "str", "default": ""},
    "drill_repository": {"type": "str"},
    "window_days": {"type": "int", "default": 30},
    "rpo_seconds": {"type": "int", "default": 0},
    "rto_seconds": {"type": "int", "default": 0},
}
PROGRAM = HOME
SETTINGS = "/etc/redisops"
SYSTEM_UNITS = "/etc/systemd/system"


def pieces_of(params: dict) -> list[Piece]:
    """What the host shall do by itself. Raises Problem."""
    job, name, here = job_of(params), params["group_name"], params["state"] == "present"
    places = {one.repository.name: one.repository for one in job.repositories}
    if params["drill_repository"] and params["drill_repository"] not in places:
        raise Problem(
            "invalid_value",
            f"drill_repository: {params['drill_repository']!r} is none of {', '.join(places) or 'no repositories'}",
            "the name of one of repositories",
            "set drill_repository or repositories",
        )
    practice = Drill(
        params["directory"], name, "", params["window_days"], params["rpo_seconds"], params["rto_seconds"],
        places.get(params["drill_repository"] or ""), tuple(params["assertions"]), params["timeout"],
    )  # fmt: skip
    require_valid(practice)
    archive = Archive(params["config_file"], params["archive_hours"] * 3600, params["archive_min_free_percent"])
    watched = (
        place_in(params["config_file"])[0].aof_dir
        if here and os.path.exists(params["config_file"])
        else "/var/lib/redis/appendonlydir"
    )

    def piece(kind: str, program: str, settings: str, what: str, starters: dict[str, str], wanted: bool) -> Piece:
        path = os.path.join(SETTINGS, f"{kind}-{name}.json")
        units = {
            "service": service(what, command(sys.executable, program, path), params["weight"], PROGRAM),
            **starters,
        }
        return Piece(
            program,
            path,
            settings,
            {f"redisops-{kind}-{name}.{suffix}": text for suffix, text in units.items()},
            wanted,
        )

    take, keep, drill = f"Take and verify a backup of the replication group {name}", f"Keep the AOF's archive of the replication group {name}", (
        f"Restore a backup of the replication group {name} for practice"
    )  # fmt: skip
    delay = params["randomized_delay"]
    return [
        piece("backup", "backup.job", job.render(), take, {"timer": timer(take, params["on_calendar"], delay)}, here),
        piece(
            "archive", "pitr.archive_job", archive.render(), keep,
            {"timer": timer(keep, "*:0/5", 0), "path": path_unit(keep, watched)}, here and params["archive_hours"] > 0,
        ),
        piece(
            "drill", "drill.job", practice.render(), drill,
            {"timer": timer(drill, params["drill_on_calendar"], delay)}, here and bool(params["drill_on_calendar"]),
        ),
    ]  # fmt: skip


def require_declaration(params: dict, host: Host) -> None:
    if params["randomized_delay"] < 0 or not 1 <= params["weight"] <= 10000:
        raise Problem(
            "invalid_value",
            "randomized_delay is negative, or weight is none",
            "seconds from 0 on, a weight from 1 to 10000",
            "set them",
        )
    if params["archive_hours"] < 0 or not 0 <= params["archive_min_free_percent"] < 100:
        raise Problem(
            "invalid_value",
            "archive_hours is negative, or archive_min_free_percent is no share",
            "hours from 0 on, percent from 0 to 99",
            "set them",
        )
    for option in ("on_calendar", "drill_on_calendar"):
        if params[option] or option == "on_calendar":
            require_calendar(host, option, params[option])


def next_run(host: Host, timer: str) -> str:
    """When systemd starts it next, in its own words; empty where it does not."""
    return parse_show(systemctl(host, "show", "-p", "NextElapseUSecRealtime", timer)).get("NextElapseUSecRealtime", "")


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    job_of(params).store()  # a name that is none is reported here
    if params["state"] == "present":
        require_declaration(params, host)
    pieces = pieces_of(params)
    schedule = Schedule(host, PROGRAM, SYSTEM_UNITS, pieces)
    changes = schedule.changes()
    if changes and not module.check_mode:
        schedule.carry_out(changes)
    return result_of(changes, unit=pieces[0].starters[0], next_run=next_run(host, pieces[0].starters[0]))


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
