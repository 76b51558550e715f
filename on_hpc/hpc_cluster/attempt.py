"""An attempt: one start of a job, in its folder `jobs/J/aN`.

    aN/  job.sh  work/  stdout  stderr  result.json

It goes through five phases:

    preparing    makes the folder, links the inputs into work/, writes job.sh
    running      watches the process
    ended        has decided what the end means; its slot is free
    collecting   has its result written (`result`)
    written      has told in `files` and `folders` what is to be durable before its ticket moves

What is quick is done at once. What may move much data, or has to wait, has a thread, so that `step`
and `collect`, which the runner calls whenever something happened, never wait. At the end `outcome`
says what to do with the ticket; moving it is the runner's act, and that alone decides.
"""

import errno
import os
import signal
import time
from typing import Callable, List, Mapping, NamedTuple, Optional

from hpc_cluster import clock, description, durable, files, memory, result, threads
from hpc_cluster.errors import ClusterError, DescriptionError
from hpc_cluster.guard import VARIABLE, Guard
from hpc_cluster.process import Process, interpreter, surroundings
from hpc_cluster.result import Ending, Verdict
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.walltime import GRACE_S, Walltime
from hpc_cluster.work import (
    NOT_THE_JOB,
    QUICK_BYTES,
    QUICK_FILES,
    CannotStart,
    Look,
    fill,
    insist,
    look_once,
)

AGAIN_S = 10.0
"""A result that cannot be written is tried again after this."""

TRIES = 6
"""So often; as long as the pilot lives where the storage is FULL."""

FULL = (errno.ENOSPC, errno.EDQUOT)

NO_ROOM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors of a start of which it is certain that no process was begun, as of those that name the
program or a folder."""

BELIEVED = 3
"""A start with this number, or a later one, that is refused for good is the job's last: what was
refused before may have been this node's doing, or a moment's."""

REMAINS_S = 5.0
"""How long to wait until the processes that a job left behind are gone after SIGKILL."""

TERM_SETTLE_S = 2.0
"""A batch system that ends a pilot signals its jobs, too. One that dies of SIGTERM is looked at
again after this, when the runner's own SIGTERM must have arrived."""

TERM_CODES = (-signal.SIGTERM, 128 + signal.SIGTERM)


class Outcome(NamedTuple):
    """What to do with the ticket at the end."""

    verb: str
    """finish (it is written), release, unclaim, or drop (it is no longer ours)."""
    trouble: Optional[str] = None
    """What was wrong with the node or the storage."""


class Taken(ClusterError):
    """This start is not ours to make."""


class Context(NamedTuple):
    """Where an attempt is made."""

    spool: Spool
    pilot: str
    """P."""
    native_id: Optional[str]
    walltime: Walltime
    guard: Guard
    environment: Mapping[bytes, bytes]
    """The pilot's own, which jobs get as well."""
    wake: Callable[[], None]
    """Called from a thread when a slow step is over."""


class Attempt:
    """One start of one job. `step` and `collect` move it on until `outcome` is something."""

    def __init__(
        self,
        context: Context,
        ticket: Ticket,
        found: Optional[description.Description] = None,
    ) -> None:
        """Begin to prepare it; `found` is the job's description, where it was read already."""
        self.ticket = ticket
        self.outcome: Optional[Outcome] = None
        self.misses = 0
        """In so many listings in a row the ticket was not found."""
        self.description = found
        self.phase = "preparing"
        self.files: List[bytes] = []
        """Of a written attempt: what has to be durable before its ticket moves."""
        self.folders: List[bytes] = []
        """The same for names."""
        self.given: List[bytes] = []
        """Of a prepared one: job.sh and the folders, as long as they are not durable."""
        self._context = context
        self._spool = context.spool
        self._folder = context.spool.attempt_folder(ticket.job, ticket.starts)
        self._made = False
        """The folder is this start's own."""
        self._script = b""
        self._process: Optional[Process] = None
        self._busy = False
        """A slow step runs in a thread."""
        self._failure: Optional[BaseException] = None
        self._why = ""
        """Why it is being stopped: time_limit, cancelled, hand_back."""
        self._kill_at: Optional[float] = None
        """When the job is killed."""
        self._over_at: Optional[float] = None
        """When the pilot must be rid of it, whatever its phase."""
        self._start = self._end = clock.iso()
        self._killed_before: Optional[int] = None
        self._verdict = Verdict("", "", "")
        self._again_at: Optional[float] = None
        self._tries = 0
        self._begin()

    # ---- the runner's verbs ------------------------------------------------------------------

    @property
    def holds_a_slot(self) -> bool:
        """Whether it uses the node, or could not write its result there."""
        return self.outcome is None and self.phase != "ended"

    def step(self, *, alone: bool) -> None:
        """Prepare, start and watch, as far as possible without waiting.

        `alone`: no other job runs in this pilot.
        """
        if self.outcome is not None:
            return
        if self._busy:
            if self._over_at is not None and clock.monotonic() >= self._over_at:
                # It may go on writing into this attempt's folder, which is never used again.
                self.outcome = Outcome("release", trouble=f"{self.phase} took too long")
            return
        if self.phase == "preparing":
            self._prepared()
        if self.phase == "running":
            self._watch(alone=alone)

    def collect(self) -> None:
        """After the end: write the result, as far as possible without waiting."""
        if self.outcome is not None or self._busy:
            return
        if self.phase == "ended":
            self.phase = "collecting"
            self._collect()
        if self.phase == "collecting" and not self._busy:
            self._collected()

    def fail(self, failure: OSError) -> None:
        """What it had written could not be made durable: it is written again, after a while."""
        self.phase, self.outcome, self._failure = "collecting", None, failure

    def stop(self, why: str, grace_s: float) -> None:
        """Ask the job to stop and kill it after a grace: time_limit, cancelled or hand_back."""
        if self._why:
            return
        self._why = why
        self._kill_at = clock.monotonic() + grace_s
        if self._process is not None:
            self._process.send(signal.SIGTERM)
            self._process.send(signal.SIGCONT)

    def stop_by(self, why: str, moment: float) -> None:
        """Ask it to stop, and have it over before a moment (monotonic)."""
        self.stop(why, max(0.0, moment - clock.monotonic()))
        self._over_at = moment if self._over_at is None else min(self._over_at, moment)
        self._kill_at = self._over_at if self._kill_at is None else min(self._kill_at, moment)

    def lose(self) -> None:
        """The ticket is no longer ours: kill the job at once, write nothing more."""
        if self._process is not None:
            self._process.end(REMAINS_S)
        self.outcome = Outcome("drop")

    @property
    def time_limit_s(self) -> Optional[int]:
        """The job's own limit."""
        return self.description.time_limit if self.description else None

    @property
    def grace_s(self) -> float:
        """The job's own grace."""
        return float(self.description.grace_s) if self.description else GRACE_S

    @property
    def starts(self) -> int:
        """How often the job may be started."""
        return self.description.starts if self.description else 1 << 30

    @property
    def ran_s(self) -> float:
        """For how long its script has run, or ran; 0 when it never began."""
        return 0.0 if self._process is None else self._process.ended - self._process.began

    @property
    def kind(self) -> str:
        """How its ticket is to end: one of ticket.KINDS."""
        return self._verdict.kind

    @property
    def reason(self) -> str:
        """The reason in the result, for the log."""
        return self._verdict.reason

    # ---- preparing ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """Prepare at once where that is quick; what is not found is looked for in a thread."""
        try:
            if self._is_quickly_prepared():
                self._prepare(look_once)
                return
        except (FileNotFoundError, CannotStart):
            # RACE: another node wrote it, and this one has not heard of it yet.
            self._script = b""
        except Exception as error:  # whatever it is, the job must not be stuck
            self._failure = error
            return
        self._do(lambda: self._prepare(insist))

    def _is_quickly_prepared(self) -> bool:
        if self.description is None:
            self._read(look_once)
        assert self.description is not None
        inputs = self.description.inputs
        size = sum(item.size for item in inputs)
        return size <= QUICK_BYTES and len(inputs) <= QUICK_FILES

    def _read(self, look: Look) -> None:
        path = files.join(self._spool.job_folder(self.ticket.job), description.NAME)
        self.description = look(description.read, path)

    def _prepare(self, look: Look) -> None:
        spool, job = self._spool, self.ticket.job
        if spool.cancel_asked(job):
            self._why = "cancelled"
            return
        job_folder = spool.job_folder(job)
        try:
            if self.description is None:
                self._read(look)
            found = self.description
            assert found is not None
            if found.job != job:
                raise CannotStart("the description belongs to another job")
            look(os.stat, job_folder)  # what was read to choose it may be gone since
            text = description.script(found, job_folder, lambda p: look(files.read_bytes, p))
        except FileNotFoundError as error:
            raise CannotStart("its files on the cluster were deleted", "lost") from error
        self._make_folder(found.starts)
        fill(self._folder, job_folder, found, look)
        word, own = found.word.encode("ascii"), f"a{self.ticket.starts}".encode("ascii")
        self._script = text.replace(word, own)
        path = files.join(self._folder, "job.sh")
        files.write_new(path, self._script, 0o700)
        work = files.join(self._folder, "work")
        inner = [files.join(work, name) for name in ("input", "output") if found.layout == "split"]
        self.given = [path, job_folder, self._folder, work, *inner]

    def _make_folder(self, starts: int) -> None:
        """Make the folder of this start; where there is one, make it the next start.

        RACE: a file server that crashed forgot another pilot's claim. Its job still runs in that
        folder, until that pilot misses its ticket.
        """
        self._unmake()  # what a look too early has left
        while not files.make_folder(self._folder):
            if self.ticket.starts >= starts:
                raise Taken("its last start was begun before")
            again = self._spool.restart(self.ticket)
            if again is None:
                raise Taken("its ticket is gone")
            self.ticket = again
            self._folder = self._spool.attempt_folder(again.job, again.starts)
        self._made = True

    def _unmake(self) -> None:
        """Remove the folder of a start that was not begun."""
        if self._made:
            files.remove_tree(self._folder)
            self._made = False

    def _prepared(self) -> None:
        if self._failure is not None:
            self._cannot(self._failure)
        elif self._why == "cancelled":
            self._ended("cancelled", "cancelled", "cancelled before it was started")
        elif self._why:
            self._unmake()
            self.outcome = Outcome("unclaim")
        else:
            try:
                self._launch()
            except OSError as error:
                self._cannot(error)

    def _cannot(self, failure: BaseException) -> None:
        """A job that cannot be started is given back or answered, never stuck."""
        if isinstance(failure, OSError) and failure.errno in NOT_THE_JOB:
            words = f"cannot prepare {self.ticket.job}: {failure.strerror}"
            self.outcome = Outcome("unclaim", trouble=words)
            self._unmake()
        elif isinstance(failure, Taken):
            self.outcome = Outcome("release")
        elif isinstance(failure, (CannotStart, DescriptionError)):
            self._ended("fail", getattr(failure, "reason", "exit_code"), str(failure))
        elif isinstance(failure, OSError) and self.ticket.starts < BELIEVED:
            words = f"cannot prepare {self.ticket.job}: {failure}"
            self.outcome = Outcome("release", trouble=words)
        else:
            self._ended("fail", "exit_code", f"the job could not be started: {failure}")

    def _launch(self) -> None:
        environment = surroundings(
            self._context.environment,
            HPC_BATCH_JOB_ID=self.ticket.job,
            HPC_BATCH_ATTEMPT=str(self.ticket.starts),
            **{VARIABLE: self._context.pilot},
        )
        script, self._script = self._script, b""
        self._killed_before = memory.kills()
        self._start = clock.iso()
        try:
            self._process = Process(self._folder, script, environment, self._context.guard)
        except OSError as error:
            if error.errno in NO_ROOM or (error.errno in NOT_THE_JOB and error.filename):
                raise
            if error.errno in NOT_THE_JOB or error.filename is None:
                # It may run, and nobody knows its number: this folder is left to it.
                words = f"cannot start {self.ticket.job}: {error.strerror}"
                self.outcome = Outcome("release", trouble=words)
                return
            words = f"the script cannot be started by {interpreter(script)}: {error.strerror}"
            self._ended("fail", "exit_code", words)
            return
        self.phase = "running"

    # ---- running -----------------------------------------------------------------------------

    def _watch(self, *, alone: bool) -> None:
        assert self._process is not None
        now = clock.monotonic()
        if not self._process.reap():
            limit = self.time_limit_s
            if not self._why and limit is not None and now >= self._process.began + limit:
                self.stop("time_limit", self.grace_s)
            if self._kill_at is not None and now >= self._kill_at:
                self._process.send(signal.SIGKILL)
            return
        settled = self._process.rc not in TERM_CODES or now >= self._process.ended + TERM_SETTLE_S
        if self._why or settled:
            self._judge(alone=alone)

    def _judge(self, *, alone: bool) -> None:
        """Decide what the end of the job means."""
        process = self._process
        assert process is not None and process.rc is not None
        rc, why, limit = process.rc, self._why, self.time_limit_s
        walltime = self._context.walltime
        code = rc if rc >= 0 else 128 - rc
        if why == "cancelled":
            self._ended("cancelled", "cancelled", "cancelled while it ran")
        elif why == "time_limit":
            self._ended("fail", "time_limit", f"stopped after its time limit of {limit} s")
        elif why == "hand_back" and walltime.was_filled(process.began, process.ended):
            full = int(walltime.full_s)
            words = f"still running near the end of a pilot of {full} s: it needs a longer walltime"
            self._ended("fail", "time_limit", words)
        elif why == "hand_back":
            self.outcome = Outcome("release")
        elif rc == 0:
            self._ended("ok", "completed", "processed OK")
        elif self._out_of_memory(code, alone):
            self._ended("fail", "out_of_memory", "killed for want of memory")
        elif rc < 0:
            self._ended("fail", "exit_code", f"the script was killed by signal {_signal(-rc)}")
        else:
            self._ended("fail", "exit_code", f"the script ended with return code {rc}")

    def _out_of_memory(self, code: int, alone: bool) -> bool:
        now, before = memory.kills(), self._killed_before
        grew = now is not None and before is not None and now > before
        return grew and (alone or code == 128 + signal.SIGKILL)

    def _ended(self, kind: str, reason: str, message: str) -> None:
        self.phase = "ended"
        self._verdict = Verdict(kind, reason, message)
        self._end = clock.iso()

    # ---- collecting --------------------------------------------------------------------------

    @property
    def _ending(self) -> Ending:
        """What the result is to say."""
        context, process = self._context, self._process
        return Ending(
            ticket=self.ticket,
            job_folder=self._spool.job_folder(self.ticket.job),
            folder=self._folder,
            description=self.description,
            verdict=self._verdict,
            rc=None if process is None else process.rc,
            start=self._start,
            end=self._end,
            pilot=context.pilot,
            native_id=context.native_id,
        )

    def _collect(self) -> None:
        """Write the result; in a thread where that may take a while."""
        self._failure = None
        try:
            remains = self._process is not None and self._process.remains()
            if not remains and result.is_quickly_written(self._ending):
                self._write_result()
                return
        except Exception as error:  # whatever it is, the job must not be stuck
            self._failure = error
            return
        self._do(self._write_big_result)

    def _write_big_result(self) -> None:
        """Write the result, and what is large to the disk already: nobody else waits for that."""
        deadline = clock.monotonic() + REMAINS_S
        while (
            self._process is not None and self._process.remains() and clock.monotonic() < deadline
        ):
            time.sleep(0.01)
        self._write_result()
        durable.sync_files(self.files)
        durable.sync_folders(self.folders)

    def _write_result(self) -> None:
        written = result.write(self._ending)
        self._verdict, self.files, self.folders = written

    def _collected(self) -> None:
        """Be written; while the storage is full, keep what there is and try again."""
        now = clock.monotonic()
        if self._failure is None:
            self.phase, self.outcome = "written", Outcome("finish")
        elif self._again_at is None:
            self._again_at = now + AGAIN_S
            self._tries += 1
        elif (self._over_at is not None and now >= self._over_at) or (
            self._tries > TRIES and getattr(self._failure, "errno", None) not in FULL
        ):
            words = f"cannot write the result of {self.ticket.job}: {self._failure}"
            self.outcome = Outcome("release", trouble=words)
        elif now >= self._again_at:
            self._again_at = None
            self._collect()

    def _do(self, function: Callable[[], None]) -> None:
        """Run a slow step in a thread, keep its failure, and wake the runner at its end."""
        self._failure = None
        self._busy = True

        def work() -> None:
            try:
                function()
            except Exception as error:  # whatever it is, the job must not be stuck
                self._failure = error
            # The runner may look as soon as it wakes, while this thread is still ending.
            self._busy = False
            self._context.wake()

        try:
            threads.start(work, "step")
        except OSError as error:
            self._failure, self._busy = error, False


def _signal(number: int) -> str:
    """Return a signal's number and name."""
    known = {int(known): known.name for known in signal.Signals}
    return f"{number} ({known[number]})" if number in known else str(number)
