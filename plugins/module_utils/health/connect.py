# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection, or what the lack of one means for a server's health."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, Server, connect

__all__ = ["reached"]

#: Seconds; a server that stands still for longer is silent.
_PATIENCE = 10.0
#: What says nothing of the server: it is the one who asks that is at fault.
_SILENT = {
    "server_down": "server_down",
    "not_redis": "server_not_responding",
    "server_silent": "server_not_responding",
    "server_busy": "server_not_responding",
}


def reached(login: Login) -> tuple[t.Optional[Server], str, str, bool]:
    """A connection; or the code of the trouble (one of health_codes), its words, and whether it was the server that refused."""
    for option in ("ca_certs", "client_cert_file", "client_key_file"):
        path = getattr(login, option)
        if login.tls and path and not os.access(path, os.R_OK):
            return None, "server_unseen", f"{option}: {path} cannot be read", False
    try:
        return connect(login, _PATIENCE), "", "", False
    except Problem as problem:
        code = _SILENT.get(problem.code, "server_unseen")
        return None, code, problem.detected, problem.code in ("login_failed", "server_busy")
    except (OSError, ValueError) as error:  # a certificate that is none
        return None, "server_unseen", f"TLS fails: {error}", False
