# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc/net/tcp and tcp6 say."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

__all__ = ["ESTABLISHED", "LISTEN", "Socket", "parse_net_tcp", "ssh_port"]

ESTABLISHED, LISTEN = 1, 10


@dataclasses.dataclass(frozen=True)
class Socket:
    """One TCP socket. An IPv4 address in its IPv6 form is given as the IPv4 address that it is on the wire."""

    local: t.Any
    local_port: int
    remote: t.Any
    remote_port: int
    state: int
    inode: int


def _address(text: str, byteorder: str) -> t.Any:
    data = bytes.fromhex(text)
    if byteorder == "little":
        data = b"".join(data[index : index + 4][::-1] for index in range(0, len(data), 4))
    address = ipaddress.ip_address(data)
    return getattr(address, "ipv4_mapped", None) or address


def parse_net_tcp(text: str, byteorder: str) -> list[Socket]:
    """The sockets. The kernel prints addresses as words in its own byte order (``sys.byteorder``)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or not words[0].endswith(":"):
            continue
        (local, port), (remote, remote_port) = words[1].split(":"), words[2].split(":")
        ends = (_address(local, byteorder), int(port, 16), _address(remote, byteorder), int(remote_port, 16))
        found.append(Socket(*ends, int(words[3], 16), int(words[9])))
    return found


def ssh_port(environ: str) -> t.Optional[int]:
    """The server's port that SSH_CONNECTION names in an environment (/proc/PID/environ)."""
    for entry in environ.split("\0"):
        if entry.startswith("SSH_CONNECTION="):
            words = entry.split()
            return int(words[-1]) if len(words) == 4 and words[-1].isdigit() else None
    return None
