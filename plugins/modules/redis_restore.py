#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_restore
short_description: Put a backup in the place of a server's data, or take that back
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Verifies the backup's hashes, copies it next to the data in the form that the server reads (AOF or RDB, whatever the backup is), loads that
    copy with the server's own program and compares it, and only then stops the server, switches the copy and the data in one step
    of the file system, starts the server and looks at its keys. If it does not come up as it should, the data goes back.
  - What was there before is kept next to the data in a directory C(redisops-restore-TIME) until O(state=cleaned).
  - A run that was cut off leaves the old data or the new, never a mixture and never nothing.
  - In check mode it says what it would do, with figures, after the same checks.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  state:
    description:
      - V(present) restores O(backup).
      - V(rolled_back) puts back what the last restore replaced. What was there is kept in turn.
      - V(cleaned) deletes what restores have left to go back to.
      - V(failover_blocked) lets no replica of a cluster take over while its primary is restored (live only; nothing on other servers). A timer on
        the host holds a replica that restarts meanwhile again, and lets it go by itself two hours later, should nobody have;
        V(failover_allowed) takes that back and waits until the replica has copied its primary.
    type: str
    choices: [present, rolled_back, cleaned, failover_blocked, failover_allowed]
    default: present
  backup:
    description: Label of a backup, V(latest_verified), V(latest) or V(oldest).
    type: str
    default: latest_verified
  directory:
    description: Where backups are kept, on the managed host.
    type: path
    default: /var/backups/redis
  group_name:
    description: Name of the group that the backup is of. On a node of a cluster that of its shard is found by its slots.
    type: str
    default: redis
  to_time:
    description:
      - In place of a backup, what the data was at the end of this second, out of the AOF's archive (the live AOF, O(archive), and backups by
        method V(aof)). Seconds since 1970, or a time with its zone such as V(2026-11-24T22:00:00Z). It takes C(aof-timestamp-enabled yes) at that time.
      - A moment that is not there is refused, with the ranges that are.
    type: str
  undo_flush:
    description:
      - In place of a backup, what the data was right before the newest FLUSHALL, FLUSHDB or SWAPDB in the AOF's archive, to the byte. What
        was written after it is not in it; it is kept with what was there, as the evidence.
    type: bool
    default: false
  archive:
    description: Directories in which the AOF's archive was kept.
    type: list
    elements: path
    default: []
  allow_unverified:
    description: Whether a backup that was not verified may be restored. It is loaded and compared in any case, if O(test_load=true).
    type: bool
    default: false
  allow_other_server:
    description: Whether a backup of another server of this host may be restored, so that this server has the other one's data.
    type: bool
    default: false
  test_load:
    description: Whether the copy is loaded next to the running server first. That takes memory for both.
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
  - module: redisops.recovery.redis_backup
  - module: redisops.recovery.redis_backup_info
"""

EXAMPLES = r"""
- name: See what a restore would do
  redisops.recovery.redis_restore:
    group_name: orders
  check_mode: true
  register: plan

- name: Restore a certain backup
  redisops.recovery.redis_restore:
    group_name: orders
    backup: 20261124T020000Z-rdb

- name: Undo a FLUSHALL
  redisops.recovery.redis_restore:
    undo_flush: true

- name: Put back what was there before
  redisops.recovery.redis_restore:
    group_name: orders
    state: rolled_back
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
  sample: slots_differ
keys:
  description: Keys before and after; null where that is not known.
  returned: success
  type: dict
kept:
  description: Where the data from before is kept; in check mode empty.
  returned: success
  type: str
layers:
  description:
    - Where the data is after it, such as V(AOF and RDB). Where both are configured, the RDB file is saved before success is told.
  returned: when the data was switched
  type: str
plan:
  description:
    - The backup, its bytes and keys, what it takes, and for how many seconds the server would be away (null where that is not known).
    - C(keys_expired) is how many of its C(keys) have run out since, at least, and will be gone; null where the backup was not loaded, or has
      too many keys to look at each.
  returned: success
  type: dict
target:
  description:
    - The server as it was found, C(role) (V(primary), V(replica), or null where it is stopped), C(slots) of its cluster's shard, and C(group_name)
      in which backups were looked for. With refusals as well.
  returned: O(state=present) with a backup
  type: dict
seconds:
  description: For how long the server was away; null in check mode.
  returned: success
  type: float
"""

import contextlib
import os
import typing

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import store_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, Store
from ansible_collections.redisops.recovery.plugins.module_utils.cluster.failover_hold import set_failover_hold
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.core.timestamps import moment_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.keep import held_still
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import rollback_copies
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import archive_dirs, archive_locked
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.recover import (
    archive_of,
    before_flush,
    to_moment,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.apply import (
    bring,
    bring_point,
    kept_changes,
    put_back,
    require_backup_fits,
    require_point_fits,
    require_put_back,
)
from ansible_collections.redisops.recovery.plugins.module_utils.restore.collect import Target, read_target
from ansible_collections.redisops.recovery.plugins.module_utils.restore.exchange import Done
from ansible_collections.redisops.recovery.plugins.module_utils.restore.plan import require_let_go, require_not_less
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import discard, discard_unfinished
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import renamed_commands
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    "state": {
        "type": "str",
        "choices": ["present", "rolled_back", "cleaned", "failover_blocked", "failover_allowed"],
        "default": "present",
    },
    "backup": {"type": "str", "default": "latest_verified"},
    "directory": {"type": "path", "default": "/var/backups/redis"},
    "group_name": {"type": "str", "default": "redis"},
    "to_time": {"type": "str"},
    "undo_flush": {"type": "bool", "default": False},
    "archive": {"type": "list", "elements": "path", "default": []},
    "allow_unverified": {"type": "bool", "default": False},
    "allow_other_server": {"type": "bool", "default": False},
    "test_load": {"type": "bool", "default": True},
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "unit": {"type": "str", "default": "auto"},
    "timeout": {"type": "int", "default": 3600},
}


def target_of(params: dict) -> Target:
    return read_target(params["config_file"], login_of(params), Host(), params["unit"], params["timeout"])


def chosen(params: dict, store: Store) -> Backup:
    """The backup that was asked for. Raises Problem or Refusal."""
    backup = store.find(params["backup"])
    if backup.manifest is None:
        raise Problem(
            "manifest_damaged", f"{backup.label}: {backup.problem}", "a whole manifest", "name another backup"
        )
    if not backup.verified and not params["allow_unverified"]:
        raise Refusal(
            "not_verified",
            f"{backup.label} was not verified ({backup.state}: {backup.proof.get('why') or 'no proof was tried'})",
            "a backup that was loaded and compared",
            "verify it (redis_backup, state: verified), name another one, or set allow_unverified: true",
        )
    return backup


def shown(target: Target, group_name: str) -> dict:
    info = target.instance.info
    role = {"slave": "replica", "master": "primary"}.get(info.text("role")) if target.instance.running else None
    return {"role": role, "slots": list(target.slots), "group_name": group_name}


def present(module: AnsibleModule) -> dict:
    target = target_of(module.params)
    name = store_of(module.params["directory"], module.params["group_name"], target.slots).group_name
    try:
        return {**brought(module, target), "target": shown(target, name)}
    except Problem as problem:
        problem.details["target"] = shown(target, name)
        raise


def ended(target: Target, changes: list[Change], plan: dict, done: typing.Optional[Done]) -> dict:
    """The result of a switch; ``done`` None: it has not been done."""
    keys = {"before": target.keys, "after": done.keys if done else None}
    more = (
        {"kept": done.kept, "seconds": done.seconds, "layers": done.layers} if done else {"kept": "", "seconds": None}
    )
    return result_of(changes, plan=plan, keys=keys, **more)


def steps(target: Target, declared: str, words: list[str]) -> list[Change]:
    """One change of the data, in several steps."""
    first = Change("data", target.place.dir, target.keys_text, declared, words[0])
    return [*kept_changes(target), first, *(Change("data", target.place.dir, None, None, word) for word in words[1:])]


def brought(module: AnsibleModule, target: Target) -> dict:
    """A backup in the place of the data."""
    params = module.params
    store = store_of(params["directory"], params["group_name"], target.slots)
    backup = chosen(params, store)
    if params["backup"] == "latest_verified":
        earlier = {one.label: one.manifest.total_keys for one in store.all() if one.verified and one.manifest}
        require_not_less(backup.manifest, earlier, target.keys)
    plan = require_backup_fits(target, backup, store.group_name, params["test_load"], params["allow_other_server"])
    words = [
        f"verify {backup.label} and copy it next to the data",
        *(["load the copy and compare it"] if params["test_load"] else []),
        f"stop {target.unit}, switch the two at once, start it and look at its keys, else put the data back",
    ]
    changes = steps(target, f"{backup.label}: {plan['keys']} keys", words)
    if module.check_mode:
        return ended(target, changes, plan, None)
    discard_unfinished(target.place)
    done = bring(target, backup, params["test_load"])
    return ended(target, changes, plan, done)


def rewound(module: AnsibleModule) -> dict:
    """Back in the AOF's archive."""
    params, target = module.params, target_of(module.params)
    if params["to_time"] and params["undo_flush"]:
        raise Problem("invalid_value", "to_time and undo_flush are both set", "one of them", "take one out")
    at = moment_of(params["to_time"]) if params["to_time"] else None
    live = ""
    server = target.instance.server
    with contextlib.ExitStack() as until:
        # The host's timer may remove what is old while it is read.
        until.enter_context(archive_locked(archive_dirs(target.place)))
        if not module.check_mode:
            discard_unfinished(target.place)
            live = until.enter_context(held_still(target.place)) if os.path.isfile(target.place.manifest) else ""
        store = store_of(params["directory"], params["group_name"], target.slots)
        archive = archive_of(target.place, server, store, params["archive"], live)
        renamed = renamed_commands(target.instance.directives)
        point = before_flush(archive, target.host, renamed) if at is None else to_moment(archive, at, target.host)
        plan = require_point_fits(target, point)
        words = [
            f"put the AOF together as it was: {point.label}",
            "load it next to the server",
            f"stop {target.unit}, switch the two at once, start it and look at its keys, else put the data back",
        ]
        changes = steps(target, point.label, words)
        if module.check_mode:
            return ended(target, changes, plan, None)
        done = bring_point(target, point)
    return ended(target, changes, plan, done)


def rolled_back(module: AnsibleModule) -> dict:
    target = target_of(module.params)
    found = [one for one in rollback_copies(target.place) if (one.swapped or one.stays) and one.label]
    if not found:
        raise Problem(
            "nothing_to_bring_back",
            f"next to {target.place.dir} lies nothing that a restore replaced",
            "an earlier restore that was not cleaned",
            "restore a backup",
        )
    rollback_copy = found[-1]
    words = f"stop {target.unit}, put back what {rollback_copy.path} holds, start it and look at its keys"
    changes = steps(target, f"what was there before {rollback_copy.label}", [words])
    plan = {"backup": rollback_copy.label, "from": rollback_copy.path}
    require_put_back(target, rollback_copy)
    if module.check_mode:
        return ended(target, changes, plan, None)
    done = put_back(target, rollback_copy)
    return ended(target, changes, plan, done)


def cleaned(module: AnsibleModule) -> dict:
    target = target_of(module.params)
    found = rollback_copies(target.place)
    require_let_go(found, target.instance.running)
    changes = [Change("data", one.path, "kept", None, f"delete {one.path}") for one in found]
    if not module.check_mode:
        for one in found:
            discard(one.path)
    return result_of(changes, plan={}, kept="", seconds=None, keys={"before": target.keys, "after": target.keys})


HELD = "/run/redisops"


def _hold(module: AnsibleModule, wanted: bool) -> dict:
    target = target_of(module.params)
    changes = set_failover_hold(
        target.instance.server, wanted, HELD, module.params["timeout"], module.check_mode, target.host
    )
    return result_of(changes, plan={}, kept="", seconds=None, keys={"before": target.keys, "after": target.keys})


def failover_blocked(module: AnsibleModule) -> dict:
    return _hold(module, True)


def failover_allowed(module: AnsibleModule) -> dict:
    return _hold(module, False)


def body(module: AnsibleModule) -> dict:
    params = module.params
    if params["state"] == "present" and (params["to_time"] or params["undo_flush"]):
        return rewound(module)
    ways = {
        "rolled_back": rolled_back,
        "cleaned": cleaned,
        "failover_blocked": failover_blocked,
        "failover_allowed": failover_allowed,
    }
    return ways.get(params["state"], present)(module)


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
