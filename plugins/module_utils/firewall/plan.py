# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that is declared, and what has to change for live ruleset, file and boot to hold it."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.firewalld_ufw import Blocked
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.nft_ruleset import (
    Chain,
    NftSet,
    Table,
    render_table,
    same_table,
    short,
    table_lines,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.sources import Declared
from ansible_collections.redisops.recovery.plugins.module_utils.system.listening_sockets import ESTABLISHED, Socket

__all__ = [
    "FILE_MODE",
    "TABLE",
    "UNIT",
    "UNIT_FILE",
    "Plan",
    "State",
    "Tuning",
    "access_words",
    "admitted_words",
    "file_text",
    "left_out",
    "left_out_warning",
    "plan",
    "refuse_blocked",
    "refuse_ports_of_ssh",
    "table_of",
    "unit_text",
]

TABLE = "redisops"
UNIT = "redisops-firewall.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FILE_MODE = 0o644
HEADER = "Table inet redisops, managed by redisops.recovery; what stands here is put back by the next run."
_HOOK = "type filter hook input priority -5; policy accept;"
#: Whatever the distribution calls them; none of them starts before the table is there.
_SERVERS = ("redis-server", "redis", "redis-sentinel", "valkey-server", "valkey", "valkey-sentinel")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How often one source may connect anew (0: as often as it likes), and what is written to the kernel's log."""

    rate_limit: int = 0
    rate_burst: int = 100
    log_drops: bool = False
    log_prefix: str = "redisops drop "
    log_per_minute: int = 10

    def check(self) -> None:
        """Raises Problem."""
        for name, least in (("rate_limit", 0), ("rate_burst", 1), ("log_per_minute", 1)):
            if getattr(self, name) < least:
                raise Problem("invalid_value", f"{name}: {getattr(self, name)} is too small", f"at least {least}", f"correct {name}")  # fmt: skip
        if (
            not self.log_prefix.isprintable()
            or not self.log_prefix.isascii()
            or set('"\\') & set(self.log_prefix)
            or len(self.log_prefix) > 64
        ):
            raise Problem("invalid_value", f"log_prefix: {self.log_prefix!r} cannot stand before a line of the kernel's log",
                          "at most 64 printable ASCII characters, neither quotes nor backslashes", "correct log_prefix")  # fmt: skip


def table_of(declared: Declared, tuning: Tuning) -> Table:
    """The table. A packet to another port than the declared ones meets one comparison and goes on."""
    sets = [NftSet("guarded_ports", "inet_service", tuple(map(str, declared.ports)))]
    guard = ['iifname "lo" counter accept', "ct state established,related counter accept"]
    sets += _address_sets("peers", declared.peers)
    guard += [f"{_family(one)} saddr @{one.name} counter accept" for one in sets[1:]]
    chains = []
    for service in declared.services:
        sets.append(NftSet(f"{service.name}_ports", "inet_service", tuple(map(str, service.ports))))
        guard.append(f"tcp dport @{service.name}_ports jump on_{service.name}")
        rules = []
        for one in _address_sets(service.name, service.networks):
            sets.append(one)
            family = _family(one)
            if tuning.rate_limit:
                limit = f"limit rate over {tuning.rate_limit}/second burst {tuning.rate_burst} packets"
                rate = f"update @rate_{one.type[:4]} {{ {family} saddr {limit} }}"
                rules.append(f"{family} saddr @{one.name} ct state new {rate} counter drop")
            rules.append(f"{family} saddr @{one.name} counter accept")
        if tuning.log_drops:
            rules.append(
                f'limit rate {tuning.log_per_minute}/minute burst 5 packets log prefix "{tuning.log_prefix}{service.name}: " level info'
            )
        chains.append(Chain(f"on_{service.name}", (*rules, "counter drop")))
    if tuning.rate_limit:
        used = {one.type for one in sets if one.interval and not one.name.startswith("peers_")}
        sets += [NftSet(f"rate_{kind[:4]}", kind, dynamic=True) for kind in sorted(used)]
    entry = Chain("input", ("tcp dport @guarded_ports jump guard",), _HOOK)
    return Table(TABLE, tuple(sets), (entry, Chain("guard", tuple(guard)), *chains))


def _family(one: NftSet) -> str:
    return "ip" if one.type == "ipv4_addr" else "ip6"


def _address_sets(name: str, networks: t.Sequence[t.Any]) -> list[NftSet]:
    found = []
    for version in (4, 6):
        elements = tuple(short(one) for one in networks if one.version == version)
        if elements:
            found.append(NftSet(f"{name}_ipv{version}", f"ipv{version}_addr", elements, interval=True))
    return found


def file_text(wanted: Table) -> str:
    return render_table(wanted, TABLE, HEADER)


def unit_text(nft: str, file: str) -> str:
    """The unit that loads the file at boot, and again whenever nftables.service, which may begin with a flush, does something."""
    load = f"{nft} -f {shlex.quote(file)}"
    before = " ".join(["network-pre.target", "shutdown.target", *(f"{name}.service" for name in _SERVERS)])
    return f"""\
# Managed by redisops.recovery; what stands here is put back by the next run.
[Unit]
Description=Firewall of Redis: table inet {TABLE}
DefaultDependencies=no
Wants=network-pre.target
Before={before}
After=local-fs.target nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={load}
ExecReload={load}

[Install]
WantedBy=multi-user.target nftables.service
"""


@dataclasses.dataclass(frozen=True)
class State:
    """What is there. ``live`` None: no table; ``unreadable``: there is one that nft cannot list; ``armed``: a commit_confirm's id."""

    live: t.Optional[Table] = None
    unreadable: bool = False
    file: t.Optional[str] = None
    unit: t.Optional[str] = None
    systemd: bool = True
    enabled: bool = False
    active: bool = False
    armed: t.Optional[str] = None
    access: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # path → mode and owner, in access_words()


def access_words(mode: int, owner: int) -> str:
    """Root runs what these files say, so nobody else may write them."""
    return f"{mode:04o}, owner {owner}"


@dataclasses.dataclass(frozen=True)
class Plan:
    changes: tuple[Change, ...] = ()
    load: bool = False  # the live table is to be replaced, or made by commit-confirm again
    file: bool = False
    unit: bool = False
    enable: bool = False
    start: bool = False


def _by_line(layer: str, name: str, now: t.Sequence[str], wanted: t.Sequence[str], action: str) -> list[Change]:
    found = []
    for what, start, end, other, last in difflib.SequenceMatcher(a=now, b=wanted, autojunk=False).get_opcodes():
        if what != "equal":
            found += [Change(layer, name, line.strip(), None, action) for line in now[start:end] if line.strip()]
            found += [Change(layer, name, None, line.strip(), action) for line in wanted[other:last] if line.strip()]
    return found or [Change(layer, name, "other blanks", "as declared", action)]


def plan(state: State, wanted: t.Optional[Table], file: str, unit: str) -> Plan:
    """Compare what is there with the declared table, or with none (state: absent)."""
    live = [] if same_table(state.live, wanted) and not state.unreadable else _plan_live(state, wanted)
    if state.armed:
        live.append(
            Change("live", "commit_confirm", "not confirmed", "done", "settle the commit-confirm that was cut off")
        )
    if wanted is None:
        return _plan_absent(state, file, live)
    changes, text = list(live), file_text(wanted)
    if state.file != text:
        changes += _by_line("file", file, (state.file or "").splitlines(), text.splitlines(), f"write {file}")
    good = access_words(FILE_MODE, 0)
    loose = [path for path in (file, UNIT_FILE) if state.access.get(path, good) != good]
    changes += [Change("mode", path, state.access[path], good, f"set mode and owner of {path}") for path in loose]
    enable = start = False
    if state.systemd:
        if state.unit != unit:
            changes += _by_line(
                "unit", UNIT, (state.unit or "").splitlines(), unit.splitlines(), f"write the unit {UNIT}"
            )
        enable, start = not state.enabled, not state.active
        changes += [Change("boot", UNIT, "disabled", "enabled", f"enable {UNIT}")] if enable else []
        changes += [Change("unit", UNIT, "inactive", "active", f"start {UNIT}")] if start else []
    rewrite = state.unit != unit or UNIT_FILE in loose
    return Plan(
        tuple(changes), bool(live), state.file != text or file in loose, state.systemd and rewrite, enable, start
    )


def _plan_live(state: State, wanted: t.Optional[Table]) -> list[Change]:
    action = f"load table inet {TABLE}" if wanted else f"remove table inet {TABLE}"
    found = [Change("live", f"table inet {TABLE}", "not readable", None, action)] if state.unreadable else []
    for name, now, lines in table_lines(state.live, wanted):
        if now != lines:
            found += _by_line("live", name, now, lines, action)
    return found


def _plan_absent(state: State, file: str, live: t.Sequence[Change]) -> Plan:
    changes = []
    if state.systemd and (state.enabled or state.active):
        changes.append(Change("boot", UNIT, "enabled", None, f"disable {UNIT}"))
    if state.unit is not None:
        changes.append(Change("unit", UNIT, "present", None, f"remove the unit {UNIT}"))
    if state.file is not None:
        changes.append(Change("file", file, "present", None, f"remove {file}"))
    disable = state.systemd and (state.enabled or state.active)
    return Plan((*changes, *live), bool(live), state.file is not None, state.unit is not None, disable)


def refuse_ports_of_ssh(declared: Declared, ports: t.Mapping[int, str]) -> None:
    """No declared port may be one of ``ports`` (port → how it is known to be sshd's). Raises Refusal."""
    hit = [f"port {port} ({ports[port]})" for port in declared.ports if port in ports]
    if hit:
        raise Refusal("port_of_ssh", f"services: {', '.join(hit)} is how this host is reached", "ports of Redis only",
                      "take it out of services")  # fmt: skip


def left_out(declared: Declared, sockets: t.Iterable[Socket]) -> list[dict[str, t.Any]]:
    """Connections to declared ports, by address, from where no new one would be admitted."""
    found: dict[tuple[int, str], int] = {}
    for one in sockets:
        guarded = one.state == ESTABLISHED and one.local_port in declared.ports
        if guarded and not one.remote.is_loopback and one.remote != one.local:
            networks = declared.admitted(one.local_port)
            if not any(one.remote.version == network.version and one.remote in network for network in networks):
                key = (one.local_port, str(one.remote))
                found[key] = found.get(key, 0) + 1
    return [
        {"port": port, "address": address, "connections": count} for (port, address), count in sorted(found.items())
    ]


def left_out_warning(rows: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    if not rows:
        return []
    listed = ", ".join(f"{row['address']} to port {row['port']}" for row in rows)
    return [
        f"Connected now, and not among the declared sources: {listed}. Open connections go on, new ones are dropped."
        " Add them to sources, or to peers if they are servers of the same set."
    ]


def refuse_blocked(name: str, blocked: t.Sequence[Blocked]) -> None:
    """Another firewall (``name``) keeps declared sources out; ours cannot open what it closes. Raises Refusal."""
    if not blocked:
        return
    listed = ", ".join(f"{one.network} to port {one.port}" for one in blocked[:10])
    more = f" and {len(blocked) - 10} more" if len(blocked) > 10 else ""
    commands = list(dict.fromkeys(one.do for one in blocked))
    if name == "firewalld":
        commands.append("firewall-cmd --reload")
    raise Refusal("other_firewall", f"{name} is active and does not let through: {listed}{more}",
                  f"every declared source admitted by {name} as well: a packet has to pass both", "run: " + " && ".join(commands),
                  firewall=name, commands=commands)  # fmt: skip


def admitted_words(declared: Declared) -> dict[str, t.Any]:
    """Who is admitted where, for the result."""
    return {
        one.name: {"ports": list(one.ports), "sources": [short(net) for net in one.networks]}
        for one in declared.services
    }
