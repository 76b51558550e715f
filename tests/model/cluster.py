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
        return "purge: discard", w._replace(folder=0, outs=(), flag=False), "more"
    return "purge: tickets", w._replace(tickets=()), "end"


def _renamed(model: Any, w: World, old: tuple[Any, ...], new: tuple[Any, ...]) -> World:
    """Return the world after a ticket's rename, which a power cut undoes until it is synced."""
    tickets = tuple(sorted(({*w.tickets} - {old}) | {new}, key=str))
    after = w._replace(tickets=tickets)
    bounds = model.bounds
    if bounds.claims if new[0] == "running" else bounds.forget:
        return after._replace(unsynced=("ticket", old, new))
    return after._replace(unsynced=()) if bounds.claims else after


def steps(model: Any, w: World) -> Steps:
    """Return what can happen on the cluster by itself."""
    found = _late(model, w) + _storage(model, w) + _reaper(model, w) + _sweep(w)
    for i in range(len(w.pilots)):
        found += _pilot(model, w, i)
    if model.weakened not in SAME_FOLDER:
        found = [(name, _forgotten(model, after)) for name, after in found]
    return found


def _late(model: Any, w: World) -> Steps:
    if not w.late:
        return []
    verb, session, n = w.late
    name, after, end = far(model, w, verb, session, n)
    late = (verb, session, n + 1) if end == "more" else ()
    return [("late " + name, after._replace(late=late)), ("late dies", w._replace(late=()))]


def _storage(model: Any, w: World) -> Steps:
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
    if model.bounds.folders and new[0] == "running":
        forgot = forgot._replace(outs=tuple(o for o in w.outs if o[0] != new[1]))
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
        return [("sweep: orphan", w._replace(folder=0, incoming=(), outs=(), flag=False))]
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
                    _renamed(model, _anew(model, w), t, ("running", t[1] + 1, t[2], i)),
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
    if doing == "own":
        if w.flag:
            found.append((f"{name}: stop", now(w, ("stop", n, c))))
        there = model.bounds.claims and outputs(model, w, n) != ("", "")
        if there and weak != "a start takes a folder that is there":
            found.append(_restart(model, w, i))
        else:
            bad = "" if w.folder == 2 or w.told or not mine else "I8 a claimed job has no files"
            written = _written(model, w, i, "part") if w.folder else w
            found.append((f"{name}: prepare", now(written._replace(bad=bad), ("wrote", n, c))))
        if mine:
            back = _renamed(model, _anew(model, w), ticket, ("ready", n - 1, c))
            found.append((f"{name}: unclaim", now(back, ())))
    elif doing == "wrote":
        written = _written(model, w, i, "full")._replace(folder=max(w.folder, 1))
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


def _restart(model: Any, w: World, i: int) -> tuple[str, World]:
    """A pilot finds the folder of its start made by another one, whose claim was forgotten."""
    _, n, c = w.pilots[i]
    name, ticket = "pq"[i], ("running", n, c, i)

    def now(after: World, value: tuple[Any, ...]) -> World:
        return after._replace(pilots=(*w.pilots[:i], value, *w.pilots[i + 1 :]))

    if ticket not in w.tickets:
        return f"{name}: restart, lost", now(w, ())
    if n >= model.bounds.starts:
        died = _renamed(model, w, ticket, ("done", n, i, "died"))
        return f"{name}: restart, too often", now(died, ())
    again = _renamed(model, w, ticket, ("running", n + 1, c, i))
    return f"{name}: restart", now(again, ("own", n + 1, c))


def outputs(model: Any, w: World, n: int) -> tuple[str, str]:
    """Return how far the outputs in an attempt's folder are and who wrote there."""
    key = _key(model, n)
    return next(((far, who) for number, far, who in w.outs if number == key), ("", ""))


def _written(model: Any, w: World, i: int, far: str) -> World:
    """Return the world after a pilot wrote into the folder of its start."""
    n = w.pilots[i][1]
    key = _key(model, n)
    if not (model.bounds.claims or key == 0 or n in [t[1] for t in w.tickets]):
        return w  # nobody reads there
    who = "".join(sorted({*outputs(model, w, n)[1], "pq"[i]}))
    rest = [o for o in w.outs if o[0] != key] if model.bounds.claims else []
    return w._replace(outs=tuple(sorted([*rest, (key, far, who)])))


def _key(model: Any, n: int) -> int:
    return 0 if model.weakened == "outputs shared between attempts" else n


def _anew(model: Any, w: World) -> World:
    """Return the world as the next start finds it: its folder is not there, or made by another."""
    return w if model.bounds.claims else w._replace(outs=())


def _forgotten(model: Any, w: World) -> World:
    """Return the world with pilots that lost their ticket reduced to what they can still do.

    Their attempt's folder is never read again, so they can only make jobs/J again, once. Where
    claims are forgotten that is so once the job has come to a later start.
    """
    if w.unsynced[:1] == ("ticket",) and w.unsynced[2] not in w.tickets:
        w = w._replace(unsynced=())
    back = w.unsynced[1] if w.unsynced[:1] == ("ticket",) else ()
    known = [t for t in (*w.tickets, back) if t and t[0] != "incoming"]
    first = min([t[1] for t in known], default=99) if model.bounds.claims else 99
    pilots = []
    for i, state in enumerate(w.pilots):
        if len(state) == 3 and ("running", *state[1:], i) not in known:
            if state[0] in ("full", "stop"):
                state = ()
            elif state[1] < first:
                state = ("z",)
        pilots.append(state)
    outs = tuple(o for o in w.outs if o[0] >= first) if model.bounds.claims else w.outs
    return w._replace(pilots=tuple(pilots), outs=outs)
