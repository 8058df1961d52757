#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_config
short_description: Declare directives of a Redis instance, in its file and live
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Declares directives of one Redis (or Valkey) instance in its configuration file B(and) in the live server.
  - The file is edited without loss. Comments, order, includes, unknown lines and the lines that Redis itself wrote
    (C(CONFIG REWRITE), Sentinel) stay; where nothing differs, no byte does.
  - Values are compared in normal form, so that V(64mb) equals V(67108864).
  - The changed file is read by the installed server by a temporary server before it goes into place.
  - Live changes go into one C(CONFIG SET), which Redis applies as a whole or not at all. What Redis takes at its start only is
    returned in RV(restart_required); M(redisops.recovery.redis_service) restarts, once, after a verified save.
  - Persistence belongs to M(redisops.recovery.redis_persistence), and is refused here.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  config_file:
    description: The configuration file that the server was (or will be) started with.
    type: path
    default: /etc/redis/redis.conf
  settings:
    description:
      - Directives and their values, named as in redis.conf. Booleans become V(yes) and V(no), lists one line of arguments.
      - Not accepted are C(include), C(user), C(rename-command), C(loadmodule) and C(replicaof), whose effect a converge could not
        verify or would have to fight over.
    type: dict
    required: true
  owner:
    description: Owner of the file. Not given, it is left as it is.
    type: str
  group:
    description: Group of the file. Not given, it is left as it is.
    type: str
  mode:
    description: Mode of the file, four octal digits in quotes. A number is taken as the mode itself. Not given, it is left as it is.
    type: raw
  fresh_install:
    description:
      - Whether this run installed Redis itself. The diff is then reported against a host without Redis; in
        check mode, the file may be missing.
    type: bool
    default: false
  timeout:
    description: Longest wait for a server that is still loading, in seconds.
    type: int
    default: 3600
seealso:
  - module: redisops.recovery.redis_persistence
  - module: redisops.recovery.redis_service
"""

EXAMPLES = r"""
- name: Set limits, live and in the file
  redisops.recovery.redis_config:
    settings:
      maxclients: 50000
      tcp-backlog: 511
      replica-read-only: true
      maxmemory: 4gb
      bind: [127.0.0.1, "-::1"]

- name: See what a password change would do; the password itself is masked
  redisops.recovery.redis_config:
    login_password: "{{ vault_redis_password }}"
    settings:
      masterauth: "{{ vault_redis_replication_password }}"
  check_mode: true
  diff: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["CONFIG SET maxclients", "write maxclients to /etc/redis/redis.conf"]
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
  sample: unknown_directive
limited:
  description:
    - Directives that this host cannot give in full, with the declared and the effective value. The file holds the declared one.
  returned: success
  type: list
  elements: dict
  sample: [{"directive": "maxclients", "declared": 50000, "effective": 19968}]
paths:
  description: What is declared of C(logfile), C(unixsocket) and C(aclfile); for O(redisops.recovery.redis_service#module:pending_paths).
  returned: success
  type: dict
  sample: {"logfile": "/var/log/redis/redis.log"}
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
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change, pending_names
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_apply import (
    commit,
    require_known,
    set_live,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import (
    ClientLimit,
    ConfigPlan,
    client_limit,
    is_limit_written_down,
    plan_config,
    require_fits,
    text_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import (
    NOT_GETTABLE,
    PERSISTENCE,
    SECRET,
    normal,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    edited,
    read_instance,
    require_accepted,
    stage,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import canonical_name, split_args
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import require_bindable
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import group_id, parse_mode, user_id
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import (
    Access,
    apply_access,
    plan_path_access,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import open_files_limit

SPEC = {
    **connection_spec(),
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "settings": {"type": "dict", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}
TLS = (
    "tls-port", "tls-cert-file", "tls-key-file", "tls-key-file-pass", "tls-ca-cert-file", "tls-auth-clients", "tls-replication", "tls-cluster",
    "tls-protocols",
)  # fmt: skip
#: Where the server writes besides its data: a confined unit has to let it.
PATHS = ("logfile", "unixsocket", "aclfile")
NOT_OURS = {
    **dict.fromkeys(
        PERSISTENCE, "it belongs to redisops.recovery.redis_persistence, which changes it without losing data"
    ),
    **dict.fromkeys(NOT_GETTABLE, "its effect in the live server cannot be read back, so drift could not be seen"),
    **dict.fromkeys(TLS, "it belongs to redisops.recovery.redis_tls, which verifies a certificate before it is served"),
    "replicaof": "who replicates whom is the topology's to say: a file that says otherwise undoes a failover",
}


def wanted_of(settings: dict) -> dict[str, str]:
    """The settings by canonical name, as configuration text. Raises Problem."""
    wanted: dict[str, str] = {}
    for given, value in settings.items():
        name = canonical_name(str(given))
        if name in NOT_OURS:
            raise Problem("not_ours", f"settings names {given}; {NOT_OURS[name]}", "", f"take {given} out of settings")
        if name in wanted:
            raise Problem(
                "contradiction",
                f"settings names {name} twice, in two spellings",
                "one of them",
                f"take {given} out of settings",
            )
        wanted[name] = text_of(name, value)
        normal(name, wanted[name])
    return wanted


@dataclasses.dataclass(frozen=True)
class State:
    """The settings as they were spelled, and the server. ``absent``: Redis is only about to be installed (check mode)."""

    wanted: dict[str, str]
    mode: t.Optional[int]
    instance: Instance
    absent: bool

    @property
    def values(self) -> dict[str, str]:
        """The settings in normal form."""
        return {name: normal(name, value) for name, value in self.wanted.items()}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes live and into the file, whose ``text`` and ``access`` (None: as it is) it says."""

    config: ConfigPlan
    text: str
    access: t.Optional[Access]
    access_changes: list[Change]
    changes: list[Change]


def read_state(params: t.Mapping[str, t.Any]) -> State:
    """The declaration and the server. Raises Problem or Refusal."""
    wanted, empty = wanted_of(params["settings"]), params["fresh_install"]
    mode = None if params["mode"] in (None, "") else parse_mode(params["mode"], example="0640")
    instance = read_instance(params["config_file"], login_of(params), Host(), params["timeout"], empty)
    if "requirepass" in wanted and (instance.value("aclfile") or instance.in_file("aclfile")):
        raise Problem(
            "requirepass_with_aclfile", f"settings names requirepass, and the users of {instance.path} are in an ACL file, which Redis lets win",
            "one place for the password of the default user", "take requirepass out of settings, and declare the user default in redis_acl",
        )  # fmt: skip
    return State(wanted, mode, instance, empty and not instance.text)


def clients_of(state: State) -> t.Optional[ClientLimit]:
    """How many clients the server can be given; None where that is not declared."""
    instance = state.instance
    if "maxclients" not in state.wanted or state.absent:
        return None
    ceiling = instance.host.open_files_ceiling()
    if instance.running:
        limit = open_files_limit(instance.host.read(f"/proc/{instance.pid}/limits") or "")[1]
    else:
        limit = ceiling or 2**31
    return client_limit(int(state.wanted["maxclients"]), limit, ceiling)


def access_of(state: State, params: t.Mapping[str, t.Any]) -> tuple[t.Optional[Access], list[Change]]:
    """Owner, group and mode of the file, and what differs. Raises Problem."""
    if state.absent:
        return None, []
    owner = user_id(params["owner"]) if params["owner"] else None
    group = group_id(params["group"], "group") if params["group"] else None
    path, mode = state.instance.path, state.mode
    if mode is None and SECRET & set(state.wanted):
        mode = os.stat(path).st_mode & 0o770  # a secret is about to stand in it
    access, change = plan_path_access(path, owner, group, mode)
    # Of a file that this run brought, owner and mode are part of "write …": check mode cannot know what the package gave it.
    return access, [change] if change else []


def plan_of(state: State, params: t.Mapping[str, t.Any]) -> Plan:
    """What is to be done, and that the server takes it. Raises Problem or Refusal."""
    instance, empty = state.instance, params["fresh_install"]
    if instance.running:
        require_known(instance, state.wanted)
        require_fits(state.values, instance.live, instance.info)
    clients = clients_of(state)
    live = instance.live if instance.running else None
    config = plan_config(state.values, instance.directives, instance.path, live, clients, empty)
    access, access_changes = access_of(state, params)
    if "bind" in state.wanted:
        require_bindable(split_args(state.wanted["bind"]))
    in_file = dict(state.wanted)
    if clients and is_limit_written_down(instance.directives, clients):
        del in_file["maxclients"]
    text = "" if state.absent else edited(instance, in_file)
    if text != instance.text:
        require_accepted(instance, text)
    return Plan(config, text, access, access_changes, config.changes + ([] if empty else access_changes))


def apply(instance: Instance, plan: Plan) -> None:
    """Live, then the file: both, or neither. Raises Problem."""
    staged = stage(instance, plan.text, access=plan.access)
    try:
        if plan.config.live:
            set_live(instance, plan.config.live)
        if plan.text != instance.text:
            commit(staged, instance, plan.config.live)
    finally:
        staged.discard()
    if plan.access_changes and plan.access:
        apply_access([instance.path], plan.access)


def body(module: AnsibleModule) -> dict:
    state = read_state(module.params)
    plan = plan_of(state, module.params)
    if plan.changes and not module.check_mode:
        apply(state.instance, plan)
    warnings = [
        f"{item['directive']} is declared as {item['declared']}; this host can give {item['effective']}, because its hard limit of "
        "open files cannot be raised here (container without CAP_SYS_RESOURCE): raise it where the container is started (--ulimit nofile)"
        for item in plan.config.limited
    ]
    return result_of(
        plan.changes,
        paths={name: value for name, value in state.wanted.items() if name in PATHS},
        pending=pending_names(plan.config.changes),
        restart_required=plan.config.restart_required,
        limited=plan.config.limited,
        running=state.instance.running,
        warnings=warnings,
    )


def secrets_of(params: dict) -> list[str]:
    """Values of ``settings`` that must not be shown."""
    return [str(value) for name, value in params["settings"].items() if canonical_name(str(name)) in SECRET and value]


def main() -> None:
    run_module(SPEC, body, secrets_of)


if __name__ == "__main__":
    main()
