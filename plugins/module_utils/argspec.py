# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options, once for all modules (tier 3)."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server import Login

__all__ = ["connection_spec", "login_of"]


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
    """The connection options of a module's parameters."""
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
