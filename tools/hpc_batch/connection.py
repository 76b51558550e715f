"""The one login of a pass, and what hangs on it.

A pass connects when the first job needs the cluster, and not at all when none does. Everything that
belongs to the login ends with it: the session, the channel for bulk, the lane for big files.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future

from hpc_batch import hosts, session
from hpc_batch.collecting import Collecting
from hpc_batch.config import Config
from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import RemoteError
from hpc_batch.lane import Lane
from hpc_batch.record import Records
from hpc_batch.staging import Staging
from hpc_batch.state import State


class Connection:
    """The one login of a pass, and what hangs on it; made at the first use."""

    def __init__(self, config: Config, state: State, records: Records) -> None:
        self._config, self._state = config, state
        self.host = hosts.connect(config.remote, inherit=state.lock_descriptors)
        try:
            self.session = session.begin(self.host, config.remote, config.env, state.instance)
        except BaseException:
            self.host.close()
            raise
        self._opening: Future[DataChannel] | None = None
        self.lane = Lane(self.session.data)
        self.staging = Staging(self.session, records, self.lane, self.data)
        self.collecting = Collecting(self.session, records, self.lane, self.data)

    def expect_data(self) -> None:
        """Begin to open the channel for bulk, which takes a while, beside other questions."""
        if self._opening is None:
            self._opening = Future()
            opening = threading.Thread(target=self._open_data, args=(self._opening,), daemon=True)
            opening.start()

    def _open_data(self, opening: Future[DataChannel]) -> None:
        try:
            opening.set_result(self.session.data())
        except Exception as error:
            opening.set_exception(error)

    def data(self) -> DataChannel:
        """Return the pass's channel for what is not big. Raises RemoteError."""
        self.expect_data()
        assert self._opening is not None
        return self._opening.result()

    def counts(self) -> dict[str, int]:
        """Return what the login has cost so far."""
        return {
            "logins": self.host.logins,
            "channels": self.host.channels,
            "exchanges": self.session.exchanges,
        }

    def close(self) -> None:
        """End the session and the login."""
        with contextlib.suppress(RemoteError, OSError):
            self.session.close()
        self.host.close()
