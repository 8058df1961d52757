"""The lab's hosts: systemd containers on a network of their own."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import kernel
import yaml
from common import LABEL_FAMILY, LABEL_HOST, LABEL_KERNEL, LABEL_LAB, LabError, locked, progress
from docker.errors import APIError, NotFound
from docker.models.containers import Container

BOOT_SECONDS = 90
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
CAP_SYS_RESOURCE_BIT = 24
# Measured with pipelining: as fast as docker_api and a third less CPU, which is what is short where tests run.
CONNECTION = "community.docker.docker"


@dataclass(frozen=True)
class HostSpec:
    """One HOST=FAMILY[+redis] of the command line."""

    host: str
    family: str

    @classmethod
    def parse(cls, text: str) -> HostSpec:
        host, separator, family = text.partition("=")
        if not separator or not family or not NAME.fullmatch(host):
            raise LabError(f"{text!r} is not HOST=FAMILY[+redis] (a lower-case host name), such as r1=debian+redis.")
        return cls(host, family)


def check_lab_name(lab: str) -> None:
    if not NAME.fullmatch(lab):
        raise LabError(f"{lab!r} is not a lab's name: lower-case letters, digits and dashes, at most 48.")


def may_have_sys_resource() -> bool:
    """Whether the bounding set of this process, and so most likely of the engine next to it, has CAP_SYS_RESOURCE."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return True
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return not found or bool(int(found.group(1), 16) >> CAP_SYS_RESOURCE_BIT & 1)


def host_config(client: docker.DockerClient, network: str, sys_resource: bool) -> dict[str, object]:
    """What boots systemd in a container without --privileged, which engines that lack a capability refuse.

    The host's cgroup tree is used as it is, be it v1 or v2: systemd finds its own place in it. /proc/sys and
    /sys/kernel/mm are writable, because tests set the kernel's memory values; they are the host's (see kernel.py).
    """
    volumes = {"/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"}}
    if Path("/sys/kernel/mm").is_dir():
        volumes["/sys/kernel/mm"] = {"bind": "/sys/kernel/mm", "mode": "rw"}
    config = client.api.create_host_config(
        network_mode=network,
        cap_add=["ALL"],
        cap_drop=[] if sys_resource else ["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", *(["apparmor=unconfined"] if has_apparmor(client) else [])],
        cgroupns="host",
        binds=volumes,
        # exec, since Ansible and package scripts run what they put into /tmp.
        tmpfs={"/run": "exec,mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"},
    )
    # What the command line calls --security-opt systempaths=unconfined; the SDK has no option for it.
    config["MaskedPaths"] = []
    config["ReadonlyPaths"] = []
    return config


def has_apparmor(client: docker.DockerClient) -> bool:
    return any("name=apparmor" in option for option in client.info().get("SecurityOptions") or [])


def containers_of(client: docker.DockerClient, lab: str | None) -> list[Container]:
    """Every container of the lab, or of all labs, in the order of their names."""
    label = LABEL_LAB if lab is None else f"{LABEL_LAB}={lab}"
    return sorted(client.containers.list(all=True, filters={"label": label}), key=lambda container: container.name)


def up(client: docker.DockerClient, lab: str, specs: list[HostSpec], tags: dict[str, str]) -> None:
    """Create and start what is missing; what runs the wanted image already is left alone."""
    check_lab_name(lab)
    with locked("hosts"):
        record = kernel.save(known_kernel_values(client))
        network = f"redisops-{lab}"
        try:
            client.networks.get(network)
        except NotFound:
            client.networks.create(network, driver="bridge", labels={LABEL_LAB: lab, LABEL_KERNEL: record})
        started = [start(client, lab, spec, tags[spec.family], network) for spec in specs]
    for container in started:
        wait_for_boot(container)


def known_kernel_values(client: docker.DockerClient) -> str | None:
    """What the machine's other labs, which may be of another checkout, have recorded of the host's kernel."""
    for network in client.networks.list(filters={"label": LABEL_KERNEL}):
        return str(network.attrs["Labels"][LABEL_KERNEL])
    return None


def start(client: docker.DockerClient, lab: str, spec: HostSpec, tag: str, network: str) -> Container:
    name = f"{lab}-{spec.host}"
    try:
        container = client.containers.get(name)
    except NotFound:
        return create(client, lab, spec, tag, network)
    if container.labels.get(LABEL_LAB) != lab:
        raise LabError(f"A container {name} that is none of this lab's exists already; rename or remove it.")
    if container.attrs["Config"]["Image"] != tag:
        progress.step(f"{name}: runs another image than {tag}; creating it anew")
        container.remove(force=True, v=True)
        return create(client, lab, spec, tag, network)
    if container.status != "running":
        container.start()
    return container


def create(client: docker.DockerClient, lab: str, spec: HostSpec, tag: str, network: str) -> Container:
    name = f"{lab}-{spec.host}"
    attempts = [True, False] if may_have_sys_resource() else [False]
    # Tests and configurations name hosts by their host name, not by the container's.
    endpoint = client.api.create_endpoint_config(aliases=[spec.host])
    for sys_resource in attempts:
        created = client.api.create_container(
            tag,
            ["/lib/systemd/systemd"],
            name=name,
            hostname=spec.host,
            stop_signal="SIGRTMIN+3",
            environment={"container": "docker"},
            labels={LABEL_LAB: lab, LABEL_HOST: spec.host, LABEL_FAMILY: spec.family},
            host_config=host_config(client, network, sys_resource),
            networking_config=client.api.create_networking_config({network: endpoint}),
        )
        container = client.containers.get(created["Id"])
        try:
            container.start()
        except APIError as error:
            container.remove(force=True, v=True)
            if sys_resource and "caps" in str(error.explanation):
                continue
            raise LabError(f"Starting {name} failed: {error.explanation}") from None
        progress.step(f"{name}: created")
        return container
    raise LabError(f"Starting {name} failed: the engine grants neither all capabilities nor all but SYS_RESOURCE.")


def wait_for_boot(container: Container) -> None:
    """Wait until systemd says that it is up; `degraded` (a unit failed) is up too, and predicted."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        container.reload()
        if container.status not in ("running", "created", "restarting"):
            log = container.logs(tail=5).decode(errors="replace").strip()
            raise LabError(f"{container.name} ended while it booted ({container.status}); its last lines: {log}")
        state = systemctl(container, "is-system-running") if container.status == "running" else ""
        if state in ("running", "degraded"):
            break
        if time.monotonic() > deadline:
            raise LabError(
                f"{container.name} did not boot within {BOOT_SECONDS} s (systemd says {state or 'nothing'});"
                f" look with: docker exec {container.name} systemctl list-jobs"
            )
        time.sleep(0.25)
    failed = systemctl(container, "list-units", "--failed", "--plain", "--no-legend") if state == "degraded" else ""
    units = ", ".join(line.split()[0] for line in failed.splitlines() if line.strip())
    progress.step(f"{container.name}: {state}" + (f" (failed: {units})" if units else ""))


def systemctl(container: Container, *arguments: str) -> str:
    try:
        answer = container.exec_run(["systemctl", *arguments], stderr=False)
    except APIError:
        # Between two looks the container may have stopped; the caller's next look at its status tells.
        return ""
    return answer.output.decode(errors="replace").strip()


def restart(client: docker.DockerClient, lab: str, hosts: list[str]) -> None:
    """Replay the boot of the lab's hosts: the kernel's values stay, as they are the host's; all else starts anew."""
    chosen = {container.labels[LABEL_HOST]: container for container in containers_of(client, lab)}
    if not chosen:
        raise LabError(f"There is no lab {lab}; run: lab.py up --lab {lab} HOST=FAMILY")
    unknown = [host for host in hosts if host not in chosen]
    if unknown:
        raise LabError(f"Lab {lab} has no host {', '.join(unknown)}; it has: {', '.join(chosen)}.")
    restarted = [chosen[host] for host in hosts or chosen]
    for container in restarted:
        progress.step(f"{container.name}: restarting")
        container.restart(timeout=30)
    for container in restarted:
        wait_for_boot(container)


def down(client: docker.DockerClient, lab: str | None) -> None:
    """Remove the lab (or every lab); after the last one the host's kernel gets its own values back."""
    with locked("hosts"):
        label = LABEL_LAB if lab is None else f"{LABEL_LAB}={lab}"
        for container in containers_of(client, lab):
            container.remove(force=True, v=True)
            progress.step(f"removed {container.name}")
        for network in client.networks.list(filters={"label": label}):
            network.remove()
            progress.step(f"removed network {network.name}")
        if not containers_of(client, None):
            kernel.restore()


def inventory(client: docker.DockerClient, lab: str) -> str:
    """The lab's hosts as an Ansible inventory in YAML, grouped by family."""
    groups: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for container in containers_of(client, lab):
        family = container.labels[LABEL_FAMILY].partition("+")[0]
        hosts = groups.setdefault(family, {"hosts": {}})["hosts"]
        hosts[container.labels[LABEL_HOST]] = {"ansible_host": container.name}
    if not groups:
        raise LabError(f"There is no lab {lab}; run: lab.py up --lab {lab} HOST=FAMILY")
    shared = {
        "ansible_connection": CONNECTION,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_pipelining": True,
    }
    return yaml.safe_dump({"all": {"vars": shared, "children": groups}}, sort_keys=False)


__all__ = ["HostSpec", "check_lab_name", "down", "inventory", "restart", "up"]
