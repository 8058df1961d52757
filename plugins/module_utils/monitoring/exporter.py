# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis_exporter's login: a drop-in of its service, and a file that only root can read."""

from __future__ import annotations

import glob
import os
import pwd
import re
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.replication.state import endpoint
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.units import Piece
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import Host, User
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import passes_as
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemctl import systemctl
from ansible_collections.redisops.recovery.plugins.module_utils.system.systemd_unit import parse_show

__all__ = ["exporter_pieces", "require_exporter"]

_TLS_FILES = {
    "ca_certs": "REDIS_EXPORTER_TLS_CA_CERT_FILE",
    "client_cert_file": "REDIS_EXPORTER_TLS_CLIENT_CERT_FILE",
    "client_key_file": "REDIS_EXPORTER_TLS_CLIENT_KEY_FILE",
}
_NAME = re.compile(r"# redisops set (.+)")
_FILE = re.compile(r"EnvironmentFile=(.+)")


def _environment(login: Login) -> str:
    """What redis_exporter reads, as systemd's EnvironmentFile=."""
    # "-": it asks for no CONFIG GET, which its user may not run (preset monitoring).
    values = {"REDIS_USER": login.user, "REDIS_PASSWORD": login.password, "REDIS_EXPORTER_CONFIG_COMMAND": "-"}
    if login.unix_socket:
        values = {"REDIS_ADDR": f"unix://{login.unix_socket}", **values}
    else:
        scheme = "rediss" if login.tls else "redis"
        values = {"REDIS_ADDR": f"{scheme}://{endpoint(login.host, login.port)}", **values}
        if login.tls:
            values.update({name: getattr(login, option) for option, name in _TLS_FILES.items()})
            values["REDIS_EXPORTER_SKIP_TLS_VERIFICATION"] = "" if login.validate_certs else "true"
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items() if value}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def _drop_ins(units: str, settings: str) -> t.Iterator[tuple[str, str, str]]:
    """Service, set and file with the login of each drop-in of ours."""
    for path in sorted(glob.glob(os.path.join(glob.escape(units), "*.service.d", "redisops.conf"))):
        text = read_text(path)
        name, file = _NAME.search(text), _FILE.search(text)
        if name and file and file[1].startswith(os.path.join(settings, "exporter-")):
            yield os.path.basename(os.path.dirname(path)).removesuffix(".service.d"), name[1], file[1]


def exporter_pieces(units: str, settings: str, group_name: str, unit: str, login: Login) -> list[Piece]:
    """The login of the service ``unit``, empty for none; and what an earlier run gave to others for this group, to be taken away.

    ``units`` and ``settings`` are directories. Raises Problem for a unit whose login is another set's.
    """
    found = list(_drop_ins(units, settings))
    pieces = [
        Piece("", file, "", {f"{service}.service.d/redisops.conf": ""}, False)
        for service, name, file in found
        if name == group_name and service != unit
    ]
    if not unit:
        return pieces
    for service, name, _file in found:
        if service == unit and name != group_name and os.path.exists(os.path.join(settings, f"metrics-{name}.json")):
            raise Problem(
                "exporter_taken",
                f"{unit}.service has the login of set {name}, of which this host writes metrics as well",
                "a service of redis_exporter for each group",
                f"set exporter_unit to another unit or to nothing, or end the metrics of {name} (redis_metrics, group_name {name}, state absent)",
            )
    file = os.path.join(settings, f"exporter-{unit}.env")
    drop_in = f"# redisops set {group_name}\n[Service]\nEnvironmentFile={file}\n"
    service = f"{unit}.service"
    return [*pieces, Piece("", file, _environment(login), {f"{service}.d/redisops.conf": drop_in}, True, (service,))]


def require_exporter(host: Host, unit: str, login: Login) -> None:
    """Whether the service's user may read the TLS files; of a user that is made at each start that is not known. Raises Problem."""
    if not unit or not login.tls or login.unix_socket:
        return
    state = parse_show(systemctl(host, "show", "-p", "User", f"{unit}.service"))
    try:
        account = pwd.getpwnam(state.get("User") or "root")
    except KeyError:
        return
    user = User(account.pw_uid, account.pw_gid, tuple(os.getgrouplist(account.pw_name, account.pw_gid)))
    for option in _TLS_FILES:
        path = getattr(login, option)
        if path and not passes_as(user, "-r", path):
            raise Problem(
                "exporter_unable",
                f"{option}: {account.pw_name}, as whom {unit}.service runs, may not read {path}",
                "files that redis_exporter may read",
                f"give {account.pw_name} (by its group) the right to, or leave exporter_unit empty and configure redis_exporter yourself",
            )
