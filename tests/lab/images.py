"""The lab's images: what each is made of, and how it is built once and then found again by its recipe's hash."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import docker
from common import LAB_DIR, LABEL_IMAGE, LabError, locked, progress
from docker.errors import APIError, BuildError, ImageNotFound

RECIPES = LAB_DIR / "recipes"
REPOSITORY = "redisops-lab"
REGISTRY_PROBE_SECONDS = 8
ROOTFS_NEEDS_BYTES = 2 * 1024**3

# A real host has iproute2, procps and ping; python3-apt spares Ansible from installing it on first use.
ROOTFS_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-apt",
    "ca-certificates",
    "iproute2",
    "iputils-ping",
    "procps",
    "sudo",
    "nftables",
    "kmod",
)
# The mirror's package lists stay in the image, as on a real host: the apt module's check mode needs them.
ROOTFS_OPTIONS = (
    "--variant=minbase",
    "--skip=cleanup/apt/lists",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)


@dataclass(frozen=True)
class Image:
    """One image: a recipe folder applied to a base, which is another image here or one of a registry."""

    name: str
    recipe: str
    base: str
    description: str
    external: bool = False


IMAGES = {
    image.name: image
    for image in (
        Image("debian12", "debian12", "debian12-rootfs", "built from Debian packages"),
        Image("debian12-redis", "redis-apt", "debian12", "built from Debian packages, with redis and python3-redis"),
        Image(
            "el9-standin",
            "el9-standin",
            "debian12",
            "STAND-IN, not Red Hat: Debian's userland with dnf, RHEL 9's os-release and a local modular repository",
        ),
        Image(
            "el9-standin-redis",
            "redis-dnf",
            "el9-standin",
            "STAND-IN, not Red Hat: as el9-standin, redis:7 and python3-redis installed from the local repository",
        ),
        Image("ubuntu2204", "ubuntu2204", "ubuntu:22.04", "Ubuntu 22.04 from a registry", external=True),
        Image(
            "ubuntu2204-redis",
            "redis-apt-vendor",
            "ubuntu2204",
            "Ubuntu 22.04 from a registry, with the vendor's redis",
        ),
        Image("rocky9", "rocky9", "rockylinux:9", "Rocky Linux 9 from a registry", external=True),
        Image("rocky9-redis", "redis-dnf", "rocky9", "Rocky Linux 9 from a registry, with its redis:7 module"),
    )
}

# Which image follows a host's family, by source.
FAMILIES = {
    "built": {
        "debian": "debian12",
        "debian+redis": "debian12-redis",
        "el9": "el9-standin",
        "el9+redis": "el9-standin-redis",
    },
    "registry": {
        "debian": "ubuntu2204",
        "debian+redis": "ubuntu2204-redis",
        "el9": "rocky9",
        "el9+redis": "rocky9-redis",
    },
}


def connect() -> docker.DockerClient:
    """A client of the local engine, whose answers may take as long as a slow build step."""
    try:
        client = docker.from_env(timeout=900)
        client.ping()
    except (docker.errors.DockerException, OSError):
        raise LabError("No Docker engine answers; run: systemctl start docker (and see that you may use it).") from None
    return client


def recipe_files(recipe: str) -> list[Path]:
    return sorted(path for path in (RECIPES / recipe).rglob("*") if path.is_file())


def recipe_hash(name: str) -> str:
    """A hash of all that goes into the image, its bases included."""
    digest = hashlib.sha256()
    if name == "debian12-rootfs":
        digest.update(json.dumps([ROOTFS_PACKAGES, ROOTFS_OPTIONS]).encode())
    else:
        image = IMAGES[name]
        digest.update((image.base if image.external else recipe_hash(image.base)).encode())
        for path in recipe_files(image.recipe):
            digest.update(f"\0{path.relative_to(RECIPES)}\0{mode_of(path):o}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def tag_of(name: str) -> str:
    return f"{REPOSITORY}/{name}:{recipe_hash(name)}"


def mode_of(path: Path) -> int:
    return 0o755 if os.access(path, os.X_OK) and path.stat().st_mode & 0o100 else 0o644


def build_context(recipe: str) -> io.BytesIO:
    """The recipe as a tar with fixed modes and owner, so that the checkout's umask does not leak into an image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folders: set[Path] = set()
        for path in recipe_files(recipe):
            relative = path.relative_to(RECIPES / recipe)
            for folder in reversed(relative.parents):
                if folder != Path() and folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(str(folder))
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(str(relative))
            entry.mode, entry.size = mode_of(path), path.stat().st_size
            with open(path, "rb") as handle:
                tar.addfile(entry, handle)
    buffer.seek(0)
    return buffer


def exists(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def ensure(client: docker.DockerClient, name: str) -> str:
    """Build the image and its bases where they are missing; returns its tag."""
    tag = tag_of(name)
    if exists(client, tag):
        return tag
    if name == "debian12-rootfs":
        build_rootfs(client, tag)
        return tag
    image = IMAGES[name]
    base = image.base if image.external else ensure(client, image.base)
    progress.step(f"building {tag}")
    try:
        client.images.build(
            fileobj=build_context(image.recipe),
            custom_context=True,
            tag=tag,
            buildargs={"BASE": base},
            labels={LABEL_IMAGE: name},
            rm=True,
            forcerm=True,
            pull=image.external,
        )
    except BuildError as error:
        output = "".join(line.get("stream", "") for line in error.build_log)
        raise LabError(f"Building {name} failed ({error.msg}); the build's last lines:\n{tail(output)}") from None
    except APIError as error:
        raise LabError(f"Building {name} failed: {error.explanation or error}") from None
    # A build of several stages leaves the earlier ones behind without a name, with the label of their base.
    client.images.prune(filters={"dangling": True, "label": LABEL_IMAGE})
    progress.step(f"built {tag}")
    return tag


def tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def build_rootfs(client: docker.DockerClient, tag: str) -> None:
    """Bootstrap Debian 12 with mmdebstrap (from the mirror that it or the host's settings pick) and import it."""
    need_tools({"mmdebstrap": "mmdebstrap"}, extra_packages=("debian-archive-keyring",))
    progress.step("bootstrapping Debian 12 with mmdebstrap (half a minute in memory, minutes on a slow disk)")
    with tempfile.TemporaryDirectory(prefix="redisops-lab-", dir=roomy_directory()) as work:
        # mmdebstrap may unpack as another user.
        os.chmod(work, 0o755)
        archive = Path(work) / "rootfs.tar"
        command = ["mmdebstrap", *ROOTFS_OPTIONS, f"--include={','.join(ROOTFS_PACKAGES)}", "bookworm", str(archive)]
        if mirror := os.environ.get("REDISOPS_LAB_MIRROR"):
            command.append(mirror)
        if shutil.which("eatmydata"):
            command.insert(0, "eatmydata")
        done = subprocess.run(command, env={**os.environ, "TMPDIR": work}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"mmdebstrap failed; its last lines:\n{tail(done.stderr)}")
        progress.step(f"importing {archive.stat().st_size // 1024**2} MB as {tag}")
        with open(archive, "rb") as handle:
            client.api.import_image_from_data(
                handle,
                repository=tag.split(":")[0],
                tag=tag.split(":")[1],
                changes=[f"LABEL {LABEL_IMAGE}=debian12-rootfs"],
            )
    if not exists(client, tag):
        raise LabError(f"Docker did not keep the imported {tag}; look at its log (journalctl -u docker).")


def roomy_directory() -> str | None:
    """/dev/shm where it has room, since memory is much faster than a disk; else the usual temporary directory."""
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > ROOTFS_NEEDS_BYTES:
        return str(shm)
    return None


def need_tools(tools: dict[str, str], extra_packages: tuple[str, ...] = ()) -> None:
    """See that the commands exist; as root on Debian or Ubuntu install their packages, else say what to run."""
    missing = sorted({package for command, package in tools.items() if not shutil.which(command)})
    if not missing:
        return
    packages = [*missing, *extra_packages]
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if not shutil.which("apt-get"):
        raise LabError(f"Building the images needs {', '.join(missing)}; install it, or use --source registry.")
    if os.geteuid() != 0:
        raise LabError(f"Building the images needs {', '.join(missing)}; run: sudo {' '.join(install)}")
    progress.step(f"installing missing tools: {' '.join(install)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True, check=False)
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"Installing the tools failed; run it yourself: {' '.join(install)}\n{tail(done.stderr, 5)}")


def registry_answers(client: docker.DockerClient) -> bool:
    """Ask the engine for a manifest, which travels the same way as a pull but carries no layers."""
    quick = docker.from_env(timeout=REGISTRY_PROBE_SECONDS)
    try:
        quick.images.get_registry_data(IMAGES["ubuntu2204"].base)
    except (APIError, OSError):  # requests' exceptions, timeouts among them, are OSErrors
        return False
    finally:
        quick.close()
    return True


def choose_source(client: docker.DockerClient, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    for source, families in FAMILIES.items():
        if any(exists(client, tag_of(name)) for name in families.values()):
            progress.step(f"images of the source {source!r} are here: staying with it (--source chooses)")
            return source
    progress.step(f"asking whether a registry answers (at most {REGISTRY_PROBE_SECONDS} s)")
    source = "registry" if registry_answers(client) else "built"
    progress.step("a registry answers: using its images" if source == "registry" else "none answers: building images")
    return source


def ensure_families(client: docker.DockerClient, families: list[str], wanted: str) -> dict[str, str]:
    """Image tag by family, built where missing, and a line on each about what it really is."""
    for family in families:
        if family not in FAMILIES["built"]:
            raise LabError(f"There is no host family {family}; there are: {', '.join(FAMILIES['built'])}.")
    with locked("images"):
        source = choose_source(client, wanted)
        tags = {family: ensure(client, FAMILIES[source][family]) for family in families}
    for family in families:
        name = FAMILIES[source][family]
        progress.step(f"{family} -> {name}: {IMAGES[name].description}")
    return tags


def purge(client: docker.DockerClient) -> None:
    """Remove every image of the lab, newest first so that derived ones go before their bases."""
    with locked("images"):
        found = client.images.list(filters={"label": LABEL_IMAGE}, all=False)
        for image in sorted(found, key=lambda item: item.attrs["Created"], reverse=True):
            for tag in image.tags or [image.id]:
                try:
                    client.images.remove(tag)
                except ImageNotFound:
                    continue
                except APIError as error:
                    raise LabError(f"{tag} is still used ({error.explanation}); run: lab.py down --all") from None
                progress.step(f"removed {tag}")


__all__ = ["FAMILIES", "IMAGES", "connect", "ensure_families", "purge"]
