# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A planned switch of the primary without losing a write.

Writes are paused on the old primary until the new one has every byte of its stream, and stay paused until the old one is a replica itself.
So no write that was acknowledged is missing afterwards; clients wait, or are told to try again.
"""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.collect import GroupHosts, login_at
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import (
    View,
    contains,
    endpoint,
    split_endpoint,
    view_of,
)
from ansible_collections.redisops.recovery.plugins.module_utils.replication.switchover_plan import (
    Candidate,
    SentinelView,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import (
    CommandError,
    Login,
    Server,
    ServerDown,
    connect,
    wait_for,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, parse_info
from ansible_collections.redisops.recovery.plugins.module_utils.server.pause import WritePause

__all__ = ["Switch", "read_sentinels", "wait_for_priority"]

#: Seconds for which writes stay paused if this run is cut off; while it runs the pause is renewed.
PAUSE_SECONDS = 60
CATCH_UP_SECONDS = 10.0
PROMOTE_SECONDS = 45.0


def _pairs(answer: t.Any) -> dict[str, str]:
    return dict(answer.items()) if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2]))


def read_sentinels(sentinels: t.Sequence[str], name: str, login: Login, group_hosts: GroupHosts) -> list[SentinelView]:
    """What each Sentinel that answers says. Raises Problem where one does not know ``name``."""
    found = []
    for sentinel in sentinels:
        try:
            server = connect(login_at(login, endpoint(*split_endpoint(sentinel, 26379))), 5.0)
        except Problem:
            continue
        try:
            master = _pairs(server.command("SENTINEL", "MASTER", name))
            try:
                quorum = str(server.command("SENTINEL", "CKQUORUM", name))
            except CommandError as error:
                quorum = error.text
            found.append(
                SentinelView(
                    sentinel,
                    quorum,
                    server.info("sentinel").text("sentinel_tilt", "0") != "0",
                    master["flags"],
                    master.get("failover-state", ""),
                    group_hosts.of(endpoint(master["ip"], int(master["port"]))),
                )
            )
        except CommandError as error:
            raise Problem(
                "unknown_primary_name", f"the Sentinel at {sentinel} does not know {name}: {error.text}", "the name by which they watch the group",
                "correct primary_name (SENTINEL MASTERS on a Sentinel shows the names)",
            ) from None  # fmt: skip
        finally:
            server.close()
    return found


def wait_for_priority(
    sentinels: t.Sequence[str], name: str, login: Login, group_hosts: GroupHosts, target: str, priority: int
) -> bool:
    """Until every Sentinel that answers has seen the target's replica-priority (it asks every ten seconds)."""

    def seen() -> bool:
        for sentinel in sentinels:
            try:
                server = connect(login_at(login, endpoint(*split_endpoint(sentinel, 26379))), 5.0)
            except Problem:
                continue
            try:
                rows = [_pairs(row) for row in server.command("SENTINEL", "REPLICAS", name)]
            finally:
                server.close()
            mine = [row for row in rows if group_hosts.of(endpoint(row["ip"], int(row["port"]))) == target]
            if not mine or int(mine[0]["slave-priority"]) != priority:
                return False
        return True

    return wait_for(seen, 25.0)


class Switch:
    """One switch from ``primary`` to ``target``; ``servers`` are connections by member, ``linked`` the replicas that Sentinel may choose from.

    Sentinel ends the connections of every server that it gives another role (CLIENT KILL TYPE normal), ours among them.
    Once somebody was told to promote, writes go on only where it is known that the old primary is none, or that nobody was promoted.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        group_hosts: GroupHosts,
        primary: View,
        target: Candidate,
        linked: t.Sequence[str] = (),
    ) -> None:
        self._servers, self._members = servers, group_hosts
        self.primary, self.target = primary.address, target.view.address
        self._linked = [self.target, *(one for one in linked if one != self.target)]
        self._history, self._paused_at = primary.id, primary.offset
        self._pause = WritePause(functools.partial(self.command, self.primary), PAUSE_SECONDS)
        self.gap_ms = 0
        self.warnings: list[str] = []

    def command(self, address: str, *words: t.Union[str, int]) -> t.Any:
        """One command to one host of the group, over a new connection where the old one was ended. Raises Problem."""
        try:
            return self._servers[address].command(*words)
        except ServerDown:
            self._servers[address] = connect(login_at(self._servers[address].login, address), 5.0)
            return self._servers[address].command(*words)

    def _info(self, address: str) -> Info:
        return parse_info(self.command(address, "INFO", "everything"))

    def _view(self, address: str) -> View:
        return self._members.spelled(view_of(self._info(address), address))

    def _behind(self) -> list[str]:
        """Who does not have every byte yet."""
        views = [self._view(address) for address in self._linked]
        now = self._view(self.primary)
        self._history, self._paused_at = now.id, now.offset
        return [view.address for view in views if view.offset < now.offset or view.id != now.id or not view.link_up]

    def pause_until_caught_up(self) -> None:
        """Pause writes until the target, and whoever else may be promoted, has every byte. Raises Problem; then writes go on."""
        try:
            self._pause.renew()
            if wait_for(lambda: not self._behind(), CATCH_UP_SECONDS):
                return
            raise Problem(
                "target_not_caught_up", f"{', '.join(self._behind()) or self.target} did not catch up with {self.primary} within {CATCH_UP_SECONDS:g} "
                "seconds of paused writes; writes go on, and the primary is the same", "replicas that can follow",
                "look at disk and network, then run again",
            )  # fmt: skip
        except BaseException:
            self.end_pause()
            raise

    def end_pause(self) -> None:
        """Let writes go on."""
        self._pause.end()

    def by_sentinel(self, sentinel: Server, name: str) -> None:
        """Sentinel promotes and tells everybody. Raises Problem."""
        try:
            sentinel.command("SENTINEL", "FAILOVER", name)
        except ServerDown:
            pass  # it may have heard
        except CommandError as error:
            if error.prefix != "INPROG":
                self._refused("Sentinel", error)
        # Sentinel itself tells the old primary some ten seconds later only; what it is reported here is what Sentinel has decided.
        self._finish(
            "Sentinel",
            lambda: "failover_in_progress" not in _pairs(sentinel.command("SENTINEL", "MASTER", name))["flags"],
        )

    def by_hand(self) -> None:
        """Without Sentinel: the old primary hands over by itself (FAILOVER), and ends or undoes it if this run is cut off. Raises Problem."""
        # The link is up for the replica up to a second before the primary counts it as online, and FAILOVER takes no other.
        wait_for(self._target_is_online, CATCH_UP_SECONDS)
        listed = [one.address for one in self._view(self.primary).replicas]
        as_listed = next((one for one in listed if self._members.of(one) == self.target), self.target)
        milliseconds = int(CATCH_UP_SECONDS * 1000)
        try:
            self.command(self.primary, "FAILOVER", "TO", *split_endpoint(as_listed), "TIMEOUT", milliseconds)
        except CommandError as error:
            if self._stopped():
                self._refused(f"{self.primary}, which lists its replicas as {', '.join(listed)},", error)
        self._finish(self.primary, self._stopped)
        for address in self._servers:
            if address not in (self.primary, self.target):
                try:
                    self.command(address, "REPLICAOF", *split_endpoint(self.target))
                except Problem:
                    pass  # wait_for_links() names it

    def _target_is_online(self) -> bool:
        """Whether the primary counts the target as a replica that follows; also where it lists none that is known to be the target."""
        rows = [one for one in self._view(self.primary).replicas if self._members.of(one.address) == self.target]
        return all(one.online for one in rows)

    def _stopped(self) -> bool:
        info = self._info(self.primary)
        return info.text("role") == "master" and info.text("master_failover_state", "no-failover") == "no-failover"

    def _refused(self, who: str, error: CommandError) -> t.NoReturn:
        self.end_pause()
        raise Problem(
            "failover_refused", f"{who} refuses the failover: {error.text}; writes go on, and the primary is the same", "",
            "see SENTINEL MASTER and SENTINEL REPLICAS, or INFO replication, then run again",
        )  # fmt: skip

    def _moved(self) -> bool:
        """Whether somebody who has every byte is primary, and the old one is a replica of it. What cannot be asked has not moved yet."""
        try:
            old = self._view(self.primary)
            if old.role == "primary":
                self._pause.renew(always=True)
            end = old.offset if self._pause.lapsed and old.role == "primary" else self._paused_at
            known = View("", "primary", id=self._history, offset=end)
            views = (self._view(address) for address in self._linked)
            new = next((view for view in views if view.role == "primary" and contains(view, known)), None)
            if new is None:
                return False
            self._linked = [new.address]
            if old.role == "replica" and old.upstream == new.address:
                return True
            self.command(self.primary, "REPLICAOF", *split_endpoint(new.address))
        except Problem:
            pass
        return False

    def _finish(self, who: str, stopped: t.Callable[[], bool]) -> None:
        if wait_for(self._moved, PROMOTE_SECONDS):
            self.end_pause()
            wait_for(self._takes_writes, CATCH_UP_SECONDS)
            self.gap_ms = int(self._pause.lasted * 1000)
            chosen = self._linked[0]
            if chosen != self.target:
                raise Problem(
                    "other_promoted", f"{who} promoted {chosen} and not {self.target}; it had every byte, no write is missing, and it takes writes",
                    "one replica with the smallest replica-priority", "look at replica-priority on all hosts of the group, then run again",
                )  # fmt: skip
            return
        try:
            same = stopped() and all(self._view(address).role == "replica" for address in self._linked)
            same = same and self._view(self.primary).role == "primary"
        except Problem:
            same = False
        if same:
            self.end_pause()
        ends = "writes go on, and the primary is the same" if same else (
            f"somebody may have been promoted, so {self.primary} pauses writes for {PAUSE_SECONDS} seconds more"
        )  # fmt: skip
        raise Problem(
            "switch_unfinished", f"{who} did not finish the switch within {PROMOTE_SECONDS:g} seconds; {ends}",
            "one primary", "see who is primary (SENTINEL GET-MASTER-ADDR-BY-NAME, ROLE on each), then run the role redis_replication",
        )  # fmt: skip

    def _takes_writes(self) -> bool:
        """Whether the new primary has the replicas without which it refuses writes."""
        try:
            needed = self.command(self._linked[0], "CONFIG", "GET", "min-replicas-to-write")
            return sum(one.online for one in self._view(self._linked[0]).replicas) >= int(
                _pairs(needed)["min-replicas-to-write"]
            )
        except Problem:
            return False

    def restore_priority(self, priority: int) -> None:
        """Give the target its own replica-priority again, also in its file: Sentinel had it rewritten while it promoted."""
        try:
            self.command(self.target, "CONFIG", "SET", "replica-priority", priority)
            if self._view(self.target).role == "primary":
                self.command(self.target, "CONFIG", "REWRITE")
        except Problem as problem:
            self.warnings.append(
                f"replica-priority of {self.target} should be {priority} again, live and in its file: {problem.detected}"
            )

    def wait_for_links(self, seconds: float) -> list[str]:
        """GroupHosts that are not linked to the new primary after that time."""

        def linked(address: str) -> bool:
            try:
                view = self._view(address)
            except Problem:
                return False
            return view.link_up and view.upstream == self.target

        def loose() -> list[str]:
            return [address for address in self._servers if address != self.target and not linked(address)]

        wait_for(lambda: not loose(), seconds)
        return loose()
