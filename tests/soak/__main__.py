"""Soak, check, and say what was found: see `tests/soak/run --help`.

As root it runs in process and mount namespaces of its own, so that nothing it starts outlives it
and disks can be filled; its first process there buries orphans.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from soak import checker
from soak import soak as soaking
from soak.soak import Settings, Site

ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
"""Runs a command whose processes and mounts end with it."""

INSIDE = "HPC_BATCH_SOAK_INSIDE"

SHOWN = 10
"""So many findings of each rule are printed."""


def main() -> int:
    """Run what the command line asks for."""
    known = Settings()
    parser = argparse.ArgumentParser(prog="tests/soak/run", description="Soak hpc_batch.")
    parser.add_argument("--jobs", type=int, default=known.jobs, help="how many (10000)")
    parser.add_argument("--hosts", type=int, default=known.hosts, help="service hosts (3)")
    parser.add_argument("--pilots", type=int, default=known.pilots, help="at a time (20)")
    parser.add_argument("--seed", type=int, default=known.seed, help="of what is random (1)")
    parser.add_argument("--window", type=int, default=known.window, help="in flight per host (600)")
    parser.add_argument(
        "--every", type=float, default=known.every_s, help="seconds between deeds (1)"
    )
    parser.add_argument("--deeds", type=int, default=known.deeds, help="so many at most")
    parser.add_argument(
        "--period", type=float, default=known.period_s, help="seconds between passes (2)"
    )
    parser.add_argument("--lease", type=float, default=known.lease_s, help="in seconds (60)")
    parser.add_argument("--full-disks", action="store_true", help="fill disks too (root)")
    parser.add_argument("--calls", action="store_true", help="let system calls go wrong too (cc)")
    parser.add_argument("--slurm", action="store_true", help="on a real Slurm over SSH (root)")
    parser.add_argument("--folder", type=Path, help="where; kept afterwards (else: a temporary)")
    parser.add_argument("--check", type=Path, help="only check what an earlier soak left there")
    options = parser.parse_args()
    if options.check:
        return tell(options.check)
    if INSIDE not in os.environ and may_be_alone():
        os.environ[INSIDE] = "yes"
        words = [*ALONE, sys.executable, "-m", "soak", *sys.argv[1:]]
        os.execvp(words[0], words)
    if os.getpid() == 1 and (child := os.fork()):
        return bury(child)
    if options.full_disks and INSIDE not in os.environ:
        parser.error("--full-disks needs root and namespaces, to mount small disks")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpc_batch-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        jobs=options.jobs,
        hosts=options.hosts,
        pilots=options.pilots,
        seed=options.seed,
        window=options.window,
        every_s=options.every,
        deeds=options.deeds,
        period_s=options.period,
        lease_s=options.lease,
        full=options.full_disks,
        calls=options.calls,
    )
    code = soak(folder, settings, slurm=options.slurm)
    if not options.folder and code == 0:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"everything is in {folder}")
    return code


def may_be_alone() -> bool:
    """Tell whether this machine allows namespaces of one's own."""
    if os.geteuid() != 0 or not shutil.which(ALONE[0]):
        return False
    return subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode == 0


def soak(folder: Path, settings: Settings, *, slurm: bool) -> int:
    """Soak and check; return the exit code."""
    names = [f"host{n}" for n in range(settings.hosts)]
    if settings.full:
        soaking.mount(folder, 400, names)
    with on_slurm(folder, settings) if slurm else soaking.here(folder, settings) as site:
        result = soaking.run(folder, settings, site, say)
    deeds = ", ".join(f"{name}: {count}" for name, count in sorted(result.deeds.items()))
    print(
        f"{settings.jobs} jobs, {settings.hosts} service hosts, {settings.pilots} pilots, seed "
        f"{settings.seed}: {result.seconds:.0f} s, {result.passes} passes; quiet "
        f"{result.quiet_s:.0f} s after the last deed; the nemesis rested {result.rests} times.\n"
        f"{sum(result.deeds.values())} deeds: {deeds}."
    )
    code = tell(folder)
    if settings.full and code:
        # Small disks are gone with their namespace.
        shutil.copytree(folder / "hosts", folder / "kept", symlinks=True)
    return code


@contextlib.contextmanager
def on_slurm(folder: Path, settings: Settings) -> Iterator[Site]:
    """Bring up the cluster of the tests for one soak."""
    from cluster.cluster import bring_up
    from soak.slurm import there

    cluster = bring_up(folder / "cluster", tied=True)
    try:
        with there(cluster, folder, settings) as site:
            yield site
    finally:
        cluster.host.stop()


def tell(folder: Path) -> int:
    """Check what a soak left and print it; return the exit code."""
    for name, value in checker.figures(folder).items():
        print(f"{name}: {value}")
    found = checker.check(folder)
    for rule, problems in found.items():
        print(f"BROKEN: {rule}: {len(problems)}")
        for problem in problems[:SHOWN]:
            print(f"    {problem}")
    print("nothing was found" if not found else f"{sum(map(len, found.values()))} findings")
    return 1 if found else 0


def say(words: str) -> None:
    """Tell how it goes."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def bury(child: int) -> int:
    """Bury orphans until a child ends; return its exit code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
