# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_replication with real servers and real Sentinels on loopback. The judge is redis-cli."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.support.topology import free_port


def wait(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(name="servers")
def _servers(new_redis):
    made = [new_redis(name) for name in ("a", "b", "c")]
    for server in made:
        server.start()
    return made


@pytest.fixture(name="replicate")
def _replicate(call_module, servers):
    def run(server, check=False, primary=None, group_hosts=None, **options):
        options["group_hosts"] = [
            one if isinstance(one, str) else f"127.0.0.1:{one.port}" for one in group_hosts or servers
        ]
        options["primary"] = primary if isinstance(primary, str) else f"127.0.0.1:{(primary or servers[0]).port}"
        return call_module(
            "redis_replication", check=check, **server.params(address=f"127.0.0.1:{server.port}", **options)
        )

    return run


def role(server):
    answer = server.cli("ROLE").splitlines()
    return "primary" if answer[0] == "master" else f"replica of {answer[2]}"


def join(replicate, servers):
    """What the role does: link all, then bound the writes."""
    for server in servers:
        done = replicate(server, bound_writes=False)
        assert not done.failed, done.msg
    for server in servers:
        done = replicate(server)
        assert not done.failed, done.msg


def refused(replicate, server, code, **options):
    before = (server.tree(), role(server), server.keys(), server.live_config())
    for check in (True, False):
        result = replicate(server, check=check, **options)
        assert result.failed
        assert result.code == code, result.msg
        assert "Unexpected" not in result.msg
    assert (server.tree(), role(server), server.keys(), server.live_config()) == before
    return result


def test_bare_servers_become_a_set_and_stay_one(replicate, servers):
    first = servers[0]
    for server in servers:
        predicted = replicate(server, check=True, bound_writes=False)
        assert role(server) == "primary"
        done = replicate(server, bound_writes=False)
        assert not done.failed, done.msg
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        assert done.settled is False
    assert [role(server) for server in servers] == ["primary", *[f"replica of {first.port}"] * 2]
    assert first.config("min-replicas-to-write") == "0"
    for server in servers:
        predicted, done = replicate(server, check=True), replicate(server)
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        assert done.settled
    for server in servers:
        again = replicate(server, bound_writes=False)
        assert (again.changed, again.actions, again.settled) == (False, [], True)
        assert (server.config("min-replicas-to-write"), server.config("min-replicas-max-lag")) == ("1", "10")
    assert "11 seconds" in again.crash_loss
    first.cli("SET", "k", "v")
    assert first.cli("WAIT", "2", "5000") == "2"
    # the file has the role: a restart keeps it
    servers[1].restart()
    wait(lambda: "master_link_status:up" in servers[1].raw("INFO", "replication"))
    assert not replicate(servers[1]).changed


def test_check_mode_of_both_calls_tells_what_both_runs_do(replicate, servers):
    predicted = [replicate(server, check=True, bound_writes=False) for server in servers]
    told2 = [replicate(server, check=True, pending=first.pending) for server, first in zip(servers, predicted)]
    done = [replicate(server, bound_writes=False) for server in servers]
    done2 = [replicate(server) for server in servers]
    assert [(one.diff, one.actions) for one in predicted] == [(one.diff, one.actions) for one in done]
    assert [(one.diff, one.actions) for one in told2] == [(one.diff, one.actions) for one in done2]


def test_a_switch_by_hand_stands(replicate, servers):
    join(replicate, servers)
    old, new, third = servers
    old.cli("SET", "k", "v")
    assert old.cli("WAIT", "2", "5000") == "2"
    new.cli("REPLICAOF", "NO", "ONE")
    for server in (old, third):
        server.cli("REPLICAOF", "127.0.0.1", str(new.port))
        wait(lambda server=server: "master_link_status:up" in server.raw("INFO", "replication"))
    for server in servers:
        done = replicate(server)  # primary is still declared as the old one
        assert not done.failed, done.msg
        assert done.primary == f"127.0.0.1:{new.port}"
        # the roles are as they are; the files follow
        assert set(done.actions) <= {f"write replicaof to {server.conf}"}
        assert not replicate(server).changed
    assert [role(server) for server in servers] == [f"replica of {new.port}", "primary", f"replica of {new.port}"]
    assert "replicaof" not in new.conf.read_text()


def test_a_new_server_joins_and_an_emptied_one_comes_back(replicate, servers, new_redis):
    join(replicate, servers)
    servers[0].fill(50)
    fourth = new_redis("d").start()
    group_hosts = [*servers, fourth]
    done = replicate(fourth, group_hosts=group_hosts, primary=fourth)  # whatever is declared
    assert not done.failed, done.msg
    assert role(fourth) == f"replica of {servers[0].port}"
    assert fourth.keys() == 50


def test_an_old_primary_whose_writes_are_all_known_joins(replicate, servers):
    join(replicate, servers[:2] + servers[2:])
    old, new, third = servers
    old.fill(20)
    assert old.cli("WAIT", "2", "5000") == "2"
    # what Redis itself counts as shared history: the replica is promoted where the old one stopped
    third.cli("REPLICAOF", "NO", "ONE")
    third.cli("REPLICAOF", "127.0.0.1", str(new.port))
    old.cli("CLIENT", "PAUSE", "60000", "WRITE")
    new.cli("REPLICAOF", "NO", "ONE")
    old.cli("CLIENT", "UNPAUSE")
    wait(lambda: "connected_slaves:0" in old.raw("INFO", "replication"))
    wait(lambda: "state=online" in new.raw("INFO", "replication"))  # or min-replicas-to-write refuses
    new.fill(30, "more")
    assert new.keys() == 50
    done = replicate(old)
    assert not done.failed, done.msg
    assert role(old) == f"replica of {new.port}"
    wait(lambda: old.keys() == 50)


def test_two_primaries_that_each_took_writes_are_refused(replicate, servers):
    one, other, _third = servers
    one.fill(10, "one")
    other.fill(20, "other")
    for server in (one, other):
        text = refused(replicate, server, "two_primaries").msg
        assert "10 keys" in text
        assert "20 keys" in text
        assert "offset" in text
    # and the third, empty one does not guess
    refused(replicate, servers[2], "two_primaries")


def test_an_empty_server_does_not_guess_while_the_primary_is_away(replicate, servers):
    join(replicate, servers[:])
    servers[0].fill(5)
    servers[0].stop()
    servers[2].cli("REPLICAOF", "NO", "ONE")
    servers[2].cli("CONFIG", "SET", "min-replicas-to-write", "0")
    servers[2].cli("FLUSHALL")
    refused(replicate, servers[2], "primary_unreachable", primary=servers[2])


def test_a_primary_without_its_replicas_is_not_bound(replicate, servers, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.replication import membership_apply

    real = membership_apply.wait_for_replicas
    monkeypatch.setattr(
        membership_apply, "wait_for_replicas", lambda server, needed, _timeout: real(server, needed, 1.0)
    )
    before = servers[0].tree()
    done = replicate(servers[0])
    assert done.code == "replicas_missing", done.msg
    assert servers[0].tree() == before
    assert servers[0].config("min-replicas-to-write") == "0"
    assert servers[0].cli("SET", "k", "v") == "OK"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"min_replicas_to_write": 3}, "too_few_group_hosts"),
        ({"group_hosts": ["127.0.0.1:1", "127.0.0.1:1x"]}, "invalid_value"),
        ({"primary": "127.0.0.1:1"}, "no_primary"),
        ({"repl_backlog_size": "lots"}, "invalid_value"),
    ],
)
def test_bad_declarations(replicate, servers, options, code):
    refused(replicate, servers[0], code, **options)


def test_a_host_whose_name_is_gone_does_not_block_the_others(replicate, servers):
    """As of a virtual machine that is gone with its record: it is one that does not answer."""
    join(replicate, servers)
    members = [f"127.0.0.1:{server.port}" for server in servers[:2]] + ["no-such-host.invalid:6379"]
    for server, part in zip(servers[:2], ("primary", "replica")):
        done = replicate(server, group_hosts=members)
        assert not done.failed, done.msg
        assert done.role == part
        assert any("no-such-host.invalid:6379" in one and "does not answer" in one for one in done.warned)


def test_a_host_that_does_not_know_its_own_name_is_refused(call_module, servers):
    before = servers[0].tree()
    for check in (True, False):
        done = call_module(
            "redis_replication", check=check, **servers[0].params(group_hosts=[], address="no-such-host.invalid:1")
        )
        assert (done.failed, done.code) == (True, "unresolved_group_host")
    assert servers[0].tree() == before


def test_the_same_server_twice_is_told(replicate, servers):
    port = servers[0].port
    refused(replicate, servers[0], "duplicate_group_host", group_hosts=[f"127.0.0.1:{port}", f"localhost:{port}"])


def test_a_stopped_server_is_not_guessed_about(replicate, servers):
    servers[1].stop()
    result = replicate(servers[1])
    assert (result.failed, result.code) == (True, "not_running")


def test_a_host_that_is_127_0_1_1_to_itself_knows_itself(monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.replication import collect as act

    names = {"redis-1": {"127.0.1.1"}, "redis-2": {"192.0.2.2"}}
    monkeypatch.setattr(act, "_ips", lambda host: frozenset(names.get(host, {host})))
    monkeypatch.setattr(act, "_is_here", lambda ip: ip in ("192.0.2.1", "127.0.1.1"))
    group_hosts = act.GroupHosts(["redis-1", "redis-2"], "redis-2")
    assert group_hosts.of("192.0.2.1:6379") == "redis-1:6379"
    assert group_hosts.of("192.0.2.2:6379") == "redis-2:6379"
    assert group_hosts.of("192.0.2.1:6380") == "192.0.2.1:6380"
    assert group_hosts.of("192.0.2.3:6379") == "192.0.2.3:6379"
    assert group_hosts.of("redis-1:no-port") == "redis-1:no-port"


def test_the_file_spells_the_primary_as_the_process_does(replicate, servers, call_module):
    join(replicate, servers)
    group_hosts = [f"localhost:{server.port}" for server in servers]
    replica = servers[1]
    replica.conf.write_text(replica.conf.read_text().replace("replicaof 127.0.0.1", "replicaof localhost"))
    assert f"replicaof localhost {servers[0].port}" in replica.conf.read_text()

    def call(check=False):
        options = replica.params(group_hosts=group_hosts, primary=group_hosts[0], address=group_hosts[1])
        return call_module("redis_replication", check=check, **options)

    predicted, done = call(check=True), call()
    assert (predicted.actions, predicted.diff) == (done.actions, done.diff)
    assert done.actions == [f"write replicaof to {replica.conf}"]
    assert f"replicaof {' '.join(replica.config('replicaof').split())}\n" in replica.conf.read_text()
    assert not call().changed


def test_an_answer_that_comes_after_the_hold_changes_nothing(replicate, servers, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.replication import apply as act

    servers[0].fill(5)
    real = act.look
    monkeypatch.setattr(act, "_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(act, "look", lambda *args: (time.sleep(0.7), real(*args))[1])
    done = replicate(servers[1])
    assert (done.failed, done.code) == (True, "primary_unreachable"), done.msg
    assert role(servers[1]) == "primary"
    assert servers[1].cli("SET", "k", "v") == "OK"


def test_a_replicaof_line_with_an_ipv6_address_is_understood(new_redis, call_module):
    one, other = new_redis("v6a"), new_redis("v6b")
    for server in (one, other):
        server.write_conf("bind 127.0.0.1 ::1\n")
        server.start()
    group_hosts = [f"[::1]:{one.port}", f"[::1]:{other.port}"]

    def run(server, address):
        return call_module(
            "redis_replication",
            **server.params(group_hosts=group_hosts, address=address, primary=group_hosts[0], min_replicas_to_write=0),
        )

    assert not run(one, group_hosts[0]).failed
    assert run(other, group_hosts[1]).changed
    assert f"replicaof ::1 {one.port}" in other.conf.read_text()
    again = run(other, group_hosts[1])
    assert (again.failed, again.changed, again.actions) == (False, False, [])


# --- Sentinel ---------------------------------------------------------------------------------------------------------


@pytest.fixture(name="sentinels")
def _sentinels(servers, tmp_path):
    processes, ports = [], []
    for number in range(3):
        ports.append(free_port())
        conf = tmp_path / f"sentinel{number}.conf"
        conf.write_text(
            f"bind 127.0.0.1\nport {ports[-1]}\nsentinel monitor m 127.0.0.1 {servers[0].port} 2\n"
            "sentinel down-after-milliseconds m 5000\nsentinel failover-timeout m 10000\n"
        )
        processes.append(subprocess.Popen(["redis-server", str(conf), "--sentinel"], stdout=subprocess.DEVNULL))
    yield ports
    for process in processes:
        process.kill()
        process.wait()


def ask(port, *words):
    return subprocess.run(
        ["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=False
    ).stdout.strip()


def test_a_failover_by_sentinel_is_never_undone(replicate, servers, sentinels):
    options = {"sentinels": [f"127.0.0.1:{port}" for port in sentinels], "primary_name": "m"}
    for server in servers:
        assert not replicate(server, bound_writes=False, **options).failed
    for server in servers:
        assert not replicate(server, **options).failed
    servers[0].fill(10)
    for port in sentinels:
        wait(lambda port=port: "num-slaves\n2" in ask(port, "SENTINEL", "MASTER", "m"))
        wait(lambda port=port: "num-other-sentinels\n2" in ask(port, "SENTINEL", "MASTER", "m"))
    assert ask(sentinels[0], "SENTINEL", "FAILOVER", "m") == "OK"
    old = str(servers[0].port)
    for port in sentinels:
        wait(lambda port=port: ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m").splitlines()[1] != old)
    wait(lambda: all("role:slave" in servers[0].raw("INFO", "replication") for _ in (1,)))
    new = next(server for server in servers if role(server) == "primary")
    for server in servers:
        if server is not new:
            wait(lambda server=server: f"replica of {new.port}" == role(server))
            wait(lambda server=server: "master_link_status:up" in server.raw("INFO", "replication"))
    for server in servers:
        done = replicate(server, **options)
        assert not done.failed, done.msg
        assert (done.changed, done.because, done.primary) == (False, "Sentinel says so", f"127.0.0.1:{new.port}"), (
            done.actions
        )
    assert role(new) == "primary"


def test_without_a_word_from_sentinel_nothing_is_changed_against_it(replicate, servers, sentinels):
    wait(
        lambda: (
            "1" in servers[0].raw("PUBSUB", "NUMSUB", "__sentinel__:hello").splitlines()[-1:]
            or int(servers[0].raw("PUBSUB", "NUMSUB", "__sentinel__:hello").splitlines()[-1]) > 0
        )
    )
    servers[1].fill(5)
    refused(replicate, servers[0], "sentinel_not_asked")
    refused(replicate, servers[0], "sentinel_not_asked", sentinels=["127.0.0.1:1"])


def rdb_keys(path) -> int:
    told = subprocess.run(["redis-check-rdb", path], capture_output=True, text=True, check=True).stdout
    return int(next(line.split()[1] for line in told.splitlines() if "keys read" in line))


def test_an_empty_server_next_to_its_data_is_not_made_a_replica(replicate, servers):
    """Restarted with appendonly yes and no AOF: the full copy of its primary would replace the only file with its keys."""
    primary, lost = servers[:2]
    lost.stop()
    lost.write_conf("save 3600 1\nappendonly no\n")
    lost.start().fill(5000)
    lost.stop()
    lost.write_conf("save 3600 1\nappendonly yes\n")
    lost.start()
    assert lost.keys() == 0
    refused(replicate, lost, "rdb_never_loaded", group_hosts=[primary, lost])
    assert rdb_keys(lost.data / "dump.rdb") == 5000


def test_what_a_full_copy_replaces_and_nobody_loaded_is_kept(replicate, servers):
    primary, other = servers[:2]
    primary.fill(100)
    other.stop()
    other.write_conf('save ""\nappendonly no\n')
    other.start().cli("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('one', function() return 1 end)")
    other.cli("SAVE")
    inode = (other.data / "dump.rdb").stat().st_ino
    other.stop(signal.SIGKILL)
    other.write_conf('save ""\nappendonly yes\n')
    other.start()  # without the function: the file was not loaded
    predicted = replicate(other, check=True, group_hosts=[primary, other], bound_writes=False)
    done = replicate(other, group_hosts=[primary, other], bound_writes=False)
    assert not done.failed, done.msg
    assert predicted.actions == done.actions
    assert done.actions[0].startswith("keep ")
    (path,) = other.data.glob("redisops-kept-*/dump.rdb")
    assert path.stat().st_ino == inode
    assert other.keys() == 100
