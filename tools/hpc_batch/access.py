"""Access: the way of one pass to its cluster, by at most one login.

The login takes as long as everything else together, so it is begun when a pass sees that it will
need the cluster (`expect`), and goes on beside the work that needs none. Whether it failed is
known, and told, when somebody uses it. What was begun in vain is given up at the end.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpc_batch import threads
from hpc_batch.config import Config
from hpc_batch.errors import FarEndError, RemoteError
from hpc_batch.records import Records
from hpc_batch.report import Report
from hpc_batch.state import State
from hpc_batch.trouble import Ledger
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.connection import Connection

log = logging.getLogger("hpc_batch")

OUTAGE_S = 30 * 60
"""An unreachable cluster is told to the operator after so long."""

HEAD_START_S = 0.04
"""So long the login is alone at first. To start a program takes a thread several turns of Python's
own lock, and whoever computes beside it keeps that for 5 ms each time."""

PASSING_KINDS = frozenset(("bug", "batch", *(errno.errorcode[number] for number in files.PASSING)))
"""What the far end may say that no change of the configuration mends."""


class Opening:
    """A login that is under way, in a thread."""

    def __init__(self, make: Callable[[], Connection]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._given_up = False
        self._connection: Connection | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        try:
            self._thread = threads.start(self._run, "login")
        except RemoteError as error:
            self._error = error
        else:
            self._thread.join(HEAD_START_S)

    def result(self) -> Connection:
        """Wait for the login's end. Raises what ended it."""
        if self._thread is not None:
            self._thread.join()
        if self._connection is None:
            assert self._error is not None
            raise self._error
        return self._connection

    def is_over(self) -> bool:
        """Tell whether it has ended, well or not."""
        return self._connection is not None or self._error is not None

    def give_up(self) -> None:
        """Close the connection, now or when it has been made; whether it can be does not matter."""
        with self._lock:
            self._given_up = True
            connection = self._connection
        if connection is not None:
            connection.close()

    def _run(self) -> None:
        try:
            connection = self._make()
        except BaseException as error:
            self._error = error
            return
        with self._lock:
            self._connection = connection
            given_up = self._given_up
        if given_up:
            connection.close()


class Access:
    """The access of one pass."""

    def __init__(
        self,
        config: Config,
        state: State,
        records: Records,
        report: Callable[[], Report],
        ledger: Ledger,
        ring: Callable[[], None],
    ) -> None:
        """`report` returns the pass's report, and `ring` is as in Connection."""
        self._config, self._state, self._records = config, state, records
        self._report, self._ledger, self._ring = report, ledger, ring
        self.connection: Connection | None = None
        """The login as far as it is in use."""
        self.refused = False
        """The cluster could not be used in this pass; it is not tried again."""
        self._opening: Opening | None = None

    def expect(self) -> None:
        """Begin to log in, unless that was done before. Raises ConfigError."""
        if self.connection is None and self._opening is None and not self.refused:
            from hpc_batch import hosts

            config, state = self._config, self._state
            host = hosts.connect(config.remote, inherit=state.lock_descriptors)

            def make() -> Connection:
                try:
                    host.log_in()
                    from hpc_batch import session

                    opened = session.begin(host, config.remote, config.env, state.instance)
                except BaseException:
                    host.close()
                    raise
                from hpc_batch.connection import Connection

                return Connection(host, opened, self._records, self._ring)

            self._opening = Opening(make)
            # Nothing takes as long as the login: what follows it is loaded beside it.
            import hpc_batch.connection  # noqa: F401

    def connect(self) -> Connection | None:
        """Return the login, made once a pass; None where that failed, now or before."""
        if self.connection is None and not self.refused:
            self.expect()
            assert self._opening is not None
            self._state.trash.empty(self._opening.is_over)
            try:
                self.connection = self._opening.result()
            except RemoteError as error:
                self.lost(error)
            self._opening = None
        return self.connection

    def lost(self, error: Exception) -> None:
        """The cluster cannot be used any more in this pass."""
        self.refused = True
        self.close()
        code = 75
        if isinstance(error, RemoteError) and getattr(error, "kind", "") not in PASSING_KINDS:
            code = error.exit_code
        patience = 0 if code != 75 or isinstance(error, FarEndError) else OUTAGE_S
        hint = getattr(error, "hint", "")
        text = f"cluster {self._config.remote.host or 'local'}: {error}"
        log.warning("%s; %s", text, hint)
        self._report().reachable(text)
        self._ledger.note("cluster", f"{text}; {hint}" if hint else text, patience, code=code)

    def close(self) -> None:
        """End the login, and one that is under way."""
        if self.connection is not None:
            self._report().count(self.connection)
            self.connection.close()
            self.connection = None
        if self._opening is not None:
            self._opening.give_up()
            self._opening = None
