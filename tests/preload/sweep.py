"""Rounds with random faults, as many as wanted: sweep.py FOLDER SEED ROUNDS [ROLES]."""

from __future__ import annotations

import random
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / name) for name in ("tests", "tools", "on_hpc")]

from preload.library import Judge, Role, built  # noqa: E402
from preload.rounds import Round, calls, calm, choose, disturbed  # noqa: E402


def sweep(folder: Path, seed: int, rounds: int, roles: Role) -> int:
    """Make so many rounds; print each that ends wrong, keep its world, and go on with a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    library = built(folder)
    wrong = hits = worlds = 0
    here = None
    began = time.monotonic()
    for number in range(rounds):
        chance = random.Random(f"{seed}.{number}")
        if here is None:
            worlds += 1
            root = folder / f"world{seed}.{worlds}"
            root.mkdir()
            here = Round(root / "w", Judge(library, root / "judge", root / "w"))
            expected, seen = calm(here), calls(here)
            seen = {k: v for k, v in seen.items() if k[0] & roles}
        fault = choose(chance, seen)
        problems = disturbed(here, fault, expected)
        hit = here.judge.hit
        hits += bool(hit)
        if problems:
            wrong += 1
            print(f"--- {seed}.{number} {here.root} {fault}\n    hit: {hit}", flush=True)
            for problem in problems:
                print("    " + problem.replace("\n", "\n        "), flush=True)
            here.end()
            here = None
        elif number % 20 == 19:
            took = (time.monotonic() - began) / (number + 1)
            print(f"{number + 1} rounds, {hits} hit, {wrong} wrong, {took:.1f} s each", flush=True)
    if here is not None:
        here.end()
        shutil.rmtree(here.root.parent)
    print(f"seed {seed}: {rounds} rounds, {hits} hit, {wrong} wrong", flush=True)
    return wrong


if __name__ == "__main__":
    roles = Role(int(sys.argv[4])) if len(sys.argv) > 4 else Role(31)
    sys.exit(bool(sweep(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), roles)))
