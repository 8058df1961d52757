#!/usr/bin/env python3
"""Run site.yml against one host, kill it at one point, kill redis-server, and count the keys that a start from the disk finds.

Arguments: the host, its container, its unit, the inventory. The host's name says where the run is cut:

- cut-after-file: Ansible dies as soon as the task that writes directives to redis.conf has ended;
- cut-after-aof: the module on the host dies when the first AOF stands on the disk, before the file says appendonly yes;
- cut-before-restart: the module on the host dies as soon as the file says appendonly yes, before anything that comes after.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

host, container, unit, inventory = sys.argv[1:]
#: Runs on the host: wait for a condition on the disk, then kill every module process.
WATCH = """
import glob, os, signal, time
end = time.time() + 120
while time.time() < end:
    if %s:
        killed = 0
        for entry in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                command = open(entry, "rb").read()
            except OSError:
                continue
            pid = int(entry.split("/")[2])
            if b"python" in command and pid != os.getpid() and pid != 1:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                except OSError:
                    pass
        print("killed", killed)
        break
    time.sleep(0.0005)
"""
CONDITIONS = {
    "cut-after-aof": 'os.path.exists("/var/lib/redis/appendonlydir/appendonly.aof.manifest")',
    "cut-before-restart": '"appendonly yes\\n" in open("/etc/redis/redis.conf").read()',
}


def on_host(*command: str, check: bool = True) -> str:
    done = subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{command} on {host}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


environment = dict(os.environ)
watcher = None
if host in CONDITIONS:
    watcher = subprocess.Popen(
        ["docker", "exec", container, "python3", "-c", WATCH % CONDITIONS[host]], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1)
else:
    environment["REDISOPS_KILL_AFTER"] = "Declare directives in file and live server"
run = subprocess.run(
    ["ansible-playbook", "-i", inventory, "--limit", host, "redisops.recovery.site"],
    env=environment, capture_output=True, text=True, start_new_session=True, check=False,
)  # fmt: skip
print(f"{host}: ansible-playbook ended with {run.returncode}")
if run.returncode == 0:
    raise SystemExit(f"the run was not cut off: {run.stdout[-3000:]}")
if watcher:
    reported = watcher.communicate(timeout=130)[0].strip()
    print(f"{host}: the watcher says: {reported}")
    if reported in ("", "killed 0"):
        raise SystemExit("nothing was killed at that point: " + run.stdout[-3000:])
elif run.returncode != -signal.SIGKILL:
    raise SystemExit(f"expected SIGKILL, got {run.returncode}: {run.stdout[-3000:]}")
says = on_host("grep", "-E", "^(appendonly|maxclients) ", "/etc/redis/redis.conf", check=False).split("\n")
live = on_host("redis-cli", "CONFIG", "GET", "appendonly").split("\n")[1]
print(f"{host}: at that moment the file says {says}, the live server appendonly {live}")

on_host("pkill", "-KILL", "-x", "redis-server", check=False)
on_host("systemctl", "reset-failed", f"{unit}.service", check=False)
time.sleep(0.5)
on_host("systemctl", "start", f"{unit}.service")
for _ in range(100):
    keys = on_host("redis-cli", "DBSIZE", check=False)
    if keys.isdigit():
        break
    time.sleep(0.1)
print(f"{host}: keys after a crash at that moment: {keys}")
if keys != "20000":
    raise SystemExit(f"{host}: {keys} of 20000 keys")
