"""Rounds with random faults, as many as wanted: sweep.py FOLDER SEED ROUNDS [--kind KIND].

    single        one system call that goes wrong (the default)
    strange       one that says once what is not true: no such file, no permission, busy
    memory        a malloc that returns nothing
    storms        one call in 50 to 1000 and more goes wrong
    mixed         storms, clocks that leap, and a batch system that lies, together
    limits        few descriptors, little memory, small files
    stops         any process stopped for up to 20 s, or killed, at random moments
    pauses        one process that stands still for one to three minutes
    connections   ssh, sshd's children and far ends killed, over a real sshd
    ssh           storms in ssh itself, and on both sides of it
    strace        the n-th call of one kind fails, or kills, in every process

Round N of a seed always has the same fault, so that one can be made again: SEED 1 --first N. Those
of `stops`, `pauses` and `connections` hang on what the machine does meanwhile.
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

from preload.kinds import KINDS  # noqa: E402
from preload.library import EVERY_ROLE, Judge, Role, built  # noqa: E402
from preload.rounds import calm  # noqa: E402


def sweep(options: argparse.Namespace) -> int:
    """Make so many rounds; print each that ends wrong, keep its world, and go on with a new one."""
    folder, seed = options.folder.resolve(), options.seed
    folder.mkdir(parents=True, exist_ok=True)
    library, kind = built(folder), KINDS[options.kind](options.roles)
    wrong = hits = made = 0
    here = None
    began = time.monotonic()
    for number in range(options.first, options.first + options.rounds):
        if time.monotonic() - began > options.seconds:
            break
        if here is None:
            root = folder / f"world-{options.kind}-{seed}.{number}"
            root.mkdir()
            here = kind.world(root, Judge(library, root / "judge", root / "w"))
            expected = calm(here)
            kind.learn(here)
        made, round_began = made + 1, time.monotonic()
        told, problems = kind.make(here, random.Random(f"{seed}.{number}"), expected)
        hits += bool(here.judge.hits)
        hit = f", hit {here.judge.hits} times: {here.judge.hit}" if here.judge.hits else ""
        if options.talk:
            took = time.monotonic() - round_began
            print(f"{seed}.{number} {told} {took:.0f} s{hit}", flush=True)
        if problems:
            wrong += 1
            print(f"--- {seed}.{number} {here.root} {told}{hit}", flush=True)
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
    said = f"{made} rounds from {options.first}, {hits} hit, {wrong} wrong"
    print(f"{options.kind}, seed {seed}: {said}", flush=True)
    return wrong


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after so long")
    parser.add_argument("--kind", choices=KINDS, default="single")
    parser.add_argument("--talk", action="store_true", help="print each round")
    parser.add_argument(
        "--roles",
        type=lambda text: Role(int(text)),
        default=EVERY_ROLE,
        help="disturb these programs only: the sum of their numbers in library.py",
    )
    return bool(sweep(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
