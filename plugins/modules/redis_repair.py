#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_repair
short_description: Repair the damaged data files of a server by the way that loses least
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Gives a verdict on each file that the server reads at its start (as M(redisops.recovery.redis_file_check)), finds in the log why it does not
    start, asks what else there is of the data, and makes a list of the ways to repair it, each with what it loses in bytes, commands and seconds.
    The one that loses least is taken.
  - C(memory), of a server that runs with damaged files, writes them anew. C(manifest) writes an AOF's lost manifest anew from the names of its
    files. C(backup) restores a verified backup from this host or a repository. C(replica) takes a backup of another host of the group and restores that.
    C(archive) puts the AOF together from the live one and from what backups by method V(aof) and the kept archive have of the same files.
    C(snapshot) begins with the RDB file that lies next to the AOF. C(truncation) is C(redis-check-aof --fix) on a copy.
  - Whatever is brought is loaded by a temporary server before the live files are touched, and takes their place in one step of the file system, as
    with M(redisops.recovery.redis_restore). The damaged files are kept next to the data.
  - Commands that the AOF holds are thrown away only with O(allow_truncation=true). Where that would lose less than all else, it is refused until you
    say so, or until you name another O(method). A way whose loss is not known is taken by its name only, also where it is the only one.
  - In check mode the same is decided, and refused, and nothing is touched.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  method:
    description: The way to take; V(auto) is the one that loses least. One whose source is in doubt is taken only by its name.
    type: str
    choices: [auto, memory, manifest, backup, replica, archive, snapshot, truncation]
    default: auto
  allow_truncation:
    description: Whether commands of the AOF that is after the corruption offset may be thrown away.
    type: bool
    default: false
  backup:
    description: Label of a backup, or V(latest_verified). Only verified ones are used.
    type: str
    default: latest_verified
  directory:
    description: Where backups are kept, on the managed host.
    type: path
    default: /var/backups/redis
  group_name:
    description: Name of the group that the server is of.
    type: str
    default: redis
  repositories:
    description: Where else backups are, as O(redisops.recovery.redis_backup#module:repositories).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in results.
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
      retention:
        description: Not used here, so that the same list can be given.
        type: dict
  elsewhere:
    description: Verified backups of the group that lie on other hosts of the group, as C(label), C(at) (seconds since 1970) and C(host). They are weighed; to be
      restored they have to be brought here, which the playbook C(repair) does.
    type: list
    elements: dict
    default: []
  group_hosts:
    description: Servers of the group; they are asked for their data, with the login of this one.
    type: list
    elements: str
    default: []
  address:
    description: Which of O(group_hosts) the managed host is.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  archive:
    description: Directories in which the AOF's archive was kept, next to the one that the server's own timer uses.
    type: list
    elements: path
    default: []
  test_load:
    description: Whether a backup's copy is loaded in a temporary server before it takes the place of the data. What is put together of an AOF always is.
    type: bool
    default: true
  config_file:
    description: Configuration file of the server.
    type: path
    default: /etc/redis/redis.conf
  unit:
    description: Name of the systemd service without C(.service); V(auto) finds the packaged one.
    type: str
    default: auto
  timeout:
    description: Longest time of one step, in seconds.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_file_check
  - module: redisops.recovery.redis_restore
"""

EXAMPLES = r"""
- name: See what is the matter, and what each way would lose
  redisops.recovery.redis_repair:
    group_name: orders
  check_mode: true
  register: repair

- name: Repair it, and throw away what is after the corruption offset if that loses least
  redisops.recovery.redis_repair:
    group_name: orders
    allow_truncation: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
address:
  description: This server among O(group_hosts); empty without them.
  returned: always
  type: str
cause:
  description: The line of the log that tells why the last start failed (C(code), C(line), C(last), C(why), C(do)); null where there is none.
  returned: always
  type: dict
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: truncation_not_allowed
files:
  description: A verdict on each file, as RV(redisops.recovery.redis_file_check#module:files).
  returned: always
  type: list
  elements: dict
kept:
  description: Where the damaged files are kept; in check mode empty.
  returned: success
  type: str
keys:
  description: Keys before (null where the server did not run) and after; null in check mode.
  returned: success
  type: dict
methods:
  description: Every way in order, with C(method), C(possible), C(because), C(loses), C(do), C(needs) (an option), C(source) and C(where). Empty where
    nothing is damaged.
  returned: always
  type: list
  elements: dict
loses:
  description: What the way that was taken loses, as C(bytes), C(commands) and C(seconds); null where nothing was to be repaired.
  returned: success
  type: dict
primary:
  description: The member that is a primary by now, next to this server; empty where there is none, or where nothing is damaged.
  returned: always
  type: str
method:
  description: The way that was taken, or would be; empty where nothing is to be repaired.
  returned: success
  type: str
running:
  description: Whether the server ran when it was looked at.
  returned: always
  type: bool
seconds:
  description: For how long a running server was away; null in check mode.
  returned: success
  type: float
source:
  description: The backup or the host of the group that the data comes from, for those methods.
  returned: always
  type: str
state:
  description:
    - V(good), V(stopped) (no server, and nothing wrong with its files), V(newer) (files of a newer release) or V(damaged), as it was found.
    - A stopped server is left so, unless a run that was cut off stopped it.
  returned: always
  type: str
where:
  description: Where the backup lies, if not on this host.
  returned: always
  type: str
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import store_of
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import (
    connection_spec,
    login_of,
    repositories_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive_dirs, archive_locked
from ansible_collections.redisops.recovery.plugins.module_utils.repair.apply import carry_out, require_harmless, words
from ansible_collections.redisops.recovery.plugins.module_utils.repair.diagnose import Sources, find_target, read
from ansible_collections.redisops.recovery.plugins.module_utils.repair.plan import METHODS, choose, plan
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts
from ansible_collections.redisops.recovery.plugins.module_utils.restore.apply import cut_off, resume
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import Target
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    "method": {"type": "str", "choices": ["auto", *METHODS], "default": "auto"},
    "allow_truncation": {"type": "bool", "default": False},
    "backup": {"type": "str", "default": "latest_verified"},
    "directory": {"type": "path", "default": "/var/backups/redis"},
    "group_name": {"type": "str", "default": "redis"},
    "repositories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "location": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "options": {"type": "list", "elements": "str", "default": []},
            "retention": {"type": "dict"},
        },
    },
    "elsewhere": {"type": "list", "elements": "dict", "default": []},
    "group_hosts": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str"},
    "address_variables": {"type": "list", "elements": "str", "default": ["redis_replication_address", "ansible_host"]},
    "archive": {"type": "list", "elements": "path", "default": []},
    "test_load": {"type": "bool", "default": True},
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "unit": {"type": "str", "default": "auto"},
    "timeout": {"type": "int", "default": 3600},
}


def sources_of(params: dict, target: Target) -> Sources:
    if any(not {"label", "at", "host"} <= set(row) for row in params["elsewhere"]):
        raise Problem("invalid_value", "elsewhere: a row lacks label, at or host", "all three", "set them")
    if any(not isinstance(row["at"], (int, float)) for row in params["elsewhere"]):
        raise Problem(
            "invalid_value", "elsewhere: at is no number", "seconds since 1970", "set at to when the backup was taken"
        )
    return Sources(
        store_of(params["directory"], params["group_name"], target.slots),
        params["backup"],
        tuple(row.repository for row in repositories_of(params["repositories"])),
        tuple(params["elsewhere"]),
        tuple(params["group_hosts"]),
        GroupHosts(params["group_hosts"], params["address"] or "").own if params["group_hosts"] else "",
        tuple(params["archive"]),
    )


def repaired(module: AnsibleModule, target: Target, sources: Sources, about: dict) -> dict:
    """Choose and act; ``about`` is filled with what was seen, for refusals as well."""
    params = module.params
    facts, repaired = read(target, sources, params["timeout"])
    found = plan(facts)
    about.update(
        state=found.state,
        running=facts.running,
        cause=found.cause,
        files=list(facts.files),
        methods=[method.row() for method in found.methods],
        primary=next((peer.address for peer in facts.peers if peer.role == "primary"), ""),
    )
    method = choose(found, params["method"], params["allow_truncation"])
    if method is None:
        return resumed(module, target)
    if params["method"] == "auto":
        method = dataclasses.replace(method, had=facts.had_keys or 0)
    about.update(source=method.source, where=method.where)
    require_harmless(target, method, sources, repaired, params["test_load"])
    before = ", ".join(f"{row['path']} is {row['verdict']}" for row in found.damaged)
    after = (
        f"by {method.method}" + (f" ({method.source})" if method.source else "") + f"; lost: {method.loses.loss_text}"
    )
    first, *rest = words(target, method)
    changes = [Change("data", target.place.dir, before, after, first)]
    changes += [Change("data", target.place.dir, None, None, word) for word in rest]
    loses = method.row()["loses"]
    if module.check_mode:
        return result_of(
            changes,
            method=method.method,
            loses=loses,
            kept="",
            seconds=None,
            keys={"before": target.keys, "after": None},
        )
    done = carry_out(target, method, sources, repaired, facts.files, params["test_load"])
    keys = {"before": target.keys, "after": done.keys}
    return result_of(changes, method=method.method, loses=loses, kept=done.kept, seconds=done.seconds, keys=keys)


def resumed(module: AnsibleModule, target: Target) -> dict:
    """Nothing is damaged; a run that was cut off before it started the server is ended."""
    rollback_copy, words = cut_off(target), f"start {target.unit}: a run that was cut off had put its data in place"
    changes = [Change("data", target.unit, "stopped", "started", words)] if rollback_copy else []
    keys, kept, seconds = {"before": target.keys, "after": target.keys}, "", None
    if rollback_copy and not module.check_mode:
        done = resume(target, rollback_copy)
        keys, kept, seconds = {"before": None, "after": done.keys}, done.kept, done.seconds
    return result_of(changes, method="", loses=None, kept=kept, seconds=seconds, keys=keys)


def body(module: AnsibleModule) -> dict:
    params = module.params
    target = find_target(
        params["config_file"], login_of(params), Host(), params["unit"], params["timeout"], not module.check_mode
    )
    sources = sources_of(params, target)
    about = {"address": sources.address, "source": "", "where": ""}
    try:
        with archive_locked(archive_dirs(target.place)):  # the host's timer may remove what is old while it is read
            return {**repaired(module, target, sources, about), **about}
    except Problem as problem:
        problem.details = {**about, **problem.details}
        raise


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
