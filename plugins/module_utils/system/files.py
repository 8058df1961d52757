# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and durably replacing files."""

from __future__ import annotations

import errno
import glob
import grp
import hashlib
import os
import pwd
import re
import stat
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.controllers import (
    may_be_read,
    require_no_planted_link,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access

__all__ = [
    "StagedEdit",
    "StagedFile",
    "StagedTwin",
    "digest_of",
    "fsync_dir",
    "group_id",
    "mode_of",
    "parse_mode",
    "parse_umask",
    "read_includes",
    "read_own",
    "read_text",
    "user_id",
    "with_umask",
]

_SUFFIX = ".redisops-new"


def _problem(error: OSError, path: str, doing: str) -> Problem:
    words = {
        errno.ENOSPC: ("no space is left on the device", f"free space on the file system of {path}"),
        errno.EDQUOT: ("the disk quota is used up", f"free space on the file system of {path}"),
        errno.EROFS: ("the file system is read-only", f"make {os.path.dirname(path)} writable, or name another file"),
        errno.EACCES: ("permission denied", "run with become: true, or give this user access"),
        errno.EPERM: ("operation not permitted", f"look for a read-only or immutable flag: lsattr {path}"),
        errno.ENOENT: ("it does not exist", "install Redis first, or name the right file in config_file"),
        errno.EISDIR: ("it is no plain file", "name a file"),
    }
    detected, cure = words.get(error.errno or 0, (os.strerror(error.errno or 0), f"look at {path}"))
    return Problem("file_" + doing, f"{path} cannot be {doing}: {detected}; it is unchanged", "", cure)


def read_text(path: str, shown: bool = True) -> str:
    """The text of ``path``, any byte kept (surrogateescape). Raises Problem, also where somebody else planted it for root to read.

    ``shown`` False: the text is only compared with what is declared, and nobody comes to see it; then no planting gains anything.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="", opener=_plain) as handle:
            other = may_be_read(path, os.fstat(handle.fileno())) if shown else None
            if other:
                raise _planted(path, other)
            return handle.read()
    except OSError as error:
        raise _problem(error, path, "read") from None


def read_own(path: str) -> str:
    """The text of a file of this user's own, in a directory of its own that lies within somebody else's. Raises Problem."""
    try:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            descriptor = os.open(os.path.basename(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as handle:
                for status in (os.fstat(folder), os.fstat(descriptor)):
                    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                        raise OSError(errno.EPERM, "it is not this user's own", path)
                return handle.read()
        finally:
            os.close(folder)
    except OSError as error:
        raise _problem(error, path, "read") from None


def _plain(path: str, flags: int) -> int:
    """Opens without waiting: a pipe may lie there."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EISDIR, "it is no plain file", path)
    return descriptor


def _planted(path: str, other: str) -> Problem:
    return Problem(
        "file_not_theirs",
        f"{path} leads to a file that {other}, who may put anything there, could not read; nothing of it was read",
        "a file that whoever decides what lies there may read as well",
        f"look at it (ls -l {path}) and at its directory: is it a link that does not belong there? Else give {other} the right to read it",
    )


def read_includes(pattern: str) -> list[tuple[str, str]]:
    """The files of one include argument, as Redis finds them: a glob may match nothing, a plain name may not."""
    if any(char in pattern for char in "*?["):
        return [(path, read_text(path)) for path in sorted(glob.glob(pattern))]
    return [(pattern, read_text(pattern))]


def fsync_dir(path: str) -> None:
    """Make renames and new names in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mode_of(path: str) -> int:
    """Permission bits of ``path``."""
    return os.stat(path).st_mode & 0o7777


def _bits(given: t.Any, option: str, example: str) -> int:
    """Octal text, or a number that is the bits themselves: YAML makes the number 432 of 0660 without quotes."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 0o777:
        return given
    if isinstance(given, str) and re.fullmatch("0[0-7]{3}", given):
        return int(given, 8)
    shown = f"the number {given}" if isinstance(given, (int, float)) and not isinstance(given, bool) else repr(given)
    raise Problem(
        "invalid_value",
        f"{option} is {shown}, which is no octal mode",
        "four octal digits in quotes, the first of them 0 (without quotes YAML makes the number 432 of 0660)",
        f'set {option}: "{example}"',
    )


def parse_mode(given: t.Any, option: str = "mode", example: str = "0660", least: int = 0o600) -> int:
    """A file mode as bits, a number as ansible.builtin.file takes it. The owner has to get ``least``. Raises Problem."""
    bits = _bits(given, option, example)
    if bits & least != least:
        words = {0o400: "read it", 0o600: "read and write it", 0o700: "read, write and enter it"}[least]
        raise Problem(
            "invalid_value",
            f"{option} is {given!r}, which is {bits:04o} in octal: its owner could not {words}",
            "four octal digits in quotes that give the owner that right",
            f'set {option}: "{example}"',
        )
    return bits


def parse_umask(given: t.Any, option: str = "UMask") -> int:
    """A umask as bits; it may not take from the owner what the owner needs. Raises Problem."""
    bits = _bits(given, option, "0007")
    if bits & 0o700:
        raise Problem(
            "invalid_value",
            f"{option} is {given!r}, which is {bits:04o} in octal: the owner could not use what the server writes",
            "four octal digits in quotes that take nothing from the owner",
            f'set {option}: "0007"',
        )
    return bits


def with_umask(properties: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Properties of a unit whose UMask, where there is one, is octal text. Raises Problem."""
    given = properties.get("UMask")
    return {**properties, **({} if given in (None, "") else {"UMask": f"{parse_umask(given):04o}"})}


def _identity(name: str, option: str, look_up: t.Callable[[str], t.Any], kind: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise Problem(
            f"unknown_{kind}",
            f"{option}: there is no {kind} {name!r} on this host",
            f"an existing {kind}",
            f"set {option}",
        ) from None


def user_id(name: str, option: str = "owner") -> int:
    return _identity(name, option, lambda key: pwd.getpwnam(key).pw_uid, "user")


def group_id(name: str, option: str = "group") -> int:
    return _identity(name, option, lambda key: grp.getgrnam(key).gr_gid, "group")


def _dress(descriptor: int, pattern: str, mode: int, access: t.Optional[Access]) -> None:
    """Owner, mode and extended attributes (SELinux' label among them), by descriptor: nobody can put a link in between."""
    if os.path.exists(pattern):
        status = os.stat(pattern)
        access = access or Access(status.st_uid, status.st_gid, status.st_mode & 0o7777)
        for name in os.listxattr(pattern):
            try:
                os.setxattr(descriptor, name, os.getxattr(pattern, name))
            except OSError:
                pass  # not every file system takes every attribute
    if access:
        owner, group, mode = access
        os.fchown(descriptor, owner, group)
    os.fchmod(descriptor, mode)


class StagedFile:
    """New content for one file, written and synced next to it; nothing is visible until commit().

    Staging first means that a full disk or a read-only directory shows before anything else has been touched.
    """

    #: Another file that owner, mode and extended attributes come from.
    _like: t.Optional[str] = None

    def __init__(
        self,
        path: str,
        text: str,
        mode: int = 0o644,
        access: t.Optional[Access] = None,
        follow: bool = True,
    ) -> None:
        """Stage ``text`` for ``path``. Owner, mode and extended attributes come from the existing file.

        ``mode`` is for a file that does not exist yet, ``access`` for one that shall have another.
        ``follow`` False: a link at ``path`` is replaced, and what it points to is left alone. Raises Problem; then nothing is left behind.
        """
        directory, name = os.path.split(os.path.realpath(path) if follow else os.path.abspath(path))
        if follow or not re.match(
            r"/proc/\d+/fd/\d+(/|$)", directory
        ):  # a directory by its descriptor has no other name
            directory = os.path.realpath(directory)
        self.path = os.path.join(directory, name)
        self._temp = os.path.join(directory, f".{name}{_SUFFIX}")
        try:
            if follow:
                require_no_planted_link(path)
            self._unlink()  # what a run that was cut off may have left
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(self._temp, flags, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
                handle.write(text)
                handle.flush()
                _dress(handle.fileno(), self._like or self.path, mode, access)
                os.fsync(handle.fileno())
        except OSError as error:
            self.discard()
            raise _problem(error, self.path, "written") from None

    def commit(self) -> None:
        """Put the new content in place, atomically and durably. Raises Problem."""
        try:
            os.replace(self._temp, self.path)
            fsync_dir(os.path.dirname(self.path))
        except OSError as error:
            self.discard()
            raise _problem(error, self.path, "written") from None

    def discard(self) -> None:
        """Forget the new content."""
        try:
            self._unlink()
        except OSError:
            pass

    def _unlink(self) -> None:
        try:
            os.unlink(self._temp)
        except FileNotFoundError:
            pass


class StagedTwin(StagedFile):
    """New content for a file that gets owner, mode and extended attributes of the file ``like``."""

    def __init__(self, path: str, text: str, like: str) -> None:
        """Stage ``text`` for ``path``. Raises Problem; then nothing is left behind."""
        self._like = like
        super().__init__(path, text)


class StagedEdit(StagedFile):
    """New content that was edited from ``made_from``: commit() refuses if the file says something else by then."""

    def __init__(
        self, path: str, text: str, made_from: str, mode: int = 0o644, access: t.Optional[Access] = None
    ) -> None:
        """Stage ``text`` for ``path``, as StagedFile does. Raises Problem; then nothing is left behind."""
        super().__init__(path, text, mode, access)
        self._made_from = made_from

    def commit(self) -> None:
        """Put the new content in place, atomically and durably. Raises Problem, too where somebody else has written the file."""
        if os.path.exists(self.path) and read_text(self.path) != self._made_from:
            self.discard()
            raise Problem(
                "file_changed", f"{self.path} was changed by somebody else while this ran; what they wrote stands",
                "nobody else who writes the file at the same time", "run again: it begins with what the file says now",
            )  # fmt: skip
        super().commit()


def digest_of(path: str) -> tuple[int, str]:
    """Size and SHA-256 of a file, in constant memory."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise OSError(0, "it is no plain file")
        while True:
            block = handle.read(1 << 20)
            if not block:
                return size, digest.hexdigest()
            digest.update(block)
            size += len(block)
