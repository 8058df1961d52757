# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Closed to undeclared, open to those who are named: the judges are redis-cli, nft, systemd-analyze, stat and plain sockets."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import subprocess
import time

import pytest
from lab_hosts import LabHost, Record, changed, kernel_is_right, ours, remote_calls

REDIS = ("h1", "h2")
PASSWORDS = {user: f"lab-{user}" for user in ("admin", "replication", "backup", "watch", "exporter", "shop")}
#: What each user may do, and what not; the words are redis-cli's.
TASKS = {
    "shop": (
        ["GET shop:1", "EXISTS shop:1", "GET catalogue:1", "MULTI", "SUBSCRIBE shop.news"],
        ["SET catalogue:1 x", "GET other", "FLUSHALL", "KEYS *", "CONFIG GET dir", "ACL LIST", "SHUTDOWN", "REPLICAOF NO ONE", "BGSAVE"],
    ),
    "backup": (
        ["BGSAVE SCHEDULE", "BGREWRITEAOF", "LASTSAVE", "INFO", "PING"],
        ["GET shop:1", "SET shop:1 x", "DEL shop:1", "FLUSHALL", "CONFIG GET dir", "CONFIG SET save x",
         "SAVE", "SHUTDOWN", "ACL LIST", "KEYS *", "REPLICAOF NO ONE"],
    ),
    "replication": (["PING", "REPLCONF listening-port 1"], ["GET shop:1", "INFO", "FLUSHALL", "KEYS *", "CONFIG GET dir"]),
    "watch": (["PING", "INFO", "ROLE", "PUBLISH __sentinel__:hello x"], ["GET shop:1", "CONFIG SET save x", "FLUSHALL", "SHUTDOWN", "ACL LIST"]),
    "exporter": (
        ["INFO", "SLOWLOG GET", "LATENCY LATEST", "DBSIZE"],
        ["GET shop:1", "CONFIG GET masterauth", "CONFIG SET save x", "FLUSHALL", "SLOWLOG RESET"],
    ),
}  # fmt: skip

CONNECT = """
import socket, sys
source, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    with socket.create_connection((host, port), 3, (source, 0) if source != "own" else None) as link:
        link.settimeout(3)
        link.sendall(b"PING\\r\\n")
        print((link.recv(100).decode(errors="replace").split() or ["nothing"])[0])
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(name="redis_host", params=REDIS)
def _redis_host(request: pytest.FixtureRequest, hosts: dict[str, LabHost]) -> LabHost:
    return hosts[request.param]


def connect(stranger: LabHost, source: str, host: str, port: int) -> str:
    done = subprocess.run(
        ["docker", "exec", "-i", stranger.container, "python3", "-", source, host, str(port)],
        input=CONNECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def admin(host: LabHost, *words: str) -> str:
    answer = host.as_user("admin", PASSWORDS["admin"], *words)
    assert not answer.startswith(("NOPERM", "NOAUTH", "AUTH failed", "ERR", "Could not")), answer
    return answer


# --- who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [6379, 6380])
def test_the_stranger_cannot_connect_and_the_application_can(
    hosts: dict[str, LabHost], redis_host: LabHost, port: int
) -> None:
    stranger = hosts["stranger"]
    app = redis_host.run("awk '/app.lab/ {print $1}' /etc/hosts")
    assert connect(stranger, "own", redis_host.name, port) in ("TimeoutError", "timeout")
    # Redis ends a connection in plain text to the TLS port at once: the packet came through, and was answered.
    answers = ("-NOAUTH",) if port == 6379 else ("ConnectionResetError", "nothing")
    assert connect(stranger, app, redis_host.name, port) in answers


def test_other_ports_are_none_of_ours(hosts: dict[str, LabHost], redis_host: LabHost) -> None:
    """Nothing listens there: the answer is the kernel's refusal, not the firewall's silence."""
    assert connect(hosts["stranger"], "own", redis_host.name, 2222) == "ConnectionRefusedError"


def test_drops_are_counted(redis_host: LabHost) -> None:
    rules = redis_host.run("nft list table inet redisops")
    assert re.search(r"counter packets [1-9]\d* bytes \d+ drop", rules), rules


@pytest.mark.parametrize("user", sorted(TASKS))
def test_each_user_may_do_its_task_and_nothing_else(redis_host: LabHost, user: str) -> None:
    allowed, denied = TASKS[user]
    for command in allowed:
        answer = (
            redis_host.as_user(user, PASSWORDS[user], *command.split())
            if command != "SUBSCRIBE shop.news"
            else redis_host.as_user(user, PASSWORDS[user], "PUBLISH", "shop.news", "x")
        )
        assert not answer.startswith("NOPERM"), (command, answer)
        assert "AUTH failed" not in answer, (command, answer)
    for command in denied:
        assert redis_host.as_user(user, PASSWORDS[user], *command.split()).startswith("NOPERM"), command


def test_nobody_gets_in_without_a_name(redis_host: LabHost) -> None:
    done = redis_host.infra.run("redis-cli PING")
    assert "NOAUTH" in done.stdout + done.stderr
    assert "WRONGPASS" in redis_host.as_user("intruder", "x", "PING")


TLS = [
    "--tls",
    "--cacert",
    "/etc/redis/tls/ca.crt",
    "--cert",
    "/etc/redis/tls/redis.crt",
    "--key",
    "/etc/redis/tls/redis.key",
    "-p",
    "6380",
]


def test_the_network_is_encrypted_for_those_with_a_certificate(hosts: dict[str, LabHost]) -> None:
    one, other = hosts["h1"], hosts["h2"]
    for here, there in ((one, other), (other, one)):
        assert here.as_user("shop", PASSWORDS["shop"], *TLS, "-h", there.name, "GET", "shop:1") == "1"
        # a client without a certificate is not let in
        bare = ["--tls", "--cacert", "/etc/redis/tls/ca.crt", "-p", "6380", "-h", there.name, "PING"]
        assert "PONG" not in here.as_user("shop", PASSWORDS["shop"], *bare)


def test_the_certificate_is_the_hosts_own_and_its_key_stays_there(redis_host: LabHost) -> None:
    text = redis_host.run("openssl x509 -in /etc/redis/tls/redis.crt -noout -text -checkend 31536000")
    assert f"DNS:{redis_host.name}" in text
    assert "CA:FALSE" in text
    assert redis_host.run("openssl verify -CAfile /etc/redis/tls/ca.crt /etc/redis/tls/redis.crt").endswith("OK")
    assert redis_host.run("stat -c '%U:%G %a' /etc/redis/tls/redis.key") == "root:redis 640"
    served = redis_host.run(
        "openssl s_client -connect 127.0.0.1:6380 -CAfile /etc/redis/tls/ca.crt </dev/null 2>/dev/null | openssl x509 -noout -fingerprint"
    )
    assert served == redis_host.run("openssl x509 -in /etc/redis/tls/redis.crt -noout -fingerprint")
    assert redis_host.infra.run("find / -xdev -name 'ca.key' | grep .").rc != 0


# --- what is still there ----------------------------------------------------------------------------------------------


def test_no_key_was_lost_and_the_pair_is_linked(hosts: dict[str, LabHost]) -> None:
    assert [admin(hosts[name], "DBSIZE") for name in REDIS] == ["1001", "1001"]
    link = admin(hosts["h1"], "CLIENT", "LIST", "TYPE", "replica")
    assert "user=replication" in link
    assert "master_link_status:up" in admin(hosts["h2"], "INFO", "replication")
    admin(hosts["h1"], "SET", "shop:after", "1")
    assert admin(hosts["h1"], "WAIT", "1", "5000") == "1"
    assert admin(hosts["h2"], "GET", "shop:after") == "1"
    admin(hosts["h1"], "DEL", "shop:after")


# --- the process ------------------------------------------------------------------------------------------------------


def test_the_process_is_confined(redis_host: LabHost) -> None:
    pid = redis_host.run(f"systemctl show -p MainPID --value {redis_host.unit}")
    status = redis_host.run(f"cat /proc/{pid}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert re.search(r"^Seccomp:\s+2$", status, re.M)
    assert re.search(r"^CapEff:\s+0+$", status, re.M)
    # in the process' own mount namespace: its data may be written, the system not
    inside = f"nsenter -t {pid} -m --"
    assert redis_host.run(f"{inside} touch /var/lib/redis/.written && rm /var/lib/redis/.written; echo done") == "done"
    for place in ("/usr/bin", "/etc", "/srv"):
        assert redis_host.infra.run(f"{inside} touch {place}/.written").rc != 0, place


def test_the_exposure_is_lower_and_low(redis_host: LabHost) -> None:
    def level(text: str) -> float:
        return float(re.search(r"\.service: ([\d.]+)", text).group(1))

    before = level(redis_host.run("cat /root/exposure-before"))
    after = level(redis_host.run(f"systemd-analyze security --no-pager {redis_host.unit}.service | tail -n 1"))
    print(f"{redis_host.name}: systemd-analyze security {before} -> {after}")
    assert after <= before
    assert after < 2.5


def test_modes(redis_host: LabHost) -> None:
    listing = redis_host.run(
        "stat -c '%U:%G %a %n' /var/lib/redis /etc/redis/redis.conf /etc/redis/users.acl; find /var/lib/redis -type f -exec stat -c '%a' {} +"
    ).splitlines()
    assert listing[:3] == [
        "redis:redis 750 /var/lib/redis",
        "redis:redis 640 /etc/redis/redis.conf",
        "redis:redis 640 /etc/redis/users.acl",
    ]
    assert set(listing[3:]) <= {"660", "640"}


# --- the runs ---------------------------------------------------------------------------------------------------------


def test_check_mode_told_exactly_what_each_run_did(record: Record) -> None:
    predicted, done = record.converges(check=True), record.converges(check=False)
    assert (len(predicted), len(done)) == (2, 4)
    for name in REDIS:
        assert ours(predicted[0], name) == ours(done[0], name)
        assert ours(predicted[1], name) == ours(done[2], name)
    assert [changed(run) > 0 for run in done] == [True, False, True, False]


def test_each_drift_was_found(record: Record) -> None:
    for name in REDIS:
        found = [
            line
            for entry in ours(record.converges(check=True)[1], name)
            for side in ("before", "after")
            for line in entry[side]
        ]
        for start in (
            "live: user shop", "live: user intruder", "file: user backup", "live: tls-auth-clients no", "mode: /etc/redis/tls/redis.key",
            "mode: /etc/redis/users.acl", "mode: /var/lib/redis 0755",
            "unit: /etc/systemd/system",
        ):  # fmt: skip
            assert any(line.startswith(start) for line in found), (name, start, found)
        assert any("redisops-firewall" in line for line in found), found
        assert any("firewall.nft" in line for line in found), found


def test_drift_takes_no_restart(record: Record) -> None:
    for name in REDIS:
        service = next(
            entry
            for entry in ours(record.converges(check=False)[2], name)
            if "restarted only when due" in entry["task"]
        )
        assert not any("restart" in action for action in service["actions"]), service


def test_a_converged_pass_is_cheap(record: Record) -> None:
    for name in REDIS:
        calls = remote_calls(record.converges(check=False)[-1], name)
        assert 1 <= len(calls) <= 22, calls  # half of them are the first look


def test_no_secret_was_written_anywhere(redis_host: LabHost) -> None:
    predicted = pathlib.Path(os.environ["REDISOPS_RECORD"]).read_text(encoding="utf-8")
    assert len(json.loads(predicted.splitlines()[0])) > 0
    journal = redis_host.run("journalctl --no-pager -o cat; cat /var/log/redis/*.log")
    for user, password in PASSWORDS.items():
        digest = hashlib.sha256(password.encode()).hexdigest()
        assert password not in predicted, user
        assert digest not in predicted, user
        assert digest not in journal, user
        assert password not in journal, user
    hashes = redis_host.run("cat /etc/redis/users.acl")
    assert not any(password in hashes for password in PASSWORDS.values())


# --- last, since they restart things ----------------------------------------------------------------------------------


def table(host: LabHost) -> str:
    return re.sub(r"packets \d+ bytes \d+", "", host.run("nft list table inet redisops"))


def test_the_table_outlasts_a_restart_of_nftables_and_a_boot(hosts: dict[str, LabHost], redis_host: LabHost) -> None:
    app = redis_host.run("awk '/app.lab/ {print $1}' /etc/hosts")
    right = table(redis_host)
    # A script with several writes stands in the AOF as a transaction, which a start replays as the default user.
    if redis_host.name == "h1":
        admin(redis_host, "EVAL", "redis.call('SET', 'shop:boot1', 1) redis.call('SET', 'shop:boot2', 2) return 1", "0")
        time.sleep(2.1)
    redis_host.run("systemctl restart nftables.service")  # its file begins with: flush ruleset
    deadline = time.monotonic() + 60
    while redis_host.run(
        "systemctl list-jobs --no-legend"
    ):  # ours is restarted with it, by a job of its own that nobody waits for
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert table(redis_host) == right
    with kernel_is_right():
        subprocess.run(["docker", "restart", "-t", "30", redis_host.container], check=True, capture_output=True)
        deadline = time.monotonic() + 60
        while redis_host.infra.run("systemctl is-system-running").stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline
            time.sleep(0.3)
    assert table(redis_host) == right
    while "PONG" not in redis_host.as_user("admin", PASSWORDS["admin"], "PING"):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    if redis_host.name == "h1":
        assert admin(redis_host, "EXISTS", "shop:boot1", "shop:boot2") == "2"
    address = redis_host.run("hostname -I").split()[0]
    assert connect(hosts["stranger"], "own", address, 6379) in ("TimeoutError", "timeout")
    assert connect(hosts["stranger"], app, address, 6379) == "-NOAUTH"
