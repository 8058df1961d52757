# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the AOF of an earlier moment from what was kept, and finds the moment. The sources are only read.

Keys whose time to live has passed meanwhile are dropped by a server that loads the result, as it would drop them anyway.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.check_tool_output import parse_check_aof
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import open_regular
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.collect import (
    Piece,
    base_piece,
    command_at,
    first_after,
    last_timestamp,
    piece_of,
    vanished,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, choose
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host

__all__ = ["Cut", "require_aof", "stage_at", "stage_before", "stage_pieces"]

_BLOCK = 4 * 1024 * 1024
_SPARE = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Cut:
    """A new AOF directory. ``base`` and ``increments`` are names in it; ``commands_dropped_bytes`` were left out behind the cut.

    ``at``: the second asked for, or of the command before which was cut (None: not known). ``last_ts``: the last timestamp in it.
    """

    directory: str
    base: str
    increments: tuple[str, ...]
    commands_dropped_bytes: int
    at: t.Optional[int]
    last_ts: t.Optional[int]


def _check_aof(host: Host, *args: str) -> Completed:
    done = host.run(host.tool("check-aof"), *args)
    if done.code != 127:
        return done
    raise Problem("no_check_tool", "redis-check-aof is not installed", "Redis' own check tools", "install redis-tools")


def require_aof(host: Host, manifest: str, *options: str) -> None:
    """Let Redis' own tool cut, or only look. Raises Refusal: what it does not take is not staged."""
    done = _check_aof(host, *options, manifest)
    verdict = parse_check_aof(done.code, done.output)
    if not verdict.ok:
        raise Refusal("cut_not_verified", f"redis-check-aof does not take the files that were put together: {verdict.reason}", "files without damage",
                      "look at the sources with redis_file_check; use another copy, or a backup")  # fmt: skip


def _copy(piece: Piece, target: str) -> None:
    """Exactly the bytes that were seen; a file that is being written may have more by now."""
    with open(target, "xb") as copy:
        for path, begin, end in ((piece.path, 0, piece.bytes), (piece.then[0], piece.bytes, piece.then[1])):
            if path:
                _append(path, begin, end, copy)


def _append(path: str, begin: int, end: int, copy: t.BinaryIO) -> None:
    try:
        source = open_regular(path)
    except FileNotFoundError:
        raise vanished(path) from None
    with source:
        source.seek(begin)
        while begin < end:
            block = source.read(min(end - begin, _BLOCK))
            if not block:
                raise vanished(path)
            copy.write(block)
            begin += len(block)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(path: str) -> None:
    """What a run that was killed has left."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise Refusal(
            "target_exists",
            f"{path} is in the way, and no directory",
            "a place that nobody else uses",
            f"look at it, then remove it: rm {path}",
        )
    shutil.rmtree(path)


def _ready(target: str, pieces: t.Sequence[Piece]) -> str:
    """The name to work under; nothing has been written yet. Raises Refusal."""
    parent, name = os.path.split(os.path.abspath(target))
    if os.path.lexists(target):
        raise Refusal(
            "target_exists",
            f"{target} exists",
            "a name that does not exist yet",
            "name another directory, or move this one aside",
        )
    if not os.path.isdir(parent):
        raise Refusal(
            "target_exists",
            f"there is no directory {parent} to make {name} in",
            "a directory above it",
            f"make it: mkdir -p {parent}",
        )
    work = os.path.join(parent, f".{name}.redisops-new")
    _clear(work)
    need, space = sum(piece.size for piece in pieces) + _SPARE, os.statvfs(parent)
    if space.f_bavail * space.f_frsize < need:
        raise Refusal(
            "disk_space",
            f"{parent} has {space.f_bavail * space.f_frsize} bytes free",
            f"{need} bytes for the copy",
            "free space there",
        )
    return work


def _fill(work: str, pieces: t.Sequence[Piece], appendfilename: str) -> str:
    os.mkdir(work, 0o700)
    for piece in pieces:
        _copy(piece, os.path.join(work, piece.entry.name))
    manifest = os.path.join(work, appendfilename + ".manifest")
    with open(manifest, "x", encoding="utf-8", errors="surrogateescape", newline="") as handle:
        handle.write(AofManifest(tuple(piece.entry for piece in pieces)).render())
    return manifest


def _publish(work: str, target: str, owner: tuple[int, int]) -> None:
    """Owner and mode, then to the disk, then its name: whoever sees the directory sees all of it."""
    for name in os.listdir(work):
        path = os.path.join(work, name)
        os.chown(path, *owner, follow_symlinks=False)
        os.chmod(path, 0o640)
        _sync(path)
    os.chown(work, *owner)
    os.chmod(work, 0o750)
    fsync_dir(work)
    os.rename(work, target)
    fsync_dir(os.path.dirname(os.path.abspath(target)))


def stage_pieces(
    pieces: t.Sequence[Piece], target: str, appendfilename: str, owner: tuple[int, int], cut: t.Callable[[str], None]
) -> t.Optional[int]:
    """Put the files together, let ``cut`` cut and verify them, and give them their name. The last timestamp. Raises Problem."""
    try:
        work = _ready(target, pieces)
        try:
            cut(_fill(work, pieces, appendfilename))
            last = last_timestamp([os.path.join(work, piece.entry.name) for piece in pieces[1:]])
            _publish(work, target, owner)
        finally:
            if os.path.isdir(work):
                shutil.rmtree(work)
    except OSError as error:
        raise Refusal("target_not_written", f"{error.filename or target}: {error.strerror}", "a directory that can be written, and free space",
                      "see to that, then run again") from None  # fmt: skip
    return last


def stage_at(
    sets: t.Sequence[AofSet], at: int, target_dir: str, appendfilename: str, host: Host, owner: tuple[int, int]
) -> Cut:
    """The AOF as it was at the end of second ``at`` (since 1970), as a new directory of ``owner`` (user id, group id).

    redis-check-aof cuts the copy; where it cut is compared with where the timestamps say. Raises Refusal, with the ranges that exist.
    """
    chain = choose(sets, at)
    pieces, expected = [base_piece(chain.origin, appendfilename)], 0
    for entry in chain.increments:
        size, later = entry.bytes, False
        if entry.last_ts is not None and entry.last_ts > at:
            size, later = first_after(entry, at), True
        if size or not later:  # redis-check-aof refuses a file of which nothing is left
            pieces.append(piece_of(entry, appendfilename))
            expected = size
        if later:
            break
    dropped = sum(entry.bytes for entry in chain.increments) - sum(piece.bytes for piece in pieces[1:])
    if len(pieces) > 1:
        dropped += pieces[-1].bytes - expected

    def cut(manifest: str) -> None:
        require_aof(host, manifest, "--truncate-to-timestamp", str(at))
        last = os.path.join(os.path.dirname(manifest), pieces[-1].entry.name)
        if len(pieces) > 1 and os.stat(last).st_size != expected:
            raise Refusal("cut_not_verified", f"redis-check-aof cut {pieces[-1].path} at {os.stat(last).st_size}, its timestamps say {expected}",
                          "a tool and a file that agree", "report both; the sources are as they were")  # fmt: skip

    last_ts = stage_pieces(pieces, target_dir, appendfilename, owner, cut)
    names = tuple(piece.entry.name for piece in pieces)
    return Cut(target_dir, names[0], names[1:], dropped, at, last_ts)


def stage_before(
    one: AofSet, spot: tuple[str, int], target_dir: str, appendfilename: str, host: Host, owner: tuple[int, int]
) -> Cut:
    """The AOF as it was right before the command at ``spot`` (name of the increment, offset as in Spot), to the byte.

    An offset within a MULTI cuts before the MULTI. Raises Refusal, also where no command begins there or files before it are missing.
    """
    name, offset = spot
    pieces, previous = [base_piece(one, appendfilename)], None
    for entry in one.increments:
        broken = entry.ends == "missing" or (previous and (previous.ends != "clean" or previous.seq + 1 != entry.seq))
        if broken:
            raise Refusal("history_gap", f"what comes before {name} is not whole: {'; '.join(one.gaps)}", "every increment before it",
                          "find the files that are missing, or use a backup")  # fmt: skip
        if entry.name == name:
            break
        pieces.append(piece_of(entry, appendfilename))
        previous = entry
    else:
        raise Refusal(
            "no_such_command",
            f"{one.directory} has no increment {name}",
            "the name and offset that the search gave",
            "search again",
        )
    place = command_at(entry, offset)
    if place is None:
        raise Refusal("no_such_command", f"no command begins at offset {offset} of {entry.path}", "the name and offset that the search gave",
                      "search again")  # fmt: skip
    size, stamp = place
    if stamp is None:  # an increment takes the time over from the one before
        stamp = last_timestamp([piece.path for piece in pieces[1:]])
    if size:
        pieces.append(piece_of(entry, appendfilename, size))
    dropped = sum(later.bytes for later in one.increments if later.seq >= entry.seq) - size
    last_ts = stage_pieces(pieces, target_dir, appendfilename, owner, lambda manifest: require_aof(host, manifest))
    names = tuple(piece.entry.name for piece in pieces)
    return Cut(target_dir, names[0], names[1:], dropped, stamp, last_ts)
