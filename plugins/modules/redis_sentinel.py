#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_sentinel
short_description: Declare what a Sentinel watches, live, and never touch its runtime state
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Declares the primaries that one Sentinel of Redis (or Valkey) watches, their settings, its own options, users, TLS and service.
  - A running Sentinel is changed by C(SENTINEL SET), C(MONITOR), C(REMOVE), C(CONFIG SET) and C(ACL SETUSER) only, and writes its
    file itself. What it takes at its start only is written while it is stopped, and never where the others could not fail over
    meanwhile.
  - Sentinel's runtime state (its id, epochs, known replicas and Sentinels, who is primary now) is never touched. A failover is
    never undone. A primary that is watched already keeps its address.
  - Where a primary is not watched yet, the other Sentinels are asked for it, then its servers. The declaration counts only where
    nothing exists.
  - Sentinel's login is tried on the primary before it is set, and its link is verified afterwards.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  login_port:
    description: Port of the Sentinel.
    type: int
    default: 26379
  primaries:
    description: The primaries to watch.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the primary; letters, digits, and C(.), C(_), C(-).
        type: str
        required: true
      quorum:
        description: Sentinels that have to agree that the primary is down. Most of them, but not all.
        type: int
        required: true
      group_hosts:
        description:
          - Its servers, each as C(host) or C(host:port), or a host of the inventory. Needed where it is not watched yet; without it a
            name that nobody knows is an error.
        type: list
        elements: str
      primary:
        description: Which of O(primaries[].group_hosts) is primary where nothing exists yet.
        type: str
      down_after_milliseconds:
        description: Silence after which this Sentinel holds the primary for down.
        type: int
        default: 30000
      failover_timeout:
        description: Milliseconds; a failover that takes longer is given up, and the next one waits twice as long.
        type: int
        default: 180000
      parallel_syncs:
        description: Replicas that are pointed to a new primary at a time.
        type: int
        default: 1
      auth_user:
        description: ACL user on the servers. Not given, it is left as it is; empty takes it away.
        type: str
      auth_password:
        description:
          - Password on the servers. Not given, it is left as it is; empty takes it away. Sentinel does not quote what it writes into
            its file, so that spaces, quotes and backslashes are refused.
        type: str
      notification_script:
        description: Program that is reported of warnings. Not given, it is left as it is; empty takes it away.
        type: path
      client_reconfig_script:
        description: Program that is reported of a new primary. Not given, it is left as it is; empty takes it away.
        type: path
  sentinels:
    description: All Sentinels of the group, this one among them, each as C(host) or C(host:port), or a host of the inventory.
    type: list
    elements: str
    required: true
  address:
    description: Which of O(sentinels) this one is. Not given, it is the managed host.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_sentinel_address, redis_replication_address, ansible_host]
  failure_domains:
    description:
      - What can fail at once, by Sentinel, for a warning. Not given, it is C(redis_sentinel_failure_domain) of the inventory's hosts.
    type: dict
  finish:
    description:
      - Whether to take away what is not declared, to forget what is stale, and to insist on the quorum. V(false) only adds, on all hosts
        before a second call with V(true). RV(settled) says whether that has work to do.
    type: bool
    default: true
  purge:
    description: Whether primaries and users that are not declared are removed. Where not, they are named in a warning.
    type: bool
    default: false
  reset:
    description:
      - Names of primaries of which replicas and Sentinels that are gone for good are forgotten (C(SENTINEL RESET)). Where there are none,
        nothing is done.
    type: list
    elements: str
    default: []
  reset_after:
    description: Seconds without an answer after which a replica or a Sentinel is considered removed.
    type: int
    default: 3600
  sentinel_user:
    description: ACL user by which the Sentinels log in to each other. Not given, it is left as it is; empty takes it away.
    type: str
  sentinel_password:
    description: Its password; without O(sentinel_user), that of the default user. Not given, it is left as it is; empty takes it away.
    type: str
  resolve_hostnames:
    description: Whether Sentinel takes host names for addresses.
    type: bool
    default: false
  announce_hostnames:
    description: Whether Sentinel tells host names where it has them.
    type: bool
    default: false
  announce_ip:
    description: Address that this Sentinel tells the others. Empty, they take the one that it connects from.
    type: str
    default: ""
  announce_port:
    description: Port that this Sentinel tells the others; 0 is the one it listens at.
    type: int
    default: 0
  users:
    description: Users of Sentinel itself, next to C(default).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      preset:
        description:
          - V(client) may ask who is primary, and listen. V(peer) is what Sentinels need of each other. V(admin) may do all, and is what
            this collection needs for itself.
        type: str
        choices: [admin, client, peer]
      rules:
        description: Rules as C(ACL SETUSER) takes them, behind those of the preset.
        type: list
        elements: str
        default: []
      passwords:
        description: Passwords, as plain text or as V(#) and the 64 hexadecimal digits of their SHA-256. Each of them works.
        type: list
        elements: str
        default: []
      nopass:
        description: Whether any password, or none, lets the user in.
        type: bool
        default: false
      enabled:
        description: Whether the user may log in.
        type: bool
        default: true
  default_user:
    description:
      - What becomes of the user that every connection is before it logs in. V(off) takes everything away, V(restricted) lets it C(PING),
        V(keep) leaves it as it is.
    type: str
    choices: ["off", restricted, keep]
    default: keep
  port:
    description: Port in plain text; 0 closes it.
    type: int
    default: 26379
  tls_port:
    description: Port with TLS; 0 is none.
    type: int
    default: 0
  tls_replication:
    description: Whether Sentinel speaks TLS to the servers and to the other Sentinels. Their ports are then those for TLS.
    type: bool
    default: false
  tls_auth_clients:
    description: Whether who connects has to show a certificate.
    type: str
    choices: ["yes", "no", optional]
    default: "yes"
  tls_cert_file:
    description: Certificate. A file that is newer than the process is loaded by a restart.
    type: path
  tls_key_file:
    description: Its private key.
    type: path
  tls_ca_cert_file:
    description: Authorities.
    type: path
  settings:
    description: Other directives that a Sentinel takes at its start, such as C(bind), C(protected-mode) and C(loglevel).
    type: dict
    default: {}
  config_file:
    description: Sentinel's file.
    type: path
    default: /etc/redis/sentinel.conf
  mode:
    description: The most that the file may give, four octal digits in quotes; passwords stand in it. A number is taken as the mode itself.
    type: raw
    default: "0640"
  unit:
    description: Name of the systemd service without C(.service); V(auto) finds the packaged one.
    type: str
    default: auto
  enabled:
    description: Whether it starts at boot.
    type: bool
    default: true
  restart:
    description: V(if_needed) restarts for what is taken at the start only; V(never) reports it, and leaves it.
    type: str
    choices: [if_needed, never]
    default: if_needed
  properties:
    description: Properties of the unit's section C([Service]), kept in a drop-in. Scripts add C(ExecPaths) to it.
    type: dict
    default: {}
  pending:
    description:
      - RV(pending) of the call with O(finish) V(false) before this one. In check mode that call has changed nothing, and what it named is
        not named again. Ignored otherwise.
    type: list
    elements: str
    default: []
  fresh_install:
    description:
      - Whether this run installed Sentinel itself. The diff is then reported against a host without it; in check mode,
        it may be missing.
    type: bool
    default: false
  timeout:
    description: Longest wait for the quorum, in seconds.
    type: int
    default: 120
seealso:
  - module: redisops.recovery.redis_replication
  - module: redisops.recovery.redis_acl
"""

EXAMPLES = r"""
- name: Let three Sentinels watch a set of servers
  redisops.recovery.redis_sentinel:
    sentinels: [redis-1, redis-2, redis-3]
    primaries:
      - name: orders
        quorum: 2
        group_hosts: [redis-1, redis-2, redis-3]
        primary: redis-1
        down_after_milliseconds: 5000
        auth_user: watch
        auth_password: "{{ vault_redis_sentinel_password }}"

- name: Forget a replica that is gone for good
  redisops.recovery.redis_sentinel:
    sentinels: [redis-1, redis-2, redis-3]
    primaries:
      - name: orders
        quorum: 2
    reset: [orders]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["SENTINEL MONITOR orders", "SENTINEL SET orders auth-pass"]
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
  sample: quorum_too_large
myid:
  description: The id of this Sentinel; empty where it does not run.
  returned: success
  type: str
pending:
  description: What this run changes, or would change in check mode, by name.
  returned: success
  type: list
  elements: str
primaries:
  description: >-
    What is watched, by name. C(address), C(quorum), C(usable) Sentinels as C(SENTINEL CKQUORUM) counts them, C(can_fail_over),
    C(flags), C(replicas) with address and flags, C(sentinels) next to this one, and C(because) for an address that this run looked up.
  returned: success
  type: dict
restart_required:
  description: What the running process will only have after a restart, where O(restart) is V(never).
  returned: success
  type: list
  elements: str
running:
  description: Whether it ran when the module began.
  returned: success
  type: bool
settled:
  description: Whether a call with O(finish) V(true) would have nothing left to do.
  returned: success
  type: bool
tilt:
  description: Whether this Sentinel is in TILT mode, in which it does nothing.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.apply import await_quorum
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import report_of, watched_by
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.plan import advice, cautions
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.watch_apply import (
    Plan,
    State,
    apply,
    plan_of,
    read_state,
    require_safe,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import parse_mode
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    **connection_spec(),
    "login_port": {"type": "int", "default": 26379},
    "primaries": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "quorum": {"type": "int", "required": True},
            "group_hosts": {"type": "list", "elements": "str"},
            "primary": {"type": "str"},
            "down_after_milliseconds": {"type": "int", "default": 30000},
            "failover_timeout": {"type": "int", "default": 180000},
            "parallel_syncs": {"type": "int", "default": 1},
            "auth_user": {"type": "str"},
            "auth_password": {"type": "str", "no_log": True},
            "notification_script": {"type": "path"},
            "client_reconfig_script": {"type": "path"},
        },
    },
    "sentinels": {"type": "list", "elements": "str", "required": True},
    "address": {"type": "str"},
    "address_variables": {
        "type": "list",
        "elements": "str",
        "default": ["redis_sentinel_address", "redis_replication_address", "ansible_host"],
    },
    "failure_domains": {"type": "dict"},
    "finish": {"type": "bool", "default": True},
    "purge": {"type": "bool", "default": False},
    "reset": {"type": "list", "elements": "str", "default": []},
    "reset_after": {"type": "int", "default": 3600},
    "sentinel_user": {"type": "str"},
    "sentinel_password": {"type": "str", "no_log": True},
    "resolve_hostnames": {"type": "bool", "default": False},
    "announce_hostnames": {"type": "bool", "default": False},
    "announce_ip": {"type": "str", "default": ""},
    "announce_port": {"type": "int", "default": 0},
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "preset": {"type": "str", "choices": ["admin", "client", "peer"]},
            "rules": {"type": "list", "elements": "str", "default": []},
            "passwords": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "nopass": {"type": "bool", "default": False},
            "enabled": {"type": "bool", "default": True},
        },
    },
    "default_user": {"type": "str", "choices": ["off", "restricted", "keep"], "default": "keep"},
    "port": {"type": "int", "default": 26379},
    "tls_port": {"type": "int", "default": 0},
    "tls_replication": {"type": "bool", "default": False},
    "tls_auth_clients": {"type": "str", "choices": ["yes", "no", "optional"], "default": "yes"},
    "tls_cert_file": {"type": "path"},
    "tls_key_file": {"type": "path", "no_log": False},
    "tls_ca_cert_file": {"type": "path"},
    "settings": {"type": "dict", "default": {}},
    "config_file": {"type": "path", "default": "/etc/redis/sentinel.conf"},
    "mode": {"type": "raw", "default": "0640"},
    "unit": {"type": "str", "default": "auto"},
    "enabled": {"type": "bool", "default": True},
    "restart": {"type": "str", "choices": ["if_needed", "never"], "default": "if_needed"},
    "properties": {"type": "dict", "default": {}},
    "pending": {"type": "list", "elements": "str", "default": []},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 120},
}
SYSTEM_UNITS = "/etc/systemd/system"


def settles(state: State, plan: Plan, can_fail_over: bool, purge: bool) -> bool:
    """Whether a call with ``finish`` would have nothing left to do."""
    return bool(plan.users.settled and not plan.stale and can_fail_over and not (purge and state.undeclared))


def body(module: AnsibleModule) -> dict:
    params = {**module.params, "mode": parse_mode(module.params["mode"], example="0640")}
    check, finish, login = module.check_mode, params["finish"], login_of(params)
    state = read_state(params, Host(), login, check, SYSTEM_UNITS)
    plan = plan_of(state, params, check)
    if plan.changes and not state.fresh:
        require_safe(state, plan, params, login, check)
    sentinel = state.sentinel
    warnings = advice(state.declared.primaries, state.ring.all, params["failure_domains"] or {})
    if plan.changes and not check:
        sentinel, more = apply(state, plan, params, login)
        warnings += more
    watched = watched_by(sentinel.server) if sentinel.running else {}
    names = [one.name for one in state.declared.primaries if one.name in watched]
    if finish and not check:
        await_quorum(sentinel.server, names, params["timeout"])
    report = report_of(sentinel.server, watched, state.because)
    can_fail_over = check or all(report[name]["can_fail_over"] for name in names)
    warnings += cautions(sentinel.tilt, report, state.undeclared, plan.users.unknown_users, params["purge"])
    return result_of(
        plan.changes,
        pending=list(dict.fromkeys(change.name for change in plan.changes)),
        primaries=report,
        myid=sentinel.id,
        tilt=sentinel.tilt,
        running=state.sentinel.running,
        restart_required=[] if plan.due else plan.reasons,
        warnings=warnings,
        settled=finish or settles(state, plan, can_fail_over, params["purge"]),
    )


def secrets_of(params: dict) -> list[str]:
    """Passwords within lists."""
    found = [password for user in params["users"] or [] for password in user.get("passwords") or []]
    return found + [one["auth_password"] for one in params["primaries"] or [] if one.get("auth_password")]


def main() -> None:
    run_module(SPEC, body, secrets_of)


if __name__ == "__main__":
    main()
