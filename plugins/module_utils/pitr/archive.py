# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the archive of a multi-part AOF by hard links, and reads what was kept.

A rewrite deletes the files that it replaces. A link next to them keeps their content, at no cost until then. A link to the file that is
being written grows with it. The other side of it: what is cut off in the live file by hand (redis-check-aof --fix) is cut off here as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import os
import shutil
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    AofFile,
    AofManifest,
    parse_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import AofScan, scan_aof
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rdb_header import (
    RdbHeader,
    RdbHeaderError,
    read_header,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, Increment, window
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir, read_own
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access

__all__ = [
    "Archived",
    "archive",
    "archive_dirs",
    "archive_locked",
    "base_second",
    "drop_oldest",
    "homes",
    "open_regular",
    "scan_file",
    "set_of",
    "sets",
    "window",
]

_SUFFIX = ".manifest"
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Archived:
    """``directory`` holds the present base and its increments. ``linked``: names that were new; ``removed``: old directories that went."""

    directory: str
    linked: tuple[str, ...]
    removed: tuple[str, ...]
    manifest_written: bool

    @property
    def changed(self) -> bool:
        return bool(self.linked or self.removed or self.manifest_written)


class _Moved(Exception):
    """A rewrite took a file away while it was being looked at."""


def open_regular(path: str) -> t.BinaryIO:
    """A file to read. A link, a pipe or a device in its place is refused: the user of the server could have put it there. Raises Problem."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _no_file(path, "is a link") from None
        raise Problem(
            "unreadable", f"{path}: {error.strerror}", "a file that can be read (root)", "run with become: true"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path, "is no regular file")
    return open(descriptor, "rb")


def _no_file(path: str, what: str) -> Refusal:
    return Refusal(
        "aof_not_a_file",
        f"{path} {what}",
        "files of an AOF that Redis itself made",
        "see who put it there, and remove it",
    )


def archive_dirs(place: Place) -> str:
    """Where the archive of a server's AOF is kept by itself: on its file system, since hard links do not leave it."""
    return os.path.join(place.dir, "redisops-aof-archive")


def _folder_ready(place: Place, folder: str) -> None:
    """Make the folder, of root alone. Raises Problem."""
    live = os.path.realpath(place.aof_dir)
    if os.path.commonpath([os.path.realpath(folder), live]) == live:
        raise Refusal("history_folder", f"{folder} is within the AOF directory {place.aof_dir}", "a directory next to it, on the same file system",
                      "name another directory")  # fmt: skip
    try:
        if not os.path.lexists(folder):
            os.mkdir(folder, 0o700)
            fsync_dir(os.path.dirname(os.path.abspath(folder)))
        status = os.lstat(folder)
    except OSError as error:
        raise Problem("history_folder", f"{folder} cannot be made: {error.strerror}", "a writable directory above it",
                      f"make it: mkdir -p {os.path.dirname(folder)}") from None  # fmt: skip
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        what = "belongs to another user" if stat.S_ISDIR(status.st_mode) else "is no directory"
        raise Refusal(
            "history_folder",
            f"{folder} {what}",
            "a directory of root's, in which nobody else can write",
            "name another directory",
        )
    if status.st_mode & 0o077:
        raise Refusal(
            "history_folder",
            f"{folder} can be entered by others",
            "a directory of root's alone",
            f"chmod 0700 {folder}",
        )
    if status.st_dev != os.stat(place.aof_dir).st_dev:
        raise Refusal("history_elsewhere", f"{folder} is on another file system than {place.aof_dir}", "the same one: hard links do not cross",
                      f"name a directory below {place.dir}")  # fmt: skip


def _read_manifest(place: Place) -> AofManifest:
    """Base and increments that the manifest names now. Raises Problem."""
    try:
        with open_regular(place.manifest) as handle:
            text = handle.read(16 * 1024 * 1024).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise Refusal("no_manifest", f"there is no {place.manifest}", "a multi-part AOF (Redis 7.0 or newer, appendonly yes)",
                      "set appendonly: true; look at dir, appenddirname and appendfilename") from None  # fmt: skip
    found = AofManifest(parse_manifest(text, place.manifest).needed)
    if not found.base:
        raise Refusal(
            "aof_incomplete",
            f"{place.manifest} names no base",
            "a base and its increments",
            "let Redis write the AOF anew: BGREWRITEAOF",
        )
    return found


def _status(path: str) -> os.stat_result:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise _Moved(path) from None
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(path, "is a link" if stat.S_ISLNK(status.st_mode) else "is no regular file")
    return status


def _home(place: Place, folder: str, manifest: AofManifest) -> str:
    """The directory for this base; another one where a file of the same name is not the same file."""
    assert manifest.base
    found = {entry.name: _status(os.path.join(place.aof_dir, entry.name)) for entry in manifest.files}
    name = f"{manifest.base.seq:010d}-{found[manifest.base.name].st_ino}"
    for number in itertools.count(1):
        home = os.path.join(folder, name if number == 1 else f"{name}-{number}")
        kept = {entry: os.path.join(home, entry) for entry in found}
        if all(
            not os.path.lexists(path) or os.path.samestat(os.lstat(path), found[entry]) for entry, path in kept.items()
        ):
            return home
    raise AssertionError("unreachable")


def _link(source: str, target: str) -> bool:
    """Whether the link is new. Raises _Moved, Problem."""
    status = _status(source)
    if os.path.lexists(target):
        return False
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise _Moved(source) from None
    except OSError as error:
        raise Problem("history_folder", f"{source} cannot be linked to {target}: {error.strerror}", "a file system with hard links",
                      "name a directory on the file system of the AOF, and run with become: true") from None  # fmt: skip
    if not os.path.samestat(os.lstat(target), status):  # it was exchanged in between
        os.unlink(target)
        raise _Moved(source)
    return True


def _keep(place: Place, folder: str) -> tuple[str, list[str], bool]:
    """Link what is needed now, the manifest last. Raises _Moved, Problem."""
    manifest = _read_manifest(place)
    home = _home(place, folder, manifest)
    if not os.path.isdir(home):
        os.mkdir(home, 0o700)
        fsync_dir(folder)
    new = [
        entry.name
        for entry in manifest.files
        if _link(os.path.join(place.aof_dir, entry.name), os.path.join(home, entry.name))
    ]
    fsync_dir(home)
    if _read_manifest(place) != manifest:
        raise _Moved(place.manifest)
    copy = os.path.join(home, place.appendfilename + _SUFFIX)
    text = manifest.render()
    if os.path.lexists(copy) and read_own(copy) == text:
        return home, new, False
    StagedFile(copy, text, access=Access(os.geteuid(), os.getegid(), 0o600), follow=False).commit()
    return home, new, True


def archive(place: Place, folder: str, keep_seconds: int, now: float) -> Archived:
    """Link the files of the present AOF into ``folder``, and remove what is older than ``keep_seconds`` (``now``: seconds since 1970).

    A set is removed when its files were last written before that, and the base behind it is older than that too: every second within
    ``keep_seconds`` stays. Only one run works at a time; one that was killed is finished by the next. Raises Problem.
    """
    _read_manifest(place)
    try:
        _folder_ready(place, folder)
        with _locked(folder) as held:
            home, linked, written = _kept(place, held)
            removed = _outdated(held, home, now - keep_seconds)
            for name in removed:
                _remove(os.path.join(held, name))
    except OSError as error:
        raise Problem("history_folder", f"{error.filename or folder}: {error.strerror}", "a directory in which links can be made",
                      "see to that, then run again; what was kept before stays") from None  # fmt: skip
    return Archived(os.path.join(folder, os.path.basename(home)), tuple(linked), tuple(removed), written)


def _kept(place: Place, folder: str) -> tuple[str, list[str], bool]:
    """As _keep, until the manifest stays the same meanwhile. Raises Problem."""
    last = ""
    for _try in range(_TRIES):
        try:
            return _keep(place, folder)
        except _Moved as moved:
            last = str(moved)
    raise Problem("aof_incomplete", f"{last} is not there, or was exchanged, {_TRIES} times in a row", "the files that the manifest names",
                  "look at the AOF directory and the log of Redis; where rewrites follow each other closely, run again")  # fmt: skip


@contextlib.contextmanager
def archive_locked(folder: str) -> t.Iterator[None]:
    """Nobody keeps or removes anything in ``folder`` meanwhile; a folder that is not there is nobody's. For who reads it."""
    with _locked(folder) if os.path.isdir(folder) else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _locked(folder: str) -> t.Iterator[str]:
    """The folder by its descriptor, of root's own: the server's user, whose directory it lies in, may rename it and put a link in its place."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", folder)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _kept_in(folder: str) -> list[str]:
    """Names of the directories that archive() makes; nothing else in the folder is ours."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and entry.name.replace("-", "").isdigit() and "-" in entry.name
        )


def _outdated(folder: str, present: str, limit: float) -> list[str]:
    """Directories that no second after ``limit`` needs; those without a manifest were left by a run that was cut off."""
    whole: list[tuple[int, str]] = []
    found = []
    for name in _kept_in(folder):
        home = os.path.join(folder, name)
        if home == present:
            continue
        if max((os.lstat(os.path.join(home, one)).st_mtime for one in os.listdir(home)), default=0.0) < limit:
            found.append(name)
        if _manifests(home):
            whole.append((_base_at(home), name))
    whole.sort()
    after = {name: whole[number + 1][0] for number, (_at, name) in enumerate(whole[:-1])}
    if whole:
        after[whole[-1][1]] = _base_at(present)
    return [name for name in found if after.get(name, 0) <= limit]


def drop_oldest(folder: str, present: str) -> str:
    """Remove the oldest directory that is kept, but for ``present``; its name, or nothing where there is no other. Raises Problem."""
    try:
        with _locked(folder) as held:
            homes = [os.path.join(held, name) for name in _kept_in(held) if name != os.path.basename(present)]
            others = sorted((_base_at(home) if _manifests(home) else 0, home) for home in homes)
            if not others:
                return ""
            _remove(others[0][1])
            return os.path.basename(others[0][1])
    except OSError as error:
        raise Problem("history_folder", f"{error.filename or folder}: {error.strerror}", "a directory in which links can be removed",
                      "see to that, then run again") from None  # fmt: skip


def _remove(home: str) -> None:
    """The manifest goes first: what a killed run leaves is no set, and the next run removes it."""
    for path in _manifests(home):
        os.unlink(path)
    fsync_dir(home)
    shutil.rmtree(home)
    fsync_dir(os.path.dirname(home))


def _manifests(directory: str) -> list[str]:
    names = sorted(
        name for name in os.listdir(directory) if name.endswith(_SUFFIX) and not name.startswith(("temp-", "."))
    )
    return [os.path.join(directory, name) for name in names]


def _header(handle: t.BinaryIO) -> t.Optional[RdbHeader]:
    try:
        return read_header(handle)
    except RdbHeaderError:
        return None


def _made_at(path: str) -> int:
    """The second in which a base was made: as the RDB says, or the first timestamp of a base of commands, or when it was last written."""
    with open_regular(path) as handle:
        changed = int(os.fstat(handle.fileno()).st_mtime)
        header = _header(handle)
        if (
            header and header.ctime is not None and not header.number("aof-preamble")
        ):  # before 7.0 commands may follow the RDB
            return header.ctime
        if header:
            return changed
        handle.seek(0)
        line = handle.readline(64)
    return int(line[4:]) if line.startswith(b"#TS:") and line[4:].strip().isdigit() else changed


def _base_at(home: str) -> int:
    """As _made_at, for a directory; 0 where it is not known."""
    base = parse_manifest(read_own(_manifests(home)[0])).base
    try:
        return _made_at(os.path.join(home, base.name)) if base else 0
    except FileNotFoundError:
        return 0


#: What a file was found to be, by (device, inode, size, time): of hard links, and of many looks in one run, only one is read.
_SCANS: dict[tuple[int, int, int, int], AofScan] = {}


def scan_file(path: str) -> AofScan:
    """A file of commands, read from end to end once in a run. Raises Problem; FileNotFoundError where it is not there."""
    with open_regular(path) as handle:
        status = os.fstat(handle.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in _SCANS:
            found = scan_aof(handle, status.st_size)
            after = os.fstat(handle.fileno())
            if (after.st_size, after.st_mtime_ns) != key[2:]:
                return found
            _SCANS[key] = found
        return _SCANS[key]


def _increment(directory: str, entry: AofFile) -> Increment:
    path = os.path.join(directory, entry.name)
    try:
        found = scan_file(path)
    except FileNotFoundError:
        return Increment(path, entry.seq, ends="missing")
    return Increment(
        path,
        entry.seq,
        found.commands_end,
        found.first_timestamp,
        found.latest_timestamp,
        found.unstamped,
        found.commands,
        found.ends,
        found.since,
        found.plain,
    )


def _gaps(increments: t.Sequence[Increment]) -> t.Iterator[str]:
    for number, entry in enumerate(increments):
        if number and entry.seq != increments[number - 1].seq + 1:
            yield f"between {increments[number - 1].path} and {entry.name} numbers are missing"
        if entry.ends == "missing":
            yield f"{entry.path} is missing"
        elif entry.ends == "corrupt" or (entry.ends == "truncated" and entry is not increments[-1]):
            yield f"{entry.path} is damaged behind offset {entry.bytes}"


def set_of(directory: str, seen: t.Optional[int] = None) -> AofSet:
    """The AOF in a directory with its manifest: the live one, or a copy. Every increment is read from end to end.

    ``seen``: the second up to which the files are known to hold all commands: for a live directory now, once aof_buffer_length is 0; for
    a copy when it was begun. Without it nothing behind the last timestamp can be recovered. Raises Problem.
    """
    try:
        for _try in range(_TRIES):
            path, manifest = _only_manifest(directory)
            found = _read_set(directory, path, manifest, seen)
            if not found.gaps or _only_manifest(directory)[1] == manifest:
                break  # else a rewrite took files away meanwhile
    except OSError as error:
        raise Problem("unreadable", f"{error.filename or directory}: {error.strerror}", "files that can be read and stay (root)",
                      "run again, with become: true") from None  # fmt: skip
    return found


def _only_manifest(directory: str) -> tuple[str, AofManifest]:
    manifests = _manifests(directory) if os.path.isdir(directory) else []
    if len(manifests) != 1:
        what = (
            f"holds {len(manifests)} manifests" if manifests else "is a directory without a manifest, or no directory"
        )
        raise Problem(
            "no_manifest",
            f"{directory} {what}",
            "the directory of one multi-part AOF",
            "name the directory that appenddirname names",
        )
    with open_regular(manifests[0]) as handle:
        return manifests[0], parse_manifest(
            handle.read(16 * 1024 * 1024).decode("utf-8", "surrogateescape"), manifests[0]
        )


def _read_set(directory: str, named_in: str, manifest: AofManifest, seen: t.Optional[int]) -> AofSet:
    increments = tuple(_increment(directory, entry) for entry in manifest.increments)
    gaps = list(_gaps(increments))
    base_at, base_bytes, identity = 0, None, (0, 0)
    if manifest.base:
        path = os.path.join(directory, manifest.base.name)
        try:
            base_at, status = _made_at(path), os.stat(path)
            base_bytes, identity = status.st_size, (status.st_dev, status.st_ino)
        except FileNotFoundError:
            gaps.insert(0, f"{path} is missing")
    else:
        gaps.insert(0, f"{named_in} names no base")
    base_at = max([base_at, *(entry.since for entry in increments if entry.since is not None)])
    return AofSet(directory, manifest, base_at, base_bytes, increments, tuple(gaps), seen, identity)


def homes(folder: str) -> list[str]:
    """The directories that archive() has filled. Those without a manifest are of a run that was cut off. Raises Problem."""
    try:
        found = [os.path.join(folder, name) for name in _kept_in(folder)]
        return [home for home in found if _manifests(home)]
    except OSError as error:
        raise Problem("unreadable", f"{error.filename or folder}: {error.strerror}", "the directory in which the archive is kept",
                      "name it; run with become: true") from None  # fmt: skip


def sets(folder: str) -> list[AofSet]:
    """What archive() has kept, the oldest base first. Raises Problem."""
    return sorted((set_of(home) for home in homes(folder)), key=lambda one: (one.base_at, one.directory))


def _since_at_begin(path: str) -> int:
    """The second that a restore wrote at the beginning of an increment; 0 where none did."""
    try:
        with open_regular(path) as handle:
            return scan_aof(handle, 64).since or 0
    except FileNotFoundError:
        return 0


def base_second(directory: str) -> int:
    """AofSet.base_at of the set in ``directory``, without reading its commands. Raises Problem."""
    try:
        manifest = _only_manifest(directory)[1]
        since = [_since_at_begin(os.path.join(directory, entry.name)) for entry in manifest.increments]
        base = manifest.base and os.path.join(directory, manifest.base.name)
        return max([_made_at(base) if base and os.path.lexists(base) else 0, *since])
    except OSError as error:
        raise Problem("unreadable", f"{error.filename or directory}: {error.strerror}", "files that can be read and stay (root)",
                      "run again, with become: true") from None  # fmt: skip
