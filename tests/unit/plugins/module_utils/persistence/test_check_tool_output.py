# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verdicts of the check tools, as recorded (server/fixtures/record_redis.py made them)."""

from __future__ import annotations

import pathlib
import re

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.check_tool_output import (
    parse_check_aof,
    parse_check_rdb,
)

RECORDED = sorted((pathlib.Path(__file__).parent / "fixtures" / "check").glob("*.txt"))
REASONS = {
    "redis-check-rdb-truncated": "Unexpected EOF reading RDB file",
    "redis-check-rdb-bit-flip": "RDB CRC error",
    "redis-check-rdb-bad-magic": "Wrong signature trying to load DB from file",
    "redis-check-rdb-missing": "it printed nothing",
    "redis-check-aof-truncated": "AOF appendonly.aof.1.incr.aof is not valid. Use the --fix option to try fixing it.",
    "redis-check-aof-bit-flip": "AOF appendonly.aof.1.incr.aof format error",
    "redis-check-aof-base-bit-flip": "RDB CRC error",
    "redis-check-aof-bad-magic": "AOF appendonly.aof.1.base.rdb format error",
    "redis-check-aof-file-missing": "Cannot open file DIR/appendonly.aof.1.incr.aof: No such file or directory, aborting...",
    "redis-check-aof-missing": "Cannot open file DIR/absent.manifest: No such file or directory",
}


def test_there_are_recordings():
    cases = {re.sub(r"^\w+-[\d.]+-", "", path.stem) for path in RECORDED}
    assert cases == {*REASONS, "redis-check-rdb-ok", "redis-check-aof-ok"}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_verdicts(path):
    first, _newline, output = path.read_text().partition("\n")
    case = re.sub(r"^\w+-[\d.]+-", "", path.stem)
    parse = parse_check_rdb if "check-rdb" in case else parse_check_aof
    verdict = parse(int(first.split()[-1]), output)
    assert verdict.ok == case.endswith("-ok")
    assert verdict.reason == REASONS.get(case, "")
    if case == "redis-check-rdb-ok":
        assert verdict.keys == 52


@pytest.mark.parametrize(
    ("code", "output"), [(0, ""), (139, "[info] 3 keys read\n"), (1, "\\o/ RDB looks OK! \\o/\n"), (127, "not found")]
)
def test_anything_else_is_not_sound(code, output):
    assert not parse_check_rdb(code, output).ok
    assert not parse_check_aof(code, output).ok
    assert parse_check_rdb(code, output).reason
    assert parse_check_aof(code, output).reason


def test_the_aof_tools_word_for_a_bad_file_is_no_verdict_for_the_whole():
    assert not parse_check_aof(0, "BASE AOF a is valid\nAOF b is not valid. Use the --fix option\n").ok
