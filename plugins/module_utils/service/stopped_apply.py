# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's unit, stopped with all that it acknowledged on disk: planned and applied."""

from __future__ import annotations

import functools

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.apply import torn_changes
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import scan
from ansible_collections.redisops.recovery.plugins.module_utils.service.apply import save_before_stop
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import disk_of
from ansible_collections.redisops.recovery.plugins.module_utils.service.hold import UnitHold
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import plan_boot, require_is_the_units
from ansible_collections.redisops.recovery.plugins.module_utils.service.stop import stop_server
from ansible_collections.redisops.recovery.plugins.module_utils.service.unit_apply import State, require_ends_well
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl

__all__ = ["apply_stopped", "plan_stopped"]


def plan_stopped(state: State) -> list[Change]:
    """What is to be done, and that it may be. Raises Problem or Refusal."""
    instance, unit = state.instance, state.declared.unit
    changes = []
    if instance.running:
        require_is_the_units(unit, state.shown, instance.pid)
        require_ends_well(state, instance.info)
        changes += torn_changes(instance.info, scan(disk_of(instance.live)))
        words = "save and wait for it to end well, pause writes, stop"
        changes.append(Change("process", unit, "running", "stopped", words))
    elif state.shown.get("MainPID", "0") != "0":
        raise Refusal(
            "not_the_units_process",
            f"{unit}.service has process {state.shown['MainPID']}, and nothing answers at the declared address: what that process holds is not known",
            "the address at which the server of this unit answers",
            "set login_host, login_port or login_unix_socket, and run again; a server that hangs: look into its log",
        )
    elif state.shown.get("ActiveState", "inactive") not in ("inactive", "failed"):
        changes.append(
            Change("process", unit, state.shown["ActiveState"], "stopped", f"stop {unit}, which has no process")
        )
    return changes + plan_boot(state.declared, state.shown)


def apply_stopped(state: State, changes: list[Change], timeout: float) -> None:
    """Stop it, and see to the boot; ``timeout`` in seconds, of each wait. Raises Problem or Refusal; then a server that ran goes on."""
    host, unit, instance = state.host, state.declared.unit, state.instance
    if instance.running:
        safe = functools.partial(require_ends_well, state)
        save_before_stop(instance.server, host, safe, timeout)
        with UnitHold(host, unit, instance.live["dir"], False) as hold:
            stop_server(hold, host, instance.server, safe, timeout)
    elif any(change.layer == "process" for change in changes):
        systemctl(host, "stop", f"{unit}.service", timeout=timeout)
    if any(change.layer == "boot" for change in changes):
        systemctl(host, "enable" if state.declared.enabled else "disable", f"{unit}.service")
