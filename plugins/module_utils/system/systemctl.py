# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemctl on the managed host."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["systemctl"]


def systemctl(host: Host, *args: str, timeout: t.Optional[float] = None) -> str:
    """Run systemctl. Raises Problem with its words and the way to the log."""
    done = host.run("systemctl", *args, timeout=timeout)
    if done.code:
        raise Problem(
            "systemctl", f"systemctl {' '.join(args)} failed: {' '.join(done.output.split())[:500]}",
            "", f"look at: journalctl -n 50 -u {args[-1]}",
        )  # fmt: skip
    return done.output
