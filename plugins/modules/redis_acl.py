#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_acl
short_description: Declare the ACL users of a Redis instance, in its ACL file and live
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Declares the users of one Redis (or Valkey) instance in its ACL file B(and) in the live server, and closes the default user.
  - Users are compared by what they may do, command by command, so that order, phrasing and the way a server version prints its
    users make no difference. A user that was changed by hand is shown and put back.
  - Users in redis.conf itself, and C(requirepass), are moved to the ACL file, since Redis takes one or the other.
  - All rules are read by the installed server by a temporary server before any user is changed.
  - What opens is done first, what closes last. Before anything is closed it is verified that the login of this collection works,
    and that every connected replica and Sentinel can log in as a user that stays; where not, the users are put back.
  - Only SHA-256 hashes of passwords are sent and written. The exception is the password with which the server itself logs in to
    its primary, C(masterauth), which Redis needs as it is.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  users:
    description: The users, next to C(default).
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
          - The least rights for a task. V(replication) and V(sentinel) are the documented least for a replica on its primary and for
            Sentinel on its servers. V(persistence) may save, rewrite the AOF and read C(INFO). V(monitoring) reads state and no
            settings, since C(CONFIG GET) shows C(masterauth), with which one is a replica and has all data. V(health) reads the settings as well, and
            is for M(redisops.recovery.redis_health_info) and the timer of M(redisops.recovery.redis_metrics). V(admin) may do all, and is what this collection needs for itself.
          - V(application) may run all commands but the administrative and the dangerous ones, and those that load and delete the functions
            and scripts of all; its keys have to be named in O(users[].rules).
        type: str
        choices: [admin, application, health, monitoring, persistence, replication, sentinel]
      rules:
        description: Rules as C(ACL SETUSER) takes them, behind those of the preset. Selectors in parentheses are one rule.
        type: list
        elements: str
        default: []
      passwords:
        description:
          - Passwords, as plain text or as V(#) and the 64 hexadecimal digits of their SHA-256. Each of them works, so that a
            password is changed without an outage by having the new one first and the old one second for a while.
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
      - What becomes of the user that every connection is before it logs in. V(off) lets nobody in, and ends the connections
        that are. Its rights stay, since Redis replays the transactions of its AOF as this user. V(restricted) lets it C(PING) and no more, for
        health checks that cannot log in; that is refused before Redis 8.4.4, which would drop those transactions. V(keep) leaves it as it is, or as O(users) has it.
    type: str
    choices: ["off", restricted, keep]
    default: "off"
  purge:
    description: Whether users that are not declared are removed. Where not, they are named in a warning.
    type: bool
    default: false
  withdraw:
    description:
      - Whether users, rights and passwords are taken away. V(false) only makes users and adds passwords, on all hosts of a
        replication group, before a second call with V(true) takes away on any of them. RV(settled) says whether that has work to do.
    type: bool
    default: true
  replication_user:
    description:
      - The user of O(users) that this server is as a replica (C(masteruser), C(masterauth)). Its first password is used, and has to
        be plain text. Not given, it is the one with the preset V(replication), if there is one. Empty, the two are left alone.
    type: str
  acl_file:
    description: The ACL file.
    type: path
    default: /etc/redis/users.acl
  config_file:
    description: The configuration file that the server was (or will be) started with.
    type: path
    default: /etc/redis/redis.conf
  owner:
    description: Owner of the ACL file. Not given, that of O(config_file).
    type: str
  group:
    description: Group of the ACL file. Not given, that of O(config_file).
    type: str
  mode:
    description: Mode of the ACL file, four octal digits in quotes. A number is taken as the mode itself.
    type: raw
    default: "0640"
  pending:
    description:
      - RV(pending) of the call with O(withdraw) V(false) before this one. In check mode that call has changed nothing, and this one
        then begins with what it would have left. In a run, what that call wrote is not reported again with O(fresh_install=true).
    type: list
    elements: str
    default: []
  fresh_install:
    description:
      - Whether this run installed Redis itself. The diff is then reported against a host without Redis; in
        check mode, the files may be missing.
    type: bool
    default: false
  timeout:
    description: Longest wait for a server that is still loading, or for replicas that are being synchronised, in seconds.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_config
  - module: redisops.recovery.redis_service
"""

EXAMPLES = r"""
- name: Named users, and a closed default user
  redisops.recovery.redis_acl:
    login_user: admin
    login_password: "{{ vault_redis_admin_password }}"
    users:
      - {name: admin, preset: admin, passwords: ["{{ vault_redis_admin_password }}"]}
      - {name: replication, preset: replication, passwords: ["{{ vault_redis_replication_password }}"]}
      - {name: backup, preset: persistence, passwords: ["{{ vault_redis_backup_password }}"]}
      - name: shop
        preset: application
        rules: ["~shop:*", "%R~catalogue:*", "&shop.*"]
        passwords: ["{{ vault_redis_shop_password }}"]

- name: Change a password without an outage, first half; the second leaves the old one out
  redisops.recovery.redis_acl:
    login_user: admin
    login_password: "{{ vault_redis_admin_password_new }}"
    login_previous_password: "{{ vault_redis_admin_password }}"
    users:
      - name: admin
        preset: admin
        passwords: ["{{ vault_redis_admin_password_new }}", "{{ vault_redis_admin_password }}"]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["ACL SETUSER shop", "write user shop to /etc/redis/users.acl"]
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
  sample: self_lockout
pending:
  description: Users, directives and files that this run changes, or would change in check mode.
  returned: success
  type: list
  elements: str
restart_required:
  description: Directives that the running process will only have after a restart; C(aclfile) where it had none.
  returned: success
  type: list
  elements: str
running:
  description: Whether the server runs.
  returned: success
  type: bool
settled:
  description: Whether a call with O(withdraw) V(true) would have nothing left to take away.
  returned: success
  type: bool
unknown_users:
  description: Users that are not declared, and stay since O(purge) is V(false).
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import declared_users, replication_login
from ansible_collections.redisops.recovery.plugins.module_utils.acl.presets import PRESETS
from ansible_collections.redisops.recovery.plugins.module_utils.acl.users_apply import (
    Declared,
    apply,
    plan_of,
    read_state,
    require_safe,
    warnings_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import parse_mode

_USER = {
    "name": {"type": "str", "required": True},
    "preset": {"type": "str", "choices": sorted(PRESETS)},
    "rules": {"type": "list", "elements": "str", "default": []},
    "passwords": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "nopass": {"type": "bool", "default": False, "no_log": False},
    "enabled": {"type": "bool", "default": True},
}
SPEC = {
    **connection_spec(),
    "users": {"type": "list", "elements": "dict", "default": [], "options": _USER},
    "default_user": {"type": "str", "choices": ["off", "restricted", "keep"], "default": "off"},
    "purge": {"type": "bool", "default": False},
    "withdraw": {"type": "bool", "default": True},
    "replication_user": {"type": "str"},
    "acl_file": {"type": "path", "default": "/etc/redis/users.acl"},
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw", "default": "0640"},
    "pending": {"type": "list", "elements": "str", "default": []},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}


def declared_of(params: t.Mapping[str, t.Any]) -> Declared:
    """The options as values. Raises Problem."""
    return Declared(
        declared_users(params["users"], params["default_user"]),
        replication_login(params["users"], params["replication_user"]),
        params["acl_file"],
        parse_mode(params["mode"], example="0640"),
    )


def body(module: AnsibleModule) -> dict:
    params, login = module.params, login_of(module.params)
    state = read_state(declared_of(params), params, login, module.check_mode)
    plan = plan_of(state, params)
    movers = require_safe(state, plan, login) if plan.changes and not state.absent else []
    if plan.changes and not module.check_mode:
        apply(state, plan, params, login, movers)
    return result_of(
        plan.changes,
        pending=list(dict.fromkeys(change.name for change in plan.changes)),
        restart_required=plan.config.restart_required,
        settled=plan.users.settled,
        running=state.instance.running,
        unknown_users=[] if params["purge"] else plan.users.unknown_users,
        warnings=warnings_of(state, plan.users, params, login, module.check_mode),
    )


def secrets_of(params: dict) -> t.Iterable[str]:
    """Passwords and their hashes."""
    return [secret for user in params["users"] or [] for secret in user.get("passwords") or []]


def main() -> None:
    run_module(SPEC, body, secrets_of)


if __name__ == "__main__":
    main()
