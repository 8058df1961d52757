# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What clients, an operator and the world do. What these destroy is not ours to answer for; behind each, World.oracle forgets it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import time

import redis

from tests.walk.world import World

HOUR = 3600


def _try(world: World, *words: str) -> str:
    """As an operator at redis-cli, who sees what it answers."""
    answer = world.one.raw(*words).replace("\n", " ")[:120]
    world.tell(f"redis-cli {' '.join(words)}: {answer}")
    return answer


# --- clients ---


def write(world: World, numbers: list[int]) -> None:
    client = world.one.client()
    done = []
    for number in numbers:
        key, value = f"k{number}", world.oracle.new_value()
        with contextlib.suppress(redis.RedisError):
            if client.set(key, value):
                world.oracle.wrote(key, value)
                world.known.add(value)
                done.append(f"{key}={value}")
    world.tell(f"a client writes {' '.join(done)}")


def delete(world: World, number: int) -> None:
    with contextlib.suppress(redis.RedisError):
        world.one.client().delete(f"k{number}")
        world.oracle.wrote(f"k{number}", None)
        world.tell(f"a client deletes k{number}")


def flush_all(world: World) -> None:
    there = world.one.everything() or {}
    with contextlib.suppress(redis.RedisError):
        world.one.client().flushall()
        world.oracle.flushed.append(there)
        for key in there:
            world.oracle.wrote(key, None)
        world.tell(f"FLUSHALL of {sorted(there)}")


def let_a_second_end(world: World) -> None:
    """So that a moment can be asked for."""
    time.sleep(1.05 - time.time() % 1)
    second = int(time.time()) - 1
    world.oracle.seconds[second] = world.one.everything() or {}
    time.sleep(1.05 - time.time() % 1)
    world.tell(f"second {second} ended")


def start_two(world: World) -> None:
    if not world.two.runs:
        world.two.start()


def write_to_two(world: World, key: int) -> None:
    """The second server takes writes of its own while it is nobody's replica."""
    start_two(world)
    value = world.oracle.new_value()
    with contextlib.suppress(redis.RedisError):
        if world.two.client().info("replication")["role"] == "master" and world.two.client().set(f"t{key}", value):
            world.oracle.wrote(f"t{key}", value)
            world.tell(f"a client writes t{key}={value} to the second server")


# --- the operator at redis-cli ---


def part(world: World) -> None:
    """Both servers are their own primaries again."""
    for server in (world.one, world.two):
        if server.runs:
            server.raw("REPLICAOF", "NO", "ONE")
    world.tell("REPLICAOF NO ONE on both")


def stop_two(world: World) -> None:
    world.two.stop(signal.SIGTERM)
    world.tell("the second server is stopped")


def config_set(world: World, name: str, value: str) -> None:
    _try(world, "CONFIG", "SET", name, value)


def command(world: World, *words: str) -> None:
    _try(world, *words)
    world.quiet(world.one)


# --- the operator at the shell ---


def edit(world: World, name: str, value: str) -> None:
    text = world.one.conf.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(f"{name} ")]
    world.one.conf.write_text("\n".join([*lines, f"{name} {value}"]) + "\n")
    world.tell(f"redis.conf now says {name} {value}")


def stop(world: World, how: signal.Signals) -> None:
    with contextlib.suppress(Exception):  # it may refuse, since it cannot save
        world.one.stop(how)
    world.tell(f"{how.name}: {'it goes on' if world.one.runs else 'ended'}")


def start(world: World) -> None:
    if world.unit.held:
        world.tell("a start that the hold refuses")
        return
    with contextlib.suppress(AssertionError):
        world.one.start()
    world.tell(f"start: {'up, ' + str(world.one.keys()) + ' keys' if world.one.runs else 'it does not come up'}")


def _files(world: World) -> list[pathlib.Path]:
    """Data files and directories of the server, those that are there."""
    data = world.one.data
    return [path for path in (data / "dump.rdb", data / "appendonlydir") if os.path.lexists(path)]


def move_aside(world: World, which: int) -> None:
    """What he does not delete lies next to it, or elsewhere."""
    for path in _files(world)[which : which + 1]:
        target = world.aside / f"{path.name}.{len(world.told)}"
        shutil.move(str(path), target)
        world.tell(f"mv {path.name} {target.name}")


def rename_within(world: World, which: int) -> None:
    for path in _files(world)[which : which + 1]:
        path.rename(path.with_name(f"{path.name}.old-{len(world.told)}"))
        world.tell(f"mv {path.name} {path.name}.old-{len(world.told)}")


def copy_back(world: World, which: int) -> None:
    """The newest or oldest that lies aside, in the place of what is there; that is kept aside as well."""
    found = sorted(world.aside.iterdir(), key=lambda path: int(path.suffix[1:]))
    if not found:
        return
    source = found[which % len(found)]
    target = world.one.data / source.stem
    if os.path.lexists(target):
        shutil.move(str(target), world.aside / f"{target.name}.{len(world.told)}")
    with contextlib.suppress(OSError):  # the disk may be full
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    world.tell(f"cp -a {source.name} {target.name}")


def link(world: World, which: int) -> None:
    """The data lies elsewhere, and a symbolic link in its place."""
    for path in _files(world)[which : which + 1]:
        if path.is_symlink():
            return
        target = world.aside / f"{path.name}.{len(world.told)}"
        shutil.move(str(path), target)
        path.symlink_to(target)
        world.tell(f"ln -s {target} {path.name}")


def tear(world: World, cut: int) -> None:
    """The end of the newest increment is not there any more, as after a power cut."""
    stop(world, signal.SIGKILL)
    found = sorted(
        (world.one.data / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3])
    )
    if not found:
        return
    size = found[-1].stat().st_size
    os.truncate(found[-1], max(0, size - cut))
    world.tell(f"{found[-1].name} loses its last {min(cut, size)} bytes")


def rot(world: World, share: float) -> None:
    """A byte of the newest increment is another one."""
    found = sorted((world.one.data / "appendonlydir").glob("*.incr.aof"))
    if not found or not found[-1].stat().st_size:
        return
    world.rotten.add(found[-1].stat().st_ino)
    place = int((found[-1].stat().st_size - 1) * share)
    with found[-1].open("r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)
        handle.seek(place)
        handle.write(bytes([byte[0] ^ 0x10]))
    world.tell(f"byte {place} of {found[-1].name} rots")


# --- the world ---


def fill_disk(world: World) -> None:
    with open(world.filler, "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 65536)
    world.tell("the disk is full")


def free_disk(world: World) -> None:
    world.filler.unlink(missing_ok=True)
    world.tell("the disk has room again")
    if world.one.runs:
        time.sleep(1.2)  # Redis tries its AOF again once a second
        world.one.raw("BGSAVE")
        world.quiet(world.one)


def step_clock(world: World, seconds: int) -> None:
    world.set_clock(seconds)
    world.tell(f"the clock is {seconds} s ahead")
