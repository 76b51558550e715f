"""An attempt: one start of a job, in its folder `jobs/J/aN`.

    aN/  job.sh  work/  stdout  stderr  result.json

It goes through three phases: `preparing` makes the folder, links the inputs into work/ and writes
job.sh; `running` watches the process group; `collecting` makes the outputs durable, hashes them and
writes result.json. The first and the last may move much data and have a thread each, so that
`step`, which the runner calls about once a second, never waits. At the end `outcome` says what to
do with the ticket; moving it is the runner's act, and that alone decides.
"""

import errno
import os
import signal
import subprocess
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

from hpc_cluster import PROTOCOL, clock, description, files, memory
from hpc_cluster.errors import DescriptionError
from hpc_cluster.guard import Guard, kill
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.walltime import GRACE_S, Walltime
from hpc_cluster.work import NOT_THE_JOB, CannotStart, fill, hash_outputs, insist, shown

AGAIN_S = 10.0
"""A result that cannot be written is tried again after this."""

TRIES = 6
"""So often; as long as the pilot lives where the storage is FULL."""

FULL = (errno.ENOSPC, errno.EDQUOT)

REMAINS_S = 5.0
"""How long to wait until the processes that a job left behind are gone after SIGKILL."""

TERM_SETTLE_S = 2.0
"""A batch system that ends a pilot signals its jobs, too. One that dies of SIGTERM is looked at
again after this, when the runner's own SIGTERM must have arrived."""

TERM_CODES = (-signal.SIGTERM, 128 + signal.SIGTERM)


class Outcome(NamedTuple):
    """What to do with the ticket at the end."""

    verb: str
    """finish (result.json is written), release, unclaim, or drop (it is no longer ours)."""
    kind: str = ""
    """Of finish: one of ticket.KINDS."""
    trouble: Optional[str] = None
    """What was wrong with the node or the storage."""


class Context(NamedTuple):
    """Where an attempt is made."""

    spool: Spool
    pilot: str
    """P."""
    native_id: Optional[str]
    walltime: Walltime
    guard: Guard
    wake: Callable[[], None]
    """Called from a thread when a slow step is over."""


class Attempt:
    """One start of one job. `step` moves it on; `outcome` is None until it is over."""

    def __init__(self, context: Context, ticket: Ticket) -> None:
        self.ticket = ticket
        self.outcome: Optional[Outcome] = None
        self.misses = 0
        """In so many listings in a row the ticket was not found."""
        self.description: Optional[description.Description] = None
        self.phase = "preparing"
        self._context = context
        self._spool = context.spool
        self._folder = context.spool.attempt_folder(ticket.job, ticket.starts)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._busy = False
        """A slow step runs in a thread."""
        self._failure: Optional[BaseException] = None
        self._why = ""
        """Why it is being stopped: time_limit, cancelled, hand_back."""
        self._kill_at: Optional[float] = None
        """When the job is killed."""
        self._over_at: Optional[float] = None
        """When the pilot must be rid of it, whatever its phase."""
        self._began = clock.monotonic()
        self._start = clock.iso()
        self._rc: Optional[int] = None
        self._ended = 0.0
        self._killed_before: Optional[int] = None
        self._verdict = ("", "", "")
        self._end = ""
        self._again_at: Optional[float] = None
        self._tries = 0
        self._do(self._prepare)

    # ---- the runner's verbs ------------------------------------------------------------------

    def step(self, *, alone: bool) -> None:
        """Move on as far as possible without waiting; `alone`: no other job runs in this pilot."""
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
        elif self.phase == "collecting":
            self._collected()

    def stop(self, why: str, grace_s: float) -> None:
        """Ask the job to stop and kill it after a grace: time_limit, cancelled or hand_back."""
        if self._why:
            return
        self._why = why
        self._kill_at = clock.monotonic() + grace_s
        if self._process is not None and self._rc is None:
            kill(self._process.pid, signal.SIGTERM)
            kill(self._process.pid, signal.SIGCONT)

    def stop_by(self, why: str, moment: float) -> None:
        """Ask it to stop, and have it over before a moment (monotonic)."""
        self.stop(why, max(0.0, moment - clock.monotonic()))
        self._over_at = moment if self._over_at is None else min(self._over_at, moment)
        self._kill_at = self._over_at if self._kill_at is None else min(self._kill_at, moment)

    def lose(self) -> None:
        """The ticket is no longer ours: kill the job at once, write nothing more."""
        if self._process is not None and self._rc is None:
            kill(self._process.pid, signal.SIGKILL)
            try:
                self._rc = self._process.wait(REMAINS_S)
                self._context.guard.tell(f"-{self._process.pid}")
            except subprocess.TimeoutExpired:
                # It hangs in the kernel; the guard keeps its number.
                self._rc = None
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
    def ran_s(self) -> float:
        """For how long its script has run, or ran; 0 when it never began."""
        if self._process is None:
            return 0.0
        return (self._ended or clock.monotonic()) - self._began

    # ---- preparing ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        spool, job = self._spool, self.ticket.job
        if spool.cancel_asked(job):
            self._why = "cancelled"
            return
        try:
            job_folder = spool.job_folder(job)
            found = insist(description.read, files.join(job_folder, "description.json"))
            self.description = found
            if found.job != job:
                raise CannotStart("the description belongs to another job")
            if files.exists(self._folder):
                spool.discard(self._folder, keep=False)
            text = insist(files.read_bytes, files.join(job_folder, "script"))
        except FileNotFoundError as error:
            raise CannotStart("its files on the cluster were deleted", "lost") from error
        files.make_folder(self._folder)
        fill(self._folder, files.join(job_folder, "in"), found)
        word, own = found.word.encode("ascii"), f"a{self.ticket.starts}".encode("ascii")
        files.write_new(files.join(self._folder, "job.sh"), text.replace(word, own), 0o700)
        for name in ("stdout", "stderr"):
            files.write_new(files.join(self._folder, name), b"")

    def _prepared(self) -> None:
        if self._failure is not None:
            self._cannot(self._failure)
        elif self._why == "cancelled":
            self._collect("cancelled", "cancelled", "cancelled before it was started")
        elif self._why:
            files.remove_tree(self._folder)
            self.outcome = Outcome("unclaim")
        else:
            try:
                self._launch()
            except OSError as error:
                self._cannot(error)

    def _cannot(self, failure: BaseException) -> None:
        """A job that cannot be started is given back or answered, never stuck."""
        if isinstance(failure, OSError) and failure.errno in NOT_THE_JOB:
            files.remove_tree(self._folder)
            words = f"cannot prepare {self.ticket.job}: {failure.strerror}"
            self.outcome = Outcome("unclaim", trouble=words)
        elif isinstance(failure, (CannotStart, DescriptionError)):
            self._collect("fail", getattr(failure, "reason", "exit_code"), str(failure))
        else:
            self._collect("fail", "exit_code", f"the job could not be started: {failure}")

    def _launch(self) -> None:
        script = files.join(self._folder, "job.sh")
        first = files.read_bytes(script)[:200].split(b"\n")[0]
        argv = [script] if first.startswith(b"#!") else [b"/bin/sh", script]
        environment = dict(
            os.environ,
            HPC_BATCH_JOB_ID=self.ticket.job,
            HPC_BATCH_ATTEMPT=str(self.ticket.starts),
            HPC_BATCH_PILOT=self._context.pilot,
        )
        streams = []
        try:
            for name in ("stdout", "stderr"):
                streams.append(files.open_append(files.join(self._folder, name)))
            self._killed_before = memory.kills()
            self._began, self._start = clock.monotonic(), clock.iso()
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                cwd=files.join(self._folder, "work"),
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno in NOT_THE_JOB:
                raise
            line = shown(files.from_bytes(first)) if first.startswith(b"#!") else "/bin/sh"
            self._collect(
                "fail", "exit_code", f"the script cannot be started by {line}: {error.strerror}"
            )
            return
        finally:
            for stream in streams:
                os.close(stream)
        self._context.guard.tell(f"+{self._process.pid}")
        self.phase = "running"

    # ---- running -----------------------------------------------------------------------------

    def _watch(self, *, alone: bool) -> None:
        assert self._process is not None
        now = clock.monotonic()
        if self._rc is None and not self._reap():
            limit = self.time_limit_s
            if not self._why and limit is not None and now >= self._began + limit:
                self.stop("time_limit", self.grace_s)
            if self._kill_at is not None and now >= self._kill_at:
                kill(self._process.pid, signal.SIGKILL)
            return
        settled = self._why or self._rc not in TERM_CODES or now >= self._ended + TERM_SETTLE_S
        if settled:
            self._judge(alone=alone)

    def _reap(self) -> bool:
        """Note the end of the job's leader; what it left in its group is killed first.

        The leader is reaped last, so that the group's number cannot belong to anybody else.
        """
        assert self._process is not None
        pid = self._process.pid
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        kill(pid, signal.SIGKILL)
        self._context.guard.tell(f"-{pid}")
        self._rc = self._process.wait()
        self._ended = clock.monotonic()
        return True

    def _judge(self, *, alone: bool) -> None:
        """Decide what the end of the job means."""
        assert self._rc is not None
        rc, why, limit = self._rc, self._why, self.time_limit_s
        walltime = self._context.walltime
        code = rc if rc >= 0 else 128 - rc
        if why == "cancelled":
            self._collect("cancelled", "cancelled", "cancelled while it ran")
        elif why == "time_limit":
            self._collect("fail", "time_limit", f"stopped after its time limit of {limit} s")
        elif why == "hand_back" and walltime.was_filled(self._began, self._ended):
            full = int(walltime.full_s)
            words = f"still running near the end of a pilot of {full} s: it needs a longer walltime"
            self._collect("fail", "time_limit", words)
        elif why == "hand_back":
            self.outcome = Outcome("release")
        elif rc == 0:
            self._collect("ok", "completed", "processed OK")
        elif self._out_of_memory(code, alone):
            self._collect("fail", "out_of_memory", "killed for want of memory")
        elif rc < 0:
            self._collect("fail", "exit_code", f"the script was killed by signal {_signal(-rc)}")
        else:
            self._collect("fail", "exit_code", f"the script ended with return code {rc}")

    def _out_of_memory(self, code: int, alone: bool) -> bool:
        now, before = memory.kills(), self._killed_before
        grew = now is not None and before is not None and now > before
        return grew and (alone or code == 128 + signal.SIGKILL)

    # ---- collecting --------------------------------------------------------------------------

    def _collect(self, kind: str, reason: str, message: str) -> None:
        """Write the result in the background."""
        self.phase = "collecting"
        self._verdict = (kind, reason, message)
        self._end = clock.iso()
        self._do(self._write_result)

    def _write_result(self) -> None:
        kind, reason, message = self._verdict
        outputs: Dict[str, Any] = {}
        for folder in (self._spool.job_folder(self.ticket.job), self._folder):
            files.make_folder(folder)
        if self._process is not None:
            _wait_for_none(self._process.pid)
        if kind == "ok":
            assert self.description is not None
            outputs, problems = hash_outputs(self._folder, self.description)
            if problems:
                kind, reason, outputs = "fail", "stage_out", {}
                message = "the script ended well, but " + "; ".join(problems.values())
        sizes = {}
        for name in ("stdout", "stderr"):
            path = files.join(self._folder, name)
            sizes[name] = os.lstat(path).st_size if files.exists(path) else 0
            if files.exists(path):
                files.sync_file(path)
        rc = self._rc
        result = {
            "protocol": PROTOCOL,
            "id": self.ticket.job,
            "attempt": self.ticket.starts,
            "pilot": self._context.pilot,
            "native_id": self._context.native_id,
            "node": clock.node(),
            "kind": kind,
            "reason": reason,
            "message": message,
            "rc": rc if rc is None or rc >= 0 else 128 - rc,
            "start": self._start,
            "end": self._end,
            "crashes": self.ticket.crashes,
            "outputs": outputs,
            "stdout_bytes": sizes["stdout"],
            "stderr_bytes": sizes["stderr"],
        }
        files.replace(files.join(self._folder, "result.json"), files.to_json(result))
        files.sync_folder(self._spool.job_folder(self.ticket.job))
        self._verdict = (kind, reason, message)

    def _collected(self) -> None:
        """Finish; while the storage is full, keep what there is and try again."""
        now = clock.monotonic()
        if self._failure is None:
            self.outcome = Outcome("finish", self._verdict[0])
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
            self._do(self._write_result)

    @property
    def starts(self) -> int:
        """How often the job may be started."""
        return self.description.starts if self.description else 1 << 30

    @property
    def reason(self) -> str:
        """The reason in the result, for the log."""
        return self._verdict[1]

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

        threading.Thread(target=work, daemon=True).start()


def _signal(number: int) -> str:
    """Return a signal's number and name."""
    known = {int(known): known.name for known in signal.Signals}
    return f"{number} ({known[number]})" if number in known else str(number)


def _wait_for_none(group: int) -> None:
    """Wait until a killed process group has no member left, for a while."""
    deadline = clock.monotonic() + REMAINS_S
    while kill(group, 0) and clock.monotonic() < deadline:
        time.sleep(0.01)
