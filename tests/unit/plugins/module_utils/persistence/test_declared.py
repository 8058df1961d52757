# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of redis_persistence as directives."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.declared import wanted_of
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import PERSISTENCE

OPTIONS = {
    **dict.fromkeys(name.replace("-", "_") for name in PERSISTENCE),
    "save": ["900 1", "300 10"],
    "appendonly": True,
    "auto_aof_rewrite_percentage": 100,
    "auto_aof_rewrite_min_size": "64mb",
    "allow_no_persistence": False,
}


def test_normal_form_and_spelling():
    wanted = wanted_of(OPTIONS)
    assert wanted.values["appendonly"] == "yes"
    assert wanted.values["auto-aof-rewrite-min-size"] == str(64 * 1024 * 1024)
    assert wanted.spelled["auto-aof-rewrite-min-size"] == "64mb"
    assert wanted.values["save"] == "900 1 300 10"
    assert "dir" not in wanted.values


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"dir": "data"}, "not absolute"),
        ({"dbfilename": "a/b"}, "no file name"),
        ({"appendfilename": ""}, "no file name"),
        ({"auto_aof_rewrite_percentage": -1}, "negative"),
        ({"save": ["900 1 300 10"]}, "900 1 300 10"),
    ],
)
def test_what_cannot_be(more, words):
    with pytest.raises(Problem) as problem:
        wanted_of({**OPTIONS, **more})
    assert words in problem.value.message()
