"""Run benchmarks and write their tables as Markdown: see `tests/bench/run --help`.

With `--update FILE` the tables take the place of those in FILE that stand between the lines
`<!-- bench NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from bench.table import Missing, markdown

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run what is named, or all."""
    known = sorted(p.stem for p in HERE.glob("*.py") if "\nTITLE = " in p.read_text("utf-8"))
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=(__doc__ or "").strip())
    parser.add_argument("name", nargs="*", help=f"any of {' '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes")
    parser.add_argument("--update", metavar="FILE", type=Path, help="renew the tables in FILE")
    args = parser.parse_args()
    if unknown := set(args.name) - set(known):
        parser.error(f"there is no benchmark {' '.join(sorted(unknown))}")
    print(f"{heading(args.quick)}\n", flush=True)
    missed = 0
    for name in args.name or known:
        module = importlib.import_module(f"bench.{name}")
        try:
            rows = module.rows(args.quick)
        except Missing as missing:
            print(f"## {module.TITLE}\n\nNot run: {missing}.\n", flush=True)
            continue
        missed += sum(not row.met for row in rows)
        table = markdown(rows)
        print(f"## {module.TITLE}\n\n{table}", flush=True)
        if args.update:
            update(args.update, name, f"{heading(args.quick, name)}\n\n{table}")
    return 1 if missed else 0


def heading(quick: bool, name: str = "") -> str:
    """Say what ran, when, on what machine and at which commit."""
    words = ["tests/bench/run", *(["--quick"] if quick else []), *([name] if name else [])]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"`{' '.join(words)}`, {datetime.date.today()}, commit {commit()}: {processor()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}."
    )


def commit() -> str:
    """Return the short name of the checkout's commit, with a + when files differ from it."""
    try:
        words = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+"]
        return subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Return the processor's name."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^model name\s*: (.*)$", text, re.M)
    return found.group(1).strip() if found else platform.machine()


def update(path: Path, name: str, table: str) -> None:
    """Put a table in its place in a page."""
    begin, end = f"<!-- bench {name} -->\n", "<!-- end -->"
    before, mark, rest = path.read_text("utf-8").partition(begin)
    if not mark:
        print(f"{path}: has no line {begin.strip()}", file=sys.stderr)
        return
    path.write_text(before + mark + "\n" + table + "\n" + end + rest.partition(end)[2], "utf-8")


if __name__ == "__main__":
    sys.exit(main())
