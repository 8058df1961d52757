# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes what each task did on each host as JSON lines, and can end a run hard behind a named task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lab_record
type: notification
short_description: Record a run of the test lab
description:
  - Appends one JSON object for each result of a task to the file that E(REDISOPS_RECORD) names, and one for each host at the end.
  - While a run lasts, no scenario next to it sets the machine's kernel to what is wrong (C(kernel_is_ours) in C(lab_hosts.py)).
  - With E(REDISOPS_KILL_AFTER), kills Ansible's process group with SIGKILL as soon as a task of that name ended on a host.
"""

import fcntl
import json
import os
import signal

from ansible.plugins.callback import CallbackBase

KEYS = ("changed", "diff", "actions", "restart_required", "restarted", "keys", "limited", "code", "msg", "crash_loss")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "lab_record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self._path = os.environ.get("REDISOPS_RECORD")
        self._kill_after = os.environ.get("REDISOPS_KILL_AFTER")
        self._check = False
        self._kernel = None

    def v2_playbook_on_start(self, playbook):
        path = os.environ.get("REDISOPS_KERNEL_LOCK")
        if path and os.environ.get("REDISOPS_KERNEL_IS_OURS") != "1":
            self._kernel = open(path, "a", encoding="ascii")  # noqa: SIM115 -- held until the run ends, however it does
            fcntl.flock(self._kernel, fcntl.LOCK_SH)

    def v2_playbook_on_play_start(self, play):
        self._check = bool(play.check_mode)

    def _write(self, entry):
        if self._path:
            with open(self._path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(entry) + "\n")

    def _result(self, result, failed=False):
        values = result._result
        if isinstance(values, dict) and not values.get("skipped"):
            self._write({
                "host": result._host.get_name(), "task": result._task.get_name(), "action": result._task.action,
                "check": self._check, "failed": failed, **{key: values[key] for key in KEYS if key in values},
            })  # fmt: skip
        # Not behind the look that comes first in a run: it writes nothing.
        if self._kill_after and not self._check and self._kill_after in result._task.get_name():
            os.killpg(os.getpgid(0), signal.SIGKILL)

    def v2_runner_on_ok(self, result):
        self._result(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._result(result, failed=True)

    def v2_playbook_on_stats(self, stats):
        for host in stats.processed:
            self._write({"host": host, "stats": stats.summarize(host), "check": self._check})
