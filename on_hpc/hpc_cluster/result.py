"""The result of an attempt: `aN/result.json`, which says how it ended and what its outputs are.

Writing it reads every output, and may change the verdict: of a job that ended well and has not made
all its outputs it says that it failed. Nothing is durable yet when it is written; `Written` tells
what has to be before the ticket moves.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from hpc_cluster import PROTOCOL, clock, files
from hpc_cluster.description import Description
from hpc_cluster.ticket import Ticket
from hpc_cluster.verdict import Verdict
from hpc_cluster.work import (
    QUICK_BYTES,
    QUICK_FILES,
    hash_outputs,
    output_folders,
    output_paths,
)

STREAMS = ("stdout", "stderr")


class Ending(NamedTuple):
    """An attempt that has ended."""

    ticket: Ticket
    job_folder: bytes
    folder: bytes
    """The attempt's own, aN."""
    description: Optional[Description]
    """None: it could not be read."""
    verdict: Verdict
    rc: Optional[int]
    """The script's return code, or a signal's number below 0; None when it never ran."""
    start: str
    end: str
    pilot: str
    """P."""
    native_id: Optional[str]


class Written(NamedTuple):
    """A result that is written."""

    verdict: Verdict
    """What it says."""
    files: List[bytes]
    """What has to be durable before the ticket moves."""
    folders: List[bytes]
    """The same for names."""


def is_quickly_written(ending: Ending) -> bool:
    """Tell whether what the job left is little enough to be read at once."""
    paths = [files.join(ending.folder, name) for name in STREAMS] + _outputs(ending)
    sizes = [_size(path) or 0 for path in paths]
    return sum(sizes) <= QUICK_BYTES and len(sizes) <= QUICK_FILES


def write(ending: Ending) -> Written:
    """Hash the outputs and write the result; not yet durable. Raises OSError."""
    kind, reason, message = ending.verdict
    outputs: Dict[str, Any] = {}
    folders = [ending.job_folder, ending.folder]
    paths = {name: files.join(ending.folder, name) for name in (*STREAMS, "result.json")}
    sizes = {name: _size(paths[name]) for name in STREAMS}
    there = [paths[name] for name in STREAMS if sizes[name] is not None]
    there.append(paths["result.json"])
    if kind == "ok":
        assert ending.description is not None
        outputs, problems = hash_outputs(ending.folder, ending.description)
        if problems:
            kind, reason, outputs = "fail", "stage_out", {}
            message = "the script ended well, but " + "; ".join(problems.values())
        elif outputs:
            there += _outputs(ending)
            folders += output_folders(ending.folder, ending.description)
    rc = ending.rc
    content = {
        "protocol": PROTOCOL,
        "id": ending.ticket.job,
        "attempt": ending.ticket.starts,
        "pilot": ending.pilot,
        "native_id": ending.native_id,
        "node": clock.node(),
        "kind": kind,
        "reason": reason,
        "message": message,
        "rc": rc if rc is None or rc >= 0 else 128 - rc,
        "start": ending.start,
        "end": ending.end,
        "crashes": ending.ticket.crashes,
        "outputs": outputs,
        "stdout_bytes": sizes["stdout"] or 0,
        "stderr_bytes": sizes["stderr"] or 0,
    }
    try:
        files.write_new(paths["result.json"], files.to_json(content))
    except FileNotFoundError:
        if rc is not None:
            raise  # it ran here: it was answered and purged since, and nothing of it is made anew
        # RACE: none; a job that could not be prepared may have no folder.
        for folder in folders:
            files.make_folder(folder)
        files.write_new(paths["result.json"], files.to_json(content))
    return Written(Verdict(kind, reason, message), there, folders)


def _outputs(ending: Ending) -> List[bytes]:
    if ending.description is None or ending.verdict.kind != "ok":
        return []
    return output_paths(ending.folder, ending.description)


def _size(path: bytes) -> Optional[int]:
    """Return the size of what has this name; None when nothing has."""
    status = files.look(path)
    return None if status is None else status.st_size
