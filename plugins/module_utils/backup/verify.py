# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a backup: hashed, loaded, and compared with what the server stated when it was taken."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.fingerprint import SampleKey
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupManifest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.backup.test_load import Loaded, decode, loaded
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text

__all__ = ["SAMPLE", "Loading", "compare", "read_sample", "verify"]

SAMPLE = "sample.json"
_LENGTHS = {"string": "STRLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN"}
_TRIAL = "redisops:proof:trial"


def read_sample(directory: str, manifest: BackupManifest) -> list[SampleKey]:
    """The sample that was taken with the backup; empty where there is none."""
    if SAMPLE not in {file.path for file in manifest.files}:
        return []
    return [SampleKey(**row) for row in json.loads(read_text(os.path.join(directory, SAMPLE)))]


def _counts(manifest: BackupManifest, info: Info) -> list[str]:
    """Where the loaded copy's keys per database are not those of the moment, allowing for what ran next to it."""
    found = []
    for number in sorted({*map(int, manifest.keys), *info.keyspace}):
        keys, expiring = manifest.keys.get(str(number), (0, 0))
        there = info.keyspace.get(number)
        have = (there.keys, there.expires) if there else (0, 0)
        if not manifest.slack and have != (keys, expiring):
            found.append(
                f"database {number} has {have[0]} keys ({have[1]} with a time to live), and had {keys} ({expiring})"
            )
        elif manifest.slack and keys and not have[0] and keys > manifest.slack:
            found.append(f"database {number} is empty, and had {keys} keys")
        elif abs(have[0] - keys) > manifest.slack * 100:
            found.append(
                f"database {number} has {have[0]} keys, and had {keys}; {manifest.slack} commands cannot account for that"
            )
    return found


def _differs(server: Server, one: SampleKey, now_ms: int) -> str:
    """What is different about one key of the sample; empty where nothing is, or where it is past its time."""
    if 0 <= one.expires_at < now_ms + 60_000:
        return ""
    key, where = decode(one.key), f"database {one.database}, key {decode(one.key)[:60]!r}"
    kind, expires = server.commands([("SELECT", one.database), ("TYPE", key), ("PEXPIRETIME", key)])[1:]
    if kind == "none":
        return f"{where} is not there"
    if int(expires) != one.expires_at:
        return f"{where} expires at {expires}, and did at {one.expires_at} (milliseconds)"
    when = ("ABSTTL",) if one.expires_at >= 0 else ()
    rows: list[tuple[t.Union[str, int], ...]] = [
        ("RESTORE", _TRIAL, max(one.expires_at, 0), decode(one.dump), "REPLACE", *when),
        ("DEBUG", "DIGEST-VALUE", key, _TRIAL),
        ("DEL", _TRIAL),
    ]
    mine, theirs = server.commands(rows)[1]
    return "" if mine == theirs else f"{where} has another value"


def _assertion(server: Server, wanted: t.Mapping[str, t.Any]) -> str:
    """What of the operator's own assertion does not hold; empty where it does."""
    key, database = str(wanted["key"]), int(wanted.get("database") or 0)
    where = f"database {database}, key {key!r}"
    try:
        kind = str(server.commands([("SELECT", database), ("TYPE", key)])[1])
        if kind == "none":
            return f"{where} is not there"
        if wanted.get("type") and kind != wanted["type"]:
            return f"{where} is of type {kind}, and {wanted['type']} was asserted"
        least = wanted.get("min_count")
        if least is not None:
            have = int(server.command(_LENGTHS[kind], key)) if kind in _LENGTHS else 0
            if have < int(least):
                return f"{where} has {have} elements, and at least {least} were asserted"
    except CommandError as error:
        return f"{where}: {error.text}"
    return ""


def compare(
    copy: Loaded,
    manifest: BackupManifest,
    sample: t.Sequence[SampleKey],
    assertions: t.Sequence[t.Mapping[str, t.Any]],
    now: float,
) -> list[str]:
    """Everything in which the loaded copy is not what the server was, in words; empty where nothing is."""
    found = _counts(manifest, copy.info)
    functions = copy.server.command("FUNCTION", "LIST")
    if not manifest.slack and manifest.functions not in (-1, len(functions)):
        found.append(f"{len(functions)} libraries of functions, and there were {manifest.functions}")
    found += [words for words in (_differs(copy.server, one, int(now * 1000)) for one in sample) if words]
    found += [words for words in (_assertion(copy.server, one) for one in assertions) if words]
    copy.server.command("SELECT", 0)
    return found[:50]


@dataclasses.dataclass(frozen=True)
class Loading:
    """How a copy is loaded: next to ``near``, for ``timeout`` seconds at most, as group ``gid`` (None: that of the data).

    ``memory`` is what processes can still be given, in bytes; None where that is not known. ``assertions`` are what the operator knows.
    """

    near: str
    timeout: float
    memory: t.Optional[int]
    assertions: t.Sequence[t.Mapping[str, t.Any]] = ()
    gid: t.Optional[int] = None


def verify(
    directory: str, manifest: BackupManifest, sealed: str, loading: Loading, clock: t.Callable[[], float] = time.time
) -> dict[str, t.Any]:
    """Take a backup from ``taken`` as far as it gets: ``checksummed``, ``loaded``, ``verified``; or ``failed``, with what differs.

    Where memory is too little the backup is not loaded, and why is stated. Raises nothing that an operator could not act on: what goes
    wrong with the backup is part of the answer.
    """
    result: dict[str, t.Any] = {"manifest": sealed, "state": "taken", "at": clock(), "why": "", "differences": []}
    differences = verify_files(directory, manifest)
    if differences:
        return {**result, "state": "failed", "differences": differences, "why": "files are not as they were written"}
    result["state"] = "checksummed"
    takes = manifest.used_memory * 11 // 10
    if loading.memory is not None and loading.memory < takes:
        return {
            **result,
            "why": f"not loaded: that takes about {takes} bytes of memory, and {loading.memory} can be had here",
        }
    data, databases = os.path.join(directory, manifest.data), manifest.settings.get("databases", "16")
    try:
        with loaded(data, loading.near, loading.timeout, databases, loading.gid) as copy:
            result.update(
                state="loaded", load_seconds=round(copy.seconds, 3), digest=copy.digest, keys=copy.info.keys, server=copy.info.product,
            )  # fmt: skip
            sample = read_sample(directory, manifest)
            differences = compare(copy, manifest, sample, loading.assertions, clock())
            result.update(sampled=len(sample), assertions=len(loading.assertions))
            copy.server.close()
    except Problem as problem:
        if problem.code == "temporary_server_files":  # says nothing about the backup
            return {**result, "why": f"not loaded: {problem.detected}"}
        return {**result, "state": "failed", "why": problem.detected, "differences": [problem.detected]}
    if differences:
        return {
            **result,
            "state": "failed",
            "differences": differences,
            "why": "what was loaded is not what the server had",
        }
    return {**result, "state": "verified"}
