# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change for kernel settings to be right now and at boot."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.state import Access
from ansible_collections.redisops.recovery.plugins.module_utils.kernel.sysctl_conf import (
    Assignment,
    SysctlConf,
    dotted,
    effective,
    is_valid_key,
    normal_value,
    proc_path,
    same_value,
)

__all__ = ["BootFiles", "Plan", "Wanted", "plan", "wanted_of"]

HEADER = "# Kernel settings for Redis, written by redisops.recovery.sysctl_redis. Other lines are kept."


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One declared setting: exactly ``value``, or with ``minimum`` at least it."""

    path: str
    value: str
    minimum: bool

    @property
    def name(self) -> str:
        return dotted(self.path)

    def met_by(self, value: t.Optional[str]) -> bool:
        if value is None:
            return False
        if self.minimum:
            number = _integer(value)
            return number is not None and number >= int(self.value)
        return same_value(self.value, value)


@dataclasses.dataclass(frozen=True)
class BootFiles:
    """The files that are read at boot, in that order, as (name, text); ``ours`` is the one to edit."""

    ours: str
    files: t.Sequence[tuple[str, str]]
    unread: t.Sequence[tuple[str, str]] = ()  # files that look as if they counted, and do not

    def confs(self, new_text: t.Optional[str] = None) -> list[SysctlConf]:
        return [
            SysctlConf(new_text if new_text is not None and name == self.ours else text, name)
            for name, text in self.files
        ]


@dataclasses.dataclass
class Plan:
    changes: list[Change] = dataclasses.field(default_factory=list)
    writes: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    new_text: t.Optional[str] = None
    values: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    duplicates: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def _integer(value: t.Optional[str]) -> t.Optional[int]:
    text = normal_value(value or "")
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def wanted_of(values: t.Mapping[str, t.Any], minimums: t.Mapping[str, t.Any]) -> list[Wanted]:
    """The two options as one list. Raises Problem for what no kernel can mean."""
    found: dict[str, Wanted] = {}
    for option, settings in (("values", values), ("minimums", minimums)):
        for key, value in settings.items():
            name = str(key)
            if not is_valid_key(name):
                raise Problem("invalid_key", f"{option}: {name!r} is no name of a kernel setting",
                              "a name such as vm.overcommit_memory, no pattern", f"correct {option}")  # fmt: skip
            text = "" if value is None or isinstance(value, bool) else str(value).strip()
            bad = not text or not text.isprintable() or (option == "minimums" and _integer(text) is None)
            if bad or not isinstance(value, (str, int)):
                raise Problem("invalid_value", f"{option}: {name} cannot be set to {value!r}",
                              "a whole number" if option == "minimums" else "a number, or text of one line",
                              f"write, for instance, {option}: {{{name}: \"1\"}}")  # fmt: skip
            path = proc_path(name)
            if path in found:
                raise Problem("conflicting_options", f"{dotted(path)} is declared twice, in values and minimums or in two spellings",
                              "one declaration for each setting", "remove one of them")  # fmt: skip
            found[path] = Wanted(path, normal_value(text) if option == "minimums" else text, option == "minimums")
    return list(found.values())


def _target(wanted: Wanted, live: str, at_boot: t.Sequence[t.Optional[str]]) -> str:
    """The value to have: as declared, or for a minimum the highest of it and of what is there already."""
    if not wanted.minimum:
        return wanted.value
    present = _integer(live)
    if present is None:
        raise Problem("not_a_number", f"{wanted.name} is {live.strip()!r} on this host, which is no whole number",
                      "a setting that holds one number", f"move {wanted.name} from minimums to values")  # fmt: skip
    numbers = [number for number in map(_integer, at_boot) if number is not None]
    return str(max(int(wanted.value), present, *numbers))


def _ours_is_needed(
    confs: t.Sequence[SysctlConf], ours: str, one: Wanted, now: t.Optional[Assignment], target: str
) -> bool:
    """Whether a line for a minimum has to stand in our file: not where another file holds enough and ours would not decide."""
    if now is None or not one.met_by(now.value):
        return True
    if same_value(now.value, target):
        return False
    planned = []
    for conf in confs:
        candidate = SysctlConf(conf.render(), conf.file)
        if conf.file == ours:
            candidate.set(one.path, target)
        planned.append(candidate)
    decides = effective(planned, one.path)
    return decides is not None and decides.file == ours


def _plan_file(boot: BootFiles, live: t.Mapping[str, str], wanted: t.Sequence[Wanted], result: Plan) -> dict[str, str]:
    """Put what our file lacks into ``result``; gives the value that each path is to have."""
    before = boot.confs()
    others = [conf for conf in before if conf.file != boot.ours]
    untouched = next(conf for conf in before if conf.file == boot.ours).render()
    ours = SysctlConf(untouched, boot.ours)  # to be edited
    if not untouched:
        ours.append(HEADER)
    targets: dict[str, str] = {}
    for one in wanted:
        now, now_others = effective(before, one.path), effective(others, one.path)
        own = ours.of(one.path)
        target = targets[one.path] = _target(one, live[one.path], [line.value for line in (now, now_others) if line])
        if own and same_value(own[-1].value, target):
            continue
        if not one.minimum or _ours_is_needed(before, boot.ours, one, now, target):
            ours.set(one.path, target)
            stated = (own[-1].value or "excluded") if own else None
            result.changes.append(Change("file", one.name, stated, target, f"set {one.name} = {target} in {boot.ours}"))
    result.new_text = ours.render() if result.changes else None
    return targets


def plan(
    boot: BootFiles, live: t.Mapping[str, str], wanted: t.Sequence[Wanted], access: t.Optional[Access] = None
) -> Plan:
    """Compare ``live`` (path → text of the kernel's file) and the boot files with what is wanted. Raises Problem."""
    result, access = Plan(), access or Access()
    before = boot.confs()
    targets = _plan_file(boot, live, wanted, result)
    untouched = next(conf for conf in before if conf.file == boot.ours).render()
    after = boot.confs(untouched if result.new_text is None else result.new_text)
    for one in wanted:
        _check_boot(boot, one, targets[one.path], effective(after, one.path))
        _plan_live(result, one, targets[one.path], live[one.path], access)
        lines = [effective(confs, one.path) for confs in (before, after)]
        result.values[one.name]["boot"] = {
            side: line.value if line else None for side, line in zip(("before", "after"), lines)
        }
        result.duplicates += _duplicates(boot, after, one.path)
    return result


def _plan_live(result: Plan, one: Wanted, target: str, text: str, access: Access) -> None:
    live, read_only = normal_value(text), one.path in access.read_only
    holds = same_value(live, target) or (read_only and one.met_by(live))
    result.values[one.name] = {"live": {"before": live, "after": live if holds or read_only else target}}
    if holds:
        return
    if read_only and not access.root:
        raise Problem("not_root", f"{one.name} is {live}, and this user may not write /proc/sys/{one.path}",
                      "the rights of root", "run with become: true")  # fmt: skip
    if read_only:
        problem = Problem(
            "live_read_only",
            f"{one.name} is {live} and /proc/sys/{one.path} cannot be written here: as in an unprivileged container,"
            " it is a setting of the machine that runs it",
            f"{one.name} {'at least' if one.minimum else '='} {one.value}",
            f"on the container host run: sysctl -w {shlex.quote(one.name + '=' + one.value)} (and keep it in /etc/sysctl.d there),"
            " or set on_read_only: warn",
        )
        if access.on_read_only == "fail":
            raise problem
        result.warnings.append(problem.message())
        return
    result.writes.append((one.path, target))
    result.changes.append(Change("live", one.name, live, target, f"write {target} to /proc/sys/{one.path}"))


def _check_boot(boot: BootFiles, one: Wanted, target: str, line: t.Optional[Assignment]) -> None:
    if line and (same_value(line.value, target) or one.met_by(line.value)):
        return
    if line is None:
        return  # cannot be: our own file has a line by now, or nothing was needed
    says = f"sets it to {line.value}" if line.value is not None else "excludes it"
    raise Problem(
        "overridden_at_boot",
        f"{one.name}: {boot.ours} would say {target}, but {line.file} line {line.line} is read later at boot and {says}",
        f"{one.name} {'at least' if one.minimum else '='} {one.value} after every boot",
        f"remove line {line.line} of {line.file}, or name a sysctl_file that sorts after it",
        file=line.file,
        line=line.line,
    )


def _duplicates(boot: BootFiles, after: t.Sequence[SysctlConf], path: str) -> list[dict[str, t.Any]]:
    """Every line for ``path`` next to the one that decides, with what it comes to."""
    decides = effective(after, path)
    found = []
    for conf in after:
        for line in conf.of(path):
            if decides and (line.file, line.line) != (decides.file, decides.line):
                found.append(_row(line, f"without effect: {decides.file} line {decides.line} is read later"))
    if decides and decides.file != boot.ours:
        found.append(_row(decides, "decides at boot"))
    for name, text in boot.unread:
        found += [_row(line, "not read at boot") for line in SysctlConf(text, name).of(path)]
    return found


def _row(line: Assignment, effect: str) -> dict[str, t.Any]:
    return {"name": dotted(line.path), "file": line.file, "line": line.line, "value": line.value, "effect": effect}
