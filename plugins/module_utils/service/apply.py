# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts of redis_service: systemctl, and a restart between a verified save and a comparison."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import verified_save
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.service.start import start_server
from ansible_collections.redisops.recovery.plugins.module_utils.service.stop import stop_server
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["restart_server", "save_before_stop", "write_drop_in"]


def write_drop_in(path: str, text: str) -> None:
    """Put the drop-in in place, durably. Raises Problem."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(directory, 0o755)
        fsync_dir(os.path.dirname(directory))
    StagedFile(path, text, 0o644).commit()


def save_before_stop(server: Server, host: Host, require_safe: t.Callable[[Info], None], timeout: float) -> None:
    """A verified save, between two proofs that a start would find it. Nothing has been touched yet. Raises Problem."""
    require_safe(server.info())  # before the save: it replaces a file
    require_safe(verified_save(server, host, timeout))


def restart_server(
    hold: UnitHold, host: Host, server: Server, require_safe: t.Callable[[Info], None], timeout: float
) -> tuple[Info, Info]:
    """Stop and start again. Gives INFO before and after. Raises Problem; then the server runs, or has been told to start.

    Comes after save_before_stop(). Between the pause and the end of the process no write is acknowledged.
    """
    with hold:
        before = stop_server(hold, host, server, require_safe, timeout)
        return before, start_server(host, hold, server.login, timeout)
