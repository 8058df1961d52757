# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system.mounts import (
    missing_mount,
    mount_unit_where,
    parse_fstab,
    parse_mountinfo,
)

FSTAB = """# /etc/fstab
UUID=1 / ext4 errors=remount-ro 0 1
UUID=2 none swap sw 0 0
/dev/b /srv/my\\040data/ xfs nofail 0 2
/srv/real /var/lib/redis none bind,nofail 0 0
"""
MOUNTINFO = """21 1 8:1 / / rw shared:1 - ext4 /dev/a rw
30 21 0:30 / /srv/my\\040data rw - xfs /dev/b rw
31 21 0:31 / /var/lib/redis rw - autofs systemd-1 rw
"""


def test_points_are_read_as_they_are_written():
    assert parse_fstab(FSTAB) == ["/", "/srv/my data", "/var/lib/redis"]
    assert parse_mountinfo(MOUNTINFO) == {"/", "/srv/my data"}
    assert mount_unit_where("[Mount]\nWhat=/dev/c\nWhere = /data/\n") == "/data"
    assert mount_unit_where("[Unit]\n") is None


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/var/lib/redis", "/var/lib/redis"),
        ("/var/lib/redis/appendonlydir", "/var/lib/redis"),
        ("/var/lib/redis-other", None),
        ("/srv/my data/a", None),
        ("/var/lib", None),
    ],
)
def test_a_point_at_or_above_counts(path, missing):
    assert missing_mount(path, parse_fstab(FSTAB), parse_mountinfo(MOUNTINFO)) == missing
