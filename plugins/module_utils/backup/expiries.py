# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the keys of a backup run out, so that a restore can say how many of them will be gone."""

from __future__ import annotations

import collections
import typing as t

__all__ = ["MOST_STEPS", "gone_by", "steps"]

#: So many points of time are written down.
MOST_STEPS = 500


def steps(times_ms: t.Sequence[int], already: int) -> list[list[int]]:
    """[second, keys that have run out when it ends and had not at the one before], rising; ``already``: keys that had run out when it was looked."""
    if not times_ms:
        return [[0, already]] if already else []
    first, last = min(times_ms) // 1000, max(times_ms) // 1000
    width = (last - first) // MOST_STEPS + 1
    counts = collections.Counter(first + ((time // 1000 - first) // width + 1) * width - 1 for time in times_ms)
    return [*([[0, already]] if already else []), *([second, counts[second]] for second in sorted(counts))]


def gone_by(found: t.Any, now: float) -> t.Optional[int]:
    """How many keys have run out ``now``, at least; None where it was not looked."""
    if found is None:
        return None
    return sum(int(count) for second, count in found if second < now - 1)
