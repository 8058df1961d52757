# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance as a whole: its file, its live server, and the proof that the two belong together."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import declare
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import DEFAULTS, effective, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import Directive, RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import Release, loading_lines
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import (
    Candidate,
    server_binary,
    temporary_server,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedEdit, read_includes, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_directory
from ansible_collections.redisops.recovery.plugins.module_utils.system.mounts_reader import covered, require_mounted
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import status_field

__all__ = [
    "OPEN_ACL",
    "Instance",
    "edited",
    "read_instance",
    "refreshed",
    "release_of",
    "require_accepted",
    "stage",
    "temporarily_loaded",
    "wait_until_loaded",
]  # fmt: skip

OLDEST = (7, 0)
#: Seconds for one answer, or the module's timeout where that is less.
PATIENCE = 30.0


@dataclasses.dataclass
class Instance:
    """``server`` is None where the instance does not run; then ``live`` and ``info`` are empty."""

    path: str
    text: str
    directives: list[Directive]
    host: Host
    server: t.Optional[Server] = None
    live: dict[str, str] = dataclasses.field(default_factory=dict)
    info: Info = dataclasses.field(default_factory=lambda: Info({}, {}))

    @property
    def running(self) -> bool:
        return self.server is not None

    def in_file(self, name: str) -> t.Optional[str]:
        """The normal form of what the file says, Redis' default where it says nothing."""
        found = effective(self.directives, name)
        return found if found is not None else DEFAULTS.get(name)

    def value(self, name: str) -> t.Optional[str]:
        """What is in force: the live value, or the file's where the server does not run."""
        return self.live.get(name) if self.running else self.in_file(name)

    @property
    def pid(self) -> int:
        return self.info.number("process_id")


def _directives(text: str, path: str) -> list[Directive]:
    return expand(RedisConf(text, path), read_includes)


def wait_until_loaded(server: Server, timeout: float) -> Info:
    """INFO of a server that has loaded its data. Raises Problem if it still loads after ``timeout`` seconds."""
    last: list[Info] = []

    def loaded() -> bool:
        last[:] = [server.info()]
        return not last[0].flag("loading")

    if not wait_for(loaded, timeout):
        raise Problem(
            "loading",
            f"Redis at {server.login.address} is still loading its data after {timeout:g} seconds "
            f"({last[0].text('loading_loaded_perc', '?')} % done)",
            "a server that has loaded its data",
            "wait for it and run again, or set a longer timeout",
        )
    return last[0]


def _with_process(instance: Instance, silent: Problem) -> Problem:
    """The same, with the processes that may be it and the state of each."""
    host, found = instance.host, []
    for pid in host.servers_in(instance.in_file("dir") or ""):
        state = status_field(host.read(f"/proc/{pid}/status") or "", "State")
        found.append(f"process {pid} is in state {state or 'not known'}")
    if not found:
        return silent
    return Problem(silent.code, f"{silent.detected}; {', '.join(found)}", silent.needs, silent.do)


def _connect_where_it_is(instance: Instance, login: Login, timeout: float) -> Server:
    """The declared address, or, while TLS is being brought in, where the file says that the server listens in plain text.

    Only what does not leave this host is tried in plain text. Raises ServerDown or Problem.
    """
    try:
        return connect(login, timeout)
    except Problem as problem:
        if problem.code == "server_silent":
            raise _with_process(instance, problem) from None
        if not (login.tls and login.local and problem.code in ("server_down", "not_redis")):
            raise
        plain = dataclasses.replace(login, tls=False)
        port = instance.in_file("port") or "6379"
        ways = [dataclasses.replace(plain, port=int(port))] if port.isdigit() and port != "0" else []
        socket = instance.in_file("unixsocket")
        ways += [dataclasses.replace(plain, unix_socket=socket)] if socket else []
        for way in ways:
            try:
                return connect(way, timeout)
            except Problem as other:
                if other.code == "server_silent":
                    raise _with_process(instance, other) from None
        raise


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _require_it_is_ours(instance: Instance, data_dir: str) -> None:
    """Editing one server's file and setting another live would be the worst of both: verify that they are one."""
    info = instance.info
    where = instance.server.login.address if instance.server else ""
    started_with = info.text("config_file")
    if not started_with:
        raise Refusal(
            "no_config_file",
            f"{info.product} at {where} was started without a configuration file",
            f"a server started with {instance.path}, or its next start would forget everything set now",
            f"start it as `redis-server {instance.path}` (the packaged unit does)",
        )
    if not _same_file(started_with, instance.path):
        raise Refusal(
            "other_config_file",
            f"{info.product} at {where} was started with {started_with}, not with {instance.path}",
            "a config_file and a login that belong to the same server",
            f"set config_file: {started_with}, or set login_port to the server that uses {instance.path}",
        )
    over = covered(instance.host, instance.pid, data_dir)
    if over:
        raise Refusal(
            "mounted_over",
            over,
            "a process and a directory that are one",
            f"umount what lies over {data_dir}, run again to have what the process holds saved; then merge the two sets of data by hand "
            "(a backup of the process, and what the file system holds)",
        )
    if instance.pid not in instance.host.servers_in(data_dir):
        raise Refusal(
            "other_host",
            f"{info.product} at {where} says it is process {instance.pid} with its data in {data_dir}; on this host there is no such process",
            "a server that runs on the managed host itself, seen from the same process namespace, and the right to look (root)",
            "run with become: true, on the host (or in the container) that the server runs in",
        )
    if info.version < OLDEST:
        raise Refusal(
            "too_old",
            f"{info.product} runs at {where}",
            "Redis >= 7.0",
            "upgrade Redis first: multi-part AOF begins with 7.0",
        )


def _require_it_is_stopped(instance: Instance, login: Login) -> None:
    data_dir = instance.in_file("dir")
    if not data_dir or not os.path.isabs(data_dir):
        raise Refusal(
            "no_dir",
            f"nothing listens at {login.address}, and {instance.path} names no absolute dir",
            "to know where the data of the stopped server is",
            f"write `dir /absolute/path` into {instance.path}, or start the server",
        )
    processes = instance.host.servers_in(data_dir)
    if processes:
        raise Refusal(
            "server_elsewhere",
            f"nothing listens at {login.address}, but a Redis server (process {processes[0]}) works in {data_dir}",
            "a login that reaches the server that uses this data",
            "set login_port (ss -ltnp shows the ports), login_unix_socket or tls; or wait until the process has ended",
        )


def _lock(instance: Instance) -> Instance:
    """One run at a time on this data, which is there: from here on nobody else of ours changes it. The file is read anew then. Raises Refusal."""
    place: t.Optional[str] = None
    if instance.server is None:
        place = instance.in_file("dir")
    else:
        with contextlib.suppress(CommandError):  # a login without that right is told so where it is asked for more
            place = instance.server.config_get("dir").get("dir")
    if place and os.path.isabs(place):
        require_mounted(instance.host, [place, os.path.join(place, instance.in_file("appenddirname") or "")])
        lock_directory(place)
    text = read_text(instance.path)
    return dataclasses.replace(instance, text=text, directives=_directives(text, instance.path))


def read_instance(path: str, login: Login, host: Host, timeout: float, fresh_install: bool = False) -> Instance:
    """Read file and live server, under the lock of its data. Raises Problem, or Refusal where the two cannot be shown to be one instance.

    ``fresh_install``: this run installs Redis, so what it changes is reported against an empty file, and there is no data yet.
    """
    if fresh_install and not os.path.exists(path):
        return Instance(path, "", [], host)
    text = read_text(path)
    instance = Instance(path, text, _directives(text, path), host)
    if not os.access(path, os.W_OK) or not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK):
        raise Problem(
            "file_written",
            f"{path} or its directory is not writable for this user; it is unchanged",
            "",
            "run with become: true",
        )
    try:
        instance.server = _connect_where_it_is(instance, login, max(1.0, min(timeout, PATIENCE)))
    except ServerDown:
        instance = _lock(instance)
        _require_it_is_stopped(instance, login)
        return instance
    instance = _lock(instance)
    try:
        instance.info = wait_until_loaded(instance.server, timeout)
        instance.live = instance.server.config_all()
    except CommandError as error:
        if error.prefix in ("NOAUTH", "NOPERM"):
            raise Problem(
                "login_failed", f"Redis at {login.address} refuses {error.text}", "a user that may run INFO, CONFIG and BGSAVE",
                "set login_user and login_password",
            ) from None  # fmt: skip
        raise
    _require_it_is_ours(instance, instance.live["dir"])
    _spell_dir(instance)
    host.programs = os.path.dirname(host.program_of(instance.pid))
    return instance


def _spell_dir(instance: Instance) -> None:
    """Redis answers getcwd() for dir: a slash at the end or a link in the file is no other place."""
    stated = instance.in_file("dir") or ""
    if os.path.isabs(stated) and _same_file(stated, instance.live["dir"]):
        instance.live["dir"] = stated


def release_of(instance: Instance) -> Release:
    """What loads the instance's data: the program that runs, and the lines of its file, which its next start reads."""
    program = instance.host.program_of(instance.pid) if instance.running else ""
    return Release(program, loading_lines(instance.directives), instance.value("databases") or "16")


def refreshed(instance: Instance) -> Instance:
    """The same running instance, its file and its settings as they are now. Raises Problem."""
    text = read_text(instance.path)
    now = dataclasses.replace(instance, text=text, directives=_directives(text, instance.path))
    now.live = instance.server.config_all() if instance.server else {}
    _spell_dir(now)
    return now


def edited(instance: Instance, values: t.Mapping[str, str]) -> str:
    """The file's text with ``values`` declared; what it says already (by value or by default) stays byte for byte.

    ``values`` are written as they are spelled, and compared in normal form.
    """
    conf = RedisConf(instance.text, instance.path)
    for name, value in values.items():
        if instance.in_file(name) != normal(name, value):
            declare(conf, expand(conf, read_includes), name, value)
    return conf.render()


@contextlib.contextmanager
def temporarily_loaded(
    instance: Instance, text: str, acl_text: t.Optional[str] = None
) -> t.Iterator[t.Optional[Server]]:
    """A temporary server that has read ``text`` as the instance's file (and ``acl_text`` as its ACL file), to ask it questions.

    None where no server program is installed. Raises Problem where it refuses to start.
    """
    binary = server_binary(release_of(instance).program)
    if binary is None:
        yield None
        return
    directives = _directives(text, instance.path)
    data_dir = effective(directives, "dir")
    if data_dir and not os.path.isdir(data_dir):
        # Redis enters the directory as it reads the line; one that is yet to be made is no fault of the text.
        conf = RedisConf(text, instance.path)
        conf.set("dir", [("/",)])
        text = conf.render()
    user = instance.host.user_of_process(instance.pid) if instance.running else None
    if user is None:  # whoever owns the data is whom the server will run as
        user = instance.host.user_of_file(data_dir if data_dir and os.path.isdir(data_dir) else instance.path)
    place = instance.value("dir") or "/"
    with temporary_server(binary, Candidate(text, instance.path, directives, place, acl_text), user) as socket:
        yield connect(Login(unix_socket=socket)) if acl_text == OPEN_ACL else None


#: An ACL file that lets everybody in.
OPEN_ACL = "user default on nopass ~* &* +@all\n"


def require_accepted(instance: Instance, text: str, acl_text: t.Optional[str] = None) -> None:
    """Let the installed server read ``text`` (and ``acl_text``). Raises Problem where it refuses it."""
    with temporarily_loaded(instance, text, acl_text):
        pass


def stage(
    instance: Instance, text: str, made_from: t.Optional[str] = None, access: t.Optional[Access] = None
) -> StagedEdit:
    """Stage ``text`` as the instance's file, edited from ``made_from``. Raises Problem; then nothing has been touched."""
    return StagedEdit(instance.path, text, instance.text if made_from is None else made_from, 0o640, access)
