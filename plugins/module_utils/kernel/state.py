# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this user may do to the kernel's settings on this host."""

from __future__ import annotations

import dataclasses
import typing as t

__all__ = ["Access"]


@dataclasses.dataclass(frozen=True)
class Access:
    """``read_only``: settings that cannot be written, which is no wonder where this user is not ``root``.

    ``on_read_only``: ``fail``, or ``warn`` where a setting that cannot be written is another's to set, as in a container.
    """

    read_only: t.Collection[str] = ()
    on_read_only: str = "fail"
    root: bool = True
