"""The host's kernel values that lab containers can write: saved before the first container, put back after the last.

A container of the lab shares the host's kernel, so `vm.overcommit_memory` set inside it is set for the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from common import STATE_DIR, LabError, locked, progress

STATE_FILE = STATE_DIR / "kernel.json"

# What the collection may write, and what booting systemd in a container changes by itself (it raises fs.file-max and
# applies the distribution's own sysctl.d). Values of a network namespace (net.*) are the container's own.
VALUES = (
    # Before vm.min_free_kbytes, which the kernel computes anew whenever these are written.
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
    "/sys/kernel/mm/transparent_hugepage/use_zero_page",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/overcommit_ratio",
    "/proc/sys/vm/swappiness",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/min_free_kbytes",
    "/proc/sys/vm/zone_reclaim_mode",
    "/proc/sys/vm/dirty_ratio",
    "/proc/sys/vm/dirty_background_ratio",
    "/proc/sys/vm/dirty_expire_centisecs",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/nr_open",
    "/proc/sys/fs/aio-max-nr",
    "/proc/sys/fs/protected_fifos",
    "/proc/sys/fs/protected_hardlinks",
    "/proc/sys/fs/protected_regular",
    "/proc/sys/fs/protected_symlinks",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/core_uses_pid",
)


def read(path: str) -> str | None:
    """The value as it can be written back (`always [madvise] never` is `madvise`), or None where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    chosen = re.search(r"\[(\S+)\]", text)
    return chosen.group(1) if chosen else text


def save(known: str | None) -> str:
    """Record the values once and return the record as JSON.

    An existing record, even of a run that crashed, is the older truth and stays. `known` is the record of a lab that
    runs already, of another checkout: by now the kernel may hold what that lab's tests have set.
    """
    with locked("kernel"):
        if STATE_FILE.exists():
            return STATE_FILE.read_text(encoding="utf-8")
        values = {path: value for path in VALUES if (value := read(path)) is not None}
        record = known or json.dumps(values)
        partial = STATE_FILE.with_suffix(".partial")
        with open(partial, "w", encoding="utf-8") as handle:
            handle.write(record)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(STATE_FILE)
        progress.step("saved the kernel values of this host")
        return record


def restore() -> None:
    """Put back every recorded value that differs now, then forget the record."""
    with locked("kernel"):
        if not STATE_FILE.exists():
            return
        try:
            saved: dict[str, str] = json.loads(STATE_FILE.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LabError(f"The saved kernel values in {STATE_FILE} cannot be read: {error}.") from None
        failed = []
        for path, value in saved.items():
            current = read(path)
            if current == value:
                continue
            with contextlib.suppress(OSError):
                Path(path).write_text(value, encoding="utf-8")
            if read(path) == value:
                progress.step(f"put back {path}: {current} -> {value}")
            else:
                failed.append(f"echo '{value}' > {path}")
        if failed:
            raise LabError("These kernel values could not be put back; run as root: " + "; ".join(failed))
        STATE_FILE.unlink()


__all__ = ["STATE_FILE", "restore", "save"]
