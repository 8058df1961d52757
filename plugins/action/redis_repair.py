# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of redis_repair: hosts of the inventory become addresses."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.plugin_utils.addressed_action import AddressedAction


class ActionModule(AddressedAction):
    """One call of the module."""
