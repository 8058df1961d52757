# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_backup and redis_restore killed before every effect: the live data is the old or the new, and a further run ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

from tests.support.unit import PretendedUnit

AOF = 'save ""\nappendonly yes\nenable-debug-command local\n'
RDB = "save 3600 1\nappendonly no\nenable-debug-command local\n"


def place(server, **more):
    return server.params(directory=str(server.home / "backups"), group_name="orders", **more)


def back_up(call_module, server, method="rdb"):
    return call_module("redis_backup", **place(server, sentinel_file="", method=method))


def running(server) -> list[int]:
    return Host().servers_in(str(server.data))


def end(server, how=signal.SIGTERM) -> None:
    for pid in running(server):
        os.kill(pid, how)
    deadline = time.monotonic() + 20
    while running(server):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def boot(server) -> None:
    """As systemd does it: whoever starts it may go."""
    subprocess.Popen(["redis-server", str(server.conf)], cwd="/", stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 20
    while "PONG" not in server.raw("PING"):
        assert time.monotonic() < deadline, server.log()[-1000:]
        time.sleep(0.01)


class Unit(PretendedUnit):
    """Servers are found by their directory, since a run that started one may have been killed."""

    def pid(self):
        return (running(self.server) or [0])[0]

    def stop(self):
        end(self.server)

    def start(self):
        if not running(self.server):
            boot(self.server)


def restore(call_module, server, **options):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_restore, "Host", lambda: Host("/", Unit(server).run))
        return call_module("redis_restore", **place(server, unit="redis", **options))


def filled(conf):
    def prepare(server):
        server.write_conf(conf)
        boot(server)
        server.fill(200)

    return prepare


@pytest.mark.parametrize("method", ["rdb", "aof"])
def test_redis_backup_cut_off_anywhere(sweep, call_module, method):
    for point, server, cut in sweep(filled(AOF), lambda server: back_up(call_module, server, method)):
        assert cut.cut or not cut.result["failed"], cut.result
        try:
            assert server.keys() == 200
            assert server.config("auto-aof-rewrite-percentage") == "100"
            info = call_module("redis_backup_info", directory=str(server.home / "backups"), verify=True)
            assert {row["state"] for one in info.groups for row in one["backups"]} <= {"copied", "verified"}, point
            done = back_up(call_module, server, method)
            assert (done.failed, done.state) == (False, "verified"), f"cut off {point}; run again: {done.msg}"
            left = [
                name
                for name in os.listdir(server.home / "backups" / "orders")
                if name.startswith((".begun", ".going", ".scratch"))
            ]
            assert left == [], point
            assert server.keys() == 200
        finally:
            end(server, signal.SIGKILL)


@pytest.mark.parametrize("form", [AOF, RDB])
def test_redis_restore_cut_off_anywhere(sweep, call_module, form):
    digests = {}

    def prepare(server):
        filled(form)(server)
        assert back_up(call_module, server).state == "verified"
        digests["new"] = server.cli("DEBUG", "DIGEST")
        server.cli("FLUSHALL")
        server.fill(50, "other")
        server.cli("SAVE")
        digests["old"] = server.cli("DEBUG", "DIGEST")

    seen = set()
    for point, server, cut in sweep(prepare, lambda server: restore(call_module, server)):
        assert cut.cut or not cut.result["failed"], cut.result
        try:
            seen.update(cut.effects)
            # the machine comes up again, from whatever stands there
            end(server, signal.SIGKILL)
            boot(server)
            now = server.cli("DEBUG", "DIGEST")
            assert now in digests.values(), point
            if now == digests["new"]:  # it was swapped: the way back has to be there
                back = restore(call_module, server, state="rolled_back")
                assert not back.failed, f"cut off {point}; way back: {back.msg}"
                assert server.cli("DEBUG", "DIGEST") == digests["old"], point
            done = restore(call_module, server)
            assert not done.failed, f"cut off {point}; run again: {done.msg}"
            assert server.cli("DEBUG", "DIGEST") == digests["new"], point
            back = restore(call_module, server, state="rolled_back")
            assert not back.failed, f"cut off {point}; way back: {back.msg}"
            assert server.cli("DEBUG", "DIGEST") == digests["old"], point
        finally:
            end(server, signal.SIGKILL)
    assert {"exchange", "systemctl"} <= seen
