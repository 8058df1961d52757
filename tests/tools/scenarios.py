"""Runs Molecule scenarios, some next to each other, with progress; begins no other once one has failed, and takes its hosts down.

Usage: scenarios.py [--jobs N] SCENARIO...

The whole output of each is in .cache/lab/log-SCENARIO.txt. With one job it is shown as it comes; with more, what is shown is each
step as it begins, what the scenario's tests told, and, of a scenario that failed, what failed in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import failures

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / ".cache" / "lab"
#: These set values of the kernel that are wrong, which all hosts of the machine share, and go on from there: nothing runs next to them.
ALONE = frozenset({"drift"})

_STEP = re.compile(r"INFO\s+(?:\[?)([\w-]+) (?:>|➜) (\w+)\]?:? Executing")
_IMAGE = re.compile(r"\] ([\w+]+ -> .*)")
_HEADER = re.compile(r"=+ test session starts|platform |rootdir: |configfile: |plugins: |collected |\s*(INFO|WARNING) ")
_PASSED = re.compile(r"\b(\d+) passed\b")


class Scenario:
    """One run of one scenario, in a process group of its own."""

    def __init__(self, name: str, live: bool) -> None:
        self.name, self.live = name, live
        self.log = LAB / f"log-{name}.txt"
        self.steps: list[tuple[str, float]] = []
        self.process: subprocess.Popen[str] | None = None
        self.code = 1
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> None:
        self.began = time.monotonic()
        (LAB / f"record-{self.name}.jsonl").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ["molecule", "test", "-s", self.name, "--destroy=always"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout
        with open(self.log, "w", encoding="utf-8") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                self.see(failures.plain(line), line)
        self.code = self.process.wait()
        self.steps.append(("", self.seconds))
        # What Molecule believes of a lab that was cut off may be wrong; the lab itself knows.
        subprocess.run([sys.executable, ROOT / "tests/lab/lab.py", "down", "--lab", f"mol-{self.name}"], capture_output=True, check=False)  # fmt: skip

    def see(self, line: str, raw: str) -> None:
        found = _STEP.search(line)
        if found and found.group(2) != (self.steps[-1][0] if self.steps else ""):
            self.steps.append((found.group(2), self.seconds))
            say(f"{self.name}: {found.group(2)} (at {self.seconds:.0f} s)")
        if self.live:
            sys.stdout.write(raw)
            sys.stdout.flush()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def times(self) -> list[tuple[str, float]]:
        """Each step with its seconds, in order."""
        return [(step, after - at) for (step, at), (_, after) in zip(self.steps, self.steps[1:], strict=False)]

    def told(self) -> list[str]:
        """What its tests printed and counted, and which images its hosts ran."""
        step, lines = "", []
        for line in map(failures.plain, self.log.read_text(encoding="utf-8").splitlines()):
            if found := _STEP.search(line):
                step = found.group(2)
            elif step == "create" and (image := _IMAGE.search(line)):
                lines.append(image.group(1).rstrip("'"))
            elif step == "verify" and line.strip() and not _HEADER.match(line):
                lines.append(line)
        return lines

    def tests(self) -> int:
        """How many of its tests passed, next to the steps."""
        counts = _PASSED.findall("\n".join(self.told()))
        return int(counts[-1]) if counts else 0


_printing = threading.Lock()


def say(text: str) -> None:
    with _printing:
        print(f"==> {text}", file=sys.stderr, flush=True)


class Queue:
    """Which scenario may begin now; those of ALONE only when nothing runs."""

    def __init__(self, names: list[str], jobs: int) -> None:
        self.total, self.jobs, self.begun = len(names), jobs, 0
        self.waiting = sorted(names, key=lambda name: name not in ALONE) if jobs > 1 else list(names)
        self.running: dict[str, Scenario] = {}
        self.done: list[Scenario] = []
        self.failed = self.stopped = False
        self.changed = threading.Condition()

    def next(self) -> Scenario | None:
        with self.changed:
            while True:
                if self.failed or not self.waiting:
                    return None
                name = self.waiting[0]
                free = len(self.running) < self.jobs and not (ALONE & set(self.running))
                if free and not (name in ALONE and self.running):
                    self.waiting.pop(0)
                    self.begun += 1
                    say(f"[{self.begun}/{self.total}] molecule scenario {name}")
                    self.running[name] = Scenario(name, self.jobs == 1)
                    return self.running[name]
                self.changed.wait()

    def ended(self, scenario: Scenario) -> None:
        with self.changed:
            del self.running[scenario.name]
            self.done.append(scenario)
            self.failed = self.failed or scenario.code != 0
            self.changed.notify_all()
        if self.stopped:
            return
        if not scenario.live and scenario.code == 0:
            with _printing:
                print("\n".join(f"    {line}" for line in scenario.told()), flush=True)
        if scenario.code:
            say(
                f"scenario {scenario.name} failed; its whole output is in {scenario.log.relative_to(ROOT)}; what failed in it:"
            )
            with _printing:
                print(failures.told(scenario.log), file=sys.stderr, flush=True)
            if self.running:
                say(f"no other scenario begins; waiting for {', '.join(self.running)}")
        else:
            say(f"scenario {scenario.name} passed in {scenario.seconds:.0f} s")

    def work(self) -> None:
        while scenario := self.next():
            try:
                scenario.run()
            finally:
                self.ended(scenario)


def table(done: list[Scenario]) -> str:
    """Seconds by scenario and step."""
    steps = list(dict.fromkeys(step for one in done for step, _ in one.times()))
    rows = [["scenario", *steps, "all"]]
    for one in sorted(done, key=lambda one: -one.steps[-1][1]):
        cells = [sum(seconds for name, seconds in one.times() if name == step) for step in steps]
        rows.append([one.name, *(f"{cell:.0f}" if cell else "" for cell in cells), f"{one.steps[-1][1]:.0f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="scenarios.py")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO")
    options = parser.parse_args()
    unknown = [name for name in options.scenarios if not (ROOT / "molecule" / name / "molecule.yml").exists()]
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}")
    LAB.mkdir(parents=True, exist_ok=True)
    # What runs has process groups of its own, so it has to be ended by us, however we are ended.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    queue = Queue(options.scenarios, max(1, min(options.jobs, len(options.scenarios))))
    workers = [threading.Thread(target=queue.work, daemon=True) for _ in range(queue.jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive():
                worker.join(0.5)
    except KeyboardInterrupt:
        say("interrupted; the hosts of what ran are taken down")
        with queue.changed:
            queue.failed = queue.stopped = True
            running = list(queue.running.values())
        for scenario in running:
            scenario.stop()
        for worker in workers:
            worker.join(60)
        return 130
    ended = [one for one in queue.done if one.steps]
    if ended:
        print(table(ended), flush=True)
    spent = [
        {"name": one.name, "passed": one.code == 0, "tests": one.tests(), "seconds": one.steps[-1][1]} for one in ended
    ]
    (LAB / "scenarios.json").write_text(json.dumps(spent), encoding="utf-8")
    return 1 if queue.failed else 0


if __name__ == "__main__":
    sys.exit(main())
