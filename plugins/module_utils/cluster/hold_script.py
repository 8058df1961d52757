# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a timer on the host runs while a replica is held: it holds it again after a restart, and lets it go when its time is over.

No controller and no Python of ours is needed for it: redis-cli, with the password in a file that only root can read.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login

__all__ = ["DIRECTIVE", "HoldFiles", "hold_script"]

DIRECTIVE = "cluster-replica-no-failover"
_TLS = (("ca_certs", "--cacert"), ("client_cert_file", "--cert"), ("client_key_file", "--key"))


@dataclasses.dataclass(frozen=True)
class HoldFiles:
    """What is noted while a replica is held: what was before; the password; until when, in seconds since the boot (0: no longer)."""

    note: str
    password: str
    until: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.until, self.password, self.note)


def _redis_cli(login: Login) -> list[str]:
    words = ["redis-cli", "-e", "--no-auth-warning"]
    words += ["-s", login.unix_socket] if login.unix_socket else ["-h", login.host, "-p", str(login.port)]
    words += ["--user", login.user] if login.user else []
    if login.tls:
        words.append("--tls")
        words += [word for name, option in _TLS if getattr(login, name) for word in (option, getattr(login, name))]
        words += [] if login.validate_certs else ["--insecure"]
    return words


def hold_script(login: Login, files: HoldFiles, before: str, timer: str) -> str:
    """For /bin/sh. ``before``: what is put back; ``timer``: the unit that runs it, which then ends."""

    def quoted(words: t.Iterable[str]) -> str:
        return " ".join(map(shlex.quote, words))

    password, until = shlex.quote(files.password), shlex.quote(files.until)
    ask = f'if [ -s {password} ]; then REDISCLI_AUTH="$(cat {password})"; export REDISCLI_AUTH; fi; '
    held, free = (quoted([*_redis_cli(login), "CONFIG", "SET", DIRECTIVE, value]) for value in ("yes", before))
    left = f'until="$(cat {until} 2>/dev/null || echo 0)"; now="$(cut -d. -f1 /proc/uptime)"; '
    done = f"rm -f {quoted(files.all)}; systemctl stop {shlex.quote(timer)}.timer"
    return f'{ask}{left}if [ "$now" -lt "$until" ]; then exec {held}; fi; {free} && {{ {done}; }}'
