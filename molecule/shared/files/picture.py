#!/usr/bin/env python3
"""Write owner, mode and content hash of what a converge may touch, and what the kernel and systemd say. Argument: the file to write."""

import glob
import hashlib
import json
import os
import subprocess
import sys

PLACES = [
    "/etc/redis/**",
    "/etc/sysctl.d/*",
    "/etc/sysctl.conf",
    "/etc/tmpfiles.d/*",
    "/etc/systemd/system/**",
    "/var/lib/redis/**",
]
THP = "/sys/kernel/mm/transparent_hugepage/"


def say(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def read(path):
    with open(path, encoding="ascii") as handle:
        return handle.read()


files = {}
for place in PLACES:
    for path in glob.glob(place, recursive=True):
        status = os.lstat(path)
        content = ""
        # Data files change with every write; of them owner and mode are what a converge may touch.
        if os.path.isfile(path) and not path.startswith("/var/lib/redis"):
            with open(path, "rb") as handle:
                content = hashlib.sha256(handle.read()).hexdigest()
        files[path] = [status.st_uid, status.st_gid, oct(status.st_mode), content]
picture = {
    "files": files,
    "sysctl": say("sysctl", "-n", "vm.overcommit_memory", "net.core.somaxconn", "vm.swappiness"),
    "thp": {name: read(THP + name) for name in ("enabled", "defrag", "khugepaged/defrag")},
    "enabled": [say("systemctl", "is-enabled", unit) for unit in ("redis-server", "redis")],
    "config": dict(zip(*[iter(say("redis-cli", "CONFIG", "GET", "*").split("\n"))] * 2)),
}
picture["config"].pop("oom-score-adj", None)
with open(sys.argv[1], "w", encoding="utf-8") as handle:
    json.dump(picture, handle, sort_keys=True)
print(json.dumps(picture, sort_keys=True))
