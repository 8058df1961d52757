#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_persistence
short_description: Declare the persistence of a Redis instance without losing data
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Declares RDB and AOF of one Redis (or Valkey) instance in its configuration file B(and) in the live server, and the owner,
    group and mode of its data files.
  - Writing C(appendonly yes) into the file of a server with data and restarting it makes Redis start B(empty). This module turns
    AOF on in the live server, waits for the rewrite to end well, verifies the files on disk, and only then writes the file.
    Of a stopped server with an RDB file only, it makes that file the base of a new AOF.
  - Where it cannot be shown that no acknowledged write is lost, it refuses, changes nothing, and says what it detected, what it needs
    and what to set.
  - It never restarts the server. RV(restart_required) names what the running process does not have yet;
    M(redisops.recovery.redis_service) sees the same by itself.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  config_file:
    description: The configuration file that the server was (or will be) started with.
    type: path
    default: /etc/redis/redis.conf
  save:
    description:
      - RDB save points, each as seconds and changes. An empty list turns RDB snapshots off.
      - Written as one line each; compared as pairs.
    type: list
    elements: str
    default: ['900 1', '300 10', '60 10000']
  appendonly:
    description: Whether the append-only file is on.
    type: bool
    default: true
  appendfsync:
    description: When the AOF is synced. V(everysec) puts one to two seconds of writes at risk, V(always) none.
    type: str
    choices: [always, everysec, 'no']
    default: everysec
  appendfilename:
    description: Base name of the AOF files. Refused where it differs from the current one and there is data.
    type: str
    default: appendonly.aof
  appenddirname:
    description: Directory of the AOF files within O(dir). Not given, it is left as it is.
    type: str
  auto_aof_rewrite_percentage:
    description: Growth in percent since the last rewrite that triggers the next; 0 turns automatic rewrites off.
    type: int
    default: 100
  auto_aof_rewrite_min_size:
    description: Size below which no automatic rewrite happens, as bytes or with C(kb), C(mb), C(gb).
    type: str
    default: 64mb
  dbfilename:
    description: Name of the RDB file within O(dir). Not given, it is left as it is.
    type: str
  dir:
    description:
      - Data directory, made where it is missing. Not given, it is left as it is. Redis does not move data; where there is data, a
        change is refused.
    type: path
  rdbchecksum:
    description: Whether RDB files carry a CRC64. Read at start only.
    type: bool
    default: true
  aof_load_truncated:
    description: Whether a start accepts an AOF whose end was cut off, as after a power cut.
    type: bool
    default: true
  aof_timestamp_enabled:
    description: Whether the AOF carries timestamps, which recovery to a point in time needs.
    type: bool
    default: false
  stop_writes_on_bgsave_error:
    description: Whether Redis refuses writes while it cannot save.
    type: bool
    default: true
  no_appendfsync_on_rewrite:
    description: Whether syncing pauses during rewrites and saves. Faster on slow disks, more at risk.
    type: bool
    default: false
  owner:
    description: Owner of the data files. Must be the user that the server runs as.
    type: str
    default: redis
  group:
    description: Group of the data files.
    type: str
    default: redis
  mode:
    description:
      - Mode of the RDB file and of every AOF file, four octal digits in quotes. A number is taken as the mode itself.
      - Redis itself creates AOF files, and the RDB file that a replica receives, without group write. That is accepted too, so that
        this module does not correct Redis for ever; anything else is drift.
    type: raw
    default: '0660'
  dir_mode:
    description:
      - The most that the data directory and the AOF directory may give to others, as O(mode) is given. A directory that gives less, or that
        is not O(owner)'s, is left alone.
    type: raw
    default: '0750'
  allow_no_persistence:
    description: Accept O(appendonly=false) together with an empty O(save). For pure caches.
    type: bool
    default: false
  fresh_install:
    description:
      - Whether this run installed Redis itself. The diff is then reported against a host without Redis; in
        check mode, the file may be missing.
    type: bool
    default: false
  timeout:
    description: Longest wait, in seconds, for loading, for a save and for a rewrite, each.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_config
  - module: redisops.recovery.redis_service
"""

EXAMPLES = r"""
- name: Keep RDB snapshots and an AOF that is synced every second
  redisops.recovery.redis_persistence:
    login_user: admin
    login_password: "{{ vault_redis_admin_password }}"

- name: Lose no acknowledged write at all, at the price of latency
  redisops.recovery.redis_persistence:
    appendfsync: always

- name: Show what would be done to a server that keeps its data elsewhere
  redisops.recovery.redis_persistence:
    config_file: /etc/redis/cache.conf
    login_port: 6380
    dir: /data/redis
  check_mode: true
  diff: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["CONFIG SET appendonly yes, wait for the rewrite to end well, verify its files", "write appendonly to /etc/redis/redis.conf"]
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
crash_loss:
  description: What a power cut now would cost.
  returned: success
  type: dict
  contains:
    seconds:
      description: Seconds of writes at most; null where there is no bound.
      type: int
    writes:
      description: Number of writes, where the server counts them.
      type: int
    text:
      description: The same in words.
      type: str
    how:
      description: How it was computed.
      type: str
  sample: {"seconds": 2, "writes": null, "text": "up to 2 s of writes", "how": "AOF, appendfsync: synced every second"}
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: place_has_data
pending:
  description: Directives that this run changes, or would change in check mode; for O(redisops.recovery.redis_service#module:pending).
  returned: success
  type: list
  elements: str
restart_required:
  description: Directives that the running process will only have after a restart.
  returned: success
  type: list
  elements: str
running:
  description: Whether the server runs.
  returned: success
  type: bool
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import require_aof_replays
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import pending_names
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import (
    bring_aof_up,
    convert_offline,
    settle_aof,
    verified_save,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import (
    aof_in_use,
    check_rdb,
    require_rdb_is_known,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.permissions import (
    close_directories,
    make_directory,
    plan_access,
    plan_directories,
    read_access,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import (
    PLACE,
    Plan,
    Situation,
    Wanted,
    crash_loss,
    plan_persistence,
    start_loads,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import (
    PERSISTENCE,
    normal,
    save_points,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    edited,
    read_instance,
    require_accepted,
    stage,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import group_id, parse_mode, user_id
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, apply_access

SPEC = {
    **connection_spec(),
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "save": {"type": "list", "elements": "str", "default": ["900 1", "300 10", "60 10000"]},
    "appendonly": {"type": "bool", "default": True},
    "appendfsync": {"type": "str", "choices": ["always", "everysec", "no"], "default": "everysec"},
    "appendfilename": {"type": "str", "default": "appendonly.aof"},
    "appenddirname": {"type": "str"},
    "auto_aof_rewrite_percentage": {"type": "int", "default": 100},
    "auto_aof_rewrite_min_size": {"type": "str", "default": "64mb"},
    "dbfilename": {"type": "str"},
    "dir": {"type": "path"},
    "rdbchecksum": {"type": "bool", "default": True},
    "aof_load_truncated": {"type": "bool", "default": True},
    "aof_timestamp_enabled": {"type": "bool", "default": False},
    "stop_writes_on_bgsave_error": {"type": "bool", "default": True},
    "no_appendfsync_on_rewrite": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": "redis"},
    "group": {"type": "str", "default": "redis"},
    "mode": {"type": "raw", "default": "0660"},
    "dir_mode": {"type": "raw", "default": "0750"},
    "allow_no_persistence": {"type": "bool", "default": False},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}


def wanted_of(params: dict) -> Wanted:
    """The declared values in normal form. Raises Problem where one cannot be."""
    values, spelled = {}, {}
    for name in PERSISTENCE:
        value = params[name.replace("-", "_")]
        if name == "save":
            for point in value:
                if len(save_points(point.split() or ["", ""])) != 1:
                    save_points([point, ""])  # several points in one element: name the element
            value = " ".join(value)
        elif value is None:
            continue
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        if name in PLACE and name != "dir" and (not value or "/" in value):
            what = f"{name}: {value!r} is no file name"
            raise Problem("invalid_value", what, "a name without a path", f"set {name.replace('-', '_')}")
        if name == "dir" and not value.startswith("/"):
            raise Problem("invalid_value", f"dir: {value!r} is not absolute", "an absolute path", "set dir")
        if name == "auto-aof-rewrite-percentage" and value < 0:
            raise Problem(
                "invalid_value", f"{name}: {value} is negative", "0 or more", "set auto_aof_rewrite_percentage"
            )
        values[name], spelled[name] = normal(name, str(value)), str(value)
    return Wanted(values, spelled, params["allow_no_persistence"])


def respell_dir(wanted: Wanted, instance: Instance) -> None:
    """A declared directory that is the present one under another spelling (a slash at the end, a link) is no other place."""
    here, declared = instance.value("dir"), wanted.values.get("dir")
    if here and declared and os.path.isabs(here) and os.path.realpath(declared) == os.path.realpath(here):
        wanted.values["dir"] = wanted.spelled["dir"] = here


def situation_of(instance: Instance, wanted: Wanted, host: Host, empty: bool) -> Situation:
    """Read everything the plan needs."""
    in_file = {name: instance.in_file(name) or "" for name in PERSISTENCE}
    current = instance.live if instance.running else in_file
    place = Place(*(current[name] for name in PLACE))
    disk = scan(place)
    info = instance.info
    leaves_data = bool(info.keys or disk.any)
    if not instance.running and not disk.any:
        # Nothing at the old place: what an operator has moved to the declared one is what the next start has to find.
        disk = scan(Place(*(wanted.values.get(name, current[name]) for name in PLACE)))
    sound = None
    if not instance.running and wanted.aof and disk.rdb_bytes is not None and start_loads(in_file, disk) != "aof":
        verdict = check_rdb(host, disk.place.rdb)
        sound = None if verdict.ok else verdict.reason
    return Situation(
        path=instance.path,
        directives=instance.directives,
        in_file=in_file,
        disk=disk,
        running=instance.running,
        live=instance.live,
        keys=info.keys,
        used_memory=info.number("used_memory"),
        rewriting=info.flag("aof_rewrite_in_progress") or info.flag("aof_rewrite_scheduled"),
        aof_in_use=instance.running and aof_in_use(host, instance.pid, disk),
        rdb_reason=sound,
        fresh_install=empty,
        leaves_data=leaves_data,
        dir_is_missing="dir" in wanted.values and not os.path.isdir(wanted.values["dir"]),
    )


def act(instance: Instance, wanted: Wanted, plan: Plan, now: Situation, host: Host, timeout: int) -> None:
    """The planned steps, live first, the file last."""
    server, place = instance.server, now.disk.place
    text, instance_says = edited(instance, wanted.spelled), instance.text
    if plan.save_first:
        stage(instance, text).discard()  # a full disk or a read-only directory shows before anything else
        verified_save(server, timeout)
    if plan.disarm_file:
        # Until the AOF is verified a crash must find the RDB file, just saved: "yes" would start empty or from an older AOF.
        instance_says = edited(instance, {"appendonly": "no"})
        stage(instance, instance_says).commit()
    staged = stage(instance, text, made_from=instance_says)
    try:
        if plan.live:
            server.config_set(plan.live)
        try:
            if plan.aof_live == "on":
                bring_aof_up(server, host, place, timeout)
            elif plan.aof_live:
                if plan.aof_live == "rewrite":
                    server.command("BGREWRITEAOF")
                settle_aof(server, host, place, timeout)
        except Problem:
            if plan.live:
                server.config_set({name: instance.live[name] for name in plan.live})
            raise
        if plan.convert:
            convert_offline(now.disk, plan.set_aside)
        if text != instance.text or plan.disarm_file:
            staged.commit()
        if plan.late:
            server.config_set(plan.late)
    finally:
        staged.discard()


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    wanted = wanted_of(params)
    mode, dir_mode = parse_mode(params["mode"]), parse_mode(params["dir_mode"], "dir_mode", "0750", 0o700)
    empty = params["fresh_install"]
    instance = read_instance(params["config_file"], login_of(params), host, params["timeout"], empty)
    respell_dir(wanted, instance)
    now = situation_of(instance, wanted, host, empty)
    if instance.running:
        require_rdb_is_known(host, instance.info, now.disk)
    plan = plan_persistence(now, wanted)
    if plan.aof_live == "on":
        require_aof_replays(instance.server, instance.info)
    absent = empty and not instance.text
    access = Access(-1, -1, mode) if absent else Access(user_id(params["owner"]), group_id(params["group"]), mode)
    runs_as = host.process_uid(instance.pid) if instance.running else None
    if runs_as not in (None, access.uid):
        raise Refusal(
            "other_owner",
            f"the server runs as user id {runs_as}, owner is {params['owner']}",
            "data files that the server can write",
            "set owner and group to the user that the server runs as",
        )
    access_changes = plan_access(read_access(now.disk), access)
    dirs = [] if empty else plan_directories([now.disk.place.dir, now.disk.place.aof_dir], access.uid, dir_mode)
    changes = plan.changes + access_changes + dirs
    new_text = "" if absent else edited(instance, wanted.spelled)
    if new_text != instance.text:
        require_accepted(instance, new_text)
    if changes and not module.check_mode:
        if plan.make_dir:
            make_directory(plan.make_dir, access)
        act(instance, wanted, plan, now, host, params["timeout"])
        made_new_files = plan.aof_live or plan.save_first or plan.convert
        paths = scan(now.disk.place).paths if made_new_files else [change.name for change in access_changes]
        apply_access(paths, access)
        # What Redis just made, with a umask that its unit has yet to set, is closed with the rest.
        close_directories(
            plan_directories([now.disk.place.dir, now.disk.place.aof_dir], access.uid, dir_mode), dir_mode
        )
    info = instance.server.info("persistence") if instance.running else instance.info
    pending = pending_names(plan.changes) + (["appendonly"] if plan.convert or plan.aof_live else [])
    result = result_of(changes, pending=pending, restart_required=plan.restart_required, running=instance.running)
    result["crash_loss"] = crash_loss(
        {**instance.live, **wanted.values} if not module.check_mode else (instance.live or now.in_file),
        info.number("rdb_changes_since_last_save") if instance.running else None,
        max(0, int(time.time()) - info.number("rdb_last_save_time")) if instance.running else None,
    )
    if not wanted.aof and now.disk.manifest:
        result["warnings"] = [
            f"{now.disk.place.aof_dir} holds an AOF that is out of use and ages; turning AOF on by hand and restarting would load it"
        ]
    return result


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
