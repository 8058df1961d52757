# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups are and what opens it, with its secrets kept out of every text."""

from __future__ import annotations

import dataclasses
import re
import typing as t
import urllib.parse

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = ["Repository"]

_SECRET_NAME = re.compile(r"pass|secret|token|key|auth|cred", re.I)
_MASK = "***"


@dataclasses.dataclass(frozen=True)
class Repository:
    """Where backups are, in restic's words: ``location`` is a path, ``sftp:…``, ``s3:…``, ``rest:…`` and so on.

    ``environment`` is what the location needs (AWS_ACCESS_KEY_ID, …), ``options`` go as ``-o`` (sftp.command=…) and hold no secret.
    ``cache_dir`` empty is restic's own choice. A secret is in none of the texts that this makes of itself.
    """

    name: str
    location: str = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)
    environment: t.Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    options: tuple[str, ...] = ()
    cache_dir: str = ""

    @property
    def shown(self) -> str:
        """The location without the password that a URL may hold."""
        return re.sub(r"(//[^/:@]*):.*@", rf"\1:{_MASK}@", self.location)

    def mask(self, text: str) -> str:
        """``text`` without a secret of this repository."""
        found = re.search(r"//[^/:@]*:(.*)@", self.location)
        inner = [found.group(1), urllib.parse.unquote(found.group(1))] if found else []
        named = [value for name, value in self.environment.items() if _SECRET_NAME.search(name)]
        for secret in sorted({self.password, *inner, *named} - {""}, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return text

    def require_usable(self) -> None:
        """Raise Problem for what restic could not be given."""
        place = (self.name, self.location, self.password, self.cache_dir)
        words = (*place, *self.options, *self.environment, *self.environment.values())
        if not self.location or not self.password:
            lacking = "password" if self.location else "location"
            detected = f"repository {self.name}: it has no {lacking}"
            raise Problem("invalid_value", detected, f"a {lacking}", f"set the {lacking} of the repository")
        if any("\0" in word for word in words) or any("=" in name or not name for name in self.environment):
            raise Problem("invalid_value", f"repository {self.name}: a NUL byte in a value, or a name of its environment that cannot be",
                          "values that a process can be given", "correct them")  # fmt: skip
