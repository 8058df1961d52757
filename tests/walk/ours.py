# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module of ours in a walk: check mode, run, run again; and the laws that hold behind each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import signal
import threading
import time
import types
import typing as t

import pytest
import redis
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_path

from tests.conftest import call_module
from tests.faults.conftest import run_cut
from tests.walk.oracle import Data, Look, differences, lost, worse_start
from tests.walk.world import Walked, World

#: What a run of ours suspends for a time; nobody else in a walk touches it. Then what check mode may not ask a server for.
SUSPENDED = ("auto-aof-rewrite-percentage", "stop-writes-on-bgsave-error")
ASKED = ("cmdstat_bgsave", "cmdstat_bgrewriteaof", "cmdstat_save", "cmdstat_config|set", "cmdstat_client|pause")
#: Codes of a run whose world may have changed since check mode looked: a save that fails on a full disk shows when it is tried.
ONLY_THE_RUN_KNOWS = frozenset({"save_failed", "rewrite_failed", "aof_not_turned_on", "stop_refused", "start_failed"})
STOPPED = re.compile(r"stopped|does not (start|run|come)|down|not started|listens at|failed|ended", re.I)


class Run:
    """One call of module ``name`` in a world. ``switches``: it puts other data in the place of what is there, on purpose."""

    def __init__(
        self, world: World, name: str, options: dict[str, t.Any], switches: bool = False, server: Walked | None = None
    ) -> None:
        self.server, self.known = server or world.one, frozenset(world.known)
        self.world, self.name, self.options, self.switches = world, name, options, switches
        self.words = f"{name} {options}"

    def call(self, check: bool = False) -> types.SimpleNamespace:
        world, offset, real = self.world, self.world.offset, time.time
        with pytest.MonkeyPatch.context() as patch:
            if offset:
                patch.setattr(time, "time", lambda: real() + offset)
            done = call_module(self.name, check=check, **self.server.params(**self.options))
        if "Unexpected" in done.msg:
            raise world.broken(f"{self.words}: {done.msg}")
        return done

    # --- ways of running it ---

    def plain(self) -> types.SimpleNamespace:
        """Check mode, then the run; gives its result with ``before`` and ``after`` it."""
        world = self.world
        before, config = world.seen or world.look(), self._suspended()
        predicted = self._checked(before)
        done = self.call()
        world.tell(f"{self.words}: {_short(done)}")
        done.before, done.after = before, world.look()
        self._require_predicted(predicted, done)
        self.require_nothing_lost(before, done.after, done)
        if done.failed:
            self._require_unchanged(done)
        self._require_nothing_suspended(config)
        return done

    def busy(self) -> types.SimpleNamespace:
        """The run while a client writes new keys; each that is acknowledged is there behind it, live or kept."""
        world = self.world
        before, config = world.seen or world.look(), self._suspended()
        with writing(world) as acknowledged:
            done = self.call()
        world.tell(f"{self.words}, with a client writing ({len(acknowledged)}): {_short(done)}")
        done.before, done.after, done.meanwhile = before, world.look(), acknowledged
        for key, value in acknowledged.items():
            world.oracle.wrote(key, value)
            world.known.add(value)
        missing = [key for key, value in acknowledged.items() if value not in done.after.reachable()]
        if missing:
            raise world.broken(f"{self.name}: writes acknowledged meanwhile are nowhere: {missing[:5]}")
        if done.after.live is not None and not self.switches:
            gone = [key for key in acknowledged if key not in done.after.live]
            if gone:
                raise world.broken(f"{self.name}: writes acknowledged meanwhile are not in the server: {gone[:5]}")
        done.before = _with(before, acknowledged)
        self.require_nothing_lost(done.before, done.after, done)
        self._require_nothing_suspended(config)
        return done

    def locked(self) -> None:
        """While another process of ours works on the data: refused, or nothing to do; nothing is changed."""
        world = self.world
        before = world.look()
        with held_by_another(lock_path(str(world.one.data))):
            done = self.call()
        after = world.look()
        world.tell(f"{self.words}, while another run holds the lock: {_short(done)}")
        if done.failed and done.code == "data_is_locked":
            self._require_same_tree(before, after, "was refused by the lock")
        elif not done.failed and done.changed:
            raise world.broken(f"{self.name} changed something while another run held the lock")

    def killed(self, effect: int) -> types.SimpleNamespace | None:
        """SIGKILL for our run before its ``effect``-th effect; then the timers on the host, and the next run."""
        world = self.world
        before, config, ran = world.seen or world.look(), self._suspended(), world.one.runs
        cut = run_cut(lambda: _plain(self.call()), effect)
        where = cut.effects[-1] if cut.effects else "nothing"
        world.tell(
            f"{self.words}, killed at {effect} ({where}): {'cut' if cut.cut else _short(types.SimpleNamespace(**cut.result))}"
        )
        world.one.find()
        self._wait_for_child_servers()
        after = world.look()
        self.require_nothing_lost(before, after, None)
        if not cut.cut:
            done = types.SimpleNamespace(**cut.result)
            done.before, done.after = before, after
            return done
        fired = world.fire_guards()
        world.tell(f"the guards {fired} came due")
        if ran and not world.unit.pid():
            raise world.broken(f"{self.name} was killed at {effect} ({where}), and nothing starts the server again")
        if world.one.runs:
            self._loaded()
            world.one.cli("CLIENT", "UNPAUSE")  # a pause runs out within 30 seconds; the walk does not wait
        world.seen = None
        done = self.plain()
        if not done.failed:
            self._require_nothing_suspended(config)
        return done

    def again(self) -> None:
        """What was declared is declared: a second run changes nothing."""
        done = self.call()
        self.world.tell(f"{self.name} again: {_short(done)}")
        if done.failed or done.changed:
            raise self.world.broken(f"{self.words}: the second run gives {_short(done)}")

    # --- the laws ---

    def require_nothing_lost(self, before: Look, after: Look, done: types.SimpleNamespace | None) -> None:
        world = self.world
        gone = lost(world.oracle, before, after)
        if gone:
            raise world.broken(f"{self.name}: acknowledged writes can be reached nowhere: {gone}")
        unread = before.on_disk - after.on_disk - self.known
        if unread and self.options.get("state") != "cleaned":
            raise world.broken(f"{self.name} removed what the server had never loaded: {sorted(unread)}")
        if self.switches and (done is None or not done.failed):
            if before.next is not None and after.next is None:
                raise world.broken(f"{self.name}: the next start fails, and would not have before")
            return
        worse = worse_start(before, after, world.oracle.latest)
        if worse:
            raise world.broken(f"{self.name}: {worse}")
        if done is not None:
            self._require_same_data(before, after, done)

    def _require_same_data(self, before: Look, after: Look, done: types.SimpleNamespace) -> None:
        world = self.world
        was = before.live if before.live is not None else before.next
        if after.live is None:
            if before.live is not None and not (done.failed and STOPPED.search(done.msg)):
                raise world.broken(f"{self.name} leaves the server stopped, and does not say so: {_short(done)}")
            return
        if was is not None and differences(was, after.live):
            raise world.broken(f"{self.name}: the server has other data: {differences(was, after.live)}")

    def _checked(self, before: Look) -> types.SimpleNamespace:
        """Check mode, which asks for nothing and leaves everything as it is."""
        world = self.world
        asked = self._asked()
        done = self.call(check=True)
        if self._asked() != asked:
            raise world.broken(f"{self.words} in check mode: asked the server for {asked} → {self._asked()}")
        if not world.full:
            self._require_same_tree(before, None, "in check mode")
        return done

    def _require_same_tree(self, before: Look, after: Look | None, how: str) -> None:
        now = (
            after.tree
            if after
            else {path: raw for path, raw in self.world.one.tree().items() if not path.endswith("/filler")}
        )
        other = sorted(path for path in {*before.tree, *now} if before.tree.get(path) != now.get(path))
        if other:
            raise self.world.broken(f"{self.words} {how}: it changed {other}")

    def _require_unchanged(self, done: types.SimpleNamespace) -> None:
        if done.predicted.failed and done.predicted.code == done.code:
            self._require_same_tree(done.before, done.after, f"was refused ({done.code})")

    def _require_predicted(self, predicted: types.SimpleNamespace, done: types.SimpleNamespace) -> None:
        done.predicted = predicted
        if done.failed and not predicted.failed and (self.world.full or done.code in ONLY_THE_RUN_KNOWS):
            return
        said = (
            predicted.failed,
            getattr(predicted, "code", ""),
            getattr(predicted, "actions", []),
            getattr(predicted, "diff", None),
        )
        did = (done.failed, getattr(done, "code", ""), getattr(done, "actions", []), getattr(done, "diff", None))
        if said != did:
            raise self.world.broken(
                f"{self.words}: check mode predicted {said}\nand the run did {did}\n{predicted.msg}\n{done.msg}"
            )

    def _asked(self) -> dict[str, int]:
        if not self.world.one.runs:
            return {}
        stats = self.world.one.client().info("commandstats")
        return {name: stats[name]["calls"] for name in ASKED if name in stats}

    def _suspended(self) -> dict[str, str]:
        if not self.world.one.runs:
            return {}
        with contextlib.suppress(redis.RedisError):
            client = self.world.one.client()
            return {name: client.config_get(name).get(name, "") for name in SUSPENDED}
        return {}

    def _require_nothing_suspended(self, config: dict[str, str]) -> None:
        world = self.world
        held = sorted((world.base / "run" / "redisops" / "held").glob("*"))
        if held or sorted(world.unit.guards.iterdir()):
            raise world.broken(f"{self.name}: the unit is still held: {held}, {list(world.unit.guards.iterdir())}")
        if not world.one.runs:
            return
        begun = time.monotonic()
        try:
            world.one.client().publish("walk", "nobody listens")  # paused as a write is
        except redis.ResponseError:
            pass
        except redis.TimeoutError:
            raise world.broken(f"{self.name}: writes are still paused") from None
        if time.monotonic() - begun > 3:
            raise world.broken(f"{self.name}: writes were paused for {time.monotonic() - begun:.1f} s after the run")
        now = self._suspended()
        declared = {name.replace("_", "-") for name in self.options} | set(self.options.get("settings", ()))
        other = {
            name: (config[name], now[name]) for name in config if config[name] != now[name] and name not in declared
        }
        if other and "persistence" not in self.name:
            raise world.broken(f"{self.name}: what it had suspended is still so: {other}")

    def _loaded(self) -> None:
        deadline = time.monotonic() + 10
        while "LOADING" in self.world.one.raw("PING") and time.monotonic() < deadline:
            time.sleep(0.02)

    def _wait_for_child_servers(self) -> None:
        self.world.quiet(self.world.one)


def _plain(done: types.SimpleNamespace) -> types.SimpleNamespace:
    """As JSON, which is how it leaves the child process."""
    return done


def _short(done: types.SimpleNamespace) -> str:
    if done.failed:
        return f"failed [{getattr(done, 'code', '?')}] {done.msg[:300]}"
    return f"ok {'changed ' + str(done.actions) if done.changed else 'unchanged'}"


def _with(look: Look, more: Data) -> Look:
    """The same moment, with what was acknowledged since."""
    live = None if look.live is None else {**look.live, **more}
    return Look(live, look.next, look.on_disk, look.tree)


@contextlib.contextmanager
def writing(world: World) -> t.Iterator[dict[str, str]]:
    """A client that writes new keys until the block ends; gives those that were acknowledged."""
    acknowledged: dict[str, str] = {}
    halt = threading.Event()
    oracle, port = world.oracle, world.one.port

    def write() -> None:
        client = redis.Redis(port=port, socket_timeout=40)
        while not halt.wait(0.01):
            key, value = f"w:{oracle.new_value()}", oracle.new_value()
            with contextlib.suppress(redis.RedisError):
                if client.set(key, value):
                    acknowledged[key] = value

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield acknowledged
    finally:
        halt.set()
        writer.join(60)


@contextlib.contextmanager
def held_by_another(path: str) -> t.Iterator[None]:
    """Another process has the lock until the block ends."""
    ready, told = os.pipe()
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(told, b"x")
        while True:
            signal.pause()
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pathlib.Path(path).unlink(missing_ok=True)
