# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was kept of data files that no running server had loaded."""

from __future__ import annotations

import contextlib
import os
import re

from ansible_collections.redisops.recovery.plugins.module_utils.persistence.location import Place

__all__ = ["kept"]

_NAME = re.compile(r"redisops-kept-\d{8}T\d{6}Z(-\d+)?")


def kept(place: Place) -> list[str]:
    """The directories with what was kept, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        return [os.path.join(place.dir, name) for name in sorted(os.listdir(place.dir)) if _NAME.fullmatch(name)]
    return []
