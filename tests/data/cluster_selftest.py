"""The cluster's side, exercised for real by whatever Python runs this file; no other library.

Usage: python cluster_selftest.py FOLDER. Prints one line for each check; any failure ends it.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from workshop import Workshop, group_lives, wait_until

from hpc_cluster import files, pilot
from hpc_cluster.batch import slurm  # noqa: F401  (it must be importable here)


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
    jobs = [shop.job("#!/bin/sh\necho x >> ../../ran\n") for _ in range(40)]
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


def main():
    """Run every check in one workspace."""
    shop = Workshop(sys.argv[1])
    try:
        for check in (names_and_layouts, stops, races, local_batch):
            check(shop)
            print("ok", check.__name__, flush=True)
    finally:
        shop.close()


if __name__ == "__main__":
    main()
