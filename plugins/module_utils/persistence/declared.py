# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of redis_persistence as directives."""

from __future__ import annotations

import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.plan import PLACE, Wanted
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import (
    PERSISTENCE,
    normal,
    save_points,
)

__all__ = ["wanted_of"]


def wanted_of(params: t.Mapping[str, t.Any]) -> Wanted:
    """The declared values in normal form. Raises Problem where one cannot be."""
    values, spelled = {}, {}
    for name in PERSISTENCE:
        value = params[name.replace("-", "_")]
        if name == "save":
            for point in value:
                if len(save_points(point.split() or ["", ""])) != 1:
                    save_points([point, ""])  # several points in one element: name the element
            value = " ".join(value)
        elif value is None:
            continue
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        if name in PLACE and name != "dir" and (not value or "/" in value):
            what = f"{name}: {value!r} is no file name"
            raise Problem("invalid_value", what, "a name without a path", f"set {name.replace('-', '_')}")
        if name == "dir" and not value.startswith("/"):
            raise Problem("invalid_value", f"dir: {value!r} is not absolute", "an absolute path", "set dir")
        if name == "auto-aof-rewrite-percentage" and value < 0:
            raise Problem(
                "invalid_value", f"{name}: {value} is negative", "0 or more", "set auto_aof_rewrite_percentage"
            )
        values[name], spelled[name] = normal(name, str(value)), str(value)
    return Wanted(values, spelled, params["allow_no_persistence"])
