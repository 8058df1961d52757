# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup says of itself: files with sizes and hashes, the moment, the keys; sealed by a hash of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import posixpath
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import valid_lines

__all__ = ["FORMAT", "LABEL", "BackupFile", "BackupManifest", "parse_backup_manifest", "seal", "unseal"]

FORMAT = 1
#: Time of the copy in UTC and how it was made: sorts by age.
LABEL = re.compile(r"\d{8}T\d{6}Z-[a-z]+(-\d+)?")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class BackupFile:
    """``path`` is relative to the backup; ``size`` in bytes, ``sha256`` in hex."""

    path: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class BackupManifest:
    """Times are seconds since 1970. ``keys`` is database → (keys, of them with a time to live), as text → [int, int].

    ``slack`` is how many commands ran between the moment the numbers were read and the moment the copy shows; 0: they are exact.
    ``functions`` counts libraries, -1 where that was not known; ``code`` is the SHA-256 of their names and code.
    ``source`` is ``primary`` or ``replica``; ``slots`` are a cluster shard's ranges.
    ``settings`` is what a restore needs to know of the server. ``server`` says which one it was (identity.py); ``load_lines`` are the lines of
    its configuration without which its data does not load (release.py).
    """

    label: str
    group_name: str
    host: str
    method: str
    source: str
    why_source: str
    taken_at: float
    seconds: float
    product: str
    version: str
    replid: str
    offset: int
    slack: int
    keys: t.Mapping[str, t.Sequence[int]]
    used_memory: int
    functions: int
    files: tuple[BackupFile, ...]
    data: str
    slots: tuple[str, ...] = ()
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    code: str = ""
    server: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    load_lines: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def total_keys(self) -> int:
        return sum(int(counts[0]) for counts in self.keys.values())

    def render(self) -> str:
        return seal(dataclasses.asdict(self))


def _digest(content: t.Mapping[str, t.Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(content: t.Mapping[str, t.Any]) -> str:
    """``content`` as JSON text that carries the SHA-256 of all the rest, so that any flipped byte is found."""
    plain = json.loads(json.dumps(content))
    return json.dumps({**plain, "seal": _digest(plain)}, indent=1, sort_keys=True) + "\n"


def unseal(text: str, path: str) -> dict[str, t.Any]:
    """The content of sealed text, ``seal`` included. Raises Problem where it is not whole."""
    try:
        content = json.loads(text)
        sealed = content.pop("seal")
        whole = _digest(content) == sealed and seal(content) == text
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise Problem(
            "manifest_damaged",
            f"{path} is damaged: what it says does not match the hash that it carries",
            "the file as it was written",
            "use another backup, or fetch this one again from a repository",
        )
    return {**content, "seal": sealed}


def _safe(path: t.Any) -> bool:
    """Whether a path stays below the backup, in one spelling only."""
    return (
        isinstance(path, str)
        and bool(path)
        and "\0" not in path
        and "\\" not in path
        and not path.startswith("/")
        and posixpath.normpath(path) == path
        and ".." not in path.split("/")
    )


def _texts(given: t.Any) -> bool:
    return isinstance(given, dict) and all(isinstance(value, str) for value in given.values())


def parse_backup_manifest(text: str, path: str = "manifest.json") -> BackupManifest:
    """A manifest from its text. Raises Problem: damaged, of a newer format, or with file names that lead elsewhere."""
    content = unseal(text, path)
    content.pop("seal")

    def bad(what: str) -> Problem:
        return Problem(
            "manifest_invalid",
            f"{path}: {what}",
            "a manifest that this collection wrote",
            "use another backup; find out who wrote this one",
        )

    if content.get("format") != FORMAT:
        raise bad(f"its format is {content.get('format')!r}, this version reads {FORMAT}")
    try:
        files = tuple(BackupFile(**row) for row in content.pop("files"))
        manifest = BackupManifest(
            **{
                **content,
                "files": files,
                "slots": tuple(content.get("slots", ())),
                "notes": tuple(content.get("notes", ())),
                "load_lines": tuple(content.get("load_lines", ())),
            }
        )
        keys_fit = all(
            len(counts) == 2 and all(isinstance(number, int) for number in counts) for counts in manifest.keys.values()
        )
    except (TypeError, AttributeError):
        raise bad("fields are missing, or are none that it should have") from None
    problem = _fault(manifest, keys_fit)
    if problem:
        raise bad(problem)
    return manifest


def _fault(manifest: BackupManifest, keys_fit: bool) -> str:
    """What of a manifest's values is none, in words; empty where all are."""
    for file in manifest.files:
        if not _safe(file.path):
            return f"the file name {file.path!r} leads out of the backup"
        if not isinstance(file.size, int) or file.size < 0 or not _HASH.fullmatch(str(file.sha256)):
            return f"size or hash of {file.path} is none"
    paths = {file.path for file in manifest.files}
    faults = {
        "a file is named twice": len(paths) != len(manifest.files),
        "label or keys are none": not isinstance(manifest.label, str)
        or not LABEL.fullmatch(manifest.label)
        or not keys_fit,
        "what it says of the server is none": not (
            valid_lines(manifest.load_lines) and _texts(manifest.server) and _texts(manifest.settings)
        ),
        f"the data {manifest.data!r} is none of its files": manifest.data not in paths,
    }
    return next((words for words, holds in faults.items() if holds), "")
