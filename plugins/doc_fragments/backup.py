# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of how a group's backups are taken, now or by a timer."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  directory:
    description:
      - Where backups are kept, on the managed host. It is closed to everybody but root.
      - It has to be on a disk of the host. A share on which root may not change owners is refused; let O(repositories) bring backups there.
    type: path
    default: /var/backups/redis
  group_name:
    description: Name of the group that the server is of; backups are told apart by it. Two servers of one host cannot share it.
    type: str
    default: redis
  method:
    description:
      - V(rdb) is BGSAVE and a copy of its file. Its numbers are exact, and its file carries a checksum.
      - V(aof) copies base and increments of the AOF, without a fork, up to where the server says that they are.
      - V(stream) is C(redis-cli --rdb), which works from another host too. What only the server's own host has (O(config_file), the ACL file
        of a remote server) is not in it.
      - V(auto) is V(rdb).
    type: str
    choices: [auto, rdb, aof, stream]
    default: auto
  group_hosts:
    description: Servers of the group. Given, only one of them takes the backup; on the others nothing is done.
    type: list
    elements: str
    default: []
  address:
    description: Which of O(group_hosts) the managed host is.
    type: str
  address_variables:
    description: Variables that hold the address of a host of the inventory; the first that is set counts, else its name.
    type: list
    elements: str
    default: [redis_replication_address, ansible_host]
  max_behind:
    description: Bytes that a replica may be behind to be chosen.
    type: int
    default: 10485760
  max_lag:
    description: Seconds that a replica may have been without an answer to be chosen.
    type: int
    default: 10
  max_age:
    description: Take no backup if a verified one is younger than this many seconds; 0 always takes one.
    type: int
    default: 0
  verify:
    description: Whether the backup is loaded and compared at once.
    type: bool
    default: true
  sample:
    description:
      - How many keys are drawn at random and compared by type, value and expiry; large ones by their length, so that the server is not held up.
      - Without any the backup is V(loaded) at best.
    type: int
    default: 100
  assertions:
    description: What you know of your data, and want to see in every backup.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: A key that has to be there.
        type: str
        required: true
      database:
        description: Its database.
        type: int
        default: 0
      type:
        description: Its type, such as V(hash).
        type: str
      min_count:
        description: Elements that it has at least; for a string its bytes.
        type: int
  fork_headroom_percent:
    description: Memory that has to be left for a fork, in percent of what Redis uses.
    type: int
    default: 25
  config_file:
    description: The server's configuration file, which goes into the backup; empty leaves it out.
    type: str
    default: /etc/redis/redis.conf
  sentinel_file:
    description: Sentinel's file, which goes into the backup where it is there; empty leaves it out.
    type: str
    default: /etc/redis/sentinel.conf
  retention:
    description:
      - What stays on the host; what any rule keeps, stays. With every rule off (V(0)) nothing is deleted.
      - The newest verified backup is never deleted, nor one that was marked V(pinned). It is read from end to end before others go for it.
      - Of those that failed two stay, to be looked at, and take no other one's place.
    type: dict
    suboptions:
      keep_last:
        description: The newest so many.
        type: int
        default: 0
      keep_within_days:
        description: What is not older than so many days.
        type: int
        default: 0
      keep_daily:
        description: The newest of each of so many days (UTC) that have one.
        type: int
        default: 0
      keep_weekly:
        description: Likewise of weeks.
        type: int
        default: 0
      keep_monthly:
        description: Likewise of months.
        type: int
        default: 0
      keep_yearly:
        description: Likewise of years.
        type: int
        default: 0
      minimum_redundancy:
        description: So many verified ones stay whatever the rules say.
        type: int
        default: 1
  repositories:
    description:
      - Repositories of C(restic), which every backup is sent to after its proof. One that is not there yet is made.
      - A backup that failed its proof is sent nowhere. A repository that cannot be reached is an error, after all others were tried.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in results.
        type: str
        required: true
      location:
        description: A path, V(sftp:USER@HOST:/PATH), V(s3:https://HOST/BUCKET) or whatever else restic takes.
        type: str
        required: true
      password:
        description: What the repository is encrypted with. Lost, the backups in it are lost.
        type: str
        required: true
      environment:
        description: What the location needs, such as C(AWS_ACCESS_KEY_ID) and C(AWS_SECRET_ACCESS_KEY).
        type: dict
        default: {}
      options:
        description: Options for C(restic -o), such as V(sftp.command=…). They are visible to everybody on the host.
        type: list
        elements: str
        default: []
      retention:
        description:
          - As O(retention), in this repository. Marks do not count there.
        type: dict
        suboptions:
          keep_last:
            description: The newest so many.
            type: int
            default: 0
          keep_within_days:
            description: What is not older than so many days.
            type: int
            default: 0
          keep_daily:
            description: The newest of each of so many days (UTC) that have one.
            type: int
            default: 0
          keep_weekly:
            description: Likewise of weeks.
            type: int
            default: 0
          keep_monthly:
            description: Likewise of months.
            type: int
            default: 0
          keep_yearly:
            description: Likewise of years.
            type: int
            default: 0
          minimum_redundancy:
            description: So many verified ones stay whatever the rules say.
            type: int
            default: 1
  timeout:
    description: Longest time of one step (save, copy, load), in seconds.
    type: int
    default: 3600
"""
