# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Five lines at the end of a run: always five, never well where that is not known."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.filter.host_summary import host_summary

from tests.support.fleet import host


@pytest.mark.parametrize("kind", ["primary", "old", "unbounded"])
def test_a_primary_in_five_lines(kind):
    lines = host_summary(host(0, kind), {"next_run": "Thu 2026-11-26 02:41:13 UTC"})
    assert [line.split(":")[0] for line in lines] == ["server", "durability", "crash loss", "backups", "to do"]
    assert lines[0] == "server:      primary, Redis 7.2.4, 1000000 keys"
    assert "the next run here: Thu 2026-11-26 02:41:13 UTC" in lines[3]
    assert lines[4].startswith(
        {
            "primary": "to do:       nothing",
            "old": "to do:       critical backup_old",
            "unbounded": "to do:       critical no_pers",
        }[kind]
    )
    assert ("everything" in lines[2]) == (kind == "unbounded")


def test_a_replica_says_whom_it_follows():
    lines = host_summary(host(1, "broken"))
    assert lines[0] == "server:      replica of 10.0.0.1:6379, link down, Redis 7.2.4, 1000001 keys"
    assert "no verified one on this host; none is taken by itself" in lines[3]
    assert "warning replica_link" in lines[4]


def test_what_was_not_seen_is_not_known():
    lines = host_summary({"failed": True, "msg": "no route to host\nmore"})
    assert len(lines) == 5
    assert lines[2] == "crash loss:  not known"
    assert lines[4] == "to do:       no route to host"
