"""The runner, with real processes and real races."""

import hashlib
import os
import secrets
import signal
import subprocess
import time

import pytest
from workshop import INSTANCE, SESSION, WORD, Workshop, group_lives, wait_until

from hpc_cluster import PROTOCOL, files, pilot, slots

Q = secrets.token_hex(8)


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path / "workspace")
    yield shop
    shop.close()


def running(shop, job):
    """Wait until a job's script has begun, and return the number of its process group."""
    path = shop.spool.attempt_folder(job, 1)
    wait_until(lambda: files.exists(files.join(path, "work", "pid")))
    wait_until(lambda: files.read_bytes(files.join(path, "work", "pid")).endswith(b"\n"))
    return int(files.read_bytes(files.join(path, "work", "pid")))


BUSY = "#!/bin/sh\necho $$ > pid\nexec sleep 60\n"


# ---- results -------------------------------------------------------------------------------------


def test_a_job_gets_its_inputs_and_leaves_verified_outputs(shop):
    job = shop.job(
        "#!/bin/sh\ncat in.txt > out.txt; echo said; echo cried >&2\n",
        inputs=[("in.txt", b"hello")],
        outputs=["out.txt"],
    )
    assert shop.drain() == 0
    result = shop.result(job)
    assert (result["kind"], result["reason"], result["rc"]) == ("ok", "completed", 0)
    assert result["outputs"] == {
        "o0": {"name": "out.txt", "bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    }
    assert (result["stdout_bytes"], result["stderr_bytes"]) == (5, 6)
    assert shop.stream(job) == b"said\n" and shop.stream(job, "stderr") == b"cried\n"
    assert shop.done() == {job: "ok"}


def test_the_word_in_the_script_becomes_the_attempts_folder(shop):
    job = shop.job(f"#!/bin/sh\necho /jobs/{WORD}/work {WORD}\n")
    shop.drain()
    assert shop.stream(job) == b"/jobs/a1/work a1\n"


def test_a_job_has_the_promised_surroundings(shop):
    job = shop.job(
        "#!/bin/sh\nreadlink /proc/self/fd/0\npwd\nps -o pgid= -p $$\necho $$\n"
        'echo "$HPC_BATCH_JOB_ID $HPC_BATCH_ATTEMPT $HPC_BATCH_PILOT $SEEN"\n'
    )
    shop.drain(SEEN="from the pilot")
    null, cwd, group, own, names = shop.stream(job).decode().splitlines()
    assert null == "/dev/null"
    assert cwd == files.from_bytes(files.join(shop.spool.attempt_folder(job, 1), "work"))
    assert group.strip() == own
    assert names == f"{job} 1 {shop.result(job)['pilot']} from the pilot"


def test_a_script_without_a_shebang_is_run_by_sh(shop):
    job = shop.job("echo plain\n")
    shop.drain()
    assert shop.stream(job) == b"plain\n"


@pytest.mark.parametrize(
    ("script", "rc", "words"),
    [
        ("#!/bin/sh\nexit 3\n", 3, "return code 3"),
        ("#!/bin/sh\nkill -9 $$\n", 137, "signal 9 (SIGKILL)"),
        ("#!/bin/sh\nkill -TERM $$\n", 143, "signal 15 (SIGTERM)"),
        ("#!/bin/bash\nkill -40 $$\n", 168, "signal 40"),
    ],
)
def test_a_failing_script_is_answered_with_its_return_code(shop, script, rc, words):
    job = shop.job(script, outputs=["never"])
    shop.drain()
    result = shop.result(job)
    assert (result["kind"], result["reason"], result["rc"]) == ("fail", "exit_code", rc)
    assert words in result["message"]


@pytest.mark.parametrize(
    ("script", "changes", "words"),
    [
        ("#!/no/such/interpreter\n", {}, "/no/such/interpreter"),
        (None, {"protocol": PROTOCOL - 1}, "deleted"),
        (None, {}, "text is missing"),
        ("#!/bin/sh\n", {"layout": "round"}, "layout 'round'"),
        ("#!/bin/sh\n", {"inputs": [{"key": "i", "name": "x", "bytes": 3}]}, "'x' is missing"),
        ("#!/bin/sh\n", {"outputs": [{"key": "o", "name": "../x"}]}, "'../x' is no base name"),
    ],
)
def test_a_job_that_cannot_be_started_is_answered_and_never_stuck(shop, script, changes, words):
    job = shop.job(script, described=changes)
    shop.drain()
    result = shop.result(job)
    assert (result["kind"], result["rc"]) == ("fail", None)
    assert words in result["message"]
    assert shop.done() == {job: "fail"}


def test_a_damaged_input_is_noticed_before_the_job_starts(shop):
    job = shop.stage("#!/bin/sh\ntouch started\n", inputs=[("x", b"whole")])
    path = shop.spool.input_path(job, 0)
    files.unlink(path)
    files.write_new(path, b"cut")
    shop.spool.publish_all([(job, SESSION)])
    shop.drain()
    result = shop.result(job)
    assert (result["kind"], result["reason"]) == ("fail", "stage_in")
    assert "has 3 bytes there instead of 5" in result["message"]


def test_outputs_that_are_no_regular_files_are_refused_each_by_name(shop):
    job = shop.job(
        "#!/bin/sh\nln -s /etc/passwd a; mkfifo b; mkdir c; echo fine > e\n",
        outputs=["a", "b", "c", "d", "e"],
    )
    shop.drain()
    result = shop.result(job)
    assert (result["kind"], result["reason"], result["rc"]) == ("fail", "stage_out", 0)
    assert result["outputs"] == {}
    for words in ("'a' is a symbolic link", "'b' is no regular", "'c' is a folder", "'d' was not"):
        assert words in result["message"]
    assert "'e'" not in result["message"]


def test_an_output_folder_replaced_by_a_link_is_refused(shop):
    job = shop.job(
        "#!/bin/sh\nmkdir ../other; echo x > ../other/out; rmdir output; ln -s ../other output\n",
        outputs=["out"],
        layout="split",
    )
    shop.drain()
    result = shop.result(job)
    assert result["reason"] == "stage_out" and "lies behind a link" in result["message"]


def test_both_layouts_look_as_promised(shop):
    listing = "#!/bin/sh\nfind . -mindepth 1 -printf '%y %P %l %m %n\\n' | sort\n"
    flat = shop.job(listing, inputs=[("x", b"1")])
    split = shop.job(listing, inputs=[("x", b"1")], layout="split")
    own = shop.job(listing, inputs=[("x", b"1")], writable_inputs=True)
    shop.drain()
    assert shop.stream(flat) == b"f x  400 2\nl input . 777 1\nl output . 777 1\n"
    assert shop.stream(split) == b"d input  700 2\nd output  700 2\nf input/x  400 2\n"
    assert shop.stream(own) == b"f x  600 1\nl input . 777 1\nl output . 777 1\n"


@pytest.mark.parametrize(
    "name",
    [
        b"-rf",
        b"two words",
        b"line\nfeed",
        b"\xff\xfe",
        b"quote'\"`$(x)",
        b"n" * 255,
        b"\xc3\xa9" * 127,
        b"...",
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_are_bytes(shop, name, locale):
    text = files.from_bytes(name)
    job = shop.job(
        "#!/bin/sh\nfind input -type f -exec cp -- {} output/ \\;\n",
        inputs=[(text, b"data")],
        outputs=[text],
        layout="split",
    )
    shop.drain(LC_ALL=locale)
    result = shop.result(job)
    assert result["kind"] == "ok", result["message"]
    assert result["outputs"]["o0"]["name"] == text


def test_a_hundred_megabytes_of_stdout_go_to_the_file(shop):
    job = shop.job("#!/bin/sh\nhead -c 104857600 /dev/zero\n")
    shop.drain()
    assert shop.result(job)["stdout_bytes"] == 100 << 20


def test_what_a_job_leaves_in_its_process_group_is_killed(shop):
    job = shop.job("#!/bin/sh\nsleep 60 & echo $$ > pid\n")
    shop.drain()
    assert not group_lives(running(shop, job))
    assert shop.result(job)["kind"] == "ok"


# ---- ending jobs ---------------------------------------------------------------------------------


def test_a_job_over_its_time_limit_is_stopped(shop):
    job = shop.job(BUSY, time_limit=1)
    shop.drain()
    result = shop.result(job)
    assert (result["kind"], result["reason"], result["rc"]) == ("fail", "time_limit", 143)
    assert not group_lives(running(shop, job))


def test_a_job_that_ignores_sigterm_is_killed_after_its_grace(shop):
    job = shop.job("#!/bin/sh\ntrap '' TERM\necho $$ > pid\nsleep 60\n", time_limit=1)
    shop.drain()
    assert (shop.result(job)["reason"], shop.result(job)["rc"]) == ("time_limit", 137)


def test_a_running_job_is_cancelled(shop):
    job = shop.job(BUSY)
    runner = shop.start(shop.pilot, "--linger", "0")
    group = running(shop, job)
    assert shop.spool.cancel_all([job]) == {job: "asked"}
    assert runner.wait(60) == 0
    assert shop.result(job)["reason"] == "cancelled"
    assert shop.done() == {job: "cancelled"} and not group_lives(group)


def test_a_claimed_job_that_was_cancelled_before_is_never_started(shop):
    job = shop.job("#!/bin/sh\necho started\n")
    files.write_new(shop.spool.path("jobs", job, "cancel"), b"")
    shop.drain()
    assert shop.result(job)["kind"] == "cancelled" and shop.done() == {job: "cancelled"}
    assert not files.exists(files.join(shop.spool.attempt_folder(job, 1), "work"))


def test_a_lost_ticket_means_kill_and_write_nothing(shop):
    job = shop.job(BUSY)
    runner = shop.start(shop.pilot, "--linger", "0")
    group = running(shop, job)
    ticket = shop.spool.tickets("running")[0]
    shop.spool.finish(ticket, "died")
    assert runner.wait(60) == 0
    assert not group_lives(group)
    assert not files.exists(files.join(shop.spool.attempt_folder(job, 1), "result.json"))


def test_a_result_after_the_lease_was_lost_is_dropped(shop):
    job = shop.job("#!/bin/sh\necho $$ > pid\nwhile [ ! -e go ]; do sleep 0.05; done\n")
    runner = shop.start(shop.pilot, "--linger", "0", "--slots", "1")
    running(shop, job)
    assert shop.spool.crash(shop.spool.tickets("running")[0], 1, 10) == "died"
    files.write_new(files.join(shop.spool.attempt_folder(job, 1), "work", "go"), b"")
    assert runner.wait(60) == 0
    assert shop.done() == {job: "died"}


# ---- ending pilots -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_hands_tickets_back_with_a_start_and_no_crash(shop, number):
    job = shop.job(BUSY, grace_s=1)
    waiting = shop.job(BUSY)
    runner = shop.start(shop.pilot, "--linger", "0")
    group = running(shop, job)
    runner.send_signal(number)
    assert runner.wait(60) == 0
    assert sorted((t.job, t.starts, t.crashes) for t in shop.spool.tickets("ready")) == [
        (job, 1, 0),
        (waiting, 0, 0),
    ]
    assert not group_lives(group)
    assert pilot.read(shop.spool, shop.pilot)["closed"]


def test_after_the_warning_a_job_may_use_the_rest_of_the_walltime(shop):
    job = shop.job("#!/bin/sh\necho $$ > pid\nsleep 1\n")
    runner = shop.start(shop.pilot, "--linger", "0", "--walltime", "600")
    running(shop, job)
    runner.send_signal(signal.SIGUSR1)
    assert runner.wait(60) == 0
    assert shop.done() == {job: "ok"}


def test_a_job_killed_together_with_its_pilot_is_handed_back(shop):
    job = shop.job("#!/bin/sh\necho $$ > pid\nsleep 60\n")
    runner = shop.start(shop.pilot, "--linger", "0")
    group = running(shop, job)
    os.killpg(group, signal.SIGTERM)
    time.sleep(0.3)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(60) == 0
    assert [(t.starts, t.crashes) for t in shop.spool.tickets("ready")] == [(1, 0)]


def test_a_job_that_fills_the_walltime_is_answered_instead_of_handed_back(shop):
    job = shop.job(BUSY, grace_s=1)
    assert shop.drain("--walltime", "4") == 0
    result = shop.result(job)
    assert (result["kind"], result["reason"]) == ("fail", "time_limit")
    assert "longer walltime" in result["message"]


def test_a_job_whose_time_limit_does_not_fit_is_left_for_the_next_pilot(shop):
    first = shop.job("#!/bin/sh\nsleep 2.5\n")
    long = shop.job("#!/bin/sh\n", time_limit=18)
    short = shop.job("#!/bin/sh\n", time_limit=5)
    assert shop.drain("--walltime", "20") == 0
    assert shop.done() == {first: "ok", short: "ok"}
    assert [t.job for t in shop.spool.tickets("ready")] == [long]


def test_a_job_longer_than_any_walltime_is_left_to_longer_pilots(shop):
    job = shop.job("#!/bin/sh\n", time_limit=1000)
    assert shop.drain("--walltime", "20", "--linger", "60") == 0
    assert [t.job for t in shop.spool.tickets("ready")] == [job]


def test_the_end_of_the_walltime_comes_from_slurm(shop):
    shop.drain(SLURM_JOB_ID="77", SLURM_JOB_END_TIME=str(int(time.time()) + 100))
    [name] = pilot.pilots(shop.spool)
    known = pilot.read(shop.spool, name)
    assert known["native_id"] == "77"
    assert 50 < known["end_of_walltime"] - time.time() <= 100


def test_a_killed_runner_takes_its_jobs_along_and_another_finishes(shop):
    job = shop.job("#!/bin/sh\necho $$ > pid\n[ $HPC_BATCH_ATTEMPT = 2 ] || sleep 60\n")
    runner = shop.start(shop.pilot, "--linger", "0")
    group = running(shop, job)
    runner.kill()
    runner.wait()
    wait_until(lambda: not group_lives(group))
    report = shop.keep(submit=False)
    assert report["reaped"] == [job]
    assert [(t.starts, t.crashes) for t in shop.spool.tickets("ready")] == [(1, 1)]
    assert shop.drain() == 0
    assert shop.done() == {job: "ok"}
    assert shop.result(job, 2)["crashes"] == 1


def test_a_runner_is_started_once_only(shop):
    assert shop.start(shop.pilot, "--linger", "0").wait(60) == 0
    assert shop.start(shop.pilot, "--linger", "0").wait(60) == 1


def test_a_pilot_whose_slot_was_given_away_claims_nothing(shop):
    job = shop.job("#!/bin/sh\n")
    pilot.make(shop.spool, shop.pilot, {"slot": 0, "batch": "local", "native_id": None})
    assert shop.start(shop.pilot, "--linger", "0").wait(60) == 1
    assert "slot" in pilot.read(shop.spool, shop.pilot)["trouble"]
    assert [t.job for t in shop.spool.tickets("ready")] == [job]


def test_a_pilot_whose_slot_is_given_away_ends_its_job_and_claims_no_more(shop):
    job = shop.job("#!/bin/sh\necho $$ > pid\nwhile [ ! -e over ]; do sleep 0.05; done\n")
    pilot.make(shop.spool, shop.pilot, {"slot": 0, "batch": "local", "native_id": None})
    assert slots.take(shop.spool, 1, shop.pilot) == 0
    runner = shop.start(shop.pilot, "--linger", "0", "--beat", "0.1")
    running(shop, job)
    slots.free(shop.spool, 0, shop.pilot)
    assert slots.take(shop.spool, 1, Q) == 0
    wait_until(lambda: pilot.read(shop.spool, shop.pilot)["stopping"])
    late = shop.job("#!/bin/sh\n")
    files.write_new(files.join(shop.spool.attempt_folder(job, 1), "work", "over"), b"")
    assert runner.wait(60) == 0
    assert shop.done() == {job: "ok"}
    assert [t.job for t in shop.spool.tickets("ready")] == [late]


def test_a_runner_that_cannot_write_its_heartbeat_gives_its_jobs_back(shop):
    job = shop.job(BUSY)
    pilot.make(shop.spool, shop.pilot, {"slot": None, "batch": "local", "native_id": None})
    runner = shop.start(shop.pilot, "--linger", "0", "--beat", "0.1")
    group = running(shop, job)
    files.unlink(files.join(shop.spool.pilot_folder(shop.pilot), "heartbeat"))
    assert runner.wait(60) == 1
    assert not group_lives(group)
    assert [(t.starts, t.crashes) for t in shop.spool.tickets("ready")] == [(1, 0)]
    assert "heartbeat" in pilot.read(shop.spool, shop.pilot)["trouble"]


# ---- storage that is full ------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A workshop on a file system of 64 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    shop = Workshop(folder / "workspace")
    yield shop
    shop.close()
    subprocess.run(["umount", folder], check=True)


def test_a_job_that_does_not_fit_the_disk_is_given_back_and_delays_nobody(small):
    big = small.job("#!/bin/sh\n", inputs=[("x", b"x" * (36 << 20))], writable_inputs=True)
    other = small.job("#!/bin/sh\n")
    assert small.drain() == 1
    assert small.done() == {other: "ok"}
    assert [(t.job, t.starts, t.crashes) for t in small.spool.tickets("ready")] == [(big, 0, 0)]
    [name] = pilot.pilots(small.spool)
    assert "No space left" in pilot.read(small.spool, name)["trouble"]


def test_a_full_workspace_is_noticed_before_anything_is_claimed(small):
    job = small.job("#!/bin/sh\n", inputs=[("x", b"x" * (56 << 20))])
    assert small.drain() == 1
    assert [t.job for t in small.spool.tickets("ready")] == [job]


def test_a_result_that_finds_no_space_is_kept_until_there_is_some(small):
    filling = "#!/bin/sh\necho $$ > pid\nhead -c 90000000 /dev/zero > out\nexit 0\n"
    job = small.job(filling, outputs=["pid"])
    runner = small.start(small.pilot, "--linger", "0")
    running(small, job)
    time.sleep(2)
    assert small.done() == {} and runner.poll() is None
    files.unlink(files.join(small.spool.attempt_folder(job, 1), "work", "out"))
    assert runner.wait(60) == 0
    assert small.done() == {job: "ok"}


# ---- the drain -----------------------------------------------------------------------------------


def test_a_job_that_arrives_while_another_runs_is_done_too(shop):
    first = shop.job("#!/bin/sh\necho $$ > pid\nsleep 1\n")
    runner = shop.start(shop.pilot, "--linger", "0")
    running(shop, first)
    second = shop.job("#!/bin/sh\n")
    assert runner.wait(60) == 0
    assert shop.done() == {first: "ok", second: "ok"}


def test_an_idle_pilot_lingers(shop):
    runner = shop.start(shop.pilot, "--linger", "3")
    wait_until(lambda: pilot.read(shop.spool, shop.pilot).get("started"))
    time.sleep(1.5)
    job = shop.job("#!/bin/sh\n")
    assert runner.wait(60) == 0
    assert shop.done() == {job: "ok"}


def test_without_linger_a_pilot_still_waits_for_what_is_being_staged(shop):
    job = shop.stage("#!/bin/sh\n")
    runner = shop.start(shop.pilot, "--linger", "0")
    wait_until(lambda: pilot.read(shop.spool, shop.pilot).get("started"))
    time.sleep(1.5)
    assert runner.poll() is None
    shop.spool.publish_all([(job, SESSION)])
    assert runner.wait(60) == 0
    assert shop.done() == {job: "ok"}


def test_no_job_falls_between_a_closing_pilot_and_the_queuer(shop):
    """Publish, then look whether the pilot is closing: whoever does not say so takes the job."""
    for round_ in range(12):
        name = secrets.token_hex(8)
        runner = shop.start(name, "--linger", "0")
        wait_until(lambda name=name: pilot.read(shop.spool, name).get("started"))
        time.sleep(0.01 * round_)
        job = shop.job("#!/bin/sh\n")
        known = pilot.read(shop.spool, name)
        counted_on = not (known.get("closing") or known.get("closed"))
        runner.wait(60)
        if counted_on:
            assert shop.done().get(job) == "ok", f"round {round_}"
        shop.spool.purge_all([job], keep=False)


def test_several_jobs_run_at_a_time_in_as_many_slots(shop):
    meet = "#!/bin/sh\ntouch ../../../$$.here\n"
    meet += "while [ $(ls ../../../ | grep -c here) -lt 4 ]; do sleep 0.05; done\n"
    jobs = [shop.job(meet, time_limit=30) for _ in range(4)]
    assert shop.drain("--slots", "4") == 0
    assert shop.done() == dict.fromkeys(jobs, "ok")


def test_a_suspect_runs_alone_and_last(shop):
    suspect = shop.job("#!/bin/sh\nls ../../../../running | wc -l\n")
    shop.spool.crash(shop.spool.claim(shop.spool.waiting()[0], Q), 3, 10)
    others = [shop.job("#!/bin/sh\nsleep 0.3\n") for _ in range(3)]
    assert shop.drain("--slots", "4") == 0
    assert set(shop.done()) == {suspect, *others}
    assert shop.stream(suspect, attempt=2) == b"1\n"


def test_four_runners_claim_each_of_two_hundred_jobs_once(shop):
    jobs = [shop.job("#!/bin/sh\necho $HPC_BATCH_PILOT >> ../../ran\n") for _ in range(200)]
    names = [secrets.token_hex(8) for _ in range(4)]
    runners = [shop.start(name, "--linger", "0", "--slots", "2") for name in names]
    assert [runner.wait(120) for runner in runners] == [0, 0, 0, 0]
    assert shop.done() == dict.fromkeys(jobs, "ok")
    census = shop.spool.census(INSTANCE)
    assert (census.ready, census.running) == ([], [])
    for job in jobs:
        ran = files.read_bytes(files.join(shop.spool.job_folder(job), "ran")).decode().split()
        assert ran == [shop.result(job)["pilot"]]
    assert len({shop.result(job)["pilot"] for job in jobs}) > 1
