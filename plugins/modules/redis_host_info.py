#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_host_info
short_description: Tell whether a host is fit for durable Redis
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Compares CPUs, memory, swap, kernel settings, the throughput of the disk and the round trip to other hosts with what durable Redis needs.
    Each check becomes a row of RV(findings) that says what was measured, what is needed, what happens otherwise and what to do.
  - What cannot be measured is given as not known, with the reason, and neither warns nor fails.
  - Limits of a container (cgroup v1 and v2) count where they are lower than what the machine has.
  - Also returns what installing Redis depends on, among it the operating system, its package manager and a Redis that is there already.
  - Changes nothing. To measure the disk it writes up to O(probe_disk_mb) into a file without a name in O(data_dir) for about two seconds, also in
    check mode; the space is free again when the module ends. To measure the round trip it sends three pings, or opens three TCP connections, to each of O(peers).
options:
  policy:
    description: What a check that is not met leads to, V(warn) to a warning, V(fail) to an error that lists all of them.
    type: str
    choices: [warn, fail]
    default: warn
  policy_by_check:
    description:
      - Another policy for single checks, V(warn), V(fail) or V(ignore). A check that is ignored is still returned.
      - The checks are V(cpu), V(memory), V(swap), V(backlog), V(overcommit), V(thp), V(disk_throughput) and V(rtt).
    type: dict
    default: {}
  expect_kernel_role:
    description:
      - Whether the role C(redisops.recovery.redis_kernel) runs after this, which corrects V(backlog), V(overcommit) and V(thp).
      - If so, these three are returned but neither warn nor fail.
    type: bool
    default: true
  min_cpus:
    description: CPUs needed. One serves commands, another one saves.
    type: int
    default: 2
  min_memory_mb:
    description:
      - Memory needed, in MB of 1024 * 1024 bytes.
      - Firmware and crash kernel keep a part of a machine's memory, so 90 percent of this is enough. A container's limit has to reach it in full.
    type: int
    default: 4096
  min_swap_ratio:
    description: Swap needed, as a multiple of the memory. V(0) needs none.
    type: float
    default: 1.0
  tcp_backlog:
    description: The C(tcp-backlog) of Redis, which C(net.core.somaxconn) must reach.
    type: int
    default: 511
  min_disk_mb_per_second:
    description: Throughput needed of the disk, in MB (1000 * 1000 bytes) written and synced per second.
    type: float
    default: 100.0
  max_rtt_ms:
    description: The longest round trip to a peer, in milliseconds.
    type: float
    default: 1.0
  data_dir:
    description: Where Redis keeps its data. Its nearest parent that exists is measured where it is not there yet.
    type: path
    default: /var/lib/redis
  peers:
    description: Addresses of the other hosts.
    type: list
    elements: str
    default: []
  peer_port:
    description: The TCP port to time a connection to where a peer does not answer ping. It need not be open; a refusal takes one round trip as well.
    type: int
    default: 22
  probe_disk:
    description: Whether to measure the disk. V(auto) does so only where no Redis or Valkey server runs, so that a disk in use is not loaded.
    type: str
    choices: [auto, always, never]
    default: auto
  probe_disk_mb:
    description: How much to write at most, in MB of 1024 * 1024 bytes.
    type: int
    default: 64
extends_documentation_fragment:
  - redisops.recovery.attributes.info
seealso:
  - module: redisops.recovery.sysctl_redis
  - module: redisops.recovery.thp
"""

EXAMPLES = r"""
- name: Look whether the host is fit for Redis
  redisops.recovery.redis_host_info:
    peers: [192.0.2.11, 192.0.2.12]
  register: host

- name: Insist on memory and swap, do without the throughput of the disk
  redisops.recovery.redis_host_info:
    policy_by_check:
      memory: fail
      swap: fail
    probe_disk: never
"""

RETURN = r"""
findings:
  description: One row for each check.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: The name of the check.
      type: str
    ok:
      description: Whether it is met; null where that is not known.
      type: bool
    measured:
      description: What was measured, with its unit; or C(not known, because …).
      type: str
    needed:
      description: What is needed, with its unit.
      type: str
    consequence:
      description: What happens otherwise. Empty where RV(findings[].ok) is true.
      type: str
    do:
      description: What to do. Empty where RV(findings[].ok) is true.
      type: str
    because:
      description: Why it is not known.
      type: str
    policy:
      description: What applies to this check, V(warn), V(fail) or V(ignore).
      type: str
cpus:
  description: CPUs that may be used; a container's quota can make it a fraction.
  returned: always
  type: float
memory_bytes:
  description: Memory that may be used.
  returned: always
  type: int
swap_bytes:
  description: Swap that may be used.
  returned: always
  type: int
disk_mb_per_second:
  description: Throughput of the disk, null where it was not measured.
  returned: always
  type: float
rtt_ms:
  description: The round trip to each peer, null where it could not be measured.
  returned: always
  type: dict
open_files_ceiling:
  description: The most open files a service on this host can be given; null where nothing but the kernel's maximum bounds it.
  returned: always
  type: int
redis:
  description: A Redis or Valkey server that is installed.
  returned: always
  type: dict
  contains:
    installed:
      description: Its version, null where there is none.
      type: str
    product:
      description: V(redis) or V(valkey).
      type: str
    path:
      description: The program.
      type: str
redis_py:
  description: The version of the Python library redis for the Python that runs modules, null where there is none.
  returned: always
  type: str
python:
  description: The version of the Python that runs modules.
  returned: always
  type: str
os:
  description: C(id), C(id_like) (a list), C(version_id) and C(codename) of C(/etc/os-release).
  returned: always
  type: dict
package_manager:
  description: V(apt) or V(dnf), null for another one.
  returned: always
  type: str
selinux:
  description: Whether the kernel has SELinux enabled.
  returned: always
  type: bool
virtualization:
  description: What systemd-detect-virt says, C(type) (V(none) on bare metal) and whether it is a C(container); null where it is not known.
  returned: always
  type: dict
code:
  description: A stable name for what went wrong.
  returned: failure
  type: str
  sample: preflight_failed
"""

import platform

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system import benchmarks, requirements
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import selected
from ansible_collections.redisops.recovery.plugins.module_utils.system.requirements import Facts, Limits, Measured

SPEC = {
    "policy": {"type": "str", "choices": ["warn", "fail"], "default": "warn"},
    "policy_by_check": {"type": "dict", "default": {}},
    "expect_kernel_role": {"type": "bool", "default": True},
    "min_cpus": {"type": "int", "default": 2},
    "min_memory_mb": {"type": "int", "default": 4096},
    "min_swap_ratio": {"type": "float", "default": 1.0},
    "tcp_backlog": {"type": "int", "default": 511},
    "min_disk_mb_per_second": {"type": "float", "default": 100.0},
    "max_rtt_ms": {"type": "float", "default": 1.0},
    "data_dir": {"type": "path", "default": "/var/lib/redis"},
    "peers": {"type": "list", "elements": "str", "default": []},
    "peer_port": {"type": "int", "default": 22},
    "probe_disk": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "probe_disk_mb": {"type": "int", "default": 64},
}

THP = "/sys/kernel/mm/transparent_hugepage/enabled"


def measure_disk(host, params):
    if params["probe_disk"] == "never":
        return Measured(None, "probe_disk is never")
    server = benchmarks.running_server(host) if params["probe_disk"] == "auto" else None
    if server:
        return Measured(None, f"{server} is running and probe_disk is auto, so its disk is left alone")
    return benchmarks.disk_throughput(
        benchmarks.nearest_directory(host.path(params["data_dir"])), params["probe_disk_mb"]
    )


def read_facts(host, params):
    memory, memory_is_limit = benchmarks.memory(host)
    somaxconn = (host.read("/proc/sys/net/core/somaxconn") or "").strip()
    overcommit = (host.read("/proc/sys/vm/overcommit_memory") or "").strip()
    return Facts(
        cpus=benchmarks.cpus(host),
        memory=memory,
        memory_is_limit=memory_is_limit,
        swap=benchmarks.swap(host),
        somaxconn=int(somaxconn) if somaxconn.isdigit() else None,
        overcommit=overcommit or None,
        thp=selected(host.read(THP) or ""),
        thp_supported=benchmarks.exists(host, THP),
        disk=measure_disk(host, params),
        rtt={peer: benchmarks.round_trip(host, peer, params["peer_port"]) for peer in params["peers"]},
    )


def installed_server(host):
    path = benchmarks.find_program(host, ["redis-server", "valkey-server"])
    version, product = (
        requirements.server_version(host.run(host.path(path), "--version", timeout=10).output) if path else (None, None)
    )
    return {"installed": version, "product": product, "path": path}


def redis_py_version():
    try:
        import redis
    except ImportError:
        return None
    return str(getattr(redis, "__version__", "")) or None


def body(module):
    host = Host()
    params = module.params
    policies = requirements.check_policies(params["policy"], params["policy_by_check"])
    facts = read_facts(host, params)
    limits = Limits(**{name: params[name] for name in Limits.__dataclass_fields__})
    expect = params["expect_kernel_role"]
    found = requirements.rows(facts, limits, expect)
    release = requirements.os_release(host.read("/etc/os-release") or host.read("/usr/lib/os-release") or "")
    result = {
        "findings": [{**row, "policy": policies[row["check"]]} for row in found],
        "cpus": facts.cpus,
        "memory_bytes": facts.memory,
        "swap_bytes": facts.swap,
        "disk_mb_per_second": facts.disk.value,
        "rtt_ms": {peer: one.value for peer, one in facts.rtt.items()},
        "open_files_ceiling": host.open_files_ceiling(),
        "redis": installed_server(host),
        "redis_py": redis_py_version(),
        "python": platform.python_version(),
        "os": release,
        "package_manager": benchmarks.package_manager(host, release),
        "virtualization": benchmarks.virtualization(host),
        "selinux": host.read("/sys/fs/selinux/enforce") is not None,
    }
    failing = requirements.failing(found, policies, "fail", expect)
    if failing:
        raise Problem(
            "preflight_failed",
            f"this host is not fit for durable Redis, {len(failing)} of {len(found)} checks: "
            + " ".join(f"({number}) {requirements.say(row)}" for number, row in enumerate(failing, 1)),
            **result,
        )
    warnings = [requirements.say(row) for row in requirements.failing(found, policies, "warn", expect)]
    return {"changed": False, "warnings": warnings, **result}


def main():
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
