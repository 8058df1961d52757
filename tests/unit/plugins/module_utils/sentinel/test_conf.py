# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""sentinel.conf, edited without touching Sentinel's runtime state."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.conf import STATE, SentinelConf

RECORDED = (pathlib.Path(__file__).parent / "fixtures" / "sentinel" / "redis-7.0.15-sentinel.conf").read_text()


def state(text):
    return [line for line in text.splitlines() if any(line.lower().startswith(f"sentinel {name}") for name in STATE)]


def test_a_recorded_file_is_read():
    conf = SentinelConf(RECORDED)
    assert not conf.fresh
    assert conf.primaries() == {
        "orders": {"monitor": "127.0.0.1 21379 2", "down-after-milliseconds": "1000", "auth-pass": "secret"}
    }
    assert conf.options() == {"resolve-hostnames": "no", "announce-ip": "127.0.0.1"}
    assert conf.users() == ["default on nopass ~* &* +@all"]
    assert len(state(RECORDED)) == 6


def test_a_file_that_no_sentinel_wrote_is_fresh():
    conf = SentinelConf("port 26379\nsentinel monitor mymaster 127.0.0.1 6379 2\n")
    assert conf.fresh
    assert conf.primaries() == {"mymaster": {"monitor": "127.0.0.1 6379 2"}}


@pytest.mark.parametrize(
    "change",
    [
        lambda conf: conf.set_primary("orders", "down-after-milliseconds", "5000"),
        lambda conf: conf.set_primary("orders", "notification-script", "/usr/local/bin/tell"),
        lambda conf: conf.set_primary("orders", "auth-pass", None),
        lambda conf: conf.set_primary("other", "monitor", "192.0.2.1 6379 2"),
        lambda conf: conf.set_option("announce-ip", None),
        lambda conf: conf.set_option("announce-port", "26380"),
        lambda conf: conf.set_users(["default off", "ops on #" + "a" * 64 + " ~* &* +@all"]),
    ],
)
def test_what_sentinel_remembers_stays_byte_for_byte(change):
    conf = SentinelConf(RECORDED)
    change(conf)
    text = conf.render()
    assert text != RECORDED
    assert state(text) == state(RECORDED)
    assert "# the operator's comment" in text
    kept = [line for line in RECORDED.splitlines() if line in text.splitlines()]
    assert len(kept) >= len(RECORDED.splitlines()) - 1


def test_lines_stand_where_sentinel_needs_them():
    conf = SentinelConf("port 1\nsentinel monitor m 192.0.2.1 6379 2\nsentinel myid " + "a" * 40 + "\n")
    conf.set_option("resolve-hostnames", "yes")
    conf.set_primary("m", "auth-pass", "x")
    conf.set_primary("n", "monitor", "192.0.2.2 6379 2")
    conf.set_primary("n", "auth-user", "watch")
    assert conf.render().splitlines() == [
        "port 1", "sentinel resolve-hostnames yes", "sentinel monitor m 192.0.2.1 6379 2", "sentinel auth-pass m x",
        "sentinel myid " + "a" * 40, "sentinel monitor n 192.0.2.2 6379 2", "sentinel auth-user n watch",
    ]  # fmt: skip


def test_a_primary_that_goes_takes_its_lines_along_and_no_others():
    conf = SentinelConf(RECORDED)
    conf.set_primary("other", "monitor", "192.0.2.1 6379 2")
    conf.remove_primary("other")
    assert conf.render() == RECORDED
    conf.remove_primary("orders")
    assert "orders" not in conf.render()
    assert "sentinel myid" in conf.render()


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_file_without_a_last_newline(ending):
    conf = SentinelConf("port 1" + ending)
    conf.set_primary("m", "monitor", "192.0.2.1 6379 2")
    assert conf.render() == "port 1\nsentinel monitor m 192.0.2.1 6379 2\n"
