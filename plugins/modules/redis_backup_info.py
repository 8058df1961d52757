#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_backup_info
short_description: Say which backups there are, and what each is worth
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Reads the manifests and proofs of the backups on the managed host. Nothing is changed.
  - The status of a group is a number that stays what it is, for monitoring, and a text for people.
extends_documentation_fragment:
  - redisops.recovery.attributes.info
options:
  directory:
    description: Where backups are kept, on the managed host.
    type: path
    default: /var/backups/redis
  group_name:
    description: Only this set. Not given, all of them.
    type: str
  max_age:
    description: Seconds after which the last verified backup is too old; 0 for any age.
    type: int
    default: 0
  verify:
    description: Whether every file of every backup is read and compared with its hash.
    type: bool
    default: false
  room_in:
    description: A directory; RV(room_bytes) says how much is free where it is, or would be.
    type: path
seealso:
  - module: redisops.recovery.redis_backup
"""

EXAMPLES = r"""
- name: See the backups
  redisops.recovery.redis_backup_info:
    max_age: 93600
  register: found

- name: Insist on a verified backup of the last 26 hours
  redisops.recovery.redis_backup_info:
    group_name: orders
    max_age: 93600
    verify: true
  register: found
  failed_when: found.failed or found.status != 0
"""

RETURN = r"""
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: unreadable
room_bytes:
  description: Free bytes in O(room_in); null where that was not given.
  returned: success
  type: int
groups:
  description: One row for each group.
  returned: success
  type: list
  elements: dict
  contains:
    set:
      description: Its name.
      type: str
    status:
      description: V(0) ok, V(1) no backup, V(2) no verified backup, V(3) the last verified one is too old, V(4) the latest one failed.
      type: int
    backups:
      description:
        - Oldest first. RV(ignore:state) is V(verified), V(loaded), V(copied) or V(failed); RV(ignore:compared) is what that word rests on. Times are seconds since 1970.
        - That every file is there and has its size is looked at always; O(verify) reads them as well.
      type: list
      elements: dict
status:
  description: The highest status of all groups; V(1) where there is none.
  returned: success
  type: int
text:
  description: The same for people.
  returned: success
  type: str
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import FAILED
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import group_names
from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import render_text, row_of, status_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import run_module

SPEC = {
    "directory": {"type": "path", "default": "/var/backups/redis"},
    "group_name": {"type": "str"},
    "max_age": {"type": "int", "default": 0},
    "verify": {"type": "bool", "default": False},
    "room_in": {"type": "path"},
}


def names_of(directory: str, group_name: str) -> list[str]:
    """The groups to tell of; one that was named has a row in any case."""
    try:
        return group_names(directory, group_name) or [name for name in (group_name,) if name]
    except OSError as error:
        raise Problem(
            "unreadable", f"{directory}: {error.strerror}", "a directory that can be read (root)", "run with become"
        ) from None


def room_in(path: str) -> int:
    """Bytes that are free where ``path`` is, or would be."""
    while path != "/" and not os.path.isdir(path):
        path = os.path.dirname(path)
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def rows_of(store: Store, verify: bool) -> list[dict]:
    rows = []
    for one in store.all():
        row = row_of(one)
        differences = verify_files(one.directory, one.manifest) if verify and one.manifest else []
        if differences:
            row.update(state=FAILED, differences=differences, compared=[], why="files are not as they were written")
        rows.append(row)
    return rows


def body(module: AnsibleModule) -> dict:
    params, now = module.params, time.time()
    names = names_of(params["directory"], params["group_name"] or "")
    groups, text = [], ""
    for name in names:
        rows = rows_of(Store(params["directory"], name), params["verify"])
        status = status_of(rows, params["max_age"], now)
        groups.append({"group": name, "status": status, "backups": rows})
        text += render_text(name, rows, status, now)
    worst = max((one["status"] for one in groups), default=1)
    return {
        "changed": False,
        "room_bytes": room_in(params["room_in"]) if params["room_in"] else None,
        "groups": groups,
        "status": worst,
        "text": text or f"no backups in {params['directory']}\n",
    }


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
