# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: install_plan
short_description: Decide where Redis comes from on a host
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Decides, from what M(redisops.recovery.redis_host_info) found, what has to be installed and from where.
  - What must not be done is returned as RV(_value.refusal), a sentence for the operator; nothing is raised.
options:
  _input:
    description: The result of M(redisops.recovery.redis_host_info).
    type: dict
    required: true
  source:
    description: The wanted source.
    type: str
    choices: [auto, distribution, module_stream, vendor, mirror, installed]
    default: auto
  minimum:
    description: The oldest version that is good enough.
    type: str
    default: "7.0"
  stream:
    description: Name and stream of the dnf module.
    type: str
    default: redis:7
  mirror_url:
    description: URL of the operator's own repository.
    type: str
    default: ""
  packages:
    description: Names of the server's packages, where they are not the distribution's usual ones.
    type: list
    elements: str
    default: []
  python_packages:
    description: Names of redis-py's packages, where they are not the usual ones.
    type: list
    elements: str
    default: []
  python_source:
    description: Where redis-py comes from.
    type: str
    choices: [package, pip]
    default: package
"""

EXAMPLES = r"""
- name: Read the host
  redisops.recovery.redis_host_info:
    probe_disk: never
  register: host

- name: Say what would be installed
  ansible.builtin.debug:
    msg: "{{ host | redisops.recovery.install_plan(source='auto') }}"
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    needed:
      description: Whether anything has to be installed.
      type: bool
    manager:
      description: V(apt) or V(dnf).
      type: str
    source:
      description: The source that was chosen.
      type: str
    packages:
      description: Packages to install.
      type: list
      elements: str
    pip:
      description: Python distributions to install with pip.
      type: list
      elements: str
    fresh_install:
      description: Whether this host has no Redis yet; for the O(redisops.recovery.redis_config#module:fresh_install) of the modules that follow.
      type: bool
    refusal:
      description: Why nothing may be installed; empty where it may.
      type: str
"""

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.install.plan import Wish, plan_install


def install_plan(
    host: t.Mapping[str, t.Any], source: str = "auto", minimum: str = "7.0", stream: str = "redis:7", mirror_url: str = "",
    packages: t.Sequence[str] = (), python_packages: t.Sequence[str] = (), python_source: str = "package",
) -> dict[str, t.Any]:  # fmt: skip
    """The plan of install_plan.plan_install, with a refusal as text."""
    try:
        plan = plan_install(
            host, Wish(source, str(minimum), stream, mirror_url, packages, python_packages, python_source)
        )
    except Problem as problem:
        return {
            "needed": True,
            "manager": None,
            "source": source,
            "packages": [],
            "pip": [],
            "fresh_install": False,
            "refusal": problem.message(),
        }
    return {**plan, "refusal": ""}


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"install_plan": install_plan}
