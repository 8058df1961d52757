# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of this collection as a program on the managed host, for what has to run without a controller."""

from __future__ import annotations

import ast
import importlib
import inspect
import posixpath
import typing as t

__all__ = ["HOME", "command", "sources"]

#: Where the program lies; its path is all that a unit needs to know.
HOME = "/usr/local/lib/redisops"
_PACKAGE = "ansible_collections.redisops.recovery.plugins.module_utils"


def _imported(text: str) -> set[str]:
    """Dotted names, below module_utils, of the files that a file of module_utils imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(f"{_PACKAGE}."):
            continue
        name = (node.module or "")[len(_PACKAGE) + 1 :]
        # `from PACKAGE.tls import x509` names a file, `from PACKAGE.tls.x509 import parse` what is in it.
        found.update([name] if "." in name else [f"{name}.{alias.name}" for alias in node.names])
    return found


def _packages(names: t.Iterable[str]) -> set[str]:
    """Every package on the way to the files, from the outermost on."""
    parts = [f"{_PACKAGE}.{name}".split(".")[:-1] for name in names]
    return {posixpath.join(*found[:depth]) for found in parts for depth in range(1, len(found) + 1)}


def sources(name: str, home: str = HOME) -> dict[str, str]:
    """Every file that the program ``name`` (``package.file`` of module_utils) needs, path → text; packages' own files included."""
    found: dict[str, str] = {}
    todo = [name]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found[one] = inspect.getsource(importlib.import_module(f"{_PACKAGE}.{one}"))
        todo += _imported(found[one])
    files = {posixpath.join(home, *_PACKAGE.split("."), *one.split(".")) + ".py": text for one, text in found.items()}
    return {**{posixpath.join(home, folder, "__init__.py"): "" for folder in _packages(found)}, **files}


def command(python: str, name: str, *arguments: str) -> str:
    """The command line of the program, for a unit whose environment has ``PYTHONPATH`` at its home."""
    return " ".join([python, "-m", f"{_PACKAGE}.{name}", *arguments])
