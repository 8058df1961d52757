# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Sentinel as it is, and what is done to it (tier 2): live where it takes that, else stop, edit, start."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import shutil
import socket
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.plan import AclPlan
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import Acl, CommandTable, parse_line
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.apply import (
    ASK_SECONDS,
    Members,
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
    prove_announced,
    prove_names,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import (
    Watched,
    fields_of,
    usable_of,
    watched_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.users_plan import (
    lost_peers,
    plan_users,
    prove_logins,
    users_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
    connect_as,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import throwaway
from ansible_collections.redisops.recovery.plugins.module_utils.service.apply import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import parse_show

__all__ = [
    "Sentinel", "addresses_of", "await_quorum", "find_sentinel_unit", "judge_file", "planned_users", "prove_address", "prove_logins_of",
    "prove_peers", "prove_scripts", "read_sentinel", "report_of", "reset", "restarted", "ring_of", "set_live", "set_users", "watched_by",
]  # fmt: skip

_UNITS = ("redis-sentinel", "valkey-sentinel")
#: Sentinel connects within a second, and pings every second.
_LINK_SECONDS = 15.0
_KICK_SECONDS = 2.0
_BACK_SECONDS = 40.0
_UP_SECONDS = 60.0
_RESTORED = {"down-after-milliseconds": "30000", "failover-timeout": "180000", "parallel-syncs": "1"}


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

    def now(self, members: t.Collection[str]) -> Now:
        """What is watched and set. Passwords are in the file only, which a running Sentinel keeps up to date by itself."""
        conf = self.conf
        said, directives = conf.primaries(), conf.directives()
        if not self.running:
            examples = {name: one["monitor"] for name, one in said.items()} if conf.fresh else {}
            return Now({} if conf.fresh else said, examples, conf.options(), directives)
        found, examples = {}, {}
        for name, one in self.watched.items():
            host, port = split_endpoint(one.address)
            monitor = f"{host} {port} {one.options['quorum']}"
            if is_example(one, members):
                examples[name] = monitor
                continue
            options = {key: value for key, value in one.options.items() if key != "quorum"}
            logins = {key: value for key, value in said.get(name, {}).items() if key.startswith("auth-")}
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


# --- reading ----------------------------------------------------------------------------------------------------------


def _connected(login: Login, conf: SentinelConf) -> Server:
    """Where it was declared to be, or where its file says that it is: a port that changes is still the old one."""
    try:
        return connect(login, ASK_SECONDS)
    except Problem as problem:
        if not login.local or login.unix_socket or problem.code not in ("server_down", "not_redis"):
            raise
        said = {entry.name: entry.text for entry in conf.directives()}
        ways = [(said.get("port", "26379"), False), (said.get("tls-port", "0"), True)]
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
        _prove_it_is_this_one(sentinel)
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


def _prove_it_is_this_one(sentinel: Sentinel) -> None:
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


def ring_of(sentinels: t.Sequence[str], own: t.Optional[str], settings: t.Mapping[str, str]) -> Members:
    """All Sentinels of the set; who names no port listens where this one does. Raises Problem."""
    port = int(settings["port"]) or int(settings["tls-port"])
    given = [*sentinels, own or "127.0.0.1"]
    spelled = [Members.spelling(one) and endpoint(*split_endpoint(one, port)) for one in given]
    return Members(spelled[:-1], spelled[-1])


def planned_users(
    sentinel: Sentinel,
    declared: Acl,
    login: tuple[t.Optional[str], t.Optional[str]],
    peer: t.Optional[tuple[t.Optional[str], t.Optional[str]]],
    finish: bool,
    purge: bool,
    added: bool,
) -> AclPlan:
    """What to do to Sentinel's own users; ``peer`` is the declared login of the others, None where there are none.

    Raises Problem, or Refusal where somebody would be locked out.
    """
    file = users_of(sentinel.conf.users())
    if not declared:
        return AclPlan(file_after=file)
    table = table_of_sentinel(sentinel.server) if sentinel.server else None
    now = {**sentinel.conf.options(), **sentinel.options}

    def plan_of(whole: bool) -> AclPlan:
        return plan_users(declared, sentinel.users, file, table, sentinel.path, whole, purge, added)

    others = None
    if peer is not None:
        user, password = (
            now.get(name) if said is None else said for name, said in zip(("sentinel-user", "sentinel-pass"), peer)
        )
        others = (user or "default", password)
    after = plan_of(True)
    prove_logins(after.live_after if table else after.file_after, table, (login[0] or "default", login[1]), others)
    return plan_of(finish)


def table_of_sentinel(server: Server) -> CommandTable:
    """What this Sentinel knows of its own commands."""
    return CommandTable(
        {name: frozenset(server.command("ACL", "CAT", name)) for name in server.command("ACL", "CAT")}, False
    )


def _quorum_of(server: Server, name: str) -> tuple[bool, int]:
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


def prove_address(sentinel: Sentinel, ring: Members, options: t.Mapping[str, str], login: Login) -> None:
    """No other Sentinel may be known by the address that this one announces. Raises Refusal."""
    host, port = split_endpoint(ring.own)
    announced = endpoint(options["announce-ip"] or host, int(options["announce-port"]) or port)
    differs = any(sentinel.options.get(name, "") != options[name] for name in ("announce-ip", "announce-port"))
    others = _announced_by_others(ring.peers, login) if options["announce-ip"] and differs else {}
    prove_announced(announced, sentinel.id, sentinel.watched.values(), others)


def report_of(
    server: t.Optional[Server], watched: t.Mapping[str, Watched], because: t.Mapping[str, str]
) -> dict[str, dict]:
    """The result ``primaries``."""
    found = {}
    for name, one in watched.items():
        can, usable = _quorum_of(server, name) if server else (False, 0)
        found[name] = {
            "address": one.address, "quorum": int(one.options["quorum"]), "usable": usable, "can_fail_over": can, "flags": list(one.flags),
            "replicas": [{"address": known.address, "flags": list(known.flags)} for known in one.replicas],
            "sentinels": len(one.sentinels), **({"because": because[name]} if because.get(name) else {}),
        }  # fmt: skip
    return found


def await_quorum(server: Server, names: t.Iterable[str], timeout: float) -> None:
    """Until every primary could be failed over. Raises Problem."""
    for name in names:
        if not wait_for(lambda name=name: _quorum_of(server, name)[0], timeout):
            raise Problem(
                "no_quorum", f"{name}: {_quorum_of(server, name)[1]} Sentinels are usable after {timeout:g} seconds, and a failover takes more",
                "enough Sentinels that know each other", "start the others, and look at firewall, sentinel_user and announce_ip: "
                f"redis-cli -p {server.login.port} SENTINEL SENTINELS {name} shows whom this one knows",
            )  # fmt: skip


# --- who is primary ---------------------------------------------------------------------------------------------------


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
    known = primary.members or ("127.0.0.1:0",)
    members = Members(known, known[0])
    named = agreed(ask_sentinels(others, primary.name, login, members), primary.name)
    if named and primary.members and named not in members.all:
        raise Refusal(
            "unknown_primary", f"Sentinel names {named} as primary of {primary.name}, which is none of its members", "a declaration of all members",
            f"add {named} to members of {primary.name}, or correct sentinels and the name",
        )  # fmt: skip
    if named:
        found, because = named, "the other Sentinels say so"
    elif primary.members:
        views = [look(members, member, to_servers) for member in members.all]
        declared = members.of(Members.spelling(primary.begins_as)) if primary.begins_as else None
        decision = decide(View("this Sentinel", "unreachable"), views, None, declared)
        found, because = decision.primary, decision.because
    else:
        return "", ""
    host, port = split_endpoint(found)
    host = host if hostnames else _numeric(host)
    if _loopback(host) and primary.members and not all(_loopback(split_endpoint(one)[0]) for one in members.all):
        raise Problem(
            "loopback_primary", f"{found} is {host} on this host: nobody else would reach the primary there", "an address that all hosts share",
            "declare members by addresses, or correct /etc/hosts of this host",
        )  # fmt: skip
    return endpoint(host, port), because


def addresses_of(
    declared: Declared, now: Now, ring: Members, login: Login, to_servers: Login, bare: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Where the primaries are that are not watched yet, and who says so. ``bare``: nothing runs yet, and the declaration is all there is.

    Raises Problem or Refusal.
    """
    found, because = {}, {}
    for one in declared.primaries:
        if one.name in now.names:
            continue
        user, password = one.login
        mine = dataclasses.replace(to_servers, user=user, password=password, previous_password=None)
        if bare:
            found[one.name] = Members.spelling(one.begins_as or one.members[0]) if one.members else ""
        else:
            hostnames = declared.options["resolve-hostnames"] == "yes"
            found[one.name], because[one.name] = _find_primary(one, ring.peers, login, mine, hostnames)
        if not found[one.name]:
            prove_names([one.name], now.names, "primaries")
    return found, because


def prove_logins_of(
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
            _prove_login(one, address, to_servers)


def _prove_login(primary: Primary, address: str, to_servers: Login) -> None:
    """Sentinel's login must work on the primary, as itself and not as anybody else. Raises Problem; a dead primary proves nothing."""
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
            "sentinel_auth_refused", f"{primary.name}: its primary {address} does not let Sentinel in as {user or 'the default user'}: {problem.saw}",
            "a user with preset sentinel on the servers, before Sentinel uses it",
            f"declare it in redis_acl_users, or correct auth_user and auth_password of {primary.name}",
        ) from None  # fmt: skip


def prove_scripts(items: t.Iterable[Item], scripts: t.Collection[str]) -> None:
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


# --- acts -------------------------------------------------------------------------------------------------------------


def judge_file(sentinel: Sentinel, text: str) -> None:
    """Let the installed Sentinel read ``text``, less what it watches: it must meet nobody. Raises Problem."""
    program = sentinel.info.text("executable") or next(
        filter(None, map(shutil.which, ("redis-sentinel", "valkey-sentinel", "redis-server", "valkey-server"))), None
    )
    if not program or not os.path.exists(program):
        return
    conf = RedisConf(text, sentinel.path)
    conf.remove("sentinel")
    said = {entry.name: entry.text for entry in conf.directives()}
    if said.get("tls-port", "0") != "0":
        conf.set("tls-replication", [("yes",)])  # the trial opens no port, and would not read the certificate
    if said.get("dir") and not os.path.isdir(said["dir"]):
        conf.set("dir", [("/",)])
    user = sentinel.host.user_of_process(sentinel.pid) if sentinel.running else None
    folder = tempfile.mkdtemp(prefix="redisops-sentinel-")
    try:
        os.chmod(folder, 0o755)
        binary = os.path.join(folder, "redis-sentinel")  # its name makes it one
        os.symlink(os.path.realpath(program), binary)
        user = user or sentinel.host.user_of_file(sentinel.path)
        with throwaway(binary, conf.render(), sentinel.path, conf.directives(), "/", user):
            pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _linked(server: Server, name: str, since: float) -> bool:
    fields = fields_of(server.command("SENTINEL", "MASTER", name))
    flags = fields.get("flags", "").split(",")
    age = int(fields.get("last-ok-ping-reply", "0")) / 1000
    return not {"disconnected", "s_down"} & set(flags) and age < time.monotonic() - since


def set_live(sentinel: Sentinel, items: t.Sequence[Item]) -> None:
    """SENTINEL CONFIG SET, MONITOR, SET, REMOVE. Raises Problem; then all is as it was."""
    server = sentinel.server
    back: list[t.Callable[[], t.Any]] = []

    def send(undo: t.Sequence[str], *words: str) -> None:
        server.command("SENTINEL", *words)
        back.insert(0, lambda: server.command("SENTINEL", *undo))

    try:
        for item in items:
            if item.of == "":
                undo = ("CONFIG", "SET", item.option, item.before or _NEUTRAL.get(item.option, ""))
                send(undo, "CONFIG", "SET", item.option, item.after or "")
        since = time.monotonic()
        proven = _set_primaries(sentinel, items, send)
        for name in sorted(proven):
            if not wait_for(lambda name=name: _linked(server, name, since), _LINK_SECONDS):
                raise Refusal(
                    "sentinel_auth_refused", f"{name}: after the change Sentinel has no working link to its primary; what was set is as before",
                    "a login with which Sentinel can ping it", f"correct auth_user and auth_password of {name}, and look into the log of both",
                )  # fmt: skip
        for item in items:
            if item.of and item.option == "monitor" and item.after is None:
                server.command("SENTINEL", "REMOVE", item.of)
    except Problem as problem:
        for step in back:
            try:
                step()
            except CommandError:
                continue  # of a primary that is gone by now
        raise _told(problem, items) from None


def _set_primaries(sentinel: Sentinel, items: t.Sequence[Item], send: t.Callable[..., None]) -> set[str]:
    """MONITOR what is new, SET the rest, one command for each primary; gives those whose link has to be proven."""
    proven = set()
    for name in dict.fromkeys(item.of for item in items if item.of):
        mine = [item for item in items if item.of == name]
        watched = sentinel.watched.get(name)
        if mine[0].option == "monitor":
            if mine[0].after is None:
                continue  # what it had known goes with it, and there is no way back: that comes when all else is done
            if watched:
                sentinel.server.command("SENTINEL", "REMOVE", name)
            send(("REMOVE", name), "MONITOR", name, *mine[0].after.split())
            proven.add(name)
        options = [item for item in mine if item.option != "monitor"]
        if not options:
            continue
        undo = [
            (item.option, _RESTORED.get(item.option, "") if item.before is None else item.before) for item in options
        ]
        # Undone together with its MONITOR, a new one needs no values back.
        back = ("SET", name, *(word for pair in undo for word in pair)) if watched else ("CKQUORUM", name)
        send(back, "SET", name, *(word for item in options for word in (item.option, item.after or "")))
        if any(item.option.startswith("auth-") for item in options) and not (watched and watched.down):
            proven.add(name)
    return proven


_NEUTRAL = {"announce-port": "0", "resolve-hostnames": "no", "announce-hostnames": "no"}


def _told(problem: Problem, items: t.Sequence[Item]) -> Problem:
    """Redis' refusal, without a secret."""
    if not isinstance(problem, CommandError):
        return problem
    text = problem.text
    for item in items:
        if item.option in ("auth-pass", "sentinel-pass") and item.after:
            text = text.replace(item.after, "********")
    return Problem(
        "value_rejected", f"Sentinel refused: {text}; what was set before is as it was", "values that this Sentinel accepts", "correct them",
    )  # fmt: skip


def prove_peers(server: Server, plan: AclPlan) -> None:
    """Every connected Sentinel has to come as a user that stays; who does not is asked to log in again. Raises Refusal.

    A Sentinel whose login was made after it had connected goes on as it came, for ever.
    """
    if not any(before is not None for _name, _words, before in plan.live):
        return
    table, lost, last = table_of_sentinel(server), [], [0.0]

    def none_lost() -> bool:
        lost[:] = lost_peers(server.command("CLIENT", "LIST"), plan.live_after, table)
        if lost and time.monotonic() - last[0] > _KICK_SECONDS:
            last[0] = time.monotonic()
            for one in lost:
                server.command("CLIENT", "KILL", "ID", one.id)
        return not lost and time.monotonic() - last[0] > _KICK_SECONDS

    if not wait_for(none_lost, _LINK_SECONDS):
        hosts = ", ".join(sorted({one.host for one in lost}))
        raise Refusal(
            "peer_locked_out",
            f"the Sentinels at {hosts} log in as a user that could not do a peer's work any more; the users are as they were",
            "every Sentinel logged in as a user that stays",
            "run the role on all Sentinels: it gives each sentinel_user first, and takes away second",
        )


def set_users(server: Server, login: Login, plan: AclPlan) -> t.Callable[[], None]:
    """New users first, then what takes away; gives the way back.

    Raises Problem; then the users are as they were.
    """
    done: list[tuple[str, t.Optional[tuple[str, ...]]]] = []

    def send(name: str, words: t.Optional[t.Sequence[str]]) -> None:
        if words is None:
            server.command("ACL", "DELUSER", name)
        else:
            server.command("ACL", "SETUSER", name, "reset", *words)

    def change(name: str, words: t.Optional[tuple[str, ...]], before: t.Optional[tuple[str, ...]]) -> None:
        send(name, words)
        done.insert(0, (name, before))

    def back() -> None:
        for name, words in done:
            send(name, words)
        server.command("SENTINEL", "FLUSHCONFIG")

    try:
        for name, words, before in plan.live:
            if before is None:
                change(name, words, before)
        for name, words, before in sorted(plan.live, key=lambda entry: entry[0] == "default"):
            if before is not None:
                change(name, words, before)
        try:
            connect_as(login, ASK_SECONDS).command("SENTINEL", "MASTERS")
        except Problem as problem:
            raise Refusal(
                "sentinel_self_lockout", f"with the users as declared this collection cannot log in: {problem.saw}; the users are as they were",
                "a login for the runs to come", "correct login_user and login_password, or the user of that name",
            ) from None  # fmt: skip
    except Problem as problem:
        back()
        if isinstance(problem, CommandError):
            text = " ".join("#…" if word.startswith("'#") else word for word in problem.text.split())
            raise Problem(
                "acl_rejected",
                f"Sentinel does not accept a user: {text}; the users are as they were",
                "rules that it knows",
                "correct rules",
            ) from None
        raise
    server.command("SENTINEL", "FLUSHCONFIG")
    return back


def restarted(
    sentinel: Sentinel, unit: str, make: t.Callable[[SentinelConf], str], login: Login, prepare: t.Callable[[], None]
) -> None:
    """Stop (where it runs), edit what it left, start, and wait until it answers; else back to the old file. Raises Problem."""
    host, path = sentinel.host, sentinel.path
    if sentinel.running:
        systemctl(host, "stop", f"{unit}.service", timeout=_UP_SECONDS)
    old = read_text(path)  # its last word: state that it wrote since we looked
    problem: t.Optional[Problem] = None
    try:
        new = make(SentinelConf(old, path))
        if new != old:
            StagedFile(path, new, 0o640, made_from=old).commit()
        prepare()
    except Problem as found:
        problem = found
    if problem is None:
        try:
            systemctl(host, "start", f"{unit}.service", timeout=_UP_SECONDS)
            _wait_until_up(login)
            return
        except Problem as found:
            why = found.saw
            problem = Problem(
                "sentinel_not_up", f"with the changed file it did not come up ({why}); the file is as it was, and it was started with that",
                "a file that it starts with", f"look at: journalctl -n 50 -u {unit}",
            )  # fmt: skip
            systemctl(host, "stop", f"{unit}.service", timeout=_UP_SECONDS)
            StagedFile(path, old, 0o640).commit()
    if sentinel.running:
        systemctl(host, "start", f"{unit}.service", timeout=_UP_SECONDS)
    raise problem


def _wait_until_up(login: Login) -> None:
    last = [""]

    def answers() -> bool:
        try:
            server = connect(login, ASK_SECONDS)
            server.command("SENTINEL", "MASTERS")
            server.close()
            return True
        except ServerDown as problem:
            last[0] = problem.saw
            return False

    if not wait_for(answers, _UP_SECONDS / 2):
        raise Problem("server_down", last[0])


def reset(server: Server, before: Watched) -> bool:
    """Forget what is gone; False where what was up has not been found again in time."""
    server.command("SENTINEL", "RESET", before.name)
    wanted = {known.address for known in (*before.replicas, *before.sentinels) if known.up}

    def found() -> bool:
        now = watched_by(server)[before.name]
        return wanted <= {known.address for known in (*now.replicas, *now.sentinels)}

    return wait_for(found, _BACK_SECONDS)
