# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest of a backup: any flipped byte is found, no name leads out of the backup."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import (
    BackupFile,
    BackupManifest,
    parse_backup_manifest,
    seal,
    unseal,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from hypothesis import given
from hypothesis import strategies as st

FILES = (BackupFile("data/dump.rdb", 104, "a" * 64), BackupFile("acl/users.acl", 0, "b" * 64))
MANIFEST = BackupManifest(
    label="20261124T201500Z-rdb", group_name="orders", host="redis-1", method="rdb", source="primary", why_source="it has no replica",
    taken_at=1795340219.25, seconds=1.5, product="Redis 7.0.15", version="7.0.15", replid="c" * 40, offset=77, slack=0,
    keys={"0": [5, 1], "3": [2, 0]}, used_memory=1_000_000, functions=1, files=FILES, data="data/dump.rdb", slots=("0-5460",),
    settings={"appendonly": "yes"}, notes=("a note",),
)  # fmt: skip


def test_what_is_written_is_read():
    assert parse_backup_manifest(MANIFEST.render()) == MANIFEST
    assert (MANIFEST.total_keys, MANIFEST.bytes) == (7, 104)


def test_every_flipped_bit_is_found():
    raw = bytearray(MANIFEST.render().encode())
    for index in range(len(raw)):
        for bit in (0, 5):
            raw[index] ^= 1 << bit
            with pytest.raises(Problem) as found:
                parse_backup_manifest(bytes(raw).decode("utf-8", "surrogateescape"))
            assert found.value.code == "manifest_damaged", index
            raw[index] ^= 1 << bit


@given(st.integers(0, len(MANIFEST.render()) - 1))
def test_a_manifest_cut_short_is_found(length):
    with pytest.raises(Problem) as found:
        parse_backup_manifest(MANIFEST.render()[:length])
    assert found.value.code == "manifest_damaged"


@given(st.text())
def test_any_text_is_a_manifest_or_a_problem(text):
    with pytest.raises(Problem):
        unseal(text, "x")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "data/../../x", "data//x", "./x", "", "data/..", "a\0b", "..\\x", "data/"],
)
def test_a_name_that_leads_elsewhere_is_refused(path):
    bent = dataclasses.replace(MANIFEST, files=(*FILES, BackupFile(path, 1, "c" * 64)))
    with pytest.raises(Problem) as found:
        parse_backup_manifest(bent.render())
    assert found.value.code == "manifest_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"label": "../../etc"},
        {"keys": {"0": [1]}},
        {"keys": {"0": ["a", "b"]}},
        {"data": "data/other.rdb"},
        {"files": (*FILES, FILES[0])},
        {"files": (*FILES, BackupFile("x", -1, "c" * 64))},
        {"files": (*FILES, BackupFile("x", 1, "C" * 64))},
    ],
)
def test_what_it_should_not_say_is_refused(change):
    with pytest.raises(Problem) as found:
        parse_backup_manifest(dataclasses.replace(MANIFEST, **change).render())
    assert found.value.code == "manifest_invalid"


def test_fields_that_are_missing_are_refused():
    content = unseal(MANIFEST.render(), "x")
    content.pop("seal")
    content.pop("offset")
    with pytest.raises(Problem) as found:
        parse_backup_manifest(seal(content))
    assert found.value.code == "manifest_invalid"
