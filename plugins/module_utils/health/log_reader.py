# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a log, of a unit's journal and of the kernel's log, bounded whatever their size."""

from __future__ import annotations

import dataclasses
import datetime
import os
import stat
import typing as t
import zoneinfo

from ansible_collections.redisops.recovery.plugins.module_utils.health.facts import LogFacts
from ansible_collections.redisops.recovery.plugins.module_utils.health.finding import size_text
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import (
    iso_utc,
    merged,
    scan,
    scan_kernel,
    shown,
    time_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.controllers import may_be_read
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["MOST", "LogText", "journal", "kernel_log", "log_file", "read_logs", "zone_of"]

#: Bytes that are read from the end of a file, and lines that are taken from a journal.
MOST = 4 * 1024 * 1024
_LINES = 20000
_PATIENCE = 30.0
_JOURNAL = ("journalctl", "-q", "--no-pager", "-o", "short-iso", "-n", str(_LINES))


@dataclasses.dataclass(frozen=True)
class LogText:
    """``source`` says what was read and how much of it; ``because`` why nothing was."""

    lines: tuple[str, ...] = ()
    source: str = ""
    because: str = ""


def zone_of(host: Host) -> datetime.tzinfo:
    """The zone of the host's clock, which Redis' time stamps are in; UTC where it cannot be read."""
    try:
        with open(host.path("/etc/localtime"), "rb") as handle:
            return zoneinfo.ZoneInfo.from_file(handle)
    except (OSError, ValueError, EOFError):
        return datetime.timezone.utc


def _end_of(path: str, most: int) -> tuple[list[str], int, bool]:
    """Lines of the last ``most`` bytes, the size, and whether there was more. Raises OSError."""
    # Without waiting: somebody may have made a pipe of it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as handle:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no plain file")
        other = may_be_read(path, status)
        if other:
            raise OSError(0, f"it leads to a file that {other}, who may put anything there, could not read")
        cut = status.st_size > most
        if cut:
            handle.seek(status.st_size - most)
        data = handle.read(most)
    lines = data.decode("utf-8", "replace").split("\n")
    # The first line of a part is most likely none.
    return lines[1:] if cut and len(lines) > 1 else lines, status.st_size, cut


def log_file(path: str, since: float, zone: datetime.tzinfo, most: int = MOST) -> LogText:
    """The end of a log file, and of the one before its last rotation (``.1``) where that reaches into the time that is asked for."""
    try:
        lines, size, cut = _end_of(path, most)
    except OSError as error:
        return LogText(because=f"{path} cannot be read: {error.strerror or error}")
    begin = next((at for at in (time_of(line, zone) for line in lines) if at is not None), None)
    source = f"{path} ({size_text(size)})"
    if cut:
        source = f"the last {size_text(most)} of {source}" + (
            f", from {iso_utc(begin)} on" if begin is not None else ""
        )
    elif begin is None or begin > since:
        try:
            older, _size, _cut = _end_of(f"{path}.1", most)
        except OSError:
            pass  # nothing was rotated, or long ago
        else:
            lines, source = [*older, *lines], f"{source} and {path}.1"
    return LogText(tuple(lines), source)


def _printed(host: Host, what: str, *command: str) -> LogText:
    done = host.run(*command, timeout=_PATIENCE)
    if done.code:
        return LogText(because=f"{what} cannot be read: {' '.join(done.output.split())[:200] or f'code {done.code}'}")
    return LogText(tuple(done.output.split("\n")), what)


def journal(host: Host, unit: str, since: float) -> LogText:
    """What a unit wrote to the journal, its server's standard output included."""
    found = _printed(host, f"the journal of {unit}", *_JOURNAL, "-u", unit, "--since", f"@{int(since)}")
    if not found.because and not any(found.lines):
        return LogText(because=f"the journal has nothing of {unit} in that time, or does not show it to this user")
    return found


def kernel_log(host: Host, since: float) -> LogText:
    """The kernel's log: from the journal, which outlives a reboot; else from the kernel's own memory."""
    found = _printed(
        host, "the kernel's log in the journal", *_JOURNAL, "_TRANSPORT=kernel", "--since", f"@{int(since)}"
    )
    if any(found.lines):
        return found
    own = _printed(host, "the kernel's log", "dmesg", "-T")
    if not own.because:
        return own
    # An empty journal is an answer only where it is one: a journal that this user may not read is empty as well.
    return LogText(because=f"{own.because}; {found.because or 'the journal shows nothing of the kernel'}")


def read_logs(host: Host, logfile: t.Optional[str], directory: str, unit: str, since: float) -> LogFacts:
    """What the server's file and its unit's journal tell since then, and the kernel's log.

    ``logfile`` is the directive; empty where the server writes to its standard output, None where it is not known.
    """
    zone = zone_of(host)
    from_file = LogText()
    if logfile is None:
        from_file = LogText(because="neither the server nor its configuration file says where it writes its log")
    elif logfile:
        from_file = log_file(os.path.join(directory or "/", logfile), since, zone)
    from_unit = journal(host, unit, since) if unit else LogText(because="no systemd unit of it was found or named")
    lines = merged(from_unit.lines, from_file.lines, zone) if from_unit.lines else from_file.lines
    because = from_file.because
    if not from_file.source and not because and from_unit.because:
        because = f"logfile is empty, and {from_unit.because}"
    kernel = kernel_log(host, since)
    return LogFacts(
        tuple(scan(lines, since, zone)),
        tuple(one.source for one in (from_file, from_unit, kernel) if one.source),
        because,
        tuple(scan_kernel(kernel.lines, since, zone)),
        kernel.because,
        shown(next((line for line in reversed(lines) if line.strip()), "")),
    )
