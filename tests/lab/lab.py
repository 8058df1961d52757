#!/usr/bin/env python3
"""The test lab: systemd containers that stand for an operator's hosts. See README.md next to this file."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

# The lab writes nothing into the repository but its .cache, so no byte code next to these files either.
sys.dont_write_bytecode = True

from common import LabError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lab.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    source = argparse.ArgumentParser(add_help=False)
    source.add_argument(
        "--source",
        choices=("auto", "registry", "built"),
        default="auto",
        help="where images come from; auto: a registry where one answers, else built here",
    )

    images = commands.add_parser("images", parents=[source], help="make sure the images exist")
    images.add_argument("--only", nargs="+", metavar="FAMILY", help="debian, debian+redis, el9, el9+redis")

    up = commands.add_parser("up", parents=[source], help="create and boot hosts")
    up.add_argument("--lab", required=True)
    up.add_argument("hosts", nargs="+", metavar="HOST=FAMILY[+redis]")

    down = add("down", "remove a lab; after the last one the host's kernel values are put back")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("--lab")
    which.add_argument("--all", action="store_true")

    restart = add("restart", "replay the boot of all or some hosts")
    restart.add_argument("--lab", required=True)
    restart.add_argument("hosts", nargs="*", metavar="HOST")

    add("inventory", "print an Ansible inventory in YAML").add_argument("--lab", required=True)
    add("purge-images", "remove every image of the lab")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    try:
        import hosts
        import images
        from docker.errors import APIError
    except ModuleNotFoundError as error:
        raise LabError(
            f"Python has no module {error.name}; run lab.py with the project's virtual environment: run `make setup`."
        ) from None

    try:
        dispatch(options, images.connect(), images, hosts)
    except APIError as error:
        raise LabError(f"The Docker engine refused: {error.explanation or error}.") from None
    except OSError as error:
        raise LabError(f"The system or the Docker engine refused: {error}.") from None


def dispatch(options: argparse.Namespace, client: DockerClient, images: ModuleType, hosts: ModuleType) -> None:
    match options.command:
        case "images":
            images.ensure_families(client, options.only or list(images.FAMILIES["built"]), options.source)
        case "up":
            hosts.check_lab_name(options.lab)
            specs = [hosts.HostSpec.parse(text) for text in options.hosts]
            tags = images.ensure_families(client, sorted({spec.family for spec in specs}), options.source)
            hosts.up(client, options.lab, specs, tags)
        case "down":
            hosts.down(client, None if options.all else options.lab)
        case "restart":
            hosts.restart(client, options.lab, options.hosts)
        case "inventory":
            sys.stdout.write(hosts.inventory(client, options.lab))
        case "purge-images":
            images.purge(client)


def main() -> int:
    try:
        run(parse_arguments())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `lab.py down --all` removes what was begun.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
