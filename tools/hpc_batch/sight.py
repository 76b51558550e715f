"""What a pass has seen of the cluster, and told it, in its present sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc_batch.plan import Place

if TYPE_CHECKING:
    from hpc_batch.tidings import Census as Listed
    from hpc_batch.tidings import Collected

Census = dict[str, tuple[Place, str]]
"""J: the folder of its ticket and the ticket's name."""


@dataclass
class Sight:
    """What a sweep goes by."""

    census: Census | None = None
    """None where the cluster did not answer completely."""
    counted: frozenset[str] = frozenset()
    """Jobs that were published before the census was asked for."""
    done: tuple[str, ...] = ()
    """Tickets in done, in the last census."""
    collected: Mapping[str, Collected] = field(default_factory=dict)
    """What stands behind tickets in done, of those that the census has read."""
    told: set[str] = field(default_factory=set)
    """Jobs whose cancellation the cluster was told of in this pass."""

    def see(self, listed: Listed, published: Iterable[str]) -> None:
        """Take in a complete answer; `published` are the jobs that it must list."""
        found: Census = {}
        places: list[tuple[Place, tuple[str, ...]]] = [
            ("incoming", listed.incoming),
            ("ready", listed.ready),
            ("running", listed.running),
            ("done", listed.done),
        ]
        for place, names in places:
            found.update((name.split(".")[0], (place, name)) for name in names)
        self.done, self.collected = listed.done, listed.collected
        self.census, self.counted = found, frozenset(published)
