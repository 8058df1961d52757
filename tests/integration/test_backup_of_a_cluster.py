# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups of a cluster with real nodes: each shard is a set of its own, named by its slots, and goes only where those slots are."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from tests.support.topology import free_port, wait
from tests.support.unit import PretendedUnit

LOW, HIGH = "0-8191", "8192-16383"
DEBUG = "enable-debug-command local\n"


def address(server) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture(name="cluster")
def _cluster(new_redis):
    """A function that starts two primaries, and replicas of the first one."""

    def start(name: str, replicas: int = 0):
        nodes = []
        for number in range(2 + replicas):
            server = new_redis(f"{name}{number}")
            server.port = free_port()
            server.write_conf(
                f"cluster-enabled yes\ncluster-node-timeout 4000\nrepl-diskless-sync-delay 0\nsave ''\nappendonly yes\n{DEBUG}"
            )
            nodes.append(server.start())
        for server, slots in zip(nodes, (LOW, HIGH)):
            server.cli("CLUSTER", "ADDSLOTSRANGE", *slots.split("-"))
        for server in nodes[1:]:
            nodes[0].cli("CLUSTER", "MEET", "127.0.0.1", str(server.port))
        wait(lambda: all(f"cluster_known_nodes:{len(nodes)}" in one.raw("CLUSTER", "INFO") for one in nodes))
        for server in nodes[2:]:
            server.cli("CLUSTER", "REPLICATE", nodes[0].cli("CLUSTER", "MYID"))
            wait(lambda server=server: "master_link_status:up" in server.raw("INFO", "replication"))
        wait(lambda: all("cluster_state:ok" in one.raw("CLUSTER", "INFO") for one in nodes))
        return nodes

    return start


def write(server, count: int, prefix: str) -> None:
    """To whichever node has the slot, by redis-cli's own cluster client."""
    commands = "".join(f"SET {prefix}:{number} value-{number}\n" for number in range(count))
    done = subprocess.run(
        ["redis-cli", "-c", "-p", str(server.port)], input=commands, capture_output=True, text=True, check=True
    )
    assert "ERR" not in done.stdout


def keys(server) -> int:
    return int(server.cli("DBSIZE"))


@pytest.fixture(name="store")
def _store(tmp_path):
    return tmp_path / "backups"


@pytest.fixture(name="back_up")
def _back_up(call_module, store):
    def run(server, nodes, **options):
        done = call_module(
            "redis_backup",
            **server.params(
                directory=str(store), group_name="shop", sentinel_file="", address=address(server),
                group_hosts=[address(one) for one in nodes], **options,
            ),
        )  # fmt: skip
        assert not done.failed, done.msg
        return done

    return run


@pytest.fixture(name="unit_of")
def _unit_of():
    units: dict[int, PretendedUnit] = {}
    return lambda server: units.setdefault(server.port, PretendedUnit(server))


@pytest.fixture(name="restore")
def _restore(call_module, monkeypatch, store, unit_of):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    real = redis_restore.Host

    def run(server, check=False, **options):
        monkeypatch.setattr(redis_restore, "Host", lambda: real("/", unit_of(server).run))
        wanted = {"directory": str(store), "group_name": "shop", **options}
        return call_module("redis_restore", check=check, **server.params(unit="redis", **wanted))

    return run


def manifest(backup: dict, store: pathlib.Path, name: str) -> dict:
    return json.loads((store / name / backup["label"] / "manifest.json").read_text())


def test_each_shard_is_backed_up_by_its_own_and_kept_apart(cluster, back_up, store, call_module):
    nodes = cluster("n", replicas=1)
    low, high, replica = nodes
    write(low, 300, "key")
    wait(lambda: keys(replica) == keys(low))
    assert keys(low) + keys(high) == 300
    assert back_up(low, nodes).state == "elsewhere"  # its replica gives it
    given = back_up(replica, nodes)
    own = back_up(high, nodes)
    assert address(replica) in given.source
    assert (given.backup["slots"], own.backup["slots"]) == ([LOW], [HIGH])
    assert (given.backup["keys"], own.backup["keys"]) == (keys(low), keys(high))
    assert (given.state, own.state) == ("verified", "verified"), (given.backup, own.backup)
    assert sorted(path.name for path in store.iterdir() if not path.name.startswith(".")) == [
        f"shop.{LOW}",
        f"shop.{HIGH}",
    ]

    # to keep one is to keep one of each shard
    newer = back_up(high, nodes, retention={"keep_last": 1})
    found = {
        one["group"]: [row["label"] for row in one["backups"]]
        for one in call_module("redis_backup_info", directory=str(store), group_name="shop").groups
    }
    assert found == {f"shop.{LOW}": [given.backup["label"]], f"shop.{HIGH}": [newer.backup["label"]]}


def test_a_shard_goes_back_to_its_slots_and_to_no_others(cluster, back_up, restore):
    nodes = cluster("n")
    low, high = nodes
    write(low, 300, "key")
    saved = [one.cli("DEBUG", "DIGEST") for one in nodes]
    labels = [back_up(one, nodes).backup["label"] for one in nodes]
    for one in nodes:
        one.cli("FLUSHALL")
    ids = [one.cli("CLUSTER", "MYID") for one in nodes]

    # the other shard's backup is refused, and nothing is touched
    tree, pid = low.tree(), low.process.pid
    for check in (True, False):
        wrong = restore(low, check=check, backup=labels[1], group_name=f"shop.{HIGH}")
        assert (wrong.failed, wrong.code) == (True, "no_backup")
    assert (low.tree(), low.process.pid, keys(low)) == (tree, pid, 0)

    for one in nodes:
        done = restore(one)
        assert not done.failed, done.msg
    assert [one.cli("DEBUG", "DIGEST") for one in nodes] == saved
    assert [one.cli("CLUSTER", "MYID") for one in nodes] == ids
    wait(lambda: all("cluster_state:ok" in one.raw("CLUSTER", "INFO") for one in nodes))
    write(low, 10, "after")
    assert keys(low) + keys(high) == 310


def test_slots_that_moved_are_refused(cluster, back_up, restore, store):
    nodes = cluster("n")
    low, _high = nodes
    write(low, 50, "key")
    back_up(low, nodes)
    low.cli("FLUSHALL")
    low.cli("CLUSTER", "DELSLOTS", "8191")
    tree = low.tree()
    gone = restore(low)
    assert (gone.failed, gone.code) == (True, "no_backup")
    assert f"shop.{LOW}" in gone.msg
    # put among those of the slots that it has now, it is still not one of them
    (store / f"shop.{LOW}").rename(store / "shop.0-8190")
    done = restore(low)
    assert (done.failed, done.code) == (True, "wrong_set")
    assert (low.tree(), keys(low)) == (tree, 0)


def test_another_cluster_that_is_restored_never_joins_the_first(cluster, back_up, restore, store):
    first, second = cluster("a"), cluster("b")
    write(first[0], 200, "key")
    for one in first:
        back_up(one, first)
    for one in second:
        done = restore(one, allow_other_server=True)  # all on one host here
        assert not done.failed, done.msg
    assert [one.cli("DEBUG", "DIGEST") for one in second] == [one.cli("DEBUG", "DIGEST") for one in first]
    known = [{line.split()[0] for line in one.cli("CLUSTER", "NODES").splitlines()} for one in (*first, *second)]
    assert known[0] == known[1]
    assert known[2] == known[3]
    assert not known[0] & known[2]
    # what the first one's nodes.conf reported is in the backup, to be looked at
    label = next((store / f"shop.{LOW}").glob("2*")).name
    assert first[0].cli("CLUSTER", "MYID") in (store / f"shop.{LOW}" / label / "conf" / "nodes.conf").read_text()


def test_a_replica_is_held_and_released_as_it_was(cluster, restore, tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    monkeypatch.setattr(redis_restore, "HELD", str(tmp_path / "run"))
    low, _high, replica = cluster("n", replicas=1)

    def setting(server) -> str:
        return server.config("cluster-replica-no-failover")

    predicted = restore(replica, check=True, state="failover_blocked")
    assert (predicted.changed, setting(replica), (tmp_path / "run").exists()) == (True, "no", False)
    done = restore(replica, state="failover_blocked")
    assert (done.changed, done.diff, setting(replica)) == (True, predicted.diff, "yes")
    assert not restore(replica, state="failover_blocked").changed
    assert not restore(low, state="failover_blocked").changed  # a primary has nothing to be held from
    assert setting(low) == "no"
    replica.cli("CONFIG", "REWRITE")  # whatever the file says by now, what was before counts
    assert restore(replica, state="failover_allowed").changed
    assert setting(replica) == "no"
    assert not restore(replica, state="failover_allowed").changed
    replica.cli("CONFIG", "SET", "cluster-replica-no-failover", "yes")  # somebody's own wish stays
    assert not restore(replica, state="failover_blocked").changed
    assert not restore(replica, state="failover_allowed").changed
    assert setting(replica) == "yes"


def test_a_primary_whose_replica_may_take_over_is_not_restored(cluster, back_up, restore):
    """The replica, which has the damage, would be promoted while the primary is away, and what was restored thrown away."""
    nodes = cluster("n", replicas=1)
    low, _high, replica = nodes
    write(low, 200, "key")
    wait(lambda: keys(replica) == keys(low) > 0)
    back_up(replica, nodes)
    had = keys(low)
    low.cli("FLUSHALL")
    wait(lambda: keys(replica) == 0)
    before, pid = sorted(low.data.rglob("*")), low.process.pid
    for check in (True, False):
        done = restore(low, check=check)
        assert (done.failed, done.code) == (True, "primary_is_watched"), done.msg
        assert address(replica) in done.msg
        assert (sorted(low.data.rglob("*")), low.process.pid) == (before, pid)
    assert not restore(replica, state="failover_blocked").failed
    done = restore(low)
    assert not done.failed, done.msg
    assert (keys(low), low.info("role")) == (had, "master")
    wait(lambda: keys(replica) == had)
    assert not restore(replica, state="failover_allowed").failed
    assert replica.config("cluster-replica-no-failover") == "no"


def test_a_stopped_replica_of_a_cluster_is_not_restored(cluster, back_up, restore):
    nodes = cluster("n", replicas=1)
    low, _high, replica = nodes
    write(low, 200, "key")
    wait(lambda: keys(replica) == keys(low) > 0)
    back_up(replica, nodes)
    replica.stop()
    for check in (True, False):
        done = restore(replica, check=check, group_name=f"shop.{LOW}")
        assert (done.failed, done.code in ("is_replica", "slots_differ")) == (True, True), done.msg


def test_what_holds_a_replica_ends_by_itself(cluster, restore, tmp_path, monkeypatch, unit_of):
    """The timer's script, run by sh next to a systemctl that only notes: no controller, and none of our Python."""
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    notes, tools = tmp_path / "run", tmp_path / "tools"
    monkeypatch.setattr(redis_restore, "HELD", str(notes))
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/did\n')
    (tools / "systemctl").chmod(0o755)
    _low, _high, replica = cluster("n", replicas=1)
    replica.cli("ACL", "SETUSER", "mender", "on", ">it's $HOME", "~*", "&*", "+@all")
    login = {"login_user": "mender", "login_password": "it's $HOME"}
    assert restore(replica, state="failover_blocked", **login).changed

    def tick() -> str:
        script = unit_of(replica).scripts[-1]
        assert "it's" not in script  # nor in any process list
        done = subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return replica.config("cluster-replica-no-failover")

    assert (notes / f"failover-blocked-{replica.port}.auth").stat().st_mode & 0o777 == 0o600
    assert tick() == "yes"
    replica.cli("CONFIG", "SET", "cluster-replica-no-failover", "no")  # as after a restart: it was live only
    assert tick() == "yes"
    (notes / f"failover-blocked-{replica.port}.until").write_text("1\n")
    assert tick() == "no"
    assert list(notes.iterdir()) == []
    assert (tmp_path / "did").read_text() == f"stop redisops-failover-blocked-{replica.port}.timer\n"


def test_a_replica_that_restarted_while_it_was_held_is_told(cluster, restore, tmp_path, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    monkeypatch.setattr(redis_restore, "HELD", str(tmp_path / "run"))
    _low, _high, replica = cluster("n", replicas=1)
    assert restore(replica, state="failover_blocked").changed
    wait(lambda: replica.info("aof_rewrite_in_progress") == "0")  # Redis does not end while it makes its first AOF
    replica.restart()
    wait(lambda: replica.info("master_link_status") == "up")
    replica.cli("CONFIG", "SET", "cluster-replica-no-failover", "yes")  # as the timer does
    done = restore(replica, state="failover_allowed")
    assert not done.failed, done.msg
    assert "it restarted while it was held" in done.actions[0]
    assert list((tmp_path / "run").iterdir()) == []


def test_without_the_timer_nothing_is_held(cluster, restore, tmp_path, monkeypatch, unit_of):
    from ansible_collections.redisops.recovery.plugins.modules import redis_restore

    monkeypatch.setattr(redis_restore, "HELD", str(tmp_path / "run"))
    _low, _high, replica = cluster("n", replicas=1)
    unit_of(replica).no_timers = True
    done = restore(replica, state="failover_blocked")
    assert (done.failed, done.code) == (True, "hold_failed")
    assert replica.config("cluster-replica-no-failover") == "no"
    assert list((tmp_path / "run").iterdir()) == []
