# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list from which ``changed``, ``diff`` and ``actions`` all come."""

from __future__ import annotations

import dataclasses
import typing as t

__all__ = ["Change", "pending_names", "render_actions", "render_diff", "render_rows"]


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between what is and what is declared, and the words for what removes it.

    ``layer`` is where it stands (``file``, ``live``, ``boot``, ``disk``, ``mode``, ``unit``); ``before`` None means absent.
    """

    layer: str
    name: str
    before: t.Optional[str]
    after: t.Optional[str]
    action: str = ""


def render_diff(changes: t.Sequence[Change]) -> dict[str, str]:
    """Ansible's ``diff``: one line a change, the same in check mode and in the real run."""

    def side(values: t.Iterable[tuple[Change, t.Optional[str]]]) -> str:
        return "".join(
            f"{change.layer}: {change.name} {value}".rstrip() + "\n" for change, value in values if value is not None
        )

    return {
        "before": side((change, change.before) for change in changes),
        "after": side((change, change.after) for change in changes),
    }


def render_actions(changes: t.Sequence[Change]) -> list[str]:
    """What was or would be done, in order, each stated once."""
    return list(dict.fromkeys(change.action for change in changes if change.action))


def render_rows(changes: t.Sequence[Change]) -> list[dict[str, t.Any]]:
    """One dict a difference, for a table of drift: ``found`` and ``declared`` are None where it is absent."""
    return [
        {"layer": change.layer, "name": change.name, "found": change.before, "declared": change.after, "since": None}
        for change in changes
        if not (change.before is None and change.after is None)
    ]


def pending_names(changes: t.Sequence[Change]) -> list[str]:
    """The directives that the changes are about."""
    return list(dict.fromkeys(change.name for change in changes if change.layer in ("file", "live")))
