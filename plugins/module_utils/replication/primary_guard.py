#!/usr/bin/env python3
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asked by systemd before a Redis server starts: would an empty primary wipe the replicas that still hold its data?

A primary whose data directory came back empty loads nothing, and its replicas, which follow whatever it has, are empty seconds later.
This file is put on the host as it is and runs by itself; it needs redis-py and nothing of this collection.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import typing as t

__all__ = ["decide_start", "main"]

ASK_SECONDS = 3.0
#: All peers are asked at once; who has not answered by then, its name looked up included, is silent.
ALL_SECONDS = 8.0
#: A refusal is judged again for so long: somebody may be promoted, and systemd gives up on a unit that fails five times in ten seconds.
WAIT_SECONDS = 12.0
#: The exit status that keeps the server from starting; no shell, interpreter or signal has it.
REFUSED = 75
#: What a server without data may count as memory of its data set.
FLOOR_BYTES = 4 * 1024**2
#: Data on disk that is a smaller share than this of what a replica holds in memory is no copy of it, however well it compresses.
SMALLEST_SHARE = 0.005
#: A key and its value take no less in a command of the AOF.
SMALLEST_KEY = 12
#: For the count of the keys of one file; one that takes longer is judged by its size.
COUNT_SECONDS = 20.0
#: So far an RDB file may be behind a replica that follows: about what a moment's writes and a day's pings are.
LOSABLE_BYTES = 1024**2
OVERRIDE = "/run/redisops/start-without-data"
_PLACES = ("dir", "dbfilename", "appenddirname", "appendfilename", "appendonly", "replicaof")


def _lines(path: str, depth: int = 0) -> list[tuple[str, str]]:
    """Directives of a file and of what it includes, names in lower case."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        text = handle.read()
    found: list[tuple[str, str]] = []
    for name, value in re.findall(r"(?m)^[ \t]*([a-zA-Z-]+)[ \t]+(.*?)[ \t\r]*$", text):
        found.append((name.lower(), value.strip("\"'")))
        if name.lower() == "include" and depth < 8:
            for other in sorted(glob.glob(found[-1][1])):
                found += _lines(other, depth + 1)
    return found


def _places_in_file(config_file: str, known: t.Mapping[str, str]) -> dict[str, str]:
    """What the file itself says of the places, else what was known when the guard was set up."""
    values = dict(known)
    values.pop("replicaof", None)
    for name, value in _lines(config_file):
        if name in (*_PLACES, "slaveof"):
            values["replicaof" if name == "slaveof" else name] = value
    return values


def _string_end(data: bytes, at: int) -> int:
    """Where the string that begins at ``at`` of an RDB file ends. Raises IndexError."""
    first, kind = data[at], data[at] >> 6
    if kind == 0:
        return at + 1 + first
    if kind == 1:
        return at + 2 + ((first & 63) << 8 | data[at + 1])
    if kind == 3 and first & 63 < 3:
        return at + 1 + (1, 2, 4)[first & 63]
    raise IndexError(at)


def _string(data: bytes, at: int, end: int) -> str:
    """The string from ``at`` to ``end``; small numbers stand there as numbers."""
    if data[at] >> 6 == 3:
        return str(int.from_bytes(data[at + 1 : end], "little", signed=True))
    return data[at + 1 + (data[at] >> 6) : end].decode(errors="replace")


class _ToLoad(t.NamedTuple):
    """What the next start would load. ``keys`` at most (None: not known); ``moment``: replication id and offset that it is of, for an RDB file."""

    bytes: int
    data: bool
    keys: t.Optional[int]
    moment: tuple[str, int]


def _header(path: str) -> tuple[bool, dict[str, str]]:
    """Whether a file to load has data (an RDB file has none if its end comes right after its fields), and these fields."""
    with open(path, "rb") as handle:
        data = handle.read(65536)
    fields: dict[str, str] = {}
    if not re.match(rb"(REDIS|VALKEY)\d+", data):
        return bool(data), fields
    try:
        at = 9
        while data[at] == 0xFA:
            middle = _string_end(data, at + 1)
            end = _string_end(data, middle)
            fields[_string(data, at + 1, middle)] = _string(data, middle, end)
            at = end
        return data[at] != 0xFF, fields
    except IndexError:
        return True, fields  # not understood: Redis itself will say so


@functools.lru_cache(maxsize=8)
def _counted(path: str, _size: int, _mtime: float) -> t.Optional[int]:
    """How many keys redis-check-rdb reads; None where it is not there, is not done in time, or finds the file bad."""
    for tool in ("redis-check-rdb", "valkey-check-rdb"):
        try:
            done = subprocess.run(
                [tool, path], capture_output=True, text=True, errors="replace", timeout=COUNT_SECONDS, check=False
            )
        except FileNotFoundError:
            continue
        except (OSError, subprocess.SubprocessError):
            return None
        found = re.search(r"\[info\] (\d+) keys read", done.stdout)
        return int(found.group(1)) if found and not done.returncode else None
    return None


def _keys_at_most(path: str, whole: bool) -> t.Optional[int]:
    """No more keys than this are in a file; of commands, as many as could be written in so many bytes. ``whole``: no commands stand behind an RDB."""
    status = os.stat(path)
    with open(path, "rb") as handle:
        magic = handle.read(6)
    if not re.match(rb"REDIS|VALKEY", magic):
        return status.st_size // SMALLEST_KEY
    return None if not whole else _counted(path, status.st_size, status.st_mtime)


def _paths_to_load(places: t.Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The files that hold whole data, and those that hold commands since."""
    directory = os.path.join(places["dir"], places["appenddirname"])
    manifest = os.path.join(directory, places["appendfilename"] + ".manifest")
    if places.get("appendonly", "no").lower() != "yes":
        paths, since = [os.path.join(places["dir"], places["dbfilename"])], []
    elif not os.path.exists(manifest):
        # Of Redis < 7.0, which 7.0 takes over; commands may stand behind a preamble.
        paths, since = [], [os.path.join(places["dir"], places["appendfilename"])]
    else:
        with open(manifest, encoding="utf-8", errors="replace") as handle:
            rows = re.findall(r'^file (?:"([^"]*)"|(\S+)) seq \d+ type ([bi])', handle.read(), re.M)
        paths = [os.path.join(directory, quoted or plain) for quoted, plain, kind in rows if kind == "b"]
        since = [os.path.join(directory, quoted or plain) for quoted, plain, kind in rows if kind == "i"]
    return [path for path in paths if os.path.isfile(path)], [path for path in since if os.path.isfile(path)]


def _to_load(places: t.Mapping[str, str]) -> _ToLoad:
    """What the next start would load; the keys are counted where somebody asks."""
    paths, since = _paths_to_load(places)
    headers = [_header(path) for path in paths]
    fields = headers[0][1] if len(headers) == 1 and not since else {}
    offset = fields.get("repl-offset", "")
    counts = [_keys_at_most(path, True) for path in paths] + [_keys_at_most(path, False) for path in since]
    known = None if None in counts else sum(count for count in counts if count is not None)
    return _ToLoad(
        sum(map(os.path.getsize, paths + since)),
        any(data for data, _fields in headers) or any(_header(path)[0] for path in since),
        known,
        (fields.get("repl-id", ""), int(offset) if offset.isdigit() else -1),
    )


def _ips(host: str) -> set[str]:
    try:
        return {str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _is_here(ip: str) -> bool:
    """Whether an address is this host's own; on Debian its own name is 127.0.1.1 to itself, and something else to its replicas."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((ip, 9))
            return str(probe.getsockname()[0]) == ip
    except OSError:
        return False


def _ask(host: str, port: int, login: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """INFO of one host of the group, as redis-py reads it. Raises its errors."""
    import redis

    options: dict[str, t.Any] = {"socket_timeout": ASK_SECONDS, "socket_connect_timeout": ASK_SECONDS}
    if login.get("tls"):
        options.update(
            ssl=True, ssl_ca_certs=login.get("ca_certs"), ssl_certfile=login.get("client_cert_file"), ssl_keyfile=login.get("client_key_file"),
            ssl_cert_reqs="required" if login.get("validate_certs", True) else "none",
        )  # fmt: skip
    client = redis.Redis(host=host, port=port, username=login.get("user"), password=login.get("password"), **options)
    try:
        return client.info("everything")
    finally:
        client.close()


def _answers(setup: t.Mapping[str, t.Any]) -> list[tuple[dict[str, t.Any], t.Any]]:
    """Each peer, and its INFO with ``follows_us``, or the name of the error."""
    found: dict[int, t.Any] = {}

    def ask(number: int, member: t.Mapping[str, t.Any]) -> None:
        try:
            info = _ask(member["host"], member["port"], setup["login"])
            if info.get("role") == "slave" and int(info.get("master_port", 0)) == setup["own"]["port"]:
                ips = _ips(str(info.get("master_host", "")))
                info["follows_us"] = any(map(_is_here, ips)) or bool(ips & _ips(setup["own"]["host"]))
            found[number] = info
        except Exception as error:
            found[number] = type(error).__name__

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(setup["peers"])]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + ALL_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [(member, found.get(number, "too slow")) for number, member in enumerate(setup["peers"])]


class _Follower(t.NamedTuple):
    """A replica of this server that holds keys."""

    offset: int
    address: str
    keys: int
    dataset: int
    ids: tuple[str, ...]


def _followers(setup: t.Mapping[str, t.Any]) -> tuple[list[_Follower], list[str]]:
    """Who follows this server and holds keys; and who did not answer."""
    found, silent = [], []
    for member, info in _answers(setup):
        if isinstance(info, str):
            silent.append(f"{member['host']}:{member['port']} ({info})")
            continue
        keys = sum(
            value["keys"] for name, value in info.items() if re.fullmatch(r"db\d+", name) and isinstance(value, dict)
        )
        if info.get("follows_us") and keys:
            found.append(
                _Follower(
                    int(info.get("slave_repl_offset", 0)), f"{member['host']}:{member['port']}", keys,
                    min(int(info.get("used_memory_dataset", 0)), int(info.get("used_memory", 0))), (str(info.get("master_replid", "")),),
                )
            )  # fmt: skip
    return found, silent


def _loses(have: _ToLoad, replica: _Follower) -> str:
    """What of a replica would be lost by this start, in words; empty where nothing is seen."""
    if not have.data:
        return "nothing to load"
    if have.keys is not None and have.keys * 2 < replica.keys:
        return f"at most {have.keys} keys to load"
    if have.bytes < SMALLEST_SHARE * (replica.dataset - FLOOR_BYTES):
        return f"{have.bytes} bytes to load"
    stated, offset = have.moment
    if stated in replica.ids and 0 <= offset < replica.offset - LOSABLE_BYTES:
        return f"an RDB file to load that is {replica.offset - offset} bytes of writes behind"
    return ""


def decide_start(setup: t.Mapping[str, t.Any]) -> tuple[bool, str]:
    """Whether the server may start, and why. ``setup`` is what redis_primary_guard wrote."""
    places = _places_in_file(setup["config_file"], setup["places"])
    upstream = places.get("replicaof", "")
    if upstream and upstream.lower() != "no one":
        return True, f"it starts as a replica of {upstream}"
    followers, silent = _followers(setup)
    note = f"; not asked, since they did not answer: {', '.join(silent)}" if silent else ""
    if not followers:
        return True, f"no replica that would lose by it{note}"
    have = _to_load(places)
    losers = [(replica, words) for replica in followers for words in [_loses(have, replica)] if words]
    if not losers:
        return True, f"{have.bytes} bytes to load, and no replica that would lose by it{note}"
    if os.path.exists(OVERRIDE):
        os.unlink(OVERRIDE)  # it is meant for one start
        return True, f"{OVERRIDE} says so, although {len(losers)} replica(s) hold data that this server does not"
    best, words = max(losers)
    return False, (
        f"this primary has {words} ({have.bytes} bytes), while its replica {best.address} holds {best.keys} keys ({best.dataset} bytes in memory): "
        f"started like this, its {len(losers)} replica(s) would throw theirs away within seconds. Promote the replica: SENTINEL FAILOVER on a "
        f"Sentinel, or without Sentinel on {best.address}: redis-cli REPLICAOF NO ONE. This server then starts; the role redis_replication, or "
        f"Sentinel, makes it its replica. To start it as it is on purpose: mkdir -p {os.path.dirname(OVERRIDE)} && touch {OVERRIDE}"
    )


def _say(words: str) -> None:
    print(f"redisops primary guard: {words}", file=sys.stderr, flush=True)


def main(argv: t.Sequence[str]) -> int:
    """0 lets the server start, REFUSED does not; what cannot be judged does not keep it from starting."""
    try:
        with open(argv[1], encoding="utf-8") as handle:
            setup = json.load(handle)
        deadline, reported = time.monotonic() + WAIT_SECONDS, False
        while True:
            may, why = decide_start(setup)
            if may or not reported:
                _say(f"{'start' if may else 'REFUSED'}: {why}")
            if may or time.monotonic() >= deadline:
                return 0 if may else REFUSED
            reported = True
            time.sleep(2.0)
    except Exception as error:
        _say(f"not judged, the server starts: {type(error).__name__}: {error}")
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
