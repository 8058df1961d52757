# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_cluster with real nodes on loopback, under a client that notes every acknowledgement. redis-cli --cluster check judges."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import redis

from tests.support.topology import free_port, wait

DOMAINS = ("a", "b", "c")


@pytest.fixture(name="node")
def _node(new_redis):
    made = []

    def start(name=None, extra=""):
        server = new_redis(name or f"n{len(made)}")
        server.port = free_port()
        server.write_conf(
            f"cluster-enabled yes\ncluster-node-timeout 4000\nrepl-diskless-sync-delay 0\nsave ''\n{extra}\n"
        )
        made.append(server)
        server.domain = DOMAINS[(len(made) - 1) % 3]
        return server.start()

    return start


@pytest.fixture(name="nodes")
def _nodes(node):
    return [node() for _number in range(6)]


def address(server):
    return f"127.0.0.1:{server.port}"


@pytest.fixture(name="cluster")
def _cluster(call_module):
    def run(servers, check=False, remove=(), **options):
        rows = [
            one if isinstance(one, dict) else {"host": address(one), "failure_domain": one.domain} for one in servers
        ]
        gone = [one if isinstance(one, str) else address(one) for one in remove]
        return call_module("redis_cluster", check=check, nodes=rows, remove=gone, timeout=30, **options)

    return run


def lines(server):
    return [line.split() for line in server.cli("CLUSTER", "NODES").splitlines() if len(line.split()) >= 8]


def my_id(server):
    return server.cli("CLUSTER", "MYID")


def role(server):
    own = next(words for words in lines(server) if "myself" in words[2])
    return f"replica of {own[3]}" if "slave" in own[2] else f"primary {' '.join(own[8:])}".strip()


def slots(server):
    return sum(
        int(last or first) - int(first) + 1
        for words in lines(server)
        if "myself" in words[2] and "master" in words[2]
        for first, _dash, last in (word.partition("-") for word in words[8:] if not word.startswith("["))
    )


def picture(servers):
    """What "nothing has been changed" means: who knows whom as what, keys, configuration.

    Not cluster_size, which a node counts anew by itself after its start (1, then 0); the slots are in the other lines.
    """
    return [
        (
            sorted((words[0], words[2].replace("myself,", ""), words[3], *words[8:]) for words in lines(one)),
            [line for line in one.raw("CLUSTER", "INFO").split("cluster_stats")[0].splitlines() if "_size:" not in line],
            one.keys(), one.cli("CONFIG", "GET", "cluster*"),
        )
        for one in servers
    ]  # fmt: skip


def judged(servers):
    """redis-cli's own verdict, and every node's."""
    for one in servers:
        wait(lambda one=one: "cluster_state:ok" in one.raw("CLUSTER", "INFO"))
    done = subprocess.run(
        ["redis-cli", "--cluster", "check", address(servers[0])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[OK] All 16384 slots covered." in done.stdout
    assert "[ERR]" not in done.stdout
    assert "[WARNING]" not in done.stdout, done.stdout
    assert len(lines(servers[0])) == len(servers)


def made(cluster, servers, **options):
    done = cluster(servers, **options)
    assert not done.failed, done.msg
    judged(servers)
    return done


def refused(cluster, servers, code, others=(), **options):
    """It fails with that code, in check mode and for real, and neither ``servers`` nor ``others`` are changed."""
    before = picture([*servers, *others])
    for check in (True, False):
        result = cluster(
            options.get("declared", servers),
            check=check,
            **{name: value for name, value in options.items() if name != "declared"},
        )
        assert result.failed
        assert result.code == code, result.msg
        assert result.msg.startswith("Refused; this task changed nothing.") == (
            code not in ("contradiction", "duplicate_group_host", "reshard_in_progress")
        )
    assert picture([*servers, *others]) == before
    return result


class Writer(threading.Thread):
    """Writes numbers to the cluster, one after the other, and keeps those that were acknowledged."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.port, self.numbers, self.over, self.longest = server.port, [], threading.Event(), 0.0

    def run(self):
        client, number, last = None, 0, time.monotonic()
        while not self.over.is_set():
            try:
                client = client or redis.RedisCluster(host="127.0.0.1", port=self.port, socket_timeout=10)
                if client.set(f"w:{number}", number):
                    self.numbers.append(number)
                    now = time.monotonic()
                    self.longest, last = max(self.longest, now - last), now
                number += 1
            except (
                redis.RedisError,
                AttributeError,
            ):  # redis-py knows no node that has no slots yet, and stumbles over an ASK to it
                client = None
                time.sleep(0.02)
            time.sleep(0.001)

    def lost(self):
        client = redis.RedisCluster(host="127.0.0.1", port=self.port)
        return [number for number in self.numbers if client.get(f"w:{number}") != str(number).encode()]


@contextlib.contextmanager
def writing(server):
    writer = Writer(server)
    writer.start()
    wait(lambda: len(writer.numbers) > 20)
    try:
        yield writer
    finally:
        writer.over.set()
        writer.join(30)


def reader(server):
    return redis.RedisCluster(host="127.0.0.1", port=server.port)


def fill(server, count):
    client = reader(server)
    for number in range(count):
        client.set(f"k:{number}", f"value {number} ".encode() + b"\xff\x00\xff")
        if number % 5 == 0:
            client.expire(f"k:{number}", 5000 + number)


def asked(server, key):
    """GET and TTL of one key by redis-cli, which follows redirections."""

    def one(word):
        done = subprocess.run(["redis-cli", "-c", "-p", str(server.port), word, key], capture_output=True, check=True)
        return done.stdout[:-1]

    return one("GET"), int(one("TTL"))


def whole(server, count):
    """Every key can be read, wherever it is by now."""
    client = reader(server)
    for number in range(count):
        try:
            value, life = client.get(f"k:{number}"), client.ttl(f"k:{number}")
        except AttributeError:  # as above
            client = reader(server)
            value, life = asked(server, f"k:{number}")
        assert value == f"value {number} ".encode() + b"\xff\x00\xff"
        assert (life > 0) == (number % 5 == 0)


# --- a cluster comes to be --------------------------------------------------------------------------------------------


def test_six_servers_become_a_cluster_and_stay_one(cluster, nodes):
    predicted = cluster(nodes, check=True)
    assert not predicted.failed, predicted.msg
    assert [role(one) for one in nodes] == ["primary"] * 6
    done = made(cluster, nodes)
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert done.state == "ok"
    assert sorted(slots(one) for one in nodes) == [0, 0, 0, 5461, 5461, 5462]
    assert [shard["slot_count"] for shard in done.shards] == [5461, 5462, 5461]
    for shard in done.shards:  # each replica in another failure domain than its primary
        assert len(shard["replicas"]) == 1
        assert len(set(shard["failure_domains"].values())) == 2
    assert done.warned == []
    epochs = {words[6] for words in lines(nodes[0]) if "slave" not in words[2]}
    assert len(epochs) == 3
    for check in (True, False):
        again = cluster(nodes, check=check)
        assert (again.changed, again.actions, again.diff) == (False, [], {"before": "", "after": ""})


def test_a_failover_stands(cluster, nodes):
    made(cluster, nodes)
    fill(nodes[0], 50)
    old = next(one for one in nodes if slots(one))
    left = [one for one in nodes if one is not old]
    was = my_id(old)
    heir = next(one for one in left if role(one) == f"replica of {was}")
    old.stop(signal.SIGKILL)
    early = cluster(nodes)  # nobody has noticed yet
    assert not early.failed, early.msg
    assert (early.changed, early.actions) == (False, [])
    wait(lambda: slots(heir) > 0)
    for one in left:
        wait(lambda one=one: "cluster_state:ok" in one.raw("CLUSTER", "INFO"))
    done = cluster(nodes)
    assert not done.failed, done.msg
    assert (done.changed, done.actions) == (False, [])
    assert {"node_down", "primary_without_replica"} <= {one["code"] for one in done.findings}
    assert any(address(old) in text for text in done.warned)
    old.start()
    done = cluster(nodes)
    assert not done.failed, done.msg
    assert (done.changed, done.actions) == (False, [])
    assert role(old) == f"replica of {my_id(heir)}"
    assert {one["code"] for one in done.findings} <= {"full_coverage", "majority_in_one_domain"}


@pytest.mark.parametrize("point", ["ADDSLOTS", "MEET", "REPLICATE"])
@pytest.mark.parametrize("nth", [2, 3])
def test_a_creation_that_was_cut_off_is_finished(cluster, nodes, point, nth):
    killed(lambda: cluster(nodes), lambda words: words[:2] == ("CLUSTER", point), nth)
    done = made(cluster, nodes)
    assert done.changed
    assert sorted(slots(one) for one in nodes) == [0, 0, 0, 5461, 5461, 5462]
    assert all(len(shard["replicas"]) == 1 for shard in done.shards)
    assert not cluster(nodes).changed


def killed(run, condition, nth):
    """Run in a child process that is killed right before the ``nth`` command for which ``condition`` holds."""
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server

    child = os.fork()
    if child == 0:
        seen, real, many = [], Server.command, Server.commands

        def count(words):
            seen.extend([1] if condition(words) else [])
            if len(seen) == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        def command(self, *words):
            count(words)
            return real(self, *words)

        def commands(self, rows):
            for row in rows[:1]:
                count(tuple(row))
            return many(self, rows)

        Server.command, Server.commands = command, commands
        try:
            run()
        finally:
            os._exit(7)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), f"it came to its end: {status}"


# --- nodes come and go --------------------------------------------------------------------------------------------------


def test_two_nodes_are_added_and_two_go_while_a_client_writes(cluster, nodes, node):
    made(cluster, nodes)
    fill(nodes[0], 2000)
    more = [node(), node()]
    everybody = [*nodes, *more]
    with writing(nodes[0]) as writer:
        predicted = cluster(everybody, check=True)
        assert not predicted.failed, predicted.msg
        began = time.monotonic()
        done = made(cluster, everybody)
        print(f"added: {done.moved}, {time.monotonic() - began:.1f} s")
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        assert sum(slots(one) == 4096 for one in everybody) == 4
        assert sorted(slots(one) for one in more) == [0, 4096]
        assert done.moved["slots"] == 4096
        assert done.moved["keys"] > 300
        assert not cluster(everybody).changed
    print(f"added under writes: {len(writer.numbers)} acknowledged, longest wait {writer.longest:.2f} s")
    assert writer.lost() == []
    whole(nodes[1], 2000)

    # two others go: a primary with its own replica is emptied
    old = next(one for one in nodes if slots(one))
    replica = next(one for one in everybody if role(one) == f"replica of {my_id(old)}")
    stay = [one for one in everybody if one not in (old, replica)]
    with writing(stay[0]) as writer:
        predicted = cluster(stay, remove=[old, replica], check=True)
        done = cluster(stay, remove=[old, replica])
        assert not done.failed, done.msg
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        judged(stay)
    assert sorted(slots(one) for one in stay) == [0, 0, 0, 5461, 5461, 5462]
    for one in (old, replica):
        assert (len(lines(one)), one.keys(), role(one)) == (1, 0, "primary")
    again = cluster(stay, remove=[old, replica])
    assert (again.changed, again.actions) == (False, [])
    print(f"removed under writes: {len(writer.numbers)} acknowledged, longest wait {writer.longest:.2f} s")
    assert writer.lost() == []
    whole(nodes[1], 2000)


def test_a_node_is_replaced_by_handing_over_to_its_replica(cluster, nodes, node):
    made(cluster, nodes)
    fill(nodes[0], 200)
    old = next(one for one in nodes if slots(one))
    heir = next(one for one in nodes if role(one) == f"replica of {my_id(old)}")
    new = node()
    stay = [*(one for one in nodes if one is not old), new]
    with writing(heir) as writer:
        predicted = cluster(stay, remove=[old], check=True)
        done = cluster(stay, remove=[old])
        assert not done.failed, done.msg
        assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
        judged(stay)
    assert slots(heir) in (5461, 5462)
    assert done.moved["slots"] == 0
    assert role(new) == f"replica of {my_id(heir)}"
    assert (len(lines(old)), old.keys()) == (1, 0)
    assert not cluster(stay, remove=[old]).changed
    assert writer.lost() == []
    whole(nodes[1], 200)


def test_a_dead_node_is_forgotten_by_its_id_and_a_new_one_takes_its_place(cluster, nodes, node):
    made(cluster, nodes)
    fill(nodes[0], 100)
    dead = next(one for one in nodes if slots(one))
    gone = my_id(dead)
    heir = next(one for one in nodes if role(one) == f"replica of {gone}")
    dead.stop(signal.SIGKILL)
    wait(lambda: slots(heir) > 0)
    left = [one for one in nodes if one is not dead]
    for one in left:
        wait(lambda one=one: "cluster_state:ok" in one.raw("CLUSTER", "INFO"))
    new = node()
    refused(cluster, left, "node_unreachable", declared=[*left, new, dead], others=[new])
    refused(cluster, left, "undeclared_nodes", declared=[*left, new], others=[new])
    done = cluster([*left, new], remove=[gone])
    assert not done.failed, done.msg
    judged([*left, new])
    assert role(new) == f"replica of {my_id(heir)}"
    assert not cluster([*left, new], remove=[gone]).changed
    whole(nodes[1], 100)


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("IMPORTING", 2),
        ("MIGRATING", 2),
        ("MIGRATE", 1),
        ("MIGRATE", 5),
        ("MIGRATE", 30),
        ("NODE", 1),
        ("NODE", 2),
        ("NODE", 3),
        ("NODE", 20),
    ],
)
def test_a_reshard_that_was_cut_off_is_finished_and_not_begun_anew(cluster, nodes, node, point, nth):
    made(cluster, nodes)
    fill(nodes[0], 1500)
    everybody = [*nodes, node(), node()]

    def is_it(words):
        return words[0] == point or (words[:2] == ("CLUSTER", "SETSLOT") and words[3] == point)

    with writing(nodes[0]) as writer:
        killed(lambda: cluster(everybody), is_it, nth)
        whole(nodes[1], 1500)  # every key can be reached
        had = sum(slots(one) for one in everybody[6:])
        done = made(cluster, everybody)
        assert done.changed
        assert done.moved["slots"] == 4096 - had
        assert sum(slots(one) == 4096 for one in everybody) == 4
        assert not cluster(everybody).changed
    assert writer.lost() == []
    whole(nodes[1], 1500)


def test_a_move_waits_while_a_node_finds_the_cluster_down(cluster, nodes, node, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, Server

    made(cluster, nodes)
    fill(nodes[0], 600)
    everybody = [*nodes, node(), node()]
    real, asked, down = Server.command, [], "ERR Target instance replied with error: CLUSTERDOWN The cluster is down"

    def command(self, *words):
        if words[0] == "MIGRATE":
            asked.append(words)
            if len(asked) in (2, 3):
                raise CommandError("MIGRATE", down)
        return real(self, *words)

    monkeypatch.setattr(Server, "command", command)
    assert made(cluster, everybody).moved["slots"] == 4096
    assert asked[1] == asked[2] == asked[3]
    whole(nodes[1], 600)


def test_a_removal_that_was_cut_off_is_finished(cluster, nodes, node):
    everybody = [*nodes, node(), node()]
    made(cluster, everybody)
    fill(nodes[0], 300)
    old = next(one for one in everybody if slots(one))
    replica = next(one for one in everybody if role(one) == f"replica of {my_id(old)}")
    stay = [one for one in everybody if one not in (old, replica)]
    for point, nth in (("MIGRATE", 3), ("FORGET", 3), ("RESET", 1), ("RESET", 2)):
        killed(lambda: cluster(stay, remove=[old, replica]), lambda words, point=point: point in words[:2], nth)
        whole(nodes[1], 300)
    done = cluster(stay, remove=[old, replica])
    assert not done.failed, done.msg
    judged(stay)
    assert (len(lines(replica)), len(lines(old))) == (1, 1)
    assert not cluster(stay, remove=[old, replica]).changed
    whole(nodes[1], 300)


def test_a_key_that_is_on_both_ends(cluster, nodes, node):
    """What a MIGRATE leaves that broke between the two. Overwritten only where both are the same."""
    made(cluster, nodes)
    fill(nodes[0], 500)
    everybody = [*nodes, node(), node()]
    killed(lambda: cluster(everybody), lambda words: words[0] == "MIGRATE", 1)
    target = next(one for one in everybody[6:] if "-<-" in role(one))
    source = next(one for one in nodes if "->-" in role(one))
    key = None
    for slot in re.findall(r"\[(\d+)->-", role(source)):
        found = source.cli("CLUSTER", "GETKEYSINSLOT", slot, "1").split()
        key = key or (found[0] if found else None)
    raw = redis.Redis(port=source.port)
    other = redis.Redis(port=target.port)
    value = raw.dump(key)

    def put(dumped):
        with other.client() as one:
            one.execute_command("ASKING")
            one.execute_command("RESTORE", key, max(raw.pttl(key), 0), dumped, "REPLACE")

    scratch = node("scratch")
    scratch.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    wait(lambda: "cluster_state:ok" in scratch.raw("CLUSTER", "INFO"))
    redis.Redis(port=scratch.port).set(key, "another value")
    put(redis.Redis(port=scratch.port).dump(key))
    done = cluster(everybody)
    assert (done.failed, done.code) == (True, "key_on_both")
    assert key in done.msg
    whole(nodes[1], 500)
    put(value)
    made(cluster, everybody)
    whole(nodes[1], 500)


# --- what is refused, and nothing changed -------------------------------------------------------------------------------


def test_too_few_nodes(cluster, nodes):
    refused(cluster, nodes, "too_few_nodes", declared=nodes[:5])
    refused(cluster, nodes, "too_few_nodes", declared=nodes[:2], replicas_per_primary=0)
    refused(cluster, nodes, "too_few_nodes", replicas_per_primary=2)
    refused(cluster, nodes, "too_few_nodes", primaries=2)
    refused(cluster, nodes, "duplicate_group_host", declared=[*nodes, nodes[0]])


def test_a_node_that_holds_keys_or_does_not_answer(cluster, nodes, node):
    nodes[2].cli("CLUSTER", "ADDSLOTS", "12182")  # the slot of foo
    nodes[2].cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
    wait(lambda: nodes[2].raw("SET", "foo", "bar") == "OK")
    reported = refused(cluster, nodes, "node_has_data")
    assert address(nodes[2]) in reported.msg
    assert nodes[2].cli("GET", "foo") == "bar"
    six = [*nodes[:2], *nodes[3:], node()]
    gone = six.pop()
    gone.stop()
    refused(cluster, six, "node_unreachable", declared=[*six, gone])
    spare = node()
    made(cluster, [*six, spare])
    # nor can it join one that is there
    refused(cluster, [*six, spare], "other_cluster", declared=[*six, spare, nodes[2]], others=[nodes[2]])


def test_a_node_that_belongs_to_another_cluster(cluster, nodes, node):
    made(cluster, nodes[:3], replicas_per_primary=0)
    more = [node() for _number in range(5)]
    # a cluster of others, of which one is declared
    refused(cluster, more, "other_cluster", declared=[*more, nodes[0]], others=nodes[:3])
    # and two whole clusters
    made(cluster, more[:3], replicas_per_primary=0)
    refused(cluster, more[:3], "other_cluster", declared=[*more[:3], *nodes[:3]], others=nodes[:3])


def test_releases_that_differ(cluster, nodes, node):
    made(cluster, nodes)
    newer, older = node(), node()
    with another_release(newer) as port:
        rows = [*nodes, older, {"host": f"127.0.0.1:{port}", "failure_domain": "a"}]
        reported = refused(cluster, nodes, "versions_differ", declared=rows, others=[newer, older])
        assert "Redis 7.9" in reported.msg


@contextlib.contextmanager
def another_release(server):
    """A port at which the server answers as another release would."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target, change):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(re.sub(rb"redis_version:7\.0", b"redis_version:7.9", data) if change else data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _where = listener.accept()
                behind = socket.create_connection(("127.0.0.1", server.port))
                threading.Thread(target=pump, args=(client, behind, False), daemon=True).start()
                threading.Thread(target=pump, args=(behind, client, True), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_addresses_that_two_announce(cluster, nodes):
    for one in nodes[:2]:
        one.cli("CONFIG", "SET", "cluster-announce-ip", "192.0.2.7", "cluster-announce-port", "6379")
    reported = refused(cluster, nodes, "duplicate_announce")
    assert "192.0.2.7:6379" in reported.msg


def test_a_removal_that_would_leave_too_little(cluster, nodes):
    made(cluster, nodes)
    refused(cluster, nodes, "too_few_nodes", declared=nodes[:5], remove=[nodes[5]])
    refused(cluster, nodes, "too_few_nodes", declared=nodes[:2], remove=nodes[2:], replicas_per_primary=0)
    refused(cluster, nodes, "contradiction", remove=[nodes[5]])
    # what is in no cluster, or in none of ours, is left alone
    done = cluster(nodes, remove=["127.0.0.1:1", "0" * 40])
    assert (done.failed, done.changed) == (False, False)


def test_open_slots(cluster, nodes):
    made(cluster, nodes)
    fill(nodes[0], 300)
    first, second, third = sorted((one for one in nodes if slots(one)), key=role)
    slot = next(words for words in lines(first) if "myself" in words[2])[8].split("-")[0]
    # ends that contradict each other
    first.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", my_id(second))
    third.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", my_id(first))
    reported = refused(cluster, nodes, "open_slots")
    assert slot in reported.msg
    assert "open_slots" in {one["code"] for one in reported.findings}
    third.cli("CLUSTER", "SETSLOT", slot, "STABLE")
    # a move that was begun, and not ended, is ended
    predicted = cluster(nodes, check=True)
    assert "finish the move of 1 slot" in predicted.actions[0]
    done = made(cluster, nodes)
    assert done.actions == predicted.actions
    assert slots(second) + slots(first) + slots(third) == 16384
    whole(nodes[0], 300)
    assert not cluster(nodes).changed


def test_slots_that_somebody_else_is_moving(cluster, nodes):
    made(cluster, nodes)
    first, second = [one for one in nodes if slots(one)][:2]
    over = threading.Event()

    def other_tool():
        slot = int(next(words for words in lines(first) if "myself" in words[2])[8].split("-")[0])
        while not over.is_set():
            second.cli("CLUSTER", "SETSLOT", str(slot), "IMPORTING", my_id(first))
            first.cli("CLUSTER", "SETSLOT", str(slot), "MIGRATING", my_id(second))
            over.wait(0.3)
            for one in (second, first):
                one.cli("CLUSTER", "SETSLOT", str(slot), "STABLE")
            slot += 1

    thread = threading.Thread(target=other_tool)
    thread.start()
    try:
        wait(lambda: cluster(nodes).failed, 60)
    finally:
        over.set()
        thread.join()
    done = cluster(nodes)
    assert (done.failed, done.changed) == (False, False)


def test_coverage_that_is_broken(cluster, nodes):
    made(cluster, nodes)
    fill(nodes[0], 100)
    for one in nodes:
        one.cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
    first = next(one for one in nodes if "primary 0-" in role(one))
    for one in nodes:
        one.raw("CLUSTER", "DELSLOTS", *(str(slot) for slot in range(100, 110)))
    reported = refused(cluster, nodes, "slots_uncovered")
    assert "10 slots (100-109)" in reported.msg
    assert reported.findings[0]["code"] == "slots_uncovered"
    assert reported.findings[0]["severity"] == "error"
    first.cli("CLUSTER", "ADDSLOTS", *(str(slot) for slot in range(100, 110)))
    wait(lambda: not cluster(nodes).failed)
    assert not cluster(nodes).changed
    # a primary and its only replica
    replica = next(one for one in nodes if role(one) == f"replica of {my_id(first)}")
    left = [one for one in nodes if one not in (first, replica)]
    for one in (replica, first):
        one.stop(signal.SIGKILL)
    wait(lambda: all(one.raw("CLUSTER", "NODES").count("fail ") == 2 for one in left))
    reported = refused(cluster, left, "slots_uncovered", declared=nodes)
    assert address(first) in reported.msg
    first.start()
    replica.start()
    judged(nodes)
    assert not cluster(nodes).changed


def test_replicas_that_cannot_be_outside_their_primarys_domain(cluster, nodes):
    rows = [
        {"host": address(one), "failure_domain": "rack-a" if number < 4 else "rack-b"}
        for number, one in enumerate(nodes)
    ]
    done = cluster(rows)
    assert not done.failed, done.msg
    judged(nodes)
    found = next(one for one in done.findings if one["code"] == "same_failure_domain")
    assert "rack-a" in found["detected"]
    assert found["detected"].count(" of ") == 1
    assert any("same failure domain" in text for text in done.warned)


def test_what_is_no_node_and_what_does_not_run_yet(cluster, nodes, new_redis):
    plain = new_redis("plain").start()
    plain.domain = "a"
    rows = [*nodes[:5], plain]
    done = cluster(rows)
    assert (done.failed, done.code) == (True, "not_a_cluster_node")
    predicted = cluster(rows, check=True, fresh_install=True)
    assert not predicted.failed, predicted.msg
    assert sum(text.startswith("give ") for text in predicted.actions) == 3
    plain.stop()
    assert cluster(rows, check=True, fresh_install=True).actions == predicted.actions
    assert cluster(rows, fresh_install=True).failed
    assert [role(one) for one in nodes] == ["primary"] * 6


def test_a_login(cluster, nodes, node):
    everybody = [*nodes, node(), node()]
    for one in everybody:
        one.cli("CONFIG", "SET", "masteruser", "ops", "masterauth", "secret")
        one.cli("ACL", "SETUSER", "ops", "on", ">secret", "~*", "&*", "+@all")
    login = {"login_user": "ops", "login_password": "secret"}
    made(cluster, nodes, **login)
    fill(nodes[0], 300)
    for one in everybody:
        one.cli("ACL", "SETUSER", "default", "resetpass", ">other")
        one.password = "other"
    done = cluster(everybody, **login)
    assert not done.failed, done.msg
    assert done.moved["keys"] > 20
    assert not cluster(everybody, **login).changed
    wrong = cluster(nodes, login_user="ops", login_password="wrong")
    assert (wrong.failed, wrong.code) == (True, "no_cluster_node")
    assert "secret" not in str(vars(done))
