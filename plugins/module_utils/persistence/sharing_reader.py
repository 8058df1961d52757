# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether another server has, or would have, the same data files: two that share an AOF or an RDB file destroy each other's data."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import DEFAULTS, effective
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive, RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["require_unshared", "shared_with"]

#: Where the packages of Redis and Valkey keep the files of a host's servers, next to the directory of the one that is looked at.
_FILES = ("/etc/redis.conf", "/etc/redis/*.conf", "/etc/redis/*/*.conf", "/etc/valkey/*.conf", "/etc/valkey/*/*.conf")

#: Where our own temporary servers work, on links to the files or copies of them.
_TEMPORARY = re.compile(r"/(redisops-temporary-|\.redisops-look-|\.work-|\.fit-)")


def _files_of(place: Place) -> set[tuple[int, int]]:
    """The files of the AOF's directory, as device and inode."""
    found = set()
    with contextlib.suppress(OSError), os.scandir(place.aof_dir) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat()
                found.add((status.st_dev, status.st_ino))
    return found


def _is_apart(host: Host, pid: int, other: int) -> bool:
    """Whether process ``other`` is a server of its own: no child that saves or rewrites, none of our temporary servers, and still there."""
    parent = host.parent_of(other)
    try:
        temporary = _TEMPORARY.search(os.readlink(host.path(f"/proc/{other}/cwd")))
    except OSError:
        return False
    return parent is not None and pid not in (other, parent) and not temporary


def _have_in_common(host: Host, place: Place, files: set[tuple[int, int]], other: int) -> bool:
    """Whether ``other`` has one of ``files`` open. Seen twice: what a rewrite has deleted meanwhile may be a file of the other's by now."""
    common = files.intersection(host.open_inodes(other))
    return bool(common) and bool(common & _files_of(place) & set(host.open_inodes(other)))


def _named(host: Host, pid: int) -> str:
    words = " ".join((host.read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").split())
    return f" ({words[:120]})" if words else ""


def _process(host: Host, place: Place, pid: int) -> str:
    """Another process that works there, in words."""
    working = set(host.servers_in(place.dir))
    files = _files_of(place)
    for other in host.servers():
        if not _is_apart(host, pid, other):
            continue
        if other in working:
            return f"process {other} works in {place.dir} as well{_named(host, other)}"
        if _have_in_common(host, place, files, other):
            return f"process {other} has a file in {place.aof_dir} open as well{_named(host, other)}"
    return ""


def _directives(path: str) -> list[Directive]:
    return expand(RedisConf(read_text(path), path), read_includes)


def _included(path: str) -> set[str]:
    """The file itself and what it includes, as far as that is a name: not a second server's."""
    found = {os.path.realpath(path)}
    with contextlib.suppress(Problem, OSError):
        for line in re.findall(r"^\s*include\s+(\S+)", read_text(path), re.M | re.I):
            found |= {os.path.realpath(one) for one in glob.glob(line.strip("\"'"))}
    return found


def _value(directives: t.Sequence[Directive], name: str) -> str:
    stated = effective(directives, name)
    return (stated if stated is not None else DEFAULTS.get(name)) or ""


def _ports(directives: t.Sequence[Directive]) -> tuple[str, ...]:
    return tuple(_value(directives, name) for name in ("port", "tls-port", "unixsocket"))


def _same_files(place: Place, ours: t.Sequence[Directive], theirs: t.Sequence[Directive]) -> str:
    """What of ``place`` the server of ``theirs`` would have as well; empty where nothing."""
    if any(entry.name == "sentinel" for entry in theirs) or _ports(theirs) == _ports(ours):
        return ""  # of a Sentinel, or a copy of our own file: with the same port they cannot run at once
    directory = _value(theirs, "dir")
    if not os.path.isabs(directory) or os.path.realpath(directory) != os.path.realpath(place.dir):
        return ""
    if _value(theirs, "dbfilename") == place.dbfilename:
        return f"dbfilename {place.dbfilename}"
    if _value(theirs, "appenddirname") == place.appenddirname and _value(theirs, "appendonly") == "yes":
        return f"appenddirname {place.appenddirname}"
    return ""


def _file(host: Host, place: Place, config_file: str) -> str:
    """Another configuration on this host that names the same files, in words."""
    if not config_file or not os.path.exists(config_file):
        return ""
    patterns = (os.path.join(os.path.dirname(os.path.realpath(config_file)), "*.conf"), *map(host.path, _FILES))
    own = _included(config_file)
    try:
        ours = _directives(config_file)
    except (Problem, OSError):
        return ""  # whoever reads it says what is wrong with it
    for path in sorted({os.path.realpath(path) for pattern in patterns for path in glob.glob(pattern)} - own):
        with contextlib.suppress(Problem, OSError):  # a file of some other program
            if os.path.realpath(config_file) in _included(path):
                continue
            what = _same_files(place, ours, _directives(path))
            if what:
                return f"{path} names the same dir {place.dir} and the same {what}"
    return ""


def shared_with(host: Host, place: Place, pid: t.Optional[int], config_file: str = "") -> str:
    """Who else has the data files of ``place``, in words; empty where nobody has.

    ``pid``: the server itself, 0 where it is stopped; None where that is not known: then no process is judged.
    """
    if not os.path.isabs(place.dir):
        return ""
    return (_process(host, place, pid) if pid is not None else "") or _file(host, place, config_file)


def require_unshared(host: Host, place: Place, pid: int, config_file: str = "") -> None:
    """One server for each data directory. Raises Refusal."""
    other = shared_with(host, place, pid, config_file)
    if other:
        raise Refusal(
            "dir_is_shared",
            f"{place.dir} is not this server's alone: {other}. Each would overwrite the AOF or the RDB file of the other",
            "a data directory that one server uses",
            "stop the other one, give it a dir of its own with its data in it, start it, then run again; a file of a server that is gone: remove it",
        )
