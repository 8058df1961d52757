#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_health_info
short_description: Report the configured durability of a server, what a power cut now would cost, and what is wrong
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Reads the server, its files, its host, its logs, its Sentinel and its backups once, and gives a finding for each thing that can be wrong. A finding
    has a code that stays what it is, how bad it is, what was seen, why it matters, what to do, and its page in C(docs/reference/findings.md).
  - RV(crash_loss) is what a power cut at this instant would cost, in seconds of writes, and how that was computed.
  - A server that is down is a finding, not a failure of the module. What cannot be looked at is V(unknown), with the reason, and never guessed.
  - Changes nothing. Of logs at most the last 4 MiB are read. The ACL preset C(monitoring) of M(redisops.recovery.redis_acl) is enough for the
    server; files, logs, C(/proc) of another user's process and backups need root.
extends_documentation_fragment:
  - redisops.recovery.health
  - redisops.recovery.connection
  - redisops.recovery.attributes.info
options:
  log_since:
    description: How far back logs are read, V(90min), V(24h), V(7d), or a time such as V(2024-01-01T10:00:00Z).
    type: str
    default: 24h
seealso:
  - module: redisops.recovery.redis_host_info
  - module: redisops.recovery.redis_backup_info
  - module: redisops.recovery.redis_file_check
"""

EXAMPLES = r"""
- name: See how a server is
  redisops.recovery.redis_health_info:
    login_user: monitoring
    login_password: "{{ vault_redis_monitoring_password }}"
  register: health

- name: Hold a server to the objectives
  redisops.recovery.redis_health_info:
    group_name: orders
    sentinel_port: 26379
    crash_loss_seconds: 5
    rpo_seconds: 93600
    max_drill_age: 2678400
  register: health
  failed_when: health.failed or health.status == 2
"""

RETURN = r"""
crash_loss:
  description: What a power cut at this instant would cost.
  returned: success
  type: dict
  contains:
    seconds:
      description: Seconds of writes at most; null where there is no bound, or where it is not known.
      type: float
    writes:
      description: Number of writes, where the server counts them.
      type: int
    text:
      description: The same in words.
      type: str
    how:
      description: How it was computed.
      type: str
    known:
      description: Whether it is known.
      type: bool
  sample: {"seconds": 2.0, "writes": null, "text": "up to 2 s of writes", "how": "AOF, appendfsync: synced every second", "known": true}
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: invalid_value
facts:
  description: Values for a report on a fleet; null where one is not known. Times are ISO 8601 in UTC.
  returned: success
  type: dict
  contains:
    group_name:
      description: O(group_name).
      type: str
    address:
      description: Where the server was asked.
      type: str
    role:
      description: V(primary) or V(replica).
      type: str
    primary:
      description: Address of the primary, as this server knows it.
      type: str
    version:
      description: Product and version.
      type: str
    uptime_seconds:
      description: Seconds since the start.
      type: int
    keys_total:
      description: Keys in all databases.
      type: int
    used_memory_bytes:
      description: Memory in use.
      type: int
    configured_durability:
      description: What is kept, in words, such as C(AOF everysec + RDB (900 1)).
      type: str
    last_save:
      description: The last whole RDB on disk, RV(ignore:time), RV(ignore:age_seconds), and RV(ignore:source), V(file) or V(manifest) (the base of the AOF).
      type: dict
    last_verified_backup:
      description: RV(ignore:name), RV(ignore:time) and RV(ignore:age_seconds) of the last backup on this host that was loaded and compared.
      type: dict
    backups:
      description: RV(ignore:name), RV(ignore:time) and RV(ignore:status) of each backup on this host, oldest first.
      type: list
      elements: dict
    drills:
      description: RV(ignore:time), RV(ignore:ok), RV(ignore:rpo_seconds), RV(ignore:rto_seconds) and RV(ignore:phases) of each drill, oldest first.
      type: list
      elements: dict
    replication:
      description: RV(ignore:link), RV(ignore:lag_seconds), RV(ignore:offset), and RV(ignore:replicas) of a primary.
      type: dict
    sentinel:
      description: The Sentinel, whether it RV(ignore:answers), RV(ignore:tilt), and what is RV(ignore:watched).
      type: dict
    objectives:
      description: What the server was held to, O(crash_loss_seconds), O(rpo_seconds) and O(rto_seconds); 0 for no objective.
      type: dict
findings:
  description: Every finding, the worst first, those that are ok as well.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: Stable name. With severity V(ok) it says that this trouble is not there.
      type: str
    severity:
      description: V(critical), V(warning), V(unknown), V(info) or V(ok).
      type: str
    detected:
      description: What was observed; or C(not known, because …).
      type: str
    why:
      description: Why it matters. Empty where RV(ignore:severity) is V(ok).
      type: str
    do:
      description: What to do, a command or a variable. Empty where RV(ignore:severity) is V(ok).
      type: str
    page:
      description: Where the documentation says more.
      type: str
log:
  description: What the logs tell, a row for each kind of line, with RV(ignore:code), RV(ignore:source) (V(server) or V(kernel)),
    RV(ignore:count), RV(ignore:first) and RV(ignore:last) (ISO 8601 in UTC, or null), RV(ignore:line), and whether it is RV(ignore:over).
  returned: success
  type: list
  elements: dict
reached:
  description: For each of V(critical), V(warning), V(unknown) and V(info) whether a finding is as bad as that, or worse.
  returned: success
  type: dict
status:
  description: V(0) ok, V(1) a warning, V(2) something critical, V(3) something is not known, and nothing known is wrong.
  returned: success
  type: int
status_text:
  description: The same as a word.
  returned: success
  type: str
text:
  description: Everything that is not ok, for people.
  returned: success
  type: str
"""

import dataclasses
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.health.collect import read_facts
from ansible_collections.redisops.recovery.plugins.module_utils.health.exposure import crash_loss_now
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import (
    SEVERITIES,
    STATUS_TEXT,
    reached,
    render_text,
    status_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import moment
from ansible_collections.redisops.recovery.plugins.module_utils.health.summary import findings_of, report, title
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec_health import (
    health_spec,
    objectives_of,
    question_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    **health_spec(),
    "log_since": {"type": "str", "default": "24h"},
}


def body(module: AnsibleModule) -> dict:
    params = module.params
    question = question_of(params, moment(params["log_since"], time.time()))
    facts = read_facts(question, Host())
    objectives = objectives_of(params)
    findings, crash_loss = findings_of(facts, objectives), crash_loss_now(facts)
    status = status_of(findings)
    events = [("server", one) for one in facts.log.events] + [("kernel", one) for one in facts.log.kernel_events]
    words = f"{crash_loss['text']} ({crash_loss['how']})" if crash_loss["known"] else str(crash_loss["how"])
    return {
        "changed": False,
        "crash_loss": crash_loss,
        "facts": report(facts, params["group_name"], objectives),
        "findings": [one.row() for one in findings],
        "log": [{**dataclasses.asdict(one), "source": source} for source, one in events],
        "reached": {name: reached(findings, name) for name in SEVERITIES if name != "ok"},
        "status": status,
        "status_text": STATUS_TEXT[status],
        "text": render_text(title(facts, params["group_name"]), findings, words),
    }


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
