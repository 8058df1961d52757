# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of what looks at a server's health, now or by a timer."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.health.collect import Question
from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Objectives
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import login_of

__all__ = ["health_spec", "objectives_of", "question_of"]

_NUMBERS = (
    "crash_loss_seconds", "rpo_seconds", "rto_seconds", "max_drill_age", "max_lag", "disk_full_hours", "fork_headroom_percent", "sample_seconds",
)  # fmt: skip


def health_spec() -> dict[str, t.Any]:
    """Options of the doc fragment ``health``."""
    return {
        "config_file": {"type": "path"},
        "unit": {"type": "str", "default": "auto"},
        "sample_seconds": {"type": "float", "default": 1.0},
        "group_name": {"type": "str", "default": "redis"},
        "backup_directory": {"type": "path"},
        "sentinel_port": {"type": "int"},
        "sentinel_tls": {"type": "bool"},
        "sentinel_user": {"type": "str"},
        "sentinel_password": {"type": "str", "no_log": True},
        "crash_loss_seconds": {"type": "int", "default": 0},
        "rpo_seconds": {"type": "int", "default": 0},
        "rto_seconds": {"type": "int", "default": 0},
        "max_drill_age": {"type": "int", "default": 0},
        "max_lag": {"type": "int", "default": 10},
        "disk_full_hours": {"type": "int", "default": 24},
        "fork_headroom_percent": {"type": "int", "default": 25},
        "allow_no_persistence": {"type": "bool", "default": False},
    }


def question_of(params: t.Mapping[str, t.Any], since: float) -> Question:
    """Where to look; logs from ``since`` on, in seconds since 1970. Raises Problem for what cannot be."""
    for name in _NUMBERS:
        if params[name] < 0:
            raise Problem("invalid_value", f"{name} is {params[name]}", "a number from 0 on", f"set {name}")
    if params["sample_seconds"] > 60:
        raise Problem("invalid_value", "sample_seconds is more than a minute", "at most 60", "set sample_seconds")
    login, sentinel = login_of(params), None
    if params["sentinel_port"]:
        sentinel = dataclasses.replace(
            login, port=params["sentinel_port"], user=params["sentinel_user"], password=params["sentinel_password"], previous_password=None,
            unix_socket=None, tls=login.tls if params["sentinel_tls"] is None else params["sentinel_tls"],
        )  # fmt: skip
    return Question(
        login=login,
        since=since,
        config_file=params["config_file"] or "",
        unit=params["unit"].removesuffix(".service"),
        apart=params["sample_seconds"],
        sentinel=sentinel,
        group_name=params["group_name"],
        backup_directory=params["backup_directory"] or "",
        backups_expected=bool(params["backup_directory"] or params["rpo_seconds"]),
    )


def objectives_of(params: t.Mapping[str, t.Any]) -> Objectives:
    """What the server is held to."""
    return Objectives(
        crash_loss=params["crash_loss_seconds"],
        rpo=params["rpo_seconds"],
        rto=params["rto_seconds"],
        drill_age=params["max_drill_age"],
        replica_lag=params["max_lag"],
        disk_full=params["disk_full_hours"] * 3600,
        fork_headroom_percent=params["fork_headroom_percent"],
        no_persistence=params["allow_no_persistence"],
    )
