# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""It stays up, and nobody fights a failover. A client writes through everything and notes each acknowledgement; redis-cli judges."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
import typing as t

import pytest
import yaml
from lab_hosts import ROOT, LabHost, Record, changed, play

NAMES = ("s1", "s2", "s3")
ADMIN = ("admin", "lab-admin")


def admin(host: LabHost, *words: str) -> str:
    return host.as_user(*ADMIN, *words)


def role(host: LabHost) -> str:
    answer = admin(host, "ROLE").splitlines()
    return {"master": "primary", "slave": "replica"}.get(answer[0] if answer else "", "away")


def primaries(hosts: dict[str, LabHost]) -> list[str]:
    return [name for name in NAMES if role(hosts[name]) == "primary"]


def wait(condition: t.Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def linked(host: LabHost) -> bool:
    return "master_link_status:up" in admin(host, "INFO", "replication")


def named_by_sentinel(host: LabHost) -> str:
    return host.run("redis-cli -p 26379 SENTINEL GET-MASTER-ADDR-BY-NAME orders | head -n 1")


def address(host: LabHost) -> str:
    return host.run("hostname -I").split()[0]


def settled(hosts: dict[str, LabHost]) -> str:
    """Wait until there is one primary that all Sentinels name and all others follow; its name."""

    def one() -> bool:
        now = primaries(hosts)
        if len(now) != 1:
            return False
        where = address(hosts[now[0]])
        others = [hosts[name] for name in NAMES if name != now[0]]
        return all(named_by_sentinel(hosts[name]) in (where, now[0]) for name in NAMES) and all(map(linked, others))

    wait(one)
    return primaries(hosts)[0]


def converged(*options: str) -> int:
    """How much a run of site.yml changed."""
    play("site", *options)
    path = pathlib.Path(os.environ["REDISOPS_RECORD"])
    return changed(Record(path.read_text(encoding="utf-8").splitlines()).converges(check=False)[-1])


@contextlib.contextmanager
def writing(host: LabHost, label: str) -> t.Iterator[dict[str, t.Any]]:
    """A client that writes until the block ends; then how many writes were acknowledged, and its longest wait."""
    path = f"/tmp/acknowledged-{label}"
    host.run(f"rm -f {path} {path}.stop")
    script = (ROOT / "molecule/shared/files/writer.py").read_text()
    process = subprocess.Popen(
        ["docker", "exec", "-i", host.container, "python3", "-", path, "orders", "shop", "lab-shop", *NAMES],
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


def lost(host: LabHost, predicted: dict[str, t.Any]) -> list[str]:
    """The acknowledged writes that the primary does not have."""
    script = "local gone = {} for i, n in ipairs(ARGV) do if redis.call('GET', 'w:'..n) ~= n then gone[#gone+1] = n end end return gone"
    gone: list[str] = []
    for start in range(0, len(predicted["numbers"]), 5000):
        gone += admin(host, "EVAL", script, "0", *predicted["numbers"][start : start + 5000]).split()
    return gone


def clean(hosts: dict[str, LabHost]) -> None:
    admin(
        hosts[settled(hosts)], "EVAL", "for _, k in ipairs(redis.call('KEYS', 'w:*')) do redis.call('DEL', k) end", "0"
    )


# --- in order: each goes on where the one before ended ------------------------------------------------------------------


def test_three_servers_are_a_set_that_three_sentinels_watch(hosts: dict[str, LabHost], record: Record) -> None:
    assert settled(hosts) in NAMES
    for name in NAMES:
        assert hosts[name].run("redis-cli -p 26379 SENTINEL CKQUORUM orders").startswith("OK 3 usable Sentinels")
        assert "\n1\n" in admin(hosts[name], "CONFIG", "GET", "min-replicas-to-write") + "\n"
    assert changed(record.converges(check=False)[-1]) == 0


def test_a_killed_primary_is_failed_over_and_stays_so(hosts: dict[str, LabHost]) -> None:
    with writing(hosts["s3"], "kill") as predicted:
        time.sleep(2)
        # It does not come back by itself: as a lost machine would not.
        hosts["s1"].run(f"systemctl mask --runtime {hosts['s1'].unit}; kill -9 " + pid(hosts["s1"]))
        wait(lambda: "primary" in (role(hosts["s2"]), role(hosts["s3"])))
        before = acknowledged(hosts["s3"], "kill")
        wait(lambda: acknowledged(hosts["s3"], "kill") > before + 100)  # and writes go on
    new = next(name for name in ("s2", "s3") if role(hosts[name]) == "primary")
    gone = lost(hosts[new], predicted)
    print(
        f"primary killed: {predicted['count']} writes acknowledged, {len(gone)} lost, longest wait {predicted['longest']:.1f} s; new primary {new}"
    )
    assert predicted["count"] > 200
    assert converged("--limit", "s2,s3") == 0
    assert role(hosts[new]) == "primary"
    hosts["s1"].run(f"systemctl unmask --runtime {hosts['s1'].unit}; systemctl start {hosts['s1'].unit}")
    assert settled(hosts) == new
    converged()
    assert converged() == 0
    assert settled(hosts) == new
    clean(hosts)


def pid(host: LabHost) -> str:
    return host.run(f"systemctl show -p MainPID --value {host.unit}")


def test_a_primary_that_is_cut_off_stops_taking_writes(hosts: dict[str, LabHost]) -> None:
    old = hosts[settled(hosts)]
    others = [address(hosts[name]) for name in NAMES if hosts[name] is not old]
    drop = "; ".join(
        f"add rule inet cut in ip saddr {one} drop; add rule inet cut out ip daddr {one} drop" for one in others
    )
    old.run(
        "nft 'add table inet cut; add chain inet cut in { type filter hook input priority -50; };"
        f" add chain inet cut out {{ type filter hook output priority -50; }}; {drop}'"
    )
    began = time.monotonic()
    taken = 0
    while admin(old, "SET", f"cut:{taken}", "x") == "OK":
        taken += 1
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    took = time.monotonic() - began
    print(f"partition: the primary took {taken} writes for {took:.1f} s more, then refused (min-replicas-max-lag 10)")
    assert "NOREPLICAS" in admin(old, "SET", "cut", "x")
    others_up = [hosts[name] for name in NAMES if hosts[name] is not old]
    wait(lambda: any(role(host) == "primary" for host in others_up))
    old.run("nft delete table inet cut")
    new = settled(hosts)
    assert hosts[new] is not old
    assert role(old) == "replica"
    missing = sum(admin(hosts[new], "EXISTS", f"cut:{number}") == "0" for number in range(taken))
    print(f"partition: {missing} of those {taken} writes are lost, as min-replicas-max-lag bounds them")
    converged()
    assert converged() == 0


def test_a_switchover_loses_no_acknowledged_write(hosts: dict[str, LabHost]) -> None:
    before = settled(hosts)
    target = next(name for name in NAMES if name != before)
    with writing(hosts[before], "switch") as predicted:
        time.sleep(1)
        output = play("switchover", "-e", "redisops_hosts=redis", "-e", f"redisops_switchover_to={target}")
        time.sleep(1)
    assert settled(hosts) == target
    gap = next(line for line in output.splitlines() if "no server took writes" in line)
    gone = lost(hosts[target], predicted)
    print(
        f"switchover: {predicted['count']} writes acknowledged, {len(gone)} lost; {gap.strip()}; "
        f"longest wait of the client {predicted['longest'] * 1000:.0f} ms"
    )
    assert predicted["count"] > 200
    assert gone == []
    assert converged() == 0
    clean(hosts)


def test_a_rolling_restart_loses_no_acknowledged_write(hosts: dict[str, LabHost]) -> None:
    before = {name: pid(hosts[name]) for name in NAMES}
    old = settled(hosts)
    with writing(hosts[old], "rolling") as predicted:
        time.sleep(1)
        play("rolling_restart", "-e", "redisops_restart=always")
        time.sleep(1)
    assert all(pid(hosts[name]) != before[name] for name in NAMES)
    new = settled(hosts)
    assert new != old
    gone = lost(hosts[new], predicted)
    print(
        f"rolling restart: {predicted['count']} writes acknowledged, {len(gone)} lost; longest wait of the client {predicted['longest'] * 1000:.0f} ms"
    )
    assert predicted["count"] > 200
    assert gone == []
    assert converged() == 0
    clean(hosts)


#: Debian's own packages once more, under a higher version, in a repository on the host: what can be had here of a newer release.
STAND_IN = r"""
set -e
mkdir -p /opt/newer && cd /opt/newer && rm -rf ./* && apt-get -o Acquire::Retries=3 download -q redis-server redis-tools redis-sentinel
version=$(dpkg-query -W -f '${Version}' redis-server)
for package in *.deb; do
    dpkg-deb -R "$package" tree && rm "$package"
    sed -i "s/$version/$version+standin1/" tree/DEBIAN/control
    name=$(sed -n 's/^Package: //p' tree/DEBIAN/control)
    dpkg-deb -b tree "$name.deb" && rm -r tree
    { dpkg-deb -f "$name.deb"; echo "Filename: ./$name.deb"; echo "Size: $(stat -c %s "$name.deb")"
      echo "SHA256: $(sha256sum "$name.deb" | cut -d' ' -f1)"; echo; } >> Packages
done
echo 'deb [trusted=yes] file:/opt/newer ./' > /etc/apt/sources.list.d/newer.list
"""


def version_of(host: LabHost) -> str:
    return host.run("dpkg-query -W -f '${Version}' redis-server")


def test_a_rolling_upgrade_loses_no_acknowledged_write(hosts: dict[str, LabHost]) -> None:
    newer = [hosts[name] for name in ("s1", "s3")]
    for host in newer:
        host.run(STAND_IN)
    before = {host.name: (pid(host), host.run("systemctl show -p MainPID --value redis-sentinel")) for host in newer}
    old = settled(hosts)
    with writing(hosts[old], "upgrade") as predicted:
        time.sleep(1)
        play("rolling_upgrade")
        time.sleep(1)
    gone = lost(hosts[settled(hosts)], predicted)
    print(
        f"rolling upgrade (to a STAND-IN: the same release under a higher version): {predicted['count']} writes acknowledged, {len(gone)} lost; "
        f"longest wait of the client {predicted['longest'] * 1000:.0f} ms"
    )
    for host in newer:
        assert version_of(host).endswith("+standin1")
        assert pid(host) != before[host.name][0]
        assert host.run("systemctl show -p MainPID --value redis-sentinel") != before[host.name][1]
        assert "deleted" not in host.run(f"readlink /proc/{pid(host)}/exe")
    assert predicted["count"] > 200
    assert gone == []
    assert converged() == 0
    clean(hosts)


def test_a_host_leaves_the_set_and_comes_back(hosts: dict[str, LabHost], tmp_path: pathlib.Path) -> None:
    primary = settled(hosts)
    leaver = next(name for name in NAMES if name != primary)
    there = [name for name in NAMES if name != leaver]
    admin(hosts[primary], "SET", "stays", "here")
    smaller = tmp_path / "inventory"
    shutil.copytree(pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory", smaller, symlinks=False)
    path = smaller / "ansible_inventory.yml"
    predicted = yaml.safe_load(path.read_text())
    del predicted["redis"]["hosts"][leaver]
    path.write_text(yaml.safe_dump(predicted))

    play(
        "remove_host",
        "-e",
        "redisops_hosts=redis",
        "-e",
        f"redisops_gone={leaver}",
        "-e",
        "redisops_not_responding_for=8",
        inventory=smaller,
    )
    assert role(hosts[leaver]) == "away"
    assert hosts[leaver].run("stat -c %s /var/lib/redis/dump.rdb") != "0"
    for name in there:
        assert role(hosts[name]) == ("primary" if name == primary else "replica")
        assert hosts[name].run("redis-cli -p 26379 SENTINEL CKQUORUM orders").startswith("OK 2 usable Sentinels")
        assert hosts[name].run("redis-cli -p 26379 SENTINEL REPLICAS orders").splitlines().count("name") == 1
    assert admin(hosts[primary], "SET", "stays", "still") == "OK"

    play("add_replica", "-e", f"redisops_new={leaver}")
    assert settled(hosts) == primary
    assert admin(hosts[leaver], "GET", "stays") == "still"
    assert converged() == 0


def test_an_empty_primary_does_not_start(hosts: dict[str, LabHost]) -> None:
    """The Sentinels are stopped, so that nothing but the guard stands between the empty primary and its replicas."""
    old = hosts[settled(hosts)]
    admin(old, "EVAL", "for i=1,1000 do redis.call('SET','kept:'..i,i) end", "0")
    assert admin(old, "WAIT", "2", "5000") == "2"
    for name in NAMES:
        hosts[name].run("systemctl stop redis-sentinel")
    old.run(
        f"systemctl stop {old.unit}; mv /var/lib/redis /var/lib/redis-lost; install -d -o redis -g redis -m 750 /var/lib/redis"
    )
    done = old.infra.run(f"systemctl start {old.unit}")
    assert done.rc != 0
    journal = old.run(f"journalctl -u {old.unit} --no-pager -o cat | grep 'primary guard' | tail -n 1")
    assert "REFUSED" in journal, journal
    assert "keys" in journal
    others = [hosts[name] for name in NAMES if hosts[name] is not old]
    assert [int(admin(host, "DBSIZE")) >= 1000 for host in others] == [True, True]
    old.run(
        f"rm -r /var/lib/redis; mv /var/lib/redis-lost /var/lib/redis; systemctl reset-failed {old.unit}; systemctl start {old.unit}"
    )
    for name in NAMES:
        hosts[name].run("systemctl start redis-sentinel")
    settled(hosts)
    assert admin(old, "GET", "kept:1000") == "1000"
    assert converged() == 0


@pytest.mark.parametrize("name", NAMES)
def test_sentinel_kept_its_own_state(hosts: dict[str, LabHost], name: str) -> None:
    text = hosts[name].run("cat /etc/redis/sentinel.conf")
    assert text.count("sentinel myid ") == 1
    assert text.count("sentinel known-sentinel orders ") == 2
    assert text.count("sentinel known-replica orders ") == 2
