# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one Sentinel says of the primaries that it watches."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint

__all__ = ["Known", "Watched", "fields_of", "known_of", "usable_of", "watched_of"]

_DOWN = ("s_down", "o_down", "disconnected")


def fields_of(answer: t.Any) -> dict[str, str]:
    """One entry of SENTINEL MASTERS, REPLICAS or SENTINELS, or SENTINEL CONFIG GET: names and values in turn, or a map."""
    if isinstance(answer, dict):
        return {str(name): str(value) for name, value in answer.items()}
    return dict(zip(answer[::2], answer[1::2]))


def _int_field(fields: t.Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else 0


@dataclasses.dataclass(frozen=True)
class Known:
    """A replica or another Sentinel, as this one knows it. ``down_for`` is seconds since it last answered, 0 where it is up."""

    kind: str
    address: str
    flags: tuple[str, ...] = ()
    run_id: str = ""
    down_for: int = 0

    @property
    def up(self) -> bool:
        return not set(self.flags) & set(_DOWN)


@dataclasses.dataclass(frozen=True)
class Watched:
    """One primary that a Sentinel watches. ``options`` has what SENTINEL SET takes, spelled as there."""

    name: str
    address: str
    flags: tuple[str, ...] = ()
    options: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    config_epoch: int = 0
    replicas: tuple[Known, ...] = ()
    sentinels: tuple[Known, ...] = ()

    @property
    def failing_over(self) -> bool:
        return "failover_in_progress" in self.flags

    @property
    def down(self) -> bool:
        return bool(set(self.flags) & {"s_down", "o_down"})


_OPTIONS = (
    "quorum", "down-after-milliseconds", "failover-timeout", "parallel-syncs", "notification-script", "client-reconfig-script",
)  # fmt: skip


def known_of(kind: str, answer: t.Any) -> Known:
    """One entry of SENTINEL REPLICAS or SENTINEL SENTINELS."""
    fields = fields_of(answer)
    known = Known(
        kind,
        endpoint(fields.get("ip", ""), fields.get("port", "0")),
        tuple(fields.get("flags", "").split(",")),
        fields.get("runid", ""),
    )
    seconds = max(_int_field(fields, "last-ok-ping-reply"), _int_field(fields, "s-down-time")) // 1000
    return known if known.up else dataclasses.replace(known, down_for=seconds)


def watched_of(master: t.Any, replicas: t.Sequence[t.Any] = (), sentinels: t.Sequence[t.Any] = ()) -> Watched:
    """SENTINEL MASTER, REPLICAS and SENTINELS of one primary as one value."""
    fields = fields_of(master)
    return Watched(
        fields["name"],
        endpoint(fields.get("ip", ""), fields.get("port", "0")),
        tuple(fields.get("flags", "").split(",")),
        {name: fields[name] for name in _OPTIONS if name in fields},
        _int_field(fields, "config-epoch"),
        tuple(known_of("replica", entry) for entry in replicas),
        tuple(known_of("sentinel", entry) for entry in sentinels),
    )


def usable_of(answer: str) -> tuple[bool, int]:
    """Whether CKQUORUM is content, and how many Sentinels it counts as usable."""
    found = re.search(r"(\d+) usable", answer)
    return answer.startswith("OK"), int(found.group(1)) if found else 0
