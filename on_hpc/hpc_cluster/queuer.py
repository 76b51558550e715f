"""The queuer: keeps pilots in the batch system's queue while work is waiting.

`keep` is one look: ask the batch system once, observe the pilots (`lookout`), take the tickets and
the slots from those that are positively dead (`reaping`), and submit a pilot where work is waiting
that no living one will reach (`demand`). Two hosts may run it at the same time: a slot is taken by
one rename, and a pilot's folder and slot exist before it is submitted, so that a kill at any moment
leaves a pilot to look for and never two in a slot.

An unclear answer to a submission is resolved by looking for the nonce, never by submitting again.
After failures the next submission waits (`backoff`).
"""

import argparse
import json
import os
import sys
from typing import Any, Dict, List, Optional

from hpc_cluster import backoff, batch, clock, command_line, files, lookout, pilot, reaping, slots
from hpc_cluster.demand import demand, waiting
from hpc_cluster.errors import ClusterError
from hpc_cluster.lookout import Seen, works
from hpc_cluster.policy import OPTIONS, Policy, PolicyError
from hpc_cluster.spool import Spool
from hpc_cluster.walltime import WARNING_S


def keep(spool: Spool, wishes: Dict[str, Any]) -> Dict[str, Any]:
    """Look after the pilots once and return the report of the verb `pilots`.

    `wishes` is the policy as a JSON object (`policy`). Raises OSError, ClusterError; what the batch
    system refuses is in the report instead.
    """
    policy = Policy.parse(wishes)
    batch.dialect(policy.scheduler)
    lookout.adopt(spool, policy.scheduler)
    known = [pilot.read(spool, name) for name in pilot.pilots(spool)]
    seen = lookout.observe(spool, [info for info in known if not info.get("dead")])
    for one in seen:
        if one.dead is not None and not reaping.bury(spool, one):
            break  # the batch system hangs, and so would the next: a look takes no longer than this
    reaped = reaping.reap(spool, policy)
    reaping.free_slots(spool)
    living = [one for one in seen if one.dead is None]
    backoff.forget(spool, [one.info["pilot"] for one in seen if _worked(spool, one)])
    submitted: List[str] = []
    if policy.submit:
        submitted = _submit(spool, policy, living)
        living += [Seen(pilot.read(spool, name), None, None) for name in submitted]
    reaping.clean(spool)
    return {
        "pilots": [lookout.report(one) for one in living],
        "submitted": submitted,
        "reaped": reaped,
        "trouble": backoff.shown(spool, policy.recipe),
        "silent": next((one.silent for one in seen if one.silent), None),
    }


def _worked(spool: Spool, one: Seen) -> bool:
    """Tell whether a pilot has shown that pilots work here.

    RACE: one that is dead may have worked and closed since it was read; nobody looks at it again.
    """
    return one.works or (one.dead is not None and works(pilot.read(spool, one.info["pilot"])))


def _submit(spool: Spool, policy: Policy, living: List[Seen]) -> List[str]:
    """Submit pilots for work that waits and that no living pilot will reach."""
    submitted: List[str] = []
    busy = len(spool.tickets("running"))
    wanted = demand(policy, waiting(spool, policy), busy, living)
    while len(submitted) < wanted.more and backoff.wait_s(spool, policy.recipe) <= 0:
        name = os.urandom(8).hex()
        slot = slots.take(spool, wanted.slots, name)
        if slot is None:
            break
        answer = _submit_one(spool, policy, name, slot)
        if not isinstance(answer, batch.Refused):
            submitted.append(name)
        if not isinstance(answer, batch.Submitted):
            break
    return submitted


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
        answer = _submit_one(spool, policy, name, slot)
        if isinstance(answer, batch.Refused):
            message = answer.message
    return {"pilot": lookout.report(Seen(pilot.read(spool, name), None, None)), "message": message}


def _submit_one(spool: Spool, policy: Policy, name: str, slot: int) -> batch.Answer:
    """Submit one pilot for a slot that it holds; tell whether the batch system has it."""
    info = {
        "slot": slot,
        "native_id": None,
        "batch": policy.scheduler,
        "recipe": policy.recipe,
        "submitted": clock.iso(),
    }
    pilot.make(spool, name, info)
    dialect = batch.dialect(policy.scheduler)
    answer = dialect.submitted(batch.run(dialect.submit(_request(spool, policy, name, slot))))
    if isinstance(answer, batch.Submitted):
        pilot.write(spool, name, files.merge(info, {"native_id": answer.native_id}))
        return answer
    if isinstance(answer, batch.Unclear):
        pilot.write(spool, name, files.merge(info, {"unclear": answer.message}))
        return answer
    reason = {"dead": f"refused: {answer.message}", "ended": clock.iso()}
    pilot.write(spool, name, reason, "dead.json")
    slots.free(spool, slot, name)
    backoff.note(spool, "submit", answer.message, policy.recipe, passing=answer.passing)
    return answer


def _request(spool: Spool, policy: Policy, name: str, slot: int) -> batch.Request:
    folder = os.path.join(spool.workspace, "pilots", name)
    argv = [policy.python, os.path.join(folder, "code", "hpc_runner")]
    argv += command_line.words(spool.workspace, name, policy)
    return batch.Request(
        pilot=name,
        name=lookout.name_of(spool, slot),
        workspace=spool.workspace,
        log=os.path.join(folder, "log"),
        prologue=policy.prologue,
        argv=tuple(argv),
        walltime_s=policy.walltime,
        warning_s=WARNING_S,
        options=tuple((key, getattr(policy, key) or "") for key in OPTIONS),
        extra=policy.options,
    )


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
