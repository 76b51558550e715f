"""The one login of a pass, and what hangs on it.

A pass connects when the first job needs the cluster, and not at all when none does. Everything that
belongs to the login ends with it: the session, the channel for bulk, the lane for big files.
"""

from __future__ import annotations

import contextlib

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
        self.session = session.begin(self.host, config.remote, config.env, state.instance)
        try:
            self.session.hello()
        except BaseException:
            self.close()
            raise
        self._data: DataChannel | None = None
        self.lane = Lane(self.session.data)
        self.staging = Staging(self.session, records, self.lane, self.data)
        self.collecting = Collecting(self.session, records, self.lane, self.data)

    def data(self) -> DataChannel:
        """Return the pass's channel for what is not big."""
        if self._data is None:
            self._data = self.session.data()
        return self._data

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
