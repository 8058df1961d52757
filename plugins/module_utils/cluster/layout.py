# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node does what: primaries and replicas over failure domains, slots over primaries."""

from __future__ import annotations

import collections
import itertools
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.cluster.state import SLOTS

__all__ = ["attach", "balance", "choose_primaries", "split_evenly", "uneven"]

#: That a replica fails together with its primary is worse than that two replicas fail together.
_WITH_PRIMARY = 100


def choose_primaries(
    candidates: t.Sequence[str], count: int, taken: t.Sequence[str], domain: t.Callable[[str], str]
) -> list[str]:
    """As many of ``candidates``, each from the domain with the fewest primaries; ``taken`` are primaries already."""
    used = collections.Counter(domain(one) for one in taken)
    left, chosen = list(candidates), []
    while left and len(chosen) < count:
        best = min(left, key=lambda one: used[domain(one)])
        left.remove(best)
        chosen.append(best)
        used[domain(best)] += 1
    return chosen


def _clash(shard: t.Sequence[str], domain: t.Callable[[str], str]) -> int:
    """How badly a shard (its primary first) is spread."""
    primary, *replicas = [domain(one) for one in shard]
    pairs = sum(one == other for one, other in itertools.combinations(replicas, 2))
    return _WITH_PRIMARY * replicas.count(primary) + pairs


def attach(
    shards: t.Mapping[str, t.Sequence[str]], free: t.Sequence[str], domain: t.Callable[[str], str]
) -> dict[str, str]:
    """A primary for each of ``free``: the one with the fewest replicas, in another failure domain where that can be had."""
    if not shards:
        return {}
    sets = {primary: [primary, *replicas] for primary, replicas in shards.items()}
    chosen: dict[str, str] = {}
    for one in free:
        best = min(
            sets, key=lambda primary: (len(sets[primary]), _clash([*sets[primary], one], domain) - _clash(sets[primary], domain))
        )  # fmt: skip
        sets[best].append(one)
        chosen[one] = best
    better = True
    while better:  # each swap makes the sum smaller, so this ends
        better = False
        for one, other in itertools.combinations(free, 2):
            first, second = chosen[one], chosen[other]
            if first == second:
                continue
            swapped = (
                [other if node == one else node for node in sets[first]],
                [one if node == other else node for node in sets[second]],
            )
            now = _clash(sets[first], domain) + _clash(sets[second], domain)
            if sum(_clash(shard, domain) for shard in swapped) < now:
                sets[first], sets[second] = swapped
                chosen[one], chosen[other] = second, first
                better = True
    return chosen


def split_evenly(slots: t.Sequence[int], primaries: t.Sequence[str]) -> dict[str, list[int]]:
    """``slots`` in their order, in parts that differ by one at most."""
    found, start = {}, 0
    for number, primary in enumerate(primaries):
        end = round(len(slots) * (number + 1) / len(primaries))
        found[primary] = list(slots[start:end])
        start = end
    return found


def _goals(owned: t.Mapping[str, t.Collection[int]], stay: t.Sequence[str]) -> dict[str, int]:
    """How many slots each should have: even shares, the odd ones to those that have most."""
    share, odd = divmod(SLOTS, len(stay))
    largest = sorted(stay, key=lambda one: -len(owned.get(one, ())))
    return {one: share + (number < odd) for number, one in enumerate(largest)}


def uneven(owned: t.Mapping[str, t.Collection[int]], stay: t.Sequence[str], threshold: int) -> bool:
    """Whether somebody has less than an even share by more than ``threshold`` percent."""
    even = SLOTS / len(stay)
    return any(len(owned.get(one, ())) < even * (100 - threshold) / 100 for one in stay)


def balance(
    owned: t.Mapping[str, t.Collection[int]],
    stay: t.Sequence[str],
    leaving: t.Sequence[str],
    threshold: t.Optional[int],
) -> list[tuple[str, str, list[int]]]:
    """(from, to, slots). Who leaves gives all; others give only if shares are uneven by more than ``threshold`` percent (None: never)."""
    have = {one: sorted(owned.get(one, ())) for one in (*stay, *leaving)}
    pool = [(one, slot) for one in leaving for slot in have[one]]
    counts = {one: len(have[one]) for one in stay}
    if threshold is not None and uneven(owned, stay, threshold):
        goals = _goals(owned, stay)
        for one in stay:
            surplus = counts[one] - goals[one]
            if surplus > 0:
                pool += [(one, slot) for slot in have[one][-surplus:]]
                counts[one] = goals[one]
    gets = dict.fromkeys(stay, 0)
    for _slot in pool:
        gets[min(stay, key=lambda one: counts[one] + gets[one])] += 1
    moves: dict[tuple[str, str], list[int]] = {}
    given = iter(pool)
    for target in stay:  # one after the other, so that ranges stay whole
        for source, slot in itertools.islice(given, gets[target]):
            moves.setdefault((source, target), []).append(slot)
    return [(source, target, slots) for (source, target), slots in moves.items()]
