#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_drill
short_description: Restore a backup for practice, and measure what a disaster would cost
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Picks one backup of the window at random, from the managed host or from a repository, fetches it, checks every hash, loads it into a temporary
    server, compares it, times each phase, and removes what it brought. The live server is not touched and not needed.
  - Measures RPO (the widest gap between verified backups of the window, up to now) and RTO (from the first byte fetched to the first answer), and
    fails where an objective is missed or the backup is not what it was. The report is written in any case, as JSON and as Markdown.
extends_documentation_fragment:
  - redisops.recovery.attributes
options:
  directory:
    description: Where backups are kept, on the managed host.
    type: path
    default: /var/backups/redis
  group_name:
    description: Name of the group.
    type: str
    default: redis
  backup:
    description: Label of a backup, in place of a random one.
    type: str
  window_days:
    description: Days back from now out of which one is drawn, and over which RPO is measured.
    type: int
    default: 30
  rpo_seconds:
    description: The objective for what a disaster may cost, in seconds of writes; 0 for none.
    type: int
    default: 0
  rto_seconds:
    description: The objective for the time until the data can be had again, in seconds; 0 for none.
    type: int
    default: 0
  repository:
    description: A repository to draw from, in place of the host. As one of O(redisops.recovery.redis_backup#module:repositories).
    type: dict
    suboptions:
      name:
        description: What it is called in the report.
        type: str
        required: true
      location:
        description: What restic takes as its repository.
        type: str
        required: true
      password:
        description: What it is encrypted with.
        type: str
        required: true
      environment:
        description: What the location needs.
        type: dict
        default: {}
      options:
        description: Options for C(restic -o).
        type: list
        elements: str
        default: []
  assertions:
    description: What you know of your data, as O(redisops.recovery.redis_backup#module:assertions).
    type: list
    elements: dict
    default: []
  timeout:
    description: Longest time of one phase, in seconds.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_backup
"""

EXAMPLES = r"""
- name: Hold a drill, and insist on a day and ten minutes
  redisops.recovery.redis_drill:
    group_name: orders
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
  description: Stable name of the error; the report is returned with V(drill_failed) as well.
  returned: failure
  type: str
  sample: drill_failed
report:
  description: What was measured; null in check mode. RV(ignore:phases) and RV(ignore:measured) are in seconds.
  returned: success
  type: dict
report_file:
  description: The report in Markdown; the same as JSON lies next to it.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.drill.job import Drill, run
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    "directory": {"type": "path", "default": "/var/backups/redis"},
    "group_name": {"type": "str", "default": "redis"},
    "backup": {"type": "str"},
    "window_days": {"type": "int", "default": 30},
    "rpo_seconds": {"type": "int", "default": 0},
    "rto_seconds": {"type": "int", "default": 0},
    "repository": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "location": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "options": {"type": "list", "elements": "str", "default": []},
        },
    },
    "assertions": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "int", "default": 3600},
}


def place_of(given: dict) -> Repository:
    environment = {str(name): str(value) for name, value in (given["environment"] or {}).items()}
    return Repository(
        given["name"],
        given["location"],
        given["password"],
        environment,
        tuple(given["options"]),
        "/var/cache/redisops/restic",
    )


def body(module: AnsibleModule) -> dict:
    params = module.params
    wanted = Drill(
        params["directory"], params["group_name"], params["backup"] or "", params["window_days"], params["rpo_seconds"], params["rto_seconds"],
        place_of(params["repository"]) if params["repository"] else None, tuple(params["assertions"]), params["timeout"],
    )  # fmt: skip
    words = "restore a backup that chance chooses, for practice, and write a report"
    report, path = run(wanted, Host(), module.check_mode)
    return result_of(
        [Change("report", params["group_name"], None, "a drill", words)], report=report or None, report_file=path
    )


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
