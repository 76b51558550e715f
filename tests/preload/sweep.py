"""Rounds with random faults, as many as wanted: sweep.py FOLDER SEED ROUNDS.

Round N of a seed always has the same fault, so that one can be made again: SEED 1 --first N.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / name) for name in ("tests", "tools", "on_hpc")]

from preload.library import EVERY_ROLE, Judge, Role, built  # noqa: E402
from preload.rounds import (  # noqa: E402
    Round,
    calls,
    calm,
    choose,
    choose_storm,
    choose_strange,
    disturbed,
    hastened,
    stormy,
)


def make(root: Path, library: Path, *, storms: bool) -> Round:
    """Make a new world."""
    root.mkdir()
    judge = Judge(library, root / "judge", root / "w")
    return hastened(root, judge) if storms else Round(root / "w", judge)


def sweep(options: argparse.Namespace) -> int:
    """Make so many rounds; print each that ends wrong, keep its world, and go on with a new one."""
    folder, seed = options.folder, options.seed
    folder.mkdir(parents=True, exist_ok=True)
    library = built(folder)
    wrong = hits = made = 0
    here = None
    began = time.monotonic()
    for number in range(options.first, options.first + options.rounds):
        if time.monotonic() - began > options.seconds:
            break
        chance = random.Random(f"{seed}.{number}")
        if here is None:
            here = make(folder / f"world{seed}.{number}", library, storms=options.storms)
            expected, seen = calm(here), calls(here)
            seen = {k: v for k, v in seen.items() if k[0] & (options.roles or EVERY_ROLE)}
        made, round_began = made + 1, time.monotonic()
        if options.storms:
            storm = choose_storm(chance, options.roles)
            fault: object = storm
            problems = stormy(here, storm, expected)
        else:
            single = (choose_strange if options.strange else choose)(chance, seen)
            fault = single
            problems = disturbed(here, single, expected)
        hits += bool(here.judge.hits)
        if options.talk:
            took = time.monotonic() - round_began
            hit = f"{here.judge.hits} hits: {here.judge.hit}"
            print(f"{seed}.{number} {fault} {took:.0f} s, {hit}", flush=True)
        if problems:
            wrong += 1
            print(f"--- {seed}.{number} {here.root} {fault}\n    hit: {here.judge.hit}", flush=True)
            for problem in problems:
                print("    " + problem.replace("\n", "\n        "), flush=True)
            here.end()
            here = None
        elif made % 20 == 0:
            took = (time.monotonic() - began) / made
            print(f"{made} rounds, {hits} hit, {wrong} wrong, {took:.1f} s each", flush=True)
    if here is not None:
        here.end()
        shutil.rmtree(here.root.parent)
    print(f"seed {seed}: {made} rounds from {options.first}, {hits} hit, {wrong} wrong", flush=True)
    return wrong


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after so long")
    parser.add_argument("--storms", action="store_true", help="many faults in each round")
    parser.add_argument("--strange", action="store_true", help="calls that lie once")
    parser.add_argument("--talk", action="store_true", help="print each round")
    parser.add_argument("--roles", type=lambda text: Role(int(text)), default=Role(0))
    return bool(sweep(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
