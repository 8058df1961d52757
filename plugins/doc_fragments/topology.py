# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of what the inventory plugins have in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_user:
    description:
      - ACL user of the servers. Without it, the default user. It needs C(+ping +info), in a cluster also C(+cluster|info +cluster|nodes).
    type: str
    env:
      - name: REDISOPS_LOGIN_USER
  login_password:
    description: Password of that user. May be C(!vault) or a template.
    type: str
    env:
      - name: REDISOPS_LOGIN_PASSWORD
  tls:
    description: Whether the ports speak TLS.
    type: bool
    default: false
  ca_certs:
    description: PEM file, on the controller, with the authorities that certificates are checked against.
    type: path
  client_cert_file:
    description: PEM file, on the controller, with the client's certificate.
    type: path
  client_key_file:
    description: PEM file, on the controller, with the client's key.
    type: path
  validate_certs:
    description: Whether certificates are checked.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 5
  server_details:
    description:
      - Whether every server is asked as well, for its version, keys, offset, and the state and lag of its link. Without it, there is
        only what the others know of a server.
    type: bool
    default: true
  host_names:
    description: Names of hosts by address (C(host) or C(host:port)). These come first.
    type: dict
    default: {}
  address_variables:
    description:
      - Variables by which hosts that the inventory already has are found; also a host's own name is one. A server whose address is there
        becomes that host, with its variables. A server with none becomes a new host, named by its address.
      - A value may be C(host), C(host:port) or a name; where several servers have one address, C(host:port) or O(port_variable) tells
        them apart.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  port_variable:
    description: Variable of a host of the inventory with the port of its server. Where it is set, another port is not that host.
    type: str
    default: redis_port
  resolve_names:
    description: Whether host names are resolved, on the controller, to find hosts that the inventory knows by name.
    type: bool
    default: true
  use_vars_plugins:
    description: Whether C(host_vars) and C(group_vars) of the sources before this one are read to find hosts.
    type: bool
    default: true
notes:
  - Sources are read in their order, those of a directory by name. The source that declares the hosts has to come first.
  - Ansible goes on without a source that fails, with a warning. Set C(any_unparsed_is_failed) in the section C(inventory) of C(ansible.cfg),
    so that no operation runs on half an inventory.
  - What servers say is never taken for a template. Neither variables nor cache hold a user or a password.
requirements:
  - redis-py >= 3.5 on the controller
"""
