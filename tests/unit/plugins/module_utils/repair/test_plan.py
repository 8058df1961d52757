# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""repair_plan: what counts as damage, what each method costs, which one is taken, and what is refused until somebody says so."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import scan
from ansible_collections.redisops.recovery.plugins.module_utils.repair.plan import (
    METHODS,
    Copy,
    Facts,
    Loss,
    Peer,
    Plan,
    Way,
    choose,
    plan,
)

LAST = 1_795_000_000.0


def row(verdict, path="/data/x.aof", kind="aof", **more):
    return {"path": path, "kind": kind, "verdict": verdict, "detail": "seen", **more}


GOOD = row("good", "/data/manifest", "manifest")
BAD = row("corrupt_inside")
NO_WAYS = {name: Way(False, f"no {name}") for name in ("manifest", "archive", "snapshot", "truncation")}
CUT = Way(True, "whole up to offset 100", Loss(31, 1, None), 0.5)


def facts(**more) -> Facts:
    return Facts(**{"files": [GOOD, BAD], "wrote_at": LAST, "ways": NO_WAYS, **more})


def method(found: Plan, name: str):
    return next(one for one in found.methods if one.method == name)


def refusal(found: Plan, wanted: str = "auto", allow: bool = False) -> Refusal:
    with pytest.raises(Refusal) as caught:
        choose(found, wanted, allow)
    return caught.value


# --- what is damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["good", "unchecked", "empty", "unreferenced"])
def test_files_that_redis_loads_whole_are_no_damage(verdict):
    for running, state in ((True, "good"), (False, "stopped")):
        found = plan(facts(files=[GOOD, row(verdict)], running=running))
        assert (found.state, found.methods, choose(found, "auto", False)) == (state, (), None)
        assert choose(found, "backup", True) is None


@pytest.mark.parametrize(
    "verdict", ["truncated_tail", "corrupt_inside", "bad_crc", "header_only", "not_rdb", "missing"]
)
def test_all_else_is(verdict):
    found = plan(facts(files=[GOOD, row(verdict)]))
    assert (found.state, [one["verdict"] for one in found.damaged]) == ("damaged", [verdict])
    assert tuple(one.method for one in found.methods) == METHODS
    for one in found.methods:
        assert {"method", "possible", "because", "loses", "do"} <= set(one.row())
        assert one.because
        assert set(one.row()["loses"]) == {"bytes", "commands", "seconds"}


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "stopped"),
        ({"had_keys": 5}, "damaged"),
        ({"traces": True}, "damaged"),
        ({"peers": [Peer("b:1", "primary", 7)]}, "damaged"),
        ({"peers": [Peer("b:1", "primary", 0)]}, "stopped"),
        ({"running": True, "keys": 3}, "damaged"),
        ({"running": True, "keys": 3, "aof": False}, "good"),  # no save was due yet
    ],
)
def test_no_file_at_all_is_damage_where_something_shows_that_there_was_data(more, state):
    assert plan(facts(files=[row("missing", kind="unknown")], **more)).state == state


def test_a_file_of_a_newer_release_is_no_damage():
    assert refusal(plan(facts(files=[row("newer_version")]))).code == "file_is_newer"


LOG = """\
1:M 01 Jan 2024 10:00:00.000 # Wrong RDB checksum expected: (1) but got (2). Aborting now.
1:M 01 Jan 2024 10:00:01.000 # Internal error in RDB reading offset 0, function at rdb.c:3225 -> RDB CRC error
1:M 01 Jan 2024 11:00:00.000 # Bad file format reading the append only file x.aof: make a backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest>
"""


def test_the_reason_of_the_last_start_is_told_and_one_that_is_over_is_not():
    found = plan(facts(events=scan(LOG.splitlines())))
    assert (found.cause["code"], found.cause["last"]) == ("aof_bad_format", "2024-01-01T11:00:00Z")
    assert "Bad file format" in found.cause["line"]
    assert found.cause["do"]
    assert plan(facts(events=scan(LOG.splitlines()[:1]))).cause["code"] == "rdb_bad_checksum"
    ready = "1:M 01 Jan 2024 12:00:00.000 * Ready to accept connections"
    assert plan(facts(events=scan([*LOG.splitlines(), ready]))).cause is None
    stopped = "1:M 01 Jan 2024 12:00:00.000 # Redis is now ready to exit, bye bye..."
    assert plan(facts(events=scan([stopped]))).cause is None


# --- what each costs -------------------------------------------------------------------------------------------------------


def test_the_memory_of_a_running_server_costs_nothing():
    found = plan(
        facts(running=True, keys=10, had_keys=12, copies=[Copy("a", LAST)], ways={**NO_WAYS, "truncation": CUT})
    )
    chosen = choose(found, "auto", True)
    assert (chosen.method, chosen.loses) == ("memory", Loss(0, 0, 0))


def test_memory_that_lost_what_the_files_had_is_no_source_without_a_word():
    found = plan(facts(running=True, keys=4, had_keys=12))
    assert refusal(found).code == "doubtful_source"
    assert choose(found, "memory", False).method == "memory"
    doubted = plan(facts(running=True, keys=4, doubt="never read it"))
    assert (method(doubted, "memory").possible, method(doubted, "memory").because) == (False, "never read it")
    assert refusal(doubted, "memory").code == "rung_not_possible"


def test_a_backup_costs_what_was_written_since():
    found = plan(facts(copies=[Copy("old", LAST - 7200), Copy("new", LAST - 3600)]))
    chosen = choose(found, "auto", False)
    assert (chosen.method, chosen.source, chosen.loses) == ("backup", "new", Loss(None, None, 3600))
    same = plan(facts(copies=[Copy("same", LAST - 10, same=True)], aof=False))
    assert choose(same, "auto", False).loses == Loss(0, 0, 0)
    later = plan(facts(copies=[Copy("later", LAST + 60)]))
    assert choose(later, "auto", False).loses.seconds == 0


def test_a_backup_that_lies_in_several_places_is_taken_from_the_nearest():
    far, near = Copy("a", LAST - 60, "vault", "repository"), Copy("a", LAST - 60)
    member = Copy("a", LAST - 60, "redis-2", "member")
    assert method(plan(facts(copies=[member, far, near])), "backup").where == ""
    assert method(plan(facts(copies=[member, far])), "backup").where == "vault"
    broken = dataclasses.replace(near, problem="damaged: data/dump.rdb was changed")
    found = method(plan(facts(copies=[broken, member, far])), "backup")
    assert (found.where, "damaged" in found.because) == ("vault", True)
    assert not method(plan(facts(copies=[broken])), "backup").possible


def test_what_could_not_be_asked_is_told():
    found = method(plan(facts(notes=("vault could not be asked: no route",))), "backup")
    assert (found.possible, "no route" in found.because) == (False, True)


def test_a_replica_costs_what_it_had_not_heard():
    heard = Peer("b:1", "replica", 9, LAST + 5, 9, ("id", 100))
    found = method(plan(facts(peers=[heard])), "replica")
    assert (found.possible, found.loses.seconds, found.kind) == (True, 0, "there")
    late = dataclasses.replace(heard, heard_at=LAST - 30)
    assert method(plan(facts(peers=[late])), "replica").loses.seconds == 30
    backup = Copy("of the replica", LAST + 600, state=("id", 100))
    assert method(plan(facts(peers=[late], copies=[backup])), "backup").loses.seconds == 30
    assert (
        method(
            plan(facts(peers=[late], copies=[dataclasses.replace(backup, state=("id", 99))])), "backup"
        ).loses.seconds
        == 0
    )


def test_a_promoted_replica_is_what_the_set_has_by_now():
    found = plan(facts(peers=[Peer("b:1", "primary", 9)], copies=[Copy("a", LAST - 60)]))
    assert method(found, "replica").loses == Loss()  # what it had not heard when it was promoted nobody knows
    chosen = choose(found, "auto", False)
    assert (chosen.method, chosen.source, chosen.kind) == ("replica", "b:1", "")


def test_a_replica_of_an_empty_primary_is_told_from_one_with_data():
    empty = method(plan(facts(peers=[Peer("b:1", "replica", 0, LAST)])), "replica")
    assert (empty.possible, "empty" in empty.because) == (False, True)
    few = plan(facts(peers=[Peer("b:1", "primary", 3, None, 0)], had_keys=100))
    predicted = refusal(few)
    assert (predicted.code, "brought 0 keys" in predicted.detected, "100 keys" in predicted.detected) == (
        "doubtful_source",
        True,
        True,
    )
    assert choose(few, "replica", False).source == "b:1"
    assert not method(plan(facts(peers=[Peer("b:1", because="nothing listens")])), "replica").possible


def test_of_two_replicas_the_better_is_taken():
    peers = [
        Peer("b:1", "replica", 3, LAST),
        Peer("c:1", "replica", 99, LAST - 20),
        Peer("d:1", "replica", 99, LAST - 10),
    ]
    assert method(plan(facts(peers=peers, had_keys=100)), "replica").source == "d:1"


# --- the choice ------------------------------------------------------------------------------------------------------------


def test_only_a_cut_is_left_and_it_waits_for_a_word():
    found = plan(facts(ways={**NO_WAYS, "truncation": CUT}))
    predicted = refusal(found)
    assert predicted.code == "truncation_not_allowed"
    assert "31 bytes, 1 command (seconds not known)" in predicted.detected
    assert "allow_truncation: true" in predicted.do
    assert refusal(found, "truncation").code == "truncation_not_allowed"
    assert choose(found, "auto", True).method == "truncation"


def test_an_old_backup_is_not_taken_in_silence_where_a_cut_costs_less():
    found = plan(facts(ways={**NO_WAYS, "truncation": CUT}, copies=[Copy("old", LAST - 604800)]))
    predicted = refusal(found)
    assert (predicted.code, "604800 s" in predicted.do, "old" in predicted.do) == ("truncation_not_allowed", True, True)
    assert choose(found, "backup", False).method == "backup"
    assert choose(found, "auto", True).method == "truncation"


def test_a_backup_that_costs_less_than_a_cut_is_taken():
    wide = Way(True, "whole up to offset 100", Loss(10**9, 10**6, 7200))
    found = plan(facts(ways={**NO_WAYS, "truncation": wide}, copies=[Copy("new", LAST - 60)]))
    assert choose(found, "auto", False).method == "backup"
    assert choose(found, "auto", True).method == "backup"


def test_of_ways_that_cost_the_same_the_upper_one_is_taken():
    whole = Way(True, "all there", Loss(0, 0, 0))
    every = dict.fromkeys(NO_WAYS, whole)
    found = plan(facts(ways=every, copies=[Copy("a", LAST)], peers=[Peer("b:1", "primary", 5)], running=True, keys=5))
    for gone in ("memory", "manifest", "backup", "replica", "archive", "snapshot"):
        chosen = choose(found, "auto", False)
        assert chosen.method == gone
        methods = tuple(
            dataclasses.replace(one, possible=False) if one.method == gone else one for one in found.methods
        )
        found = dataclasses.replace(found, methods=methods)
    assert choose(found, "auto", False).method == "truncation"  # of nothing


def test_history_that_lacks_something_is_a_cut():
    part = Way(True, "from the backup", Loss(31, 1, 0))
    found = plan(facts(ways={**NO_WAYS, "archive": part}))
    assert (method(found, "archive").needs, refusal(found).code) == ("allow_truncation", "truncation_not_allowed")
    assert choose(found, "auto", True).method == "archive"
    whole = plan(facts(ways={**NO_WAYS, "archive": dataclasses.replace(part, loses=Loss(0, 0, 0))}))
    assert choose(whole, "auto", False).method == "archive"


def test_where_nothing_is_left_each_reason_is_told():
    predicted = refusal(plan(facts()))
    assert predicted.code == "no_way_left"
    for name in METHODS:
        assert f"{name}: " in predicted.detected


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_named_and_not_possible_is_refused(name):
    predicted = refusal(plan(facts()), name, True)
    assert (predicted.code, name in predicted.detected) == ("rung_not_possible", True)
