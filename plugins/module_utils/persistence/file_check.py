# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the matter with a persistence file, by Redis' own tools and by its bytes; nothing is written."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    ManifestError,
    parse_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["USABLE", "FileVerdict", "check_aof", "check_manifest", "check_place", "check_rdb_file"]

#: Redis loads these with nothing missing.
USABLE = ("good", "unchecked", "empty", "unreferenced")

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
    "unreferenced": "Redis does not read it: left by a rewrite that failed, or its line in the manifest is gone. Do not delete it before you know",
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


def _tool(host: Host, name: str, path: str, timeout: float) -> tuple[int, str]:
    """Code and output of one of Redis' check tools. Raises Problem where it is not installed or was too slow."""
    for vendor in ("redis", "valkey"):
        done = host.run(f"{vendor}-{name}", path, timeout=timeout)
        if done.code != 127:
            break
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


def check_rdb_file(host: Host, path: str, timeout: float) -> FileVerdict:
    """An RDB file, or the base of an AOF that is one."""
    size = os.stat(path).st_size
    with open(path, "rb") as handle:
        head = handle.read(10)
    if (
        size
        and not re.match(rb"(REDIS|VALKEY)\d", head)
        and not (b"REDIS".startswith(head[:5]) or b"VALKEY".startswith(head[:6]))
    ):
        return FileVerdict(path, "rdb", "not_rdb", size, 0, f"it begins with {head!r}")
    code, output = _tool(host, "check-rdb", path, timeout)
    reported = re.findall(r"^\[offset (\d+)\] (.*)$", output, re.M)
    offset, detail = (int(reported[-1][0]), reported[-1][1]) if reported else (0, " ".join(output.split())[-200:])
    found = re.search(r"(\d+) keys read", output)
    keys = int(found.group(1)) if found else None
    if not code:
        unchecked = any("checksum disabled" in words for _offset, words in reported)
        if offset < size:
            return FileVerdict(
                path,
                "rdb",
                "corrupt_inside",
                size,
                offset,
                f"{size - offset} bytes follows the end of the data",
                keys,
            )
        detail = (
            "no checksum was written: flipped bits are not found" if unchecked else "structure and checksum are right"
        )
        return FileVerdict(path, "rdb", "unchecked" if unchecked else "good", size, None, detail, keys)
    if "CRC error" in output:
        return FileVerdict(
            path, "rdb", "bad_crc", size, None, "the checksum differs: a bit anywhere in the file was flipped", keys
        )
    if "Can't handle RDB format version" in output:
        return FileVerdict(path, "rdb", "newer_version", size, offset, detail)
    if "Unexpected EOF" in output:
        return FileVerdict(path, "rdb", "truncated_tail" if keys else "header_only", size, offset, detail, keys)
    return FileVerdict(path, "rdb", "corrupt_inside", size, offset, detail, keys)


def check_aof(host: Host, path: str, timeout: float) -> FileVerdict:
    """One file of commands: an increment, a base that is no RDB, or the single file of before 7.0."""
    size = os.stat(path).st_size
    if not size:
        return FileVerdict(path, "aof", "empty", 0, None, "it holds no command yet")
    with open(path, "rb") as handle:
        if handle.read(5) == b"REDIS":
            return check_rdb_file(host, path, timeout)
        code, output = _tool(host, "check-aof", path, timeout)
        if not code:
            return FileVerdict(
                path,
                "aof",
                "good",
                size,
                None,
                "every command is whole; values have no checksum, a flipped bit in one is not found",
            )
        handle.seek(0)
        found = scan_aof(handle)
    lost = f"{size - found.good_up_to} bytes behind it are lost"
    if found.ends == "clean":  # the tool sees more than framing
        return FileVerdict(
            path, "aof", "corrupt_inside", size, None, " ".join(output.split())[-200:], timestamp=found.timestamp
        )
    verdict = "truncated_tail" if found.ends == "truncated" else "corrupt_inside"
    detail = (
        f"{found.why} (offset {found.at}); {found.commands} commands before offset {found.good_up_to} are whole, {lost}"
    )
    return FileVerdict(path, "aof", verdict, size, found.good_up_to, detail, timestamp=found.timestamp)


def check_manifest(host: Host, path: str, timeout: float) -> list[FileVerdict]:
    """A manifest, each file that it names, and the files next to it that it does not name."""
    with open(path, "rb") as handle:
        raw = handle.read(1024 * 1024)
    try:
        manifest = parse_manifest(raw.decode("utf-8", "surrogateescape"), path)
    except ManifestError as problem:
        return [FileVerdict(path, "manifest", "corrupt_inside", len(raw), None, problem.detected)]
    folder, prefix = os.path.dirname(path), os.path.basename(path).removesuffix(".manifest")
    found = [FileVerdict(path, "manifest", "good", len(raw), None, f"it names {len(manifest.files)} files")]
    for entry in manifest.needed:
        file = os.path.join(folder, entry.name)
        if not os.path.isfile(file):
            found.append(FileVerdict(file, "aof", "missing", 0, None, "the manifest names it"))
        elif entry.type == "b" and entry.name.endswith(
            ".rdb"
        ):  # an empty one is no file without commands: Redis starts without its data
            found.append(check_rdb_file(host, file, timeout))
        else:
            found.append(check_aof(host, file, timeout))
    last = manifest.needed[-1].name if manifest.needed else ""
    for index, one in enumerate(found):
        if one.kind == "aof" and one.verdict == "truncated_tail" and os.path.basename(one.path) != last:
            words = one.detail + "; it is not the last file, so that Redis refuses to start"
            found[index] = dataclasses.replace(one, verdict="corrupt_inside", detail=words)
    named = {entry.name for entry in manifest.files}
    for name in sorted(os.listdir(folder)):
        ours = name.startswith(prefix + ".") and name.endswith((".rdb", ".aof"))
        if ours and name not in named:
            file = os.path.join(folder, name)
            found.append(
                FileVerdict(file, "aof", "unreferenced", os.stat(file).st_size, None, "the manifest does not name it")
            )
    return found


def check_place(host: Host, path: str, timeout: float) -> list[FileVerdict]:
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
            return [one for name in manifests for one in check_manifest(host, os.path.join(path, name), timeout)]
        if path.endswith(".manifest"):
            return check_manifest(host, path, timeout)
        return [check_rdb_file(host, path, timeout) if path.endswith(".rdb") else check_aof(host, path, timeout)]
    except FileNotFoundError:
        return [FileVerdict(path, "unknown", "missing", 0, None, "no such file")]
    except OSError as error:
        raise Problem(
            "unreadable", f"{path}: {error.strerror}", "a file that can be read (root)", "run with become"
        ) from None
