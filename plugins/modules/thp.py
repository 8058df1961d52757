#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: thp
short_description: Set transparent huge pages, now and at boot
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Compares the settings of transparent huge pages with what is declared, in the running kernel and in what systemd-tmpfiles will
    write at the next boot, and corrects both. With huge pages, each write to Redis during a background save copies up to 2 MB
    instead of 4 kB, which costs latency and memory.
  - The setting at boot is a set of C(w) lines in O(boot_file). systemd-tmpfiles applies them at every boot before services start.
    Other lines of the file stay as they are.
  - Whatever else would set another value is found. A tmpfiles.d line that would win over O(boot_file) is named and fails the run
    before anything is changed. A tuned profile that does is named in a warning that says what to run.
  - Where the kernel has no transparent huge pages, nothing is done and RV(supported) is false.
options:
  enabled:
    description: Which memory may use huge pages. Redis wants V(never); V(madvise) does it no harm.
    type: str
    choices: [never, madvise, always]
    default: never
  defrag:
    description: When the kernel stops a process to make a huge page free.
    type: str
    choices: [always, defer, defer+madvise, madvise, never]
    default: never
  khugepaged_defrag:
    description: Whether the kernel's thread khugepaged moves memory about to make huge pages free.
    type: bool
    default: false
  boot_file:
    description:
      - The tmpfiles.d file to keep the setting in.
      - Of several files that write to one path, systemd-tmpfiles takes the one whose name sorts first.
    type: path
    default: /etc/tmpfiles.d/redis-thp.conf
  on_read_only:
    description:
      - What to do where C(/sys) cannot be written and the live value is not as declared, as in an unprivileged container.
      - V(fail) fails and says what to run on the container host. V(warn) says it as a warning, and keeps O(boot_file) in order nevertheless.
    type: str
    choices: [fail, warn]
    default: fail
extends_documentation_fragment:
  - redisops.recovery.attributes
seealso:
  - module: redisops.recovery.sysctl_redis
  - module: redisops.recovery.redis_host_info
"""

EXAMPLES = r"""
- name: Turn transparent huge pages off, now and at boot
  redisops.recovery.thp:

- name: Leave them to programs that ask for them
  redisops.recovery.thp:
    enabled: madvise
    defrag: madvise
    khugepaged_defrag: true

- name: Warn only, in a container whose host sets the kernel
  redisops.recovery.thp:
    on_read_only: warn
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: success
  type: list
  elements: str
  sample: ["write never to /sys/kernel/mm/transparent_hugepage/enabled"]
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
supported:
  description: Whether this kernel has transparent huge pages.
  returned: success
  type: bool
values:
  description:
    - For C(enabled), C(defrag) and C(khugepaged/defrag), the values C(live) and C(boot), each C(before) and C(after) this run.
    - C(boot) is null where no tmpfiles.d file writes it. Empty where RV(supported) is false.
  returned: success
  type: dict
  sample: {"enabled": {"live": {"before": "always", "after": "never"}, "boot": {"before": null, "after": "never"}}}
duplicates:
  description: Further tmpfiles.d lines for the same settings, which have no effect. They are left as they are.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file of the kernel.
      type: str
    file:
      description: The tmpfiles.d file.
      type: str
    line:
      description: The number of the line.
      type: int
    value:
      description: The value there.
      type: str
kernel_command_line:
  description: C(transparent_hugepage=) on the kernel's command line, null where it is not there. O(boot_file) is applied after it.
  returned: success
  type: str
tuned:
  description: What tuned's active profile sets C(transparent_hugepages) to, null where it sets nothing.
  returned: success
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
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.thp_plan import (
    BASE,
    command_line_value,
    plan,
    tuned_value,
    tuned_warning,
    wanted_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import selected

SPEC = {
    "enabled": {"type": "str", "choices": ["never", "madvise", "always"], "default": "never"},
    "defrag": {"type": "str", "choices": ["always", "defer", "defer+madvise", "madvise", "never"], "default": "never"},
    "khugepaged_defrag": {"type": "bool", "default": False},
    "boot_file": {"type": "path", "default": "/etc/tmpfiles.d/redis-thp.conf"},
    "on_read_only": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
}

#: Where tuned keeps profiles; the first one found counts.
TUNED = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")


def read_live(host, name):
    text = host.read(f"{BASE}/{name}")
    if text is None:
        raise Problem("unreadable", f"{BASE}/{name} cannot be read, although this kernel has transparent huge pages",
                      "a setting that can be compared", "run with become: true")  # fmt: skip
    return text


def read_tuned_profile(host, name):
    texts = (host.read(f"{directory}/{name}/tuned.conf") for directory in TUNED)
    return next((text for text in texts if text is not None), None)


def body(module):
    host = Host()
    params = module.params
    on_command_line = command_line_value(host.read("/proc/cmdline") or "")
    active = " ".join((host.read("/etc/tuned/active_profile") or "").split())
    tuned = tuned_value(active, lambda name: read_tuned_profile(host, name))
    reported = {"kernel_command_line": on_command_line, "tuned": tuned[0] if tuned else None}
    if not os.path.isdir(host.path(BASE)):
        return result_of([], supported=False, values={}, duplicates=[], **reported)
    wanted = wanted_of(params["enabled"], params["defrag"], params["khugepaged_defrag"])
    live = {name: read_live(host, name) for name in wanted}
    files = [(one.path, one.text) for one in boot_file(host, "tmpfiles.d", params["boot_file"], "boot_file")]
    read_only = [name for name in wanted if not is_writable(host.path(f"{BASE}/{name}"))]
    found = plan(params["boot_file"], files, live, wanted, Access(read_only, params["on_read_only"], os.geteuid() == 0))
    if not module.check_mode:
        writes = [
            LiveWrite(host.path(path), before, value, lambda path=path: selected(host.read(path) or ""))
            for path, before, value in found.writes
        ]
        apply(writes, host.path(params["boot_file"]), found.new_text)
    by_tuned = tuned_warning(tuned, active, params["enabled"])
    warnings = found.warnings + ([by_tuned] if by_tuned else [])
    return result_of(
        found.changes, supported=True, values=found.values, duplicates=found.duplicates, warnings=warnings, **reported
    )


def main():
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
