"""The protocol as a model: one job, from its drop to a clean desk, whatever is killed on the way.

Modelled, each durable effect being one step, named as in the code (steps of `plan`, phases of
`record`, folders of `spool`, verbs of the session):

    pass       killed before and after every effect; a call that was done and reported as an error
               ends the step, which is the same to everything that is durable; one pass at a time
    far end    performs the one request that it has; when the pass is killed it goes on with it, at
               any later time, or dies
    pilots     two (`Bounds`): killed at each step, paused for as long as it may be; any claim may
               be taken away at any time by whoever thinks its pilot dead; hand back; never began
    user       withdraws the drop, cancels, reads the answer, drops the same NAME again, and once
               removes a file where an output goes, or puts one there
    placing    of one to three outputs over files or over nothing; any rename of it may fail for
               good, done or not done; putting back may fail for now
    storage    forgets the last rename that was not synced: on the cluster at any time, on the
               service host by a power cut, which ends the pass

Not modelled: time (a lease may expire, a session fall silent, at any moment), batches of jobs,
inputs and the bytes of a transfer, invalid drops, rejected and failed scripts (they are answered
like those that died), lost tickets (`miss`), slots and batch systems, a full disk (a step that
fails for now is a step that did not begin), two service hosts, restored states. A listing is one
look, which is enough: what the pass concludes from it, a ticket in done or its own in incoming,
stays true.

A claim is not synced; that the storage forgets one is modelled where `Bounds.claims` says so. Then
the next start of that number finds a folder, and becomes the start after it (`restart`). Where the
folder is forgotten, too (`Bounds.folders`), the outputs of two attempts can mix: the one weakness
of the protocol, which needs a file server that loses what it had acknowledged while pilots live.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from model import cluster, placing
from model.world_state import Output, World, numbered

from hpc_batch import plan


class Bounds(NamedTuple):
    """How much of the world one search holds."""

    existing: tuple[bool, ...] = (True,)
    """One entry for each output: whether a file stands at its destination."""
    pilots: int = 2
    attempts: int = 2
    starts: int = 3
    late: bool = True
    forget: bool = True
    """The storage forgets what was not synced."""
    cancels: bool = True
    again: bool = False
    """The user withdraws, reads the answer and drops the same NAME again."""
    meddles: bool = False
    """The user changes what stands at a destination, once, and placing may fail for good."""
    claims: bool = False
    """The storage may forget a claim."""
    folders: bool = False
    """With the claim it forgets the folder of that start."""


Steps = list[tuple[str, World]]

IN_FLIGHT = ("INTENT", "ACCEPTED", "STAGING", "PUBLISHING", "PUBLISHED", "PLACING", "UNPLACING")


@cache
def next_step(phase: Any, cancel: bool, ticket: Any) -> plan.Step:
    """Ask the real plan."""
    return plan.next_step(plan.Seen(phase=phase, cancel=cancel, ticket=ticket))


class Protocol:
    """The model, with one rule weakened where `weakened` names it."""

    def __init__(self, bounds: Bounds, weakened: str = "") -> None:
        self.bounds, self.weakened = bounds, weakened
        self.initial = World(
            outputs=tuple(Output("old" if there else "-") for there in bounds.existing),
            pilots=((),) * bounds.pilots,
            other=((), 0) if weakened == "two passes at a time" else (),
        )

    def steps(self, w: World) -> Steps:
        """Return everything that can happen next."""
        found = self._pass(w)
        if w.other:
            found += [("other " + name, _swapped(s)) for name, s in self._pass(_swapped(w))]
        found += self._user(w) + self._power(w) + cluster.steps(self, w)
        return [(name, numbered(after)) for name, after in found]

    # ---- the pass ----------------------------------------------------------------------------

    def _pass(self, w: World) -> Steps:
        if not w.at:
            return self._between(w)
        return self._perform(w) + self._killed(w)

    def _killed(self, w: World) -> Steps:
        """The pass ends here: killed, or the step has failed."""
        after = w._replace(at=(), own=0)
        if w.phase == "PUBLISHED":
            after = after._replace(existed=(), decided="-")
        found = [("kill", after)]
        if self.bounds.late and w.at[1] in cluster.VERBS:
            session = {"stage": w.own, "prepare": w.own, "publish": w.session or w.own}
            late = (w.at[1], session.get(w.at[1], 0), w.at[2])
            found.append(("kill, late " + w.at[1], after._replace(late=late)))
        return found

    def _between(self, w: World) -> Steps:
        """Begin a step, or act on a cancel file."""
        found: Steps = []
        if w.cancel == "asked" and w.phase in IN_FLIGHT:
            found.append(("cancel file: move", w._replace(cancel="moved")))
        elif w.cancel == "asked" and w.again != "here" and w.drop != "here":
            found.append(("cancel file: no such job", w._replace(cancel="void")))
        if w.again == "here" and w.phase in ("CLEANING", "gone"):
            aside = "aside" if w.finished == "there" else w.finished
            late = w.cancel == "asked" and w.told
            bad = "a late cancel cancels a later drop" if late else ""
            after = w._replace(again="taken", finished=aside, bad=bad)
            found.append(("take: the next drop", after))
        at = self._first(w)
        if at:
            begun = w._replace(at=at, own=5 if at[0] == "stage" else 0)
            found += self._perform(begun)
        return found

    def _first(self, w: World) -> tuple[Any, ...]:
        """Return where the next step of the plan begins."""
        weak = self.weakened
        if w.phase == "-":
            return ("take", "save") if w.drop == "here" else ()
        if w.phase == "gone":
            return ()
        step = next_step(w.phase, w.cancel == "moved", self._place(w))
        if (
            step == "publish"
            and w.phase == "PUBLISHED"
            and weak == "publish is neither synced nor healed"
        ):
            return ()
        if step == "place" and weak == "answer before outputs":
            step = "answer"
        if step == "answer" and weak == "purge before the answer" and w.remote:
            return ("clean", "purge", 0)
        if step == "clean" and weak == "record removed before the data":
            return ("clean", "drop")
        firsts: dict[str, tuple[Any, ...]] = {
            "accept": ("accept", "reserve" if w.drop != "taken" else "sync"),
            "stage": ("stage", "stage", 0),
            "publish": ("publish", "publish", 0),
            "cancel": ("cancel", "cancel", 0),
            "collect": ("collect", "fetch"),
            "place": ("place", 0),
            "unplace": ("unplace", 0),
            "answer": ("answer", "fill"),
            "clean": ("clean", "purge", 0) if w.remote else ("clean", "tidy"),
        }
        if step == "collect" and weak == "purge before the outputs are here":
            return ("collect", "purge", 0)
        if step in ("miss", "wait", "fit"):
            return ()
        return firsts.get(step, (step, "save"))

    def _place(self, w: World) -> str | None:
        """Return the folder of the ticket, as a census shows it."""
        if w.tickets:
            return str(w.tickets[-1][0] if len(w.tickets) == 1 else "running")
        return "incoming" if w.session in w.incoming and w.session else None

    def _perform(self, w: World) -> Steps:
        """Perform the next effect of the step under way."""
        step, what = w.at[0], w.at[1]
        if what in cluster.VERBS:
            return self._ask(w)
        act = getattr(placing, step, None) or getattr(self, "_" + step)
        return list(act(self, w) if step in ("place", "unplace") else act(w, what))

    def _ask(self, w: World) -> Steps:
        """Have the far end perform one effect of a verb."""
        step, verb, n = w.at
        session = w.own if step == "stage" else w.session
        name, after, end = cluster.far(self, w, verb, session, n)
        if end == "more":
            return [(name, after._replace(at=(step, verb, n + 1)))]
        if end == "fail":
            return [(name, after._replace(at=(), own=0))]
        nexts: dict[tuple[str, str], tuple[Any, ...]] = {
            ("stage", "stage"): ("stage", "prepare", 0),
            ("stage", "prepare"): ("stage", "save"),
            ("stage", "publish"): ("publish", "save"),
            ("publish", "publish"): ("publish", "save"),
            ("cancel", "cancel"): (),
            ("clean", "purge"): ("clean", "tidy"),
            ("collect", "purge"): ("collect", "fetch"),
        }
        if w.phase == "gone":
            return [(name, after._replace(at=()))]
        if (step, verb) == ("stage", "prepare") and self.weakened == "no intent to publish":
            return [(name, after._replace(at=("stage", "publish", 0)))]
        return [(name, after._replace(at=nexts[step, verb]))]

    def _take(self, w: World, what: str) -> Steps:
        return [("take: save INTENT", w._replace(phase="INTENT", at=("accept", "reserve")))]

    def _accept(self, w: World, what: str) -> Steps:
        if what == "reserve":
            answer = "-" if self.weakened == "no reserved answer" else "reserved"
            return [("accept: reserve", w._replace(answer=answer, at=("accept", "move")))]
        if what == "move":
            if w.drop == "gone":
                return [("accept: discard", w._replace(answer="-", at=("accept", "remove")))]
            if self.weakened == "drop copied, unlinked later":
                return [("accept: copy", w._replace(at=("accept", "save")))]
            forget = ("take",) if self.bounds.forget else ()
            forget = forget if w.drop == "here" else ()
            after = w._replace(drop="taken", unsynced=forget, at=("accept", "sync"))
            return [("accept: rename drop", after)]
        if what == "remove":
            return [("accept: remove record", w._replace(phase="gone", at=()))]
        if what == "sync" and self.bounds.forget:
            return [("accept: sync", w._replace(unsynced=(), at=("accept", "save")))]
        if what == "unlink":
            return [("accept: unlink drop", w._replace(drop="taken", at=()))]
        at = ("accept", "unlink") if w.drop == "here" else ()
        return [("accept: save ACCEPTED", w._replace(phase="ACCEPTED", at=at))]

    def _check(self, w: World, what: str) -> Steps:
        return [("check: save STAGING", w._replace(phase="STAGING", remote=True, at=()))]

    def _withdraw(self, w: World, what: str) -> Steps:
        after = w._replace(phase="ANSWERING", decided="cancelled", at=())
        return [("withdraw: save ANSWERING", after)]

    def _stage(self, w: World, what: str) -> Steps:
        after = w._replace(phase="PUBLISHING", session=w.own, own=0, at=())
        return [("stage: save PUBLISHING", after)]

    def _publish(self, w: World, what: str) -> Steps:
        after = w._replace(phase="PUBLISHED", own=0, at=())
        return [("publish: save PUBLISHED", after)]

    def _collect(self, w: World, what: str) -> Steps:
        if what == "fetch":
            _, n, pilot, kind = w.tickets[0] if w.tickets else ("done", 0, 0, "ok")
            if kind != "ok":
                after = w._replace(phase="ANSWERING", decided=kind, at=())
                return [("collect: save ANSWERING", after)]
            whole = cluster.outputs(self, w, n) == ("full", "pq"[pilot])
            bad = "" if whole else "I6 outputs are not one attempt's"
            outputs = tuple(o._replace(temporary=True) for o in w.outputs)
            after = w._replace(outputs=outputs, bad=bad, at=("collect", "save"))
            return [("collect: fetch", after)]
        existed = tuple(o.there != "-" for o in w.outputs)
        after = w._replace(existed=existed, decided="ok")
        if self.weakened == "placing without a record":
            return [("place: begin", after._replace(at=("place", 0)))]
        return [("collect: save PLACING", after._replace(phase="PLACING", at=()))]

    def _answer(self, w: World, what: str) -> Steps:
        if what == "fill":
            if w.answer == "-" and self.weakened != "no reserved answer":
                return self._answer(w, "sync")
            empty = self.weakened == "an answer is renamed before it is filled"
            answer = "reserved" if empty else "filled"
            return [("answer: fill", w._replace(answer=answer, at=("answer", "rename")))]
        if what == "rename":
            if w.cancel == "asked" and self.weakened != "a late cancel stays":
                return [("answer: remove cancel", w._replace(cancel="void"))]
            forget = ("answer",) if self.bounds.forget else ()
            after = w._replace(answer="-", finished="there", told=w.told + 1, unsynced=forget)
            bad = placing.judge(self, w)
            return [("answer: rename", after._replace(bad=bad, at=("answer", "sync")))]
        if what == "sync" and self.bounds.forget:
            return [("answer: sync", w._replace(unsynced=(), at=("answer", "save")))]
        return self._answered(w)

    def _answered(self, w: World) -> Steps:
        return [("answer: save CLEANING", w._replace(phase="CLEANING", at=()))]

    def _clean(self, w: World, what: str) -> Steps:
        if what == "tidy":
            outputs = tuple(Output(o.there) for o in w.outputs)
            lost = w.decided == "stage_out" and any(o.kept for o in w.outputs)
            bad = "I5 what stood there is lost" if lost else ""
            return [("clean: tidy", w._replace(outputs=outputs, bad=bad, at=("clean", "drop")))]
        if what == "drop":
            cancel = "void" if w.cancel == "moved" else w.cancel
            return [("clean: drop", w._replace(drop="gone", cancel=cancel, at=("clean", "remove")))]
        after = w._replace(phase="gone", session=0, existed=(), at=())
        if self.weakened == "record removed before the data":
            after = after._replace(at=("clean", "purge", 0))
        return [("clean: remove record", after)]

    # ---- user and power ----------------------------------------------------------------------

    def _user(self, w: World) -> Steps:
        found: Steps = []
        bounds = self.bounds
        if bounds.cancels and w.cancel == "-" and not w.told and w.drop != "gone":
            found.append(("user: cancel", w._replace(cancel="asked")))
        if bounds.again and w.drop == "here" and w.phase in ("-", "INTENT") and w.again == "-":
            found.append(("user: withdraw", w._replace(drop="gone")))
        if bounds.again and w.finished == "there":
            found.append(("user: read", w._replace(finished="read")))
        if bounds.again and w.again == "-" and w.drop != "here" and w.phase not in ("-", "INTENT"):
            found.append(("user: drop again", w._replace(again="here")))
        return found + (placing.meddle(w) if bounds.meddles else [])

    def _power(self, w: World) -> Steps:
        """A power cut at the service host undoes its last rename, and ends the pass."""
        off = w._replace(at=(), own=0, unsynced=())
        if w.unsynced[:1] == ("take",):
            return [("power cut: take", off._replace(drop="here"))]
        if w.unsynced[:1] == ("answer",) and w.finished == "there":
            back = off._replace(answer="filled", finished="-", told=w.told - 1)
            return [("power cut: answer", back)]
        if w.unsynced[:1] == ("output",):
            return [("power cut: output", placing.undo(off, w.unsynced))]
        return []

    # ---- judging -----------------------------------------------------------------------------

    def wrong(self, w: World) -> list[str]:
        """Return the invariants that are violated."""
        found = [w.bad] if w.bad else []
        publishable = w.session in w.incoming and w.phase in ("PUBLISHING", "PUBLISHED")
        if len(w.tickets) + publishable > 1:
            found.append("I2 two tickets")
        if w.told > 1:
            found.append("I3 answered twice")
        if w.phase not in ("-", "INTENT") and w.drop == "here" and not (w.at or w.other):
            found.append("I1 one drop, two jobs")
        if w.phase == "PUBLISHED" and not (w.tickets or publishable):
            found.append("I1 a published job has no ticket")
        for ticket in w.tickets:
            crashes = ticket[2] if ticket[0] in ("ready", "running") else 0
            if crashes >= self.bounds.attempts or ticket[1] > self.bounds.starts:
                found.append("I7 started or crashed too often")
        if w.phase == "gone":
            if not w.told and w.drop != "here" and (w.remote or w.decided != "-"):
                found.append("I1 taken and not answered")
            if w.tickets:
                found.append("I11 a ticket that no record knows")
            if any(o.temporary or o.kept for o in w.outputs) or w.answer != "-":
                found.append("I11 litter at the service host")
        return found

    def is_settled(self, w: World) -> bool:
        """Tell whether the job was answered exactly once, or withdrawn, and nothing is left."""
        withdrawn = w.phase in ("-", "gone") and w.drop == "gone" and not w.remote
        answered = w.phase == "gone" and w.told == 1
        far = w.incoming or w.folder or w.tickets or w.late
        return (withdrawn or answered) and not far and not w.at and w.again != "here"


def _swapped(w: World) -> World:
    """Return the world as the second pass sees it."""
    at, own = w.other
    return w._replace(at=at, own=own, other=(w.at, w.own))
