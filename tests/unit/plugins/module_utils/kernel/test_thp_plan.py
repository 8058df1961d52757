# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions of thp, and the tmpfiles.d editor below it."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import render_diff
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.state import Access
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.thp_plan import (
    BASE,
    HEADER,
    command_line_value,
    plan,
    tuned_value,
    tuned_warning,
    wanted_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.tmpfiles_conf import TmpfilesConf, effective
from hypothesis import given
from hypothesis import strategies as st

OURS = "/etc/tmpfiles.d/redis-thp.conf"
ENABLED = f"{BASE}/enabled"
LIVE = {
    "enabled": "always [madvise] never\n",
    "defrag": "always defer defer+madvise [madvise] never\n",
    "khugepaged/defrag": "1\n",
}
RIGHT = {
    "enabled": "always madvise [never]\n",
    "defrag": "always defer defer+madvise madvise [never]\n",
    "khugepaged/defrag": "0\n",
}
WANTED = wanted_of("never", "never", False)
FILE = (
    f"{HEADER}\nw {BASE}/enabled - - - - never\nw {BASE}/defrag - - - - never\nw {BASE}/khugepaged/defrag - - - - 0\n"
)

LINES = st.one_of(
    st.text(alphabet=st.characters(exclude_characters="\n"), max_size=20),
    st.sampled_from(
        [
            f"w {ENABLED} - - - - always",
            f"w! {ENABLED}\t0644 root root -   madvise  ",
            f"w+ {ENABLED} - - - - always",
            f'w "{ENABLED}" - - - - al\\x77ays',
            f"# w {ENABLED} - - - - always",
            f"w {ENABLED}",
            f"w {BASE}/* - - - - always",
            "d /run/redis 0755 redis redis -",
        ]
    ),
)
TEXTS = st.lists(LINES).map("\n".join)


@given(st.one_of(TEXTS, st.text()))
def test_reading_and_writing_is_byte_identical(text):
    assert TmpfilesConf(text).render() == text


@given(TEXTS)
def test_an_edit_changes_one_line_and_then_holds(text):
    conf = TmpfilesConf(text)
    had = conf.of(ENABLED)
    others = [one for one in conf.writes() if one.path != ENABLED]
    conf.set(ENABLED, "never")
    edited = conf.render()
    again = TmpfilesConf(edited)
    assert (
        effective([TmpfilesConf("\n".join(line for line in edited.split("\n") if "*" not in line))], ENABLED).value
        == "never"
    )
    assert [one for one in again.writes() if one.path != ENABLED] == others
    again.set(ENABLED, "never")
    assert again.render() == edited
    if had:
        before, after = text.split("\n"), edited.split("\n")
        assert len(before) == len(after)
        assert sum(one != other for one, other in zip(before, after)) <= 1
    else:
        assert edited.startswith(text)


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([f"w {ENABLED} - - - - never", f"w {ENABLED} - - - - always"], "never"),
        ([f"w {ENABLED} - - - - never", f"w+ {ENABLED} - - - - always"], "never"),
        ([f"w+ {ENABLED} - - - - never", f"w {ENABLED} - - - - always"], "never"),
        ([f"w+ {ENABLED} - - - - never", f"w+ {ENABLED} - - - - always"], "always"),
        ([f"w {ENABLED} - - - - never", "w /sys/kernel/mm/*/enabled - - - - always"], "always"),
        (["w /sys/kernel/mm/*/enabled - - - - always", f"w {ENABLED} - - - - never"], "never"),
        ([f"w! {ENABLED} - - - - never", f"w {ENABLED} - - - - always"], "never"),
        ([f"w- {ENABLED} 0644 root root - never", f"w {ENABLED}/ - - - - always"], "never"),
        ([f'w "{ENABLED}" - - - - ne\\x76er  '], "never"),
        ([f'w {ENABLED} - - - - "never"'], '"never"'),
        ([f"w {ENABLED} - - - - never # x"], "never # x"),
        ([f"w~ {ENABLED} - - - - bmV2ZXI="], "never"),
        ([f"w {ENABLED}", f"w {ENABLED} - - - - always"], "always"),
        ([f"z {ENABLED} 0644 root root", f"w {ENABLED} - - - - never"], "never"),
        (["", "# nothing"], None),
    ],
)
def test_what_stands_after_boot(lines, value):
    line = effective([TmpfilesConf(line + "\n", str(number)) for number, line in enumerate(lines)], ENABLED)
    assert (line.value if line else None) == value


def test_a_base64_argument_stays_one():
    conf = TmpfilesConf(f"w~ {ENABLED} - - - - YWx3YXlz\n")
    conf.set(ENABLED, "never")
    assert conf.render() == f"w~ {ENABLED} - - - - bmV2ZXI=\n"


def files(ours: str = "", early: str = "", late: str = ""):
    return [("/etc/tmpfiles.d/a.conf", early), (OURS, ours), ("/usr/lib/tmpfiles.d/z.conf", late)]


def test_a_fresh_host():
    found = plan(OURS, files(), LIVE, WANTED)
    assert found.new_text == FILE
    assert found.writes == [
        (f"{BASE}/enabled", "madvise", "never"),
        (f"{BASE}/defrag", "madvise", "never"),
        (f"{BASE}/khugepaged/defrag", "1", "0"),
    ]
    assert found.values["enabled"] == {
        "live": {"before": "madvise", "after": "never"},
        "boot": {"before": None, "after": "never"},
    }
    assert render_diff(found.changes)["after"].splitlines()[0] == "file: enabled never"
    assert not plan(OURS, files(FILE), RIGHT, WANTED).changes


def test_each_layer_alone():
    assert {change.layer for change in plan(OURS, files(FILE), LIVE, WANTED).changes} == {"live"}
    file_only = plan(OURS, files(FILE.replace("never", "always", 1)), RIGHT, WANTED)
    assert [(change.layer, change.before, change.after) for change in file_only.changes] == [
        ("file", "always", "never")
    ]
    assert file_only.new_text == FILE


def test_an_earlier_line_for_the_path_wins_and_is_named():
    with pytest.raises(Problem, match=r"a\.conf line 2 writes always") as caught:
        plan(OURS, files(FILE, early=f"\nw {ENABLED} - - - - always\n"), LIVE, WANTED)
    assert caught.value.code == "overridden_at_boot"
    assert "sorts before it" in caught.value.do


def test_a_later_pattern_wins_and_is_named():
    with pytest.raises(Problem, match=r"z\.conf line 1 writes always") as caught:
        plan(OURS, files(FILE, late=f"w {BASE}/enable? - - - - always\n"), LIVE, WANTED)
    assert "sorts after it" in caught.value.do


def test_a_pattern_in_our_own_file_is_named():
    with pytest.raises(Problem, match=r"redis-thp\.conf line 5") as caught:
        plan(OURS, files(FILE + f"w {BASE}/enable? - - - - always\n"), LIVE, WANTED)
    assert "boot_file" not in caught.value.do


def test_lines_without_effect_are_duplicates():
    found = plan(
        OURS, files(FILE, early=f"w {ENABLED} - - - - never\n", late=f"w {ENABLED} - - - - always\n"), RIGHT, WANTED
    )
    assert not found.changes
    assert [(row["file"], row["value"]) for row in found.duplicates] == [
        (OURS, "never"),
        ("/usr/lib/tmpfiles.d/z.conf", "always"),
    ]


def test_read_only():
    with pytest.raises(Problem) as caught:
        plan(OURS, files(), LIVE, WANTED, Access(["enabled"]))
    assert caught.value.code == "live_read_only"
    assert f"on the container host run: echo never > {ENABLED}" in caught.value.do
    found = plan(OURS, files(), LIVE, WANTED, Access(list(WANTED), "warn"))
    assert (found.writes, len(found.warnings), found.new_text) == ([], 3, FILE)
    assert not plan(OURS, files(FILE), RIGHT, WANTED, Access(list(WANTED))).warnings


def test_a_user_that_is_not_root():
    with pytest.raises(Problem) as caught:
        plan(OURS, files(), LIVE, WANTED, Access(["enabled"], "warn", root=False))
    assert (caught.value.code, caught.value.do) == ("not_root", "run with become: true")


def test_a_choice_that_the_kernel_does_not_offer():
    with pytest.raises(Problem) as caught:
        plan(OURS, files(), {**LIVE, "defrag": "always [madvise] never\n"}, wanted_of("never", "defer", False))
    assert caught.value.code == "unknown_choice"


def test_command_line():
    assert command_line_value("ro quiet transparent_hugepage=always x=transparent_hugepage=1\n") == "always"
    assert command_line_value("ro quiet\n") is None


TUNED = {
    "base": "[main]\nsummary=x\n[vm]\ntransparent_hugepages=always # why\n",
    "db": "[main]\ninclude=base\n[sysctl]\nvm.swappiness=1\n",
    "own": "[main]\ninclude = db\n[vm]\n# transparent_hugepages=always\ntransparent_hugepages = never\n",
    "loop": "[main]\ninclude=loop\n",
}


@pytest.mark.parametrize(
    ("active", "found"),
    [("base", ("always", "base")), ("db", ("always", "base")), ("own", ("never", "own")), ("loop", None), ("gone", None),
     ("", None), ("base own", ("never", "own")), ("own db", ("always", "base"))],
)  # fmt: skip
def test_tuned(active, found):
    assert tuned_value(active, TUNED.get) == found


def test_what_is_said_of_tuned():
    assert tuned_warning(("never", "own"), "own", "never") is None
    assert tuned_warning(None, "own", "never") is None
    predicted = tuned_warning(("always", "base"), "db", "never")
    assert "by way of the profile base" in predicted
    assert "tuned-adm profile redis" in predicted
