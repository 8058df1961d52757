#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_backup
short_description: Take a backup of a Redis server that has already been restored
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Copies the data of a live server with what it says of itself at that very moment (keys for each database, replication offset, a sample of
    keys with their values and expiry), hashes every file, seals a manifest last, then loads the copy into a scratch server and compares. A
    backup that went all the way is V(proven).
  - Nothing of the server is changed, paused or held. Files are read through descriptors that were opened once, so a rewrite of the AOF meanwhile
    does no harm, and a run that was cut off leaves nothing but a directory without a label, which the next run removes.
  - In check mode it does the checks, and says what it would do.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  state:
    description:
      - V(present) takes a backup, unless a proven one is younger than O(max_age).
      - V(proven) proves the one that O(backup) names again.
      - V(kept) marks it, so that it is never deleted by policy; V(released) takes the mark away.
      - V(absent) deletes it. The last proven backup is never deleted.
    type: str
    choices: [present, proven, kept, released, absent]
    default: present
  backup:
    description: Label of a backup, V(latest), V(oldest) or V(latest_proven); not for V(present).
    type: str
    default: latest
  directory:
    description: Where backups are kept, on the managed host. It is closed to everybody but root.
    type: path
    default: /var/backups/redis
  set_name:
    description: Name of the set that the server is of; backups are told apart by it.
    type: str
    default: redis
  method:
    description:
      - V(rdb) is BGSAVE and a copy of its file. Its numbers are exact, and its file carries a checksum.
      - V(aof) copies base and increments of the AOF, without a fork.
      - V(stream) is C(redis-cli --rdb), which works from another host too. What only the server's own host has (O(config_file), the ACL file
        of a remote server) is not in it.
      - V(auto) is V(rdb).
    type: str
    choices: [auto, rdb, aof, stream]
    default: auto
  members:
    description: Servers of the set. Given, only one of them takes the backup; on the others nothing is done.
    type: list
    elements: str
    default: []
  address:
    description: Which of O(members) the managed host is.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  max_behind:
    description: Bytes that a replica may be behind to be chosen.
    type: int
    default: 10485760
  max_lag:
    description: Seconds that a replica may have been silent to be chosen.
    type: int
    default: 10
  max_age:
    description: Take no backup if a proven one is younger than this many seconds; 0 always takes one.
    type: int
    default: 0
  prove:
    description: Whether the backup is loaded and compared at once.
    type: bool
    default: true
  sample:
    description: How many keys are compared by type, value and expiry.
    type: int
    default: 100
  assertions:
    description: What you know of your data, and want to see in every backup.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: A key that has to be there.
        type: str
        required: true
      database:
        description: Its database.
        type: int
        default: 0
      type:
        description: Its type, such as V(hash).
        type: str
      min_count:
        description: Elements that it has at least; for a string its bytes.
        type: int
  fork_headroom_percent:
    description: Memory that has to be left for a fork, in percent of what Redis uses.
    type: int
    default: 25
  config_file:
    description: The server's configuration file, which goes into the backup; empty leaves it out.
    type: str
    default: /etc/redis/redis.conf
  sentinel_file:
    description: Sentinel's file, which goes into the backup where it is there; empty leaves it out.
    type: str
    default: /etc/redis/sentinel.conf
  timeout:
    description: Longest time of one step (save, copy, load), in seconds.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_backup_info
  - module: redisops.recovery.redis_restore
"""

EXAMPLES = r"""
- name: Take a backup, and prove it
  redisops.recovery.redis_backup:
    set_name: orders
    assertions:
      - {key: "orders:index", type: zset, min_count: 1000}
  register: backup
  failed_when: backup.failed or backup.state != 'proven'

- name: Keep last night's backup, whatever the policy says
  redisops.recovery.redis_backup:
    set_name: orders
    state: kept
    backup: latest_proven
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
backup:
  description: The backup, as a row of RV(redisops.recovery.redis_backup_info#module:sets[].backups); null where none was taken.
  returned: success
  type: dict
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: fork_memory
path:
  description: Where it lies.
  returned: success
  type: str
source:
  description: Who of RV(ignore:members) gives the backup, and why.
  returned: success
  type: str
state:
  description: V(damaged), V(failed), V(taken), V(checksummed), V(loaded), V(proven), V(elsewhere) (another member takes it) or V(absent).
  returned: success
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup_plan import choose_source
from ansible_collections.redisops.recovery.plugins.module_utils.backup_run import Settings, prove_backup, ready, take
from ansible_collections.redisops.recovery.plugins.module_utils.backup_status import row_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup_store import Backup, Store
from ansible_collections.redisops.recovery.plugins.module_utils.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.replication_act import Members, there
from ansible_collections.redisops.recovery.plugins.module_utils.replication_view import View, view_of
from ansible_collections.redisops.recovery.plugins.module_utils.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.server import Login, connect

SPEC = {
    **connection_spec(),
    "state": {"type": "str", "choices": ["present", "proven", "kept", "released", "absent"], "default": "present"},
    "backup": {"type": "str", "default": "latest"},
    "directory": {"type": "path", "default": "/var/backups/redis"},
    "set_name": {"type": "str", "default": "redis"},
    "method": {"type": "str", "choices": ["auto", "rdb", "aof", "stream"], "default": "auto"},
    "members": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str"},
    "address_variables": {"type": "list", "elements": "str", "default": ["redis_replication_address", "ansible_host"]},
    "max_behind": {"type": "int", "default": 10485760},
    "max_lag": {"type": "int", "default": 10},
    "max_age": {"type": "int", "default": 0},
    "prove": {"type": "bool", "default": True},
    "sample": {"type": "int", "default": 100},
    "assertions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "key": {"type": "str", "required": True, "no_log": False},
            "database": {"type": "int", "default": 0},
            "type": {"type": "str"},
            "min_count": {"type": "int"},
        },
    },
    "fork_headroom_percent": {"type": "int", "default": 25},
    "config_file": {"type": "str", "default": "/etc/redis/redis.conf"},
    "sentinel_file": {"type": "str", "default": "/etc/redis/sentinel.conf"},
    "timeout": {"type": "int", "default": 3600},
}


def settings_of(params: dict) -> Settings:
    names = (
        "directory",
        "set_name",
        "method",
        "sample",
        "timeout",
        "fork_headroom_percent",
        "config_file",
        "sentinel_file",
    )
    if params["sample"] < 0 or params["timeout"] < 1 or params["fork_headroom_percent"] < 0:
        raise Problem(
            "invalid_value",
            "sample, timeout or fork_headroom_percent is negative",
            "whole numbers from 0 on (timeout from 1)",
            "set them",
        )
    return Settings(**{name: params[name] for name in names}, assertions=tuple(params["assertions"]))


def source_of(params: dict, login: Login) -> tuple[bool, str]:
    """Whether this host gives the backup, and who does and why."""
    if not params["members"]:
        return True, "it was asked for here"
    members = Members(params["members"], params["address"] or "")
    views = []
    for member in members.all:
        try:
            server = connect(login if member == members.own else there(login, member), 5.0)
            views.append(members.spelled(view_of(server.info(), member)))
            server.close()
        except Problem as problem:
            views.append(View(member, "unreachable", because=problem.saw))
    chosen, why = choose_source(views, params["max_behind"], params["max_lag"])
    return chosen == members.own, f"{chosen}: {why}"


def told(backup: Backup) -> dict:
    row = row_of(backup.label, backup.at, backup.manifest, backup.problem, backup.proof, backup.copies, backup.keep)
    return {"backup": row, "state": row["state"], "path": backup.directory}


def present(module: AnsibleModule, store: Store, settings: Settings, host: Host) -> dict:
    params, login = module.params, login_of(module.params)
    mine, source = source_of(params, login)
    if not mine:
        return result_of([], backup=None, state="elsewhere", path="", source=source)
    young = [one for one in store.all() if one.proven and 0 <= time.time() - one.at < params["max_age"]]
    if young:
        return result_of([], source=source, **told(young[-1]))
    server = connect(login)
    method = ready(server, settings, host)[1]
    words = f"take a backup by {method}" + (", load it and compare" if params["prove"] else "")
    changes = [Change("backup", settings.set_name, None, f"taken by {method}", words)]
    if module.check_mode:
        return result_of(changes, backup=None, state="taken", path="", source=source)
    store.prepare()
    with store.locked():
        backup = take(server, store, settings, host, source)
        if params["prove"]:
            backup = prove_backup(store, backup, settings, host)
    state = told(backup)
    if state["state"] == "failed":
        differences = "; ".join(backup.proof["differences"][:5])
        raise Problem(
            "backup_not_proven",
            f"{backup.label} was taken and failed its proof: {backup.proof['why']}: {differences}",
            "a backup that loads to what the server had",
            "it is left in place to be looked at; see the memory and disk of this host (dmesg), take another one",
        )
    return result_of(changes, source=source, **state)


def existing(module: AnsibleModule, store: Store, settings: Settings, host: Host) -> dict:
    """Something about a backup that is there."""
    wanted, backup = module.params["state"], store.find(module.params["backup"])
    before, after, words = {
        "proven": (told(backup)["state"], "proven again", f"load {backup.label} and compare"),
        "kept": ("kept" if backup.keep else "by policy", "kept", f"keep {backup.label}"),
        "released": ("kept" if backup.keep else "by policy", "by policy", f"leave {backup.label} to the policy"),
        "absent": ("present", None, f"delete {backup.label}"),
    }[wanted]
    if wanted == "absent" and backup.proven and [one.label for one in store.all() if one.proven] == [backup.label]:
        raise Refusal(
            "last_proven",
            f"{backup.label} is the only proven backup of {store.set_name}",
            "another proven one",
            "take and prove a newer one first",
        )
    changes = [] if before == after else [Change("backup", backup.label, before, after, words)]
    if changes and not module.check_mode:
        with store.locked():
            if wanted == "proven":
                backup = prove_backup(store, backup, settings, host)
            elif wanted == "absent":
                store.delete(backup.label)
            else:
                store.set_keep(backup, wanted == "kept")
    if wanted == "absent":
        return result_of(changes, backup=None, state="absent", path="", source="")
    return result_of(changes, source="", **told(backup if module.check_mode else store.read(backup.label)))


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    settings, store = settings_of(params), Store(params["directory"], params["set_name"])
    return (present if params["state"] == "present" else existing)(module, store, settings, host)


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
