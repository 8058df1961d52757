# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Parts of the documentation that are written from the sources are as the sources are."""

from __future__ import annotations

import pytest

from tests.support.generated import FILES, render
from tests.support.house import ROOT, names_of


@pytest.mark.parametrize("path", FILES, ids=names_of(FILES))
def test_generated_parts_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert "<!-- generated: " in text
    assert text.count("<!-- generated: ") == text.count("<!-- end -->")
    assert render(path) == text, "run: make generated"


def test_every_page_with_a_generated_part_is_looked_at():
    found = {
        path
        for path in ROOT.rglob("*.md")
        if not {".venv", ".cache"} & set(path.parts) and "<!-- generated: " in path.read_text(encoding="utf-8")
    }
    assert found == set(FILES)
