# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed errors. Everything below the modules raises these; only the runner turns them into C(fail_json)."""

from __future__ import annotations

__all__ = ["Problem", "Refusal", "explained"]


def explained(code: str) -> str:
    """How a message ends: its code, and where that is explained."""
    return f"[{code}] docs/reference/refusals.md#{code}"


class Problem(Exception):
    """Something that stops the work, reported so that an operator can act on it.

    ``detected`` is what was observed, ``needs`` what would have to be true, ``do`` the option to set or the command to run.
    ``code`` is stable and names the case in results and tests. Extra keywords become keys of the module's result.
    """

    def __init__(self, code: str, detected: str, needs: str = "", do: str = "", **details) -> None:
        super().__init__(detected)
        self.code = code
        self.detected = detected
        self.needs = needs
        self.do = do
        self.details = details

    def message(self) -> str:
        """One paragraph: what was detected, what is needed, what to set or run, and where the code is explained."""
        parts = [self.detected.rstrip(". ") + "."]
        if self.needs:
            parts.append("Needed: " + self.needs.rstrip(". ") + ".")
        if self.do:
            parts.append("Do: " + self.do.rstrip(". ") + ".")
        return " ".join([*parts, explained(self.code)])


class Refusal(Problem):
    """The work could lose data, or cannot be shown not to; this task changed nothing."""

    def message(self) -> str:
        return "Refused; this task changed nothing. " + super().message()
