# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which seconds a collection of multi-part AOFs can bring back, and by which files."""

from __future__ import annotations

import dataclasses
import posixpath
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofManifest

__all__ = ["AofSet", "Chain", "Increment", "chains", "choose", "window"]


@dataclasses.dataclass(frozen=True)
class Increment:
    """One file of commands. ``bytes`` of it are whole commands; times are seconds since 1970.

    ``first_ts``, ``last_ts``: the first and the greatest ``#TS:``, None where there is none. ``unstamped``: commands before the first.
    ``ends``: clean, truncated or corrupt as in AofScan, or missing. ``since`` and ``plain``: as in AofScan.
    """

    path: str
    seq: int
    bytes: int = 0
    first_ts: t.Optional[int] = None
    last_ts: t.Optional[int] = None
    unstamped: int = 0
    commands: int = 0
    ends: str = "clean"
    since: t.Optional[int] = None
    plain: int = 0

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


@dataclasses.dataclass(frozen=True)
class AofSet:
    """One base with its increments, as a manifest in ``directory`` names them.

    ``base_at``: the second in which the base was made; where a restore brought the set, the second of that, since the server's data was another
    until then. ``base_bytes``: None where the base is not there, then nothing can be recovered.
    ``gaps``: what is missing, in words. ``seen``: the second up to which the files hold all commands, where that is known.
    ``identity``: device and inode of the base: two directories with the same one are the same set.
    """

    directory: str
    manifest: AofManifest
    base_at: int
    base_bytes: t.Optional[int]
    increments: tuple[Increment, ...]
    gaps: tuple[str, ...] = ()
    seen: t.Optional[int] = None
    identity: tuple[int, int] = (0, 0)

    @property
    def brought(self) -> t.Optional[Increment]:
        """The increment that the last restore began: what stands before it was brought then, cut to its end on purpose. None where none did."""
        return next((entry for entry in reversed(self.increments) if entry.since is not None), None)

    @property
    def base(self) -> str:
        """The path of the base file; empty where the manifest names none."""
        return posixpath.join(self.directory, self.manifest.base.name) if self.manifest.base else ""


@dataclasses.dataclass(frozen=True)
class Chain:
    """A base and every increment known to follow it without a gap, also those of later sets.

    The seconds from ``begins`` to ``ends`` can be recovered; none where ``begins`` is None: the times of the commands are not known.
    ``whole`` is False where something is known to be missing behind it.
    """

    origin: AofSet
    increments: tuple[Increment, ...]
    begins: t.Optional[int]
    ends: int
    whole: bool

    @property
    def range(self) -> t.Optional[tuple[int, int]]:
        return (self.begins, self.ends) if self.begins is not None and self.begins <= self.ends else None


def _usable(increments: t.Sequence[Increment], after: t.Optional[int]) -> tuple[list[Increment], bool]:
    """What follows increment number ``after`` without a gap, and whether that is all."""
    found: list[Increment] = []
    for entry in increments:
        previous = found[-1].seq if found else after
        broken = found and found[-1].ends != "clean"
        if broken or entry.ends == "missing" or (previous is not None and entry.seq != previous + 1):
            return found, False
        found.append(entry)
    return found, not found or found[-1].ends != "corrupt"


def _follows(earlier: AofSet, later: AofSet) -> bool:
    """Whether the base of ``later`` can be what the commands of ``earlier`` led to: the next numbers, and not older."""
    if not earlier.increments or not later.increments or not (earlier.manifest.base and later.manifest.base):
        return False
    last, first = earlier.increments[-1], later.increments[0]
    known = [entry.last_ts for entry in earlier.increments if entry.last_ts is not None and entry.seq < first.seq]
    return (
        later.manifest.base.seq == earlier.manifest.base.seq + 1
        # a set that was kept during its rewrite already has the first increment of the next
        and first.seq in (last.seq, last.seq + 1)
        and later.base_at >= max([earlier.base_at, *known])
    )


def _last(one: AofSet) -> int:
    return max((entry.last_ts for entry in one.increments if entry.last_ts is not None), default=0)


def _predecessor(sets: t.Sequence[AofSet], later: AofSet) -> t.Optional[AofSet]:
    """The set before ``later``; None where several could be it, as after a recovery that forked the archive.

    A copy that was made before the last command of another is no candidate; two that hold the same are one.
    """
    found = [one for one in sets if _follows(one, later)]
    newest = max((_last(one) for one in found), default=0)
    found = [one for one in found if one.seen is None or one.seen >= newest]
    held = {tuple((entry.seq, entry.bytes, entry.last_ts, entry.commands) for entry in one.increments) for one in found}
    return found[-1] if len({one.identity for one in found}) == 1 or len(held) == 1 else None


def _grown(increments: list[Increment], later: AofSet) -> tuple[list[Increment], bool]:
    """The increments with what a later look at the same log has more of, and whether nothing is missing up to its end."""
    for entry in later.increments:  # the same file, looked at later
        if increments and entry.seq == increments[-1].seq and entry.bytes > increments[-1].bytes:
            increments = [*increments[:-1], entry]
    tail = increments[-1] if increments else None
    more = [entry for entry in later.increments if tail is None or entry.seq > tail.seq]
    if tail and tail.ends != "clean":
        return increments, not more
    added, whole = _usable(more, tail.seq if tail else None)
    return increments + added, whole


def _stamp_before(ordered: t.Sequence[AofSet], origin: AofSet) -> t.Optional[int]:
    """The timestamp in force where the first increment begins: Redis writes one only when the second is another."""
    before = _predecessor(ordered, origin)
    if not before:
        return None
    stamps = (one.last_ts for one in before.increments if one.seq < origin.increments[0].seq and one.last_ts)
    return max(stamps, default=None)


def _known_range(
    increments: t.Sequence[Increment], base_at: int, stamp: t.Optional[int]
) -> tuple[t.Optional[int], int]:
    """From and up to which second the times of commands are known; from None: there are later ones without a time."""
    begins, last, unknown = base_at, base_at, False
    for entry in increments:
        unknown = unknown or bool(entry.unstamped and stamp is None)
        if entry.first_ts is not None and entry.last_ts is not None:
            begins = max(begins, entry.first_ts) if unknown else begins
            stamp, last, unknown = entry.last_ts, max(last, entry.last_ts), False
    return None if unknown else begins, last


def _latest(*seconds: t.Optional[int]) -> int:
    return max(one for one in seconds if one is not None)


def _chain(ordered: t.Sequence[AofSet], index: int) -> Chain:
    origin = ordered[index]
    if origin.base_bytes is None:
        return Chain(origin, (), None, origin.base_at, False)
    increments, whole = _usable(origin.increments, None)
    current, seen = origin, origin.seen
    for later in ordered[index + 1 :]:
        before = _predecessor(ordered, later)
        if whole and before and before.identity == current.identity:
            increments, whole = _grown(increments, later)
            current, seen = later, _latest(seen, later.seen, later.base_at)
    begins, last = _known_range(increments, origin.base_at, _stamp_before(ordered, origin))
    # what is missing may begin in the second in which the rest ends
    return Chain(origin, tuple(increments), begins, max(last, seen or 0) if whole else last - 1, whole)


def chains(sets: t.Iterable[AofSet]) -> list[Chain]:
    """One chain for each group, the oldest base first."""
    ordered = sorted(
        sets, key=lambda one: (one.base_at, one.manifest.base.seq if one.manifest.base else 0, one.directory)
    )
    return [_chain(ordered, index) for index in range(len(ordered))]


def _joined(ranges: t.Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begins, ends in sorted(ranges):
        if found and begins <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], ends))
        else:
            found.append((begins, ends))
    return found


def window(sets: t.Iterable[AofSet]) -> list[tuple[int, int]]:
    """The seconds since 1970 that can be recovered, as ranges (from, to), both included, in order, none touching the next.

    A second is the state at its end. The last one may still be under way where the files are those of a running server.
    """
    return _joined(one.range for one in chains(sets) if one.range)


def _needed_second(ranges: t.Sequence[tuple[int, int]]) -> str:
    stated = ", ".join(f"{begins} to {ends}" for begins, ends in ranges)
    if not stated:
        return "an AOF with timestamps; no second can be recovered"
    return f"a second within what exists (seconds since 1970): {stated}"


def _why_none(sets: t.Sequence[AofSet], known: t.Sequence[Chain], at: int) -> Refusal:
    """Why no chain leads to second ``at``, with the ranges that exist."""
    ranges = _joined(one.range for one in known if one.range)
    needs = _needed_second(ranges)
    details = {"ranges": [list(one) for one in ranges]}
    if not known:
        return Refusal("no_aof_history", f"there is no AOF to recover second {at} from", "an archive of the AOF, or its directory",
                       "name the directory in which the archive is kept", **details)  # fmt: skip
    usable = [one for one in known if one.origin.base_bytes is not None]
    below = [one for one in usable if one.origin.base_at <= at]
    if usable and not below:
        return Refusal("before_history", f"second {at} is before everything that was kept: the oldest base is of {usable[0].origin.base_at}", needs,
                       "name a later second, or use a backup from before it", **details)  # fmt: skip
    if below and (below[-1].begins is None or at < below[-1].begins):
        return Refusal("aof_without_timestamps", f"when the commands before second {at} were run is not known: they have no timestamps", needs,
                       "set aof_timestamp_enabled: true for the time to come; for this time use a backup", **details)  # fmt: skip
    if below and below[-1].whole and at > ranges[-1][1]:
        return Refusal("after_history", f"nothing newer than second {below[-1].ends} was kept, and {at} is asked for", needs,
                       f"name {below[-1].ends}, or the directory of the live AOF as well", **details)  # fmt: skip
    gaps = "; ".join(gap for one in sets for gap in one.gaps)
    return Refusal("history_gap", f"second {at} is in a gap of the archive: {gaps or 'a rewrite was not kept'}", needs,
                   "name a second outside of the gap, or find the files that are missing", **details)  # fmt: skip


def choose(sets: t.Sequence[AofSet], at: int) -> Chain:
    """The chain that leads to second ``at``: the newest base not younger. Raises Refusal with the ranges that exist.

    Where the archive was forked by a recovery, two chains have the same base; the one that ends first holds what was there at that time.
    """
    known = chains(sets)
    fitting = [one for one in known if one.range and one.range[0] <= at <= one.range[1]]
    if not fitting:
        raise _why_none(sets, known, at)
    return min(fitting, key=lambda one: (-one.origin.base_at, one.ends))
