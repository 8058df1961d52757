# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A watched pair is backed up by its own timer, loses everything, is restored under its Sentinels, and taken back. redis-cli judges."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import typing as t

import boto3
from lab_hosts import LabHost, Record, changed, last_run_changed, play

NAMES = ("b1", "b2")
STORE = "/var/backups/redis/orders"
FILL = """
for i = 1, 20000 do redis.call('SET', 'key:'..i, 'value '..i) end
for i = 1, 1000 do redis.call('RPUSH', 'rows', i) redis.call('ZADD', 'sorted', i, 'm'..i) redis.call('HSET', 'hash', 'f'..i, i) end
redis.call('SET', 'binary\\0\\255', '\\0\\r\\n#TS:1\\r\\n\\255') redis.call('EXPIRE', 'hash', 86400)
redis.call('XADD', 'stream', '1-1', 'a', 'b') redis.call('XGROUP', 'CREATE', 'stream', 'group', '0')
redis.call('SELECT', 7) redis.call('SET', 'in another', 'database')
"""


def admin(host: LabHost, *words: str) -> str:
    return host.as_user("admin", "lab-admin", *words)


def wait(condition: t.Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def role(host: LabHost) -> str:
    return {"master": "primary", "slave": "replica"}.get(admin(host, "ROLE").split("\n", 1)[0], "away")


def pair(hosts: dict[str, LabHost]) -> tuple[LabHost, LabHost]:
    """Primary and replica, once the link is up and every byte is there."""

    def level() -> bool:
        roles = {role(hosts[name]): hosts[name] for name in NAMES}
        return set(roles) == {"primary", "replica"} and admin(roles["primary"], "WAIT", "1", "1000") == "1"

    wait(level)
    roles = {role(hosts[name]): hosts[name] for name in NAMES}
    return roles["primary"], roles["replica"]


@contextlib.contextmanager
def patient_sentinels(hosts: dict[str, LabHost]) -> t.Iterator[None]:
    """A look at a million keys (DEBUG DIGEST) holds a server up for seconds, for which it is not to be taken for down."""

    def set_patience(milliseconds: int) -> None:
        for name in NAMES:
            assert (
                hosts[name].run(f"redis-cli -p 26379 SENTINEL SET orders down-after-milliseconds {milliseconds}")
                == "OK"
            )

    set_patience(120000)
    try:
        yield
    finally:
        set_patience(5000)


def digest(host: LabHost) -> str:
    return admin(host, "DEBUG", "DIGEST")


@contextlib.contextmanager
def writing(host: LabHost) -> t.Iterator[None]:
    """A client that writes to the primary without a pause."""
    process = subprocess.Popen(
        ["docker", "exec", host.container, "redis-benchmark", "--user", "shop", "-a", "lab-shop", "-c", "2", "-l", "-q", "-r", "50000",
         "-n", "50000", "SET", "load:__rand_int__", "value"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait(lambda: int(admin(host, "DBSIZE")) > 21000)
        yield
        assert process.poll() is None
    finally:
        host.run("pkill redis-benchmark || true")
        process.wait(20)


# --- in order: each goes on where the one before ended ------------------------------------------------------------------


def test_each_host_has_the_timer_and_one_takes_the_backup(hosts: dict[str, LabHost], record: Record) -> None:
    assert changed(record.converges(check=False)[-1]) == 0
    primary, replica = pair(hosts)
    admin(primary, "EVAL", FILL, "0")
    pair(hosts)
    for name in NAMES:
        assert hosts[name].run("systemctl is-enabled redisops-backup-orders.timer") == "enabled"
        assert hosts[name].run("systemctl is-active redisops-backup-orders.timer") == "active"
        assert hosts[name].run("stat -c '%U %a' /etc/redisops/backup-orders.json") == "root 600"
    reported = {}
    with writing(primary):
        for host in (primary, replica):
            host.run("systemctl start redisops-backup-orders.service")
            line = host.run("journalctl -u redisops-backup-orders.service -o cat --no-pager | grep '^{' | tail -n 1")
            reported[host.name] = json.loads(line)
    assert reported[primary.name]["state"] == "elsewhere"
    predicted = reported[replica.name]
    assert (predicted["state"], predicted["backup"]["source"], predicted["backup"]["exact"]) == (
        "verified",
        "replica",
        True,
    )
    path = f"{STORE}/{predicted['backup']['label']}/data/dump.rdb"
    assert f"{predicted['backup']['keys']} keys read" in replica.run(f"redis-check-rdb {path}")
    assert replica.infra.run(f"su -s /bin/sh redis -c 'cat {path}'").rc != 0
    print(
        f"backup from {replica.name} under a load of writes: {predicted['backup']['keys']} keys, loaded in {predicted['backup']['load_seconds']} s"
    )


def test_a_restore_brings_everything_back_and_sentinel_keeps_its_primary(hosts: dict[str, LabHost]) -> None:
    primary, replica = pair(hosts)
    saved = digest(primary)
    reported = play("backup")
    assert "verified" in reported, reported
    labels = replica.run(f"ls {STORE}").split()
    assert len(labels) == 2
    admin(primary, "FLUSHALL")
    admin(primary, "SET", "after", "the accident")
    lost = digest(primary)
    pair(hosts)
    # The backup is the replica's; only looking changes nothing.
    play("restore", "-e", "redisops_hosts=redis", "--check")
    assert (last_run_changed(), digest(primary)) == (0, lost)
    began = time.monotonic()
    reported = play("restore", "-e", "redisops_hosts=redis")
    took = time.monotonic() - began
    assert digest(primary) == saved
    again, other = pair(hosts)
    assert (again.name, other.name, digest(other)) == (primary.name, replica.name, saved)
    for name in NAMES:
        assert hosts[name].run("systemctl is-active redis-sentinel") == "active"
    address = primary.run("hostname -I").split()[0]
    wait(
        lambda: (
            hosts["b1"].run("redis-cli -p 26379 SENTINEL GET-MASTER-ADDR-BY-NAME orders | head -n 1")
            in (address, primary.name)
        )
    )
    away = next(line for line in reported.splitlines() if "away for" in line).split("away for")[1].split()[0]
    print(f"restore under Sentinel: {took:.0f} s in all, the server was away for {away} s")
    play("site")
    assert last_run_changed() == 0
    assert primary.run("ls /var/lib/redis | grep -c redisops-restore-") == "1"
    assert digest(primary) == saved

    play("restore_rollback", "-e", "redisops_hosts=redis")
    assert digest(primary) == lost
    assert pair(hosts)[0].name == primary.name
    assert digest(replica) == lost


def test_a_flushall_is_undone_to_the_byte(hosts: dict[str, LabHost]) -> None:
    primary, replica = pair(hosts)
    play("restore", "-e", "redisops_hosts=redis")
    pair(hosts)
    admin(primary, "SET", "written", "a moment before")
    saved = digest(primary)
    # The host keeps the AOF's archive by itself: what a rewrite takes out of the live AOF is still there.
    live = "stat -c %i /var/lib/redis/appendonlydir/*.incr.aof | tail -n 1"
    wait(lambda: primary.run(f"find /var/lib/redis/redisops-aof-archive -inum $({live})") != "")
    admin(primary, "FLUSHALL")
    admin(primary, "SET", "written", "after")
    admin(primary, "BGREWRITEAOF")
    idle = ("aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0")
    wait(lambda: all(line in admin(primary, "INFO", "persistence") for line in idle))
    assert "FLUSHALL" not in primary.run("cat /var/lib/redis/appendonlydir/*.aof | tr -d '\\0'")
    play("undo_flushall", "-e", "redisops_hosts=redis", "--check")
    assert (last_run_changed(), admin(primary, "DBSIZE")) == (0, "1")
    reported = play("undo_flushall", "-e", "redisops_hosts=redis")
    assert digest(primary) == saved
    assert pair(hosts)[0].name == primary.name
    assert digest(replica) == saved
    away = next(line for line in reported.splitlines() if "away for" in line).split("away for")[1].split()[0]
    print(f"FLUSHALL undone under Sentinel: the server was away for {away} s")
    admin(primary, "FLUSHALL")  # for what follows
    admin(primary, "SET", "after", "the accident")
    pair(hosts)


def test_a_drill_is_held_where_the_backups_are(hosts: dict[str, LabHost]) -> None:
    reported = play("drill", "-e", "redis_objective_rto_seconds=600", "-e", "redis_objective_rpo_seconds=86400")
    print(next(line for line in reported.splitlines() if "RTO" in line).strip())
    reports = hosts["b2"].run(f"ls {STORE}/drills") + hosts["b1"].run(f"ls {STORE}/drills || true")
    assert reports.count(".md") >= 1


def test_the_accident_is_not_what_is_restored_by_default(hosts: dict[str, LabHost]) -> None:
    """The group's data now lacks what was asserted: such a backup fails, and the last verified one stays the choice."""
    primary, replica = pair(hosts)
    done = replica.infra.run("systemctl start redisops-backup-orders.service")
    assert done.rc != 0
    assert replica.run("systemctl is-failed redisops-backup-orders.service || true") == "failed"
    line = json.loads(
        replica.run("journalctl -u redisops-backup-orders.service -o cat --no-pager | grep '^{' | tail -n 1")
    )
    assert (line["code"], "rows" in line["msg"]) == ("backup_not_verified", True)
    play("restore", "-e", "redisops_hosts=redis")
    assert int(admin(primary, "LLEN", "rows")) == 1000
    replica.run("systemctl reset-failed redisops-backup-orders.service")


@contextlib.contextmanager
def s3_server(address: str) -> t.Iterator[str]:
    """A STAND-IN for S3 (moto), on the lab's own network; gives its address."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return True
        return False

    try:
        wait(answers)
        keys = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab-secret", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://{address}:{port}", **keys).create_bucket(Bucket="vault")
        yield f"http://{address}:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_million_keys_go_to_every_kind_of_repository_and_come_back_elsewhere(hosts: dict[str, LabHost]) -> None:
    """To a disk, to a real sshd and to S3; another host of another name fetches each, verifies it and is restored from one."""
    giver, spare = hosts["b1"], hosts["b3"]
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
    giver.run(f"apt-get -qq update && {install} openssh-client")  # restic is the role's to install
    spare.run(f"apt-get -qq update && {install} openssh-server")
    giver.run("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 || true")
    key = giver.run("cat /root/.ssh/id_ed25519.pub")
    spare.run(f"mkdir -p -m 700 /root/.ssh && echo '{key}' >> /root/.ssh/authorized_keys && systemctl start ssh")
    address = spare.run("hostname -I").split()[0]
    giver.run(f"ssh-keyscan {address} > /root/.ssh/known_hosts 2>/dev/null")
    play("site", "-e", "redisops_hosts=b3")
    with patient_sentinels(hosts):
        primary, _replica = pair(hosts)
        # Real writes, a few at a time: they are in the AOF and on the replica, and none of them holds the server up.
        script = "for j=1,20000 do redis.call('SET','mill:'..ARGV[1]..':'..j,'12345678901234567890') end"
        primary.run(
            f'for i in $(seq 50); do redis-cli --user admin --no-auth-warning -a lab-admin EVAL "{script}" 0 $i; done'
        )
        pair(hosts)
        saved, count = digest(giver), admin(giver, "DBSIZE")
        assert int(count) > 1000000
        gateway = giver.run("ip -4 route show default | cut -d' ' -f3")
        with s3_server(gateway) as s3:
            keys = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab-secret"}
            places = [
                {"name": "disk", "location": "/srv/vault", "password": "lab-vault", "retention": {"keep_last": 1}},
                {"name": "ssh", "location": f"sftp:root@{address}:/srv/vault", "password": "lab-vault"},
                {"name": "s3", "location": f"s3:{s3}/vault", "password": "lab-vault", "environment": keys},
            ]
            given = json.dumps({"redis_backup_group_hosts": [], "redis_backup_repositories": places})
            began = time.monotonic()
            reported = play("backup", "-e", "redisops_hosts=b1", "-e", given)
            took = time.monotonic() - began
            label = giver.run(f"ls -t {STORE} | grep '^2' | head -n 1")
            row = giver.run(f"cat {STORE}/{label}/copies.json")
            assert all(f'"{place["name"]}"' in row for place in places), reported
            print(f"{count} keys: backup, proof and three repositories in {took:.0f} s")

            # What lies behind sshd is a directory of the spare host; S3 is what it is for everybody.
            behind = [{**places[1], "name": "local", "location": "/srv/vault"}, places[2]]
            for place in behind:
                spare.run(f"rm -rf {STORE}")
                given = json.dumps(
                    {
                        "redis_group_name": "orders",
                        "redis_backup_repositories": behind,
                        "redisops_repository": place["name"],
                    }
                )
                play("drill", "-e", "redisops_hosts=b3", "-e", given)
            assert spare.run(f"ls {STORE}/drills | grep -c json") == "1"
            began = time.monotonic()
            play(
                "restore",
                "-e",
                "redisops_hosts=b3",
                "-e",
                "redisops_restore_host=b3",
                "-e",
                given,
            )
            took = time.monotonic() - began
        assert (admin(spare, "DBSIZE"), digest(spare)) == (count, saved)
        assert role(spare) == "primary"  # it follows nobody of the group that its data is from
        print(f"{count} keys fetched from S3 and restored on another host in {took:.0f} s")


def test_a_server_that_does_not_start_is_repaired_by_what_loses_least(hosts: dict[str, LabHost]) -> None:
    """A damaged replica from its primary, under Sentinels; a damaged lone server from its verified backup. What was damaged is kept."""
    primary, replica = pair(hosts)
    saved = digest(primary)
    spoil = (
        "systemctl stop {unit}; f=$(ls /var/lib/redis/appendonlydir/*.base.*); printf 'spoilt' | dd of=$f bs=1 seek=9 conv=notrunc status=none;"
        " systemctl start {unit} || true; sleep 2; systemctl stop {unit}"
    )
    replica.run(spoil.format(unit=replica.unit))
    looked = play("repair", "-e", "redisops_hosts=redis", "--check")
    assert replica.infra.run(f"systemctl is-active {replica.unit}").rc != 0
    said_by = play("repair", "-e", "redisops_hosts=redis")
    print(next(line for line in said_by.splitlines() if "method" in line or "replica" in line).strip())
    assert looked
    again, other = pair(hosts)
    assert (again.name, digest(primary), digest(other)) == (primary.name, saved, saved)
    assert other.infra.run("ls -d /var/lib/redis/redisops-*").rc == 0

    spare = hosts["b3"]
    before = digest(spare)
    spare.run(spoil.format(unit=spare.unit))
    assert spare.infra.run(f"systemctl is-active {spare.unit}").rc != 0
    play("repair", "-e", "redisops_hosts=b3", "-e", "redis_group_name=orders")
    wait(lambda: admin(spare, "PING") == "PONG")
    assert digest(spare) == before
    play("site", "-e", "redisops_hosts=b3")
    assert last_run_changed() == 0
