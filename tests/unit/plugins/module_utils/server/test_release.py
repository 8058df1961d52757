# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines that decide what loads, and the reason that is quoted where it does not."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf
from ansible_collections.redisops.recovery.plugins.module_utils.server.release import Release, loading_lines
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import reason_of_exit

BANNER = (
    "7:C 25 Nov 2026 16:00:00.000 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo\n"
    "7:C 25 Nov 2026 16:00:00.000 # Redis version=7.0.15, bits=64, commit=00000000, modified=0, pid=7, just started\n"
    "7:C 25 Nov 2026 16:00:00.000 # Configuration loaded\n7:M 25 Nov 2026 16:00:00.000 * monotonic clock: POSIX clock_gettime\n"
    "7:M 25 Nov 2026 16:00:00.000 # WARNING: The TCP backlog setting of 511 cannot be enforced\n"
    "7:S 25 Nov 2026 16:00:00.000 # Server initialized\n7:S 25 Nov 2026 16:00:00.000 * Reading RDB base file on AOF loading...\n"
    "7:S 25 Nov 2026 16:00:00.000 * Loading RDB produced by version 7.0.15\n"
)


def test_lines_are_those_that_decide():
    text = 'port 1\nrename-command FLUSHALL "a b"\nloadmodule /x.so one\nRENAME-COMMAND CONFIG ""\nrename-command DUMP ""\n'
    lines = loading_lines(RedisConf(text).directives())
    assert lines == (
        'rename-command FLUSHALL "a b"',
        "loadmodule /x.so one",
        'rename-command CONFIG ""',
        'rename-command DUMP ""',
    )
    release = Release(lines=lines)
    assert release.applied == ('rename-command FLUSHALL "a b"', "loadmodule /x.so one")
    assert release.renamed == {"flushall": "a b"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("7:S 25 Nov 2026 16:00:00.000 # Unknown command 'wipe' reading the append only file a.1.incr.aof", "Unknown command 'wipe'"),
        ("7:S 25 Nov 2026 16:00:00.000 # Can't handle RDB format version 12\n7:S 25 Nov 2026 16:00:00.000 # Fatal error loading the DB, check server logs. Exiting.", "Can't handle RDB"),
        ("7:S 25 Nov 2026 16:00:00.000 # The RDB file contains module data I can't load: no matching module type 'tiny-type'", "no matching module type"),
        ("7:M 25 Nov 2026 16:00:00.000 # Module /x.so failed to load: /x.so: cannot open shared object file\n7:M 25 Nov 2026 16:00:00.000 # Can't load module from /x.so: server aborting", "cannot open shared object"),
        ("7:S 25 Nov 2026 16:00:00.000 # Something that nobody expected", "Something that nobody expected"),
        ("", "it ended without a word"),
    ],
)  # fmt: skip
def test_the_reason_is_never_the_banner(line, words):
    assert words in reason_of_exit(BANNER + line + "\n")
