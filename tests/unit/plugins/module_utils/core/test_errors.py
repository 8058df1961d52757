# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an operator reads."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem, Refusal


def test_one_paragraph():
    problem = Problem("code", "the disk is full.", "room", "free space. ", keys=3)
    assert problem.message() == "the disk is full. Needed: room. Do: free space. [code] docs/reference/refusals.md#code"
    assert (problem.code, problem.details, str(problem)) == ("code", {"keys": 3}, "the disk is full.")


def test_parts_that_are_not_known_are_left_out():
    assert Problem("code", "the disk is full").message() == "the disk is full. [code] docs/reference/refusals.md#code"


def test_a_refusal_says_that_nothing_changed():
    refusal = Refusal("code", "it is not known", "to know")
    assert (
        refusal.message()
        == "Refused; this task changed nothing. it is not known. Needed: to know. [code] docs/reference/refusals.md#code"
    )
    assert isinstance(refusal, Problem)
