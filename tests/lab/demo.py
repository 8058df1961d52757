#!/usr/bin/env python3
"""The main job, shown: three bare hosts become durable with one command, are killed, and come back with their keys.

Usage: demo.py up | down
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

LAB_DIR = pathlib.Path(__file__).resolve().parent
ROOT = LAB_DIR.parents[1]
WORK = ROOT / ".cache" / "demo"
LAB = "demo"
HOSTS = {"redis-1": "debian", "redis-2": "debian", "redis-3": "el9"}
KEYS = 10_000
BACK_SECONDS = 60
HEALTH = (
    "loading", "rdb_last_bgsave_status", "rdb_last_save_time", "aof_enabled", "aof_last_bgrewrite_status", "aof_last_write_status",
    "aof_delayed_fsync",
)  # fmt: skip


class DemoError(Exception):
    """Something did not go as shown; the text is for the person who watches."""


@dataclasses.dataclass
class Seen:
    """What was seen on one host."""

    acknowledged: int = 0
    before: int = 0
    after: int = 0
    wrong: int = 0
    old_pid: str = ""
    new_pid: str = ""
    back_after: float = 0.0
    health: dict[str, str] = dataclasses.field(default_factory=dict)
    first_changed: int = 0
    second_changed: int = 0


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def lab(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(LAB_DIR / "lab.py"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise DemoError("the lab could not be brought there; see the line above")
    return done.stdout


def on(host: str, *command: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["docker", "exec", "-i", f"{LAB}-{host}", *command],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    text = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        raise DemoError(f"{' '.join(command)} on {host}: {text}")
    return text


def info(host: str) -> dict[str, str]:
    lines = on(host, "redis-cli", "-e", "INFO", "everything").splitlines()
    return dict(line.strip().split(":", 1) for line in lines if ":" in line)


def converge(inventory: pathlib.Path, record: pathlib.Path) -> dict[str, dict[str, int]]:
    """Run the real site.yml, its output shown; gives Ansible's own count of changes a host."""
    record.unlink(missing_ok=True)
    environment = dict(
        os.environ, REDISOPS_RECORD=str(record), ANSIBLE_CALLBACK_PLUGINS=str(LAB_DIR / "callback_plugins"),
        ANSIBLE_CALLBACKS_ENABLED="lab_record", ANSIBLE_FORCE_COLOR="1" if sys.stdout.isatty() else "0",
        ANSIBLE_DISPLAY_SKIPPED_HOSTS="0",
    )  # fmt: skip
    command = [
        "ansible-playbook",
        "-i",
        str(inventory),
        str(ROOT / "playbooks" / "site.yml"),
        "-e",
        "redisops_hosts=all",
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise DemoError("the converge failed; Ansible says why above")
    entries = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {entry["host"]: entry["stats"] for entry in entries if "stats" in entry}


def kill(host: str, seen: Seen) -> None:
    """SIGKILL to redis-server; systemd has to bring it back by itself."""
    seen.old_pid = info(host)["process_id"]
    began = time.monotonic()
    on(host, "kill", "-9", seen.old_pid)
    while time.monotonic() - began < BACK_SECONDS:
        try:
            fields = info(host)
        except DemoError:
            fields = {}
        if fields.get("process_id", seen.old_pid) != seen.old_pid and fields.get("loading") == "0":
            seen.new_pid, seen.health = fields["process_id"], fields
            seen.back_after = time.monotonic() - began
            return
        time.sleep(0.1)
    raise DemoError(f"{host}: systemd did not bring redis-server back within {BACK_SECONDS} s")


def count_wrong(host: str) -> int:
    """Keys that are missing or hold another value than the client wrote."""
    script = "local bad = 0 for i = 1, tonumber(ARGV[1]) do if redis.call('GET', 'demo:'..i) ~= 'value '..i then bad = bad + 1 end end return bad"
    return int(on(host, "redis-cli", "-e", "EVAL", script, "0", str(KEYS)))


def table(found: dict[str, Seen], images: dict[str, str]) -> str:
    rows: list[tuple[str, ...]] = [("", *found)]

    def row(title: str, values: list[object]) -> None:
        rows.append((title, *(str(value) for value in values)))

    row("image", [images[host] for host in found])
    row("server", ["Redis " + seen.health["redis_version"] for seen in found.values()])
    row("changed, first converge", [seen.first_changed for seen in found.values()])
    row("writes acknowledged", [seen.acknowledged for seen in found.values()])
    row("keys before SIGKILL", [seen.before for seen in found.values()])
    row("process before → after", [f"{seen.old_pid} → {seen.new_pid}" for seen in found.values()])
    row("back, data loaded", [f"{seen.back_after:.1f} s" for seen in found.values()])
    row("keys after", [seen.after for seen in found.values()])
    row("acknowledged writes lost", [seen.wrong for seen in found.values()])
    for name in HEALTH:
        row(name, [seen.health.get(name, "-") for seen in found.values()])
    row("changed, second converge", [seen.second_changed for seen in found.values()])
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows
    )


def image_names(inventory_hosts: dict[str, str]) -> dict[str, str]:
    names = {}
    for host in inventory_hosts:
        name = subprocess.run(
            ["docker", "inspect", "-f", "{{.Config.Image}}", f"{LAB}-{host}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        names[host] = name.split(":")[0].split("/")[-1]
    return names


def up() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    say("1/6 three bare hosts: two Debian family, one EL9 (the lines below say which images, and what is a stand-in)")
    lab("down", "--lab", LAB)
    lab("up", "--lab", LAB, *(f"{host}={family}" for host, family in HOSTS.items()))
    inventory = WORK / "inventory.yml"
    inventory.write_text(lab("inventory", "--lab", LAB), encoding="utf-8")
    found = {host: Seen() for host in HOSTS}
    say("2/6 converge: ansible-playbook playbooks/site.yml")
    for host, stats in converge(inventory, WORK / "first.jsonl").items():
        found[host].first_changed = stats["changed"]
    say(f"3/6 {KEYS} keys to each host through redis-py, one by one")
    writer = (LAB_DIR / "demo_write.py").read_bytes()
    for host, seen in found.items():
        seen.acknowledged = int(on(host, "python3", "-", str(KEYS), stdin=writer))
        seen.before = int(on(host, "redis-cli", "-e", "DBSIZE"))
    say("4/6 SIGKILL to redis-server on every host; systemd starts it again")
    for host, seen in found.items():
        kill(host, seen)
        say(f"    {host}: back after {seen.back_after:.1f} s")
    for host, seen in found.items():
        seen.after, seen.wrong = int(on(host, "redis-cli", "-e", "DBSIZE")), count_wrong(host)
    say("5/6 converge again: nothing may change")
    for host, stats in converge(inventory, WORK / "second.jsonl").items():
        found[host].second_changed = stats["changed"]
    say("6/6 what was seen")
    print(table(found, image_names(HOSTS)))
    print(
        "\nappendfsync is everysec: SIGKILL spares the kernel's page cache, so nothing that reached it is lost; a power cut may cost"
        "\nthe last one to two seconds of writes. The hosts stay up; look around with `docker exec -it demo-redis-1 bash`, then"
        "\n`make demo-down`."
    )
    bad = [host for host, seen in found.items() if seen.second_changed or seen.wrong or seen.after != seen.before]
    if bad:
        raise DemoError(f"not as promised on {', '.join(bad)}: see the table")


def main() -> int:
    try:
        if sys.argv[1:] == ["up"]:
            up()
        elif sys.argv[1:] == ["down"]:
            lab("down", "--lab", LAB)
        else:
            print(__doc__)
            return 2
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; `make demo-down` removes what was begun.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
