# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_page
short_description: Show a fleet's report as a page or as Markdown
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - V(html) is one page that needs no network and nothing next to it. Everything that hosts stated is escaped.
options:
  _input:
    description: RV(redisops.recovery.fleet_report#filter:_value).
    type: dict
    required: true
  form:
    description: V(html) or V(markdown).
    type: str
    default: html
"""

EXAMPLES = r"""
- name: Look
  ansible.builtin.include_role:
    name: redisops.recovery.redis_monitoring
    tasks_from: health

- name: Keep the page
  ansible.builtin.copy:
    content: "{{ {inventory_hostname: hostvars[inventory_hostname]} | redisops.recovery.fleet_report | redisops.recovery.fleet_page }}"
    dest: /tmp/redis.html
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_page import render_html, render_markdown


def fleet_page(report: t.Mapping[str, t.Any], form: str = "html") -> str:
    """The report as text."""
    if form not in ("html", "markdown"):
        raise AnsibleFilterError(f"fleet_page: {form!r} is no form. Needed: html or markdown.")
    return (render_html if form == "html" else render_markdown)(report)


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable]:
        return {"fleet_page": fleet_page}
