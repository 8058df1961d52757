# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one edge between typed errors and Ansible."""

from __future__ import annotations

import os
import traceback
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import (
    Change,
    render_actions,
    render_diff,
    render_rows,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import release_locks

__all__ = ["result_of", "run_module"]


def result_of(changes: t.Sequence[Change], **more: t.Any) -> dict[str, t.Any]:
    """The result skeleton: ``changed``, ``diff``, ``actions`` and ``changes`` out of one list."""
    return {
        "changed": bool(changes),
        "diff": render_diff(changes),
        "actions": render_actions(changes),
        "changes": render_rows(changes),
        **more,
    }


def _since(row: t.Mapping[str, t.Any], params: t.Mapping[str, t.Any]) -> t.Optional[float]:
    """When the file that differs was last written, in seconds since 1970: it has been so for that long at most. None where it is no file."""
    path = row["name"] if row["name"].startswith("/") else params.get("config_file") if row["layer"] == "file" else None
    try:
        return os.stat(path).st_mtime if path else None
    except (OSError, TypeError):
        return None


class _Module(AnsibleModule):
    """AnsibleModule that learns what is secret inside a dict option before it writes its parameters to the system log."""

    @staticmethod
    def secrets(_params: t.Mapping[str, t.Any]) -> t.Iterable[str]:
        return ()

    def _log_invocation(self) -> None:
        self.no_log_values.update(self.secrets(self.params))
        super()._log_invocation()


def run_module(
    spec: t.Mapping[str, t.Any],
    body: t.Callable[[AnsibleModule], dict[str, t.Any]],
    secrets: t.Callable[[t.Mapping[str, t.Any]], t.Iterable[str]] = _Module.secrets,
) -> None:
    """Run ``body`` and exit with its result; a Problem becomes one clear error, anything else a report without traceback.

    ``secrets`` gives the values within dict options that must not be shown; ``no_log`` is for whole options only.
    """
    kind = type("Module", (_Module,), {"secrets": staticmethod(secrets)})
    module = kind(argument_spec=dict(spec), supports_check_mode=True)
    try:
        result = body(module)
        if module.check_mode:  # a run has written the file by now
            for row in result.get("changes", []):
                row["since"] = _since(row, module.params)
    except Problem as problem:
        if module.check_mode and problem.code == "redis_py_missing":
            # What installs it comes before this in the same run, and has only been predicted.
            module.warn(f"What would change is not known: {problem.detected}.")
            module.exit_json(**result_of([], pending=[], restart_required=[], running=None))
        module.fail_json(msg=problem.message(), code=problem.code, **problem.details)
    except Exception as error:  # the last line of defence: no traceback reaches a user
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)} line {frame.lineno}"
        module.fail_json(
            msg=f"Unexpected {type(error).__name__} in {where}: {error}. This is a defect: please report it."
        )
    finally:
        release_locks()
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)
