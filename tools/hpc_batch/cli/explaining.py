"""The verb explain: why a job has no answer yet."""

from __future__ import annotations

from hpc_batch.cli import exit_codes
from hpc_batch.cli.output import Output
from hpc_batch.cli.requests import Explain
from hpc_batch.cli.site import site_of
from hpc_batch.explanation import explain as explained


def explain(request: Explain, output: Output) -> int:
    """Say of each job why it stands where it stands, what shows it, and what to do."""
    site = site_of(request)
    seen = site.look()
    found = [explained(seen, job, site.config) for job in site.find(request.jobs)]
    if output.json:
        rows = [{**vars(one), "evidence": list(one.evidence)} for one in found]
        output.document("explain", {"jobs": rows})
        return exit_codes.OK
    for number, one in enumerate(found):
        if number:
            output.line("")
        output.line(f"{one.name} is {one.state}: {one.why}")
        for text in one.evidence:
            output.line(f"  {text}")
        output.line(f"  next: {one.next}")
    return exit_codes.OK
