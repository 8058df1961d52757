# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a Sentinel watches to what is declared; its runtime state is never part of it."""

from __future__ import annotations

import collections
import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import split_endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import SentinelConf
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.state import Known, Watched
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import effective, file_lines, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive

__all__ = [
    "CONF_DEFAULTS", "SCRIPTS", "Declared", "Item", "Now", "Primary", "advice", "cautions", "changes_of", "declared_of", "edit", "is_example",
    "options_of", "plan_items", "require_announced", "require_names", "require_port", "require_quiet", "require_restartable", "reset_changes",
    "settings_of", "stale_of", "undeclared",
]  # fmt: skip

SCRIPTS = ("notification-script", "client-reconfig-script")
#: What SENTINEL SET takes, or the file, and Redis' defaults: Sentinel drops lines that say no more than these.
_DEFAULTS = {"down-after-milliseconds": "30000", "failover-timeout": "180000", "parallel-syncs": "1"}
_OPTIONS = {
    "resolve-hostnames": "no", "announce-hostnames": "no", "announce-ip": "", "announce-port": "0", "sentinel-user": "", "sentinel-pass": "",
}  # fmt: skip
#: Directives of sentinel.conf that Sentinel takes at its start only, with the defaults that it has for them.
CONF_DEFAULTS = {
    "port": "26379", "tls-port": "0", "tls-replication": "no", "tls-auth-clients": "yes", "tls-cert-file": "", "tls-key-file": "",
    "tls-ca-cert-file": "", "tls-ca-cert-dir": "", "tls-key-file-pass": "", "tls-client-cert-file": "", "tls-client-key-file": "",
    "tls-client-key-file-pass": "", "tls-protocols": "", "tls-ciphers": "", "tls-ciphersuites": "", "tls-prefer-server-ciphers": "no",
    "bind": "* -::*", "protected-mode": "no", "loglevel": "notice", "logfile": "", "dir": "", "pidfile": "", "syslog-enabled": "no",
    "syslog-ident": "redis", "syslog-facility": "local0", "tcp-backlog": "511", "tcp-keepalive": "300", "timeout": "0", "maxclients": "10000",
    "acllog-max-len": "128", "unixsocket": "", "unixsocketperm": "0",
}  # fmt: skip
_SECRET = frozenset(["auth-pass", "sentinel-pass", "tls-key-file-pass", "tls-client-key-file-pass"])
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True)
class Primary:
    """One declared primary. ``options`` are spelled as in SENTINEL SET; what is not declared is not in it."""

    name: str
    quorum: int
    options: t.Mapping[str, str]
    group_hosts: tuple[str, ...] = ()
    begins_as: str = ""

    @property
    def login(self) -> tuple[t.Optional[str], t.Optional[str]]:
        """User and password for its servers, where they are declared."""
        return self.options.get("auth-user") or None, self.options.get("auth-pass") or None


@dataclasses.dataclass(frozen=True)
class Item:
    """One difference. ``of`` is the primary, "" for Sentinel itself, None for a plain directive; None as value: not there."""

    of: t.Optional[str]
    option: str
    before: t.Optional[str]
    after: t.Optional[str]
    #: Whether Sentinel takes it while it runs.
    live: bool = True


def _word(what: str, value: str, secret: bool = False) -> str:
    """``value``, where Sentinel can write it: it puts words into its file without quoting them. Raises Problem."""
    if re.search(r"""[\s"'\\]""", value) or not value.isprintable() or value.startswith("#"):
        raise Problem(
            "unwritable_word",
            f"{what} {'has a space, a quote, a backslash or a # in front' if secret else f'is {value!r}'}: Sentinel writes it into its file "
            "without quoting it, and could not read that file at its next start",
            "one word without spaces, quotes and backslashes", f"choose another {what.rsplit(maxsplit=1)[-1]}",
        )  # fmt: skip
    return value


def _option_number(name: str, option: str, value: t.Any, least: int) -> str:
    if int(value) < least:
        raise Problem(
            "invalid_value",
            f"{name}: {option} is {value}",
            f"a whole number, {least} or more",
            f"correct {option} of {name}",
        )
    return str(int(value))


def _options_of(name: str, entry: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Directives of one primary. Raises Problem."""
    options = {
        option: _option_number(name, option.replace("-", "_"), entry[option.replace("-", "_")], 1)
        for option in _DEFAULTS
    }
    for option, key in (("auth-user", "auth_user"), ("auth-pass", "auth_password")):
        if entry.get(key) is not None:
            options[option] = _word(f"{name}: {key}", entry[key], option in _SECRET)
    if options.get("auth-user") and not options.get("auth-pass"):
        raise Problem(
            "contradiction", f"{name}: auth_user is set, auth_password is not", "both", f"set auth_password of {name}"
        )
    for option in SCRIPTS:
        path = entry.get(option.replace("-", "_"))
        if path and not path.startswith("/"):
            raise Problem(
                "invalid_value",
                f"{name}: {option} {path!r} is no absolute path",
                "a program on the host",
                f"correct {option}",
            )
        if path is not None:
            options[option] = _word(f"{name}: {option}", path)
    return options


def _primary_of(entry: t.Mapping[str, t.Any], sentinels: int) -> Primary:
    """One declared primary. Raises Problem."""
    name = entry["name"]
    if not _NAME.fullmatch(name):
        raise Problem(
            "invalid_value",
            f"primaries: {name!r} is no name of a primary",
            "letters, digits, and . _ -",
            "correct name",
        )
    quorum = int(_option_number(name, "quorum", entry["quorum"], 1))
    if quorum > sentinels:
        raise Problem(
            "quorum_too_large", f"{name}: the quorum is {quorum}, and there are {sentinels} Sentinels: no failover could ever begin",
            "a quorum that the Sentinels can reach, most of them but not all", "lower quorum, or declare all sentinels",
        )  # fmt: skip
    options = _options_of(name, entry)
    return Primary(name, quorum, options, tuple(entry.get("group_hosts") or ()), str(entry.get("primary") or ""))


def declared_of(entries: t.Sequence[t.Mapping[str, t.Any]], sentinels: int) -> tuple[Primary, ...]:
    """The option ``primaries``; ``sentinels`` is how many there are. Raises Problem."""
    found: dict[str, Primary] = {}
    for entry in entries:
        primary = _primary_of(entry, sentinels)
        if primary.name in found:
            raise Problem(
                "contradiction",
                f"primaries names {primary.name} twice",
                "each once",
                f"take one {primary.name} out of primaries",
            )
        found[primary.name] = primary
    return tuple(found.values())


def options_of(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Sentinel's own options, as SENTINEL CONFIG SET takes them; logins that are not declared are not in it. Raises Problem."""
    found = {
        name: "yes" if params[name.replace("-", "_")] else "no" for name in ("resolve-hostnames", "announce-hostnames")
    }
    found["announce-ip"] = _word("announce_ip", params["announce_ip"] or "")
    found["announce-port"] = _option_number("Sentinel", "announce_port", params["announce_port"], 0)
    for name, key in (("sentinel-user", "sentinel_user"), ("sentinel-pass", "sentinel_password")):
        if params[key] is not None:
            found[name] = _word(key, params[key], name in _SECRET)
    if found.get("sentinel-user") and not found.get("sentinel-pass"):
        raise Problem(
            "contradiction", "sentinel_user is set, sentinel_password is not", "both", "set sentinel_password"
        )
    return found


def settings_of(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Directives that are taken at the start, by name. Raises Problem."""
    found = {"port": str(params["port"]), "tls-port": str(params["tls_port"])}
    found["tls-replication"] = "yes" if params["tls_replication"] else "no"
    found["tls-auth-clients"] = params["tls_auth_clients"]
    for name in ("tls-cert-file", "tls-key-file", "tls-ca-cert-file"):
        if params[name.replace("-", "_")]:
            found[name] = params[name.replace("-", "_")]
    for given, value in (params["settings"] or {}).items():
        name = str(given).lower().replace("_", "-")
        if name not in CONF_DEFAULTS:
            raise Problem(
                "unknown_directive", f"settings names {given}, which is none that can be declared here",
                f"one of {', '.join(CONF_DEFAULTS)}",
                "take it out of settings; what belongs to a primary or to Sentinel itself has options of its own",
            )  # fmt: skip
        if name in found:
            raise Problem(
                "contradiction",
                f"settings names {name}, which has an option of its own",
                "one of the two",
                f"take {given} out of settings",
            )
        words = (
            value
            if isinstance(value, list)
            else [{True: "yes", False: "no"}[value] if isinstance(value, bool) else value]
        )
        found[name] = " ".join(map(str, words))
    speaks = found["tls-port"] != "0" or found["tls-replication"] == "yes"
    if speaks and not all(found.get(name) for name in ("tls-cert-file", "tls-key-file", "tls-ca-cert-file")):
        raise Problem(
            "contradiction", "tls_port or tls_replication is set, and not all of tls_cert_file, tls_key_file and tls_ca_cert_file",
            "a certificate, its key, and the authorities", "set them; the files that role redis_tls keeps will do",
        )  # fmt: skip
    if found["port"] == "0" and found["tls-port"] == "0" and not found.get("unixsocket"):
        raise Problem(
            "contradiction", "port and tls_port are both 0: nobody could reach this Sentinel", "one of them", "set port or tls_port",
        )  # fmt: skip
    return {name: normal(name, value) for name, value in found.items()}


def require_port(settings: t.Mapping[str, str], port: int, socket: t.Optional[str]) -> None:
    """The login has to be for where this Sentinel will listen. Raises Problem."""
    if not socket and str(port) not in (settings["port"], settings["tls-port"]):
        raise Problem(
            "contradiction",
            f"login_port is {port}, and this Sentinel would listen at port {settings['port']} and tls_port {settings['tls-port']}",
            "a login for where it will be", "set login_port (and tls) to match port or tls_port",
        )  # fmt: skip


def conf_items(wanted: t.Mapping[str, str], directives: t.Sequence[Directive]) -> list[Item]:
    """What differs in plain directives."""
    items = []
    for name, value in wanted.items():
        found = effective(directives, name)
        if (found if found is not None else CONF_DEFAULTS[name]) != value:
            items.append(Item(None, name, found, value, live=False))
    return items


def option_items(wanted: t.Mapping[str, str], current: t.Mapping[str, str]) -> list[Item]:
    """What differs in Sentinel's own options."""
    found = [(name, {**_OPTIONS, **current}[name] or None, value) for name, value in wanted.items() if name in _OPTIONS]
    return [Item("", name, before, value) for name, before, value in found if (before or "") != value]


def primary_items(declared: Primary, current: t.Optional[t.Mapping[str, str]], address: str) -> list[Item]:
    """What differs for one primary. ``current`` None: it is not watched yet, and ``address`` is where it will be looked for."""
    name = declared.name
    if current is None:
        host, port = split_endpoint(address)
        items = [Item(name, "monitor", None, f"{host} {port} {declared.quorum}")]
    elif current["monitor"].split()[-1] != str(declared.quorum):
        items = [Item(name, "quorum", current["monitor"].split()[-1], str(declared.quorum))]
    else:
        items = []
    for option, value in declared.options.items():
        stated = (current or {}).get(option)
        if (stated if stated is not None else _DEFAULTS.get(option, "")) != value:
            items.append(Item(name, option, stated, value, live=option not in SCRIPTS))
    return items


@dataclasses.dataclass(frozen=True)
class Declared:
    """The declaration of one Sentinel."""

    primaries: tuple[Primary, ...]
    options: t.Mapping[str, str]
    settings: t.Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Now:
    """What is there. ``examples`` are primaries of the package's example, by what it says of them; they are no state."""

    primaries: t.Mapping[str, t.Mapping[str, str]] = dataclasses.field(default_factory=dict)
    examples: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    directives: t.Sequence[Directive] = ()

    @property
    def names(self) -> set[str]:
        return set(self.primaries)


def plan_items(declared: Declared, now: Now, addresses: t.Mapping[str, str], gone: t.Collection[str]) -> list[Item]:
    """Everything that differs, in the order in which it is done; ``gone`` are names to watch no longer. Raises Problem."""
    items = option_items(declared.options, now.options)
    names = {one.name for one in declared.primaries}
    for name, stated in sorted({**now.examples, **{name: now.primaries[name]["monitor"] for name in gone}}.items()):
        if name not in names:
            items.append(Item(name, "monitor", stated, None))
    for one in declared.primaries:
        mine = primary_items(one, now.primaries.get(one.name), addresses.get(one.name, ""))
        if mine and mine[0].option == "monitor":
            _require_one_name(mine[0], now, gone)
            mine[0] = dataclasses.replace(mine[0], before=now.examples.get(one.name))
        items += mine
    return items + conf_items(declared.settings, now.directives)


def _require_one_name(item: Item, now: Now, gone: t.Collection[str]) -> None:
    where = (item.after or "").split()[:2]
    for name, stated in now.primaries.items():
        if name not in gone and stated["monitor"].split()[:2] == where:
            raise Problem(
                "unknown_primary_name", f"primaries names {item.of}, which nobody watches, and its primary {':'.join(where)} is watched as {name}",
                "one name for one primary, which clients ask for", f"correct the name to {name}; to rename it, set purge: true",
            )  # fmt: skip


def undeclared(declared: Declared, now: Now) -> list[str]:
    """Names that are watched and not declared."""
    return sorted(now.names - {one.name for one in declared.primaries})


def reset_changes(watched: t.Mapping[str, Watched], names: t.Iterable[str], seconds: int) -> list[Change]:
    """What is forgotten, one line each."""
    return [
        Change("live", f"{name} {known.kind} {known.address}", ",".join(known.flags), None, f"SENTINEL RESET {name}")
        for name in names
        if name in watched
        for known in stale_of(watched[name], seconds)
    ]


def is_example(watched: Watched, group_hosts: t.Collection[str]) -> bool:
    """Whether this is what the packages' example file watches, and nobody else knows of it: no state worth keeping."""
    return (
        (watched.name, watched.address) == ("mymaster", "127.0.0.1:6379")
        and not watched.sentinels
        and not watched.config_epoch
        and watched.address not in group_hosts
    )


def _masked(option: str, value: t.Optional[str]) -> t.Optional[str]:
    return "********" if value and option in _SECRET else value


def changes_of(items: t.Iterable[Item], running: bool, path: str) -> list[Change]:
    """The items in the words of diff and actions."""
    found = []
    for item in items:
        live = running and item.live
        name = " ".join(filter(None, (item.of, item.option)))
        if not live:
            action = f"write {name} to {path}" if item.after is not None else f"take {item.of} out of {path}"
        elif item.option == "monitor":
            action = f"SENTINEL {'REMOVE' if item.after is None else 'MONITOR'} {item.of}"
        else:
            action = f"SENTINEL SET {name}" if item.of else f"SENTINEL CONFIG SET {name}"
        before, after = (_masked(item.option, value) for value in (item.before, item.after))
        shown = '""' if after == "" else after
        found.append(Change("live" if live else "file", name, before, shown, action))
    return found


def edit(conf: SentinelConf, items: t.Iterable[Item]) -> str:
    """The file with the items in it; every other line stays byte for byte."""
    for item in items:
        if item.of is None:
            conf.set(item.option, file_lines(item.option, item.after or ""))
        elif not item.of:
            conf.set_option(item.option, item.after or None)
        elif item.option == "monitor":
            conf.remove_primary(item.of)  # what a removed one, or the package's example, had next to it
            conf.set_primary(item.of, "monitor", item.after)
        elif item.option == "quorum":
            stated = conf.primaries()[item.of]["monitor"].split()
            conf.set_primary(item.of, "monitor", " ".join([*stated[:-1], item.after or ""]))
        else:
            conf.set_primary(item.of, item.option, item.after or None)
    return conf.render()


def require_names(names: t.Iterable[str], there: t.Collection[str], what: str) -> None:
    """Every name must be one that is watched. Raises Problem with those that are."""
    for name in names:
        if name not in there:
            raise Problem(
                "unknown_primary_name",
                f"{what} names {name}, and no such primary is watched; there {'are' if there else 'is'} {', '.join(sorted(there)) or 'none'}",
                "a name that exists, or group_hosts among which its primary can be found", f"correct the name, or set group_hosts for {name}",
            )  # fmt: skip


def require_announced(announced: str, own_id: str, watched: t.Iterable[Watched], others: t.Mapping[str, str]) -> None:
    """No other Sentinel may go by the same address: each would replace the other in everybody's list. Raises Refusal.

    ``others`` maps declared Sentinels to what they announce.
    """
    twins = [name for name, address in others.items() if address == announced]
    twins += [
        f"{known.run_id[:8]}… of {one.name}"
        for one in watched
        for known in one.sentinels
        if known.address == announced and known.run_id != own_id and known.up
    ]
    if twins:
        raise Refusal(
            "duplicate_announce", f"this Sentinel would announce {announced}, and so does {', '.join(sorted(set(twins)))}",
            "an address of its own for every Sentinel, or they count as one", "correct announce_ip and announce_port",
        )  # fmt: skip


def require_quiet(watched: t.Iterable[Watched], tilt: bool, doing: str) -> None:
    """A Sentinel in trouble is left alone. Raises Refusal."""
    if tilt:
        raise Refusal(
            "tilt", f"this Sentinel is in TILT mode: its clock jumped, or the host stood still; {doing} has to wait", "30 quiet seconds",
            "wait and run again; if TILT comes back, look at load and clock of the host",
        )  # fmt: skip
    for one in watched:
        if one.failing_over or one.down:
            state = "a failover is in progress" if one.failing_over else f"the primary {one.address} is down"
            raise Refusal(
                "failover_in_progress", f"{one.name}: {state}; {doing} would disturb it", "a primary that is up, and no failover",
                f"wait for it to end (redis-cli SENTINEL MASTER {one.name} shows the flags), then run again",
            )  # fmt: skip


def require_restartable(watched: t.Iterable[Watched], tilt: bool) -> None:
    """The others must be able to fail over while this one is away. Raises Refusal.

    A set of one or two can spare none, whatever is done: there a restart is a second without failover, and no refusal helps.
    """
    watched = list(watched)
    require_quiet(watched, tilt, "a restart")
    for one in watched:
        total, others = len(one.sentinels) + 1, sum(known.up for known in one.sentinels)
        needed = max(int(one.options.get("quorum", "1")), total // 2 + 1)
        if total >= 3 and others < needed:
            raise Refusal(
                "quorum_at_risk",
                f"{one.name}: of {total} Sentinels {others} next to this one are up, and a failover takes {needed}: a restart would leave too few",
                f"{needed} others that are up", "start the others; forget those that are gone for good (redis_sentinel_reset); then run again",
            )  # fmt: skip


def stale_of(watched: Watched, seconds: int) -> list[Known]:
    """Replicas and Sentinels that have been gone for so long."""
    return [known for known in (*watched.replicas, *watched.sentinels) if not known.up and known.down_for >= seconds]


def advice(declared: t.Sequence[Primary], sentinels: t.Sequence[str], domains: t.Mapping[str, str]) -> list[str]:
    """What is allowed and unwise."""
    count, found = len(sentinels), []
    if count % 2 == 0:
        found.append(f"There are {count} Sentinels, an even number: they outlive no more failures than {count - 1}.")
    if count < 3:
        found.append(f"With {count} Sentinels the loss of one ends all failover. Have at least 3.")
    for one in declared:
        if one.quorum == 1 and count > 1:
            found.append(f"{one.name}: with a quorum of 1 a single Sentinel that is cut off can call the primary down.")
    stated = [domains.get(name) or domains.get(split_endpoint(name)[0]) for name in sentinels]
    places = collections.Counter(domain for domain in stated if domain)
    for domain, held in places.items():
        if count > 1 and count - held < count // 2 + 1:
            found.append(
                f"{held} of {count} Sentinels are in the failure domain {domain}: when it is lost, nothing fails over."
            )
    return found


def cautions(
    tilt: bool, report: t.Mapping[str, t.Mapping[str, t.Any]], names: t.Sequence[str], users: t.Sequence[str], purge: bool
) -> list[str]:  # fmt: skip
    """What the live Sentinel makes worth saying."""
    found = []
    if tilt:
        found.append("This Sentinel is in TILT mode: until 30 quiet seconds have passed it does nothing.")
    for name, one in report.items():
        if not one["can_fail_over"]:
            found.append(f"{name}: {one['usable']} Sentinels are usable, too few for a failover.")
        if {"s_down", "o_down"} & set(one["flags"]):
            found.append(f"{name}: the primary {one['address']} is down ({','.join(one['flags'])}).")
    if names and not purge:
        found.append(f"Watched and not declared: {', '.join(names)}. Set purge: true to remove them.")
    if users and not purge:
        found.append(f"Users that are not declared, and stay: {', '.join(users)}. Set purge: true to remove them.")
    return found
