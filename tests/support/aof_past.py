# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server whose every second is written down, and runs that are killed before their N-th effect."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import time

import pytest
import redis
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place

CONF = 'appendonly yes\naof-timestamp-enabled yes\nauto-aof-rewrite-percentage 0\nappendfsync no\nenable-debug-command yes\nsave ""\n'
#: What a reader of text would trip over.
NASTY = [b"\x00\xff\x00", b"#TS:1\r\n", b"\r\n*1\r\n$8\r\nFLUSHALL\r\n#TS:9999999999\r\n", b"", bytes(range(256)) * 40]


class Past:
    """``states`` is the digest of all data at the end of a second, for every second of which that is known."""

    def __init__(self, server, appendfilename="appendonly.aof"):
        self.server, self.appendfilename = server, appendfilename
        self.states: dict[int, str] = {}
        self._last: tuple[int, str] | None = None

    def start(self, more=""):
        self.server.write_conf(CONF + f'appendfilename "{self.appendfilename}"\n' + more)
        self.server.start()
        self.step()
        return self

    @property
    def place(self) -> Place:
        return Place(str(self.server.data), "dump.rdb", "appendonlydir", self.appendfilename)

    @property
    def live(self) -> pathlib.Path:
        return self.server.data / "appendonlydir"

    def send(self, *lines):
        """One connection, one packet: the answers to commands given as words."""
        with redis.Redis(port=self.server.port) as client:
            connection = client.connection_pool.get_connection()
            connection.send_packed_command(connection.pack_commands(lines))
            return [connection.read_response() for _line in lines]

    def digest(self) -> str:
        return self.send(("DEBUG", "DIGEST"))[0].decode()

    def step(self, *lines) -> int:
        """Run commands in a second of their own, write the state down, and give that second."""
        self._tick()
        return self.more(*lines)

    def more(self, *lines) -> int:
        """As step, but at once."""
        before, *_answers, digest, after = self.send(("TIME",), *lines, ("DEBUG", "DIGEST"), ("TIME",))
        first, last = int(before[0]), int(after[0])
        if self._last:
            self.states.update(dict.fromkeys(range(self._last[0] + 1, first), self._last[1]))
        for second in range(first, last):  # it ended between two commands
            self.states.pop(second, None)
        self.states[last] = digest.decode()
        self._last = (last, digest.decode())
        return last

    def _tick(self):
        now = int(time.time())
        while int(time.time()) == now or (self._last and int(time.time()) <= self._last[0]):
            time.sleep(0.01)

    def rewrite(self):
        """A rewrite, to its end: the older files are gone."""
        self.server.cli("BGREWRITEAOF")
        done = time.monotonic() + 30
        while self.server.info("aof_rewrite_in_progress") != "0" or any(self.old_files()):
            assert time.monotonic() < done
            time.sleep(0.05)

    def old_files(self):
        manifest = (self.live / f"{self.appendfilename}.manifest").read_text()
        return [
            path.name
            for path in self.live.iterdir()
            if not path.name.endswith(".manifest") and path.name not in manifest
        ]

    def failed_rewrite(self):
        """A rewrite whose child is killed, while it waits behind a key: it leaves one more increment behind."""
        assert "keys=" in self.server.cli("INFO", "keyspace"), (
            "without a key the child would be at its end before it is killed"
        )
        self.server.cli("CONFIG", "SET", "rdb-key-save-delay", "10000000")
        self.server.cli("BGREWRITEAOF")
        children = pathlib.Path(f"/proc/{self.server.process.pid}/task/{self.server.process.pid}/children")
        done = time.monotonic() + 30
        while not children.read_text().split():
            assert time.monotonic() < done
            time.sleep(0.02)
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        while self.server.info("aof_rewrite_in_progress") != "0":
            assert time.monotonic() < done
            time.sleep(0.02)
        assert self.server.info("aof_last_bgrewrite_status") == "err"
        self.server.cli("CONFIG", "SET", "rdb-key-save-delay", "0")


def tree(*folders) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }


_EFFECTS = ("link", "rename", "replace", "mkdir", "unlink", "fsync", "chown", "chmod", "rmdir", "open")


def killed_before(number: int, run) -> str:
    """Run ``run`` in a child that is killed before its ``number``-th effect: the name of that, empty where it came to its end."""
    report, predicted = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                count = [0]

                def arm(module, name):
                    real = getattr(module, name)

                    def wrapper(*args, **options):
                        count[0] += 1
                        if count[0] == number:
                            os.write(predicted, name.encode())
                            os.kill(os.getpid(), signal.SIGKILL)
                        return real(*args, **options)

                    patch.setattr(module, name, wrapper)

                for name in _EFFECTS:
                    arm(os, name)
                arm(shutil, "rmtree")
                run()
                status = 0
        finally:
            os._exit(status)
    os.close(predicted)
    with open(report, "rb") as handle:
        name = handle.read().decode()
    status = os.waitpid(child, 0)[1]
    assert status == (signal.SIGKILL if name else 0)
    return name
