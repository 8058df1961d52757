# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_switchover with real servers, real Sentinels, and a client that records every acknowledged write. redis-cli is the judge."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
import redis

from tests.support.topology import free_port


def wait(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def role(server):
    answer = server.cli("ROLE").splitlines()
    return "primary" if answer[0] == "master" else f"replica of {answer[2]}"


@pytest.fixture(name="servers")
def _servers(new_redis):
    made = [new_redis(name) for name in ("a", "b", "c")]
    for server in made:
        server.start()
    made[0].fill(100)
    for server in made[1:]:
        server.cli("REPLICAOF", "127.0.0.1", str(made[0].port))
    for server in made[1:]:
        wait(lambda server=server: "master_link_status:up" in server.raw("INFO", "replication"))
    return made


@pytest.fixture(name="sentinels")
def _sentinels(servers, tmp_path):
    processes, ports = [], []
    for number in range(3):
        ports.append(free_port())
        conf = tmp_path / f"sentinel{number}.conf"
        conf.write_text(
            f"bind 127.0.0.1\nport {ports[-1]}\nsentinel monitor m 127.0.0.1 {servers[0].port} 2\n"
            "sentinel down-after-milliseconds m 10000\nsentinel failover-timeout m 20000\n"
        )
        processes.append(subprocess.Popen(["redis-server", str(conf), "--sentinel"], stdout=subprocess.DEVNULL))
    for port in ports:
        for words in ("num-slaves\n2", "num-other-sentinels\n2"):
            wait(lambda port=port, words=words: words in ask(port, "SENTINEL", "MASTER", "m"))
    yield ports
    for process in processes:
        process.kill()
        process.wait()


def ask(port, *words):
    return subprocess.run(
        ["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=False
    ).stdout.strip()


@pytest.fixture(name="switch")
def _switch(call_module, servers):
    def run(check=False, **options):
        options.setdefault("group_hosts", [f"127.0.0.1:{server.port}" for server in servers])
        return call_module("redis_switchover", check=check, **options)

    return run


class Writer(threading.Thread):
    """Writes to whoever is primary, waits for each answer, remembers each acknowledgement."""

    def __init__(self, servers):
        super().__init__()
        self.ports, self.acknowledged, self.halt = [server.port for server in servers], [], threading.Event()
        self.longest = 0.0

    def run(self):
        number, last = 0, time.monotonic()
        port, client = self.ports[0], None
        while not self.halt.is_set():
            try:
                client = client or redis.Redis(port=port, socket_timeout=20)
                client.set(f"w:{number}", number)
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
                self.acknowledged.append(number)
                number += 1
            except redis.RedisError:
                client = None
                port = self.ports[(self.ports.index(port) + 1) % len(self.ports)]
                time.sleep(0.01)


def lost(writer, primary):
    client = redis.Redis(port=primary.port)
    return [number for number in writer.acknowledged if client.get(f"w:{number}") != str(number).encode()]


@pytest.mark.parametrize("by_sentinel", [True, False])
def test_no_acknowledged_write_is_lost(switch, servers, by_sentinel, request):
    options = {}
    if by_sentinel:
        ports = request.getfixturevalue("sentinels")
        options = {"sentinels": [f"127.0.0.1:{port}" for port in ports], "primary_name": "m"}
    target = servers[2]
    writer = Writer(servers)
    writer.start()
    time.sleep(0.5)
    predicted = switch(check=True, target=f"127.0.0.1:{target.port}", **options)
    assert (predicted.changed, role(servers[0])) == (True, "primary")
    done = switch(target=f"127.0.0.1:{target.port}", **options)
    time.sleep(1.0)
    writer.halt.set()
    writer.join()
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions, predicted.gap_ms) == (done.diff, done.actions, None)
    assert [role(server) for server in servers] == [f"replica of {target.port}", f"replica of {target.port}", "primary"]
    assert len(writer.acknowledged) > 100
    assert lost(writer, target) == []
    print(
        f"switchover {'by Sentinel' if by_sentinel else 'by hand'}: gap {done.gap_ms} ms, longest wait of the client {writer.longest * 1000:.0f} ms"
    )
    assert 0 < done.gap_ms < 60000
    again = switch(target=f"127.0.0.1:{target.port}", **options)
    assert (again.changed, again.gap_ms) == (False, None)
    assert target.config("replica-priority") == "100"
    assert "replica-priority 1\n" not in target.conf.read_text()  # Sentinel has the file rewritten while it promotes
    if by_sentinel:
        for port in ports:
            wait(
                lambda port=port: (
                    ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m").splitlines()[1] == str(target.port)
                )
            )


def test_away_from_a_host_means_nothing_where_it_is_none(switch, servers):
    assert not switch(away_from=f"127.0.0.1:{servers[1].port}").changed
    done = switch(away_from=f"127.0.0.1:{servers[0].port}")
    assert done.changed, done.msg
    assert role(servers[0]) != "primary"


def refused(switch, servers, code, **options):
    before = [role(server) for server in servers if server.process.poll() is None]
    for check in (True, False):
        result = switch(check=check, **options)
        assert result.failed
        assert result.code == code, result.msg
        assert "Unexpected" not in result.msg
    assert [role(server) for server in servers if server.process.poll() is None] == before
    primary = next((server for server in servers if server.process.poll() is None and role(server) == "primary"), None)
    if primary:
        assert primary.cli("SET", "goes", "on") == "OK"
    return result


def test_unfit_targets(switch, servers):
    primary, near, far = servers
    refused(switch, servers, "unknown_target", target="127.0.0.1:1")
    far.cli("CONFIG", "SET", "replica-priority", "0")
    assert "priority 0" in refused(switch, servers, "target_unfit", target=f"127.0.0.1:{far.port}").msg
    far.cli("CONFIG", "SET", "replica-priority", "100")
    far.cli("REPLICAOF", "127.0.0.1", "1")
    assert "does not replicate" in refused(switch, servers, "target_unfit", target=f"127.0.0.1:{far.port}").msg
    far.stop()
    assert "does not answer" in refused(switch, servers, "target_unfit", target=f"127.0.0.1:{far.port}").msg
    near.stop()
    refused(switch, servers, "no_target")
    assert role(primary) == "primary"


def test_two_primaries_or_none_are_refused(switch, servers):
    servers[1].cli("REPLICAOF", "NO", "ONE")
    refused(switch, servers, "not_one_primary")
    servers[1].stop()
    servers[0].stop()
    refused(switch, servers, "not_one_primary")


def test_sentinels_have_to_be_fit(switch, servers, sentinels):
    names = [f"127.0.0.1:{port}" for port in sentinels]
    refused(switch, servers, "unknown_primary_name", sentinels=names, primary_name="other")
    refused(switch, servers, "sentinels_unfit", sentinels=["127.0.0.1:1", "127.0.0.1:2", names[0]], primary_name="m")
    for port in sentinels:
        ask(port, "SENTINEL", "SET", "m", "quorum", "7")
    assert "NOQUORUM" in refused(switch, servers, "sentinels_unfit", sentinels=names, primary_name="m").msg


def test_a_replica_that_cannot_follow_lets_writes_go_on(switch, servers, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.replication import switchover

    monkeypatch.setattr(switchover, "CATCH_UP_SECONDS", 1.0)
    target = servers[1]
    real = switchover.Switch._view
    monkeypatch.setattr(
        switchover.Switch, "_view",
        lambda self, address: real(self, address) if address != self.target else switchover.View(address, "replica", offset=-1),
    )  # fmt: skip
    done = switch(target=f"127.0.0.1:{target.port}")
    assert done.code == "target_not_caught_up", done.msg
    assert servers[0].cli("SET", "k", "v") == "OK"
    assert role(servers[0]) == "primary"


class FakeSentinel:
    """Does ``act`` when it is predicted to fail over, and says that it is, or is not, in a failover."""

    def __init__(self, act, flags="master"):
        self.act, self.flags = act, flags

    def command(self, *words):
        if words[1] == "FAILOVER":
            return self.act()
        return ["flags", self.flags]


@pytest.fixture(name="work")
def _work(servers, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.replication import switchover as act
    from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts
    from ansible_collections.redisops.recovery.plugins.module_utils.replication.switchover_plan import Candidate
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect

    monkeypatch.setattr(act, "PROMOTE_SECONDS", 4.0)
    names = [f"127.0.0.1:{server.port}" for server in servers]
    group_hosts = GroupHosts(names, names[0])
    links = {name: connect(Login(port=server.port)) for name, server in zip(names, servers)}
    views = [group_hosts.spelled(act.view_of(links[name].info(), name)) for name in names]
    work = act.Switch(links, group_hosts, views[0], Candidate(views[1]), names[1:])
    work.pause_until_caught_up()
    return work


def takes_writes(server):
    try:
        return bool(redis.Redis(port=server.port, socket_timeout=1).set("probe", 1))
    except redis.RedisError:
        return False


def test_a_sentinel_that_hangs_up_after_it_heard_is_waited_for(work, servers):
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import ServerDown

    def act():
        servers[1].cli("REPLICAOF", "NO", "ONE")
        raise ServerDown("server_down", "gone")

    work.by_sentinel(FakeSentinel(act), "m")
    assert [role(server) for server in servers[:2]] == [f"replica of {servers[1].port}", "primary"]
    assert [takes_writes(server) for server in servers[:2]] == [False, True]


def test_writes_stay_held_while_somebody_may_yet_be_promoted(work, servers):
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

    with pytest.raises(Problem) as caught:
        work.by_sentinel(FakeSentinel(lambda: "OK", "master,failover_in_progress"), "m")
    assert caught.value.code == "switch_unfinished"
    assert "pauses writes" in caught.value.detected
    assert (role(servers[0]), takes_writes(servers[0])) == ("primary", False)


def test_writes_go_on_where_nobody_was_promoted(work, servers):
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

    with pytest.raises(Problem) as caught:
        work.by_sentinel(FakeSentinel(lambda: "OK"), "m")
    assert "writes go on" in caught.value.detected
    assert takes_writes(servers[0])


def test_another_replica_that_is_promoted_is_seen_and_followed(work, servers):
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

    with pytest.raises(Problem) as caught:
        work.by_sentinel(FakeSentinel(lambda: servers[2].cli("REPLICAOF", "NO", "ONE")), "m")
    assert caught.value.code == "other_promoted"
    assert (role(servers[0]), role(servers[2])) == (f"replica of {servers[2].port}", "primary")
    assert [takes_writes(server) for server in servers] == [False, False, True]


def test_a_primary_that_does_not_have_every_byte_is_not_followed(work, servers):
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

    def act():  # a member that came back empty, and calls itself primary
        servers[2].cli("REPLICAOF", "NO", "ONE")
        servers[2].cli("CONFIG", "SET", "save", "")
        servers[2].stop()
        (servers[2].data / "dump.rdb").unlink(missing_ok=True)
        servers[2].start()

    with pytest.raises(Problem) as caught:
        work.by_sentinel(FakeSentinel(act), "m")
    assert caught.value.code == "switch_unfinished"
    assert (role(servers[0]), servers[0].keys(), takes_writes(servers[0])) == ("primary", 100, False)


def test_cut_off_by_hand_leaves_one_primary(work, servers, monkeypatch):
    def cut(*_words):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "_finish", cut)
    with pytest.raises(KeyboardInterrupt):
        work.by_hand()
    wait(lambda: role(servers[1]) == "primary", 20)
    assert role(servers[0]) == f"replica of {servers[1].port}"
