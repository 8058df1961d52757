# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of redis_firewall: names of the inventory, and the second connection that confirms a change."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.sources import from_inventory

#: Between two attempts to connect anew.
_PAUSE_SECONDS = 1.0


class ActionModule(ActionBase):
    """One call where nothing in the live ruleset changes; else a second one over a new connection."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(self, tmp: t.Any = None, task_vars: t.Optional[dict[str, t.Any]] = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        try:
            arguments = self._with_addresses(dict(self._task.args), task_vars or {})
        except Problem as problem:
            return {**result, "failed": True, "msg": problem.message(), "code": problem.code, **problem.details}
        first = self._call(arguments, task_vars, commit_confirm=True, confirm="")
        commit_confirm = first.pop("commit_confirm", None)
        if first.get("failed") or not commit_confirm:
            return {**result, **first}
        second = self._confirm(arguments, task_vars, commit_confirm)
        if second.get("failed"):
            reported = second.get("msg") or "The second call failed."
            return {
                **result,
                **second,
                "msg": f"{reported} {self._meanwhile(commit_confirm)}",
                "diff": first.get("diff", {}),
            }
        return {**result, **first, "commit_confirmed": True}

    def _call(self, arguments: dict[str, t.Any], task_vars: t.Any, **more: t.Any) -> dict[str, t.Any]:
        return self._execute_module(
            module_name=self._task.action, module_args={**arguments, **more}, task_vars=task_vars
        )

    def _confirm(
        self, arguments: dict[str, t.Any], task_vars: t.Any, commit_confirm: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        """The confirming call, tried until the host would have put the old table back. Raises AnsibleConnectionFailure."""
        end = time.monotonic() + commit_confirm["seconds"]
        while True:
            try:
                self._connect_anew()
                return self._call(arguments, task_vars, commit_confirm=False, confirm=commit_confirm["id"])
            except AnsibleConnectionFailure as error:
                if time.monotonic() + _PAUSE_SECONDS >= end:
                    raise AnsibleConnectionFailure(
                        f"The host could not be reached any more over a new connection: {error}. {self._meanwhile(commit_confirm)}"
                    ) from None  # its words are in the message
            time.sleep(_PAUSE_SECONDS)

    def _connect_anew(self) -> None:
        """A connection that is kept open (ControlPersist) would pass the new rules as an established one."""
        if type(self._connection).reset is not ConnectionBase.reset:
            self._connection.reset()
        else:
            self._connection.close()

    @staticmethod
    def _meanwhile(commit_confirm: dict[str, t.Any]) -> str:
        return (
            f"The change was not confirmed: the host puts the old table back by itself {commit_confirm['seconds']} seconds after it was loaded,"
            " and its boot file still has the old rules."
        )

    def _with_addresses(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The arguments with names of the inventory replaced by addresses; what has another shape is for the module to refuse."""
        variables = arguments.get("address_variables", ["ansible_host"])
        variables = [variables] if isinstance(variables, str) else list(variables or [])
        hosts_of, hostvars = task_vars.get("groups", {}), task_vars.get("hostvars", {})
        known = set(hosts_of.get("all", ()))

        def addresses_of(name: str) -> t.Optional[t.Sequence[str]]:
            if name not in known:
                return None
            found = next((value for value in (hostvars[name].get(variable) for variable in variables) if value), name)
            return [found] if isinstance(found, str) else list(found)

        def replaced(sources: t.Any, groups: t.Any) -> t.Any:
            if not isinstance(sources, (list, tuple)) or not isinstance(groups, (list, tuple)):
                return sources
            return from_inventory(sources, groups, hosts_of, addresses_of, task_vars.get("inventory_hostname", ""))

        services = arguments.get("services")
        if isinstance(services, (list, tuple)):
            arguments["services"] = [
                {**one, "sources": replaced(one.get("sources") or [], one.get("groups") or [])}
                if isinstance(one, dict)
                else one
                for one in services
            ]
        if "peers" in arguments:
            arguments["peers"] = replaced(arguments["peers"] or [], [])
        return arguments
