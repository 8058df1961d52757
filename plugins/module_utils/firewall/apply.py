# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of redis_firewall: nft, the rollback that is armed on the host, file and unit, other firewalls."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import stat
import sys
import tempfile
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.firewalld_ufw import (
    firewalld_blocks,
    parse_service,
    parse_ufw,
    parse_zones,
    ufw_blocks,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.nft_ruleset import (
    Table,
    parse_table,
    render_table,
    same_table,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.plan import (
    FILE_MODE,
    TABLE,
    UNIT,
    UNIT_FILE,
    Plan,
    State,
    access_words,
    refuse_blocked,
)
from ansible_collections.redisops.recovery.plugins.module_utils.firewall.sources import Declared
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.listening_sockets import (
    ESTABLISHED,
    LISTEN,
    Socket,
    parse_net_tcp,
    ssh_port,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import parse_show

__all__ = [
    "CommitConfirm",
    "Nft",
    "keep",
    "load_verified",
    "read_state",
    "refuse_other_firewalls",
    "remove",
    "resolve",
    "ssh_ports",
    "tcp_sockets",
]

RUN = "/run/redisops"
_PREFIX = "firewall-rollback-"
_ROLLBACK_UNIT = "redisops-firewall-rollback-"
_SYSTEMD = "/run/systemd/system"


def _one_line(output: str) -> str:
    return " ".join(output.split())[:500]


class Nft:
    """nft, and our table in it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        # The same path whatever PATH this run has, and before the package is installed: the unit names it.
        self.program = shutil.which("/usr/sbin/nft") or shutil.which("nft") or "/usr/sbin/nft"
        self.missing = host.run(self.program, "--version").code in (126, 127)

    def need(self) -> None:
        """Raises Problem where there is no nft."""
        if self.missing:
            raise Problem("nft_missing", "this host has no nft", "the package nftables (a host with iptables alone cannot hold the table)",
                          "run: apt-get install nftables (Debian, Ubuntu) or dnf install nftables (RHEL)")  # fmt: skip

    def _failed(self, output: str) -> Problem:
        if "Operation not permitted" in output:
            return Problem("not_root", f"nft may not read or write the ruleset: {_one_line(output)}", "root, with CAP_NET_ADMIN",
                           "run with become: true; in a container, give it NET_ADMIN or set the firewall on its host")  # fmt: skip
        if "not supported" in output or "cache initialization failed" in output:
            return Problem("nft_unsupported", f"this kernel takes no nftables rules: {_one_line(output)}", "a kernel with nf_tables",
                           "run: modprobe nf_tables; where there is none, keep the ports closed with what it has "
                           "(iptables -A INPUT -p tcp --dport PORT ! -s SOURCE -j DROP) and leave redis_firewall_enabled false")  # fmt: skip
        return Problem("nft_failed", f"nft refuses: {_one_line(output)}; the live ruleset is as it was", "a ruleset that this nft takes",
                       "look at the words of nft; nft list ruleset shows what is there")  # fmt: skip

    def read(self) -> tuple[t.Optional[Table], bool]:
        """(our table, whether it is there and cannot be read). nft 1.0.6 crashes on listing some tables of others as JSON."""
        if self.missing:
            return None, False
        done = self._host.run(self.program, "-j", "list", "table", "inet", TABLE)
        if done.code == 0:
            try:
                return parse_table(done.output, TABLE), False
            except ValueError:
                return None, True
        if "No such file or directory" in done.output:
            return None, False
        if done.code < 0 or done.code > 128:
            return None, True
        raise self._failed(done.output)

    def listing(self, *options: str) -> str:
        """Our table as text that can be loaded again; empty where there is none. Raises Problem."""
        done = self._host.run(self.program, *options, "list", "table", "inet", TABLE)
        if done.code and "No such file or directory" not in done.output:
            raise self._failed(done.output or f"nft ended with code {done.code}")
        return "" if done.code else done.output

    def check(self, text: str) -> None:
        """Let nft say whether it would take a ruleset. Raises Problem."""
        if not self.missing:
            self._feed(text, "-c")

    def load(self, text: str) -> None:
        """Load a ruleset in one transaction. Raises Problem; then nothing has changed."""
        self._feed(text)

    def _feed(self, text: str, *options: str) -> None:
        with tempfile.NamedTemporaryFile("w", prefix="redisops-", suffix=".nft", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            done = self._host.run(self.program, *options, "-f", file.name)
        if done.code:
            raise self._failed(done.output.replace(file.name, "the ruleset"))


class CommitConfirm:
    """A rollback that the host carries out by itself unless it is confirmed in time.

    The file of the earlier table is the token: whoever renames it first, the rollback or the confirmation, has decided.
    """

    def __init__(self, host: Host, nft: Nft, name: str) -> None:
        self._host, self._nft, self.name = host, nft, name
        self._directory = host.path(RUN)
        self._file = os.path.join(self._directory, f"{_PREFIX}{name}.nft")

    @staticmethod
    def armed(host: Host) -> t.Optional[str]:
        """The name of a commit-confirm that waits for its confirmation."""
        try:
            names = sorted(os.listdir(host.path(RUN)))
        except OSError:
            return None
        found = [
            name[len(_PREFIX) : -len(".nft")] for name in names if name.startswith(_PREFIX) and name.endswith(".nft")
        ]
        return found[-1] if found else None

    def _earlier(self) -> str:
        """The live table as a file that brings it back, checked by nft; without its counters where it is not taken with them."""
        detected = ""
        for options in ((), ("-s",)):
            try:
                text = render_table(None, TABLE) + self._nft.listing(*options)
                self._nft.check(text)
                return text
            except Problem as problem:
                detected = problem.detected
        raise Problem("rollback_not_armed", f"the way back to the present table inet {TABLE} is not open: {detected}", "a table that nft takes back",
                      f"delete the table by hand (nft delete table inet {TABLE}), or set rollback_seconds: 0")  # fmt: skip

    def arm(self, seconds: int, earlier: t.Optional[str]) -> None:
        """Start the clock; ``earlier`` is an unconfirmed commit-confirm whose way back becomes ours. Raises Problem."""
        text = "" if earlier else self._earlier()
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            if earlier:
                self._start(seconds)
                os.rename(os.path.join(self._directory, f"{_PREFIX}{earlier}.nft"), self._file)
                self._stop(earlier)
            else:
                StagedFile(self._file, text, 0o600).commit()
                self._start(seconds)
        except FileNotFoundError:
            self._stop(self.name)
            detected = "an earlier commit-confirm, which nobody confirmed, ended this very moment"
            raise Problem(
                "rolled_back", detected, "nothing else that changes the table meanwhile", "run again"
            ) from None
        except (OSError, Problem) as error:
            self.disarm()
            detected = error.detected if isinstance(error, Problem) else f"{RUN}: {error.strerror}"
            raise Problem("rollback_not_armed", f"the rollback could not be armed: {detected}; nothing has been changed",
                          "a host that can put the old ruleset back by itself", "repair_aof it, or set rollback_seconds: 0") from None  # fmt: skip

    def _start(self, seconds: int) -> None:
        fired = f"{self._file}.fired"
        file, fired, nft = map(shlex.quote, (self._file, fired, self._nft.program))
        script = f"mv -T {file} {fired} && {nft} -f {fired}; rm -f {fired}"
        if os.path.isdir(self._host.path(_SYSTEMD)):
            done = self._host.run(
                "systemd-run", f"--unit={_ROLLBACK_UNIT}{self.name}", f"--on-active={seconds}s", "--timer-property=AccuracySec=100ms",
                "--description=Put the firewall of Redis back, unless the change is confirmed", "/bin/sh", "-c", script,
            )  # fmt: skip
            if done.code == 0:
                return
        waiting = shlex.quote(f"sleep {int(seconds)}; {script}")
        done = self._host.run("/bin/sh", "-c", f"setsid /bin/sh -c {waiting} </dev/null >/dev/null 2>&1 &")
        if done.code:
            raise Problem(
                "rollback_not_armed", f"neither systemd-run nor a process of its own: {_one_line(done.output)}"
            )

    def _stop(self, name: str) -> None:
        if os.path.isdir(self._host.path(_SYSTEMD)):
            self._host.run("systemctl", "stop", f"{_ROLLBACK_UNIT}{name}.timer")

    def confirm(self) -> bool:
        """Whether the rollback had not begun, and now never will."""
        try:
            os.rename(self._file, f"{self._file}.confirmed")
        except FileNotFoundError:
            return False
        self._stop(self.name)
        os.unlink(f"{self._file}.confirmed")
        return True

    @property
    def waiting(self) -> bool:
        return os.path.exists(self._file)

    def disarm(self) -> None:
        """Forget the way back, whether or not it was ever armed."""
        self.confirm()

    def roll_back(self) -> None:
        """Do now what the clock would do later."""
        try:
            with open(self._file, encoding="utf-8") as handle:
                text = handle.read()
        except FileNotFoundError:
            return
        self._nft.load(text)
        self.disarm()


def load_verified(nft: Nft, wanted: t.Optional[Table], text: str) -> None:
    """Load, then look whether the kernel has what was meant. Raises Problem."""
    nft.load(text)
    live, unreadable = nft.read()
    if unreadable or not same_table(live, wanted):
        raise Problem("table_not_taken", f"table inet {TABLE} was loaded, and nft lists something else",
                      "an nft whose listing is understood", f"report what these print: nft --version; nft -j list table inet {TABLE}")  # fmt: skip


def read_state(host: Host, nft: Nft, file: str) -> State:
    """What is there now. Raises Problem."""
    live, unreadable = nft.read()
    systemd = os.path.isdir(host.path(_SYSTEMD))
    access = {path: _access(host.path(path)) for path in (file, UNIT_FILE) if os.path.lexists(host.path(path))}
    shown = parse_show(systemctl(host, "show", "-p", "ActiveState,UnitFileState", UNIT)) if systemd else {}
    return State(
        live,
        unreadable,
        host.read(file),
        host.read(UNIT_FILE),
        systemd,
        shown.get("UnitFileState") == "enabled",
        shown.get("ActiveState") == "active",
        CommitConfirm.armed(host),
        access,
    )


def _access(path: str) -> str:
    """Mode and owner; a link or a directory is nothing to be written through. Raises Problem."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = f"link to {os.readlink(path)}" if os.path.islink(path) else "no regular file"
        raise Problem("boot_file_masked", f"{path} is {kind}", "a file of its own, which is written by root",
                      f"see who made it, then remove it: rm {path}")  # fmt: skip
    return access_words(status.st_mode & 0o7777, status.st_uid)


def _stage(path: str, text: str) -> StagedFile:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        try:
            os.makedirs(directory, 0o755)
            fsync_dir(os.path.dirname(directory))
        except OSError as error:
            raise Problem("file_written", f"the directory {directory} cannot be made: {error.strerror}", "a writable directory",
                          f"make it: mkdir -p {directory}") from None  # fmt: skip
    return StagedFile(path, text, access=Access(0, 0, FILE_MODE))


def keep(host: Host, found: Plan, file: tuple[str, str], unit: str, before_commit: t.Callable[[], None]) -> None:
    """File, unit and boot as planned. Everything is staged before ``before_commit`` decides; then it is put in place. Raises Problem."""
    staged = []
    try:
        if found.file:
            staged.append(_stage(host.path(file[0]), file[1]))
        if found.unit:
            staged.append(_stage(host.path(UNIT_FILE), unit))
        before_commit()
    except BaseException:
        for one in staged:
            one.discard()
        raise
    for one in staged:
        one.commit()
    if found.unit:
        systemctl(host, "daemon-reload")
    if found.enable:
        systemctl(host, "enable", UNIT)
    if found.start:
        systemctl(host, "start", UNIT)


def remove(host: Host, found: Plan, file: str) -> None:
    """Unit and file away, as planned. Raises Problem."""
    if found.enable:
        systemctl(host, "disable", "--now", UNIT)
    try:
        if found.unit:
            os.unlink(host.path(UNIT_FILE))
        if found.file:
            os.unlink(host.path(file))
            os.rmdir(os.path.dirname(host.path(file)))
    except OSError as error:
        if os.path.lexists(host.path(file)) or os.path.lexists(host.path(UNIT_FILE)):
            raise Problem("file_written", f"{error.filename} cannot be removed: {error.strerror}", "", "run with become: true") from None  # fmt: skip
    if found.unit:
        systemctl(host, "daemon-reload")


def resolve(names: t.Sequence[str]) -> dict[str, list[str]]:
    """The addresses of each name as this host finds them, its own loopback left out; none where there are none."""
    found = {}
    for name in names:
        try:
            rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            rows = []
        addresses = {str(row[4][0]).partition("%")[0] for row in rows}
        found[name] = sorted(one for one in addresses if one != "::1" and not one.startswith("127."))
    return found


def tcp_sockets(host: Host) -> list[Socket]:
    texts = (host.read("/proc/net/tcp"), host.read("/proc/net/tcp6"))
    return [one for text in texts for one in parse_net_tcp(text or "", sys.byteorder)]


def ssh_ports(host: Host, sockets: t.Sequence[Socket]) -> dict[int, str]:
    """Ports by which this host is reached over SSH, and how that is known."""
    found: dict[int, str] = {}
    inodes: set[int] = set()
    named = [ssh_port(f"SSH_CONNECTION={os.environ.get('SSH_CONNECTION', '')}")]
    try:
        processes = [name for name in os.listdir(host.path("/proc")) if name.isdigit()]
    except OSError:
        processes = []
    for process in processes:
        if (host.read(f"/proc/{process}/comm") or "").startswith("sshd"):
            inodes |= _socket_inodes(host.path(f"/proc/{process}/fd"))
    parent = os.getppid()
    while parent > 1:  # sudo takes SSH_CONNECTION away; who called it still has it
        named.append(ssh_port(host.read(f"/proc/{parent}/environ") or ""))
        status = (host.read(f"/proc/{parent}/stat") or "").rpartition(")")[2].split()
        parent = int(status[1]) if len(status) > 1 else 0
    for port in named:
        if port:
            found.setdefault(port, "SSH_CONNECTION")
    for one in sockets:
        if one.inode in inodes and one.state in (LISTEN, ESTABLISHED):
            found.setdefault(one.local_port, "sshd")
    return found


def _socket_inodes(directory: str) -> set[int]:
    found = set()
    try:
        for name in os.listdir(directory):
            target = os.readlink(os.path.join(directory, name))
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except OSError:
        pass
    return found


def refuse_other_firewalls(host: Host, declared: Declared) -> None:
    """Ask firewalld and ufw, where they are active, whether they admit what is declared. Raises Refusal."""
    status = host.run("ufw", "status", "verbose")
    ufw = parse_ufw(status.output) if status.code == 0 else None
    if ufw:
        refuse_blocked(
            "ufw", [one for port in declared.ports for one in ufw_blocks(ufw, port, declared.admitted(port))]
        )
    listed = host.run("firewall-cmd", "--list-all-zones")
    if listed.code:
        return  # not there, or not running
    zones = parse_zones(listed.output)
    default = host.run("firewall-cmd", "--get-default-zone").output.strip()

    def ask(services: t.Mapping[str, t.Sequence[str]]) -> list[t.Any]:
        return [
            one
            for port in declared.ports
            for one in firewalld_blocks(zones, default, port, declared.admitted(port), services)
        ]

    if not ask({}):
        return
    names = {name for zone in zones if zone.active or zone.name == default for name in zone.words("services")}
    names |= {name for zone in zones for rule in zone.rich for name in _quoted_service(rule)}
    services = {
        name: parse_service(host.run("firewall-cmd", f"--info-service={name}").output) for name in sorted(names)
    }
    refuse_blocked("firewalld", ask(services))


def _quoted_service(rule: str) -> list[str]:
    return [part.partition('"')[0] for part in rule.split('service name="')[1:]]
