# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of what every module of this collection supports."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Reports what would be done and changes nothing.
  diff_mode:
    support: full
    description: The diff of check mode is the diff of the run that follows.
  platform:
    support: full
    platforms: posix
    description: Linux with systemd.
"""
    INFO = r"""
attributes:
  check_mode:
    support: full
    description: Reads only, in check mode and without it.
  diff_mode:
    support: none
    description: Changes nothing, so there is no difference to show.
  platform:
    support: full
    platforms: posix
    description: Linux.
"""
