"""An attempt: one start of a job, in its folder `jobs/J/aN`.

    aN/  job.sh  work/  stdout  stderr  result.json

It goes through five phases:

    preparing    has its folder made and filled (`preparation`)
    running      watches the process
    ended        has decided what the end means (`verdict`); its slot is free
    collecting   has its result written (`result`)
    written      has told in `files` and `folders` what is to be durable before its ticket moves

What is quick is done at once. What may move much data, or has to wait, has a thread, so that `step`
and `collect`, which the runner calls whenever something happened, never wait. At the end `outcome`
says what to do with the ticket; moving it is the runner's act, and that alone decides.
"""

import errno
import signal
import time
from typing import Callable, List, Mapping, NamedTuple, Optional, Union

from hpc_cluster import clock, durable, memory, result, threads, verdict
from hpc_cluster.description import Description
from hpc_cluster.guard import VARIABLE, Guard
from hpc_cluster.preparation import Preparation
from hpc_cluster.process import Process, interpreter, surroundings
from hpc_cluster.result import Ending
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.verdict import Outcome, Verdict
from hpc_cluster.walltime import GRACE_S, Walltime
from hpc_cluster.work import NOT_THE_JOB, CannotStart, Look, insist, look_once

AGAIN_S = 10.0
"""A result that cannot be written is tried again after this."""

TRIES = 6
"""So often; as long as the pilot lives where the storage is FULL."""

FULL = (errno.ENOSPC, errno.EDQUOT)

NO_ROOM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors of a start of which it is certain that no process was begun, as of those that name the
program or a folder."""

REMAINS_S = 5.0
"""How long to wait until the processes that a job left behind are gone after SIGKILL."""

TERM_SETTLE_S = 2.0
"""A batch system that ends a pilot signals its jobs, too. One that dies of SIGTERM is looked at
again after this, when the runner's own SIGTERM must have arrived."""

TERM_CODES = (-signal.SIGTERM, 128 + signal.SIGTERM)

KILL_CODES = (-signal.SIGKILL, 128 + signal.SIGKILL)


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
        found: Optional[Description] = None,
    ) -> None:
        """Begin to prepare it; `found` is the job's description, where it was read already."""
        self.outcome: Optional[Outcome] = None
        self.misses = 0
        """In so many listings in a row the ticket was not found."""
        self.phase = "preparing"
        self.files: List[bytes] = []
        """Of a written attempt: what has to be durable before its ticket moves."""
        self.folders: List[bytes] = []
        """The same for names."""
        self.given: List[bytes] = []
        """Of a prepared one: job.sh and the folders, as long as they are not durable."""
        self._context = context
        self._spool = context.spool
        self._preparation = Preparation(context.spool, ticket, found)
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
    def ticket(self) -> Ticket:
        """The job's ticket, which bears the number of this start."""
        return self._preparation.ticket

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
        found = self._preparation.description
        return found.time_limit if found else None

    @property
    def grace_s(self) -> float:
        """The job's own grace."""
        found = self._preparation.description
        return float(found.grace_s) if found else GRACE_S

    @property
    def starts(self) -> int:
        """How often the job may be started."""
        found = self._preparation.description
        return found.starts if found else 1 << 30

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
            if self._preparation.is_quick():
                self._prepare(look_once)
                return
        except (FileNotFoundError, CannotStart):
            # RACE: another node wrote it, and this one has not heard of it yet.
            self._do(lambda: self._prepare(insist))
        except Exception as error:  # whatever it is, the job must not be stuck
            self._failure = error
        else:
            self._do(lambda: self._prepare(insist))

    def _prepare(self, look: Look) -> None:
        if self._spool.cancel_asked(self.ticket.job):
            self._why = "cancelled"
        else:
            self._script, self.given = self._preparation.make(look)

    def _prepared(self) -> None:
        if self._failure is not None:
            self._cannot(self._failure)
        elif self._why == "cancelled":
            self._conclude(verdict.UNSTARTED)
        elif self._why:
            self._preparation.unmake()
            self.outcome = Outcome("unclaim")
        else:
            try:
                self._launch()
            except OSError as error:
                self._cannot(error)

    def _cannot(self, failure: BaseException) -> None:
        """A job that cannot be started is given back or answered, never stuck."""
        self._conclude(verdict.of_failure(failure, self.ticket))
        if self.outcome is not None and self.outcome.verb == "unclaim":
            self._preparation.unmake()

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
            folder, guard = self._preparation.folder, self._context.guard
            self._process = Process(folder, script, environment, guard)
        except OSError as error:
            if error.errno in NO_ROOM or (error.errno in NOT_THE_JOB and error.filename):
                raise
            self._conclude(verdict.of_refusal(error, self.ticket, interpreter(script)))
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
        if self._why:
            walltime = self._context.walltime
            filled = walltime.was_filled(process.began, process.ended)
            full_s = walltime.full_s if filled else None
            self._conclude(verdict.of_stop(self._why, self.time_limit_s, full_s))
        else:
            starved = process.rc != 0 and memory.killed_since(self._killed_before)
            starved = starved and (alone or process.rc in KILL_CODES)
            self._conclude(verdict.of_exit(process.rc, starved=starved))

    def _conclude(self, found: Union[Verdict, Outcome]) -> None:
        """Be ended with a verdict, or over without one."""
        if isinstance(found, Outcome):
            self.outcome = found
        else:
            self.phase, self._verdict, self._end = "ended", found, clock.iso()

    # ---- collecting --------------------------------------------------------------------------

    @property
    def _ending(self) -> Ending:
        """What the result is to say."""
        context, process = self._context, self._process
        return Ending(
            ticket=self.ticket,
            job_folder=self._spool.job_folder(self.ticket.job),
            folder=self._preparation.folder,
            description=self._preparation.description,
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
