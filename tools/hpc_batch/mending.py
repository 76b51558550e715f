"""Mending: a paper in a journal is damaged, so its job goes back to the phase that writes it.

    phase       without                 goes back to
    STAGING     description, script     ACCEPTED: the drop is read and checked again
    PLACING     answer                  PUBLISHED: the result is collected again
    UNPLACING   answer                  the same
    ANSWERING   answer                  PUBLISHED where it was published, else ACCEPTED

Nothing is answered yet in any of them, and the drop and the ticket in done are there until the job
is cleaned, so all can be found out again. Outputs that are in place already are taken away first,
and what stood there comes back: a later failure must find it.

Elsewhere nothing is lost with such a paper: CLEANING does without, and a record that was PUBLISHED
knows all that is needed.
"""

from __future__ import annotations

from dataclasses import replace

from hpc_batch import placing
from hpc_batch.record import Record


def mended(record: Record) -> Record | None:
    """Return the record in the phase from which its job goes on; None where there is none.

    Raises OSError where its outputs cannot be taken away; then the step is repeated.
    """
    if record.phase == "STAGING":
        return record.enter("ACCEPTED")
    if record.phase not in ("PLACING", "UNPLACING", "ANSWERING"):
        return None
    if record.ticket is None and "staged" not in record.times:
        return record.enter("ACCEPTED")
    placing.unplace(record)
    targets = tuple(replace(target, existed=False, inode=0) for target in record.targets)
    return record.enter("PUBLISHED", ticket=None, attempt=0, placed=False, targets=targets)
