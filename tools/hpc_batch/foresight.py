"""Foresight: whether a sweep is going to need the cluster. Values in, values out.

The login takes as long as everything else together, so it is begun as soon as that shows, before
anything was observed (`access`). What was foreseen in vain costs a login.
"""

from __future__ import annotations

from hpc_batch.listing import Listing, recorded, unanswerable
from hpc_batch.record import Record
from hpc_batch.records import Records


def of_job(record: Record, *, paused: bool) -> bool:
    """Tell whether a job's next step is likely to need the cluster."""
    is_new = record.phase in ("INTENT", "ACCEPTED", "STAGING")
    return not paused if is_new else record.remote


def of_sweep(records: Records, listing: Listing, *, paused: bool) -> bool:
    """Tell whether any job is likely to, or a drop that is about to become one."""
    busy = {record.name for record in records}
    drops = (d for d in listing.drops if unanswerable(d) is None and recorded(d.name) not in busy)
    return any(of_job(r, paused=paused) for r in records) or (not paused and any(drops))
