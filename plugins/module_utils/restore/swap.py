# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages data next to a server's own, and swaps the two in one step of the file system, forth or back.

With the AOF on a start reads the AOF's directory and nothing else, with it off the RDB file and nothing else. So one name is the data, and
exchanging that name with the staged one is the whole swap: at no moment is there neither, and a cut leaves the one or the other. What was
there before stands in the rollback copy from then on.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import shutil
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.copy import copy_file
from ansible_collections.redisops.recovery.plugins.module_utils.backup.test_load import Loaded, loaded
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    AofFile,
    AofManifest,
    parse_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof, since_line
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.restore.rollback_copy import (
    JOURNAL,
    RollbackCopy,
    identity_of,
    live,
    rollback_copies,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir, read_text

__all__ = [
    "Staging",
    "begin",
    "check_staged",
    "discard_unfinished",
    "exchange",
    "finish",
    "note",
    "require_exchange",
    "say_now",
    "stage",
    "swap",
    "turn",
]

_EXCHANGE, _AT_FDCWD = 2, -100


def exchange(one: str, other: str) -> None:
    """Let two names of one file system are switched at once, at once. Raises OSError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def require_exchange(directory: str) -> None:
    """The file system of ``directory`` can exchange two names. Raises Refusal; nothing is left behind."""
    pair = [os.path.join(directory, f".redisops-exchange-{number}") for number in (1, 2)]
    try:
        for path in pair:
            shutil.rmtree(path, ignore_errors=True)  # what a run that was cut off may have left
            os.mkdir(path, 0o700)
        exchange(*pair)
    except OSError as error:
        raise Refusal(
            "cannot_exchange",
            f"the file system of {directory} cannot exchange two names ({error.strerror})",
            "renameat2 with RENAME_EXCHANGE, as ext4, XFS, Btrfs and tmpfs have it",
            "put the data on such a file system",
        ) from None
    finally:
        for path in pair:
            shutil.rmtree(path, ignore_errors=True)


def _journal(path: str, content: t.Mapping[str, t.Any]) -> None:
    StagedFile(os.path.join(path, JOURNAL), json.dumps(content, sort_keys=True) + "\n", 0o600).commit()


def discard_unfinished(place: Place) -> list[str]:
    """Remove what runs that were cut off before their swap had staged; never what was swapped out. Gives what it removed."""
    gone = []
    for rollback_copy in rollback_copies(place):
        if not (rollback_copy.swapped or rollback_copy.stays):
            shutil.rmtree(rollback_copy.path)
            gone.append(rollback_copy.path)
    return gone


def begin(place: Place, now: float) -> str:
    """An empty rollback copy. Raises Problem."""
    stem = path = os.path.join(place.dir, "redisops-restore-" + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)))
    number = 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}"
    try:
        os.mkdir(path, 0o700)
        fsync_dir(place.dir)
    except OSError as error:
        raise Problem(
            "restore_write",
            f"{path} could not be made: {error.strerror or error}",
            "a data directory that can be written",
            "see to that, then run again",
        ) from None
    return path


def _copy(source: str, target: str) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        copy_file(descriptor, target)
    finally:
        os.close(descriptor)


def _stage_aof(data: str, rollback_copy: str, place: Place) -> None:
    """An AOF directory with the server's own names, of an AOF or with an RDB as its base."""
    folder = os.path.join(rollback_copy, os.path.basename(place.aof_dir))
    os.mkdir(folder, 0o750)
    if not data.endswith(".manifest"):
        entries = [(data, AofFile(f"{place.appendfilename}.1.base.rdb", 1, "b"))]
    else:
        theirs = os.path.basename(data)[: -len(".manifest")]
        entries = []
        for entry in parse_manifest(read_text(data), data).needed:
            name = (
                place.appendfilename + entry.name[len(theirs) :] if entry.name.startswith(theirs + ".") else entry.name
            )
            entries.append((os.path.join(os.path.dirname(data), entry.name), dataclasses.replace(entry, name=name)))
    for source, entry in entries:
        _copy(source, os.path.join(folder, entry.name))
    text = AofManifest(tuple(entry for _source, entry in entries)).render()
    StagedFile(os.path.join(folder, f"{place.appendfilename}.manifest"), text, 0o640).commit()


@dataclasses.dataclass(frozen=True)
class Staging:
    """Where data is staged, and as what: ``owner`` (user id, group id), ``label`` of the backup. ``timeout`` and ``databases`` are the temporary server's."""

    rollback_copy: str
    place: Place
    aof: bool
    owner: tuple[int, int]
    label: str
    timeout: float
    databases: str


def _stage_rdb(data: str, to: Staging) -> None:
    """An RDB file; one that a temporary server makes where the backup is an AOF."""
    target = os.path.join(to.rollback_copy, os.path.basename(to.place.rdb))
    if not data.endswith(".manifest"):
        _copy(data, target)
        return
    with loaded(data, os.path.dirname(os.path.dirname(os.path.dirname(data))), to.timeout, to.databases) as copy:
        copy.server.command("SAVE")
        _copy(os.path.join(copy.directory, "dump.rdb"), target)


def _hand_over(directory: str, owner: tuple[int, int]) -> None:
    """What lies in ``directory`` becomes the owner's; the directory itself stays ours."""
    for folder, _folders, files in os.walk(directory):
        for name in files:
            os.chown(os.path.join(folder, name), *owner, follow_symlinks=False)
            os.chmod(os.path.join(folder, name), 0o660)
        if folder != directory:
            os.chown(folder, *owner, follow_symlinks=False)
            os.chmod(folder, 0o750)
            fsync_dir(folder)


def stage(data: str, to: Staging) -> None:
    """Put the backup's data into the rollback copy in the form that the server reads, owned as its own. Raises Problem; nothing live is touched."""
    try:
        if to.aof:
            _stage_aof(data, to.rollback_copy, to.place)
        else:
            _stage_rdb(data, to)
        _hand_over(to.rollback_copy, to.owner)
        note(to.rollback_copy, to.place, to.aof, to.label)
    except OSError as error:
        raise Problem(
            "restore_write",
            f"{to.rollback_copy} could not be filled: {error.strerror or error}; nothing else was touched",
            "a data directory with room",
            "see to that, then run again",
        ) from None


def _say_since(folder: str, appendfilename: str, ours: bool) -> None:
    """End an AOF that a restore brings with an increment that says from when on it is the server's: going back in time needs to know.

    Redis takes no increment behind one that ends within a command, as after a crash: in ``ours``, a copy, that piece is cut off, which Redis
    would do as well; in somebody else's nothing is stated. The manifest comes last; without it Redis reads no such file.
    """
    path = os.path.join(folder, f"{appendfilename}.manifest")
    found = parse_manifest(read_text(path), path)
    like = os.stat(path)
    if found.increments:
        last = os.path.join(folder, found.increments[-1].name)
        with open(last, "rb") as handle:
            scan = scan_aof(handle)
        if scan.ends == "truncated" and ours:
            os.truncate(last, scan.good_up_to)
        elif scan.ends != "clean":
            return
    number = max([0, *(entry.seq for entry in found.increments)]) + 1
    entry = AofFile(f"{appendfilename}.{number}.incr.aof", number, "i")
    access = (like.st_uid, like.st_gid, 0o660)
    StagedFile(
        os.path.join(folder, entry.name), since_line(time.time()).decode("ascii"), access=access, follow=False
    ).commit()
    text = AofManifest((*found.files, entry)).render()
    StagedFile(path, text, access=(like.st_uid, like.st_gid, like.st_mode & 0o777), follow=False).commit()


def say_now(rollback_copy: str, place: Place, aof: bool) -> None:
    """Between the stop and the swap: what was staged a while ago becomes the server's now. Raises Problem."""
    folder = os.path.join(rollback_copy, os.path.basename(live(place, aof)))
    if not aof or not os.path.isdir(folder):
        return
    path = os.path.join(folder, f"{place.appendfilename}.manifest")
    with contextlib.suppress(Problem, OSError):  # what was damaged when it was put aside says nothing
        increments = parse_manifest(read_text(path), path).increments
        last = os.path.join(folder, increments[-1].name) if increments else ""
        if (
            last
            and os.stat(last).st_size == len(since_line(time.time()))
            and read_text(last).startswith("#REDISOPS-SINCE:")
        ):
            StagedFile(last, since_line(time.time()).decode("ascii"), follow=False).commit()


def note(rollback_copy: str, place: Place, aof: bool, label: str) -> None:
    """Say what was staged, last of all: without it, what is there counts for nothing."""
    came = os.path.join(rollback_copy, os.path.basename(live(place, aof)))
    if aof:
        _say_since(came, place.appendfilename, True)
    _journal(rollback_copy, {"aof": aof, "label": label, "came": identity_of(came), "finished": False})
    fsync_dir(rollback_copy)


def finish(rollback_copy: str) -> None:
    """Say that the server runs with what came."""
    content = json.loads(read_text(os.path.join(rollback_copy, JOURNAL)))
    _journal(rollback_copy, {**content, "finished": True})


def _staged_data(rollback_copy: str, place: Place, aof: bool) -> str:
    """What a temporary server loads of what is staged."""
    folder = os.path.join(rollback_copy, os.path.basename(live(place, aof)))
    return os.path.join(folder, f"{place.appendfilename}.manifest") if aof else folder


def swap(place: Place, rollback_copy: str, aof: bool) -> None:
    """Let what is staged and what is live are switched at once; the server is stopped. What else a later start might read goes into the rollback copy.

    Raises Problem. Called again, it swaps back.
    """
    here, there = live(place, aof), os.path.join(rollback_copy, os.path.basename(live(place, aof)))
    try:
        if os.path.lexists(here) and os.path.lexists(there):
            exchange(here, there)
        elif os.path.lexists(there):
            os.rename(there, here)
        else:
            os.rename(here, there)
        fsync_dir(place.dir)
        fsync_dir(rollback_copy)
        # The form that is not read now: of the data that was, and no neighbour for the data that is.
        other = live(place, not aof)
        aside = os.path.join(rollback_copy, os.path.basename(other))
        if os.path.lexists(other) and os.path.lexists(aside):
            exchange(other, aside)
        elif os.path.lexists(other):
            os.rename(other, aside)
        elif os.path.lexists(aside):
            os.rename(aside, other)
        fsync_dir(place.dir)
        fsync_dir(rollback_copy)
    except OSError as error:
        raise Problem(
            "swap_failed",
            f"{here} and {there} could not be switched at once: {error.strerror or error}",
            "a file system that can do so",
            f"both are whole: see which one is the data, and look at {rollback_copy}",
        ) from None


def turn(rollback_copy: RollbackCopy, place: Place) -> RollbackCopy:
    """Before a swap back: what the rollback copy has is what is to come, and was live once. Raises Problem."""
    inside = identity_of(rollback_copy.staged(place))
    if not inside:
        raise Problem(
            "nothing_to_bring_back",
            f"{rollback_copy.path} holds no {os.path.basename(live(place, rollback_copy.aof))}: there was no data before",
            "the data that was",
            "restore a backup",
        )
    if rollback_copy.aof:
        with contextlib.suppress(Problem, OSError):  # what was damaged when it was put aside is no worse for that
            _say_since(rollback_copy.staged(place), place.appendfilename, False)
    _journal(
        rollback_copy.path,
        {"aof": rollback_copy.aof, "label": rollback_copy.label, "came": inside, "stays": True, "finished": False},
    )
    return dataclasses.replace(rollback_copy, swapped=False, stays=True)


def check_staged(
    rollback_copy: str, place: Place, aof: bool, timeout: float, databases: str, look: t.Callable[[Loaded], None]
) -> None:
    """Load what is staged in a temporary server, and let ``look`` at it. Raises Problem."""
    data = _staged_data(rollback_copy, place, aof)
    folder = os.path.dirname(data) if aof else ""
    before = {
        path: os.stat(path) for path in ([os.path.join(folder, name) for name in os.listdir(folder)] if aof else [data])
    }
    try:
        with loaded(data, rollback_copy, timeout, databases, os.stat(data).st_gid) as copy:
            look(copy)
            copy.server.close()
    finally:  # the temporary server was let in by links to these very files
        for path, status in before.items():
            os.chown(path, status.st_uid, status.st_gid)
            os.chmod(path, status.st_mode & 0o7777)
