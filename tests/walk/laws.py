# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a result may say: ok, verified, 0 lost are held against what the oracle knows."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import types

from tests.walk.oracle import Data, differences
from tests.walk.world import CONF, Walked, World


def _same(world: World, what: str, wanted: Data | None, found: Data | None) -> None:
    if wanted is None or found is None or wanted != found:
        other = differences(wanted or {}, found or {})
        raise world.broken(f"{what}: {other or 'it is not known, or not there'}")


def _sure(world: World, data: Data | None) -> Data:
    """Without what was written next to a switch: it may be on either side of it."""
    return {key: value for key, value in (data or {}).items() if key not in world.oracle.unsure}


def _settled(data: Data | None, done: types.SimpleNamespace) -> Data | None:
    """Without what was written meanwhile: without an AOF, what is acknowledged behind a restart is in the server only."""
    meanwhile = getattr(done, "meanwhile", {})
    return data and {key: value for key, value in data.items() if key not in meanwhile}


def loaded(world: World, directory: str) -> Data | None:
    """What the data of a backup is to a server that is none of ours."""
    manifest = json.loads((pathlib.Path(directory) / "manifest.json").read_text())
    source = pathlib.Path(directory) / manifest["data"]
    home = world.base / "trial"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    server = Walked(home, world.clock)
    is_aof = source.name.endswith(".manifest")
    if is_aof:
        shutil.copytree(source.parent, server.data / "appendonlydir")
    else:
        shutil.copy(source, server.data / "dump.rdb")
    server.write_conf(CONF + 'save ""\n' + ("appendonly yes\n" if is_aof else "appendonly no\n"))
    try:
        return server.start().everything()
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def backup(world: World, done: types.SimpleNamespace) -> None:
    if done.failed or not done.backup:
        return
    label = done.backup["label"]
    found = loaded(world, done.directory)
    world.oracle.backups[label] = found or {}
    if done.state == "verified" and "with a client writing" not in world.told[-1]:
        _same(world, f"{label} is called verified, and is not what the server had", done.before.live, found)


def persistence(world: World, done: types.SimpleNamespace, appendonly: bool) -> None:
    if done.failed or done.after.live is None:
        return
    loss = done.crash_loss
    if world.rots():
        return
    if appendonly or loss["seconds"] == 0 or loss["writes"] == 0:
        live, start = (_settled(data, done) for data in (done.after.live, done.after.next))
        _same(
            world, f"redis_persistence is ok, with a crash loss of {loss['text']}, and a crash now loses", live, start
        )


def service(world: World, done: types.SimpleNamespace) -> None:
    if done.failed:
        return
    if done.after.live is None:
        raise world.broken("redis_service is ok, and the server does not run")
    if done.restarted:
        live, start = (_settled(data, done) for data in (done.after.live, done.after.next))
        _same(world, "redis_service has restarted, and the next start has other data", live, start)


def switched(world: World, done: types.SimpleNamespace, wanted: list[Data] | None) -> None:
    """Behind a switch of data that went well: it is one of ``wanted`` (None: anything), live and at the next start."""
    if done.failed:
        return
    now = done.after.live if done.after.live is not None else done.after.next
    _same(
        world, "what was brought is not what the next start has", _settled(now, done), _settled(done.after.next, done)
    )
    world.oracle.unsure.update(getattr(done, "meanwhile", {}))
    brought = _sure(world, now)
    if wanted is not None and brought not in [_sure(world, one) for one in wanted]:
        raise world.broken(f"the data is {brought}, and should be one of {wanted}")
    world.oracle.replaced = done.before.live if done.before.live is not None else done.before.next


def repaired(world: World, done: types.SimpleNamespace) -> None:
    """A repair that loses nothing leaves no value behind that a start would have had; what it did starts."""
    if done.failed or not done.changed:
        return
    if done.after.next is None:
        raise world.broken(f"redis_repair is ok by {done.method}, and the server does not start")
    if (done.loses or {}).get("bytes") == 0 and (done.loses or {}).get("commands") == 0:
        had = done.before.live if done.before.live is not None else done.before.next
        for key, value in (had or {}).items():
            if done.after.next.get(key) != value and world.oracle.latest.get(key) == value:
                raise world.broken(
                    f"redis_repair loses nothing by {done.method}, and the next start lacks {key} = {value}"
                )
