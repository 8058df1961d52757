# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Redis comes from on this host."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import version_tuple

__all__ = ["SOURCES", "Wish", "plan_install"]

SOURCES = ("auto", "distribution", "module_stream", "vendor", "mirror", "installed")
#: The Redis that a distribution release carries by itself, without a module stream. A release that is not listed is not judged.
CARRIES = {
    ("debian", "11"): "6.0.16", ("debian", "12"): "7.0.15", ("debian", "13"): "8.0.2",
    ("ubuntu", "20.04"): "5.0.7", ("ubuntu", "22.04"): "6.0.16", ("ubuntu", "24.04"): "7.0.15",
    ("el", "8"): "5.0.3", ("el", "9"): "6.2.7",
}  # fmt: skip
#: Releases whose module stream has a Redis that is new enough.
STREAMS = {("el", "9"): "redis:7"}
#: redis-py below this lacks what the connection needs.
REDIS_PY = "3.5"


def _release(host: t.Mapping[str, t.Any]) -> tuple[str, str]:
    os_facts = host.get("os") or {}
    name, version = str(os_facts.get("id") or ""), str(os_facts.get("version_id") or "")
    if name in ("debian", "ubuntu"):
        return name, version
    like = os_facts.get("id_like") or []
    words = like.split() if isinstance(like, str) else list(like)
    if name in ("rhel", "centos") or "rhel" in words:
        return "el", version.split(".", maxsplit=1)[0]
    return name, version


def _source(asked: str, release: tuple[str, str], minimum: str) -> str:
    if asked != "auto":
        return asked
    if release in STREAMS:
        return "module_stream"
    if release[0] == "el":
        return "distribution"  # and refused there
    carried = CARRIES.get(release)
    if carried is None or version_tuple(carried) >= version_tuple(minimum):
        return "distribution"
    return "vendor"


def _require_available(
    source: str, release: tuple[str, str], manager: t.Optional[str], minimum: str, mirror_url: str
) -> None:
    where = " ".join(release).strip() or "this system"
    carried = CARRIES.get(release)
    if manager not in ("apt", "dnf"):
        raise Refusal(
            "no_package_manager", f"{where} has neither apt nor dnf", "Debian, Ubuntu, or RHEL and its rebuilds",
            "install Redis yourself and set redis_install_source: installed",
        )  # fmt: skip
    if release[0] == "el" and release not in STREAMS and source in ("distribution", "module_stream"):
        raise Refusal(
            "no_known_source", f"it is not known where {where} has Redis >= {minimum}", "RHEL 9 or a rebuild, or a repository that you name",
            "set redis_install_source: mirror, or vendor with redis_install_vendor_rpm_url for this release",
        )  # fmt: skip
    if source == "installed":
        raise Refusal(
            "not_installed", "redis_install_source is installed, and Redis or redis-py is not", f"Redis >= {minimum} and redis-py >= {REDIS_PY}",
            "install them, or set redis_install_source: auto",
        )  # fmt: skip
    if source == "distribution" and carried and version_tuple(carried) < version_tuple(minimum):
        raise Refusal(
            "too_old", f"{where} carries Redis {carried}", f"Redis >= {minimum}",
            "set redis_install_source: vendor, mirror, or (RHEL 9) module_stream",
        )  # fmt: skip
    if source == "module_stream" and manager != "dnf":
        raise Refusal(
            "no_module_streams",
            f"{where} has no dnf module streams",
            "RHEL 9 or a rebuild",
            "set redis_install_source: auto",
        )
    if source == "mirror" and not mirror_url:
        raise Refusal(
            "no_mirror",
            "redis_install_source is mirror, and redis_install_mirror_url is empty",
            "the mirror's URL",
            "set redis_install_mirror_url",
        )


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is declared: the ``source``, the oldest version that is good enough, names of packages where they are not the usual ones."""

    source: str
    minimum: str
    stream: str
    mirror_url: str
    packages: t.Sequence[str] = ()
    python_packages: t.Sequence[str] = ()
    python_source: str = "package"


def _python(wish: Wish, manager: t.Optional[str]) -> tuple[list[str], list[str]]:
    """Packages and pip's distributions that bring redis-py. Raises Refusal."""
    if wish.python_source != "pip":
        return list(wish.python_packages) or ["python3-redis"], []
    if manager == "apt":
        raise Refusal(
            "pip_not_for_apt", "redis_install_python_source is pip, and the Python of Debian and Ubuntu is not pip's to change",
            "redis-py from the distribution", "set redis_install_python_source: package",
        )  # fmt: skip
    return ["python3-pip"], list(wish.python_packages) or ["redis"]


def _server(wish: Wish, chosen: str, manager: t.Optional[str]) -> list[str]:
    """Packages that bring the server."""
    usual = {
        "apt": ["redis-server", "redis-tools"], "dnf": [f"@{wish.stream}/common"] if chosen == "module_stream" else ["redis"],
    }  # fmt: skip
    return list(wish.packages) or usual[str(manager)]


def plan_install(host: t.Mapping[str, t.Any], wish: Wish) -> dict[str, t.Any]:
    """What has to be installed, and from where; ``host`` is the answer of redis_host_info. Raises Refusal."""
    if wish.source not in SOURCES:
        raise Refusal(
            "invalid_value", f"redis_install_source is {wish.source!r}", "one of " + ", ".join(SOURCES), "correct it"
        )
    redis, redis_py = host.get("redis") or {}, host.get("redis_py")
    have = redis.get("installed")
    # Valkey counts by its own version: 7.2 is its first, and all of it has the multi-part AOF.
    if have and redis.get("product") != "valkey" and version_tuple(have) < version_tuple(wish.minimum):
        raise Refusal(
            "too_old", f"Redis {have} is installed", f"Redis >= {wish.minimum}",
            "upgrade it first, after a backup; this collection does not replace a server that may hold data",
        )  # fmt: skip
    need_python = not redis_py or version_tuple(redis_py) < version_tuple(REDIS_PY)
    release, manager = _release(host), host.get("package_manager")
    plan: dict[str, t.Any] = {
        "needed": bool(not have or need_python), "manager": manager, "source": "installed", "packages": [], "pip": [],
        "fresh_install": not have, "codename": (host.get("os") or {}).get("codename"),
    }  # fmt: skip
    if not plan["needed"]:
        return plan
    chosen = _source(wish.source, release, wish.minimum)
    _require_available(chosen, release, manager, wish.minimum, wish.mirror_url)
    server = [] if have else _server(wish, chosen, manager)
    python, pip = _python(wish, manager) if need_python else ([], [])
    return {**plan, "source": "installed" if have else chosen, "packages": server + python, "pip": pip}
