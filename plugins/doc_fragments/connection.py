# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the connection options."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_host:
    description: Address of the server. The server must run on the host that the module runs on.
    type: str
    default: 127.0.0.1
  login_port:
    description: Port of the server.
    type: int
    default: 6379
  login_user:
    description: ACL user to log in as. Without it, the default user.
    type: str
  login_password:
    description:
      - Password of that user.
      - A server that does not know the user or the password yet is logged in to as the default user without a password, as long
        as it lets that one in. So the run that makes the user can use its name already.
    type: str
  login_previous_password:
    description:
      - The password before the one in O(login_password), tried where that one is refused. Set it while a password is being changed,
        and for the first run on a server with C(requirepass).
    type: str
  login_unix_socket:
    description: Path of the server's Unix socket. Set, it is used in place of host and port.
    type: path
  tls:
    description: Whether the port speaks TLS.
    type: bool
    default: false
  ca_certs:
    description: PEM file with the authorities that the server's certificate is checked against.
    type: path
  client_cert_file:
    description: PEM file with the client's certificate.
    type: path
  client_key_file:
    description: PEM file with the client's key.
    type: path
  validate_certs:
    description: Whether the server's certificate is checked.
    type: bool
    default: true
requirements:
  - redis-py >= 3.5 on the managed host
"""
