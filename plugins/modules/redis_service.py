#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_service
short_description: Keep a Redis service running, or stop it, never without a verified save
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Keeps the systemd service of one Redis (or Valkey) instance enabled and running, with a drop-in of its own for limits, timeouts
    and restart policy.
  - Whether a restart is due is seen by comparing the live process with its file and its unit, never remembered. A run that was cut
    off before its restart is finished by the next run.
  - Before a restart it verifies that the next process will load what this one holds. It saves and waits for the save to end well,
    pauses writes, looks again, restarts, waits for the data to be loaded and compares the keys. Where that cannot be shown it
    refuses and restarts nothing.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  unit:
    description:
      - Name of the service without C(.service). V(auto) finds the packaged one, C(redis-server) on Debian and Ubuntu, C(redis) on
        RHEL.
    type: str
    default: auto
  config_file:
    description: The configuration file that the server is started with.
    type: path
    default: /etc/redis/redis.conf
  drop_in:
    description:
      - Name of the drop-in file. systemd reads drop-ins in the order of their names; the default comes after the C(limit.conf) that
        RHEL ships.
    type: str
    default: zz-redisops.conf
  properties:
    description:
      - What the C([Service]) section of the drop-in says. C(RequiresMountsFor) goes into C([Unit]), and gets what the configuration file names
        as C(dir) and as the AOF's directory, behind links. C(UMask) is four octal digits in quotes; a number is taken as the umask itself.
    type: dict
    default: {}
  confinement:
    description:
      - Further properties of that section, those that take rights away from the process, V(ProtectSystem) and its kin.
      - It is refused where the server could then not reach what its file names. Booleans become V(yes) and V(no).
    type: dict
    default: {}
  data_mode:
    description:
      - Mode of the RDB file that the old process writes before a restart, four octal digits in quotes. A number is taken as the mode itself.
        The umask of that process may be another than the unit's by now.
    type: raw
    default: '0660'
  enabled:
    description: Whether the service starts at boot.
    type: bool
    default: true
  pending:
    description:
      - Directives that the tasks before this one change. In check mode they have not done so, and RV(redisops.recovery.redis_config#module:pending)
        and RV(redisops.recovery.redis_persistence#module:pending) say here what they would have done by now. Ignored otherwise.
    type: list
    elements: str
    default: []
  pending_restart:
    description: As O(pending), the RV(redisops.recovery.redis_config#module:restart_required) of those tasks.
    type: list
    elements: str
    default: []
  pending_paths:
    description:
      - RV(redisops.recovery.redis_config#module:paths) of the tasks before this one. In check mode they stand in no file yet, and whether the
        unit, confined as declared, could use them is asked all the same. Ignored otherwise.
    type: dict
    default: {}
  restart:
    description:
      - V(if_needed) restarts a process that differs from its file or unit; V(never) only reports it; V(always) restarts it in any case, with the
        same proofs.
    type: str
    choices: [if_needed, never, always]
    default: if_needed
  fresh_install:
    description:
      - Whether this run installed Redis itself. The diff is then reported against a host without Redis; in
        check mode, the unit may be missing.
    type: bool
    default: false
  state:
    description:
      - V(started) keeps the service running.
      - V(stopped) ends it after a verified save, by the server's own shutdown, which refuses to end without its data on disk. The drop-in
        stays as it is; O(enabled) says whether the next boot starts it.
    type: str
    choices: [started, stopped]
    default: started
  timeout:
    description: Longest wait, in seconds, for a save and for loading, each.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_persistence
  - module: redisops.recovery.redis_config
"""

EXAMPLES = r"""
- name: Keep Redis running with room for its clients, and let long loads and saves end
  redisops.recovery.redis_service:
    unit: redis-server
    properties:
      LimitNOFILE: 65535
      Restart: always
      TimeoutStartSec: infinity
      TimeoutStopSec: infinity
      UMask: "0007"
      ReadWritePaths: -/var/lib/redis -/var/log/redis -/run/redis -/etc/redis
    confinement:
      NoNewPrivileges: true
      ProtectSystem: strict
      ProtectHome: true

- name: Only say whether a restart is due
  redisops.recovery.redis_service:
    unit: redis
    restart: never
  check_mode: true

- name: Stop it for good, with all of its data on disk
  redisops.recovery.redis_service:
    unit: redis
    state: stopped
    enabled: false
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
  sample: aof_differs
keys:
  description: Number of keys before and after a restart, and what their comparison says.
  returned: when the server was restarted
  type: dict
  sample: {"before": 10000, "after": 10000, "verdict": "every key without a time to live is there again"}
exposure:
  description:
    - The exposure level that C(systemd-analyze security) gives the unit before and after, from 0 (confined) to 10; C(after) is null
      in check mode.
  returned: when the drop-in differs
  type: dict
  sample: {"before": 9.2, "after": 1.8}
restart_required:
  description: Why the running process differs from its file and unit, before this run.
  returned: success
  type: list
  elements: str
  sample: ["LimitNOFILE: the unit gives 65535, the process has 10240"]
restarted:
  description: Whether this run restarted the server.
  returned: success
  type: bool
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import find_unit
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import DeclaredUnit
from ansible_collections.redisops.recovery.plugins.module_utils.service.stopped_apply import apply_stopped, plan_stopped
from ansible_collections.redisops.recovery.plugins.module_utils.service.unit_apply import apply, plan_of, read_state
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import parse_mode, with_umask
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import property_text, render_drop_in

SPEC = {
    **connection_spec(),
    "unit": {"type": "str", "default": "auto"},
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "drop_in": {"type": "str", "default": "zz-redisops.conf"},
    "properties": {"type": "dict", "default": {}},
    "confinement": {"type": "dict", "default": {}},
    "data_mode": {"type": "raw", "default": "0660"},
    "enabled": {"type": "bool", "default": True},
    "pending": {"type": "list", "elements": "str", "default": []},
    "pending_restart": {"type": "list", "elements": "str", "default": []},
    "pending_paths": {"type": "dict", "default": {}},
    "restart": {"type": "str", "choices": ["if_needed", "never", "always"], "default": "if_needed"},
    "fresh_install": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "timeout": {"type": "int", "default": 3600},
}
SYSTEM_UNITS = "/etc/systemd/system"


def declared_of(params: t.Mapping[str, t.Any], host: Host) -> DeclaredUnit:
    """The options as values. Raises Problem."""
    unit = find_unit(host) if params["unit"] == "auto" else params["unit"]
    data_mode = parse_mode(params["data_mode"], "data_mode")
    properties = with_umask({**params["properties"], **params["confinement"]})
    texts = {name: property_text(value) for name, value in properties.items()}
    path = os.path.join(SYSTEM_UNITS, f"{unit}.service.d", params["drop_in"])
    return DeclaredUnit(unit, path, texts, render_drop_in(texts), params["enabled"], data_mode)


def body(module: AnsibleModule) -> dict:
    params, host, login = module.params, Host(), login_of(module.params)
    state = read_state(declared_of(params, host), host, params, login, module.check_mode)
    if params["state"] == "stopped":
        changes = plan_stopped(state)
        if changes and not module.check_mode:
            apply_stopped(state, changes, params["timeout"])
        return result_of(changes, restart_required=[], restarted=False)
    plan = plan_of(state, params)
    result = result_of(plan.changes, restart_required=plan.reasons, restarted=False)
    if plan.rewrites:
        result["exposure"] = {"before": plan.exposure, "after": None}
    if module.check_mode or not (plan.changes or state.stale):
        return result
    done = apply(state, plan, login, params["timeout"])
    if plan.rewrites:
        result["exposure"] = {"before": plan.exposure, "after": done.exposure}
    if done.keys:
        result.update(restarted=True, keys=done.keys)
    return result


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
