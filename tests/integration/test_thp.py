# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""thp on a tree of its own, against systemd-tmpfiles itself, and on the real kernel, which is left as found."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.apply import drop_ins
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.thp_plan import BASE
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.tmpfiles_conf import TmpfilesConf, effective
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.modules import thp
from hypothesis import given, settings
from hypothesis import strategies as st

OURS = "etc/tmpfiles.d/redis-thp.conf"
NAMES = ("enabled", "defrag", "khugepaged/defrag")
LINES = [f"w {BASE}/enabled - - - - never", f"w {BASE}/defrag - - - - never", f"w {BASE}/khugepaged/defrag - - - - 0"]


class Tree:
    """A root directory with /etc and /sys as a fresh host has them."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        for directory in ("etc/tmpfiles.d", "usr/lib/tmpfiles.d"):
            (root / directory).mkdir(parents=True)
        self.write(f"{BASE}/enabled", "always [madvise] never\n")
        self.write(f"{BASE}/defrag", "always defer defer+madvise [madvise] never\n")
        self.write(f"{BASE}/khugepaged/defrag", "1\n")

    def path(self, name: str) -> pathlib.Path:
        return self.root / name.lstrip("/")

    def write(self, name: str, text: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text)

    def snapshot(self) -> dict[str, t.Any]:
        """Every name in the tree, with what it holds."""
        names = sorted(self.root.rglob("*"))
        return {str(one): os.readlink(one) if one.is_symlink() else one.is_file() and one.read_bytes() for one in names}

    def cat(self, name: str) -> str:
        """An independent reader."""
        return subprocess.run(["cat", self.path(name)], check=True, capture_output=True).stdout.decode()


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Tree:
    monkeypatch.setattr(thp, "Host", lambda: Host(str(tmp_path)))
    return Tree(tmp_path)


@pytest.fixture
def call(call_module) -> t.Callable[..., t.Any]:
    return lambda check=False, **options: call_module("thp", check, **options)


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test mounts file systems or writes kernel settings: run it as root")


def refused(tree: Tree, call: t.Callable[..., t.Any], code: str, **options: t.Any) -> str:
    """The message of a run, with and without check mode, that fails and changes nothing."""
    before = tree.snapshot()
    messages = set()
    for check in (True, False):
        result = call(check=check, **options)
        assert (result.failed, result.code) == (True, code)
        messages.add(result.msg)
        assert tree.snapshot() == before
    assert len(messages) == 1
    return messages.pop()


def test_check_run_again_and_read(tree, call):
    before = tree.snapshot()
    checked = call(check=True)
    assert tree.snapshot() == before
    done = call()
    assert (checked.changed, checked.diff, checked.actions, checked.values) == (
        True,
        done.diff,
        done.actions,
        done.values,
    )
    assert done.supported is True
    assert [tree.cat(f"{BASE}/{name}") for name in NAMES] == ["never\n", "never\n", "0\n"]
    assert tree.cat(OURS).splitlines()[1:] == LINES
    after = tree.snapshot()
    again = call()
    assert (again.changed, again.diff, again.actions) == (False, {"before": "", "after": ""}, [])
    assert tree.snapshot() == after


def test_systemd_tmpfiles_makes_the_same_of_the_file(tree, call):
    call()
    for name in NAMES:
        tree.write(f"{BASE}/{name}", "")
    subprocess.run(["systemd-tmpfiles", f"--root={tree.root}", "--create", "--boot"], check=True)
    assert [tree.cat(f"{BASE}/{name}") for name in NAMES] == ["never", "never", "0"]


def test_other_choices(tree, call):
    assert call(enabled="madvise", defrag="defer+madvise", khugepaged_defrag=True).changed
    assert [tree.cat(f"{BASE}/{name}") for name in NAMES[1:]] == ["defer+madvise\n", "1\n"]
    assert "[madvise]" in tree.cat(f"{BASE}/enabled")  # was right, was not written
    assert f"w {BASE}/enabled - - - - madvise\n" in tree.cat(OURS)


def test_drift_of_the_live_value_alone(tree, call):
    call()
    tree.write(f"{BASE}/enabled", "[always] madvise never\n")
    assert call().actions == [f"write never to {BASE}/enabled"]


def test_other_lines_are_kept(tree, call):
    tree.write(OURS, f"# mine\nd /run/redis 0755 redis redis -\nw!  {BASE}/enabled\t- - - -  always  \n# end")
    assert call().changed
    expected = f"# mine\nd /run/redis 0755 redis redis -\nw!  {BASE}/enabled\t- - - -  never  \n# end\n"
    assert tree.cat(OURS) == expected + "\n".join(LINES[1:]) + "\n"


def test_a_kernel_without_huge_pages(tree, call):
    shutil.rmtree(tree.path(BASE))
    before = tree.snapshot()
    result = call()
    assert (result.changed, result.supported, result.values) == (False, False, {})
    assert tree.snapshot() == before


def test_a_file_that_wins_is_named(tree, call):
    tree.write("usr/lib/tmpfiles.d/hugepages.conf", f"# x\nw {BASE}/enabled - - - - always\n")
    predicted = refused(tree, call, "overridden_at_boot")
    assert "/usr/lib/tmpfiles.d/hugepages.conf line 2 writes always" in predicted
    assert call(boot_file="/etc/tmpfiles.d/a-redis.conf").changed  # the advice holds


def test_a_masked_file_does_not_win(tree, call):
    tree.write("usr/lib/tmpfiles.d/hugepages.conf", f"w {BASE}/enabled - - - - always\n")
    (tree.root / "etc/tmpfiles.d/hugepages.conf").symlink_to("/dev/null")
    assert call().changed


def test_a_line_without_effect_is_reported(tree, call):
    tree.write("usr/lib/tmpfiles.d/z.conf", f"w {BASE}/enabled - - - - always\n")
    result = call()
    assert result.changed
    row = {"path": f"{BASE}/enabled", "file": "/usr/lib/tmpfiles.d/z.conf", "line": 1, "value": "always"}
    assert result.duplicates == [row]


@pytest.mark.parametrize("name", ["/etc/redis-thp.conf", "/etc/tmpfiles.d/redis-thp", "/run/tmpfiles.d/redis-thp.conf"])
def test_a_file_that_is_never_read(tree, call, name):
    refused(tree, call, "not_read_at_boot", boot_file=name)


def test_our_file_is_masked(tree, call):
    (tree.root / OURS).symlink_to("/dev/null")
    refused(tree, call, "boot_file_masked")


def test_a_choice_that_this_kernel_does_not_have(tree, call):
    tree.write(f"{BASE}/defrag", "always [madvise] never\n")
    assert "offers always, madvise, never" in refused(tree, call, "unknown_choice", defrag="defer")


def test_command_line_and_tuned(tree, call):
    tree.write("proc/cmdline", "ro transparent_hugepage=always quiet\n")
    tree.write("etc/tuned/active_profile", "throughput-performance\n")
    tree.write("usr/lib/tuned/throughput-performance/tuned.conf", "[vm]\ntransparent_hugepages=always\n")
    result = call()
    assert (result.kernel_command_line, result.tuned) == ("always", "always")
    assert "tuned-adm profile redis" in result.warned[0]
    tree.write("etc/tuned/profiles/throughput-performance/tuned.conf", "[vm]\ntransparent_hugepages=never\n")
    result = call()
    assert (result.changed, result.tuned, result.warned) == (False, "never", [])


def test_a_value_that_the_kernel_refuses_leaves_all_as_it_was(tree, call, monkeypatch):
    tree.write(f"{BASE}/enabled", "madvise\n")  # as it will be put back
    real = os.write

    def kernel(descriptor, data):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("hugepage/defrag") and data == b"never\n":
            raise OSError(22, "Invalid argument")
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", kernel)
        result = call()
    assert (result.failed, result.code) == (True, "live_refused")
    assert tree.cat(f"{BASE}/enabled") == "madvise\n"
    assert os.listdir(tree.root / "etc/tmpfiles.d") == []


@pytest.mark.needs_root
def test_read_only_sys(tree, call, as_root):
    target = str(tree.path("/sys"))
    subprocess.run(["mount", "--bind", target, target], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
        predicted = refused(tree, call, "live_read_only")
        assert f"on the container host run: echo never > {BASE}/enabled" in predicted
        checked, done = call(check=True, on_read_only="warn"), call(on_read_only="warn")
        assert checked.diff == done.diff
        assert len(done.warned) == 3
        assert done.values["enabled"] == {
            "live": {"before": "madvise", "after": "madvise"},
            "boot": {"before": None, "after": "never"},
        }
        assert tree.cat(OURS).splitlines()[1:] == LINES
        assert not call(on_read_only="warn").changed
    finally:
        subprocess.run(["umount", target], check=True)


# against systemd-tmpfiles itself

SETTINGS = st.builds(
    "{} {} {} {}".format,
    st.sampled_from(["w", "w", "w!", "w-", "w=", "f", "#"]),
    st.sampled_from([f"{BASE}/enabled", f"{BASE}/defrag", f'"{BASE}/enabled"', f"{BASE}/enabled/", "/sys//kernel/mm/transparent_hugepage/defrag",
                     f"{BASE}/*", f"{BASE}/e*d", "/sys/kernel/mm/*/defrag", "/sys/*/enabled"]),
    st.sampled_from(["- - - -", "0644 root root -", "-\t- -   -"]),
    st.sampled_from(["1", "2 ", "3", "\\x34", "", "\\065"]),
)  # fmt: skip
FILES = st.dictionaries(
    st.tuples(st.sampled_from(["etc", "run", "usr/local/lib", "usr/lib"]), st.sampled_from(["a.conf", "b.conf", "Z.conf", "no", "redis-thp.conf"])),
    st.one_of(st.none(), st.lists(SETTINGS, max_size=4)),
    max_size=5,
)  # fmt: skip


@pytest.mark.needs_root
@settings(max_examples=60, deadline=None)
@given(FILES)
def test_the_value_at_boot_is_what_systemd_tmpfiles_writes(files):
    if os.geteuid() != 0:
        pytest.fail("systemd-tmpfiles sets owners: run this test as root")
    with tempfile.TemporaryDirectory() as name:
        tree = Tree(pathlib.Path(name))
        for one in NAMES[:2]:
            tree.write(f"{BASE}/{one}", "d")
        for (folder, file), lines in files.items():
            tree.write(f"{folder}/tmpfiles.d/{file}", "\n".join(lines or []))
            if lines is None:
                tree.path(f"{folder}/tmpfiles.d/{file}").unlink()
                tree.path(f"{folder}/tmpfiles.d/{file}").symlink_to("/dev/null")
        confs = [TmpfilesConf(one.text, one.path) for one in drop_ins(Host(name), "tmpfiles.d")]
        done = subprocess.run(
            ["systemd-tmpfiles", f"--root={name}", "--create", "--boot"], check=False, capture_output=True
        )
        for one in NAMES[:2]:
            line = effective(confs, f"{BASE}/{one}")
            assert tree.cat(f"{BASE}/{one}") == (line.value if line else "d"), (one, done.stderr)


# the real kernel


class MixedHost(Host):
    """The real /proc and /sys, and an /etc of its own."""

    def path(self, name: str) -> str:
        return name if name.startswith(("/proc/", "/sys/")) else super().path(name)


def real(name: str) -> str:
    text = subprocess.run(["cat", f"{BASE}/{name}"], check=True, capture_output=True, text=True).stdout.strip()
    return text.split("[")[1].split("]")[0] if "[" in text else text


@pytest.mark.needs_root
def test_the_real_kernel(tmp_path, call, monkeypatch, as_root):
    assert os.path.isdir(BASE), "this kernel has no transparent huge pages: run this test on one that has"
    (tmp_path / "etc/tmpfiles.d").mkdir(parents=True)
    monkeypatch.setattr(thp, "Host", lambda: MixedHost(str(tmp_path)))
    found = {name: real(name) for name in NAMES}
    try:
        for name, value in zip(NAMES, ("madvise", "madvise", "1")):
            pathlib.Path(f"{BASE}/{name}").write_text(value)
        checked = call(check=True)
        assert [real(name) for name in NAMES] == ["madvise", "madvise", "1"]
        done = call()
        assert (checked.diff, checked.actions) == (done.diff, done.actions)
        assert [real(name) for name in NAMES] == ["never", "never", "0"]
        assert not call().changed
    finally:
        for name, value in found.items():
            pathlib.Path(f"{BASE}/{name}").write_text(value)
    assert {name: real(name) for name in NAMES} == found
