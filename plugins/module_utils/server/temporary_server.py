# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting a temporary server on a candidate configuration, so that Redis itself judges it.

Redis has no ``--test-config``. The temporary server listens on a Unix socket in a private directory only, loads and saves nothing,
replicates nothing, and is killed as soon as it answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import SECRET
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive, canonical_name
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import User

__all__ = [
    "Candidate",
    "Started",
    "require_bindable",
    "server_binary",
    "started",
    "temporary_server",
]

_TIMEOUT_SECONDS = 30.0


def server_binary(executable: str = "") -> t.Optional[str]:
    """The server program: the running one's, else the one that is installed."""
    for name in (executable, "redis-server", "valkey-server"):
        found = name and shutil.which(name)
        if found:
            return found
    return None


def _arguments(directives: t.Sequence[Directive], directory: str, data_dir: str) -> list[str]:
    overrides: list[tuple[str, ...]] = [
        ("dir", directory),
        ("dbfilename", "probe.rdb"), ("appendonly", "no"), ("save", ""),
        ("supervised", "no"), ("pidfile", ""), ("syslog-enabled", "no"), ("bind", "127.0.0.1"), ("cluster-enabled", "no"),
        ("oom-score-adj", "no"), ("set-proc-title", "no"),
    ]  # fmt: skip
    stated = {entry.name: entry for entry in directives}
    if "tls-port" in stated:
        overrides.append(("tls-port", "0"))
    if "replicaof" in stated:
        # Not "no one": on top of an earlier line that leaves a server without a primary's name that connects all the same, to loopback,
        # and the server there would count it among its replicas (seen with 7.0.15). Nobody can listen on port 0.
        overrides.append(("replicaof", "127.0.0.1", "0"))
    if "aclfile" in stated and stated["aclfile"].text and not os.path.isabs(stated["aclfile"].text):
        overrides.append(("aclfile", os.path.join(data_dir, stated["aclfile"].text)))
    return [part for name, *values in overrides for part in ("--" + name, *values)]


def _end_with_parent() -> None:
    """In the child: be killed when the run ends before it could do so itself (PR_SET_PDEATHSIG is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _answers(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2.0)
            client.connect(path)
            client.sendall(b"PING\r\n")
            return client.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _reason_of_exit(output: str) -> str:
    """Redis' own words for what is wrong, with the line; secrets are left out."""
    # Redis 8 says in its log what 7.0 prints: without the stamps they read alike.
    lines = [re.sub(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [#*\-.] ", "", line) for line in output.strip().splitlines()]
    number = re.search(r"at line (\d+)", output)
    for index, line in enumerate(lines):
        quoted = re.fullmatch(r">>> '(.*)'", line)
        if quoted:
            name = canonical_name((quoted.group(1).split() or [""])[0])
            shown = f"{name} ********" if name in SECRET else quoted.group(1)
            why = (lines[index + 1 :] or ["not accepted"])[0]
            return (f"line {number.group(1)}, " if number else "") + f"{shown!r}: {why}"
    telling = [
        line
        for line in lines
        if re.search(r"error|fatal|abort|invalid|can't|fail", line, re.I) and "WARNING" not in line
    ]
    return (telling or lines or ["it ended without a word"])[0]


@dataclasses.dataclass(frozen=True)
class Started:
    """A temporary server. ``socket``: where it listens; empty where it ended or never answered, and ``words`` then says why."""

    socket: str
    code: t.Optional[int]
    output: t.BinaryIO

    @property
    def words(self) -> str:
        """Redis' own reason."""
        return _reason_of_exit(self.text)

    @property
    def text(self) -> str:
        """All that it has printed so far."""
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
        handle.write(text)


def _run_as(user: User, paths: t.Sequence[str]) -> dict[str, t.Any]:
    """Whom the process runs as, and ``paths`` given to that user: only root can, and root's own server stays root's."""
    if os.geteuid() != 0 or not user.uid:
        return {}
    for path in paths:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    return {"user": user.uid, "group": user.gid, "extra_groups": list(user.groups)}


@contextlib.contextmanager
def started(
    command: t.Callable[[str], t.Sequence[str]],
    user: User,
    timeout: float,
    directory: str = "",
    files: t.Optional[t.Mapping[str, str]] = None,
) -> t.Iterator[Started]:
    """A server that listens on a Unix socket and nowhere else, once it answers, has ended, or has had ``timeout`` seconds. Killed at the end.

    It has a short directory of its own (the path of a socket has to be short), with ``files``, name → text; ``command`` gives program and
    arguments from that directory's path. ``directory`` is where it starts instead. As root it runs as ``user``.
    """
    home = tempfile.mkdtemp(prefix="redisops-temporary-")
    try:
        paths = [os.path.join(home, name) for name in files or {}]
        for path, text in zip(paths, (files or {}).values()):
            _write(path, text)
        listening = os.path.join(home, "s")
        words = [
            *command(home), "--port", "0", "--unixsocket", listening, "--unixsocketperm", "700", "--daemonize", "no", "--logfile", "",
        ]  # fmt: skip
        identity = _run_as(user, [*paths, home])  # the directory last: from then on that user may put links into it
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=directory or "/",
                preexec_fn=_end_with_parent, **identity,  # noqa: PLW1509, a module has one thread
            )  # fmt: skip
            try:
                wait_for(lambda: process.poll() is not None or _answers(listening), timeout)
                answers = process.poll() is None and _answers(listening)
                yield Started(listening if answers else "", process.returncode, output)
            finally:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A configuration that nobody uses yet: ``text`` for the file ``path``, ``directives`` that it holds with its includes.

    ``acl_text`` is what its ACL file should hold in place of what it does. Relative names are of ``data_dir``.
    """

    text: str
    path: str
    directives: t.Sequence[Directive]
    data_dir: str = "/"
    acl_text: t.Optional[str] = None

    def arguments(self, home: str) -> list[str]:
        """The candidate's file, and what a server in ``home`` has to do otherwise."""
        acl = ["--aclfile", os.path.join(home, "users.acl")] if self.acl_text is not None else []
        return [os.path.join(home, "redis.conf"), *_arguments(self.directives, home, self.data_dir), *acl]

    @property
    def files(self) -> dict[str, str]:
        return {"redis.conf": self.text, **({"users.acl": self.acl_text} if self.acl_text is not None else {})}


@contextlib.contextmanager
def temporary_server(binary: str, candidate: Candidate, user: User) -> t.Iterator[str]:
    """A server of ``binary`` that has read the candidate as its configuration; gives the path of its Unix socket.

    Where we are root it runs as ``user``, who may read what the server may read (keys for TLS by a further group, say). Raises Problem,
    with Redis' words, if it refuses to start.
    """
    with started(
        lambda home: [binary, *candidate.arguments(home)], user, _TIMEOUT_SECONDS, files=candidate.files
    ) as server:
        if server.socket:
            yield server.socket
            return
        why = (
            re.sub(r"\S*/users\.acl", "the ACL file", server.words) if candidate.acl_text is not None else server.words
        )
    raise Problem(
        "conf_rejected",
        f"{os.path.basename(binary)} does not accept the resulting {candidate.path}: {why}; the file is unchanged",
        "directives and values that this server version knows",
        "correct the setting named above (or that line of the file, if it stood there before)",
    )


def require_bindable(addresses: t.Sequence[str]) -> None:
    """Every address of ``bind`` must be this host's; ``-`` before one makes it optional. Raises Problem.

    The temporary server cannot tell: it listens nowhere.
    """
    for address in addresses:
        if address.startswith("-") or address in ("*", "::*"):
            continue
        try:
            family, kind, protocol, _name, target = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as trial:
                trial.bind(target)
        except OSError as error:
            raise Problem(
                "bind_address", f"bind: this host cannot listen on {address!r}: {error.strerror or error}",
                "addresses of this host", f'correct bind, or write "-{address}" where the address may be absent',
            ) from None  # fmt: skip
