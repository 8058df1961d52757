# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tools of a real Redis, as for the other tests of modules."""

from __future__ import annotations

from tests.integration.conftest import _tools_on_path  # noqa: F401, it is a fixture
