"""A result that is read behind a ticket in done is the one that the ticket stands for."""

import pytest
from workshop import INSTANCE, SESSION, Workshop

from hpc_cluster import files
from hpc_cluster.verbs import Verbs

P, Q = "a" * 16, "b" * 16


@pytest.fixture
def shop(tmp_path):
    made = Workshop(tmp_path / "w")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"id": "another"}, "another attempt"),
        ({"attempt": 2}, "another attempt"),
        ({"pilot": Q}, "another pilot"),
    ],
)
def test_a_result_belongs_to_the_start_and_the_pilot_of_its_ticket(shop, changes, words):
    job = shop.job("true")
    ours = shop.spool.claim(shop.spool.tickets("ready")[0], P)
    folder = shop.spool.attempt_folder(job, 1)
    files.make_folder(folder)
    result = {"id": job, "attempt": 1, "pilot": P, "rc": 0, **changes}
    files.write_new(files.join(folder, "result.json"), files.to_json(result))
    assert shop.spool.finish(ours, "ok")
    verbs = Verbs(shop.spool, SESSION, INSTANCE, None)
    [found] = verbs.do("collect", {"tickets": [f"{job}.a1.{P}.ok"]}).values()
    if words is None:
        assert (found["result"], found["error"]) == (result, None)
    else:
        assert found["result"] is None and words in found["error"]
