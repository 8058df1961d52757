# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server says of itself, as variables of its host."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import normal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import view_of
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info

__all__ = ["Detail", "detail_variables"]


@dataclasses.dataclass(frozen=True)
class Detail:
    """The answer of one server; without ``info`` there was none, ``because`` says why, ``down`` that nothing listens there."""

    info: t.Optional[Info] = None
    because: str = ""
    down: bool = False


def detail_variables(address: str, detail: Detail, primary: t.Optional[Detail]) -> dict[str, t.Any]:
    """Variables of the server at ``address``. Lag is what the answer of its primary says of it; without one it is left out."""
    if detail.info is None:
        found: dict[str, t.Any] = {"redis_answers": False, "redis_because": detail.because}
    else:
        info, view = detail.info, view_of(detail.info, address)
        found = {
            "redis_answers": True,
            "redis_role_reported": view.role,
            "redis_version": info.text("redis_version"),
            "redis_product": info.product,
            "redis_keys": view.keys,
            "redis_offset": view.offset,
        }
        if view.role == "replica":
            found["redis_link"] = "up" if view.link_up else "down"
            down_for = 0 if view.link_up else info.number("master_link_down_since_seconds", -1)
            if down_for >= 0:
                found["redis_link_down_seconds"] = down_for
            found["redis_priority"] = info.number("slave_priority", 100)
    found.update(_lag(address, detail, primary))
    return found


def _lag(address: str, detail: Detail, primary: t.Optional[Detail]) -> dict[str, int]:
    if primary is None or primary.info is None:
        return {}
    found = {}
    upstream = view_of(primary.info, "")
    listed = next((one for one in upstream.replicas if normal(one.address) == normal(address)), None)
    if listed is not None and listed.online and listed.lag >= 0:
        found["redis_lag_seconds"] = listed.lag
    if detail.info is not None:
        own = view_of(detail.info, address)
        if own.role == "replica" and own.id == upstream.id:  # offsets of another history say nothing
            found["redis_lag_bytes"] = max(0, upstream.offset - own.offset)
    elif listed is not None:
        found["redis_lag_bytes"] = max(0, upstream.offset - listed.offset)
    return found
