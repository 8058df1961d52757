# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a server's log that tell of lost safety: what each means and what to do."""

from __future__ import annotations

import dataclasses
import re
import typing as t

__all__ = ["KERNEL", "KINDS", "SERVER", "Kind", "kind_of"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of line.

    ``topic`` says what later line shows that it is over: ``start`` (the server became ready), ``save``, ``rewrite`` or ``aof`` (one went
    well), ``disk`` (any of these), ``link`` (the replica is in sync), ``""`` (nothing does: it happened). ``severity`` is that of a
    trouble that is not over.
    """

    code: str
    severity: str
    topic: str
    why: str
    do: str
    pattern: t.Pattern[str]


def _kind(code: str, severity: str, topic: str, pattern: str, why: str, do: str) -> Kind:
    return Kind(code, severity, topic, why, do, re.compile(pattern))


#: What a line has to do with a file of data, for those that name only the error of the system.
_FILE = r"(?:AOF|append|RDB|rdb|DB |dump|sav(?:e|ing)|fsync|manifest|temp)"

#: The first pattern that a line fits counts: the one that names the cause stands before the one that names the consequence.
SERVER: tuple[Kind, ...] = (
    # --- saving while it runs ---
    _kind(
        "fork_no_memory", "critical", "save", r"fork: Cannot allocate memory",
        "the kernel refused the memory that a fork could need: vm.overcommit_memory is not 1, or a limit of the container; nothing is saved",
        "sysctl -w vm.overcommit_memory=1 (role redisops.recovery.redis_kernel); then BGSAVE, and see that rdb_last_bgsave_status is ok",
    ),
    _kind(
        "fork_failed", "critical", "save", r"Can't (?:save in background|rewrite append only file in background|fork)[^:]*: (?:fork: )?",
        "the process may start no further one (TasksMax of the unit, pids limit of the container, ulimit -u), so nothing is saved",
        "raise TasksMax= of the unit (systemctl show -p TasksMax UNIT) or the limit that the line names; then BGSAVE",
    ),
    _kind(
        "save_killed", "critical", "save", r"Background (?:saving|transfer|RDB transfer) terminated by signal (?!10\b|11\b|7\b)\d+",
        "somebody ended the process that was saving; signal 9 is most often the kernel's OOM killer, which its own log then says",
        "journalctl -k | grep -i oom; give memory or swap, or lower maxmemory; then BGSAVE",
    ),
    _kind(
        "rewrite_killed", "critical", "rewrite", r"Background AOF rewrite terminated by signal (?!10\b|11\b|7\b)\d+",
        "somebody ended the process that was rewriting the AOF; the old files stay in use and go on growing",
        "journalctl -k | grep -i oom; give memory or swap; then BGREWRITEAOF",
    ),
    _kind(
        "child_crashed", "critical", "save",
        r"(?:Background (?:saving|transfer|AOF rewrite)|Module fork exited.*) (?:terminated )?by ?signal:? ?(?:11|7)\b",
        "the process that was saving crashed: a defect, bad memory of the machine, or a file system that gave up under it",
        "read the report before the line; journalctl -k; test the memory; update Redis",
    ),
    _kind(
        "sentinel_not_saved", "critical", "", r"Sentinel was not able to save the new configuration|Sentinel config file .* is not writable",
        "the Sentinel cannot write its file: after a restart it would believe in a primary of the past",
        "give the file AND its directory to the Sentinel's user (redis_sentinel)",
    ),
    _kind(
        "disk_full", "critical", "disk", rf"{_FILE}.*No space left on device",
        "the disk has no space left: nothing more is saved, and Redis refuses writes with MISCONF",
        "free space on the file system of dir (df), then BGSAVE; an AOF goes on by itself",
    ),
    _kind(
        "disk_quota", "critical", "disk", rf"{_FILE}.*Disk quota exceeded",
        "the quota of Redis' user is used up",
        "raise the quota (repquota), then BGSAVE",
    ),
    _kind(
        "disk_io_error", "critical", "", rf"{_FILE}.*Input/output error",
        "the disk, or what is between it and the host, failed: what was written there may be gone",
        "copy the data away now; journalctl -k; smartctl -a; move dir to a disk that works",
    ),
    _kind(
        "disk_read_only", "critical", "disk", rf"{_FILE}.*Read-only file system",
        "the file system is mounted read-only (after an error of the disk), or the unit's confinement does not let Redis write there",
        "journalctl -k | grep -i remount; else add dir to ReadWritePaths= of the unit (role redisops.recovery.redis_service)",
    ),
    _kind(
        "no_permission", "critical", "disk", rf"{_FILE}.*(?:Permission denied|Operation not permitted)",
        "Redis' user may not write or read where its data is: somebody else's owner, mode or SELinux label",
        "ls -lZ on dir and its files; give them to Redis' user (redis_persistence), restorecon where SELinux is on",
    ),
    _kind(
        "aof_write_fatal", "critical", "start",
        r"Can't (?:recover from AOF write error|persist AOF for fsync error) when the AOF fsync policy is 'always'",
        "with appendfsync always Redis ends rather than accept a write that it cannot keep",
        "see the line before for the cause (most often a full disk), remove it, start the server",
    ),
    _kind(
        "aof_write_error", "critical", "aof", r"Error writing to the AOF file|Short write while writing to the AOF file|Could not remove short write",
        "the AOF could not be written; the writes of that second are at risk, and Redis refuses further ones with MISCONF",
        "df and journalctl -k for the file system of dir; Redis goes on by itself once it can write",
    ),
    _kind(
        "aof_fsync_failed", "critical", "", r"Fail(?:ed)? to fsync the (?:temp )?AOF file|Fail to fsync AOF directory",
        "the disk did not confirm that the AOF is on it; what it drops then, no later sync brings back",
        "journalctl -k; smartctl -a; BGREWRITEAOF once the disk works, which writes all of it anew",
    ),
    _kind(
        "aof_fsync_slow", "warning", "", r"Asynchronous AOF fsync is taking too long",
        "the disk takes over 2 s to sync: commands stand still, and with appendfsync everysec more than one second is at risk",
        "see who else writes to that disk (iotop, iostat -x 1); no-appendfsync-on-rewrite does not make the data safer",
    ),
    _kind(
        "rewrite_failed", "warning", "rewrite",
        r"Background AOF rewrite terminated with error|Write error writing append only file|AOF rewrite has repeatedly failed"
        r"|Opening the temp file for AOF rewrite|Error moving temp append only file|Can't open the append-only file",
        "the AOF could not be rewritten; the old files stay in use and go on growing, and a start takes longer",
        "see the line before for the cause: space for a second copy of the data, or memory; then BGREWRITEAOF",
    ),
    _kind(
        "shutdown_refused", "critical", "save",
        r"trying to save the DB, can't exit|SIGTERM received but errors trying to shut ?down|Errors trying to shut ?down the server",
        "the server was told to stop and did not, because its last save failed; a unit's time limit then kills it, and the data since is gone",
        "remove the cause (the line before names it) and stop it again; never kill -9 it before the data is saved",
    ),
    _kind(
        "save_failed", "critical", "save",
        r"Background saving error|Background (?:RDB )?transfer error|Write error (?:while )?saving DB|[Ff]ailed opening the (?:temp )?RDB file"
        r"|Error moving temp DB file|Error trying to save the DB",
        "an RDB save failed; with stop-writes-on-bgsave-error Redis refuses writes until one goes well",
        "see the line before for the cause (space, permission, memory), remove it, then BGSAVE",
    ),
    _kind(
        "misconf", "critical", "disk", r"MISCONF",
        "clients were refused their writes, because the server cannot make them durable",
        "INFO persistence says which: rdb_last_bgsave_status or aof_last_write_status; remove the cause, never switch the check off",
    ),
    # --- loading: most of these end the start ---
    _kind(
        "rdb_module_missing", "critical", "start", r"The RDB file contains (?:AUX )?module (?:AUX )?data",
        "the RDB holds data of a module that this server has not loaded",
        "load that module (loadmodule), of the same or a newer release, then start",
    ),
    _kind(
        "rdb_version", "critical", "start", r"Can't handle RDB format version",
        "a newer Redis wrote the file than the one that is to load it",
        "install the release that wrote it, or a newer one; do not start an empty server in its place",
    ),
    _kind(
        "rdb_wrong_signature", "critical", "start", r"Wrong signature trying to load DB from file",
        "the file under dbfilename is no RDB: something else wrote it, or its beginning is damaged",
        "redis_file_check; put another copy in its place: a replica's, or a backup (redisops.recovery.restore)",
    ),
    _kind(
        "rdb_bad_checksum", "critical", "start", r"Wrong RDB checksum|RDB CRC error",
        "a bit in the RDB was flipped since it was written: disk, memory, or a copy that went wrong",
        "put another copy in its place: a replica's, or a backup (redisops.recovery.restore); look at the disk and the memory",
    ),
    _kind(
        "rdb_duplicate_key", "critical", "start", r"RDB has duplicated key|Duplicated key found in RDB file",
        "the RDB names a key twice: it is damaged, or an old defect wrote it",
        "put another copy in its place: a replica's, or a backup (redisops.recovery.restore)",
    ),
    _kind(
        "aof_base_unreadable", "critical", "start", r"Error reading the RDB (?:preamble|base file)",
        "the base of the AOF is damaged: without it none of the increments can be used",
        "put another copy in its place: a replica's, or a backup (redisops.recovery.restore)",
    ),
    _kind(
        "rdb_short_read", "critical", "start", r"Short read or OOM loading DB|Unexpected EOF reading RDB file",
        "the RDB ends before its data does: the copy or the save was cut off, or memory ran out while loading",
        "redis_file_check tells which; put another copy in its place: a replica's, or a backup (redisops.recovery.restore)",
    ),
    _kind(
        "rdb_damaged", "critical", "start",
        r"Internal error in RDB reading|Unknown RDB (?:encoding type|integer encoding|string encoding)|Failure loading rdb format"
        r"|Terminating server after rdb file reading failure",
        "the content of the RDB makes no sense: it is damaged",
        "redis_file_check; put another copy in its place: a replica's, or a backup (redisops.recovery.restore)",
    ),
    _kind(
        "aof_not_last_truncated", "critical", "start", r"the truncated file is not the last file",
        "an increment that is not the last one ends within a command. Redis has cut it already: the next start loads WITH A HOLE in the data",
        "systemctl stop the unit before it starts again; use another copy: a replica, or a backup (redisops.recovery.restore)",
    ),
    _kind(
        "aof_truncated_refused", "critical", "start", r"Unexpected end of file reading the append only file",
        "the AOF ends within a command, and aof-load-truncated no makes Redis refuse to load it",
        "copy the directory away; redis-check-aof --fix on the copy's manifest; or set aof-load-truncated yes: what is lost is the last command",
    ),
    _kind(
        "aof_truncated_loaded", "warning", "",
        r"short read while loading the AOF file|!!! Truncating the AOF|loaded anyway because aof-load-truncated",
        "the AOF ended within a command; Redis cut that off and started: the last write or writes are gone, most often after a loss of power",
        "compare with what the clients know; a replica may have the write. BGREWRITEAOF now: if it was a transaction that was cut off, "
        "the next start would throw away all that is written since (finding aof_open_transaction)",
    ),
    _kind(
        "aof_bad_format", "critical", "start", r"Bad file format reading the append only file",
        "there are bytes inside the AOF that are no command: it is damaged, not merely cut off",
        "redis_file_check says where; use another copy: a replica, or a backup. redis-check-aof --fix drops all that is behind the place",
    ),
    _kind(
        "aof_unknown_command", "critical", "start", r"Unknown command '.*' reading the append only file",
        "the AOF holds a command that this server has not: a module that is not loaded, a renamed command, or an older release",
        "load the module, take back rename-command, or install the release that wrote it",
    ),
    _kind(
        "aof_manifest_bad", "critical", "start",
        r"FATAL AOF MANIFEST FILE ERROR|Invalid AOF manifest file format|Found an empty AOF manifest|Unknown AOF file type"
        r"|AOF manifest file contains too long line|Read AOF manifest failed|can't open the AOF manifest file",
        "the manifest that names the AOF's files cannot be read; do not delete it: without one Redis starts EMPTY next to the files",
        "put the manifest of a backup or one written by hand in its place: a line for the base, then one for each increment in order",
    ),
    _kind(
        "aof_file_missing", "critical", "start",
        r"Unable to obtain the AOF file .* length|The append log file .* doesn't exist|can't open the append log file",
        "the manifest names a file that is not there or cannot be opened",
        "find the file (a move by hand, an incomplete copy) or use another copy of the whole directory; do not delete the line from the manifest",
    ),
    _kind(
        "aof_unreadable", "critical", "start",
        r"Unrecoverable error reading the append only file|Can't open or create append-only dir|Can't seek the end of the AOF"
        r"|Error truncating the AOF",
        "the AOF could not be read to its end, for the reason that the line gives",
        "ls -lZ on the directory; journalctl -k for errors of the disk",
    ),
    _kind(
        "aof_absent", "info", "", r"The AOF (?:directory|manifest file) .* doesn't exist|Creating AOF base file .* on server start",
        "Redis found no AOF at start and began a new, empty one. Right on a new server; on an old one the name, the directory or the manifest"
        " changed, and the data is still in the old place",
        "compare the number of keys with what was there; where keys are missing stop it with SHUTDOWN NOSAVE and look for the old files",
    ),
    _kind(
        "too_few_databases", "critical", "start", r"configured to handle more than \d+ databases",
        "the data uses a database number that databases does not allow",
        "set databases to what it was, then start",
    ),
    # --- starting ---
    _kind(
        "config_error", "critical", "start",
        r"FATAL CONFIG FILE ERROR|Fatal error, can't open config file|Module Configuration detected without loadmodule|^>>> '",
        "the configuration file has a line that this server does not understand, or cannot be read",
        "correct the line that is named (redis-server FILE in the foreground prints it); for a directive of another release remove it",
    ),
    _kind(
        "cannot_chdir", "critical", "start", r"Can't chdir to",
        "the directory of dir does not exist, or Redis' user (or the unit's confinement) may not enter it",
        "create it for Redis' user, mount its file system, or correct dir; add it to ReadWritePaths= of the unit",
    ),
    _kind(
        "acl_error", "critical", "start",
        r"startup because of ACL errors|Critical error while loading ACLs|users defined in redis.conf and at the same setting an ACL file",
        "the ACL file is missing or has a line that this server does not understand",
        "correct the line that is named; redis_acl writes the file as this server understands it",
    ),
    _kind(
        "cannot_listen", "critical", "start",
        r"Could not create server TCP listening socket|Failed listening on port|Failed opening Unix socket|not listen anywhere",
        "the address is not one of this host's, or another program has the port",
        "ss -ltnp for the port; ip address for the address; correct bind or port",
    ),
    _kind(
        "tls_error", "critical", "start",
        r"Failed to configure TLS|tls-ca-cert-dir must be specified|Failed to load (?:certificate|private key)|Failed to configure CA certificate",
        "a certificate, a key or a CA cannot be read, or they do not belong together",
        "ls -l the files that are named; openssl x509 -in FILE -noout -text; redis_tls writes matching ones",
    ),
    _kind(
        "cluster_config_corrupt", "critical", "start", r"corrupted cluster config file",
        "the node's nodes.conf is damaged: it is state, and no file that can be written anew",
        "put the nodes.conf of a backup in its place; or let the node join as a new one while its shard has another copy",
    ),
    _kind(
        "cluster_config_taken", "critical", "start", r"cluster configuration file .* is already used by a different",
        "two nodes have the same cluster-config-file in the same directory, or an old process still runs",
        "ps for another server; give each node its own dir or cluster-config-file",
    ),
    _kind(
        "module_not_loaded", "critical", "start", r"Can't load module from .*: server aborting",
        "a module that the configuration names is missing, not executable, or made for another release",
        "ls -l the file that is named; install the module of this release, or take its loadmodule line out",
    ),
    _kind(
        "log_not_opened", "critical", "start", r"Can't open the log file",
        "the file of logfile cannot be written by Redis' user",
        "create its directory for Redis' user, or correct logfile",
    ),
    _kind(
        "too_few_open_files", "critical", "start", r"Your current 'ulimit -n' of \d+ is not enough",
        "the limit of open files is too low for the server to start at all",
        "raise LimitNOFILE= of the unit (role redisops.recovery.redis_service)",
    ),
    _kind(
        "load_failed", "critical", "start", r"Fatal error loading|FATAL: .*AOF can't be turned on",
        "the data could not be loaded, for the reason in the lines before",
        "see the lines before; redis_file_check on the files of dir",
    ),
    # --- memory and crashes ---
    _kind(
        "out_of_memory", "critical", "start", r"Out Of Memory allocating|zmalloc: Out of memory",
        "the server asked for memory that it was not given, and ended",
        "set maxmemory below what the host has, leave room for the copies of a save, add swap",
    ),
    _kind(
        "server_crashed", "critical", "start", r"crashed by signal|BUG REPORT START|ASSERTION FAILED|Guru Meditation",
        "the server crashed: a defect, a command that met one, or bad memory of the machine",
        "keep the report between START and END; update to the last release of this line; redis-server --test-memory",
    ),
    # --- the end, as systemd and the server tell it ---
    _kind(
        "unit_out_of_memory", "critical", "start", r"Failed with result 'oom-kill'|killed by the OOM killer",
        "memory ran out, of the host or of the unit's own limit, and a process of the unit was ended for it",
        "set maxmemory to leave room for a save, add swap or memory; systemctl show -p MemoryMax UNIT",
    ),
    _kind(
        "unit_timed_out", "critical", "start", r"Failed with result 'timeout'|timed out\. (?:Killing|Terminating|Aborting)",
        "systemd did not wait until the data was loaded, or until the last save was written, and ended the server",
        "set TimeoutStartSec and TimeoutStopSec of the unit to infinity (role redisops.recovery.redis_service)",
    ),
    _kind(
        "unit_gave_up", "critical", "start", r"Start request repeated too quickly",
        "the server failed at its start several times in a row, and systemd tries no more",
        "remove what the lines before name; then systemctl reset-failed UNIT and start it",
    ),
    _kind(
        "unit_killed", "critical", "start", r"Main process exited, code=(?:killed|dumped)",
        "the server did not end by itself: somebody sent it a signal, or it crashed",
        "see the signal in the line: 9 is kill -9 or the kernel's OOM killer (journalctl -k), 11 and 6 are a crash",
    ),
    _kind(
        "server_stopped", "info", "start", r"ready to exit, bye bye",
        "the server was asked to stop, and did so in order",
        "start it when that is over: systemctl start UNIT",
    ),
    # --- limits and the kernel at start; the check of the host says whether it is still so ---
    _kind(
        "maxclients_reduced", "warning", "", r"maxclients has been reduced to",
        "fewer clients are let in than maxclients says, because the limit of open files is too low",
        "raise LimitNOFILE= of the unit (role redisops.recovery.redis_service), restart",
    ),
    _kind(
        "started_without_overcommit", "info", "", r"[Mm]emory overcommit must be enabled|overcommit_memory is set to 0",
        "at the time of the start vm.overcommit_memory was not 1",
        "see the finding overcommit for whether it still is so",
    ),
    _kind(
        "started_with_thp", "info", "", r"Transparent Huge Pages \(THP\) support enabled",
        "at the time of the start transparent huge pages were on",
        "see the finding thp for whether they still are",
    ),
    _kind(
        "started_with_short_backlog", "info", "", r"TCP backlog setting of \d+ cannot be enforced",
        "at the time of the start net.core.somaxconn was below tcp-backlog",
        "see the finding backlog for whether it still is",
    ),
    # --- replication ---
    _kind(
        "replica_no_auth", "critical", "link", r"Unable to AUTH to MASTER|reply to P(?:SYNC|ING) from master: '?-(?:NOAUTH|NOPERM|WRONGPASS)",
        "the primary does not accept this replica's user or password: the copy gets no further writes",
        "set masteruser and masterauth to a user of the primary that may +psync +replconf +ping (redis_acl)",
    ),
    _kind(
        "replica_cannot_write", "critical", "", r"Replica (?:was unable to write command to disk|is applying a command even though it is unable)",
        "the replica keeps what it was sent in memory only: after a restart it would have less",
        "df and journalctl -k for the file system of its dir",
    ),
    _kind(
        "output_buffer_full", "warning", "", r"(?:scheduled to be closed ASAP|closed) for overcoming of output buffer limits",
        "a client or replica read too slowly and was cut off; a replica then copies everything anew, in a loop where the limit is too low",
        "for replicas raise client-output-buffer-limit replica and repl-backlog-size (redis_replication)",
    ),
    _kind(
        "replica_timeout", "warning", "link",
        r"MASTER timeout: no data nor PING|Timeout (?:receiving bulk data from|connecting to the) MASTER|Disconnecting timedout replica",
        "primary and replica heard nothing of each other for repl-timeout: network, or a process that stood still",
        "see the round trip (redis_host_info), the slow log, and repl-timeout for big data",
    ),
    _kind(
        "sync_failed", "warning", "link",
        r"Failed trying to (?:load the MASTER|sync the temp DB|rename the temp DB)|SYNC failed|Write error or short write writing to the DB dump file"
        r"|MASTER aborted replication|BGSAVE failed, replication can't continue|I/O error trying to sync with MASTER",
        "a replica could not be given a whole copy",
        "see the line for the cause; space on the replica's disk, memory on the primary",
    ),
    # --- Sentinel's own log; the other line of it stands above, before the errors of the system ---
    _kind(
        "sentinel_tilt_entered", "warning", "", r"\+tilt",
        "the Sentinel's clock jumped or it stood still, and it decided nothing for 30 s",
        "see steal and load of its host, and the clock (chronyc tracking)",
    ),
)  # fmt: skip

#: Lines of the kernel's log. They name causes that a server cannot see.
KERNEL: tuple[Kind, ...] = (
    _kind(
        "oom_killer", "critical", "", r"(?:Out of memory|Memory cgroup out of memory):? Kill(?:ed)? process \d+ \((?:redis|valkey|keydb)",
        "memory ran out, and the kernel ended a process of Redis: the server, or the one that was saving",
        "set maxmemory to leave room for a save, add swap or memory; in a container raise its limit",
    ),
    _kind(
        "oom_killer_elsewhere", "warning", "", r"(?:Out of memory|Memory cgroup out of memory):? Kill(?:ed)? process \d+ \(",
        "memory ran out, and the kernel ended another process of this host: Redis can be the next",
        "see what uses the memory (ps --sort=-rss), add swap or memory",
    ),
    _kind(
        "kernel_disk_error", "critical", "",
        r"I/O error,? (?:on )?dev(?:ice)? \S+|critical medium error|EXT4-fs error"
        r"|XFS \(\S+\): .*(?:error|Corruption|[Ss]hut)|BTRFS.*error|Buffer I/O error|Remounting filesystem read-only",
        "the kernel could not read or write a disk, or found its file system damaged",
        "copy the data away now (redisops.recovery.backup); smartctl -a; replace the disk",
    ),
    _kind(
        "kernel_machine_check", "critical", "", r"Machine check events logged|Hardware Error\]|EDAC .* (?:UE|CE) ",
        "the machine reports errors of memory or CPU: bits that flip there are saved as they are",
        "ras-mc-ctl --errors or mcelog; replace the memory; compare the data with a replica",
    ),
    _kind(
        "kernel_hung_task", "warning", "", r"INFO: task \S+ blocked for more than \d+ seconds",
        "a process waited for the disk for minutes",
        "iostat -x 1; the storage behind a virtual machine; see the finding disk_wait",
    ),
)  # fmt: skip

KINDS: t.Mapping[str, Kind] = {kind.code: kind for kind in (*SERVER, *KERNEL)}


def kind_of(line: str, kinds: t.Sequence[Kind] = SERVER) -> t.Optional[Kind]:
    """The kind that a line is of; None for one that tells of nothing here."""
    return next((kind for kind in kinds if kind.pattern.search(line)), None)
