"""A checkup: what an operator wants to know of the cluster before anything runs there.

It changes nothing but for a probe file, which it removes; a workspace that is missing stays
missing. What cannot be found out is said to be unknown.
"""

import errno
import os
import subprocess
from typing import Any, Dict, List, Optional

from hpc_cluster import batch, durable, effects, files
from hpc_cluster.errors import BatchError, WorkspaceError
from hpc_cluster.workspace import FOLDERS, Workspace

SCHEDULER_S = 40.0
PROLOGUE_S = 30.0
"""Together less than the near end's patience with a silent far end (90 s)."""

NOBODY = batch.Wanted("0" * 16, "hpcb00000000-x", None)
"""A pilot that there is not: asking for it shows whether the batch system answers."""

CONTAINER_PROGRAMS = ("singularity", "apptainer")


def look(
    workspace: str, scheduler: str, prologue: str, images: List[str]
) -> Dict[str, Dict[str, Any]]:
    """Return what is found, one entry a subject.

    `prologue` is [hpc] prologue; `images` are paths of container images that templates name.
    """
    return {
        "workspace": _workspace(workspace),
        "scheduler": _scheduler(scheduler),
        "containers": _containers(prologue, images),
    }


def _workspace(workspace: str) -> Dict[str, Any]:
    """Return whether the workspace can be used, or made, and the room there."""
    found: Dict[str, Any] = {"there": os.path.isdir(workspace), "problem": None}
    try:
        if files.exists(os.path.join(workspace, "PROTOCOL")):
            _write(files.from_bytes(Workspace.open(workspace).root))
        elif found["there"]:
            full = [n for n in FOLDERS if files.names(os.path.join(workspace, n))]
            if full:
                found["problem"] = "it has no file PROTOCOL but holds {}".format(", ".join(full))
            else:
                _write(workspace)
        elif files.exists(workspace):
            found["problem"] = "it is no folder"
        else:
            parent = os.path.dirname(os.path.abspath(workspace))
            if not os.path.isdir(parent):
                found["problem"] = f"its parent folder {parent} does not exist"
            elif not os.access(parent, os.W_OK | os.X_OK):
                found["problem"] = f"its parent folder {parent} cannot be written"
    except WorkspaceError as error:
        found["problem"] = str(error)
    except OSError as error:
        found["problem"] = (error.strerror or str(error)).lower()
    folder = workspace
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    disk = os.statvfs(folder)
    found["free_bytes"] = disk.f_bavail * disk.f_frsize
    # File systems without a fixed number of inodes say that they have none at all.
    found["free_inodes"] = disk.f_favail if disk.f_files else None
    return found


def _write(folder: str) -> None:
    """Do once what jobs need of a file system: write, sync, link, rename. Raises OSError."""
    probe = os.path.join(folder, f".checkup.{os.urandom(4).hex()}")
    try:
        files.write_new(probe, b"x" * 4096)
        durable.sync_file(probe)
        files.rename(probe, probe + ".renamed")
        try:
            files.link(probe + ".renamed", probe)
        except OSError as error:
            # RACE: none; a file system without hard links gets copies instead.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
    finally:
        files.unlink(probe)
        files.unlink(probe + ".renamed")


def _scheduler(name: str) -> Dict[str, Any]:
    """Return whether the batch system answers: yes, missing (no such program), or unknown."""
    try:
        dialect = batch.dialect(name)
    except BatchError as error:
        return {"answers": "missing", "message": str(error)}
    command = dialect.query([NOBODY])
    captured = batch.run(command, SCHEDULER_S)
    if captured.rc == batch.NOT_FOUND:
        return {"answers": "missing", "message": captured.stderr or command.argv[0]}
    if dialect.listed(captured) is None:
        return {"answers": "unknown", "message": batch.no_answer(command, captured)}
    return {"answers": "yes", "message": os.path.basename(command.argv[0])}


def _containers(prologue: str, images: List[str]) -> Dict[str, Any]:
    """Return where a container program is, here and after the prologue, and which images lack."""
    script = "\n".join([prologue, *[f"command -v {name} && exit 0" for name in CONTAINER_PROGRAMS]])
    program: Optional[str] = None
    try:
        done = effects.run(
            ["/bin/bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROLOGUE_S,
        )
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        program = lines[-1] if done.returncode == 0 and lines else None
    except (OSError, subprocess.TimeoutExpired):
        program = None
    missing = [path for path in images if not os.path.exists(files.to_bytes(path))]
    return {"program": program, "missing": missing}
