# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was established of a backup: one word for each level, and what was compared for it.

``verified``: loaded by the release that runs, and compared with the source at one exact moment: keys, expiries, a sample of keys by type and
content, functions with their code. ``loaded``: it loads, and not all of that could be compared. ``copied``: files and hashes only.
``failed``: something of it is not as it was.
"""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.backup.manifest import BackupManifest

__all__ = ["COPIED", "FAILED", "HASHES", "LOADED", "STATES", "VERIFIED", "compared", "missing"]

VERIFIED, LOADED, COPIED, FAILED = STATES = ("verified", "loaded", "copied", "failed")
HASHES = "SHA-256 of every file"


def compared(manifest: BackupManifest, whole: int, lengths: int, assertions: int) -> list[str]:
    """What of the source is compared with the loaded copy, in words; ``whole`` keys of the sample by content, ``lengths`` by their length."""
    found = {
        "keys and keys with a time to live of each database": not manifest.slack,
        f"type, expiry and content of {whole} keys": whole,
        f"type, expiry and length of {lengths} keys that are large, or of a module": lengths,
        "code of functions": manifest.code and not manifest.slack,
        f"{assertions} assertions": assertions,
    }
    return [words for words, holds in found.items() if holds]


def missing(manifest: BackupManifest, sampled: int, loaded_by: str, running: str) -> list[str]:
    """Why a copy that loads with no difference is not verified, in words; empty where it is.

    ``loaded_by`` and ``running`` are products with versions; ``running`` is empty where no server is known to run.
    """
    found = {
        f"it is of no exact moment: {manifest.slack} commands ran in it": manifest.slack,
        "no key was sampled": manifest.total_keys and not sampled and not manifest.slack,
        "the code of functions is not known": not manifest.code,
        f"{loaded_by} has loaded it, and {running} runs": running and loaded_by != running,
    }
    return [words for words, holds in found.items() if holds]
