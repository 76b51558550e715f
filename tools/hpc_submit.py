"""Submit one job to hpc_batch and wait for it: a function for tools that know nothing else.

This file beside the folder `hpc_batch` is all it needs, with PyYAML. New code uses
`hpc_batch.Dropbox`, which it is a few lines on top of.
"""

from __future__ import annotations

import os
import time
from typing import Any, Mapping

from hpc_batch.client import Dropbox, fresh_name
from hpc_batch.jobfile import dump_job

TRIES = 3
"""So often an answer is removed before it stays where it is."""


def submit_and_wait(
    dropbox: str | os.PathLike[str], job: Mapping[str, Any], period: float = 10
) -> dict[str, Any]:
    """Drop `job`, wait for its answer, remove the answer, and return it.

    `job` is what a job file says: a mapping with `script` and optionally `args`, `input_map` and
    `output_map`. What comes back is that mapping with the node `job`, which tells what happened;
    a job that failed comes back the same way, with `status: error` in its node. Looks every
    `period` seconds, without an end. An answer that cannot be removed is returned all the same.

    Raises NotADirectoryError when the dropbox is not a folder that exists, and
    hpc_batch.errors.JobFileError for values that a job file cannot hold.
    """
    folder = Dropbox(dropbox)
    handle = folder.drop(fresh_name("hpc_submit"), dump_job(job))
    handle.wait(period=period)
    answer = handle.answer() or {}
    for _ in range(TRIES):
        try:
            os.unlink(handle.answer_path)
        except FileNotFoundError:
            break
        except OSError:
            time.sleep(min(period, 1.0))
        else:
            break
    return answer
