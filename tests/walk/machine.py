# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The walk: hypothesis chooses the steps, actions.py and ours.py do them, laws.py and oracle.py judge."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import tempfile
import types
import typing as t

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.walk import actions, laws
from tests.walk.ours import Run
from tests.walk.world import World

KEYS = st.lists(st.integers(1, 12), min_size=1, max_size=6)
WHICH = st.integers(0, 1)
#: How a run of ours goes: alone, next to a client, cut off before an effect (a number), or next to another run.
WAYS = st.one_of(st.sampled_from(["plain", "plain", "plain", "busy", "locked"]), st.integers(1, 40))
LIVE = st.sampled_from(
    [
        ("appendonly", "yes"), ("appendonly", "no"), ("appendfsync", "always"), ("appendfsync", "everysec"), ("appendfsync", "no"),
        ("save", ""), ("save", "86400 1"), ("maxmemory", "100mb"), ("aof-timestamp-enabled", "yes"), ("shutdown-on-sigterm", "nosave"),
        ("aof-use-rdb-preamble", "no"), ("appendonly", "yes"),
    ]
)  # fmt: skip
IN_FILE = st.sampled_from(
    [
        ("appendonly", "yes"), ("appendonly", "no"), ("save", '""'), ("save", "86400 1"), ("tcp-backlog", "128"), ("appenddirname", "other"),
        ("appendonly", "yes"), ("dbfilename", "other.rdb"), ("appenddirname", "appendonlydir"), ("dbfilename", "dump.rdb"),
    ]
)  # fmt: skip


BOTH = st.booleans()
STORE_NAMES = st.sampled_from(["latest_verified", "oldest", "latest"])

#: Steps by who does them: the name of a method of Walk, and what it is given. Whoever stands twice is met twice as often.
#: One rule each: hypothesis leaves out rules of a walk at random, and no walk shall be without an operator.
CLIENTS = {
    "write": (KEYS,),
    "delete": (st.integers(1, 12),),
    "flush_all": (KEYS,),
    "let_a_second_end": (),
    "write_to_two": (st.integers(1, 3),),
}
OPERATOR = {
    "config_set": (LIVE,), "command": (st.sampled_from([("BGSAVE",), ("BGREWRITEAOF",), ("CONFIG", "REWRITE")]),), "edit": (IN_FILE, BOTH),
    "stop": (st.sampled_from([signal.SIGTERM, signal.SIGKILL]), BOTH), "start": (), "move_aside": (WHICH,), "rename_within": (WHICH,),
    "copy_back": (st.integers(0, 5), BOTH), "link": (WHICH, BOTH), "part": (), "stop_two": (),
}  # fmt: skip
WORLD = {
    "tear": (st.integers(1, 60),),
    "crash": (st.floats(0, 1), st.integers(0, 60), BOTH),
    "rot": (st.floats(0, 1),),
    "step_clock": (BOTH,),
    "fill_disk": (),
    "free_disk": (),
}
OURS = {
    "persistence": (
        st.sampled_from([True, True, False]), st.sampled_from([["86400 1"], ["86400 1"], []]), st.sampled_from(["everysec", "always"]), WAYS,
    ),
    "config": (st.sampled_from([{"hz": "20"}, {"tcp-backlog": "256"}, {"maxmemory": "200mb", "hz": "10"}]), WAYS),
    "service": (st.sampled_from(["if_needed", "always", "always", "never"]), WAYS),
    "backup": (st.sampled_from(["rdb", "aof", "stream"]), WAYS),
    "restore": (STORE_NAMES, WAYS), "undo_flush": (WAYS,), "to_time": (st.integers(0, 3), WAYS), "roll_back": (WAYS,),
    "clean": (st.sampled_from(["plain", "locked"]),),
    "replicate": (BOTH, BOTH, st.one_of(st.just("plain"), st.integers(1, 20))),
    "repair": (BOTH, st.sampled_from(["auto", "auto", "memory", "truncation", "archive"]), WAYS),
}  # fmt: skip


def steps_of(table: dict[str, tuple[t.Any, ...]]) -> st.SearchStrategy[t.Any]:
    """One step of ``table``: (name, what it is given)."""
    return st.one_of([st.tuples(st.just(name), st.tuples(*given)) for name, given in table.items()])


#: Where the server has to run for it, and where it may not.
NEEDS_UP = {"write", "delete", "flush_all", "let_a_second_end", "config_set", "command", "stop", "backup", "replicate"}
NEEDS_DOWN = {"start"}
#: What has to have been before.
NEEDS: dict[str, t.Callable[[World], t.Any]] = {
    "restore": lambda world: world.oracle.backups, "undo_flush": lambda world: world.oracle.flushed,
    "to_time": lambda world: world.oracle.seconds, "roll_back": lambda world: world.oracle.replaced is not None,
    "clean": lambda world: world.oracle.replaced is not None,
    "fill_disk": lambda world: not world.full, "free_disk": lambda world: world.full,
}  # fmt: skip


class Walk(RuleBasedStateMachine):
    #: Steps done by all walks of this process.
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm"
        self.home = pathlib.Path(
            tempfile.mkdtemp(prefix="redisops-walk-", dir=memory if os.access(memory, os.W_OK) else None)
        )
        self.patch = pytest.MonkeyPatch()
        self.world = World(self.home, self.patch)

    def teardown(self) -> None:
        self.world.close()
        self.patch.undo()
        if not os.environ.get("REDISOPS_WALK_KEEP"):
            shutil.rmtree(self.home, ignore_errors=True)

    @initialize(aof=st.booleans(), keys=KEYS)
    def begin(self, aof: bool, keys: list[int]) -> None:
        if aof:
            actions.edit(self.world, "appendonly", "yes")
            actions.edit(self.world, "aof-timestamp-enabled", "yes")
        actions.start(self.world)
        actions.write(self.world, keys)
        self.world.forget()

    def _do(self, step: tuple[str, tuple[t.Any, ...]]) -> None:
        name, given = step
        self.world.one.find()
        runs = self.world.one.runs
        if (name in NEEDS_UP and not runs) or (name in NEEDS_DOWN and runs) or not NEEDS.get(name, bool)(self.world):
            return
        Walk.steps += 1
        getattr(self, name)(*given)
        self.world.forget()

    @rule(step=steps_of(CLIENTS))
    def a_client(self, step: t.Any) -> None:
        self._do(step)

    @rule(step=steps_of(OPERATOR))
    def the_operator(self, step: t.Any) -> None:
        self._do(step)

    @rule(step=steps_of(WORLD))
    def the_world(self, step: t.Any) -> None:
        self._do(step)

    @rule(trouble=steps_of({**OPERATOR, **WORLD}), step=steps_of(OURS))
    def ours_in_trouble(self, trouble: t.Any, step: t.Any) -> None:
        self._do(trouble)
        self._do(step)

    @rule(first=steps_of(OURS), second=steps_of(OURS))
    def ours(self, first: t.Any, second: t.Any) -> None:
        self._do(first)
        self._do(second)

    # --- clients ---

    def write(self, keys: list[int]) -> None:
        actions.write(self.world, keys)

    def delete(self, key: int) -> None:
        actions.delete(self.world, key)

    def flush_all(self, keys: list[int]) -> None:
        actions.flush_all(self.world)
        actions.write(self.world, keys)

    def let_a_second_end(self) -> None:
        actions.let_a_second_end(self.world)

    # --- the operator ---

    def config_set(self, setting: tuple[str, str]) -> None:
        actions.config_set(self.world, *setting)

    def command(self, words: tuple[str, ...]) -> None:
        actions.command(self.world, *words)

    def edit(self, setting: tuple[str, str], and_restart: bool) -> None:
        actions.edit(self.world, *setting)
        if and_restart and self.world.one.runs:
            self.stop(signal.SIGTERM, True)

    def write_to_two(self, key: int) -> None:
        actions.write_to_two(self.world, key)

    def part(self) -> None:
        actions.part(self.world)

    def stop_two(self) -> None:
        actions.stop_two(self.world)

    def stop(self, how: signal.Signals, comes_back: bool) -> None:
        actions.stop(self.world, how)
        self._comes_back(comes_back)

    def start(self) -> None:
        actions.start(self.world)

    def move_aside(self, which: int) -> None:
        actions.move_aside(self.world, which)

    def rename_within(self, which: int) -> None:
        actions.rename_within(self.world, which)

    def copy_back(self, which: int, comes_back: bool) -> None:
        self.stop(signal.SIGTERM, False)
        if not self.world.one.runs:
            actions.copy_back(self.world, which)
            self._comes_back(comes_back)

    def link(self, which: int, comes_back: bool) -> None:
        self.stop(signal.SIGTERM, False)
        if not self.world.one.runs:
            actions.link(self.world, which)
            self._comes_back(comes_back)

    def _comes_back(self, comes_back: bool) -> None:
        if comes_back and not self.world.one.runs:
            actions.start(self.world)

    # --- the world ---

    def tear(self, cut: int) -> None:
        actions.tear(self.world, cut)

    def crash(self, share: float, cut: int, comes_back: bool) -> None:
        """All at once, as of a host whose disk goes bad."""
        actions.tear(self.world, cut)
        actions.rot(self.world, share)
        if comes_back:
            actions.start(self.world)

    def rot(self, share: float) -> None:
        actions.rot(self.world, share)

    def step_clock(self, ahead: bool) -> None:
        actions.step_clock(self.world, actions.HOUR if ahead and not self.world.offset else 0)

    def fill_disk(self) -> None:
        actions.fill_disk(self.world)

    def free_disk(self) -> None:
        actions.free_disk(self.world)

    # --- ours ---

    def _run(self, run: Run, way: str | int) -> types.SimpleNamespace | None:
        if isinstance(way, int):
            return run.killed(way)
        if way == "busy" and not self.world.one.runs:
            way = "plain"
        return getattr(run, way)()

    def _module(
        self, name: str, way: str | int, switches: bool = False, **options: t.Any
    ) -> types.SimpleNamespace | None:
        return self._run(Run(self.world, name, options, switches), way)

    def persistence(self, appendonly: bool, save: list[str], appendfsync: str, way: str | int) -> None:
        options = {
            "owner": "root",
            "group": "root",
            "auto_aof_rewrite_percentage": 0,
            "aof_timestamp_enabled": appendonly,
        }
        run = Run(
            self.world,
            "redis_persistence",
            {**options, "appendonly": appendonly, "save": save, "appendfsync": appendfsync},
        )
        done = self._run(run, way)
        if done and not done.failed:
            laws.persistence(self.world, done, appendonly)
            run.again()

    def config(self, settings: dict[str, str], way: str | int) -> None:
        run = Run(self.world, "redis_config", {"settings": settings})
        done = self._run(run, way)
        if done and not done.failed:
            run.again()

    def service(self, restart: str, way: str | int) -> None:
        run = Run(self.world, "redis_service", {"unit": "redis", "restart": restart})
        done = self._run(run, way)
        if not done:
            return
        laws.service(self.world, done)
        if not done.failed and restart != "always":
            run.again()

    @property
    def _store(self) -> dict[str, t.Any]:
        return {"directory": str(self.home / "backups"), "group_name": "orders"}

    def backup(self, method: str, way: str | int) -> None:
        done = self._module("redis_backup", way, method=method, sentinel_file="", **self._store)
        if done:
            laws.backup(self.world, done)

    def restore(self, backup: str, way: str | int) -> None:
        done = self._module("redis_restore", way, True, unit="redis", backup=backup, **self._store)
        if done and done.failed is False:
            laws.switched(self.world, done, [self.world.oracle.backups[done.plan["backup"]]])

    def undo_flush(self, way: str | int) -> None:
        done = self._module("redis_restore", way, True, unit="redis", undo_flush=True, **self._store)
        if done:
            laws.switched(self.world, done, self.world.oracle.flushed)

    def to_time(self, which: int, way: str | int) -> None:
        seconds = sorted(self.world.oracle.seconds)
        second = seconds[which % len(seconds)]
        done = self._module(
            "redis_restore", way, True, unit="redis", to_time=str(second + self.world.offset), **self._store
        )
        if done:
            laws.switched(self.world, done, [self.world.oracle.seconds[second]] if not self.world.offset else None)

    def roll_back(self, way: str | int) -> None:
        wanted = self.world.oracle.replaced
        done = self._module("redis_restore", way, True, unit="redis", state="rolled_back", **self._store)
        if done:
            laws.switched(self.world, done, [wanted])

    def clean(self, way: str) -> None:
        """The operator lets go of what restores have replaced: that may be the last of some writes."""
        before = self.world.look()
        run = Run(self.world, "redis_restore", {"unit": "redis", "state": "cleaned", **self._store})
        self.world.oracle.forget(_without_rollback_copies(before))
        done = self._run(run, way)
        if done and not done.failed:
            self.world.oracle.replaced = None
            run.again()

    def replicate(self, one_leads: bool, joiner_is_two: bool, way: str | int) -> None:
        """One of the two servers is made to be in a group of both, with one of them as its primary."""
        world = self.world
        actions.start_two(world)
        addresses = {name: f"127.0.0.1:{server.port}" for name, server in (("one", world.one), ("two", world.two))}
        options = {
            "group_hosts": sorted(addresses.values()), "primary": addresses["one" if one_leads else "two"], "bound_writes": False,
            "address": addresses["two" if joiner_is_two else "one"],
        }  # fmt: skip
        run = Run(world, "redis_replication", options, True, world.two if joiner_is_two else world.one)
        done = self._run(run, way)
        if done and not done.failed:
            run.again()

    def repair(self, allow: bool, method: str, way: str | int) -> None:
        done = self._module(
            "redis_repair", way, True, unit="redis", allow_truncation=allow, method=method, **self._store
        )
        if done:
            laws.repaired(self.world, done)


def _without_rollback_copies(look: t.Any) -> t.Any:
    """What is there next to what ``cleaned`` deletes."""
    from tests.walk.oracle import VALUE, Look

    tree = {path: raw for path, raw in look.tree.items() if "redisops-restore-" not in path}
    there = {value.decode() for raw in tree.values() for value in VALUE.findall(raw)}
    return Look(look.live, look.next, frozenset(there), tree)
