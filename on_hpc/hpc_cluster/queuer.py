"""The queuer: keeps pilots in the batch system's queue while work is waiting.

`keep` is one look: ask the batch system once, observe the pilots, take the tickets and the slots
from those that are positively dead, and submit a pilot where work is waiting that no living one
will reach. Two hosts may run it at the same time: a slot is taken by one rename, and a pilot's
folder and slot exist before it is submitted, so that a kill at any moment leaves a pilot to look
for and never two in a slot.

An unclear answer to a submission is resolved by looking for the nonce, never by submitting again.
When submissions are refused, or pilots die before they claim anything, the next one waits 0, 1, 15,
30, 60 minutes; the reason is kept in `pilots/trouble` and shown, and the first pilot that works
ends it.
"""

import argparse
import hashlib
import json
import os
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from hpc_cluster import batch, clock, description, files, pilot, slots
from hpc_cluster.errors import ClusterError
from hpc_cluster.policy import OPTIONS, Policy, PolicyError
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.walltime import WARNING_S

DELAYS_S = (0.0, 60.0, 900.0, 1800.0, 3600.0)
"""Waiting after the first, second, … failure in a row."""

STAGING_S = 600.0
"""An incoming ticket that did not change for so long is no work that waits."""

KEPT = 10
"""So many dead pilots keep their folder, and all that died within KEPT_S."""

KEPT_S = 24 * 3600.0

LOG_BYTES = 4096
"""So much of the end of a pilot's log is looked at for why it died."""


class Seen(NamedTuple):
    """One pilot after this look."""

    info: Dict[str, Any]
    state: Optional[batch.PilotState]
    """What the batch system says; None when it does not list it, or did not answer."""
    dead: Optional[str]
    """Why it is positively dead."""


def keep(spool: Spool, wishes: Dict[str, Any]) -> Dict[str, Any]:
    """Look after the pilots once and return the report of the verb `pilots`.

    `wishes` is the policy as a JSON object (`policy`). Raises OSError, ClusterError; what the batch
    system refuses is in the report instead.
    """
    policy = Policy.parse(wishes)
    batch.dialect(policy.scheduler)
    _adopt(spool, policy)
    known = [pilot.read(spool, name) for name in pilot.pilots(spool)]
    seen = observe(spool, [info for info in known if not info.get("dead")])
    for one in seen:
        if one.dead is not None:
            _bury(spool, one)
    reaped = _reap(spool, policy)
    _free_slots(spool)
    living = [one for one in seen if one.dead is None]
    _forget_trouble(spool, seen)
    submitted: List[str] = []
    if policy.submit:
        submitted = _submit(spool, policy, living)
        living += [Seen(pilot.read(spool, name), None, None) for name in submitted]
    _clean(spool)
    trouble = _trouble(spool)
    return {
        "pilots": [_report(one) for one in living],
        "submitted": submitted,
        "reaped": reaped,
        "trouble": trouble,
    }


# ---- observing ---------------------------------------------------------------------------------


def _adopt(spool: Spool, policy: Policy) -> None:
    """Give a folder to every pilot that holds a ticket or a slot and has none.

    Then it is looked for like any other; that nobody finds it proves it dead after a while.
    """
    names: Dict[str, Optional[int]] = {t.pilot: None for t in spool.tickets("running")}
    names.update({name: slot for slot, name in slots.holders(spool).items()})
    for name, slot in sorted(names.items()):
        if not files.exists(files.join(spool.pilot_folder(name), "pilot.json")):
            pilot.adopt(spool, name, {"slot": slot, "batch": policy.scheduler})


def observe(spool: Spool, infos: List[Dict[str, Any]]) -> List[Seen]:
    """Ask each batch system that is concerned once, and look at every heartbeat."""
    seen = []
    for name in sorted({info.get("batch", "local") for info in infos}):
        dialect = batch.dialect(name)
        mine = [info for info in infos if info.get("batch", "local") == name]
        wanted = [
            batch.Wanted(i["pilot"], _name(spool, i.get("slot")), i.get("native_id")) for i in mine
        ]
        listed = dialect.listed(batch.run(dialect.query(wanted)))
        for info in mine:
            state = None if listed is None else listed.get(info["pilot"])
            present = None if listed is None else state is not None
            looked = pilot.observe(spool, info["pilot"], present)
            if state is not None and not info.get("native_id"):
                info["native_id"] = state.native_id
            dead = pilot.death(info, listed, looked, dialect.absent_s)
            seen.append(Seen(info, state, dead))
    return seen


def _name(spool: Spool, slot: Optional[int]) -> str:
    """Return the name of a slot's pilots in the batch system."""
    return f"hpcb{hashlib.sha256(spool.root).hexdigest()[:8]}-{'x' if slot is None else slot}"


def _works(info: Dict[str, Any]) -> bool:
    """Whether a pilot has shown that pilots work here: it claimed a job, or closed in peace."""
    return bool(info.get("claimed")) or bool(info.get("closed") and not info.get("trouble"))


def _reaches(one: Seen) -> bool:
    """Whether a pilot will look at what is waiting now."""
    return not (one.info.get("closing") or one.info.get("closed"))


# ---- the dead ----------------------------------------------------------------------------------


def _bury(spool: Spool, one: Seen) -> None:
    """Write down why a pilot is dead, before anything is taken from it."""
    name = one.info["pilot"]
    # RACE: it may have claimed, worked and closed between being read and being asked for.
    info = files.merge(one.info, pilot.read(spool, name))
    if one.state is not None and one.state.state != batch.ENDED:
        # It hangs: its slot will be given away, so it must not come back.
        batch.run(batch.dialect(info.get("batch", "local")).cancel(one.state.native_id))
    reason = None if one.state is None else one.state.reason
    pilot.write(
        spool,
        name,
        {"dead": one.dead, "ended": clock.iso(), "end_reason": reason},
        "dead.json",
    )
    # One that was never submitted, because its submitter was killed, says nothing about pilots; nor
    # does one that an operator sent away.
    tried = info.get("started") or info.get("native_id") or info.get("unclear")
    tried = tried and not info.get("dismissed")
    if tried and not _works(info):
        last = info.get("trouble") or batch.last_lines(_log(spool, name))
        words = f"pilot {name} ended before it claimed a job: {one.dead}"
        _note_trouble(spool, "pilot", words + (f" ({last})" if last else ""))


def _log(spool: Spool, name: str) -> str:
    """Return the end of what a pilot printed."""
    try:
        data = files.read_bytes(files.join(spool.pilot_folder(name), "log"))
    except OSError:
        return ""
    return data[-LOG_BYTES:].decode("utf-8", "replace")


def _reap(spool: Spool, policy: Policy) -> List[str]:
    """Running to ready, or done as died: take the tickets from dead pilots.

    That an operator sent the pilot away is no crash of its jobs.
    """
    reaped = []
    known: Dict[str, Dict[str, Any]] = {}
    for ticket in spool.tickets("running"):
        if ticket.pilot not in known:
            known[ticket.pilot] = pilot.read(spool, ticket.pilot)
        info = known[ticket.pilot]
        if not info.get("dead"):
            continue
        attempts, starts = _limits(spool, policy, ticket)
        if info.get("dismissed"):
            went = spool.release(ticket, starts)
        else:
            went = spool.crash(ticket, attempts, starts)
        if went != "gone":
            reaped.append(ticket.job)
    return reaped


def _limits(spool: Spool, policy: Policy, ticket: Ticket) -> Tuple[int, int]:
    try:
        path = files.join(spool.job_folder(ticket.job), "description.json")
        found = description.read(path)
        return found.attempts, found.starts
    except (OSError, ClusterError):
        return policy.attempts, policy.starts


def _free_slots(spool: Spool) -> None:
    for slot, name in slots.holders(spool).items():
        if pilot.read(spool, name).get("dead"):
            slots.free(spool, slot, name)


def _clean(spool: Spool) -> None:
    """Move the folders of pilots to the trash that died long ago and that no ticket names."""
    now = files.server_now(spool.path("pilots"), f"probe.{clock.node()}")
    dead = []
    for name in pilot.pilots(spool):
        try:
            died = os.stat(files.join(spool.pilot_folder(name), "dead.json")).st_mtime
        except FileNotFoundError:
            continue
        dead.append((died, name))
        code = files.join(spool.pilot_folder(name), "code")
        if files.exists(code):
            spool.discard(code, keep=False)
    old = [name for died, name in sorted(dead)[:-KEPT] if now - died > KEPT_S]
    if not old:
        return
    named = {t.pilot for t in spool.tickets("running")} | set(slots.holders(spool).values())
    for instance in files.names(spool.path("done")):
        named |= {t.pilot for t in spool.tickets("done", instance)}
    for name in old:
        if name not in named:
            spool.discard(spool.pilot_folder(name), keep=False)


# ---- submitting --------------------------------------------------------------------------------


def _submit(spool: Spool, policy: Policy, living: List[Seen]) -> List[str]:
    """Submit pilots for work that waits and that no living pilot will reach."""
    submitted: List[str] = []
    while True:
        waiting = _waiting(spool)
        reaching = sum(1 for one in living if _reaches(one)) + len(submitted)
        busy = len(spool.tickets("running"))
        needed = min(policy.max, -(-(waiting + busy) // policy.slots)) if waiting else 0
        if reaching >= needed or _must_wait(spool):
            return submitted
        name = os.urandom(8).hex()
        slot = slots.take(spool, policy.max, name)
        if slot is None:
            return submitted
        if not _submit_one(spool, policy, name, slot):
            return submitted
        submitted.append(name)


def submit(spool: Spool, wishes: Dict[str, Any], name: str) -> Dict[str, Any]:
    """Submit one pilot now, under the name given, whether work is waiting or not.

    An operator asks for it, so no back-off counts; the slots do. Asked again under the same name,
    it only tells what became of that pilot. Raises OSError, ClusterError.
    """
    policy = Policy.parse(wishes)
    batch.dialect(policy.scheduler)
    message = None
    if not files.exists(files.join(spool.pilot_folder(name), "pilot.json")):
        slot = slots.take(spool, policy.max, name)
        if slot is None:
            held = ", ".join(sorted(slots.holders(spool).values()))
            return {"pilot": None, "message": f"every slot is held, by: {held}"}
        if not _submit_one(spool, policy, name, slot):
            message = str(_read_trouble(spool).get("message"))
    return {"pilot": _report(Seen(pilot.read(spool, name), None, None)), "message": message}


def _submit_one(spool: Spool, policy: Policy, name: str, slot: int) -> bool:
    """Submit one pilot for a slot that it holds; tell whether the batch system may have it."""
    info = {"slot": slot, "native_id": None, "batch": policy.scheduler, "submitted": clock.iso()}
    pilot.make(spool, name, info)
    dialect = batch.dialect(policy.scheduler)
    answer = dialect.submitted(batch.run(dialect.submit(_request(spool, policy, name, slot))))
    if isinstance(answer, batch.Submitted):
        pilot.write(spool, name, files.merge(info, {"native_id": answer.native_id}))
        return True
    if isinstance(answer, batch.Unclear):
        pilot.write(spool, name, files.merge(info, {"unclear": answer.message}))
        return True
    reason = {"dead": f"refused: {answer.message}", "ended": clock.iso()}
    pilot.write(spool, name, reason, "dead.json")
    slots.free(spool, slot, name)
    _note_trouble(spool, "submit", answer.message)
    return False


def _request(spool: Spool, policy: Policy, name: str, slot: int) -> batch.Request:
    folder = os.path.join(spool.workspace, "pilots", name)
    argv = [policy.python, os.path.join(folder, "code", "hpc_runner")]
    argv += ["--workspace", spool.workspace, "--pilot", name, "--slots", str(policy.slots)]
    argv += ["--linger", f"{policy.linger:g}", "--walltime", str(policy.walltime)]
    if policy.gpuram is not None:
        argv += ["--gpuram", f"{policy.gpuram:g}"]
    return batch.Request(
        pilot=name,
        name=_name(spool, slot),
        workspace=spool.workspace,
        log=os.path.join(folder, "log"),
        prologue=policy.prologue,
        argv=tuple(argv),
        walltime_s=policy.walltime,
        warning_s=WARNING_S,
        options=tuple((key, getattr(policy, key) or "") for key in OPTIONS),
        extra=policy.options,
    )


def _waiting(spool: Spool) -> int:
    """Count the tickets that are ready, or on their way by the file server's clock."""
    count = len(spool.tickets("ready"))
    incoming = spool.tickets("incoming")
    if incoming:
        now = files.server_now(spool.path("pilots"), f"probe.{clock.node()}")
        for ticket in incoming:
            try:
                count += now - os.stat(spool.ticket_path(ticket)).st_mtime < STAGING_S
            except FileNotFoundError:
                # RACE: published since it was listed; then it waits as well.
                count += 1
    return count


# ---- trouble -----------------------------------------------------------------------------------


def _trouble_path(spool: Spool) -> bytes:
    return spool.path("pilots", "trouble")


def _read_trouble(spool: Spool) -> Dict[str, Any]:
    try:
        found = files.read_json(_trouble_path(spool))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note_trouble(spool: Spool, what: str, message: str) -> None:
    """Count one more failure in a row; the file's mtime says when, by the file server's clock."""
    before = _read_trouble(spool)
    now = {
        "failures": int(before.get("failures", 0)) + 1,
        "what": what,
        "message": message,
        "since": before.get("since", clock.iso()),
    }
    files.replace(_trouble_path(spool), files.to_json(now), f".{os.urandom(4).hex()}.new")


def _forget_trouble(spool: Spool, seen: List[Seen]) -> None:
    """Trouble ends when a pilot works that was submitted after it, by the file server's clock."""
    try:
        failed = os.stat(_trouble_path(spool)).st_mtime_ns
        for one in seen:
            path = files.join(spool.pilot_folder(one.info["pilot"]), "pilot.json")
            if _works(one.info) and os.stat(path).st_mtime_ns > failed:
                files.unlink(_trouble_path(spool))
    except FileNotFoundError:
        # RACE: another host saw a pilot that works; or there is no trouble, as nearly always.
        return


def _wait_s(spool: Spool) -> float:
    """Return for how long nothing may be submitted."""
    failures = int(_read_trouble(spool).get("failures", 0))
    if not failures:
        return 0.0
    try:
        failed = os.stat(_trouble_path(spool)).st_mtime
    except FileNotFoundError:
        # RACE: another host saw a pilot that works.
        return 0.0
    now = files.server_now(spool.path("pilots"), f"probe.{clock.node()}")
    return failed + DELAYS_S[min(failures, len(DELAYS_S)) - 1] - now


def _must_wait(spool: Spool) -> bool:
    return _wait_s(spool) > 0


def _trouble(spool: Spool) -> Optional[Dict[str, Any]]:
    """Return the trouble as it is shown."""
    found = _read_trouble(spool)
    if not found:
        return None
    left = max(0.0, _wait_s(spool))
    return {
        "what": found.get("what"),
        "message": found.get("message"),
        "since": found.get("since"),
        "next": clock.iso(clock.unix() + left),
    }


# ---- the program -------------------------------------------------------------------------------


def _report(one: Seen) -> Dict[str, Any]:
    """Return one pilot as the report shows it."""
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
    }


def main(argv: Optional[List[str]] = None) -> int:
    """Look after the pilots once: the program hpc_queuer."""
    parser = argparse.ArgumentParser(
        prog="hpc_queuer", description="Keep pilots queued while work is waiting; print what is."
    )
    parser.add_argument("--workspace", required=True, help="the workspace on the cluster")
    parser.add_argument(
        "--policy", default="-", help="a file with the policy as JSON; - for standard input"
    )
    options = parser.parse_args(argv)
    try:
        if options.policy == "-":
            text = sys.stdin.read()
        else:
            text = files.read_bytes(os.fsencode(options.policy)).decode("utf-8")
        wishes = json.loads(text)
        Policy.parse(wishes)
        report = keep(Spool.open(options.workspace), wishes)
    except ValueError as error:
        print(f"hpc_queuer: the policy is not JSON: {error}", file=sys.stderr)
        return 2
    except PolicyError as error:
        print(f"hpc_queuer: {error}", file=sys.stderr)
        return 2
    except (OSError, ClusterError) as error:
        print(f"hpc_queuer: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=4, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
