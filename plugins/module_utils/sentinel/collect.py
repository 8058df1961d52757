# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Sentinel, its peers and the servers that it watches, as they are."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import shutil
import socket
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import Acl, CommandTable, parse_line
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    ASK_SECONDS,
    GroupHosts,
    ask_sentinels,
    look,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.plan import agreed, decide
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    View,
    endpoint,
    split_endpoint,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import SentinelConf
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.plan import (
    Declared,
    Item,
    Now,
    Primary,
    is_example,
    require_announced,
    require_names,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import (
    Watched,
    fields_of,
    usable_of,
    watched_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
    connect_as,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import parse_show

__all__ = [
    "Sentinel",
    "addresses_of",
    "find_sentinel_unit",
    "quorum_of",
    "read_sentinel",
    "report_of",
    "require_address",
    "require_logins_of",
    "require_scripts",
    "ring_of",
    "table_of_sentinel",
    "watched_by",
]


_UNITS = ("redis-sentinel", "valkey-sentinel")


@dataclasses.dataclass
class Sentinel:
    """``server`` is None where it does not run; then only the file speaks."""

    path: str
    text: str
    host: Host
    server: t.Optional[Server] = None
    info: Info = dataclasses.field(default_factory=lambda: Info({}, {}))
    watched: dict[str, Watched] = dataclasses.field(default_factory=dict)
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    users: t.Optional[Acl] = None
    id: str = ""

    @property
    def running(self) -> bool:
        return self.server is not None

    @property
    def conf(self) -> SentinelConf:
        return SentinelConf(self.text, self.path)

    @property
    def pid(self) -> int:
        return self.info.number("process_id")

    @property
    def tilt(self) -> bool:
        return self.info.flag("sentinel_tilt")

    def now(self, group_hosts: t.Collection[str]) -> Now:
        """What is watched and set. Passwords are in the file only, which a running Sentinel keeps up to date by itself."""
        conf = self.conf
        stated, directives = conf.primaries(), conf.directives()
        if not self.running:
            examples = {name: one["monitor"] for name, one in stated.items()} if conf.fresh else {}
            return Now({} if conf.fresh else stated, examples, conf.options(), directives)
        found, examples = {}, {}
        for name, one in self.watched.items():
            host, port = split_endpoint(one.address)
            monitor = f"{host} {port} {one.options['quorum']}"
            if is_example(one, group_hosts):
                examples[name] = monitor
                continue
            options = {key: value for key, value in one.options.items() if key != "quorum"}
            logins = {key: value for key, value in stated.get(name, {}).items() if key.startswith("auth-")}
            found[name] = {**logins, **options, "monitor": monitor}
        return Now(found, examples, self.options, directives)


def find_sentinel_unit(host: Host) -> tuple[str, str]:
    """The packaged unit ("" where there is none), and the package that would bring it ("" where it comes with the server)."""
    done = host.run("systemctl", "show", "-p", "Id,LoadState", *(f"{name}.service" for name in _UNITS))
    for block in done.output.split("\n\n"):
        unit = parse_show(block)
        if unit.get("LoadState") == "loaded":
            return unit["Id"][: -len(".service")], ""
    debian = "debian" in (host.read("/etc/os-release") or "")
    valkey = shutil.which("valkey-server") and not shutil.which("redis-server")
    return "", ("valkey-sentinel" if valkey else "redis-sentinel") if debian else ""


def _connected(login: Login, conf: SentinelConf) -> Server:
    """Where it was declared to be, or where its file says that it is: a port that changes is still the old one."""
    try:
        return connect(login, ASK_SECONDS)
    except Problem as problem:
        if not login.local or login.unix_socket or problem.code not in ("server_down", "not_redis"):
            raise
        stated = {entry.name: entry.text for entry in conf.directives()}
        ways = [(stated.get("port", "26379"), False), (stated.get("tls-port", "0"), True)]
        for port, tls in ways:
            if port.isdigit() and port != "0" and (not tls or login.ca_certs):
                try:
                    return connect(dataclasses.replace(login, port=int(port), tls=tls), ASK_SECONDS)
                except Problem:
                    continue
        raise


def watched_by(server: Server) -> dict[str, Watched]:
    """Everything that this Sentinel watches."""
    found = {}
    for master in server.command("SENTINEL", "MASTERS"):
        name = fields_of(master)["name"]
        rest = [server.command("SENTINEL", what, name) for what in ("REPLICAS", "SENTINELS")]
        found[name] = watched_of(master, *rest)
    return found


def read_sentinel(path: str, login: Login, host: Host) -> Sentinel:
    """The file and the live Sentinel. Raises Problem, or Refusal where the two cannot be shown to be one."""
    sentinel = Sentinel(path, read_text(path), host)
    try:
        sentinel.server = _connected(login, sentinel.conf)
    except ServerDown:
        return sentinel
    server = sentinel.server
    try:
        sentinel.info = server.info()
        _require_it_is_this_one(sentinel)
        sentinel.watched = watched_by(server)
        sentinel.options = fields_of(server.command("SENTINEL", "CONFIG", "GET", "*"))
        sentinel.users = dict(found for found in map(parse_line, server.command("ACL", "LIST")) if found)
        sentinel.id = str(server.command("SENTINEL", "MYID"))
    except CommandError as error:
        raise Problem(
            "sentinel_login_failed", f"the Sentinel at {login.address} refuses {error.text}", "a user that may run SENTINEL, INFO and ACL",
            "set login_user and login_password to a user with preset admin",
        ) from None  # fmt: skip
    sentinel.text = read_text(path)  # it may have written the file since
    return sentinel


def _require_it_is_this_one(sentinel: Sentinel) -> None:
    info, where = sentinel.info, sentinel.server.login.address
    if info.text("redis_mode") != "sentinel":
        raise Problem(
            "not_a_sentinel", f"{info.product} at {where} is a server (mode {info.text('redis_mode')}), and no Sentinel",
            "the address of the Sentinel", "set login_port (26379 unless it was changed)",
        )  # fmt: skip
    started_with = info.text("config_file")
    if not started_with or os.path.realpath(started_with) != os.path.realpath(sentinel.path):
        raise Refusal(
            "other_config_file", f"the Sentinel at {where} was started with {started_with or 'no file'}, not with {sentinel.path}",
            "a config_file and a login that belong to the same Sentinel", f"set config_file: {started_with}, or set login_port",
        )  # fmt: skip
    program = sentinel.host.read(f"/proc/{sentinel.pid}/comm") or ""
    if not any(name in program for name in ("redis", "valkey", "sentinel")):
        raise Refusal(
            "other_host", f"the Sentinel at {where} says it is process {sentinel.pid}; on this host there is no such process",
            "a Sentinel that runs on the managed host itself", "run with become: true, on the host (or in the container) that it runs in",
        )  # fmt: skip


def ring_of(sentinels: t.Sequence[str], own: t.Optional[str], settings: t.Mapping[str, str]) -> GroupHosts:
    """All Sentinels of the group; who names no port listens where this one does. Raises Problem."""
    port = int(settings["port"]) or int(settings["tls-port"])
    given = [*sentinels, own or "127.0.0.1"]
    spelled = [GroupHosts.spelling(one) and endpoint(*split_endpoint(one, port)) for one in given]
    return GroupHosts(spelled[:-1], spelled[-1])


def table_of_sentinel(server: Server) -> CommandTable:
    """What this Sentinel knows of its own commands."""
    return CommandTable(
        {name: frozenset(server.command("ACL", "CAT", name)) for name in server.command("ACL", "CAT")}, False
    )


def quorum_of(server: Server, name: str) -> tuple[bool, int]:
    """Whether a failover could be had now, and the number of usable Sentinels."""
    try:
        return usable_of(str(server.command("SENTINEL", "CKQUORUM", name)))
    except CommandError as error:
        return usable_of(error.text)


def _announced_by_others(others: t.Sequence[str], login: Login) -> dict[str, str]:
    """What the other Sentinels announce, of those that can be asked: ``host:port``, or ``:port`` where they find out the host."""
    found = {}
    for other in others:
        host, port = split_endpoint(other, 26379)
        try:
            server = connect(dataclasses.replace(login, host=host, port=port, unix_socket=None), ASK_SECONDS)
            options = fields_of(server.command("SENTINEL", "CONFIG", "GET", "announce-*"))
            server.close()
        except Problem:
            continue
        if options.get("announce-ip"):
            announced = int(options.get("announce-port") or 0) or port
            found[other] = endpoint(options["announce-ip"], announced)
    return found


def require_address(sentinel: Sentinel, ring: GroupHosts, options: t.Mapping[str, str], login: Login) -> None:
    """No other Sentinel may be known by the address that this one announces. Raises Refusal."""
    host, port = split_endpoint(ring.own)
    announced = endpoint(options["announce-ip"] or host, int(options["announce-port"]) or port)
    differs = any(sentinel.options.get(name, "") != options[name] for name in ("announce-ip", "announce-port"))
    others = _announced_by_others(ring.peers, login) if options["announce-ip"] and differs else {}
    require_announced(announced, sentinel.id, sentinel.watched.values(), others)


def report_of(
    server: t.Optional[Server], watched: t.Mapping[str, Watched], because: t.Mapping[str, str]
) -> dict[str, dict]:
    """The result ``primaries``."""
    found = {}
    for name, one in watched.items():
        can, usable = quorum_of(server, name) if server else (False, 0)
        found[name] = {
            "address": one.address, "quorum": int(one.options["quorum"]), "usable": usable, "can_fail_over": can, "flags": list(one.flags),
            "replicas": [{"address": known.address, "flags": list(known.flags)} for known in one.replicas],
            "sentinels": len(one.sentinels), **({"because": because[name]} if because.get(name) else {}),
        }  # fmt: skip
    return found


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _numeric(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return host


def _find_primary(
    primary: Primary, others: t.Sequence[str], login: Login, to_servers: Login, hostnames: bool
) -> tuple[str, str]:
    """Where the primary is, by those who know: the other Sentinels, else the servers themselves. Raises Problem or Refusal."""
    known = primary.group_hosts or ("127.0.0.1:0",)
    group_hosts = GroupHosts(known, known[0])
    named = agreed(ask_sentinels(others, primary.name, login, group_hosts), primary.name)
    if named and primary.group_hosts and named not in group_hosts.all:
        raise Refusal(
            "unknown_primary", f"Sentinel names {named} as primary of {primary.name}, which is none of its hosts", "a declaration of all hosts of the group",
            f"add {named} to group_hosts of {primary.name}, or correct sentinels and the name",
        )  # fmt: skip
    if named:
        found, because = named, "the other Sentinels say so"
    elif primary.group_hosts:
        views = [look(group_hosts, member, to_servers) for member in group_hosts.all]
        declared = group_hosts.of(GroupHosts.spelling(primary.begins_as)) if primary.begins_as else None
        decision = decide(View("this Sentinel", "unreachable"), views, None, declared)
        found, because = decision.primary, decision.because
    else:
        return "", ""
    host, port = split_endpoint(found)
    host = host if hostnames else _numeric(host)
    if (
        _loopback(host)
        and primary.group_hosts
        and not all(_loopback(split_endpoint(one)[0]) for one in group_hosts.all)
    ):
        raise Problem(
            "loopback_primary", f"{found} is {host} on this host: nobody else would reach the primary there", "an address that all hosts share",
            "declare group_hosts by addresses, or correct /etc/hosts of this host",
        )  # fmt: skip
    return endpoint(host, port), because


def addresses_of(
    declared: Declared, now: Now, ring: GroupHosts, login: Login, to_servers: Login, fresh: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Where the primaries are that are not watched yet, and who says so. ``fresh``: nothing runs yet, and the declaration is all there is.

    Raises Problem or Refusal.
    """
    found, because = {}, {}
    for one in declared.primaries:
        if one.name in now.names:
            continue
        user, password = one.login
        mine = dataclasses.replace(to_servers, user=user, password=password, previous_password=None)
        if fresh:
            found[one.name] = GroupHosts.spelling(one.begins_as or one.group_hosts[0]) if one.group_hosts else ""
        else:
            hostnames = declared.options["resolve-hostnames"] == "yes"
            found[one.name], because[one.name] = _find_primary(one, ring.peers, login, mine, hostnames)
        if not found[one.name]:
            require_names([one.name], now.names, "primaries")
    return found, because


def require_logins_of(
    declared: Declared, items: t.Sequence[Item], sentinel: Sentinel, addresses: t.Mapping[str, str], to_servers: Login
) -> None:
    """Try each login that is about to be set. Raises Problem."""
    for one in declared.primaries:
        new = any(
            item.of == one.name and (item.option == "monitor" or item.option.startswith("auth-")) for item in items
        )
        watched = sentinel.watched.get(one.name)
        address = addresses.get(one.name) or (watched.address if watched else "")
        if new and address:
            _require_login(one, address, to_servers)


def _require_login(primary: Primary, address: str, to_servers: Login) -> None:
    """Sentinel's login must work on the primary, as itself and not as anybody else. Raises Problem; a dead primary verifies nothing."""
    host, port = split_endpoint(address)
    user, password = primary.login
    login = dataclasses.replace(
        to_servers, host=host, port=port, unix_socket=None, user=user, password=password, previous_password=None
    )
    try:
        server = connect_as(login, ASK_SECONDS)
        server.command("INFO", "replication")
        server.command("ROLE")
        server.close()
    except ServerDown:
        return
    except Problem as problem:
        if problem.code not in ("login_failed", "command_failed"):
            return
        raise Problem(
            "sentinel_auth_refused", f"{primary.name}: its primary {address} does not let Sentinel in as {user or 'the default user'}: {problem.detected}",
            "a user with preset sentinel on the servers, before Sentinel uses it",
            f"declare it in redis_acl_users, or correct auth_user and auth_password of {primary.name}",
        ) from None  # fmt: skip


def require_scripts(items: t.Iterable[Item], scripts: t.Collection[str]) -> None:
    """Sentinel does not start with a script that it cannot run. Raises Problem."""
    for item in items:
        if item.option not in scripts or not item.after:
            continue
        how = "not executable" if os.path.exists(item.after) else "not there"
        if not os.path.isfile(item.after) or not os.stat(item.after).st_mode & 0o111:
            raise Problem(
                "script_not_executable", f"{item.of}: {item.option} {item.after} is {how}; Sentinel would not start",
                "a program that Sentinel's user may run", "put it there first, mode 0755",
            )  # fmt: skip
