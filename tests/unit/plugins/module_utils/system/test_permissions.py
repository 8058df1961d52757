# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Owner and mode of one file."""

from __future__ import annotations

import os

from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import Access, plan_path_access


def test_a_part_that_is_not_declared_stays(tmp_path):
    path = tmp_path / "redis.conf"
    path.write_text("")
    path.chmod(0o640)
    assert plan_path_access(str(path), None, None, None) == (Access(os.getuid(), os.getgid(), 0o640), None)
    wanted, change = plan_path_access(str(path), None, None, 0o600)
    assert wanted == Access(os.getuid(), os.getgid(), 0o600)
    assert change.after.endswith("0600")
    assert plan_path_access(str(path), 7, 8, None)[0] == Access(7, 8, 0o640)
