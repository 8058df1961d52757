# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin sentinel, by ansible-inventory, with real servers and Sentinels. redis-cli is the judge."""

from __future__ import annotations

import signal
import subprocess

import pytest
import yaml

from tests.support import pki
from tests.support.topology import Source, cli, free_port, wait

SECRET = "not-in-any-output-1"


class Sentinels:
    """Sentinels that watch the first of some servers as ``orders-1``."""

    def __init__(self, home):
        self.home, self.ports, self.processes = home, [], {}

    def start(self, primary, extra="", port=None, name="orders-1", down_after=2000):
        port = port or free_port()
        conf = self.home / f"sentinel-{port}.conf"
        conf.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {self.home}\nlogfile {self.home}/sentinel-{port}.log\n{extra}\n"
            f"sentinel monitor {name} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {name} {down_after}\n"
        )
        self.processes[port] = subprocess.Popen(["redis-server", str(conf), "--sentinel"])
        self.ports.append(port)
        return port

    def stop(self, port=None):
        for number in [port] if port else self.ports:
            self.processes[number].kill()
            self.processes[number].wait()

    @property
    def addresses(self):
        return [f"127.0.0.1:{port}" for port in self.ports]


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


@pytest.fixture(name="bare")
def _bare(tmp_path):
    made = Sentinels(tmp_path)
    yield made
    made.stop()


@pytest.fixture(name="sentinels")
def _sentinels(servers, bare):
    for _number in range(3):
        bare.start(servers[0].port)
    for port in bare.ports:
        wait(lambda port=port: "num-slaves\n2" in cli(port, "SENTINEL", "MASTER", "orders-1"))
        wait(lambda port=port: "num-other-sentinels\n2" in cli(port, "SENTINEL", "MASTER", "orders-1"))
        wait(lambda port=port: "err" not in cli(port, "SENTINEL", "REPLICAS", "orders-1"))
    return bare


@pytest.fixture(name="source")
def _source(tmp_path):
    return Source(tmp_path, "orders.sentinel.yml", "redisops.recovery.sentinel")


def test_what_is(servers, sentinels, source):
    found = source.write(sentinels=sentinels.addresses).read()
    primary, *replicas = (server.port for server in servers)
    assert found.ports("redis_primary") == found.ports("redis_orders_1_primary") == [primary]
    assert found.ports("redis_replica") == found.ports("redis_orders_1_replica") == sorted(replicas)
    assert found.ports("redis_orders_1") == sorted([primary, *replicas])
    assert found.group("redis_sentinel") == found.group("redis_orders_1_sentinel")
    predicted = {values.get("redis_sentinel_myid"): values for values in found.vars.values()}
    for port in sentinels.ports:
        assert predicted[cli(port, "SENTINEL", "MYID")]["redis_sentinel_address"] == f"127.0.0.1:{port}"
    assert found.group("redis_down") == []
    for server in servers:
        values = found.of(server.port)
        assert values["ansible_host"] == "127.0.0.1"
        assert values["redis_version"] == server.info("redis_version")
        assert values["redis_keys"] == server.keys() == 100
        assert values["redis_primary"] == f"127.0.0.1:{primary}"
        assert (values["redis_primary_name"], values["redis_quorum"]) == ("orders-1", 2)
    for port in replicas:
        values = found.of(port)
        assert (values["redis_link"], values["redis_link_down_seconds"], values["redis_priority"]) == ("up", 0, 100)
        assert 0 <= values["redis_lag_bytes"] < 2000
        assert 0 <= values["redis_lag_seconds"] < 10
    assert "redis_link" not in found.of(primary)
    assert "WARNING" not in found.said
    # one Sentinel is enough, and it can be another; the servers need not be asked
    less = source.write(sentinels=["127.0.0.1:1", sentinels.addresses[2]], server_details=False).read()
    assert (less.ports("redis_primary"), less.ports("redis_replica")) == ([primary], sorted(replicas))
    assert len(less.group("redis_sentinel")) == 3
    assert "redis_version" not in less.of(primary)
    assert less.of(replicas[0])["redis_link"] == "up"
    assert "Sentinel 127.0.0.1:1 was not heard" in less.said


def test_lag_and_a_broken_link_are_seen(servers, sentinels, source):
    source.write(sentinels=sentinels.addresses)
    servers[1].process.send_signal(signal.SIGSTOP)
    try:
        servers[0].fill(5000, "more")
        source.write(sentinels=sentinels.addresses, timeout=1)
        found = source.read()
        behind = found.of(servers[1].port)
        assert behind["redis_lag_bytes"] > 100000
        assert behind["redis_answers"] is False
        assert "no answer" in behind["redis_because"]
    finally:
        servers[1].process.send_signal(signal.SIGCONT)
    servers[2].cli("CONFIG", "SET", "masterauth", "wrong")
    servers[0].cli("CONFIG", "SET", "requirepass", SECRET)
    servers[0].password = SECRET
    servers[0].cli("CLIENT", "KILL", "TYPE", "replica")
    wait(lambda: "master_link_status:down" in servers[2].raw("INFO", "replication"))
    found = source.write(sentinels=sentinels.addresses).read()
    assert found.of(servers[2].port)["redis_link"] == "down"
    assert found.of(servers[2].port)["redis_link_down_seconds"] >= 0
    assert f"server 127.0.0.1:{servers[0].port} was not heard: it refuses the login" in found.said


def test_after_a_failover_it_is_the_new_one(servers, sentinels, source):
    source.write(sentinels=sentinels.addresses)
    assert source.read().ports("redis_primary") == [servers[0].port]
    servers[0].stop(signal.SIGKILL)
    for port in sentinels.ports:
        wait(
            lambda port=port: (
                cli(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "orders-1").splitlines()[1] != str(servers[0].port)
            )
        )
    new = next(server for server in servers[1:] if server.cli("ROLE").startswith("master"))
    other = next(server for server in servers[1:] if server is not new)
    wait(lambda: "master_link_status:up" in other.raw("INFO", "replication"))
    wait(lambda: "s_down" in cli(sentinels.ports[0], "SENTINEL", "REPLICAS", "orders-1"))
    found = source.read()
    assert found.ports("redis_primary") == [new.port]
    assert found.ports("redis_replica") == sorted([servers[0].port, other.port])
    assert found.ports("redis_down") == [servers[0].port]
    lost = found.of(servers[0].port)
    assert (lost["redis_down"], lost["redis_link"], lost["redis_answers"]) == (True, "down", False)
    assert "nothing listens" in lost["redis_because"]
    # a Sentinel that dies stays, too
    sentinels.stop(sentinels.ports[2])
    wait(lambda: "s_down" in cli(sentinels.ports[0], "SENTINEL", "SENTINELS", "orders-1"))
    wait(lambda: "s_down" in cli(sentinels.ports[1], "SENTINEL", "SENTINELS", "orders-1"))
    found = source.read()
    assert len(found.group("redis_sentinel")) == 3
    assert [found.vars[host]["redis_sentinel_address"] for host in found.group("redis_sentinel_down")] == [
        sentinels.addresses[2]
    ]


def test_a_set_that_is_down_is_still_an_inventory(servers, sentinels, source):
    for server in servers:
        server.stop(signal.SIGKILL)
    found = source.write(sentinels=sentinels.addresses).read()
    assert found.ports("redis_down") == sorted(server.port for server in servers)
    assert found.ports("redis_primary") == [servers[0].port]


def test_hosts_that_are_there_already(servers, sentinels, source, tmp_path):
    before = tmp_path / "hosts.yml"
    before.write_text(
        yaml.safe_dump(
            {"db": {"hosts": {
                "red": {"redis_replication_address": f"127.0.0.1:{servers[0].port}", "mine": 1, "ansible_host": "192.0.2.1"},
                "green": {"ansible_host": "localhost", "redis_port": servers[1].port, "redis_sentinel_port": sentinels.ports[0]},
                "blue": {},
            }}}
        )
    )  # fmt: skip
    # what host_vars say counts as well
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / "blue.yml").write_text(f"ansible_host: '127.0.0.1:{servers[2].port}'\n")
    source.write(
        sentinels=sentinels.addresses,
        host_names={sentinels.addresses[1]: "red", sentinels.addresses[2]: "watcher"},
        compose={"twice": "mine * 2"}, groups={"redis_small": "redis_keys < 1000"},
        keyed_groups=[{"key": "redis_role", "prefix": "is"}],
    )  # fmt: skip
    found = source.read(before=before)
    assert sorted(found.vars) == ["blue", "green", "red", "watcher"]
    assert found.group("redis_primary") == ["red"]
    assert found.group("redis_replica") == ["blue", "green"]
    assert found.group("redis_sentinel") == ["green", "red", "watcher"]
    red = found.vars["red"]
    assert (red["ansible_host"], red["mine"], red["twice"], red["redis_role"]) == ("192.0.2.1", 1, 2, "primary")
    assert red["redis_sentinel_address"] == sentinels.addresses[1]
    assert found.group("redis_small") == found.group("db") == ["blue", "green", "red"]
    assert (found.group("is_primary"), found.group("is_sentinel")) == (["red"], ["watcher"])


def test_what_cannot_be_told_apart_is_said(servers, sentinels, source, tmp_path):
    before = tmp_path / "hosts.yml"
    before.write_text("all: {hosts: {box: {ansible_host: 127.0.0.1}}}\n")
    found = source.write(sentinels=sentinels.addresses).read(before=before)
    assert "box would be several servers" in found.said
    assert found.ports("redis_primary") == [servers[0].port]
    assert "redis_role" not in found.vars.get("box", {})
    source.write(sentinels=sentinels.addresses, strict=True, compose={"x": "no_such_variable + 1"})
    assert source.run(before=before).returncode != 0


def test_the_cache_is_used_and_refreshed(servers, sentinels, source, tmp_path):
    options = {
        "sentinels": sentinels.addresses, "cache": True, "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "cache"), "login_password": SECRET, "sentinel_password": SECRET,
    }  # fmt: skip
    for server in servers:
        server.cli("CONFIG", "SET", "masterauth", SECRET)
    for server in servers:
        server.cli("CONFIG", "SET", "requirepass", SECRET)
        server.password = SECRET
    for port in sentinels.ports:
        cli(port, "SENTINEL", "SET", "orders-1", "auth-pass", SECRET)
        cli(port, "ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
    source.write(**options)
    first = source.read()
    assert first.ports("redis_primary") == [servers[0].port]
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    assert not any(SECRET in path.read_text() for path in kept)
    assert SECRET not in str(first.listed) + first.said
    sentinels.stop()
    assert source.read().listed == first.listed
    assert "[no_sentinel]" in source.run("--list", "--flush-cache").stderr
    # another question is not answered from it
    source.write(**{**options, "server_details": False})
    source.failure("no_sentinel")


def test_sentinels_with_acl(servers, sentinels, source):
    for port in sentinels.ports:
        rights = ["+ping", "+sentinel|masters", "+sentinel|replicas", "+sentinel|sentinels", "+sentinel|myid"]
        assert cli(port, "ACL", "SETUSER", "inventory", "on", f">{SECRET}", *rights) == "OK"
        assert cli(port, "ACL", "SETUSER", "poor", "on", f">{SECRET}", "+ping") == "OK"
        assert cli(port, "ACL", "SETUSER", "default", "off") == "OK"
    for server in servers:
        server.cli("ACL", "SETUSER", "inventory", "on", f">{SECRET}", "+ping", "+info")
    login = {"sentinel_user": "inventory", "login_user": "inventory"}
    source.environment = {"REDISOPS_SENTINEL_PASSWORD": SECRET, "MINE": SECRET}
    source.write(sentinels=sentinels.addresses, login_password="{{ lookup('ansible.builtin.env', 'MINE') }}", **login)
    found = source.read()
    assert found.ports("redis_primary") == [servers[0].port]
    assert found.of(servers[1].port)["redis_link"] == "up"
    assert SECRET not in str(found.listed) + found.said
    for options in ({}, {**login, "sentinel_password": "wrong"}, {**login, "sentinel_user": "poor"}):
        reported = source.write(sentinels=sentinels.addresses, **{"sentinel_password": SECRET, **options}).failure(
            "sentinel_login_failed"
        )
        assert "sentinel_user and sentinel_password" in reported
        assert all(address in reported for address in sentinels.addresses)
        assert SECRET not in reported


def test_a_password_in_a_vault(servers, sentinels, source, tmp_path):
    for port in sentinels.ports:
        cli(port, "ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
    key = tmp_path / "vault-key"
    key.write_text("open sesame")
    source.environment = {"ANSIBLE_VAULT_PASSWORD_FILE": str(key)}
    vaulted = subprocess.run(
        ["ansible-vault", "encrypt_string", "--vault-password-file", str(key), SECRET, "--name", "sentinel_password"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    source.write(sentinels=sentinels.addresses)
    source.path.write_text(source.path.read_text() + vaulted)
    found = source.read()
    assert found.ports("redis_primary") == [servers[0].port]
    assert SECRET not in str(found.listed)


def test_servers_that_refuse_the_login(servers, sentinels, source):
    for server in servers:
        server.cli("CONFIG", "SET", "requirepass", SECRET)
        server.password = SECRET
    reported = source.write(sentinels=sentinels.addresses).failure("login_failed")
    assert "login_user and login_password; or server_details: false" in reported
    assert source.write(sentinels=sentinels.addresses, server_details=False).read().ports("redis_primary") == [
        servers[0].port
    ]


def test_tls(servers, bare, source, tmp_path):
    ca = pki.authority()
    pair, other = pki.server(ca), pki.authority("Another CA")
    files = {"ca.pem": ca.pem, "cert.pem": pair.pem, "key.pem": pair.key, "other.pem": other.pem, "empty.pem": ""}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tls = f"tls-cert-file {tmp_path}/cert.pem\ntls-key-file {tmp_path}/key.pem\ntls-ca-cert-file {tmp_path}/ca.pem\ntls-auth-clients yes"
    port = bare.start(servers[0].port, f"{tls}\ntls-port {free_port()}")
    secure = int(next(line.split()[1] for line in (tmp_path / f"sentinel-{port}.conf").read_text().splitlines() if line.startswith("tls-port")))  # fmt: skip
    client = {"client_cert_file": str(tmp_path / "cert.pem"), "client_key_file": str(tmp_path / "key.pem")}
    more = [
        "--tls",
        "--cacert",
        str(tmp_path / "ca.pem"),
        "--cert",
        client["client_cert_file"],
        "--key",
        client["client_key_file"],
    ]
    wait(lambda: "num-slaves\n2" in cli(secure, "SENTINEL", "MASTER", "orders-1", more=more))
    options = {"sentinels": [f"127.0.0.1:{secure}"], "sentinel_tls": True, **client}
    good = {**options, "ca_certs": str(tmp_path / "ca.pem")}
    assert source.write(**good).read().ports("redis_primary") == [servers[0].port]
    for wrong in (
        {**options, "ca_certs": str(tmp_path / "other.pem")},
        {**options, "ca_certs": str(tmp_path / "empty.pem")},
    ):
        assert "Do: set tls, ca_certs" in source.write(**wrong).failure("tls_failed")
    for option in ("ca_certs", "client_cert_file"):
        absent = {**good, option: str(tmp_path / "absent.pem")}
        assert f"Do: correct {option}" in source.write(**absent).failure("tls_failed")
    plain = {**good, "sentinel_tls": False}
    assert "tls: true is for a TLS port only, and needed for one" in source.write(**plain).failure("not_redis")
    # a port without TLS waits for the rest of what it takes for a command
    wrong = {**good, "sentinels": [f"127.0.0.1:{port}"], "timeout": 2}
    assert "speaks no TLS" in source.write(**wrong).failure("not_redis")
    # the servers are asked with TLS, too, where tls says so
    found = source.write(**good, tls=True, timeout=2).read()
    assert f"server 127.0.0.1:{servers[0].port} was not heard: no answer: Timeout" in found.said
    assert found.of(servers[0].port)["redis_answers"] is False
    assert found.group("redis_down") == []  # they may be well, seen from elsewhere


def test_nobody_answers(source):
    reported = source.write(sentinels=["127.0.0.1:1", "127.0.0.1:2"]).failure("no_sentinel")
    assert "127.0.0.1:1: nothing listens" in reported
    assert "127.0.0.1:2: nothing listens" in reported


def test_a_server_is_no_sentinel(servers, sentinels, source):
    reported = source.write(sentinels=[f"127.0.0.1:{servers[0].port}"]).failure("not_a_sentinel")
    assert "no Sentinel" in reported
    both = source.write(sentinels=[f"127.0.0.1:{servers[0].port}", sentinels.addresses[0]]).read()
    assert both.ports("redis_primary") == [servers[0].port]


def test_names_that_are_not_watched(sentinels, source):
    reported = source.write(sentinels=sentinels.addresses, primary_names=["orders-1", "sessions"]).failure(
        "unknown_primary_name"
    )
    assert "'sessions'; they watch orders-1" in reported


def test_sentinels_that_disagree(servers, bare, source):
    # each knows a primary of its own by the same name, and nothing of the other
    servers[1].cli("REPLICAOF", "NO", "ONE")
    bare.start(servers[0].port)
    bare.start(servers[1].port)
    for port in bare.ports:
        wait(lambda port=port: "orders-1" in cli(port, "SENTINEL", "MASTERS"))
    reported = source.write(sentinels=bare.addresses).failure("sentinels_disagree")
    assert f"127.0.0.1:{servers[0].port} says {bare.addresses[0]}" in reported
    assert f"127.0.0.1:{servers[1].port} says {bare.addresses[1]}" in reported


def test_names_that_become_one_group(servers, bare, source):
    port = bare.start(servers[0].port)
    wait(lambda: cli(port, "PING") == "PONG")
    cli(port, "SENTINEL", "MONITOR", "orders_1", "127.0.0.1", str(servers[1].port), "1")
    reported = source.write(sentinels=bare.addresses).failure("group_names_collide")
    assert "primary_names" in reported
    assert source.write(sentinels=bare.addresses, primary_names=["orders-1"]).read().group("redis_primary")


def test_what_a_server_says_is_no_template(servers, bare, source):
    port = bare.start(servers[0].port, name="\"{{lookup('pipe','id')}}\"")
    wait(lambda: cli(port, "PING") == "PONG")
    found = source.write(sentinels=bare.addresses, compose={"again": "redis_primary_name"}).read()
    assert "uid=" not in str(found.listed)
    assert "lookup('pipe','id')" in str(found.of(servers[0].port))


def test_redis_py_is_missing(sentinels, source, tmp_path):
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "redis.py").write_text("raise ImportError('no redis here')\n")
    source.environment = {"PYTHONPATH": str(tmp_path / "shadow")}
    assert "-m pip install redis" in source.write(sentinels=sentinels.addresses).failure("redis_py_missing")


@pytest.mark.parametrize("name", ["orders.yml", "orderssentinel.yml", "orders.sentinel.json", "orders.cluster.yml"])
def test_only_files_that_are_named_so(source, name):
    source.write(sentinels=["127.0.0.1:1"])
    source.path = source.path.rename(source.path.with_name(name))
    done = source.run()
    assert done.returncode != 0
    assert "nothing listens" not in done.stderr


def test_options_that_are_wrong(source):
    assert "no host:port" in source.write(sentinels=["a:b"]).failure("invalid_value")
    source.write()
    done = source.run()
    assert "sentinels" in done.stderr
    assert "Traceback" not in done.stderr
    source.write(sentinels=["{{ nowhere }}"])
    done = source.run()
    assert "option sentinels" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
