# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: misread
short_description: Say which variables of this collection are given as what they cannot be
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Looks at the variables of all roles and playbooks of this collection that are set for the host, and that are yes or no, or a mode.
  - An argument spec does so too, but where its role begins, and the roles before it have made their changes by then.
options:
  _terms:
    description: None.
"""

EXAMPLES = r"""
- name: Insist on variables that mean what they say, before anything is changed
  ansible.builtin.assert:
    that: query('redisops.recovery.misread') | length == 0
    fail_msg: "{{ query('redisops.recovery.misread') | join(' ') }}"
"""

RETURN = r"""
_raw:
  description: One sentence for each variable, what it is and what to do; empty where all is well.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.redisops.recovery.plugins.plugin_utils.asked import (
    PLAYBOOK_OPTIONS,
    misread,
    options_of_roles,
)


class LookupModule(LookupBase):
    """One look."""

    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> list[str]:  # noqa: ARG002
        found: list[str] = []
        for name, option in {**PLAYBOOK_OPTIONS, **options_of_roles()}.items():
            if name in (variables or {}):
                try:
                    value = self._templar.template(variables[name])
                except AnsibleError:
                    continue  # names what only its role knows; the role's argument spec looks at it
                found += misread(name, value, option)
        return found
