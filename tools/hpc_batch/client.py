"""The client: drop a job, wait for its answer.

A client knows one folder and two file formats, and runs wherever that folder can be seen: in a
Galaxy tool, a notebook, a script on another machine. So this module needs the standard library,
PyYAML (in `jobfile`) and nothing of the cluster's side; its few effects on the dropbox stand in
`dropbox_files`.

Dropping: the text is written to a dot file, which no service looks at, and then takes the name
`NAME.job` in one step that never replaces a file that is there. It ends with YAML's end mark, so
the next pass takes it at once.

Waiting is looking: the answer `NAME.job.finished` appears complete or not at all. Names that we
make up are unique, so any answer of that name is ours. A name that a caller chose may have been
used before, or by someone else right now; such a drop carries a word of its own (`x-submission`),
which the answer repeats, and only that answer counts, also after the service moved it aside to
`NAME.job.finished.N` for a later job of the same name.
"""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence, Union

from hpc_batch import jobfile
from hpc_batch.dropbox_files import (
    is_folder,
    is_there,
    read_regular,
    rename_anew,
    touch_anew,
    write_anew,
)
from hpc_batch.errors import AnsweredError, InfrastructureError, JobError

PathText = Union[str, "os.PathLike[str]"]
Scalar = Union[str, int, float, "os.PathLike[str]"]
Value = Union[Scalar, Sequence[Scalar]]

INFRASTRUCTURE_REASONS = frozenset({"pilot_died", "stage_in", "stage_out", "lost"})
"""Reasons of answers that are nobody's fault but the machinery's (interface: Python)."""

PERIOD_S = 2.0
"""How often a waiting client looks, in seconds."""

PATIENCE_S = 600.0
"""A waiting client bears a dropbox that cannot be read for so long."""

PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
)
"""Errors of a disk, a file server or a machine that may pass."""

NAME_BYTES = 255 - len(".job.submitted")
"""The longest NAME of which every file of the job can still be named."""


class Dropbox:
    """A folder that a service host serves."""

    def __init__(self, path: PathText) -> None:
        """Take the folder's path. Raises NotADirectoryError when there is no such folder."""
        self.path = Path(os.path.abspath(path))
        if not is_folder(self.path):
            raise NotADirectoryError(f"the dropbox {str(path)!r} is not a folder that exists")

    def __repr__(self) -> str:
        return f"Dropbox({str(self.path)!r})"

    def submit(
        self,
        *,
        script: str,
        args: Mapping[str, Value] | None = None,
        inputs: Mapping[str, PathText] | None = None,
        outputs: Mapping[str, PathText] | None = None,
        name: str | None = None,
    ) -> Job:
        """Drop a job and return it.

        `script` names a template; `args` are its values, a list becoming several words; `inputs`
        and `outputs` map keys to local paths, made absolute here. `name` is the drop's name, with
        or without `.job`; without one a unique name is made up.

        Raises JobFileError with every problem that can be told without the service, and
        FileExistsError when a job of this name still waits in the dropbox.
        """
        description = job_mapping(script, args, inputs, outputs)
        word = None
        if name is None:
            name = fresh_name(script)
        else:
            word = description["x-submission"] = os.urandom(8).hex()
        text = jobfile.dump_job(description)
        jobfile.parse(text)
        return self.drop(name, text, word=word)

    def drop(self, name: str, text: bytes, *, word: str | None = None) -> Job:
        """Put the text of a job file into the dropbox as `NAME.job`, never over another.

        Raises FileExistsError, and ValueError for a name that no drop can have.
        """
        job = Job(self, name, word=word)
        stem = os.fsencode(job.name)[: -len(".job")]
        if not stem or stem.startswith(b".") or b"/" in stem or b"\0" in stem:
            raise ValueError(
                f"{name!r} cannot be a job's name: a file name is needed, without a leading dot"
            )
        if len(stem) > NAME_BYTES:
            raise ValueError(f"the name {name[:40]!r}... is longer than {NAME_BYTES} bytes")
        write_anew(job.path, text)
        return job

    def job(self, name: str) -> Job:
        """Return the job of this name, whoever dropped it; any answer of that name is its."""
        return Job(self, name)

    def set_aside(self, name: str) -> Path | None:
        """Move an old answer of this name to `NAME.job.finished.N`, as the service would.

        Returns its new path, or None when there was no answer.
        """
        answer = self.job(name).answer_path
        number = 1
        while True:
            target = answer.with_name(f"{answer.name}.{number}")
            try:
                rename_anew(answer, target)
                return target
            except FileExistsError:
                number += 1
            except FileNotFoundError:
                return None


class Job:
    """One job in a dropbox, in the manner of `concurrent.futures.Future`."""

    def __init__(self, dropbox: Dropbox, name: str, *, word: str | None = None) -> None:
        """Take the drop's name, with or without `.job`; `word` is what its answer must repeat."""
        self.dropbox = dropbox
        self.name = name if name.endswith(".job") else name + ".job"
        self._word = word
        self._answer: dict[str, Any] | None = None
        self._foreign: set[tuple[int, int, int]] = set()

    def __repr__(self) -> str:
        return f"<Job {self.name!r} in {str(self.dropbox.path)!r}: {self.state()}>"

    @property
    def path(self) -> Path:
        """Where the drop lies until it is taken."""
        return self.dropbox.path / self.name

    @property
    def submitted_path(self) -> Path:
        """Where the service shows that it has taken the job."""
        return self.dropbox.path / (self.name + ".submitted")

    @property
    def answer_path(self) -> Path:
        """Where the answer appears."""
        return self.dropbox.path / (self.name + ".finished")

    def answer(self) -> dict[str, Any] | None:
        """Return the whole answer if it is there, read once and remembered; never wait.

        Raises OSError.
        """
        if self._answer is None:
            for path in self._candidates():
                found = self._read(path)
                if found is not None:
                    self._answer = found
                    break
        return self._answer

    def state(self) -> str:
        """Return waiting, accepted, staging, staged, running, returning, finished or unknown.

        `waiting`: not yet taken. `unknown`: none of the job's files is there; it is being taken or
        answered at this moment, or somebody removed it.
        """
        for _ in range(2):  # RACE: between two looks the job may have moved on.
            if self.answer() is not None:
                return "finished"
            if is_there(self.path):
                return "waiting"
            try:
                shown = jobfile.read_answer(read_regular(self.submitted_path))
                return str(_node(shown, "hpc").get("state", "accepted"))
            except FileNotFoundError:
                continue  # RACE: see above.
            except (OSError, ValueError):
                return "accepted"
        return "unknown"

    def done(self) -> bool:
        """Tell whether the job is answered."""
        return self.answer() is not None

    def wait(self, timeout: float | None = None, period: float = PERIOD_S) -> bool:
        """Wait until the job is answered, at most `timeout` seconds; tell whether it is.

        What fails and may pass (a file server that is away) is waited out.
        """
        return next(_answered([self], _deadline(timeout), period), None) is not None

    def result(self, timeout: float | None = None, period: float = PERIOD_S) -> dict[str, Any]:
        """Wait for the answer and return it: the description, and what happened under `job`.

        Looks every `period` seconds. Raises JobError or InfrastructureError (both with `.answer`)
        when the job's status is `error`, and TimeoutError after `timeout` seconds.
        """
        error = self.exception(timeout, period)
        if error is not None:
            raise error
        return self.answer() or {}

    def exception(
        self, timeout: float | None = None, period: float = PERIOD_S
    ) -> AnsweredError | None:
        """Wait for the answer and return the error that `result` would raise, or None."""
        if not self.wait(timeout, period):
            raise TimeoutError(f"{self.name} was not answered within {timeout} s")
        return error_of(self.answer() or {})

    def stdout(self) -> str | None:
        """Return what the job's script wrote to its output; None before the answer."""
        return self._stream("stdout")

    def stderr(self) -> str | None:
        """Return what the job's script wrote to its error output; None before the answer."""
        return self._stream("stderr")

    def cancel(self) -> bool:
        """Ask for the job to be cancelled; False when it is answered already.

        The answer still comes, as soon as the job is stopped: with the reason `cancelled`, or as it
        really ended when the request was too late.
        """
        if self.done():
            return False
        touch_anew(self.dropbox.path / (self.name + ".cancel"))
        return True

    def retry(self) -> Job:
        """Turn the answer back into a drop, in one step, and return the job that it is now.

        Raises FileExistsError while a job of this name waits or is in flight, FileNotFoundError
        when there is no answer, and ValueError when the answer is longer than a drop may be.
        """
        if is_there(self.submitted_path):
            raise FileExistsError(errno.EEXIST, "still in flight", str(self.submitted_path))
        if os.lstat(self.answer_path).st_size > jobfile.JOB_BYTES:
            raise ValueError(
                f"the answer {self.answer_path} is longer than a job file may be; "
                "copy it to another name without its node `job`, and submit that"
            )
        rename_anew(self.answer_path, self.path)
        return Job(self.dropbox, self.name)

    def _stream(self, key: str) -> str | None:
        answer = self.answer()
        return None if answer is None else str(_node(answer, "job").get(key) or "")

    def _candidates(self) -> Iterator[Path]:
        """Yield the paths where the answer may lie."""
        yield self.answer_path
        if self._word is not None:
            prefix = self.answer_path.name + "."
            for name in os.listdir(self.dropbox.path):
                if name.startswith(prefix) and name[len(prefix) :].isdigit():
                    yield self.dropbox.path / name

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return the answer in a file if it is this job's."""
        try:
            seen = os.lstat(path)
            identity = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
            if identity in self._foreign:
                return None
            found = jobfile.read_answer(read_regular(path))
        except OSError as error:
            # RACE: not answered yet, or moved aside between two looks.
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return None
            raise
        if self._word is not None and found.get("x-submission") != self._word:
            self._foreign.add(identity)
            return None
        return found


def as_completed(
    jobs: Iterable[Job], timeout: float | None = None, period: float = PERIOD_S
) -> Iterator[Job]:
    """Yield jobs as they are answered. Raises TimeoutError after `timeout` seconds."""
    waiting = list(jobs)
    yield from _answered(waiting, _deadline(timeout), period)
    if waiting:
        raise TimeoutError(f"{len(waiting)} jobs were not answered within {timeout} s")


def error_of(answer: Mapping[str, Any]) -> AnsweredError | None:
    """Return the error that an answer stands for; None when its status is `ok`."""
    node = _node(answer, "job")
    if node.get("status") == "ok":
        return None
    kind = InfrastructureError if node.get("reason") in INFRASTRUCTURE_REASONS else JobError
    return kind(dict(answer))


def job_mapping(
    script: str,
    args: Mapping[str, Value] | None = None,
    inputs: Mapping[str, PathText] | None = None,
    outputs: Mapping[str, PathText] | None = None,
) -> dict[str, Any]:
    """Return what a job file says, with absolute paths."""
    description: dict[str, Any] = {"script": script}
    if args:
        description["args"] = dict(args)
    if inputs:
        description["input_map"] = {key: os.path.abspath(path) for key, path in inputs.items()}
    if outputs:
        description["output_map"] = {key: os.path.abspath(path) for key, path in outputs.items()}
    return description


def fresh_name(word: str) -> str:
    """Return a name that no other job has, beginning with a word that tells people what it is."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", word)[:100].lstrip(".-")
    return f"{stem or 'job'}-{os.urandom(8).hex()}"


def _node(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    node = answer.get(key)
    return node if isinstance(node, Mapping) else {}


def _deadline(timeout: float | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout


def _answered(waiting: list[Job], deadline: float, period: float) -> Iterator[Job]:
    """Yield jobs as they are answered, taking them off the list, until the deadline."""
    failing_since = None
    while waiting:
        for job in list(waiting):
            try:
                done = job.done()
            except OSError as error:
                # RACE: a file server that cannot be asked now says nothing of the job.
                failing_since = failing_since or time.monotonic()
                late = time.monotonic() - failing_since > PATIENCE_S
                if late or error.errno not in PASSING:
                    raise
                continue
            failing_since = None
            if done:
                waiting.remove(job)
                yield job
        rest = deadline - time.monotonic()
        if rest <= 0:
            return
        if waiting:
            time.sleep(min(period, rest))
