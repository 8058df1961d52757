# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sysctl.d editor: what systemd-sysctl reads, and edits that lose nothing."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.sysctl_conf import (
    SysctlConf,
    dotted,
    effective,
    is_valid_key,
    normal_value,
    proc_path,
    same_value,
)
from hypothesis import given
from hypothesis import strategies as st

OVERCOMMIT = "vm/overcommit_memory"

LINES = st.one_of(
    st.text(alphabet=st.characters(exclude_characters="\n\r\0"), max_size=20),
    st.sampled_from(
        [
            "vm.overcommit_memory=0",
            "  vm/overcommit_memory =  2  ",
            "-vm.overcommit_memory = 1",
            "-vm.overcommit_memory",
            "; vm.overcommit_memory = 1",
            "# vm.overcommit_memory = 1",
            "vm.*=3",
            "vm.swappiness\t=\t10",
            "net.ipv4.conf.*.forwarding = 1",
            "= 1",
            "nothing",
        ]
    ),
)
TEXTS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\n\n"]))).map(
    lambda pairs: "".join(body + end for body, end in pairs)
)
ANY_TEXT = st.one_of(st.text(), TEXTS, TEXTS.map(lambda text: text[:-1]))


def values(text: str, path: str = OVERCOMMIT) -> list[str | None]:
    return [one.value for one in SysctlConf(text).of(path)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vm.overcommit_memory=1", ["1"]),
        ("vm.overcommit_memory = 1", ["1"]),
        ("\t vm/overcommit_memory\t=\t1 \t", ["1"]),
        ("/vm/overcommit_memory=1", ["1"]),
        ("-vm.overcommit_memory=1", ["1"]),
        ("- vm.overcommit_memory=1", ["1"]),
        ("-vm.overcommit_memory", [None]),
        ("vm.overcommit_memory", []),
        ("# vm.overcommit_memory=1", []),
        (";vm.overcommit_memory=1", []),
        ("  # vm.overcommit_memory=1", []),
        ("vm.overcommit_memory=1 # no comment here", ["1 # no comment here"]),
        ("vm.overcommit_memory=a=b", ["a=b"]),
        ("vm.overcommit_memory=", [""]),
        ("vm.overcommit_memory_x=1", []),
    ],
)
def test_lines_are_read_as_systemd_sysctl_reads_them(line, expected):
    assert values(line) == values(line + "\n") == expected


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("vm.overcommit_memory", "vm/overcommit_memory"),
        ("vm/overcommit_memory", "vm/overcommit_memory"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
    ],
)
def test_separators(key, path):
    assert proc_path(key) == path
    assert proc_path(dotted(path)) == path


@pytest.mark.parametrize("key", ["", "vm", "vm.*", "../../etc/passwd", "vm/../../etc", "vm.a b", "vm.a=b", "vm.a\n"])
def test_keys_that_name_no_single_setting(key):
    assert not is_valid_key(key)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", " 1\n", True),
        ("32768\t60999", "32768 60999", True),
        ("0x10", "16", True),
        ("010", "8", True),
        ("-1", "-01", True),
        ("1", "2", False),
        ("cubic", "reno", False),
        ("1 # x", "1", False),
    ],
)
def test_normal_values(one, other, same):
    assert same_value(one, other) is same
    assert normal_value(normal_value(one)) == normal_value(one)


def decides(*texts: str, path: str = OVERCOMMIT):
    line = effective([SysctlConf(text, str(number)) for number, text in enumerate(texts)], path)
    return (line.file, line.line, line.value) if line else None


def test_last_assignment_wins():
    assert decides("vm.overcommit_memory=0\nvm.overcommit_memory=1\n") == ("0", 2, "1")
    assert decides("vm.overcommit_memory=1\n", "vm/overcommit_memory=2\n") == ("1", 1, "2")
    assert decides("", "# nothing\n") is None


def test_exclusion_forgets_what_came_before():
    assert decides("vm.overcommit_memory=1\n", "-vm.overcommit_memory\n") == ("1", 1, None)
    assert decides("-vm.overcommit_memory\n", "vm.overcommit_memory=1\n") == ("1", 1, "1")


def test_globs_never_touch_a_key_set_by_name():
    path = "net/ipv4/conf/eth0/rp_filter"
    assert decides("net.ipv4.conf.*.rp_filter=2\n", path=path) == ("0", 1, "2")
    assert decides("net.ipv4.conf.eth0.rp_filter=1\n", "net.ipv4.conf.*.rp_filter=2\n", path=path) == ("0", 1, "1")
    assert decides("-net.ipv4.conf.eth0.rp_filter\nnet.ipv4.conf.*.rp_filter=2\n", path=path) == ("0", 1, None)
    assert decides("net.ipv4.*.rp_filter=2\n", path=path) is None  # a star does not cross a separator
    two = ("net.ipv4.conf.*.rp_filter=2\nnet.ipv4.conf.eth?.rp_filter=1\n", "net.ipv4.conf.*.rp_filter=2\n")
    assert decides(*two, path=path) == ("0", 2, "1")  # an equal line again does not move a glob to the end
    assert decides(*two, "net.ipv4.conf.*.rp_filter=0\n", path=path) == ("2", 1, "0")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "vm.overcommit_memory = 1\n"),
        ("# mine", "# mine\nvm.overcommit_memory = 1\n"),
        ("a.b=1\r\n", "a.b=1\r\nvm.overcommit_memory = 1\n"),
        (" vm/overcommit_memory =  0\t\na.b=1", " vm/overcommit_memory =  1\t\na.b=1"),
        ("vm.overcommit_memory=0\r\n", "vm.overcommit_memory=1\r\n"),
        ("-vm.overcommit_memory=0\n", "-vm.overcommit_memory=1\n"),
        ("-vm.overcommit_memory\n", "vm.overcommit_memory = 1\n"),
        ("vm.overcommit_memory=\n", "vm.overcommit_memory=1\n"),
        ("vm.overcommit_memory=1\nvm.overcommit_memory=0\n", "vm.overcommit_memory=1\nvm.overcommit_memory=1\n"),
        ("vm.overcommit_memory=0\nvm.overcommit_memory=0x1\n", "vm.overcommit_memory=0\nvm.overcommit_memory=0x1\n"),
    ],
)
def test_edits(before, after):
    conf = SysctlConf(before)
    conf.set(OVERCOMMIT, "1")
    assert conf.render() == after


@given(ANY_TEXT)
def test_reading_and_writing_is_byte_identical(text):
    assert SysctlConf(text).render() == text


@given(ANY_TEXT, st.sampled_from(["0", "1", "2", "10240 65000"]))
def test_an_edit_changes_one_line_and_then_holds(text, value):
    conf = SysctlConf(text)
    others = [one for one in conf.assignments() if one.path != OVERCOMMIT]
    had = conf.of(OVERCOMMIT)
    conf.set(OVERCOMMIT, value)
    edited = conf.render()
    again = SysctlConf(edited)
    assert same_value(again.of(OVERCOMMIT)[-1].value, value)
    assert [one for one in again.assignments() if one.path != OVERCOMMIT] == others
    again.set(OVERCOMMIT, value)
    assert again.render() == edited
    if had:
        before, after = text.splitlines(True), edited.splitlines(True)
        assert len(before) == len(after)
        assert sum(one != other for one, other in zip(before, after)) <= 1
    else:
        assert edited.startswith(text)
