# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the server that runs has written or loaded the RDB file that its next save would replace.

Never by the clock alone, and where it is in doubt the answer is no: what is unread is kept by a hard link, which costs nothing.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import DataFiles
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rdb_header import RdbHeader
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = ["Unread", "clearly_less", "is_of_its_history", "is_own_save", "require_not_less", "was_loaded"]

#: Seconds between what the child notes in the file and what its parent counts.
_SLACK = 3


@dataclasses.dataclass(frozen=True)
class Unread:
    """A data file that no running process has loaded. ``keys`` that are not past their time; None where that is not known."""

    path: str
    keys: t.Optional[int]


def clearly_less(have: int, lies: int) -> bool:
    """Whether ``have`` keys are more likely what an empty or stale start left than what was deleted from ``lies``."""
    return have * 2 < lies


def is_own_save(info: Info, header: RdbHeader) -> bool:
    """Whether the file began when the last save of this very process did, as both note by the same clock."""
    last, took = info.number("rdb_last_save_time"), max(info.number("rdb_last_bgsave_time_sec"), 0)
    made = header.ctime
    return bool(info.number("rdb_saves")) and made is not None and last - took - _SLACK <= made <= last + 1


def is_of_its_history(info: Info, header: RdbHeader) -> bool:
    """Whether the file holds an earlier moment of the replication history that the process is in now."""
    stated, offset = header.aux.get("repl-id", ""), header.number("repl-offset")
    if offset is None or not stated.strip("0"):
        return False
    if stated == info.text("master_replid"):
        return offset <= info.number("master_repl_offset")
    return stated == info.text("master_replid2") and offset <= info.number("second_repl_offset", -1)


def was_loaded(info: Info, disk: DataFiles, keys: int) -> bool:
    """Whether a start could load this file only, and loaded as many keys as are in it."""
    aof = info.flag("aof_enabled") or disk.manifest or disk.orphans or disk.old_style_aof
    loaded = info.number("rdb_last_load_keys_loaded") + info.number("rdb_last_load_keys_expired")
    return not aof and loaded == keys > 0


def require_not_less(unread: t.Optional[Unread], info: Info, aof_dir: str) -> None:
    """What would replace the file holds about as much as it does. Raises Refusal."""
    if unread is None:
        return
    if info.keys if unread.keys is None else not clearly_less(info.keys, unread.keys):
        return
    count = "an unknown number of" if unread.keys is None else unread.keys
    raise Refusal(
        "rdb_never_loaded",
        f"{unread.path} holds {count} keys; the running server has {info.keys} and never read that file, as after a restart with "
        "appendonly yes next to no AOF, or next to an older one. The next save would overwrite it",
        "to know which of the two is the data",
        f"to get the file's keys back: cp -p {unread.path} aside now, CONFIG SET save '', SHUTDOWN NOSAVE, move {aof_dir} aside, put the copy "
        "back, run again with the server stopped. If the file is not wanted: redis-cli BGSAVE, then run again",
    )
