#!/bin/sh
# What a refused run must leave as it is: the process, its settings and keys, the unit's state, and every file of ours.
timeout 5 redis-cli INFO server | grep -E 'run_id|process_id'
timeout 5 redis-cli CONFIG GET appendonly
timeout 5 redis-cli DBSIZE
systemctl show redis-server -p MainPID,ActiveState,UnitFileState
find /etc/redis /var/lib/redis /etc/systemd/system -type f -not -name 'temp-*' -exec sha256sum {} + | sort -k 2
