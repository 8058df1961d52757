#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sysctl_redis
short_description: Set the kernel settings Redis needs, now and at boot
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Compares kernel settings with what is declared, in the running kernel and in what systemd-sysctl will set at the next boot, and corrects both.
  - The value at boot is computed as systemd-sysctl does, from C(/etc/sysctl.d), C(/run/sysctl.d), C(/usr/local/lib/sysctl.d) and
    C(/usr/lib/sysctl.d). Another file that would override the declaration is named with its line, and the run fails before anything is changed.
  - Only the lines of declared settings in O(sysctl_file) are edited. Other lines, comments and spacing stay as they are.
  - The live value is written to C(/proc/sys) and read back. If the kernel refuses it, the file stays unchanged and values already written are put back.
options:
  values:
    description:
      - Settings that must have exactly this value.
      - With V(vm.overcommit_memory) other than V(1), the kernel can refuse the fork of a background save although memory is free.
    type: dict
    default:
      vm.overcommit_memory: "1"
  minimums:
    description:
      - Settings that must be at least this whole number. A higher value that is there, live or at boot, is kept and is made to hold in both.
      - The kernel cuts the C(tcp-backlog) of Redis (511) down to V(net.core.somaxconn).
    type: dict
    default:
      net.core.somaxconn: 511
  sysctl_file:
    description:
      - The file to keep the settings in. Its name must end in C(.conf) and should sort after the others, because the last file wins.
      - C(/etc/sysctl.conf) is possible where C(/etc/sysctl.d/99-sysctl.conf) links to it, as on Debian 12, Ubuntu and RHEL;
        elsewhere, as on Debian 13, it is not read at boot and the module refuses.
    type: path
    default: /etc/sysctl.d/99-zz-redis.conf
  on_read_only:
    description:
      - What to do where C(/proc/sys) cannot be written and the live value is not as declared, as in an unprivileged container.
      - V(fail) fails and says what to run on the container host. V(warn) says it as a warning, and keeps O(sysctl_file) in order nevertheless.
    type: str
    choices: [fail, warn]
    default: fail
extends_documentation_fragment:
  - redisops.recovery.attributes
seealso:
  - module: redisops.recovery.thp
  - module: redisops.recovery.redis_host_info
"""

EXAMPLES = r"""
- name: Let Redis fork for its background saves, and take full bursts of connections
  redisops.recovery.sysctl_redis:

- name: Raise the backlog as well as the port range
  redisops.recovery.sysctl_redis:
    values:
      vm.overcommit_memory: "1"
      net.ipv4.ip_local_port_range: 10240 65000
    minimums:
      net.core.somaxconn: 4096

- name: Keep the settings in the traditional file
  redisops.recovery.sysctl_redis:
    sysctl_file: /etc/sysctl.conf

- name: Warn only, in a container whose host sets the kernel
  redisops.recovery.sysctl_redis:
    on_read_only: warn
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: success
  type: list
  elements: str
  sample: ["set vm.overcommit_memory = 1 in /etc/sysctl.d/99-zz-redis.conf", "write 1 to /proc/sys/vm/overcommit_memory"]
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
values:
  description:
    - Each declared setting, with C(live) and C(boot), each C(before) and C(after) this run.
    - C(boot) is null where no file sets the value and the default of the kernel applies.
  returned: success
  type: dict
  sample: {"vm.overcommit_memory": {"live": {"before": "0", "after": "1"}, "boot": {"before": null, "after": "1"}}}
duplicates:
  description: Further lines for a declared setting, in O(sysctl_file) and elsewhere, and lines elsewhere that decide. They are left as they are.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The setting.
      type: str
    file:
      description: The file it stands in.
      type: str
    line:
      description: The number of the line.
      type: int
    value:
      description: The value there; null for an exclusion (C(-name)).
      type: str
    effect:
      description: What the line comes to at boot.
      type: str
code:
  description: A stable name for what went wrong.
  returned: failure
  type: str
  sample: overridden_at_boot
"""

import os

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.apply import (
    LiveWrite,
    apply,
    boot_file,
    is_writable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.state import Access
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.sysctl_conf import dotted, same_value
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.sysctl_plan import BootFiles, plan, wanted_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    "values": {"type": "dict", "default": {"vm.overcommit_memory": "1"}},
    "minimums": {"type": "dict", "default": {"net.core.somaxconn": 511}},
    "sysctl_file": {"type": "path", "default": "/etc/sysctl.d/99-zz-redis.conf"},
    "on_read_only": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
}


def read_live(host, path):
    """The text of one setting. Raises Problem where the kernel has none of that name, or does not show it."""
    text = host.read(f"/proc/sys/{path}")
    if text is not None:
        return text
    if os.path.isdir(host.path(f"/proc/sys/{path}")) or not os.path.exists(host.path(f"/proc/sys/{path}")):
        raise Problem("unknown_key", f"this host's kernel has no setting {dotted(path)}: there is no file /proc/sys/{path}",
                      "a setting that exists", f"correct the name {dotted(path)}, or load the kernel module that brings it")  # fmt: skip
    raise Problem("unreadable_key", f"/proc/sys/{path} cannot be read", "a setting that can be compared",
                  "run with become: true, or leave this setting out")  # fmt: skip


def unread_files(host, files):
    """/etc/sysctl.conf where no link makes systemd read it: people look there, and ``sysctl --system`` does."""
    name = "/etc/sysctl.conf"
    real = os.path.realpath(host.path(name))
    if any(os.path.realpath(host.path(one.path)) == real for one in files):
        return []
    text = host.read(name)
    return [(name, text)] if text else []


def body(module):
    host = Host()
    params = module.params
    wanted = wanted_of(params["values"], params["minimums"])
    live = {one.path: read_live(host, one.path) for one in wanted}
    files = boot_file(host, "sysctl.d", params["sysctl_file"], "sysctl_file")
    boot = BootFiles(params["sysctl_file"], [(one.path, one.text) for one in files], unread_files(host, files))
    read_only = [one.path for one in wanted if not is_writable(host.path(f"/proc/sys/{one.path}"))]
    found = plan(boot, live, wanted, Access(read_only, params["on_read_only"], os.geteuid() == 0))
    if not module.check_mode:
        writes = [
            LiveWrite(
                host.path(f"/proc/sys/{path}"),
                live[path].strip(),
                value,
                lambda path=path: read_live(host, path),
                same_value,
            )
            for path, value in found.writes
        ]
        apply(writes, host.path(params["sysctl_file"]), found.new_text)
    return result_of(found.changes, values=found.values, duplicates=found.duplicates, warnings=found.warnings)


def main():
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
