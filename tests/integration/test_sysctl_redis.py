# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""sysctl_redis on a tree of its own, against systemd-sysctl itself, and on the real kernel, which is left as found."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
import typing as t

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.apply import drop_ins
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.sysctl_conf import SysctlConf, effective
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.modules import sysctl_redis
from hypothesis import given, settings
from hypothesis import strategies as st

OURS = "etc/sysctl.d/99-zz-redis.conf"
SYSTEMD_SYSCTL = "/lib/systemd/systemd-sysctl"


class Tree:
    """A root directory with /etc and /proc/sys as a fresh host has them."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.write("proc/sys/vm/overcommit_memory", "0\n")
        self.write("proc/sys/net/core/somaxconn", "4096\n")
        for directory in ("etc/sysctl.d", "usr/lib/sysctl.d"):
            (root / directory).mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(text.encode())

    def snapshot(self) -> dict[str, t.Any]:
        """Every name in the tree, with what it holds."""
        names = sorted(self.root.rglob("*"))
        return {str(one): os.readlink(one) if one.is_symlink() else one.is_file() and one.read_bytes() for one in names}

    def cat(self, name: str) -> str:
        """An independent reader."""
        return subprocess.run(["cat", self.root / name], check=True, capture_output=True).stdout.decode()


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Tree:
    monkeypatch.setattr(sysctl_redis, "Host", lambda: Host(str(tmp_path)))
    return Tree(tmp_path)


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test mounts file systems or writes kernel settings: run it as root")


@pytest.fixture
def call(call_module) -> t.Callable[..., t.Any]:
    return lambda check=False, **options: call_module("sysctl_redis", check, **options)


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
    assert done.actions == [
        "set vm.overcommit_memory = 1 in /etc/sysctl.d/99-zz-redis.conf",
        "set net.core.somaxconn = 4096 in /etc/sysctl.d/99-zz-redis.conf",
        "write 1 to /proc/sys/vm/overcommit_memory",
    ]
    assert done.values["vm.overcommit_memory"] == {
        "live": {"before": "0", "after": "1"},
        "boot": {"before": None, "after": "1"},
    }
    assert tree.cat(OURS).splitlines()[1:] == ["vm.overcommit_memory = 1", "net.core.somaxconn = 4096"]
    assert tree.cat("proc/sys/vm/overcommit_memory") == "1\n"
    assert oct((tree.root / OURS).stat().st_mode)[-3:] == "644"
    after = tree.snapshot()
    again = call()
    assert (again.changed, again.diff, again.actions) == (False, {"before": "", "after": ""}, [])
    assert tree.snapshot() == after


def test_the_directory_is_made_where_it_is_missing(tree, call):
    shutil.rmtree(tree.root / "etc/sysctl.d")
    assert call().changed
    assert "vm.overcommit_memory = 1" in tree.cat(OURS)


def test_other_lines_and_mode_are_kept(tree, call):
    tree.write(OURS, "# mine\r\n\n vm/overcommit_memory =  2 \nkernel.panic = 10")
    (tree.root / OURS).chmod(0o640)
    assert call().changed
    assert tree.cat(OURS) == "# mine\r\n\n vm/overcommit_memory =  1 \nkernel.panic = 10\nnet.core.somaxconn = 4096\n"
    assert oct((tree.root / OURS).stat().st_mode)[-3:] == "640"


def test_drift_of_the_live_value_alone(tree, call):
    call()
    file = tree.cat(OURS)
    tree.write("proc/sys/vm/overcommit_memory", "2\n")
    assert call().actions == ["write 1 to /proc/sys/vm/overcommit_memory"]
    assert (tree.cat("proc/sys/vm/overcommit_memory"), tree.cat(OURS)) == ("1\n", file)


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


def test_a_later_file_that_overrides(tree, call):
    tree.write("usr/lib/sysctl.d/zzz.conf", "# x\nvm.overcommit_memory = 2\n")
    predicted = refused(tree, call, "overridden_at_boot")
    assert "/usr/lib/sysctl.d/zzz.conf line 2" in predicted
    assert call(sysctl_file="/etc/sysctl.d/zzzz.conf").changed  # the advice holds
    assert not call(sysctl_file="/etc/sysctl.d/zzzz.conf").changed


def test_a_masked_override_is_none(tree, call):
    tree.write("usr/lib/sysctl.d/zzz.conf", "vm.overcommit_memory = 2\n")
    (tree.root / "etc/sysctl.d/zzz.conf").symlink_to("/dev/null")
    tree.write("usr/lib/sysctl.d/zzzz.conf", "vm.overcommit_memory = 2\n")
    tree.write("etc/sysctl.d/zzzz.conf", "")
    assert call().changed


def test_sysctl_conf_where_it_is_read(tree, call):
    tree.write("etc/sysctl.conf", "# traditional\n#vm.overcommit_memory=0\n")
    predicted = refused(tree, call, "not_read_at_boot", sysctl_file="/etc/sysctl.conf")
    assert "ln -s ../sysctl.conf /etc/sysctl.d/99-sysctl.conf" in predicted
    (tree.root / "etc/sysctl.d/99-sysctl.conf").symlink_to("../sysctl.conf")
    done = call(sysctl_file="/etc/sysctl.conf")
    assert "set vm.overcommit_memory = 1 in /etc/sysctl.conf" in done.actions
    expected = "# traditional\n#vm.overcommit_memory=0\nvm.overcommit_memory = 1\nnet.core.somaxconn = 4096\n"
    assert tree.cat("etc/sysctl.conf") == expected
    assert (tree.root / "etc/sysctl.d/99-sysctl.conf").is_symlink()
    assert not call(sysctl_file="/etc/sysctl.conf").changed


def test_a_line_in_a_file_that_is_not_read_is_named(tree, call):
    tree.write("etc/sysctl.conf", "vm.overcommit_memory=0\n")
    assert call().duplicates == [
        {
            "name": "vm.overcommit_memory",
            "file": "/etc/sysctl.conf",
            "line": 1,
            "value": "0",
            "effect": "not read at boot",
        }
    ]


@pytest.mark.parametrize(
    "name", ["/etc/redis.conf", "/etc/sysctl.d/redis", "/run/sysctl.d/redis.conf", "/etc/sysctl.d/a/b.conf"]
)
def test_a_file_that_is_never_read(tree, call, name):
    refused(tree, call, "not_read_at_boot", sysctl_file=name)


def test_a_file_in_run_is_gone_after_a_boot(tree, call):
    tree.write("run/sysctl.d/redis.conf", "# here today\n")
    refused(tree, call, "not_read_at_boot", sysctl_file="/run/sysctl.d/redis.conf")


def test_a_file_that_would_hide_another(tree, call):
    tree.write("usr/lib/sysctl.d/50-pid-max.conf", "kernel.pid_max=4194304\n")
    predicted = refused(tree, call, "boot_file_hides_another", sysctl_file="/etc/sysctl.d/50-pid-max.conf")
    assert "/usr/lib/sysctl.d/50-pid-max.conf" in predicted


def test_our_file_is_masked(tree, call):
    (tree.root / OURS).symlink_to("/dev/null")
    assert "link to /dev/null" in refused(tree, call, "boot_file_masked")
    assert pathlib.Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"vm.overcommit_memory": "1", "vm.no_such_setting": "1"}, "unknown_key"),
        ({"net.core": "1"}, "unknown_key"),
        ({"vm.*": "1"}, "invalid_key"),
        ({"vm.overcommit_memory": ""}, "invalid_value"),
    ],
)
def test_settings_that_cannot_be(tree, call, values, code):
    refused(tree, call, code, values=values)


def test_a_value_that_the_kernel_refuses_leaves_all_as_it_was(tree, call, monkeypatch):
    """The second live write fails: the first is put back, the file is not there."""
    tree.write("proc/sys/net/core/somaxconn", "128\n")
    real = os.write

    def kernel(descriptor, data):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("somaxconn") and data == b"511\n":
            raise OSError(22, "Invalid argument")
        return real(descriptor, data)

    before = tree.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", kernel)
        result = call()
    assert (result.failed, result.code) == (True, "live_refused")
    assert "Invalid argument" in result.msg
    # the fake file was truncated by the attempt, where the kernel's would not have been; it is put back all the same
    assert tree.snapshot() == before


def test_a_value_that_does_not_stick_is_put_back(tree, call, monkeypatch):
    real = os.write

    def kernel(descriptor, data):
        return real(descriptor, b"2\n" if data == b"1\n" else data)

    before = tree.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", kernel)
        result = call()
    assert (result.failed, result.code) == (True, "live_not_taken")
    assert tree.snapshot() == before


# what only root can arrange


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def mounts(as_root) -> t.Iterator[list[str]]:
    mounted: list[str] = []
    yield mounted
    for one in reversed(mounted):
        subprocess.run(["umount", one], check=True)


@pytest.mark.needs_root
def test_read_only_proc_sys(tree, call, mounts):
    target = str(tree.root / "proc/sys")
    mount("--bind", target, target)
    mounts.append(target)
    mount("-o", "remount,bind,ro", target)
    predicted = refused(tree, call, "live_read_only")
    assert "on the container host run: sysctl -w vm.overcommit_memory=1" in predicted
    checked, done = call(check=True, on_read_only="warn"), call(on_read_only="warn")
    assert checked.diff == done.diff
    assert len(done.warned) == 1
    assert done.values["vm.overcommit_memory"]["live"] == {"before": "0", "after": "0"}
    assert "vm.overcommit_memory = 1\n" in tree.cat(OURS)
    again = call(on_read_only="warn")
    assert (again.changed, len(again.warned)) == (False, 1)


@pytest.mark.needs_root
def test_a_full_disk(tree, call, mounts):
    target = tree.root / "etc/sysctl.d"
    mount("-t", "tmpfs", "-o", "size=8k", "tmpfs", str(target))
    mounts.append(str(target))
    subprocess.run(["dd", "if=/dev/zero", f"of={target}/filler", "bs=4k"], check=False, capture_output=True)
    before = tree.snapshot()
    result = call()
    assert result.failed
    assert "no space is left" in result.msg
    assert tree.snapshot() == before


@pytest.mark.needs_root
def test_a_directory_that_cannot_be_written(tree, call, mounts):
    target = str(tree.root / "etc/sysctl.d")
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", target)
    mounts.append(target)
    before = tree.snapshot()
    result = call()
    assert result.failed
    assert "read-only" in result.msg
    assert tree.snapshot() == before


# against systemd-sysctl itself

KEYS = ("vm/a", "vm/b", "net/ipv4/conf/all/x", "net/ipv4/conf/eth0.1/x")
ORACLE = f"""set -e
root=$1; new=$root/new; mkdir -p $new
mount -t tmpfs tmpfs $new
mkdir -p $new/usr $new/proc $new/dev $new/etc $new/run
mount --bind /usr $new/usr; mount --bind /dev $new/dev; mount --rbind /proc $new/proc
for link in bin lib lib64; do
  if [ -L /$link ]; then cp -P /$link $new/; elif [ -d /$link ]; then mkdir $new/$link; mount --bind /$link $new/$link; fi
done
mount -t tmpfs tmpfs $new/usr/local
mkdir -p $new/usr/local/lib/sysctl.d $root/usr/local/lib/sysctl.d $root/run
mount --bind $root/usr/local/lib/sysctl.d $new/usr/local/lib/sysctl.d
mount --bind $root/usr/lib/sysctl.d $new/usr/lib/sysctl.d
mount --bind $root/etc $new/etc; mount --bind $root/run $new/run
mount --bind $root/proc/sys $new/proc/sys
chroot $new {SYSTEMD_SYSCTL} 2>&1 || true
"""
NAMES = st.sampled_from(
    ["10-a.conf", "50-b.conf", "99-sysctl.conf", "99-zz-redis.conf", "zz.conf", "B.conf", "é.conf", "no", ".x.conf"]
)
FOLDERS = st.sampled_from(["etc", "etc", "run", "usr/local/lib", "usr/lib"])
SETTINGS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", " ", "-", " -", "# ", ";"]),
    st.sampled_from(["vm.a", "vm/a", "vm.b", "/vm/b", "vm.*", "vm/?", "net.ipv4.conf.*.x", "net.ipv4.conf.all.x", "net.ipv4.conf.eth0/1.x",
                     "net/ipv4/conf/eth0.1/x", "net.*.x", "net.ipv4.conf.[ae]*.x", "junk"]),
    st.sampled_from(["=1", " = 2", "=3 ", "\t=\t4", "", " = 5 # x"]),
)  # fmt: skip
FILES = st.dictionaries(st.tuples(FOLDERS, NAMES), st.one_of(st.none(), st.lists(SETTINGS, max_size=5)), max_size=6)


@pytest.mark.needs_root
@settings(max_examples=60, deadline=None)
@given(FILES)
def test_the_value_at_boot_is_what_systemd_sysctl_sets(files):
    if os.geteuid() != 0:
        pytest.fail("this test runs systemd-sysctl in a mount namespace: run it as root")
    assert os.path.exists(SYSTEMD_SYSCTL), "install systemd"
    with tempfile.TemporaryDirectory() as name:
        tree = Tree(pathlib.Path(name))
        for key in KEYS:
            tree.write(f"proc/sys/{key}", "d\n")
        for (folder, file), lines in files.items():
            tree.write(f"{folder}/sysctl.d/{file}", "")
            if lines is None:  # a mask
                (tree.root / folder / "sysctl.d" / file).unlink()
                (tree.root / folder / "sysctl.d" / file).symlink_to("/dev/null")
            else:
                tree.write(f"{folder}/sysctl.d/{file}", "\n".join(lines))
        confs = [SysctlConf(one.text, one.path) for one in drop_ins(Host(name), "sysctl.d")]
        predicted = subprocess.run(
            ["unshare", "-m", "sh", "-c", ORACLE, "sh", name], check=True, capture_output=True, text=True
        )
        for key in KEYS:
            line = effective(confs, key)
            expected = line.value if line and line.value is not None else "d"
            assert tree.cat(f"proc/sys/{key}").splitlines()[0] == expected, (key, predicted.stdout)


# the real kernel


class MixedHost(Host):
    """The real /proc and /sys, and an /etc of its own."""

    def path(self, name: str) -> str:
        return name if name.startswith(("/proc/", "/sys/")) else super().path(name)


def sysctl(name: str) -> str:
    return subprocess.run(["sysctl", "-n", name], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def kernel(tmp_path, monkeypatch, as_root) -> t.Iterator[pathlib.Path]:
    names = ("vm.overcommit_memory", "vm.overcommit_ratio", "net.core.somaxconn")
    found = {name: sysctl(name) for name in names}
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    monkeypatch.setattr(sysctl_redis, "Host", lambda: MixedHost(str(tmp_path)))
    try:
        yield tmp_path
    finally:
        for name, value in found.items():
            if sysctl(name) != value:
                subprocess.run(["sysctl", "-q", "-w", f"{name}={value}"], check=True)


@pytest.mark.needs_root
def test_the_real_kernel(kernel, call):
    subprocess.run(["sysctl", "-q", "-w", "vm.overcommit_memory=0", "net.core.somaxconn=128"], check=True)
    checked = call(check=True)
    assert (sysctl("vm.overcommit_memory"), sysctl("net.core.somaxconn")) == ("0", "128")
    done = call()
    assert (checked.diff, checked.actions) == (done.diff, done.actions)
    assert (sysctl("vm.overcommit_memory"), sysctl("net.core.somaxconn")) == ("1", "511")
    assert not call().changed


@pytest.mark.needs_root
def test_what_the_real_kernel_refuses(kernel, call):
    ratio = sysctl("vm.overcommit_ratio")
    subprocess.run(["sysctl", "-q", "-w", "vm.overcommit_memory=0"], check=True)
    for value, setting in (("lots", "vm.overcommit_memory"), ("7", "vm.overcommit_memory")):
        result = call(values={"vm.overcommit_ratio": str(int(ratio) + 1), setting: value})
        assert (result.failed, result.code) == (True, "live_refused")
        assert "Invalid argument" in result.msg
        assert (sysctl("vm.overcommit_ratio"), sysctl("vm.overcommit_memory")) == (ratio, "0")
        assert os.listdir(kernel / "etc/sysctl.d") == []


@pytest.mark.needs_root
def test_a_setting_that_the_kernel_does_not_let_anyone_change(kernel, call):
    result = call(values={"kernel.ostype": "Other"})
    assert (result.failed, result.code) == (True, "live_read_only")
    assert os.listdir(kernel / "etc/sysctl.d") == []
