# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting directives live, and their file with them: both, or neither."""

from __future__ import annotations

import difflib
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import CommandError
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import masked, normal
from ansible_collections.redisops.recovery.plugins.module_utils.server.instance import Instance
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile

__all__ = ["commit", "require_known", "set_live"]


def require_known(instance: Instance, wanted: t.Iterable[str]) -> None:
    """Every directive must be one that the live server answers to. Raises Problem."""
    for name in wanted:
        if name not in instance.live:
            instance.live.update(instance.server.config_get(name))
        if name not in instance.live:
            near = difflib.get_close_matches(name.replace("_", "-"), instance.live, 1)
            raise Problem(
                "unknown_directive",
                f"{instance.info.product} has no directive {name!r}",
                "a directive of the version that runs",
                f"did you mean {near[0]}?" if near else f"correct {name} in settings",
            )


def set_live(instance: Instance, values: dict[str, str]) -> None:
    """One CONFIG SET, read back. Raises Problem; then the old values are back."""
    server = instance.server
    try:
        server.config_set(values)
    except CommandError as error:
        text = error.text
        for name, value in values.items():
            text = text.replace(value, masked(name, value) or "") if masked(name, value) != value else text
        raise Problem(
            "value_rejected", f"{instance.info.product} refused CONFIG SET {' '.join(values)}: {text}; file and server are unchanged",
            "values that this server accepts", "correct the setting that it names",
        ) from None  # fmt: skip
    got = server.config_get(*values)
    for name, value in values.items():
        if normal(name, got.get(name, "")) != normal(name, value):
            server.config_set({name: instance.live[name] for name in values})
            raise Problem(
                "value_clamped", f"{name}: {instance.info.product} accepted {masked(name, value)} and keeps {masked(name, got.get(name, ''))}; "
                "file and server are as before", "a value within the server's bounds", f"set {name}: {masked(name, got.get(name, ''))}",
            )  # fmt: skip


def commit(staged: StagedFile, instance: Instance, live: dict[str, str]) -> None:
    """Put the file in place; where that fails, the live values go back. Raises Problem."""
    try:
        staged.commit()
    except Problem:
        if live:
            instance.server.config_set({name: instance.live[name] for name in live})
        raise
