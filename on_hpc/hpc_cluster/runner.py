"""The runner: the program inside a pilot. It drains the spool.

It inspects its node, starts its heartbeat, and then, until nothing is left: chooses a waiting job
and claims its ticket (`claims`), runs it (`attempt`), and moves the ticket to done (`handover`). A
slot that becomes free has its next job before the result of the last is written. It ends when
nothing is ready and nothing is on its way for the time called linger; at once when all that is
ready must be left to another pilot. Before it ends it marks itself closing and looks once more, so
that a job that was published meanwhile is either seen here or has a pass that does not count on
this pilot.

One thread does all that is quick; a second writes the heartbeat; what may take long has one of its
own. A process beside it (`guard`) kills the jobs if the runner dies. Signals, ended jobs and ended
threads wake the loop, which otherwise looks about once a second, and more often while it has
nothing to do.

SIGUSR1 is the batch system's warning: no more claims; jobs go on until their grace before the end
of the walltime, then they are stopped and their tickets handed back. SIGTERM does the same at once,
and so does SIGUSR2, which Grid Engine and LSF send before they kill.
"""

import os
import signal
import sys
from typing import List, Optional

from hpc_cluster import batch, clock, command_line, files, inspection, pilot
from hpc_cluster.attempt import Attempt, Context
from hpc_cluster.batch.local import native_id
from hpc_cluster.bell import Bell
from hpc_cluster.claims import Claims, Pace
from hpc_cluster.command_line import Options
from hpc_cluster.errors import ClusterError
from hpc_cluster.guard import Guard
from hpc_cluster.handover import MOST, Handover
from hpc_cluster.heartbeat import STALE_BEATS, Heartbeat
from hpc_cluster.spool import Spool
from hpc_cluster.statement import Statement, log
from hpc_cluster.tenure import TAKEN, Tenure
from hpc_cluster.walltime import GRACE_S, MARGIN_S, Walltime

LOOK_S = 1.0
"""A busy runner minds its jobs so often."""

IDLE_S = 0.25
"""An idle one lists ready/ so often: half of it is what a job waits for a pilot that waits."""

CANCEL_S = 5.0
"""It looks for requests to cancel so often."""

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""Signals after which the batch system kills everything."""

TROUBLES = 3
"""So often in a row the node or the storage may fail a job before the pilot gives up."""


class Runner:
    """One pilot."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.spool = Spool.open(options.workspace)
        self.walltime = Walltime.of(options.walltime, os.environ)
        self.native_id = batch.own_id(os.environ) or native_id(os.getpid())
        self._term_s = batch.term_s(os.environ)
        self.attempts: List[Attempt] = []
        """Those that are not yet handed over."""
        self.stopping = ""
        """Why nothing more is claimed; empty while it is."""
        self.trouble: Optional[str] = None
        self._folder = self.spool.pilot_folder(options.pilot)
        self._batch = "local"
        self._statement = Statement(self.spool, options.pilot)
        self._kill_at: Optional[float] = None
        self._claims = Claims(self.spool, options.pilot, self.walltime)
        self._finished = 0
        self._ran_s = 0.0
        self._troubles = 0
        self._resume_at = 0.0
        self._idle_since: Optional[float] = None
        self._cancel_at = self._list_at = self._estimate_at = 0.0

    def run(self) -> int:
        """Drain the spool; return the exit code."""
        name = self.options.pilot
        if not files.exists(self._folder):
            log("nobody prepared this pilot: started by hand")
            info = {"slot": None, "batch": "local", "native_id": self.native_id}
            pilot.make(self.spool, name, files.merge(info, {"submitted": clock.iso()}))
        if files.exists(files.join(self._folder, "runner.json")):
            log("this pilot was started before (requeued?); a pilot runs once")
            return 1
        known = pilot.read(self.spool, name)
        self._batch = known.get("batch", "local")
        self._tenure = Tenure(self.spool, name, known.get("slot"))
        self._statement.say(
            host=clock.node(),
            pid=os.getpid(),
            native_id=self.native_id,
            started=clock.iso(),
            end_of_walltime=self.walltime.end_unix,
            running=[],
            claimed=0,
            finished=0,
            stopping=None,
            leaves=0,
            outlasted=False,
        )
        self.trouble = self._inspect()
        if self.trouble is None:
            self._drain()
        self._statement.say(closed=clock.iso(), trouble=self.trouble, running=[])
        log("closed" + (f": {self.trouble}" if self.trouble else ""))
        return 1 if self.trouble else 0

    def _drain(self) -> None:
        self.bell = Bell((signal.SIGUSR1, *STOPS))
        # A beat later than we look ourselves: a job that it killed must never count as ended.
        self.guard = Guard((STALE_BEATS + 1) * self.options.beat, self.options.pilot)
        path = files.join(self._folder, "heartbeat")
        self.heartbeat = Heartbeat(path, self.options.pilot, self.options.beat, self.guard)
        self.heartbeat.start()
        self._context = Context(
            self.spool,
            self.options.pilot,
            self.native_id,
            self.walltime,
            self.guard,
            dict(os.environb),
            self.bell.ring,
        )
        self.handover = Handover(self.spool, self.bell.ring)
        log(f"started on {clock.node()} as {self.native_id}")
        failures = 0
        try:
            while True:
                try:
                    if self._turn():
                        return
                    failures = 0
                except (OSError, ClusterError) as error:
                    # One refusal of a network file system is no reason to lose the jobs.
                    failures += 1
                    log(f"trouble: {error}")
                    if failures > TROUBLES and (self._is_free() or self._is_too_late()):
                        self.trouble = str(error)
                        return
                look_s = LOOK_S if self.attempts else IDLE_S
                self.bell.sleep(min(look_s, self.handover.begin(self._busy())))
        finally:
            self.heartbeat.end()
            self.guard.close()
            self.handover.close()

    def _turn(self) -> bool:
        """Do all that can be done now; tell whether the pilot is over."""
        self._heed_signals()
        self._mind_the_end()
        for attempt in self.attempts:
            attempt.step(alone=len(self._busy()) == 1)
        if self.attempts and self.heartbeat.stale():
            return False  # the guard may have killed them; the next turn hands them back
        self._settle()
        self._mind_the_tickets()
        try:
            self._claim()
        finally:
            self._collect()
        self._note_what_is_finished()
        self._tell_what_is_left()
        return self._is_over()

    def _busy(self) -> List[Attempt]:
        """Return the attempts that hold a slot."""
        return [attempt for attempt in self.attempts if attempt.holds_a_slot]

    def _is_free(self) -> bool:
        """Tell whether it has no ticket in its hands."""
        return not self.attempts and not len(self.handover)

    # ---- what comes from outside -------------------------------------------------------------

    def _heed_signals(self) -> None:
        now = clock.monotonic()
        for number in self.bell.signals():
            if number in STOPS:
                self._stop("asked to stop", now + self._term_s)
            elif number == signal.SIGUSR1 and self.walltime.last_s is None:
                self._stop("warned by the batch system", now + GRACE_S)
            elif number == signal.SIGUSR1 and not self.stopping:
                self.stopping = "warned by the batch system"
                log(self.stopping)
        if self.heartbeat.stale():
            self.trouble = f"the heartbeat could not be written: {self.heartbeat.problem or 'hung'}"
            self._stop(self.trouble, now)
            lost, self.attempts = self.attempts + self.handover.give_up(), []
            for attempt in lost:
                attempt.lose()
            for attempt in lost:
                self.spool.release(attempt.ticket, attempt.starts)

    def _stop(self, why: str, kill_at: float) -> None:
        """Claim no more, and stop all jobs before a moment; their tickets are handed back."""
        if not self.stopping:
            self.stopping = why
            log(why)
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        for attempt in self.attempts:
            attempt.stop_by("hand_back", self._kill_at)

    def _is_too_late(self) -> bool:
        """Whether all jobs should have been over for a while; their tickets go to the reaper."""
        return self._kill_at is not None and clock.monotonic() > self._kill_at + MARGIN_S

    def _mind_the_end(self) -> None:
        """Stop jobs when only their grace is left of the walltime, and give up at its end."""
        last, now = self.walltime.last_s, clock.monotonic()
        over_at = min(at for at in (last, self._kill_at, float("inf")) if at is not None)
        for attempt in self.handover.give_up() if now >= over_at else []:
            went = self.spool.release(attempt.ticket, attempt.starts)
            log(f"release {attempt.ticket.name}: {went}: its result could not be made durable")
        if last is None:
            return
        for attempt in self.attempts:
            if now >= last - min(attempt.grace_s, 0.3 * self.walltime.full_s):
                self.stopping = self.stopping or "the walltime ends"
                attempt.stop_by("hand_back", last)
        if now >= last and not self.stopping:
            self.stopping = "the walltime ends"

    def _mind_the_tickets(self) -> None:
        """Look for requests to cancel; see that our tickets and our slot are still ours."""
        now = clock.monotonic()
        if now >= self._cancel_at:
            self._cancel_at = now + min(CANCEL_S, self.options.beat)
            for attempt in self.attempts:
                if attempt.phase == "running" and self.spool.cancel_asked(attempt.ticket.job):
                    attempt.stop("cancelled", attempt.grace_s)
        if now < self._list_at:
            return
        self._list_at = now + self.options.beat
        self._tenure.mind(self.attempts, self.handover.tickets())
        if self._tenure.has_lost_slot() and not self.stopping:
            self.stopping = TAKEN
            log(self.stopping)

    # ---- tickets -----------------------------------------------------------------------------

    def _settle(self) -> None:
        """Move the tickets of attempts that ended without a result."""
        over = [attempt for attempt in self.attempts if attempt.outcome is not None]
        for attempt in over:
            assert attempt.outcome is not None
            verb, went = attempt.outcome.verb, "dropped"
            if verb == "release" or (verb == "unclaim" and self._tenure.is_old(attempt.ticket)):
                went = self.spool.release(attempt.ticket, attempt.starts)
            elif verb == "unclaim":
                went = self.spool.unclaim(attempt.ticket)
            log(f"{verb} {attempt.ticket.name}: {went}")
            if attempt.outcome.trouble is not None:
                self._back_off(attempt.ticket.job, attempt.outcome.trouble)
        if over:
            self.attempts = [a for a in self.attempts if a.outcome is None]
            self._tell_jobs()

    def _collect(self) -> None:
        """Write the results of jobs that ended, and hand those over that are written."""
        for attempt in self.attempts:
            attempt.collect()
            if attempt.phase == "written":
                self.handover.add(attempt)
        self.attempts = [a for a in self.attempts if a.phase != "written"]

    def _note_what_is_finished(self) -> None:
        """Count what was handed over; what could not be made durable is written again."""
        for attempt, ours, failure in self.handover.ended():
            if failure is not None:
                log(f"trouble: {attempt.ticket.name} is not durable: {failure}")
                attempt.fail(failure)
                self.attempts.append(attempt)
                continue
            log(f"finish {attempt.ticket.name} {attempt.reason}" + ("" if ours else ": lost"))
            self._troubles = 0
            self._finished += 1
            self._ran_s += attempt.ran_s

    def _back_off(self, job: str, trouble: str) -> None:
        """Wait before the next claim, which tries another job first; give up after a few."""
        self._troubles += 1
        self._claims.avoid(job)
        self._resume_at = clock.monotonic() + self._troubles * self.options.beat / 3
        log(f"trouble: {trouble}")
        self._statement.say(trouble=trouble)
        if self._troubles >= TROUBLES and not self.stopping:
            self.trouble = self.stopping = trouble

    def _claim(self) -> None:
        """Claim what fits; a suspect only when it runs alone."""
        busy = self._busy()
        free = min(self.options.slots - len(busy), MOST - len(self.handover))
        suspect = any(attempt.ticket.crashes for attempt in busy)
        if self.stopping or free <= 0 or suspect or clock.monotonic() < self._resume_at:
            return
        claimed = self._claims.claim(free, alone=self._is_free())
        begun = []
        for ticket in claimed:
            log(f"claim {ticket.name}")
            for attempt in self.attempts + self.handover.forget(ticket.job):
                if attempt.ticket.job == ticket.job:
                    # The file server forgot our claim in a power cut, and what the job has written.
                    attempt.lose()
            begun.append(Attempt(self._context, ticket, self._claims.described(ticket.job)))
        self.attempts += begun
        for attempt in begun:
            attempt.step(alone=len(busy) + len(begun) == 1)
        if begun:
            self._tell_jobs()

    def _tell_what_is_left(self) -> None:
        """Show what this pilot will not do: whoever looks after the pilots counts on others."""
        now, outlasted = clock.monotonic(), self._statement["outlasted"]
        if self.options.successor and now >= self._estimate_at:
            self._estimate_at = now + self.options.beat
            running = [(attempt.ticket, attempt.ran_s) for attempt in self._busy()]
            ran_s = self._ran_s + sum(seconds for _, seconds in running)
            pace = Pace(ran_s, self._finished + len(running))
            outlasted = self._claims.outlasts(running, pace, self.options.slots)
        self._statement.show(
            stopping=self.stopping or None, leaves=self._claims.leaves, outlasted=outlasted
        )

    # ---- the end -----------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Tell whether to end: stopped, or idle for the linger and still so after closing."""
        if not self._is_free():
            self._idle_since = None
            return False
        if self.stopping:
            return True
        now = clock.monotonic()
        if now < self._resume_at or self._claims.is_work_left():
            self._idle_since = None
            return False
        self._idle_since = self._idle_since or now
        # Work that it must leave waits for the next pilot, and that for its slot.
        if now < self._idle_since + self.options.linger and not self._claims.leaves:
            return False
        # Whoever publishes after this line sees it, and does not count on this pilot.
        self._statement.say(closing=clock.iso())
        if not self._claims.is_work_left():
            return True
        self._statement.say(closing=None)
        return False

    # ---- the rest ----------------------------------------------------------------------------

    def _tell_jobs(self) -> None:
        """Show which jobs run, and how many were claimed and finished."""
        self._statement.show(
            claimed=self._claims.claimed,
            finished=self._finished,
            running=sorted(attempt.ticket.job for attempt in self._busy()),
        )

    def _inspect(self) -> Optional[str]:
        """Return why nothing may be claimed here; None when this node can run jobs."""
        problem = inspection.workspace_problem(self.spool, self._folder)
        if problem is None and not self._tenure.has_slot():
            problem = TAKEN
        if problem is None and self.options.gpu:
            problem = inspection.gpu_problem(os.environ)
        if problem is None and self.options.gpuram is not None:
            problem = inspection.gpu_memory_problem(self.options.gpuram)
        if problem is None and self._batch != "local":
            warning = inspection.container_warning()
            if warning is not None:
                log(f"warning: {warning}")
                self._statement.say(warnings=[warning])
                if inspection.needs_container_program(self.spool):
                    problem = f"{warning}, and jobs need one"
        return problem


def main(argv: Optional[List[str]] = None) -> int:
    """Run a pilot: the program hpc_runner."""
    options = command_line.parse(argv)
    try:
        return Runner(options).run()
    except (OSError, ClusterError) as error:
        print(f"hpc_runner: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
