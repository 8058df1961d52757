# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a program that a timer starts begins and ends: settings from a file, one line of JSON, an exit code, never a traceback."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.lock import release_locks

__all__ = ["ended"]

S = t.TypeVar("S")
Line = dict[str, t.Any]


def _failed(code: str, words: str) -> Line:
    return {"state": "failed", "code": code, "msg": words}


def _run(
    arguments: t.Sequence[str], parse: t.Callable[[str], S], act: t.Callable[[S], tuple[Line, int]]
) -> tuple[Line, int]:
    try:
        settings = parse(read_text(arguments[0]))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return _failed("invalid_value", f"the settings cannot be read: {error}"), 2
    return act(settings)


def ended(arguments: t.Sequence[str], parse: t.Callable[[str], S], act: t.Callable[[S], tuple[Line, int]]) -> int:
    """Read the settings that the first argument names, ``act`` on them, print the line that it gives; the exit code."""
    try:
        line, code = _run(arguments, parse, act)
    except Problem as problem:
        line, code = _failed(problem.code, problem.message()), 1
    except OSError as error:
        line, code = _failed("unreadable", f"{error.filename or ''}: {error.strerror or error}"), 1
    except Exception as error:  # the last line of defence: what the journal has is a sentence
        line, code = (
            _failed("defect", f"Unexpected {type(error).__name__}: {error}. This is a defect: please report it."),
            1,
        )
    finally:
        release_locks()
    print(json.dumps(line, sort_keys=True))
    return code
