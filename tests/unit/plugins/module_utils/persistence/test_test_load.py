# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A temporary server that never answers is nobody else's connection."""

from __future__ import annotations

import contextlib
import io

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence import test_load as backup_test_load
from ansible_collections.redisops.recovery.plugins.module_utils.server.temporary_server import Started


def test_a_server_that_runs_and_does_not_answer_is_not_asked(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def silent(*_arguments, **_options):
        yield Started("", None, io.BytesIO())

    def no_login(*_arguments, **_options):
        raise AssertionError("it logged in somewhere")

    (tmp_path / "data.rdb").write_bytes(b"REDIS0011")
    monkeypatch.setattr(backup_test_load, "server_binary", lambda _program: "/bin/true")
    monkeypatch.setattr(backup_test_load, "started", silent)
    monkeypatch.setattr(backup_test_load, "connect", no_login)
    with pytest.raises(Problem) as caught, backup_test_load.loaded(str(tmp_path / "data.rdb"), str(tmp_path), 1.0):
        pass
    assert caught.value.code == "load_timeout"
