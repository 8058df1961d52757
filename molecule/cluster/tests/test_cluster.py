# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster comes to be, fails over, grows and shrinks. A client writes through it all and notes each acknowledgement; redis-cli judges."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import typing as t

from lab_hosts import ROOT, LabHost, Record, changed, last_run_changed, play, ran, reported

NAMES = ("n1", "n2", "n3", "n4", "n5", "n6")
ADMIN = ("admin", "lab-admin")


def admin(host: LabHost, *words: str) -> str:
    return host.as_user(*ADMIN, *words)


def wait(condition: t.Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def own(host: LabHost) -> list[str]:
    """What a node says of itself: id, flags, whom it replicates, slots."""
    rows = [line.split() for line in admin(host, "CLUSTER", "NODES").splitlines()]
    words = next((row for row in rows if len(row) >= 8 and "myself" in row[2]), [])
    return [words[0], words[2], words[3], " ".join(words[8:])] if words else ["", "", "", ""]


def roles(hosts: dict[str, LabHost], names: t.Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(own(hosts[name])) for name in names}


def primaries(hosts: dict[str, LabHost], names: t.Iterable[str]) -> list[str]:
    return [name for name in names if own(hosts[name])[3]]


def judged(hosts: dict[str, LabHost], names: t.Sequence[str]) -> None:
    """Every node finds the cluster whole, and so does redis-cli."""
    for name in names:
        wait(lambda name=name: "cluster_state:ok" in admin(hosts[name], "CLUSTER", "INFO"))
        wait(lambda name=name: f"cluster_known_nodes:{len(names)}" in admin(hosts[name], "CLUSTER", "INFO"))
    reported = admin(hosts[names[0]], "--cluster", "check", "127.0.0.1:6379")
    assert "[OK] All 16384 slots covered." in reported, reported
    assert "[ERR]" not in reported, reported
    assert "[WARNING]" not in reported, reported


def given(**variables: t.Any) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def site() -> int:
    play("site")
    return last_run_changed()


def cluster(**variables: t.Any) -> int:
    """How much the role redis_cluster changes."""
    play(str(ROOT / "molecule" / "cluster" / "cluster.yml"), *given(**variables))
    return last_run_changed()


@contextlib.contextmanager
def writing(host: LabHost, label: str) -> t.Iterator[dict[str, t.Any]]:
    """A client that writes until the block ends; then how many writes were acknowledged, and its longest wait."""
    path = f"/tmp/acknowledged-{label}"
    host.run(f"rm -f {path} {path}.stop")
    script = (ROOT / "molecule/shared/files/cluster_writer.py").read_text()
    lab = host.container[: -len(host.name)]
    process = subprocess.Popen(
        ["docker", "exec", "-i", host.container, "python3", "-", path, "shop", "lab-shop", *(lab + name for name in reversed(NAMES))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdin.write(script)
    process.stdin.close()
    predicted: dict[str, t.Any] = {}
    wait(lambda: host.infra.run(f"test -s {path}").rc == 0)
    try:
        yield predicted
    finally:
        host.run(f"touch {path}.stop")
        words = process.stdout.read().split()
        process.wait(60)
        predicted.update(count=int(words[0]), longest=float(words[1]), numbers=host.run(f"cat {path}").split())


def acknowledged(host: LabHost, label: str) -> int:
    return int(host.run(f"wc -l < /tmp/acknowledged-{label}"))


def lost(hosts: dict[str, LabHost], predicted: dict[str, t.Any]) -> list[str]:
    """The acknowledged writes that no primary has."""
    there: set[str] = set()
    for name in primaries(hosts, hosts):
        keys = admin(hosts[name], "--scan", "--pattern", "w:*").split()
        there.update(key[2:] for key in keys)
    return [number for number in predicted["numbers"] if number not in there]


# --- in order: each goes on where the one before ended ------------------------------------------------------------------


def test_six_servers_are_a_cluster(hosts: dict[str, LabHost], record: Record) -> None:
    judged(hosts, NAMES)
    assert changed(record.converges(check=False)[-1]) == 0
    domains = {"n1": "a", "n4": "a", "n2": "b", "n5": "b", "n3": "c", "n6": "c"}
    ids = {own(hosts[name])[0]: name for name in NAMES}
    assert len(primaries(hosts, NAMES)) == 3
    for name in NAMES:
        upstream = own(hosts[name])[2]
        if upstream in ids:
            assert domains[name] != domains[ids[upstream]]
    assert "cluster_known_nodes:1" in admin(hosts["n7"], "CLUSTER", "INFO")


def test_a_killed_primary_is_failed_over_and_stays_so(hosts: dict[str, LabHost]) -> None:
    old = primaries(hosts, NAMES)[0]
    left = [name for name in NAMES if name != old]
    before = set(primaries(hosts, left))
    with writing(hosts["n7"], "kill") as predicted:
        time.sleep(2)
        unit = hosts[old].unit
        pid = hosts[old].run(f"systemctl show -p MainPID --value {unit}")
        hosts[old].run(
            f"systemctl mask --runtime {unit}; kill -9 {pid}"
        )  # as a lost machine, it does not come back by itself
        wait(lambda: len(primaries(hosts, left)) == 3)
        count = acknowledged(hosts["n7"], "kill")
        wait(lambda: acknowledged(hosts["n7"], "kill") > count + 100)  # and writes go on
    gone = lost(hosts, predicted)
    new = (set(primaries(hosts, left)) - before).pop()
    print(
        f"primary {old} killed: {predicted['count']} writes acknowledged, {len(gone)} lost, longest wait {predicted['longest']:.1f} s; new primary {new}"
    )
    assert predicted["count"] > 200
    picture = roles(hosts, left)
    assert cluster() == 0
    assert roles(hosts, left) == picture
    hosts[old].run(f"systemctl unmask --runtime {unit}; systemctl start {unit}")
    wait(lambda: own(hosts[old])[2] == own(hosts[new])[0])
    judged(hosts, NAMES)
    assert site() == 0
    assert own(hosts[old])[2] == own(hosts[new])[0]
    assert own(hosts[new])[3]


def test_a_node_comes_with_slots_and_goes_without(hosts: dict[str, LabHost]) -> None:
    everybody = [*NAMES, "n7"]
    shape = {"redis_cluster_replicas_per_primary": 0}
    with writing(hosts["n5"], "grow") as predicted:
        time.sleep(1)
        began = time.monotonic()
        assert cluster(redis_cluster_nodes=everybody, redis_cluster_primaries=4, **shape) > 0
        took = time.monotonic() - began
        judged(hosts, everybody)
        assert len(primaries(hosts, everybody)) == 4
        assert cluster(redis_cluster_nodes=everybody, redis_cluster_primaries=4, **shape) == 0
    print(
        f"node added in {took:.0f} s: {predicted['count']} writes acknowledged, {len(lost(hosts, predicted))} lost,"
        f" longest wait {predicted['longest'] * 1000:.0f} ms"
    )
    assert predicted["count"] > 200
    assert lost(hosts, predicted) == []
    with writing(hosts["n5"], "shrink") as predicted:
        time.sleep(1)
        began = time.monotonic()
        assert cluster(redis_cluster_remove=["n7"]) > 0
        took = time.monotonic() - began
        judged(hosts, NAMES)
        assert cluster(redis_cluster_remove=["n7"]) == 0
    print(
        f"node removed in {took:.0f} s: {predicted['count']} writes acknowledged, {len(lost(hosts, predicted))} lost,"
        f" longest wait {predicted['longest'] * 1000:.0f} ms"
    )
    assert lost(hosts, predicted) == []
    assert len(primaries(hosts, NAMES)) == 3
    assert "cluster_known_nodes:1" in admin(hosts["n7"], "CLUSTER", "INFO")
    assert admin(hosts["n7"], "DBSIZE") == "0"


def sizes(hosts: dict[str, LabHost]) -> dict[str, str]:
    return {name: admin(hosts[name], "DBSIZE") for name in NAMES}


def test_a_backup_of_every_shard_is_restored_together_or_not_at_all(hosts: dict[str, LabHost]) -> None:
    shop = given(redisops_hosts="redis:!n7", redis_group_name="shop")
    with writing(hosts["n7"], "saved") as predicted:
        time.sleep(2)
    before, picture = sizes(hosts), roles(hosts, NAMES)
    play("backup", *shop)
    taken = {name: hosts[name].run("ls -d /var/backups/redis/shop.*/2* 2>/dev/null || true").split() for name in NAMES}
    assert len([path for paths in taken.values() for path in paths]) == 3
    assert all(not taken[name] for name in primaries(hosts, NAMES))  # replicas give them
    with writing(hosts["n7"], "after"):
        time.sleep(1)
    for name in primaries(hosts, NAMES):
        admin(hosts[name], "FLUSHALL")
    flushed = sizes(hosts)

    # one shard's backup is damaged: no shard is touched
    path = next(path for paths in taken.values() for path in paths)
    rollback_copy = next(name for name in NAMES if path in taken[name])
    file = hosts[rollback_copy].run(f"find {path}/data -type f -size +0 | head -1")
    hosts[rollback_copy].run(f"cp -p {file} /root/whole; printf X | dd of={file} bs=1 seek=20 conv=notrunc status=none")
    refused = ran("redisops.recovery.restore_cluster", *shop)
    assert refused.returncode != 0
    assert "is not as it was written" in reported(refused)
    assert (sizes(hosts), roles(hosts, NAMES)) == (flushed, picture)
    hosts[rollback_copy].run(f"cp -p /root/whole {file}; rm /root/whole")

    looked = ran("redisops.recovery.restore_cluster", "--check", *shop)
    assert looked.returncode == 0, looked.stdout[-3000:]
    assert sizes(hosts) == flushed
    began = time.monotonic()
    play("restore_cluster", *shop)
    print(
        f"{sum(map(int, (before[name] for name in primaries(hosts, NAMES))))} keys of 3 shards restored in {time.monotonic() - began:.0f} s"
    )
    assert sizes(hosts) == before
    assert roles(hosts, NAMES) == picture  # who is whose replica, ids and slots are as they were
    assert lost(hosts, predicted) == []
    judged(hosts, NAMES)
    for name in NAMES:
        assert admin(hosts[name], "CONFIG", "GET", "cluster-replica-no-failover").split()[-1] == "no"
    assert site() == 0
