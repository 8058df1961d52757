# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Our readers next to a real Redis: each kind makes a file, lets both read it, and says where they differ."""

from __future__ import annotations

import pathlib
import random
import re
import subprocess
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.acl.rules import file_lines
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.cluster import parse_nodes
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import (
    ManifestError,
    parse_manifest,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.file_check import (
    USABLE,
    check_aof,
    check_rdb_file,
)
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rdb_header import (
    RdbHeaderError,
    read_header,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.directives import effective
from ansible_collections.redisops.recovery.plugins.module_utils.server.redis_conf import RedisConf, expand
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host

from tests.fuzz.mutation import mutated
from tests.fuzz.real_redis import Answer, Room, start, start_with

AOF_ON = ("--appendonly", "yes", "--appendfilename", "a", "--aof-load-truncated", "yes")
DATA = (("DBSIZE",), ("DEBUG", "DIGEST"))


def command(*words: t.Union[str, bytes]) -> bytes:
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)


class Kind:
    """One kind of file. ``words`` are what a change may put in."""

    name: t.ClassVar[str]
    words: t.ClassVar[tuple[bytes, ...]]

    def __init__(self, room: Room) -> None:
        self.room = room

    def seeds(self) -> list[bytes]:
        raise NotImplementedError

    def prepare(self) -> None:
        self.originals = self.seeds()

    def make(self, rng: random.Random) -> bytes:
        return mutated(rng, rng.choice(self.originals), self.words)

    def differs(self, raw: bytes) -> str:
        """In what the two differ about ``raw``; empty where they agree."""
        raise NotImplementedError


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Manifests(Kind):
    """The files next to it are whole, each with keys of its own."""

    name = "manifest"
    words = (
        b"\n", b" ", b"\t", b"#", b"\\", b"/", b'"', b"'", b"\r", b"\0", b"file a.1.incr.aof seq 1 type i\n", b"file a.2.incr.aof seq 2 type i\n",
        b"file a.1.base.rdb seq 1 type b\n", b'file "x y" seq 3 type i\n', b"# comment\n", b"# " + b"x" * 1030 + b"\n", b" startoffset 0", b"FILE", b"Seq",
        b"TYPE", b"type base", b"type incr", b"type h", b"seq +2", b"seq 0", b"seq -1", b"seq 2x", b"seq 99999999999999999999", b'"\\x61.1.incr.aof"', b"\xff",
        b"a.2.incr.aof", b"a.1.incr.aof", b"seq 1", b"seq 2", b"seq 3",
    )  # fmt: skip

    def seeds(self) -> list[bytes]:
        self.files = {
            "a.1.incr.aof": aof_with("one"),
            "a.2.incr.aof": aof_with("two"),
            "x y": aof_with("xy"),
            "a.1.base.aof": aof_with("base"),
        }
        self.files["a.1.base.rdb"] = rdb_with(self.room, "rdb")
        return [
            b"file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\n",
            b"file a.1.base.aof seq 1 type b\nfile a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n",
            b'file a.1.base.rdb seq 2 type b\nfile a.1.incr.aof seq 1 type h\nfile a.2.incr.aof seq 2 type i startoffset 0\nfile "x y" seq 3 type i\n',
        ]

    def differs(self, raw: bytes) -> str:
        folder = self.room.clear() / "appendonlydir"
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        (folder / "a.manifest").write_bytes(raw)
        theirs = start(self.room.root, AOF_ON, (("KEYS", "*"),))
        keys = {key.decode().split(":")[0] for key in theirs.replies[0]} if theirs.started else set()
        try:
            needed = [entry.name for entry in parse_manifest(text_of(raw)).needed]
        except ManifestError as problem:
            return f"we refuse ({problem.detected}), and Redis starts with {sorted(keys)}" if keys else ""
        stated = {
            "a.1.incr.aof": "one",
            "a.2.incr.aof": "two",
            "x y": "xy",
            "a.1.base.aof": "base",
            "a.1.base.rdb": "rdb",
        }
        ours = {stated[name] for name in needed if name in stated}
        if any(name not in stated for name in needed):
            return "a file is missing, and Redis starts" if theirs.started else ""
        if not theirs.started:
            if (
                needed.count("a.1.base.rdb") > 1
            ):  # its lines are right; that it is named twice the check of the files tells
                return ""
            return f"we take it, and Redis refuses: {last_words(theirs)}"
        return "" if ours == keys else f"we say {sorted(ours)}, and Redis has {sorted(keys)}"


def last_words(answer: Answer) -> str:
    return " | ".join(line for line in answer.log.splitlines() if "#" in line or "***" in line)[-300:]


def aof_with(prefix: str, count: int = 3) -> bytes:
    return command("SELECT", "0") + b"".join(command("SET", f"{prefix}:{number}", "v") for number in range(count))


def rdb_with(room: Room, prefix: str) -> bytes:
    """What a real server saves, without a checksum: a changed bit in the header is no bad checksum then."""
    root = room.clear()
    questions = [("SET", f"{prefix}:{number}", "v") for number in range(3)]
    answer = start(root, ("--rdbchecksum", "no"), [*questions, ("SAVE",)])
    assert answer.started, answer.log
    return (root / "dump.rdb").read_bytes()


class Aofs(Kind):
    """The last increment, or the one file of before 7.0."""

    name = "aof"
    words = (
        b"\r\n", b"\n", b"*0\r\n", b"*1\r\n", b"*-1\r\n", b"$0\r\n\r\n", b"$-1\r\n", b"#TS:1795340219\r\n", b"#TS:x\r\n", b"# " + b"c" * 200 + b"\r\n",
        b"#REDISOPS-SINCE:1795340219\r\n", b"\0" * 20, b"$3\r\nSET\r\n", b"file x seq 1 type b\n", b"\r\n" * 3,
        command("MULTI"), command("EXEC"), command("SET", "k", "1"), command("set", "files:1", "x\nfile y"), command("SELECT", "3"), command("SELECT", "99"),
        command("NOSUCH", "a"), command("SET", "k"), command("", "a"), command("FUNCTION", "NOSUCH"), command("DISCARD"), command("FLUSHALL"),
        command("PEXPIREAT", "k", "1"), command("XADD", "s", "1-1", "f", "v"), command("DEBUG", "x"), command("SHUTDOWN"), command("get", "k"),
        command("XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"), command("MULTI", "x"), command("EXEC", "x"),
    )  # fmt: skip

    def seeds(self) -> list[bytes]:
        rdb = rdb_with(self.room, "rdb")
        plain = command("SELECT", "0") + b"".join(command("SET", f"k:{number}", "v" * number) for number in range(12))
        transaction = (
            command("MULTI") + command("INCR", "n") + command("SADD", "s", "a", b"\r\n*1\r\n") + command("EXEC")
        )
        stamped = (
            b"#TS:1795340219\r\n"
            + plain
            + b"#TS:1795340221\r\n"
            + transaction
            + command("HSET", "h", "f", b"#TS:1\r\n", "g", "")
        )
        odd = (
            command("SELECT", "0")
            + command("SET", "big", "x" * 1500)
            + command("RPUSH", "l", *map(str, range(20)))
            + transaction
            + plain
        )
        return [plain, stamped, odd, plain + transaction * 3, rdb + plain]

    def prepare(self) -> None:
        super().prepare()
        self.host = Host()

    def differs(self, raw: bytes) -> str:
        theirs, left = self._loaded(raw)
        path = self.room.clear() / "a.1.incr.aof"
        path.write_bytes(raw)
        ours = check_aof(self.host, str(path), 60.0)
        if ours.verdict in USABLE:
            if not theirs.started:
                return f"we say {ours.verdict}, and Redis refuses: {last_words(theirs)}"
            return "" if left == len(raw) else f"we say {ours.verdict}, and Redis cut it at {left}"
        if ours.kind == "rdb" or ours.offset is None:
            return (
                f"we say {ours.verdict} ({ours.detail}), and Redis starts"
                if theirs.started and not self._tool_refuses(path)
                else ""
            )
        if ours.verdict == "truncated_tail":
            return self._tail(raw, theirs, left, ours.offset)
        return (
            f"we say {ours.verdict} ({ours.detail}), and Redis and its tool take it"
            if theirs.started and not self._tool_refuses(path)
            else ""
        )

    def _tail(self, raw: bytes, theirs: Answer, left: int, offset: int) -> str:
        if not theirs.started:
            return f"we say truncated_tail, and Redis refuses: {last_words(theirs)}"
        whole, _size = self._loaded(raw[:offset])
        if whole.replies != theirs.replies:
            return f"up to {offset} there is {whole.replies}, and Redis has {theirs.replies}"
        return (
            ""
            if left == offset or b"MULTI" in raw[offset:left].upper() or _is_torn_annotation(raw[offset:left])
            else f"we say good up to {offset}, and Redis cut it at {left}"
        )

    def _loaded(self, raw: bytes) -> tuple[Answer, int]:
        """What Redis makes of it, and how many bytes it leaves."""
        folder = self.room.clear() / "appendonlydir"
        folder.mkdir()
        (folder / "a.manifest").write_bytes(b"file a.1.incr.aof seq 1 type i\n")
        (folder / "a.1.incr.aof").write_bytes(raw)
        answer = start(self.room.root, AOF_ON, DATA)
        return answer, (folder / "a.1.incr.aof").stat().st_size

    def _tool_refuses(self, path: pathlib.Path) -> bool:
        """Where Redis looks away (it does not compare the ends of values), its own tool does not: such a file is damaged."""
        (path.parent / "t.manifest").write_bytes(f"file {path.name} seq 1 type i\n".encode())
        return (
            subprocess.run(
                ["redis-check-aof", str(path.parent / "t.manifest")], capture_output=True, check=False
            ).returncode
            != 0
        )


def _is_torn_annotation(rest: bytes) -> bool:
    """Redis passes over it, and leaves it there: what it writes next stands in that line. We say where what is good ends."""
    return rest.rpartition(b"\n")[2].startswith(b"#")


class RdbHeads(Kind):
    """The first bytes of an RDB, with no checksum behind them."""

    name = "rdb"
    words = (b"\xfa", b"\xfe\x00", b"\xff", b"\xc0\x05", b"\xc1\x00\x01", b"\xc2\x00\x00\x00\x01", b"\x80\x00\x00\x00\x05", b"\x05ctime", b"REDIS0009", b"REDIS0012",
             b"VALKEY080", b"\xfa\x05ctime\xc2\x78\x56\x34\x12", b"\xfa\x01k\x01v", b"\x40\x80", b"\x81", b"0010", b"REDIS")  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [rdb_with(self.room, "rdb")]

    def prepare(self) -> None:
        super().prepare()
        self.host = Host()

    def make(self, rng: random.Random) -> bytes:
        raw = rng.choice(self.originals)
        end = raw.index(b"\xfe\x00") + rng.choice((0, 0, 0, 8))
        return mutated(rng, raw[:end], self.words) + raw[end:]

    def differs(self, raw: bytes) -> str:
        path = self.room.clear() / "dump.rdb"
        path.write_bytes(raw)
        now = int(time.time())
        theirs = start(self.room.root, ("--appendonly", "no", "--rdbchecksum", "no"), DATA)
        path.write_bytes(raw)
        usable = check_rdb_file(self.host, str(path), 60.0)
        try:
            ours = read_header(raw)
        except RdbHeaderError as error:
            return f"no header to us ({error}), and Redis loads it" if theirs.started and theirs.replies[0] else ""
        ages = [int(found) for found in re.findall(r"RDB age (-?\d+) seconds", theirs.log)]
        if (
            theirs.started
            and ages
            and ours.ctime is not None
            and 0 < ours.ctime <= now
            and abs(now - ages[-1] - ours.ctime) > 2
        ):
            return f"ctime is {ours.ctime} to us and {now - ages[-1]} to Redis"
        if usable.verdict in USABLE and not theirs.started:
            return f"we say {usable.verdict}, and Redis refuses: {last_words(theirs)}"
        if usable.keys and theirs.started and usable.verdict in USABLE and theirs.replies[0] != usable.keys:
            return f"we count {usable.keys} keys, and Redis has {theirs.replies[0]}"
        return ""


class Confs(Kind):
    """Configuration files: what Redis takes has to have the same values to us."""

    name = "redis.conf"
    words = (b"\n", b" ", b'"', b"'", b"\\x41", b"\\", b"#", b"\t", b"\r", b"\0", b"save 60 5\n", b'save ""\n', b"appendonly yes\n", b"APPENDONLY no\n",
             b"slave-priority 7\n", b"maxmemory 1gb\n", b"maxmemory 100mb\n", b"hz 20\n", b"client-output-buffer-limit pubsub 1mb 2mb 3\n", b"# x\n",
             b'dbfilename "x y.rdb"\n', b"dbfilename 'it\\'s.rdb'\n", b'appendfilename "\\x61b"\n', b"\xc3\xa9", b"\xff", b"\v", b"\f", b"include s.conf\n")  # fmt: skip
    compared = (
        "appendonly",
        "appendfilename",
        "dbfilename",
        "maxmemory",
        "replica-priority",
        "hz",
        "save",
        "client-output-buffer-limit",
        "appenddirname",
    )

    def seeds(self) -> list[bytes]:
        return [
            b'# a comment\nsave 3600 1\nsave 300 100\nappendonly no\nappendfilename "appendonly.aof"\ndbfilename dump.rdb\nmaxmemory 64mb\nhz 10\n',
            b"save 3600 1 300 100\ndbfilename dump.rdb\nreplica-priority 50\nclient-output-buffer-limit replica 256mb 64mb 60\nappenddirname aofs\n",
        ]

    def differs(self, raw: bytes) -> str:
        path = self.room.clear() / "redis.conf"
        path.write_bytes(raw)
        (self.room.root / "s.conf").write_bytes(b"hz 30\nsave 7 7\n")
        theirs = self._live(path)
        try:
            directives = expand(
                RedisConf(text_of(raw), str(path)),
                lambda name: [(name, (self.room.root / "s.conf").read_text())] if name == "s.conf" else [],
            )
            values = {name: effective(directives, name) for name in self.compared}
        except Problem as problem:
            # Redis drops what stands behind a NUL, with the end of the line: such a file is damaged, and we do not guess.
            # A size without a number is 0 to Redis, which is no limit; to us it is a mistake.
            odd = b"\0" in raw or re.search(r"'[kmgb]{0,2}' is not valid", problem.detected, re.I)
            return f"we refuse ({problem.detected}), and Redis starts" if theirs.started and not odd else ""
        if not theirs.started:
            return ""  # which words are directives only a server of that release knows: it is asked for that
        live = dict(zip(theirs.replies[0][::2], theirs.replies[0][1::2]))
        wrong = [
            f"{name} is {value!r} to us and {shown(live, name)!r} to Redis"
            for name, value in values.items()
            if value is not None and shown(live, name) != value
        ]
        return "; ".join(wrong)

    def _live(self, path: pathlib.Path) -> Answer:
        """Only what the file says: no --save on the command line."""
        with open(path, "ab") as handle:
            handle.write(b"\n")
        text = path.read_bytes()
        path.write_bytes(text + b"port 0\nunixsocket s\nenable-debug-command local\n")
        answer = start_with(self.room.root, [str(path)], (("CONFIG", "GET", "*"),))
        path.write_bytes(text)
        return answer


def shown(live: t.Mapping[bytes, bytes], name: str) -> str:
    return live.get(name.encode(), b"").decode("utf-8", "surrogateescape")


class Acls(Kind):
    """ACL files: what Redis takes has to name the same users to us."""

    name = "acl"
    words = (b"\n", b" ", b"  ", b"\t", b"\r", b"user b on nopass ~* +@all\n", b"USER c off\n", b"# comment\n", b"(~x +get)", b"(", b")", b">secret", b"#" + b"a" * 64,
             b"\0", b"\xff", b"\v", b"\f", b"user default on nopass ~* +@all\n", b'"', b"'", b"-@all", b"+config|get", b"%R~k", b"&*", b"resetkeys", b"user a\n")  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [
            b"user default on nopass ~* &* +@all\nuser a on >secret ~a:* -@all +get +set\n",
            b"user default on nopass ~* &* +@all\nuser sel on nopass -@all +get (~x +set) (%R~y +get)\nuser off1 off\n\n",
        ]

    def differs(self, raw: bytes) -> str:
        path = self.room.clear() / "users.acl"
        path.write_bytes(raw)
        theirs = start(self.room.root, ("--aclfile", str(path), "--appendonly", "no"), (("ACL", "USERS"),))
        try:
            ours = set(file_lines(text_of(raw), "users.acl"))
        except Problem as problem:  # as of a configuration: what stands behind a NUL Redis drops
            return f"we refuse ({problem.detected}), and Redis starts" if theirs.started and b"\0" not in raw else ""
        if not theirs.started or isinstance(theirs.replies[0], Exception):
            return ""  # rules are Redis' to judge; or the default user may not ask
        users = {user.decode("utf-8", "surrogateescape") for user in theirs.replies[0]}
        return "" if ours | {"default"} == users else f"we say {sorted(ours)}, and Redis has {sorted(users)}"


class NodesConfs(Kind):
    """A cluster's file: what Redis takes has to show the same nodes and slots to us."""

    name = "nodes.conf"
    words = (b"\n", b" ", b"vars currentEpoch 3 lastVoteEpoch 0\n", b"0-5460", b"[93->-" + b"a" * 40 + b"]", b"[93-<-" + b"b" * 40 + b"]", b"-", b"myself,master", b"slave", b"noaddr",
             b"fail", b"fail?", b"handshake", b"noflags", b"disconnected", b"connected", b"127.0.0.1:7001@17001", b",host", b":0", b"16383", b"5-9")  # fmt: skip

    def seeds(self) -> list[bytes]:
        mine, other, third = ("a" * 40, "b" * 40, "c" * 40)
        return [
            (
                f"{mine} 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-5460 5462\n"
                f"{other} 127.0.0.1:7001@17001 master - 0 1795340219000 2 connected 5463-10922\n"
                f"{third} 127.0.0.1:7002@17002 slave {mine} 0 1795340219000 1 connected\n"
                "vars currentEpoch 2 lastVoteEpoch 0\n"
            ).encode(),
            f"{mine} :0@0 myself,master - 0 0 0 connected\nvars currentEpoch 0 lastVoteEpoch 0\n".encode(),
        ]

    def differs(self, raw: bytes) -> str:
        path = self.room.clear() / "nodes.conf"
        path.write_bytes(raw)
        theirs = start(
            self.room.root,
            ("--cluster-enabled", "yes", "--appendonly", "no", "--cluster-port", "1"),
            (("CLUSTER", "NODES"), ("CLUSTER", "SLOTS")),
        )
        if not theirs.started or not raw:
            return ""
        said = theirs.replies[0].decode("utf-8", "surrogateescape")
        try:
            nodes = parse_nodes(said)
        except (Problem, ValueError, IndexError) as error:
            return f"we do not read what Redis says of it: {error!r}; CLUSTER NODES: {said!r}"
        ours = sorted((first, last, one.id) for one in nodes if one.role == "primary" for first, last in one.slots)
        slots = sorted((row[0], row[1], row[2][2].decode()) for row in theirs.replies[1])
        return "" if ours == slots else f"we say {ours}, and CLUSTER SLOTS {slots}"


KINDS: tuple[type[Kind], ...] = (Manifests, Aofs, RdbHeads, Confs, Acls, NodesConfs)
