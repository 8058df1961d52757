# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to one Redis server, and waiting for it.

redis-py's low-level connection is used, so that answers are the server's own and do not depend on redis-py's version.
"""

from __future__ import annotations

import dataclasses
import sys
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, parse_info

try:
    import redis
except Exception:  # not only ImportError: a redis-py that is too new for this Python fails in its own ways
    redis = None

__all__ = ["CommandError", "Login", "Server", "ServerDown", "connect", "connect_as", "wait_for"]

_POLL_SECONDS = 0.05
_POLL_MAX_SECONDS = 1.0


class ServerDown(Problem):
    """Nothing listens there (as opposed to something that does not let us in, or is no Redis)."""


class CommandError(Problem):
    """Redis answered a command with an error; ``prefix`` is its first word (ERR, NOAUTH, LOADING, …)."""

    def __init__(self, command: str, text: str) -> None:
        renamed = "unknown command" in text
        super().__init__(
            "command_renamed" if renamed else "command_failed",
            f"Redis refused {command}: {text}",
            f"the command {command} under its own name: this collection reads back what it sets" if renamed else "",
            f"take `rename-command {command} …` out of redis.conf and start the server anew (after a save); what it kept from clients, ACL rules keep "
            f"from them (redis_acl, or -{command.lower()} in the rules of a user)"
            if renamed
            else "",
        )
        self.text = text
        self.prefix = text.split(" ", 1)[0]


@dataclasses.dataclass(frozen=True)
class Login:
    """Where the server is and how to log in; the ``login_*`` and TLS options."""

    host: str = "127.0.0.1"
    port: int = 6379
    user: t.Optional[str] = None
    password: t.Optional[str] = None
    previous_password: t.Optional[str] = None
    unix_socket: t.Optional[str] = None
    tls: bool = False
    ca_certs: t.Optional[str] = None
    client_cert_file: t.Optional[str] = None
    client_key_file: t.Optional[str] = None
    validate_certs: bool = True

    @property
    def address(self) -> str:
        return self.unix_socket or f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether what is sent there stays on this host."""
        return bool(self.unix_socket) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def fallbacks(self) -> list[Login]:
        """Who else to log in as where the declared login is refused, because this run is what brings it.

        A password that is being rotated was another one before; a user that is being made was the default user, with the earlier
        password or, on a server that is still open, with none.
        """
        others = []
        if self.previous_password:
            others.append(dataclasses.replace(self, password=self.previous_password))
            if self.user:
                others.append(dataclasses.replace(self, user=None, password=self.previous_password))
        if self.password or self.user:
            others.append(dataclasses.replace(self, user=None, password=None))
        return others


def _only_asks(words: t.Sequence[t.Union[str, int]]) -> bool:
    """Whether a command changes nothing, so that it may be sent twice."""
    first, second = (str(word).upper() for word in (*words, "", "")[:2])
    return first in ("INFO", "PING", "ROLE") or (first, second) == ("CONFIG", "GET")


class Server:
    """One open connection."""

    def __init__(self, login: Login, connection: t.Any) -> None:
        self.login = login
        self._connection = connection
        self._run_id = ""

    def command(self, *args: t.Union[str, int]) -> t.Any:
        """Send one command, give its raw answer. Raises CommandError, or ServerDown if the connection breaks.

        Sentinel closes every client of a server whose role it changes. What only asks is asked once more then, on a new connection, where that
        leads to the same process: an answer of another one would not be of the server that was looked at.
        """
        try:
            return self._sent(*args)
        except ServerDown:
            if not (_only_asks(args) and self._leads_to_the_same_process()):
                raise
            return self._sent(*args)

    def _leads_to_the_same_process(self) -> bool:
        try:
            return bool(self._run_id) and parse_info(self._sent("INFO", "server")).text("run_id") == self._run_id
        except Problem:
            return False

    def _sent(self, *args: t.Union[str, int]) -> t.Any:
        try:
            self._connection.send_command(*args)
            return self._connection.read_response()
        except redis.exceptions.RedisError as error:
            if not isinstance(error, redis.exceptions.ResponseError) and type(error).__name__ not in _PREFIXES:
                raise self._broken(str(args[0]), error) from None
            raise CommandError(str(args[0]), _reply_text(error)) from None
        except OSError as error:
            raise self._broken(str(args[0]), error) from None

    def commands(self, rows: t.Sequence[t.Sequence[t.Union[str, int]]]) -> list[t.Any]:
        """Send several commands at once, give their answers in order. Raises the first error, after all were carried out."""
        if not rows:
            return []
        name, answers, failed = str(rows[0][0]), [], None
        try:
            # One packet: Redis works off what it reads at once before it turns to anybody else.
            self._connection.send_packed_command([b"".join(self._connection.pack_commands(rows))])
            for row in rows:
                try:
                    answers.append(self._connection.read_response())
                except redis.exceptions.RedisError as error:
                    if not isinstance(error, redis.exceptions.ResponseError) and type(error).__name__ not in _PREFIXES:
                        raise
                    failed = failed or CommandError(str(row[0]), _reply_text(error))
        except (redis.exceptions.RedisError, OSError) as error:
            raise self._broken(name, error) from None
        if failed:
            raise failed
        return answers

    def next_message(self) -> t.Any:
        """The next thing that the server says by itself, to a connection that subscribed. Raises ServerDown."""
        try:
            return self._connection.read_response()
        except (redis.exceptions.RedisError, OSError) as error:
            raise self._broken("SUBSCRIBE", error) from None

    def _broken(self, command: str, error: BaseException) -> ServerDown:
        self.close()
        return ServerDown(
            "server_down",
            f"the connection to {self.login.address} broke during {command}: {_first_line(error)}",
            "a server that stays up",
            "look into the server's log, then run again",
        )

    def info(self, section: str = "everything") -> Info:
        found = parse_info(self.command("INFO", section))
        self._run_id = found.text("run_id") or self._run_id
        return found

    def config_get(self, *names: str) -> dict[str, str]:
        """CONFIG GET of exact names; a name the server does not know is absent from the answer."""
        found: dict[str, str] = {}
        for name in names:
            answer = self.command("CONFIG", "GET", name)
            pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2])
            found.update({key: value for key, value in pairs if key == name})
        return found

    def config_all(self) -> dict[str, str]:
        """CONFIG GET of everything, in one round trip."""
        answer = self.command("CONFIG", "GET", "*")
        return dict(answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2]))

    def config_set(self, values: t.Mapping[str, str]) -> None:
        """CONFIG SET of all values at once: all are set, or none (Redis >= 7.0)."""
        flat: list[str] = []
        for name, value in values.items():
            flat += [name, value]
        self.command("CONFIG", "SET", *flat)

    def close(self) -> None:
        self._connection.disconnect()


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__


#: redis-py turns some error replies into classes of their own (some of them connection errors) and cuts the prefix off.
_PREFIXES = {
    "AuthenticationError": "NOAUTH",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
}


def _reply_text(error: BaseException) -> str:
    """The server's own words, with the prefix that redis-py may have taken."""
    text, prefix = _first_line(error), _PREFIXES.get(type(error).__name__)
    return text if prefix is None or text.startswith((prefix, "WRONGPASS")) else f"{prefix} {text}"


def _connection(login: Login, timeout: float) -> t.Any:
    options: dict[str, t.Any] = {
        "username": login.user,
        "password": login.password,
        "socket_timeout": timeout,
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
    }
    if int(redis.__version__.split(".", 1)[0]) >= 5:
        options["protocol"] = 2
        # Without CLIENT SETINFO: a user who may not say it would stand in ACL LOG with each connection.
        options.update(
            {"driver_info": None} if hasattr(redis, "driver_info") else {"lib_name": None, "lib_version": None}
        )
    if login.unix_socket:
        return redis.UnixDomainSocketConnection(path=login.unix_socket, **options)
    options.update(host=login.host, port=login.port, socket_connect_timeout=min(timeout, 5.0))
    if not login.tls:
        return redis.Connection(**options)
    return redis.SSLConnection(
        ssl_ca_certs=login.ca_certs,
        ssl_certfile=login.client_cert_file,
        ssl_keyfile=login.client_key_file,
        ssl_cert_reqs="required" if login.validate_certs else "none",
        ssl_check_hostname=login.validate_certs,
        **options,
    )


def connect(login: Login, timeout: float = 30.0) -> Server:
    """Log in and make sure that Redis answers; where it refuses the login, as one of ``login.fallbacks()``.

    Raises ServerDown if nothing listens, Problem for a wrong password, a program that is no Redis, or a TLS failure.
    A server that is still loading its data counts as answering. ``server.login`` is the login that was taken.
    """
    try:
        return connect_as(login, timeout)
    except Problem as refused:
        if refused.code != "login_failed":
            raise
        for other in login.fallbacks():
            try:
                server = connect_as(other, timeout)
                server.command("INFO", "server")  # a user that may do no more than PING is no way in
                return server
            except Problem:
                continue
        raise


def _not_connected(login: Login, error: Exception, timeout: float) -> Problem:
    """What a connection that was not made means to an operator."""
    text = _first_line(error)
    if (
        _timed_out(text) and not login.tls and "connecting" not in text
    ):  # a plain port that is spoken to in TLS waits as well
        return _silent(login, timeout)
    if any(word in text for word in ("refused", "Error 111", "No such file", "Error 2 ")):
        return ServerDown(
            "server_down",
            f"nothing listens at {login.address}",
            "a running Redis server",
            "start it, or set login_host, login_port or login_unix_socket",
        )
    if type(error).__name__ in _PREFIXES or "WRONGPASS" in text or "without any password configured" in text:
        return _denied(login, text)
    return _no_redis(login.address, text)


def connect_as(login: Login, timeout: float = 30.0) -> Server:
    """As connect(), with this very login or not at all."""
    if redis is None:
        raise Problem(
            "redis_py_missing",
            f"redis-py is not installed, or cannot be imported, for the Python that runs modules on this host ({sys.executable})",
            "redis-py >= 3.5 that fits this Python",
            "install python3-redis (Debian, Ubuntu, EPEL) or pip install redis, or run the role redis_install",
        )
    connection = _connection(login, timeout)
    server = Server(login, connection)
    try:
        connection.connect()
        server.command("PING")
    except CommandError as error:
        # LOADING: it will answer. The others answer PING so when they cannot persist: it lives, and may well be why we are here.
        if error.prefix in ("LOADING", "MISCONF", "MASTERDOWN"):
            return server
        connection.disconnect()
        raise (_busy(login, error.text) if error.prefix == "BUSY" else _denied(login, error.text)) from None
    except ServerDown as error:
        text = error.detected.rsplit(": ", 1)[-1]
        raise (_silent(login, timeout) if _timed_out(text) else _no_redis(login.address, text)) from None
    except redis.exceptions.InvalidResponse as error:
        raise _no_redis(login.address, _first_line(error)) from None
    except redis.exceptions.ResponseError as error:
        text = _reply_text(error)
        raise (_busy(login, text) if text.startswith("BUSY ") else _denied(login, text)) from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise _not_connected(login, error, timeout) from None
    return server


def _denied(login: Login, text: str) -> Problem:
    return Problem(
        "login_failed",
        f"Redis at {login.address} does not let {login.user or 'the default user'} in: {text}",
        "a user that may run INFO, CONFIG GET, CONFIG SET and BGSAVE",
        "set login_user and login_password (and login_previous_password while the password is being changed)",
    )


def _timed_out(text: str) -> bool:
    return "imeout" in text or "timed out" in text


def _silent(login: Login, timeout: float) -> Problem:
    return Problem(
        "server_silent",
        f"the server at {login.address} takes connections, and gave no answer within {timeout:g} s: it stands still, or a long command runs",
        "a server that answers",
        "see its process (ss -ltnp, then ps -o pid,stat,wchan): T was stopped, kill -CONT goes on; D waits for the disk; R works on a command, "
        "wait for it. Do not kill it: what it holds in memory may be all there is. For a TLS port set tls: true",
    )


def _busy(login: Login, text: str) -> Problem:
    return Problem(
        "server_busy",
        f"the server at {login.address} runs a script or a function, and answers nobody until that ends: {text}",
        "a server that answers",
        "wait for it, or redis-cli SCRIPT KILL (FUNCTION KILL), which ends one that has written nothing yet; then run again. Never SHUTDOWN NOSAVE: "
        "it throws away what is not saved",
    )


def _no_redis(where: str, text: str) -> Problem:
    return Problem(
        "not_redis",
        f"something listens at {where}, but it does not answer as Redis does: {text}",
        "a Redis server at that address",
        "see which program has the port (ss -ltnp), or set login_port; for a TLS port set tls: true",
    )


def wait_for(condition: t.Callable[[], bool], timeout: float, clock: t.Callable[[], float] = time.monotonic) -> bool:
    """Poll ``condition`` with growing pauses until it holds; False if ``timeout`` seconds pass first."""
    deadline, pause = clock() + timeout, _POLL_SECONDS
    while not condition():
        if clock() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, _POLL_MAX_SECONDS)
    return True
