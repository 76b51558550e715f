"""hpc_batch: many jobs share one wait in a cluster's queue.

    from hpc_batch import Dropbox

    job = Dropbox("/srv/dropbox").submit(
        script="my_container", args={"level": 6}, inputs={"input": "foo.mp3"},
        outputs={"txt_output": "foo.txt"},
    )
    answer = job.result(timeout=3600)

The four names below are the Python interface of users (`client`); everything else serves the
programs. They are loaded when first used, so that `import hpc_batch` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_batch.client import Dropbox, Job, as_completed
    from hpc_batch.errors import InfrastructureError, JobError

__all__ = ["Dropbox", "InfrastructureError", "Job", "JobError", "as_completed"]


def __getattr__(name: str) -> object:
    """Load an exported name from its module at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.endswith("Error"):
        from hpc_batch import errors as module
    else:
        from hpc_batch import client as module  # type: ignore[no-redef]
    return getattr(module, name)
