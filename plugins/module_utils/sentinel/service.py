# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit of a Sentinel: what differs, why a restart is due, and the drop-in."""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.sentinel.collect import Sentinel
from ansible_collections.redisops.recovery.plugins.module_utils.service.apply import write_drop_in
from ansible_collections.redisops.recovery.plugins.module_utils.service.collect import (
    process_of,
    require_last_word,
    unit_state,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import (
    process_reasons,
    require_is_the_units,
    require_unit_file,
)
from ansible_collections.redisops.recovery.plugins.module_utils.service.sandboxing import (
    confinement_reasons,
    require_reachable,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import with_umask
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import (
    drop_in_values,
    property_text,
    render_drop_in,
)

__all__ = ["Service", "read_service"]

_NAME = "zz-redisops.conf"
#: Certificates that a running Sentinel has read at its start and never again.
_MATERIAL = ("tls-cert-file", "tls-key-file", "tls-ca-cert-file")


@dataclasses.dataclass
class Service:
    """What the unit is and should be. ``reasons``: why the running process is not the one that unit and files would give."""

    host: Host
    unit: str
    path: str
    text: str
    enabled: bool
    changes: list[Change] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)
    reload: bool = False

    def process(self, running: bool, due: bool, reasons: t.Sequence[str]) -> list[Change]:
        """The restart or the start."""
        if due:
            words = f"stop {self.unit}, write what it takes at its start only, start it"
            return [Change("process", self.unit, "; ".join(reasons), "as file and unit say", words)]
        return [] if running else [Change("process", self.unit, "stopped", "running", f"start {self.unit}")]

    def prepare(self) -> None:
        """Drop-in, what systemd knows of it, and boot. Raises Problem."""
        layers = {change.layer for change in self.changes}
        if "unit" in layers:
            write_drop_in(self.path, self.text)
        if "unit" in layers or self.reload:
            systemctl(self.host, "daemon-reload")
        if "boot" in layers:
            systemctl(self.host, "enable" if self.enabled else "disable", f"{self.unit}.service")


def _declared(properties: t.Mapping[str, t.Any], scripts: t.Iterable[str]) -> dict[str, str]:
    found = {name: property_text(value) for name, value in with_umask(properties).items()}
    folders = sorted({os.path.dirname(script) for script in scripts if script})
    if folders:
        # Debian's unit lets nothing but Sentinel itself be run: a script, its interpreter and its commands would not be.
        found["ExecPaths"] = " ".join(["-/bin", "-/usr/bin", *(f"-{folder}" for folder in folders)])
    return found


def _require_paths(sentinel: Sentinel, unit: str, state: t.Mapping[str, str], now: str, declared: t.Mapping[str, str]) -> None:  # fmt: skip
    ours = set(drop_in_values(now).get("ReadWritePaths", "").split())
    packaged = " ".join(word for word in state.get("ReadWritePaths", "").split() if word not in ours)
    stated = {entry.name: entry.text for entry in sentinel.conf.directives()}
    # Its dir (/tmp as RHEL ships it) is where it stands, no more: a Sentinel keeps what it knows in its configuration file.
    writes = {"config_file": os.path.dirname(os.path.realpath(sentinel.path))}
    writes["logfile"] = os.path.dirname(stated.get("logfile", ""))
    require_reachable(declared, packaged, {name: path for name, path in writes.items() if path.startswith("/")}, unit)


def _started(sentinel: Sentinel) -> float:
    """When the process began, in seconds of the clock that files have; its own uptime is in whole seconds."""
    fields = (sentinel.host.read(f"/proc/{sentinel.pid}/stat") or "").rpartition(")")[2].split()
    if len(fields) < 20:
        return time.time()
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - ago


def _unit_changes(
    service: Service, params: t.Mapping[str, t.Any], state: t.Mapping[str, str], now: str, fresh: bool
) -> list[Change]:
    """What the drop-in and the boot lack; ``now`` is the drop-in's text."""
    changes = []
    if service.text and now != service.text:
        before = ("\n" + now.rstrip("\n")) if now else None
        after = "\n" + service.text.rstrip("\n")
        changes.append(Change("unit", service.path, before, after, f"write {service.path} and reload systemd"))
    enabled = not fresh and state.get("UnitFileState", "") in ("enabled", "enabled-runtime", "alias")
    if params["enabled"] != enabled:
        says = {True: "enabled yes", False: "enabled no"}
        verb = "enable" if params["enabled"] else "disable"
        changes.append(Change("boot", service.unit, says[enabled], says[params["enabled"]], f"{verb} {service.unit}"))
    return changes


def _why_restart(sentinel: Sentinel, declared: t.Mapping[str, str]) -> list[str]:
    """What the running process does not have yet, and would have after a restart."""
    given, confined = process_of(sentinel.host, sentinel.pid)
    reasons = process_reasons(declared, given, sentinel.host.open_files_ceiling())
    reasons += confinement_reasons(declared, confined)
    in_file = {entry.name: entry.text for entry in sentinel.conf.directives()}
    for name in _MATERIAL:
        file = in_file.get(name, "")
        if file and os.path.exists(file) and os.stat(file).st_mtime > _started(sentinel):
            reasons.append(f"{name}: {file} is newer than the process")
    return reasons


def read_service(
    sentinel: Sentinel, unit: str, params: t.Mapping[str, t.Any], scripts: t.Iterable[str], units: str, fresh: bool
) -> Service:
    """What differs. ``fresh``: reported against a host without Sentinel. Raises Problem, or Refusal where unit and process are not one."""
    host = sentinel.host
    state = {} if fresh and not unit else unit_state(host, unit)
    unit = unit or "redis-sentinel"
    declared = _declared(params["properties"], scripts)
    path = os.path.join(units, f"{unit}.service.d", _NAME)
    text = render_drop_in(declared) if declared else ""
    service = Service(host, unit, path, text, params["enabled"], reload=state.get("NeedDaemonReload") == "yes")
    require_last_word(host, state, _NAME, declared)
    if state:
        require_unit_file(state.get("ExecStart", ""), params["config_file"])
    now = "" if fresh else host.read(path) or ""
    if sentinel.text:
        _require_paths(sentinel, unit, state, now, declared)
    service.changes += _unit_changes(service, params, state, now, fresh)
    if sentinel.running:
        require_is_the_units(unit, state, sentinel.pid)
        service.reasons = _why_restart(sentinel, declared)
    elif state.get("MainPID", "0") != "0":
        raise Refusal(
            "server_elsewhere", f"{unit}.service has process {state['MainPID']}, and nothing listens where the login and {sentinel.path} say",
            "a login that reaches the Sentinel: the file of a running one cannot be edited",
            "set login_port, tls or login_unix_socket; ss -ltnp shows the ports",
        )  # fmt: skip
    return service
