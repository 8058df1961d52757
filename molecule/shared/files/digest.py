#!/usr/bin/env python3
"""Write what the local Redis holds as JSON: keys per database, DEBUG DIGEST, and a hash over every key's expiry time.

Argument: the file to write. Needs `enable-debug-command local`.
"""

import hashlib
import json
import sys

import redis

result = {"keyspace": {}, "expiry": {}}
client = redis.Redis()
result["digest"] = client.execute_command("DEBUG", "DIGEST").decode()
for name, space in sorted(client.info("keyspace").items()):
    database = redis.Redis(db=int(name[2:]))
    result["keyspace"][name] = {"keys": space["keys"], "expires": space["expires"]}
    keys = sorted(database.scan_iter(count=5000))
    times = []
    for start in range(0, len(keys), 5000):
        pipe = database.pipeline(transaction=False)
        for key in keys[start : start + 5000]:
            pipe.execute_command("PEXPIRETIME", key)
        times += pipe.execute()
    whole = hashlib.sha256()
    for key, time in zip(keys, times):
        whole.update(key + b"=%d;" % time)
    result["expiry"][name] = whole.hexdigest()
with open(sys.argv[1], "w", encoding="utf-8") as handle:
    json.dump(result, handle, sort_keys=True)
print(json.dumps(result, sort_keys=True))
