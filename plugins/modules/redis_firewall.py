#!/usr/bin/python
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_firewall
short_description: Admit declared sources only to the ports of Redis, with a table of nftables of its own
version_added: 0.1.0
author:
  - redisops.recovery contributors (@redisops)
description:
  - Keeps the nftables table C(inet redisops) as declared, in the live ruleset, in O(nft_file) and for every boot, and corrects each of them.
    A flush by hand, or a rule or element that was added or deleted by hand, is drift.
  - The table has rules for the declared ports alone. Other tables are not touched, and a packet to another port is not judged.
  - Loopback, established connections and O(peers) are always admitted.
  - A change of the live ruleset is made by commit-confirm. It is loaded with a rollback armed on the host, then a new connection is made, and only over that one
    the change is confirmed. Where the host cannot be reached any more, it puts the old table back by itself after O(rollback_seconds).
  - A table cannot open what another firewall closes. Where firewalld or ufw is active and keeps declared sources out, the run is refused with the
    commands that let them in.
  - The commit-confirm and names of the inventory are the work of an action plugin of the same name, which runs on the controller.
options:
  state:
    description:
      - With V(absent) table, file and unit are removed.
    type: str
    choices: [present, absent]
    default: present
  services:
    description:
      - The ports to guard, and who may connect to them. Needed with O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name for sets, chains and the log; lower-case letters, digits and C(_).
        type: str
        required: true
      ports:
        description: TCP ports. A service without ports is left out.
        type: list
        elements: int
        required: true
      sources:
        description:
          - IPv4 and IPv6 addresses and networks, and host names.
          - A host of the inventory stands for its addresses, see O(address_variables). Another name is resolved on the managed host.
        type: list
        elements: str
        default: []
      groups:
        description: Groups of the inventory, whose hosts are sources.
        type: list
        elements: str
        default: []
      allow_empty:
        description: Whether no source is meant, so that only loopback and O(peers) are admitted.
        type: bool
        default: false
  peers:
    description:
      - The other servers of the same group, written as sources are. They are admitted to every declared port, and never limited.
    type: list
    elements: str
    default: []
  address_variables:
    description:
      - Variables that give the addresses (one, or a list) of a host of the inventory. The first that a host has is taken, else its name.
    type: list
    elements: str
    default: [ansible_host]
  rate_limit:
    description: New connections a second that one source may make to all guarded ports; more are dropped. V(0) is no limit.
    type: int
    default: 0
  rate_burst:
    description: New connections that one source may make at once before O(rate_limit) counts.
    type: int
    default: 100
  log_drops:
    description: Whether the kernel's log tells of dropped packets.
    type: bool
    default: false
  log_prefix:
    description: What such a line begins with; the name of the service follows.
    type: str
    default: "redisops drop "
  log_per_minute:
    description: Such lines a minute at most, for each service.
    type: int
    default: 10
  nft_file:
    description: The file that is loaded at boot.
    type: path
    default: /etc/redisops/firewall.nft
  rollback_seconds:
    description:
      - Seconds after which the host puts the old table back, unless the change was confirmed over a new connection. V(0) does without a commit-confirm.
    type: int
    default: 30
  commit_confirm:
    description: Set by the action plugin; what a task sets is ignored.
    type: bool
    default: false
  confirm:
    description: Set by the action plugin; what a task sets is ignored.
    type: str
    default: ""
extends_documentation_fragment:
  - redisops.recovery.attributes
seealso:
  - module: redisops.recovery.redis_service
"""

EXAMPLES = r"""
- name: Admit the application's network and group to Redis, and the group's own servers to everything
  redisops.recovery.redis_firewall:
    services:
      - name: redis
        ports: [6379]
        sources: [10.20.0.0/24, "2001:db8:20::/64"]
        groups: [application]
    peers: [10.10.0.11, 10.10.0.12, 10.10.0.13]

- name: Guard Sentinel and the cluster bus as well, the bus for peers alone, and log what is dropped
  redisops.recovery.redis_firewall:
    services:
      - name: redis
        ports: [6379, 6380]
        sources: [10.20.0.0/24]
      - name: sentinel
        ports: [26379]
        sources: [10.20.0.0/24]
      - name: cluster_bus
        ports: [16379]
        allow_empty: true
    peers: "{{ groups['redis'] }}"
    rate_limit: 50
    log_drops: true

- name: Take table, file and unit away
  redisops.recovery.redis_firewall:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: success
  type: list
  elements: str
  sample: ["load table inet redisops", "write /etc/redisops/firewall.nft", "enable redisops-firewall.service"]
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
services:
  description: For each guarded service its ports, and the networks that are admitted besides loopback and peers, names resolved.
  returned: success
  type: dict
  sample: {"redis": {"ports": [6379], "sources": ["10.20.0.0/24"]}}
peers:
  description: The networks that are admitted to every guarded port.
  returned: success
  type: list
  elements: str
  sample: ["10.10.0.11", "10.10.0.12"]
left_out:
  description: Addresses that are connected now to a guarded port and would not be admitted anew. They are stated in a warning, too.
  returned: success
  type: list
  elements: dict
  contains:
    port:
      description: The guarded port.
      type: int
    address:
      description: Who is connected to it.
      type: str
    connections:
      description: How many connections that are.
      type: int
commit_confirmed:
  description: Whether the live ruleset was changed under an armed rollback, and confirmed over a new connection.
  returned: success
  type: bool
commit_confirm:
  description: Between the module and its action plugin, which takes it out of the result.
  returned: never to a task
  type: dict
code:
  description: A stable name for what went wrong.
  returned: failure
  type: str
  sample: invalid_source
"""

import dataclasses
import time

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.apply import (
    CommitConfirm,
    Nft,
    keep,
    load_verified,
    read_state,
    refuse_other_firewalls,
    remove,
    resolve,
    ssh_ports,
    tcp_sockets,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.nft_ruleset import (
    Table,
    render_table,
    same_table,
    short,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.plan import (
    TABLE,
    State,
    Tuning,
    admitted_words,
    file_text,
    left_out,
    left_out_warning,
    plan,
    refuse_ports_of_ssh,
    table_of,
    unit_text,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.sources import (
    declared_of,
    names_to_resolve,
)
from ansible_collections.redisops.recovery.plugins.module_utils.module.runner import result_of, run_module
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "sources": {"type": "list", "elements": "str", "default": []},
            "groups": {"type": "list", "elements": "str", "default": []},
            "allow_empty": {"type": "bool", "default": False},
        },
    },
    "peers": {"type": "list", "elements": "str", "default": []},
    "address_variables": {"type": "list", "elements": "str", "default": ["ansible_host"]},
    "rate_limit": {"type": "int", "default": 0},
    "rate_burst": {"type": "int", "default": 100},
    "log_drops": {"type": "bool", "default": False},
    "log_prefix": {"type": "str", "default": "redisops drop "},
    "log_per_minute": {"type": "int", "default": 10},
    "nft_file": {"type": "path", "default": "/etc/redisops/firewall.nft"},
    "rollback_seconds": {"type": "int", "default": 30},
    "commit_confirm": {"type": "bool", "default": False},
    "confirm": {"type": "str", "default": ""},
}


def declared_in(params):
    """The options as values. Raises Problem."""
    tuning = Tuning(*(params[field.name] for field in dataclasses.fields(Tuning)))
    tuning.check()
    if params["rollback_seconds"] < 0:
        raise Problem("invalid_value", f"rollback_seconds: {params['rollback_seconds']} is negative", "seconds, or 0",
                      "correct rollback_seconds")  # fmt: skip
    names = names_to_resolve(params["services"], params["peers"])
    declared = declared_of(params["services"], params["peers"], resolve(names))
    return declared, table_of(declared, tuning)


def rolled_back(commit_confirm):
    return Problem("rolled_back", f"the commit-confirm {commit_confirm.name} was not confirmed in time: the host has put the old table back, or somebody has changed it",
                   "a confirmation within rollback_seconds", "run again, with a longer rollback_seconds if this host is slow")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Work:
    """What is there (``state``), the table that is ``wanted``, and the ``unit`` that loads it at boot, as text."""

    host: Host
    nft: Nft
    state: State
    wanted: Table
    unit: str

    def plan(self, state, params):
        """What to do from ``state``."""
        return plan(state, self.wanted, params["nft_file"], self.unit)


def confirm(work, params):
    """The second call: what was made by commit-confirm stays, and goes into file and unit. Raises Problem."""
    commit_confirm = CommitConfirm(work.host, work.nft, params["confirm"])
    if not commit_confirm.waiting or not same_table(work.state.live, work.wanted):
        raise rolled_back(commit_confirm)
    found = work.plan(dataclasses.replace(work.state, armed=None), params)

    def decide():
        if not commit_confirm.confirm():
            raise rolled_back(commit_confirm)

    keep(work.host, found, (params["nft_file"], file_text(work.wanted)), work.unit, decide)
    return found


def act(work, params, found):
    """Do what is planned. With a commit-confirm only the live part, and its name and seconds are returned. Raises Problem."""
    host, nft, wanted, armed, text = work.host, work.nft, work.wanted, work.state.armed, file_text(work.wanted)
    if found.load and params["commit_confirm"] and params["rollback_seconds"]:
        commit_confirm = CommitConfirm(host, nft, str(time.time_ns()))
        commit_confirm.arm(params["rollback_seconds"], armed)
        try:
            load_verified(nft, wanted, text)
        except Problem:
            commit_confirm.roll_back()
            raise
        return {"id": commit_confirm.name, "seconds": params["rollback_seconds"]}
    if armed:
        CommitConfirm(host, nft, armed).confirm()
    if found.load:
        load_verified(nft, wanted, text)
    keep(host, found, (params["nft_file"], text), work.unit, lambda: None)
    return None


def act_absent(host, nft, params, state, found):
    """Take everything away, what outlives a boot first. Raises Problem."""
    if state.armed:
        CommitConfirm(host, nft, state.armed).confirm()
    remove(host, found, params["nft_file"])
    if found.load:
        load_verified(nft, None, render_table(None, TABLE))


def body(module):
    host, params = Host(), module.params
    nft, warnings = Nft(host), []
    unit = unit_text(nft.program, params["nft_file"])
    if params["state"] == "absent":
        state = read_state(host, nft, params["nft_file"])
        found = plan(state, None, params["nft_file"], unit)
        if not module.check_mode:
            act_absent(host, nft, params, state, found)
        return result_of(found.changes, services={}, peers=[], left_out=[], commit_confirmed=False)
    declared, wanted = declared_in(params)
    sockets = tcp_sockets(host)
    refuse_ports_of_ssh(declared, ssh_ports(host, sockets))
    if nft.missing and module.check_mode:
        warnings.append(
            "There is no nft on this host: compared with an empty table, and what firewalld or ufw admit was not looked at."
        )
    else:
        nft.need()
        refuse_other_firewalls(host, declared)
    state = read_state(host, nft, params["nft_file"])
    if not state.systemd:
        warnings.append(
            f"systemd does not run this host: nothing loads {params['nft_file']} at boot. See to it yourself."
        )
    work = Work(host, nft, state, wanted, unit)
    found = work.plan(state, params)
    if found.load or found.file:
        nft.check(file_text(wanted))
    commit_confirm = None
    if params["confirm"]:
        found = confirm(work, params)
    elif not module.check_mode:
        commit_confirm = act(work, params, found)
    rows = left_out(declared, sockets)
    result = result_of(
        found.changes, services=admitted_words(declared), peers=[short(one) for one in declared.peers], left_out=rows,
        commit_confirmed=bool(params["confirm"]), warnings=[*warnings, *left_out_warning(rows)],
    )  # fmt: skip
    if commit_confirm:
        result["commit_confirm"] = commit_confirm
    return result


def main():
    run_module(SPEC, body)


if __name__ == "__main__":
    main()
