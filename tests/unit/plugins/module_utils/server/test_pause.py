# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The write pause: renewed in time, said to have lapsed when it was not, ended without fuss."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.server import pause as server_pause
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError, ServerDown
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause


@pytest.fixture(name="clock")
def _clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(server_pause.time, "monotonic", lambda: now[0])
    return now


def test_it_is_renewed_when_a_third_of_it_is_gone(clock):
    sent = []
    pause = WritePause(lambda *words: sent.append(words), 30)
    for at in (0, 5, 9, 11, 15, 22):
        clock[0] = 1000.0 + at
        pause.renew()
    assert sent == [("CLIENT", "PAUSE", 30000, "WRITE")] * 3  # at 0, 11 and 22
    assert (pause.lapsed, pause.lasted) == (False, 22.0)


def test_one_that_ran_out_is_remembered(clock):
    sent = []
    pause = WritePause(lambda *words: sent.append(words), 10)
    pause.renew()
    clock[0] += 10.5
    pause.renew()
    assert len(sent) == 2
    assert pause.lapsed
    pause.renew(always=True)
    assert len(sent) == 3
    assert pause.lapsed  # writes may have been taken once, and stay so


@pytest.mark.parametrize("error", [CommandError("UNPAUSE", "ERR no"), ServerDown("server_down", "gone")])
def test_the_end_of_one_whose_server_is_gone_is_no_error(error):
    asked = []

    def command(*words):
        asked.append(words)
        raise error

    WritePause(command, 10).end()
    assert asked == [("CLIENT", "UNPAUSE")]


def test_a_pause_that_is_refused_is_told():
    def command(*_words):
        raise ServerDown("server_down", "gone")

    with pytest.raises(ServerDown):
        WritePause(command, 10).renew()
