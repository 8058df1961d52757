# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The half of redis_tls that runs on the controller: it reads files, and signs what the host asks for."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import name_of

_MODULE = "redisops.recovery.redis_tls"
_FILES = ("certificate", "key", "ca", "ca_key")
#: The module's defaults of what is decided on here.
_DEFAULTS = {"source": "given", "own_addresses": True, "valid_days": 397}


def joined(first: dict, second: dict) -> dict:
    """One result of two calls: what the first one found different before anything was touched is what the task changed."""
    if second.get("failed"):
        return second
    reported = ("changed", "diff", "actions", "issued_because", "pending")
    return {**second, **{name: first[name] for name in reported if name in first}}


class ActionModule(ActionBase):
    """One call of the module; a second one only where a certificate is due."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[dict] = None) -> dict:
        super().run(tmp, task_vars)
        try:
            return self._converge(dict(self._task.args), task_vars or {})
        except Problem as problem:
            return {"failed": True, "changed": False, "msg": problem.message(), "code": problem.code}

    def _converge(self, args: dict, task_vars: dict) -> dict:
        source = args.get("source") or _DEFAULTS["source"]
        self._read_files(args, source)
        if source != "issued":
            return self._module(args, task_vars)
        try:
            from ansible_collections.redisops.recovery.plugins.plugin_utils.authority import Authority
        except ImportError as error:
            raise Problem(
                "no_cryptography", f"the controller's Python cannot sign certificates: {error}", "the package cryptography >= 40",
                "install it where ansible-playbook runs",
            ) from None  # fmt: skip
        secrets = {name: args.pop(name, None) for name in ("ca_key", "ca_key_passphrase")}
        if not args.get("ca"):
            raise _missing("ca", "no CA certificate was given", "set ca_src or ca to the certificate of the authority")
        if not secrets["ca_key"]:
            raise _missing("ca_key", "no key of the authority was given", "set ca_key_src or ca_key, or another source")
        authority = Authority(args["ca"], secrets["ca_key"], secrets["ca_key_passphrase"])
        if not args.get("names"):
            own = [task_vars.get("inventory_hostname"), task_vars.get("ansible_host")]
            args["names"] = list(dict.fromkeys(str(name) for name in own if name))
        args.pop("certificate", None)
        result = self._module(args, task_vars)
        if result.get("failed") or not result.get("request"):
            return result
        any_address = boolean(args.get("own_addresses", _DEFAULTS["own_addresses"]))
        given = args["names"].split(",") if isinstance(args["names"], str) else args["names"]
        names = [name_of(str(name).strip()) for name in given] + (["localhost"] if any_address else [])
        days = int(args.get("valid_days") or _DEFAULTS["valid_days"])
        signed = authority.sign(result["request"], names, any_address, days)
        return joined(result, self._module({**args, "certificate": signed}, task_vars))

    def _module(self, args: dict, task_vars: dict) -> dict:
        return self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)

    def _text_of(self, path: str) -> str:
        """The text of a file, decrypted in memory: get_real_file() would put a decrypted copy on the disk."""
        public = getattr(self._loader, "get_text_file_contents", None)  # ansible-core >= 2.19
        return str(public(path)) if public else to_text(self._loader._get_file_contents(path)[0])

    def _read_files(self, args: dict, source: str) -> None:
        """Put the content of every ``…_src`` where its option is. Raises Problem."""
        for name in _FILES:
            path = args.pop(f"{name}_src", None)
            if not path:
                continue
            if args.get(name):
                raise Problem(
                    "contradiction",
                    f"{name} and {name}_src are both set",
                    "one of them",
                    f"take {name} or {name}_src out",
                )
            try:
                args[name] = self._text_of(self._find_needle("files", str(path)))
            except (AnsibleError, OSError) as error:
                raise _missing(
                    name,
                    f"{name}_src: {path} cannot be read on the controller: {str(error).splitlines()[0]}",
                    f"correct {name}_src",
                ) from None
        if source != "issued" and (args.get("ca_key") or args.get("ca_key_passphrase")):
            raise Problem(
                "contradiction", f"a key of the authority is given, and source is {source}", "source: issued, or no such key",
                "set source: issued, or take ca_key out",
            )  # fmt: skip


def _missing(name: str, detected: str, do: str) -> Problem:
    """One code for each of the four that can be missing."""
    needs = "a file in PEM form"
    if name == "ca":
        return Problem("ca_missing", detected, needs, do)
    if name == "ca_key":
        return Problem("ca_key_missing", detected, needs, do)
    if name == "key":
        return Problem("key_missing", detected, needs, do)
    return Problem("certificate_missing", detected, needs, do)
