# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a replication group, asked over the network, and the link to the primary."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import (
    GroupHosts,
    look,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.plan import require_joinable
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    split_endpoint,
    view_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    Server,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause

__all__ = ["follow", "wait_for_replicas"]

#: Longer than one question to the primary takes; short for clients, should the run be cut off meanwhile.
_PAUSE_SECONDS = 15.0


def follow(server: Server, group_hosts: GroupHosts, primary: str, timeout: float) -> None:
    """Become a replica of ``primary``, and wait until the data is there and the link is up. Raises Refusal or Problem.

    Writes are paused while it is verified once more that nothing is thrown away. After a Problem the server is what it was told to be:
    a replica that goes on trying.
    """
    host, port = split_endpoint(primary)
    pause = WritePause(server.command, _PAUSE_SECONDS)
    pause.renew()
    try:
        there_now = look(group_hosts, primary, server.login)
        require_joinable(group_hosts.spelled(view_of(server.info(), group_hosts.own)), there_now)
        if pause.lasted > _PAUSE_SECONDS / 2:
            raise Problem(
                "primary_unreachable", f"{primary} took {pause.lasted:.0f} seconds to answer; writes could not be paused for so long, "
                "and nothing has been changed", "an answer while writes are paused", "look at the network and at DNS, then run again",
            )  # fmt: skip
        server.command("REPLICAOF", host, port)
    finally:
        pause.end()
    last: list[str] = [""]

    def up() -> bool:
        info = server.info("replication")
        last[:] = [f"{info.text('master_link_status')}, {info.text('master_sync_in_progress')} synchronising"]
        return info.text("master_link_status") == "up"

    if not wait_for(up, timeout):
        raise Problem(
            "link_down", f"the link to {primary} is not up after {timeout:g} seconds ({last[0]}); the server goes on trying",
            "a primary that lets this server in as its replica",
            "look into the log of both; masteruser and masterauth (role redis_acl), tls-replication and the firewall are the usual causes",
        )  # fmt: skip


def wait_for_replicas(server: Server, needed: int, timeout: float) -> None:
    """Until as many replicas are linked as writes will depend on. Raises Refusal; then nothing has been changed."""
    if wait_for(lambda: sum(one.online for one in view_of(server.info("replication"), "").replicas) >= needed, timeout):
        return
    raise Refusal(
        "replicas_missing",
        f"this primary would take no write without {needed} linked replica(s), and fewer are linked after {timeout:g} seconds",
        "the replicas first", "run the role on the whole group (without --limit), or look into the replicas' logs; or set min_replicas_to_write",
    )  # fmt: skip
