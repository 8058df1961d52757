# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the kernel: the drop-in files that set them at boot, and the files in /proc/sys and /sys themselves."""

from __future__ import annotations

import dataclasses
import operator
import os
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["DropIn", "LiveWrite", "apply", "boot_file", "drop_ins", "is_writable"]

#: Where systemd looks for drop-ins of one kind; a name in an earlier directory hides the same name in later ones.
DIRECTORIES = ("/etc", "/run", "/usr/local/lib", "/usr/lib")


@dataclasses.dataclass(frozen=True)
class DropIn:
    """One file that is read at boot."""

    path: str
    text: str


@dataclasses.dataclass(frozen=True)
class LiveWrite:
    """One value for one file of the kernel; ``read`` gives back what stands there, ``same`` says whether two texts mean one value."""

    path: str
    before: str
    value: str
    read: t.Callable[[], t.Optional[str]]
    same: t.Callable[[t.Optional[str], t.Optional[str]], bool] = operator.eq


def drop_ins(host: Host, kind: str) -> list[DropIn]:
    """The files of ``kind`` (``sysctl.d``, ``tmpfiles.d``) as systemd reads them at boot: in order of their names, masks applied."""
    chosen: dict[str, str] = {}
    for directory in DIRECTORIES:
        folder = f"{directory}/{kind}"
        try:
            names = os.listdir(host.path(folder))
        except OSError:
            continue
        for name in names:
            if name.endswith(".conf") and not name.startswith(".") and not os.path.isdir(host.path(f"{folder}/{name}")):
                chosen.setdefault(name, f"{folder}/{name}")
    found = []
    for name in sorted(chosen, key=os.fsencode):
        real = host.path(chosen[name])
        found.append(DropIn(chosen[name], read_text(real) if os.path.isfile(real) else ""))
    return found


def boot_file(host: Host, kind: str, path: str, option: str) -> list[DropIn]:
    """The drop-ins with ``path`` among them (empty where it is new), under the name the user gave it.

    Raises Problem where a file of that name would not be read at boot, or would hide another one.
    """
    target = host.path(path)
    files = drop_ins(host, kind)
    if os.path.lexists(target) and not os.path.isfile(target):
        raise Problem("boot_file_masked", f"{path} is no regular file but a {_kind_of(target)}",
                      f"a file that {option} can be kept in", f"remove {path}, or name another file in {option}")  # fmt: skip
    read = [DropIn(path, one.text) if _same(host, one.path, path) else one for one in files]
    if os.path.lexists(target) and not path.startswith("/run/"):
        if any(one.path == path for one in read):
            return read
        raise _not_read(kind, path, option)
    directory, name = os.path.split(os.path.normpath(path))
    if directory not in (f"/etc/{kind}", f"/usr/local/lib/{kind}", f"/usr/lib/{kind}") or not name.endswith(".conf"):
        raise _not_read(kind, path, option)
    for one in files:
        if os.path.basename(one.path) == name:
            raise Problem("boot_file_hides_another", f"{path} would hide {one.path}, which sets other things, or be hidden by it",
                          "a file name of its own", f"name another file in {option}")  # fmt: skip
    return sorted([*files, DropIn(path, "")], key=lambda one: os.fsencode(os.path.basename(one.path)))


def _not_read(kind: str, path: str, option: str) -> Problem:
    do = f"set {option} to a file in /etc/{kind} whose name ends in .conf"
    if path == "/etc/sysctl.conf":
        do += ", or make this one count: ln -s ../sysctl.conf /etc/sysctl.d/99-sysctl.conf"
    return Problem(
        "not_read_at_boot", f"{path} is not read when this host boots", f"a file that systemd reads in {kind}", do
    )


def _same(host: Host, one: str, other: str) -> bool:
    return os.path.realpath(host.path(one)) == os.path.realpath(host.path(other))


def _kind_of(path: str) -> str:
    if os.path.islink(path):
        return f"link to {os.readlink(path)}"
    return "directory" if stat.S_ISDIR(os.lstat(path).st_mode) else "special file"


def is_writable(path: str) -> bool:
    """Whether this process may write a file of the kernel: mount options, user namespaces and rights taken together."""
    return os.access(path, os.W_OK) and bool(os.stat(path).st_mode & 0o222)


def apply(writes: t.Sequence[LiveWrite], path: t.Optional[str], text: t.Optional[str]) -> None:
    """Make the planned changes: stage the file, write live, read back, put the file in place. Raises Problem.

    Whatever fails, the file is as it was, and what was written live before is written back.
    """
    made = None
    staged = None
    done: list[LiveWrite] = []
    try:
        if path is not None and text is not None:
            directory = os.path.dirname(os.path.realpath(path))
            if not os.path.isdir(directory):
                made = _make_directory(directory)
            staged = StagedFile(path, text)
        for one in writes:
            done.append(one)
            _write(one.path, one.value)
            now = one.read()
            if not one.same(now, one.value):
                raise Problem("live_not_taken", f"{one.value!r} was written to {one.path}, but it says {(now or '').strip()!r}; it is put back",
                              "a value that the kernel takes", "look for what else sets it, or declare that value")  # fmt: skip
        if staged:
            staged.commit()
    except BaseException as error:
        _undo(error, done, staged, made)
        raise


def _undo(
    error: BaseException, done: t.Sequence[LiveWrite], staged: t.Optional[StagedFile], made: t.Optional[str]
) -> None:
    for one in reversed(done):
        try:
            if not one.same(one.read(), one.before):
                _write(one.path, one.before)
        except Problem as second:
            if isinstance(error, Problem):
                error.detected += f"; and {one.path} could not be put back to {one.before} ({second.detected})"
    if staged:
        staged.discard()
    if made:
        try:
            os.rmdir(made)
        except OSError:
            pass


def _make_directory(path: str) -> str:
    try:
        os.mkdir(path, 0o755)
        fsync_dir(os.path.dirname(path))
    except OSError as error:
        raise Problem("file_written", f"the directory {path} cannot be made: {error.strerror}", "a writable directory",
                      f"make it: mkdir -p {path}") from None  # fmt: skip
    return path


def _write(path: str, value: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, value.encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Problem("live_refused", f"the kernel refuses {value!r} for {path}: {error.strerror}; nothing has been changed",
                      "a value that it takes, and the right to write it",
                      "correct the value, or run with become: true on a host whose kernel settings are its own") from None  # fmt: skip
