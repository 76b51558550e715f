"""The model's cluster: the verbs of a far end, the pilots, the reaper, the storage, the sweep."""

from __future__ import annotations

from typing import Any

from model.world_state import World

Steps = list[tuple[str, World]]

VERBS = ("stage", "prepare", "publish", "cancel", "purge")

SAME_FOLDER = (
    "outputs shared between attempts",
    "attempt number not kept",
    "given back without a count while it runs",
)
"""Weaknesses under which a pilot that lost its ticket can write where the next one reads."""


def far(model: Any, w: World, verb: str, session: int, n: int) -> tuple[str, World, str]:
    """Perform the n-th effect of a verb: its name, the world after it, and more, end or fail."""
    act = {"stage": _stage, "prepare": _prepare, "publish": _publish, "cancel": _cancel}
    if verb == "purge":
        return _purge(w, n)
    return act[verb](model, w, session, n)


def _stage(model: Any, w: World, session: int, n: int) -> tuple[str, World, str]:
    if n == 0:
        return "stage: make folder", w._replace(folder=max(w.folder, 1)), "more"
    incoming = tuple(sorted({*w.incoming, session}))
    return "stage: write ticket", w._replace(incoming=incoming), "end"


def _prepare(model: Any, w: World, session: int, n: int) -> tuple[str, World, str]:
    if n == 0:
        return "prepare: look", w, "more" if session in w.incoming else "fail"
    if w.folder == 0:
        return "prepare: no folder", w, "fail"
    if model.weakened == "prepare writes in place" and n == 1:
        return "prepare: truncate", w._replace(folder=3), "more"
    return "prepare: load", w._replace(folder=2), "end"


def _publish(model: Any, w: World, session: int, n: int) -> tuple[str, World, str]:
    ready = ("ready", 0, 0)
    if n == 1 and model.weakened == "a rename is a link and an unlink":
        left = tuple(s for s in w.incoming if s != session)
        return "publish: unlink", w._replace(incoming=left), "end"
    if n == 1:
        return "publish: sync", w._replace(unsynced=()), "end"
    if model.weakened == "any session's ticket is published" and w.incoming:
        session = w.incoming[-1]
    if session not in w.incoming:
        return "publish: already", w, "end"
    moved = w._replace(tickets=tuple(sorted({*w.tickets, ready})))
    if model.weakened == "a rename is a link and an unlink":
        return "publish: link", moved, "more"
    moved = moved._replace(incoming=tuple(s for s in w.incoming if s != session))
    if not model.bounds.forget:
        return "publish: rename", moved, "end"
    moved = moved._replace(unsynced=("ticket", ("incoming", session), ready))
    synced = model.weakened != "publish is neither synced nor healed"
    return "publish: rename", moved, "more" if synced else "end"


def _cancel(model: Any, w: World, session: int, n: int) -> tuple[str, World, str]:
    if n == 0:
        return "cancel: flag", w._replace(flag=w.folder > 0), "more"
    for ticket in w.tickets:
        if ticket[0] == "ready":
            done = ("done", ticket[1], "-", "cancelled")
            return "cancel: finish", _renamed(model, w, ticket, done), "end"
    return "cancel: asked", w, "end"


def _purge(w: World, n: int) -> tuple[str, World, str]:
    bad = "" if w.told else "I11 purged before the answer"
    if n == 0:
        return "purge: incoming", w._replace(incoming=(), bad=bad), "more"
    if n == 1:
        return "purge: discard", w._replace(folder=0, out=("", ""), flag=False), "more"
    return "purge: tickets", w._replace(tickets=()), "end"


def _renamed(model: Any, w: World, old: tuple[Any, ...], new: tuple[Any, ...]) -> World:
    """Return the world after a ticket's rename, which a power cut undoes until it is synced."""
    tickets = tuple(sorted(({*w.tickets} - {old}) | {new}, key=str))
    after = w._replace(tickets=tickets)
    if model.bounds.forget and (new[0] != "running" or model.bounds.claims):
        after = after._replace(unsynced=("ticket", old, new))
    return after


def steps(model: Any, w: World) -> Steps:
    """Return what can happen on the cluster by itself."""
    found = _late(model, w) + _storage(w) + _reaper(model, w) + _sweep(w)
    for i in range(len(w.pilots)):
        found += _pilot(model, w, i)
    collapse = model.weakened not in SAME_FOLDER and not model.bounds.claims
    if collapse:
        found = [(name, _forgotten(after)) for name, after in found]
    return found


def _late(model: Any, w: World) -> Steps:
    if not w.late:
        return []
    verb, session, n = w.late
    name, after, end = far(model, w, verb, session, n)
    late = (verb, session, n + 1) if end == "more" else ()
    return [("late " + name, after._replace(late=late)), ("late dies", w._replace(late=()))]


def _storage(w: World) -> Steps:
    if w.unsynced[:1] != ("ticket",):
        return []
    _, old, new = w.unsynced
    synced = w._replace(unsynced=())
    if new not in w.tickets:
        return [("storage: sync", synced)]
    tickets = {*w.tickets} - {new}
    if old[0] == "incoming":
        forgot = synced._replace(incoming=tuple(sorted({*w.incoming, old[1]})))
    else:
        forgot, tickets = synced, tickets | {old}
    forgot = forgot._replace(tickets=tuple(sorted(tickets, key=str)))
    return [("storage: sync", synced), ("storage: forget", forgot)]


def _reaper(model: Any, w: World) -> Steps:
    """Running to ready, or done as died: a pilot is thought dead, rightly or wrongly."""
    found = []
    for ticket in w.tickets:
        if ticket[0] != "running":
            continue
        _, n, c, p = ticket
        if c + 1 >= model.bounds.attempts or n >= model.bounds.starts:
            new: tuple[Any, ...] = ("done", n, p, "died")
        else:
            new = ("ready", n, c + 1)
        if model.weakened == "crashes are not counted":
            new = ("ready", n, c)
        if model.weakened == "attempt number not kept":
            new = ("ready", n - 1, c)
        found.append(("reaper: crash", _renamed(model, w, ticket, new)))
    return found


def _sweep(w: World) -> Steps:
    """After a day and a half: what no record knows, and tickets of dead sessions."""
    if w.late or w.at:
        return []
    if w.phase == "gone" and (w.folder or w.incoming):
        return [("sweep: orphan", w._replace(folder=0, incoming=(), out=("", ""), flag=False))]
    if w.tickets and w.incoming and w.phase != "gone":
        return [("sweep: litter", w._replace(incoming=()))]
    return []


def _pilot(model: Any, w: World, i: int) -> Steps:
    state, weak = w.pilots[i], model.weakened
    name = "pq"[i]

    def now(after: World, value: tuple[Any, ...]) -> World:
        return after._replace(pilots=(*w.pilots[:i], value, *w.pilots[i + 1 :]))

    if not state:
        if any(not other for other in w.pilots[:i]):
            return []  # which of two idle pilots claims makes no difference
        return [
            (
                f"{name}: claim",
                now(
                    _renamed(model, w, t, ("running", t[1] + 1, t[2], i))._replace(out=("", "")),
                    ("own", t[1] + 1, t[2]),
                ),
            )
            for t in w.tickets
            if t[0] == "ready"
        ]
    found: Steps = [(f"{name}: kill", now(w, ()))]
    if state == ("z",):
        return [*found, (f"{name}: write in vain", now(w._replace(folder=max(w.folder, 1)), ()))]
    doing, n, c = state
    ticket = ("running", n, c, i)
    mine = ticket in w.tickets
    shared = weak == "outputs shared between attempts"
    here = shared or n in [t[1] for t in w.tickets]
    if doing == "own":
        if w.flag:
            found.append((f"{name}: stop", now(w, ("stop", n, c))))
        bad = "" if w.folder == 2 or w.told or not mine else "I8 a claimed job has no files"
        out = (("part", _writers(w, name) if shared else name)) if here else w.out
        written = w._replace(out=out, bad=bad)
        found.append((f"{name}: prepare", now(written, ("wrote", n, c))))
        if mine:
            back = _renamed(model, w._replace(out=("", "")), ticket, ("ready", n - 1, c))
            found.append((f"{name}: unclaim", now(back, ())))
    elif doing == "wrote":
        out = ("full", _writers(w, name)) if here else w.out
        written = w._replace(out=out, folder=max(w.folder, 1))
        found.append((f"{name}: write result", now(written, ("full", n, c))))
        if w.flag:
            found.append((f"{name}: stop", now(w, ("stop", n, c))))
        if mine:
            died = n >= model.bounds.starts
            new = ("done", n, i, "died") if died else ("ready", n, c)
            found.append((f"{name}: release", now(_renamed(model, w, ticket, new), ())))
            if weak == "given back without a count while it runs":
                back = _renamed(model, w, ticket, ("ready", n - 1, c))
                found.append((f"{name}: unclaim, at work", now(back, state)))
    else:
        done = ("done", n, i, "ok" if doing == "full" else "cancelled")
        if mine:
            found.append((f"{name}: finish", now(_renamed(model, w, ticket, done), ())))
        elif weak == "finish is not fenced":
            both = w._replace(tickets=tuple(sorted({*w.tickets, done}, key=str)))
            found.append((f"{name}: finish", now(both, ())))
        else:
            found.append((f"{name}: finish, lost", now(w, ())))
    return found


def _writers(w: World, name: str) -> str:
    return "".join(sorted({*w.out[1], name}))


def _forgotten(w: World) -> World:
    """Return the world with pilots that lost their ticket reduced to what they can still do.

    Their attempt's folder is never read again, so they can only make jobs/J again, once.
    """
    if w.unsynced[:1] == ("ticket",) and w.unsynced[2] not in w.tickets:
        w = w._replace(unsynced=())
    back = w.unsynced[1] if w.unsynced[:1] == ("ticket",) else ()
    pilots = []
    for i, state in enumerate(w.pilots):
        if len(state) == 3:
            ticket = ("running", state[1], state[2], i)
            if ticket not in w.tickets and ticket != back:
                state = ("z",) if state[0] in ("own", "wrote") else ()
        pilots.append(state)
    return w if tuple(pilots) == w.pilots else w._replace(pilots=tuple(pilots))
