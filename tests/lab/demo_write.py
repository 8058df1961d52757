#!/usr/bin/env python3
"""Runs on a demo host: writes keys one by one through redis-py and prints how many the server acknowledged. Argument: how many."""

import sys

import redis

client = redis.Redis()
acknowledged = 0
for number in range(1, int(sys.argv[1]) + 1):
    if client.set(f"demo:{number}", f"value {number}"):
        acknowledged += 1
print(acknowledged)
