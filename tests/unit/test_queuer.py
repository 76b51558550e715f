"""The queuer, over the local batch system and a fake Slurm that starts pilots really, and lies."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from workshop import ON_HPC, SESSION, Workshop, wait_until

from hpc_cluster import batch, clock, dismissal, files, pilot, reaping, slots
from hpc_cluster.lookout import Seen
from hpc_cluster.policy import Policy, PolicyError

FAKEBIN = Path(__file__).parent.parent / "fakebin"
P = secrets.token_hex(8)


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path / "workspace")
    yield shop
    shop.close()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A fake Slurm; returns a function that sets how it behaves, and its memory as .jobs()."""
    memory = tmp_path / "slurm"
    memory.mkdir()
    monkeypatch.setenv("PATH", f"{FAKEBIN}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(memory))

    class Slurm:
        def behave(self, sbatch="", squeue=""):
            monkeypatch.setenv("FAKE_SUBMIT", sbatch)
            monkeypatch.setenv("FAKE_LIST", squeue)

        def jobs(self):
            return [json.loads(path.read_text()) for path in sorted(memory.iterdir())]

        def calls(self, what="calls"):
            calls = Path(f"{memory}.{what}")
            return len(calls.read_text().splitlines()) if calls.exists() else 0

    yield Slurm()
    for job in Slurm().jobs():
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


def backdate(path, seconds):
    """Make a file older by the file server's clock."""
    before = os.stat(path)
    os.utime(path, (before.st_atime - seconds, before.st_mtime - seconds))


def trouble_path(shop):
    return shop.spool.path("pilots", "trouble")


def closed(shop, name):
    return bool(pilot.read(shop.spool, name).get("closed"))


# ---- the local batch system ----------------------------------------------------------------------


def test_nothing_is_submitted_without_work(shop):
    nothing = {"pilots": [], "submitted": [], "reaped": [], "trouble": None, "silent": None}
    assert shop.keep() == nothing


def test_a_pilot_is_started_in_the_background_and_drains(shop):
    jobs = [shop.job("#!/bin/sh\necho hello\n") for _ in range(3)]
    report = shop.keep()
    [name] = report["submitted"]
    [one] = report["pilots"]
    assert (one["pilot"], one["slot"], one["state"]) == (name, 0, "submitted")
    wait_until(lambda: len(shop.done()) == 3)
    assert shop.done() == dict.fromkeys(jobs, "ok")
    wait_until(lambda: closed(shop, name))
    wait_until(lambda: shop.keep()["pilots"] == [])
    assert slots.holders(shop.spool) == {}
    assert shop.keep()["trouble"] is None


def test_a_pilot_outlives_whoever_started_it(shop):
    job = shop.job("#!/bin/sh\nsleep 1\n")
    queuer = [sys.executable, f"{ON_HPC}/scripts/hpc_queuer", "--workspace", shop.spool.workspace]
    process = subprocess.run(
        queuer,
        input=json.dumps({"scheduler": "local", "linger": 0, "python": sys.executable}),
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )
    [name] = json.loads(process.stdout)["submitted"]
    assert not shop.done()
    wait_until(lambda: shop.done() == {job: "ok"})
    assert pilot.read(shop.spool, name)["native_id"].count(".") == 2


def test_one_pilot_is_enough_for_all(shop):
    shop.job("#!/bin/sh\nsleep 1\n")
    first = shop.keep()
    shop.job("#!/bin/sh\n")
    second = shop.keep()
    assert len(first["submitted"]) == 1 and second["submitted"] == []
    wait_until(lambda: len(shop.done()) == 2)


def test_as_many_pilots_as_there_are_jobs_up_to_the_maximum(shop):
    for _ in range(5):
        shop.job("#!/bin/sh\nsleep 0.5\n")
    assert len(shop.keep(max=3)["submitted"]) == 3
    assert sorted(slots.holders(shop.spool)) == [0, 1, 2]
    wait_until(lambda: len(shop.done()) == 5)


def test_work_that_is_being_staged_counts_while_it_is_fresh(shop):
    job = shop.stage("#!/bin/sh\n")
    path = shop.spool.path("incoming", f"{job}.{SESSION}")
    backdate(path, 700)
    assert shop.keep()["submitted"] == []
    files.touch(path)
    assert len(shop.keep()["submitted"]) == 1
    shop.spool.publish_all([(job, SESSION)])
    wait_until(lambda: shop.done() == {job: "ok"})


def killed_at_work(shop):
    """Kill a pilot over its job, whose second attempt ends well; return both names."""
    job = shop.job("#!/bin/sh\necho $$ > pid\n[ $HPC_BATCH_ATTEMPT = 2 ] || sleep 60\n")
    [name] = shop.keep()["submitted"]
    begun = files.join(shop.spool.attempt_folder(job, 1), "work", "pid")
    wait_until(lambda: files.exists(begun))
    assert shop.kill_local_pilot(name)
    return job, name


def test_a_killed_pilots_job_is_reaped_and_done_by_the_next(shop):
    job, _ = killed_at_work(shop)
    report = shop.keep()
    assert report["reaped"] == [job] and len(report["submitted"]) == 1
    assert report["trouble"] is None
    wait_until(lambda: shop.done() == {job: "ok"})
    assert shop.result(job, 2)["crashes"] == 1


def test_a_pilot_killed_before_it_wrote_down_its_claim_has_worked(shop):
    job, name = killed_at_work(shop)
    path = files.join(shop.spool.pilot_folder(name), "runner.json")
    files.replace(path, files.to_json({**files.read_json(path), "claimed": 0, "running": []}))
    report = shop.keep()
    assert report["reaped"] == [job]
    assert report["trouble"] is None
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_job_that_kills_its_pilots_is_given_up(shop):
    job = shop.job("#!/bin/sh\nkill -9 $PPID\n", attempts=2)
    for _ in range(2):
        [name] = shop.keep()["submitted"]
        wait_until(lambda name=name: not batch_lists(shop, name))
    assert shop.keep()["reaped"] == [job]
    assert shop.done() == {job: "died"}
    [ticket] = shop.spool.tickets("done", "0123abcd")
    assert "the batch system says that it ended" in pilot.read(shop.spool, ticket.pilot)["dead"]


def batch_lists(shop, name):
    """Whether the local batch system lists a pilot as running."""
    known = pilot.read(shop.spool, name).get("native_id")
    dialect = batch.dialect("local")
    listed = dialect.listed(batch.run(dialect.query([batch.Wanted(name, "x", known)])))
    return name in listed and listed[name].state == "running"


def test_a_local_pilot_is_found_by_its_nonce_alone(shop):
    shop.job("#!/bin/sh\nsleep 3\n")
    [name] = shop.keep(prologue="sleep 0.5\n")["submitted"]
    known = pilot.read(shop.spool, name)["native_id"]
    dialect = batch.dialect("local")

    def found():
        listed = dialect.listed(batch.run(dialect.query([batch.Wanted(name, "x", None)])))
        return name in listed and listed[name].native_id == known

    for _ in range(2):  # in its prologue, and when the runner runs
        wait_until(found)
        wait_until(lambda: pilot.read(shop.spool, name).get("claimed"))
    nobody = dialect.listed(batch.run(dialect.query([batch.Wanted("c" * 16, "x", None)])))
    assert nobody == {}


def test_a_pilot_whose_submitter_was_killed_before_submitting_frees_its_slot(shop):
    job = shop.job("#!/bin/sh\n")
    assert slots.take(shop.spool, 1, P) == 0
    for _ in range(2):
        report = shop.keep()
        assert report["submitted"] == [] and [p["pilot"] for p in report["pilots"]] == [P]
    age(shop, P, 11)
    report = shop.keep()
    assert len(report["submitted"]) == 1 and report["trouble"] is None
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_ticket_of_a_pilot_without_a_folder_is_not_stuck(shop):
    job = shop.job("#!/bin/sh\n")
    shop.spool.claim(shop.spool.waiting()[0], P)
    assert shop.keep()["reaped"] == []
    age(shop, P, 11)
    assert shop.keep()["reaped"] == [job]
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_closing_pilot_is_not_counted_on(shop):
    pilot.make(shop.spool, P, {"slot": None, "native_id": None, "batch": "local"})
    pilot.write(shop.spool, P, {"started": "then", "closing": "now"}, "runner.json")
    job = shop.job("#!/bin/sh\n")
    assert len(shop.keep()["submitted"]) == 1
    wait_until(lambda: shop.done() == {job: "ok"})


def test_two_hosts_never_fill_a_slot_twice(shop):
    for _ in range(6):
        shop.job("#!/bin/sh\nsleep 0.3\n")
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(Workshop(shop.spool.workspace).keep(max=2)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(report["submitted"]) for report in reports) == 2
    assert sorted(slots.holders(shop.spool)) == [0, 1]
    wait_until(lambda: len(shop.done()) == 6)


def test_observing_only_submits_nothing(shop):
    shop.job("#!/bin/sh\n")
    assert shop.keep(submit=False)["submitted"] == []


def test_folders_of_long_dead_pilots_go_unless_a_ticket_names_them(shop):
    names = [f"{n:016x}" for n in range(14)]
    for name in names:
        pilot.make(shop.spool, name, {"slot": None})
        pilot.write(shop.spool, name, {"dead": "long ago"}, "dead.json")
        backdate(files.join(shop.spool.pilot_folder(name), "dead.json"), 100_000)
    shop.job("#!/bin/sh\n")
    shop.spool.finish(shop.spool.claim(shop.spool.waiting()[0], names[1]), "died")
    shop.keep()
    left = pilot.pilots(shop.spool)
    assert len(left) == 11 and names[1] in left
    assert not files.exists(files.join(shop.spool.pilot_folder(names[1]), "code"))


# ---- Slurm, lying --------------------------------------------------------------------------------


def test_slurm_is_asked_once_however_many_pilots_there_are(shop, slurm):
    jobs = [shop.job("#!/bin/sh\nsleep 3\n") for _ in range(3)]
    assert len(shop.keep(scheduler="slurm", max=3)["submitted"]) == 3
    before = slurm.calls()
    report = shop.keep(scheduler="slurm", max=3)
    assert slurm.calls() == before + 1
    assert {one["state"] for one in report["pilots"]} == {"running"}
    assert sorted(one["native_id"] for one in report["pilots"]) == ["1", "2", "3"]
    wait_until(lambda: shop.done() == dict.fromkeys(jobs, "ok"))


def test_a_queued_pilot_waits_with_its_reason(shop, slurm):
    slurm.behave(sbatch="hold")
    shop.job("#!/bin/sh\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    age_after = shop.keep(scheduler="slurm")
    age(shop, name, 10**6)
    [one] = shop.keep(scheduler="slurm")["pilots"]
    assert (one["state"], one["reason"]) == ("queued", "Resources")
    assert age_after["submitted"] == [] and len(slurm.jobs()) == 1


def test_a_back_off_does_not_wait_for_a_clock_that_was_set_back(shop, slurm):
    shop.job("#!/bin/sh\n")
    slurm.behave(sbatch="refuse")
    for _ in range(2):
        shop.keep(scheduler="slurm")
    assert files.read_json(trouble_path(shop))["failures"] == 2
    backdate(trouble_path(shop), -365 * 86400)
    shop.keep(scheduler="slurm")
    backdate(trouble_path(shop), 61)
    shop.keep(scheduler="slurm")
    assert files.read_json(trouble_path(shop))["failures"] == 3


def test_a_refusal_is_shown_and_backs_off_and_ends_by_itself(shop, slurm):
    job = shop.job("#!/bin/sh\n")
    slurm.behave(sbatch="refuse")
    for wait_s in (0, 60, 900, 1800, 3600, 3600):
        report = shop.keep(scheduler="slurm")
        assert report["submitted"] == [] and slots.holders(shop.spool) == {}
        assert "Invalid account" in report["trouble"]["message"]
        assert report["trouble"]["what"] == "submit"
        failed = files.read_json(trouble_path(shop))["failures"]
        if wait_s:
            assert shop.keep(scheduler="slurm")["trouble"]["since"] == report["trouble"]["since"]
            assert files.read_json(trouble_path(shop))["failures"] == failed
            backdate(trouble_path(shop), wait_s - 30)
            shop.keep(scheduler="slurm")
            assert files.read_json(trouble_path(shop))["failures"] == failed
            backdate(trouble_path(shop), 31)
    slurm.behave()
    [name] = shop.keep(scheduler="slurm")["submitted"]
    wait_until(lambda: shop.done() == {job: "ok"})
    wait_until(lambda: closed(shop, name))
    assert shop.keep(scheduler="slurm")["trouble"] is None


def test_an_unreachable_controller_is_a_refusal(shop, slurm):
    slurm.behave(sbatch="away")
    shop.job("#!/bin/sh\n")
    assert "connect failure" in shop.keep(scheduler="slurm")["trouble"]["message"]
    assert slots.holders(shop.spool) == {}


def test_an_unreachable_controller_is_asked_again_every_minute(shop, slurm):
    slurm.behave(sbatch="away")
    job = shop.job("#!/bin/sh\n")
    for _ in range(5):
        shop.keep(scheduler="slurm")
        backdate(trouble_path(shop), 61)
    slurm.behave()
    assert len(shop.keep(scheduler="slurm")["submitted"]) == 1
    wait_until(lambda: shop.done() == {job: "ok"})


def test_pilots_that_are_cancelled_while_they_wait_say_nothing_about_pilots(shop, slurm):
    slurm.behave(sbatch="hold")
    shop.job("#!/bin/sh\n")
    for _ in range(5):
        [name] = shop.keep(scheduler="slurm")["submitted"]
        state = batch.PilotState(batch.ENDED, slurm.jobs()[-1]["id"], "CANCELLED")
        reaping.bury(shop.spool, Seen(pilot.read(shop.spool, name), state, "it was cancelled"))
        backdate(trouble_path(shop), 61)
    assert "it was cancelled" in shop.keep(scheduler="slurm")["trouble"]["message"]


@pytest.mark.parametrize("how", ["ghost", "mute"])
def test_a_submission_without_an_answer_is_found_by_its_nonce(shop, slurm, how):
    slurm.behave(sbatch=how)
    job = shop.job("#!/bin/sh\nsleep 0.5\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    report = shop.keep(scheduler="slurm")
    assert report["submitted"] == [] and len(slurm.jobs()) == 1
    assert [p["pilot"] for p in report["pilots"]] == [name]
    assert report["pilots"][0]["native_id"] == "1"
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_lost_submission_is_repeated_only_after_the_nonce_stayed_away(shop, slurm):
    slurm.behave(sbatch="lost")
    job = shop.job("#!/bin/sh\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    slurm.behave()
    for seconds in (0, 300, 250):
        if seconds:
            age(shop, name, seconds)
        report = shop.keep(scheduler="slurm")
        assert report["submitted"] == [] and slurm.jobs() == []
    assert "timed out" in report["pilots"][0]["reason"]
    age(shop, name, 60)
    assert len(shop.keep(scheduler="slurm")["submitted"]) == 1
    wait_until(lambda: shop.done() == {job: "ok"})


@pytest.mark.parametrize("how", ["away", "cut"])
def test_no_answer_is_not_an_empty_queue(shop, slurm, how):
    slurm.behave(sbatch="hold")
    shop.job("#!/bin/sh\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    slurm.behave(sbatch="hold", squeue=how)
    shop.keep(scheduler="slurm")
    age(shop, name, 10**6)
    report = shop.keep(scheduler="slurm")
    assert report["submitted"] == [] and len(slurm.jobs()) == 1
    assert report["pilots"][0]["state"] == "submitted"


# ---- a Slurm that hangs --------------------------------------------------------------------------


def test_a_command_that_hangs_and_leaves_others_with_its_pipes_ends_in_time(monkeypatch):
    monkeypatch.setattr(batch, "KILLED_S", 0.5)
    words = "setsid sleep 60 & echo $! > $LEFT; exec sleep 60"
    with tempfile.NamedTemporaryFile("r") as left:
        monkeypatch.setenv("LEFT", left.name)
        began = time.monotonic()
        captured = batch.run(batch.Command(("sh", "-c", words)), 0.5)
        took = time.monotonic() - began
        os.kill(int(left.read()), 9)
    assert captured.timed_out and captured.rc == -9
    assert took < 20


def test_a_list_that_never_comes_is_told_and_says_nothing_about_pilots(shop, slurm, monkeypatch):
    slurm.behave(sbatch="hold")
    shop.job("#!/bin/sh\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    assert shop.keep(scheduler="slurm")["silent"] is None
    monkeypatch.setattr(batch, "TIMEOUT_S", 0.5)
    slurm.behave(sbatch="hang", squeue="hang")
    age(shop, name, 10**6)
    report = shop.keep(scheduler="slurm")
    assert (report["submitted"], report["reaped"]) == ([], [])
    assert [p["pilot"] for p in report["pilots"]] == [name]
    assert report["silent"] == "squeue did not answer in time"


def test_submissions_that_never_come_back_are_one_for_each_look(shop, slurm, monkeypatch):
    monkeypatch.setattr(batch, "TIMEOUT_S", 0.5)
    slurm.behave(sbatch="hang", squeue="hang")
    for _ in range(3):
        shop.job("#!/bin/sh\n")
    [name] = shop.keep(scheduler="slurm", max=3)["submitted"]
    assert pilot.read(shop.spool, name)["unclear"].startswith("sbatch did not answer in time")
    assert list(slots.holders(shop.spool).values()) == [name]


def test_cancels_that_never_come_back_are_one_for_each_look(shop, slurm, monkeypatch):
    slurm.behave(sbatch="hold")
    for _ in range(3):
        shop.job("#!/bin/sh\n")
    names = shop.keep(scheduler="slurm", max=3)["submitted"]
    assert len(names) == 3
    monkeypatch.setattr(batch, "TIMEOUT_S", 2.0)
    monkeypatch.setenv("FAKE_CANCEL", "hang")
    answers = dismissal.dismiss(shop.spool, names)
    assert slurm.calls("cancels") == 1
    assert answers == dict.fromkeys(names, "the batch system did not answer")


def test_hanging_pilots_are_buried_one_at_a_time_while_cancels_hang(shop, slurm, monkeypatch):
    jobs = {shop.job("#!/bin/sh\nsleep 60\n") for _ in range(2)}
    names = shop.keep(scheduler="slurm", max=2)["submitted"]
    wait_until(lambda: len(shop.spool.tickets("running")) == 2)
    pids = [job["pid"] for job in slurm.jobs()]
    for pid in pids:
        os.kill(pid, 19)  # SIGSTOP: it hangs
    for _ in range(5):
        assert shop.keep(scheduler="slurm", max=2)["reaped"] == []
    monkeypatch.setattr(batch, "TIMEOUT_S", 3.0)
    monkeypatch.setenv("FAKE_CANCEL", "hang")
    for name in names:
        age(shop, name, 600)
    reaped = []
    for count in (1, 2):
        reaped += shop.keep(scheduler="slurm", max=2, submit=False)["reaped"]
        assert (len(reaped), slurm.calls("cancels")) == (count, count)
    assert set(reaped) == jobs
    for pid in pids:
        os.kill(pid, 9)


def test_a_pilot_that_slurm_forgot_is_dead_once_its_heartbeat_stands_still(shop, slurm):
    job = shop.job("#!/bin/sh\necho $$ > pid\n[ $HPC_BATCH_ATTEMPT = 2 ] || sleep 60\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    begun = files.join(shop.spool.attempt_folder(job, 1), "work", "pid")
    wait_until(lambda: files.exists(begun))
    os.kill(slurm.jobs()[0]["pid"], 9)
    slurm.behave(squeue="purge")
    time.sleep(0.3)
    assert shop.keep(scheduler="slurm")["reaped"] == []
    age(shop, name, 121)
    report = shop.keep(scheduler="slurm")
    assert report["reaped"] == [job] and len(report["submitted"]) == 1
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_live_pilot_that_slurm_does_not_list_is_left_alone(shop, slurm):
    job = shop.job("#!/bin/sh\necho $$ > pid\nsleep 2\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    wait_until(lambda: pilot.read(shop.spool, name).get("claimed"))
    slurm.behave(squeue="blind")
    for _ in range(3):
        report = shop.keep(scheduler="slurm")
        assert (report["reaped"], report["submitted"]) == ([], [])
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_hanging_pilot_loses_its_lease_and_is_cancelled(shop, slurm):
    job = shop.job("#!/bin/sh\n[ $HPC_BATCH_ATTEMPT = 2 ] || sleep 60\n")
    [name] = shop.keep(scheduler="slurm")["submitted"]
    wait_until(lambda: shop.spool.tickets("running"))
    pid = slurm.jobs()[0]["pid"]
    os.kill(pid, 19)  # SIGSTOP: it hangs
    for _ in range(5):
        assert shop.keep(scheduler="slurm")["reaped"] == []
    age(shop, name, 600)
    report = shop.keep(scheduler="slurm")
    assert report["reaped"] == [job] and len(report["submitted"]) == 1
    os.kill(pid, 18)
    wait_until(lambda: clock.process_start(pid) is None)
    wait_until(lambda: shop.done() == {job: "ok"})


def test_a_pilot_that_dies_before_it_claims_backs_off_with_its_last_words(shop, slurm):
    shop.job("#!/bin/sh\n")
    broken = {"scheduler": "slurm", "prologue": "echo no such module >&2; exit 1\n"}
    shop.keep(**broken)
    wait_until(lambda: clock.process_start(slurm.jobs()[0]["pid"]) is None)
    report = shop.keep(**broken)
    assert len(report["submitted"]) == 1  # the first failure costs no waiting
    assert "no such module" in report["trouble"]["message"]
    wait_until(lambda: clock.process_start(slurm.jobs()[1]["pid"]) is None)
    assert shop.keep(**broken)["submitted"] == []
    assert files.read_json(trouble_path(shop))["failures"] == 2


def test_a_pilot_that_works_while_the_queue_is_asked_is_no_trouble_and_ends_one(
    shop, slurm, tmp_path, monkeypatch
):
    job = shop.job("#!/bin/sh\nsleep 1\n")
    slurm.behave(sbatch="refuse")
    assert shop.keep(scheduler="slurm", linger=0)["trouble"]
    backdate(trouble_path(shop), 3600)
    slurm.behave()
    [name] = shop.keep(scheduler="slurm", linger=0)["submitted"]
    log = files.join(shop.spool.pilot_folder(name), "runner.json").decode()
    late = tmp_path / "late"
    late.mkdir()
    (late / "squeue").write_text(
        f"#!/bin/sh\nuntil grep -q '\"closed\"' {log}; do sleep 0.1; done\nsleep 0.3\n"
        f'exec {FAKEBIN}/squeue "$@"\n'
    )
    (late / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{late}:{os.environ['PATH']}")
    assert shop.keep(scheduler="slurm", linger=0)["trouble"] is None
    assert shop.done() == {job: "ok"}


# ---- the policy ----------------------------------------------------------------------------------


def test_a_policy_is_checked_as_a_whole():
    with pytest.raises(PolicyError) as caught:
        Policy.parse({"max": 0, "linger": "soon", "colour": 1, "options": "x", "submit": 1})
    for key in ("max", "linger", "'colour'", "options", "submit"):
        assert key in str(caught.value)


def test_numbers_become_what_the_batch_system_wants():
    policy = Policy.parse({"memory": 32, "gpuram": 16, "linger": 0, "options": ["--x"]})
    assert (policy.memory, policy.gpuram, policy.linger, policy.options) == ("32", 16, 0, ("--x",))


@pytest.mark.parametrize(("text", "code"), [("{", 2), ('{"max": 0}', 2), ("{}", 1)])
def test_the_program_says_what_is_wrong(tmp_path, text, code):
    argv = [sys.executable, f"{ON_HPC}/scripts/hpc_queuer", "--workspace", str(tmp_path)]
    result = subprocess.run(argv, input=text, capture_output=True, text=True)
    assert result.returncode == code and result.stderr.startswith("hpc_queuer: ")
