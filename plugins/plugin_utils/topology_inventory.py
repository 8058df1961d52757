# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugins share: options, the cache, finding hosts that are there already, filling the inventory (controller)."""

from __future__ import annotations

import datetime
import ipaddress
import re
import sys
import typing as t

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.helpers import get_group_vars
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.collect import resolve
from ansible_collections.redisops.recovery.plugins.module_utils.inventory.hosts import (
    SENTINEL,
    SERVER,
    Endpoint,
    Existing,
    Host,
    assign,
    merge,
    normal,
)
from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Login

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core < 2.19 takes every string for a template that is not marked

    def trust_as_template(value: str) -> str:
        return value


__all__ = ["TopologyInventory"]


class TopologyInventory(BaseInventoryPlugin, Constructable, Cacheable):
    """A source whose hosts are what running servers say. A plugin adds NAME, ENDINGS, GROUPS, asked() and read()."""

    ENDINGS: tuple[str, ...] = ()
    GROUPS: tuple[str, ...] = ()

    def asked(self) -> dict[str, t.Any]:
        """What decides the answer, without secrets; a cache that was filled for something else is not taken."""
        raise NotImplementedError

    def read(self) -> tuple[list[Endpoint], list[str]]:
        """Ask the servers: what there is, and warnings. Raises Problem."""
        raise NotImplementedError

    def verify_file(self, path: str) -> bool:
        return path.endswith(self.ENDINGS) and super().verify_file(path)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            endpoints, seen_at = self._endpoints(path, cache)
            names, warnings = self._names(endpoints, path)
        except Problem as problem:
            raise AnsibleParserError(f"{self._words(problem)} [{problem.code}]") from None
        for text in warnings:
            self.display.warning(text)
        known = set(inventory.hosts)
        for group in self.GROUPS:
            inventory.add_group(group)
        for host in merge(endpoints, names):
            self._add(host, host.name not in known, seen_at)

    @staticmethod
    def _words(problem: Problem) -> str:
        if problem.code == "redis_py_missing":
            return f"Reading a Redis inventory needs redis-py >= 3.5 on the controller. Do: {sys.executable} -m pip install redis."
        return problem.message()

    def text(self, name: str) -> t.Optional[str]:
        """A string option, its template worked out; None for an empty one."""
        return self._worked_out(name, self.get_option(name)) or None

    def texts(self, name: str) -> list[str]:
        return [text for text in (self._worked_out(name, entry) for entry in self.get_option(name) or []) if text]

    def _worked_out(self, name: str, value: t.Any) -> str:
        if value is None:
            return ""
        text = str(value)  # a vault's text is a class of its own
        if "{{" not in text and "{%" not in text:
            return text
        self.templar.available_variables = self._vars
        try:
            found = self.templar.template(value)
        except AnsibleError as error:
            raise AnsibleParserError(f"option {name}: the template cannot be worked out: {error}") from None
        return "" if found is None else str(found)

    def login(self, user: str, password: str, tls: t.Optional[bool] = None) -> Login:
        return Login(
            user=self.text(user),
            password=self.text(password),
            tls=self.get_option("tls") if tls is None else tls,
            ca_certs=self.text("ca_certs"),
            client_cert_file=self.text("client_cert_file"),
            client_key_file=self.text("client_key_file"),
            validate_certs=self.get_option("validate_certs"),
        )

    def _endpoints(self, path: str, cache: bool) -> tuple[list[Endpoint], str]:
        """From the cache where that is wanted and it has them; else from the servers. With the time at which they were asked."""
        wanted, key, asked = self.get_option("cache"), self.get_cache_key(path), self.asked()
        if wanted and cache:
            try:
                stored = self._cache[key]
                if stored["asked"] == asked:
                    return [Endpoint.restored(entry) for entry in stored["endpoints"]], stored["seen_at"]
            except (KeyError, TypeError):
                pass
        endpoints, warnings = self.read()
        for text in warnings:
            self.display.warning(text)
        seen_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        if wanted:
            self._cache[key] = {"asked": asked, "seen_at": seen_at, "endpoints": [one.stored() for one in endpoints]}
        return endpoints, seen_at

    def _names(self, endpoints: t.Sequence[Endpoint], path: str) -> tuple[list[str], list[str]]:
        existing = self._existing(path)
        named = {str(address): str(name) for address, name in self.get_option("host_names").items()}
        names, warnings = assign(endpoints, existing, named)
        known = {one.name for one in existing} | set(named.values())
        if self.get_option("resolve_names") and not set(names) <= known:
            hosts = {normal(text)[0] for one in existing for text in one.addresses}
            found = resolve(sorted(host for host in hosts if host and not _literal(host)))
            existing = [self._resolved(one, found) for one in existing]
            names, warnings = assign(endpoints, existing, named)
        return names, warnings

    @staticmethod
    def _resolved(one: Existing, found: t.Mapping[str, t.Sequence[str]]) -> Existing:
        addresses = set(one.addresses)
        for text in one.addresses:
            host, port = normal(text)
            spelled = [f"[{address}]" if ":" in address else address for address in found.get(host, ())]
            addresses.update(address if port is None else f"{address}:{port}" for address in spelled)
        return Existing(one.name, frozenset(addresses), one.ports)

    def _existing(self, path: str) -> list[Existing]:
        found = []
        for host in list(self.inventory.hosts.values()):
            values = self._known_variables(host, path)
            addresses = {str(host.name)}
            for name in self.get_option("address_variables"):
                addresses.add(self._value(values, name))
            ports = {
                kind: int(port)
                for kind, name in (
                    (SERVER, self.get_option("port_variable")),
                    (SENTINEL, self._sentinel_port_variable()),
                )
                for port in [self._value(values, name)]
                if port.isdigit()
            }
            found.append(Existing(str(host.name), frozenset(filter(None, addresses)), ports))
        return found

    def _sentinel_port_variable(self) -> str:
        return ""

    def _known_variables(self, host: t.Any, path: str) -> dict[str, t.Any]:
        groups = host.get_groups()
        values = get_group_vars(groups)
        if self.get_option("use_vars_plugins"):
            sources = [*getattr(self.inventory, "processed_sources", ()), path]
            of_groups = get_vars_from_inventory_sources(self.loader, sources, groups, "all")
            of_host = get_vars_from_inventory_sources(self.loader, sources, [host], "all")
            return combine_vars(combine_vars(values, of_groups), combine_vars(host.get_vars(), of_host))
        return combine_vars(values, host.get_vars())

    def _value(self, values: t.Mapping[str, t.Any], name: str) -> str:
        """A variable of a host as text; empty if it is not set, or is a template that cannot be worked out yet."""
        value = values.get(name)
        if value is None:
            return ""
        text = str(value)
        if "{{" in text:
            self.templar.available_variables = dict(values)
            try:
                text = str(self.templar.template(value))
            except AnsibleError:
                return ""
        return "" if "{{" in text else text

    def _add(self, host: Host, new: bool, seen_at: str) -> None:
        name = self.inventory.add_host(host.name)
        variables = {**host.variables, "redis_seen_at": seen_at}
        if new:
            variables["ansible_host"] = host.address
        for key, value in variables.items():
            self.inventory.set_variable(name, key, _marked(value))
        for group in host.groups:
            self.inventory.add_child(self.inventory.add_group(group), name)
        strict = self.get_option("strict")
        values = self.inventory.get_host(name).get_vars()
        self._set_composite_vars(self.get_option("compose"), values, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), {}, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), {}, name, strict=strict)


def _marked(value: t.Any) -> t.Any:
    """What a server stated, as data that is never worked out. What has no sign of a template in it is listed plainly."""
    if isinstance(value, list):
        return [_marked(entry) for entry in value]
    if not isinstance(value, str):
        return value
    return trust_as_template(value) if re.fullmatch(r"[\w.:,;@/ +()\[\]'-]*", value) else wrap_var(value)


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
