# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a planned switch is safe, and to whom."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import View
from ansible_collections.redisops.recovery.plugins.module_utils.replication.switchover_plan import (
    Candidate,
    SentinelView,
    choose,
    require_sentinels,
    require_set,
)

A = View("a:1", "primary", offset=1000, version="7.0.15")
B = View("b:1", "replica", upstream="a:1", link_up=True, offset=990, version="7.0.15")
C = dataclasses.replace(B, address="c:1", offset=1000)
FIT = SentinelView("s1", "OK 3 usable Sentinels", False, "master", primary="a:1")


def test_the_one_that_lacks_least_takes_over():
    assert choose(A, [Candidate(B), Candidate(C)], None, 100).view is C
    assert choose(A, [Candidate(B, priority=10), Candidate(C)], None, 100).view is B
    assert choose(A, [Candidate(B), Candidate(C, priority=0)], None, 100).view is B
    assert choose(A, [Candidate(B), Candidate(C)], "b:1", 100).behind == 10
    assert choose(A, [Candidate(B)], "a:1", 100).view is A


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"link_up": False}, "no link"),
        ({"upstream": "z:1"}, "does not replicate"),
        ({"offset": 10}, "behind"),
        ({"version": "7.2.0"}, "runs Redis 7.2.0"),
        ({"role": "unreachable", "because": "nothing listens"}, "nothing listens"),
        ({"role": "primary"}, "does not replicate"),
    ],
)
def test_what_makes_a_replica_unfit(change, word):
    unfit = Candidate(dataclasses.replace(B, **change))
    for wanted, code in (("b:1", "target_unfit"), (None, "no_target")):
        with pytest.raises(Problem) as caught:
            choose(A, [unfit], wanted, 100)
        assert caught.value.code == code
        assert word in caught.value.message()


def test_other_refusals():
    for others, wanted, code in (
        ([Candidate(B)], "z:1", "unknown_target"), ([], None, "no_target"), ([Candidate(B, priority=0)], "b:1", "target_unfit"),
        ([Candidate(B, fault="could not write to its disk lately")], "b:1", "target_unfit"),
    ):  # fmt: skip
        with pytest.raises(Problem) as caught:
            choose(A, others, wanted, 100)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("version", "fit"), [("7.2.0", True), ("7.0.16", True), ("8.0.2", True), ("7.0.14", False), ("6.2.10", False)]
)
def test_in_an_upgrade_a_later_release_takes_over_and_an_earlier_never(version, fit):
    other = Candidate(dataclasses.replace(B, version=version))
    for wanted in ("b:1", None):
        if fit:
            assert choose(A, [other], wanted, 100, True).view is other.view
        else:
            with pytest.raises(Problem, match="7.0.15"):
                choose(A, [other], wanted, 100, True)


def test_one_primary():
    assert require_set([A, B, C]) is A
    for views in ([B, C], [A, dataclasses.replace(B, role="primary")], []):
        with pytest.raises(Problem) as caught:
            require_set(views)
        assert caught.value.code == "not_one_primary"


def test_sentinels():
    require_sentinels([FIT, FIT, FIT], 3, "a:1")
    require_sentinels([FIT, FIT], 3, "a:1")
    for views in (
        [FIT], [FIT, FIT, dataclasses.replace(FIT, tilt=True)], [FIT, FIT, dataclasses.replace(FIT, quorum="NOQUORUM 1 usable")],
        [FIT, FIT, dataclasses.replace(FIT, flags="master,s_down")], [FIT, FIT, dataclasses.replace(FIT, failover="wait_start")],
        [FIT, FIT, dataclasses.replace(FIT, primary="b:1")],
    ):  # fmt: skip
        with pytest.raises(Problem) as caught:
            require_sentinels(views, 3, "a:1")
        assert caught.value.code == "sentinels_unfit"
