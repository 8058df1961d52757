# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way to start a server: what no start would load is kept first, and it is another process that answers."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    Login,
    Server,
    ServerDown,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import wait_until_loaded
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["start_server"]


def _connect_when_up(login: Login, timeout: float) -> Server:
    found: list[Server] = []

    def answers() -> bool:
        try:
            found.append(connect(login))
        except ServerDown:
            return False
        return True

    if not wait_for(answers, timeout):
        raise Problem(
            "server_down",
            f"nothing listens at {login.address} {timeout:g} seconds after the start",
            "a server that comes up",
            "look into its log",
        )
    return found[0]


def start_server(host: Host, hold: UnitHold, login: Login, timeout: float) -> Info:
    """Start the unit and wait until its data is loaded; gives its INFO. Raises Problem."""
    hold.allow()
    systemctl(host, "start", f"{hold.unit}.service", timeout=timeout)
    server = _connect_when_up(login, timeout)
    try:
        wait_until_loaded(server, timeout)
        return server.info()
    finally:
        server.close()
