# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_health_info on real servers, healthy, broken and gone; on logs and hosts that say little. It never changes anything."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
import typing as t

import pytest
import yaml
from ansible_collections.redisops.recovery.plugins.module_utils.acl.presets import PRESETS
from ansible_collections.redisops.recovery.plugins.module_utils.health import connect, log_reader
from ansible_collections.redisops.recovery.plugins.module_utils.health.collect_host import look, read_host
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host, run_command
from ansible_collections.redisops.recovery.plugins.module_utils.system.smart import Drive, Sensor
from ansible_collections.redisops.recovery.plugins.modules import redis_health_info

from tests.support.topology import cli, free_port, wait

ROOT = pathlib.Path(__file__).resolve().parents[2]
INFO = ROOT / "tests/unit/plugins/module_utils/server/fixtures/info"
NOBODY = 65534


class GoodHost(Host):
    """This host, but for what the machine that runs the tests cannot help: its kernel settings, its load, its journal."""

    texts: t.ClassVar[dict[str, str | None]] = {}
    printed: t.ClassVar[dict[str, Completed]] = {}

    def __init__(self) -> None:
        super().__init__(run=self.answer)

    def answer(self, *args: str, **more: t.Any) -> Completed:
        for program in ("journalctl", "dmesg", "systemctl", "smartctl", "sensors"):
            if os.path.basename(args[0]) == program:
                return self.printed.get(program, Completed(127, f"{program}: not found"))
        return run_command(*args, **more)

    def read(self, name: str) -> str | None:
        return self.texts[name] if name in self.texts else super().read(name)


@pytest.fixture(name="host", autouse=True)
def _host(monkeypatch) -> type[GoodHost]:
    texts = {
        "/proc/sys/vm/overcommit_memory": "1\n",
        "/proc/sys/net/core/somaxconn": "4096\n",
        "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "/proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        "/proc/pressure/io": "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        "/etc/redisops/backup-redis.json": None,
    }
    monkeypatch.setattr(GoodHost, "texts", texts)
    monkeypatch.setattr(
        GoodHost, "printed", {"dmesg": Completed(0, "[Sun Mar  3 04:05:06 2024] usb 1-1: new device\n")}
    )
    monkeypatch.setattr(redis_health_info, "Host", GoodHost)
    return GoodHost


@pytest.fixture(name="ask")
def _ask(redis_server, call_module) -> t.Callable[..., types.SimpleNamespace]:
    def ask(server=redis_server, check=False, **more: t.Any) -> types.SimpleNamespace:
        options = {
            "login_port": server.port, "config_file": str(server.conf), "sample_seconds": 0.05, "backup_directory": None,
            "login_password": server.password, **more,
        }  # fmt: skip
        done = call_module(
            "redis_health_info", check=check, **{name: value for name, value in options.items() if value is not None}
        )
        assert not done.failed, done.msg
        assert done.changed is False
        return done

    return ask


def rows(done: types.SimpleNamespace, *severities: str) -> dict[str, str]:
    """code → what was seen, of the findings with one of ``severities``."""
    return {row["code"]: row["detected"] for row in done.findings if row["severity"] in severities}


def bad(done: types.SimpleNamespace) -> dict[str, str]:
    return rows(done, "critical", "warning", "unknown")


def fail_to_start(server) -> None:
    """A start that ends by itself."""
    process = subprocess.Popen(["redis-server", str(server.conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait(20) != 0


# --- servers that are well --------------------------------------------------------------------------------------------


def test_a_default_server_is_ok_and_stays_as_it_is(redis_server, ask):
    redis_server.start()
    redis_server.fill(100)
    redis_server.cli("SAVE")
    before = redis_server.tree(), redis_server.live_config(), redis_server.keys()
    predicted, done = ask(check=True), ask()
    assert (done.status, done.status_text, bad(done)) == (0, "ok", {})
    assert [row["code"] for row in predicted.findings] == [row["code"] for row in done.findings]
    assert (redis_server.tree(), redis_server.live_config(), redis_server.keys()) == before
    assert done.facts["keys_total"] == int(redis_server.cli("DBSIZE")) == 100
    assert done.facts["version"] == redis_server.product()
    assert done.facts["configured_durability"] == "RDB (3600 1 300 100 60 10000)"
    assert (done.facts["role"], done.facts["primary"]) == ("primary", f"127.0.0.1:{redis_server.port}")
    assert done.crash_loss["seconds"] == 0
    assert done.reached == {"critical": False, "warning": False, "unknown": False, "info": True}
    assert done.text.startswith(f"redis at 127.0.0.1:{redis_server.port} ({redis_server.product()}, primary): OK")


def test_every_finding_has_its_page(redis_server, ask):
    redis_server.start()
    headings = (ROOT / "docs/reference/findings.md").read_text()
    for row in ask().findings:
        assert set(row) == {"code", "severity", "detected", "why", "do", "page"}
        assert row["page"] == f"docs/reference/findings.md#{row['code']}"
        assert f"### `{row['code']}`" in headings


def test_an_aof_bounds_what_is_at_risk(redis_server, ask):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start()
    redis_server.fill(100)
    done = ask(crash_loss_seconds=2)
    assert (done.status, bad(done)) == (0, {})
    assert (done.crash_loss["seconds"], done.crash_loss["known"]) == (2, True)
    assert done.facts["configured_durability"] == "AOF everysec + RDB (3600 1 300 100 60 10000)"
    assert done.facts["last_save"]["source"] == "manifest"
    assert "crash_loss_too_large" in rows(ask(crash_loss_seconds=1), "critical")
    redis_server.cli("CONFIG", "SET", "appendfsync", "always")
    assert ask().crash_loss["seconds"] == 0


def test_the_age_of_a_save_is_that_of_its_file(redis_server, ask):
    """Redis' own number begins anew at each start."""
    redis_server.start()
    redis_server.fill(10)
    redis_server.stop()
    dump = redis_server.data / "dump.rdb"
    os.utime(dump, (time.time() - 3 * 86400,) * 2)
    redis_server.start()
    assert int(redis_server.info("rdb_last_save_time")) > time.time() - 60
    done = ask()
    assert "was written 3.0 d ago; INFO counts from the start" in rows(done, "ok")["rdb_age"]
    assert done.crash_loss["seconds"] == 0
    redis_server.cli("SET", "one", "more")
    done = ask(crash_loss_seconds=86400)
    assert abs(done.crash_loss["seconds"] - 3 * 86400) < 60
    assert done.crash_loss["writes"] == 1
    assert "crash_loss_too_large" in rows(done, "critical")
    assert done.facts["last_save"]["age_seconds"] >= 3 * 86400
    redis_server.cli("BGSAVE")
    wait(lambda: redis_server.info("rdb_changes_since_last_save") == "0")
    assert ask(crash_loss_seconds=86400).crash_loss["seconds"] == 0


# --- servers that are not ---------------------------------------------------------------------------------------------


def test_nothing_kept(redis_server, ask):
    redis_server.write_conf('save ""\n')
    redis_server.start()
    redis_server.fill(5)
    done = ask()
    assert "5 keys are in memory only" in rows(done, "critical")["no_persistence"]
    assert (done.crash_loss["seconds"], done.crash_loss["known"], done.crash_loss["text"]) == (None, True, "all keys")
    assert "no_persistence" in rows(ask(allow_no_persistence=True), "info")


def test_a_start_that_would_come_up_empty(redis_server, ask):
    redis_server.start()
    redis_server.fill(5)
    redis_server.cli("SAVE")
    redis_server.write_conf("appendonly yes\n")
    assert "a start would load NOTHING" in rows(ask(), "critical")["next_start"]
    redis_server.stop(signal.SIGKILL)
    os.utime(redis_server.data / "dump.rdb", (time.time() - 60,) * 2)
    redis_server.start()
    assert redis_server.keys() == 0  # as was reported
    assert "dump.rdb holds 5 keys; the running server has" in rows(ask(), "critical")["rdb_never_loaded"]


def test_files_that_went_away(redis_server, ask):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start()
    redis_server.fill(5)
    increment = next((redis_server.data / "appendonlydir").glob("*.incr.aof"))
    increment.rename(redis_server.home / "aside")
    done = ask()
    assert increment.name in rows(done, "critical")["aof_incomplete"]
    assert "a start would fail" in rows(done, "critical")["next_start"]
    assert done.crash_loss["seconds"] is None  # only an RDB file would count, and there is none
    (redis_server.home / "aside").rename(increment)
    manifest = next((redis_server.data / "appendonlydir").glob("*.manifest"))
    kept = manifest.read_text()
    manifest.write_text("garbage\n")
    assert "line 1" in rows(ask(), "critical")["aof_incomplete"]
    manifest.unlink()
    assert "is not there" in rows(ask(), "critical")["aof_incomplete"]
    manifest.write_text(kept)
    assert bad(ask()) == {}


def test_files_that_everybody_may_read(redis_server, ask):
    redis_server.start(umask=0o022)
    redis_server.cli("SAVE")
    assert bad(ask()) == {}  # the directory keeps them out
    redis_server.data.chmod(0o755)
    assert "dump.rdb" in rows(ask(), "warning")["file_access"]


def test_a_save_that_was_killed_is_tied_to_its_cause(redis_server, host, ask):
    redis_server.write_conf('save ""\nrdb-key-save-delay 2000000\n')
    redis_server.start()
    redis_server.fill(3)
    redis_server.cli("BGSAVE")
    pid = int(redis_server.info("process_id"))
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    wait(lambda: children.read_text().split())
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    wait(lambda: "terminated by signal 9" in redis_server.log())
    seen = rows(ask(), "critical")
    assert "rdb_last_bgsave_status is err" in seen["rdb_save_failed"]
    assert "the kernel's log has no OOM killer in that time" in seen["save_killed"]
    stamp = time.strftime("%a %b %e %H:%M:%S %Y")
    host.printed["dmesg"] = Completed(0, f"[{stamp}] Out of memory: Killed process 7 (redis-rdb-bgsav) total-vm:9kB\n")
    done = ask()
    assert "Killed process 7 (redis-rdb-bgsav)" in rows(done, "critical")["save_killed"]
    assert "oom_killer" in rows(done, "critical")
    assert [(row["code"], row["source"]) for row in done.log if row["count"]][-1] == ("oom_killer", "kernel")
    host.printed["dmesg"] = Completed(1, "dmesg: read kernel buffer failed: Operation not permitted\n")
    done = ask()
    assert "is not known, because the kernel's log cannot be read" in rows(done, "critical")["save_killed"]
    assert "Operation not permitted" in rows(done, "unknown")["kernel_log_unread"]
    redis_server.cli("CONFIG", "SET", "rdb-key-save-delay", "0")
    redis_server.cli("BGSAVE")
    wait(lambda: redis_server.info("rdb_last_bgsave_status") == "ok")
    assert "(over since)" in rows(ask(), "info")["save_killed"]


def test_a_save_that_fails_refuses_writes(redis_server, ask):
    redis_server.write_conf("save 3600 1\n")
    redis_server.start()
    redis_server.fill(3)
    redis_server.cli("CONFIG", "SET", "rdbcompression", "yes")
    aside = redis_server.home / "gone"
    redis_server.data.rename(aside)
    for path in aside.iterdir():
        path.unlink()
    aside.rmdir()
    redis_server.raw("BGSAVE")
    wait(lambda: redis_server.info("rdb_last_bgsave_status") == "err")
    assert "MISCONF" in redis_server.raw("SET", "a", "b")
    done = ask()
    assert "writes are refused (MISCONF)" in rows(done, "critical")["rdb_save_failed"]
    assert "save_failed" in rows(done, "critical")
    assert f"{redis_server.data} does not exist" in rows(done, "critical")["dir_missing"]
    assert f"{redis_server.data} does not exist" in rows(done, "unknown")["rdb_age"]


# --- servers that do not answer ---------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_a_finding(redis_server, ask):
    redis_server.start()
    redis_server.fill(5)
    redis_server.cli("SAVE")
    redis_server.stop(signal.SIGKILL)
    before = redis_server.tree()
    done = ask()
    assert redis_server.tree() == before
    assert (done.status, done.findings[0]["code"]) == (2, "server_down")
    assert "nothing listens" in done.findings[0]["detected"]
    assert "the log names no cause" in done.findings[0]["detected"]
    assert "would load the RDB file" in rows(done, "ok")["next_start"]
    assert (done.crash_loss["seconds"], done.crash_loss["known"]) == (None, False)
    assert (done.facts["role"], done.facts["keys_total"], done.facts["replication"]) == (None, None, None)
    assert done.facts["last_save"]["source"] == "file"
    assert "overcommit" in rows(done, "ok")


def test_a_server_that_was_stopped_says_so(redis_server, ask):
    redis_server.start()
    redis_server.stop()
    assert "(server_stopped)" in ask().findings[0]["detected"]


DAMAGES = {
    "rdb_bad_checksum": lambda server: flip(server.data / "dump.rdb"),
    "rdb_wrong_signature": lambda server: (server.data / "dump.rdb").write_bytes(b"NOTRDB" + b"x" * 100),
    "cannot_listen": lambda server: server.conf.write_text(server.conf.read_text().replace("bind 127.0.0.1", "bind 203.0.113.9")),
}  # fmt: skip


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"v" * 15) + 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("code", DAMAGES)
def test_a_server_that_does_not_start_says_why(redis_server, ask, code):
    redis_server.write_conf("rdbcompression no\n")
    redis_server.start()
    redis_server.fill(20)
    redis_server.stop()
    DAMAGES[code](redis_server)
    fail_to_start(redis_server)
    done = ask()
    assert f"the log says why ({code})" in done.findings[0]["detected"]
    row = next(row for row in done.findings if row["code"] == code)
    assert (row["severity"], bool(row["do"])) == ("critical", True)
    assert done.log[-1]["source"] == "server"


def test_what_a_start_writes_before_it_has_a_log_stands_in_the_journal(redis_server, host, ask):
    redis_server.start()
    redis_server.stop()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(time.time() + 1))
    lines = [
        "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***",
        "Reading the configuration file, at line 7",
        ">>> 'requirepass \"geheim\" twice'",
    ]
    host.printed["journalctl"] = Completed(0, "".join(f"{stamp} h redis-server[7]: {line}\n" for line in lines))
    done = ask(unit="redis-server")
    assert "the log says why (config_error)" in done.findings[0]["detected"]
    assert "the journal of redis-server" in rows(done, "ok")["log_unread"]
    assert "geheim" not in json.dumps(vars(done))


def test_a_server_that_hangs(redis_server, ask, monkeypatch):
    monkeypatch.setattr(connect, "_PATIENCE", 0.3)
    redis_server.start()
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        done = ask()
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    assert (done.status, done.findings[0]["code"]) == (2, "server_not_responding")


def test_a_server_that_is_busy_with_a_script(redis_server, ask):
    redis_server.write_conf("busy-reply-threshold 1\n")
    redis_server.start()
    script = subprocess.Popen(
        ["redis-cli", "-p", str(redis_server.port), "EVAL", "while true do end", "0"], stdout=subprocess.DEVNULL
    )
    wait(lambda: "BUSY" in redis_server.raw("PING"))
    assert ask().findings[0]["code"] == "server_not_responding"
    redis_server.cli("SCRIPT", "KILL")
    script.wait(10)
    assert bad(ask()) == {}


def test_another_program_at_the_port(redis_server, ask):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            link, _address = other.accept()
            link.recv(100)
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link.close()

        threading.Thread(target=answer, daemon=True).start()
        done = ask(login_port=other.getsockname()[1])
    assert done.findings[0]["code"] == "server_not_responding"
    assert "does not answer as Redis does" in done.findings[0]["detected"]


def test_a_certificate_that_is_not_there(redis_server, ask):
    redis_server.start()
    done = ask(tls=True, ca_certs="/nonexistent/ca.pem")
    assert "/nonexistent/ca.pem cannot be read" in rows(done, "unknown")["server_unseen"]
    assert "server_down" not in rows(done, "critical")


# --- rights -----------------------------------------------------------------------------------------------------------


def test_the_preset_monitoring_is_enough(redis_server, ask):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start()
    redis_server.fill(5)
    redis_server.cli("ACL", "SETUSER", "watch", "on", ">w", *PRESETS["health"])
    redis_server.cli("ACL", "SETUSER", "default", ">all")
    redis_server.password = "all"
    redis_server.cli("CONFIG", "SET", "masterauth", "never-in-a-result")
    done = ask(login_user="watch", login_password="w")
    assert (done.status, bad(done)) == (0, {})
    assert redis_server.cli("ACL", "LOG") == ""
    assert "never-in-a-result" not in json.dumps(vars(done))


def test_a_user_that_may_do_less(redis_server, ask):
    redis_server.start()
    redis_server.fill(5)
    redis_server.cli("ACL", "SETUSER", "default", ">all")
    redis_server.password = "all"
    redis_server.cli("ACL", "SETUSER", "few", "on", ">f", "-@all", "+ping", "+info")
    done = ask(login_user="few", login_password="f")
    seen = rows(done, "unknown")
    assert done.status == 3
    assert "CONFIG" in seen["facts_missing"]
    assert seen["no_persistence"].startswith("not known, because ")
    assert (done.crash_loss["seconds"], done.crash_loss["known"]) == (None, False)
    assert done.facts["keys_total"] == 5
    redis_server.cli("ACL", "SETUSER", "none", "on", ">n", "-@all", "+ping")
    done = ask(login_user="none", login_password="n")
    assert (done.status, "INFO" in rows(done, "unknown")["server_unseen"]) == (3, True)
    done = ask(login_user="few", login_password="wrong")
    assert (done.status, "does not let few in" in rows(done, "unknown")["server_unseen"]) == (3, True)


def as_nobody(do: t.Callable[[], types.SimpleNamespace]) -> types.SimpleNamespace:
    """``do`` in a process of a user who may nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "null"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            text = json.dumps(vars(do()))
        except BaseException:
            text = json.dumps({"failed": True, "msg": traceback.format_exc()})
        finally:
            with open(writer, "w") as out:
                out.write(text)
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        content = json.loads(answer.read())
    os.waitpid(child, 0)
    return types.SimpleNamespace(**content)


def test_without_permission_nothing_is_guessed(redis_server, host, ask, tmp_path):
    redis_server.write_conf("appendonly yes\n")
    redis_server.start()
    redis_server.fill(5)
    store = tmp_path / "backups" / "redis"
    store.mkdir(parents=True)
    assert bad(ask()) == {}  # root sees it all; and what Python loads late is loaded
    closed = (redis_server.data, redis_server.home / "redis.log", redis_server.conf, store)
    opened = (
        redis_server.home,
        tmp_path,
        *tmp_path.parents[:2],
    )  # so that it is these that are closed, and not the way to them
    modes = {path: path.stat().st_mode for path in (*closed, *opened)}
    for path in closed:
        path.chmod(0)
    for path in opened:
        path.chmod(modes[path] | 0o055)
    try:
        done = as_nobody(lambda: ask(backup_directory=str(tmp_path / "backups")))
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert not done.failed, done.msg
    seen = rows(done, "unknown")
    for code in ("rdb_age", "aof_incomplete", "next_start", "disk_room", "file_access", "log_unread", "backup_none"):
        assert seen[code].startswith("not known, because "), seen
    assert "Permission denied" in seen["log_unread"]
    assert (done.status, rows(done, "critical", "warning")) == (3, {})
    assert done.crash_loss["seconds"] == 2  # the policy's bound does not need the files


def test_a_proc_that_shows_nothing(redis_server, host, ask):
    redis_server.start()
    redis_server.fill(5)
    redis_server.cli("SAVE")
    pid = redis_server.info("process_id")
    for name in ("comm", "status", "limits", "cgroup"):
        host.texts[f"/proc/{pid}/{name}"] = None
    for name in (
        "/proc/meminfo",
        "/proc/stat",
        "/proc/diskstats",
        "/proc/pressure/io",
        "/proc/sys/vm/overcommit_memory",
    ):
        host.texts[name] = None
    host.texts["/proc/sys/net/core/somaxconn"] = ""
    done = ask()
    seen = rows(done, "unknown")
    assert set(seen) == {
        "open_files",
        "memory_for_save",
        "swapped",
        "steal",
        "overcommit",
        "backlog",
        "file_access",
    } | ({"disk_wait"} & set(seen))
    assert all(words.startswith("not known, because ") for words in seen.values())
    assert (done.status, rows(done, "critical", "warning")) == (3, {})


class Machine(Host):
    """A machine of files and of programs that print."""

    def __init__(self, root: pathlib.Path, printed: dict[str, str]) -> None:
        super().__init__(
            str(root), lambda *args, **more: Completed(0, printed[" ".join(args).replace(f"{root}/", "/")])
        )

    def put(self, name: str, text: str) -> None:
        path = pathlib.Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


def test_drives_and_sensors(tmp_path):
    drive = {"smart_status": {"passed": False}, "temperature": {"current": 41}}
    machine = Machine(
        tmp_path,
        {
            "/usr/sbin/smartctl --scan -j": json.dumps({"devices": [{"name": "/dev/sda", "type": "sat"}]}),
            "/usr/sbin/smartctl -j -H -A -d sat /dev/sda": json.dumps(drive),
            "/usr/bin/sensors -j": json.dumps({"cpu": {"Core 0": {"temp1_input": 50.0, "temp1_crit": 100.0}}}),
        },
    )
    seen = read_host(machine, 0, str(tmp_path), look(machine), look(machine), 1.0)
    assert (seen.drives, seen.sensors) == (None, None)
    assert "not installed" in seen.because["drives"]
    machine.put("/usr/sbin/smartctl", "")
    machine.put("/usr/bin/sensors", "")
    seen = read_host(machine, 0, str(tmp_path), look(machine), look(machine), 1.0)
    assert seen.drives == (Drive("/dev/sda", False, None, None, 41.0, None),)
    assert seen.sensors == (Sensor("cpu Core 0", 50.0, None, 100.0),)


def test_the_memory_of_a_unit_counts_where_it_is_less(tmp_path):
    machine = Machine(tmp_path, {})
    machine.put("/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 4000 kB\nSwapFree: 1000 kB\n")
    assert read_host(machine, 7, "", look(machine), look(machine), 0.0).memory_left == 5000 * 1024
    machine.put("/proc/7/cgroup", "0::/system.slice/redis.service\n")
    group = "/sys/fs/cgroup/system.slice/redis.service"
    machine.put(f"{group}/memory.max", "max\n")
    machine.put(f"{group}/memory.current", "1000000\n")
    assert read_host(machine, 7, "", look(machine), look(machine), 0.0).memory_left == 5000 * 1024
    machine.put(f"{group}/memory.max", "2000000\n")
    machine.put(f"{group}/memory.stat", "anon 5\ninactive_file 300000\n")
    assert read_host(machine, 7, "", look(machine), look(machine), 0.0).memory_left == 1_300_000
    machine.put("/proc/7/status", "Name:\tredis-server\nVmRSS:\t  900 kB\nVmSwap:\t  50 kB\n")
    machine.put("/proc/7/limits", "Max open files            1024                 4096                 files\n")
    seen = read_host(machine, 7, "", look(machine), look(machine), 0.0)
    assert (seen.resident, seen.swapped, seen.open_files) == (900 * 1024, 50 * 1024, 1024)


# --- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_that_is_missing(redis_server, ask):
    redis_server.start()
    (redis_server.home / "redis.log").unlink()
    done = ask()
    assert "redis.log cannot be read: No such file or directory" in rows(done, "unknown")["log_unread"]
    assert (done.status, done.log) == (3, [])


def test_no_log_and_no_unit(redis_server, host, ask):
    redis_server.conf.write_text(redis_server.conf.read_text().replace("logfile", "#"))
    redis_server.start()
    assert "logfile is empty, and no systemd unit" in rows(ask(), "unknown")["log_unread"]
    host.printed["journalctl"] = Completed(1, "No journal files were opened due to insufficient permissions.\n")
    assert "insufficient permissions" in rows(ask(unit="redis-server"), "unknown")["log_unread"]
    host.printed["journalctl"] = Completed(0, "")
    assert "has nothing of redis-server" in rows(ask(unit="redis-server.service"), "unknown")["log_unread"]


@pytest.mark.parametrize("kind", ["directory", "pipe", "device"])
def test_a_log_that_is_no_file(redis_server, ask, kind):
    redis_server.start()
    log = redis_server.home / "redis.log"
    log.unlink()
    if kind == "directory":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.symlink_to("/dev/zero")
    assert "redis.log cannot be read: " in rows(ask(), "unknown")["log_unread"]


def test_a_log_of_5_gb(redis_server, ask):
    """Only its end is read. The file has holes: it takes no room."""
    redis_server.start()
    redis_server.fill(5)
    log = redis_server.home / "redis.log"
    stamp = time.strftime("%d %b %Y %H:%M:%S.000")
    with log.open("ab") as handle:
        handle.truncate(5 * 2**30)
        handle.seek(0, os.SEEK_END)
        handle.write(f"\n1:M {stamp} # MISCONF once\n".encode())
    assert log.stat().st_size > 5 * 2**30
    done = ask()
    assert "the last 4.0 MiB of" in rows(done, "ok")["log_unread"]
    assert "(5.0 GiB)" in rows(done, "ok")["log_unread"]
    assert [(row["code"], row["count"]) for row in done.log] == [("misconf", 1)]


def test_junk_in_a_log(redis_server, ask):
    redis_server.start()
    stamp = time.strftime("%d %b %Y %H:%M:%S.000")
    with (redis_server.home / "redis.log").open("ab") as handle:
        handle.write(os.urandom(300_000) + b"\x00" * 5000 + b"\xff\xfe\n" + b"A" * 100_000 + b"\n")
        handle.write(f"1:M {stamp} # Background saving error \x1b[31m\x00\x07\n".encode() + os.urandom(2000))
    done = ask()
    row = next(row for row in done.log if row["code"] == "save_failed")
    assert row["line"].isprintable()
    assert "save_failed" in rows(done, "critical")


def test_only_since(redis_server, ask):
    redis_server.start()
    old = "1:M 01 Jan 2020 00:00:00.000 # Background saving error\n"
    log = redis_server.home / "redis.log"
    log.write_text(old + log.read_text())
    assert bad(ask()) == {}
    seen = ask(log_since="2019-12-31T00:00:00Z")
    # the server became ready since, so it is over
    assert (
        "last at 2020-01-0" in rows(seen, "info")["save_failed"]
        or "last at 2019-12-31" in rows(seen, "info")["save_failed"]
    )


def test_a_log_that_was_just_rotated(redis_server, ask):
    redis_server.start()
    log = redis_server.home / "redis.log"
    stamp = time.strftime("%d %b %Y %H:%M:%S.000")
    log.with_name("redis.log.1").write_text(log.read_text() + f"1:M {stamp} # Background saving error\n")
    log.write_text("")
    done = ask()
    assert "redis.log.1" in rows(done, "ok")["log_unread"]
    assert "save_failed" in rows(done, "critical")


def test_the_end_of_a_log_is_bounded_by_bytes(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    text = log_reader.log_file(str(path), 0.0, log_reader.zone_of(Host()), most=100)
    assert len("\n".join(text.lines)) <= 100
    assert (text.lines[-2], text.lines[0].startswith("line 9")) == ("line 999", True)


# --- servers of other releases ----------------------------------------------------------------------------------------


class Told:
    """A server that answers INFO and CONFIG GET with given texts, as one of another release would."""

    def __init__(self, info: str, config: dict[str, str]) -> None:
        self.info, self.config = info, config
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                link, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(link,), daemon=True).start()

    def talk(self, link: socket.socket) -> None:
        with link, link.makefile("rb") as reported:
            while header := reported.readline():
                words = []
                for _word in range(int(header[1:])):
                    reported.readline()
                    words.append(reported.readline().strip().decode().upper())
                link.sendall(self.answer(words))

    def answer(self, words: list[str]) -> bytes:
        if words[0] == "PING":
            return b"+PONG\r\n"
        if words[0] == "INFO":
            return b"$%d\r\n%s\r\n" % (len(self.info.encode()), self.info.encode())
        if words[:2] == ["CONFIG", "GET"]:
            flat = [word.encode() for pair in self.config.items() for word in pair]
            return b"*%d\r\n" % len(flat) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in flat)
        return b"-ERR unknown command\r\n"


@pytest.mark.parametrize("left", ["redis_version:9.9.9\n", "", "no colon\n:\nrole:\nrdb_last_save_time:soon\n", None])
def test_info_that_lacks_what_is_asked_for(redis_server, ask, left):
    """Nothing but the version, nothing at all, junk, or what is known with unknown fields between."""
    recorded = (INFO / "redis-7.0.15-aof.txt").read_text()
    text = "".join(f"{line}\nnew_{line}\n" for line in recorded.splitlines()) if left is None else left
    predicted = Told(text, {"appendonly": "yes", "appendfsync": "everysec", "save": ""})
    done = ask(login_port=predicted.port)
    predicted.listener.close()
    if left is not None:
        assert "aof_write_failing" in rows(done, "unknown")
        assert rows(done, "unknown")["fork_slow"] == "not known, because INFO of this server has no latest_fork_usec"
        assert done.status in (1, 3)
    assert not rows(done, "critical")
    assert all(value is not None for value in (done.text, done.status_text))


def test_config_that_lacks_what_is_asked_for(redis_server, ask):
    predicted = Told((INFO / "redis-7.0.15-rdb.txt").read_text(), {})
    done = ask(login_port=predicted.port)
    predicted.listener.close()
    assert "no_persistence" in rows(done, "unknown")
    assert done.crash_loss["known"] is False
    assert not rows(done, "critical")


def test_a_server_on_another_host(redis_server, ask, monkeypatch):
    """What this host has says nothing of a server elsewhere. (127.0.0.1 by another of its names is not taken for local.)"""
    redis_server.start()
    predicted = Told(
        (INFO / "redis-7.0.15-rdb.txt").read_text().replace("process_id:", "process_id:9"),
        {"appendonly": "no", "save": "3600 1"},
    )
    name = socket.gethostname()
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", predicted.port))],
    )
    done = ask(login_host=name, login_port=predicted.port)
    predicted.listener.close()
    assert "does not run on this host: there is no process" in rows(done, "unknown")["facts_missing"]
    assert "overcommit" not in {row["code"] for row in done.findings}


# --- the set ----------------------------------------------------------------------------------------------------------


def test_a_replica_and_its_primary(new_redis, ask):
    primary, replica = new_redis("a"), new_redis("b").start()
    primary.write_conf("repl-diskless-sync-delay 0\n")
    primary.start()
    replica.cli("REPLICAOF", "127.0.0.1", str(primary.port))
    wait(lambda: replica.info("master_link_status") == "up")
    wait(lambda: "state=online" in primary.raw("INFO", "replication"))
    done = ask(primary)
    assert "1 replicas in sync" in rows(done, "ok")["replica_lag"]
    assert done.facts["replication"]["replicas"][0]["address"] == f"127.0.0.1:{replica.port}"
    done = ask(replica)
    assert bad(done) == {}
    assert (done.facts["role"], done.facts["primary"]) == ("replica", f"127.0.0.1:{primary.port}")
    assert done.facts["replication"]["link"] == "up"
    primary.cli("CONFIG", "SET", "min-replicas-to-write", "2")
    assert "1 good replicas, min-replicas-to-write is 2" in rows(ask(primary), "critical")["too_few_replicas"]
    primary.stop(signal.SIGKILL)
    wait(lambda: replica.info("master_link_status") == "down")
    done = ask(replica)
    assert f"the link to the primary 127.0.0.1:{primary.port} is down" in rows(done, "critical")["replica_link"]
    assert done.facts["replication"]["link"] == "down"


def test_sentinel(redis_server, ask, tmp_path):
    redis_server.start()
    port = free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {tmp_path}\nlogfile {tmp_path}/sentinel.log\nsentinel monitor orders 127.0.0.1 {redis_server.port} 1\n"
    )
    process = subprocess.Popen(["redis-server", str(conf), "--sentinel"])
    try:
        wait(lambda: cli(port, "PING") == "PONG")
        done = ask(sentinel_port=port)
        assert "1 usable Sentinels, quorum 1" in rows(done, "ok")["sentinel_quorum"]
        assert bad(done) == {}
        assert done.facts["sentinel"]["watched"][0]["primary"] == f"127.0.0.1:{redis_server.port}"
        rights = (
            "+ping",
            "+info",
            "+sentinel|masters",
            "+sentinel|replicas",
            "+sentinel|sentinels",
            "+sentinel|ckquorum",
        )
        assert cli(port, "ACL", "SETUSER", "watch", "on", ">w", "-@all", *rights) == "OK"
        assert bad(ask(sentinel_port=port, sentinel_user="watch", sentinel_password="w")) == {}
        cli(port, "ACL", "SETUSER", "few", "on", ">f", "-@all", "+ping", "+info")
        done = ask(sentinel_port=port, sentinel_user="few", sentinel_password="f")
        assert "it refuses" in rows(done, "warning")["sentinel_down"]
        cli(port, "SENTINEL", "SET", "orders", "quorum", "2")
        assert "NOQUORUM" in rows(ask(sentinel_port=port), "critical")["sentinel_quorum"]
    finally:
        process.kill()
        process.wait()
    done = ask(sentinel_port=port)
    assert "nothing listens" in rows(done, "warning")["sentinel_down"]
    assert done.facts["sentinel"]["answers"] is False
    assert (
        "it is a Redis server, and no Sentinel"
        in rows(ask(sentinel_port=redis_server.port), "warning")["sentinel_down"]
    )


def test_a_node_of_a_cluster(redis_server, ask):
    redis_server.write_conf(f"cluster-enabled yes\ncluster-port {free_port()}\n")
    redis_server.start()
    assert "cluster_state is fail" in rows(ask(), "critical")["cluster_state"]
    redis_server.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    wait(lambda: "cluster_state:ok" in redis_server.cli("CLUSTER", "INFO"))
    done = ask()
    assert "16384 slots assigned" in rows(done, "ok")["cluster_state"]
    assert done.facts["group_name"] == "redis"


# --- backups and drills -----------------------------------------------------------------------------------------------


def test_backups_and_drills(redis_server, host, ask, call_module):
    redis_server.start()
    redis_server.fill(20)
    directory = str(redis_server.home / "backups")
    assert "no backup on this host" in rows(ask(), "info")["backup_none"]
    assert "backup_none" in rows(ask(backup_directory=directory), "warning")
    assert "backup_none" in rows(ask(rpo_seconds=60), "warning")
    host.texts["/etc/redisops/backup-redis.json"] = json.dumps(
        {"settings": {"directory": directory}, "group_hosts": ["a", "b"]}
    )
    assert "another host of the group may have them" in rows(ask(), "info")["backup_none"]
    taken = call_module(
        "redis_backup", **redis_server.params(directory=directory, group_name="redis", sentinel_file="")
    )
    assert not taken.failed, taken.msg
    drilled = call_module("redis_drill", directory=directory, group_name="redis", rpo_seconds=3600, rto_seconds=600)
    assert not drilled.failed, drilled.msg
    done = ask(rpo_seconds=3600, max_drill_age=3600)  # the schedule says where they are
    assert bad(done) == {}
    label = next(name for name in os.listdir(f"{directory}/redis") if name[0].isdigit())
    assert done.facts["last_verified_backup"]["name"] == label
    assert [row["status"] for row in done.facts["backups"]] == ["verified"]
    assert (done.facts["drills"][0]["ok"], done.facts["drills"][0]["rto_seconds"] > 0) == (True, True)
    report = next(pathlib.Path(directory, "redis", "drills").glob("*.json"))
    content = json.loads(report.read_text())
    report.write_text(json.dumps({**content, "at": time.time() - 9000, "missed": ["RTO (time) is 9 s"]}))
    assert "RTO (time) is 9 s" in rows(ask(), "warning")["drill_failed"]
    report.write_text(json.dumps({**content, "at": time.time() - 9000}))
    assert "drill_old" in rows(ask(max_drill_age=3600), "info")  # another host of the group may have held a newer one
    report.write_text("no report")
    assert "drill_none" in rows(ask(max_drill_age=3600), "warning")
    os.unlink(f"{directory}/redis/{label}/proof.json")
    assert "there is no verified backup" in rows(ask(), "warning")["backup_unverified"]


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"log_since": "yesterday"},
        {"crash_loss_seconds": -1},
        {"sample_seconds": 61.0},
        {"group_name": "../x"},
        {"max_lag": -5},
    ],
)
def test_what_cannot_be_is_refused(redis_server, call_module, options):
    done = call_module("redis_health_info", login_port=redis_server.port, **{"sample_seconds": 0.0, **options})
    assert (done.failed, done.code) == (True, "invalid_value")
    assert next(iter(options)) in done.msg


# --- as ansible-playbook runs it --------------------------------------------------------------------------------------


def test_the_playbook(redis_server, tmp_path):
    redis_server.start()
    redis_server.fill(3)
    hosts = {
        "one": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False,
            "redis_objective_crash_loss_seconds": 0, "redis_server_login": {"login_port": redis_server.port}, "redis_server_config_file": str(redis_server.conf),
        },
        "two": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False,
            "redis_server_login": {"login_port": free_port()}, "redis_server_config_file": str(redis_server.conf),
        },
    }  # fmt: skip
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dmesg", "journalctl"):  # what the kernel of this machine detected is none of this test's
        (tools / name).write_text("#!/bin/sh\necho nothing\n")
        (tools / name).chmod(0o755)
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"), "ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_NOCOLOR": "1",
    }  # fmt: skip

    def play(*arguments: str) -> subprocess.CompletedProcess:
        program = pathlib.Path(sys.executable).parent / "ansible-playbook"
        return subprocess.run(
            [program, "redisops.recovery.health", "-i", str(inventory), "-e", "redisops_hosts=all", *arguments],
            env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip

    done = play()
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"redis at 127.0.0.1:{redis_server.port} ({redis_server.product()}" in done.stdout
    assert "CRITICAL server_down: nothing listens" in done.stdout
    assert "two: critical; see above" in done.stdout
    assert "one: " not in done.stdout.split("End with an error")[1].split("PLAY RECAP")[0].replace("[one]", "")
    done = play("-e", "redisops_health_fail_on=never", "-e", "redis_objective_crash_loss_seconds=1", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CRITICAL crash_loss_too_large" in done.stdout
