"""The one login of a pass, and what hangs on it.

A pass connects when the first job needs the cluster, and not at all when none does. Everything that
belongs to the login ends with it: the session and the lane for big files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from hpc_batch.errors import RemoteError
from hpc_batch.hosts import Host
from hpc_batch.lane import Lane
from hpc_batch.records import Records
from hpc_batch.session import Session

if TYPE_CHECKING:
    from hpc_batch.collecting import Collecting
    from hpc_batch.staging import Staging


class Connection:
    """The one login of a pass, and what hangs on it."""

    def __init__(
        self, host: Host, session: Session, records: Records, ring: Callable[[], None]
    ) -> None:
        """`ring` is called, by a thread, when the lane has done something."""
        self.host, self.session = host, session
        self._records = records
        self.lane = Lane(session.data, ring)

    @cached_property
    def staging(self) -> Staging:
        """What carries jobs there."""
        from hpc_batch.staging import Staging

        return Staging(self.session, self._records, self.lane, self.session.bulk)

    @cached_property
    def collecting(self) -> Collecting:
        """What brings results back."""
        from hpc_batch.collecting import Collecting

        return Collecting(self.session, self._records, self.lane, self.session.bulk)

    def take_stored(self) -> int:
        """Return how many bytes were sent into the store since this was asked before."""
        staging = vars(self).get("staging")
        return staging.take_stored() if staging is not None else 0

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
