# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What redis_health_info and redis_repair say of a start that would lose or fail, next to what such a start does."""

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import open_transaction

from tests.integration.test_redis_health_info import _ask, _host  # noqa: F401, they are fixtures
from tests.integration.test_redis_repair import _repair, _unit, aof, refused, rewrite  # noqa: F401

CONF = 'save ""\nappendonly yes\nauto-aof-rewrite-percentage 0\nenable-debug-command local\n'
TORN = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$1\r\n1\r\n*1\r\n$4\r\nEXE"


def finding(done, code: str) -> dict:
    assert not done.failed, done.msg
    return next(row for row in done.findings if row["code"] == code)


@pytest.fixture(name="torn")
def _torn(redis_server):
    """A power cut while a transaction was being written; started again, and written to."""
    redis_server.write_conf(CONF)
    redis_server.start()
    redis_server.fill(5)
    redis_server.stop()
    with aof(redis_server).open("ab") as handle:
        handle.write(TORN)
    redis_server.start()
    for number in range(5):  # no script: the EXEC of that would end the torn transaction
        redis_server.cli("SET", f"later:{number}", "1")
    return redis_server


def test_a_torn_transaction_is_told_before_it_swallows_what_follows(ask, torn, call_module):
    row = finding(ask(torn), "aof_open_transaction")
    assert (row["severity"], "6 commands behind it" in row["detected"], "BGREWRITEAOF" in row["do"]) == (
        "critical",
        True,
        True,
    )
    (verdict,) = call_module("redis_file_check", paths=[str(aof(torn))]).files
    assert (verdict["verdict"], "6 commands stand behind a MULTI" in verdict["detail"]) == ("truncated_tail", True)
    size = aof(torn).stat().st_size
    found = open_transaction(str(aof(torn)))
    assert (found.commands, found.bytes) == (6, size - found.offset)
    assert open_transaction(str(aof(torn)), found.offset).offset == found.offset
    rewrite(torn)
    assert finding(ask(torn), "aof_open_transaction")["severity"] == "ok"
    torn.restart()
    assert torn.keys() == 10


def test_without_a_rewrite_the_next_start_loses_it(ask, torn):
    """The evidence for the finding."""
    torn.restart()
    assert torn.keys() == 5


def test_a_transaction_that_is_being_written_is_no_torn_one(torn):
    rewrite(torn)
    path = aof(torn, 2)
    with path.open("ab") as handle:
        handle.write(TORN[:15])
        handle.flush()
        pid = os.fork()
        if pid == 0:
            time.sleep(0.5)
            handle.write(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*1\r\n$4\r\nEXEC\r\n")
            handle.flush()
            os._exit(0)
        assert open_transaction(str(path)) is None
        os.waitpid(pid, 0)


@pytest.mark.parametrize("running", [True, False])
def test_a_user_that_stands_twice_is_a_start_that_fails(ask, redis_server, running):
    """CONFIG REWRITE has copied it from the include."""
    users = redis_server.home / "users.conf"
    users.write_text("user al on nopass ~* +get\n")
    redis_server.write_conf(f"{CONF}include {users}\n")
    redis_server.start()
    assert redis_server.cli("CONFIG", "REWRITE") == "OK"
    if not running:
        redis_server.stop()
    row = finding(ask(redis_server, config_file=str(redis_server.conf)), "next_start")
    assert (row["severity"], "user al stands in" in row["detected"]) == ("critical", True)
    if running:
        redis_server.stop()
    with pytest.raises(AssertionError, match="redis-server ended"):
        redis_server.start()


def test_old_temporary_files_that_nobody_writes_to_are_told(ask, redis_server):
    redis_server.write_conf(CONF)
    redis_server.start()
    old = time.time() - 86400
    for name in ("temp-812.rdb", "temp-rewriteaof-bg-991.aof", "temp-rewriteaof-991.aof"):
        (redis_server.data / name).write_bytes(b"x" * 100)
        os.utime(redis_server.data / name, (old, old))
    (redis_server.data / f"temp-{os.getpid()}.rdb").write_bytes(b"being written")
    row = finding(ask(redis_server), "temporary_files_left")
    assert (row["severity"], "3 files of 300 bytes" in row["detected"]) == ("warning", True)


def test_a_cluster_node_whose_file_is_empty_is_not_started_over(ask, repair, unit):
    server = unit.server
    server.write_conf(CONF + "cluster-enabled yes\n")
    server.start()
    server.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    was = server.cli("CLUSTER", "MYID")
    while "cluster_state:ok" not in server.cli("CLUSTER", "INFO"):
        time.sleep(0.05)
    server.cli("SET", "a", "1")
    server.stop()
    (server.data / "nodes.conf").write_bytes(b"")
    row = finding(ask(server, config_file=str(server.conf)), "next_start")
    assert (row["severity"], "nodes.conf is empty" in row["detected"]) == ("critical", True)
    refused(repair, unit, "nodes_conf_empty")
    server.start()  # the evidence: another node
    assert server.cli("CLUSTER", "MYID") != was
