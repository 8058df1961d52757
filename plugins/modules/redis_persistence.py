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

import dataclasses
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import require_aof_replays
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change, pending_names
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import place_of
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.collect import (
    aof_in_use,
    require_aof_is_the_data,
    require_rdb_is_known,
    require_writable,
    respell_dir,
    situation_of,
    unread_rdb,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.declared import wanted_of
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.directives_apply import (
    apply as apply_directives,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.permissions import (
    close_directories,
    make_directory,
    plan_access,
    plan_directories,
    read_access,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import (
    Plan,
    Situation,
    Wanted,
    crash_loss,
    plan_persistence,
    start_loads,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    edited,
    read_instance,
    release_of,
    require_accepted,
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


@dataclasses.dataclass(frozen=True)
class State:
    """The declaration with the modes of data files and directories, and what there is."""

    wanted: Wanted
    mode: int
    dir_mode: int
    instance: Instance
    now: Situation


@dataclasses.dataclass(frozen=True)
class Work:
    """The guarded steps of ``plan``, then the ``access`` of the data files and directories."""

    plan: Plan
    access: Access
    access_changes: list[Change]
    changes: list[Change]


def read_state(params: t.Mapping[str, t.Any]) -> State:
    """The declaration, the server and its disk. Raises Problem or Refusal."""
    wanted, host = wanted_of(params), Host()
    mode, dir_mode = parse_mode(params["mode"]), parse_mode(params["dir_mode"], "dir_mode", "0750", 0o700)
    empty = params["fresh_install"]
    instance = read_instance(params["config_file"], login_of(params), host, params["timeout"], empty)
    respell_dir(wanted, instance)
    now = situation_of(instance, wanted, empty)
    if instance.running:
        require_rdb_is_known(host, instance.info, now.disk)
    return State(wanted, mode, dir_mode, instance, now)


def access_of(state: State, params: t.Mapping[str, t.Any]) -> Access:
    """Owner, group and mode of the data files. Raises Problem, or Refusal where the server could not write them."""
    instance, absent = state.instance, params["fresh_install"] and not state.instance.text
    owner, group = (-1, -1) if absent else (user_id(params["owner"]), group_id(params["group"]))
    runs_as = instance.host.process_uid(instance.pid) if instance.running else None
    if runs_as not in (None, owner):
        raise Refusal(
            "other_owner",
            f"the server runs as user id {runs_as}, owner is {params['owner']}",
            "data files that the server can write",
            "set owner and group to the user that the server runs as",
        )
    return Access(owner, group, state.mode)


def directories_of(state: State, uid: int) -> list[Change]:
    """The data directories that give more rights than declared."""
    place = state.now.disk.place
    return plan_directories([place.dir, place.aof_dir], uid, state.dir_mode)


def plan_of(state: State, params: t.Mapping[str, t.Any]) -> Work:
    """What is to be done, and that it may be. Raises Problem or Refusal."""
    instance, empty = state.instance, params["fresh_install"]
    plan = plan_persistence(state.now, state.wanted)
    if not instance.running and start_loads(state.now.in_file, state.now.disk) == "aof":
        require_aof_is_the_data(instance.host, state.now.disk, release_of(instance), params["timeout"])
    if plan.aof_live or plan.save_first:
        require_writable(instance, state.now.disk.place)
    if plan.aof_live == "on":
        require_aof_replays(instance.server, instance.info)
    access = access_of(state, params)
    access_changes = plan_access(read_access(state.now.disk), access)
    directories = [] if empty else directories_of(state, access.uid)
    text = "" if empty and not instance.text else edited(instance, state.wanted.spelled)
    if text != instance.text:
        require_accepted(instance, text)
    return Work(plan, access, access_changes, plan.changes + access_changes + directories)


def apply(state: State, work: Work, timeout: int) -> None:
    """The guarded steps, then the access of the files that there are after them. Raises Problem."""
    plan, disk = work.plan, state.now.disk
    if plan.make_dir:
        make_directory(plan.make_dir, work.access)
    apply_directives(state.instance, state.wanted, plan, state.now, timeout)
    made_new_files = plan.aof_live or plan.save_first or plan.convert
    paths = scan(disk.place).paths if made_new_files else [change.name for change in work.access_changes]
    apply_access(paths, work.access)
    # What Redis just made, with a umask that its unit has yet to set, is closed with the rest.
    close_directories(directories_of(state, work.access.uid), state.dir_mode)


def is_on_disk(state: State, aof: bool) -> bool:
    """Whether a start finds something of what the running server holds."""
    instance = state.instance
    disk = scan(place_of(instance.server))
    if aof:
        return aof_in_use(instance.host, instance.pid, disk)
    return disk.rdb_bytes is not None and unread_rdb(instance.host, instance.server.info(), disk) is None


def loss_of(state: State, check: bool) -> dict[str, t.Any]:
    """What a power cut could cost, with what is in force after this run. Raises Problem."""
    instance = state.instance
    values = (instance.live or state.now.in_file) if check else {**instance.live, **state.wanted.values}
    if not instance.running:
        return crash_loss(values, None, None)
    info = instance.server.info()
    age = int(time.time()) - info.number("rdb_last_save_time")
    on_disk = not info.keys or is_on_disk(state, values["appendonly"] == "yes")
    return crash_loss(values, info.number("rdb_changes_since_last_save"), age if age >= 0 else None, on_disk)


def body(module: AnsibleModule) -> dict:
    params = module.params
    state = read_state(params)
    work = plan_of(state, params)
    plan, disk = work.plan, state.now.disk
    if work.changes and not module.check_mode:
        apply(state, work, params["timeout"])
    warnings = []
    if not state.wanted.aof and disk.manifest:
        warnings.append(
            f"{disk.place.aof_dir} holds an AOF that is out of use and ages; turning AOF on by hand and restarting would load it"
        )
    return result_of(
        work.changes,
        pending=pending_names(plan.changes) + (["appendonly"] if plan.convert or plan.aof_live else []),
        restart_required=plan.restart_required,
        running=state.instance.running,
        crash_loss=loss_of(state, module.check_mode),
        warnings=warnings,
    )


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
