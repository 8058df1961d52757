# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_host_info on a tree of its own, and on this host, where it leaves nothing behind."""

from __future__ import annotations

import os
import pathlib
import platform
import socket
import subprocess
import time
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system import benchmarks
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.requirements import CHECKS
from ansible_collections.redisops.recovery.plugins.modules import redis_host_info

GIB = 2**30
PING = "rtt min/avg/max/mdev = 0.1/{}/0.3/0.012 ms\n"


class Tree:
    """A root directory with what a good host has, and the commands that it answers."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.commands: dict[str, Completed] = {
            "systemd-detect-virt": Completed(0, "kvm\n"),
            "systemd-detect-virt --container": Completed(1, "none\n"),
        }
        self.write("proc/meminfo", "MemTotal:  8000000 kB\nSwapTotal:  8388604 kB\n")
        self.write("proc/cpuinfo", "processor\t: 0\n\nprocessor\t: 1\n")
        self.write("proc/1/cgroup", "0::/init.scope\n")
        self.write("proc/1/status", "CapBnd:\t000001ffffffffff\nCpus_allowed_list:\t0-127\n")
        self.write("sys/devices/system/cpu/online", "0-3\n")
        self.write("proc/sys/net/core/somaxconn", "4096\n")
        self.write("proc/sys/vm/overcommit_memory", "1\n")
        self.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")
        self.write("etc/os-release", 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
        self.write("usr/bin/apt-get", "", 0o755)
        self.write("usr/bin/ping", "", 0o755)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, *args: str, timeout: float | None = None) -> Completed:
        if args[0] == "ping":
            args = ("ping", args[-1])
        return self.commands.get(" ".join(args).replace(str(self.root), ""), Completed(127, "not found"))

    def snapshot(self) -> dict[str, t.Any]:
        return {str(one): one.is_file() and one.read_bytes() for one in sorted(self.root.rglob("*"))}


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Tree:
    made = Tree(tmp_path)
    monkeypatch.setattr(redis_host_info, "Host", lambda: Host(str(tmp_path), made.run))
    return made


@pytest.fixture
def call(call_module) -> t.Callable[..., t.Any]:
    def run(check: bool = False, **options: t.Any) -> t.Any:
        result = call_module("redis_host_info", check, **{"min_disk_mb_per_second": 0.001, **options})
        if hasattr(result, "findings"):
            result.rows = {row["check"]: row for row in result.findings}
        return result

    return run


def test_a_good_host(tree, call):
    tree.commands["ping 192.0.2.2"] = Completed(0, PING.format("0.234"))
    before = tree.snapshot()
    for check in (True, False):
        result = call(check, peers=["192.0.2.2"])
        assert (result.changed, result.failed, result.warned) == (False, False, [])
        assert tuple(result.rows) == CHECKS
        assert all(row["ok"] is True and row["policy"] == "warn" for row in result.findings)
        assert (result.cpus, result.memory_bytes, result.swap_bytes) == (4, 8000000 * 1024, 8388604 * 1024)
        assert result.rtt_ms == {"192.0.2.2": 0.234}
        assert result.disk_mb_per_second > 0
    assert tree.snapshot() == before


def test_what_the_install_role_needs(tree, call):
    result = call(probe_disk="never")
    assert result.os == {"id": "debian", "id_like": [], "version_id": "12", "codename": "bookworm"}
    assert (result.package_manager, result.python) == ("apt", platform.python_version())
    assert result.virtualization == {"type": "kvm", "container": False}
    assert result.redis == {"installed": None, "product": None, "path": None}
    assert result.redis_py == __import__("redis").__version__
    assert result.open_files_ceiling is None


@pytest.mark.parametrize(
    ("program", "printed", "product", "version"),
    [
        (
            "redis-server",
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1\n",
            "redis",
            "7.0.15",
        ),
        (
            "valkey-server",
            "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1\n",
            "valkey",
            "8.1.1",
        ),
        (
            "redis-server",
            "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1\n",
            "valkey",
            "8.1.1",
        ),
    ],
)
def test_an_installed_server(tree, call, program, printed, product, version):
    tree.write(f"usr/bin/{program}", "", 0o755)
    tree.commands[f"/usr/bin/{program} --version"] = Completed(0, printed)
    result = call(probe_disk="never")
    assert result.redis == {"installed": version, "product": product, "path": f"/usr/bin/{program}"}


def test_the_distribution_decides_between_two_package_managers(tree, call):
    tree.write("usr/bin/dnf", "", 0o755)
    assert call(probe_disk="never").package_manager == "apt"
    tree.write("etc/os-release", 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n')
    assert call(probe_disk="never").package_manager == "dnf"


def test_nothing_can_be_read(tmp_path, call, monkeypatch):
    (tmp_path / "proc").mkdir()
    monkeypatch.setattr(redis_host_info, "Host", lambda: Host(str(tmp_path), lambda *args, **more: Completed(127, "")))
    result = call(policy="fail", probe_disk="never")
    assert not result.failed
    unknown = {name for name, row in result.rows.items() if row["ok"] is None}
    assert unknown == set(CHECKS) - {"thp"}
    assert all(result.rows[name]["measured"].startswith("not known, because ") for name in unknown)
    assert result.virtualization == {"type": None, "container": None}
    assert (result.package_manager, result.cpus, result.memory_bytes) == (None, None, None)


def weak(tree: Tree) -> None:
    tree.write("proc/meminfo", "MemTotal:  2000000 kB\nSwapTotal:  0 kB\n")
    tree.write("proc/sys/net/core/somaxconn", "128\n")
    tree.write("proc/sys/vm/overcommit_memory", "0\n")
    tree.write("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")


def test_warnings(tree, call):
    weak(tree)
    result = call(probe_disk="never")
    assert [text.split(":")[0] for text in result.warned] == ["memory", "swap"]
    assert "redis_kernel" in result.rows["overcommit"]["do"]
    result = call(probe_disk="never", expect_kernel_role=False)
    assert [text.split(":")[0] for text in result.warned] == ["memory", "swap", "backlog", "overcommit", "thp"]


def test_one_failure_lists_all_rows(tree, call):
    weak(tree)
    before = tree.snapshot()
    result = call(policy="fail", policy_by_check={"cpu": "ignore"}, min_cpus=64)
    assert (result.failed, result.code, result.warned) == (True, "preflight_failed", [])
    for row in (result.rows["memory"], result.rows["swap"]):
        assert all(row[name] in result.msg for name in ("measured", "needed", "consequence", "do"))
    assert "cpu:" not in result.msg
    assert result.rows["cpu"]["ok"] is False
    assert result.os["id"] == "debian"  # the facts are there all the same
    assert tree.snapshot() == before


def test_mixed_policies(tree, call):
    weak(tree)
    result = call(probe_disk="never", policy_by_check={"swap": "fail"})
    assert result.failed
    assert "swap: 0 MB" in result.msg
    assert "memory:" not in result.msg


@pytest.mark.parametrize("by_check", [{"ram": "warn"}, {"swap": "never"}])
def test_refused_policies(tree, call, by_check):
    result = call(policy_by_check=by_check)
    assert result.failed
    assert "policy_by_check" in result.msg


# containers


def test_limits_of_cgroup_v2(tree, call):
    tree.write("sys/fs/cgroup/memory.max", f"{2 * GIB}\n")
    tree.write("sys/fs/cgroup/memory.swap.max", "0\n")
    tree.write("sys/fs/cgroup/cpu.max", "150000 100000\n")
    result = call(probe_disk="never")
    assert (result.cpus, result.memory_bytes, result.swap_bytes) == (1.5, 2 * GIB, 0)
    assert result.rows["memory"]["measured"] == "2048 MB (limit of the container)"


def test_limits_of_cgroup_v1(tree, call):
    tree.write("proc/1/cgroup", "9:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    tree.write("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", f"{GIB}\n")
    tree.write("sys/fs/cgroup/memory/docker/abc/memory.memsw.limit_in_bytes", f"{3 * GIB}\n")
    tree.write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "100000\n")
    tree.write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "50000\n")
    result = call(probe_disk="never")
    assert (result.cpus, result.memory_bytes, result.swap_bytes) == (2, GIB, 2 * GIB)


def test_no_limits(tree, call):
    tree.write("sys/fs/cgroup/memory.max", "max\n")
    tree.write("sys/fs/cgroup/cpu.max", "max 100000\n")
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    result = call(probe_disk="never")
    assert (result.cpus, result.memory_bytes) == (4, 8000000 * 1024)
    tree.write("proc/1/status", "Cpus_allowed_list:\t2\n")
    assert call(probe_disk="never").cpus == 1


# the disk


def test_a_running_server_keeps_its_disk(tree, call):
    tree.write("proc/4711/comm", "valkey-server\n")
    row = call().rows["disk_throughput"]
    assert (row["ok"], row["because"]) == (
        None,
        "valkey-server (process 4711) is running and probe_disk is auto, so its disk is left alone",
    )
    assert call(probe_disk="always").rows["disk_throughput"]["ok"] is True


def test_too_little_space(tree, call):
    row = call(probe_disk_mb=2**40).rows["disk_throughput"]
    assert row["ok"] is None
    assert "are free" in row["because"]


def test_the_probe_leaves_nothing_and_ends_soon(tmp_path, monkeypatch):
    """Each part is written and synced, and a slow disk ends it; the file has no name at any time."""
    synced = []

    def slow(descriptor):
        assert list(tmp_path.iterdir()) == []
        synced.append(os.fstat(descriptor).st_size)
        time.sleep(0.05)

    monkeypatch.setattr(os, "fdatasync", slow)
    measured = benchmarks.disk_throughput(str(tmp_path), 1000, seconds=0.2)
    assert measured.value is not None
    assert measured.value > 0
    assert synced[:3] == [2**20, 2 * 2**20, 4 * 2**20]
    assert synced[-1] < 1000 * 2**20
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written():
    measured = benchmarks.disk_throughput("/proc", 0)
    assert measured.value is None
    assert "/proc" in measured.because


def test_the_nearest_parent(tmp_path):
    assert benchmarks.nearest_directory(str(tmp_path / "a" / "b")) == str(tmp_path)


# the network


def test_a_refused_connection_is_a_round_trip(tree):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
        measured = benchmarks.round_trip(Host(str(tree.root), tree.run), "127.0.0.1", closed)
    assert measured.value is not None
    assert 0 < measured.value < 1000


def test_a_peer_that_does_not_answer(tree, call, monkeypatch):
    def never(self, address):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", never)
    result = call(probe_disk="never", peers=["192.0.2.9"], policy="fail", policy_by_check={"rtt": "fail"})
    assert result.rows["rtt"]["ok"] is None
    assert result.rows["rtt"]["because"] == "192.0.2.9: it answers neither ping nor TCP port 22 (timed out)"
    assert result.rtt_ms == {"192.0.2.9": None}


def test_a_name_that_is_an_option_of_ping_is_none(tree, call):
    seen = []
    tree.commands["ping -f"] = Completed(2, "")
    real = tree.run

    def run(*args, **more):
        seen.append(args)
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_host_info, "Host", lambda: Host(str(tree.root), run))
        assert call(probe_disk="never", peers=["-f"]).rows["rtt"]["ok"] is None
    assert ("ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "--", "-f") in seen


# this host


def output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def test_this_host(call, tmp_path):
    result = call(data_dir=str(tmp_path / "not" / "yet"), probe_disk="always", peers=["127.0.0.1"], min_swap_ratio=0)
    assert result.cpus <= int(output("getconf", "_NPROCESSORS_ONLN"))
    assert result.memory_bytes <= int(output("free", "-b").splitlines()[1].split()[1])
    assert result.swap_bytes <= int(output("free", "-b").splitlines()[2].split()[1])
    assert output("cat", "/proc/sys/vm/overcommit_memory") in result.rows["overcommit"]["measured"]
    assert output("cat", "/proc/sys/net/core/somaxconn") in result.rows["backlog"]["measured"]
    assert result.disk_mb_per_second > 0
    assert result.rtt_ms["127.0.0.1"] < 1000
    assert list(tmp_path.iterdir()) == []
    assert result.virtualization["type"] == (output("systemd-detect-virt") or None)
    assert f"ID={result.os['id']}" in pathlib.Path("/etc/os-release").read_text().replace('"', "")
    assert not result.failed
