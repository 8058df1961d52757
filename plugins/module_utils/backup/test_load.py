# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads copied data into a temporary server that nobody else can reach, to ask it what it holds.

The temporary server follows a primary that cannot exist (port 0). So it drops no key whose time has come: what is loaded is what was saved.
It listens on a Unix socket only, runs as a user of its own, yields to everybody and is the first that the kernel ends when memory runs out.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import pwd
import shutil
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
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import (
    Started,
    server_binary,
    started,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import User

__all__ = ["WORK_PREFIX", "Loaded", "decode", "loaded", "memory_available", "server_version"]

#: First to go when memory runs out, last when others want the CPU.
_MEEK = 'echo 1000 >/proc/self/oom_score_adj 2>/dev/null; exec nice -n 15 "$0" "$@"'
_NOBODY = "nobody"
#: How the names of work directories begin.
WORK_PREFIX = ".work-"


def decode(text: str) -> str:
    """The bytes behind base64, as redis-py takes them."""
    return base64.b64decode(text).decode("utf-8", "surrogateescape")


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
        "room for a copy of the AOF's last increment, on the file system of the backups",
        "make room, then run again",
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
    os.mkdir(target, 0o770)
    needed = parse_manifest(read_text(data), data).needed
    for entry in needed:
        place = os.path.join(target, entry.name)
        if entry is needed[-1]:
            shutil.copyfile(os.path.join(folder, entry.name), place)
        else:
            os.link(os.path.join(folder, entry.name), place)
    shutil.copyfile(data, os.path.join(target, name))
    return ["--appendonly", "yes", "--appenddirname", "aof", "--appendfilename", name[: -len(".manifest")]]


def _hand_over(work: str, gid: int) -> None:
    """The group may read what is there, and write to what is no link to a backup."""
    for folder, _folders, files in os.walk(work):
        os.chown(folder, 0, gid)
        os.chmod(folder, 0o770)
        for name in files:
            path = os.path.join(folder, name)
            own = os.stat(path).st_nlink == 1
            os.chown(path, 0, gid)
            os.chmod(path, 0o660 if own else 0o640)


@contextlib.contextmanager
def loaded(
    data: str,
    near: str,
    timeout: float,
    databases: str = "16",
    gid: t.Optional[int] = None,
) -> t.Iterator[Loaded]:
    """A temporary server with ``data`` (an RDB file, or the manifest of an AOF) loaded; gone, with its files, at the end.

    ``near`` is a directory on the same file system; nobody else need be able to pass through it, since the server starts within. ``gid`` is
    the group that it runs as. Raises Problem with Redis' own words if it does not load.
    """
    program = server_binary()
    if program is None:
        raise Problem(
            "redis_missing",
            "redis-server is not installed",
            "the program that loads the copy",
            "install redis (role redis_install)",
        )
    work = _room(near)
    try:
        try:
            data_arguments = _lay_out(data, work)
        except OSError as error:
            raise _no_room(work, error) from None
        nobody = pwd.getpwnam(_NOBODY)
        # Root's group is no group for a temporary server: a backup that was brought from another host may have it.
        group = (os.stat(data).st_gid if gid is None else gid) or nobody.pw_gid
        if os.geteuid() == 0:
            _hand_over(work, group)
        arguments = [
            *data_arguments, "--dir", ".", "--save", "", "--databases", databases, "--replicaof", "127.0.0.1", "0", "--replica-read-only", "no",
            "--enable-debug-command", "local", "--auto-aof-rewrite-percentage", "0", "--proto-max-bulk-len", "4gb",
        ]  # fmt: skip
        began = time.monotonic()
        user = User(nobody.pw_uid, group, ())
        with started(lambda _home: ["/bin/sh", "-c", _MEEK, program, *arguments], user, timeout, work) as server:
            if server.code is None and not server.socket:
                raise _not_answering(timeout)
            if server.code is None:
                yield dataclasses.replace(_loaded(server, began, timeout), directory=work)
                return
            words, code = server.words, server.code
        raise Problem(
            "does_not_load",
            f"a temporary server does not load {os.path.basename(data)}: {words} (it ended with {code})",
            "data that Redis loads",
            "redis_file_check says what is the matter with the file; use another backup",
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _not_answering(timeout: float) -> Problem:
    """It runs and never answered. There is no socket to ask, and without one a login would reach another server."""
    return Problem(
        "load_timeout",
        f"the temporary server does not answer after {timeout:g} seconds",
        "time to start it",
        "set a longer timeout",
    )


def _loaded(process: Started, began: float, timeout: float) -> Loaded:
    server = connect(Login(unix_socket=process.socket), max(timeout, 30.0))
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
    seconds = time.monotonic() - began
    # From here on it writes nothing to disk: a full one says nothing about the copy.
    server.config_set({"appendonly": "no"})
    return Loaded(server, latest[0], seconds, str(server.command("DEBUG", "DIGEST")), process.text)
