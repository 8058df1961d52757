# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Owner and mode of data files."""

from __future__ import annotations

import os

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import Place, scan
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.permissions import (
    plan_access,
    read_access,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, apply_access

RDB, AOF = "/data/dump.rdb", "/data/appendonlydir/appendonly.aof.1.incr.aof"
WANTED = Access(100, 100, 0o660)


@pytest.mark.parametrize(
    ("path", "access", "drift"),
    [
        (RDB, Access(100, 100, 0o660), False),
        (RDB, Access(100, 100, 0o640), False),  # as a replica receives it
        (RDB, Access(100, 100, 0o644), True),
        (RDB, Access(100, 101, 0o660), True),
        (RDB, Access(0, 100, 0o660), True),
        (AOF, Access(100, 100, 0o660), False),
        (AOF, Access(100, 100, 0o640), False),  # as Redis opens it
        (AOF, Access(100, 100, 0o644), True),
        (AOF, Access(100, 100, 0o600), True),
        (AOF, Access(100, 0, 0o640), True),
    ],
)
def test_drift(path, access, drift):
    changes = plan_access({path: access}, WANTED)
    assert bool(changes) == drift
    for change in changes:
        assert (change.layer, change.name, change.after) == ("mode", path, "100:100 0660")


def test_files_as_they_are(tmp_path):
    place = Place(str(tmp_path), "dump.rdb", "aof", "a")
    (tmp_path / "dump.rdb").write_text("x")
    (tmp_path / "dump.rdb").chmod(0o640)
    (tmp_path / "aof").mkdir()
    (tmp_path / "aof" / "a.1.incr.aof").write_text("y")
    disk = scan(place)
    assert set(read_access(disk)) == {place.rdb, f"{place.aof_dir}/a.1.incr.aof"}
    assert read_access(disk)[place.rdb] == Access(os.getuid(), os.getgid(), 0o640)
    (tmp_path / "aof" / "a.1.incr.aof").unlink()  # a rewrite just ended
    assert set(read_access(disk)) == {place.rdb}
    apply_access(disk.paths, Access(os.getuid(), os.getgid(), 0o600))
    assert read_access(disk)[place.rdb].mode == 0o600
