# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change for transparent huge pages to be right now and at boot, and who else sets them."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.state import Access
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.tmpfiles_conf import (
    TmpfilesConf,
    effective,
    standing,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.procfs import selected

__all__ = ["BASE", "Plan", "command_line_value", "plan", "tuned_value", "tuned_warning", "wanted_of"]

BASE = "/sys/kernel/mm/transparent_hugepage"
HEADER = "# Transparent huge pages for Redis, written by redisops.recovery.thp. Other lines are kept."


@dataclasses.dataclass
class Plan:
    changes: list[Change] = dataclasses.field(default_factory=list)
    writes: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # path, value before, value
    new_text: t.Optional[str] = None
    values: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    duplicates: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def wanted_of(enabled: str, defrag: str, khugepaged_defrag: bool) -> dict[str, str]:
    """The options as name below BASE → value."""
    return {"enabled": enabled, "defrag": defrag, "khugepaged/defrag": "1" if khugepaged_defrag else "0"}


def plan(
    boot_file: str,
    files: t.Sequence[tuple[str, str]],
    live: t.Mapping[str, str],
    wanted: t.Mapping[str, str],
    access: t.Optional[Access] = None,
) -> Plan:
    """Compare the kernel's files (``live``: name → text) and tmpfiles.d with ``wanted``. ``files``, ours among them, in the
    order in which they are read. Raises Problem."""
    result, access = Plan(), access or Access()
    before = [TmpfilesConf(text, name) for name, text in files]
    ours = TmpfilesConf(dict(files)[boot_file], boot_file)
    if not ours.render():
        ours.append(HEADER)
    for name, value in wanted.items():
        path = f"{BASE}/{name}"
        _check_choice(path, live[name], value)
        here, text = ours.of(path), ours.render()
        ours.set(path, value)
        if ours.render() != text:
            action = f"set {path} = {value} in {boot_file}"
            result.changes.append(Change("file", name, standing(here).value if here else None, value, action))
    if result.changes:
        result.new_text = ours.render()
    after = [ours if conf.file == boot_file and result.changes else conf for conf in before]
    for name, value in wanted.items():
        _check_boot(boot_file, after, name, value)
        lines = [effective(confs, f"{BASE}/{name}") for confs in (before, after)]
        at_boot = {side: line.value if line else None for side, line in zip(("before", "after"), lines)}
        result.values[name] = {
            "live": _plan_live(result, name, live[name], value, access),
            "boot": at_boot,
        }
        result.duplicates += _duplicates(after, f"{BASE}/{name}")
    return result


def _check_choice(path: str, text: str, value: str) -> None:
    choices = text.replace("[", " ").replace("]", " ").split()
    if "[" in text and value not in choices:
        raise Problem("unknown_choice", f"{path} of this kernel offers {', '.join(choices)}, but not {value}",
                      "a value that this kernel knows", "choose one of those")  # fmt: skip


def _plan_live(result: Plan, name: str, text: str, value: str, access: Access) -> dict[str, t.Any]:
    path, live = f"{BASE}/{name}", selected(text) or ""
    if live == value:
        return {"before": live, "after": live}
    if name not in access.read_only:
        result.writes.append((path, live, value))
        result.changes.append(Change("live", name, live, value, f"write {value} to {path}"))
        return {"before": live, "after": value}
    if not access.root:
        raise Problem("not_root", f"{path} is {live}, and this user may not write it", "the rights of root",
                      "run with become: true")  # fmt: skip
    problem = Problem(
        "live_read_only",
        f"{path} is {live} and cannot be written here: as in an unprivileged container, it is a setting of the machine"
        " that runs it",
        f"{value} in {path}",
        f"on the container host run: echo {value} > {path} (and keep it in /etc/tmpfiles.d there), or set on_read_only: warn",
    )
    if access.on_read_only == "fail":
        raise problem
    result.warnings.append(problem.message())
    return {"before": live, "after": live}


def _check_boot(boot_file: str, confs: t.Sequence[TmpfilesConf], name: str, value: str) -> None:
    path = f"{BASE}/{name}"
    line = effective(confs, path)
    if line is None or line.value == value:
        return
    if line.path == path:
        why, do = "of lines for one path systemd-tmpfiles takes the first", "sorts before it"
    else:
        why, do = f"its pattern {line.path} matches as well and is applied later", "sorts after it"
    raise Problem(
        "overridden_at_boot",
        f"{path}: {boot_file} would say {value}, but {line.file} line {line.line} writes {line.value} at boot; {why}",
        f"{value} in {path} after every boot",
        f"remove line {line.line} of {line.file}"
        + ("" if line.file == boot_file else f", or name a boot_file that {do}"),
        file=line.file,
        line=line.line,
    )


def _duplicates(confs: t.Sequence[TmpfilesConf], path: str) -> list[dict[str, t.Any]]:
    """Every line that matches ``path`` next to the one whose value stands after boot."""
    decides = effective(confs, path)
    lines = [line for conf in confs for line in conf.writes() if line.matches(path) and line != decides]
    return [{"path": path, "file": one.file, "line": one.line, "value": one.value} for one in lines]


def command_line_value(cmdline: str) -> t.Optional[str]:
    """``transparent_hugepage=`` of /proc/cmdline, the last one."""
    found = re.findall(r"(?:^|\s)transparent_hugepage=(\S+)", cmdline)
    return found[-1] if found else None


def tuned_value(profiles: str, read: t.Callable[[str], t.Optional[str]]) -> t.Optional[tuple[str, str]]:
    """(value, profile) of transparent_hugepages that tuned sets for its active ``profiles``; ``read`` gives a profile's text."""
    found: t.Optional[tuple[str, str]] = None
    for profile in profiles.split():
        found = _tuned_profile(profile, read, set()) or found
    return found


def _tuned_profile(
    profile: str, read: t.Callable[[str], t.Optional[str]], seen: set[str]
) -> t.Optional[tuple[str, str]]:
    text = read(profile)
    if text is None or profile in seen:
        return None
    seen.add(profile)
    included: t.Optional[tuple[str, str]] = None
    own: t.Optional[tuple[str, str]] = None
    for section, name, value in _ini(text):
        if section == "main" and name == "include":
            for other in re.split(r"[\s,;]+", value):
                included = _tuned_profile(other, read, seen) or included
        elif name in ("transparent_hugepages", "transparent_hugepage"):
            own = (value, profile)
    return own or included


def _ini(text: str) -> t.Iterator[tuple[str, str, str]]:
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and line[0] not in "#;":
            name, value = line.split("=", 1)
            yield section, name.strip(), value.split("#")[0].strip()


def tuned_warning(found: t.Optional[tuple[str, str]], active: str, enabled: str) -> t.Optional[str]:
    """What to tell where tuned will set another value than ``enabled``."""
    if found is None or found[0] == enabled:
        return None
    value, profile = found
    include = ",".join(active.split())
    by = "" if profile == include else f", by way of the profile {profile},"
    return (
        f"tuned's active profile {include}{by} sets transparent_hugepages={value} whenever tuned starts, which is after this"
        f" module's boot file. Give it a profile of its own: mkdir -p /etc/tuned/redis && printf '[main]\\ninclude={include}\\n"
        f"[vm]\\ntransparent_hugepages={enabled}\\n' > /etc/tuned/redis/tuned.conf && tuned-adm profile redis"
    )
