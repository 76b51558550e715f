"""The sweep: every fault at every effect of a scenario, one run for each, and what was wrong.

    PYTHONPATH=tools:on_hpc:tests python -m faults.sweep [--scenario NAME]... [--sample N]
        [--pairs N] [--kinds REGEX] [--roles REGEX] [--effects REGEX] [--paths REGEX]
        [--seed N] [--part K/N] [--seconds N] [--folder DIR]
        [ROLE:EFFECT:NUMBER:KIND...]

The effects are those of an undisturbed run. Without --sample every point is tried; with it, so many
of each scenario; with --seconds, as many of each as begin within that time, by chance; with --part
3/40, the third of forty parts. --part 1/2 and --part 2/2 at once keep two processors busy with all
points for an hour or so. --pairs adds so many pairs, -1 all of them: any fault, and then a kill of
whatever process makes the M-th effect after it. One line is printed for each violation, and at the
end how many points were tried, by scenario and kind of fault. Faults that are named are one run of
their own, to see one again.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from faults.invariants import CALM_CODES, Past, between_steps, check, outcome
from faults.scenarios import SCENARIOS, Scenario
from faults.seam import ANY, Fault, Shared
from faults.simulation import Simulation, Stuck, become_the_driver, make_time_cheap, warm_up
from faults.table import KILL, faults_of

RUN_S = 120
"""No run takes so long."""

SILENT = ("fsync", "syncfs", "close", "utime", "channel read")
"""Effects that leave no trace on the disk."""


class Report(NamedTuple):
    """What came of one run."""

    fired: int
    """So many of its faults happened."""
    wrong: list[str]


class Effect(NamedTuple):
    """One effect of the undisturbed run."""

    role: str
    number: int
    name: str
    path: str


class Sweep:
    """All runs of one scenario."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self._root = folder / "run"
        self._shared = Shared()
        self.calm: str | None = None
        self.effects: list[Effect] = []
        self._came = 0
        """So many faults of the last run happened."""
        calm = self.run(())
        assert not calm.wrong, calm.wrong

    def run(self, faults: tuple[Fault, ...]) -> Report:
        """Run to quiet under faults and return what was wrong."""
        signal.alarm(RUN_S)
        run = Simulation(self._root, self.scenario, self._shared, faults)
        wrong: list[str] = []
        try:
            if not faults and not self.effects:
                run.start_tracing()
            for _ in run.steps():
                wrong += between_steps(run.world)
            signal.alarm(0)
            run.sweep_orphans()
            wrong += run.problems
            wrong += check(run.world, self.scenario, self.calm)
        except Stuck as stuck:
            wrong.append(f"9: {stuck}")
        finally:
            signal.alarm(0)
            run.close()
        past = Past(run.events_path)
        wrong += past.violations()
        wrong += self._charges(past, faults)
        errors = run.stderr_path.read_text() if run.stderr_path.exists() else ""
        if set(run.codes) - CALM_CODES - {-9}:
            wrong.append(f"a pass ended with {run.codes}: {errors[-3000:]}")
        if "Traceback" in errors:
            wrong.append(f"a traceback: {errors[-3000:]}")
        if not faults:
            self.calm = outcome(run.world, self.scenario)
            self.effects = self.effects or list(_effects(run.trace_path))
        self._came = run.fired
        return Report(run.fired, wrong)

    def _charges(self, past: Past, faults: Sequence[Fault]) -> Iterator[str]:
        """A job runs once unless a fault was in its pilot."""
        if any(fault.role in ("pilot", ANY) for fault in faults):
            return
        for job, count in past.starts().items():
            if count > self.scenario.starts:
                yield f"8: {job} was started {count} times, and no pilot was disturbed"

    def points(
        self, kinds: str = ".*", roles: str = ".*", effects: str = ".*", paths: str = ".*"
    ) -> list[Fault]:
        """Return every fault of every effect, or those that match these expressions."""
        return [
            Fault(effect.role, effect.name, effect.number, kind)
            for effect in self.effects
            if re.fullmatch(roles, effect.role) and re.fullmatch(effects, effect.name)
            if re.fullmatch(paths, effect.path)
            for kind in faults_of(effect.role, effect.name)
            if re.fullmatch(kinds, kind)
        ]

    def pairs(self, firsts: Sequence[Fault]) -> Iterator[tuple[Fault, Fault]]:
        """Yield each of these faults followed by a kill at any effect, as long as one is left.

        A kill before an effect that leaves the disk as it is, is the same as one before the next.
        """
        for first in firsts:
            if first.kind == KILL and first.effect in SILENT:
                continue
            for number in itertools.count(1):
                if self._came < 2 and number > 1:
                    break
                yield first, Fault(ANY, "", number, KILL)

    def some_pairs(self, count: int, draw: random.Random) -> Iterator[tuple[Fault, Fault]]:
        """Yield so many of all pairs."""
        points = self.points()
        for _ in range(count):
            number = draw.randint(1, len(self.effects))
            yield draw.choice(points), Fault(ANY, "", number, KILL)


def _effects(trace: Path) -> Iterator[Effect]:
    for line in trace.read_text("utf-8", "surrogateescape").splitlines():
        match = re.fullmatch(r"(\w+) ([0-9]+) ((?:channel )?\w+) (.*)", line)
        assert match, line
        yield Effect(match[1], int(match[2]), match[3], match[4])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", nargs="*", help="ROLE:EFFECT:NUMBER:KIND")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--kinds", default=".*")
    parser.add_argument("--roles", default=".*")
    parser.add_argument("--effects", default=".*")
    parser.add_argument("--paths", default=".*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(argv)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="hpc_batch-faults-", dir=_fast()))
    folder.mkdir(parents=True, exist_ok=True)
    scenarios = [SCENARIOS[name] for name in args.scenario or SCENARIOS]
    begin(folder, scenarios)
    bad = 0
    for scenario in scenarios:
        bad += _sweep(Sweep(folder, scenario), args)
    if not args.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def _sweep(sweep: Sweep, args: argparse.Namespace) -> int:
    """Try what is asked for of one scenario; return how many points were bad."""
    draw = random.Random(f"{args.seed} {sweep.scenario.name}")
    tried: Counter[str] = Counter()
    began, bad = time.monotonic(), 0
    for faults in _wanted(sweep, args, draw):
        if args.seconds and time.monotonic() - began > args.seconds:
            break
        report = sweep.run(faults)
        if report.fired < len(faults):
            tried["never came"] += 1
        else:
            tried["+".join(fault.kind for fault in faults)] += 1
        if report.wrong:
            bad += 1
            print(f"{sweep.scenario.name}: {' '.join(map(str, faults))}", flush=True)
            for wrong in report.wrong:
                print(f"    {wrong}", flush=True)
    seconds = time.monotonic() - began
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(tried.items()))
    print(
        f"{sweep.scenario.name}: {len(sweep.effects)} effects, {tried.total()} points in"
        f" {seconds:.0f} s, {bad} bad: {kinds}",
        flush=True,
    )
    return bad


def _wanted(
    sweep: Sweep, args: argparse.Namespace, draw: random.Random
) -> Iterator[tuple[Fault, ...]]:
    if args.fault:
        named = [text.split(":") for text in args.fault]
        yield tuple(Fault(role, name, int(n), kind) for role, name, n, kind in named)
        return
    part, parts = map(int, args.part.split("/"))
    points = sweep.points(args.kinds, args.roles, args.effects, args.paths)[part - 1 :: parts]
    count = args.sample or (len(points) if args.seconds else 0)
    chosen = draw.sample(points, min(count, len(points))) if count else points
    for fault in chosen:
        yield (fault,)
    if args.pairs < 0:
        yield from sweep.pairs(points)
    else:
        yield from sweep.some_pairs(args.pairs, draw)


def _fast() -> str | None:
    """Return where fsync costs nothing; None: nowhere."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def begin(folder: Path, scenarios: Sequence[Scenario]) -> None:
    """Make this process the driver of all runs to come."""
    make_time_cheap()
    become_the_driver()
    signal.signal(signal.SIGALRM, _too_long)
    warm_up(folder, scenarios)
    gc.collect()
    gc.freeze()
    gc.disable()


def _too_long(number: int, frame: object) -> None:
    raise Stuck(f"a run took more than {RUN_S} s")


if __name__ == "__main__":
    sys.exit(main())
