# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options, once for all modules."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import require_typable
from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import Settings
from ansible_collections.redisops.recovery.plugins.module_utils.backup.job import Job
from ansible_collections.redisops.recovery.plugins.module_utils.backup.repositories import Elsewhere
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.retention import Policy, require_policy
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login

__all__ = ["backup_spec", "connection_spec", "job_of", "login_of", "repositories_of"]


def connection_spec() -> dict[str, dict[str, t.Any]]:
    """Argument spec of the doc fragment ``redisops.recovery.connection``."""
    return {
        "login_host": {"type": "str", "default": "127.0.0.1"},
        "login_port": {"type": "int", "default": 6379},
        "login_user": {"type": "str"},
        "login_password": {"type": "str", "no_log": True},
        "login_previous_password": {"type": "str", "no_log": True},
        "login_unix_socket": {"type": "path"},
        "tls": {"type": "bool", "default": False},
        "ca_certs": {"type": "path"},
        "client_cert_file": {"type": "path"},
        "client_key_file": {"type": "path"},
        "validate_certs": {"type": "bool", "default": True},
    }


def login_of(params: t.Mapping[str, t.Any]) -> Login:
    """The connection options of a module's parameters. Raises Problem."""
    for name in ("login_user", "login_password"):  # login_previous_password may: it is the way out of such a password
        require_typable(name, params[name], f"correct {name}")
    return Login(
        host=params["login_host"],
        port=params["login_port"],
        user=params["login_user"],
        password=params["login_password"],
        previous_password=params["login_previous_password"],
        unix_socket=params["login_unix_socket"],
        tls=params["tls"],
        ca_certs=params["ca_certs"],
        client_cert_file=params["client_cert_file"],
        client_key_file=params["client_key_file"],
        validate_certs=params["validate_certs"],
    )


def backup_spec() -> dict[str, dict[str, t.Any]]:
    """Argument spec of the doc fragment ``redisops.recovery.backup``."""
    rules = ("keep_last", "keep_within_days", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
    retention: dict[str, t.Any] = {
        "type": "dict",
        "options": {
            **{name: {"type": "int", "default": 0} for name in rules},
            "minimum_redundancy": {"type": "int", "default": 1},
        },
    }
    return {
        "directory": {"type": "path", "default": "/var/backups/redis"},
        "group_name": {"type": "str", "default": "redis"},
        "method": {"type": "str", "choices": ["auto", "rdb", "aof", "stream"], "default": "auto"},
        "group_hosts": {"type": "list", "elements": "str", "default": []},
        "address": {"type": "str"},
        "address_variables": {
            "type": "list",
            "elements": "str",
            "default": ["redis_replication_address", "ansible_host"],
        },
        "max_behind": {"type": "int", "default": 10485760},
        "max_lag": {"type": "int", "default": 10},
        "max_age": {"type": "int", "default": 0},
        "verify": {"type": "bool", "default": True},
        "sample": {"type": "int", "default": 100},
        "assertions": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "key": {"type": "str", "required": True, "no_log": False},
                "database": {"type": "int", "default": 0},
                "type": {"type": "str"},
                "min_count": {"type": "int"},
            },
        },
        "fork_headroom_percent": {"type": "int", "default": 25},
        "config_file": {"type": "str", "default": "/etc/redis/redis.conf"},
        "sentinel_file": {"type": "str", "default": "/etc/redis/sentinel.conf"},
        "retention": retention,
        "repositories": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "location": {"type": "str", "required": True},
                "password": {"type": "str", "required": True, "no_log": True},
                "environment": {"type": "dict", "default": {}, "no_log": True},
                "options": {"type": "list", "elements": "str", "default": []},
                "retention": retention,
            },
        },
        "timeout": {"type": "int", "default": 3600},
    }


def _policy(given: t.Optional[t.Mapping[str, t.Any]]) -> Policy:
    """A policy from its option. Raises Problem for one that says nothing sensible."""
    policy = Policy(**{name: value for name, value in (given or {}).items() if value is not None})
    require_policy(policy)
    return policy


def _elsewhere(row: t.Mapping[str, t.Any]) -> Elsewhere:
    environment = {str(name): str(value) for name, value in (row["environment"] or {}).items()}
    repository = Repository(
        row["name"],
        row["location"],
        row["password"],
        environment,
        tuple(row["options"] or ()),
        "/var/cache/redisops/restic",
    )
    repository.require_usable()
    return Elsewhere(repository, _policy(row["retention"]))


def repositories_of(rows: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Elsewhere, ...]:
    """The option repositories. Raises Problem for what cannot be."""
    places = tuple(_elsewhere(row) for row in rows)
    if len({place.repository.name for place in places}) != len(places):
        raise Problem("invalid_value", "two repositories have the same name", "a name for each", "set repositories")
    return places


def job_of(params: t.Mapping[str, t.Any]) -> Job:
    """The backup options of a module's parameters. Raises Problem for what cannot be."""
    names = (
        "directory", "group_name", "method", "sample", "timeout", "fork_headroom_percent", "config_file", "sentinel_file",
    )  # fmt: skip
    if params["sample"] < 0 or params["timeout"] < 1 or params["fork_headroom_percent"] < 0:
        raise Problem(
            "invalid_value", "sample, timeout or fork_headroom_percent is negative", "whole numbers from 0 on (timeout from 1)", "set them"
        )  # fmt: skip
    settings = Settings(**{name: params[name] for name in names}, assertions=tuple(params["assertions"]))
    rest = {name: params[name] for name in ("max_behind", "max_lag", "max_age", "verify")}
    places = repositories_of(params["repositories"])
    if places and settings.group_name == "redis":
        raise Problem(
            "group_name_shared",
            "repositories are named, and group_name is redis, which every server has that was given no other name",
            "a name of its own: in a repository the set's name tells whose a backup is, for retention and for restores",
            "set group_name (role variable redis_group_name)",
        )
    return Job(
        settings, login_of(params), tuple(params["group_hosts"]), params["address"] or "", **rest,
        retention=_policy(params["retention"]), repositories=places,
    )  # fmt: skip
