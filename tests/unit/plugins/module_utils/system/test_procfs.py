# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What /proc says."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import (
    CAP_SYS_RESOURCE,
    capability_bounds,
    meminfo_bytes,
    open_files_limit,
    selected,
    status_field,
)

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             95880                95880                processes
Max open files            {soft}                 {hard}               files
"""
STATUS = "Name:\tredis-server\nUmask:\t0007\nUid:\t0\t114\t0\t0\nCapBnd:\t{mask}\n"


@pytest.mark.parametrize(
    ("soft", "hard", "limit"),
    [
        ("1024", "524288", (1024, 524288)),
        ("unlimited", "unlimited", (2**31, 2**31)),
        ("1024", "unlimited", (1024, 2**31)),
    ],
)
def test_open_files(soft, hard, limit):
    assert open_files_limit(LIMITS.format(soft=soft, hard=hard)) == limit


def test_open_files_not_known():
    assert open_files_limit("") == (0, 0)


def test_fields():
    status = STATUS.format(mask="0")
    assert status_field(status, "Umask") == "0007"
    assert status_field(status, "Uid").split()[1] == "114"
    assert status_field(status, "mask") is None
    assert status_field("", "Uid") is None


@pytest.mark.parametrize(
    ("mask", "has"), [("000001ffffffffff", True), ("00000000a80425fb", False), ("0000000001000000", True), ("0", False)]
)
def test_capabilities(mask, has):
    assert capability_bounds(STATUS.format(mask=mask), CAP_SYS_RESOURCE) == has


def test_capabilities_not_known():
    assert not capability_bounds("", CAP_SYS_RESOURCE)


def test_memory():
    text = "MemTotal:       16320112 kB\nSwapTotal:             0 kB\n"
    assert meminfo_bytes(text, "MemTotal") == 16320112 * 1024
    assert meminfo_bytes(text, "SwapTotal") == 0
    assert meminfo_bytes(text, "MemAvailable") == 0


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("always [madvise] never\n", "madvise"),
        ("[always] madvise never", "always"),
        ("1\n", "1"),
        ("", None),
        (" \n", None),
    ],
)
def test_the_choice_in_brackets(text, choice):
    assert selected(text) == choice
