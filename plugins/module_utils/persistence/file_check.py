# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the matter with a persistence file, by Redis' own tools and by its bytes; nothing is written."""

from __future__ import annotations

import dataclasses
import functools
import os
import pwd
import re
import tempfile
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    AofFile,
    AofManifest,
    ManifestError,
    parse_manifest,
    unlisted,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import (
    AofScan,
    scan_aof,
    shapes_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.check_tool_output import (
    parse_check_aof,
    parse_check_rdb,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.command_table import (
    CommandTable,
    Shape,
    table_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect, wait_for
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import server_binary, started
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host, User

__all__ = [
    "USABLE",
    "Dialect",
    "FileVerdict",
    "OpenTransaction",
    "check_aof",
    "check_manifest",
    "check_place",
    "check_rdb_file",
    "installed_commands",
    "open_transaction",
]

#: Redis loads these with nothing missing.
USABLE = ("good", "unchecked", "empty", "unreferenced")
#: What a temporary server that is asked for its commands has for its start.
_START_SECONDS = 30.0
#: Seconds in which a transaction that is being written gets its end.
_WRITING_SECONDS = 2.0

_DO = {
    "good": "",
    "empty": "",
    "unchecked": "set rdbchecksum yes, so that a flipped bit is found from the next save on",
    "truncated_tail": "Redis loads what is before the offset (aof-load-truncated yes); an RDB cut short does not load: use another copy",
    "corrupt_inside": "use another copy: a replica, or a backup. On a copy only: redis-check-aof --fix drops everything behind the offset",
    "bad_crc": "use another copy: a replica, or a backup. There is no repair for an RDB",
    "header_only": "the file was cut off where its data begins: use another copy",
    "not_rdb": "something else wrote this file: look at dir and dbfilename, and use another copy",
    "newer_version": "load it with the Redis release that wrote it, or a newer one",
    "missing": "find it (a backup, a rename by hand): Redis does not start without it",
    "unknown_command": "a start on it fails: install the release that wrote it, or give the server the module or the rename-command line that it had",
    "unlisted": "Redis starts WITHOUT what it holds: find the manifest's line, or the manifest as it was (redis_repair can write it anew); move the "
    "file aside only if what it holds is in the data",
    "unreferenced": "Redis does not read it: left by a rewrite. Do not delete it before you know",
}


@dataclasses.dataclass(frozen=True)
class FileVerdict:
    """``offset`` is the first byte that is not good; None where all are, or where none can be named. ``keys`` counts an RDB's."""

    path: str
    kind: str
    verdict: str
    size: int
    offset: t.Optional[int] = None
    detail: str = ""
    keys: t.Optional[int] = None
    timestamp: t.Optional[int] = None

    def row(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "usable": self.verdict in USABLE, "do": _DO[self.verdict]}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What a server's configuration makes of commands: ``rename-command`` lines (name, other name or nothing), and whether modules bring more."""

    renamed: tuple[tuple[str, str], ...] = ()
    modules: bool = False


PLAIN = Dialect()


@functools.cache
def installed_commands() -> t.Optional[CommandTable]:
    """What the installed server says to COMMAND, asked once in a run; None where none is installed, or it does not start."""
    binary = server_binary()
    if binary is None:
        return None
    nobody = pwd.getpwnam("nobody")
    arguments = [binary, "--dir", "/", "--save", "", "--appendonly", "no"]
    with started(lambda _home: arguments, User(nobody.pw_uid, nobody.pw_gid), _START_SECONDS) as temporary:
        if not temporary.socket:
            return None
        server = connect(Login(unix_socket=temporary.socket))
        try:
            return table_of(server.command("COMMAND"))
        finally:
            server.close()


def _tool(host: Host, name: str, path: str, timeout: float) -> tuple[int, str]:
    """Code and output of one of Redis' check tools. Raises Problem where it is not installed or was too slow."""
    done = host.run(host.tool(name), path, timeout=timeout)
    if done.code == 127:
        raise Problem(
            "no_check_tool", f"redis-{name} is not installed", "Redis' own check tools", "install redis-tools",
        )  # fmt: skip
    if done.code < 0 or done.code == 124:
        raise Problem(
            "check_timeout", f"redis-{name} {path} was ended (code {done.code}) after at most {timeout:g} seconds", "time to read the whole file",
            "set a longer timeout",
        )  # fmt: skip
    return done.code, done.output


def _check_aof_tool(host: Host, paths: t.Sequence[str], timeout: float) -> dict[str, str]:
    """What redis-check-aof has against files of commands, in its words, by path. The first of them may begin with an RDB.

    It is given a manifest of our own next to links to the files: it takes an AOF for a manifest where a line of it begins with ``file``
    (7.0.15), and does not know every manifest that the server takes.
    """
    found: dict[str, str] = {}
    left = list(paths)
    while left:
        with tempfile.TemporaryDirectory(prefix="redisops-check-") as folder:
            names = {f"{number}.aof": path for number, path in enumerate(left, 1)}
            for name, path in names.items():
                os.symlink(os.path.abspath(path), os.path.join(folder, name))
            entries = [AofFile(name, number, "i" if number > 1 else "b") for number, name in enumerate(names, 1)]
            manifest = os.path.join(folder, "check.manifest")
            with open(manifest, "x", encoding="ascii") as handle:
                handle.write(AofManifest(tuple(entries)).render())
            code, output = _tool(host, "check-aof", manifest, timeout)
        if not code:
            return found
        named = re.search(r"AOF (\d+\.aof) (?:is not valid|format error)", output) or re.search(r"(\d+\.aof)", output)
        bad = names.get(named.group(1) if named else "", left[-1])
        found[bad] = parse_check_aof(code, output).reason
        left = left[left.index(bad) + 1 :]
    return found


def _rdb(host: Host, path: str, timeout: float) -> tuple[FileVerdict, int]:
    """A verdict on the RDB with which a file begins, and the offset of its end."""
    size = os.stat(path).st_size
    with open(path, "rb") as handle:
        head = handle.read(10)
    if (
        size
        and not re.match(rb"(REDIS|VALKEY)\d", head)
        and not (b"REDIS".startswith(head[:5]) or b"VALKEY".startswith(head[:6]))
    ):
        return FileVerdict(path, "rdb", "not_rdb", size, 0, f"it begins with {head!r}"), 0
    code, output = _tool(host, "check-rdb", path, timeout)
    reported = re.findall(r"^\[offset (\d+)\] (.*)$", output, re.M)
    offset, detail = (int(reported[-1][0]), reported[-1][1]) if reported else (0, parse_check_rdb(code, output).reason)
    found = re.search(r"(\d+) keys read", output)
    keys = int(found.group(1)) if found else None
    if not code:
        unchecked = any("checksum disabled" in words for _offset, words in reported)
        detail = (
            "no checksum was written: flipped bits are not found" if unchecked else "structure and checksum are right"
        )
        verdict = "unchecked" if unchecked else "good"
        return FileVerdict(path, "rdb", verdict, size, None, detail, keys), min(offset, size)
    if "CRC error" in output:
        words = "the checksum differs: a bit anywhere in the file was flipped"
        return FileVerdict(path, "rdb", "bad_crc", size, None, words, keys), offset
    if "Can't handle RDB format version" in output:
        return FileVerdict(path, "rdb", "newer_version", size, offset, detail), offset
    if "Unexpected EOF" in output:
        verdict = "truncated_tail" if keys else "header_only"
        return FileVerdict(path, "rdb", verdict, size, offset, detail, keys), offset
    return FileVerdict(path, "rdb", "corrupt_inside", size, offset, detail, keys), offset


def check_rdb_file(host: Host, path: str, timeout: float) -> FileVerdict:
    """An RDB file."""
    found, end = _rdb(host, path, timeout)
    if found.verdict not in USABLE or end == found.size:
        return found
    words = f"{found.size - end} bytes follow the end of the data"
    return dataclasses.replace(found, verdict="corrupt_inside", offset=end, detail=words)


def _begins_as_rdb(path: str) -> bool:
    """Whether a start takes the file for an RDB, with commands behind it or none."""
    with open(path, "rb") as handle:
        head = handle.read(6)
    return head.startswith(b"REDIS") or head == b"VALKEY"


def _unknown(handle: t.BinaryIO, size: int, dialect: Dialect) -> t.Optional[tuple[int, Shape, CommandTable]]:
    """The first command up to ``size`` on which a start fails, and where it stands; None where there is none, or no server can be asked."""
    table = installed_commands()
    if table is None:
        return None
    table = table.renamed(dialect.renamed, dialect.modules)
    shapes = shapes_of(handle, size, table.containers)
    return min(
        ((offset, shape, table) for shape, offset in shapes.items() if table.fault(shape)),
        default=None,
        key=lambda row: row[0],
    )


def _torn(path: str, size: int, found: AofScan, annotated: bool = False) -> FileVerdict:
    """``annotated``: what stands at its end is a ``#`` line without its end."""
    lost = f"{size - found.good_up_to} bytes behind it are lost"
    verdict = "truncated_tail" if found.ends == "truncated" else "corrupt_inside"
    detail = (
        f"{found.why} (offset {found.at}); {found.commands} commands before offset {found.good_up_to} are whole, {lost}"
    )
    if found.open_multi is not None and found.in_multi:
        detail += f"; {found.in_multi} commands stand behind a MULTI without its EXEC, and no start runs them"
    if found.ends == "truncated" and annotated:
        detail += "; a start does not cut that off, and the next command would stand in the same line: cut it with redis-check-aof --fix before"
    return FileVerdict(path, "aof", verdict, size, found.good_up_to, detail, timestamp=found.timestamp)


def _commands_from(path: str, begin: int, dialect: Dialect) -> FileVerdict:
    """A verdict on the commands of a file from ``begin`` on, by our own reader."""
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        handle.seek(begin)
        found = scan_aof(handle, size)
        if found.ends == "corrupt":
            return _torn(path, size, found)
        handle.seek(found.at)
        annotated = handle.read(1) == b"#"
        handle.seek(begin)
        unknown = _unknown(handle, size, dialect)  # Redis looks each one up, also in a transaction that it will not run
    if unknown:
        offset, shape, table = unknown
        plausible = re.fullmatch(r"[a-z][a-z0-9._:-]*", shape.name)
        verdict = "unknown_command" if plausible and not table.knows(shape) else "corrupt_inside"
        return FileVerdict(path, "aof", verdict, size, offset, table.fault(shape), timestamp=found.timestamp)
    if found.ends == "truncated":
        return _torn(path, size, found, annotated)
    words = "every command is whole; values have no checksum, a flipped bit in one is not found"
    asked = "" if installed_commands() else "; whether Redis knows each was not asked"
    return FileVerdict(path, "aof", "good", size, None, words + asked)


@dataclasses.dataclass(frozen=True)
class OpenTransaction:
    """A MULTI without its EXEC: where it begins, and how many whole commands and bytes stand behind it. No start runs any of that."""

    offset: int
    commands: int
    bytes: int


def open_transaction(path: str, begin: int = 0) -> t.Optional[OpenTransaction]:
    """The transaction that is open at the end of an increment, as a crash leaves it: all that the server writes on goes the same way at its next start.

    ``begin`` is a place between two commands from which on it is read, as the size at an earlier look. A server writes MULTI and EXEC at once: what is
    still open after some seconds stays so. BGREWRITEAOF heals it: it writes what the memory has. Raises OSError.
    """

    def look() -> t.Optional[OpenTransaction]:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            handle.seek(begin)
            found = scan_aof(handle, size)
        if found.open_multi is None:
            return None
        return OpenTransaction(found.open_multi, found.in_multi, size - found.open_multi)

    found = look()
    if found is None or wait_for(lambda: look() is None, _WRITING_SECONDS):
        return None
    return look()


def _one_of_aof(host: Host, path: str, timeout: float, dialect: Dialect) -> FileVerdict:
    """One file of an AOF, by our own reader."""
    size = os.stat(path).st_size
    if not size:
        return FileVerdict(path, "aof", "empty", 0, None, "it holds no command yet")
    if not _begins_as_rdb(path):
        return _commands_from(path, 0, dialect)
    rdb, end = _rdb(host, path, timeout)
    if rdb.verdict not in USABLE or end == size:
        return rdb
    tail = _commands_from(path, end, dialect)
    detail = f"an RDB of {end} bytes, with commands behind it, as before 7.0: {tail.detail}"
    if tail.verdict == "truncated_tail" and tail.offset == end:
        detail += (
            "; a start would load the RDB, and cut the whole file down to nothing for the next one (seen with 7.0.15)"
        )
        return dataclasses.replace(tail, verdict="corrupt_inside", detail=detail, keys=rdb.keys)
    return dataclasses.replace(tail, detail=detail, keys=rdb.keys)


def _with_tool(host: Host, rows: list[FileVerdict], timeout: float) -> list[FileVerdict]:
    """The same, where redis-check-aof agrees: it may see what our own reader does not. What that found fault with is not asked about."""
    asked = [row.path for row in rows if row.kind == "aof" and row.verdict == "good"]
    against = _check_aof_tool(host, asked, timeout) if asked else {}
    return [
        dataclasses.replace(row, verdict="corrupt_inside", detail=f"redis-check-aof: {against[row.path]}")
        if row.path in against
        else row
        for row in rows
    ]


def check_aof(host: Host, path: str, timeout: float, dialect: Dialect = PLAIN) -> FileVerdict:
    """One file of commands: an increment, a base, or the single file of before 7.0, which may begin with an RDB."""
    return _with_tool(host, [_one_of_aof(host, path, timeout, dialect)], timeout)[0]


def check_manifest(host: Host, path: str, timeout: float, dialect: Dialect = PLAIN) -> list[FileVerdict]:
    """A manifest, each file that it names, and the files next to it that it does not name."""
    with open(path, "rb") as handle:
        raw = handle.read(1024 * 1024)
    try:
        manifest = parse_manifest(raw.decode("utf-8", "surrogateescape"), path)
    except ManifestError as problem:
        return [FileVerdict(path, "manifest", "corrupt_inside", len(raw), None, problem.detected)]
    folder = os.path.dirname(path)
    found = []
    for entry in manifest.needed:
        file = os.path.join(folder, entry.name)
        if not os.path.isfile(file):
            found.append(FileVerdict(file, "aof", "missing", 0, None, "the manifest names it"))
        elif entry.type == "b" and entry.name.endswith(".rdb") and not _begins_as_rdb(file):
            found.append(
                check_rdb_file(host, file, timeout)
            )  # an empty one is no file without commands: Redis starts without its data
        else:
            found.append(_one_of_aof(host, file, timeout, dialect))
    found = [
        dataclasses.replace(
            one, verdict="corrupt_inside", detail="the manifest names it twice, and Redis refuses to load an RDB twice"
        )
        if one.verdict in USABLE
        and index
        and one.path in [row.path for row in found[:index]]
        and _begins_as_rdb(one.path)
        else one
        for index, one in enumerate(found)
    ]
    found = _with_tool(host, found, timeout)
    last = manifest.needed[-1].name if manifest.needed else ""
    for index, one in enumerate(found):
        if one.kind == "aof" and one.verdict == "truncated_tail" and os.path.basename(one.path) != last:
            words = one.detail + "; it is not the last file, so that Redis refuses to start"
            found[index] = dataclasses.replace(one, verdict="corrupt_inside", detail=words)
    head = FileVerdict(path, "manifest", "good", len(raw), None, f"it names {len(manifest.files)} files")
    return [head, *found, *_unnamed(folder, os.path.basename(path).removesuffix(".manifest"), manifest)]


def _unnamed(folder: str, prefix: str, manifest: AofManifest) -> t.Iterator[FileVerdict]:
    """What lies next to a manifest that does not name it."""
    named = {entry.name for entry in manifest.files}
    sizes = {
        name: os.stat(os.path.join(folder, name)).st_size
        for name in sorted(os.listdir(folder))
        if name.startswith(prefix + ".") and name.endswith((".rdb", ".aof")) and name not in named
    }
    missed = unlisted(manifest, sizes, prefix)
    for name, size in sizes.items():
        verdict, words = (
            ("unlisted", "; it is not older than what the manifest names") if name in missed else ("unreferenced", "")
        )
        yield FileVerdict(
            os.path.join(folder, name), "aof", verdict, size, None, f"the manifest does not name it{words}"
        )


def check_place(host: Host, path: str, timeout: float, dialect: Dialect = PLAIN) -> list[FileVerdict]:
    """A file, or the directory of an AOF. Raises Problem for what cannot be read."""
    try:
        if os.path.isdir(path):
            manifests = sorted(
                name for name in os.listdir(path) if name.endswith(".manifest") and not name.startswith("temp-")
            )
            if not manifests:
                raise Problem(
                    "no_manifest", f"{path} is a directory without a manifest", "an AOF's directory, or a file",
                    "name the files one by one; without its manifest Redis starts EMPTY next to them",
                )  # fmt: skip
            return [
                one for name in manifests for one in check_manifest(host, os.path.join(path, name), timeout, dialect)
            ]
        if path.endswith(".manifest"):
            return check_manifest(host, path, timeout, dialect)
        return [
            check_rdb_file(host, path, timeout) if path.endswith(".rdb") else check_aof(host, path, timeout, dialect)
        ]
    except FileNotFoundError:
        return [FileVerdict(path, "unknown", "missing", 0, None, "no such file")]
    except OSError as error:
        raise Problem(
            "unreadable", f"{path}: {error.strerror}", "a file that can be read (root)", "run with become"
        ) from None
