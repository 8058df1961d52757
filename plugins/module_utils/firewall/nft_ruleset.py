# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One nftables table as values: rendered for ``nft -f``, read from ``nft -j list table``, both in one normal form.

The normal form of a rule is its text as ``nft -f`` takes it, without what the kernel counts. What versions of nft print
differently comes out the same: 0.9.8 and 1.0.6 leave the flag ``dynamic`` out, 0.9.8 a limit's default burst and what a set
statement limits, and writes 0.0.0.0/0 as a range; 1.1 lists chains before sets.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import typing as t

__all__ = [
    "FAMILY",
    "Chain",
    "NftSet",
    "Table",
    "parse_table",
    "render_table",
    "same_rule",
    "same_table",
    "short",
    "table_lines",
]

FAMILY = "inet"
#: Keys of a listed set that are reported otherwise, or are no part of what it means.
_PLAIN_SET = frozenset(
    ["family", "name", "table", "handle", "type", "flags", "size", "timeout", "elem", "comment", "count"]
)
#: What nft limits where no burst is given.
_DEFAULT_BURST = 5


@dataclasses.dataclass(frozen=True)
class NftSet:
    """A named set. ``elements`` of a ``dynamic`` one are what the kernel collected, and empty here."""

    name: str
    type: str
    elements: tuple[str, ...] = ()
    interval: bool = False
    dynamic: bool = False
    extra: str = ""  # what we never declare: another size, a map, …

    @property
    def text(self) -> str:
        words = [self.type] + [
            word for word, is_so in (("interval", self.interval), ("dynamic", self.dynamic)) if is_so
        ]
        return " ".join(
            [*words, *([self.extra] if self.extra else []), *([", ".join(self.elements)] if self.elements else [])]
        )


@dataclasses.dataclass(frozen=True)
class Chain:
    """A chain; ``hook`` is the declaration of a base chain, and empty for others."""

    name: str
    rules: tuple[str, ...] = ()
    hook: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of family inet. ``others`` are objects that we never declare."""

    name: str
    sets: tuple[NftSet, ...] = ()
    chains: tuple[Chain, ...] = ()
    others: tuple[str, ...] = ()


SIZE, TIMEOUT = 65535, 60


def render_table(table: t.Optional[Table], name: str, comment: str = "") -> str:
    """What ``nft -f`` makes the table of, in one transaction: created anew, or, for None, removed. Touches no other table."""
    head = f"table {FAMILY} {name}\ndelete table {FAMILY} {name}\n"
    if table is None:
        return head
    lines = [*(f"# {line}" for line in comment.splitlines()), *head.splitlines(), f"table {FAMILY} {name} {{"]
    for one in table.sets:
        lines += [f"\tset {one.name} {{", f"\t\ttype {one.type}"]
        lines += ["\t\tflags interval"] if one.interval else []
        if one.dynamic:
            lines += [f"\t\tsize {SIZE}", "\t\tflags dynamic,timeout", f"\t\ttimeout {TIMEOUT}s"]
        lines += [f"\t\telements = {{ {', '.join(one.elements)} }}"] if one.elements else []
        lines.append("\t}")
    for chain in table.chains:
        lines.append(f"\tchain {chain.name} {{")
        lines += [f"\t\t{line}" for line in ([chain.hook] if chain.hook else []) + list(chain.rules)]
        lines.append("\t}")
    return "\n".join([*lines, "}", ""])


def parse_table(listing: str, name: str) -> Table:
    """The table in what ``nft -j list table`` printed. Raises ValueError where that is no such listing."""
    start = listing.find('{"nftables"')
    if start < 0:
        raise ValueError("no JSON in what nft printed")
    try:
        return _table_of(json.JSONDecoder().raw_decode(listing[start:])[0]["nftables"], name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"nft printed JSON that cannot be read: {error}") from None


def _table_of(objects: t.Sequence[t.Mapping[str, t.Any]], name: str) -> Table:
    sets, others = [], []
    chains: dict[str, Chain] = {}
    rules: dict[str, list[str]] = {}
    for entry in objects:
        for kind, value in entry.items():
            if kind == "table":
                # dormant, for one; 1.0.6 prints rubbish for it
                others += ["flags of the table"] if value.get("flags") else []
            elif kind == "set":
                sets.append(_set_of(value))
            elif kind == "chain":
                chains[value["name"]] = Chain(value["name"], (), _hook_of(value))
            elif kind == "rule":
                rules.setdefault(value["chain"], []).append(_rule_of(value.get("expr", [])))
            elif kind != "metainfo":
                others.append(f"{kind} {value.get('name', '')}".strip())
    complete = [dataclasses.replace(chain, rules=tuple(rules.get(chain.name, ()))) for chain in chains.values()]
    return Table(name, tuple(sets), tuple(complete), tuple(others))


def _hook_of(chain: t.Mapping[str, t.Any]) -> str:
    if "hook" not in chain:
        return ""
    device = f" device {chain['dev']}" if chain.get("dev") else ""
    return f"type {chain['type']} hook {chain['hook']}{device} priority {chain.get('prio')}; policy {chain.get('policy', 'accept')};"


def _set_of(value: t.Mapping[str, t.Any]) -> NftSet:
    kind = value["type"] if isinstance(value["type"], str) else json.dumps(value["type"])
    flags = set(_listed(value.get("flags", [])))
    dynamic = "timeout" in flags
    extra = {key: value[key] for key in value if key not in _PLAIN_SET}
    if flags - {"interval", "timeout", "dynamic"}:
        extra["flags"] = sorted(flags)
    if dynamic and (value.get("size"), value.get("timeout")) != (SIZE, TIMEOUT):
        extra.update(size=value.get("size"), timeout=value.get("timeout"))
    elements = () if dynamic else _elements(value.get("elem", []))
    return NftSet(value["name"], kind, elements, "interval" in flags, dynamic, json.dumps(extra) if extra else "")


def _listed(value: t.Any) -> list[t.Any]:
    return list(value) if isinstance(value, list) else [value]


def _elements(listed: t.Any) -> tuple[str, ...]:
    """Elements in the one form that sets of the same members have: fewest networks in order, then ports in order."""
    networks: list[t.Any] = []
    others = []
    for entry in _listed(listed):
        value = entry["elem"].get("val") if isinstance(entry, dict) and "elem" in entry else entry
        try:
            networks += _networks(value)
        except (ValueError, TypeError, KeyError):
            others.append(value)
    found = []
    for version in (4, 6):
        found += [short(one) for one in ipaddress.collapse_addresses(one for one in networks if one.version == version)]
    ports = sorted(value for value in others if isinstance(value, int))
    return (*found, *map(str, ports), *sorted(json.dumps(value) for value in others if not isinstance(value, int)))


def _networks(value: t.Any) -> list[t.Any]:
    if isinstance(value, str):
        return [ipaddress.ip_network(value)]
    if "prefix" in value:
        return [ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")]
    first, last = map(ipaddress.ip_address, value["range"])
    return list(ipaddress.summarize_address_range(first, last))


def short(network: t.Any) -> str:
    """A network as people write it: one address without its /32."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _rule_of(expressions: t.Sequence[t.Any]) -> str:
    words = [_statement(one) for one in expressions]
    return " ".join(word for word, later in zip(words, [*words[1:], ""]) if not _implied(word, later))


_IMPLIED = frozenset([("meta nfproto ipv4", "ip"), ("meta nfproto ipv6", "ip6"), ("meta l4proto tcp", "tcp")])


def _implied(word: str, later: str) -> bool:
    """What some versions spell out although the match behind it says it."""
    return (word, later.split(" ", maxsplit=1)[0]) in _IMPLIED


def _statement(one: t.Any) -> str:
    """One expression as text; one that we never write as its JSON, which then differs from everything that we do."""
    if isinstance(one, dict) and len(one) == 1:
        kind, value = next(iter(one.items()))
        try:
            text = _STATEMENTS[kind](value)
        except (KeyError, TypeError, AttributeError):
            text = None
        if text is not None:
            return text
    return json.dumps(one, sort_keys=True)


def _match(value: t.Mapping[str, t.Any]) -> t.Optional[str]:
    left, right = value["left"], value["right"]
    if value["op"] not in ("==", "in"):
        return None
    if "payload" in left:
        return (
            f"{left['payload']['protocol']} {left['payload']['field']} {right}"
            if isinstance(right, (str, int))
            else None
        )
    if "ct" in left:
        states = right["set"] if isinstance(right, dict) else _listed(right)
        return f"ct {left['ct']['key']} {','.join(sorted(states))}"
    key = left["meta"]["key"]
    return f'{key} "{right}"' if key == "iifname" else f"meta {key} {right}"


def _limit(value: t.Mapping[str, t.Any]) -> t.Optional[str]:
    if value.get("rate_unit", "packets") != "packets":
        return None
    over = "over " if value.get("inv") else ""
    return f"limit rate {over}{value['rate']}/{value['per']} burst {value.get('burst', _DEFAULT_BURST)} packets"


def _log(value: t.Mapping[str, t.Any]) -> t.Optional[str]:
    return None if set(value) != {"prefix", "level"} else f'log prefix "{value["prefix"]}" level {value["level"]}'


def _set_statement(value: t.Mapping[str, t.Any]) -> str:
    what = value["elem"].get("elem", value["elem"])
    key = (what.get("val", what))["payload"]
    inner = " ".join(_statement(one) for one in _listed(value.get("stmt", [])))
    return f"{value['op']} {value['set']} {{ {key['protocol']} {key['field']}{' ' + inner if inner else ''} }}"


_STATEMENTS: dict[str, t.Callable[[t.Any], t.Optional[str]]] = {
    "match": _match,
    "limit": _limit,
    "log": _log,
    "set": _set_statement,
    "counter": lambda _value: "counter",
    "accept": lambda _value: "accept",
    "drop": lambda _value: "drop",
    "jump": lambda value: f"jump {value['target']}",
}


def _unreported(rule: str) -> str:
    """A rule as versions before 1.0 list it, which do not say what a set statement limits."""
    return re.sub(r"(\{ ip6? saddr) limit [^}]*\}", r"\1 }", rule)


def same_rule(live: str, wanted: str) -> bool:
    return live in (wanted, _unreported(wanted))


def same_table(live: t.Optional[Table], wanted: t.Optional[Table]) -> bool:
    """Whether both mean the same; the order of sets and chains means nothing, that of rules does."""
    if live is None or wanted is None:
        return live is wanted
    chains = [{chain.name: chain for chain in table.chains} for table in (live, wanted)]
    return (
        {one.name: one for one in live.sets} == {one.name: one for one in wanted.sets}
        and live.others == wanted.others
        and set(chains[0]) == set(chains[1])
        and all(
            mine.hook == chains[1][name].hook
            and len(mine.rules) == len(chains[1][name].rules)
            and all(map(same_rule, mine.rules, chains[1][name].rules))
            for name, mine in chains[0].items()
        )
    )


def table_lines(live: t.Optional[Table], wanted: t.Optional[Table]) -> list[tuple[str, list[str], list[str]]]:
    """What each part of the two says, for a comparison line by line: (part, lines now, lines wanted)."""
    sides = [_parts(live), _parts(wanted)]
    for name, lines in sides[1].items():
        now = sides[0].get(name, [])
        for index, line in enumerate(lines):
            if index < len(now) and now[index] != line and same_rule(now[index], line):
                now[index] = line
    names = dict.fromkeys([*sides[1], *sides[0]])
    return [(name, sides[0].get(name, []), sides[1].get(name, [])) for name in names]


def _parts(table: t.Optional[Table]) -> dict[str, list[str]]:
    if table is None:
        return {}
    found = {f"table {FAMILY} {table.name}": ["present", *table.others]}
    found.update((f"set {one.name}", [one.text]) for one in sorted(table.sets, key=lambda one: one.name))
    for chain in sorted(table.chains, key=lambda one: (not one.hook, one.name)):
        found[f"chain {chain.name}"] = [*([chain.hook] if chain.hook else []), *chain.rules] or ["empty"]
    return found
