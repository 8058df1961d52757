# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a start would load, and that no accepted plan makes it less."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile, AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import (
    Situation,
    Wanted,
    crash_loss,
    plan_persistence,
    require_wanted,
    start_loads,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import DEFAULTS, PERSISTENCE, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from hypothesis import assume, given
from hypothesis import strategies as st

PLACE = Place("/data", "dump.rdb", "appendonlydir", "appendonly.aof")
MANIFEST = AofManifest((AofFile("appendonly.aof.1.base.rdb", 1, "b"), AofFile("appendonly.aof.1.incr.aof", 1, "i")))
PLENTY = 1 << 40
NEW, OLD = 2000.0, 1000.0

#: The state of the data directory, by name.
DISKS = {
    "nothing": {},
    "rdb": {"rdb_bytes": 100, "rdb_mtime": NEW},
    "aof": {"manifest": MANIFEST, "aof_mtime": NEW},
    "aof newer than rdb": {"rdb_bytes": 100, "rdb_mtime": OLD, "manifest": MANIFEST, "aof_mtime": NEW},
    "aof older than rdb": {"rdb_bytes": 100, "rdb_mtime": NEW, "manifest": MANIFEST, "aof_mtime": OLD},
    "aof incomplete": {"manifest": MANIFEST, "aof_mtime": NEW, "missing": ("appendonly.aof.1.incr.aof",)},
    "aof incomplete and rdb": {
        "rdb_bytes": 100,
        "rdb_mtime": NEW,
        "manifest": MANIFEST,
        "missing": ("appendonly.aof.1.base.rdb",),
    },
    "orphans": {"orphans": ("appendonly.aof.1.incr.aof",)},
    "orphans and rdb": {"rdb_bytes": 100, "rdb_mtime": NEW, "orphans": ("appendonly.aof.1.incr.aof",)},
    "old-style aof": {"old_style_aof": True},
    "old-style aof and rdb": {"rdb_bytes": 100, "rdb_mtime": NEW, "old_style_aof": True},
}


def disk(name, free=PLENTY):
    return DataFiles(place=PLACE, free_bytes=free, **DISKS[name])


def wanted(aof=True, save="900 1 300 10 60 10000", **more):
    values = {
        name: DEFAULTS.get(name, "") for name in PERSISTENCE if name not in ("dir", "dbfilename", "appenddirname")
    }
    values.update({"appendonly": "yes" if aof else "no", "save": save, **more.pop("values", {})})
    return Wanted(values, dict(values), **more)


def values_of(text):
    entries = expand(RedisConf(text), lambda path: [])
    reported = {entry.name: entry.text for entry in entries}
    return entries, {name: normal(name, reported.get(name, DEFAULTS.get(name, ""))) for name in PERSISTENCE}


def situation(file_aof=False, disk_name="rdb", live_aof=None, free=PLENTY, save="900 1", live=None, **more):
    """``live_aof`` None: stopped."""
    save_line = f"save {save}\n" if save else 'save ""\n'
    entries, in_file = values_of(f"dir /data\n{save_line}appendonly {'yes' if file_aof else 'no'}\n")
    running = live_aof is not None
    live_values = {**in_file, "appendonly": "yes" if live_aof else "no", **(live or {})} if running else {}
    keys = more.pop("keys", 5 if running else 0)
    there = disk(disk_name, free)
    return Situation(
        path="redis.conf", directives=entries, in_file=in_file, disk=there, running=running, live=live_values,
        keys=keys, leaves_data=bool(keys or there.any), **more,
    )  # fmt: skip


# --- what a start loads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aof", "name", "loads"),
    [
        *[("no", name, "rdb" if "rdb" in name else "nothing") for name in DISKS],
        ("yes", "nothing", "nothing"), ("yes", "rdb", "nothing"), ("yes", "aof", "aof"), ("yes", "aof newer than rdb", "aof"),
        ("yes", "aof older than rdb", "aof"), ("yes", "aof incomplete", "fails"), ("yes", "aof incomplete and rdb", "fails"),
        ("yes", "orphans", "nothing"), ("yes", "orphans and rdb", "nothing"), ("yes", "old-style aof", "aof"),
        ("yes", "old-style aof and rdb", "aof"),
    ],
)  # fmt: skip
def test_what_a_start_loads(aof, name, loads):
    assert start_loads({"appendonly": aof}, disk(name)) == loads


# --- a stopped server -------------------------------------------------------------------------------------------------

CONVERT, ASIDE, FILE_ONLY = "convert", "convert, older aside", "file only"


@pytest.mark.parametrize(
    ("file_aof", "name", "to_aof", "to_rdb"),
    [
        (False, "nothing", FILE_ONLY, FILE_ONLY),
        (False, "rdb", CONVERT, FILE_ONLY),
        (False, "aof", "aof_switched_off", "aof_switched_off"),
        (False, "aof newer than rdb", "which_is_newer", "which_is_newer"),
        (False, "aof older than rdb", ASIDE, FILE_ONLY),
        (False, "aof incomplete", "aof_switched_off", "aof_switched_off"),
        (False, "aof incomplete and rdb", ASIDE, FILE_ONLY),
        (False, "orphans", "aof_without_manifest", FILE_ONLY),
        (False, "orphans and rdb", "aof_without_manifest", FILE_ONLY),
        (False, "old-style aof", "aof_switched_off", "aof_switched_off"),
        (False, "old-style aof and rdb", "which_is_newer", "which_is_newer"),
        (True, "nothing", FILE_ONLY, FILE_ONLY),
        (True, "rdb", CONVERT, FILE_ONLY),
        (True, "aof", FILE_ONLY, "stopped_with_aof"),
        (True, "aof newer than rdb", FILE_ONLY, "stopped_with_aof"),
        (True, "aof older than rdb", FILE_ONLY, "stopped_with_aof"),
        (True, "aof incomplete", "aof_incomplete", None),
        (True, "aof incomplete and rdb", "aof_incomplete", None),
        (True, "orphans", "aof_without_manifest", FILE_ONLY),
        (True, "orphans and rdb", "aof_without_manifest", FILE_ONLY),
        (True, "old-style aof", FILE_ONLY, "stopped_with_aof"),
        (True, "old-style aof and rdb", FILE_ONLY, "stopped_with_aof"),
    ],
)
def test_a_stopped_server(file_aof, name, to_aof, to_rdb):
    for aof, expected in ((True, to_aof), (False, to_rdb)):
        now = situation(file_aof, name)
        if expected is None:
            continue
        if "_" in expected:
            with pytest.raises(Refusal) as caught:
                plan_persistence(now, wanted(aof))
            assert caught.value.code == expected
            continue
        plan = plan_persistence(now, wanted(aof))
        assert (plan.convert, plan.set_aside) == (expected in (CONVERT, ASIDE), expected == ASIDE)
        assert (plan.live, plan.aof_live, plan.save_first, plan.disarm_file) == ({}, None, False, False)
        layers = [change.layer for change in plan.changes]
        assert layers == sorted(layers, key=["disk", "file"].index), "the file comes last"
        assert any(change.name == "appendonly" for change in plan.changes) == (file_aof != aof)


def test_a_stopped_server_whose_rdb_is_not_sound():
    with pytest.raises(Refusal) as caught:
        plan_persistence(situation(rdb_reason="RDB CRC error"), wanted())
    assert caught.value.code == "rdb_unsound"
    assert "RDB CRC error" in caught.value.message()
    assert not plan_persistence(situation(rdb_reason="RDB CRC error"), wanted(aof=False)).convert


def test_a_stopped_server_without_room():
    with pytest.raises(Refusal) as caught:
        plan_persistence(situation(free=1024), wanted())
    assert caught.value.code == "disk_space"


# --- a running server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(DISKS))
@pytest.mark.parametrize(
    ("file_aof", "live_aof", "in_use", "rewriting", "aof", "step"),
    [
        (False, False, False, False, True, "on"),
        (True, False, False, False, True, "on"),
        (False, True, True, False, True, None),
        (True, True, True, False, True, None),
        (True, True, False, False, True, "rewrite"),
        (False, True, False, True, True, "wait"),
        (False, False, False, False, False, None),
        (True, False, False, False, False, None),
        (True, True, True, False, False, "off"),
        (False, True, False, False, False, "off"),
    ],
)
def test_a_running_server(name, file_aof, live_aof, in_use, rewriting, aof, step):
    plan = plan_persistence(
        situation(file_aof, name, live_aof, aof_in_use=in_use, rewriting=rewriting), wanted(aof, save="900 1")
    )
    turned_off = step == "off"
    assert plan.aof_live == (None if turned_off else step)
    assert plan.late == ({"appendonly": "no"} if turned_off else {})
    assert plan.disarm_file == (step == "on" and file_aof)
    assert not plan.convert
    # Wherever the file may say "no" while the process holds more, the RDB file is made to hold everything first.
    assert plan.save_first == (turned_off or plan.disarm_file or (file_aof and not aof))
    if plan.save_first:
        assert plan.changes[0].action.startswith("BGSAVE")
    layers = [change.layer for change in plan.changes]
    assert ("file" in layers) == (file_aof != aof)
    behind = layers[layers.index("file") :] if "file" in layers else []
    assert behind in ([], ["file"], ["file", "live"]), "the file comes last, but for what takes a promise back"
    assert (behind == ["file", "live"]) == (turned_off and file_aof)


@pytest.mark.parametrize(
    ("name", "memory", "free_mib", "fits"),
    [
        ("nothing", 100 << 20, 115, False),
        ("nothing", 100 << 20, 117, True),
        ("rdb", 10 << 20, 25, False),
        ("rdb", 10 << 20, 27, True),
    ],
)
def test_room_for_the_first_aof(name, memory, free_mib, fits):
    now = situation(False, name, False, free=free_mib << 20, used_memory=memory)
    if fits:
        assert plan_persistence(now, wanted()).aof_live == "on"
    else:
        with pytest.raises(Refusal) as caught:
            plan_persistence(now, wanted())
        assert caught.value.code == "disk_space"
        assert f"{free_mib} MiB are free" in caught.value.message()


def test_what_the_process_does_not_take_live():
    plan = plan_persistence(
        situation(True, "aof", True, aof_in_use=True, live={"rdbchecksum": "no"}), wanted(save="900 1")
    )
    assert (plan.restart_required, plan.live, plan.changes) == (["rdbchecksum"], {}, [])


def test_everything_agrees():
    plan = plan_persistence(situation(True, "aof", True, aof_in_use=True), wanted(save="900 1"))
    assert (plan.changes, plan.live, plan.restart_required, plan.aof_live) == ([], {}, [], None)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["dir", "dbfilename", "appenddirname", "appendfilename"])
@pytest.mark.parametrize("live_aof", [None, False, True])
def test_a_place_with_data_is_not_left(option, live_aof):
    asked = wanted(values={option: "/elsewhere"})
    with pytest.raises(Refusal) as caught:
        plan_persistence(situation(live_aof is True, "aof newer than rdb", live_aof, aof_in_use=True), asked)
    assert caught.value.code == "place_has_data"
    assert option in caught.value.message()
    assert plan_persistence(situation(True, "nothing", live_aof, keys=0), asked)


def test_a_package_that_was_just_installed_may_find_data_of_an_earlier_life():
    """Of a host where Redis was removed and its data was not: "empty" describes the file, not the disk."""
    with pytest.raises(Refusal) as caught:
        plan_persistence(situation(fresh_install=True), wanted(values={"dir": "/elsewhere"}))
    assert caught.value.code == "place_has_data"
    assert plan_persistence(situation(fresh_install=True), wanted(values={"dir": "/data"})).convert


# --- declarations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (wanted(aof=False, save=""), "no_persistence"),
        (wanted(aof=False, values={"aof-timestamp-enabled": "yes"}), "contradiction"),
        (wanted(values={"appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}), "contradiction"),
    ],
)
def test_declarations_that_contradict_themselves(asked, code):
    with pytest.raises(Problem) as caught:
        require_wanted(asked)
    assert caught.value.code == code


def test_a_pure_cache_can_be_asked_for():
    require_wanted(wanted(aof=False, save="", allow_no_persistence=True))


# --- the law ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class World:
    """What a crash at this moment would be judged by. ``rdb`` and ``aof``: which data they hold (None: there is none)."""

    file_aof: bool
    rdb: str | None
    aof: str | None

    @property
    def found(self):
        return self.aof if self.file_aof else self.rdb


def worlds(now, plan):
    """The states that act() goes through, step by step, as far as a start would see them."""
    newest = {"aof older than rdb": "rdb", "aof newer than rdb": "aof"}
    name = next(key for key in DISKS if disk(key) == dataclasses.replace(now.disk, free_bytes=PLENTY))
    rdb = ("live" if now.live.get("rdb") else "rdb") if "rdb" in name else None
    aof = "aof" if name in ("aof", "old-style aof", "old-style aof and rdb", *newest) else None
    aof = "live" if now.aof_in_use else aof
    world = World(now.in_file["appendonly"] == "yes", rdb, aof)
    seen = [world]

    def then(**changes):
        seen.append(dataclasses.replace(seen[-1], **changes))

    if plan.save_first:
        then(rdb="live")
    if plan.disarm_file:
        then(file_aof=False)
    if plan.aof_live in ("on", "rewrite", "wait"):
        then(aof="live")
    if plan.convert:
        then(aof=None)
        then(aof=seen[-1].rdb)
    after = {change.name: change.after for change in plan.changes if change.layer == "file"}
    if "appendonly" in after:
        then(file_aof=after["appendonly"] == "yes")
    if plan.disarm_file:
        then(file_aof=True)
    return seen


@given(
    st.booleans(), st.sampled_from(list(DISKS)), st.sampled_from([None, False, True]), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from(["", "900 1"]), st.sampled_from(["", "900 1"]), st.integers(0, 3),
)  # fmt: skip
def test_no_step_of_an_accepted_plan_makes_a_start_find_less(
    file_aof, name, live_aof, in_use, rewriting, aof, save, asked_save, keys
):
    in_use = in_use and live_aof is True and name in ("aof", "aof newer than rdb", "aof older than rdb")
    now = situation(
        file_aof,
        name,
        live_aof,
        save=save,
        aof_in_use=in_use,
        rewriting=rewriting and live_aof is True,
        keys=keys if live_aof is not None else 0,
    )
    asked = wanted(aof, asked_save, allow_no_persistence=False)
    try:
        plan = plan_persistence(now, asked)
    except Problem:
        assume(False)
    seen = worlds(now, plan)
    found = seen[0].found
    for number, world in enumerate(seen[1:], 1):
        assert found is None or world.found is not None, f"step {number}: from {found} to nothing: {seen}"
        if found == "live":
            assert world.found == "live", f"step {number}: from all keys to {world.found}: {seen}"
        if live_aof is None and found is not None:
            assert world.found == found, (
                f"step {number}: a stopped server's data changes from {found} to {world.found}: {seen}"
            )
        found = world.found
    if aof and live_aof is not None:
        assert (seen[-1].file_aof, seen[-1].found) == (True, "live")


# --- what is at risk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, 0),
        ({"appendonly": "yes", "appendfsync": "everysec"}, 2),
        ({"appendonly": "yes", "appendfsync": "no"}, 30),
        ({"appendonly": "yes", "appendfsync": "everysec", "no-appendfsync-on-rewrite": "yes"}, 30),
        ({"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}, 30),
        ({"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}, 0),
        ({"appendonly": "no", "save": "900 1"}, 77),
        ({"appendonly": "no", "save": ""}, None),
    ],
)
def test_what_a_power_cut_costs(values, seconds):
    predicted = crash_loss(values, 5, 77)
    assert predicted["seconds"] == seconds
    assert predicted["text"]
    assert predicted["how"]
    assert (predicted["writes"] == 5) == (seconds == 77)


def test_unsaved_writes_are_never_those_of_zero_seconds():
    values = {"appendonly": "no", "save": "900 1"}
    assert crash_loss(values, 5, 0)["seconds"] == 1
    assert crash_loss(values, 0, 0)["seconds"] == 0
    before = crash_loss(values, 5, None)
    assert (before["seconds"], before["writes"], "clock" in before["text"]) == (None, 5, True)


@pytest.mark.parametrize(
    "values", [{"appendonly": "yes", "appendfsync": "always"}, {"appendonly": "no", "save": "900 1"}]
)
def test_without_files_all_keys_are_at_stake(values):
    assert (crash_loss(values, 0, 0, on_disk=False)["seconds"], crash_loss(values, 0, 0, on_disk=False)["text"]) == (
        None,
        "all keys",
    )


def test_a_stopped_server_counts_no_writes():
    assert crash_loss({"appendonly": "no", "save": "900 1"}, None, None)["text"] == "all writes since the last RDB file"
