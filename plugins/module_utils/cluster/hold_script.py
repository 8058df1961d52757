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

__all__ = ["DIRECTIVE", "HoldFiles", "hold_script"]

DIRECTIVE = "cluster-replica-no-failover"


@dataclasses.dataclass(frozen=True)
class HoldFiles:
    """What is noted while a replica is held: what was before; the password; until when, in seconds since the boot (0: no longer)."""

    note: str
    password: str
    until: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.until, self.password, self.note)


def hold_script(redis_cli: t.Sequence[str], files: HoldFiles, before: str, timer: str) -> str:
    """For /bin/sh. ``redis_cli``: the command line, without the password; ``before``: what is put back; ``timer``: the unit that runs it, which then ends."""

    def quoted(words: t.Iterable[str]) -> str:
        return " ".join(map(shlex.quote, words))

    password, until = shlex.quote(files.password), shlex.quote(files.until)
    ask = f'if [ -s {password} ]; then REDISCLI_AUTH="$(cat {password})"; export REDISCLI_AUTH; fi; '
    held, free = (quoted([*redis_cli, "CONFIG", "SET", DIRECTIVE, value]) for value in ("yes", before))
    left = f'until="$(cat {until} 2>/dev/null || echo 0)"; now="$(cut -d. -f1 /proc/uptime)"; '
    done = f"rm -f {quoted(files.all)}; systemctl stop {shlex.quote(timer)}.timer"
    return f'{ask}{left}if [ "$now" -lt "$until" ]; then exec {held}; fi; {free} && {{ {done}; }}'
