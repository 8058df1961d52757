# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of backups, by the real restic. Secrets reach it by its environment, never by arguments."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_output import (
    Saved,
    Snapshot,
    error_of,
    parse_snapshots,
    parse_summary,
    parse_version,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import TIMED_OUT, Completed, Host

__all__ = ["FLOOR", "Restic"]

#: ``check --read-data-subset`` in percent begins with it.
FLOOR = (0, 12, 0)
#: What the caller's own environment could say against the repository that is meant; restic takes an empty one for none.
_CLEARED = ("RESTIC_REPOSITORY_FILE", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND", "RESTIC_KEY_HINT", "RESTIC_HOST")  # fmt: skip
_ID = re.compile(r"[0-9a-f]{8,64}")

#: Kind of an error → its code, what is needed, what to do.
_PROBLEMS = {
    "missing": ("repository_missing", "a repository that restic made there",
                "correct the location; or, if there should be none yet, let one be made"),
    "password": ("repository_password", "the password that the repository was made with (or one added by `restic key add`)",
                 "correct the password of the repository"),
    "unreachable": ("repository_unreachable", "a location that answers, and rights to read and write there",
                    "see that name, port, firewall and credentials are right, and that the user of this run may write there"),
    "locked": ("repository_locked", "nobody else at work in the repository",
               "wait until the other run has ended; if it was killed, `restic unlock` takes its lock away, and no other"),
    "full": ("repository_full", "free space at the repository, for prune as well",
             "enlarge it, or delete something else there; then run again. A full one can still be read"),
    "damaged": ("repository_damaged", "a repository whose every byte is as it was written",
                "delete nothing. Look at the storage, copy the repository, then `restic check --read-data` and restic's page on repairs"),
    "target": ("target_full", "room for all its files", "free space there, or name another directory; what is in it is incomplete"),
    "slow": ("restic_timeout", "more time, or less to do", "set a longer timeout; the lock that is left goes with `restic unlock`"),
    "other": ("restic_failed", "", "act on restic's words"),
}  # fmt: skip
#: What restic writes at once (its pack size, 16 MiB, and what goes around it).
_PACK_BYTES = 20 * 1024**2
#: The exit code of a backup that left something out, and what is stated with it.
_INCOMPLETE = 3
_UNREAD = "Warning: at least one source file could not be read"


class Restic:
    """One repository and the restic of this host. Every method raises Problem; none waits longer than its seconds.

    ``timeout`` is for what moves no data. restic >= 0.17 goes on trying for up to 15 minutes where a location does not answer:
    what it stated until its time was over tells what is wrong.
    What only reads takes no lock: so it works where the disk is full, where nothing may be written, and where a host that died
    left a lock. A prune at the same time can make such a read fail, never give wrong data: restic checks each piece's hash.
    """

    def __init__(self, host: Host, repository: Repository, timeout: float = 60.0) -> None:
        repository.require_usable()
        self._host, self._repository, self._timeout = host, repository, timeout
        self._version: t.Optional[tuple[int, int, int]] = None

    def version(self) -> tuple[int, int, int]:
        """The version of restic, at least FLOOR."""
        if self._version is None:
            done = self._host.run("restic", "version", timeout=self._timeout)
            found = parse_version(done.output)
            if done.code or found is None:
                detected = (
                    "restic is not installed"
                    if done.code in (126, 127)
                    else f"restic does not say its version: {done.output.strip()[:200]}"
                )
                raise Problem(
                    "restic_missing",
                    f"{detected} ({self._name})",
                    f"restic {_dotted(FLOOR)} or newer",
                    "install the package restic",
                )
            if found < FLOOR:
                raise Problem("restic_missing", f"restic {_dotted(found)} is installed", f"restic {_dotted(FLOOR)} or newer",
                              "install a newer package restic")  # fmt: skip
            self._version = found
        return self._version

    def exists(self) -> bool:
        """False only where the place answers and holds no repository; it is opened, so that the password is verified as well."""
        try:
            self._run("cat", "config", "--no-lock")
        except Problem as problem:
            if problem.code == "repository_missing":
                return False
            raise
        return True

    def create(self) -> None:
        """Make the repository. One that is there already is a Problem."""
        self._run("init")

    def snapshots(self, tag: str = "") -> list[Snapshot]:
        """All snapshots, or those with ``tag``, oldest first."""
        output = self._run("snapshots", "--json", "--no-lock", *([f"--tag={_checked_tag(tag)}"] if tag else []))
        return sorted(self._understood(parse_snapshots, output), key=lambda one: (one.at, one.id))

    def check(self, read_data_subset: t.Optional[str] = None, timeout: t.Optional[float] = None) -> None:
        """The structure, and the data of a part (``5%``, ``1/7``, ``100%``) where one is named. No time given: that of short commands."""
        part = [] if read_data_subset is None else [f"--read-data-subset={read_data_subset}"]
        self._run("check", *part, timeout=timeout)

    def save(self, directory: str, tags: t.Sequence[str], when: int, timeout: float, hostname: str) -> Saved:
        """The content of ``directory``, at the root of a new snapshot, dated ``when`` (seconds since 1970) and of ``hostname``.

        A snapshot that lacks a file, because it could not be read, is taken out again and is a Problem.
        """
        moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        marks = [f"--tag={_checked_tag(tag)}" for tag in tags]
        words = ["--json", "--quiet", f"--host={hostname}", f"--time={moment}", *marks, "."]
        done = self._start("backup", *words, timeout=timeout, directory=directory)
        saved = parse_summary(done.output)
        if done.code == _INCOMPLETE and saved:
            self._run("forget", self._full_id(saved.snapshot))
            line = error_of(1, done.output.replace(_UNREAD, "")).line
            detected = (
                f"the snapshot of {directory} lacked files that could not be read, and was taken out again: {line}"
            )
            raise self._problem("other", detected)
        if done.code or not saved:
            raise self._failed("backup", done, timeout)
        return dataclasses.replace(saved, snapshot=self._full_id(saved.snapshot))

    def fetch(self, snapshot: str, target_directory: str, timeout: float, verify: bool = True) -> None:
        """The files of ``snapshot``, directly in ``target_directory``; their owners too where root runs this.

        restic checks what it reads in any case; ``verify`` reads again what is on disk then.
        """
        words = [
            "restore",
            "--no-lock",
            f"--target={target_directory}",
            *(["--verify"] if verify else []),
            _checked_id(snapshot),
        ]
        done = self._start(*words, timeout=timeout)
        if done.code == 0:
            return
        inside = target_directory.rstrip("/") + "/"
        ours = [line for line in done.output.splitlines() if inside in line]
        theirs = "\n".join(line for line in done.output.splitlines() if inside not in line)
        if not ours or error_of(done.code, theirs).kind != "other":
            raise self._failed("restore", dataclasses.replace(done, output=theirs), timeout)
        # What the target's file system says is no word on the repository.
        if any("no space left" in line or "quota exceeded" in line for line in ours):
            raise self._problem("target", f"no space is left for snapshot {snapshot[:8]} in {target_directory}")
        raise self._problem("other", f"restic restore to {target_directory}: {ours[-1].strip()}")

    def tag(self, snapshot: str, add: str) -> str:
        """Add a tag. The snapshot gets a new id, which is returned; where it had the tag, that is the old one."""
        before = {one.id: one for one in self.snapshots()}
        old = next((one for one in before.values() if one.id.startswith(_checked_id(snapshot))), None)
        if old is None:
            raise self._problem("other", f"there is no snapshot {snapshot[:8]}")
        if _checked_tag(add) in old.tags:
            return old.id
        self._run("tag", f"--add={add}", old.id)
        first = old.original or old.id
        for one in self.snapshots(add):
            if one.id not in before and one.original == first:
                return one.id
        raise self._problem("other", f"snapshot {old.id[:8]} was tagged {add}, and is not found again")

    def forget(self, ids: t.Sequence[str], prune: bool, timeout: t.Optional[float] = None) -> None:
        """Remove snapshots; with ``prune`` the data that no other one needs as well. One that is not there is no error."""
        if ids:
            self._run("forget", *(["--prune"] if prune else []), *map(_checked_id, ids), timeout=timeout)

    @property
    def _name(self) -> str:
        return f"repository {self._repository.name} ({self._repository.shown})"

    def _start(self, *words: str, timeout: float, directory: t.Optional[str] = None) -> Completed:
        self.version()
        one = self._repository
        options = [word for option in one.options for word in ("-o", option)]
        cache = [f"--cache-dir={one.cache_dir}"] if one.cache_dir else []
        # restic reads and writes times without a zone in that of the process.
        environment = {
            **dict.fromkeys(_CLEARED, ""), "TZ": "UTC", **one.environment,
            "RESTIC_REPOSITORY": one.location, "RESTIC_PASSWORD": one.password,
        }  # fmt: skip
        return self._host.run(
            "restic", *options, *cache, *words, timeout=timeout, environment=environment, directory=directory
        )

    def _run(self, *words: str, timeout: t.Optional[float] = None) -> str:
        """What a command prints. Raises Problem."""
        seconds = self._timeout if timeout is None else timeout
        done = self._start(*words, timeout=seconds)
        if done.code:
            raise self._failed(words[0], done, seconds)
        return done.output

    def _failed(self, command: str, done: Completed, timeout: float) -> Problem:
        """The end of a run that did not succeed, as what stopped it."""
        if done.code in (126, 127):  # restic itself was found before: this is the directory to run in
            return self._problem("other", f"restic {command} could not be started: {done.output.strip()}")
        if done.code != TIMED_OUT:
            reported = error_of(done.code, done.output)
            return self._problem(reported.kind, f"restic {command}: {reported.line}")
        reported, room = error_of(1, done.partial), self._room()
        if reported.kind in ("other", "damaged") and room is not None and room < _PACK_BYTES:
            # restic 0.14 may stand still, without a word, where a pack of it does not fit.
            return self._problem(
                "full",
                f"no space left: restic {command} was ended after {timeout:g} seconds, with {room} bytes free there",
            )
        if reported.kind in ("other", "damaged"):
            return self._problem("slow", f"restic {command} was ended after {timeout:g} seconds")
        return self._problem(
            reported.kind, f"restic {command} was still trying after {timeout:g} seconds: {reported.line}"
        )

    def _room(self) -> t.Optional[int]:
        """Bytes that are free where the repository is; None where that is not a directory of this host."""
        try:
            space = os.statvfs(self._repository.location.removeprefix("local:"))
        except OSError:
            return None
        return space.f_bavail * space.f_frsize

    def _problem(self, kind: str, detected: str) -> Problem:
        code, needs, do = _PROBLEMS[kind]
        return Problem(code, self._repository.mask(f"{self._name}: {detected}"), needs, do)

    def _understood(self, parse: t.Callable[[str], t.Any], output: str) -> t.Any:
        try:
            return parse(output)
        except ValueError as error:
            raise self._problem("other", f"restic's answer is not understood: {error}") from None

    def _full_id(self, snapshot: str) -> str:
        """The whole id; restic before 0.17 gives eight digits of it."""
        if len(snapshot) == 64:
            return snapshot
        output = self._run("snapshots", "--json", "--no-lock", _checked_id(snapshot))
        for one in self._understood(parse_snapshots, output):
            if one.id.startswith(snapshot):
                return one.id
        raise self._problem("other", f"snapshot {snapshot} was made, and is not found again")


def _dotted(version: t.Sequence[int]) -> str:
    return ".".join(map(str, version))


def _checked_id(snapshot: str) -> str:
    """An id, and no other word that restic would take (``latest``, an option). Raises Problem."""
    if not _ID.fullmatch(snapshot):
        raise Problem(
            "invalid_value",
            f"{snapshot!r} is no id of a snapshot",
            "8 to 64 hexadecimal digits",
            "take the id from the list of snapshots",
        )
    return snapshot


def _checked_tag(tag: str) -> str:
    """restic splits tags at commas, and does not keep an empty one. Raises Problem."""
    if not tag or "," in tag or "\0" in tag or tag != tag.strip():
        raise Problem(
            "invalid_value", f"{tag!r} is no tag", "a word without a comma, or space around it", "name another tag"
        )
    return tag
