# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs of timers: every file that they need comes along, and they start on a host that has no Ansible."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.schedule.program import HOME, command, sources

from tests.support.house import ROOT
from tests.support.layers import Kind, read_all

PROGRAMS = sorted(f"{file.package}.{file.name}" for file in read_all(ROOT) if file.kind is Kind.PROGRAM)


def test_these_are_the_programs():
    assert PROGRAMS == ["backup.job", "drill.job", "monitoring.job", "pitr.archive_job"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_starts_from_what_is_put_on_the_host(name, tmp_path):
    for path, text in sources(name, str(tmp_path)).items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
    words = command(sys.executable, name, str(tmp_path / "no-settings.json")).split()
    block = "import sys; sys.modules['ansible'] = None; import runpy; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [words[0], "-c", block, *words[2:]],
        env={"PYTHONPATH": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "no-settings.json" in done.stdout  # its own words: the settings that it was given are not there


def test_what_is_not_imported_stays_away():
    found = sources("monitoring.job")
    prefix = f"{HOME}/ansible_collections/redisops/recovery/plugins/module_utils/"
    assert found[prefix + "__init__.py"] == found[prefix + "health/__init__.py"] == ""
    assert prefix + "health/collect.py" in found
    assert not any("/restore/" in path or "/module/" in path for path in found)
