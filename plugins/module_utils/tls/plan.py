# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What TLS of a server should be, and what that changes."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import ConfigPlan
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import Certificate, covers, is_address, stamp

__all__ = [
    "MATERIAL",
    "PlainLinks",
    "declared_directives",
    "describe",
    "expiry_warnings",
    "hold_back_cluster_bus",
    "issue_reasons",
    "live_address",
    "may_read",
    "plain_links",
    "predict",
    "require_combination",
    "require_dates",
    "require_links",
    "require_names",
    "set_live_order",
    "shown",
]  # fmt: skip

DAY = 86400
_OWN_AUTHORITIES = 5
#: The directive that names each of the three files.
MATERIAL = {"certificate": "tls-cert-file", "key": "tls-key-file", "ca": "tls-ca-cert-file"}
#: With cluster-enabled, a node derives the port of its bus from these and listens there from its start on.
_BUS = ("tls-cluster", "tls-port", "port")


def declared_directives(params: t.Mapping[str, t.Any], has_pass: bool) -> dict[str, str]:
    """The directives as declared; ``port`` stands before ``tls-port``, which may take over the same number. Raises Problem.

    ``has_pass``: a passphrase is set already, so that a key without one has to take it away.
    """
    if not 0 < params["tls_port"] < 65536:
        raise Problem("invalid_value", f"tls_port: {params['tls_port']} is no port", "1 to 65535", "correct tls_port")
    paths = {directive: params[directive.replace("-", "_")] for directive in MATERIAL.values()}
    for directive, path in paths.items():
        if not path.startswith("/") or path.endswith("/"):
            raise Problem(
                "invalid_value",
                f"{directive.replace('-', '_')}: {path!r} is no absolute path of a file",
                "",
                f"correct {directive.replace('-', '_')}",
            )
    if params["source"] != "host" and len(set(paths.values())) < len(paths):
        raise Problem(
            "contradiction", f"one path is named for several of {', '.join(paths).replace('-', '_')}", "a file for each",
            "name three files",
        )  # fmt: skip
    if not params["tls_protocols"]:
        raise Problem("invalid_value", "tls_protocols is empty", "TLSv1.2, TLSv1.3 or both", "correct tls_protocols")
    if params["source"] == "issued" and not 0 <= params["renew_before"] < params["valid_days"]:
        raise Problem(
            "contradiction",
            f"renew_before is {params['renew_before']} and valid_days {params['valid_days']}: each run would make a new certificate",
            "a certificate that is valid for longer than it is renewed before its end",
            "set valid_days above renew_before",
        )
    wanted = {"port": "0"} if params["tls_only"] else {}
    wanted["tls-port"] = str(params["tls_port"])
    wanted.update(paths)
    if params["tls_key_file_pass"] or has_pass:
        wanted["tls-key-file-pass"] = params["tls_key_file_pass"] or ""
    wanted["tls-auth-clients"] = params["tls_auth_clients"]
    for name in ("tls-replication", "tls-cluster"):
        wanted[name] = "yes" if params[name.replace("-", "_")] else "no"
    wanted["tls-protocols"] = " ".join(params["tls_protocols"])
    return wanted


def require_combination(wanted: t.Mapping[str, str], port: str, cluster: bool, bus_port: str) -> None:
    """``port`` and ``bus_port`` (0: derived) are what is in force. Raises Problem for what cannot hold together."""
    if wanted.get("port", port) == wanted["tls-port"]:
        raise Problem(
            "contradiction",
            f"tls_port and port are both {port}: one port speaks TLS or plain text, not both",
            "a port of its own for TLS, or no plain one",
            "set tls_port to another port, or tls_only: true",
        )
    if not cluster:
        return
    if wanted.get("port") == "0" and wanted["tls-cluster"] == "no":
        raise Problem(
            "contradiction",
            "tls_only is true on a cluster node and tls_cluster is not: the node would tell the others port 0",
            "a cluster bus with TLS where there is no plain port",
            "set tls_cluster: true",
        )
    if wanted["tls-cluster"] == "yes" and bus_port == "0" and int(wanted["tls-port"]) > 55535:
        raise Problem(
            "invalid_value",
            f"tls_port: the cluster bus would use {wanted['tls-port']} + 10000, which is no port",
            "tls_port of at most 55535, or a cluster-port",
            "correct tls_port",
        )


def hold_back_cluster_bus(plan: ConfigPlan, live: t.Mapping[str, str], known_nodes: int) -> None:
    """A node's bus listens where it did at the start, and a live change only makes it tell another place (seen on 7.0.15).

    Of a node alone, such a change waits for its restart; a node among others is refused. Raises Refusal.
    """
    if live.get("cluster-enabled") != "yes":
        return
    bus = "tls-cluster" in plan.live or ("tls-port" in plan.live and live.get("tls-cluster") == "yes")
    if not bus:
        return
    if known_nodes > 1:
        raise Refusal(
            "cluster_bus",
            f"this node knows {known_nodes - 1} others, and its bus would change "
            + ("to or from TLS" if "tls-cluster" in plan.live else "its port"),
            "a bus that all nodes speak alike: a node with TLS and one without hold each other for failed",
            "keep tls_cluster and tls_port as they are; for a bus with TLS make a new cluster with it and move the data there",
        )
    for name in _BUS:
        if plan.live.pop(name, None) is not None:
            plan.changes = [change for change in plan.changes if (change.layer, change.name) != ("live", name)]
            plan.restart_required.append(name)


def set_live_order(plan: ConfigPlan, tls_port: str, live: t.Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The live changes of ``plan`` in two steps: with the second one the plain port closes, when TLS has been verified.

    Where TLS takes over the number of the plain port, both have to happen at once, the plain port first.
    """
    first = dict(plan.live)
    if live.get("port") == tls_port:
        return first, {}
    return {name: value for name, value in first.items() if name != "port"}, {
        name: value for name, value in first.items() if name == "port"
    }


def describe(certificate: Certificate) -> str:
    """One certificate in one line of the diff."""
    names = " ".join(certificate.names) or "none"
    return (
        f"{certificate.subject}, names {names}, issuer {certificate.issuer}, expires {stamp(certificate.not_after)}, "
        f"sha256 {certificate.fingerprint[:16]}"
    )


def predict(names: t.Sequence[str], authority: Certificate, valid_days: int) -> str:
    """The line of the diff for a certificate that is yet to be made: what is known of it before and after alike."""
    return f"CN={names[0]}, names {' '.join(sorted(names))}, issuer {authority.subject}, made for {valid_days} days"


def shown(
    certificate: t.Optional[Certificate], now: float, served: t.Optional[Certificate], running: bool
) -> dict[str, t.Any]:
    """The certificate in the module's result; whether it is ``served`` is None where no server runs."""
    if certificate is None:
        return {}
    return {
        "subject": certificate.subject, "issuer": certificate.issuer, "serial": certificate.serial, "names": list(certificate.names),
        "not_before": stamp(certificate.not_before), "not_after": stamp(certificate.not_after),
        "days_left": int((certificate.not_after - now) // DAY), "fingerprint": certificate.fingerprint,
        "served": bool(served and served.fingerprint == certificate.fingerprint) if running else None,
    }  # fmt: skip


def expiry_warnings(
    certificate: t.Optional[Certificate], authorities: t.Sequence[Certificate], now: float, warn_before: int
) -> list[str]:
    """One warning for each certificate that ends within ``warn_before`` days (or has ended, of an authority among several)."""
    held = [("certificate", certificate)] if certificate else []
    many = len(authorities) > _OWN_AUTHORITIES  # the bundle of a distribution: ours is the one that signed
    ours = [entry for entry in authorities if not many or (certificate and entry.subject == certificate.issuer)]
    return [
        f"the {what} {entry.subject} {'expires' if entry.not_after > now else 'expired'} at {stamp(entry.not_after)}"
        for what, entry in [*held, *(("authority", entry) for entry in ours)]
        if entry.not_after - now < warn_before * DAY
    ]


def require_dates(certificate: Certificate, now: float, where: str) -> None:
    """Raises Problem for a certificate that is not valid now."""
    if certificate.not_after <= now:
        raise Problem(
            "certificate_expired",
            f"the certificate {certificate.subject} ({where}) expired at {stamp(certificate.not_after)}",
            "a certificate that is valid now",
            "renew it, then run again",
        )
    if certificate.not_before > now:
        raise Problem(
            "certificate_not_yet_valid",
            f"the certificate {certificate.subject} ({where}) is valid from {stamp(certificate.not_before)} on; here it is {stamp(int(now))}",
            "a certificate that is valid now, and a clock that is right",
            "look at the clocks of this host and of the authority, then run again",
        )


def require_names(certificate: Certificate, names: t.Sequence[str]) -> None:
    """Raises Problem where a declared name is not the certificate's."""
    missing = [name for name in names if not covers(certificate.names, name)]
    if missing:
        raise Problem(
            "certificate_names",
            f"the certificate {certificate.subject} is for {', '.join(certificate.names) or 'no name'}, not for {', '.join(missing)}",
            "a certificate for every name that is declared",
            "use one that has these names, or correct names",
        )


def issue_reasons(
    found: t.Optional[Certificate],
    names: t.Sequence[str],
    now: float,
    renew_before: int,
    valid_days: int,
    ca_not_after: int,
) -> list[str]:
    """Why a new certificate has to be made, as far as the old one's own text says.

    Addresses come and go, so one more than is needed is no reason; a host name too many is. A certificate that ends with its
    authority is not made anew when that would not make it last longer.
    """
    if found is None:
        return ["there is none"]
    reasons = []
    missing = [name for name in names if name not in found.names]
    extra = [name for name in found.names if name not in names and not is_address(name)]
    if missing:
        reasons.append(f"it lacks {', '.join(missing)}")
    if extra:
        reasons.append(f"it has {', '.join(extra)}, which is not declared")
    longest = min(now + valid_days * DAY, ca_not_after)
    if found.not_after <= now:
        reasons.append(f"it expired at {stamp(found.not_after)}")
    elif found.not_after - now < renew_before * DAY and longest - found.not_after >= DAY:
        reasons.append(f"it expires at {stamp(found.not_after)}")
    return reasons


def live_address(bind: str) -> str:
    """An address of this host at which a server with this ``bind`` listens, loopback where it does."""
    words = bind.split() or ["*"]
    plain = [word.lstrip("-") for word in sorted(words, key=lambda word: word.startswith("-"))]
    if any(word in ("*", "0.0.0.0", "127.0.0.1") for word in plain):
        return "127.0.0.1"
    return "::1" if plain[0] in ("::*", "::") else plain[0]


@dataclasses.dataclass(frozen=True)
class PlainLinks:
    """Connections without TLS, as addresses; ``clients`` are all that are neither replica nor Sentinel."""

    replicas: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()


def plain_links(client_list: str, tls_port: str, own_id: str) -> PlainLinks:
    """From CLIENT LIST: a connection has TLS if it came in at the TLS port (``laddr``).

    Left out are Unix sockets, the link to this server's own primary, and the connection that asks.
    """
    found: dict[str, list[str]] = {"replicas": [], "sentinels": [], "clients": []}
    for line in client_list.splitlines():
        fields = dict(word.split("=", 1) for word in line.split(" ") if "=" in word)
        flags, local = fields.get("flags", ""), fields.get("laddr", "")
        if fields.get("id") == own_id or "U" in flags or "M" in flags or not local:
            continue
        if local.rpartition(":")[2] in (tls_port, "0"):
            continue
        name = fields.get("name", "")
        kind = "replicas" if "S" in flags else "sentinels" if name.startswith("sentinel-") else "clients"
        found[kind].append(fields.get("addr", "?"))
    return PlainLinks(*(tuple(found[kind]) for kind in ("replicas", "sentinels", "clients")))


def require_links(links: PlainLinks) -> t.Optional[str]:
    """The plain port is about to close: the warning for clients. Raises Refusal where replicas or Sentinels would lose their way."""
    lost = [
        f"{kind} {', '.join(addresses)}"
        for kind, addresses in (("replicas", links.replicas), ("Sentinels", links.sentinels))
        if addresses
    ]
    if lost:
        raise Refusal(
            "plain_links",
            f"tls_only would close the plain port, through which are connected: {'; '.join(lost)}. They would stay until their "
            "connection breaks, and not come back",
            "replicas and Sentinels that come in at the TLS port",
            "run with tls_only: false; then tls_replication and the TLS port for every replica, TLS for every Sentinel; then tls_only: true",
        )
    if not links.clients:
        return None
    shown_first = ", ".join(links.clients[:5]) + (", …" if len(links.clients) > 5 else "")
    return (
        f"{len(links.clients)} connections of clients came in at the plain port ({shown_first}). They stay, and will not come back "
        "without TLS when they break"
    )


def may_read(uid: int, gids: t.Collection[int], owner: int, group: int, mode: int) -> bool:
    """Whether a user of these ids may read a file of this owner, group and mode."""
    if uid in (0, owner):
        return uid == 0 or bool(mode & 0o400)
    return bool(mode & (0o040 if group in gids else 0o004))
