"""The cluster's side, exercised for real by whatever Python runs this file; no other library.

Usage: python cluster_selftest.py FOLDER. Prints one line for each check; any failure ends it.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import fake_batch
from workshop import Workshop, group_lives, wait_until

from hpc_cluster import batch, files, pilot
from hpc_cluster.batch import nonce


def begun(shop, job):
    """Wait until a job wrote its number; return it."""
    path = files.join(shop.spool.attempt_folder(job, 1), "work", "pid")
    wait_until(lambda: files.exists(path) and files.read_bytes(path).endswith(b"\n"))
    return int(files.read_bytes(path))


def names_and_layouts(shop):
    """Inputs and outputs of any name arrive, in both layouts."""
    name = files.from_bytes(b"-\xff \xc3\xa9'\n")
    script = "#!/bin/sh\nfind input/ -type f -exec cp -- {} output/ \\;\n"
    split = shop.job(script, [(name, b"data")], [name], layout="split")
    flat = shop.job("#!/bin/sh\ncat in > out\n", [("in", b"x" * 100000)], ["out"])
    missing = shop.job("#!/bin/sh\n", outputs=["never"])
    failing = shop.job("#!/bin/sh\nexit 4\n")
    assert shop.drain() == 0
    assert shop.result(split)["outputs"]["o0"]["name"] == name
    assert shop.result(flat)["outputs"]["o0"]["bytes"] == 100000
    assert shop.result(missing)["reason"] == "stage_out"
    assert shop.result(failing)["rc"] == 4


def stops(shop):
    """A time limit, a cancel and a signal stop a job; the last hands it back."""
    busy = "#!/bin/sh\necho $$ > pid\nexec sleep 60\n"
    limited = shop.job(busy, time_limit=1)
    assert shop.drain() == 0
    assert shop.result(limited)["reason"] == "time_limit"
    cancelled = shop.job(busy)
    runner = shop.start("a" * 16, "--linger", "0")
    group = begun(shop, cancelled)
    shop.spool.cancel_all([cancelled])
    assert runner.wait(20) == 0 and not group_lives(group)
    assert shop.done()[cancelled] == "cancelled"
    job = shop.job(busy)
    runner = shop.start("b" * 16, "--linger", "0")
    begun(shop, job)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(30) == 0
    assert [(t.starts, t.crashes) for t in shop.spool.tickets("ready")] == [(1, 0)]
    shop.spool.purge_all([job], keep=False)


def races(shop):
    """Several runners with several slots claim each job once."""
    jobs = [shop.job("#!/bin/sh\necho x >> ../../ran\n") for _ in range(20)]
    runners = [shop.start(c * 16, "--linger", "0", "--slots", "2") for c in "cdef"]
    assert [runner.wait(60) for runner in runners] == [0, 0, 0, 0]
    for job in jobs:
        assert shop.done()[job] == "ok"
        assert files.read_bytes(files.join(shop.spool.job_folder(job), "ran")) == b"x\n"


def local_batch(shop):
    """The queuer starts a pilot in the background; killed, its job goes to the next."""
    job = shop.job("#!/bin/sh\necho $$ > pid\n[ $HPC_BATCH_ATTEMPT = 2 ] || sleep 60\n")
    [name] = shop.keep()["submitted"]
    group = begun(shop, job)
    assert shop.kill_local_pilot(name)
    wait_until(lambda: not group_lives(group))
    report = shop.keep()
    assert report["reaped"] == [job] and len(report["submitted"]) == 1
    wait_until(lambda: shop.done().get(job) == "ok")
    wait_until(lambda: shop.keep()["pilots"] == [])
    for name in pilot.pilots(shop.spool):
        log = files.join(shop.spool.pilot_folder(name), "log")
        if files.exists(log):
            text = files.read_bytes(log).decode()
            assert "Traceback" not in text and "Warning" not in text, text


def dialects(shop):
    """Every dialect speaks of a workspace outside ASCII, and reads its system's list."""
    folder = shop.spool.workspace + "/\u00e9"
    files.make_folder(folder.encode())
    for system in fake_batch.READ:
        dialect = batch.dialect(system)
        request = batch.Request(
            pilot="a" * 16,
            name="hpcb01234567-0",
            workspace=folder,
            log=folder + "/log",
            prologue="",
            argv=("echo", folder),
            walltime_s=3600,
            warning_s=90,
            options=(),
            extra=(),
        )
        command = dialect.submit(request)
        told = batch.run(command._replace(argv=("printf", "%s\n") + command.argv))
        assert told.rc == 0 and len(told.stdout) >= sum(len(word) for word in command.argv)
        assert "\u00e9" in told.stdout + command.stdin.decode()
        job = {"id": "7", "comment": "a" * 16, "name": nonce.long_name(request)}
        if system in ("pbs", "torque"):
            job["name"] = nonce.short_name("a" * 16)
        row = fake_batch.ROW[system](job, fake_batch.WORDS[system]["running"])
        text = fake_batch.FRAME[system](row)
        found = dialect.listed(batch.Captured(0, text, ""))
        assert [(p, s.state) for p, s in found.items()] == [("a" * 16, batch.RUNNING)]


def main():
    """Run every check in one workspace."""
    shop = Workshop(sys.argv[1])
    try:
        for check in (names_and_layouts, stops, races, local_batch, dialects):
            check(shop)
            print("ok", check.__name__, flush=True)
    finally:
        shop.close()


if __name__ == "__main__":
    main()
