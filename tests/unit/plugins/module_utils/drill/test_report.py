# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a drill measures, and how it is judged."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.drill.report import (
    measured_rpo,
    missed_objectives,
    render_markdown,
)


@pytest.mark.parametrize(
    ("times", "now", "window", "rpo"),
    [
        ([], 1000.0, 500.0, None),
        ([900.0], 1000.0, 50.0, 100.0),  # before the window: what a disaster now would cost
        ([990.0], 1000.0, 500.0, 10.0),
        ([600.0, 700.0, 990.0], 1000.0, 500.0, 290.0),
        ([100.0, 700.0, 990.0], 1000.0, 500.0, 600.0),  # a disaster right before 700 would have cost 600
        ([100.0, 200.0], 1000.0, 500.0, 800.0),
        ([2000.0], 1000.0, 500.0, None),  # from the future: a clock was wrong
        ([1000.0], 1000.0, 500.0, 0.0),
    ],
)
def test_rpo_is_the_widest_gap(times, now, window, rpo):
    assert measured_rpo(times, now, window) == rpo


def report(rpo=100.0, rto=5.0, differences=(), **objectives):
    made = {
        "group": "orders", "host": "h", "at": 0.0, "backup": "20261124T201500Z-rdb", "from": "far", "taken_at": 0.0, "method": "rdb", "source": "replica",
        "product": "Redis 7.0.15", "server": "Redis 7.0.15", "keys": 3, "bytes": 104, "phases": {"load": 1.25}, "digest": "d" * 40,
        "files": [{"path": "data/dump.rdb", "size": 104, "sha256": "a" * 64}], "seal": "b" * 64, "differences": list(differences),
        "state": "failed" if differences else "verified", "why": "", "compared": ["hashes"],
        "measured": {"rpo_seconds": rpo, "rto_seconds": rto}, "objectives": {"rpo_seconds": 0, "rto_seconds": 0, **objectives},
    }  # fmt: skip
    return {**made, "missed": missed_objectives(made)}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (report(), []),
        (report(rpo_seconds=100, rto_seconds=5), []),
        (report(rpo_seconds=99), ["RPO"]),
        (report(rto_seconds=4), ["RTO"]),
        (report(rpo=None, rpo_seconds=99), ["RPO is not known"]),
        (report(rto=None, rto_seconds=4), ["RTO is not known"]),
        (report(differences=["a key is gone"]), ["a key is gone"]),
        (report(rpo_seconds=1, rto_seconds=1, differences=["x"]), ["x", "RPO", "RTO"]),
    ],
)
def test_what_was_missed_is_said(made, words):
    assert len(made["missed"]) == len(words)
    for reported, word in zip(made["missed"], words):
        assert word in reported
    text = render_markdown(made)
    assert ("**Passed**" in text) == (not words)
    for part in ("a" * 64, "b" * 64, "d" * 40, "Redis 7.0.15", "| load | 1.250 |", *made["missed"]):
        assert part in text
