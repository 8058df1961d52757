# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a backup: hashed, loaded, and compared with what the server stated when it was taken."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.expiries_reader import read_expiries
from ansible_collections.redisops.recovery.plugins.module_utils.backup.fingerprint import (
    LENGTHS,
    SampleKey,
    code_digest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.levels import (
    COPIED,
    FAILED,
    HASHES,
    LOADED,
    VERIFIED,
    compared,
    missing,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupManifest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.backup.structure_reader import beyond_digest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import Loaded, decode, loaded
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import Release
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import is_server_program

__all__ = ["SAMPLE", "Loading", "compare", "level", "list_compared", "read_sample", "release_of_backup", "verify"]

SAMPLE = "sample.json"
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
    if one.kind and kind != one.kind:
        return f"{where} is of type {kind}, and was a {one.kind}"
    if int(expires) != one.expires_at:
        return f"{where} expires at {expires}, and did at {one.expires_at} (milliseconds)"
    if not one.dump and kind not in LENGTHS:
        return ""
    if not one.dump:
        length = int(server.command(LENGTHS[kind], key))
        return "" if length == one.length else f"{where} has length {length}, and had {one.length}"
    when = ("ABSTTL",) if one.expires_at >= 0 else ()
    server.command("RESTORE", _TRIAL, max(one.expires_at, 0), decode(one.dump), "REPLACE", *when)
    mine, theirs = server.command("DEBUG", "DIGEST-VALUE", key, _TRIAL)
    unseen = beyond_digest(server, str(kind), key, _TRIAL)
    server.command("DEL", _TRIAL)
    if mine != theirs:
        return f"{where} has another value"
    return f"{where} has {unseen}" if unseen else ""


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
            have = int(server.command(LENGTHS[kind], key)) if kind in LENGTHS else 0
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
    libraries = copy.server.command("FUNCTION", "LIST", "WITHCODE")
    if not manifest.slack and manifest.functions not in (-1, len(libraries)):
        found.append(f"{len(libraries)} libraries of functions, and there were {manifest.functions}")
    elif not manifest.slack and manifest.code not in ("", code_digest(libraries)):
        found.append("libraries of functions have other code")
    found += [words for words in (_differs(copy.server, one, int(now * 1000)) for one in sample) if words]
    found += [words for words in (_assertion(copy.server, one) for one in assertions) if words]
    copy.server.command("SELECT", 0)
    return found[:50]


@dataclasses.dataclass(frozen=True)
class Loading:
    """How a copy is loaded: next to ``near``, for ``timeout`` seconds at most.

    ``memory`` is what processes can still be given, in bytes; None where that is not known. ``assertions`` are what the operator knows.
    ``running`` is the product and version of the server that runs; empty where none is known to.
    """

    near: str
    timeout: float
    memory: t.Optional[int]
    assertions: t.Sequence[t.Mapping[str, t.Any]] = ()
    running: str = ""


def release_of_backup(manifest: BackupManifest) -> Release:
    """What the backup is loaded by: the program of its server where that is on this host, with the lines that it needs."""
    program = manifest.server.get("program", "")
    here = manifest.server.get("host") == socket.gethostname() and is_server_program(program)
    return Release(program if here else "", manifest.load_lines, manifest.settings.get("databases", "16"))


def verify(
    directory: str, manifest: BackupManifest, sealed: str, loading: Loading, clock: t.Callable[[], float] = time.time
) -> dict[str, t.Any]:
    """Take a backup as far as it gets: ``copied``, ``loaded``, ``verified``; or ``failed``, with what differs.

    Where memory is too little the backup is not loaded, and why is stated. Raises nothing that an operator could not act on: what goes
    wrong with the backup is part of the answer.
    """
    result: dict[str, t.Any] = {
        "manifest": sealed, "state": COPIED, "at": clock(), "why": "", "differences": [], "compared": [],
    }  # fmt: skip
    differences = verify_files(directory, manifest)
    if differences:
        return {**result, "state": FAILED, "differences": differences, "why": "files are not as they were written"}
    result["compared"] = [HASHES]
    takes = manifest.used_memory * 11 // 10
    if loading.memory is not None and loading.memory < takes:
        return {
            **result,
            "why": f"not loaded: that takes about {takes} bytes of memory, and {loading.memory} can be had here",
        }
    try:
        return _loaded_and_compared(directory, manifest, loading, result, clock)
    except Problem as problem:
        if problem.code in ("temporary_server_files", "redis_missing", "no_free_user"):  # says nothing about the backup
            return {**result, "why": f"not loaded: {problem.detected}"}
        return {**result, "state": FAILED, "why": problem.detected, "differences": [problem.detected]}


def _loaded_and_compared(
    directory: str, manifest: BackupManifest, loading: Loading, result: dict[str, t.Any], clock: t.Callable[[], float]
) -> dict[str, t.Any]:
    """What loading it has shown. Raises Problem."""
    data, sample = os.path.join(directory, manifest.data), read_sample(directory, manifest)
    with loaded(data, loading.near, loading.timeout, release_of_backup(manifest)) as copy:
        differences = compare(copy, manifest, sample, loading.assertions, clock())
        expiries = read_expiries(copy.server, copy.info)
        copy.server.close()
    asserted = len(loading.assertions)
    found = {
        **result, "load_seconds": round(copy.seconds, 3), "digest": copy.digest, "keys": copy.info.keys, "server": copy.info.product,
        "sampled": len(sample), "expiries": expiries, "assertions": asserted, "compared": list_compared(manifest, sample, asserted),
    }  # fmt: skip
    if differences:
        why = "what was loaded is not what the server had"
        return {**found, "state": FAILED, "differences": differences, "why": why}
    state, why = level(manifest, sample, copy.info.product, loading.running)
    return {**found, "state": state, "why": why}


def level(
    manifest: BackupManifest, sample: t.Sequence[SampleKey], loaded_by: str, running: str = ""
) -> tuple[str, str]:
    """How far a copy is verified that loads with no difference, and why no further."""
    short = missing(manifest, len(sample), loaded_by, running)
    return LOADED if short else VERIFIED, "; ".join(short)


def list_compared(manifest: BackupManifest, sample: t.Sequence[SampleKey], assertions: int) -> list[str]:
    """What is compared of a copy that was loaded, in words."""
    whole = sum(bool(one.dump) for one in sample)
    return [HASHES, *compared(manifest, whole, len(sample) - whole, assertions)]
