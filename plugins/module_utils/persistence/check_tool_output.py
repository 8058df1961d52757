# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What redis-check-rdb and redis-check-aof print."""

from __future__ import annotations

import dataclasses
import re

__all__ = ["Verdict", "parse_check_aof", "parse_check_rdb"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``keys`` is -1 where the tool does not count; ``reason`` is the tool's own words where it found a fault.

    ``expired``: how many of ``keys`` are past their time.
    """

    ok: bool
    keys: int
    reason: str
    expired: int = 0


def _last_telling_line(output: str) -> str:
    lines = [re.sub(r"^\[(offset \d+|info|additional info)\]\s*", "", line).strip() for line in output.splitlines()]
    lines = [
        line for line in lines if line and not line.startswith(("Checking RDB file", "--- RDB ERROR", "This will"))
    ]
    faults = [line for line in lines if re.search(r"error|EOF|wrong|invalid|not valid|can't|cannot|fatal", line, re.I)]
    return " ".join((faults or lines[-1:] or ["it printed nothing"])[0].strip("- ").split())


def parse_check_rdb(code: int, output: str) -> Verdict:
    """The verdict of ``redis-check-rdb FILE`` from its exit code and its output."""
    ok = code == 0 and "looks OK" in output
    keys = re.search(r"^\[info\] (\d+) keys read", output, re.M)
    past = re.search(r"^\[info\] (\d+) already expired", output, re.M)
    reason = "" if ok else _last_telling_line(output)
    return Verdict(ok, int(keys.group(1)) if keys else -1, reason, int(past.group(1)) if past else 0)


def parse_check_aof(code: int, output: str) -> Verdict:
    """The verdict of ``redis-check-aof MANIFEST`` from its exit code and its output."""
    ok = code == 0 and "valid" in output and "not valid" not in output
    return Verdict(ok, -1, "" if ok else _last_telling_line(output))
