#!/usr/bin/env python3
"""Edit redis.conf as operators do: comments, an include, odd spacing, quotes, an old spelling. Argument: appendonly yes or no."""

import os
import shutil
import sys

CONF = "/etc/redis/redis.conf"
HEAD = """# --- edited by hand, ticket 4711: do not touch -----------------------------
   timeout     300
\ttcp-keepalive\t 60
proc-title-template "{title} {listen-addr} {server-mode}"
# maxmemory 1gb
maxmemory 2gb
maxmemory-policy  NOEVICTION
"""
TAIL = """
include /etc/redis/local.d/*.conf
slave-lazy-flush no
enable-debug-command local
# the last word of the night shift
"""

with open(CONF, encoding="utf-8") as handle:
    text = handle.read()
lines = [
    line
    for line in text.splitlines(keepends=True)
    if not line.startswith(("appendonly ", "save ", "timeout ", "tcp-keepalive "))
]
os.makedirs("/etc/redis/local.d", exist_ok=True)
with open("/etc/redis/local.d/50-slow.conf", "w", encoding="utf-8") as handle:
    handle.write("slowlog-log-slower-than 20000\nsave 7200 1\n")
os.chmod("/etc/redis/local.d/50-slow.conf", 0o644)
with open(CONF, "w", encoding="utf-8") as handle:
    handle.write(HEAD + "".join(lines) + f"\nappendonly {sys.argv[1]}\n" + TAIL)
shutil.copy2(CONF, "/root/redis.conf.before")
