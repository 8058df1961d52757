#!/usr/bin/env python3
"""Fill the local Redis with keys of every type, a third of them with a time to live. Argument: how many keys."""

import sys

import redis

client = redis.Redis()
count = int(sys.argv[1])
pipe = client.pipeline(transaction=False)
for number in range(count):
    key, kind = f"{number % 7}:{number}", number % 7
    if kind == 0:
        pipe.set(key, f"value {number} \r\n\x00\xff binary".encode("latin-1"))
    elif kind == 1:
        pipe.rpush(key, *range(number % 5 + 1))
    elif kind == 2:
        pipe.sadd(key, *(f"member {item}" for item in range(number % 5 + 1)))
    elif kind == 3:
        pipe.zadd(key, {f"member {item}": item / 3 for item in range(number % 5 + 1)})
    elif kind == 4:
        pipe.hset(key, mapping={f"field {item}": item for item in range(number % 5 + 1)})
    elif kind == 5:
        pipe.xadd(key, {"field": number})
    else:
        pipe.execute_command("SETBIT", key, number % 4096, 1)
    if number % 3 == 0:
        pipe.expire(key, 86400 + number)
    if number % 5000 == 4999:
        pipe.execute()
pipe.execute()
client.execute_command("SELECT", 3)
other = redis.Redis(db=3)
other.set("in another database", "1")
print(client.dbsize())
