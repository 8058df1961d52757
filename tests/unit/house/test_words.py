# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One concept, one word, and the field's: what we once called otherwise does not come back."""

from __future__ import annotations

import re

import pytest

from tests.support.house import ROOT

#: What is not said any more → what is.
WORDS = {
    r"\b(un)?proven\b|\bprov(e|es|ing)\b|(?<![a-z])prove_": "verified, verify; require_ for what raises",
    r"\bat_risk\b(?<!quorum_at_risk)|\brisk_now\b": "crash_loss",
    r"\bpromise[sd]?\b": "configured durability, objective",
    r"\bscratch\b|\bthrowaway\b|\btrial server\b": "temporary server",
    r"\bset_names?\b|_set_name\b": "group_name",
    r"\bredis_replication_members\b|\bredis_backup_members\b": "redis_group_hosts",
    r"\bhold(s|ing)? writes\b|\bwrites (are|were) held\b|\bheld writes\b": "pause writes",
    r"\brehears\w+": "test-load; commit-confirm for the firewall; a local handshake for TLS",
    r"\brungs?\b|\bladder\b": "repair method",
    r"\bmend(s|ed|ing)?\b": "repair",
    r"\bpruned\b|\blet go\b": "expire, expired",
    r"\baof[_-]history\b|\bhistory_hours\b": "AOF archive",
    r"\bforetold\b|\bforetell\b": "predicted",
    r"\bbeside\b": "next to",
    r"\bstrangers?\b": "unauthenticated clients",
    r"\bheld for gone\b|\bat rest\b(?= *[,.:)]? *$)": "considered down; Sentinel stopped",
}
#: Stable codes that were there before, and Redis' own words.
ALLOWED = re.compile(r"rung_not_possible|no_aof_history|stands for Redis")

FILES = sorted(
    path
    for folder in ("plugins", "roles", "playbooks", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".yml", ".md", ".j2") and path.is_file()
)


@pytest.mark.parametrize("pattern", WORDS, ids=list(WORDS.values()))
def test_our_old_words_do_not_come_back(pattern):
    assert len(FILES) > 250
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in [*FILES, ROOT / "README.md"]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, ALLOWED.sub("", line))
    ]
    assert found == [], f"say: {WORDS[pattern]}"
