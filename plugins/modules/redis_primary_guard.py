#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_primary_guard
short_description: Keep a Redis primary that came back without its data from emptying its replicas
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - A primary whose data directory came back empty (a lost disk, a wrong mount) starts with nothing, and its replicas, which follow
    whatever it has, are empty within seconds.
  - This module puts a check before the start of the service. If the server would start as a primary with no data, or with far too
    little, while a replica of it holds data, systemd does not start it, and the journal says which replica to promote.
  - The check starts the server in every other case, also where it cannot judge, since a primary that does not start is an outage.
  - It only writes files of its own and a drop-in of the unit; nothing is restarted.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  group_hosts:
    description: The servers of the group, this one among them, as in M(redisops.recovery.redis_replication).
    type: list
    elements: str
    required: true
  address:
    description: Which of O(group_hosts) this server is. Not given, it is the managed host.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  guard_user:
    description:
      - ACL user with which the check asks the other servers; it needs C(INFO) only (preset V(monitoring) of M(redisops.recovery.redis_acl)).
        Not given, O(login_user).
    type: str
  guard_password:
    description: Its password, which is kept on the host in a file that only root can read. Not given, O(login_password).
    type: str
  unit:
    description: Name of the service without C(.service). V(auto) finds the packaged one.
    type: str
    default: auto
  config_file:
    description: The configuration file that the server is started with.
    type: path
    default: /etc/redis/redis.conf
  state:
    description: Whether the check is there.
    type: str
    choices: [present, absent]
    default: present
  fresh_install:
    description:
      - Whether this run installed Redis itself. Then, in check mode, its file may be missing.
    type: bool
    default: false
seealso:
  - module: redisops.recovery.redis_replication
"""

EXAMPLES = r"""
- name: Let no empty primary start next to a replica with data
  redisops.recovery.redis_primary_guard:
    group_hosts: [redis-1, redis-2, redis-3]
    guard_user: exporter
    guard_password: "{{ vault_redis_exporter_password }}"
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
"""

import inspect
import json
import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.replication import primary_guard
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import split_endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import DEFAULTS, effective
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import find_unit
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import render_drop_in

SPEC = {
    **connection_spec(),
    "group_hosts": {"type": "list", "elements": "str", "required": True},
    "address": {"type": "str"},
    "address_variables": {"type": "list", "elements": "str", "default": ["redis_replication_address", "ansible_host"]},
    "guard_user": {"type": "str"},
    "guard_password": {"type": "str", "no_log": True},
    "unit": {"type": "str", "default": "auto"},
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "fresh_install": {"type": "bool", "default": False},
}
SCRIPT = "/usr/local/libexec/redisops/primary_guard.py"
SETUP = "/etc/redisops/primary-guard.json"
SYSTEM_UNITS = "/etc/systemd/system"
DROP_IN = "zz-redisops-guard.conf"
PLACES = ("dir", "dbfilename", "appenddirname", "appendfilename", "appendonly")


def setup_of(params: dict) -> str:
    """What the check needs to know, as text."""
    group_hosts, login = GroupHosts(params["group_hosts"], params["address"] or ""), vars(login_of(params))
    path, places = params["config_file"], {name: DEFAULTS.get(name, "/var/lib/redis") for name in PLACES}
    if os.path.exists(path):
        directives = expand(RedisConf(read_text(path), path), read_includes)
        places.update({name: effective(directives, name) or places[name] for name in PLACES})
    kept = {name: login[name] for name in ("tls", "ca_certs", "client_cert_file", "client_key_file", "validate_certs")}
    kept.update(user=params["guard_user"] or login["user"], password=params["guard_password"] or login["password"])
    ends = {name: dict(zip(("host", "port"), split_endpoint(name))) for name in group_hosts.all}
    return json.dumps(
        {"config_file": path, "places": places, "own": ends[group_hosts.own], "peers": [ends[name] for name in group_hosts.peers], "login": kept},
        indent=1, sort_keys=True,
    ) + "\n"  # fmt: skip


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    unit = find_unit(host) if params["unit"] == "auto" else params["unit"]
    drop_in = os.path.join(SYSTEM_UNITS, f"{unit}.service.d", DROP_IN)
    # Only its own refusal keeps the server from starting: no missing interpreter, no traceback, no check that hangs.
    command = render_drop_in(
        {
            "ExecStartPre": f"+/bin/sh -c 'timeout 60 {sys.executable} {SCRIPT} {SETUP}; test $$? -ne {primary_guard.REFUSED}'"
        }
    )
    wanted = {
        SCRIPT: (inspect.getsource(primary_guard), 0o755),
        SETUP: (setup_of(params), 0o600),
        drop_in: (command, 0o644),
    }
    changes = []
    for path, (text, mode) in wanted.items():
        here = os.path.exists(path)
        same = here and read_text(path) == text and os.stat(path).st_mode & 0o7777 == mode and os.stat(path).st_uid == 0
        if params["state"] == "absent" and here:
            changes.append(Change("file", path, "present", None, f"remove {path}"))
        elif params["state"] == "present" and not same:
            changes.append(Change("file", path, "different" if here else None, "as declared", f"write {path}"))
    if changes and not module.check_mode:
        # The drop-in comes last and goes first: the unit must never name a check that is not there.
        for path in reversed(list(wanted)) if params["state"] == "absent" else list(wanted):
            text, mode = wanted[path]
            if params["state"] == "absent":
                if os.path.exists(path):
                    os.unlink(path)
            elif any(change.name == path for change in changes):
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                StagedFile(path, text, mode, access=Access(0, 0, mode)).commit()
        systemctl(host, "daemon-reload")
    return result_of(changes)


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
