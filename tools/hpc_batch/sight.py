"""What a pass has seen of the cluster, and told it, in its present sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc_batch.plan import Place

if TYPE_CHECKING:
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
