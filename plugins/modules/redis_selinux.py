#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_selinux
short_description: Label the directories and ports of a Redis instance for SELinux
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - The SELinux policy of RHEL lets Redis write below C(/var/lib/redis) and C(/var/log/redis), and listen on its own ports. For
    other directories and ports this module adds the labels, in the policy (C(semanage)) and on disk (C(restorecon)).
  - On a host without SELinux it does nothing, and says so.
  - A directory that is yet to be made is labelled in the policy; what is made there later gets the label from its parent, so make
    it first, or run again.
extends_documentation_fragment:
  - redisops.recovery.attributes
options:
  data_dirs:
    description: Directories that Redis keeps data in (C(redis_var_lib_t)). Each is labelled with all below it.
    type: list
    elements: path
    default: []
  log_dirs:
    description: Directories that Redis writes logs to (C(redis_log_t)).
    type: list
    elements: path
    default: []
  ports:
    description: TCP ports that Redis listens on (C(redis_port_t)).
    type: list
    elements: int
    default: []
seealso:
  - module: redisops.recovery.redis_service
"""

EXAMPLES = r"""
- name: Let Redis keep its data on its own disk, and speak TLS on 6380
  redisops.recovery.redis_selinux:
    data_dirs: [/data/redis]
    ports: [6379, 6380]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["semanage fcontext redis_var_lib_t /data/redis", "restorecon -R /data/redis"]
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
  sample: semanage_missing
selinux:
  description: Whether the kernel has SELinux enabled.
  returned: success
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.selinux_plan import (
    Directory,
    parse_ports,
    pattern_of,
    plan_directory,
    plan_port,
    type_of,
)

SPEC = {
    "data_dirs": {"type": "list", "elements": "path", "default": []},
    "log_dirs": {"type": "list", "elements": "path", "default": []},
    "ports": {"type": "list", "elements": "int", "default": []},
}
#: In every policy that knows Redis: no need to ask, and semanage takes a second or two to answer.
KNOWN_PORTS = (6379, 26379)


def tool(host: Host, *command: str) -> str:
    """Output of an SELinux tool. Raises Problem."""
    done = host.run(*command)
    if done.code == 127:
        raise Problem(
            "semanage_missing", f"SELinux is enabled, and {command[0]} is not installed", "SELinux' own tools",
            "dnf install policycoreutils policycoreutils-python-utils libselinux-utils",
        )  # fmt: skip
    if done.code:
        raise Problem(
            "semanage_failed", f"{' '.join(command)} failed: {' '.join(done.output.split())[:300]}", "a policy that can be changed (root)",
            "run that command by hand and see",
        )  # fmt: skip
    return done.output


def directory(host: Host, path: str, wanted: str) -> Directory:
    """What policy and disk say of a directory."""
    pattern_of(path)
    try:
        label = type_of(os.getxattr(host.path(path), "security.selinux").decode("utf-8", "replace"))
    except OSError:
        label = "no label" if os.path.isdir(host.path(path)) else None
    return Directory(path, wanted, type_of(tool(host, "matchpathcon", "-n", path)), label)


def body(module: AnsibleModule) -> dict:
    params, host = module.params, Host()
    if host.read("/sys/fs/selinux/enforce") is None:
        return result_of([], selinux=False)
    steps = []
    for option, wanted in (("data_dirs", "redis_var_lib_t"), ("log_dirs", "redis_log_t")):
        for path in params[option]:
            steps += plan_directory(directory(host, path, wanted))
    asked = [port for port in params["ports"] if port not in KNOWN_PORTS]
    ports = parse_ports(tool(host, "semanage", "port", "-l")) if asked else {}
    for port in asked:
        steps += plan_port(port, ports)
    if not module.check_mode:
        for step in steps:
            tool(host, *step.command)
    return result_of([step.change for step in steps], selinux=True)


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
