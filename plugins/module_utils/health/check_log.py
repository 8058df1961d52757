# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings on what the logs tell, each tied to its cause by what else is seen."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import Facts
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import (
    SEVERITIES,
    Finding,
    found,
    size_text,
    unknown,
)
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import LogEvent
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_patterns import KINDS

__all__ = ["cause_of_the_end", "log_findings"]

Findings = t.Iterator[Finding]


def _kernel(facts: Facts, *codes: str) -> t.Optional[LogEvent]:
    return next((one for one in facts.log.kernel_events if one.code in codes), None)


def _by_the_kernel(facts: Facts, codes: tuple[str, ...], silent: str) -> str:
    """What the kernel's log says to it; ``silent`` where it was read and says nothing."""
    event = _kernel(facts, *codes)
    if event:
        return f"the kernel's log says why: {event.line}"
    if facts.log.kernel_because:
        return f"whether the kernel did it is not known, because {facts.log.kernel_because}"
    return silent


def _killed(facts: Facts) -> str:
    return _by_the_kernel(
        facts,
        ("oom_killer",),
        "the kernel's log has no OOM killer in that time: somebody, or a limit of the unit, sent the signal",
    )


def _disk_error(facts: Facts) -> str:
    return _by_the_kernel(facts, ("kernel_disk_error",), "the kernel's log has no error of a disk in that time")


def _memory(facts: Facts) -> str:
    left, overcommit = facts.host.memory_left, facts.host.overcommit
    parts = [f"vm.overcommit_memory is {overcommit}"] if overcommit is not None else []
    parts += [f"{size_text(left)} of memory and swap are left now"] if left is not None else []
    return "; ".join(parts)


def _space(facts: Facts) -> str:
    return f"{size_text(facts.disk.free_bytes)} are free in {facts.disk.place.dir} now" if facts.disk else ""


def _slow_disk(facts: Facts) -> str:
    parts = []
    if facts.host.io_pressure is not None:
        parts.append(f"all tasks waited for a disk in {facts.host.io_pressure:.0f} % of the last minute")
    if facts.host.disk is not None:
        parts.append(f"{facts.host.disk.name} is at work {facts.host.disk.busy_percent:.0f} % of the time now")
    return "; ".join(parts)


def _owners(facts: Facts) -> str:
    user = facts.user[0] if facts.user else None
    strange = [
        f"{one.path} {one.uid}:{one.gid} {one.mode:04o}" for one in facts.access if user is not None and one.uid != user
    ]
    return f"the server runs as user {user}, and there is {', '.join(strange)}" if strange else ""


def _still(name: str, good: t.Callable[[Facts], t.Optional[bool]]) -> t.Callable[[Facts], str]:
    def say(facts: Facts) -> str:
        now = good(facts)
        return "" if now is None else f"{name} is {'right' if now else 'still wrong'} now"

    return say


#: code → what else is seen that tells the cause.
_EVIDENCE: t.Mapping[str, t.Callable[[Facts], str]] = {
    "fork_no_memory": _memory,
    "out_of_memory": _memory,
    "save_killed": _killed,
    "rewrite_killed": _killed,
    "child_crashed": _disk_error,
    "disk_full": _space,
    "aof_write_error": _space,
    "save_failed": _space,
    "rewrite_failed": _space,
    "aof_write_fatal": _space,
    "disk_io_error": _disk_error,
    "disk_read_only": _disk_error,
    "aof_fsync_failed": _disk_error,
    "aof_unreadable": _disk_error,
    "rdb_bad_checksum": _disk_error,
    "aof_fsync_slow": _slow_disk,
    "no_permission": _owners,
    "started_without_overcommit": _still("it", lambda facts: None if facts.host.overcommit is None else facts.host.overcommit == "1"),
    "started_with_thp": _still("it", lambda facts: None if facts.host.thp is None else facts.host.thp != "always"),
}  # fmt: skip


def _severity(event: LogEvent, facts: Facts) -> str:
    kind = KINDS[event.code]
    past = event.over or (kind.topic == "start" and facts.answers and not facts.info.flag("loading"))
    return "info" if past else kind.severity


def _event_text(event: LogEvent) -> str:
    times = "once" if event.count == 1 else f"{event.count} times"
    when = f", last at {event.last}" if event.last else ", at a time that the log does not say"
    return f"{times}{when}{' (over since)' if event.over else ''}: {event.line}"


def _of_event(event: LogEvent, facts: Facts) -> Finding:
    kind = KINDS[event.code]
    evidence = _EVIDENCE[event.code](facts) if event.code in _EVIDENCE else ""
    seen = _event_text(event) + (f". Next to it: {evidence}" if evidence else "")
    return Finding(event.code, _severity(event, facts), seen, kind.why, kind.do)


def log_findings(facts: Facts) -> Findings:
    """Each kind of line, the server's and the kernel's; and what could not be read."""
    log = facts.log
    if log.because:
        yield unknown("log_unread", log.because)
    else:
        yield found("log_unread", "ok", f"read {'; '.join(log.sources)}")
    if log.kernel_because:
        yield unknown("kernel_log_unread", log.kernel_because)
    for event in (*log.events, *log.kernel_events):
        yield _of_event(event, facts)


def cause_of_the_end(facts: Facts) -> str:
    """Why a server that is down is down, as far as the logs say; empty where they do not."""
    ends = [one for one in facts.log.events if KINDS[one.code].topic == "start" and not one.over]
    # Of several lines of one minute the worst, and of these the first, names the cause; the others are its consequences.
    last = max((one.last or "" for one in ends), default="")
    reported = sorted(
        (one for one in ends if (one.last or "")[:16] == last[:16]),
        key=lambda one: SEVERITIES.index(KINDS[one.code].severity),
    )
    if reported:
        return f"the log says why ({reported[0].code}): {reported[0].line}"
    killed = _kernel(facts, "oom_killer")
    if killed:
        return f"the kernel's log says why ({killed.code}): {killed.line}"
    if facts.log.because:
        return f"why is not known, because {facts.log.because}"
    last = f"; its last line is: {facts.log.last}" if facts.log.last else ""
    return f"the log names no cause that is known here{last}"
