# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of plugins/module_utils: the floors of its packages, and what a file's name says of what it may touch.

docs/project/architecture.md is written from this by ``python -m tests.support.architecture``.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import pathlib
import typing as t

UTILS = "ansible_collections.redisops.recovery.plugins.module_utils"

#: Packages import those of floors below their own, never a neighbour.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("system",),
    ("kernel", "server"),
    ("acl", "install", "persistence", "replication"),
    ("inventory", "service", "tls"),
    ("cluster", "firewall", "schedule", "sentinel"),
    ("backup",),
    ("drill", "health", "pitr"),
    ("module", "monitoring", "restore"),
    ("repair",),
)


class Kind(enum.IntEnum):
    """What a file may touch. It imports its own kind and those before it."""

    PURE = 0
    TOOL = 1
    READER = 2
    ACTOR = 3
    PROGRAM = 4
    ANSIBLE = 5


#: Kind → what it is, what it may touch, and the names that say so. Any other name is of a pure file.
KINDS: dict[Kind, tuple[str, str, tuple[str, ...]]] = {
    Kind.PURE: ("formats, decisions: text or answers → values, changes, findings, refusals", "nothing", ()),
    Kind.TOOL: (
        "one part of the world, wrapped",
        "that part",
        (
            "archive", "benchmarks", "certificates", "connection", "controllers", "entrypoint", "files", "handshake", "hold_script", "host", "lock", "open_rollback_copy", "openssl", "own_directory", "pause",
            "permissions", "primary_guard", "program", "repositories", "restic", "rollback_copy", "shard_store", "store",
            "systemctl", "temporary_server", "test_load",
        ),
    ),
    Kind.READER: (
        "observes and changes nothing",
        "files, processes, sockets, to read",
        ("aof_splice", "collect", "collect_*", "connect", "diagnose", "file_check", "fingerprint", "instance", "*_reader"),
    ),
    Kind.ACTOR: (
        "changes the world in guarded steps",
        "all of it, through the tools",
        (
            "apply", "*_apply", "copy", "create", "cut", "exchange", "exercise", "exporter", "failover_hold", "hold", "keep", "recover", "resharding",
            "service", "stage", "start", "stop", "swap", "switchover", "verify",
        ),
    ),
    Kind.PROGRAM: ("the same as a program that a timer starts", "as an actor", ("job", "*_job")),
    Kind.ANSIBLE: ("options, and how a module ends", "Ansible", ()),
}  # fmt: skip

#: What a pure file has no business with.
WORLD = frozenset("ctypes glob io os pathlib shutil signal socket subprocess tempfile time".split())


def floor_of(package: str) -> int:
    for number, packages in enumerate(FLOORS):
        if package in packages:
            return number
    raise LookupError(f"the package {package} has no floor: give it one in FLOORS")


def kind_of(package: str, name: str) -> Kind:
    """The kind that package and name say."""
    if package == "module":
        return Kind.ANSIBLE
    path = pathlib.PurePath(name)
    return next(
        (kind for kind, (_is, _may, names) in KINDS.items() if any(path.match(one) for one in names)), Kind.PURE
    )


@dataclasses.dataclass(frozen=True)
class File:
    """One file of module_utils, read and not run. ``imports``: (package, name) of ours; ``foreign``: first names of what is not ours."""

    package: str
    name: str
    imports: frozenset[tuple[str, str]]
    private: frozenset[str]
    foreign: frozenset[str]
    calls: frozenset[str]

    @property
    def kind(self) -> Kind:
        return kind_of(self.package, self.name)

    def __str__(self) -> str:
        return f"{self.package}/{self.name}.py"


def _imported(tree: ast.Module) -> t.Iterator[tuple[str, str]]:
    """(what an import names, the last name in it), wherever in the file the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "." * node.level, alias.name) for alias in node.names)


def read(package: str, name: str, text: str) -> File:
    """What a file of module_utils imports and calls."""
    tree = ast.parse(text)
    ours, private, foreign = set(), set(), set()
    for module, last in _imported(tree):
        if module == UTILS:
            raise ValueError(f"{package}/{name}.py imports a whole package: {last}")
        if not module.startswith(f"{UTILS}."):
            foreign.add(module.split(".")[0])
            continue
        inner = module[len(UTILS) + 1 :].split(".")
        ours.add((inner[0], inner[1] if len(inner) > 1 else last))
        if last.startswith("_"):
            private.add(f"{'.'.join(inner)}.{last}")
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return File(package, name, frozenset(ours), frozenset(private), frozenset(foreign), frozenset(calls))


def faults(file: File) -> list[str]:
    """What the plan forbids and the file does, a sentence each."""
    found = []
    for package, name in sorted(file.imports):
        other = f"{package}/{name}.py"
        if package != file.package and floor_of(package) >= floor_of(file.package):
            found.append(f"{file} imports {other}, which is not below it")
        if kind_of(package, name) > file.kind:
            found.append(f"{file} ({file.kind.name.lower()}) imports {other} ({kind_of(package, name).name.lower()})")
    found += [f"{file} imports {name}, which is private there" for name in sorted(file.private)]
    if file.kind is Kind.PURE:
        found += [f"{file} is pure by its name and imports {name}" for name in sorted(file.foreign & WORLD)]
        found += [
            f"{file} is pure by its name and calls {name}()"
            for name in sorted(file.calls & {"open", "print", "exec", "eval", "input"})
        ]
    return found


def circle(files: t.Iterable[File]) -> list[str]:
    """Files that import each other in a ring, in order; empty where there is none."""
    imports = {(file.package, file.name): file.imports for file in files}
    done: set[tuple[str, str]] = set()

    def walk(one: tuple[str, str], way: list[tuple[str, str]]) -> list[tuple[str, str]]:
        if one in way:
            return [*way[way.index(one) :], one]
        if one in done:
            return []
        for other in sorted(imports.get(one, ())):
            ring = walk(other, [*way, one])
            if ring:
                return ring
        done.add(one)
        return []

    for one in sorted(imports):
        ring = walk(one, [])
        if ring:
            return ["/".join(entry) for entry in ring]
    return []


def read_all(root: pathlib.Path) -> list[File]:
    """Every file of module_utils below the checkout ``root``."""
    places = sorted((root / "plugins" / "module_utils").glob("*/*.py"))
    return [
        read(path.parent.name, path.stem, path.read_text(encoding="utf-8"))
        for path in places
        if path.stem != "__init__"
    ]
