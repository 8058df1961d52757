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
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    AofFile,
    AofManifest,
    parse_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof, since_line
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rollback_copy import (
    JOURNAL,
    RollbackCopy,
    live,
    mark_of,
    put_mark,
    rollback_copies,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.test_load import Loaded, loaded
from ansible_collections.redisops.recovery.plugins.module_utils.restore.open_rollback_copy import OpenRollbackCopy
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import Release
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access

__all__ = [
    "Staging",
    "check_staged",
    "discard",
    "discard_unfinished",
    "exchange",
    "finish",
    "note",
    "require_exchange",
    "require_something",
    "say_now",
    "serves",
    "stage",
    "swap",
    "swap_back",
    "turn",
]

_EXCHANGE, _AT_FDCWD = 2, -100


def exchange(one: str, other: str) -> None:
    """Switch two names of one file system, in one step. Raises OSError."""
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


def _journal(opened: OpenRollbackCopy, content: t.Mapping[str, t.Any]) -> None:
    text = json.dumps(content, sort_keys=True) + "\n"
    StagedFile(os.path.join(opened.at, JOURNAL), text, 0o600, follow=False).commit()


def _may_hold_live_data(rollback_copy: RollbackCopy) -> bool:
    """Whether a directory without a journal, or with a damaged one, may hold more than what a run that was cut off had staged."""
    return rollback_copy.swapped or rollback_copy.stays


def discard_unfinished(place: Place) -> list[str]:
    """Remove what runs that were cut off before their swap had staged; never what was swapped out. Gives what it removed.

    The caller has the lock of the data: no other run fills one of these now.
    """
    gone = []
    for rollback_copy in rollback_copies(place):
        if not _may_hold_live_data(rollback_copy):
            discard(rollback_copy.path)
            gone.append(rollback_copy.path)
    return gone


def discard(path: str) -> None:
    """Remove a rollback copy: its data first, the journal last, so that one that is half gone never looks like another thing.

    By its descriptor: what the server's user may put in its place meanwhile is neither entered nor removed. Raises OSError.
    """
    above = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        own = os.open(os.path.basename(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            if os.fstat(own).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it is not this user's own", path)
            for name in sorted(os.listdir(own), key=lambda name: name == JOURNAL):
                inside = f"/proc/{os.getpid()}/fd/{own}/{name}"
                if os.path.isdir(inside) and not os.path.islink(inside):
                    shutil.rmtree(inside)
                else:
                    os.unlink(inside)
        finally:
            os.close(own)
        os.rmdir(os.path.basename(path), dir_fd=above)
    finally:
        os.close(above)


def _copy(source: str, target: str) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        copy_file(descriptor, target)
    finally:
        os.close(descriptor)


def _inside(opened: OpenRollbackCopy, aof: bool) -> str:
    """The one name in the rollback copy that is the data."""
    return os.path.join(opened.at, os.path.basename(live(opened.place, aof)))


def _stage_aof(data: str, opened: OpenRollbackCopy) -> None:
    """An AOF directory with the server's own names, of an AOF or with an RDB as its base."""
    folder, own = _inside(opened, True), opened.place.appendfilename
    os.mkdir(folder, 0o700)
    if not data.endswith(".manifest"):
        entries = [(data, AofFile(f"{own}.1.base.rdb", 1, "b"))]
    else:
        theirs = os.path.basename(data)[: -len(".manifest")]
        entries = []
        for entry in parse_manifest(read_text(data), data).needed:
            name = own + entry.name[len(theirs) :] if entry.name.startswith(theirs + ".") else entry.name
            entries.append((os.path.join(os.path.dirname(data), entry.name), dataclasses.replace(entry, name=name)))
    for source, entry in entries:
        _copy(source, os.path.join(folder, entry.name))
    text = AofManifest(tuple(entry for _source, entry in entries)).render()
    StagedFile(os.path.join(folder, f"{own}.manifest"), text, 0o640, follow=False).commit()


@dataclasses.dataclass(frozen=True)
class Staging:
    """What is staged, and as what: ``owner`` (user id, group id), ``label`` of the backup. ``timeout`` and ``release`` are the temporary server's."""

    opened: OpenRollbackCopy
    aof: bool
    owner: tuple[int, int]
    label: str
    timeout: float
    release: Release


def _stage_rdb(data: str, to: Staging) -> None:
    """An RDB file; one that a temporary server makes where the backup is an AOF."""
    target = _inside(to.opened, False)
    if not data.endswith(".manifest"):
        _copy(data, target)
        return
    with loaded(data, os.path.dirname(os.path.dirname(os.path.dirname(data))), to.timeout, to.release) as copy:
        copy.server.command("SAVE")
        _copy(os.path.join(copy.directory, "dump.rdb"), target)


def _hand_over(directory: str, owner: tuple[int, int]) -> None:
    """What lies in ``directory``, which nobody else can enter, becomes the owner's; the directory itself stays ours."""
    for folder, _folders, files in os.walk(directory):
        for name in files:
            path = os.path.join(folder, name)
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fchown(descriptor, *owner)
                os.fchmod(descriptor, 0o660)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if folder != directory:
            os.chown(folder, *owner, follow_symlinks=False)
            os.chmod(folder, 0o750)
            fsync_dir(folder)


def stage(data: str, to: Staging) -> None:
    """Put the backup's data into the rollback copy in the form that the server reads, owned as its own. Raises Problem; nothing live is touched."""
    try:
        if to.aof:
            _stage_aof(data, to.opened)
        else:
            _stage_rdb(data, to)
        _hand_over(to.opened.at, to.owner)
        note(to.opened, to.aof, to.label)
    except OSError as error:
        raise Problem(
            "restore_write",
            f"{to.opened.path} could not be filled: {error.strerror or error}; nothing else was touched",
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
    like = os.lstat(path)
    if found.increments:
        last = os.path.join(folder, found.increments[-1].name)
        with open(os.open(last, os.O_RDONLY | os.O_NOFOLLOW), "rb") as handle:
            scan = scan_aof(handle)
        if scan.ends == "truncated" and ours:
            os.truncate(last, scan.good_up_to)
        elif scan.ends != "clean":
            return
    number = max([0, *(entry.seq for entry in found.increments)]) + 1
    entry = AofFile(f"{appendfilename}.{number}.incr.aof", number, "i")
    access = Access(like.st_uid, like.st_gid, 0o660)
    StagedFile(
        os.path.join(folder, entry.name), since_line(time.time()).decode("ascii"), access=access, follow=False
    ).commit()
    text = AofManifest((*found.files, entry)).render()
    StagedFile(path, text, access=Access(like.st_uid, like.st_gid, like.st_mode & 0o777), follow=False).commit()


def say_now(opened: OpenRollbackCopy, aof: bool) -> None:
    """Between the stop and the swap: what was staged a while ago becomes the server's now. Raises Problem."""
    folder = _inside(opened, aof)
    if not aof or not os.path.isdir(folder):
        return
    path = os.path.join(folder, f"{opened.place.appendfilename}.manifest")
    with contextlib.suppress(Problem, OSError):  # what was damaged when it was put aside says nothing
        increments = parse_manifest(read_text(path), path).increments
        last = os.path.join(folder, increments[-1].name) if increments else ""
        if (
            last
            and os.stat(last).st_size == len(since_line(time.time()))
            and read_text(last).startswith("#REDISOPS-SINCE:")
        ):
            StagedFile(last, since_line(time.time()).decode("ascii"), follow=False).commit()


def note(opened: OpenRollbackCopy, aof: bool, label: str) -> None:
    """Say what was staged, last of all: without it, what is there counts for nothing."""
    came = _inside(opened, aof)
    if aof:
        _say_since(came, opened.place.appendfilename, True)
    _journal(opened, {"aof": aof, "label": label, "came": put_mark(came), "finished": False})


def _read_journal(opened: OpenRollbackCopy) -> dict[str, t.Any]:
    return dict(json.loads(read_text(os.path.join(opened.at, JOURNAL))))


def finish(opened: OpenRollbackCopy) -> None:
    """Say that the server runs with what came."""
    _journal(opened, {**_read_journal(opened), "finished": True})


def serves(opened: OpenRollbackCopy) -> None:
    """Say that what came is live, and clients may write to it: from here on it is never removed unasked, wherever it lies."""
    _journal(opened, {**_read_journal(opened), "stays": True})


def _exchange_or_move(here: str, there: str) -> None:
    """Swap two names, or move the one that there is."""
    if os.path.lexists(here) and os.path.lexists(there):
        exchange(here, there)
    elif os.path.lexists(there):
        os.rename(there, here)
    elif os.path.lexists(here):
        os.rename(here, there)


def swap(opened: OpenRollbackCopy, aof: bool) -> None:
    """Let what is staged and what is live be switched at once; the server is stopped. What else a later start might read goes into the rollback copy.

    Raises Problem; also where nothing is staged: what is live is never moved away for nothing. Called again, it swaps back.
    """
    place = opened.place
    here, there = live(place, aof), _inside(opened, aof)
    try:
        if not os.path.lexists(there) and _read_journal(opened).get("came") != "":
            raise FileNotFoundError(errno.ENOENT, "nothing is staged there any more")
        if os.path.islink(here):
            raise OSError(errno.ELOOP, "it is a link")
        _exchange_or_move(here, there)
        fsync_dir(place.dir)
        fsync_dir(opened.at)
        # The form that is not read now: of the data that was, and no neighbour for the data that is.
        other = live(place, not aof)
        _exchange_or_move(other, os.path.join(opened.at, os.path.basename(other)))
        fsync_dir(place.dir)
        fsync_dir(opened.at)
    except OSError as error:
        raise Problem(
            "swap_failed",
            f"the data and {os.path.basename(there)} in {opened.path} could not be switched at once: {error.strerror or error}",
            "a file system that can do so, and what was staged",
            f"both are whole: see which one is the data, and look at {opened.path}",
        ) from None


def swap_back(opened: OpenRollbackCopy, aof: bool) -> None:
    """Undo swap(). Raises Problem; a swap that failed before it did anything is not done by undoing it."""
    if _is_swapped(opened, aof):
        swap_again = _read_journal(opened)
        _journal(
            opened, {**swap_again, "came": "" if not os.path.lexists(_inside(opened, aof)) else swap_again["came"]}
        )
        swap(opened, aof)
        _journal(opened, swap_again)


def _is_swapped(opened: OpenRollbackCopy, aof: bool) -> bool:
    came = _read_journal(opened).get("came")
    return bool(came) and mark_of(_inside(opened, aof)) != came


def turn(opened: OpenRollbackCopy, rollback_copy: RollbackCopy) -> None:
    """Before a swap back: what the rollback copy has is what is to come, and was live once. Raises Problem."""
    inside = _inside(opened, rollback_copy.aof)
    require_something(rollback_copy, opened.place)
    if rollback_copy.aof:
        with contextlib.suppress(Problem, OSError):  # what was damaged when it was put aside is no worse for that
            _say_since(inside, opened.place.appendfilename, False)
    _journal(
        opened,
        {
            "aof": rollback_copy.aof,
            "label": rollback_copy.label,
            "came": put_mark(inside),
            "stays": True,
            "finished": False,
        },
    )


def require_something(rollback_copy: RollbackCopy, place: Place) -> None:
    """The rollback copy holds data. Raises Refusal."""
    if not os.path.lexists(rollback_copy.staged(place)):
        raise Refusal(
            "nothing_to_bring_back",
            f"{rollback_copy.path} holds no {os.path.basename(live(place, rollback_copy.aof))}: there was no data before",
            "the data that was",
            "restore a backup",
        )


def check_staged(
    opened: OpenRollbackCopy, aof: bool, timeout: float, release: Release, look: t.Callable[[Loaded], None]
) -> None:
    """Load what is staged in a temporary server, and let ``look`` at it. Raises Problem."""
    folder = _inside(opened, aof)
    data = os.path.join(folder, f"{opened.place.appendfilename}.manifest") if aof else folder
    paths = [os.path.join(folder, name) for name in os.listdir(folder)] if aof else [data]
    before = {path: os.stat(path) for path in paths}
    try:
        with loaded(data, opened.at, timeout, release, os.stat(data).st_gid) as copy:
            look(copy)
            copy.server.close()
    finally:  # the temporary server was let in by links to these very files
        for path, status in before.items():
            os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
            os.chmod(path, status.st_mode & 0o7777)
