# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pytest plugin of the Molecule scenarios: the lab's hosts through testinfra, and the record of what Ansible did."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import re
import subprocess
import time
import typing as t

import docker
import pytest
import testinfra

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAB = "mol-" + os.environ.get("MOLECULE_SCENARIO_NAME", "none").replace("_", "-")


class LabHost:
    """One container; commands are run as root in it. Nothing here uses the collection's own code."""

    def __init__(self, name: str, family: str) -> None:
        self.name = name
        self.family = family
        self.container = f"{LAB}-{name}"
        self.infra = testinfra.get_host(f"docker://{self.container}")
        self.unit = "redis-server" if family.startswith("debian") else "redis"

    def run(self, command: str) -> str:
        """Output of a shell command that has to end well."""
        return str(self.infra.check_output(command))

    def cli(self, *words: str) -> str:
        """redis-cli; -e makes an error reply an error."""
        done = subprocess.run(
            ["docker", "exec", self.container, "redis-cli", "-e", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"redis-cli {' '.join(words)} on {self.name}: {done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")

    def as_user(self, user: str, password: str, *words: str) -> str:
        """What redis-cli prints, errors included, logged in as one user; words may begin with options (-h, --tls)."""
        done = subprocess.run(
            ["docker", "exec", "-e", f"REDISCLI_AUTH={password}", self.container, "redis-cli", "--no-auth-warning", "--user", user, *words],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return (done.stdout + done.stderr).strip()

    def config(self, name: str) -> str:
        return "\n".join(self.cli("CONFIG", "GET", name).splitlines()[1:])

    def live_config(self) -> str:
        """All of CONFIG GET by name: Redis gives it in the order of a hash table, which changes by itself."""
        words = self.cli("CONFIG", "GET", "*").splitlines()
        return "\n".join(sorted(map(" ".join, itertools.zip_longest(words[::2], words[1::2], fillvalue=""))))

    def info(self, name: str) -> str:
        return next(
            line.split(":", 1)[1].strip()
            for line in self.cli("INFO", "everything").splitlines()
            if line.startswith(name + ":")
        )

    def kill(self) -> None:
        """SIGKILL to redis-server; returns when systemd has started it again and its data is loaded."""
        before = self.info("run_id")
        self.run("kill -9 " + self.info("process_id"))
        self.wait_for_redis(lambda: self.info("run_id") != before)

    def wait_for_redis(self, condition: t.Callable[[], bool] = lambda: True, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.cli("PING") == "PONG" and condition():
                    return
            except (AssertionError, StopIteration):
                pass
            assert time.monotonic() < deadline, f"{self.name}: Redis did not come back within {seconds} s"
            time.sleep(0.2)


@contextlib.contextmanager
def _kernel(how: int) -> t.Iterator[None]:
    with open(os.environ["REDISOPS_KERNEL_LOCK"], "a", encoding="ascii") as handle:
        fcntl.flock(handle, how)
        yield


@contextlib.contextmanager
def kernel_is_ours() -> t.Iterator[None]:
    """Where values of the kernel are set to what is wrong: they are the machine's, so no run of Ansible in a scenario next to may see it."""
    with _kernel(fcntl.LOCK_EX), pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDISOPS_KERNEL_IS_OURS", "1")
        yield


def kernel_is_right() -> t.ContextManager[None]:
    """Where those values are read, or a boot sets them, other than by a run of Ansible: not while a scenario next to has them wrong."""
    return _kernel(fcntl.LOCK_SH)


def lab_hosts() -> list[LabHost]:
    containers = docker.from_env().containers.list(filters={"label": f"redisops.lab={LAB}"})
    labels = [container.labels for container in containers]
    return sorted(
        (LabHost(one["redisops.lab.host"], one["redisops.lab.family"]) for one in labels), key=lambda host: host.name
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab_host" in metafunc.fixturenames:
        hosts = lab_hosts()
        assert hosts, f"no host of lab {LAB} runs"
        metafunc.parametrize("lab_host", hosts, ids=[host.name for host in hosts], scope="session")


@pytest.fixture(scope="session")
def hosts() -> dict[str, LabHost]:
    return {host.name: host for host in lab_hosts()}


class Record:
    """The runs of this scenario, oldest first; a run ends with its statistics."""

    def __init__(self, lines: t.Iterable[str]) -> None:
        self.runs: list[list[dict[str, t.Any]]] = [[]]
        for line in lines:
            entry = json.loads(line)
            if "stats" not in entry and self.runs[-1] and "stats" in self.runs[-1][-1]:
                self.runs.append([])
            self.runs[-1].append(entry)

    def converges(self, check: bool) -> list[list[dict[str, t.Any]]]:
        """The runs of site.yml, in check mode or for real."""
        runs = [run for run in self.runs if any(entry.get("action", "").endswith("redis_host_info") for entry in run)]
        return [run for run in runs if run[0]["check"] is check]


@pytest.fixture(scope="session")
def record() -> Record:
    return Record(pathlib.Path(os.environ["REDISOPS_RECORD"]).read_text(encoding="utf-8").splitlines())


OURS = "redisops.recovery."
#: Action plugins that never reach the host.
LOCAL = (
    "set_fact",
    "validate_argument_spec",
    "include_tasks",
    "fail",
    "debug",
    "assert",
    "meta",
    "include_role",
    "import_role",
)


#: vm.* and transparent huge pages are the machine's: of two containers the first to write sets them for the other as well.
SHARED_KERNEL = ("live: vm.", "live: enabled ", "live: defrag ", "live: khugepaged/")


def _own(lines: t.Iterable[str]) -> list[str]:
    written = (" to /proc/", " to /sys/")
    return [line for line in lines if not line.startswith(SHARED_KERNEL) and not any(path in line for path in written)]


def ours(run: t.Sequence[dict[str, t.Any]], host: str) -> list[dict[str, t.Any]]:
    """The results of the collection's own changing modules on one host, in order, less what hosts of the lab share.

    Without those of the look that a run begins with.
    """
    return [
        {
            "task": entry["task"],
            "changed": entry["changed"],
            "before": _own(entry["diff"]["before"].splitlines()),
            "after": _own(entry["diff"]["after"].splitlines()),
            "actions": _own(entry["actions"]),
        }
        for entry in run
        if entry["host"] == host
        and entry["check"] is run[0]["check"]
        and entry.get("action", "").startswith(OURS)
        and not entry["action"].endswith("_info")
        and "diff" in entry  # not a call that failed, and was repaired by the one behind it
    ]


def remote_calls(run: t.Sequence[dict[str, t.Any]], host: str) -> list[str]:
    """Tasks that ran a module on the host."""
    return [
        entry["task"]
        for entry in run
        if entry["host"] == host and "action" in entry and not entry["action"].endswith(LOCAL)
    ]


def changed(run: t.Sequence[dict[str, t.Any]]) -> int:
    return sum(entry["stats"]["changed"] for entry in run if "stats" in entry)


def ran(book: str, *options: str, inventory: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    """A playbook, as an operator runs it against the scenario's hosts, however it ends."""
    home = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(home / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
    }
    return subprocess.run(
        ["ansible-playbook", "-i", str(inventory or home / "inventory"), book, *options],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def reported(done: subprocess.CompletedProcess[str]) -> str:
    """All that it printed as one line: where Ansible breaks lines, and on which stream, is its own affair."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).split())


def play(name: str, *options: str, inventory: pathlib.Path | None = None) -> str:
    """One of the collection's playbooks, which has to end well; its output."""
    done = ran(name if name.endswith(".yml") else f"redisops.recovery.{name}", *options, inventory=inventory)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def last_run_changed() -> int:
    """How much the playbook changed that was run last."""
    lines = pathlib.Path(os.environ["REDISOPS_RECORD"]).read_text(encoding="utf-8").splitlines()
    return changed(Record(lines).runs[-1])
