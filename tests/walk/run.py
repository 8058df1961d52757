# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Walks: ``python -m tests.walk.run --steps 2000 --seed 7``. The seed makes the same choices again; what a server does meanwhile may differ."""

from __future__ import annotations

import argparse
import random
import sys

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

#: Steps of one walk, before the next begins on a new host.
LENGTH = 25


def walk(number: int, steps: int) -> int:
    """Walks by the choices of seed ``number``, about ``steps`` steps; gives how many. Raises Violation."""
    from tests.walk.machine import Walk

    begun = Walk.steps
    how = settings(
        max_examples=1 + max(1, steps // LENGTH),  # the first is the simplest there is, and says nothing
        stateful_step_count=LENGTH, deadline=None, database=None, derandomize=False, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    run_state_machine_as_test(seed(number)(type("Walk", (Walk,), {})), settings=how)
    return Walk.steps - begun


def main() -> int:
    from tests.conftest import pytest_configure

    pytest_configure()
    from tests.walk.world import World

    parser = argparse.ArgumentParser(description="Walks on a real server that nobody scripted.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--aloud", action="store_true", help="print each step as it is done")
    given = parser.parse_args()
    World.aloud = given.aloud
    print(f"seed {given.seed}", flush=True)
    print(f"{walk(given.seed, given.steps)} steps, and no law was broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
