"""Admission: which drops and cancel files of a listing are taken now, and which are left for later.

A drop is taken once it is settled (`settling`) and no job of its name is in flight; a cancel file,
once the job is. What is taken goes to the intake.
"""

from __future__ import annotations

import contextlib
import logging
from functools import cached_property
from typing import TYPE_CHECKING

from hpc_batch import failure, logbook
from hpc_batch.config import Config
from hpc_batch.listing import Drop, Listing, may_submit, recorded, unanswerable
from hpc_batch.portions import Portions
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.state import State
from hpc_batch.trouble import Ledger
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.intake import Intake

log = logging.getLogger("hpc_batch")

CANCEL_S = 60
"""A cancel file without a job is removed after so long."""

DRAFT_S = 600
"""What a client writes before it takes a drop's name is removed after so long."""


class Admission:
    """The admission of one pass, and what its latest sweep has left for later."""

    def __init__(
        self, config: Config, state: State, records: Records, ledger: Ledger, portions: Portions
    ) -> None:
        self._config, self._state = config, state
        self._records, self._ledger, self._portions = records, ledger, portions
        self._dropbox = str(config.cronjob.dropbox)
        self._paused = False
        self._settles_s = float("inf")
        """A drop may have settled so long after it was looked at."""
        self._held: frozenset[str] = frozenset()
        """Names of drops that wait for the answer to another job of their name."""

    @cached_property
    def _intake(self) -> Intake:
        """What takes drops: a pass with none, which most are, does not load it."""
        from hpc_batch.intake import Intake

        return Intake(self._config, self._state, self._records)

    def again_s(self) -> float:
        """Return after how long it is worth while to look again, as far as drops tell."""
        busy = (r.name for r in self._records if r.phase != "CLEANING")
        return 0.0 if self._held and self._held.isdisjoint(busy) else self._settles_s

    def take(self, listing: Listing, *, paused: bool) -> None:
        """Take the drops that are settled, and act on cancel files; where a disk says no, later.

        While the service is `paused`, no drop is taken.
        """
        self._paused, self._settles_s, self._held = paused, float("inf"), frozenset()
        if listing.drops or listing.cancels or listing.drafts:
            try:
                self._admit(listing, self._state.clock())
            except OSError as error:
                where = failure.place(error, self._config)
                text = f"no drop can be taken: {error.strerror}: {where}; tried again"
                self._ledger.note("taking", text, code=75)

    def _admit(self, listing: Listing, clock: float) -> None:
        """Take what is settled by this clock of the dropbox."""
        busy = {r.name for r in self._records if r.phase != "CLEANING"}
        settled, cancels = [], frozenset(listing.cancels)
        for drop in listing.drops:
            name = recorded(drop.name)
            why = unanswerable(drop)
            if why is not None:
                self._ledger.note(f"drop {name!r}", f"{name!r} in the dropbox {why}")
            elif name in busy:
                self._held |= {name}
            elif not self._paused and (drop.name in cancels or self._is_settled(drop, clock)):
                settled.append(drop)
        try:
            for portion in self._portions.of("take", settled):
                taken = self._intake.take(portion)
                logbook.tell(f"{record.id} taken: {record.name}" for record in taken)
            self._remove_drafts(listing, clock)
        finally:
            # Where a disk said no, a job may have been taken all the same, and goes on.
            ended = ("ANSWERING", "CLEANING")
            in_flight = {r.name: r for r in self._records if r.phase not in ended}
            for name in listing.cancels:
                self._take_cancel(name, in_flight.get(recorded(name)), listing, clock)

    def _remove_drafts(self, listing: Listing, clock: float) -> None:
        """Remove what killed clients left; a drop that has this second link can be taken then."""
        for draft in listing.drafts:
            age_s = self._state.ahead.clock(draft.name, draft.changed, clock) - draft.changed
            if draft.regular and age_s >= DRAFT_S:
                with contextlib.suppress(OSError):
                    # RACE: none; whose it is may not permit it, and then it disturbs nobody.
                    files.unlink(str(self._config.cronjob.dropbox / draft.name))
                    log.info("removed %s, which a client left", draft.name)

    def _is_settled(self, drop: Drop, clock: float) -> bool:
        from hpc_batch import settling  # a pass without drops, which most are, does not load it

        try:
            shown = settling.look(f"{self._dropbox}/{drop.name}")
            clock = self._state.ahead.clock(drop.name, drop.changed, clock)
            left_s = settling.wait_of(shown, clock, self._config)[0]
        except FileNotFoundError:
            return False  # RACE: withdrawn since the dropbox was listed
        except OSError as error:
            text = f"{drop.name!r} in the dropbox cannot be looked at: {error.strerror}"
            self._ledger.note(f"drop {drop.name!r}", f"{text}; tried again", code=75)
            return False
        self._settles_s = min(self._settles_s, left_s) if left_s else self._settles_s
        return not left_s

    def _take_cancel(
        self, name: str, record: Record | None, listing: Listing, clock: float
    ) -> None:
        """Give a cancel file to the job in flight; remove it when there is none."""
        path = self._config.cronjob.dropbox / f"{name}.cancel"
        try:
            owner = path.lstat().st_uid
        except FileNotFoundError:
            return  # RACE: withdrawn since the dropbox was listed, or its job was answered
        accepted = may_submit(owner, self._config.cronjob.accept_from)
        if accepted is None:
            return  # who that is may be known to the next pass
        if not accepted:
            text = f"{path.name!r} is of a user who is not in [cronjob] accept_from; left alone"
            self._ledger.note(f"cancel {name!r}", text)
            return
        if record is not None:
            log.info("%s asked to cancel", record.id)
            self._intake.cancel(name, record.id)
            return
        with contextlib.suppress(OSError):
            waiting = any(d.name == name for d in listing.drops)
            changed = path.lstat().st_ctime
            clock = self._state.ahead.clock(path.name, changed, clock)
            if not waiting and clock - changed >= CANCEL_S:
                files.unlink(str(path))
                self._ledger.messages.append(f"{name + '.cancel'!r}: there is no such job; removed")
