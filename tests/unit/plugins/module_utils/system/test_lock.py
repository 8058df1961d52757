# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time on a data directory; the other party is another process, as in life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import (
    lock_directory,
    lock_path,
    release_locks,
)

from tests.conftest import COLLECTIONS

HOLD = """
import sys
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import lock_directory
lock_directory(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _released():
    yield
    release_locks()


@pytest.fixture(name="other")
def _other(tmp_path):
    """Another process that holds the lock of tmp_path."""
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_run_is_refused_with_the_holders_name(tmp_path, other):
    with pytest.raises(Refusal) as refused:
        lock_directory(str(tmp_path), 0.2)
    assert refused.value.code == "data_is_locked"
    assert f"process {other.pid}" in refused.value.detected


def test_another_spelling_is_the_same_lock(tmp_path, other):
    link = tmp_path.parent / (tmp_path.name + "-link")
    link.symlink_to(tmp_path)
    with pytest.raises(Refusal):
        lock_directory(str(link) + "/", 0)


def test_a_run_that_is_killed_holds_nothing(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    lock_directory(str(tmp_path), 5)
    assert os.path.exists(lock_path(str(tmp_path)))


def test_a_run_waits_for_the_one_before(tmp_path, other):
    threading.Timer(0.5, other.stdin.close).start()
    began = time.monotonic()
    lock_directory(str(tmp_path), 20)
    assert time.monotonic() - began >= 0.3


def test_what_is_held_is_held_once_and_leaves_no_file(tmp_path):
    lock_directory(str(tmp_path))
    lock_directory(str(tmp_path))
    path = lock_path(str(tmp_path))
    release_locks()
    assert not os.path.exists(path)


def test_a_directory_that_is_not_there_has_nothing_to_lock(tmp_path):
    lock_directory(str(tmp_path / "none"))
