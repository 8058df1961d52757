#!/usr/bin/env python3
# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asked by systemd before a Redis server starts: would an empty primary wipe the replicas that still hold its data?

A primary whose data directory came back empty loads nothing, and its replicas, which follow whatever it has, are empty seconds later.
This file is put on the host as it is and runs by itself; it needs redis-py and nothing of this collection.
"""

from __future__ import annotations

import glob
import json
import os
import re
import socket
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


def _holds_a_key(path: str) -> bool:
    """Whether a file to load has data: an RDB file has none if its end comes right after its header fields."""
    with open(path, "rb") as handle:
        data = handle.read(65536)
    if not re.match(rb"(REDIS|VALKEY)\d+", data):
        return bool(data)
    try:
        at = 9
        while data[at] == 0xFA:
            at = _string_end(data, _string_end(data, at + 1))
        return data[at] != 0xFF
    except IndexError:
        return True  # not understood: Redis itself will say so


def _to_load(places: t.Mapping[str, str]) -> tuple[int, bool]:
    """How many bytes the next start would load, and whether there is data in them."""
    directory = os.path.join(places["dir"], places["appenddirname"])
    manifest = os.path.join(directory, places["appendfilename"] + ".manifest")
    if places.get("appendonly", "no").lower() != "yes":
        paths = [os.path.join(places["dir"], places["dbfilename"])]
    elif not os.path.exists(manifest):
        paths = [os.path.join(places["dir"], places["appendfilename"])]  # of Redis < 7.0, which 7.0 takes over
    else:
        with open(manifest, encoding="utf-8", errors="replace") as handle:
            names = re.findall(r'^file (?:"([^"]*)"|(\S+)) seq \d+ type [bi]', handle.read(), re.M)
        paths = [os.path.join(directory, quoted or plain) for quoted, plain in names]
    paths = [path for path in paths if os.path.isfile(path)]
    return sum(map(os.path.getsize, paths)), any(map(_holds_a_key, paths))


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


def decide_start(setup: t.Mapping[str, t.Any]) -> tuple[bool, str]:
    """Whether the server may start, and why. ``setup`` is what redis_primary_guard wrote."""
    places = _places_in_file(setup["config_file"], setup["places"])
    upstream = places.get("replicaof", "")
    if upstream and upstream.lower() != "no one":
        return True, f"it starts as a replica of {upstream}"
    have, data = _to_load(places)
    holders, silent = [], []
    for member, info in _answers(setup):
        if isinstance(info, str):
            silent.append(f"{member['host']}:{member['port']} ({info})")
            continue
        if not info.get("follows_us"):
            continue
        keys = sum(
            value["keys"] for name, value in info.items() if re.fullmatch(r"db\d+", name) and isinstance(value, dict)
        )
        dataset = int(info.get("used_memory_dataset", 0))
        if keys and (not data or have < SMALLEST_SHARE * (dataset - FLOOR_BYTES)):
            holders.append((int(info.get("slave_repl_offset", 0)), f"{member['host']}:{member['port']}", keys, dataset))
    if not holders:
        note = f"; not asked, since they did not answer: {', '.join(silent)}" if silent else ""
        return True, f"{have} bytes to load, and no replica that would lose by it{note}"
    if os.path.exists(OVERRIDE):
        os.unlink(OVERRIDE)  # it is meant for one start
        return True, f"{OVERRIDE} says so, although {len(holders)} replica(s) hold data that this server does not"
    _offset, best, keys, dataset = max(holders)
    return False, (
        f"this primary would load {have} bytes, while its replica {best} holds {keys} keys ({dataset} bytes in memory): started like this, it "
        f"would empty its {len(holders)} replica(s) within seconds. Promote the replica: SENTINEL FAILOVER on a Sentinel, or without Sentinel "
        f"on {best}: redis-cli REPLICAOF NO ONE. This server then starts; the role redis_replication, or Sentinel, makes it its replica. "
        "To start it without data on purpose: "
        f"mkdir -p {os.path.dirname(OVERRIDE)} && touch {OVERRIDE}"
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
