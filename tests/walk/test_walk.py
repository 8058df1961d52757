# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Walks that nobody scripted: one by the choices of always, one by others each time. And that the oracle sees a loss."""

from __future__ import annotations

import random

import pytest

from tests.walk import laws
from tests.walk.machine import Walk
from tests.walk.oracle import Look, Oracle, lost, worse_start
from tests.walk.run import walk

pytestmark = pytest.mark.needs_root  # the server's disk is a small file system of its own
STEPS = 60


@pytest.mark.parametrize("seed", [7, random.SystemRandom().randrange(10**6)], ids=["of-always", "of-this-time"])
def test_no_law_is_broken(seed):
    print(f"seed {seed}")
    try:
        assert walk(seed, STEPS) > 0
    except AssertionError as error:
        raise AssertionError(f"the same choices by: make walk STEPS={STEPS} SEED={seed}\n{error}") from error


def test_the_oracle_sees_what_is_lost():
    oracle = Oracle()
    for key in ("kept", "gone", "deleted"):
        oracle.wrote(key, f"{key}-1")
    oracle.wrote("deleted", None)
    before = Look({"kept": "kept-1", "gone": "gone-1"}, {}, frozenset(), {})
    assert lost(oracle, before, Look({"kept": "kept-1"}, {}, frozenset(), {})) == {"gone": "gone-1"}
    assert lost(oracle, before, Look({}, {}, frozenset({"kept-1", "gone-1"}), {})) == {}
    assert oracle.forget(Look({}, {}, frozenset({"kept-1"}), {})) == ["gone"]


@pytest.mark.parametrize(
    ("was", "then", "broken"),
    [
        (({"a": "1"}, {"a": "1"}), ({"a": "1"}, {"a": "1"}), ""),
        (({"a": "1"}, {}), ({"a": "1"}, {"a": "1"}), ""),
        (({"a": "1"}, {"a": "1"}), ({"a": "1"}, {}), "a = None"),
        (({"a": "2"}, {"a": "2"}), ({"a": "2"}, {"a": "1"}), "a = 1"),
        (({"a": "1"}, {"a": "1"}), ({"a": "1"}, None), "fails"),
        ((None, None), (None, {}), ""),
    ],
)
def test_the_oracle_sees_a_worse_start(was, then, broken):
    looks = [Look(live, start, frozenset(), {}) for live, start in (was, then)]
    assert (broken in worse_start(*looks, {})) if broken else worse_start(*looks, {}) == ""


def test_a_start_that_finds_what_was_acknowledged_is_no_worse():
    looks = [Look(None, start, frozenset(), {}) for start in ({}, {"a": "1"})]
    assert worse_start(*looks, {"a": "1"}) == ""
    assert "a = 1" in worse_start(*looks, {"a": "2"})


def test_a_run_that_destroys_is_caught(monkeypatch):
    """A module that deletes the RDB file of a stopped server, and says that it is well."""
    from tests.walk import ours
    from tests.walk.oracle import Violation

    real = ours.call_module

    def destroys(name, check=False, **options):
        done = real(name, check=check, **options)
        if not check:
            walk_.world.one.cli("FLUSHALL")
            walk_.world.one.cli("SAVE")
        return done

    monkeypatch.setattr(ours, "call_module", destroys)
    walk_ = Walk()
    try:
        walk_.begin(aof=False, keys=[1, 2])
        with pytest.raises(Violation, match="acknowledged writes can be reached nowhere"):
            walk_.config({"hz": "20"}, "plain")
    finally:
        walk_.teardown()


def beside_its_data(walk_: Walk) -> None:
    """appendonly yes next to no AOF: it starts without the RDB file, which the next save replaces."""
    walk_.begin(aof=False, keys=[1])
    walk_.command(("BGSAVE",))
    walk_.edit(("appendonly", "yes"), and_restart=True)
    walk_.write([2, 3])
    walk_.world.forget()
    assert sorted(walk_.world.seen.live) == ["k2", "k3"]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_save_over_what_was_never_loaded_is_caught(monkeypatch, keeps):
    """The backup keeps the file that its save replaces; one that does not is caught."""
    from ansible_collections.redisops.recovery.plugins.module_utils.backup import create
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence import apply

    from tests.walk.oracle import Violation

    if not keeps:
        for module in (create, apply):
            monkeypatch.setattr(module, "keep_unread", lambda *_given: "")
    walk_ = Walk()
    try:
        beside_its_data(walk_)
        if keeps:
            walk_.backup("rdb", "plain")
            assert "V00000001X" in walk_.world.look().on_disk
        else:
            with pytest.raises(Violation, match="acknowledged writes can be reached nowhere: .*k1"):
                walk_.backup("rdb", "plain")
    finally:
        walk_.teardown()


@pytest.mark.parametrize(
    ("name", "law"), [("pause", "paused"), ("hold", "still held"), ("verified", "is called verified")]
)
def test_what_stays_behind_or_is_claimed_is_caught(monkeypatch, name, law):
    from tests.walk import ours
    from tests.walk.oracle import Violation

    real = ours.call_module

    def leaves(module, check=False, **options):
        done = real(module, check=check, **options)
        if check:
            return done
        if name == "pause":
            walk_.world.one.cli("CLIENT", "PAUSE", "6000", "WRITE")
        elif name == "hold":
            (walk_.world.base / "run" / "redisops" / "held").mkdir(parents=True)
            (walk_.world.base / "run" / "redisops" / "held" / "redis").write_text("")
        return done

    monkeypatch.setattr(ours, "call_module", leaves)
    if name == "verified":
        monkeypatch.setattr(laws, "loaded", lambda *_given: {"k1": "V99999999X"})
    walk_ = Walk()
    try:
        walk_.begin(aof=True, keys=[1])
        with pytest.raises(Violation, match=law):
            walk_.backup("rdb", "plain")
    finally:
        walk_.teardown()
