# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing the directives of persistence into force, so that a cut at any point leaves what a start would load."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import (
    bring_aof_up,
    convert_offline,
    rewrite_aof,
    settle_aof,
    verified_save,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import Plan, Situation, Wanted
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance, edited, stage
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedEdit

__all__ = ["apply"]

#: Renewed while a save is waited for; a run that dies leaves the pause for no longer than this.
_PAUSE_SECONDS = 30


def _disarm(instance: Instance, plan: Plan, text: str, timeout: float) -> str:
    """A verified save, and a file that lets a crash find it; gives what the file says then. Raises Problem."""
    if plan.save_first:
        stage(instance, text).discard()  # a full disk or a read-only directory shows before anything else
        verified_save(instance.server, instance.host, timeout)
    if not plan.disarm_file:
        return instance.text
    # Until the AOF is verified a crash must find the RDB file, just saved: "yes" would start empty or from an older AOF.
    disarmed = edited(instance, {"appendonly": "no"})
    stage(instance, disarmed).commit()
    return disarmed


def _bring_aof_up(instance: Instance, plan: Plan, place: Place, timeout: float) -> None:
    """The AOF live, verified on disk. Raises Problem; then the live values are as before."""
    server = instance.server
    try:
        if plan.aof_live == "on":
            bring_aof_up(server, instance.host, place, timeout)
        elif plan.aof_live:
            if plan.aof_live == "rewrite":
                rewrite_aof(server, place)
            settle_aof(server, instance.host, place, timeout)
    except Problem:
        if plan.live:
            server.config_set({name: instance.live[name] for name in plan.live})
        raise


def _commit(staged: StagedEdit, instance: Instance, plan: Plan, changed: bool) -> None:
    """The file, then what was waiting for it. Raises Problem."""
    if changed:
        staged.commit()
    if plan.late:
        instance.server.config_set(plan.late)


def _turn_aof_off(staged: StagedEdit, instance: Instance, plan: Plan, changed: bool, timeout: float) -> None:
    """The file and the server stop relying on the AOF in one pause of writes: a crash at any point finds all that was acknowledged."""
    server = instance.server
    pause = WritePause(server.command, _PAUSE_SECONDS)
    pause.renew()
    try:
        if server.info("persistence").number("rdb_changes_since_last_save"):
            verified_save(server, instance.host, timeout, tick=pause.renew)
        pause.renew()
        _commit(staged, instance, plan, changed)
    finally:
        pause.end()


def apply(instance: Instance, wanted: Wanted, plan: Plan, now: Situation, timeout: float) -> None:
    """The planned steps, live first, the file last; ``timeout`` in seconds, of each wait. Raises Problem."""
    text = edited(instance, wanted.spelled)
    staged = stage(instance, text, made_from=_disarm(instance, plan, text, timeout))
    changed = text != instance.text or plan.disarm_file
    try:
        if plan.live:
            instance.server.config_set(plan.live)
        _bring_aof_up(instance, plan, now.disk.place, timeout)
        if plan.convert:
            convert_offline(now.disk, plan.set_aside)
        if plan.late.get("appendonly") == "no":
            _turn_aof_off(staged, instance, plan, changed, timeout)
        else:
            _commit(staged, instance, plan, changed)
    finally:
        staged.discard()
