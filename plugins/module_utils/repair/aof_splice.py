# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes an AOF that loads out of a damaged one and what was kept of it elsewhere, and says what it lacks. Sources are only read.

The AOF of a backup by method ``aof``, or of the kept archive, is the same log: where the live one is damaged, its bytes take their place, and
where it stopped the live one goes on.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_loss import (
    AfterCorruption,
    after_corruption,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rdb_header import (
    RdbHeaderError,
    read_header,
)
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.archive import open_regular
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.collect import Piece, base_piece, piece_of
from ansible_collections.redisops.recovery.plugins.module_utils.pitr.window import AofSet, Increment, chains

__all__ = ["RepairedAof", "ctime_of", "from_names", "from_rdb", "repair_aof"]

_BLOCK = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class RepairedAof:
    """An AOF that can be put together. ``pieces``: the base, then increments; the last one is cut at ``cut_at`` where that is not None.

    ``bytes`` and ``commands`` of the live AOF are not in it (None: not known); ``at`` is the second that it reaches where that is known,
    ``until`` the greatest second of what it lacks. ``taken`` says in words which pieces are not the live ones. ``unsure``: a copy shows that
    the live file was cut short, and how much was written to it after that copy is not known.
    """

    pieces: tuple[Piece, ...]
    bytes: t.Optional[int] = 0
    commands: t.Optional[int] = 0
    at: t.Optional[int] = None
    until: t.Optional[int] = None
    cut_at: t.Optional[int] = None
    taken: tuple[str, ...] = ()
    unsure: bool = False

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


def ctime_of(path: str) -> t.Optional[int]:
    """When the save that made an RDB began, seconds since 1970, as the file says; None where it does not."""
    try:
        with open_regular(path) as handle:
            return read_header(handle).ctime
    except (RdbHeaderError, OSError):
        return None


def _same_start(one: str, other: str, count: int) -> bool:
    """Whether both files begin with the same ``count`` bytes (at least one)."""
    with open_regular(one) as first, open_regular(other) as second:
        left = count
        while left > 0:
            step = min(left, _BLOCK)
            block = first.read(step)
            if len(block) < step or block != second.read(step):
                return False
            left -= step
    return count > 0


def _same_base(live: AofSet, other: AofSet) -> bool:
    """Whether both began with the same base, as far as what is left of the live one shows."""
    mine, theirs = live.manifest.base, other.manifest.base
    if not mine or not theirs or mine.seq != theirs.seq or other.base_bytes is None:
        return False
    if live.identity == other.identity:
        return True
    known = ctime_of(live.base) if os.path.exists(live.base) else None
    if known is not None:
        return known == ctime_of(other.base)
    # Nothing of the live base says when it was made: the commands behind it do.
    return any(_same_log(one, two) for one in live.increments for two in other.increments)


def _same_log(live: Increment, other: Increment) -> bool:
    if live.seq != other.seq or "missing" in (live.ends, other.ends):
        return False
    return _same_start(live.path, other.path, min(live.bytes, other.bytes))


def _lives(one: AofSet, seq: int) -> list[tuple[int, int]]:
    """The restores that lie before the end of increment ``seq``: (number, second). Two sets that share them are copies of the same log up to there."""
    return [(entry.seq, entry.since) for entry in one.increments if entry.since is not None and entry.seq <= seq]


def _behind(one: AofSet, entry: Increment) -> t.Optional[Increment]:
    """The increment that follows; None where it is the last one."""
    return next((later for later in one.increments if later.seq > entry.seq), None)


def _cut_at(one: AofSet, entry: Increment) -> t.Optional[int]:
    """The second of the restore that cut an increment where it ends now; None where none did."""
    later = _behind(one, entry)
    return later.since if later else None


def _whole(other: AofSet, entry: Increment) -> bool:
    """Whether a copy of an increment has all that was ever written to it: Redis had gone on to the next, or it is a link to the file."""
    return _behind(other, entry) is not None or other.seen is None


@dataclasses.dataclass(frozen=True)
class _Better:
    """A copy that has what a damaged increment lacks: as an increment and as a piece, and from where. ``whole``: the live file had no more."""

    increment: Increment
    piece: Piece
    where: str
    whole: bool = True


def _instead(live: AofSet, entry: Increment, other: AofSet, copy: Increment) -> t.Optional[_Better]:
    """A copy of an increment of which nothing is left: taken as it is if it ends where the lost one did."""
    later = _behind(live, entry)
    if _cut_at(other, copy) != _cut_at(live, entry) or (later and later.ends == "missing"):
        return None  # one of the two was cut on purpose, or that is not known
    return _Better(copy, piece_of(copy, "", copy.bytes), other.directory) if _whole(other, copy) else None


def _up_to(entry: Increment, copy: Increment, size: int, where: str) -> t.Optional[_Better]:
    """The copy's bytes up to the live file's own size, which is the truth; None where no command ends there."""
    with open_regular(copy.path) as handle:
        found = scan_aof(handle, size)
    if found.ends != "clean":
        return None
    cut = dataclasses.replace(
        copy, bytes=size, last_ts=found.latest_timestamp, commands=found.commands, since=entry.since
    )
    return _Better(cut, piece_of(copy, "", size), where)


def _gone_on(entry: Increment, copy: Increment, size: int, where: str) -> t.Optional[_Better]:
    """The copy's bytes, and what the live file has behind them; None where that is damaged as well."""
    with open_regular(entry.path) as handle:
        handle.seek(copy.bytes)
        rest = scan_aof(handle)
    if rest.ends != "clean":
        return None
    stamps = [one for one in (copy.last_ts, rest.latest_timestamp) if one is not None]
    joined = dataclasses.replace(copy, bytes=size, last_ts=max(stamps, default=None))
    piece = dataclasses.replace(piece_of(copy, "", copy.bytes), then=(entry.path, size))
    return _Better(joined, piece, where)


def _of_copy(live: AofSet, entry: Increment, other: AofSet, copy: Increment) -> t.Optional[_Better]:
    """What one copy gives for a damaged or missing increment.

    How far the data reaches is what the live file's own size says: a restore cuts an increment on purpose, and a copy from before it has what was
    undone. Only the last increment may be completed, by a copy that was made since the last restore; how much more was written is not known then.
    """
    size = os.path.getsize(entry.path) if entry.ends != "missing" else 0
    if not size:
        return _instead(live, entry, other, copy)
    if size > copy.bytes:
        return _gone_on(entry, copy, size, other.directory)
    if _behind(live, entry) is None and size < copy.bytes:
        return _Better(copy, piece_of(copy, "", copy.bytes), other.directory, False)
    return _up_to(entry, copy, size, other.directory)


def _better(live: AofSet, entry: Increment, others: t.Sequence[AofSet]) -> t.Optional[_Better]:
    """The best copy of a damaged or missing increment; None where there is none of the same log."""
    found = []
    for other in others:
        for copy in other.increments:
            if copy.seq != entry.seq or copy.ends != "clean" or _lives(other, copy.seq) != _lives(live, entry.seq):
                continue
            if entry.ends != "missing" and copy.bytes <= entry.bytes:
                continue
            if _same_log(entry, copy) or (not entry.bytes and _same_base(live, other)):
                found.append(_of_copy(live, entry, other, copy))
    return max((one for one in found if one), key=lambda one: (one.whole, one.increment.bytes), default=None)


@dataclasses.dataclass(frozen=True)
class _Healed:
    """The live set with the copies of its damaged increments. ``special``: pieces that are no plain file, by the path of the increment.

    ``taken`` says in words what was taken. ``unsure``: the live file of one was cut short, so that more may have come behind the copy.
    """

    aof: AofSet
    special: t.Mapping[str, Piece]
    taken: t.Sequence[str]
    unsure: bool


def _healed(live: AofSet, others: t.Sequence[AofSet]) -> _Healed:
    increments: list[Increment] = []
    special: dict[str, Piece] = {}
    taken, unsure = [], False
    for entry in live.increments:
        better = None if entry.ends == "clean" else _better(live, entry, others)
        if better is None:
            increments.append(entry)
            continue
        increments.append(better.increment)
        special[better.increment.path] = better.piece
        unsure = unsure or not better.whole
        rest = f", and what the live one has behind offset {better.piece.bytes}" if better.piece.then[0] else ""
        rest += (
            ""
            if better.whole
            else ", which shows that the live one was cut short; what was written after that copy is not known"
        )
        taken.append(f"{entry.name} from {better.where}{rest}")
    return _Healed(dataclasses.replace(live, increments=tuple(increments)), special, taken, unsure)


def _lost(live: AofSet, used: t.Mapping[int, int], sizes: t.Mapping[int, int]) -> list[t.Optional[AfterCorruption]]:
    """What of the live increments is not used: ``used`` is bytes by number. None for one that is not there to be counted."""
    found: list[t.Optional[AfterCorruption]] = []
    for entry in live.increments:
        have = used.get(entry.seq, 0)
        if entry.ends == "missing":
            found += [] if entry.seq in used else [None]
        elif have < (entry.bytes if entry.ends == "clean" else sizes[entry.seq]):
            with open_regular(entry.path) as handle:
                found.append(after_corruption(handle, have))
    return found


def _sum(values: t.Iterable[t.Optional[int]]) -> t.Optional[int]:
    rows = list(values)
    return None if None in rows else sum(row for row in rows if row is not None)


def _assembled(
    live: AofSet,
    base: Piece,
    increments: t.Sequence[Increment],
    special: t.Mapping[str, Piece],
    appendfilename: str,
    taken: t.Sequence[str],
) -> RepairedAof:
    """Base and increments as pieces, up to the first place where they are not whole, and what that lacks."""
    sizes = {entry.seq: os.path.getsize(entry.path) for entry in live.increments if entry.ends != "missing"}
    pieces, used, cut_at, at = [base], {}, None, None
    for entry in increments:
        piece = special.get(entry.path) or piece_of(entry, appendfilename)
        piece = dataclasses.replace(piece, entry=AofFile(f"{appendfilename}.{entry.seq}.incr.aof", entry.seq, "i"))
        used[entry.seq] = entry.bytes
        at = entry.last_ts if entry.last_ts is not None else at
        if entry.ends != "clean":  # the tool cuts it, on the copy
            cut_at, piece = entry.bytes, dataclasses.replace(piece, bytes=sizes.get(entry.seq, entry.bytes))
            pieces.append(piece)
            break
        pieces.append(piece)
    lost = _lost(live, used, sizes)
    return RepairedAof(
        tuple(pieces),
        _sum(None if one is None else one.bytes for one in lost),
        _sum(None if one is None else one.commands for one in lost),
        at,
        max((one.timestamp for one in lost if one is not None and one.timestamp is not None), default=None),
        cut_at,
        tuple(taken),
    )


def _with_other_base(
    live: AofSet, healed: _Healed, others: t.Sequence[AofSet], appendfilename: str
) -> t.Iterator[RepairedAof]:
    """The live log behind the same base that another copy has."""
    increments = _in_order(healed.aof.increments)
    for other in others:
        if _same_base(live, other):
            words = [f"{os.path.basename(other.base)} from {other.directory}", *healed.taken]
            yield _assembled(live, base_piece(other, appendfilename), increments, healed.special, appendfilename, words)


def _with_earlier_base(
    live: AofSet, healed: _Healed, others: t.Sequence[AofSet], appendfilename: str, begun: float
) -> t.Iterator[RepairedAof]:
    """An earlier base, and all commands since: the damaged base is what they led to."""
    newest = max((one.base_at for one in others), default=0)
    begun = max(
        [begun, *(entry.since for one in (live, *others) for entry in one.increments if entry.since is not None)]
    )
    own = {entry.seq: entry for entry in healed.aof.increments}
    gone = dataclasses.replace(healed.aof, base_bytes=None, base_at=max(live.base_at, newest))
    numbers = {entry.seq for entry in live.increments}
    for chain in chains([*others, gone]):
        before = [entry.path for entry in chain.increments if entry.seq < min(numbers, default=0)]
        of_this = all(os.path.getmtime(path) > begun for path in before)
        if chain.origin is not gone and of_this and numbers & {entry.seq for entry in chain.increments}:
            words = [f"the earlier base and its increments from {chain.origin.directory}", *healed.taken]
            base, increments = (
                base_piece(chain.origin, appendfilename),
                [own.get(entry.seq, entry) for entry in chain.increments],
            )
            yield _assembled(live, base, increments, healed.special, appendfilename, words)


def _loses_less(one: RepairedAof, other: t.Optional[RepairedAof]) -> bool:
    """Whether ``one`` is better than what there is without it."""
    if other is None:
        return True
    return one.bytes is not None and (other.bytes is None or one.bytes < other.bytes)


def repair_aof(
    live: AofSet, others: t.Sequence[AofSet], base_is_good: bool, appendfilename: str, begun: float = 0.0
) -> tuple[t.Optional[RepairedAof], t.Optional[RepairedAof]]:
    """What the live AOF gives by itself (cut where it is damaged), and what it gives with the help of ``others``; None where nothing.

    ``others`` are whole: the caller has verified them. ``begun``: when other data was last put in the place of what was there, seconds since
    1970; numbers begin anew then, so that older increments do not lead to the live base. The second is None as well where it is no better than
    the first. Raises Problem.
    """
    alone, found = None, []
    healed = _healed(live, others)
    if base_is_good and live.base_bytes is not None:
        base = base_piece(live, appendfilename)
        alone = _assembled(live, base, _in_order(live.increments), {}, appendfilename, ())
        if healed.taken:
            found = [
                _assembled(live, base, _in_order(healed.aof.increments), healed.special, appendfilename, healed.taken)
            ]
    else:
        found = [
            *_with_other_base(live, healed, others, appendfilename),
            *_with_earlier_base(live, healed, others, appendfilename, begun),
        ]
    best = min(found, key=lambda one: float("inf") if one.bytes is None else one.bytes, default=None)
    if best and not _loses_less(best, alone):
        best = None
    return alone and dataclasses.replace(alone, unsure=healed.unsure), best and dataclasses.replace(
        best, unsure=healed.unsure
    )


def _in_order(increments: t.Sequence[Increment]) -> list[Increment]:
    """Increments up to the first that is damaged, or right before the first that is missing."""
    found: list[Increment] = []
    for entry in increments:
        if entry.ends == "missing" or (found and (found[-1].ends != "clean" or entry.seq != found[-1].seq + 1)):
            break
        found.append(entry)
    return found


def from_rdb(path: str, appendfilename: str) -> RepairedAof:
    """An AOF whose base is an RDB file."""
    name = AofFile(f"{appendfilename}.1.base.rdb", 1, "b")
    return RepairedAof((Piece(path, name, os.path.getsize(path)),), None, None, ctime_of(path))


@dataclasses.dataclass(frozen=True)
class _Names:
    """A base and the increments behind it, by the names of the files in a directory: (number, name) each."""

    base: tuple[int, str]
    increments: tuple[tuple[int, str], ...]


def _by_name(directory: str, appendfilename: str) -> t.Union[_Names, str]:
    """The files of the one AOF that lies there; or why that is not certain."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        return f"{directory}: {error.strerror}"
    stem = re.escape(appendfilename)
    found = {
        kind: sorted(
            (int(one.group(1)), one.group(0)) for one in (re.fullmatch(stem + end, name) for name in names) if one
        )
        for kind, end in (("base", r"\.(\d+)\.base\.(?:rdb|aof)"), ("incr", r"\.(\d+)\.incr\.aof"))
    }
    if appendfilename in names and not found["base"]:  # the one file of before 7.0, as a start moved it here
        found["base"] = [(1, appendfilename)]
    increments = found["incr"]
    if len(found["base"]) != 1:
        return f"{len(found['base'])} bases lie in {directory}: which one the increments follow is not known"
    numbers = [number for number, _name in increments]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return f"increments are missing between {increments[0][1]} and {increments[-1][1]}"
    base = found["base"][0]
    if numbers and numbers[0] < base[0]:  # both are counted up with each rewrite, whatever a copy has made of the times
        return f"{increments[0][1]} is older than {base[1]}: its commands may be in the base already"
    return _Names(base, tuple(increments))


def _increment_piece(path: str, entry: AofFile, since: t.Optional[float]) -> t.Union[Piece, str]:
    """A whole increment that was written to after second ``since`` (None: whenever); or why it is none."""
    name, status = os.path.basename(path), os.stat(path)
    if since is not None and status.st_size and status.st_mtime <= since:
        return f"{name} was last written to when the base was begun: its commands may be in the base already"
    with open_regular(path) as handle:
        scanned = scan_aof(handle)
    if scanned.ends != "clean":
        return f"{name} is damaged as well: {scanned.why}"
    return Piece(path, entry, status.st_size)


def from_names(directory: str, appendfilename: str) -> tuple[t.Optional[RepairedAof], str]:
    """An AOF whose manifest is gone or unreadable, by the names of its files; or None, and why that is not certain.

    There has to be one base, increments without a gap, and each of them written to after the base was begun: a rewrite that was cut off
    leaves older ones behind, whose commands are in the base already.
    """
    names = _by_name(directory, appendfilename)
    if isinstance(names, str):
        return None, names
    seq, base_name = names.base
    base = os.path.join(directory, base_name)
    begun = ctime_of(base)
    if begun is None and [number for number, _name in names.increments] not in ([], [1]):
        return None, f"{base} does not say when it was made"
    pieces = [Piece(base, AofFile(base_name, seq, "b"), os.path.getsize(base))]
    for number, name in names.increments:
        # The first base of all has no earlier increments; of a later one the same second is not known from before.
        since = None if begun is None or (seq, number) == (1, 1) else begun + 1
        piece = _increment_piece(os.path.join(directory, name), AofFile(name, number, "i"), since)
        if isinstance(piece, str):
            return None, piece
        pieces.append(piece)
    return RepairedAof(tuple(pieces)), ""
