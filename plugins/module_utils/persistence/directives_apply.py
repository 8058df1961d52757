# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing the directives of persistence into force, so that a cut at any point leaves what a start would load."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import (
    bring_aof_up,
    convert_offline,
    settle_aof,
    verified_save,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import Plan, Situation, Wanted
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance, edited, stage

__all__ = ["apply"]


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
                server.command("BGREWRITEAOF")
            settle_aof(server, instance.host, place, timeout)
    except Problem:
        if plan.live:
            server.config_set({name: instance.live[name] for name in plan.live})
        raise


def apply(instance: Instance, wanted: Wanted, plan: Plan, now: Situation, timeout: float) -> None:
    """The planned steps, live first, the file last; ``timeout`` in seconds, of each wait. Raises Problem."""
    text = edited(instance, wanted.spelled)
    staged = stage(instance, text, made_from=_disarm(instance, plan, text, timeout))
    try:
        if plan.live:
            instance.server.config_set(plan.live)
        _bring_aof_up(instance, plan, now.disk.place, timeout)
        if plan.convert:
            convert_offline(now.disk, plan.set_aside)
        if text != instance.text or plan.disarm_file:
            staged.commit()
        if plan.late:
            instance.server.config_set(plan.late)
    finally:
        staged.discard()
