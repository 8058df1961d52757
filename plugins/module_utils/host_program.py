# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of this collection as a program on the managed host, for what has to run without a controller (tier 2)."""

from __future__ import annotations

import ast
import importlib
import inspect
import posixpath

__all__ = ["HOME", "command", "sources"]

#: Where the program lies; its path is all that a unit needs to know.
HOME = "/usr/local/lib/redisops"
_PACKAGE = "ansible_collections.redisops.recovery.plugins.module_utils"


def _imported(text: str) -> set[str]:
    """Files of module_utils that a file of module_utils imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_PACKAGE}."):
            found.add((node.module or "")[len(_PACKAGE) + 1 :])
    return found


def sources(name: str, home: str = HOME) -> dict[str, str]:
    """Every file that the program ``name`` of module_utils needs, path → text; packages' own files included."""
    found: dict[str, str] = {}
    todo = [name]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found[one] = inspect.getsource(importlib.import_module(f"{_PACKAGE}.{one}"))
        todo += _imported(found[one])
    folders = _PACKAGE.split(".")
    packages = {posixpath.join(home, *folders[:depth], "__init__.py"): "" for depth in range(1, len(folders) + 1)}
    return {**packages, **{posixpath.join(home, *folders, f"{one}.py"): text for one, text in sorted(found.items())}}


def command(python: str, name: str, *arguments: str) -> str:
    """The command line of the program, for a unit whose environment has ``PYTHONPATH`` at its home."""
    return " ".join([python, "-m", f"{_PACKAGE}.{name}", *arguments])
