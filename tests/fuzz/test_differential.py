# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bounded run of the differential fuzzing, ten seconds a kind, with a seed of its own each time; and what earlier runs found."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.fuzz.readers import KINDS, Acls, Aofs, Confs, Manifests, RdbHeads, command, rdb_with
from tests.fuzz.real_redis import Room
from tests.fuzz.run import fuzzed

SECONDS = 10.0


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_our_readers_and_redis_agree(kind):
    seed = random.SystemRandom().randrange(10**6)
    counts, finds = fuzzed(SECONDS, seed, [kind])
    print(f"seed {seed}: {counts[kind]} of {kind}")
    assert counts[kind] > 5
    assert not finds, f"seed {seed}, the same by: make fuzz SECONDS=60 SEED={seed}\n" + "\n".join(map(str, finds))


@pytest.fixture(name="room")
def _room(tmp_path: pathlib.Path) -> Room:
    return Room(tmp_path / "room")


def differs(kind, room: Room, raw: bytes) -> str:
    one = kind(room)
    one.prepare()
    return one.differs(raw)


def test_the_harness_sees_a_difference(room, monkeypatch):
    """A reader that takes everything is caught, and one that takes nothing."""
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

    from tests.fuzz import readers

    one = Confs(room)
    raw = b"save 3600 1\nhz 20\n"
    assert one.differs(raw) == ""
    monkeypatch.setattr(readers, "effective", lambda _directives, name: "11" if name == "hz" else None)
    assert "hz is '11' to us" in one.differs(raw)

    def refuse(*_arguments):
        raise Problem("conf_syntax", "nothing is good enough", "", "")

    monkeypatch.setattr(readers, "expand", refuse)
    assert "and Redis starts" in one.differs(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"dbfilename dump.rdb\x0c\nhz 20\n",  # a form feed ends no word
        b"dbfilename a\x0bb\n",
        b"client-output-buffer-limit\n",
        b"hz 0\n",
        b"save 7600 1\nsave \n",
        b"hz 600\n",
        b"# a comment\x00t\nsave 3600 1\nsave 300 100\n",  # behind a NUL the rest of the line is gone, with its end
    ],
)
def test_configurations_that_were_read_otherwise(room, raw):
    assert differs(Confs, room, raw) == ""


@pytest.mark.parametrize(
    "raw",
    [
        command("SELET", "0") + b"*3\r\n$3\r\nSET\r\n$3\r\nk:0\r\n$0\r\n\r",  # unknown before a torn end
        command("SET", "a", "1") + b"#TS:17953",  # a start leaves it there
        command("SET", "a", "1") + command("MULTI") + command("NOSUCH"),  # and in a transaction that is not run
        command("MULTI") + command("SET", "a", "1") + command("MULTI") + command("EXEC") + command("SET", "b", "1"),
    ],
)
def test_aofs_that_were_read_otherwise(room, raw):
    assert differs(Aofs, room, raw) == ""


def test_a_version_is_a_number_as_atoi_reads_it(room):
    raw = rdb_with(room, "k")
    assert differs(RdbHeads, room, b"REDIS001\xff" + raw[raw.index(b"\xfe\x00") :]) == ""


def test_two_spaces_name_the_nameless_user(room):
    assert differs(Acls, room, b"user default on nopass ~* &* +@all\nuser  on >secret ~a:* +get\n") == ""


def test_an_rdb_with_a_torn_first_command_behind_it_is_no_mere_tail(room):
    """Redis loads it, and cuts the whole file down to nothing: the next start has no data."""
    from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import check_aof
    from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

    raw = rdb_with(room, "k") + b"*2\r\n$6"
    assert differs(Aofs, room, raw) == ""
    path = room.clear() / "appendonly.aof"
    path.write_bytes(raw)
    found = check_aof(Host(), str(path), 60.0)
    assert (found.verdict, "cut the whole file down" in found.detail) == ("corrupt_inside", True)


def test_whole_files_are_the_same_to_both(room):
    for kind in (Manifests, Aofs, RdbHeads):
        one = kind(room)
        one.prepare()
        assert [one.differs(raw) for raw in one.originals] == [""] * len(one.originals)
