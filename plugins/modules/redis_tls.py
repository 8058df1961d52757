#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_tls
short_description: Declare TLS of a Redis instance, its certificate, its directives and what it serves
version_added: 0.2.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Declares TLS of one Redis (or Valkey) instance for clients, replication and the cluster bus. The certificate, key and CA files
    on the host, the directives in the configuration file, and what the live server serves are brought to one state.
  - Certificates are given, are kept on the host by somebody else, or are issued by a given authority. In the last case the private
    key is made on the host and never leaves it, and the authority's key never leaves the controller.
  - Everything is verified before anything is touched. The key has to belong to the certificate, the certificate has to be valid now,
    lead to the authority and be for its purposes, and the server's user has to be able to read it.
  - A new certificate is loaded without a restart and without cutting a connection. The server first reads copies next to the files
    and shows by a handshake that it works; then the files change. Where a step fails, files and server go back.
  - Which certificate the live server serves is read from the server, so a run that was cut off is finished by the next one.
extends_documentation_fragment:
  - redisops.recovery.connection
  - redisops.recovery.attributes
options:
  config_file:
    description: The configuration file that the server was (or will be) started with.
    type: path
    default: /etc/redis/redis.conf
  source:
    description:
      - V(given) installs O(certificate), O(key) and O(ca).
      - V(host) takes the files at O(tls_cert_file), O(tls_key_file) and O(tls_ca_cert_file) as they are, and never writes them.
      - V(issued) has a certificate made by the authority O(ca) with its key O(ca_key), and renews it.
    type: str
    choices: [given, host, issued]
    default: given
  certificate:
    description: The server's certificate in PEM form, followed by those between it and the authority.
    type: str
  certificate_src:
    description: File on the controller to read O(certificate) from.
    type: path
  key:
    description: The private key of O(certificate) in PEM form.
    type: str
  key_src:
    description: File on the controller to read O(key) from; it may be encrypted with Ansible Vault.
    type: path
  ca:
    description:
      - The authorities that clients, replicas and this server trust, in PEM form. Several are one text.
      - With O(source=issued) the first one is the authority that issues.
    type: str
  ca_src:
    description: File on the controller to read O(ca) from.
    type: path
  ca_key:
    description: The private key of the first authority in O(ca), in PEM form. It stays on the controller.
    type: str
  ca_key_src:
    description: File on the controller to read O(ca_key) from; it may be encrypted with Ansible Vault.
    type: path
  ca_key_passphrase:
    description: Passphrase of O(ca_key). It stays on the controller.
    type: str
  names:
    description:
      - Host names and addresses of this server. A certificate that is given, or is on the host, must be good for each of them.
      - With O(source=issued) the certificate is made for them. Not given, they are the inventory name and C(ansible_host).
    type: list
    elements: str
  own_addresses:
    description: With O(source=issued), whether the host's own addresses, C(127.0.0.1) and C(localhost) are names as well.
    type: bool
    default: true
  valid_days:
    description: With O(source=issued), how long a new certificate is valid.
    type: int
    default: 397
  renew_before:
    description: Days before its end from which a certificate is issued anew; one that is not issued here is warned of.
    type: int
    default: 30
  tls_cert_file:
    description: File of the server's certificate on the host.
    type: path
    default: /etc/redis/tls/redis.crt
  tls_key_file:
    description: File of the private key on the host.
    type: path
    default: /etc/redis/tls/redis.key
  tls_ca_cert_file:
    description: File of the authorities on the host.
    type: path
    default: /etc/redis/tls/ca.crt
  tls_key_file_pass:
    description: Passphrase of the private key. Redis has it in its configuration file.
    type: str
  owner:
    description: Owner of the three files. Files of O(source=host) are left as they are.
    type: str
    default: root
  group:
    description: Group of the three files, the one that the server runs as.
    type: str
    default: redis
  mode:
    description:
      - Mode of the private key, four octal digits in quotes. A number is taken as the mode itself. The other two files are for everybody to
        read.
    type: raw
    default: "0640"
  tls_port:
    description: Port for TLS.
    type: int
    default: 6380
  tls_only:
    description:
      - Whether the plain port closes (C(port 0)). Connections that are there stay.
      - V(false) leaves C(port) as it is; a plain port is never opened here.
    type: bool
    default: false
  tls_auth_clients:
    description: Whether clients have to show a certificate of one of the authorities.
    type: str
    choices: ['yes', 'no', optional]
    default: 'yes'
  tls_replication:
    description: Whether this server, as a replica, speaks TLS to its primary.
    type: bool
    default: false
  tls_cluster:
    description: Whether the cluster bus speaks TLS.
    type: bool
    default: false
  tls_protocols:
    description: Versions of TLS that are accepted.
    type: list
    elements: str
    choices: [TLSv1.2, TLSv1.3]
    default: [TLSv1.2, TLSv1.3]
  fresh_install:
    description:
      - Whether this run installed Redis itself. The diff is then reported against a host without Redis; in
        check mode, the file may be missing.
    type: bool
    default: false
  timeout:
    description: Longest wait for a server that is still loading, in seconds.
    type: int
    default: 3600
requirements:
  - openssl on the managed host
  - cryptography >= 40 (a dependency of ansible-core) on the controller, with O(source=issued)
seealso:
  - module: redisops.recovery.redis_config
  - module: redisops.recovery.redis_service
"""

EXAMPLES = r"""
- name: Serve TLS next to the plain port, with a certificate from files on the controller
  redisops.recovery.redis_tls:
    certificate_src: tls/{{ inventory_hostname }}.crt
    key_src: tls/{{ inventory_hostname }}.key.vault
    ca_src: tls/ca.crt

- name: Have the certificate issued by our own authority, renewed 60 days before its end, and close the plain port
  redisops.recovery.redis_tls:
    source: issued
    ca_src: tls/ca.crt
    ca_key: "{{ vault_redis_ca_key }}"
    ca_key_passphrase: "{{ vault_redis_ca_key_passphrase }}"
    names: [redis-1.example.org, 10.20.0.11]
    renew_before: 60
    tls_only: true
    tls_replication: true

- name: Use, and load when it was renewed, what another tool keeps on the host
  redisops.recovery.redis_tls:
    source: host
    tls_cert_file: /etc/pki/redis/fullchain.pem
    tls_key_file: /etc/pki/redis/privkey.pem
    tls_ca_cert_file: /etc/ssl/certs/ca-certificates.crt
    tls_auth_clients: 'no'
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["write /etc/redis/tls/redis.crt", "CONFIG SET tls-port", "write tls-port to /etc/redis/redis.conf"]
changes:
  description:
    - What differs from what was declared, one row each; what RV(actions) removes.
    - RV(ignore:since) is when the file that differs was last written, in check mode; null where it is no file.
  returned: success
  type: list
  elements: dict
  contains:
    layer:
      description: Where it stands, such as V(file), V(live) or V(boot).
      type: str
    name:
      description: What it is.
      type: str
    found:
      description: What is; null where it is absent.
      type: str
    declared:
      description: What was declared; null where it shall be absent.
      type: str
    since:
      description: Seconds since 1970.
      type: float
certificate:
  description:
    - The certificate, after the run; in check mode with one that is yet to be issued, the present one.
    - RV(certificate.served) tells whether the live server serves it; it is null where the server does not run.
  returned: success
  type: dict
  sample:
    subject: CN=redis-1.example.org
    issuer: CN=Redis CA
    serial: 2F5D
    names: [redis-1.example.org, 127.0.0.1]
    not_before: "2026-01-01T00:00:00Z"
    not_after: "2027-02-01T00:00:00Z"
    days_left: 396
    fingerprint: 565f6f1dee28e1bc68c46c09012306f39cb4d81442239353cf208b7f0b6c52d2
    served: true
code:
  description: Stable name of the error.
  returned: failure
  type: str
  sample: certificate_expired
issued_because:
  description: Why a certificate is issued in this run; empty where none is.
  returned: success
  type: list
  elements: str
  sample: ["it expires at 2026-02-01T00:00:00Z"]
pending:
  description: Directives that this run changes, or would change in check mode; for O(redisops.recovery.redis_service#module:pending).
  returned: success
  type: list
  elements: str
plain_clients:
  description: How many connections without TLS there are, by who holds them.
  returned: success
  type: dict
  sample: {"replicas": 0, "sentinels": 0, "clients": 3}
request:
  description: The certificate request. The action signs it and runs the module again, so that it is not in a task's result.
  returned: when a certificate is due, between the two halves of the task
  type: str
restart_required:
  description: Directives that the running process will only have after a restart, which is so of the bus of a cluster node.
  returned: success
  type: list
  elements: str
running:
  description: Whether the server runs.
  returned: success
  type: bool
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change, pending_names
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.module.argspec import connection_spec, login_of
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import ConfigPlan, plan_config
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import effective, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance, edited, read_instance
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import group_id, parse_mode, user_id
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, plan_path_access
from ansible_collections.redisops.recovery.plugins.module_utils.tls.apply import (
    Plan,
    State,
    converge,
    known_nodes,
    links_without_tls,
    no_tls,
    own_addresses,
    primary_trouble,
    require_can_read,
    require_port_free,
    require_text,
    served_certificate,
    server_user,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.certificates import (
    Declared,
    Material,
    choose,
    exposed_key,
    material_changes,
    present_certificate,
    read_material,
    request,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.plan import (
    MATERIAL,
    declared_directives,
    describe,
    expiry_warnings,
    hold_back_cluster_bus,
    predict,
    require_combination,
    require_links,
    shown,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import Certificate, name_of

SPEC = {
    **connection_spec(),
    "config_file": {"type": "path", "default": "/etc/redis/redis.conf"},
    "source": {"type": "str", "choices": ["given", "host", "issued"], "default": "given"},
    "certificate": {"type": "str", "no_log": True},
    "certificate_src": {"type": "path"},
    "key": {"type": "str", "no_log": True},
    "key_src": {"type": "path", "no_log": False},
    "ca": {"type": "str", "no_log": True},
    "ca_src": {"type": "path"},
    "ca_key": {"type": "str", "no_log": True},
    "ca_key_src": {"type": "path", "no_log": False},
    "ca_key_passphrase": {"type": "str", "no_log": True},
    "names": {"type": "list", "elements": "str"},
    "own_addresses": {"type": "bool", "default": True},
    "valid_days": {"type": "int", "default": 397},
    "renew_before": {"type": "int", "default": 30},
    "tls_cert_file": {"type": "path", "default": "/etc/redis/tls/redis.crt"},
    "tls_key_file": {"type": "path", "default": "/etc/redis/tls/redis.key", "no_log": False},
    "tls_ca_cert_file": {"type": "path", "default": "/etc/redis/tls/ca.crt"},
    "tls_key_file_pass": {"type": "str", "no_log": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "redis"},
    "mode": {"type": "raw", "default": "0640"},
    "tls_port": {"type": "int", "default": 6380},
    "tls_only": {"type": "bool", "default": False},
    "tls_auth_clients": {"type": "str", "choices": ["yes", "no", "optional"], "default": "yes"},
    "tls_replication": {"type": "bool", "default": False},
    "tls_cluster": {"type": "bool", "default": False},
    "tls_protocols": {
        "type": "list",
        "elements": "str",
        "choices": ["TLSv1.2", "TLSv1.3"],
        "default": ["TLSv1.2", "TLSv1.3"],
    },
    "fresh_install": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}
CONTROLLERS = ("certificate_src", "key_src", "ca_src", "ca_key", "ca_key_src", "ca_key_passphrase")


def declared_of(params: dict, host: Host, own_client: bool) -> Declared:
    """Raises Problem. ``own_client``: the server has a certificate of its own for where it is a client."""
    names = [name_of(name) for name in params["names"] or []]
    if params["source"] == "issued":
        names += [name_of(os.uname().nodename)] if not names else []
        names += ["localhost", *own_addresses(host)] if params["own_addresses"] else []
    return Declared(
        params["source"],
        {kind: params[directive.replace("-", "_")] for kind, directive in MATERIAL.items()},
        Material(params["certificate"], params["key"], params["ca"]),
        params["tls_key_file_pass"] or None,
        tuple(dict.fromkeys(names)),
        params["renew_before"],
        params["valid_days"],
        (params["tls_replication"] or params["tls_cluster"]) and not own_client,
    )


def key_mode(given: t.Any) -> int:
    """The mode of the private key. Raises Problem."""
    mode = parse_mode(given, example="0640", least=0o400)
    if mode & 0o007:
        raise Problem(
            "invalid_value", f"mode: with {mode:04o} everybody could read the private key", "", 'set mode: "0640"'
        )
    return mode


def access_of(params: dict) -> dict[str, Access]:
    """Owner, group and mode of each of the three files. Raises Problem."""
    owner, group, mode = user_id(params["owner"]), group_id(params["group"], "group"), key_mode(params["mode"])
    return {
        "ca": Access(owner, group, 0o644),
        "key": Access(owner, group, mode),
        "certificate": Access(owner, group, 0o644),
    }


def served_change(served: Certificate | None, wanted: Certificate | None, predicted: str) -> list[Change]:
    """The difference between the certificate that is served and the declared one."""
    if served is None or (wanted and served.fingerprint == wanted.fingerprint):
        return []
    return [Change("live", "certificate", describe(served), predicted or describe(wanted), "load the certificate")]


def require_ports(instance: Instance, wanted: dict) -> None:
    """Raises Problem for ports that cannot be."""
    port, bus = instance.value("port") or "6379", instance.value("cluster-port") or "0"
    require_combination(wanted, port, instance.value("cluster-enabled") == "yes", bus)
    if wanted["tls-port"] not in (port, instance.live.get("tls-port")):
        require_port_free(instance.value("bind") or "", int(wanted["tls-port"]))


def read_state(params: t.Mapping[str, t.Any], now: float) -> State:
    """The declaration, the server and the files; ``now`` in seconds since 1970. Raises Problem or Refusal."""
    stray = [name for name in CONTROLLERS if params[name]]
    if stray:
        raise Problem(
            "controller_only", f"{', '.join(stray)} reached the managed host", "the action of this collection, which keeps it",
            "call redisops.recovery.redis_tls by its full name",
        )  # fmt: skip
    key_mode(params["mode"])
    host, login, empty = Host(), login_of(params), params["fresh_install"]
    instance = read_instance(params["config_file"], login, host, params["timeout"], empty)
    if instance.running and "tls-port" not in instance.live:
        raise no_tls(f"{instance.info.product} at {login.address}")
    has_pass = instance.live.get("tls-key-file-pass") or effective(instance.directives, "tls-key-file-pass")
    directives = declared_directives(params, bool(has_pass))
    require_ports(instance, directives)
    declared = declared_of(params, host, bool(instance.value("tls-client-cert-file")))
    found = read_material(declared.paths)
    return State(declared, directives, instance, login, found, now, empty and not instance.text)


def config_of(state: State, fresh_install: bool) -> ConfigPlan:
    """What to do to the directives, live and in the file."""
    instance = state.instance
    values = {name: normal(name, value) for name, value in state.directives.items()}
    live = instance.live if instance.running else None
    config = plan_config(values, instance.directives, instance.path, live, None, fresh_install)
    hold_back_cluster_bus(config, instance.live, known_nodes(instance))
    return config


def conf_access_of(state: State) -> tuple[t.Optional[Access], list[Change]]:
    """Access that redis.conf has to get where a secret is about to stand in it, and the change."""
    path = state.instance.path
    if not state.directives.get("tls-key-file-pass") or state.absent:
        return None, []
    access, change = plan_path_access(path, None, None, os.stat(path).st_mode & 0o770)
    return (access, [change]) if change else (None, [])


def plan_of(state: State, params: t.Mapping[str, t.Any]) -> Plan:
    """What is to be done, and that it may be. Raises Problem or Refusal."""
    instance, declared, empty = state.instance, state.declared, params["fresh_install"]
    choice = choose(declared, state.found, state.now)
    access = {} if state.absent else access_of(params)
    if not state.absent:
        require_can_read(declared, server_user(instance), access)
    config = config_of(state, empty)
    links = links_without_tls(instance)
    warnings = [*exposed_key(declared), require_links(links) if "port" in config.live else None]
    if "tls-replication" in config.live and params["tls_replication"] and choice.leaf:
        warnings.append(primary_trouble(instance, choice, declared.passphrase))
    served = served_certificate(instance, state.found, declared.passphrase, state.login)
    predicted = predict(declared.names, choice.authorities[0], declared.valid_days) if choice.reasons else ""
    serves = served_change(served, choice.leaf, predicted)
    conf_access, conf_changes = conf_access_of(state)
    files = material_changes(declared, choice, state.found, {} if empty else access)
    changes = [*files, *serves, *config.changes, *([] if empty else conf_changes)]
    text = "" if state.absent else edited(instance, state.directives)
    if text != instance.text:
        require_text(instance, state.directives)
    warnings = [*filter(None, warnings)]
    return Plan(choice, access, config, text, conf_access, served, bool(serves), links, warnings, changes)


def body(module: AnsibleModule) -> dict:
    params = module.params
    state = read_state(params, time.time())
    plan = plan_of(state, params)
    choice, links, served, pending = plan.choice, plan.links, plan.served, pending_names(plan.config.changes)
    leaf = choice.leaf
    if plan.changes and not module.check_mode:
        if leaf is None:
            asked = request(state.declared, choice, plan.access["key"])
            return result_of(plan.changes, request=asked, issued_because=list(choice.reasons), pending=pending)
        converge(state, plan)
        served = served_certificate(state.instance, choice.material, state.declared.passphrase, state.login)
    if leaf is None and state.found.certificate:
        leaf = present_certificate(state.found)
    expiry = expiry_warnings(choice.leaf, choice.authorities, state.now, params["renew_before"])
    return result_of(
        plan.changes,
        certificate=shown(leaf, state.now, served, state.instance.running),
        issued_because=list(choice.reasons),
        pending=pending,
        plain_clients={kind: len(getattr(links, kind)) for kind in ("replicas", "sentinels", "clients")},
        restart_required=plan.config.restart_required,
        running=state.instance.running,
        warnings=[*plan.warnings, *expiry],
    )


def main() -> None:
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
