"""The verb `pass`, which is all that cron runs; it loads nothing that the other verbs need."""

from __future__ import annotations

import sys

from hpc_batch import submitter
from hpc_batch.cli.ini import load
from hpc_batch.cli.output import Output
from hpc_batch.cli.request import Pass


def run_pass(request: Pass, output: Output) -> int:
    """Run one pass, as cron does; at a terminal, with a bar for each long transfer."""
    options = submitter.Options(request.debug, request.nocleanup, request.email)
    if not sys.stderr.isatty():
        return submitter.run(load(request), options)
    from hpc_batch.cli.bar import Bars

    bars = Bars()
    try:
        return submitter.run(load(request), options, bars.show)
    finally:
        bars.close()
