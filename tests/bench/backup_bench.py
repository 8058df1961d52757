#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What backups and restores cost on this machine, each next to the plainest way to do the same. No test: it prints figures, and asserts nothing.

    tests/bench/backup_bench.py [--megabytes 500] [--gigabytes 5] [--seconds 10] [--only throughput,latency,restore,memory] [--json]

A server on loopback, with its data and backups below the directory for temporary files (TMPDIR): point that at the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}:{ROOT / '.cache' / 'bin'}:{os.environ['PATH']}"

from tests import conftest
from tests.integration.conftest import RedisUnderTest

conftest.pytest_configure()

from ansible_collections.redisops.recovery.plugins.module_utils.backup.copy import copy_file
from ansible_collections.redisops.recovery.plugins.module_utils.backup.create import Settings, take
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import (
    BackupFile,
    BackupManifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.store import Store, verify_files
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_parser import scan_aof
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.restore.open_rollback_copy import begin
from ansible_collections.redisops.recovery.plugins.module_utils.restore.swap import Staging, stage
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import INSTALLED
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import digest_of
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

from tests.support.unit import PretendedUnit

MB = 1024 * 1024
#: Of each way, by turns; what is told is their median.
ROUNDS = 5
CONF = 'save ""\nappendonly yes\nauto-aof-rewrite-percentage 0\nenable-debug-command local\n'
#: As the unit of the timer runs it.
MEEK = ["nice", "-n", "10"]


def say(*words: t.Any) -> None:
    print(*words, flush=True)


def timed(work: t.Callable[[], t.Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def plain_copy(sources: t.Sequence[pathlib.Path], home: pathlib.Path) -> float:
    """Seconds for the same bytes by dd with one fsync a file, from a cache as warm as the server leaves it."""
    target = home / "plain"
    target.mkdir()
    try:
        return timed(
            lambda: [
                subprocess.run(
                    ["dd", f"if={path}", f"of={target / path.name}", "bs=1M", "conv=fsync", "status=none"], check=True
                )
                for path in sources
            ]
        )
    finally:
        shutil.rmtree(target)


class Bench:
    def __init__(self, home: pathlib.Path, megabytes: int) -> None:
        self.home = home
        self.server = RedisUnderTest(home)
        self.server.write_conf(CONF)
        self.server.start()
        # Values that do not compress, one kilobyte each: what Redis writes is about as large as what it holds.
        script = """
            local random = redis.sha1hex(ARGV[1])
            for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
              local parts = {}
              for j = 1, 25 do random = redis.sha1hex(random .. i) parts[j] = random end
              redis.call('SET', 'key:' .. i, table.concat(parts))
            end"""
        for first in range(0, megabytes * 1024, 10240):
            self.server.cli("EVAL", script, "0", str(first), str(first + 10239))
        self.server.cli("BGREWRITEAOF")
        while "aof_rewrite_in_progress:1" in self.server.cli("INFO", "persistence"):
            time.sleep(0.1)
        self.store = Store(str(home / "backups"), "bench")
        self.store.prepare()

    def params(self, **more: t.Any) -> dict[str, t.Any]:
        return self.server.params(directory=str(self.home / "backups"), group_name="bench", **{"timeout": 3600, **more})

    def saved(self) -> float:
        """Seconds for a BGSAVE by itself."""
        began = time.monotonic()
        self.server.cli("BGSAVE")
        while self.server.info("rdb_bgsave_in_progress") == "1":
            time.sleep(0.02)
        return time.monotonic() - began

    def taken(self, method: str) -> tuple[float, t.Any]:
        """Seconds until a backup is taken (not verified), and the backup."""
        server = connect(Login(port=self.server.port), 3600)
        settings = Settings(self.store.root, "bench", method, timeout=3600.0)
        found: list[t.Any] = []
        seconds = timed(lambda: found.append(take(server, self.store, settings, Host(), "bench")))
        server.close()
        return seconds, found[0]


def data_of(backup: t.Any) -> list[pathlib.Path]:
    return [path for path in pathlib.Path(backup.directory, "data").rglob("*") if path.is_file()]


def throughput(bench: Bench) -> dict[str, t.Any]:
    found: dict[str, t.Any] = {}
    for method in ("aof", "rdb"):
        rows = []
        for _round in range(ROUNDS):
            seconds, backup = bench.taken(method)
            files = data_of(backup)
            size = sum(path.stat().st_size for path in files)
            plain = plain_copy(files, bench.home) + (bench.saved() if method == "rdb" else 0.0)
            rows.append((size / seconds / MB, size / plain / MB, plain / seconds))
            bench.store.delete(backup.label)
        best = sorted(rows, key=lambda row: row[2])[1]
        found[method] = {
            "backup_mb_per_s": round(best[0]),
            "plain_mb_per_s": round(best[1]),
            "backup_by_plain": round(best[2], 2),
        }
        plainest = "a BGSAVE and a plain copy with fsync" if method == "rdb" else "a plain copy with fsync"
        say(f"throughput, method {method}: {best[0]:.0f} MB/s; {plainest}: {best[1]:.0f} MB/s; ratio {best[2]:.2f}")
    return found


CLIENT = """
import socket, sys, time
port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
sock = socket.create_connection(("127.0.0.1", port))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
value, took, begin = b"x" * 100, [], time.perf_counter()
number = 0
while True:
    due = begin + number / rate
    now = time.perf_counter()
    if due > begin + seconds:
        break
    if due > now:
        time.sleep(due - now)
    key = b"client:%d" % (number % 1000)
    sent = time.perf_counter()
    if number % 2:
        sock.sendall(b"*2\\r\\n$3\\r\\nGET\\r\\n$%d\\r\\n%s\\r\\n" % (len(key), key))
    else:
        sock.sendall(b"*3\\r\\n$3\\r\\nSET\\r\\n$%d\\r\\n%s\\r\\n$100\\r\\n%s\\r\\n" % (len(key), key, value))
    answer = sock.recv(65536)
    assert answer[:1] in b"+$", answer
    # From when it was due: a server that stands still does not make fewer measurements of itself.
    took.append(time.perf_counter() - max(due, begin))
    number += 1
took.sort()
for share in (0.5, 0.99, 0.999):
    print(took[min(int(len(took) * share), len(took) - 1)] * 1000)
"""


def client(port: int, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(port), "1000", str(seconds)], stdout=subprocess.PIPE, text=True
    )


def percentiles(process: subprocess.Popen[str]) -> list[float]:
    out, _error = process.communicate()
    assert process.returncode == 0
    return [float(line) for line in out.split()]


def under_backups(bench: Bench, method: str, seconds: float) -> tuple[list[float], int]:
    """The client's percentiles while backups are taken one after the other, and how many those were."""
    process, count = client(bench.server.port, seconds), 0
    while process.poll() is None:
        subprocess.run(
            [*MEEK, sys.executable, __file__, "--take", method, "--home", str(bench.home), "--port", str(bench.server.port)],
            check=True,
        )  # fmt: skip
        count += 1
    for label in bench.store.labels():
        bench.store.delete(label)
    return percentiles(process), count


def latency(bench: Bench, seconds: float) -> dict[str, t.Any]:
    """A client of 1000 commands a second (SET and GET by turns, 100 bytes), alone and under backups; by turns, medians of each."""
    rows: dict[str, list[list[float]]] = {"alone": [], "aof": [], "rdb": []}
    counts = {"aof": 0, "rdb": 0}
    for _round in range(ROUNDS):
        rows["alone"].append(percentiles(client(bench.server.port, seconds)))
        for method in ("aof", "rdb"):
            predicted, count = under_backups(bench, method, seconds)
            rows[method].append(predicted)
            counts[method] += count
    medians = {name: [sorted(column)[ROUNDS // 2] for column in zip(*found)] for name, found in rows.items()}
    result: dict[str, t.Any] = {}
    for name, (half, most, nearly) in medians.items():
        ratio = most / medians["alone"][1]
        result[name] = {
            "p50_ms": round(half, 3),
            "p99_ms": round(most, 3),
            "p99.9_ms": round(nearly, 3),
            "p99_by_alone": round(ratio, 2),
        }
        meanwhile = (
            f" ({counts[name]} backups in {ROUNDS * seconds:g} s), p99 ratio {ratio:.1f}" if name in counts else ""
        )
        lowest, highest = min(row[1] for row in rows[name]), max(row[1] for row in rows[name])
        say(
            f"latency, {name}: p50 {half:.2f} ms, p99 {most:.2f} ms ({lowest:.2f} to {highest:.2f}), p99.9 {nearly:.2f} ms{meanwhile}"
        )
    return result


class Unit(PretendedUnit):
    """The collection waits for the load by itself."""

    def start(self) -> None:
        self.server.process = subprocess.Popen(
            ["redis-server", str(self.server.conf)], cwd="/", stdout=subprocess.DEVNULL
        )


def load_seconds(bench: Bench) -> float:
    """How long Redis says that it took to load, at a start of its own."""
    log = bench.home / "redis.log"
    bench.server.stop()
    log.write_text("")
    bench.server.start()
    while "loading:1" in bench.server.cli("INFO", "persistence"):
        time.sleep(0.1)
    return sum(
        float(one) for one in re.findall(r"DB loaded from (?:base|incr) file \S+: ([\d.]+) seconds", log.read_text())
    )


def restore(bench: Bench) -> dict[str, t.Any]:
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    done = conftest.call_module("redis_backup", **bench.params(sentinel_file=""))
    assert not done.failed, done.msg
    files = data_of(bench.store.find("latest"))
    plain, loads = plain_copy(files, bench.home), load_seconds(bench)
    found: dict[str, t.Any] = {"copy_s": round(plain, 2), "load_s": round(loads, 2)}
    host = redis_restore.Host
    redis_restore.Host = lambda: host("/", Unit(bench.server).run)
    try:
        for test_load in (False, True):
            results: list[t.Any] = []
            seconds = timed(
                lambda test_load=test_load, results=results: results.append(
                    conftest.call_module("redis_restore", **bench.params(unit="redis", test_load=test_load))
                )
            )
            assert not results[0].failed, results[0].msg
            ratio, away = seconds / (plain + loads), results[0].seconds
            found["test-loaded" if test_load else "not_rehearsed"] = {
                "restore_s": round(seconds, 2), "server_away_s": away, "restore_by_copy_and_load": round(ratio, 2),
            }  # fmt: skip
            say(
                f"restore, {'test-loaded' if test_load else 'not test-loaded'}: {seconds:.1f} s, the server away for {away:.1f} s; "
                f"copy {plain:.1f} s + Redis' own load {loads:.1f} s; ratio {ratio:.2f}"
            )
            conftest.call_module("redis_restore", **bench.params(unit="redis", state="cleaned"))
    finally:
        redis_restore.Host = host
    return found


# --- memory: one huge file through everything that touches data -----------------------------------------------------------


def huge_aof(path: pathlib.Path, size: int) -> None:
    """Commands with values of 256 MB, most of it holes: ``size`` bytes that take no disk."""
    value = 256 * MB
    with path.open("wb") as handle:
        number = 0
        while handle.tell() < size:
            key = b"key:%d" % number
            handle.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, value))
            handle.seek(value, os.SEEK_CUR)
            handle.write(b"\r\n")
            number += 1


def through(home: pathlib.Path, size: int) -> None:
    """Run in a process of its own: copy as a backup does, hash, verify, walk the commands, stage for a restore."""
    source = home / "huge" / "appendonly.aof.1.incr.aof"
    source.parent.mkdir()
    huge_aof(source, size)
    with source.open("rb") as handle:
        number, digest = copy_file(handle.fileno(), str(home / "backup" / "data" / "huge"))
    assert (number, digest) == digest_of(str(source))
    manifest = BackupManifest(
        "20200101T000000Z-aof", "bench", "here", "aof", "primary", "bench", 0.0, 0.0, "Redis", "7.0.15", "", 0, 0, {}, 0, -1,
        (BackupFile("data/huge", number, digest),), "data/huge",
    )  # fmt: skip
    assert verify_files(str(home / "backup"), manifest) == []
    with source.open("rb") as handle:
        assert scan_aof(handle).ends == "clean"
    os.unlink(source)
    owner = (os.geteuid(), os.getegid())
    with begin(Place(str(home), "dump.rdb", "appendonlydir", "appendonly.aof"), time.time()) as opened:
        stage(str(home / "backup" / "data" / "huge"), Staging(opened, False, owner, "bench", 3600.0, INSTALLED))


def memory(home: pathlib.Path, gigabytes: int) -> dict[str, t.Any]:
    from resource import RUSAGE_SELF, getrusage

    report, predicted = os.pipe()
    child = os.fork()
    if child == 0:
        before = getrusage(RUSAGE_SELF).ru_maxrss
        seconds = timed(lambda: through(home, gigabytes * 1024 * MB))
        os.write(predicted, json.dumps([before, getrusage(RUSAGE_SELF).ru_maxrss, seconds]).encode())
        os._exit(0)
    os.close(predicted)
    with open(report, "rb") as handle:
        before, peak, seconds = json.loads(handle.read())
    os.waitpid(child, 0)
    found = {
        "file_gb": gigabytes, "peak_mb": round(peak / 1024), "before_mb": round(before / 1024), "seconds": round(seconds),
    }  # fmt: skip
    say(
        f"memory: {gigabytes} GB copied, hashed, verified, walked and staged in {seconds:.0f} s; peak {peak / 1024:.0f} MB, "
        f"of which {before / 1024:.0f} MB were Python and its modules"
    )
    return found


def machine() -> str:
    meminfo = pathlib.Path("/proc/meminfo").read_text()
    kilobytes = int(re.search(r"MemTotal:\s+(\d+)", meminfo)[1])
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout.split()[
        2
    ]
    return f"{os.cpu_count()} CPUs, {kilobytes / 1024 / 1024:.0f} GB memory, Linux {platform.release()}, Python {platform.python_version()}, Redis {version}"


def take_one(method: str, home: str, port: int) -> None:
    """One backup, as the timer's process would take it."""
    store = Store(str(pathlib.Path(home) / "backups"), "bench")
    server = connect(Login(port=port), 3600)
    with store.locked():
        take(server, store, Settings(store.root, "bench", method, timeout=3600.0), Host(), "bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500, help="data of the server")
    parser.add_argument("--gigabytes", type=int, default=5, help="the file for the measure of memory")
    parser.add_argument("--seconds", type=float, default=10, help="each measure of latency; there are fifteen")
    parser.add_argument("--only", default="memory,throughput,latency,restore")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON as well")
    for name in ("--take", "--home"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take:
        take_one(options.take, options.home, options.port)
        return
    wanted, found = options.only.split(","), {"machine": machine()}
    say(found["machine"])
    with tempfile.TemporaryDirectory(prefix="redisops-bench-") as name:
        home = pathlib.Path(name)
        if "memory" in wanted:
            (home / "memory").mkdir()
            found["memory"] = memory(home / "memory", options.gigabytes)
            shutil.rmtree(home / "memory")
        if set(wanted) & {"throughput", "latency", "restore"}:
            (home / "server").mkdir()
            bench = Bench(home / "server", options.megabytes)
            try:
                say(f"a server with {bench.server.keys()} keys, {int(bench.server.info('used_memory')) / MB:.0f} MB")
                if "throughput" in wanted:
                    found["throughput"] = throughput(bench)
                if "latency" in wanted:
                    found["latency"] = latency(bench, options.seconds)
                if "restore" in wanted:
                    found["restore"] = restore(bench)
            finally:
                bench.server.stop()
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
