# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a repaired AOF next to the damaged one, and has Redis' own tool look at it."""

from __future__ import annotations

import os

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import open_regular
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.cut import require_aof, stage_pieces
from ansible_collections.redisops.recovery.plugins.module_utils.repair.aof_splice import RepairedAof
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["stage_repaired"]


def stage_repaired(one: RepairedAof, target: str, appendfilename: str, host: Host, owner: tuple[int, int]) -> None:
    """Put it together as a new directory of ``owner`` (user id, group id). Where it has to be cut, Redis' own redis-check-aof cuts the copy.

    Where that cut is compared with where our own reader says. Raises Refusal.
    """

    def cut(manifest: str) -> None:
        if one.cut_at is not None:
            _fix(host, manifest, os.path.join(os.path.dirname(manifest), one.pieces[-1].entry.name), one.cut_at)
        require_aof(host, manifest)

    stage_pieces(one.pieces, target, appendfilename, owner, cut)


def _fix(host: Host, manifest: str, path: str, expected: int) -> None:
    """``redis-check-aof --fix``, which asks before it cuts. Raises Refusal."""
    done = host.run("/bin/sh", "-c", 'echo y | exec "$0" --fix "$1"', host.tool("check-aof"), manifest)
    with open_regular(path) as handle:
        found = scan_aof(handle)
    if done.code or found.ends != "clean" or found.commands_end != expected:
        raise Refusal("cut_not_verified", f"redis-check-aof --fix ended with {done.code} and left {found.commands_end} bytes that are good, where our "
                      f"own reader says {expected} ({' '.join(done.output.split())[-200:]})",
                      "a tool and a file that agree", "report both; the sources are as they were")  # fmt: skip
