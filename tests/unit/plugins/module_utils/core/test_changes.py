# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One list, and what is predicted of it."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change, render_actions, render_diff

CHANGES = [
    Change("live", "hz", "10", "50", "CONFIG SET hz"),
    Change("file", "hz", None, "50", "write hz to redis.conf"),
    Change("disk", "/data/dump.rdb", None, None, "BGSAVE"),
    Change("file", "save", "900 1", "", "write hz to redis.conf"),
    Change("mode", "/data/x", "0:0 0644", "1:1 0660"),
]


def test_each_side_tells_what_is_there():
    diff = render_diff(CHANGES)
    assert diff["before"] == "live: hz 10\nfile: save 900 1\nmode: /data/x 0:0 0644\n"
    assert diff["after"] == "live: hz 50\nfile: hz 50\nfile: save\nmode: /data/x 1:1 0660\n"


def test_each_action_is_said_once_and_in_order():
    assert render_actions(CHANGES) == ["CONFIG SET hz", "write hz to redis.conf", "BGSAVE"]


def test_nothing_to_tell():
    assert (render_diff([]), render_actions([])) == ({"before": "", "after": ""}, [])
