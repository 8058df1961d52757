# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_repair killed before every effect: the files are the damaged ones or the repaired ones, and a further run ends it."""

from __future__ import annotations

import pathlib
import signal

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

from tests.faults.test_cut_off_backup import AOF, Unit, boot, end, place


def repair(call_module, server, **options):
    from ansible_collections.redisops.recovery.plugins.modules import redis_repair

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_repair, "Host", lambda: Host("/", Unit(server).run))
        return call_module("redis_repair", **place(server, unit="redis", **options))


def increment(server) -> pathlib.Path:
    return server.data / "appendonlydir" / "appendonly.aof.1.incr.aof"


def damage(server) -> None:
    raw = increment(server).read_bytes()
    at = raw.index(b"*3\r\n$3\r\nSET\r\n$6\r\nlast:2")
    increment(server).write_bytes(raw[:at] + b"!" + raw[at + 1 :])


def filled(server) -> None:
    server.write_conf(AOF)
    boot(server)
    server.fill(200)
    for number in range(5):
        server.cli("SET", f"last:{number}", "x")


def test_a_cut_by_repair_cut_off_anywhere(sweep, call_module):
    def prepare(server):
        filled(server)
        end(server)
        damage(server)

    seen = set()
    for point, server, cut in sweep(prepare, lambda server: repair(call_module, server, allow_truncation=True)):
        assert cut.cut or not cut.result["failed"], cut.result
        try:
            seen.update(cut.effects)
            raw = increment(server).read_bytes()  # the damaged one with all that it held, or the repaired one
            assert (b"!3\r\n" in raw) == (b"last:4" in raw), point
            done = repair(call_module, server, allow_truncation=True)
            assert not done.failed, f"cut off {point}; run again: {done.msg}"
            assert server.keys() == 202, point
            assert any(b"last:4" in path.read_bytes() for path in server.data.rglob("*.incr.aof")), point
        finally:
            end(server, signal.SIGKILL)
    assert {"exchange", "systemctl"} <= seen


def test_a_rewrite_from_memory_cut_off_anywhere(sweep, call_module):
    def prepare(server):
        filled(server)
        damage(server)

    for point, server, cut in sweep(prepare, lambda server: repair(call_module, server)):
        assert cut.cut or not cut.result["failed"], cut.result
        try:
            assert server.keys() == 205
            done = repair(call_module, server)
            assert (done.failed, done.running) == (False, True), f"cut off {point}; run again: {done.msg}"
            end(server, signal.SIGKILL)
            boot(server)
            assert server.keys() == 205, point
        finally:
            end(server, signal.SIGKILL)
