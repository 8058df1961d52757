# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions of sysctl_redis."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import render_diff
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.state import Access
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.sysctl_plan import (
    HEADER,
    BootFiles,
    plan,
    wanted_of,
)
from hypothesis import given
from hypothesis import strategies as st

OURS = "/etc/sysctl.d/99-zz-redis.conf"
EARLY = "/etc/sysctl.d/50-early.conf"
LATE = "/etc/sysctl.d/zz.conf"
SOMAXCONN = "net/core/somaxconn"
OVERCOMMIT = "vm/overcommit_memory"


def boot(ours: str = "", early: str = "", late: str = "", unread=()) -> BootFiles:
    return BootFiles(OURS, [(EARLY, early), (OURS, ours), (LATE, late)], unread)


def minimum(live: str, at_least: int = 511, read_only=(), on_read_only="fail", **files: str):
    wanted = wanted_of({}, {"net.core.somaxconn": at_least})
    return plan(boot(**files), {SOMAXCONN: live}, wanted, Access(read_only, on_read_only))


def exact(live: str, value="1", read_only=(), on_read_only="fail", **files: str):
    return plan(
        boot(**files),
        {OVERCOMMIT: live},
        wanted_of({"vm.overcommit_memory": value}, {}),
        Access(read_only, on_read_only),
    )


def test_both_are_set_on_a_fresh_host():
    found = exact("0\n")
    assert found.new_text == f"{HEADER}\nvm.overcommit_memory = 1\n"
    assert found.writes == [(OVERCOMMIT, "1")]
    assert found.values == {
        "vm.overcommit_memory": {"live": {"before": "0", "after": "1"}, "boot": {"before": None, "after": "1"}}
    }
    assert render_diff(found.changes) == {
        "before": "live: vm.overcommit_memory 0\n",
        "after": "file: vm.overcommit_memory 1\nlive: vm.overcommit_memory 1\n",
    }


def test_nothing_to_do():
    found = exact("1\n", ours="vm/overcommit_memory=1")
    assert (found.changes, found.writes, found.new_text) == ([], [], None)


def test_each_layer_alone():
    live_only = exact("0\n", ours="vm.overcommit_memory=1\n")
    assert [change.layer for change in live_only.changes] == ["live"]
    assert live_only.new_text is None
    file_only = exact("1\n")
    assert [change.layer for change in file_only.changes] == ["file"]
    assert file_only.writes == []


def test_values_are_exact_even_where_they_are_less():
    found = exact("2\n", ours="vm.overcommit_memory=2\n")
    assert found.new_text == "vm.overcommit_memory=1\n"
    assert found.writes == [(OVERCOMMIT, "1")]


def test_a_value_stands_in_our_file_whatever_others_say():
    found = exact("1\n", early="vm.overcommit_memory=1\n")
    assert "vm.overcommit_memory = 1\n" in (found.new_text or "")
    assert found.duplicates == [
        {
            "name": "vm.overcommit_memory",
            "file": EARLY,
            "line": 1,
            "value": "1",
            "effect": f"without effect: {OURS} line 2 is read later",
        }
    ]


@pytest.mark.parametrize(
    ("late", "says"), [("\nvm/overcommit_memory = 0\n", "sets it to 0"), ("\n-vm.overcommit_memory\n", "excludes it")]
)
def test_a_later_file_that_overrides_is_named(late, says):
    with pytest.raises(Problem) as caught:
        exact("0\n", late=late)
    assert caught.value.code == "overridden_at_boot"
    assert f"{LATE} line 2" in caught.value.detected
    assert says in caught.value.detected
    assert caught.value.details == {"file": LATE, "line": 2}


def test_a_later_file_that_agrees_is_no_problem():
    found = exact("1\n", ours="vm.overcommit_memory=1\n", late="vm.overcommit_memory = 0x1\n")
    assert not found.changes
    assert {row["file"]: row["effect"] for row in found.duplicates} == {
        OURS: f"without effect: {LATE} line 1 is read later",
        LATE: "decides at boot",
    }


def test_duplicates_in_our_file_and_in_one_that_is_not_read():
    files = boot(
        "vm.overcommit_memory=0\nvm.overcommit_memory=1\n", unread=[("/etc/sysctl.conf", "vm.overcommit_memory=2\n")]
    )
    found = plan(files, {OVERCOMMIT: "1"}, wanted_of({"vm.overcommit_memory": 1}, {}))
    assert not found.changes
    assert [(row["file"], row["line"], row["value"]) for row in found.duplicates] == [
        (OURS, 1, "0"),
        ("/etc/sysctl.conf", 1, "2"),
    ]
    assert found.duplicates[1]["effect"] == "not read at boot"


# minimums


def test_a_higher_live_value_is_kept_and_goes_into_the_file():
    found = minimum("4096\n")
    assert found.writes == []
    assert found.new_text == f"{HEADER}\nnet.core.somaxconn = 4096\n"
    assert found.values["net.core.somaxconn"] == {
        "live": {"before": "4096", "after": "4096"},
        "boot": {"before": None, "after": "4096"},
    }


def test_a_higher_boot_value_is_kept_and_made_live():
    found = minimum("128\n", early="net.core.somaxconn=65535\n")
    assert found.new_text is None
    assert found.writes == [(SOMAXCONN, "65535")]


def test_a_higher_value_that_ours_would_hide_is_raised_to():
    found = minimum("4096\n", ours="net.core.somaxconn=4096\n", early="net.core.somaxconn=65535\n")
    assert found.new_text == "net.core.somaxconn=65535\n"
    assert found.writes == [(SOMAXCONN, "65535")]


def test_a_higher_live_value_wins_over_a_lower_earlier_file():
    found = minimum("4096\n", early="net.core.somaxconn=1024\n")
    assert "net.core.somaxconn = 4096\n" in (found.new_text or "")
    assert found.values["net.core.somaxconn"]["boot"] == {"before": "1024", "after": "4096"}


def test_a_later_file_that_holds_enough_is_left_to_decide():
    found = minimum("4096\n", late="net.core.somaxconn=1024\n")
    assert not found.changes
    assert found.values["net.core.somaxconn"]["boot"] == {"before": "1024", "after": "1024"}


def test_a_later_file_that_holds_too_little_is_named():
    with pytest.raises(Problem, match=r"zz\.conf line 1") as caught:
        minimum("4096\n", late="net.core.somaxconn=128\n")
    assert caught.value.code == "overridden_at_boot"


def test_too_little_everywhere():
    found = minimum("128\n", ours="net.core.somaxconn=128\n")
    assert found.new_text == "net.core.somaxconn=511\n"
    assert found.writes == [(SOMAXCONN, "511")]


def test_a_minimum_for_what_is_no_number():
    with pytest.raises(Problem) as caught:
        minimum("cubic\n")
    assert caught.value.code == "not_a_number"


@given(
    st.integers(1, 70000),
    *[st.one_of(st.just(""), st.integers(1, 70000).map("net.core.somaxconn = {}\n".format))] * 2,
    st.integers(1, 70000),
)
def test_minimums_never_lower_anything_and_settle_at_once(live, ours, early, at_least):
    found = minimum(f"{live}\n", at_least, ours=ours, early=early)
    value = found.values["net.core.somaxconn"]
    assert int(value["live"]["after"]) >= max(live, at_least)
    assert int(value["boot"]["after"]) >= max(live, at_least, int(value["boot"]["before"] or 0))
    assert value["live"]["after"] == value["boot"]["after"]
    again = minimum(
        value["live"]["after"], at_least, ours=found.new_text if found.new_text is not None else ours, early=early
    )
    assert not again.changes


# read-only /proc/sys, and what no kernel can mean


def test_read_only():
    with pytest.raises(Problem) as caught:
        exact("0\n", read_only=[OVERCOMMIT])
    assert caught.value.code == "live_read_only"
    assert "on the container host run: sysctl -w vm.overcommit_memory=1" in caught.value.do
    found = exact("0\n", read_only=[OVERCOMMIT], on_read_only="warn")
    assert [change.layer for change in found.changes] == ["file"]
    assert found.values["vm.overcommit_memory"]["live"] == {"before": "0", "after": "0"}
    assert "container host" in found.warnings[0]


def test_a_user_that_is_not_root():
    with pytest.raises(Problem) as caught:
        plan(
            boot(),
            {OVERCOMMIT: "0"},
            wanted_of({"vm.overcommit_memory": 1}, {}),
            Access([OVERCOMMIT], "warn", root=False),
        )
    assert (caught.value.code, caught.value.do) == ("not_root", "run with become: true")


def test_read_only_does_not_matter_where_the_value_is_right():
    assert not exact("1\n", read_only=[OVERCOMMIT], ours="vm.overcommit_memory=1\n").warnings
    found = minimum("4096\n", read_only=[SOMAXCONN], early="net.core.somaxconn=65535\n")  # enough, if not as much
    assert (found.changes, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("values", "minimums", "code"),
    [
        ({"vm.*": 1}, {}, "invalid_key"),
        ({"../../etc/passwd": 1}, {}, "invalid_key"),
        ({"vm.overcommit_memory": True}, {}, "invalid_value"),
        ({"vm.overcommit_memory": None}, {}, "invalid_value"),
        ({"vm.overcommit_memory": ""}, {}, "invalid_value"),
        ({"vm.overcommit_memory": "1\nvm.panic_on_oom = 1"}, {}, "invalid_value"),
        ({"vm.overcommit_memory": [1]}, {}, "invalid_value"),
        ({}, {"net.core.somaxconn": "many"}, "invalid_value"),
        ({}, {"net.core.somaxconn": 1.5}, "invalid_value"),
        ({"net.core.somaxconn": 1}, {"net/core/somaxconn": 2}, "conflicting_options"),
    ],
)
def test_refused_options(values, minimums, code):
    with pytest.raises(Problem) as caught:
        wanted_of(values, minimums)
    assert caught.value.code == code
    assert caught.value.do
