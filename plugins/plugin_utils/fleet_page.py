# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's report as one HTML page that needs nothing else, and as Markdown (controller)."""

from __future__ import annotations

import datetime
import pathlib
import typing as t

import jinja2
from ansible_collections.redisops.recovery.plugins.plugin_utils.fleet_report import SEVERITIES, ago

__all__ = ["render_html", "render_markdown"]

_TEMPLATES = pathlib.Path(__file__).resolve().parents[2] / "playbooks" / "templates"
#: The timeline: width and margin in the units of its picture, and how far it goes back at most.
_WIDTH, _EDGE, _LONGEST = 640.0, 12.0, 30 * 86400.0
_ROW = 30


def _epoch(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _thousands(value: t.Any) -> str:
    return "" if value is None else f"{int(value):,}".replace(",", "\u202f")


def _bytes(value: t.Optional[float]) -> str:
    if value is None:
        return ""
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _timeline(one: t.Mapping[str, t.Any], now: float) -> t.Optional[dict[str, t.Any]]:
    """Points of a group's backups and drills on a line that ends now; None where there are none."""
    points = [(_epoch(row["time"]), "backup", row["status"], row["name"]) for row in one["backups"]]
    points += [(_epoch(row["time"]), "drill", "passed" if row["ok"] else "failed", "drill") for row in one["drills"]]
    points = [point for point in points if 0 <= now - point[0] <= _LONGEST]
    if not points:
        return None
    span = max(3600.0, now - min(point[0] for point in points))

    def across(at: float) -> float:
        return round(_WIDTH - _EDGE - (now - at) / span * (_WIDTH - 2 * _EDGE), 1)

    return {
        "width": _WIDTH,
        "begins": ago(span),
        "points": [
            {"x": across(at), "kind": kind, "state": state, "reported": f"{name}: {state}, {ago(now - at)} ago"}
            for at, kind, state, name in points
        ],
    }


def _picture(one: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Where each node of a group's topology stands, and the lines between them."""
    nodes, lines, row = [], [], 0
    for group in one["topology"]:
        top = row
        for replica in group["replicas"]:
            nodes.append(
                {
                    "x": 330,
                    "y": row * _ROW + 4,
                    "host": replica["host"],
                    "role": "replica" if group["primary"] else "unknown",
                }
            )
            if group["primary"]:
                lag = "" if replica["lag"] is None else f", heard {ago(replica['lag'])} ago"
                lines.append({"x1": 220, "y1": top * _ROW + 15, "x2": 330, "y2": row * _ROW + 15, "link": replica["link"] or "unknown",
                              "reported": f"{replica['host']} follows {group['primary']}: link {replica['link'] or 'not known'}{lag}"})  # fmt: skip
            row += 1
        if group["primary"]:
            nodes.append({"x": 4, "y": top * _ROW + 4, "host": group["primary"], "role": "primary"})
            row = max(row, top + 1)
    return {"height": row * _ROW + 4, "nodes": nodes, "lines": lines}


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(_TEMPLATES)),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        ago=ago, number=_thousands, bytes=_bytes, cell=lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    )
    return environment


def render_html(report: t.Mapping[str, t.Any]) -> str:
    """One page without a link to the network; everything that hosts say is escaped."""
    now = _epoch(report["generated_at"])
    pictures = {one["group"]: {"topology": _picture(one), "timeline": _timeline(one, now)} for one in report["groups"]}
    return (
        _environment(True)
        .get_template("report.html.j2")
        .render(report=report, pictures=pictures, severities=SEVERITIES)
    )


def render_markdown(report: t.Mapping[str, t.Any]) -> str:
    """The same for a ticket or a terminal."""
    return _environment(False).get_template("report.md.j2").render(report=report, severities=SEVERITIES)
