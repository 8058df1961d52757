# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a power cut at this instant would cost, from what is seen, not from what is declared.

The bounds of the policy are persistence_plan.crash_loss's; what is seen on disk and in INFO makes them worse, never better.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import ago
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import crash_loss

__all__ = ["configured_durability", "crash_loss_now", "rdb_age"]

#: Redis waits this long for a sync under way before it writes on.
_WAITS = 2
#: After this time the kernel writes back what nobody synced (vm.dirty_expire_centisecs).
_KERNEL = 30


def configured_durability(facts: Facts) -> str:
    """What the server keeps, in words, such as ``AOF everysec + RDB (900 1 300 10)``; empty where that is not known."""
    appendonly, save = facts.setting("appendonly"), facts.setting("save")
    if appendonly is None or save is None:
        return ""
    parts = [f"AOF {facts.setting('appendfsync') or '?'}"] if appendonly == "yes" else []
    parts += [f"RDB ({save})"] if save else []
    return " + ".join(parts) or "nothing"


def rdb_age(facts: Facts) -> t.Optional[float]:
    """Seconds since the RDB file was written, by the file; None where there is none or it cannot be seen."""
    if facts.disk is None or facts.disk.rdb_bytes is None:
        return None
    return max(0.0, facts.now - facts.disk.rdb_mtime)


def _answer(
    seconds: t.Optional[float], text: str, how: str, writes: t.Optional[int] = None, known: bool = True
) -> dict[str, t.Any]:
    return {"seconds": seconds, "writes": writes, "text": text, "how": how, "known": known}


def _not_known(because: str) -> dict[str, t.Any]:
    return _answer(None, "not known", f"not known, because {because}", known=False)


def _by_rdb(facts: Facts, before: str = "") -> dict[str, t.Any]:
    """What only the RDB file keeps."""
    if "rdb_changes_since_last_save" not in facts.info.fields:
        return _not_known("INFO of this server has no rdb_changes_since_last_save")
    changes, age, source = facts.info.number("rdb_changes_since_last_save"), rdb_age(facts), "by the time of its file"
    if facts.disk is None:
        if not facts.info.number("rdb_saves"):
            because = facts.missing.get("disk", "the files were not looked at")
            return _not_known(f"{because}, and INFO counts a start as a save")
        age, source = (
            max(0.0, facts.now - facts.info.number("rdb_last_save_time")),
            "by INFO, since the file cannot be seen",
        )
    if age is None:
        if facts.info.keys or changes:
            return _answer(None, "all keys", f"{before}there is no RDB file")
        return _answer(0.0, "nothing: there are no keys", f"{before}there is no RDB file, and there are no keys", 0)
    if not changes:
        return _answer(
            0.0, "nothing: no write since the last save", f"{before}RDB, {ago(age)} old {source}: no change since", 0
        )
    ahead = (
        facts.disk is not None and facts.disk.rdb_mtime > facts.now + 1
    )  # the clock was set back: nothing is known of how long ago that was
    bound = crash_loss({"appendonly": "no", "save": "1 1"}, changes, None if ahead else math.ceil(age))
    seconds = None if bound["seconds"] is None else float(bound["seconds"])
    return _answer(seconds, bound["text"], f"{before}{bound['how']}, {source}", changes)


def _by_aof(facts: Facts, policy: str) -> dict[str, t.Any]:
    bound = crash_loss({"appendonly": "yes", "appendfsync": policy}, None, None)
    seconds, how = float(bound["seconds"]), [str(bound["how"])]
    info, later = facts.info, facts.later if facts.later.fields else facts.info
    if later.text("aof_last_write_status", "ok") != "ok":
        events = [
            one
            for one in facts.log.events
            if one.code in ("aof_write_error", "disk_full", "disk_io_error") and not one.over
        ]
        since = f" since {events[0].first}" if events and events[0].first else ""
        return _answer(
            None, f"the writes that the AOF did not take{since}",
            f"the AOF cannot be written{since}: {later.number('aof_buffer_length')} bytes wait in memory; Redis refuses further writes",
        )  # fmt: skip
    if policy == "everysec":
        slow = later.number("aof_delayed_fsync") > info.number("aof_delayed_fsync")
        waiting = info.number("aof_pending_bio_fsync") and later.number("aof_pending_bio_fsync")
        if slow or waiting:
            seconds += _WAITS
            how.append(f"a sync is late at this moment, for which Redis waits up to {_WAITS} s more")
    saving = later.flag("aof_rewrite_in_progress") or later.flag("rdb_bgsave_in_progress")
    if saving and policy != "no" and facts.setting("no-appendfsync-on-rewrite") == "yes":
        lasted = max(later.number("aof_current_rewrite_time_sec"), later.number("rdb_current_bgsave_time_sec"), 0)
        seconds = max(seconds, float(min(lasted, _KERNEL)))
        how.append(
            f"no-appendfsync-on-rewrite, and a save or rewrite runs for {lasted} s: the kernel writes back within about {_KERNEL} s"
        )
    return _answer(seconds, f"up to {seconds:g} s of writes", "; ".join(how))


def crash_loss_now(facts: Facts) -> dict[str, t.Any]:
    """``seconds`` of writes at most (None: no bound, or not ``known``), ``writes`` where they are counted, ``text``, and ``how``."""
    if not facts.answers:
        return _not_known(f"{facts.because}: what its memory held is not to be seen from here")
    if facts.shared or facts.not_mounted:
        return _not_known(
            f"{facts.shared or facts.not_mounted}: what a start would find is not what this server writes"
        )
    appendonly, save, policy = facts.setting("appendonly"), facts.setting("save"), facts.setting("appendfsync")
    if appendonly is None or (appendonly == "yes" and policy is None) or (appendonly != "yes" and save is None):
        return _not_known(facts.missing.get("live", "CONFIG GET does not say what is kept"))
    if appendonly == "yes":
        disk = facts.disk
        whole = disk is None or (disk.manifest is not None and not disk.missing) or disk.old_style_aof
        if whole:
            return _by_aof(facts, policy or "")
        # A start would not find an AOF that it can load: only the RDB file counts.
        return _by_rdb(facts, "the AOF on disk is not complete; ")
    if not save:
        if not facts.info.keys:
            return _answer(0.0, "nothing: there are no keys", "neither AOF nor RDB, and no keys", 0)
        bound = crash_loss({"appendonly": "no", "save": ""}, None, None)
        return _answer(None, bound["text"], bound["how"])
    return _by_rdb(facts)
