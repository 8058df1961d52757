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

import dataclasses
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import AclPlan, Scope
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.apply import (
    await_quorum,
    require_file_accepted,
    reset,
    restarted,
    set_live,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import (
    Sentinel,
    addresses_of,
    find_sentinel_unit,
    read_sentinel,
    report_of,
    require_address,
    require_logins_of,
    require_scripts,
    ring_of,
    watched_by,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import SentinelConf
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.plan import (
    SCRIPTS,
    Declared,
    Item,
    Now,
    advice,
    cautions,
    changes_of,
    declared_of,
    edit,
    options_of,
    plan_items,
    require_names,
    require_port,
    require_quiet,
    require_restartable,
    reset_changes,
    settings_of,
    undeclared,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.service import Service, read_service
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_apply import (
    planned_users,
    require_peers,
    set_users,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_plan import words_of_users
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import mode_of, parse_mode
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import (
    apply_access,
    plan_path_access,
)

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


def to_servers(params: dict) -> Login:
    """How Sentinel itself reaches the servers, without a user yet."""
    tls = params["tls_replication"]
    files = {"ca_certs": params["tls_ca_cert_file"], "client_cert_file": params["tls_cert_file"], "client_key_file": params["tls_key_file"]}  # fmt: skip
    return Login(tls=tls, validate_certs=params["validate_certs"], **(files if tls else {}))


def find(params: dict, host: Host, login: Login, check: bool) -> tuple[Sentinel, str, bool]:
    """The Sentinel, its unit, and whether it is yet to be brought. Raises Problem."""
    unit, package = (params["unit"], "") if params["unit"] != "auto" else find_sentinel_unit(host)
    path = params["config_file"]
    if unit and os.path.exists(path):
        return read_sentinel(path, login, host), unit, False
    if check and params["fresh_install"]:
        return Sentinel(path, "", host), unit, True
    raise Problem(
        "sentinel_missing", f"there is no {path}" if unit else "systemd has no unit of a Sentinel", "an installed Sentinel",
        f"install the package {package or 'of the server'}" + ("" if package else ", or set unit and config_file"), package=package,
    )  # fmt: skip


def users_plan(sentinel: Sentinel, params: dict, added: bool) -> AclPlan:
    """What to do to Sentinel's own users. Raises Problem, or Refusal where somebody would be locked out."""
    declared = words_of_users(params["users"], params["default_user"])
    login = (params["login_user"], params["login_password"])
    peer = (params["sentinel_user"], params["sentinel_password"]) if len(params["sentinels"]) > 1 else None
    return planned_users(sentinel, declared, login, peer, Scope(params["finish"], params["purge"], added))


@dataclasses.dataclass
class Work:
    """What is to be done, as it was planned."""

    declared: Declared
    ring: GroupHosts
    sentinel: Sentinel
    service: Service
    fresh: bool
    items: list[Item]
    users: AclPlan
    addresses: dict
    because: dict
    reasons: list[str]
    due: bool

    @property
    def starts(self) -> bool:
        return self.due or not self.sentinel.running

    def made(self, conf: SentinelConf) -> str:
        """The file that a Sentinel which does not run should find."""
        text = edit(conf, [item for item in self.items if not (self.sentinel.running and item.live)])
        if self.sentinel.running or not self.users.changes:
            return text
        conf.set_users([" ".join((name, *words)) for name, words in self.users.file_after.items()])
        return conf.render()


def plan(params: dict, check: bool) -> tuple[Work, list[Change], list[str]]:
    """The work, its changes but those of users, and the names that nobody declared. Raises Problem or Refusal."""
    settings = settings_of(params)
    ring = ring_of(params["sentinels"], params["address"], settings)
    declared = Declared(declared_of(params["primaries"], len(ring.all)), options_of(params), settings)
    login = login_of(params)
    require_port(settings, login.port, login.unix_socket)
    sentinel, unit, fresh = find(params, Host(), login, check)
    empty = params["fresh_install"] and not sentinel.running
    scripts = [one.options.get(script, "") for one in declared.primaries for script in SCRIPTS]
    service = read_service(sentinel, unit, params, scripts, SYSTEM_UNITS, empty)
    now = sentinel.now([member for one in declared.primaries for member in one.group_hosts])
    require_names(params["reset"], now.names, "reset")
    addresses, because = addresses_of(declared, now, ring, login, to_servers(params), fresh)
    others = undeclared(declared, now)
    items = plan_items(declared, now, addresses, others if params["purge"] and params["finish"] else [])
    # Of a host that this run brought, the diff is reported against nothing: check mode cannot know what the package would bring.
    reported = plan_items(declared, Now(), addresses, []) if empty else items
    reasons = [f"{item.option} is declared as {item.after or 'none'}" for item in items if not item.live]
    reasons = reasons + service.reasons if sentinel.running else []
    due = bool(reasons) and params["restart"] == "if_needed"
    if sentinel.running and not due:
        items = reported = [item for item in items if item.live]
    users = users_plan(sentinel, params, check and bool(params["pending"]))
    work = Work(declared, ring, sentinel, service, fresh, items, users, addresses, because, reasons, due)
    changes = changes_of(reported, sentinel.running, sentinel.path) + service.changes
    if not empty:
        mode = mode_of(sentinel.path) & params["mode"]
        changes += [change for change in [plan_path_access(sentinel.path, None, None, mode)[1]] if change]
    return work, changes + service.process(sentinel.running, due, reasons), others


def require_safe(work: Work, params: dict, forgotten: list[Change], check: bool) -> None:
    """Everything that could be wrong, before anything is touched. Raises Problem or Refusal."""
    sentinel = work.sentinel
    require_address(sentinel, work.ring, work.declared.options, login_of(params))
    require_scripts(work.items, SCRIPTS)
    require_logins_of(work.declared, work.items, sentinel, work.addresses, to_servers(params))
    if work.due:
        require_restartable(sentinel.watched.values(), sentinel.tilt)
    if forgotten:
        require_quiet([sentinel.watched[name] for name in params["reset"]], sentinel.tilt, "a reset")
    if work.starts:
        require_file_accepted(sentinel, work.made(sentinel.conf))
    if not check:  # last: who may have to log in again is asked to
        require_peers(sentinel.server, work.users)


def act(work: Work, params: dict, forgotten: list[Change]) -> tuple[Sentinel, list[str]]:
    """Live, then what takes a start, then what is forgotten; gives the Sentinel as it is then, and warnings. Raises Problem."""
    sentinel, login, warnings = work.sentinel, login_of(params), []
    if sentinel.running:
        back = set_users(sentinel.server, login, work.users)
        try:
            set_live(sentinel, [item for item in work.items if item.live])
        except Problem:
            back()
            raise
    if work.starts:
        restarted(sentinel, work.service.unit, work.made, login, work.service.prepare)
    else:
        work.service.prepare()
    path = sentinel.path
    apply_access([path], plan_path_access(path, None, None, mode_of(path) & params["mode"])[0])
    sentinel = read_sentinel(path, login, sentinel.host)
    for name in dict.fromkeys(change.name.split()[0] for change in forgotten):
        if not reset(sentinel.server, sentinel.watched[name]):
            warnings.append(
                f"{name}: since SENTINEL RESET not all has been found again that was up; wait before the next."
            )
    return sentinel, warnings


def body(module: AnsibleModule) -> dict:
    params = {**module.params, "mode": parse_mode(module.params["mode"], example="0640")}
    check, finish = module.check_mode, params["finish"]
    work, changes, others = plan(params, check)
    stale = reset_changes(work.sentinel.watched, params["reset"], params["reset_after"])
    forgotten = stale if finish else []
    if check:
        changes = [change for change in changes if change.name not in params["pending"]]
    changes += work.users.changes + forgotten
    if changes and not work.fresh:
        require_safe(work, params, forgotten, check)
    sentinel = work.sentinel
    warnings = advice(work.declared.primaries, work.ring.all, params["failure_domains"] or {})
    if changes and not check:
        sentinel, more = act(work, params, forgotten)
        warnings += more
    watched = watched_by(sentinel.server) if sentinel.running else {}
    names = [one.name for one in work.declared.primaries if one.name in watched]
    if finish and not check:
        await_quorum(sentinel.server, names, params["timeout"])
    report = report_of(sentinel.server, watched, work.because)
    reachable = check or all(report[name]["can_fail_over"] for name in names)
    warnings += cautions(sentinel.tilt, report, others, work.users.unknown_users, params["purge"])
    return result_of(
        changes, pending=list(dict.fromkeys(change.name for change in changes)), primaries=report, myid=sentinel.id, tilt=sentinel.tilt,
        running=work.sentinel.running, restart_required=work.reasons if not work.due else [], warnings=warnings,
        settled=finish or bool(work.users.settled and not stale and reachable and not (params["purge"] and others)),
    )  # fmt: skip


def secrets_of(params: dict) -> list[str]:
    """Passwords within lists."""
    found = [password for user in params["users"] or [] for password in user.get("passwords") or []]
    return found + [one["auth_password"] for one in params["primaries"] or [] if one.get("auth_password")]


def main() -> None:
    run_module(SPEC, body, secrets_of)


if __name__ == "__main__":
    main()
