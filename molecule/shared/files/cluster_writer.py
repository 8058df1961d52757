"""Writes w:0, w:1, … to a cluster, waits for each answer, and notes each acknowledgement. Ends when predicted to.

Usage: cluster_writer.py ACKNOWLEDGED-FILE USER PASSWORD NODE...
"""

import logging
import os
import sys
import time

import redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException

logging.disable(logging.CRITICAL)  # it tells every redirection with a traceback
path, user, password, *nodes = sys.argv[1:]
number, client, last, longest = 0, None, time.monotonic(), 0.0


def connect():
    for node in nodes:
        try:
            return RedisCluster(host=node, port=6379, username=user, password=password, socket_timeout=5)
        except (redis.RedisError, RedisClusterException):  # the second is none of the first
            continue
    raise redis.ConnectionError


with open(path, "w", buffering=1, encoding="ascii") as acknowledged:
    while not os.path.exists(path + ".stop"):
        try:
            client = client or connect()
            client.set(f"w:{number}", number)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            acknowledged.write(f"{number}\n")
            number += 1
            time.sleep(0.002)
        except (
            redis.RedisError,
            RedisClusterException,
            AttributeError,
            KeyError,
            OSError,
        ):  # it stumbles over an ASK to a node that has no slots yet
            client = None
            time.sleep(0.05)
print(f"{number} {longest:.3f}")
