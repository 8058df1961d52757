# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentinels, cluster nodes and servers, asked from the controller, all at once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
import socket
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import (
    ClusterAnswer,
    cluster_disagreement,
    parse_cluster_info,
    parse_nodes,
)
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.host_vars import Detail
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.sentinel import (
    SentinelAnswer,
    disagreement,
    names_of,
    set_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint, split_endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    connect_as,
)

__all__ = ["addresses_of", "ask_servers", "read_cluster", "read_sentinels", "resolve"]

_T = t.TypeVar("_T")
#: Sentinels tell each other of a failover every two seconds; a node tells within the same time.
SETTLE_SECONDS = 3.0
_AT_ONCE = 16
#: Sent by the login of an inventory, which is not the login of the modules.
_STATE, _NODES = ("CLUSTER", "INFO"), ("CLUSTER", "NODES")


def addresses_of(texts: t.Iterable[str], port: int) -> list[str]:
    """``host`` and ``host:port`` as ``host:port``, each once. Raises Problem."""
    found = []
    for text in texts:
        try:
            found.append(endpoint(*split_endpoint(text.strip(), port)))
        except ValueError:
            raise Problem(
                "invalid_value", f"{text!r} is no host, and no host:port", f"such as redis-1:{port}", "correct it"
            ) from None
    return list(dict.fromkeys(found))


def _with_server_named(problem: Problem, who: str, tls: bool = False) -> Problem:
    """A failure to connect, in the words of the inventory."""
    if problem.code == "login_failed":
        sentinel = who == "Sentinel"
        reason = problem.detected.rsplit(": ", 1)[-1]
        return Problem("sentinel_login_failed" if sentinel else "login_failed", f"it refuses the login: {reason}")
    if problem.code == "not_redis":
        reason = problem.detected.split("as Redis does: ", 1)[-1]
        if re.search(r"\bSSL\b|\bX509\b|certificate|\bTLS\b|PEM", reason, re.I):
            return Problem("tls_failed", f"TLS fails: {reason}")
        plain = " (as of a port that speaks no TLS)" if tls and "Timeout" in reason else ""
        return Problem("not_redis", f"no answer: {reason}{plain}")
    return problem


def _require_readable_certificates(login: Login) -> None:
    for option in ("ca_certs", "client_cert_file", "client_key_file"):
        path = getattr(login, option)
        if login.tls and path and not os.access(path, os.R_OK):
            raise Problem(
                "tls_failed", f"{option}: {path} cannot be read", "a PEM file on the controller", f"correct {option}"
            )


def _ask(
    address: str, login: Login, timeout: float, who: str, question: t.Callable[[Server], _T]
) -> t.Union[_T, Problem]:
    """One server's answer, or what kept it from being given."""
    host, port = split_endpoint(address)
    try:
        server = connect_as(dataclasses.replace(login, host=host, port=port, unix_socket=None), timeout)
    except Problem as problem:
        return _with_server_named(problem, who, login.tls)
    except (OSError, ValueError) as error:  # a certificate file that cannot be read, an authority that is none
        return Problem("tls_failed", f"TLS fails: {error}")
    try:
        return question(server)
    except CommandError as error:
        if error.prefix in ("NOAUTH", "NOPERM"):
            return _with_server_named(Problem("login_failed", f": {error.text}"), who)
        return error
    except Problem as problem:
        return problem
    finally:
        server.close()


def ask_each(
    addresses: t.Sequence[str], login: Login, timeout: float, who: str, question: t.Callable[[Server], _T]
) -> tuple[dict[str, _T], dict[str, Problem]]:
    """``question``'s answer from each address, or what kept it from being given. Raises Problem where redis-py or a file is missing."""
    _require_readable_certificates(login)
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(addresses, pool.map(lambda address: _ask(address, login, timeout, who, question), addresses)))
    failed = {address: answer for address, answer in found.items() if isinstance(answer, Problem)}
    for problem in failed.values():
        if problem.code == "redis_py_missing":
            raise problem
    return {address: answer for address, answer in found.items() if not isinstance(answer, Problem)}, failed


_NEEDS = {
    "sentinel_login_failed": ("a login for the Sentinels, with the right to SENTINEL", "set sentinel_user and sentinel_password"),
    "login_failed": ("a login with the rights +ping +info, in a cluster +cluster|info +cluster|nodes", "set login_user and login_password"),
    "tls_failed": ("a certificate that its authority signed for that address", "set tls, ca_certs, client_cert_file and client_key_file"),
    "not_a_sentinel": ("a Sentinel at that address", "correct sentinels; the usual port is 26379"),
    "not_a_cluster_node": ("a server with cluster-enabled yes", "correct nodes; for a group with Sentinels use the plugin redisops.recovery.sentinel"),
    "not_redis": ("Redis at that address", "look which program has the port; tls: true is for a TLS port only, and needed for one"),
}  # fmt: skip


def _nobody(who: str, code: str, failed: t.Mapping[str, Problem]) -> Problem:
    """Why nobody answers, each one's reason; under the code that says most."""
    codes = {problem.code for problem in failed.values()}
    chosen = next((name for name in _NEEDS if name in codes), code)
    needs, do = _NEEDS.get(chosen, (f"one {who} that answers", "start them, or correct the list of addresses"))
    return Problem(chosen, f"no {who} gives an answer. " + reasons(failed), needs, do)


def reasons(failed: t.Mapping[str, Problem]) -> str:
    return "; ".join(f"{address}: {problem.detected}" for address, problem in failed.items())


def _ask_sentinel(server: Server, wanted: t.Sequence[str]) -> SentinelAnswer:
    try:
        primaries = server.command("SENTINEL", "MASTERS")
    except CommandError as error:
        if "unknown command" in error.text:
            raise Problem("not_a_sentinel", "this is a Redis server, and no Sentinel") from None
        raise
    try:
        own = str(server.command("SENTINEL", "MYID"))
    except CommandError as error:
        if error.prefix == "NOPERM":
            raise
        own = ""  # before 6.2
    sets = {}
    for primary in primaries:
        name = dict(zip(primary[::2], primary[1::2]))["name"]
        if wanted and name not in wanted:
            sets[name] = set_of(primary, (), ())
            continue
        try:
            replicas = server.command("SENTINEL", "REPLICAS", name)
            sets[name] = set_of(primary, replicas, server.command("SENTINEL", "SENTINELS", name))
        except CommandError as error:
            if "No such master" not in error.text:
                raise
    host, port = server.login.host, server.login.port
    return SentinelAnswer(endpoint(host, port), own, sets)


def read_sentinels(
    addresses: t.Sequence[str], wanted: t.Sequence[str], login: Login, timeout: float
) -> tuple[list[SentinelAnswer], list[str], list[str]]:
    """The answers, the names to take, and warnings. Raises Problem: nobody answers, an unknown name, or no agreement."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found, failed = ask_each(addresses, login, timeout, "Sentinel", lambda server: _ask_sentinel(server, wanted))
        if not found:
            raise _nobody("Sentinel", "no_sentinel", failed)
        answers = list({answer.id or answer.asked: answer for answer in reversed(list(found.values()))}.values())[::-1]
        names = names_of(answers, wanted)
        differs = disagreement(answers, names)
        if not differs:
            break
        if time.monotonic() >= deadline:
            raise Problem(
                "sentinels_disagree", f"the Sentinels name different primaries for {differs}", "Sentinels that agree",
                "run again when a failover has ended; if it stays so, put the one right that is wrong, or leave it out of sentinels",
            )  # fmt: skip
        time.sleep(0.3)
    warnings = [f"Sentinel {address} was not heard: {problem.detected}" for address, problem in failed.items()]
    for answer in answers:
        unknown = [name for name in names if name not in answer.sets]
        if unknown:
            warnings.append(f"Sentinel {answer.asked} does not watch {', '.join(unknown)}")
    return answers, names, warnings


def ask_servers(
    primaries: t.Sequence[str], replicas: t.Sequence[str], login: Login, timeout: float
) -> tuple[dict[str, Detail], list[str]]:
    """INFO of every server, and warnings. Replicas come first: so their lag is never reported smaller than it is.

    Raises Problem if none answers, and for another reason than that none runs.
    """
    details: dict[str, Detail] = {}
    failed: dict[str, Problem] = {}
    for group in (replicas, primaries):
        found, missing = ask_each(group, login, timeout, "server", lambda server: server.info())
        failed.update(missing)
        details.update({address: Detail(info) for address, info in found.items()})
    for address, problem in failed.items():
        details[address] = Detail(None, problem.detected, problem.code == "server_down")
    strange = {
        address: problem for address, problem in failed.items() if problem.code in ("login_failed", "tls_failed")
    }
    if strange and len(failed) == len(details):
        reported = _nobody("server", "login_failed", strange)
        raise Problem(
            reported.code,
            reported.detected,
            reported.needs,
            f"{reported.do}; or server_details: false, and the servers are not asked",
        )
    warnings = [f"server {address} was not heard: {problem.detected}" for address, problem in failed.items()]
    return details, warnings


def _ask_node(server: Server) -> ClusterAnswer:
    try:
        state = parse_cluster_info(server.command(*_STATE))
        nodes = parse_nodes(server.command(*_NODES))
    except CommandError as error:
        if "cluster support disabled" in error.text or "unknown command" in error.text:
            raise Problem("not_a_cluster_node", "this server has cluster support disabled") from None
        raise
    return ClusterAnswer(endpoint(server.login.host, server.login.port), state, tuple(nodes))


def read_cluster(
    addresses: t.Sequence[str], login: Login, timeout: float, everyone: bool
) -> tuple[list[ClusterAnswer], list[str]]:
    """The answers of the given nodes, or of all that they know as well, and warnings. Raises Problem: nobody answers, or no agreement."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found, failed = ask_each(addresses, login, timeout, "node", _ask_node)
        if not found:
            raise _nobody("cluster node", "no_cluster_node", failed)
        if everyone:
            known = {node.address for answer in found.values() for node in answer.nodes if node.askable}
            asked = {node.address for answer in found.values() for node in answer.nodes if node.itself} | set(addresses)
            more, missing = ask_each(sorted(known - asked), login, timeout, "node", _ask_node)
            found.update(more)
            failed.update(missing)
        answers = list({answer.own_id: answer for answer in reversed(list(found.values()))}.values())[::-1]
        differs = cluster_disagreement(answers)
        if not differs:
            return answers, [f"node {address} was not heard: {problem.detected}" for address, problem in failed.items()]
        if time.monotonic() >= deadline:
            raise Problem(
                "cluster_disagrees", f"the nodes of the cluster disagree: {differs}", "nodes that agree on who they are and who serves which slots",
                "run again when a failover has ended; if it stays so, see redis-cli --cluster check, and name only nodes of one cluster",
            )  # fmt: skip
        time.sleep(0.3)


def resolve(names: t.Sequence[str]) -> dict[str, list[str]]:
    """Addresses of host names, as this machine finds them; none where it finds none."""

    def look(name: str) -> list[str]:
        try:
            return sorted({str(row[4][0]) for row in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
        except (OSError, UnicodeError):
            return []

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(names, pool.map(look, names)))
