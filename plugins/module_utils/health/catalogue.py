# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a server's safety: why each matters and what to do.

A code names the trouble; a finding with that code and severity ``ok`` says that it is not there. What a log tells is in log_kinds.
"""

from __future__ import annotations

import typing as t

__all__ = ["MEANINGS"]

#: code → (why it matters, what to do)
MEANINGS: t.Mapping[str, tuple[str, str]] = {
    # --- the server ---
    "server_down": (
        "nobody can read or write, and what a power cut would cost is already being paid",
        "find the cause below and in the log (journalctl -u UNIT), remove it, then start the server; never start an empty one in its place",
    ),
    "server_not_responding": (
        "something listens, but gives no answer as Redis does: it hangs, is stopped, or another program has the port",
        "ss -ltnp for the port; ps -o stat,wchan for the process (T is stopped, D waits for the disk); for a TLS port set tls: true",
    ),
    "server_unseen": (
        "what cannot be asked cannot be judged",
        "give the module a login that may +ping +info +config|get (ACL preset health), and python3-redis on the host",
    ),
    "server_loading": (
        "until the data is loaded every command is refused",
        "wait; where a unit's start limit ends it again and again, set TimeoutStartSec=infinity (role redisops.recovery.redis_service)",
    ),
    "facts_missing": (
        "without it the findings that need it are not known",
        "give the user +info and +config|get (ACL preset health); an older or newer server may not have the field",
    ),
    # --- the objectives, and what a power cut would cost ---
    "no_persistence": (
        "the data is in memory only: any end of the process loses all of it",
        "set appendonly: true or save points (role redisops.recovery.redis_server); for a pure cache set allow_no_persistence: true",
    ),
    "crash_loss_too_large": (
        "a power cut now would cost more than the objective",
        "save more often: appendonly: true with appendfsync everysec bounds it to about two seconds",
    ),
    "next_start": (
        "what a restart, a crash or a power cut brings back is not what the server has now",
        "run the role redisops.recovery.redis_server, which brings file, live server and disk together; do not restart before",
    ),
    "data_shared": (
        "two servers with one AOF or RDB file overwrite each other's data: after a crash one comes up with the keys of the other",
        "save each (BGSAVE, with a dbfilename of its own), stop one, give it a dir of its own with its data in it, start it",
    ),
    "data_not_mounted": (
        "what is written goes to the disk below the mount point, and a start finds other data, or none",
        "stop the clients, take a backup of what the process holds, mount the file system, and decide which of the two sets of data it is",
    ),
    # --- RDB ---
    "rdb_save_failed": (
        "nothing is being saved; with stop-writes-on-bgsave-error yes every write is refused (MISCONF)",
        "see the log events for the cause (space, permission, memory), remove it, then BGSAVE",
    ),
    "save_overdue": (
        "a save point is reached and no save came: what was written since is only in memory",
        "BGSAVE by hand and see what it answers; look into the log; an AOF rewrite that hangs holds saves up",
    ),
    "rdb_missing": (
        "the server believes that its data is saved, and the file is gone: a power cut loses all of it",
        "redis-cli BGSAVE, now; then find out who removed it",
    ),
    "rdb_replaced": (
        "somebody put another file in the place of the last save; the server has not read it, and its next save overwrites it",
        "copy the file aside if its data is wanted; to bring a backup in use the playbook redisops.recovery.restore",
    ),
    "rdb_never_loaded": (
        "the file holds data that this server never read, as after a restart with appendonly yes and no AOF; its next save overwrites it",
        "cp -p the file aside NOW; then see docs/reference/refusals.md#rdb_never_loaded",
    ),
    "data_kept": (
        "a run kept data files that no running server had loaded, before something replaced them",
        "look at them if keys are missing; they are removed after a week",
    ),
    "rdb_age": (
        "how old the last complete copy on this disk is; INFO's own number begins anew at each start, so the file counts",
        "redis-cli BGSAVE for a new one",
    ),
    "rdb_unchecked": (
        "a bit that flips in the RDB file is not found when it is loaded",
        "set rdbchecksum yes in the file, and restart when it suits",
    ),
    "save_errors_ignored": (
        "writes go on where saves fail: nobody notices until the data is needed",
        "set stop-writes-on-bgsave-error yes, or alarm on rdb_save_failed",
    ),
    "fork_slow": (
        "for that long the server answered nobody; Sentinel may take it for dead",
        "turn transparent huge pages off (redisops.recovery.redis_kernel), leave memory free, or save from a replica",
    ),
    "memory_for_save": (
        "each page that is written to during a save or rewrite is copied; short of memory the kernel ends the save, or the server",
        "give memory or swap, lower maxmemory, or let a replica take the saves",
    ),
    # --- AOF ---
    "aof_incomplete": (
        "files that the next start needs are not there: it would fail, or begin EMPTY next to the data",
        "do not restart; redis-cli BGREWRITEAOF writes a whole AOF from what the server has in memory",
    ),
    "aof_open_transaction": (
        "a crash cut a transaction off, and the server writes on behind it: its next start throws all of that away",
        "redis-cli BGREWRITEAOF at once, and before any restart: it writes what the server has in memory. A stopped server: redis_repair",
    ),
    "temporary_files_left": (
        "what a save or a rewrite that was ended has left takes room, and nobody reads it",
        "see that no save or rewrite runs (INFO persistence), then remove them",
    ),
    "aof_write_failing": (
        "acknowledged writes are not in the file, and further writes are refused (MISCONF)",
        "df for the file system of dir; the server goes on by itself once it can write",
    ),
    "aof_rewrite_failing": (
        "the AOF only grows: it fills the disk, and a start takes longer and longer",
        "see the log events for the cause (space for a second copy, memory), then BGREWRITEAOF",
    ),
    "aof_fsync_delayed": (
        "the disk takes longer than two seconds to sync: commands wait, and more than a second of writes is at risk",
        "see who else writes there (iotop, iostat -x 1), or move dir to a faster disk",
    ),
    "aof_fsync_paused": (
        "during a save or rewrite nothing is synced: a power cut then costs up to the whole of it",
        "set no-appendfsync-on-rewrite no, unless that is meant",
    ),
    "rewrite_never_fires": (
        "the AOF grows without end: it fills the disk, and a start takes longer and longer",
        "set auto-aof-rewrite-percentage (100) and auto-aof-rewrite-min-size (64mb); redis-cli BGREWRITEAOF for now",
    ),
    "aof_out_of_use": (
        "an AOF lies there that ages: turning AOF on by hand and restarting would load it in place of the data",
        "move the directory aside if its data is not wanted",
    ),
    # --- disk and files ---
    "aof_fills_disk": (
        "with a full disk every write is refused, and with appendfsync always the server ends",
        "free space or enlarge the file system; redis-cli BGREWRITEAOF while there is room for a second copy",
    ),
    "dir_missing": (
        "nothing can be saved, and a start fails or begins EMPTY: the file system is not mounted, or somebody removed or renamed the directory",
        "mount it (findmnt, mount -a) or put it back; of a running server take a copy first, to elsewhere: redis-cli --rdb FILE. Do not restart",
    ),
    "disk_room": (
        "the next save or rewrite writes a whole second copy first; without room it fails, and writes are refused",
        "free space on, or enlarge, the file system of dir",
    ),
    "file_access": (
        "the server cannot load or append to a file that is not its own; and what everybody may read or write is everybody's",
        "give the files to the server's user, mode 0660 or 0640 (role redisops.recovery.redis_server)",
    ),
    "disk_wait": (
        "processes stand still waiting for a disk: syncs take long, and with them commands",
        "iostat -x 1, iotop; move dir to a disk of its own or a faster one",
    ),
    "drive_failing": (
        "the drive says itself that it is failing: copies on it can go at any time",
        "take a backup to another host now (redisops.recovery.backup), then replace the drive",
    ),
    "temperature": (
        "heat makes machines slow, then wrong, then silent",
        "see fans and air; sensors and smartctl -a tell which part",
    ),
    # --- kernel and machine ---
    # overcommit, thp and backlog have their words from the preflight of the host
    "open_files": (
        "fewer clients than maxclients can connect, and a full table also stops replicas and saves",
        "raise LimitNOFILE= of the unit (role redisops.recovery.redis_service), restart",
    ),
    "swapped": (
        "a command that touches swapped memory waits for the disk, and a save reads all of it back",
        "give memory or lower maxmemory; vm.swappiness 1 keeps it from happening early",
    ),
    "steal": (
        "the hypervisor gives the CPU to others: saves take longer, and Sentinel may take the server for dead",
        "move the virtual machine, or buy CPUs that are not shared",
    ),
    # --- the set ---
    "replica_link": (
        "the replica gets no writes: a failover to it would lose all since",
        "look into the replica's log; masteruser and masterauth (role redis_acl) and the firewall are the usual causes",
    ),
    "replica_lag": (
        "a failover to a replica that is behind loses what it has not got yet",
        "look at the network between them, at the replica's disk and CPU, and at big keys and slow commands",
    ),
    "too_few_replicas": (
        "with min-replicas-to-write the primary refuses writes as long as that is so",
        "start the replicas that are missing",
    ),
    "keyspace_events": (
        "events go to whoever listens at that moment: after a broken connection or a failover they are missed, and each costs CPU",
        "do not build on them what must not be missed; use a stream, or set notify-keyspace-events to none",
    ),
    "cluster_state": (
        "keys of slots that nobody serves cannot be read or written",
        "redis_cluster (check mode) says what is wrong; redis-cli --cluster check HOST:PORT",
    ),
    "sentinel_down": (
        "one Sentinel less to notice a failure and to vote",
        "systemctl status of its unit; its log",
    ),
    "sentinel_tilt": (
        "in TILT a Sentinel decides nothing: there is no failover meanwhile",
        "it ends by itself after 30 s of a steady clock; see chronyc tracking, load and steal of that host",
    ),
    "sentinel_quorum": (
        "if the primary fails now, nobody takes over",
        "start the Sentinels that are missing (systemctl start redis-sentinel), or see to the network between them",
    ),
    "sentinel_sees_down": (
        "a Sentinel finds the primary down: a failover is near, or cannot be had",
        "look at the primary first; then at the network between it and the Sentinels",
    ),
    "sentinel_disagrees": (
        "clients that ask Sentinel are sent elsewhere than to this primary: writes made here are thrown away",
        "take clients off the one that Sentinel does not name; it is turned into a replica by itself",
    ),
    # --- backups and drills ---
    "backup_none": (
        "what is deleted or overwritten by mistake is gone from all copies at once; only a backup brings it back",
        "set redis_backup_enabled: true (role redisops.recovery.redis_backup), or take one now: playbook redisops.recovery.backup",
    ),
    "backup_unverified": (
        "a copy that was never loaded is a hope",
        "take a verified one: playbook redisops.recovery.backup; the failed ones say why: redis_backup_info",
    ),
    "backup_old": (
        "what was written since would be lost",
        "see why the timer brought none: systemctl status 'redisops-backup-*', journalctl -u; take one: playbook redisops.recovery.backup",
    ),
    "backup_failed": (
        "the next one may fail as well, and the good one ages",
        "redis_backup_info says why; take another: playbook redisops.recovery.backup",
    ),
    "drill_none": (
        "whether, and how fast, the data can be had again is a guess until it was tried",
        "hold one: playbook redisops.recovery.drill",
    ),
    "drill_old": (
        "what worked then may not work now",
        "hold one: playbook redisops.recovery.drill",
    ),
    "drill_failed": (
        "the last time it was tried, the data could not be restored within the objectives",
        "read the report next to the backups, remove the cause, hold another: playbook redisops.recovery.drill",
    ),
    # --- logs ---
    "log_unread": (
        "what the server logged of its troubles is not known",
        "set logfile, or unit to the systemd unit whose journal has it; run with become: true",
    ),
    "kernel_log_unread": (
        "whether the kernel ended a save, or a disk failed, is not known",
        "run with become: true; in a container look at the host that it runs on",
    ),
}  # fmt: skip
