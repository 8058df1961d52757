# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS of one data server: what it serves now, and the way from there to what is declared, or back."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import ssl
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_apply import set_live
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import ConfigPlan
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import effective
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import (
    Instance,
    edited,
    require_accepted,
    stage,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host, User
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, passes_as
from ansible_collections.redisops.recovery.plugins.module_utils.tls.certificates import (
    Choice,
    Declared,
    Files,
    Material,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.handshake import Identity, greet, local_handshake
from ansible_collections.redisops.recovery.plugins.module_utils.tls.openssl import read_certificate
from ansible_collections.redisops.recovery.plugins.module_utils.tls.plan import (
    MATERIAL,
    PlainLinks,
    live_address,
    may_read,
    plain_links,
    set_live_order,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import (
    Certificate,
    fingerprint_of,
    host_addresses,
)

__all__ = [
    "Plan",
    "State",
    "converge",
    "known_nodes",
    "links_without_tls",
    "no_tls",
    "own_addresses",
    "primary_trouble",
    "require_can_read",
    "require_port_free",
    "require_text",
    "served_certificate",
    "server_user",
]


def own_addresses(host: Host) -> list[str]:
    return host_addresses(host.read("/proc/net/fib_trie") or "", host.read("/proc/net/if_inet6") or "")


def _identity(material: Material, passphrase: t.Optional[str], login: Login) -> t.Optional[Identity]:
    """What this run shows a server that asks for a client's certificate: the login's, else the server's own where it may be one."""
    if login.client_cert_file and login.client_key_file:
        return Identity(read_text(login.client_cert_file), read_text(login.client_key_file))
    mine = material.identity(passphrase)
    if mine and material.ca:
        with contextlib.suppress(Problem):
            local_handshake(mine, material.ca, as_client=True)
            return mine
    return None


def served_certificate(
    instance: Instance, material: Material, passphrase: t.Optional[str], login: Login
) -> t.Optional[Certificate]:
    """The certificate that the running server serves; None where it serves none, or none that can be seen."""
    if instance.server is None:
        return None
    now = instance.server.config_get("tls-port", "bind")
    if now["tls-port"] == "0":
        return None
    seen = greet(live_address(now["bind"]), int(now["tls-port"]), _identity(material, passphrase, login))
    der = seen.certificate
    return read_certificate(ssl.DER_cert_to_PEM_cert(der), "the server's answer") if der else None


def links_without_tls(instance: Instance) -> PlainLinks:
    """Who is connected to the running server without TLS."""
    if instance.server is None:
        return PlainLinks()
    own = str(instance.server.command("CLIENT", "ID"))
    return plain_links(instance.server.command("CLIENT", "LIST"), instance.live.get("tls-port", "0"), own)


def known_nodes(instance: Instance) -> int:
    """How many nodes a cluster node knows, itself among them; 0 for a server that is none."""
    if instance.server is None or instance.live.get("cluster-enabled") != "yes":
        return 0
    fields = dict(line.split(":", 1) for line in instance.server.command("CLUSTER", "INFO").splitlines() if ":" in line)
    return int(fields.get("cluster_known_nodes", "1"))


def primary_trouble(instance: Instance, choice: Choice, passphrase: t.Optional[str]) -> t.Optional[str]:
    """The warning for a replica whose primary would not answer it over TLS, where it is told to replicate from now."""
    if instance.info.text("role") != "slave":
        return None
    host, port = instance.info.text("master_host"), instance.info.number("master_port")
    identity = choice.material.identity(passphrase)
    seen = greet(host, port, identity, choice.material.ca)
    if seen.answered or not identity:
        return None
    return (
        f"tls_replication is on, and the primary at {host}:{port} does not answer over TLS ({seen.trouble}): the link that is "
        "there stays, and once it breaks it comes back only when this replica is told the primary's TLS port"
    )


def server_user(instance: Instance) -> User:
    """Whom the server runs as, or will run as: who owns its data."""
    user = instance.host.user_of_process(instance.pid) if instance.running else None
    if user is None:
        data_dir = effective(instance.directives, "dir")
        user = instance.host.user_of_file(data_dir if data_dir and os.path.isdir(data_dir) else instance.path)
    return user


def require_can_read(declared: Declared, user: User, access: t.Mapping[str, Access]) -> None:
    """The server's user must get at all three files. Raises Problem."""
    for kind, path in declared.paths.items():
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if declared.stored_here:
            entry = access[kind]
            fine = may_read(user.uid, (user.gid, *user.groups), entry.uid, entry.gid, entry.mode) and passes_as(
                user, "-x", folder
            )
        else:
            fine = passes_as(user, "-r", path)
        if not fine:
            raise Problem(
                "server_cannot_read", f"the server runs as user id {user.uid}, who may not read {path}",
                "certificate, key and CA that the server's user can read",
                "set owner, group and mode to that user's" if declared.stored_here else "give that user (by its group) the right to",
            )  # fmt: skip


def require_port_free(bind: str, port: int) -> None:
    """Nothing else may listen at ``port`` where the server will. Raises Problem."""
    for word in bind.split() or ["*"]:
        address = {"*": "0.0.0.0", "::*": "::"}.get(word.lstrip("-"), word.lstrip("-"))
        try:
            family, kind, protocol, _name, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(target)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Problem(
                    "port_taken", f"tls_port: another program listens at {address} port {port}", "a port that is free",
                    f"see which program has it (ss -ltnp), free it, or set tls_port (tried {address}:{port})",
                ) from None  # fmt: skip


def require_text(instance: Instance, wanted: t.Mapping[str, str]) -> None:
    """Let the installed server read the file as it would become; its TLS files are judged elsewhere. Raises Problem."""
    without = {**wanted, "tls-replication": "no", "tls-cluster": "no"}
    try:
        require_accepted(instance, edited(instance, without))
    except Problem as problem:
        if "'tls-" in problem.detected and "Bad directive" in problem.detected:
            raise no_tls("the installed server") from None
        raise


def no_tls(what: str) -> Refusal:
    return Refusal(
        "no_tls", f"{what} was built without TLS", "a Redis with TLS; the packages of the distributions and of Redis have it",
        "install one of them",
    )  # fmt: skip


class _Live:
    """The running server: steps that can be taken back. Does nothing where none runs."""

    def __init__(self, instance: Instance, choice: Choice, passphrase: t.Optional[str], login: Login) -> None:
        self._instance, self._choice, self._passphrase, self._login = instance, choice, passphrase, login
        self._set: list[str] = []

    def set(self, values: dict[str, str]) -> None:
        """One CONFIG SET. Raises Problem; Redis has then set none of them."""
        if not self._instance.running or not values:
            return
        try:
            set_live(self._instance, values)
        except Problem as problem:
            raise Problem(
                "tls_rejected", problem.detected, "material that the server's own process can read and takes",
                "look into the server's log; its unit's sandbox, SELinux or AppArmor may keep the files from it",
            ) from None  # fmt: skip
        self._set += [name for name in values if name not in self._set]

    def verify(self) -> None:
        """Shake hands with it, as a client that trusts the declared authorities. Raises Problem."""
        if not self._instance.running or self._instance.server is None:
            return
        now = self._instance.server.config_get("tls-port", "bind")
        if now["tls-port"] == "0":
            return
        leaf, material = self._choice.leaf, self._choice.material
        identity = _identity(material, self._passphrase, self._login)
        address = live_address(now["bind"])
        seen = greet(address, int(now["tls-port"]), identity, material.ca)
        served = leaf is not None and fingerprint_of(seen.certificate or b"") == leaf.fingerprint
        if served and (seen.answered or (seen.wants_certificate and identity is None)):
            return
        raise Problem(
            "tls_not_verified",
            f"after the change a TLS client that trusts the given authorities gets no answer at {address}:{now['tls-port']} "
            f"({seen.trouble or 'another certificate is served'}); files and server are as before",
            "a server that answers over TLS with the certificate that was declared",
            "look into the server's log",
        )

    def put_back(self) -> None:
        """The values that were there before, in the opposite order: ports change hands."""
        if self._instance.server is None or not self._set:
            return
        with contextlib.suppress(Problem):
            self._instance.server.config_set({name: self._instance.live[name] for name in reversed(self._set)})


@dataclasses.dataclass(frozen=True)
class State:
    """What is declared, as ``directives`` too, and what there is: the server and the texts in the three files.

    ``now``: seconds since 1970. ``absent``: Redis is only about to be installed (check mode).
    """

    declared: Declared
    directives: dict[str, str]
    instance: Instance
    login: Login
    found: Material
    now: float
    absent: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """``choice`` is what the files shall hold, with the ``access`` of each, ``text`` what redis.conf does.

    ``conf_access``: of redis.conf (None: as it is). ``served``: the certificate that the server serves now; ``reload``: it is another than
    the declared one. ``links``: who is connected without TLS.
    """

    choice: Choice
    access: t.Mapping[str, Access]
    config: ConfigPlan
    text: str
    conf_access: t.Optional[Access]
    served: t.Optional[Certificate]
    reload: bool
    links: PlainLinks
    warnings: list[str]
    changes: list[Change]


def converge(state: State, plan: Plan) -> None:
    """Bring files, live server and configuration file there; where a step fails, all go back. Raises Problem.

    The server first reads copies next to the places and verifies itself by a handshake; then the files change, then it is reported
    the final names, then the plain port closes (set_live_order()), then the configuration file changes. Wherever a run is
    cut off, the next one sees it: the names in the live server are not the final ones, or not those of the file. Old authorities
    are trusted until the end, so that the next run can log in with the files that it finds.
    """
    instance, declared, text, conf_access = state.instance, state.declared, plan.text, plan.conf_access
    first, last = set_live_order(plan.config, state.directives["tls-port"], instance.live)
    final = {directive: declared.paths[kind] for kind, directive in MATERIAL.items()}
    staged, done = None, False
    live = _Live(instance, plan.choice, declared.passphrase, state.login)
    files = Files(declared, plan.choice, state.found, plan.access)
    try:
        if text != instance.text or conf_access:
            staged = stage(instance, text, access=conf_access)
        if instance.running:
            nearby = {MATERIAL[kind]: path for kind, path in files.put_next_to().items()}
            live.set({**first, **(final if plan.reload else {}), **nearby})
            live.verify()
        files.put_in_place()
        if instance.running and (files.changed or last):
            live.set({**(final if files.changed else {}), **last})
            live.verify()
        files.set_access()
        if staged:
            staged.commit()
        done = True
    finally:
        if not done:
            files.put_back()
            live.put_back()
        if staged:
            staged.discard()
        files.discard(keep_directories=done)
