"""The protocol holds in every state of the model, and each rule is needed: without it, one breaks.

The normal run searches slices of the world, each with its own faults at full; HPC_BATCH_FULL=1
searches larger ones, in which the faults meet. The number of states is printed (`-s`).
"""

from __future__ import annotations

import os

import pytest
from model.explorer import explore
from model.protocol import Bounds, Protocol

CLUSTER = Bounds(cancels=False, late=False)
ONE_PILOT = Bounds(pilots=1, attempts=1, starts=1)
PLACING = ONE_PILOT._replace(late=False, cancels=False, meddles=True, existing=(True, False))
NAME = ONE_PILOT._replace(late=False, forget=False, again=True)

CLAIMS = CLUSTER._replace(claims=True, forget=False, existing=(), starts=2)

SLICES = {
    "pilots die and are wrongly thought dead": CLUSTER._replace(attempts=3, starts=4),
    "far ends are late": Bounds(starts=2, cancels=False),
    "far ends are late, jobs are cancelled": ONE_PILOT,
    "jobs are cancelled while pilots die": Bounds(late=False, starts=2),
    "claims are forgotten under living pilots": CLAIMS,
    "three outputs": PLACING._replace(existing=(True, False, True)),
    "the name is used again": NAME,
    "the name is used again, and the power fails": NAME._replace(forget=True),
}

WHOLE = {
    "everything on the cluster": Bounds(),
    "claims are forgotten, and all else": CLAIMS._replace(forget=True, starts=3),
    "everything at the service host": PLACING._replace(again=True, cancels=True),
    "three outputs, two pilots": PLACING._replace(
        existing=(True, False, True), pilots=2, attempts=2, starts=2
    ),
    "late far ends and the name used again": ONE_PILOT._replace(again=True, forget=False),
}

WEAKENED = {
    # what is weakened: (where that shows, what is violated)
    "no intent to publish": (Bounds(forget=False, cancels=False), "I2 two tickets"),
    "no reserved answer": (NAME, "I3 answered twice"),
    "no intent to answer": (PLACING, "I4 outputs are taken away after the answer"),
    "outputs shared between attempts": (CLUSTER, "I6 outputs are not one attempt's"),
    "finish is not fenced": (CLUSTER, "I2 two tickets"),
    "record removed before the data": (CLUSTER, "I11 a ticket that no record knows"),
    "purge before the outputs are here": (CLUSTER, "I11 purged before the answer"),
    "purge before the answer": (CLUSTER, "I11 purged before the answer"),
    "drop copied, unlinked later": (NAME, "I1 one drop, two jobs"),
    "a rename is a link and an unlink": (CLUSTER, "I2 two tickets"),
    "publish is neither synced nor healed": (CLUSTER, "stuck"),
    "attempt number not kept": (CLUSTER, "I6 outputs are not one attempt's"),
    "given back without a count while it runs": (CLUSTER, "I6 outputs are not one attempt's"),
    "a start takes a folder that is there": (CLAIMS, "I6 outputs are not one attempt's"),
    "crashes are not counted": (CLUSTER, "I7 started or crashed too often"),
    "two passes at a time": (Bounds(forget=False, cancels=False, late=False), "I2 two tickets"),
    "any session's ticket is published": (CLUSTER, "I2 two tickets"),
    "prepare writes in place": (ONE_PILOT, "I8 a claimed job has no files"),
    "placing without a record": (PLACING, "I5 an error leaves an output"),
    "unplace without a look at the inode": (PLACING, "I5 a file that is not ours was removed"),
    "unplace trusts that a file existed": (PLACING, "I5 an error leaves an output"),
    "what cannot be put back is given up": (PLACING, "I5 an error leaves an output"),
    "what stood there is not kept": (PLACING, "I5 an old file was overwritten"),
    "the error is decided before UNPLACING": (PLACING, "I5 an error leaves an output"),
    "answer before outputs": (PLACING, "I4 ok without its outputs"),
    "an answer is renamed before it is filled": (NAME, "I4 an incomplete answer"),
    "a late cancel stays": (NAME, "a late cancel cancels a later drop"),
}


@pytest.mark.parametrize("name", SLICES)
def test_every_state_is_right_and_leads_to_one_answer_and_a_clean_desk(name: str) -> None:
    search(name, SLICES[name])


@pytest.mark.skipif(not os.environ.get("HPC_BATCH_FULL"), reason="HPC_BATCH_FULL=1 runs it")
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.timeout(3600)
def test_every_state_of_a_larger_world_is_right(name: str) -> None:
    search(name, WHOLE[name])


def search(name: str, bounds: Bounds) -> None:
    found = explore(Protocol(bounds))
    print(f"\n{name}: {found.states} states, {found.steps} steps, {found.settled} settled")
    assert not found.wrong, "\n".join(f"{k}: {' > '.join(v)}" for k, v in found.wrong.items())
    assert found.stuck is None, " > ".join(found.stuck)
    assert found.settled


@pytest.mark.parametrize("weakened", WEAKENED)
def test_a_weakened_rule_is_caught(weakened: str) -> None:
    bounds, expected = WEAKENED[weakened]
    found = explore(Protocol(bounds, weakened), first=True)
    caught = {**found.wrong, **({"stuck": found.stuck} if found.stuck else {})}
    assert list(caught) == [expected]
    print(f"\n{weakened}: {found.states} states, {expected}: {' > '.join(caught[expected])}")


def test_a_claim_forgotten_with_its_folder_under_a_living_pilot_is_the_known_weakness() -> None:
    found = explore(Protocol(CLAIMS._replace(folders=True)), first=True)
    assert list(found.wrong) == ["I6 outputs are not one attempt's"]
    assert "storage: forget" in found.wrong["I6 outputs are not one attempt's"]
