# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever happens to a program that a timer starts, the journal has one line of JSON, and systemd an exit code."""

from __future__ import annotations

import json

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.entrypoint import ended


def raising(error):
    def act(_settings):
        raise error

    return act


@pytest.mark.parametrize(
    ("text", "act", "code", "exit_code", "words"),
    [
        ('{"a": 1}', lambda settings: ({"state": "done", **settings}, 0), None, 0, ""),
        ("{", lambda _settings: ({}, 0), "invalid_value", 2, "the settings cannot be read"),
        (
            "{}",
            raising(Problem("server_down", "nothing listens", "a server", "start it")),
            "server_down",
            1,
            "nothing listens",
        ),
        (
            "{}",
            raising(OSError(28, "No space left on device", "/data")),
            "unreadable",
            1,
            "/data: No space left on device",
        ),
        ("{}", raising(ValueError("odd")), "defect", 1, "Unexpected ValueError: odd"),
    ],
)
def test_each_end_is_one_line_and_a_code(tmp_path, capsys, text, act, code, exit_code, words):
    (tmp_path / "settings.json").write_text(text)
    assert ended([str(tmp_path / "settings.json")], json.loads, act) == exit_code
    reported = capsys.readouterr()
    (line,) = reported.out.splitlines()
    predicted = json.loads(line)
    assert (predicted.get("code"), reported.err) == (code, "")
    assert words in predicted.get("msg", "")


def test_settings_that_are_not_there(tmp_path, capsys):
    assert ended([str(tmp_path / "none")], json.loads, lambda _settings: ({}, 0)) == 1
    assert str(tmp_path / "none") in json.loads(capsys.readouterr().out)["msg"]
    assert ended([], json.loads, lambda _settings: ({}, 0)) == 2
