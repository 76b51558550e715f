"""The state of the modelled world: one job, its drop, its ticket, its outputs, two pilots.

Values are small and canonical, so that equal worlds are equal tuples. Sessions are numbered anew in
each state: 1 is the one in the record, 2 the one of this pass, 3 a late one, 9 any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Output(NamedTuple):
    """One output's destination and what lies beside it."""

    there: str = "-"
    """At the destination: nothing (-), a file of its owner (old), the job's output (new)."""
    temporary: bool = False
    """.hpcb-J-k.aN, complete."""
    kept: bool = False
    """.hpcb-J-k.old, a second name of what stood there."""


class World(NamedTuple):
    """Everything that survives a kill, and the place of the pass, which does not."""

    # ---- dropbox
    drop: str = "here"
    """NAME.job is in the dropbox (here), J.drop (taken), or neither (gone)."""
    answer: str = "-"
    """J.answer: missing (-), reserved or filled."""
    finished: str = "-"
    """NAME.job.finished: never written (-), there, read (and removed), aside."""
    told: int = 0
    """So often J.answer was renamed to NAME.job.finished."""
    cancel: str = "-"
    """NAME.job.cancel: never written (-), asked, moved to J.cancel, void."""
    again: str = "-"
    """The next drop of the same NAME: none (-), here, taken."""
    # ---- state/
    phase: str = "-"
    """The record's phase; - before there is one, gone after it."""
    session: int = 0
    """The record's session."""
    decided: str = "-"
    """answer.json: ok, died, cancelled, stage_out."""
    existed: tuple[bool, ...] = ()
    """The record's targets: what stood at the destinations when placing began."""
    remote: bool = False
    # ---- the pass
    at: tuple[Any, ...] = ()
    """The step it performs and how far it is; empty between two steps."""
    own: int = 0
    """The session that stages."""
    # ---- cluster
    incoming: tuple[int, ...] = ()
    """Sessions S of incoming/J.S."""
    folder: int = 0
    """jobs/J: missing (0), made (1), loaded (2), or its description torn (3)."""
    flag: bool = False
    """jobs/J/cancel."""
    tickets: tuple[Any, ...] = ()
    """(ready, starts, crashes), (running, starts, crashes, pilot), (done, starts, pilot, kind)."""
    outs: tuple[Any, ...] = ()
    """Folders of attempts: (number, part or full, all who wrote there). Where claims cannot be
    forgotten, of the ticket's attempt only: no other is looked at."""
    pilots: tuple[Any, ...] = ((), ())
    """Of each: () idle, ("z",) at work for a ticket it lost, or (own|wrote|full|stop, starts,
    crashes)."""
    late: tuple[Any, ...] = ()
    """What the far end of a killed pass is still about to do: (verb, session, how far)."""
    unsynced: tuple[Any, ...] = ()
    """The last rename that a power cut would undo."""
    # ---- where the user wants it
    outputs: tuple[Output, ...] = ()
    meddled: int = -1
    """The output whose destination its owner changed; -1: none."""
    # ---- bookkeeping of the checker
    other: tuple[Any, ...] = ()
    """(at, own) of a second pass, where the lock is broken."""
    bad: str = ""
    """A forbidden effect has just happened."""


def numbered(world: World) -> World:
    """Return the same world with its sessions numbered by their roles."""
    if not (world.incoming or world.late or world.own or world.session):
        return world
    late = world.late[1] if world.late else 0
    roles: dict[int, int] = {0: 0}
    second = world.other[1] if world.other else 0
    for role, session in ((1, world.session), (2, world.own), (3, late), (4, second)):
        roles.setdefault(session, role)
    return world._replace(
        session=roles[world.session],
        own=roles[world.own],
        late=(world.late[0], roles[late], world.late[2]) if world.late else (),
        other=(world.other[0], roles[second]) if world.other else (),
        incoming=tuple(sorted({roles.get(s, 9) for s in world.incoming})),
    )
