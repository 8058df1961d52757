#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_file_check
short_description: Say what is the matter with an RDB or AOF file
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Reads persistence files with Redis' own C(redis-check-rdb) and C(redis-check-aof), and where they find something, with a reader of its own
    that tells a tail that was cut off from damage inside. Nothing is written, nothing is repaired.
  - A file that is being written may look cut off. Ask of a running server's files with that in mind, or of a copy.
  - A verdict of V(good) on an AOF says that its commands are whole, and that the installed server knows each. Where C(redis-server) is installed,
    a temporary one is asked for its commands. Values have no checksum; only a load and a comparison verifies data.
extends_documentation_fragment:
  - redisops.recovery.attributes.info
options:
  paths:
    description:
      - Files and directories. A directory is the one of a multi-part AOF (C(appenddirname)); a file ending in C(.manifest) stands for all
        that it names, one ending in C(.rdb) is an RDB, any other a file of commands, which may begin with an RDB as before 7.0.
    type: list
    elements: path
    required: true
  timeout:
    description: Seconds that one file may take.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_persistence
"""

EXAMPLES = r"""
- name: Look at what a server that does not start would load
  redisops.recovery.redis_file_check:
    paths:
      - /var/lib/redis/dump.rdb
      - /var/lib/redis/appendonlydir
  register: files
  failed_when: files.failed or not files.usable
"""

RETURN = r"""
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: no_check_tool
files:
  description: One row for each file.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    kind:
      description: V(rdb), V(aof), V(manifest) or V(unknown).
      type: str
    verdict:
      description:
        - V(good), V(empty) (no command yet), V(unchecked) (an RDB without a checksum), V(truncated_tail), V(corrupt_inside), V(bad_crc),
          V(header_only), V(not_rdb), V(newer_version), V(missing), V(unknown_command) (no command of the installed server),
          V(unreferenced) (the manifest does not name it, as what a rewrite has left) or V(unlisted) (the manifest should name it).
      type: str
    usable:
      description: Whether Redis loads it with nothing missing.
      type: bool
    size:
      description: Bytes.
      type: int
    offset:
      description: Where what is good ends; null where all is, or where no place can be named.
      type: int
    detail:
      description: What was seen.
      type: str
    keys:
      description: Keys that an RDB holds up to there; null for a file of commands.
      type: int
    timestamp:
      description: Time of the last command before RV(files[].offset), in seconds since 1970, where the file has timestamps.
      type: int
    do:
      description: What to do; empty where nothing is.
      type: str
usable:
  description: Whether all of them are.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import run_module
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import check_place
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    "paths": {"type": "list", "elements": "path", "required": True},
    "timeout": {"type": "int", "default": 3600},
}


def body(module: AnsibleModule) -> dict:
    host = Host()
    rows = [one.row() for path in module.params["paths"] for one in check_place(host, path, module.params["timeout"])]
    return {"changed": False, "files": rows, "usable": all(row["usable"] for row in rows)}


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
