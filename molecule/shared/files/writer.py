"""Writes w:0, w:1, … to whoever Sentinel names as primary, waits for each answer, and notes each acknowledgement. Ends when predicted to.

Usage: writer.py ACKNOWLEDGED-FILE PRIMARY-NAME USER PASSWORD SENTINEL...
"""

import os
import sys
import time

import redis

path, name, user, password, *sentinels = sys.argv[1:]
number, client, last, longest = 0, None, time.monotonic(), 0.0


def primary():
    for sentinel in sentinels:
        try:
            found = redis.Redis(host=sentinel, port=26379, socket_timeout=2).execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name
            )
            return redis.Redis(
                host=found[0].decode(), port=int(found[1]), username=user, password=password, socket_timeout=15
            )
        except (redis.RedisError, TypeError, IndexError):
            continue
    return None


with open(path, "w", buffering=1, encoding="ascii") as acknowledged:
    while not os.path.exists(path + ".stop"):
        try:
            client = client or primary()
            if client is None:
                raise redis.ConnectionError
            client.set(f"w:{number}", number)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            acknowledged.write(f"{number}\n")
            number += 1
            time.sleep(0.002)
        except redis.RedisError:
            client = None
            time.sleep(0.05)
print(f"{number} {longest:.3f}")
