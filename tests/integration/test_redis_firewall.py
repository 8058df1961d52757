# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_firewall with the real nft in network namespaces; nft, ip and connections are the judges. systemd only pretends."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.firewall import apply as firewall_apply
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Completed, Host, run_command
from ansible_collections.redisops.recovery.plugins.modules import redis_firewall

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/unit/plugins/module_utils/firewall/fixtures/firewall"
FILE = "etc/redisops/firewall.nft"
UNIT = "etc/systemd/system/redisops-firewall.service"
NETWORKS = {
    "friend": ("10.99.1.1", "10.99.1.2", "fd99:1::1", "fd99:1::2"),
    "stranger": ("10.99.2.1", "10.99.2.2", "fd99:2::1", "fd99:2::2"),
}
FRIEND, STRANGER = NETWORKS["friend"][1], NETWORKS["stranger"][1]
REDIS = {"name": "redis", "ports": [6379], "sources": ["10.99.1.0/24"]}

pytestmark = pytest.mark.needs_root


def sh(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


class Net:
    """A host with two neighbours, each in a network namespace."""

    def __init__(self) -> None:
        tag = f"rfw{os.getpid()}"
        self.host, self.friend, self.stranger = f"{tag}h", f"{tag}f", f"{tag}s"
        for name in (self.host, self.friend, self.stranger):
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        for name, (here, there, here6, there6) in NETWORKS.items():
            neighbour = getattr(self, name)
            sh(
                "ip",
                "link",
                "add",
                name,
                "netns",
                self.host,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                neighbour,
            )
            for space, link, addresses in ((self.host, name, (here, here6)), (neighbour, "eth0", (there, there6))):
                sh("ip", "-n", space, "addr", "add", f"{addresses[0]}/24", "dev", link)
                sh("ip", "-n", space, "addr", "add", f"{addresses[1]}/64", "dev", link, "nodad")
                sh("ip", "-n", space, "link", "set", link, "up")

    def nft(self, *words: str) -> str:
        return sh("ip", "netns", "exec", self.host, "nft", *words)

    def table(self) -> str:
        """The live table without its counters; empty where there is none."""
        return sh("ip", "netns", "exec", self.host, "nft", "-s", "list", "table", "inet", "redisops", check=False)

    def close(self) -> None:
        for name in (self.host, self.friend, self.stranger):
            sh("ip", "netns", "del", name)


@pytest.fixture(scope="module", name="shared_net")
def _shared_net() -> t.Iterator[Net]:
    if os.geteuid() != 0:
        pytest.fail("this test makes network namespaces: run it as root")
    net = Net()
    yield net
    net.close()


@pytest.fixture(name="net")
def _net(shared_net) -> Net:
    shared_net.nft("flush", "ruleset")
    return shared_net


class World:
    """The host as the module sees it: its own root, nft in the namespace, a systemd that pretends, firewalls that answer."""

    def __init__(self, net: Net, root: pathlib.Path) -> None:
        self.net, self.root = net, root
        self.enabled = self.active = False
        self.did: list[str] = []
        self.timers: dict[str, subprocess.Popen] = {}
        self.answers: dict[str, Completed] = {}
        for name in ("etc/systemd/system", "run/systemd/system"):
            (root / name).mkdir(parents=True)
        (root / "proc").symlink_to("/proc")

    def run(self, *words: str, timeout: t.Optional[float] = None) -> Completed:
        name = os.path.basename(words[0])
        for line, answer in self.answers.items():
            if " ".join([name, *words[1:]]).startswith(line):
                return answer
        if name in ("ufw", "firewall-cmd"):
            return Completed(127, "not found")
        if name == "systemctl":
            return self.systemctl(*words[1:])
        if name == "systemd-run":
            return self.systemd_run(*words[1:])
        return run_command("ip", "netns", "exec", self.net.host, *words, timeout=timeout)

    def systemctl(self, verb: str, *words: str) -> Completed:
        unit = words[-1] if words else ""
        if verb == "show":
            state = "enabled" if self.enabled else ("disabled" if (self.root / UNIT).exists() else "")
            return Completed(0, f"ActiveState={'active' if self.active else 'inactive'}\nUnitFileState={state}\n")
        self.did.append(" ".join((verb, *words)))
        if verb == "stop" and unit.endswith(".timer"):
            timer = self.timers.pop(unit[: -len(".timer")], None)
            if timer:
                timer.kill()
        if verb in ("enable", "start"):
            assert (self.root / UNIT).is_file(), "there is no such unit"
        if verb == "enable":
            self.enabled = True
        if verb == "disable":
            self.enabled = self.active = False
        if verb == "start":
            self.boot()
            self.active = True
        return Completed(0, "")

    def systemd_run(self, *words: str) -> Completed:
        unit = next(word.partition("=")[2] for word in words if word.startswith("--unit="))
        seconds = next(word.partition("=")[2][:-1] for word in words if word.startswith("--on-active="))
        command = [
            "ip",
            "netns",
            "exec",
            self.net.host,
            "sh",
            "-c",
            f'sleep {seconds}; exec "$@"',
            "-",
            *words[words.index("/bin/sh") :],
        ]
        self.timers[unit] = subprocess.Popen(command)
        return Completed(0, "")

    def boot(self) -> None:
        """What the unit does."""
        command = re.search(r"^ExecStart=(.*)$", (self.root / UNIT).read_text(), re.M)[1].split()
        self.net.nft("-f", str(self.root / command[-1].lstrip("/")))

    def snapshot(self) -> tuple[t.Any, ...]:
        """Files below /etc and /run, the whole ruleset with its counters, what systemd was predicted."""
        files = {
            str(path): path.read_bytes()
            for name in ("etc", "run")
            for path in (self.root / name).rglob("*")
            if path.is_file()
        }
        return files, self.net.nft("list", "ruleset"), list(self.did), self.enabled, self.active


@pytest.fixture(name="world")
def _world(net, tmp_path, monkeypatch) -> t.Iterator[World]:
    world = World(net, tmp_path)

    class SeenHost(Host):
        def read(self, name):
            if name.startswith("/proc/net/"):
                return self.run("cat", name).output
            return super().read(name)

    monkeypatch.setattr(redis_firewall, "Host", lambda: SeenHost(str(tmp_path), world.run))
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setattr(firewall_apply.os, "getppid", lambda: 1)  # how this test was reached does not matter
    yield world
    for timer in world.timers.values():
        timer.kill()
        timer.wait()


@pytest.fixture(name="call")
def _call(call_module, world) -> t.Callable[..., t.Any]:
    def run(check=False, **options):
        return call_module("redis_firewall", check, **{"services": [REDIS], **options})

    return run


@pytest.fixture(name="listen")
def _listen(net) -> t.Iterator[t.Callable[[int], None]]:
    """A server on the host that answers every connection with who it is from."""
    served: list[subprocess.Popen] = []
    server = (
        "import socket,sys,threading\n"
        "s=socket.create_server(('::',int(sys.argv[1])),family=socket.AF_INET6,dualstack_ipv6=True)\n"
        "print('up',flush=True)\n"
        "def talk(c):\n"
        "    while True:\n"
        "        d=c.recv(100)\n"
        "        if not d: return\n"
        "        c.sendall(d)\n"
        "while True:\n"
        "    c,_=s.accept(); threading.Thread(target=talk,args=(c,),daemon=True).start()\n"
    )

    def start(port: int) -> None:
        process = subprocess.Popen(
            ["ip", "netns", "exec", net.host, sys.executable, "-c", server, str(port)], stdout=subprocess.PIPE
        )
        served.append(process)
        assert process.stdout.readline() == b"up\n"

    yield start
    for process in served:
        process.kill()
        process.wait()


class Client:
    """One connection out of a namespace."""

    SOURCE = (
        "import socket,sys\n"
        "try: s=socket.create_connection((sys.argv[1],int(sys.argv[2])),float(sys.argv[3]))\n"
        "except OSError: print('no',flush=True); sys.exit()\n"
        "print('yes',flush=True)\n"
        "for line in sys.stdin:\n"
        "    s.sendall(line.encode()); print(s.recv(100).decode().strip(),flush=True)\n"
    )

    def __init__(self, space: str, address: str, port: int, timeout: float = 1.0) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", self.SOURCE, address, str(port), str(timeout)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.connected = self.process.stdout.readline() == "yes\n"

    def says(self, text: str) -> bool:
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == text + "\n"

    def close(self) -> bool:
        self.process.kill()
        self.process.wait()
        return self.connected


def reaches(space: str, address: str, port: int) -> bool:
    return Client(space, address, port).close()


def refused(world: World, call: t.Callable[..., t.Any], code: str, **options: t.Any) -> t.Any:
    """In check mode and for real: the error, and nothing changed."""
    before, messages = world.snapshot(), set()
    for check in (True, False):
        result = call(check=check, **options)
        assert (result.failed, getattr(result, "code", result.msg)) == (True, code)
        messages.add(result.msg)
        assert world.snapshot() == before
    assert len(messages) == 1
    return result


# --- check, run, again -------------------------------------------------------------------------------------------------


def test_check_run_again_and_ask_nft(world, call):
    empty = world.snapshot()
    checked = call(check=True)
    assert world.snapshot() == empty
    done = call()
    assert not done.failed, done.msg
    assert (checked.changed, checked.diff, checked.actions) == (True, done.diff, done.actions)
    assert done.actions == [
        "load table inet redisops",
        "write /etc/redisops/firewall.nft",
        "write the unit redisops-firewall.service",
        "enable redisops-firewall.service",
        "start redisops-firewall.service",
    ]
    assert done.services == {"redis": {"ports": [6379], "sources": ["10.99.1.0/24"]}}
    assert "elements = { 10.99.1.0/24 }" in world.net.table()
    assert (world.enabled, world.active) == (True, True)
    assert world.did == ["daemon-reload", "enable redisops-firewall.service", "start redisops-firewall.service"]
    assert oct((world.root / FILE).stat().st_mode)[-3:] == "644"
    after = world.snapshot()
    for check in (True, False):
        again = call(check=check)
        assert (again.changed, again.diff, again.actions) == (False, {"before": "", "after": ""}, [])
        assert world.snapshot() == after


EVERYTHING = {
    "services": [
        {"name": "redis", "ports": [6379, 6380], "sources": ["10.99.1.2", "10.99.1.3", "10.0.0.0/9", "10.128.0.0/9", "fd99:1::/64", "8000::/1"]},
        {"name": "sentinel", "ports": [26379], "sources": ["0.0.0.0/0"]},
        {"name": "cluster_bus", "ports": [16379], "allow_empty": True},
        {"name": "unused", "ports": [], "sources": ["10.0.0.1"]},
    ],
    "peers": ["10.99.1.7", "10.99.1.8", "fd99:1::7"],
    "rate_limit": 50, "rate_burst": 60, "log_drops": True, "log_per_minute": 7,
}  # fmt: skip


def test_everything_at_once_is_stable(world, call):
    done = call(**EVERYTHING)
    assert not done.failed, done.msg
    assert done.services["redis"]["sources"] == ["10.0.0.0/8", "8000::/1"]
    table = world.net.table()
    assert 'log prefix "redisops drop sentinel: " level info' in table
    assert "limit rate over 50/second burst 60 packets" in table
    assert "16379" in table
    assert "unused" not in table
    after = world.snapshot()
    again = call(**EVERYTHING)
    assert (again.changed, again.actions) == (False, [])
    assert world.snapshot() == after


def test_a_change_of_the_declaration(world, call):
    call()
    checked, done = [call(check=check, services=[{**REDIS, "sources": ["10.99.1.2"]}]) for check in (True, False)]
    assert (checked.diff, checked.actions) == (done.diff, done.actions)
    assert done.diff["before"].splitlines()[0] == "live: set redis_ipv4 ipv4_addr interval 10.99.1.0/24"
    assert done.diff["after"].splitlines()[0] == "live: set redis_ipv4 ipv4_addr interval 10.99.1.2"
    assert done.actions == ["load table inet redisops", "write /etc/redisops/firewall.nft"]
    assert "elements = { 10.99.1.2 }" in world.net.table()


# --- drift -------------------------------------------------------------------------------------------------------------

LIVE = {
    "flush of everything": ["flush ruleset"],
    "table deleted": ["delete table inet redisops"],
    "table flushed": ["flush table inet redisops"],
    "table asleep": ["add table inet redisops { flags dormant; }"],
    "element added": ["add element inet redisops redis_ipv4 { 10.99.2.0/24 }"],
    "element deleted": ["delete element inet redisops redis_ipv4 { 10.99.1.0/24 }"],
    "port deleted": ["delete element inet redisops guarded_ports { 6379 }"],
    "rule added": ["insert rule inet redisops on_redis accept"],
    "rule of another kind": ["add rule inet redisops guard meta mark 1 accept"],
    "rules deleted": ["flush chain inet redisops on_redis"],
    "chain added": ["add chain inet redisops mine"],
    "base chain added": ["add chain inet redisops out { type filter hook output priority 0; policy accept; }"],
    "policy": ["add chain inet redisops input { policy drop; }"],
    "set added": ["add set inet redisops mine { type ipv4_addr; }"],
    "map added": ["add map inet redisops mine { type ipv4_addr : verdict; }"],
    "counter added": ["add counter inet redisops mine"],
}


@pytest.mark.parametrize("commands", LIVE.values(), ids=list(LIVE))
def test_drift_of_the_live_table(world, call, commands):
    call()
    good = world.net.table()
    for command in commands:
        world.net.nft(command)
    bad = world.snapshot()
    assert world.net.table() != good
    checked = call(check=True)
    assert world.snapshot() == bad
    done = call()
    assert not done.failed, done.msg
    assert (checked.changed, checked.diff, checked.actions) == (True, done.diff, done.actions)
    assert done.actions == ["load table inet redisops"]
    assert done.diff["before"] + done.diff["after"] != ""
    assert world.net.table() == good
    assert not call().changed


def test_order_of_rules_counts(world, call):
    call()
    good = world.net.table()
    handle = re.search(
        r"counter packets \d+ bytes \d+ drop # handle (\d+)",
        world.net.nft("-a", "list", "chain", "inet", "redisops", "on_redis"),
    )[1]
    world.net.nft(
        f"delete rule inet redisops on_redis handle {handle}; insert rule inet redisops on_redis counter drop"
    )
    assert call().changed
    assert world.net.table() == good


def test_what_the_kernel_collected_is_no_drift(world, call, net, listen):
    listen(6379)
    options = {"rate_limit": 50, "services": [REDIS]}
    call(**options)
    assert reaches(net.friend, "10.99.1.1", 6379)
    assert FRIEND in net.nft("list", "set", "inet", "redisops", "rate_ipv4")
    before = world.snapshot()[0]
    assert not call(**options).changed
    assert world.snapshot()[0] == before


@pytest.mark.parametrize(
    ("spoil", "actions"),
    [
        (lambda world: (world.root / FILE).unlink(), ["write /etc/redisops/firewall.nft"]),
        (lambda world: (world.root / FILE).write_text("flush ruleset\n"), ["write /etc/redisops/firewall.nft"]),
        (lambda world: (world.root / UNIT).write_text("[Service]\n"), ["write the unit redisops-firewall.service"]),
        (lambda world: (world.root / FILE).chmod(0o666), ["set mode and owner of /etc/redisops/firewall.nft"]),
        (lambda world: os.chown(world.root / FILE, 65534, 0), ["set mode and owner of /etc/redisops/firewall.nft"]),
        (lambda world: (world.root / UNIT).chmod(0o664), [f"set mode and owner of /{UNIT}"]),
        (lambda world: setattr(world, "enabled", False), ["enable redisops-firewall.service"]),
        (lambda world: setattr(world, "active", False), ["start redisops-firewall.service"]),
    ],
)
def test_drift_of_file_unit_and_boot(world, call, spoil, actions):
    call()
    good = world.snapshot()
    spoil(world)
    bad = world.snapshot()
    checked = call(check=True)
    assert world.snapshot() == bad
    done = call()
    assert (checked.diff, checked.actions, done.actions) == (done.diff, done.actions, actions)
    files, _ruleset, _did, enabled, active = world.snapshot()
    assert (files, enabled, active) == (good[0], True, True)
    access = [(path.stat().st_mode & 0o7777, path.stat().st_uid) for path in (world.root / FILE, world.root / UNIT)]
    assert access == [(0o644, 0), (0o644, 0)]
    assert not call().changed


def test_a_boot_brings_the_table_back(world, call):
    call(**EVERYTHING)
    good = world.net.table()
    world.net.nft("flush", "ruleset")
    world.boot()
    assert world.net.table() == good
    assert not call(**EVERYTHING).changed


# --- others' tables and ports ------------------------------------------------------------------------------------------


def test_foreign_tables_are_not_touched(world, call, net, listen):
    listen(8080)
    net.nft(
        'table ip docker { set bridges { type ifname; elements = { "docker0" }; }; chain in { type filter hook input priority 0; tcp dport 8080 counter accept; }; }'
    )
    assert reaches(net.stranger, "10.99.2.1", 8080)
    foreign = net.nft("-a", "list", "table", "ip", "docker")
    assert re.search(r"counter packets [1-9]", foreign)
    call()
    call(services=[{**REDIS, "sources": ["10.99.1.2"]}])
    assert net.nft("-a", "list", "table", "ip", "docker") == foreign
    call(state="absent", services=[])
    assert net.nft("-a", "list", "table", "ip", "docker") == foreign
    assert net.nft("list", "tables").strip() == "table ip docker"


def test_who_reaches_which_port(world, call, net, listen):
    for port in (6379, 16379, 8080):
        listen(port)
    call(services=[
        {**REDIS, "sources": ["10.99.1.0/24", "fd99:1::2"]},
        {"name": "cluster_bus", "ports": [16379], "allow_empty": True},
    ], peers=["10.99.2.9"])  # fmt: skip
    friend, stranger = NETWORKS["friend"], NETWORKS["stranger"]
    assert reaches(net.friend, friend[0], 6379)
    assert reaches(net.friend, friend[2], 6379)
    assert not reaches(net.stranger, stranger[0], 6379)
    assert not reaches(net.stranger, stranger[2], 6379)
    assert not reaches(net.friend, friend[0], 16379)
    assert reaches(net.host, "127.0.0.1", 16379)
    assert reaches(net.host, "::1", 6379)
    assert reaches(net.host, stranger[0], 6379)  # its own address, over loopback
    assert reaches(net.stranger, stranger[0], 8080)
    assert re.search(
        r"counter packets [1-9]\d* bytes \d+ drop", net.nft("list", "chain", "inet", "redisops", "on_redis")
    )
    counted = net.nft("list", "ruleset")
    assert not call(services=[
        {**REDIS, "sources": ["10.99.1.0/24", "fd99:1::2"]},
        {"name": "cluster_bus", "ports": [16379], "allow_empty": True},
    ], peers=["10.99.2.9"]).changed  # fmt: skip
    assert net.nft("list", "ruleset") == counted  # counters go on counting


def test_peers_reach_every_port(world, call, net, listen):
    listen(6379)
    listen(16379)
    call(services=[REDIS, {"name": "cluster_bus", "ports": [16379], "allow_empty": True}], peers=[STRANGER])
    assert reaches(net.stranger, "10.99.2.1", 6379)
    assert reaches(net.stranger, "10.99.2.1", 16379)
    assert not reaches(net.friend, "10.99.1.1", 16379)


def test_new_connections_over_the_limit_are_dropped(world, call, net, listen):
    listen(6379)
    call(rate_limit=1, rate_burst=2)
    source = (
        "import socket\n"
        "for _ in range(6):\n"
        "    try: socket.create_connection(('10.99.1.1',6379),0.1); print('yes')\n"
        "    except OSError: print('no')\n"
    )
    answers = sh("ip", "netns", "exec", net.friend, sys.executable, "-c", source).split()
    assert answers[:2] == ["yes", "yes"]
    assert "no" in answers
    assert re.search(
        r"burst 2 packets \} counter packets [1-9]", net.nft("list", "chain", "inet", "redisops", "on_redis")
    )


def test_open_connections_go_on_and_are_told(world, call, net, listen):
    listen(6379)
    call(services=[{**REDIS, "sources": ["10.99.0.0/16"]}])
    client = Client(net.stranger, "10.99.2.1", 6379)
    own = Client(net.host, "127.0.0.1", 6379)
    assert (client.connected, own.connected) == (True, True)
    done = call()
    assert done.left_out == [{"port": 6379, "address": STRANGER, "connections": 1}]
    assert [STRANGER in text for text in done.warned] == [True]
    assert client.says("still here")
    assert not reaches(net.stranger, "10.99.2.1", 6379)
    assert call(peers=[STRANGER]).left_out == []
    client.close()
    own.close()


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"services": [{**REDIS, "sources": ["10.0.0.5/24", "10.0.0.300", "fd00::/129", "10.0.0.0/24"]}], "peers": ["what?"]}, "invalid_source",
         ["write 10.0.0.0/24 for the network, or 10.0.0.5 for the one address", "'10.0.0.300'", "'fd00::/129'", "'what?'"]),
        ({"services": [{**REDIS, "sources": ["no-such-host.invalid"]}]}, "unresolved_source", ["no-such-host.invalid"]),
        ({"peers": ["localhost"]}, "unresolved_source", ["localhost"]),
        ({"services": [{**REDIS, "sources": []}]}, "empty_allow_list", ["allow_empty: true"]),
        ({"services": []}, "nothing_to_guard", []),
        ({"services": [{**REDIS, "ports": [0]}]}, "invalid_value", []),
        ({"services": [{**REDIS, "name": "Redis; drop"}]}, "invalid_value", []),
        ({"services": [REDIS, {**REDIS, "name": "tls"}]}, "contradiction", ["6379"]),
        ({"log_prefix": 'x" accept #'}, "invalid_value", ["log_prefix"]),
        ({"rate_limit": -1}, "invalid_value", ["rate_limit"]),
        ({"rollback_seconds": -1}, "invalid_value", ["rollback_seconds"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fresh", [True, False])
def test_what_cannot_be_meant(world, call, options, code, words, fresh):
    if not fresh:
        call()
    predicted = refused(world, call, code, **options).msg
    assert [word for word in words if word not in predicted] == []


def test_the_port_that_ssh_connection_names(world, call, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "10.99.1.2 50000 10.99.1.1 6379")
    assert "SSH_CONNECTION" in refused(world, call, "port_of_ssh").msg


def test_the_port_that_a_process_called_sshd_listens_on(world, call, net, tmp_path):
    program = tmp_path / "sshd"
    shutil.copy("/bin/sleep", program)
    source = (
        "import os,socket,sys\n"
        "s=socket.create_server(('127.0.0.1',6379)); os.set_inheritable(s.fileno(),True)\n"
        "print('up',flush=True); os.execv(sys.argv[1],['sshd','60'])\n"
    )
    process = subprocess.Popen(
        ["ip", "netns", "exec", net.host, sys.executable, "-c", source, str(program)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"up\n"
        deadline = time.monotonic() + 10
        while pathlib.Path(f"/proc/{process.pid}/comm").read_text() != "sshd\n":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "port 6379 (sshd)" in refused(world, call, "port_of_ssh").msg
        assert not call(services=[{**REDIS, "ports": [6380]}]).failed
    finally:
        process.kill()
        process.wait()


def test_no_nft(world, call):
    world.answers["nft"] = Completed(127, "nft: not found")
    before = world.snapshot()
    checked = call(check=True)
    assert (checked.failed, checked.changed) == (False, True)
    assert "no nft" in checked.warned[0]
    result = call()
    assert (result.failed, result.code) == (True, "nft_missing")
    assert "apt-get install nftables" in result.msg
    assert world.snapshot() == before
    del world.answers["nft"]
    assert call().diff == checked.diff  # what check mode predicted without nft


def test_a_kernel_without_nftables(world, call):
    world.answers["nft -j list"] = Completed(1, "netlink: Error: cache initialization failed: Protocol not supported")
    assert "iptables -A INPUT" in refused(world, call, "nft_unsupported").msg


@pytest.mark.parametrize("name", [FILE, UNIT])
def test_a_file_that_is_a_link(world, call, name):
    target = world.root / "etc/elsewhere"
    target.write_text("mine\n")
    (world.root / name).parent.mkdir(parents=True, exist_ok=True)
    for link in ("/dev/null", str(target)):
        (world.root / name).symlink_to(link)
        assert f"link to {link}" in refused(world, call, "boot_file_masked").msg
        (world.root / name).unlink()
    assert pathlib.Path("/dev/null").is_char_device()


def test_without_rights(world, call):
    world.answers["nft -j list"] = Completed(1, "Operation not permitted (you must be root)")
    refused(world, call, "not_root")


def test_a_ruleset_that_nft_does_not_take(world, call):
    call()
    world.answers["nft -c"] = Completed(1, "Error: syntax error")
    assert "syntax error" in refused(world, call, "nft_failed", peers=["10.99.1.7"]).msg


def test_a_listing_that_is_not_understood_leaves_the_earlier_table(world, call, net, monkeypatch):
    call()
    good = net.table()
    monkeypatch.setattr(firewall_apply, "same_table", lambda *_tables: False)
    result = call(peers=["10.99.1.7"], commit_confirm=True)
    assert (result.failed, result.code) == (True, "table_not_taken")
    assert net.table() == good
    assert list((world.root / "run/redisops").iterdir()) == []


@pytest.mark.parametrize(
    ("tool", "recorded", "options", "words"),
    [
        ("ufw status verbose", "ufw-0.36.2-rules.txt", {"services": [{**REDIS, "ports": [6390]}]}, ["ufw prepend allow proto tcp from 10.99.1.0/24 to any port 6390"]),
        ("ufw status verbose", "ufw-0.36.2-no-rules.txt", {}, ["ufw allow proto tcp from 10.99.1.0/24 to any port 6379"]),
        ("firewall-cmd --list-all-zones", "firewalld-1.3.3-zones.txt", {},
         ["firewall-cmd --permanent --zone=public --add-rich-rule='rule family=\"ipv4\" source address=\"10.99.1.0/24\" port port=\"6379\" protocol=\"tcp\" accept'",
          "firewall-cmd --reload"]),
    ],
)  # fmt: skip
def test_another_firewall_that_keeps_sources_out(world, call, tool, recorded, options, words):
    world.answers[tool] = Completed(0, (FIXTURES / recorded).read_text())
    world.answers["firewall-cmd --get-default-zone"] = Completed(0, "public\n")
    world.answers["firewall-cmd --info-service"] = Completed(0, "ssh\n  ports: 22/tcp\n")
    predicted = refused(world, call, "other_firewall", **options).msg
    assert [word for word in words if word not in predicted] == []


@pytest.mark.parametrize(
    ("tool", "recorded", "port"),
    [
        ("ufw status verbose", "ufw-0.36.2-rules.txt", 6379),
        ("firewall-cmd --list-all-zones", "firewalld-1.3.3-zones.txt", 6380),
    ],
)
def test_another_firewall_that_admits_them(world, call, tool, recorded, port):
    world.answers[tool] = Completed(0, (FIXTURES / recorded).read_text())
    world.answers["firewall-cmd --get-default-zone"] = Completed(0, "public\n")
    done = call(services=[{**REDIS, "ports": [port]}])
    assert not done.failed, done.msg
    assert done.changed


# --- commit-confirm ---------------------------------------------------------------------------------------------------------


def wait_until(true: t.Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left_in_run(world: World) -> list[str]:
    directory = world.root / "run/redisops"
    return sorted(os.listdir(directory)) if directory.exists() else []


@pytest.fixture(params=["systemd", "process"], name="clock")
def _clock(request, world) -> str:
    if request.param == "process":
        (world.root / "run/systemd/system").rmdir()
    return request.param


def test_a_rollback_that_nobody_stops_fires(world, call, net, clock):
    foreign = "table ip docker { chain in { type filter hook input priority 0; counter accept; }; }"
    net.nft(foreign)
    call(rollback_seconds=0)
    net.nft("add element inet redisops redis_ipv4 { 10.99.7.7 }")  # by hand; the way back leads exactly there
    files, earlier = world.snapshot()[0], net.table()
    first = call(commit_confirm=True, rollback_seconds=2, peers=["10.99.1.7"])
    assert first.commit_confirm["seconds"] == 2
    assert "peers_ipv4" in net.table()
    assert {
        name: text for name, text in world.snapshot()[0].items() if "/run/" not in name
    } == files  # the boot file: not yet
    wait_until(lambda: left_in_run(world) == [])
    assert net.table() == earlier
    assert "table ip docker" in net.nft("list", "tables")
    late = call(confirm=first.commit_confirm["id"], peers=["10.99.1.7"])
    assert (late.failed, late.code) == (True, "rolled_back")
    assert net.table() == earlier
    assert call(peers=["10.99.1.7"], rollback_seconds=0).changed
    assert "10.99.7.7" not in net.table()


def test_the_first_rollback_of_all_deletes_the_table(world, call, net, clock):
    call(commit_confirm=True, rollback_seconds=2)
    assert "redis_ipv4" in net.table()
    wait_until(lambda: left_in_run(world) == [])
    assert net.nft("list", "ruleset") == ""
    assert not (world.root / FILE).exists()


def test_what_is_confirmed_stays(world, call, net, clock):
    checked = call(check=True)
    first = call(commit_confirm=True, rollback_seconds=3)
    second = call(confirm=first.commit_confirm["id"], rollback_seconds=3)
    assert not second.failed, second.msg
    assert (first.diff, first.actions) == (checked.diff, checked.actions)
    good = net.table()
    assert "redis_ipv4" in good
    assert left_in_run(world) == []
    time.sleep(3.5)
    assert net.table() == good
    assert not call().changed


def test_a_rehearsal_that_was_cut_off_is_taken_over(world, call, net):
    call(services=[{**REDIS, "sources": ["10.99.2.2"]}], rollback_seconds=0)
    earlier = net.table()
    first = call(commit_confirm=True, rollback_seconds=60)
    checked = call(check=True, rollback_seconds=2)
    taken = call(commit_confirm=True, rollback_seconds=2)
    assert (checked.changed, checked.diff, checked.actions) == (True, taken.diff, taken.actions)
    assert "commit_confirm" in taken.diff["before"]
    assert call(confirm=first.commit_confirm["id"]).code == "rolled_back"
    wait_until(lambda: left_in_run(world) == [])
    assert net.table() == earlier  # what was there before the first of the two
    again = call(commit_confirm=True, rollback_seconds=60)
    assert not call(confirm=again.commit_confirm["id"]).failed
    assert not call().changed


def test_dynamic_elements_do_not_hinder_the_way_back(world, call, net, listen):
    listen(6379)
    call(rate_limit=50, rollback_seconds=0)
    assert reaches(net.friend, "10.99.1.1", 6379)
    first = call(commit_confirm=True, rollback_seconds=2)
    assert first.commit_confirm["id"]
    assert "rate_ipv4" not in net.table()
    wait_until(lambda: left_in_run(world) == [])
    assert "limit rate over 50/second" in net.table()


def test_a_rollback_that_cannot_be_armed(world, call, net, monkeypatch):
    call()
    world.answers["systemd-run"] = Completed(1, "Failed to start transient timer unit")
    world.answers["sh -c setsid"] = Completed(127, "setsid: not found")
    before = net.nft("list", "ruleset")
    result = call(commit_confirm=True, peers=["10.99.1.7"])
    assert (result.failed, result.code) == (True, "rollback_not_armed")
    assert net.nft("list", "ruleset") == before
    assert left_in_run(world) == []


def test_a_table_that_nft_cannot_list_is_not_lost_in_a_rehearsal(world, call, net):
    """nft 1.0.6 crashes on a table that a newer nft has loaded: without a way back there is no commit-confirm."""
    call(peers=["10.99.1.7"])
    before = net.nft("list", "ruleset")
    for line in ("nft -j list", "nft list", "nft -s list"):
        world.answers[line] = Completed(-11, "")
    assert call(check=True).changed
    result = call(commit_confirm=True)
    assert (result.failed, result.code) == (True, "rollback_not_armed")
    assert net.nft("list", "ruleset") == before
    assert left_in_run(world) == []


def test_nothing_live_to_change_needs_no_rehearsal(world, call):
    call()
    (world.root / FILE).unlink()
    done = call(commit_confirm=True)
    assert not hasattr(done, "commit_confirm")
    assert (world.root / FILE).exists()


def test_absent(world, call, net):
    call()
    before = world.snapshot()
    checked = call(check=True, state="absent", services=[])
    assert world.snapshot() == before
    done = call(state="absent", services=[])
    assert (checked.diff, checked.actions) == (done.diff, done.actions)
    assert net.nft("list", "ruleset") == ""
    assert not (world.root / FILE).exists()
    assert not (world.root / UNIT).exists()
    assert (world.enabled, world.active) == (False, False)
    assert not call(state="absent", services=[]).changed


def test_a_host_without_systemd(world, call):
    (world.root / "run/systemd/system").rmdir()
    done = call()
    assert (done.failed, done.changed, world.did) == (False, True, [])
    assert "at boot" in done.warned[0]
    assert not call().changed
