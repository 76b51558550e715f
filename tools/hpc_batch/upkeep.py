"""Upkeep: what a pass has the cluster do beside jobs.

It looks after the pilots, once a sweep, while published jobs wait for them; and once a day it
removes what no record knows any more.

Both are asked for as early as nothing else can change what they find, together with whatever the
pass asks last, so that they cost no round trip of their own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hpc_batch.config import Config
from hpc_batch.policy import policy
from hpc_batch.record import now
from hpc_batch.records import Records
from hpc_batch.report import Report
from hpc_batch.state import State
from hpc_batch.trouble import Ledger
from hpc_batch.waiting import wait_of

if TYPE_CHECKING:
    from hpc_batch.connection import Connection
    from hpc_batch.session import Answer
    from hpc_batch.tidings import Pilots, Swept

log = logging.getLogger("hpc_batch")

SWEEP_S = 24 * 3600
"""The cluster is swept for orphans once in so long."""

FULL_S = 15 * 60
"""A store that has outgrown its limit is swept once in so long; what was wanted lately is kept."""


TROUBLES = ("pilots", "queue", "batch system")
"""What it notes; that is over when a later look at the pilots says so."""

SILENT_S = 15 * 60
"""A batch system that lists nothing is told of after this; its controller may just be restarted."""


class Upkeep:
    """The upkeep of one pass."""

    def __init__(
        self, config: Config, state: State, records: Records, report: Report, ledger: Ledger
    ) -> None:
        self._config, self._state, self._records = config, state, records
        self._report, self._ledger = report, ledger
        self.email: str | None = None
        """In place of [hpc] email."""
        self.paused = False
        """No pilot is submitted."""
        self._pilots: Answer[Pilots | None] | None = None
        self._heard = False
        """The answer about the pilots has been taken in."""
        self._swept: Answer[Swept] | None = None

    def forget(self) -> None:
        """Begin a sweep of the pass: nothing has been asked for."""
        self._pilots = self._swept = None

    def ask_early(self, connection: Connection) -> None:
        """Ask while the census is on its way; where it finds a result, that comes first."""
        self._ask(connection, unless_done=True)

    def ask_after_publishing(self, connection: Connection) -> None:
        """Ask when jobs are being published: for pilots that are to run them."""
        self._hear()
        self._ask(connection)
        self._ask_for_a_sweep(connection)

    def ask_before_cleaning(self, connection: Connection) -> None:
        """Ask when nothing but cleaning is left to do."""
        self._hear()
        if self._pilots is None and self._concerned():
            self._ask(connection)

    def finish(self, connection: Connection) -> None:
        """Ask for what has not been asked for, and take in all answers. Raises RemoteError."""
        self.ask_before_cleaning(connection)
        self._ask_for_a_sweep(connection)
        self._hear()
        if self._swept is not None:
            swept = self._swept.get()
            log.info(
                "swept the workspace: %d orphans, %d inputs", len(swept.trashed), len(swept.evicted)
            )
            limit = self._config.limits.store_bytes
            self._report.counted(swept.store, len(swept.evicted), limit)
            elapsed_s = self._state.elapsed.seconds()
            self._state.show("swept.json", {"at": now(), "elapsed_s": elapsed_s})

    def _concerned(self) -> bool:
        """Tell whether pilots matter: the pass that collects the last job is the one that may see
        the end of a trouble."""
        waiting = any(r.phase == "PUBLISHED" for r in self._records)
        return waiting or any(map(self._ledger.is_open, TROUBLES))

    def _ask_for_a_sweep(self, connection: Connection) -> None:
        if self._swept is not None:
            return
        limit = self._config.limits.store_bytes
        last = self._state.read("swept.json")
        counted = isinstance(last, dict) and "elapsed_s" in last
        full = self._report.stored(connection.take_stored(), limit)
        rest_s = FULL_S if full else SWEEP_S
        if not counted or self._state.elapsed.age_s(last["elapsed_s"]) >= rest_s:
            self._swept = connection.session.begin_sweep(self._state.known_jobs(), limit)

    def _ask(self, connection: Connection, *, unless_done: bool = False) -> None:
        wishes = policy(self._config, self.email, submit=not self.paused)
        self._pilots, self._heard = (
            connection.session.begin_pilots(wishes, unless_done=unless_done),
            False,
        )

    def _hear(self) -> None:
        """Take in what was said of the pilots, if anything was asked for and said."""
        if self._pilots is None or self._heard:
            return
        kept = self._pilots.get()
        if kept is None:
            self._pilots = None
        else:
            self._heard = True
            self._take_in(kept)

    def _take_in(self, kept: Pilots) -> None:
        self._report.pilots = [dict(p) for p in kept.pilots]
        wait = wait_of(kept.pilots, kept.trouble, paused=self.paused)
        self._report.wait = wait
        for pilot in kept.submitted:
            log.info("pilot %s submitted", pilot)
        for job in kept.reaped:
            log.info("%s reaped from a dead pilot", job)
        if kept.trouble is None:
            self._ledger.over("pilots")
        else:
            message = f"pilots: {kept.trouble.get('message')}"
            self._ledger.note("pilots", message, next_try=kept.trouble.get("next"))
        if kept.silent is None:
            self._ledger.over("batch system")
        else:
            text = f"the batch system does not say what becomes of the pilots: {kept.silent}"
            self._ledger.note("batch system", text, SILENT_S)
        if wait.obstacle:
            self._ledger.note("queue", f"jobs wait for {wait.message}")
        else:
            self._ledger.over("queue")
