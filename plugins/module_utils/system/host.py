# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own view: /proc and /sys under a root that tests can replace, and one way to run a command."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import shutil
import subprocess
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.system import procfs

__all__ = ["TIMED_OUT", "Completed", "Host", "Runner", "User", "is_server_program", "run_command"]

#: What the name of a server's program contains, whatever the distribution calls it (redis6-server, valkey-check-rdb, …).
_SERVERS = ("redis", "valkey", "keydb")
_NO_SERVERS = ("-cli", "-sentinel", "exporter", "benchmark")


def is_server_program(name: str) -> bool:
    """Whether a program of that name may be a server."""
    name = os.path.basename(name)
    return any(part in name for part in _SERVERS) and not any(part in name for part in _NO_SERVERS)


@dataclasses.dataclass(frozen=True)
class Completed:
    """The end of a command: exit code, and what it printed on both streams; ``partial`` is that of a run which was out of time."""

    code: int
    output: str
    partial: str = ""


@dataclasses.dataclass(frozen=True)
class User:
    """Whom a process runs as: user id, group id, further group ids."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


Runner = t.Callable[..., Completed]
TIMED_OUT = 124


def run_command(
    *args: str,
    timeout: t.Optional[float] = None,
    environment: t.Optional[t.Mapping[str, str]] = None,
    directory: t.Optional[str] = None,
) -> Completed:
    """Run a command with the C locale; a missing program is exit code 127, a run over ``timeout`` seconds is 124.

    ``environment`` is added to the process' own: the place for secrets, which a command line would show to everybody.
    ``directory`` is where it runs; one that cannot be entered is exit code 126.
    A test double takes these three keywords as well, or leaves the two later ones to those who never get them.
    """
    variables = {**os.environ, **(environment or {}), "LC_ALL": "C", "LANG": "C"}
    try:
        done = subprocess.run(
            args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout, env=variables, cwd=directory, errors="replace", check=False,
        )  # fmt: skip
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if directory is not None and error.filename == directory:
            return Completed(126, f"{directory}: {os.strerror(error.errno or 0)}")
        if isinstance(error, PermissionError):
            return Completed(126, f"{args[0]}: permission denied")
        return Completed(127, f"{args[0]}: not found")
    except subprocess.TimeoutExpired as error:
        stated = error.output or b""  # bytes, also where text was asked for
        partial = stated if isinstance(stated, str) else stated.decode("utf-8", "replace")
        return Completed(TIMED_OUT, f"{args[0]}: no answer within {timeout} seconds", partial)
    return Completed(done.returncode, done.stdout)


class Host:
    """Reads of /proc and /sys, and commands."""

    #: What is gone after a boot.
    runtime = "/run"

    def __init__(self, root: str = "/", run: Runner = run_command) -> None:
        self.root = root
        self.run = run
        #: The directory of the program that the server runs; empty where that is not known.
        self.programs = ""

    def tool(self, name: str) -> str:
        """The check tool ``name`` (check-rdb, check-aof): of the release that runs where it lies next to it, else the one that is installed."""
        names = [f"{vendor}-{name}" for vendor in ("redis", "valkey")]
        near = [os.path.join(self.programs, one) for one in names] if self.programs else []
        found = (shutil.which(one) for one in (*near, *names))
        return next((one for one in found if one), names[0])

    def path(self, name: str) -> str:
        return os.path.join(self.root, name.lstrip("/"))

    def read(self, name: str) -> t.Optional[str]:
        """The text of a file, None where it is not there or may not be read."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as handle:
                return handle.read()
        except OSError:
            return None

    def user_of_process(self, pid: int) -> t.Optional[User]:
        """Whom a process runs as; None where that cannot be read."""
        status = self.read(f"/proc/{pid}/status") or ""
        uid, gid, groups = (procfs.status_field(status, name) for name in ("Uid", "Gid", "Groups"))
        if not uid or not gid:
            return None
        return User(int(uid.split()[1]), int(gid.split()[1]), tuple(int(group) for group in (groups or "").split()))

    def user_of_file(self, path: str) -> User:
        """The owner of a file or directory, with all his groups."""
        status = os.stat(path)
        try:
            account = pwd.getpwuid(status.st_uid)
        except KeyError:
            return User(status.st_uid, status.st_gid)
        return User(account.pw_uid, account.pw_gid, tuple(os.getgrouplist(account.pw_name, account.pw_gid)))

    def process_uid(self, pid: int) -> t.Optional[int]:
        fields = (procfs.status_field(self.read(f"/proc/{pid}/status") or "", "Uid") or "").split()
        return int(fields[1]) if len(fields) > 1 else None

    def servers(self) -> list[int]:
        """Process ids of what may be a Redis server with data: no Sentinel, no tool."""
        found = []
        for name in os.listdir(self.path("/proc")):
            if not name.isdigit():
                continue
            try:
                executable = os.readlink(self.path(f"/proc/{name}/exe"))
            except OSError:
                continue
            comm = (
                self.read(f"/proc/{name}/comm") or ""
            )  # one program has several names: of a check tool, exe may say redis-server
            tool = "-check-" in comm or "[sentinel]" in (self.read(f"/proc/{name}/cmdline") or "")
            if is_server_program(f"{os.path.basename(executable)} {comm}") and not tool:
                found.append(int(name))
        return found

    def servers_in(self, directory: str) -> list[int]:
        """Process ids of Redis servers whose working directory (Redis' ``dir``) is ``directory``.

        Compared by inode, so that a server in a container that has the directory mounted elsewhere is found as well.
        """
        try:
            wanted = os.stat(directory)
        except OSError:
            return []
        found = []
        for pid in self.servers():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self.path(f"/proc/{pid}/cwd")), wanted):
                    found.append(pid)
        return found

    def parent_of(self, pid: int) -> t.Optional[int]:
        """The process that made process ``pid``; None where that cannot be read."""
        parent = procfs.status_field(self.read(f"/proc/{pid}/status") or "", "PPid")
        return int(parent) if parent else None

    def open_inodes(self, pid: int) -> list[tuple[int, int]]:
        """Device and inode of what process ``pid`` has open."""
        found = []
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(self.path(f"/proc/{pid}/fd")):
                with contextlib.suppress(OSError):
                    status = os.stat(self.path(f"/proc/{pid}/fd/{descriptor}"))
                    found.append((status.st_dev, status.st_ino))
        return found

    def began(self, pid: int) -> t.Optional[int]:
        """When process ``pid`` began, in clock ticks since the boot: with its number this is who it is. None where it has ended."""
        fields = (self.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        if len(fields) < 20 or fields[0] in "ZX":
            return None
        return int(fields[19])

    def replaced_program(self, pid: int) -> str:
        """The program that process ``pid`` runs where another file has taken its place on disk, as an upgrade does; else empty."""
        try:
            program, gone, _rest = os.readlink(self.path(f"/proc/{pid}/exe")).partition(" (deleted)")
        except OSError:
            return ""
        return program if gone and os.path.exists(self.path(program)) else ""

    def program_of(self, pid: int) -> str:
        """The program that process ``pid`` runs, or what an upgrade has put in its place; empty where neither is on this host's disk."""
        link = self.path(f"/proc/{pid}/exe")
        try:
            program, gone, _rest = os.readlink(link).partition(" (deleted)")
            here = os.stat(self.path(program))
            # In a container the same path may be another program's, or nobody's.
            return program if gone or os.path.samestat(here, os.stat(link)) else ""
        except OSError:
            return ""

    def holds_open(self, pid: int, path: str) -> bool:
        """Whether process ``pid`` has ``path`` (that very inode) open."""
        try:
            wanted = os.stat(path)
            descriptors = os.listdir(self.path(f"/proc/{pid}/fd"))
        except OSError:
            return False
        for descriptor in descriptors:
            try:
                if os.path.samestat(os.stat(self.path(f"/proc/{pid}/fd/{descriptor}")), wanted):
                    return True
            except OSError:
                continue
        return False

    def open_files_ceiling(self) -> t.Optional[int]:
        """The most open files a process on this host can be given; None where nothing but the kernel's maximum bounds it.

        In a container without CAP_SYS_RESOURCE the hard limit of PID 1 cannot be exceeded by any unit.
        """
        if procfs.capability_bounds(self.read("/proc/1/status") or "", procfs.CAP_SYS_RESOURCE):
            return None
        hard = procfs.open_files_limit(self.read("/proc/1/limits") or "")[1]
        return hard or None
