# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of where a server's health is looked at, and what it is held to."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  config_file:
    description: >-
      The server's configuration file. Not given, the one that the server says it was started with; of a server that is down
      C(/etc/redis/redis.conf).
    type: path
  unit:
    description: The systemd unit whose journal has what the server wrote to its standard output. V(auto) finds the packaged one.
    type: str
    default: auto
  sample_seconds:
    description: >-
      Seconds between two looks at the server and C(/proc), from which loads and growth are computed. V(0) looks once; loads are then
      not known.
    type: float
    default: 1.0
  group_name:
    description: Name of the group, of its backups, and in the text.
    type: str
    default: redis
  backup_directory:
    description: Where backups are kept. Not given, where the schedule (C(/etc/redisops/backup-SET.json)) says, else C(/var/backups/redis).
    type: path
  sentinel_port:
    description: Port of a Sentinel on O(login_host). Not given, none is asked.
    type: int
  sentinel_tls:
    description: Whether the Sentinel is reached by TLS, with the certificates of the server's options. Not given, as O(tls) is.
    type: bool
  sentinel_user:
    description: User of the Sentinel.
    type: str
  sentinel_password:
    description: Password of the Sentinel.
    type: str
  crash_loss_seconds:
    description: Seconds of writes that a power cut may cost. More is critical. V(0) for no objective.
    type: int
    default: 0
  rpo_seconds:
    description: Seconds after which the last verified backup is too old. V(0) for any age; with another value a missing backup is a warning.
    type: int
    default: 0
  rto_seconds:
    description: Seconds within which the data has to be back from a backup, as the last restore drill measured it. V(0) for no objective.
    type: int
    default: 0
  max_drill_age:
    description: Seconds after which the last drill is too old. V(0) for any age; with another value a missing drill is a warning.
    type: int
    default: 0
  max_lag:
    description: Seconds for which a replica, or the primary of one, may be without an answer.
    type: int
    default: 10
  disk_full_hours:
    description: Hours in which the AOF may not fill the disk at its present growth. Less is a warning, less than one hour is critical.
    type: int
    default: 24
  fork_headroom_percent:
    description: Memory that has to be left for a save, in percent of what the server holds.
    type: int
    default: 25
  allow_no_persistence:
    description: Whether neither RDB nor AOF is right, for pure caches.
    type: bool
    default: false
"""
