"""The working folder of an attempt: what is put into it, and what is taken out.

    flat    work/NAME for inputs and outputs, work/input and work/output are links to "."
    split   work/input/NAME, work/output/NAME

Inputs are read-only hard links to what was staged, or copies where a template asks for files of its
own. Outputs are regular files that lie in work/ itself: no link is followed on the way to them.
"""

import errno
import hashlib
import os
import time
from typing import Any, Callable, Dict, List, Tuple

from hpc_cluster import files
from hpc_cluster.description import Description
from hpc_cluster.errors import ClusterError

NOT_THE_JOB = files.PASSING
"""Errors of the node or the storage: the job is given back instead of answered."""

NO_LINKS = (
    errno.EXDEV,
    errno.EPERM,
    errno.EMLINK,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EACCES,
)
"""Where a hard link cannot be made, a copy is."""

BLOCK_BYTES = 1 << 20

QUICK_BYTES = 1 << 20
"""Copying or hashing so much is quick."""

QUICK_FILES = 16
"""So many inputs or outputs are."""

PAUSES_S = (0.2, 1.0, 3.0)
"""A missing file is looked for again after these: on a network file system one ENOENT means
little."""

Look = Callable[[Callable[[bytes], Any], bytes], Any]
"""How to look for a file: `look_once` or `insist`."""


class CannotStart(ClusterError):
    """The job cannot be started anywhere; `reason` is the answer's."""

    def __init__(self, message: str, reason: str = "exit_code") -> None:
        super().__init__(message)
        self.reason = reason


def fill(folder: bytes, job_folder: bytes, found: Description, look: Look) -> None:
    """Make work/ in an attempt's folder, with the inputs from the job's folder.

    Raises CannotStart for a missing or damaged input, OSError.
    """
    work = files.join(folder, "work")
    inputs = work if found.layout == "flat" else files.join(work, "input")
    files.make_folder(work)
    if found.layout == "flat":
        files.symlink(b".", files.join(work, "input"))
        files.symlink(b".", files.join(work, "output"))
    else:
        files.make_folder(inputs)
        files.make_folder(files.join(work, "output"))
    for number, item in enumerate(found.inputs):
        source = found.input_path(job_folder, number)
        try:
            size = look(os.stat, source).st_size
        except FileNotFoundError as error:
            words = f"the input {shown(item.name)} is missing on the cluster"
            raise CannotStart(words, "stage_in") from error
        if size != item.size:
            words = f"the input {shown(item.name)} has {size} bytes there instead of {item.size}"
            raise CannotStart(words, "stage_in")
        give(source, files.join(inputs, item.name), writable=found.writable_inputs)


def shown(name: str) -> str:
    """Return a name in quotes for people; undecodable bytes as \\xNN."""
    return "'" + files.to_bytes(name).decode("utf-8", "backslashreplace") + "'"


def look_once(function: Callable[[bytes], Any], path: bytes) -> Any:
    """Call a function on a path."""
    return function(path)


def insist(function: Callable[[bytes], Any], path: bytes) -> Any:
    """Call a function on a path, and again while it finds nothing there."""
    for pause_s in PAUSES_S:
        try:
            return function(path)
        except FileNotFoundError:
            # RACE: another node wrote it, and this one has not heard of it yet.
            time.sleep(pause_s)
    return function(path)


def give(source: bytes, target: bytes, *, writable: bool) -> None:
    """Give an input to a job: a read-only hard link, or a copy of its own."""
    if not writable:
        try:
            files.link(source, target)
            return
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
    files.copy(source, target, 0o600 if writable else 0o400)


def hash_outputs(folder: bytes, found: Description) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """Return the sizes and hashes of outputs, and what is wrong with the others."""
    inner = _inner(found)
    outputs, problems = {}, {}
    for item in found.outputs:
        try:
            descriptor = files.twice(files.open_inside, folder, *inner, item.name)
        except OSError as error:
            if error.errno in NOT_THE_JOB:
                raise
            path = files.join(folder, *inner, item.name)
            problems[item.key] = f"its output {shown(item.name)} {_wrong(path, error)}"
            continue
        with os.fdopen(descriptor, "rb") as file:
            digest, size = hashlib.sha256(), 0
            block = file.read(BLOCK_BYTES)
            while block:
                digest.update(block)
                size += len(block)
                block = file.read(BLOCK_BYTES)
        outputs[item.key] = {"name": item.name, "bytes": size, "sha256": digest.hexdigest()}
    return outputs, problems


def output_paths(folder: bytes, found: Description) -> List[bytes]:
    """Return where the outputs are to lie."""
    return [files.join(folder, *_inner(found), item.name) for item in found.outputs]


def output_folders(folder: bytes, found: Description) -> List[bytes]:
    """Return the folders on the way to the outputs."""
    inner = _inner(found)
    return [files.join(folder, *inner[:depth]) for depth in range(1, len(inner) + 1)]


def _inner(found: Description) -> Tuple[str, ...]:
    return ("work",) if found.layout == "flat" else ("work", "output")


def _wrong(path: bytes, error: OSError) -> str:
    """Say in words why something is no output."""
    if os.path.islink(path):
        return "is a symbolic link"
    if os.path.isdir(path):
        return "is a folder"
    if error.errno == errno.ENOENT:
        return "was not made"
    if error.errno in (errno.EINVAL, errno.ENXIO):
        return "is no regular file"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "lies behind a link"
    return f"cannot be read ({error.strerror})"
