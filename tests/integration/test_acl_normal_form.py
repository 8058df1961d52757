# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What rules add up to, worked out by acl_rules and by a real server. The judges are ACL DRYRUN and ACL LIST."""

from __future__ import annotations

import fnmatch

import hypothesis
import pytest
import redis
from ansible_collections.redisops.recovery.plugins.module_utils.acl.apply import table_of
from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import parse_line, user_of
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login, connect
from hypothesis import strategies

#: Allowed before anybody has logged in, whatever the rules say.
ALWAYS = {"auth", "hello", "quit", "reset"}
#: Containers, their sub-commands, commands with and without a first argument to name, and what the presets are made of.
NAMES = (
    "get", "set", "select", "flushall", "config", "config|get", "config|set", "client", "client|kill", "client|no-evict", "acl", "acl|whoami",
    "xinfo", "xinfo|stream", "latency", "script|kill", "ping", "psync", "debug", "object", "object|freq", "memory|usage", "command",
    "command|count", "pubsub", "cluster", "cluster|info", "function", "keys", "publish", "swapdb",
)  # fmt: skip
FIRST = ("select|0", "select|1", "get|x", "debug|jmap", "ping|a", "SELECT|0", "swapdb|0")
PATTERNS = ("a*", "b*", "a1", "*")
KEYS = ("a1", "a2", "b1", "c1")


class Judge:
    """A server, what it knows, and the questions to it, many in one round trip."""

    def __init__(self, port):
        self.server = connect(Login(port=port))
        self.table = table_of(self.server)
        self.pipe = redis.Redis(port=port, protocol=2, encoding_errors="surrogateescape", decode_responses=True)
        self.questions = {name: self.question(name) for name in sorted(self.table.everything) if name not in ALWAYS}

    def question(self, name):
        arity = abs(self.server.command("COMMAND", "INFO", name)[0][1])
        words = name.split("|")
        return [*words, *["7"] * (arity - len(words))]

    def set(self, rules):
        """Whether the server takes the rules."""
        try:
            self.server.command("ACL", "SETUSER", "u", "reset", "resetchannels", *rules)
        except Exception:
            return False
        return True

    def dry_run(self, questions):
        """Which of the questions the server says OK to."""
        pipeline = self.pipe.pipeline(transaction=False)
        for words in questions:
            pipeline.execute_command("ACL", "DRYRUN", "u", *words)
        return [answer == "OK" for answer in pipeline.execute(raise_on_error=False)]

    def allowed(self):
        return {name for name, yes in zip(self.questions, self.dry_run(self.questions.values()), strict=True) if yes}

    def line(self):
        return parse_line(next(line for line in self.server.command("ACL", "LIST") if line.startswith("user u ")))[1]


@pytest.fixture(name="judge")
def _judge(redis_server):
    return Judge(redis_server.start().port)


def commands_of(judge):
    categories = strategies.sampled_from(sorted({*judge.table.categories, "all"}))
    return strategies.one_of(
        strategies.sampled_from([f"{sign}{name}" for sign in "+-" for name in NAMES]),
        strategies.sampled_from([f"{sign}{name}" for sign in "+-" for name in sorted(judge.table.everything)]),
        strategies.builds("{}@{}".format, strategies.sampled_from("+-"), categories),
        strategies.sampled_from([f"+{name}" for name in FIRST]),
        strategies.sampled_from(["allcommands", "nocommands", "+@ALL", "-GET", "+Config|Get"]),
    )


def some(strategy, most=8):
    return strategies.lists(strategy, max_size=most)


def test_commands_are_what_the_server_makes_of_the_rules(judge):
    @hypothesis.settings(max_examples=400)
    @hypothesis.given(some(commands_of(judge)))
    def holds(rules):
        words = ("on", "nopass", "~*", "&*", *rules)
        hypothesis.assume(judge.set(words))
        ours = user_of(words, judge.table)
        assert ours.unknown == ()
        assert {*ours.root.commands} - ALWAYS == judge.allowed()
        firsts = [tuple(name.lower().split("|")) for name in FIRST]
        full = [[*words, *["7"] * (len(judge.questions[words[0]]) - len(words))] for words in firsts]
        mine = [words[0] in ours.root.commands or "|".join(words) in ours.root.first_args for words in firsts]
        assert mine == judge.dry_run(full)
        line = judge.line()
        assert ours.root.future == ("+@all" in line)
        assert user_of(line, judge.table) == ours

    holds()


def keys_of():
    return strategies.one_of(
        strategies.sampled_from(["allkeys", "resetkeys", "allchannels", "resetchannels", "%RW~a*", "%rw~*", "%WR~b*", "~*"]),
        strategies.builds("{}~{}".format, strategies.sampled_from(["", "%R", "%W", "%RW"]), strategies.sampled_from(PATTERNS)),
        strategies.builds("&{}".format, strategies.sampled_from(PATTERNS)),
    )  # fmt: skip


def may(selectors, name, flag, key):
    return any(
        name in selector.commands
        and any(flag in flags and fnmatch.fnmatchcase(key, pattern) for pattern, flags in selector.keys)
        for selector in selectors
    )


def hears(selectors, channel):
    return any(
        "publish" in selector.commands and any(fnmatch.fnmatchcase(channel, pattern) for pattern in selector.channels)
        for selector in selectors
    )


def test_keys_channels_and_selectors_are_what_the_server_makes_of_the_rules(judge):
    command = strategies.sampled_from(["+get", "+set", "+publish", "-get", "+@all", "-@write", "+@pubsub", "-@all"])
    plain = strategies.one_of(command, keys_of())
    selector = some(plain, 5).map(lambda rules: f"({' '.join(rules)})")

    @hypothesis.settings(max_examples=400)
    @hypothesis.given(some(strategies.one_of(plain, plain, plain, selector, strategies.just("clearselectors")), 10))
    def holds(rules):
        words = ("on", "nopass", *rules)
        hypothesis.assume(judge.set(words))
        ours = user_of(words, judge.table)
        selectors = [ours.root, *ours.selectors]
        questions = (
            [["GET", key] for key in KEYS]
            + [["SET", key, "1"] for key in KEYS]
            + [["PUBLISH", key, "1"] for key in KEYS]
        )
        mine = [may(selectors, "get", "R", key) for key in KEYS] + [may(selectors, "set", "W", key) for key in KEYS]
        assert mine + [hears(selectors, key) for key in KEYS] == judge.dry_run(questions)
        assert user_of(judge.line(), judge.table) == ours

    holds()


def test_rules_are_called_the_same_where_the_server_makes_the_same_of_them(judge):
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(some(commands_of(judge), 4), some(commands_of(judge), 4))
    def holds(one, other):
        ours, theirs = [], []
        for rules in (one, other):
            words = ("on", "nopass", "~*", "&*", *rules)
            hypothesis.assume(judge.set(words))
            user = user_of(words, judge.table)
            ours.append((user.root.commands - ALWAYS, user.root.future, user.root.first_args))
            firsts = judge.dry_run(
                [["SELECT", number] for number in "012"] + [["SWAPDB", number, "1"] for number in "012"]
            )
            theirs.append((judge.allowed(), "+@all" in judge.line(), firsts))
        named = {name for _commands, _future, firsts in ours for name in firsts}
        hypothesis.assume(named <= {"select|0", "select|1", "swapdb|0"})
        assert (ours[0] == ours[1]) == (theirs[0] == theirs[1])

    holds()
