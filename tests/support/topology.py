# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading an inventory as an operator does: with ansible-inventory, in a process of its own."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import socket
import subprocess
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


#: Below what kernels give to outgoing connections (32768 and above), as is the bus of a cluster's node, 10000 above its port.
_FIRST, _EACH, _WORKERS = 11000, 500, 20
_next = itertools.count(os.getpid() % _EACH)


def free_port() -> int:
    """A port on loopback for a server that is about to start, free together with the one 10000 above.

    Each worker of pytest has ports of its own, and takes the next each time: what the kernel would give could be had by another
    server, or by a client's connection, before this one listens.
    """
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % _WORKERS
    for number in itertools.islice(_next, _EACH):
        port = _FIRST + worker * _EACH + number % _EACH
        with socket.socket() as plain, socket.socket() as bus:
            try:
                plain.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port
    raise AssertionError(
        f"none of the ports {_FIRST + worker * _EACH} to {_FIRST + worker * _EACH + _EACH - 1} is free"
    )


def wait(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def cli(port, *words, password=None, user=None, more=()):
    environment = {**os.environ, **({"REDISCLI_AUTH": password} if password else {})}
    login = ["--user", user] if user else []
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", *login, "-p", str(port), *more, *words],
        capture_output=True, text=True, check=False, env=environment, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


class Source:
    """An inventory file, and what Ansible makes of it."""

    def __init__(self, folder: pathlib.Path, name: str, plugin: str) -> None:
        self.path, self.plugin = folder / name, plugin
        self.environment = {}

    def write(self, **options) -> Source:
        self.path.write_text(yaml.safe_dump({"plugin": self.plugin, **options}))
        return self

    def run(self, *arguments: str, before: pathlib.Path | None = None) -> subprocess.CompletedProcess:
        sources = [*(["-i", str(before)] if before else []), "-i", str(self.path)]
        environment = {
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "1", "COLUMNS": "2000", **self.environment,
        }  # fmt: skip
        return subprocess.run(
            ["ansible-inventory", *sources, *(arguments or ["--list"])],
            capture_output=True, text=True, check=False, env=environment, timeout=120,
        )  # fmt: skip

    def read(self, *arguments: str, before: pathlib.Path | None = None) -> Inventory:
        done = self.run(*arguments, before=before)
        assert done.returncode == 0, done.stderr
        return Inventory(json.loads(done.stdout), done.stderr)

    def failure(self, code: str) -> str:
        """What a read that fails says: one clear error, no traceback."""
        done = self.run()
        assert done.returncode != 0, done.stdout
        assert f"[{code}]" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        return " ".join(done.stderr.split())


class Inventory:
    def __init__(self, listed: dict, reported: str) -> None:
        self.listed, self.said = listed, " ".join(reported.split())
        self.vars = listed["_meta"]["hostvars"]

    def group(self, name: str) -> list[str]:
        return sorted(self.listed.get(name, {}).get("hosts", []))

    def ports(self, name: str) -> list[int]:
        """The ports of the servers in a group."""
        return sorted(self.vars[host]["redis_port"] for host in self.group(name))

    def of(self, port: int) -> dict:
        return next(values for values in self.vars.values() if values.get("redis_port") == port)
