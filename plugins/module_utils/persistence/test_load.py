# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads copied data into a temporary server that nobody else can reach, to ask it what it holds.

The temporary server follows a primary that cannot exist (port 0). So it drops no key whose time has come: what is loaded is what was saved.
It runs under a user id that nobody else has, listens on a Unix socket only, in a directory that only this user may enter, and asks for a
password that exists for as long as it does. It yields to everybody and is the first that the kernel ends when memory runs out.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import secrets
import shutil
import stat
import tempfile
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import parse_manifest
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    Login,
    Server,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import INSTALLED, Release
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import (
    Started,
    as_server,
    free_user,
    server_binary,
    started,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import User

__all__ = ["WORK_PREFIX", "Loaded", "decode", "loaded", "memory_available", "server_version"]

#: First to go when memory runs out, last when others want the CPU.
_MEEK = 'echo 1000 >/proc/self/oom_score_adj 2>/dev/null; exec nice -n 15 "$0" "$@"'
#: Seconds that a server which broke a connection may take to end.
_LAST_WORDS = 2.0
#: The configuration, which has the password, in a directory of the server's own.
_CONF = "redis.conf"
#: How the names of work directories begin.
WORK_PREFIX = ".work-"


def decode(text: str) -> str:
    """The bytes behind base64, as redis-py takes them."""
    return base64.b64decode(text).decode("utf-8", "surrogateescape")


_Row = t.Sequence[t.Union[str, int]]


class RenamedServer(Server):
    """A connection to a server that knows some commands by other names; whoever asks uses Redis' own."""

    def __init__(self, server: Server, names: t.Mapping[str, str]) -> None:
        self.__dict__.update(vars(server))
        self._names = dict(names)

    def _spelled(self, row: _Row) -> list[t.Union[str, int]]:
        return [self._names.get(str(row[0]).lower(), row[0]), *row[1:]]

    def command(self, *args: t.Union[str, int]) -> t.Any:
        return super().command(*self._spelled(args))

    def commands(self, rows: t.Sequence[_Row]) -> list[t.Any]:
        return super().commands([self._spelled(row) for row in rows])


@dataclasses.dataclass
class Loaded:
    """A temporary server that has loaded. Seconds: until it listened and had loaded; ``digest`` is DEBUG DIGEST's.

    ``directory`` is where it works, for as long as it does.
    """

    server: Server
    info: Info
    seconds: float
    digest: str
    log: str
    directory: str = ""


def memory_available(meminfo: str) -> t.Optional[int]:
    """Bytes that processes can still be given, swap included; None where the kernel does not say."""
    found = {}
    for line in meminfo.splitlines():
        name, _colon, value = line.partition(":")
        if value.strip().endswith("kB"):
            found[name] = int(value.split()[0]) * 1024
    return found["MemAvailable"] + found.get("SwapFree", 0) if "MemAvailable" in found else None


def server_version(host_run: t.Callable[..., t.Any], binary: str) -> str:
    """The version that the installed program tells, such as ``7.0.15``; empty where it does not."""
    words = host_run(binary, "--version", timeout=30).output.split()
    return next((word[2:] for word in words if word.startswith("v=")), "")


def _no_room(place: str, error: OSError) -> Problem:
    return Problem(
        "temporary_server_files",
        f"{place}: the temporary server's files cannot be laid out: {error.strerror or error}",
        "room for a copy of the AOF's last increment, and a local file system (ext4, XFS): hard links, and files that can change owner",
        "make room, or keep backups on a disk of this host and send them elsewhere by restic (repositories), then run again",
    )


def _room(near: str) -> str:
    """A directory for the temporary server's files. Raises Problem."""
    try:
        return tempfile.mkdtemp(prefix=WORK_PREFIX, dir=near)
    except OSError as error:
        raise _no_room(near, error) from None


def _lay_out(data: str, work: str) -> list[str]:
    """The data in the work directory: links to what Redis only reads, a real copy of what it would write to; its arguments."""
    if not data.endswith(".manifest"):
        os.link(data, os.path.join(work, "dump.rdb"))
        return ["--appendonly", "no", "--dbfilename", "dump.rdb"]
    folder, name = os.path.split(data)
    target = os.path.join(work, "aof")
    os.mkdir(target, 0o700)
    needed = parse_manifest(read_text(data), data).needed
    for entry in needed:
        place = os.path.join(target, entry.name)
        if entry is needed[-1]:
            shutil.copyfile(os.path.join(folder, entry.name), place)
        else:
            os.link(os.path.join(folder, entry.name), place)
    shutil.copyfile(data, os.path.join(target, name))
    return ["--appendonly", "yes", "--appenddirname", "aof", "--appendfilename", name[: -len(".manifest")]]


@contextlib.contextmanager
def _lent(work: str, user: User) -> t.Iterator[None]:
    """Directories and copies become the user's. What is a link to somebody's file may be read by the user's group, until the block ends."""
    lent: list[tuple[int, os.stat_result]] = []
    try:
        for folder, _folders, files in os.walk(work, topdown=False):
            for name in files:
                descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                status = os.fstat(descriptor)
                if status.st_nlink > 1 and _readable_by(status, user):
                    os.close(descriptor)
                    continue
                lent.append((descriptor, status))
                own = status.st_nlink == 1
                os.fchown(descriptor, user.uid if own else -1, user.gid)
                os.fchmod(descriptor, 0o600 if own else stat.S_IMODE(status.st_mode) | 0o040)
            os.chown(
                folder, user.uid, user.gid, follow_symlinks=False
            )  # its files first: from then on that user may rename them
        yield
    finally:
        for descriptor, status in reversed(lent):
            with contextlib.suppress(OSError):
                if status.st_nlink > 1:
                    os.fchown(descriptor, -1, status.st_gid)
                    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.close(descriptor)


def _readable_by(status: os.stat_result, user: User) -> bool:
    return bool(status.st_mode & 0o040) and status.st_gid in user.groups


def _configuration(password: str, release: Release) -> str:
    return "".join(f"{line}\n" for line in (*release.applied, f"requirepass {password}"))


@contextlib.contextmanager
def _served(data: str, near: str, timeout: float, release: Release, gid: int) -> t.Iterator[tuple[Started, str, str]]:
    """The temporary server, its password and where it works. Raises Problem where there is no program, or no room for its files."""
    program = server_binary(release.program)
    if program is None:
        raise Problem(
            "redis_missing",
            "redis-server is not installed",
            "the program that loads the copy",
            "install redis (role redis_install)",
        )
    work, password = _room(near), secrets.token_hex(32)
    arguments = [
        "--dir", ".", "--save", "", "--databases", release.databases, "--replicaof", "127.0.0.1", "0", "--replica-read-only", "yes",
        "--enable-debug-command", "local", "--auto-aof-rewrite-percentage", "0", "--proto-max-bulk-len", "4gb",
    ]  # fmt: skip

    def command(home: str) -> list[str]:
        return ["/bin/sh", "-c", _MEEK, as_server(program, home), os.path.join(home, _CONF), *laid, *arguments]

    with contextlib.ExitStack() as until:
        until.callback(shutil.rmtree, work, ignore_errors=True)
        user = until.enter_context(free_user([gid] if gid else []))
        try:
            laid = _lay_out(data, work)
            if os.geteuid() == 0:
                until.enter_context(_lent(work, user))
        except OSError as error:
            raise _no_room(work, error) from None
        conf = {_CONF: _configuration(password, release)}
        yield until.enter_context(started(command, user, timeout, work, conf)), password, work


@contextlib.contextmanager
def loaded(
    data: str, near: str, timeout: float, release: Release = INSTALLED, gid: t.Optional[int] = None
) -> t.Iterator[Loaded]:
    """A temporary server with ``data`` (an RDB file, or the manifest of an AOF) loaded; gone, with its files, at the end.

    ``near`` is a directory on the same file system; nobody else need be able to pass through it, since the server starts within. ``gid`` is
    a further group that it has, None for that of the data. Raises Problem with Redis' own words if it does not load.
    """
    group = os.stat(data).st_gid if gid is None else gid
    with _served(data, near, timeout, release, group) as (server, password, work):
        if server.code is None and not server.socket:
            raise _not_answering(timeout)
        if server.code is not None:
            raise _does_not_load(data, server)
        try:
            copy = _loaded(server, password, timeout)
        except Problem:  # it answers while it loads, and may yet come to what it does not take
            if wait_for(lambda: server.poll() is not None, _LAST_WORDS):
                raise _does_not_load(data, server) from None
            raise
        copy.server = RenamedServer(copy.server, release.renamed)
        copy.directory = work
        yield copy


def _does_not_load(data: str, server: Started) -> Problem:
    return Problem(
        "does_not_load",
        f"a temporary server does not load {os.path.basename(data)}: {server.words}",
        "data that Redis loads",
        "redis_file_check says what is the matter with the file; use another backup",
    )


def _not_answering(timeout: float) -> Problem:
    """It runs and never answered. There is no socket to ask, and without one a login would reach another server."""
    return Problem(
        "load_timeout",
        f"the temporary server does not answer after {timeout:g} seconds",
        "time to start it",
        "set a longer timeout",
    )


def _loaded(process: Started, password: str, timeout: float) -> Loaded:
    server = connect(Login(unix_socket=process.socket, password=password), max(timeout, 30.0))
    latest: list[Info] = []

    def done() -> bool:
        latest[:] = [server.info()]
        return not latest[0].flag("loading")

    if not wait_for(done, timeout):
        raise Problem(
            "load_timeout",
            f"the temporary server has not loaded the copy after {timeout:g} seconds",
            "time to load it",
            "set a longer timeout",
        )
    seconds = time.monotonic() - process.began
    # From here on it writes nothing to disk: a full one says nothing about the copy. A replica that may be written to drops what has
    # expired of the keys that it was told of by commands, as those of an AOF are; so it may be written to from now on only.
    server.config_set({"appendonly": "no", "replica-read-only": "no"})
    return Loaded(server, latest[0], seconds, str(server.command("DEBUG", "DIGEST")), process.text)
