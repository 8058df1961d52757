# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a cluster's replica from taking over while its primary is restored.

Live only: what a cut leaves is forgotten by the replica's next start as well. What was before is noted until it is put back.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_text

__all__ = ["set_failover_hold"]

_NAME = "cluster-replica-no-failover"


def set_failover_hold(server: t.Optional[Server], held: bool, folder: str, timeout: float, check: bool) -> list[Change]:
    """Hold a replica, or let it go and wait until it has copied its primary; of a primary, or a stopped server, nothing is asked.

    ``folder``: where it is noted. Gives what differed. Raises Problem.
    """
    if server is None or server.info("replication").text("role") != "slave":
        return []
    note, live = os.path.join(folder, f"failover-blocked-{server.login.port}"), server.config_get(_NAME)[_NAME]
    before = read_text(note).strip() if os.path.exists(note) else None
    wanted = "yes" if held else before or live
    words = "let no replica take over while its primary is restored" if held else "let it take over again"
    changes = [Change("live", _NAME, live, wanted, words)] if live != wanted else []
    if check:
        return changes
    if held and before is None:
        os.makedirs(folder, 0o755, exist_ok=True)
        StagedFile(note, f"{live}\n", 0o644).commit()
    server.config_set({_NAME: wanted})
    if held:
        return changes
    if not wait_for(lambda: server.info("replication").text("master_link_status") == "up", timeout):
        raise Problem(
            "not_copied",
            f"this replica has not copied its primary after {timeout:g} s",
            "a link that is up",
            "look at the log of both; the primary has what was restored",
        )
    if before is not None:
        os.unlink(note)
    return changes
