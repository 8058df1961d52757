# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One host for a walk: its server on a small disk, its unit, its clock, and a second server; and the walk's diary."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
import redis
from ansible_collections.redisops.recovery.plugins.module_utils.system import lock
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host

from tests.integration.conftest import RedisUnderTest
from tests.support.unit import PretendedUnit
from tests.walk.oracle import Data, Look, Oracle, Violation, values_on_disk

HERE = pathlib.Path(__file__).resolve().parent
DISK_BYTES = 24 * 1024 * 1024
CONF = "auto-aof-rewrite-percentage 0\nenable-debug-command local\nrepl-diskless-sync-delay 0\nshutdown-timeout 0\n"
#: Modules that ask systemd.
WITH_UNIT = ("redis_service", "redis_restore", "redis_repair")


@functools.cache
def _clock_library() -> str:
    """clock.c, compiled once."""
    library = pathlib.Path(tempfile.mkdtemp(prefix="redisops-walk-clock-")) / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock.c")], check=True)
    atexit.register(shutil.rmtree, library.parent, ignore_errors=True)
    return str(library)


class _Found:
    """A server that another process than this one has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        return None if Host().began(self.pid) is not None else 0

    def send_signal(self, how: int) -> None:
        os.kill(self.pid, how)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < deadline, f"process {self.pid} does not end"
            time.sleep(0.01)


class Walked(RedisUnderTest):
    """A server whose clock can be stepped, and that may have been started by anybody. ``clock``: the file with its clock's offset."""

    def __init__(self, home: pathlib.Path, clock: pathlib.Path) -> None:
        super().__init__(home)
        self.clock = clock

    def start(self, *arguments: str, umask: int = 0o007) -> Walked:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", f"{self.clock}.so")
            patch.setenv("WALK_CLOCK", str(self.clock))
            super().start(*arguments, umask=umask)
        return self

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def find(self) -> None:
        """Whoever started it: the process that has its data directory now."""
        if not self.runs:
            found = Host().servers_in(str(self.data))
            self.process = t.cast(t.Any, _Found(found[0])) if found else None

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=10)

    def everything(self) -> Data | None:
        """All strings of database 0; None while it is stopped."""
        if not self.runs:
            return None
        client = self.client()
        keys = sorted(client.scan_iter(count=1000))
        return {key: value for key, value in zip(keys, client.mget(keys)) if value is not None} if keys else {}


class WalkedUnit(PretendedUnit):
    """A unit whose server may fail to start, or be started by a run that was killed. ``guards``: scripts of timers on the host."""

    def __init__(self, server: Walked, guards: pathlib.Path) -> None:
        super().__init__(server)
        self.guards = guards
        guards.mkdir()

    def pid(self) -> int:
        self.server.find()
        return super().pid()

    def start(self) -> None:
        self.server.find()
        if not self.server.runs:
            super().start()

    def stop(self) -> None:
        self.server.find()
        super().stop()

    def run(self, *args: str, **more: t.Any) -> Completed:
        if args[0] == "systemd-run":
            name = next(word for word in args if word.startswith("--unit=")).partition("=")[2]
            (self.guards / name).write_text(args[-1])
        if args[:2] == ("systemctl", "stop") and args[-1].endswith(".timer"):
            (self.guards / args[-1].removesuffix(".timer")).unlink(missing_ok=True)
        try:
            return super().run(*args, **more)
        except AssertionError as error:
            return Completed(1, f"Job for redis.service failed: {error}")


class World:
    """``base`` holds all of it. ``oracle`` knows what was acknowledged; ``told`` are the steps so far, in words.

    ``aloud``: each step is printed as it is done. ``known``: values that the server's process has loaded or was given.
    ``rotten``: inodes of files that rotted; nobody can see that without reading them from end to end.
    """

    aloud = False

    def __init__(self, base: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
        self.base, self.patch, self.oracle = base, patch, Oracle()
        self.told: list[str] = []
        self.seen: Look | None = None
        self.known: set[str] = set()
        self._process = 0
        self.rotten: set[int] = set()
        self.offset = 0
        self.clock = base / "clock"
        shutil.copy(_clock_library(), f"{self.clock}.so")
        self.set_clock(0)
        self.one, self.two = (self._server(name) for name in ("one", "two"))
        self.aside = base / "aside"
        self.aside.mkdir()
        self._mount()
        self.unit = WalkedUnit(self.one, base / "guards")
        self._patch_modules()

    def _server(self, name: str) -> Walked:
        home = self.base / name
        home.mkdir()
        server = Walked(home, self.clock)
        server.write_conf(CONF + "save 86400 1\nappendonly no\n")
        return server

    def _mount(self) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0750", "redisops-walk", str(self.one.data)],
            check=True,
        )

    def _patch_modules(self) -> None:
        import importlib

        self.patch.setattr(Host, "runtime", str(self.base / "run"))
        self.patch.setattr(lock, "PATIENCE", 0.3)
        for name in WITH_UNIT:
            module = importlib.import_module(f"ansible_collections.redisops.recovery.plugins.modules.{name}")
            self.patch.setattr(module, "Host", lambda: Host("/", self.unit.run))
            if hasattr(module, "SYSTEM_UNITS"):
                self.patch.setattr(module, "SYSTEM_UNITS", str(self.base / "units"))

    def close(self) -> None:
        for server in (self.one, self.two):
            server.find()
            server.stop(signal.SIGKILL)
        subprocess.run(["umount", "--lazy", str(self.one.data)], check=True)

    def set_clock(self, ahead: int) -> None:
        """The host's clock is ``ahead`` seconds before the real one, for its servers and for our modules."""
        self.offset = ahead
        with open(self.clock, "r+b" if self.clock.exists() else "wb") as handle:
            handle.write(ahead.to_bytes(8, sys.byteorder, signed=True))

    # --- the diary ---

    def tell(self, words: str) -> None:
        self.told.append(words)
        if self.aloud:
            print(f"  {words}", flush=True)

    def broken(self, law: str) -> Violation:
        return Violation(f"{law}\nThe walk, {len(self.told)} steps (files: {self.base}):\n  " + "\n  ".join(self.told))

    # --- what is ---

    def quiet(self, server: Walked) -> None:
        """Wait until nothing of what was acknowledged is in a buffer only, and no child runs."""
        deadline = time.monotonic() + 15
        while server.runs and time.monotonic() < deadline:
            info = server.client().info("persistence")
            names = ("loading", "aof_buffer_length", "rdb_bgsave_in_progress", "aof_rewrite_in_progress")
            if self.full or not any(info.get(name) for name in (*names, "aof_rewrite_scheduled")):
                return
            time.sleep(0.02)

    @property
    def filler(self) -> pathlib.Path:
        return self.one.data / "filler"

    @property
    def full(self) -> bool:
        return self.filler.exists()

    def forget(self) -> None:
        """Behind a step: what others destroyed is nobody's any more (a run of ours has been judged by then)."""
        self.seen = self.look()
        gone = self.oracle.forget(self.seen)
        if gone:
            self.tell(f"(gone by what was not ours: {' '.join(gone)})")

    def look(self) -> Look:
        self.one.find()
        self.quiet(self.one)
        on_disk = values_on_disk(self.base)
        tree = {path: raw for path, raw in self.one.tree().items() if not path.endswith("/filler")}
        two, live = self._live(self.two) or {}, self._live(self.one)
        self._learn(live or {})
        return Look(live, self._next_start(), on_disk | frozenset(two.values()), tree)

    def rots(self) -> bool:
        """Whether a file that rotted is still among the server's."""
        return any(path.stat().st_ino in self.rotten for path in self.one.data.glob("*/*.aof"))

    def _learn(self, live: Data) -> None:
        """A process that began since the last look knows what it loaded, also where that was written over again later in the same file."""
        process = self.unit.pid()
        if process and process != self._process:
            self._process = process
            client = self.one.client()
            place = client.config_get("appenddirname")["appenddirname"]
            loads_aof = client.info("persistence")["aof_enabled"]
            self.known = set(values_on_disk(self.one.data / place) if loads_aof else ())
        self.known.update(live.values())

    def _live(self, server: Walked) -> Data | None:
        """What it has; a replica that waits for its primary says so in time."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return server.everything()
            except (redis.ResponseError, redis.ConnectionError):
                if time.monotonic() > deadline:
                    return {}
                time.sleep(0.05)

    def _next_start(self) -> Data | None:
        """What a start has after a SIGKILL now: in a copy, from the file as it is."""
        home = self.base / "crashed"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        copy = Walked(home, self.clock)
        with self._frozen():
            shutil.copytree(self.one.home, home, dirs_exist_ok=True, ignore=_no_start_reads)
        text = self.one.conf.read_text()
        copy.conf.write_text(
            text.replace(str(self.one.home), str(home)).replace(f"port {self.one.port}\n", f"port {copy.port}\n")
            + 'save ""\nreplicaof no one\n'
        )
        try:
            return copy.start().everything()
        except (AssertionError, redis.RedisError):
            return None
        finally:
            copy.stop(signal.SIGKILL)
            shutil.rmtree(home, ignore_errors=True)

    @contextlib.contextmanager
    def _frozen(self) -> t.Iterator[None]:
        if not self.one.runs:
            yield
            return
        process = t.cast(t.Any, self.one.process)
        process.send_signal(signal.SIGSTOP)
        stat = pathlib.Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    # --- the guard's timer on the host ---

    def fire_guards(self) -> list[str]:
        """The timers of runs that died come due; gives what they ran."""
        tools = self.base / "tools"
        tools.mkdir(exist_ok=True)
        asked = tools / "asked"
        asked.write_text("")
        (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
        (tools / "systemctl").chmod(0o755)
        fired = sorted(self.unit.guards.iterdir())
        for guard in fired:
            environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
            subprocess.run(["/bin/sh", "-c", guard.read_text()], check=False, env=environment, timeout=60)
        for line in asked.read_text().splitlines():
            self.unit.run("systemctl", *line.split())
        return [guard.name for guard in fired]


def _no_start_reads(_directory: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("temp-") or name in ("redis.log", "filler", "backups")]
