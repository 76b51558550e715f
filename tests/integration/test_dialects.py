"""The queuer over every batch system, as a fake that really starts pilots, and lies.

What Slurm does in test_queuer, the others do here: one pilot per slot, nothing lost, nothing
submitted twice.
"""

import json
import os
import signal
from pathlib import Path

import fake_batch
import pytest
from workshop import Workshop, wait_until

from hpc_cluster import batch, clock, files, pilot, slots

FAKEBIN = Path(__file__).parent.parent / "fakebin"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path / "workspace")
    yield shop
    shop.close()


class Fake:
    """A fake batch system and the queuer over it."""

    def __init__(self, name, memory, shop, setenv):
        self.name, self.memory, self.shop, self.setenv = name, memory, shop, setenv

    def behave(self, submit="", listing=""):
        self.setenv("FAKE_SUBMIT", submit)
        self.setenv("FAKE_LIST", listing)

    def keep(self, **policy):
        return self.shop.keep(scheduler=self.name, **policy)

    def jobs(self):
        return [json.loads(path.read_text()) for path in sorted(self.memory.iterdir())]

    def calls(self):
        calls = Path(f"{self.memory}.calls")
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    def long_job(self):
        """Publish a job that lasts until `let_go`."""
        go = f"{self.memory}.go"
        return self.shop.job(f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.1; done\n")

    def let_go(self):
        Path(f"{self.memory}.go").touch()


@pytest.fixture(params=["flux", "lsf", "pbs", "sge", "torque"])
def fake(request, tmp_path, monkeypatch, shop):
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setenv("PATH", f"{FAKEBIN}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(memory))
    monkeypatch.setenv("FAKE_SYSTEM", request.param)
    fake = Fake(request.param, memory, shop, monkeypatch.setenv)
    yield fake
    for job in fake.jobs():
        if job["pid"]:
            wait_until(lambda pid=job["pid"]: clock.process_start(pid) is None)


def age(shop, name, seconds):
    """Make what this node remembers of a pilot's heartbeat and absence older."""
    path = files.join(shop.spool.pilot_folder(name), "observed." + clock.node())
    memory = files.read_json(path)
    memory["since"] -= seconds
    if memory["absent"] is not None:
        memory["absent"] -= seconds
    files.write_new(path, files.to_json(memory))


def test_pilots_are_submitted_run_everything_and_end(fake, shop):
    jobs = [fake.long_job() for _ in range(2)]
    report = fake.keep(max=2)
    assert len(report["submitted"]) == 2 and report["trouble"] is None
    before = fake.calls()
    report = fake.keep(max=2)
    assert fake.calls() == before + 1  # one query, however many pilots
    assert {one["state"] for one in report["pilots"]} == {"running"}
    assert sorted(one["native_id"] for one in report["pilots"]) == [j["id"] for j in fake.jobs()]
    wait_until(lambda: len(shop.spool.tickets("running")) == 2)
    fake.let_go()
    wait_until(lambda: shop.done() == dict.fromkeys(jobs, "ok"))
    assert {shop.result(job)["native_id"] for job in jobs} == {j["id"] for j in fake.jobs()}
    wait_until(lambda: fake.keep(max=2)["pilots"] == [])
    assert slots.holders(shop.spool) == {} and fake.keep(max=2)["trouble"] is None


def test_a_queued_pilot_waits_with_its_reason(fake, shop):
    fake.behave(submit="hold")
    shop.job("#!/bin/sh\n")
    [name] = fake.keep()["submitted"]
    fake.keep()
    age(shop, name, 10**6)
    report = fake.keep()
    [one] = report["pilots"]
    reason = {"sge": "qw", "torque": "Q"}.get(fake.name, fake_batch.REASON)
    assert (one["state"], one["reason"]) == ("queued", reason)
    assert report["submitted"] == [] and len(fake.jobs()) == 1


@pytest.mark.parametrize("how", ["refuse", "away"])
def test_a_refusal_frees_the_slot_and_tells_why(fake, shop, how):
    fake.behave(submit=how)
    shop.job("#!/bin/sh\n")
    report = fake.keep()
    assert report["submitted"] == [] and slots.holders(shop.spool) == {}
    told = {"refuse": fake_batch.REFUSAL, "away": fake_batch.AWAY}[how][fake.name]
    assert " / ".join(told.splitlines()) in report["trouble"]["message"]


@pytest.mark.parametrize("how", ["ghost", "mute", "banner"])
def test_a_submission_without_a_clear_answer_is_found_and_not_repeated(fake, shop, how):
    fake.behave(submit=how, listing="banner")
    job = fake.long_job()
    [name] = fake.keep()["submitted"]
    report = fake.keep()
    assert report["submitted"] == [] and len(fake.jobs()) == 1
    [one] = report["pilots"]
    assert (one["pilot"], one["native_id"]) == (name, fake.jobs()[0]["id"])
    fake.let_go()
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_lost_submission_is_repeated_only_after_the_nonce_stayed_away(fake, shop):
    fake.behave(submit="lost")
    job = shop.job("#!/bin/sh\n")
    [name] = fake.keep()["submitted"]
    fake.behave()
    for seconds in (0, 300, 250):
        if seconds:
            age(shop, name, seconds)
        assert fake.keep()["submitted"] == [] and fake.jobs() == []
    age(shop, name, 60)
    assert len(fake.keep()["submitted"]) == 1
    wait_until(lambda: shop.done() == {job: "ok"})


@pytest.mark.parametrize("how", ["away", "cut"])
def test_no_answer_is_not_an_empty_queue(fake, shop, how):
    fake.behave(submit="hold")
    shop.job("#!/bin/sh\n")
    [name] = fake.keep()["submitted"]
    fake.behave(submit="hold", listing=how)
    fake.keep()
    age(shop, name, 10**6)
    assert fake.keep()["submitted"] == [] and len(fake.jobs()) == 1


def test_a_late_answer_is_waited_for(fake, shop, monkeypatch):
    monkeypatch.setenv("FAKE_LATE_S", "0.5")
    fake.behave(submit="late", listing="late")
    job = fake.long_job()
    [name] = fake.keep()["submitted"]
    [one] = fake.keep()["pilots"]
    assert (one["pilot"], one["native_id"]) == (name, fake.jobs()[0]["id"])
    fake.let_go()
    wait_until(lambda: shop.done() == {job: "ok"})


@pytest.mark.parametrize("how", ["purge", "blind"])
def test_a_pilot_that_was_killed_and_forgotten_loses_its_job_to_the_next(fake, shop, how):
    job = shop.job("#!/bin/sh\necho > begun\n[ $HPC_BATCH_ATTEMPT = 2 ] || sleep 60\n")
    [name] = fake.keep()["submitted"]
    begun = files.join(shop.spool.attempt_folder(job, 1), "work", "begun")
    wait_until(lambda: files.exists(begun))
    os.kill(fake.jobs()[0]["pid"], signal.SIGKILL)
    wait_until(lambda: clock.process_start(fake.jobs()[0]["pid"]) is None)
    fake.behave(listing=how)
    assert fake.keep()["reaped"] == []  # absence alone proves nothing
    age(shop, name, 121)
    report = fake.keep()
    assert report["reaped"] == [job] and len(report["submitted"]) == 1
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_live_pilot_that_is_not_listed_is_left_alone(fake, shop):
    job = fake.long_job()
    [name] = fake.keep()["submitted"]
    wait_until(lambda: pilot.read(shop.spool, name).get("claimed"))
    fake.behave(listing="blind")
    for _ in range(3):
        report = fake.keep()
        assert (report["reaped"], report["submitted"]) == ([], [])
    fake.let_go()
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_pilot_that_is_deleted_hands_its_job_back_without_a_crash(fake, shop):
    job = shop.job("#!/bin/sh\necho > begun\n[ $HPC_BATCH_ATTEMPT = 2 ] || exec sleep 60\n")
    fake.keep()
    begun = files.join(shop.spool.attempt_folder(job, 1), "work", "begun")
    wait_until(lambda: files.exists(begun))
    batch.run(batch.dialect(fake.name).cancel(fake.jobs()[0]["id"]))
    wait_until(lambda: [t.crashes for t in shop.spool.tickets("ready")] == [0], 20)
    wait_until(lambda: clock.process_start(fake.jobs()[0]["pid"]) is None)
    wait_until(lambda: fake.keep()["submitted"], 20)
    wait_until(lambda: shop.done() == {job: "ok"})
    assert shop.result(job, 2)["crashes"] == 0


def test_the_last_words_of_a_pilot_that_dies_at_once_are_told(fake, shop):
    shop.job("#!/bin/sh\n")
    broken = {"prologue": "echo no such module >&2; exit 1\n"}
    [name] = fake.keep(**broken)["submitted"]
    wait_until(lambda: clock.process_start(fake.jobs()[0]["pid"]) is None)
    fake.keep(**broken)
    if fake.name == "sge":
        age(shop, name, 121)  # it forgets at once what has ended
    report = fake.keep(**broken)
    assert "no such module" in report["trouble"]["message"]


def test_the_runner_heeds_the_end_that_its_script_computed(fake, shop):
    fake.keep(walltime=7200)
    job = shop.job("#!/bin/sh\necho $HPC_BATCH_END_TIME\n")
    [name] = fake.keep(walltime=7200, prologue="sleep 1\n")["submitted"]
    wait_until(lambda: shop.done() == {job: "ok"})
    told = int(shop.stream(job))
    assert pilot.read(shop.spool, name)["end_of_walltime"] == told
