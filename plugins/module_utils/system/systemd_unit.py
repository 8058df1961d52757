# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's texts: ``systemctl show``, drop-in files, and the command line of a unit."""

from __future__ import annotations

import re
import shlex
import typing as t

__all__ = ["command_line_overrides", "drop_in_values", "parse_show", "property_text", "render_drop_in"]

#: Properties that systemd reads in [Unit] only.
_OF_THE_UNIT = frozenset(["RequiresMountsFor"])


def parse_show(output: str) -> dict[str, str]:
    """``systemctl show -p …``: one property a line; of a repeated one (ExecStart) the last counts."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def property_text(value: t.Any) -> str:
    """A value from YAML as systemd writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def render_drop_in(properties: t.Mapping[str, str]) -> str:
    """A drop-in, properties in the order given: for the [Service] section, but for those that belong into [Unit]."""
    unit = "".join(f"{name}={value}\n" for name, value in properties.items() if name in _OF_THE_UNIT)
    lines = "".join(f"{name}={value}\n" for name, value in properties.items() if name not in _OF_THE_UNIT)
    head = "# Managed by redisops.recovery; what stands here is put back by the next run.\n"
    return f"{head}[Unit]\n{unit}[Service]\n{lines}" if unit else f"{head}[Service]\n{lines}"


def drop_in_values(text: str) -> dict[str, str]:
    """The [Service] values of a drop-in; the last one of a name counts."""
    section, values = "", {}
    for line in map(str.strip, text.splitlines()):
        header = re.fullmatch(r"\[(.+)\]", line)
        if header:
            section = header.group(1)
        elif section == "Service" and "=" in line and not line.startswith(("#", ";")):
            name, value = line.split("=", 1)
            values[name.strip()] = value.strip()
    return values


def command_line_overrides(exec_start: str) -> dict[str, str]:
    """Directives that the unit gives on the server's command line (``--name value``): they beat the file at every start.

    ``exec_start`` is the property as ``systemctl show`` prints it: ``{ path=… ; argv[]=… ; … }``.
    """
    match = re.search(r"argv\[\]=(.*?) ;", exec_start)
    try:
        words = shlex.split(match.group(1)) if match else []
    except ValueError:
        words = []
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].lower()
            found[name] = []
        elif name:
            found[name].append(word)
    return {key: " ".join(values) for key, values in found.items()}
