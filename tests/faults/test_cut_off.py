# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run that is cut off anywhere loses nothing, and the same run again finishes the work.

Each test cuts the module off before its first effect, before its second, and so on until it comes to its end, and asks after
each cut: what would a crash of the server find now, what would an orderly stop find later, and does a second run get there?
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import signal
import subprocess
import time
import typing as t

import pytest

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
KEYS = 100
MORE = 20
#: Saves take long enough (100 * 200 µs) for a cut to fall into them, the loop is quick to see them end.
COMMON = "hz 100\nrdb-key-save-delay 200\n"
RDB_ONLY = "save 900 1\nappendonly no\n"
AOF = "save 900 1\nappendonly yes\n"
AOF_ONLY = 'save ""\nappendonly yes\n'


def running_rdb_only(server):
    server.write_conf(COMMON + RDB_ONLY)
    server.start().fill(KEYS)
    server.cli("SAVE")


def running_rdb_only_file_says_aof(server):
    """What a role leaves behind that wrote the file and was cut before its handler."""
    running_rdb_only(server)
    server.write_conf(COMMON + AOF)


def running_aof_off_stale_aof_file_says_aof(server):
    """AOF turned off by hand, and no RDB file: a start would load the older AOF, which is not all, but all there is."""
    server.write_conf(COMMON + AOF_ONLY)
    server.start().fill(KEYS)
    server.cli("CONFIG", "SET", "appendonly", "no")


def running_aof_on_by_hand(server):
    running_rdb_only(server)
    server.cli("CONFIG", "SET", "appendonly", "yes")
    while server.info("aof_rewrite_in_progress") == "1":
        pass


def running_aof(server):
    server.write_conf(COMMON + AOF)
    server.start().fill(KEYS)


def running_aof_only(server):
    server.write_conf(COMMON + AOF_ONLY)
    server.start().fill(KEYS)


def running_aof_directory_lost(server):
    running_aof(server)
    for path in (server.data / "appendonlydir").iterdir():
        path.unlink()
    server.cli("SAVE")


def stopped_rdb(server):
    running_rdb_only(server)
    server.stop()


def stopped_rdb_file_says_aof(server):
    stopped_rdb(server)
    server.write_conf(COMMON + AOF)


def stopped_rdb_and_older_aof(server):
    server.write_conf(COMMON + AOF)
    server.start().fill(KEYS // 2, "old")
    server.cli("CONFIG", "SET", "appendonly", "no")
    server.fill(KEYS - KEYS // 2, "new")
    server.stop()
    server.write_conf(COMMON + RDB_ONLY)


def stopped_aof(server):
    running_aof(server)
    server.stop()


TO_AOF: dict[str, t.Any] = {}
TO_AOF_WITHOUT_RDB = {"save": []}
TO_RDB = {"appendonly": False}
RUNNING = [
    (running_rdb_only, TO_AOF),
    (running_rdb_only_file_says_aof, TO_AOF),
    (running_aof_off_stale_aof_file_says_aof, TO_AOF),
    (running_aof_on_by_hand, TO_AOF),
    (running_aof_directory_lost, TO_AOF),
    (running_aof, TO_RDB),
]
#: Of the pairs above and below, some differ from another one in one of the two tests only.
ORDERLY_ONLY = [(running_rdb_only, TO_AOF_WITHOUT_RDB), (running_aof_only, TO_RDB)]
STOPPED = [
    (stopped_rdb, TO_AOF),
    (stopped_rdb_file_says_aof, TO_AOF),
    (stopped_rdb_and_older_aof, TO_AOF),
    (stopped_aof, TO_AOF),
]


def named(cases):
    return [
        pytest.param(prepare, options, id=f"{prepare.__name__}-to-{'_'.join(options) or 'both'}")
        for prepare, options in cases
    ]


@pytest.fixture(name="persist")
def _persist(call_module):
    def run(server, **options):
        return call_module("redis_persistence", **server.params(**{**ME, **options}))

    return run


@pytest.fixture(name="fresh")
def _fresh(new_redis):
    """The situation before any run, for what it would lose by itself."""

    def make(prepare):
        server = new_redis("before")
        prepare(server)
        return server

    return make


def keys_after_start(server):
    """Keys that a start finds; none where the server does not start, which is no loss yet, but no data either."""
    try:
        return server.start().keys()
    except AssertionError as error:
        if "redis-server ended" not in str(error):
            raise
        return 0


def after_crash(crashed_copy, server):
    with crashed_copy(server) as copy:
        return keys_after_start(copy)


def after_more_writes_and_a_stop(server):
    server.fill(MORE, "more")
    deadline = time.monotonic() + 20
    while server.process.poll() is None:  # Redis forgets a SIGTERM that comes while it writes its first AOF
        assert time.monotonic() < deadline, server.log()[-2000:]
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(0.1)
    return keys_after_start(server)


def finish(persist, server, options, point):
    """The run again, to its end; then once more, which changes nothing."""
    done = persist(server, **options)
    assert not done.failed, f"cut off {point}; run again: {done.msg}"
    again = persist(server, **options)
    assert not again.failed, again.msg
    assert (again.changed, again.actions) == (False, []), point


@pytest.mark.parametrize(("prepare", "options"), named(RUNNING + STOPPED))
def test_cut_off_anywhere_then_a_crash_or_a_second_run(sweep, persist, fresh, crashed_copy, prepare, options):
    best = after_crash(crashed_copy, fresh(prepare))  # what a crash costs before we come is not ours
    lost = []
    for point, server, cut in sweep(prepare, lambda server: persist(server, **options)):
        assert cut.cut or not cut.result["failed"], cut.result
        found = after_crash(crashed_copy, server)
        if found < best:
            lost.append(f"{point}: a crash finds {found} of {KEYS} keys, {best} before")
        best = max(best, found)
        finish(persist, server, options, point)
        found = server.stop(signal.SIGKILL).start().keys()
        if found != KEYS:
            lost.append(f"{point}: after the second run a crash finds {found} of {KEYS} keys")
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize(("prepare", "options"), named(RUNNING + ORDERLY_ONLY))
def test_cut_off_anywhere_then_writes_and_an_orderly_stop(sweep, persist, fresh, prepare, options):
    """Nobody runs it again: clients go on writing, and days later the host is rebooted."""
    best = after_more_writes_and_a_stop(fresh(prepare))
    lost = []
    for point, server, cut in sweep(prepare, lambda server: persist(server, **options)):
        assert cut.cut or not cut.result["failed"], cut.result
        found = after_more_writes_and_a_stop(server)
        if found < best:
            lost.append(f"{point}: a stop and a start find {found} of {KEYS + MORE} keys, {best} before")
        best = max(best, found)
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize(("prepare", "options"), named([(stopped_rdb, TO_AOF), (stopped_rdb_and_older_aof, TO_AOF)]))
def test_cut_off_anywhere_then_started_by_hand(sweep, persist, fresh, prepare, options):
    """Somebody starts the server, clients write, it is stopped, and only then the run is repeated."""
    best = after_more_writes_and_a_stop(fresh(prepare).start())
    lost = []
    for point, server, cut in sweep(prepare, lambda server: persist(server, **options)):
        assert cut.cut or not cut.result["failed"], cut.result
        found = after_more_writes_and_a_stop(server.start())
        if found < best:
            lost.append(f"{point}: a start finds {found} of {KEYS + MORE} keys, {best} before")
        best = max(best, found)
        if found == best:
            server.stop()
            finish(persist, server, options, point)
            if (keys := server.start().keys()) != found:
                lost.append(f"{point}: run again, a start finds {keys} of {found} keys")
    assert not lost, "\n".join(lost)


def test_cut_off_while_redis_judges_the_file(persist, redis_server):
    """The temporary server, whose directory holds a copy of the file, ends with the run that started it."""
    running_rdb_only(redis_server)
    report, report_in = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            real = subprocess.Popen

            def popen(*args, **options):
                os.write(report_in, str(real(*args, **options).pid).encode())
                os.kill(os.getpid(), signal.SIGKILL)

            subprocess.Popen = popen
            persist(redis_server)
        finally:
            os._exit(1)
    os.close(report_in)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with open(report, encoding="utf-8") as handle:
        temporary_server = int(handle.read())
    time.sleep(1)
    try:
        with open(f"/proc/{temporary_server}/stat", encoding="utf-8") as handle:
            state = handle.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return
    if state == "Z":
        return  # it ended; where PID 1 is no init, nobody takes note
    os.kill(temporary_server, signal.SIGKILL)
    raise AssertionError(f"the temporary server, process {temporary_server}, was still there")


# --- redis_config -----------------------------------------------------------------------------------------------------

SETTINGS = {"maxmemory-policy": "volatile-lru", "timeout": 77, "tcp-backlog": 600}
LINES = ["maxmemory-policy volatile-lru", "timeout 77", "tcp-backlog 600"]


@pytest.mark.parametrize("prepare", [running_aof, stopped_rdb])
def test_redis_config_cut_off_anywhere(sweep, call_module, crashed_copy, prepare):
    def configure(server):
        return call_module("redis_config", settings=SETTINGS, mode="0600", **server.params())

    def prepared(server):
        prepare(server)
        server.text_before = server.conf.read_text()

    for point, server, cut in sweep(prepared, configure):
        assert cut.cut or not cut.result["failed"], cut.result
        text = server.conf.read_text()
        assert text in (server.text_before, server.text_before + "\n".join([*LINES, ""])), point
        assert after_crash(crashed_copy, server) == KEYS, point
        done = configure(server)
        assert not done.failed, f"cut off {point}; run again: {done.msg}"
        again = configure(server)
        assert (again.changed, again.actions) == (False, []), point
        assert not list(server.home.glob(".redis.conf*")), point
        server.stop(signal.SIGKILL).start()
        assert (server.keys(), server.config("timeout"), server.config("tcp-backlog")) == (KEYS, "77", "600"), point
