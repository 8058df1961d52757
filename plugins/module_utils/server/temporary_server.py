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
import fcntl
import os
import pwd
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import SECRET
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive, canonical_name
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import User

__all__ = [
    "Candidate",
    "Started",
    "as_server",
    "free_user",
    "reason_of_exit",
    "require_bindable",
    "server_binary",
    "started",
    "temporary_server",
]

_TIMEOUT_SECONDS = 30.0


def server_binary(executable: str = "") -> t.Optional[str]:
    """The server program: the running one's (Host.program_of), else the one that is installed. It is called by ``as_server``."""
    for name in (executable, "redis-server", "valkey-server"):
        found = name and shutil.which(name)
        if found:
            return found
    return None


#: The range that systemd takes dynamic users from, and the locks by which it does: who holds one has that uid.
_FREE_UIDS = range(61184, 65520)
_UID_LOCKS = "/run/systemd/dynamic-uid"
_UID_TRIES = 100


def as_server(program: str, home: str) -> str:
    """A path in ``home`` that runs ``program`` as a server: Debian's is one file with the check tools, and becomes what it is called."""
    if "sentinel" in os.path.basename(program):
        return program
    path = os.path.join(home, "redis-server")
    os.symlink(program, path)
    return path


def _uids_of_processes() -> set[int]:
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/status", encoding="ascii", errors="replace") as handle:
                    line = next((line for line in handle if line.startswith("Uid:")), "")
            except OSError:
                continue
            found.update(int(word) for word in line.split()[1:])
    return found


def _locked_uid(uid: int) -> t.Optional[int]:
    """A descriptor that holds the lock of ``uid``; None where somebody else has it. Raises OSError."""
    descriptor = os.open(
        os.path.join(_UID_LOCKS, str(uid)), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else its last holder removed it between the two steps
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _has_account(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


@contextlib.contextmanager
def free_user(groups: t.Sequence[int] = ()) -> t.Iterator[User]:
    """A user id and group id that nobody else has until the block ends, as systemd's DynamicUser= picks one; ourselves where we are not root.

    No account is needed for that. ``groups`` are further groups. Raises Problem.
    """
    if os.geteuid() != 0:
        yield User(os.geteuid(), os.getegid())
        return
    try:
        uid, lock = _free_uid()
    except OSError as error:
        raise _no_free_user(f"{_UID_LOCKS}: {error.strerror or error}") from None
    try:
        yield User(uid, uid, tuple(groups))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(_UID_LOCKS, str(uid)))
        os.close(lock)


def _free_uid() -> tuple[int, int]:
    """A user id that nobody has, and the descriptor that locks it. Raises OSError, or Problem where there is none."""
    os.makedirs(_UID_LOCKS, 0o755, exist_ok=True)
    taken = _uids_of_processes()
    for _try in range(_UID_TRIES):
        uid = secrets.choice(_FREE_UIDS)
        if uid not in taken and not _has_account(uid):
            lock = _locked_uid(uid)
            if lock is not None:
                return uid, lock
    raise _no_free_user(f"none of {_UID_TRIES} user ids between {_FREE_UIDS[0]} and {_FREE_UIDS[-1]} is free")


def _no_free_user(detected: str) -> Problem:
    return Problem(
        "no_free_user",
        detected,
        "a user id that nobody has, for the temporary server",
        f"see who has them (ls {_UID_LOCKS}; ps -eo uid,pid,args), then run again",
    )


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
    """In the child: be killed when the run ends before it could do so itself (PR_SET_PDEATHSIG is 1), and leave no core file with the data."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answers(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2.0)
            client.connect(path)
            client.sendall(b"PING\r\n")
            return client.recv(1) in (b"+", b"-")
    except OSError:
        return False


#: Lines that Redis writes at every start, whatever comes of it.
_BANNER = re.compile(
    r"oO0OoO0Oo|^(Redis|Valkey|KeyDB) version=|^Configuration loaded|WARNING|monotonic clock|^Running mode=|^Server initialized|"
    r"^Ready to accept|^Reading RDB base file|^RDB (age|memory usage|is base AOF)|^Loading RDB produced|^Done loading RDB|"
    r"^Before turning into a replica|^User requested shutdown|Failed to write PID file|^Module '.*' loaded from|"
    r"^Increased maximum number of open files|^(Connecting to|MASTER|PRIMARY|REPLICA)"
)
#: What ends a start because of the data, most telling first; then what merely sounds like it.
_CAUSES = (
    re.compile(
        r"^Unknown command|no matching module type|Can't handle RDB format|Can't load module|failed to load|Wrong signature|checksum",
        re.I,
    ),
    re.compile(
        r"bad file format|unexpected end of file|short read|corrupt|unknown rdb|invalid|can't|cannot|fail", re.I
    ),
    re.compile(r"error|fatal|abort", re.I),
)


def reason_of_exit(output: str) -> str:
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
    said = [line for line in lines if line and not _BANNER.search(line)]
    for cause in _CAUSES:
        telling = next((line for line in said if cause.search(line)), "")
        if telling:
            return telling
    return (said or ["it ended without a word"])[-1]


@dataclasses.dataclass(frozen=True)
class Started:
    """A temporary server. ``socket``: where it listens; empty where it ended or never answered, and ``words`` then says why.

    ``began`` is when it was started, by the monotonic clock; ``poll`` gives its exit code once it has ended.
    """

    socket: str
    code: t.Optional[int]
    output: t.BinaryIO
    began: float = 0.0
    poll: t.Callable[[], t.Optional[int]] = lambda: None

    @property
    def words(self) -> str:
        """Redis' own reason."""
        return reason_of_exit(self.text)

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
            began = time.monotonic()
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=directory or "/",
                preexec_fn=_end_with_parent, **identity,  # noqa: PLW1509, a module has one thread
            )  # fmt: skip
            try:
                wait_for(lambda: process.poll() is not None or _answers(listening), timeout)
                answers = process.poll() is None and _answers(listening)
                yield Started(listening if answers else "", process.poll(), output, began, process.poll)
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
        lambda home: [as_server(binary, home), *candidate.arguments(home)],
        user,
        _TIMEOUT_SECONDS,
        files=candidate.files,
    ) as server:
        if server.socket:
            yield server.socket
            return
        why = (
            re.sub(r"\S*/users\.acl", "the ACL file", server.words) if candidate.acl_text is not None else server.words
        )
    name = os.path.basename(binary) if re.search("server|sentinel", os.path.basename(binary)) else "redis-server"
    raise Problem(
        "conf_rejected",
        f"{name} does not accept the resulting {candidate.path}: {why}; the file is unchanged",
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
