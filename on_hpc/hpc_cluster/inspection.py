"""The inspection: a pilot looks at its node before it claims anything.

A node that cannot run jobs would fail one after the other. So a pilot on it ends at once, with the
node's name in the reason, and no job is charged; whoever looks after the pilots waits before the
next one (`backoff`).
"""

import os
import re
import shutil
from typing import Iterable, Mapping, Optional

from hpc_cluster import batch, clock, description, files
from hpc_cluster.errors import ClusterError
from hpc_cluster.spool import Spool

FREE_BYTES = 16 << 20
"""Less free space in the workspace is none."""

CONTAINER_PROGRAMS = ("singularity", "apptainer")

DEVICES = re.compile(r"nvidia[0-9]+|kfd")
"""Names in /dev of NVIDIA's GPUs, and of AMD's driver."""

BOUND = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL")
"""Variables in which a batch system names the GPUs that it gave."""

BROUGHT = re.compile(
    rb"(?m)\b(?:module|ml|spack|guix|nix|conda|source|alias|command|type|which|hash)\b"
    rb"|\bPATH=|^\s*\.\s"
)
"""Lines by which a script may bring a program itself, or look whether it is there."""

SCRIPTS = 100
"""No more scripts are looked at."""


def workspace_problem(spool: Spool, folder: bytes) -> Optional[str]:
    """Return why the workspace cannot be used from here; `folder` is the pilot's own."""
    try:
        files.replace(files.join(folder, "probe"), b"x")
        room = os.statvfs(spool.root)
    except OSError as error:
        return f"the workspace cannot be written on {clock.node()}: {error.strerror}"
    if room.f_bavail * room.f_frsize < FREE_BYTES:
        return "no space is left in the workspace"
    return None


def gpu_problem(environment: Mapping[str, str]) -> Optional[str]:
    """Return why no GPU can be used here, where one was asked for.

    nvidia-smi decides where it is installed: it fails when the driver does. Else a device counts,
    and the batch system's word that it gave one.
    """
    if shutil.which("nvidia-smi") is not None:
        captured = batch.run(batch.Command(("nvidia-smi", "-L")))
        if captured.rc == 0 and captured.stdout.strip():
            return None
        said = batch.last_lines(captured.stderr) or batch.last_lines(captured.stdout)
        return f"nvidia-smi finds no GPU on {clock.node()}" + (f": {said}" if said else "")
    if any(DEVICES.fullmatch(name) for name in os.listdir("/dev")):
        return None
    if any(re.search("[0-9]", environment.get(name, "")) for name in BOUND):
        return None
    return f"no GPU is to be seen on {clock.node()}, and one is asked for"


def gpu_memory_problem(least_gb: float) -> Optional[str]:
    """Return what is wrong when every GPU of this node has too little memory, as far as it
    tells."""
    query = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    captured = batch.run(batch.Command(query))
    sizes = [int(word) for word in captured.stdout.split() if word.isdigit()]
    # GB on the box are MiB here: a card of 32 GB reports 32510.
    if captured.rc == 0 and sizes and max(sizes) < least_gb * 950:
        text = f"the GPU of {clock.node()} has {max(sizes)} MiB of memory"
        return f"{text}, and {least_gb:g} GB are asked for"
    return None


def container_warning() -> Optional[str]:
    """Return what to tell where no container program is to be found."""
    if any(shutil.which(name) for name in CONTAINER_PROGRAMS):
        return None
    return f"neither {' nor '.join(CONTAINER_PROGRAMS)} is on the PATH of {clock.node()}"


def needs_container_program(spool: Spool) -> bool:
    """Tell whether a job that is ready needs a container program that it does not bring itself."""
    return any(wants_container_program(script) for script in _scripts(spool))


def wants_container_program(script: bytes) -> bool:
    """Tell whether a script calls a container program by its bare name, and brings none itself."""
    lines = [line for line in script.split(b"\n") if not line.lstrip().startswith(b"#")]
    text = b"\n".join(lines)
    names = "|".join(CONTAINER_PROGRAMS).encode("ascii")
    called = re.search(rb"(?m)(?:^|[;&|({]|\bexec|\btime|\bsrun)\s*(?:" + names + rb")\s", text)
    return called is not None and BROUGHT.search(text) is None


def _scripts(spool: Spool) -> Iterable[bytes]:
    for ticket in spool.tickets("ready")[:SCRIPTS]:
        try:
            folder = spool.job_folder(ticket.job)
            found = description.read(files.join(folder, description.NAME))
            yield description.script(found, folder, files.read_bytes)
        except (OSError, ClusterError):
            # RACE: claimed, done and purged since it was listed. Of a bad one its start tells.
            continue
