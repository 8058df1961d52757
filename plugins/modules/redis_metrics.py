#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_metrics
short_description: Let a host write metrics of its server, backups and drills for Prometheus, and give redis_exporter its login
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Puts the program of M(redisops.recovery.redis_health_info) on the managed host, with its settings in C(/etc/redisops/metrics-SET.json) (root only,
    since the password is in it), and a systemd timer that writes C(redisops-SET.prom) into node_exporter's textfile directory.
  - Times in it are those that manifests, reports and files have. So a restart of Redis sets none of them back.
  - Where O(exporter_unit) is named, that service gets the same login, with its TLS files, by a drop-in and a file that only root can read.
    What an earlier run gave to another service for the same O(group_name) is taken away, also where O(exporter_unit) is empty.
extends_documentation_fragment:
  - redisops.recovery.health
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  state:
    description: Whether the host writes metrics. V(absent) takes timer, settings and the metrics away.
    type: str
    choices: [present, absent]
    default: present
  textfile_directory:
    description: The directory of node_exporter's textfile collector. It has to be there.
    type: path
    default: /var/lib/prometheus/node-exporter
  on_calendar:
    description: When metrics are written, as systemd's C(OnCalendar=).
    type: str
    default: "*:0/1"
  weight:
    description: Share of CPU and disk next to others, as systemd's C(CPUWeight=) and C(IOWeight=); 100 is the usual one.
    type: int
    default: 20
  exporter_unit:
    description: Service of redis_exporter on this host, such as V(prometheus-redis-exporter); it is restarted when its login changes. Empty for none.
    type: str
    default: ""
  exporter_user:
    description: What redis_exporter logs in as; a user with the ACL preset V(monitoring). Not given, it gets O(login_user).
    type: str
  exporter_password:
    description: The password of O(exporter_user).
    type: str
seealso:
  - module: redisops.recovery.redis_health_info
  - module: redisops.recovery.redis_backup_schedule
"""

EXAMPLES = r"""
- name: Write metrics every minute, and hold the server to the objectives
  redisops.recovery.redis_metrics:
    login_user: monitoring
    login_password: "{{ vault_redis_monitoring_password }}"
    group_name: orders
    crash_loss_seconds: 5
    rpo_seconds: 93600
    exporter_unit: prometheus-redis-exporter
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
  sample: no_textfile_directory
file:
  description: The file that is written.
  returned: success
  type: str
"""

import dataclasses
import os
import sys
from collections.abc import Iterable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec_health import (
    health_spec,
    objectives_of,
    question_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.monitoring import job as monitoring_job  # noqa: F401, it has to be at hand to be put on the host
from ansible_collections.redisops.recovery.plugins.module_utils.monitoring.exporter import (
    exporter_pieces,
    require_exporter,
)
from ansible_collections.redisops.recovery.plugins.module_utils.monitoring.job import Metrics
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.apply import Schedule, require_calendar
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.program import HOME, command
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.units import (
    Piece,
    service,
    timer,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    **health_spec(),
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "textfile_directory": {"type": "path", "default": "/var/lib/prometheus/node-exporter"},
    "on_calendar": {"type": "str", "default": "*:0/1"},
    "weight": {"type": "int", "default": 20},
    "exporter_unit": {"type": "str", "default": ""},
    "exporter_user": {"type": "str"},
    "exporter_password": {"type": "str", "no_log": True},
}
PROGRAM = HOME
SETTINGS = "/etc/redisops"
SYSTEM_UNITS = "/etc/systemd/system"


def require_declaration(params: dict, host: Host) -> None:
    if not 1 <= params["weight"] <= 10000:
        raise Problem("invalid_value", "weight is none", "a weight from 1 to 10000", "set weight")
    require_calendar(host, "on_calendar", params["on_calendar"])
    if not os.path.isdir(params["textfile_directory"]):
        raise Problem(
            "no_textfile_directory",
            f"{params['textfile_directory']} is not there",
            "the directory that node_exporter's textfile collector reads",
            "install node_exporter (prometheus-node-exporter), or set textfile_directory to what it was started with",
        )


def forget_login(host: Host, pieces: Iterable[Piece]) -> None:
    """Services of others whose login was taken away run with it until they are started again."""
    for piece in pieces:
        if not piece.program and not piece.wanted:
            for name in piece.units:
                host.run("systemctl", "try-restart", name.removesuffix(".d/redisops.conf"))


def pieces_of(params: dict, target: str, login: Login) -> list[Piece]:
    """The timer with its program, and the exporter's login."""
    name, here = params["group_name"], params["state"] == "present"
    settings, words = os.path.join(SETTINGS, f"metrics-{name}.json"), f"Write metrics of the replication group {name}"
    run = command(sys.executable, "monitoring.job", settings)
    wanted = Metrics(target, question_of(params, 0.0), objectives_of(params))
    pieces = [
        Piece(
            "monitoring.job",
            settings,
            wanted.render(),
            {
                f"redisops-metrics-{name}.service": service(words, run, params["weight"], PROGRAM),
                f"redisops-metrics-{name}.timer": timer(words, params["on_calendar"], 0),
            },
            here,
        )
    ]
    return pieces + exporter_pieces(SYSTEM_UNITS, SETTINGS, name, exporter_of(params), login)


def exporter_of(params: dict) -> str:
    """The unit without its ending; empty for none."""
    return params["exporter_unit"].removesuffix(".service") if params["state"] == "present" else ""


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    Store("/", params["group_name"])  # a name that is none is reported here
    question = question_of(params, 0.0)
    target = os.path.join(params["textfile_directory"], f"redisops-{params['group_name']}.prom")
    if params["state"] == "present":
        require_declaration(params, host)
        require_exporter(host, exporter_of(params), question.login)
    login = question.login
    if params["exporter_user"]:
        login = dataclasses.replace(login, user=params["exporter_user"], password=params["exporter_password"])
    pieces = pieces_of(params, target, login)
    schedule = Schedule(host, PROGRAM, SYSTEM_UNITS, pieces)
    changes = schedule.changes()
    gone = params["state"] == "absent" and os.path.exists(target)
    if gone:
        changes.append(Change("file", target, "present", None, f"remove {target}"))
    if changes and not module.check_mode:
        schedule.carry_out(changes)
        forget_login(host, pieces)
        if gone:
            os.unlink(target)
    return result_of(changes, file=target)


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
