"""The model's placing and unplacing, what the owner of the destinations does, and how it is judged.

Each output has two effects in either direction: keep and put, restore (or remove) and forget.
"""

from __future__ import annotations

from typing import Any

from model.world_state import Output, World

Steps = list[tuple[str, World]]


def _with(w: World, k: int, output: Output) -> World:
    return w._replace(outputs=(*w.outputs[:k], output, *w.outputs[k + 1 :]))


def place(model: Any, w: World) -> Steps:
    """PLACING to ANSWERING or UNPLACING."""
    n, count, forget = w.at[1], len(w.outputs), model.bounds.forget
    found: Steps = []
    if model.bounds.meddles:
        found += _give_up(model, w)
    while n < 2 * count:
        k, o = n % count, w.outputs[n % count]
        at = ("place", n + 1)
        keeps = n < count and model.weakened != "what stood there is not kept"
        if keeps and w.existed[k] and o.temporary and o.there != "-" and not o.kept:
            return [
                *found,
                (f"place: keep {k}", _with(w, k, o._replace(kept=True))._replace(at=at)),
            ]
        if n >= count and o.temporary:
            lost = o.there == "old" and not o.kept and w.meddled != k
            after = _with(w, k, Output("new", False, o.kept))._replace(at=at)
            if forget:
                after = after._replace(unsynced=("output", k, o))
            bad = "I5 an old file was overwritten" if lost else ""
            return [*found, (f"place: put {k}", after._replace(bad=bad))]
        if n >= count and o.there != "new":
            return found if model.bounds.meddles else _give_up(model, w)
        n += 1
    if n == 2 * count and forget:
        after = w._replace(unsynced=(), at=("place", n + 1))
        return [*found, ("place: sync", after)]
    if model.weakened == "no intent to answer":
        return [("answer: begin", w._replace(at=("answer", "fill")))]
    return [*found, ("place: save ANSWERING", w._replace(phase="ANSWERING", at=()))]


def _give_up(model: Any, w: World) -> Steps:
    """The effect before, or the one that would be next, has failed for good."""
    if model.weakened == "the error is decided before UNPLACING" and w.decided == "ok":
        return [("place: write answer", w._replace(decided="stage_out"))]
    if model.weakened == "placing without a record":
        return [("place: give up", w._replace(decided="stage_out", at=("unplace", 0)))]
    return [("place: save UNPLACING", w._replace(phase="UNPLACING", at=()))]


def unplace(model: Any, w: World) -> Steps:
    """UNPLACING to ANSWERING."""
    n, weak = w.at[1], model.weakened
    found: Steps = []
    while n < 2 * len(w.outputs):
        k, o = n // 2, w.outputs[n // 2]
        at = ("unplace", n + 1)
        if n % 2 == 0 and o.kept:
            if weak == "what cannot be put back is given up":
                found.append((f"unplace: restore {k} fails", w._replace(at=at)))
            after = _with(w, k, o._replace(there="old", kept=False))._replace(at=at)
            if model.bounds.forget:
                after = after._replace(unsynced=("output", k, o))
            return [*found, (f"unplace: restore {k}", _taken(after, w))]
        trusted = weak == "unplace trusts that a file existed" and w.existed[k]
        ours = o.there == "new" or weak == "unplace without a look at the inode"
        if n % 2 == 0 and ours and o.there != "-" and not trusted and _unknown(weak, w, k):
            after = _with(w, k, o._replace(there="-"))._replace(at=at)
            bad = "" if o.there == "new" else "I5 a file that is not ours was removed"
            return [(f"unplace: remove {k}", _taken(after._replace(bad=bad), w))]
        if n % 2 == 1 and o.temporary:
            after = _with(w, k, o._replace(temporary=False))._replace(at=at)
            return [(f"unplace: forget {k}", after)]
        n += 1
    if n == 2 * len(w.outputs) and model.bounds.forget:
        return [("unplace: sync", w._replace(unsynced=(), at=("unplace", n + 1)))]
    after = w._replace(phase="ANSWERING", decided="stage_out", at=())
    return [("unplace: save ANSWERING", after)]


def _unknown(weak: str, w: World, k: int) -> bool:
    """Without inodes, at least what existed is left alone."""
    return weak != "unplace without a look at the inode" or not w.existed[k]


def _taken(after: World, before: World) -> World:
    """Unplacing must not touch what an answer has already told of."""
    if before.told:
        return after._replace(bad="I4 outputs are taken away after the answer")
    return after


def undo(w: World, unsynced: tuple[Any, ...]) -> World:
    """Return the world with the last rename of an output undone."""
    _, k, before = unsynced
    return _with(w, k, before)


def meddle(w: World) -> Steps:
    """The owner of a destination removes what stands there, or puts a file there."""
    if w.meddled >= 0 or w.phase in ("-", "gone", "CLEANING"):
        return []
    found = []
    for k, o in enumerate(w.outputs):
        changed = w._replace(meddled=k)
        if o.there == "-":
            found.append((f"user: put a file at {k}", _with(changed, k, o._replace(there="old"))))
        else:
            found.append((f"user: remove file {k}", _with(changed, k, o._replace(there="-"))))
    return found


def judge(model: Any, w: World) -> str:
    """Return what is wrong with an answer at the moment it appears."""
    if w.answer != "filled":
        return "I4 an incomplete answer"
    if w.decided == "cancelled" and w.cancel == "-":
        return "I8 cancelled though nobody asked"
    stood = w.existed or model.bounds.existing
    for k, o in enumerate(w.outputs):
        if w.decided == "ok" and o.there != "new" and w.meddled != k:
            return "I4 ok without its outputs"
        if w.decided != "ok" and o.there == "new":
            return "I5 an error leaves an output"
        if w.decided != "ok" and stood[k] != (o.there == "old") and w.meddled != k:
            return "I5 an error does not leave what stood there"
    return ""
