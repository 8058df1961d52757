# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd's texts."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import (
    command_line_overrides,
    drop_in_values,
    parse_show,
    render_drop_in,
)
from hypothesis import given
from hypothesis import strategies as st

#: As Debian 12 prints it (systemctl show -p ExecStart redis-server).
DEBIAN = (
    "{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis/redis.conf --supervised systemd --daemonize no ; "
    "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
)


def start(arguments):
    return f"{{ path=/x ; argv[]=/x /etc/redis/redis.conf {arguments} ; ignore_errors=no }}"


def test_properties():
    shown = parse_show("LoadState=loaded\nMainPID=12\nExecStart={ path=a ; argv[]=b --c=d ; }\nDropInPaths=\n\nnoise\n")
    assert shown == {
        "LoadState": "loaded",
        "MainPID": "12",
        "ExecStart": "{ path=a ; argv[]=b --c=d ; }",
        "DropInPaths": "",
    }


@pytest.mark.parametrize(
    ("exec_start", "overrides"),
    [
        (DEBIAN, {"supervised": "systemd", "daemonize": "no"}),
        (start(""), {}),
        (start("--appendonly no"), {"appendonly": "no"}),
        (start("--SAVE 900 1 --port 6380"), {"save": "900 1", "port": "6380"}),
        (start('--save ""'), {"save": ""}),
        (start("--save"), {"save": ""}),
        (start("--save 900 1 --save 300 10"), {"save": "300 10"}),
        (start('--requirepass "unbalanced'), {}),
        ("", {}),
        ("[not set]", {}),
    ],
)
def test_command_lines(exec_start, overrides):
    assert command_line_overrides(exec_start) == overrides


def test_drop_ins_of_others():
    text = (
        "[Unit]\nLimitNOFILE=1\n[Service]\n# LimitNOFILE=2\n;LimitNOFILE=3\n LimitNOFILE = 4 \n"
        "Environment=A=b\nLimitNOFILE=5\n[Install]\nLimitNOFILE=6\n"
    )
    assert drop_in_values(text) == {"LimitNOFILE": "5", "Environment": "A=b"}
    assert drop_in_values("LimitNOFILE=1\n") == {}


WORD = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-/= ", min_size=1).map(str.strip)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z]{0,20}", fullmatch=True), WORD))
def test_what_is_written_is_read_back(properties):
    text = render_drop_in(properties)
    assert drop_in_values(text) == properties
    assert text.startswith("# ")
    assert text.endswith("\n")


def test_what_belongs_to_the_unit_is_not_written_to_the_service():
    text = render_drop_in({"UMask": "0007", "RequiresMountsFor": "/data /aof"})
    assert text.endswith("[Unit]\nRequiresMountsFor=/data /aof\n[Service]\nUMask=0007\n")
    assert drop_in_values(text) == {"UMask": "0007"}
    assert "[Unit]" not in render_drop_in({"UMask": "0007"})
