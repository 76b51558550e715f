"""The handover: results become durable, then their tickets move to done, in batches.

An attempt whose result is written waits here while its slot runs the next job. A batch is all that
waits: it is made durable together, then its tickets are renamed, then the folders of tickets are
synced; so a ticket is seen in done only when all that it promises is on the disk. A thread does
that. Batches keep a distance, so that many short jobs share one, and a single one does not wait.
"""

from typing import Callable, List, NamedTuple, Optional, Sequence, Set, Union

from hpc_cluster import clock, durable, threads
from hpc_cluster.attempt import Attempt
from hpc_cluster.spool import Spool

SPACING_S = 0.05
"""Between the beginnings of two batches, while jobs run."""

AGAIN_S = 1.0
"""Between a batch whose tickets could not be moved and the next."""

FEW = 4
"""What so many jobs left is synced file by file; of more, the file system is, as a whole: that also
writes what other jobs have in memory."""

MOST = 256
"""No more may wait: all of them are run again when the pilot dies now."""


class Handed(NamedTuple):
    """How it went with one attempt."""

    attempt: Attempt
    ours: bool
    """Its ticket was still ours, and is in done."""
    failure: Optional[OSError]
    """Why its result could not be made durable; then its ticket was left alone."""


class Handover:
    """The handover of one pilot; `wake` is called from a thread when a batch is over."""

    def __init__(self, spool: Spool, wake: Callable[[], None]) -> None:
        self._spool, self._wake = spool, wake
        self._disk = durable.FileSystem(spool.path("jobs"))
        self._waiting: List[Attempt] = []
        self._batch: List[Attempt] = []
        self._over: Union[Exception, List[Handed], None] = None
        """How the batch went, once the thread is through."""
        self._began = self._again_at = float("-inf")
        self._given_up = False

    def __len__(self) -> int:
        """Return how many attempts are not through."""
        return len(self._waiting) + len(self._batch)

    def tickets(self) -> Set[str]:
        """Return the names of the tickets of those that are not through."""
        return {attempt.ticket.name for attempt in self._waiting + self._batch}

    def add(self, attempt: Attempt) -> None:
        """Take an attempt whose result is written."""
        self._waiting.append(attempt)

    def begin(self, beside: Sequence[Attempt]) -> float:
        """Begin a batch if there is reason to; return in how many seconds to ask again.

        `beside` are the attempts that hold a slot; without any no distance is kept. The batch makes
        their claims durable, so it does the same for what they were given: a job that went on
        without that, after a crash of the file server, would fail.
        """
        if self._batch or self._given_up or not self._waiting:
            return float("inf")
        now = clock.monotonic()
        begin_at = max(self._again_at, self._began + SPACING_S if beside else now)
        if begin_at > now:
            return begin_at - now
        self._batch, self._waiting, self._began = self._waiting, [], now
        given = [attempt for attempt in beside if attempt.given]
        try:
            threads.start(self._work, "handover", list(self._batch), given)
        except OSError:
            self._waiting, self._batch, self._again_at = self._batch, [], now + AGAIN_S
            return AGAIN_S
        return float("inf")

    def ended(self) -> List[Handed]:
        """Return how it went with the attempts of a batch that is over, once.

        Raises what prevented tickets from being moved: they are tried again.
        """
        over, self._over = self._over, None
        batch = self._batch
        if over is None or self._given_up:
            return []
        self._batch = []
        if isinstance(over, Exception):
            self._waiting = batch + self._waiting
            self._again_at = clock.monotonic() + AGAIN_S
            raise over
        return over

    def forget(self, job: str) -> List[Attempt]:
        """Take back what waits of a job."""
        found = [attempt for attempt in self._waiting if attempt.ticket.job == job]
        self._waiting = [attempt for attempt in self._waiting if attempt not in found]
        return found

    def give_up(self) -> List[Attempt]:
        """Begin nothing more, and return all that is not through; the thread may still end it."""
        rest, self._batch, self._waiting = self._batch + self._waiting, [], []
        self._given_up = True
        return rest

    def close(self) -> None:
        """Let go of the disk."""
        self._disk.close()

    # ---- in the thread -----------------------------------------------------------------------

    def _work(self, batch: List[Attempt], beside: List[Attempt]) -> None:
        try:
            failures = self._sync(batch)
            self._sync_given(beside, whole=len(batch) > FEW and self._disk.can_sync)
            good = [a for a, failure in zip(batch, failures) if failure is None]
            moved = iter(self._spool.finish_all([(a.ticket, a.kind) for a in good]))
            self._over = [Handed(a, f is None and next(moved), f) for a, f in zip(batch, failures)]
        except Exception as error:  # the runner's to judge
            self._over = error
        self._wake()

    def _sync(self, batch: List[Attempt]) -> List[Optional[OSError]]:
        """Make durable what attempts left; return for each what prevented it."""
        try:
            if len(batch) > FEW and self._disk.can_sync:
                self._disk.sync()
                return [None] * len(batch)
            for part in [batch] if len(batch) > FEW else [[attempt] for attempt in batch]:
                durable.sync_files([path for attempt in part for path in attempt.files])
                durable.sync_folders([path for attempt in part for path in attempt.folders])
            return [None] * len(batch)
        except OSError as error:
            if len(batch) == 1:
                return [error]
        # Whom it concerns is found one by one, so that nobody else has to wait.
        return [failure for attempt in batch for failure in self._sync([attempt])]

    def _sync_given(self, beside: List[Attempt], *, whole: bool) -> None:
        """Make durable what running jobs were given, each once; `whole`: the whole disk was."""
        for attempt in beside:
            given, attempt.given = attempt.given, []
            if whole:
                continue
            try:
                durable.sync_files(given[:1])
                durable.sync_folders(given[1:])
            except OSError:
                # RACE: none; the job's own end will tell. Nobody else's waits for it.
                continue
