# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is damaged, which ways there are to repair it, what each costs, and which one is taken.

A way is judged by the seconds of writes that it loses. Of two that lose the same the one that stands further up the methods is taken. Nothing
that loses more is taken in silence where a way that only waits for a word of the operator loses less.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_parser import LogEvent
from ansible_collections.redisops.recovery.plugins.module_utils.health.log_patterns import KINDS

__all__ = ["METHODS", "Copy", "Facts", "Loss", "Method", "Peer", "Plan", "Way", "choose", "plan"]

#: From the top of the methods down.
METHODS = ("memory", "manifest", "backup", "replica", "archive", "snapshot", "truncation")
_NEVER = float("inf")
#: The verdicts of file_verdict that take nothing away from what Redis loads.
_FINE = ("good", "unchecked", "empty", "unreferenced")


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a way does not bring back of what the files held; None: not known. ``seconds`` of writes."""

    bytes: t.Optional[int] = None
    commands: t.Optional[int] = None
    seconds: t.Optional[float] = None

    @property
    def loss_text(self) -> str:
        counts = (("byte", self.bytes), ("command", self.commands))
        parts = [f"{value} {name}{'' if value == 1 else 's'}" for name, value in counts if value is not None]
        parts += [f"{self.seconds:g} s of writes"] if self.seconds is not None else []
        unknown = [name for name, value in vars(self).items() if value is None]
        return (
            ", ".join(parts) + (f" ({', '.join(unknown)} not known)" if unknown and parts else "")
            or "how much is not known"
        )


NOTHING = Loss(0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Copy:
    """A verified backup. ``where`` is empty on this host, else ``kind`` (``repository`` or ``member``) tells what it names.

    ``at`` in seconds since 1970. ``same``: it was made by the very save that made the damaged RDB file. ``problem``: why it cannot be used.
    ``state`` is replication id and offset of its data, empty where it is not known.
    """

    label: str
    at: float
    where: str = ""
    kind: str = ""
    keys: t.Optional[int] = None
    same: bool = False
    state: tuple[str, int] = ("", 0)
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another host of the group. ``because`` is why it could not be asked. ``heard_at``: up to which second it heard its primary; None: it does to this moment.

    ``copied_keys``: how many keys its last full copy of a primary, or its start, brought it; None where it does not say.
    """

    address: str
    role: str = ""
    keys: int = 0
    heard_at: t.Optional[float] = None
    copied_keys: t.Optional[int] = None
    state: tuple[str, int] = ("", 0)
    because: str = ""

    @property
    def streams(self) -> bool:
        """Redis gives a copy of its data to nobody while the link to its own primary is down."""
        return self.heard_at is None


@dataclasses.dataclass(frozen=True)
class Way:
    """A way that the files next to the damaged ones give. ``estimate``: seconds, where ``loses`` does not know them. ``keys``: where counted."""

    possible: bool
    because: str
    loses: Loss = NOTHING
    estimate: float = _NEVER
    keys: t.Optional[int] = None

    @property
    def weight(self) -> float:
        return self.estimate if self.loses.seconds is None else self.loses.seconds


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that is known. ``files`` are rows of FileVerdict; ``wrote_at`` is the second of the last write that the files held.

    ``traces``: files of an AOF lie there. ``doubt``: why the memory of the running server may not be the data, empty where nothing speaks
    against it. ``had_keys``: the most keys that anything (a verified backup, a file) shows of before; None where nothing does. ``notes``: what
    could not be asked.
    """

    files: t.Sequence[t.Mapping[str, t.Any]]
    events: t.Sequence[LogEvent] = ()
    running: bool = False
    aof: bool = True
    keys: int = 0
    wrote_at: t.Optional[float] = None
    traces: bool = False
    doubt: str = ""
    had_keys: t.Optional[int] = None
    copies: t.Sequence[Copy] = ()
    peers: t.Sequence[Peer] = ()
    ways: t.Mapping[str, Way] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Method:
    """One way. ``needs``: the option without which it is not taken. ``source``: the backup's label, or the member; ``where`` a backup lies.

    ``kind``: of a backup as Copy's; of a replica ``there`` where the backup has to be taken on its own host. ``had``: the most keys that anything
    shows of before, where nobody gave a word for fewer.
    """

    method: str
    possible: bool
    because: str
    loses: Loss = Loss()
    do: str = ""
    needs: str = ""
    source: str = ""
    where: str = ""
    kind: str = ""
    weight: float = _NEVER
    had: int = 0

    def row(self) -> dict[str, t.Any]:
        return {
            "method": self.method,
            "possible": self.possible,
            "because": self.because,
            "loses": dataclasses.asdict(self.loses),
            "do": self.do,
            "needs": self.needs,
            "source": self.source,
            "where": self.where,
        }


@dataclasses.dataclass(frozen=True)
class Plan:
    """``state`` is ``good``, ``stopped`` (whole files, no server), ``newer`` (of a newer release) or ``damaged``; then there is a methods."""

    state: str
    damaged: tuple[t.Mapping[str, t.Any], ...]
    cause: t.Optional[dict[str, t.Any]]
    methods: tuple[Method, ...] = ()


def _cause(events: t.Sequence[LogEvent]) -> t.Optional[dict[str, t.Any]]:
    """The last line of the log that tells why a start failed, if no start went well after it."""
    kinds = ((one, KINDS[one.code]) for one in events if not one.over)
    fatal = [one for one, kind in kinds if kind.topic == "start" and kind.severity == "critical"]
    if not fatal:
        return None
    last = max(fatal, key=lambda one: one.last or "")
    kind = KINDS[last.code]
    return {"code": last.code, "line": last.line, "last": last.last, "why": kind.why, "do": kind.do}


def _damaged(facts: Facts) -> list[t.Mapping[str, t.Any]]:
    """The rows that a repair is for. No file at all is damage only where something shows that there was data."""
    found = [row for row in facts.files if row["verdict"] not in _FINE]
    if [row["verdict"] for row in found] == ["missing"] and found[0]["kind"] == "unknown":
        known = facts.had_keys or facts.keys or facts.traces or any(peer.keys for peer in facts.peers)
        if not known or (facts.running and not facts.aof):
            return []
    return found


def _too_few(keys: int, had: t.Optional[int]) -> bool:
    """So few, against what there was, that they are more likely what an empty start left than what was deleted."""
    return had is not None and keys * 2 < had


def _memory(facts: Facts) -> Method:
    if not facts.running:
        return Method("memory", False, "the server does not run")
    if facts.doubt or _too_few(facts.keys, facts.had_keys):
        because = (
            facts.doubt
            or f"the running server has {facts.keys} keys, and there were {facts.had_keys}: it may have started without its data"
        )
        return Method(
            "memory",
            not facts.doubt,
            because,
            NOTHING,
            "see which of the two is the data; name method: memory if it is the server's",
            "method",
            weight=0,
        )
    how = "BGREWRITEAOF" if facts.aof else "BGSAVE"
    return Method(
        "memory", True, f"the server runs and has {facts.keys} keys; only its files are damaged", NOTHING, how, weight=0
    )


def _since(facts: Facts, moment: float) -> t.Optional[float]:
    """Seconds of writes between ``moment`` and the last one."""
    return None if facts.wrote_at is None else round(max(facts.wrote_at - moment, 0.0), 1)


def _weight(loses: Loss) -> float:
    return _NEVER if loses.seconds is None else loses.seconds


def _reaches(copy: Copy, peers: t.Iterable[Peer]) -> float:
    """The second up to which a backup has the data: one of a replica has no more than that replica had heard."""
    heard = [one.heard_at for one in peers if one.heard_at is not None and one.state == copy.state and copy.state[0]]
    return min([copy.at, *heard])


def _backup(facts: Facts) -> Method:
    usable = [one for one in facts.copies if not one.problem]
    notes = "; ".join([*(f"{one.label}: {one.problem}" for one in facts.copies if one.problem), *facts.notes])
    stated = f" ({notes})" if notes else ""
    if not usable:
        return Method("backup", False, f"there is no verified backup{stated}", do="take backups (role redis_backup)")
    # The one that reaches furthest; where it lies in several places, the nearest.
    nearest = {"": 0, "repository": 1, "member": 2}
    best = min(usable, key=lambda one: (-_reaches(one, facts.peers), nearest[one.kind], one.where))
    loses = NOTHING if best.same else Loss(None, None, _since(facts, _reaches(best, facts.peers)))
    words = "made by the very save that made the damaged file" if best.same else "the newest verified one"
    place = {"": "", "repository": f" in {best.where}", "member": f" on {best.where}"}[best.kind]
    do, needs = "restore it", ""
    if best.keys is not None and _too_few(best.keys, facts.had_keys):
        words += (
            f"; it has {best.keys} keys, and there were {facts.had_keys}: it may be of a server that had lost its data"
        )
        do, needs = "see which backup has the data; name method: backup, and its label as backup", "method"
    return Method(
        "backup", True, f"{best.label}{place}, {words}{stated}", loses, do, needs, best.label, best.where, best.kind, _weight(loses)
    )  # fmt: skip


def _peer_method(facts: Facts, peer: Peer) -> Method:
    there = f"{peer.address}, a {peer.role} with {peer.keys} keys"
    if peer.because:
        return Method("replica", False, f"{peer.address}: {peer.because}")
    if not peer.keys:
        return Method("replica", False, f"{there}: it follows or followed a primary that was empty, or never had data")
    loses, do, needs, kind = NOTHING, "take a backup of it over the network, and restore that", "", ""
    weight = None
    if peer.role == "primary":
        # What it had not heard before it was promoted nobody knows; and nothing that is restored here would bring it back to the group.
        loses, weight = Loss(), 0.0
        there += ", which the set has by now: whatever is restored here would follow it"
    elif peer.heard_at is not None:
        loses = Loss(None, None, _since(facts, peer.heard_at))
        there += f", whose primary was last heard {'after' if loses.seconds == 0 else 'before'} the last write of this server"
    if not peer.streams:
        do, kind = (
            "take a backup on its host and bring it here (the playbook repair does): Redis streams to nobody while its primary is away",
            "there",
        )
    if _too_few(peer.keys, facts.had_keys):
        there += f"; there were {facts.had_keys} keys: it may have followed a primary that had started empty"
        do, needs = "look at what it holds; name method: replica to take it", "method"
    if peer.copied_keys is not None:
        there += f"; its last full copy of a primary, or its start, brought {peer.copied_keys} keys"
    return Method(
        "replica", True, there, loses, do, needs, peer.address, kind=kind, weight=_weight(loses) if weight is None else weight
    )  # fmt: skip


def _replica(facts: Facts) -> Method:
    methods = [_peer_method(facts, peer) for peer in facts.peers]
    fit = [one for one in methods if one.possible]
    if not fit:
        because = "; ".join(one.because for one in methods) or "no other member was named"
        return Method("replica", False, because, do="" if methods else "name group_hosts")
    return min(fit, key=lambda one: (bool(one.needs), one.weight, bool(one.kind)))


_DO = {
    "manifest": "write the manifest anew from the names of the files, on a copy, and load that copy",
    "archive": "put the AOF together from the live one and what was kept of it, and load the result",
    "snapshot": "make the RDB file that lies next to the AOF the base of a new one, and load the result",
    "truncation": "let redis-check-aof --fix cut a copy, compare the cut with our own reader's, and load that copy",
}


def _way(facts: Facts, name: str) -> Method:
    way = facts.ways.get(name)
    if way is None or not way.possible:
        return Method(
            name,
            False,
            way.because if way else "the server's data is an RDB file" if not facts.aof else "not looked for",
        )
    cuts = name in ("archive", "truncation") and way.loses.bytes != 0
    return Method(name, True, way.because, way.loses, _DO[name], "allow_truncation" if cuts else "", weight=way.weight)


def _is_unknown(method: Method) -> bool:
    return method.loses.seconds is None and method.weight == _NEVER


def _with_word(method: Method) -> Method:
    """A method whose loss is not known is only taken by its name. What the group's present primary has is another matter: it replaces this server's
    data whatever is brought back here.
    """
    if not method.possible or method.needs or not _is_unknown(method):
        return method
    return dataclasses.replace(
        method,
        needs="method",
        do=f"{method.do}. What it loses is not known: see what it holds, then name method: {method.method}",
    )


def _without_unlisted(method: Method) -> Method:
    """Files lie there that the manifest should name: what they hold, and any way that leaves them out would lose, nobody has counted."""
    if not method.possible or method.method in ("memory", "manifest"):
        return method
    return dataclasses.replace(method, loses=Loss(), weight=_NEVER)


def plan(facts: Facts) -> Plan:
    """What is the matter, and every way to repair it, in their order."""
    damaged, cause = _damaged(facts), _cause(facts.events)
    if not damaged:
        return Plan("good" if facts.running else "stopped", (), cause)
    if not facts.running and all(row["verdict"] == "newer_version" for row in damaged):
        return Plan("newer", tuple(damaged), cause)
    makers: dict[str, t.Callable[[Facts], Method]] = {"memory": _memory, "backup": _backup, "replica": _replica}
    methods = [makers[name](facts) if name in makers else _way(facts, name) for name in METHODS]
    if any(row["verdict"] == "unlisted" for row in damaged):
        methods = [_without_unlisted(method) for method in methods]
    methods = [_with_word(method) for method in methods]
    return Plan("damaged", tuple(damaged), cause, tuple(methods))


def _methods_text(methods: t.Iterable[Method]) -> str:
    return "; ".join(f"{one.method}: {one.because}" for one in methods)


def _named(found: Plan, wanted: str, files: str, allow_truncation: bool) -> Method:
    """The method that the operator named. Raises Refusal where it is not possible, or needs a word that was not given."""
    method = next(one for one in found.methods if one.method == wanted)
    if not method.possible:
        raise Refusal(
            "rung_not_possible",
            f"damaged: {files}. method {wanted} was named, and it is not possible: {method.because}",
            "another method",
            f"possible are: {', '.join(one.method for one in found.methods if one.possible) or 'none'}",
        )
    if method.needs == "allow_truncation" and not allow_truncation:
        raise _truncation(files, method, None)
    return method


def _require_undoubted(found: Plan, files: str, best: t.Optional[Method], doubtful: t.Optional[Method]) -> None:
    """The server's memory, or what would lose least, is not in doubt. Raises Refusal."""
    memory = next(one for one in found.methods if one.method == "memory")
    if best and memory.needs and not memory.possible:
        raise Refusal(
            "doubtful_source",
            f"damaged: {files}. The server runs, and its memory is in doubt: {memory.because}. To repair it by {best.method} ends it, and what only "
            "its memory holds is gone then",
            "your word on which one is the data",
            f"save what it holds first (redis-cli --rdb FILE, on a disk with room), then name method: {best.method} ({best.because}), which loses "
            f"{best.loses.loss_text}",
        )
    if doubtful:
        other = f"; or name method: {best.method} ({best.because}), which loses {best.loses.loss_text}" if best else ""
        raise Refusal(
            "doubtful_source",
            f"damaged: {files}. What would lose least is in doubt: {doubtful.method}: {doubtful.because}",
            "your word on which one is the data",
            doubtful.do + other,
        )


def _least(methods: t.Iterable[Method]) -> t.Optional[Method]:
    return min(methods, key=lambda one: one.weight, default=None)


def _lighter(one: t.Optional[Method], other: t.Optional[Method], equal: bool = False) -> bool:
    """Whether ``one`` loses less than ``other``, which may be none; with ``equal`` also where they lose the same."""
    return one is not None and (other is None or one.weight < other.weight or (equal and one.weight == other.weight))


def _by_loss(found: Plan, files: str, allow_truncation: bool) -> Method:
    """The possible method that loses least, of those that need nobody's word. Raises Refusal where one that needs it would lose less."""
    possible = [one for one in found.methods if one.possible]
    free = [one for one in possible if not one.needs or (one.needs == "allow_truncation" and allow_truncation)]
    asking = [one for one in possible if one not in free]
    best = _least(free)
    cut = _least(one for one in asking if one.needs == "allow_truncation")
    doubtful = next(
        (one for one in asking if one.needs == "method" and _lighter(one, best) and not _is_unknown(one)), None
    )
    _require_undoubted(found, files, best, None)
    if cut and _lighter(cut, best) and _lighter(cut, doubtful, equal=True):
        raise _truncation(files, cut, best)
    _require_undoubted(found, files, best, doubtful)
    unknown = [one for one in asking if one.needs == "method" and _is_unknown(one)]
    if best is None and unknown:
        raise Refusal(
            "loss_not_known",
            f"damaged: {files}. What is left: {_methods_text(unknown)}. What that loses is not known",
            "your word, since it takes the place of files that may hold more (they are kept)",
            "find what is missing first (a disk that is not mounted, a directory that was moved); else name "
            + " or ".join(f"method: {one.method}" for one in unknown),
        )
    if best is None:
        raise Refusal(
            "no_way_left",
            f"damaged: {files}. {_methods_text(found.methods)}",
            "an intact copy of the data",
            "find one: a backup on another host or in a repository, a replica, a disk image; name it, and run again",
        )
    return best


def choose(found: Plan, wanted: str, allow_truncation: bool) -> t.Optional[Method]:
    """The way that is taken; None where nothing is to be repaired. ``wanted`` is ``auto`` or a method's name. Raises Refusal."""
    if found.state == "newer":
        raise Refusal(
            "file_is_newer",
            f"{found.damaged[0]['path']} was written by a newer release: {found.damaged[0]['detail']}",
            "that release, or a newer one; the file is not damaged",
            "install it (role redis_install)",
        )
    if found.state != "damaged":
        return None
    files = ", ".join(f"{row['path']} ({row['verdict']})" for row in found.damaged)
    if wanted != "auto":
        return _named(found, wanted, files, allow_truncation)
    unknown = next((row for row in found.damaged if row["verdict"] == "unknown_command"), None)
    if unknown and not next(one for one in found.methods if one.method == "memory").possible:
        raise Refusal(
            "unknown_command",
            f"{unknown['path']} is whole, and a start on it would fail: {unknown['detail']} (offset {unknown['offset']})",
            "the release, the module or the rename-command line that it was written with",
            "give the server that, and no data is lost. If the name itself is damaged: name a method "
            f"({', '.join(one.method for one in found.methods if one.possible) or 'none is possible'})",
        )
    return _by_loss(found, files, allow_truncation)


def _truncation(files: str, cut: Method, best: t.Optional[Method]) -> Refusal:
    other = f"; or name method: {best.method} ({best.because}), which loses {best.loses.loss_text}" if best else ""
    return Refusal(
        "truncation_not_allowed",
        f"damaged: {files}. {cut.because}; cut there, what is lost: {cut.loses.loss_text}",
        "your word, since commands that the AOF holds are thrown away (the damaged files are kept)",
        f"set allow_truncation: true{other}",
    )
