# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real redis-server on loopback, with data, for every test that asks for one."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import typing as t

import pytest

from tests.support.topology import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def _tools_on_path() -> t.Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        server = os.environ.get("REDISOPS_TEST_SERVER", "")
        places = [*([ROOT / ".cache" / "servers" / server] if server else []), ROOT / ".cache" / "bin"]
        patch.setenv("PATH", ":".join([*map(str, places), os.environ["PATH"]]))
        if shutil.which("redis-server") is None:
            raise pytest.UsageError("redis-server is not installed: run `make setup`")
        yield


@pytest.fixture(autouse=True)
def _runtime_of_its_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run puts into /run for systemd is not put into this machine's."""
    from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

    monkeypatch.setattr(Host, "runtime", str(tmp_path / "run"))


class RedisUnderTest:
    """One redis-server with its own directory and file. ``cli`` is redis-cli, the independent reader."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.data = home / "data"
        self.data.mkdir(0o750)
        self.conf = home / "redis.conf"
        self.port = free_port()
        self.password: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.write_conf("")

    def write_conf(self, extra: str) -> None:
        self.conf.write_text(
            f"# made for a test\nbind 127.0.0.1\nport {self.port}\ndir {self.data}\nlogfile {self.home}/redis.log\n{extra}"
        )

    def start(self, *arguments: str, umask: int = 0o007) -> RedisUnderTest:
        self.process = subprocess.Popen(
            ["redis-server", str(self.conf), *arguments], cwd="/", umask=umask, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError("redis-server ended: " + self.log()[-2000:])
            answer = self.raw("PING")
            if "PONG" in answer or "NOAUTH" in answer or "MISCONF" in answer:
                return self
            time.sleep(0.02)
        raise AssertionError("redis-server did not answer: " + self.log()[-2000:])

    def log(self) -> str:
        path = self.home / "redis.log"
        return path.read_text() if path.exists() else ""

    def raw(self, *words: str) -> str:
        environment = dict(os.environ)
        if self.password:
            environment["REDISCLI_AUTH"] = self.password
        done = subprocess.run(
            ["redis-cli", "--no-auth-warning", "-p", str(self.port), *words],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        return done.stdout.rstrip("\n") + done.stderr

    def cli(self, *words: str) -> str:
        answer = self.raw(*words)
        assert not answer.startswith(("ERR", "NOAUTH", "WRONGPASS", "(error)", "Could not connect")), answer
        return answer

    def fill(self, count: int, prefix: str = "key") -> None:
        self.cli("EVAL", f"for i=1,{count} do redis.call('SET', '{prefix}:'..i, string.rep('v', 20)..i) end", "0")

    def config(self, name: str) -> str:
        return "\n".join(self.cli("CONFIG", "GET", name).splitlines()[1:])

    def live_config(self) -> list[tuple[str, str]]:
        """All of CONFIG GET by name, none while it is stopped: Redis gives it in the order of a hash table, which changes by itself."""
        if self.process is None or self.process.poll() is not None:
            return []
        words = self.cli("CONFIG", "GET", "*").splitlines()
        return sorted(itertools.zip_longest(words[::2], words[1::2], fillvalue=""))

    def info(self, name: str) -> str:
        return next(
            line.split(":", 1)[1] for line in self.cli("INFO", "everything").splitlines() if line.startswith(name + ":")
        )

    def product(self) -> str:
        """Name and version as the program itself tells them, such as ``Redis 7.0.15``."""
        told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
        name, version = re.match(r"(\w+) server v=(\S+)", told).groups()
        return f"{name} {version}"

    def keys(self) -> int:
        return int(self.cli("DBSIZE"))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> RedisUnderTest:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)
        return self

    def restart(self, how: signal.Signals = signal.SIGTERM) -> RedisUnderTest:
        return self.stop(how).start()

    def params(self, **more: t.Any) -> dict[str, t.Any]:
        """The options that point a module at this server."""
        return {"config_file": str(self.conf), "login_port": self.port, "timeout": 30, **more}

    def tree(self) -> dict[str, bytes]:
        """Every file under the test's directory but the log, for "and nothing changed"."""
        deadline = time.monotonic() + 5
        while self.process and self.process.poll() is None and time.monotonic() < deadline:
            if not re.search(r"^aof_buffer_length:[1-9]", self.raw("INFO", "persistence"), re.M):
                break
            time.sleep(0.05)  # while a sync is under way, Redis puts the next write to the AOF off
        return {
            str(path): path.read_bytes() for path in self.home.rglob("*") if path.is_file() and path.name != "redis.log"
        }


@pytest.fixture(name="new_redis")
def _new_redis(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[[], RedisUnderTest]]:
    made: list[RedisUnderTest] = []

    def make(name: str = "one") -> RedisUnderTest:
        home = tmp_path / name
        home.mkdir()
        made.append(RedisUnderTest(home))
        return made[-1]

    yield make
    for server in made:
        server.stop(signal.SIGKILL)


@pytest.fixture(name="redis_server")
def _redis_server(new_redis: t.Callable[[], RedisUnderTest]) -> RedisUnderTest:
    return new_redis()
