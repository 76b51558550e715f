"""The lookout: what is to be seen of pilots, from the batch system and from their heartbeats."""

import hashlib
from typing import Any, Dict, List, NamedTuple, Optional

from hpc_cluster import batch, files, pilot, slots
from hpc_cluster.spool import Spool


class Seen(NamedTuple):
    """One pilot after one look."""

    info: Dict[str, Any]
    """As from `pilot.read`."""
    state: Optional[batch.PilotState]
    """What the batch system says; None when it does not list it, or did not answer."""
    dead: Optional[str]
    """Why it is positively dead."""
    silent: Optional[str] = None
    """What the batch system said in place of a complete list."""

    @property
    def works(self) -> bool:
        """It has shown that pilots work here."""
        return works(self.info)

    @property
    def reaches(self) -> bool:
        """It will look at what is waiting now."""
        return not any(self.info.get(word) for word in ("stopping", "closing", "closed"))

    @property
    def waits(self) -> bool:
        """It is in the batch system's queue, or on its way there."""
        return not self.info.get("started")


def works(info: Dict[str, Any]) -> bool:
    """Tell whether a pilot has shown that pilots work here.

    It has when it finished a job, or claimed one or closed without trouble. One that gave back
    whatever it claimed, for want of space, has not: its successors would do the same for ever.
    """
    fine = not info.get("trouble")
    return bool(info.get("finished") or (fine and (info.get("claimed") or info.get("closed"))))


def name_of(spool: Spool, slot: Optional[int]) -> str:
    """Return the name of a slot's pilots in the batch system."""
    return f"hpcb{hashlib.sha256(spool.root).hexdigest()[:8]}-{'x' if slot is None else slot}"


def adopt(spool: Spool, scheduler: str) -> None:
    """Give a folder to every pilot that holds a ticket or a slot and has none.

    Then it is looked for like any other; that nobody finds it proves it dead after a while.
    """
    names: Dict[str, Optional[int]] = {t.pilot: None for t in spool.tickets("running")}
    names.update({name: slot for slot, name in slots.holders(spool).items()})
    for name, slot in sorted(names.items()):
        folder = spool.pilot_folder(name)
        papers = [files.join(folder, paper) for paper in ("pilot.json", "adopted.json")]
        if not any(files.exists(paper) for paper in papers):
            pilot.adopt(spool, name, {"slot": slot, "batch": scheduler})


def observe(spool: Spool, infos: List[Dict[str, Any]]) -> List[Seen]:
    """Ask each batch system that is concerned once, and look at every heartbeat."""
    seen = []
    for name in sorted({info.get("batch", "local") for info in infos}):
        dialect = batch.dialect(name)
        mine = [info for info in infos if info.get("batch", "local") == name]
        wanted = [
            batch.Wanted(i["pilot"], name_of(spool, i.get("slot")), i.get("native_id"))
            for i in mine
        ]
        command = dialect.query(wanted)
        captured = batch.run(command)
        listed = dialect.listed(captured)
        silent = batch.no_answer(command, captured) if listed is None else None
        for info in mine:
            state = None if listed is None else listed.get(info["pilot"])
            present = None if listed is None else state is not None
            looked = pilot.observe(spool, info["pilot"], present)
            if state is not None and not info.get("native_id"):
                info["native_id"] = state.native_id
            dead = pilot.death(info, listed, looked, dialect.absent_s)
            seen.append(Seen(info, state, dead, silent))
    return seen


def report(one: Seen) -> Dict[str, Any]:
    """Return one pilot as the report of the verb `pilots` shows it."""
    info, state = one.info, one.state
    if state is not None:
        word = state.state
    elif info.get("closed"):
        word = batch.ENDED
    elif info.get("started"):
        word = batch.UNKNOWN
    else:
        word = "submitted"
    return {
        "pilot": info["pilot"],
        "slot": info.get("slot"),
        "native_id": info.get("native_id"),
        "state": word,
        "node": info.get("host") or (state.node if state is not None else None),
        "since": info.get("started") or info.get("submitted"),
        "reason": state.reason if state is not None else info.get("unclear"),
        "submitted": info.get("submitted"),
        "started": info.get("started"),
        "end_of_walltime": info.get("end_of_walltime"),
        "claimed": info.get("claimed"),
        "running": info.get("running") or [],
        "closed": info.get("closed"),
        "dismissed": info.get("dismissed"),
        "trouble": info.get("trouble"),
        "warnings": info.get("warnings") or [],
    }
