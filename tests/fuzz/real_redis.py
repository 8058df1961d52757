# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a real redis-server makes of files: whether it starts on them, and what it then has."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_SECONDS = 20.0
_MEMORY = 4 * 2**30


def _limited() -> None:
    """A length of gigabytes that stands in a file may not take the machine's memory, and a crash leaves no core."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@dataclasses.dataclass(frozen=True)
class Answer:
    """``replies`` to what was asked, in order; ``log`` is all that the server printed."""

    started: bool
    log: str
    replies: tuple[t.Any, ...] = ()


def _reply(connection: redis.Connection, words: t.Sequence[str]) -> t.Any:
    """As the server says it: nothing is made of it."""
    connection.send_command(*words)
    return connection.read_response()


def _asked(path: str, questions: t.Sequence[tuple[str, ...]], done: float) -> t.Optional[tuple[t.Any, ...]]:
    """Replies; None where nobody answers (yet)."""
    while time.monotonic() < done:
        connection = redis.UnixDomainSocketConnection(
            path=path, socket_timeout=5, protocol=2, retry=Retry(NoBackoff(), 0)
        )
        try:
            return tuple(_reply(connection, words) for words in questions)
        except redis.BusyLoadingError:
            time.sleep(0.005)
        except redis.ConnectionError:
            return None
        except redis.ResponseError as error:  # it runs, and does not let us ask
            return (error,)
        finally:
            connection.disconnect()
    return None


def start(directory: pathlib.Path, arguments: t.Sequence[str], questions: t.Sequence[tuple[str, ...]]) -> Answer:
    """Start it in ``directory``, where it saves nothing by itself; ask, and kill it."""
    more = [
        "--save",
        "",
        "--logfile",
        "",
        "--crash-log-enabled",
        "no",
        "--crash-memcheck-enabled",
        "no",
        "--enable-debug-command",
        "local",
    ]
    return start_with(
        directory, [*arguments, "--port", "0", "--unixsocket", "s", "--dir", str(directory), *more], questions
    )


def start_with(directory: pathlib.Path, arguments: t.Sequence[str], questions: t.Sequence[tuple[str, ...]]) -> Answer:
    """As start, with these arguments and no others. It has to listen on the socket ``s``."""
    path = str(directory / "s")
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["redis-server", *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=directory,
            preexec_fn=_limited,  # noqa: PLW1509
        )  # fmt: skip
        replies, done = None, time.monotonic() + _SECONDS
        try:
            while replies is None and process.poll() is None and time.monotonic() < done:
                if os.path.exists(path):
                    replies = _asked(path, questions, done)
                if replies is None:
                    time.sleep(0.003)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        output.seek(0)
        log = output.read().decode("utf-8", "replace")
    return Answer(replies is not None, log, replies or ())


@dataclasses.dataclass
class Room:
    """A directory for one trial, emptied for the next. In memory: a trial writes and syncs."""

    root: pathlib.Path

    def clear(self) -> pathlib.Path:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        return self.root
