# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of Redis' directives: normal forms, and what can change while the server runs.

A normal form is the text that CONFIG GET answers, so that ``64mb`` and ``67108864``, or ``SAVE 900 1`` in one line and in
two, compare equal. Tables were made by setting every parameter on Redis 7.0.15, 7.2.6, 8.0.2 and Valkey 8.1.1.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import (
    Directive,
    canonical_name,
    split_args,
)

__all__ = [
    "DEFAULTS", "IMMUTABLE", "NOT_GETTABLE", "PERSISTENCE", "PROTECTED", "SECRET", "TEXT", "InvalidValue",
    "effective", "file_lines", "masked", "memory_bytes", "normal", "save_points",
]  # fmt: skip

#: Cannot be set while the server runs ("can't set immutable config").
IMMUTABLE = frozenset(
    """
    aclfile always-show-logo aof_rewrite_cpulist aof-rewrite-cpulist appenddirname appendfilename
    bgsave_cpulist bgsave-cpulist bio_cpulist bio-cpulist cluster-config-file cluster-enabled cluster-port
    daemonize databases disable-thp enable-debug-command enable-module-command enable-protected-configs
    io-threads io-threads-do-reads logfile pidfile rdbchecksum server_cpulist server-cpulist set-proc-title
    socket-mark-id supervised syslog-enabled syslog-facility syslog-ident tcp-backlog unixsocket
    unixsocketperm unixsocketgroup
    """.split()
)
#: Cannot be set live unless enable-protected-configs allows it.
PROTECTED = frozenset(["dir", "dbfilename"])
#: Accepted in a file, never answered by CONFIG GET.
NOT_GETTABLE = frozenset(["user", "include", "rename-command", "loadmodule"])
#: Values that must not reach a log, a diff or an error.
SECRET = frozenset(
    [
        "requirepass",
        "masterauth",
        "primaryauth",
        "tls-key-file-pass",
        "tls-client-key-file-pass",
        "user",
        "rename-command",
    ]
)
#: The directives that redis_persistence owns; redis_config leaves them to it.
PERSISTENCE = (
    "save", "appendonly", "appendfilename", "appenddirname", "appendfsync", "auto-aof-rewrite-percentage",
    "auto-aof-rewrite-min-size", "dbfilename", "dir", "rdbchecksum", "aof-load-truncated", "aof-timestamp-enabled",
    "stop-writes-on-bgsave-error", "no-appendfsync-on-rewrite",
)  # fmt: skip
#: What Redis >= 7.0 uses when no file says otherwise, for the directives that this collection declares.
DEFAULTS = {
    "bind": "* -::*",
    "save": "3600 1 300 100 60 10000", "appendonly": "no", "appendfilename": "appendonly.aof",
    "appenddirname": "appendonlydir", "appendfsync": "everysec", "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "67108864", "dbfilename": "dump.rdb", "rdbchecksum": "yes", "aof-load-truncated": "yes",
    "aof-timestamp-enabled": "no", "stop-writes-on-bgsave-error": "yes", "no-appendfsync-on-rewrite": "no",
    "databases": "16", "cluster-enabled": "no", "maxmemory": "0", "maxmemory-policy": "noeviction",
    "maxclients": "10000", "tcp-backlog": "511", "replica-read-only": "yes",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "port": "6379", "tls-port": "0", "tls-auth-clients": "yes", "tls-replication": "no", "tls-cluster": "no",
    "tls-key-file-pass": "",
}  # fmt: skip

_MEMORY = frozenset(
    """
    maxmemory maxmemory-clients auto-aof-rewrite-min-size repl-backlog-size client-query-buffer-limit
    proto-max-bulk-len active-defrag-ignore-bytes stream-node-max-bytes hll-sparse-max-bytes
    rdb-key-save-delay replica-full-sync-buffer-limit aof-load-corrupt-tail-max-size
    cluster-link-sendbuf-limit
    """.split()
)
#: Values that are one piece of text: case, spaces and quotes in them count.
TEXT = frozenset(
    """
    dir dbfilename appendfilename appenddirname logfile pidfile requirepass masterauth primaryauth masteruser
    primaryuser aclfile unixsocket cluster-config-file tls-cert-file tls-key-file tls-ca-cert-file
    tls-ca-cert-dir syslog-ident proc-title-template cluster-announce-hostname cluster-announce-human-nodename
    replicaof tls-key-file-pass tls-client-key-file-pass tls-client-cert-file tls-client-key-file
    tls-dh-params-file tls-ciphers tls-ciphersuites tls-protocols locale-collate
    """.split()
)
_UNITS = {
    "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3, "": 1,
}  # fmt: skip
_CLASSES = {"normal": "normal", "slave": "slave", "replica": "slave", "pubsub": "pubsub"}
_EVENTS_ALL = "g$lshzxetd"


class InvalidValue(Problem):
    """A value that Redis would refuse."""


def _invalid(name: str, value: str, needs: str) -> InvalidValue:
    return InvalidValue("invalid_value", f"{name}: {value!r} is not valid", needs, f"correct {name.replace('-', '_')}")


def _is_number(text: str) -> bool:
    # str.isdigit() also takes superscripts, which int() does not.
    return text.isascii() and text.isdigit()


def memory_bytes(text: str, name: str = "size") -> int:
    """Bytes of a Redis size: ``1k`` is 1000, ``1kb`` is 1024. Raises InvalidValue."""
    parts = re.fullmatch(r"(-?[0-9]+)([a-z]*)", text.strip().lower())
    if not parts or parts.group(2) not in _UNITS:
        raise _invalid(name, text, "a number of bytes, or a number with b, k, kb, m, mb, g or gb")
    return int(parts.group(1)) * _UNITS[parts.group(2)]


def save_points(args: t.Sequence[str], name: str = "save") -> tuple[tuple[int, int], ...]:
    """Save points as (seconds, changes) pairs, order kept; no argument or one empty one means none. Raises InvalidValue."""
    if not args or list(args) == [""]:
        return ()
    needs = 'pairs of two whole numbers: seconds (1 or more) and changes (0 or more), as in "900 1"'
    if len(args) % 2:
        raise _invalid(name, " ".join(args), needs)
    pairs = []
    for seconds, changes in zip(args[::2], args[1::2]):
        if not (_is_number(seconds) and _is_number(changes)) or int(seconds) < 1:
            raise _invalid(name, f"{seconds} {changes}", needs)
        pairs.append((int(seconds), int(changes)))
    return tuple(pairs)


def _buffer_limits(args: t.Sequence[str]) -> dict[str, str]:
    name = "client-output-buffer-limit"
    if not args or len(args) % 4:
        raise _invalid(name, " ".join(args), "groups of a client class, hard limit, soft limit and seconds")
    limits = {}
    for index in range(0, len(args), 4):
        kind, hard, soft, seconds = args[index : index + 4]
        if kind.lower() not in _CLASSES or not _is_number(seconds):
            raise _invalid(
                name, " ".join(args[index : index + 4]), "a class (normal, replica, pubsub), two sizes, seconds"
            )
        limits[_CLASSES[kind.lower()]] = f"{memory_bytes(hard, name)} {memory_bytes(soft, name)} {int(seconds)}"
    return limits


def normal(name: str, text: str) -> str:
    """The normal form of one value, as CONFIG GET would answer it. Raises InvalidValue where it cannot be one."""
    name = canonical_name(name)
    if name == "save":
        return " ".join(f"{seconds} {changes}" for seconds, changes in save_points(text.split()))
    if name == "client-output-buffer-limit":
        limits = _buffer_limits(DEFAULTS[name].split())
        limits.update(_buffer_limits(text.split()))
        return " ".join(f"{kind} {limits[kind]}" for kind in ("normal", "slave", "pubsub"))
    if name in TEXT:
        return text
    if name in _MEMORY and not text.endswith("%"):
        return str(memory_bytes(text, name))
    lowered = text.lower()
    if name == "notify-keyspace-events":
        flags = set(text.replace("A", _EVENTS_ALL))
        return "".join(sorted(flags))
    if name == "unixsocketperm":
        return lowered.lstrip("0") or "0"
    if name == "oom-score-adj" and lowered == "relative":
        return "yes"
    if _is_number(lowered[lowered.startswith("-") :]):
        return str(int(lowered))
    return lowered if name not in TEXT else text


def effective(directives: t.Iterable[Directive], name: str) -> t.Optional[str]:
    """The normal form of what a file (with its includes) says about ``name``; None if it says nothing.

    Redis' rules: save points add up until ``save ""`` resets them, buffer limits merge by class, else the last line wins.
    """
    mine = [entry for entry in directives if entry.name == name]
    if not mine:
        return None
    if name == "save":
        points: tuple = ()
        for entry in (entry for entry in mine if entry.args):
            added = save_points(entry.args)
            points = points + added if added and not entry.after_include else added
        return normal(name, " ".join(f"{seconds} {changes}" for seconds, changes in points))
    if name == "client-output-buffer-limit":
        return normal(
            name, " ".join(entry.text for entry in mine if entry.args) or DEFAULTS[name]
        )  # without a value it says nothing
    if name in NOT_GETTABLE:
        return "\n".join(entry.text for entry in mine)
    value = normal(name, mine[-1].text)
    if name == "hz" and _is_number(value):
        return str(min(max(int(value), 1), 500))  # what lies beyond Redis takes for that
    return value


def file_lines(name: str, value: str, inherited: bool = False) -> list[tuple[str, ...]]:
    """``value`` as the lines a file should hold.

    Save points go into one line: after an include, each further line would replace the one before. ``inherited``: an include
    already added save points, which have to be reset first.
    """
    if name == "save":
        words = tuple(normal(name, value).split())
        return [("",), words] if inherited and words else [words or ("",)]
    if name == "client-output-buffer-limit":
        words = value.split()
        return [tuple(words[index : index + 4]) for index in range(0, len(words), 4)]
    if name in TEXT and name != "replicaof":
        return [(value,)]
    return [split_args(value) or ("",)]


def masked(name: str, value: t.Optional[str]) -> t.Optional[str]:
    """``value``, or a fixed text where ``name`` holds a secret."""
    return "********" if value and canonical_name(name) in SECRET else value
