# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Links of the documentation lead somewhere, and pages that are named anywhere exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.house import ROOT, names_of

PAGES = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".cache"} & set(path.relative_to(ROOT).parts))
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as they are made of their words."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_links_lead_somewhere(page):
    for url in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", url):
            continue
        path, _hash, anchor = url.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), url
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), url


def test_pages_that_code_names_exist():
    done = subprocess.run(
        ["git", "grep", "-hoE", r"docs/[a-z/-]+\.(md|yml)"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    named = set(done.stdout.split())
    assert len(named) > 10
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
