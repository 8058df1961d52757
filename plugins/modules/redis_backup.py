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
    keys with their values and expiry), hashes every file, seals a manifest last, then loads the copy into a temporary server and compares. A
    backup that went all the way is V(verified); RV(backup) lists in C(compared) what that rests on.
  - Nothing of the server is changed. Nothing is paused, but for writes with method V(aof), for some milliseconds, on a server whose keys expire all the time. Files
    are read through descriptors that were opened once, so a rewrite of the AOF meanwhile does no harm, and a run that was cut off leaves nothing but a directory without a label, which the next run removes.
  - In check mode it does the checks, and says what it would do.
extends_documentation_fragment:
  - redisops.recovery.backup
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  state:
    description:
      - V(present) takes a backup, unless a verified one is younger than O(max_age).
      - V(verified) verifies the one that O(backup) names again.
      - V(pinned) marks it, so that it is never deleted by policy; V(unpinned) takes the mark away.
      - V(absent) deletes it. The last verified backup is never deleted.
      - V(fetched) brings it from the first of O(repositories), verified; to verify or to restore it here.
      - V(expired) deletes what O(retention) does not keep, on this host. V(present) does so after each backup.
    type: str
    choices: [present, verified, pinned, unpinned, absent, fetched, expired]
    default: present
  backup:
    description: Label of a backup, V(latest), V(oldest) or V(latest_verified); not for V(present).
    type: str
    default: latest
seealso:
  - module: redisops.recovery.redis_backup_info
  - module: redisops.recovery.redis_restore
"""

EXAMPLES = r"""
- name: Take a backup, and verify it
  redisops.recovery.redis_backup:
    group_name: orders
    assertions:
      - {key: "orders:index", type: zset, min_count: 1000}
  register: backup
  failed_when: backup.failed or backup.state != 'verified'

- name: Keep last night's backup, whatever the policy says
  redisops.recovery.redis_backup:
    group_name: orders
    state: pinned
    backup: latest_verified
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
backup:
  description: The backup, as a row of RV(redisops.recovery.redis_backup_info#module:groups[].backups); null where none was taken.
  returned: success
  type: dict
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: fork_memory
directory:
  description: Where it lies.
  returned: success
  type: str
decisions:
  description: For V(expired), what becomes of each backup and why, newest first.
  returned: O(state=expired)
  type: list
  elements: dict
source:
  description: Who of RV(ignore:group_hosts) gives the backup, and why.
  returned: success
  type: str
state:
  description: V(verified), V(loaded), V(copied), V(failed), V(elsewhere) (another host of the group takes it) or V(absent).
  returned: success
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import require_backup
from ansible_collections.redisops.recovery.plugins.module_utils.backup.job import Job, run
from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import fetch, let_go, named
from ansible_collections.redisops.recovery.plugins.module_utils.backup.shard_store import slots_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.status import row_of
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Backup, Store, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import (
    backup_spec,
    connection_spec,
    job_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import connect
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    **backup_spec(),
    "state": {
        "type": "str",
        "choices": ["present", "verified", "pinned", "unpinned", "absent", "fetched", "expired"],
        "default": "present",
    },
    "backup": {"type": "str", "default": "latest"},
}


def shown(backup: Backup) -> dict:
    row = row_of(backup)
    return {"backup": row, "state": row["state"], "directory": backup.directory}


def present(module: AnsibleModule, job: Job, host: Host) -> dict:
    done = run(job, host, module.check_mode)
    about = shown(done.backup) if done.backup else {"backup": None, "directory": ""}
    return result_of(done.changes, source=done.source, **{**about, "state": done.state})


def running(job: Job) -> str:
    """Product and version of the server; empty where it does not answer."""
    try:
        server = connect(job.login, 5.0)
    except Problem:
        return ""
    return server.info("server").product


def existing(module: AnsibleModule, job: Job, host: Host) -> dict:
    """Something about a backup that is there."""
    store, wanted = job.store(), module.params["state"]
    backup = store.find(module.params["backup"])
    before, after, words = {
        "verified": (row_of(backup)["state"], "verified again", f"load {backup.label} and compare"),
        "pinned": ("pinned" if backup.pinned else "by policy", "pinned", f"keep {backup.label}"),
        "unpinned": ("pinned" if backup.pinned else "by policy", "by policy", f"leave {backup.label} to the policy"),
        "absent": ("present", None, f"delete {backup.label}"),
    }[wanted]
    if wanted == "absent" and backup.verified and [one.label for one in store.all() if one.verified] == [backup.label]:
        raise Refusal(
            "last_verified",
            f"{backup.label} is the only verified backup of {store.group_name}",
            "another verified one",
            "take and verify a newer one first",
        )
    changes = [] if before == after else [Change("backup", backup.label, before, after, words)]
    if changes and not module.check_mode:
        with store.locked():
            if wanted == "verified":
                backup = require_backup(store, backup, job.settings, host, running(job))
            elif wanted == "absent":
                store.delete(backup.label)
            else:
                store.set_pinned(backup, wanted == "pinned")
    if wanted == "absent":
        return result_of(changes, backup=None, state="absent", directory="", source="")
    return result_of(changes, source="", **shown(backup if module.check_mode else store.read(backup.label)))


def own_store(job: Job) -> Store:
    """That of the shard where a node of a cluster answers; a server that is down may be what the backup is fetched for."""
    try:
        server = connect(job.login, 5.0)
    except Problem:
        return job.store()
    return job.store(slots_of(server, server.info("cluster")))


def damage_of(backup: Backup) -> list[str]:
    """What is wrong with the files of a backup that lies here, each in words."""
    return [backup.problem] if backup.manifest is None else verify_files(backup.directory, backup.manifest)


def fetched(module: AnsibleModule, job: Job, host: Host) -> dict:
    if not job.repositories:
        raise Problem(
            "invalid_value", "state: fetched, and no repository was named", "one of repositories", "set repositories"
        )
    store, place = own_store(job), job.repositories[0].repository
    snapshot, label = named(store, module.params["backup"], place, host)
    damaged = label in store.labels() and damage_of(store.read(label))
    if label in store.labels() and not damaged:
        return result_of([], source=place.name, **shown(store.read(label)))
    words = f"fetch {label} from {place.name} and verify its files"
    if damaged:
        words = f"put the damaged {label} aside ({damaged[0]}), {words}"
    changes = [Change("backup", label, "damaged" if damaged else None, f"from {place.name}", words)]
    if module.check_mode:
        return result_of(changes, source=place.name, backup=None, state="copied", directory="")
    store.prepare()
    with store.locked():
        if damaged:
            store.put_aside(label)
        backup = fetch(store, snapshot, place, host, job.settings.timeout)
    return result_of(changes, source=place.name, **shown(backup))


def expired(module: AnsibleModule, job: Job, _host: Host) -> dict:
    store = job.store()
    store.find("latest")  # or say that there is none
    decisions = let_go(store, job.retention, time.time(), check=True)
    changes = [
        Change("backup", one.label, "present", None, f"delete {one.label}: {one.why}")
        for one in decisions
        if not one.retained
    ]
    changes += [
        Change("backup", one.label, "verified", "failed", f"call {one.label} failed: {one.damage}")
        for one in decisions
        if one.damage and one.retained
    ]
    if changes and not module.check_mode:
        with store.locked():
            let_go(store, job.retention, time.time())
    return result_of(
        changes,
        backup=None,
        state="absent" if any(not one.retained for one in decisions) else "present",
        directory="",
        source="",
        decisions=[vars(one) for one in decisions],
    )


def body(module: AnsibleModule) -> dict:
    job = job_of(module.params)
    ways = {"present": present, "fetched": fetched, "expired": expired}
    return ways.get(module.params["state"], existing)(module, job, Host())


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
