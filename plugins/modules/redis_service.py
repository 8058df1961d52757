#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_service
short_description: Keep a Redis service running, restarting it only when due and only after a verified save
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
    description: What the C([Service]) section of the drop-in says. C(UMask) is four octal digits in quotes; a number is taken as the umask itself.
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
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import require_aof_replays
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import (
    aof_in_use,
    require_rdb_is_known,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import sentinel_listens
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import FITS
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import IMMUTABLE, PERSISTENCE
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    read_instance,
    refreshed,
    require_accepted,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.apply import (
    restart_server,
    save_before_restart,
    start_server,
    write_drop_in,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import (
    disk_of,
    exposure_of,
    find_unit,
    process_of,
    require_last_word,
    require_paths,
    unit_state,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import (
    Pending,
    missing_keys,
    require_is_the_units,
    require_overrides,
    require_primary,
    require_restart,
    require_start,
    require_unit_file,
    restart_reasons,
    unit_problem,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.sandboxing import confinement_reasons
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import parse_mode, with_umask
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, apply_access
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import (
    command_line_overrides,
    property_text,
    render_drop_in,
)

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
    "restart": {"type": "str", "choices": ["if_needed", "never", "always"], "default": "if_needed"},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}
NAMES = (*PERSISTENCE, *IMMUTABLE, *FITS, "replicaof")
SYSTEM_UNITS = "/etc/systemd/system"


def said_in_file(instance: Instance) -> dict:
    """What the file says of everything that matters to a restart."""
    return {name: instance.in_file(name) or ("" if name == "replicaof" else None) for name in NAMES}


def plan_unit(unit: str, state: dict, path: str, text: str, now_text: str, params: dict) -> list[Change]:
    """What differs between the unit and its declaration."""
    fresh = params["fresh_install"]
    changes = []
    if now_text != text or fresh:
        changes.append(
            Change(
                "unit",
                path,
                (now_text and "\n" + now_text.rstrip("\n")) or None,
                "\n" + text.rstrip("\n"),
                f"write {path} and reload systemd",
            )
        )
    enabled = (
        "no"
        if fresh
        else ("yes" if state.get("UnitFileState", "") in ("enabled", "enabled-runtime", "alias") else "no")
    )
    if params["enabled"] != (enabled == "yes"):
        verb = "enable" if params["enabled"] else "disable"
        changes.append(
            Change(
                "boot", unit, f"enabled {enabled}", f"enabled {'yes' if params['enabled'] else 'no'}", f"{verb} {unit}"
            )
        )
    return changes


def body(module: AnsibleModule) -> dict:
    params, host, login = module.params, Host(), login_of(module.params)
    unit = find_unit(host) if params["unit"] == "auto" else params["unit"]
    fresh = params["fresh_install"]
    data_mode = parse_mode(params["data_mode"], "data_mode")
    declared = {
        name: property_text(value)
        for name, value in with_umask({**params["properties"], **params["confinement"]}).items()
    }
    path = os.path.join(SYSTEM_UNITS, f"{unit}.service.d", params["drop_in"])
    text = render_drop_in(declared)
    state = unit_state(host, unit)
    problem = unit_problem(unit, state)
    if problem and not (fresh and module.check_mode):
        raise problem
    require_last_word(host, state, params["drop_in"], declared)
    instance = read_instance(params["config_file"], login, host, params["timeout"], fresh)
    in_file = said_in_file(instance)
    overrides = command_line_overrides(state.get("ExecStart", ""))
    pending = (
        Pending(frozenset(params["pending"]), frozenset(params["pending_restart"])) if module.check_mode else Pending()
    )
    # What comes before this in the same run verifies and repairs these; in check mode it has not done so yet.
    repaired = bool(pending.changes & {*PLACE, "appendonly"})
    if not problem and not repaired:
        require_overrides(overrides, in_file)
    if not problem:
        require_unit_file(state.get("ExecStart", ""), params["config_file"])
    now_text = host.read(path) or ""
    if instance.text:
        require_paths(instance, unit, state, now_text, declared)
    changes = plan_unit(unit, state, path, text, now_text, params)
    unit_changes = list(changes)
    reasons: list[str] = []
    if instance.running:
        require_is_the_units(unit, state, instance.pid)
        given, confined = process_of(host, instance.pid)
        reasons = restart_reasons(
            in_file, instance.live, overrides, declared, given, host.open_files_ceiling(), pending
        ) + confinement_reasons(declared, confined)
        if params["restart"] == "always":
            reasons = reasons or ["restart: always"]
    due = bool(reasons) and params["restart"] != "never"

    if instance.text and (due or not instance.running):
        # A line that was broken by hand shows here, and not when the old process is gone.
        require_accepted(instance, instance.text)

    def require_safe(info: Info) -> None:
        now = refreshed(instance)
        disk = scan(disk_of(now.live))
        require_rdb_is_known(host, info, disk)
        if info.flag("aof_enabled"):
            require_aof_replays(instance.server, info)
        require_primary(info, sentinel_listens(instance.server))
        require_restart(said_in_file(now), now.live, info, aof_in_use(host, instance.pid, disk), repaired)

    if due:
        require_safe(instance.info)
        words = "save and wait for it to end well, pause writes, restart, wait until loaded, compare the keys"
        changes.append(Change("process", unit, "; ".join(reasons), "as file and unit say", words))
    if not instance.running or fresh:
        if instance.text and in_file["dir"] and not repaired:
            require_start(instance.path, in_file, scan(disk_of(in_file)))
        changes.append(Change("process", unit, "stopped", "running", f"start {unit} and wait until its data is loaded"))
    result = result_of(changes, restart_required=reasons, restarted=False)
    if now_text != text and not problem:
        result["exposure"] = {"before": exposure_of(host, unit), "after": None}
    if module.check_mode or not (changes or state.get("NeedDaemonReload") == "yes"):
        return result
    began = time.time()
    if due:
        save_before_restart(instance.server, require_safe, params["timeout"])
    act(host, params, state, unit_changes, (unit, path, text))
    if "exposure" in result:
        result["exposure"]["after"] = exposure_of(host, unit)
    if due:
        before, after = restart_server(host, unit, instance.server, login, require_safe, params["timeout"])
        rdb = disk_of(instance.live).rdb
        if os.path.exists(rdb) and os.stat(rdb).st_mtime >= int(began):
            status = os.stat(rdb)
            apply_access([rdb], Access(status.st_uid, status.st_gid, data_mode))
        called = [name[len("cmdstat_") :].split("|")[0] for name in after.fields if name.startswith("cmdstat_")]
        lost, verdict = missing_keys(before.keyspace, after.keyspace, called)
        result.update(restarted=True, keys={"before": before.keys, "after": after.keys, "verdict": verdict})
        if lost:
            raise Problem(
                "keys_missing",
                f"after the restart: {verdict}",
                "every key",
                "stop the clients and look at the log now",
                keys=result["keys"],
            )
    elif not instance.running:
        start_server(host, unit, login, params["timeout"])
    return result


def act(host: Host, params: dict, state: dict, changes: list[Change], drop_in: tuple) -> None:
    """Unit file, then what systemd knows of it."""
    unit, path, text = drop_in
    if any(change.layer == "unit" for change in changes):
        write_drop_in(path, text)
    if state.get("NeedDaemonReload") == "yes" or any(change.layer == "unit" for change in changes):
        systemctl(host, "daemon-reload")
    if any(change.layer == "boot" for change in changes):
        systemctl(host, "enable" if params["enabled"] else "disable", f"{unit}.service")


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
