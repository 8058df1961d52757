# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the metrics of one server for node_exporter's textfile collector.

As a program: ``metrics_job.py SETTINGS.json``. A server that is down is a metric, no failure of this program.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.collect import Question, read_facts
from ansible_collections.redisops.recovery.plugins.module_utils.health.exposure import crash_loss_now
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.health.summary import findings_of, report
from ansible_collections.redisops.recovery.plugins.module_utils.monitoring.metrics import Look, render
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.entrypoint import ended
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access

__all__ = ["Metrics", "main", "run"]

PROGRAMS = ("backup", "archive", "drill")


@dataclasses.dataclass(frozen=True)
class Metrics:
    """``file`` is what is written; the log is read ``log_hours`` back, whatever ``question.since`` says."""

    file: str
    question: Question
    objectives: Objectives
    log_hours: float = 1.0

    def render(self) -> str:
        """As text for the program; it holds the password."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Metrics:
        content = json.loads(text)
        question = content.pop("question")
        for name in ("login", "sentinel"):
            if question[name]:
                question[name] = Login(**question[name])
        return cls(question=Question(**question), objectives=Objectives(**content.pop("objectives")), **content)


def _failed(host: Host, group_name: str) -> dict[str, bool]:
    """Of each program that this host runs by itself, whether its last run failed."""
    found = {}
    for name in PROGRAMS:
        unit = f"redisops-{name}-{group_name}.service"
        done = host.run("systemctl", "show", "-p", "LoadState,Result", unit)
        stated = dict(line.split("=", 1) for line in done.output.splitlines() if "=" in line)
        if stated.get("LoadState") == "loaded":
            found[name] = stated.get("Result") != "success"
    return found


def run(metrics: Metrics, host: Host, now: float) -> str:
    """Write the file; its text. Raises Problem."""
    question = dataclasses.replace(metrics.question, since=now - metrics.log_hours * 3600)
    facts = read_facts(question, host)
    seen = Look(
        facts=facts,
        findings=findings_of(facts, metrics.objectives),
        crash_loss=crash_loss_now(facts),
        report=report(facts, question.group_name, metrics.objectives),
        objectives=metrics.objectives,
    )
    text = render(seen, _failed(host, question.group_name), socket.gethostname())
    StagedFile(metrics.file, text, access=Access(os.geteuid(), os.getegid(), 0o644), follow=False).commit()
    return text


def _written(metrics: Metrics) -> tuple[dict[str, t.Any], int]:
    text = run(metrics, Host(), time.time())
    return {"state": "written", "samples": sum(1 for one in text.splitlines() if not one.startswith("#"))}, 0


def main(arguments: t.Sequence[str]) -> int:
    """The program that the timer starts."""
    return ended(arguments, Metrics.parse, _written)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
