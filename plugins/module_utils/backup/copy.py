# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the copy: one function a method, each gives what the copy shows and where its data stands.

Files are held open while they are copied. An open file stays what it is, whatever name Redis gives to another one meanwhile, so no
rewrite has to be paused, no link is left behind by a run that was cut off, and the AOF's live increment is read up to where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.backup.fingerprint import (
    Chosen,
    Moment,
    choose_sample,
    moment_of,
    questions_of,
    read_moment,
)
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupFile
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    AofManifest,
    parse_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import digest_of, fsync_dir
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

__all__ = ["Taken", "copy_file", "take_aof", "take_rdb", "take_stream", "write_file"]

_STEP = 1024 * 1024
#: How often the AOF's set of files, or a save of others, may change under our hands before we give up.
_TRIES = 50
#: Seconds that writes are paused for the moment of an AOF backup, if at all, the next longer than the one before: a busy host may take us the CPU.
#: Redis sees that a pause has ended ten times a second only.
_PAUSES = (0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.06, 0.12)
#: Seconds for which a write to the AOF may wait while its disk is synced.
_WRITTEN_SECONDS = 3.0
#: How many saves are made for numbers that are exact.
_EXACT_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Taken:
    """What one method gives: the moment that the copy shows, its files, and which of them a start reads first (relative paths)."""

    moment: Moment
    files: tuple[BackupFile, ...]
    data: str
    notes: tuple[str, ...] = ()


def _trouble(error: OSError, path: str) -> Problem:
    return Problem(
        "backup_write",
        f"{path} could not be written: {error.strerror or error}",
        "a directory that can be written, with room",
        "see to that, then run again; what was begun is removed by the next run",
    )


def copy_file(source: int, path: str, size: t.Optional[int] = None) -> tuple[int, str]:
    """Copy ``size`` bytes (None: all there are) from a descriptor into a new file, synced; bytes and SHA-256. Raises Problem."""
    digest, done = hashlib.sha256(), 0
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb", buffering=0
        ) as target:
            while size is None or done < size:
                block = os.pread(source, _STEP if size is None else min(_STEP, size - done), done)
                if not block:
                    break
                digest.update(block)
                view = memoryview(block)
                while view:
                    view = view[target.write(view) :]
                done += len(block)
            os.fsync(target.fileno())
            with contextlib.suppress(OSError):  # the copy shall not push out of memory what the server reads
                os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        fsync_dir(os.path.dirname(path))
    except OSError as error:
        raise _trouble(error, path) from None
    if size is not None and done < size:
        raise Problem(
            "source_shrank",
            f"{size} bytes were to be copied to {path}, and there were {done}",
            "a file that stays",
            "run again",
        )
    return done, digest.hexdigest()


def write_file(root: str, path: str, text: str) -> BackupFile:
    """A small file of the backup from its text. Raises Problem."""
    full, raw = os.path.join(root, path), text.encode("utf-8", "surrogateescape")
    try:
        os.makedirs(os.path.dirname(full), 0o700, exist_ok=True)
        with open(os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as handle:
            handle.write(raw)
            handle.flush()
            os.fsync(handle.fileno())
        fsync_dir(os.path.dirname(full))
    except OSError as error:
        raise _trouble(error, full) from None
    return BackupFile(path, len(raw), hashlib.sha256(raw).hexdigest())


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def _wait_idle(server: Server, timeout: float) -> Info:
    latest: list[Info] = []

    def idle() -> bool:
        latest[:] = [server.info()]
        return not any(
            latest[0].flag(name)
            for name in ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        )

    if not wait_for(idle, timeout):
        raise Problem(
            "save_timeout",
            f"a save or rewrite is still running after {timeout:g} seconds",
            "an idle server",
            "wait for it and run again, or set a longer timeout",
        )
    return latest[0]


def take_rdb(server: Server, place: Place, root: str, sample: int, timeout: float) -> Taken:
    """BGSAVE, reported together with the numbers of that moment, and a copy of the file that it made. Raises Problem."""
    for tries in range(_TRIES):
        before = _wait_idle(server, timeout)
        chosen = choose_sample(server, before, sample)
        held = _open_if_there(place.rdb)
        try:
            try:
                moment = read_moment(server, chosen, [("BGSAVE",)])
            except CommandError as error:
                if "in progress" in error.text or "child" in error.text:
                    continue  # somebody else was faster
                raise Problem(
                    "save_failed", f"BGSAVE was refused: {error.text}", "a save", "look into the server's log"
                ) from None
            after = _wait_idle(server, timeout)
            new = _open_if_there(place.rdb)
            if (
                new is None
                or after.text("rdb_last_bgsave_status") != "ok"
                or (held is not None and os.path.sameopenfile(held, new))
            ):
                if new is not None:
                    os.close(new)
                raise Problem(
                    "save_failed",
                    f"BGSAVE did not end well: rdb_last_bgsave_status:{after.text('rdb_last_bgsave_status')}",
                    "a new RDB file",
                    "look into the server's log: a full disk, missing memory for fork and wrong owners are the usual causes",
                )
        finally:
            if held is not None:
                os.close(held)
        try:
            if after.number("rdb_saves") != before.number("rdb_saves") + 1:
                continue  # a save point came in between: whose file that is is not known
            if moment.slack and tries < _EXACT_TRIES:
                continue  # the packet came in two parts, and others in between
            size, digest = copy_file(new, os.path.join(root, "data/dump.rdb"))
        finally:
            os.close(new)
        return Taken(moment, (BackupFile("data/dump.rdb", size, digest),), "data/dump.rdb")
    raise Problem(
        "server_busy",
        f"other saves came in between {_TRIES} times",
        "a server that can be saved",
        "take the backup at another time, or by method aof",
    )


def _open_if_there(path: str) -> t.Optional[int]:
    try:
        return _open(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Problem(
            "unreadable",
            f"{path}: {error.strerror or error}",
            "a plain file that can be read (root)",
            "run with become",
        ) from None


def _held(place: Place) -> tuple[AofManifest, str, dict[str, int]]:
    """Manifest and open files that belong together: the manifest is the same after the last one was opened. Raises Problem."""
    for _try in range(_TRIES):
        opened: dict[str, int] = {}
        done = False
        try:
            text = _read(place.manifest)
            manifest = parse_manifest(text, place.manifest)
            for entry in manifest.needed:
                opened[entry.name] = _open(os.path.join(place.aof_dir, entry.name))
            done = _read(place.manifest) == text
            if done:
                return manifest, text, opened
        except FileNotFoundError:
            pass  # a rewrite has just ended
        except OSError as error:
            raise Problem(
                "unreadable",
                f"{place.aof_dir}: {error.strerror or error}",
                "files that can be read (root)",
                "run with become",
            ) from None
        finally:
            if not done:
                for descriptor in opened.values():
                    os.close(descriptor)
    raise Problem(
        "aof_unsteady",
        f"the files that {place.manifest} names were not all there, {_TRIES} times",
        "a complete AOF",
        "look at the directory and the server's log",
    )


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
        return handle.read()


@dataclasses.dataclass(frozen=True)
class _Held:
    """The files of an AOF, open, and the manifest's text that names them."""

    manifest: AofManifest
    text: str
    opened: t.Mapping[str, int]

    def close(self) -> None:
        for descriptor in self.opened.values():
            os.close(descriptor)

    @property
    def last(self) -> str:
        return self.manifest.needed[-1].name

    def reaches(self, length: int) -> bool:
        """Whether the last file comes to that many bytes; what waits in the buffer is written within moments, but where the disk is slow to sync."""
        return wait_for(lambda: self.sizes()[self.last] >= length, _WRITTEN_SECONDS)

    def sizes(self) -> dict[str, int]:
        """Bytes by name, now."""
        return {name: os.fstat(descriptor).st_size for name, descriptor in self.opened.items()}

    def lengths_at(self, info: Info, before: t.Mapping[str, int], after: t.Mapping[str, int]) -> dict[bool, int]:
        """Bytes of the last file that ``info`` is of, by whether the server counts the base; ``before`` and ``after`` are the sizes around it.

        What was carried out by then is in the file or waits in the buffer, in this order. The server's count (aof_current_size) is of all
        files, but for a base that it began with itself.
        """
        waits = info.number("aof_buffer_length")
        counted = info.number("aof_current_size") + waits
        base = before.get(self.manifest.base.name, 0) if self.manifest.base else 0
        others = sum(size for name, size in before.items() if name != self.last)
        lengths = {True: counted - others, **({False: counted - others + base} if base else {})}
        return {
            way: length for way, length in lengths.items() if before[self.last] <= length <= after[self.last] + waits
        }


def _counts_base(server: Server, held: _Held) -> t.Optional[bool]:
    """Whether the server's count has the base in it; None where that is not seen. A small base is told from what clients write meanwhile."""
    for _try in range(_TRIES):
        before, info = held.sizes(), server.info("persistence")
        lengths = held.lengths_at(info, before, held.sizes())
        if len(lengths) == 1:
            return next(iter(lengths))
    return None


def take_aof(server: Server, place: Place, root: str, sample: int) -> Taken:
    """Base and increments as they are, the last one up to where it is now; writes are paused for some milliseconds. Raises Problem."""
    held, moment, length, note = _aof_moment(server, place, sample)
    try:
        files = []
        for entry in held.manifest.needed:
            size = length if entry.name == held.last else None
            size, digest = copy_file(held.opened[entry.name], os.path.join(root, "data/aof", entry.name), size)
            files.append(BackupFile(f"data/aof/{entry.name}", size, digest))
    finally:
        held.close()
    data = f"data/aof/{place.appendfilename}.manifest"
    files.append(write_file(root, data, AofManifest(held.manifest.needed).render()))
    return Taken(moment, tuple(files), data, (note,) if note else ())


def _aof_moment(server: Server, place: Place, sample: int) -> tuple[_Held, Moment, int, str]:
    """The files, the moment, how long the last file was in it, and a note where that was no exact moment. Raises Problem."""
    held: t.Optional[_Held] = None
    for seconds in _PAUSES:
        chosen = choose_sample(server, server.info(), sample)
        if held is not None:
            held.close()
        held = _Held(*_held(place))
        moment, length, wrong = _moment_of_files(server, place, held, chosen, seconds)
        if not wrong:
            return held, moment, length, ""
    # What was written may not be in the file yet: a value that was read is no measure for the copy.
    moment = dataclasses.replace(moment, slack=max(moment.slack, 1), sample=())
    return held, moment, length, f"numbers and files are of no exact moment ({wrong}), so no values were compared"


def _paused(server: Server, seconds: float) -> t.Optional[WritePause]:
    """A pause of writes; it is left to run out, since to end it by hand would end that of another run as well. None where there is to be none."""
    pause = WritePause(server.command, seconds)
    try:
        if seconds:
            pause.renew()
            return pause
    except CommandError:
        pass  # a user that may not; the moment can be one all the same, if nothing else ran in it
    return None


def _moment_of_files(
    server: Server, place: Place, held: _Held, chosen: t.Sequence[Chosen], seconds: float
) -> tuple[Moment, int, str]:
    """One moment, how long the last file was in it, and why it is none; the last is empty where it is one.

    Redis carries out one packet before it turns to anybody else, so the packet is a moment by itself; with ``seconds`` writes are paused, for a
    server whose keys go all the time or which does not take a packet as a whole.
    """
    questions, way = questions_of(server, chosen), _counts_base(server, held)
    pause = _paused(server, seconds)
    before = held.sizes()
    answers = server.commands(questions.rows)
    after, same_files = held.sizes(), _read_if_there(place.manifest) == held.text
    in_time = pause is not None and pause.lasted < seconds
    moment = moment_of(questions, answers)
    length = None if way is None else held.lengths_at(moment.info, before, after).get(way)
    reasons = {
        "a rewrite went on to other files": not same_files,
        "the server's AOF has another size than its files": length is None,
        "not all that the AOF has was on disk": length is not None and not held.reaches(length),
        "keys expired or were evicted meanwhile": bool(moment.went),
        f"{moment.slack} commands ran in it": bool(moment.slack) and not in_time,
    }
    wrong = next((words for words, holds in reasons.items() if holds), "")
    return (moment if wrong else dataclasses.replace(moment, slack=0)), length or after[held.last], wrong


#: What moves with every write, of clients or of a primary's stream, and with every key that goes by itself; a save sets the first back, and
#: counts in the second. The replication offset is none of them: it moves with a PING to replicas as well.
_MOVES = ("rdb_changes_since_last_save", "rdb_saves", "expired_keys", "evicted_keys", "aof_current_size")


def _written(info: Info) -> tuple[int, ...]:
    return tuple(info.number(name) for name in _MOVES)


def _read_if_there(path: str) -> str:
    try:
        return _read(path)
    except OSError:
        return ""


def take_stream(server: Server, login: Login, host: Host, root: str, sample: int, timeout: float) -> Taken:
    """What a replica would get, by ``redis-cli --rdb``: from this host or another one. Raises Problem."""
    chosen = choose_sample(server, server.info(), sample)
    before = read_moment(server, chosen)
    path = os.path.join(root, "data/dump.rdb")
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    where = ["-s", login.unix_socket] if login.unix_socket else ["-h", login.host, "-p", str(login.port)]
    if login.tls:
        where += ["--tls", *(["--insecure"] if not login.validate_certs else [])]
        pairs = (("--cacert", login.ca_certs), ("--cert", login.client_cert_file), ("--key", login.client_key_file))
        where += [word for option, value in pairs if value for word in (option, value)]
    user = ["--user", login.user] if login.user else []
    secret = {"REDISCLI_AUTH": login.password} if login.password else {}
    done = host.run("redis-cli", "--no-auth-warning", *where, *user, "--rdb", path, timeout=timeout, environment=secret)
    if done.code or not os.path.exists(path):
        raise Problem(
            "stream_failed",
            f"redis-cli --rdb failed: {' '.join(done.output.split())[-300:]}",
            "redis-cli, and a user that may SYNC (+sync, +psync, +replconf)",
            "install redis-tools, or give that user the rights",
        )
    after = read_moment(server, chosen)
    constant = tuple(one for one, other in zip(before.sample, after.sample) if one == other)
    ran = after.info.number("total_commands_processed") - before.info.number("total_commands_processed")
    # Of ours: the first packet's rest, and the commands of the copy itself (REPLCONF, SYNC, acknowledgements) is not known apart.
    moved = _written(before.info) != _written(after.info) or after.info.keyspace != before.info.keyspace
    size, digest = digest_of(path)
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
    fsync_dir(os.path.dirname(path))
    moment = dataclasses.replace(before, slack=max(ran, 1) if moved else 0, sample=constant)
    return Taken(moment, (BackupFile("data/dump.rdb", size, digest),), "data/dump.rdb")
