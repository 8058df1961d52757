# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users by their task: the least that each needs, and what this collection itself needs."""

from __future__ import annotations

__all__ = ["LINK", "OURS", "PRESETS", "SENTINEL"]

#: What a replica does on its primary (Redis documentation, "ACL rules for Sentinel and Replicas").
LINK = ("psync", "replconf", "ping")
#: What Sentinel does on the servers that it watches (same page).
SENTINEL = (
    "multi", "slaveof", "ping", "exec", "subscribe", "config|rewrite", "role", "publish", "info", "client|setname", "client|kill",
    "script|kill",
)  # fmt: skip
#: What says how a server does, and none of its settings: CONFIG GET shows masterauth, which is worth all data.
_STATE = (
    "ping", "info", "client|list", "client|setname", "dbsize", "lastsave", "role", "time", "slowlog|get", "slowlog|len",
    "latency|latest", "latency|histogram", "memory|stats", "cluster|info", "cluster|nodes", "cluster|slots",
)  # fmt: skip
#: Libraries and scripts are every application's of the server; neither @admin nor @dangerous has these.
_OF_ALL = (
    "function|load",
    "function|delete",
    "function|flush",
    "function|restore",
    "function|kill",
    "script|flush",
    "script|kill",
)
PRESETS = {
    "admin": ("~*", "&*", "+@all"),
    # Keys and channels are the application's own to declare.
    "application": ("+@all", "-@admin", "-@dangerous", *(f"-{name}" for name in _OF_ALL)),
    # The settings as well: for what runs as root on the server's own host, redis_health_info and the timer of its metrics.
    "health": ("-@all", *(f"+{name}" for name in (*_STATE, "config|get"))),
    "monitoring": ("-@all", *(f"+{name}" for name in _STATE)),
    "persistence": ("-@all", "+ping", "+bgsave", "+bgrewriteaof", "+lastsave", "+info"),
    "replication": ("-@all", *(f"+{name}" for name in LINK)),
    "sentinel": ("&*", "-@all", *(f"+{name}" for name in SENTINEL)),
}  # fmt: skip
#: What the modules of this collection send to a server.
OURS = (
    "acl|cat", "acl|deluser", "acl|list", "acl|setuser", "asking", "bgrewriteaof", "bgsave", "client|id", "client|kill", "client|list",
    "client|pause", "client|unpause", "cluster|addslots", "cluster|countkeysinslot", "cluster|failover", "cluster|forget",
    "cluster|getkeysinslot", "cluster|info", "cluster|meet", "cluster|nodes", "cluster|replicate", "cluster|reset", "cluster|set-config-epoch",
    "cluster|setslot", "config|get", "config|rewrite", "config|set", "dump", "failover", "info", "migrate", "ping", "pttl", "pubsub|numsub",
    "replicaof", "restore-asking", "role",
)  # fmt: skip
