#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_backup_schedule
short_description: Let a host take and prove its backups by itself, by a systemd timer
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Puts the program of M(redisops.recovery.redis_backup) on the managed host (below C(/usr/local/lib/redisops)), its settings in
    C(/etc/redisops/backup-SET.json) (root only, since the password is in it), and the units C(redisops-backup-SET.service) and C(.timer).
  - A run that fails leaves the service in state C(failed), with the reason as one line of JSON in the journal.
  - On a set, give every host the same schedule and O(members); one of them takes the backup each time.
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
    description: Share of CPU and disk beside others, as systemd's C(CPUWeight=) and C(IOWeight=); 100 is the usual one.
    type: int
    default: 20
seealso:
  - module: redisops.recovery.redis_backup
"""

EXAMPLES = r"""
- name: Take a proven backup every six hours, from a replica where there is one
  redisops.recovery.redis_backup_schedule:
    set_name: orders
    members: "{{ groups['orders'] }}"
    on_calendar: "*-*-* 00/6:00:00"
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: invalid_value
unit:
  description: Name of the timer.
  returned: success
  type: str
"""

import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils import backup_job  # noqa: F401, it has to be at hand to be put on the host
from ansible_collections.redisops.recovery.plugins.module_utils.argspec import backup_spec, connection_spec, job_of
from ansible_collections.redisops.recovery.plugins.module_utils.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.files import StagedFile, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.host_program import HOME, command, sources
from ansible_collections.redisops.recovery.plugins.module_utils.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.service_act import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.systemd_unit import parse_show

SPEC = {
    **connection_spec(),
    **backup_spec(),
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "on_calendar": {"type": "str", "default": "*-*-* 02:30:00"},
    "randomized_delay": {"type": "int", "default": 1800},
    "weight": {"type": "int", "default": 20},
}
PROGRAM = HOME
SETTINGS = "/etc/redisops"
SYSTEM_UNITS = "/etc/systemd/system"


def units_of(params: dict, name: str, settings: str) -> dict[str, str]:
    """Service and timer, path → text."""
    service = f"""[Unit]
Description=Take and prove a backup of the Redis set {params["set_name"]}

[Service]
Type=oneshot
Environment=PYTHONPATH={PROGRAM} PYTHONDONTWRITEBYTECODE=1
ExecStart={command(sys.executable, "backup_job", settings)}
TimeoutStartSec=infinity
Nice=10
CPUWeight={params["weight"]}
IOWeight={params["weight"]}
NoNewPrivileges=true
PrivateTmp=true
"""
    timer = f"""[Unit]
Description=When a backup of the Redis set {params["set_name"]} is taken

[Timer]
OnCalendar={params["on_calendar"]}
RandomizedDelaySec={params["randomized_delay"]}
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {os.path.join(SYSTEM_UNITS, f"{name}.service"): service, os.path.join(SYSTEM_UNITS, f"{name}.timer"): timer}


def prove_declaration(params: dict, host: Host) -> None:
    if params["randomized_delay"] < 0 or not 1 <= params["weight"] <= 10000:
        raise Problem(
            "invalid_value",
            "randomized_delay is negative, or weight is none",
            "seconds from 0 on, a weight from 1 to 10000",
            "set them",
        )
    done = host.run("systemd-analyze", "calendar", params["on_calendar"])
    if done.code and done.code != 127:
        raise Problem(
            "invalid_value",
            f"on_calendar: systemd does not take {params['on_calendar']!r}",
            "a calendar event (man systemd.time)",
            "set on_calendar",
        )


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    job = job_of(params)
    job.store  # noqa: B018, a name that is none is told here
    name = f"redisops-backup-{params['set_name']}"
    settings = os.path.join(SETTINGS, f"backup-{params['set_name']}.json")
    units, here = units_of(params, name, settings), params["state"] == "present"
    if here:
        prove_declaration(params, host)
    # The order of effects: never a timer without its service, never a service without its program.
    wanted = {**sources("backup_job", PROGRAM), settings: job.render(), **units}
    if not here:
        wanted = {path: wanted[path] for path in [*reversed(units), settings]}
    changes = []
    for path, text in wanted.items():
        mode = 0o600 if path == settings else 0o644
        there = os.path.exists(path)
        same = there and read_text(path) == text and os.stat(path).st_mode & 0o7777 == mode
        if here and not same:
            changes.append(Change("file", path, "different" if there else None, "as declared", f"write {path}"))
        elif not here and there:
            changes.append(Change("file", path, "present", None, f"remove {path}"))
    state = parse_show(systemctl(host, "show", "-p", "ActiveState,UnitFileState,NeedDaemonReload", f"{name}.timer"))
    on = state.get("ActiveState") == "active" and state.get("UnitFileState") == "enabled"
    if on != here and (here or state.get("ActiveState") == "active"):
        words = ("start {} now and at boot" if here else "stop {} now and at boot").format(f"{name}.timer")
        changes.append(Change("boot", f"{name}.timer", "on" if on else "off", "on" if here else "off", words))
    if changes and not module.check_mode:
        if not here:
            host.run("systemctl", "disable", "--now", f"{name}.timer")
        for path, text in wanted.items():
            mode = 0o600 if path == settings else 0o644
            if not any(change.name == path for change in changes):
                continue
            if not here:
                os.unlink(path)
                continue
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            StagedFile(path, text, mode, access=(os.geteuid(), os.getegid(), mode)).commit()
        systemctl(host, "daemon-reload")
        if here:
            systemctl(host, "enable", f"{name}.timer")
            systemctl(host, "restart", f"{name}.timer")
    return result_of(changes, unit=f"{name}.timer")


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
