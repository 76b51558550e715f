"""The submitter: one pass, started by cron, from whatever state the last one left.

A pass observes (dropbox, records, the cluster's census), asks the plan for each job's next step,
and performs the steps in the plan's order, each for all its jobs as one batch. It logs in at most
once, and only when a job needs the cluster. A step that fails for one job does not stop the others;
what the cluster did not answer is left for the next pass.

While big files travel, and for `[cronjob] linger`, the pass goes on: it waits for a drop, a
finished job or a file that has arrived (`doorbell`), and sweeps again. Where nothing tells, it
looks itself after LOOK_S.

The steps themselves stand in `steps`, their effects in the rooms that those call.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hpc_batch import failure, foresight, logbook, plan
from hpc_batch.access import OUTAGE_S, Access
from hpc_batch.admission import Admission
from hpc_batch.config import Config
from hpc_batch.doorbell import Doorbell
from hpc_batch.errors import ConfigError, FarEndError, RemoteError, StorageError
from hpc_batch.fitting import misfit
from hpc_batch.journal import Damaged
from hpc_batch.lingering import LOCK_S, serving_s
from hpc_batch.listing import Listing, look
from hpc_batch.portions import Portions
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.report import Report
from hpc_batch.sight import Sight
from hpc_batch.state import Busy, State, check_home, hold, is_at_home
from hpc_batch.trouble import Ledger
from hpc_batch.upkeep import TROUBLES, Upkeep

if TYPE_CHECKING:
    from hpc_batch.steps import Steps
    from hpc_batch.travel import Travel

log = logging.getLogger("hpc_batch")

LOOK_S = 20.0
"""A pass that goes on sweeps at least this often: pilots end, and troubles pass."""

PERIOD_S = 2.0
"""A sweep that took long is followed by a rest of as long, and at most so long."""

LONG_S = 1.0
"""A sweep that took longer took long: what came meanwhile waits for others that come."""

OF_ONE_JOB = frozenset(("usage", "bug", "description", "ticket"))
"""What the far end says of a request that one of its jobs may have spoilt; the session goes on."""


TIDY_S = 0.2
"""A pass that goes on spends so long on its trash before it waits."""

SHOW_S = 0.5
"""How often it is told how far long transfers have come."""

Show = Callable[[Sequence["Travel"]], None]


@dataclass(frozen=True)
class Options:
    """The command line of `hpc_submitter`."""

    debug: bool = False
    """Tell every transition on stderr."""
    nocleanup: bool = False
    """Keep the jobs' data on the cluster, in `kept/`."""
    email: str | None = None
    """Passed on to the batch system in place of [hpc] email."""


def run(config: Config, options: Options, show: Show = lambda travels: None) -> int:
    """Make one pass and return the exit code; 0 when another pass is running.

    `show` is called now and then with the long transfers that are under way.

    Raises ConfigError when the operator must mend something first.
    """
    try:
        patience_s = LOCK_S if config.cronjob.linger else 0.0
        with hold(config, patience_s) as state, logbook.keep(state, debug=options.debug):
            this = Pass(config, options, state, show)
            code = this.run()
            failure.forget(state.folder)
    except Busy as busy:
        log.info("another pass holds %s", busy)
        return 0
    except OSError as error:
        storage = StorageError(f"{failure.place(error, config)}: {error.strerror}; tried again")
        failure.keep(config.cronjob.state, storage)
        raise storage from error
    except MemoryError as error:
        storage = StorageError("this machine has not enough memory; tried again")
        failure.keep(config.cronjob.state, storage)
        raise storage from error
    except Exception as error:
        failure.keep(config.cronjob.state, error)
        raise
    for message in this.ledger.messages:
        print(f"hpc_batch: {message}", file=sys.stderr)
    return code


class Pass:
    """One pass over everything."""

    def __init__(
        self, config: Config, options: Options, state: State, show: Show = lambda travels: None
    ) -> None:
        state.begin()
        self._show = show
        self.config, self.options, self.state = config, options, state
        self.records = Records(state.path("journal"))
        self.ledger = Ledger(state)
        self.sight = Sight()
        self._doorbell = Doorbell(config.cronjob.dropbox)
        self.access = Access(
            config, state, self.records, lambda: self.report, self.ledger, self._doorbell.ring
        )
        self._portions = Portions(state, lambda: self.access.refused)
        self._admission = Admission(config, state, self.records, self.ledger, self._portions)
        self._paused = state.paused() is not None
        self._cancelled: frozenset[str] = frozenset()
        try:
            self._foresee()
            self._load()
            self.records.miss(state.lost(self.records))
            check_home(self.records, config)
            self._catch_up()
            # What the last pass reported may be much; it is read beside the login.
            self.report = Report(config, state)
        except BaseException:
            self.access.close()
            raise
        self.upkeep = Upkeep(config, state, self.records, self.report, self.ledger)
        self.upkeep.email = options.email

    def _load(self) -> None:
        try:
            self.records.load()
        except Damaged as damaged:
            raise StorageError(
                f"{damaged}: bring it back, or run `hpc-batch resume --restored`, which makes "
                "every drop in flight a new one"
            ) from None

    def _catch_up(self) -> None:
        """Go on where jobs are, and not where an older or damaged journal left them; tell it."""
        path = self.state.path("journal")
        for job in sorted(self.records.hurt):
            name = self.records[job].name if job in self.records else job or "some job"
            text = f"{path} is damaged (a line of {name}); what it said is found out again"
            log.warning("%s %s", job, text)
            self.ledger.note(f"line {job}", text)
        answered = self.state.answered(self.records)
        self.records.save_all(record.enter("CLEANING") for record in answered)
        for record in answered:
            text = f"{path} is an older one, or damaged: {record.name} was answered since"
            log.warning("%s %s", record.id, text)
            self.ledger.note(f"answered {record.id}", text)

    # A pass with nothing to do, which most are, does not load this, nor what it stands on.

    @cached_property
    def steps(self) -> Steps:
        """What the steps of the plan do."""
        from hpc_batch.steps import Steps

        return Steps(
            self.config,
            self.state,
            self.records,
            self.ledger,
            self.access.connect,
            self.sight,
            self.upkeep,
            keep=self.options.nocleanup,
        )

    # ---- the pass ----------------------------------------------------------------------------

    def run(self) -> int:
        """Sweep until nothing is under way, write the status, and return the exit code."""
        try:
            self._serve()
        finally:
            self.access.close()
            self._doorbell.close()
            self.state.trash.empty()
            self.ledger.end("cluster", *TROUBLES)
            if self.ledger.code == 75 and self.ledger.lasts_s("cluster") > OUTAGE_S:
                self.ledger.code = 69
            self.report.travels(())
            self.report.end(self.ledger.code, self.ledger.entries())
            self.ledger.save()
            self.state.end()
        return self.ledger.code

    def _serve(self) -> None:
        linger_s = serving_s(self.config.cronjob.linger, time.time())
        end = time.monotonic() + linger_s
        if linger_s:
            self._doorbell.listen()
        while True:
            began = time.monotonic()
            self._sweep()
            travelling = self._is_travelling()
            if not travelling and (self.access.refused or time.monotonic() >= end):
                return
            took_s = time.monotonic() - began
            self.report.write(self.ledger.entries())
            if took_s > LONG_S:
                time.sleep(min(took_s, PERIOD_S))
            self._await(LOOK_S if travelling else min(LOOK_S, end - time.monotonic()))

    def _is_travelling(self) -> bool:
        """Tell whether big files are under way."""
        try:
            return self.access.connection is not None and self.access.connection.lane.busy()
        except (RemoteError, OSError) as error:
            self.access.lost(error)
            return False

    def _await(self, seconds: float) -> None:
        """Wait until there is something to do, for at most so long."""
        published = any(r.phase == "PUBLISHED" for r in self.records)
        if published and self.access.connection is not None:
            try:
                self.access.connection.session.watch(LOOK_S, self.sight.done, self._doorbell.ring)
            except RemoteError as error:
                self.access.lost(error)
                return
        again_s = self._admission.again_s()
        if any(r.phase == "ACCEPTED" for r in self.records):
            again_s = min(again_s, PERIOD_S)  # its writer writes on
        end = time.monotonic() + min(seconds, again_s)
        tidied = time.monotonic() + TIDY_S
        self.state.trash.look()
        self.state.trash.empty(lambda: time.monotonic() >= tidied)
        while True:
            left_s = max(0.0, end - time.monotonic())
            slice_s = SHOW_S if self._tell_travels() else left_s
            if self._doorbell.wait(min(left_s, slice_s)) or left_s <= slice_s:
                return

    def _tell_travels(self) -> bool:
        """Tell how far long transfers have come; False when there are none."""
        connection = self.access.connection
        travels = connection.lane.travels() if connection is not None else []
        self._show(travels)
        if self.report.travels(travels):
            self.report.write(self.ledger.entries())
        return bool(travels)

    def _sweep(self) -> None:
        """Observe, plan, act: once over everything."""
        self._paused = self.state.paused() is not None
        for job, why in self.records.damaged.items():
            text = f"{why}, and that job stands still. Bring the file back, or "
            text += "run `hpc-batch resume --restored`, which makes its drop a new one"
            self.ledger.note(f"record {job}", text, code=75)
        listing = look(self.config.cronjob.dropbox)
        if foresight.of_sweep(self.records, listing, paused=self._paused):
            self.access.expect()
        self._observe_cluster(listing)
        self._cancelled = self.state.cancelled()
        planned = self._planned()
        for step in plan.ORDER:
            if step == "check":
                before = list(self.records), self._cancelled
                self._admission.take(listing, paused=self._paused)
                self._cancelled = self.state.cancelled()
                if before != (list(self.records), self._cancelled):
                    planned = self._planned()
            batch = planned.get(step)
            if batch and not (self._paused and step == "stage"):
                for portion in self._portions.of(step, batch):
                    self._act(step, portion)
                planned = self._planned()
        self._keep_up()
        if self.access.connection is not None:
            # Only now: a login alone is no end of a trouble that comes after it in each pass.
            self.ledger.over("cluster")
            self.report.reachable(None)
        self.report.look(self.records, self.sight.census)
        for record, shown, message in self.report.news(self.records):
            self.steps.intake.submitted([record], shown, message)
        if "steps" in vars(self):
            self.steps.intake.tell()
        self._tell_travels()

    def _planned(self) -> dict[plan.Step, list[Record]]:
        """Return the jobs whose next step each one is, as things are now."""
        planned: dict[plan.Step, list[Record]] = {}
        for record in self.records:
            planned.setdefault(self._next(record), []).append(record)
        return planned

    def _next(self, record: Record) -> plan.Step:
        place, name = (self.sight.census or {}).get(record.id, (None, ""))
        if place == "incoming" and name != f"{record.id}.{record.session}":
            place = None  # litter of a session that was cut off
        return plan.next_step(
            plan.Seen(
                phase=record.phase,
                cancel=record.id in self._cancelled,
                told=record.id in self.sight.told,
                counted=record.id in self.sight.counted,
                ticket=place,
                missing=record.missing,
                fits=place != "ready" or self._fits(record),  # it is asked of no other
            )
        )

    def _fits(self, record: Record) -> bool:
        unfit = misfit(record.need_s, self.config.hpc.walltime)
        return record.stuck_since is None and unfit is None

    def _act(self, step: plan.Step, batch: Sequence[Record]) -> None:
        """Perform a step for a batch; where that fails, for each half of it, down to one job."""
        # What was done for some may have been written down before it failed for others.
        known = [self.records[r.id] for r in batch if r.id in self.records]
        left = [r for r in known if self._next(r) == step]
        if not left:
            return
        try:
            self.steps.perform[step](left)
        except Exception as error:
            alone = isinstance(error, FarEndError) and error.kind in OF_ONE_JOB
            if isinstance(error, RemoteError) and not alone:
                self.access.lost(error)
            elif len(left) > 1:
                half = len(left) // 2
                self._act(step, left[:half])
                self._act(step, left[half:])
            elif isinstance(error, Damaged):
                self._mend(left[0], error)
            else:
                self._stumbled(step, left[0], error)

    def _mend(self, record: Record, damaged: Damaged) -> None:
        """Find out again what a damaged file said; where that fails, the job stands still."""
        try:
            mended = self.steps.mend(record)
        except OSError as error:
            mended = False
            damaged = Damaged(
                damaged.path, f"{error.strerror}: {failure.place(error, self.config)}"
            )
        if mended:
            text = f"{damaged}; {record.name} is taken back a step, and goes on from there"
            log.warning("%s %s", record.id, text)
            self.ledger.note(f"damaged {record.id}", text)
            return
        text = f"{damaged}, and {record.name} stands still. Bring the file back"
        self.ledger.note(f"damaged {record.id}", text, code=75)

    def _stumbled(self, step: plan.Step, record: Record, error: Exception) -> None:
        """Note an error that nobody foresaw; the job stays where it is, and is tried again."""
        code = 75 if isinstance(error, (OSError, MemoryError)) else 70
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError):
            why = f"{error.strerror}: {failure.place(error, self.config)}"
        text = f"{record.name}: cannot {step} ({why})"
        log.error("%s %s", record.id, text, exc_info=not isinstance(error, OSError))
        self.ledger.note(f"{step} {record.id}", f"{text}; tried again by the next pass", code=code)

    # ---- the cluster -------------------------------------------------------------------------

    def _foresee(self) -> None:
        """Begin to log in where the newest records show the need: to load all takes long."""
        with contextlib.suppress(ConfigError, OSError):  # the sweep asks again, and tells
            newest = (r for r in self.records.newest() if is_at_home(r, self.config))
            if any(foresight.of_job(r, paused=self._paused) for r in newest):
                self.access.expect()

    def _observe_cluster(self, listing: Listing) -> None:
        """Ask for the census when a published job may have one."""
        self.sight.census, self.sight.counted = None, frozenset()
        published = [r.id for r in self.records if r.phase == "PUBLISHED"]
        self.upkeep.forget()
        self.upkeep.paused = self._paused
        if not published:
            return
        self.steps  # noqa: B018  (loaded beside the login: results may have come)
        connection = self.access.connect()
        if connection is None:
            return
        try:
            # Results that are known from an earlier sweep wait for a big file that travels.
            asked = connection.session.begin_census(results=not self.sight.done)
            if len(published) == len(self.records) and not listing.drops:
                self.upkeep.ask_early(connection)
            census = asked.get()
        except RemoteError as error:
            self.access.lost(error)
            return
        if census.complete:
            self.sight.see(census, published)

    def _keep_up(self) -> None:
        """Have the cluster look after its pilots, and itself."""
        if self.access.connection is not None:
            try:
                self.upkeep.finish(self.access.connection)
            except RemoteError as error:
                self.access.lost(error)
