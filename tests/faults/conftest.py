# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cutting a module off before its N-th effect, and looking at what a crash of the server would then find."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import typing as t

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def _load(name: str, path: pathlib.Path) -> t.Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


integration = _load("redisops_integration_conftest", HERE.parent / "integration" / "conftest.py")
RedisUnderTest = integration.RedisUnderTest
_tools_on_path = integration._tools_on_path
_new_redis = integration._new_redis
_redis_server = integration._redis_server
_runtime_of_its_own = integration._runtime_of_its_own

#: Functions that change something which outlives the process, and is not the content of a file nobody reads yet.
_EFFECTS = {os: ("replace", "rename", "fsync", "mkdir", "rmdir", "chown", "link", "kill"), shutil: ("rmtree",)}
_SETTERS = (("CONFIG", "SET"), ("ACL", "SETUSER"), ("ACL", "DELUSER"))
_COMMANDS = ("BGSAVE", "BGREWRITEAOF", "SAVE", "CLIENT")


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a run ended: ``result`` is the module's where it came to its end, ``effects`` the names in order."""

    cut: bool
    effects: list[str]
    result: dict[str, t.Any]


class _Countdown:
    """Kills this process before its N-th effect."""

    def __init__(self, before: int, report: int) -> None:
        self.before = before
        self.report = report
        self.count = 0

    def point(self, name: str) -> None:
        self.count += 1
        os.write(self.report, f"{name}\n".encode())
        if self.count == self.before:
            os.kill(os.getpid(), signal.SIGKILL)


def _from_collection() -> bool:
    """Whether the wrapped function was called by the collection, and not for the temporary server in its private directory."""
    caller = sys._getframe(2).f_code.co_filename
    return "/plugins/module" in caller and not caller.endswith("/temporary_server.py")


def _wrap(patch: pytest.MonkeyPatch, module: t.Any, name: str, countdown: _Countdown) -> None:
    real = getattr(module, name)

    def wrapper(*args: t.Any, **options: t.Any) -> t.Any:
        if _from_collection():
            countdown.point(name)
        return real(*args, **options)

    patch.setattr(module, name, wrapper)


def _arm(patch: pytest.MonkeyPatch, countdown: _Countdown) -> None:
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import exchange as restore_exchange
    from ansible_collections.redisops.recovery.plugins.module_utils.restore import swap as restore_swap
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server
    from ansible_collections.redisops.recovery.plugins.module_utils.service import hold, start, stop

    _wrap(patch, restore_swap, "exchange", countdown)
    for module in (restore_exchange, hold, start, stop):
        _wrap(patch, module, "systemctl", countdown)
    for module, names in _EFFECTS.items():
        for name in names:
            _wrap(patch, module, name, countdown)
    _watch_files(patch, countdown)
    _watch_commands(patch, countdown, Server)


def _watch_files(patch: pytest.MonkeyPatch, countdown: _Countdown) -> None:
    """Count each file that is opened to be written to, and each half of a copy."""
    real_os_open, real_open = os.open, builtins.open

    def os_open(path: t.Any, flags: int, *args: t.Any, **options: t.Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and _from_collection():
            countdown.point("os.open")
        return real_os_open(path, flags, *args, **options)

    def open_(file: t.Any, mode: str = "r", *args: t.Any, **options: t.Any) -> t.Any:
        if not isinstance(file, int) and set(mode) & set("wax+") and _from_collection():
            countdown.point("open")
        return real_open(file, mode, *args, **options)

    def copyfileobj(source: t.Any, target: t.Any, length: int = 0) -> None:
        countdown.point("copyfileobj")
        content = source.read()
        target.write(content[: len(content) // 2])
        target.flush()
        countdown.point("copyfileobj, half")
        target.write(content[len(content) // 2 :])

    patch.setattr(os, "open", os_open)
    patch.setattr(builtins, "open", open_)
    patch.setattr(shutil, "copyfileobj", copyfileobj)


def _watch_commands(patch: pytest.MonkeyPatch, countdown: _Countdown, server: t.Any) -> None:
    """Count before and after each command that changes a server."""
    real_command = server.command

    def command(self: t.Any, *args: t.Any) -> t.Any:
        words = " ".join(str(word) for word in args)
        telling = args[:2] in _SETTERS or args[0] in _COMMANDS
        if telling:
            countdown.point(f"before {words}")
        answer = real_command(self, *args)
        if telling:
            countdown.point(f"after {words}")
        return answer

    patch.setattr(server, "command", command)


def run_cut(run: t.Callable[[], t.Any], before: int) -> Cut:
    """Run ``run`` (which gives a module's result) in a child process that is killed before its ``before``-th effect."""
    report, report_in = os.pipe()
    answer, answer_in = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                _arm(patch, _Countdown(before, report_in))
                result = run()
            os.write(answer_in, json.dumps(vars(result)).encode())
            status = 0
        except BaseException as error:
            os.write(answer_in, json.dumps({"failed": True, "msg": f"the test itself: {error!r}"}).encode())
        finally:
            os._exit(status)
    os.close(report_in)
    os.close(answer_in)
    with open(report, encoding="utf-8") as reports, open(answer, encoding="utf-8") as answers:
        effects, text = reports.read().splitlines(), answers.read()
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or text, f"the child ended with {status} and without a word"
    return Cut(killed, effects, {} if killed else json.loads(text))


@contextlib.contextmanager
def crashed_copy(server: t.Any) -> t.Iterator[t.Any]:
    """The server as a SIGKILL now would leave it, started from its file in a copy of its directory; the original goes on.

    The original is stopped (SIGSTOP) while its files are copied. What SIGKILL leaves is the same: all that was written to
    the page cache, nothing of what was not.
    """
    alive = server.process is not None and server.process.poll() is None
    home = server.home.with_name(f"{server.home.name}-crashed")
    if alive:
        server.process.send_signal(signal.SIGSTOP)
        stat = pathlib.Path(f"/proc/{server.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
    try:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        copy = RedisUnderTest(home)
        shutil.copytree(server.home, home, dirs_exist_ok=True, ignore=_vanishing)
    finally:
        if alive:
            server.process.send_signal(signal.SIGCONT)
    text = server.conf.read_text()
    copy.conf.write_text(
        text.replace(str(server.home), str(home)).replace(f"port {server.port}\n", f"port {copy.port}\n")
    )
    try:
        yield copy
    finally:
        copy.stop(signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def _vanishing(directory: str, names: list[str]) -> list[str]:
    """The files of a save or rewrite under way belong to a child process that goes on; no start reads them."""
    return [
        name for name in names if (name.startswith("temp-") and name.endswith((".rdb", ".aof"))) or name == "redis.log"
    ]


@pytest.fixture(name="tmp_path")
def _tmp_path() -> t.Iterator[pathlib.Path]:
    """In memory where there is such a place: hundreds of servers are started here, and each syncs its files."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as home:
        yield pathlib.Path(home)


@pytest.fixture(name="sweep")
def _sweep(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[..., t.Iterator[tuple[str, t.Any, Cut]]]]:
    """``sweep(prepare, run)`` yields (point, server, cut) for every point at which ``run(server)`` can be cut off.

    ``prepare(server)`` brings a fresh server into the starting situation, for each point anew. The last pair is the run that
    came to its end; its point is called "the end".
    """
    servers: list[t.Any] = []

    def points(
        prepare: t.Callable[[t.Any], None], run: t.Callable[[t.Any], t.Any]
    ) -> t.Iterator[tuple[str, t.Any, Cut]]:
        for before in itertools.count(1):
            assert before < 200, "the run does not come to its end"
            home = tmp_path / "one"
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            server = RedisUnderTest(home)
            servers.append(server)
            prepare(server)
            cut = run_cut(lambda server=server: run(server), before)
            name = f"{before}: {cut.effects[-1]}" if cut.cut else "the end"
            try:
                yield name, server, cut
            finally:
                server.stop(signal.SIGKILL)
            if not cut.cut:
                assert before > 1, "no effect was seen: the sweep would verify nothing"
                return

    yield points
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture(name="crashed_copy")
def _crashed_copy() -> t.Callable[[t.Any], t.ContextManager[t.Any]]:
    return crashed_copy
