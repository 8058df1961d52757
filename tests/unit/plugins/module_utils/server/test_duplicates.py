# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines that may stand once, and what rename-command says."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.server.duplicates import declared_twice
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import rename_lines, renamed_commands


def directives(main: str, included: str = ""):
    return expand(RedisConf(main, "main"), lambda name: [(name, included)])


def test_what_stands_in_the_file_and_in_its_include():
    found = declared_twice(
        directives(
            "include more\nuser al on\nloadmodule /m.so a\nhz 1\nhz 2\n", "user al off\nuser bo on\nloadmodule /m.so\n"
        )
    )
    assert found == [
        "user al stands in more line 1 and main line 2",
        "loadmodule /m.so stands in more line 3 and main line 3",
    ]
    assert declared_twice(directives("user al on\nuser Al on\nloadmodule /a.so\nloadmodule /b.so\n")) == []


def test_renamed_and_taken_away():
    lines = directives('rename-command FLUSHALL wipe-1\nrename-command config ""\nhz 1\n')
    assert rename_lines(lines) == (("FLUSHALL", "wipe-1"), ("config", ""))
    assert renamed_commands(lines) == {"wipe-1": "FLUSHALL"}
