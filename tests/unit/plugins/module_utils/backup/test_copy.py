# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many bytes of an AOF's last file a moment is of, told from the server's own counts."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.copy import _Held
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import parse_manifest
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import parse_info

MANIFEST = "file base seq 1 type b\nfile one seq 1 type i\nfile two seq 2 type i\n"


@pytest.mark.parametrize(
    ("current", "waits", "before", "after", "expected"),
    [
        (100 + 20 + 50, 0, 50, 50, {True: 50}),
        (20 + 50, 0, 50, 50, {False: 50}),  # a base that the server began with itself is not counted
        (100 + 20 + 50, 7, 50, 57, {True: 57}),  # what waits was written before we looked again
        (100 + 20 + 50, 7, 50, 50, {True: 57}),  # or will be
        (20 + 60, 0, 50, 160, {False: 60}),
        (100 + 20 + 60, 0, 50, 160, {True: 60, False: 160}),  # so much was written meanwhile that either may be
        (100 + 20 + 40, 0, 50, 50, {}),  # of other files than these
        (100 + 20 + 80, 0, 50, 60, {}),
    ],
)
def test_how_far_the_last_file_is_the_moments(current, waits, before, after, expected):
    held = _Held(parse_manifest(MANIFEST), MANIFEST, {})
    info = parse_info(f"aof_current_size:{current}\r\naof_buffer_length:{waits}\r\n")
    sizes = [{"base": 100, "one": 20, "two": last} for last in (before, after)]
    assert held.lengths_at(info, *sizes) == expected


def test_an_aof_without_a_base():
    text = "file one seq 1 type i\n"
    held = _Held(parse_manifest(text), text, {})
    info = parse_info("aof_current_size:10\r\naof_buffer_length:0\r\n")
    assert held.lengths_at(info, {"one": 10}, {"one": 30}) == {True: 10}
