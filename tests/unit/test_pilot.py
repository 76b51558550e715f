"""A pilot's folder, its heartbeat, and when it is positively dead."""

import errno
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_cluster import batch, clock, edition, effects, files, memory, pilot
from hpc_cluster.batch import ENDED, QUEUED, RUNNING, UNKNOWN, PilotState
from hpc_cluster.pilot import LEASE_S, STILL_S, Observation
from hpc_cluster.spool import Spool
from hpc_cluster.walltime import Walltime

P = secrets.token_hex(8)
ON_HPC = Path(pilot.__file__).parent.parent


@pytest.fixture
def spool(tmp_path):
    return Spool.make(str(tmp_path / "w"))[0]


@pytest.fixture
def made(spool):
    pilot.make(spool, P, {"slot": 0, "native_id": None})
    return spool


# ---- the folder ----------------------------------------------------------------------------------


def test_the_frozen_code_runs_without_the_checkout(made):
    launcher = files.join(made.pilot_folder(P), "code", "hpc_runner")
    text = subprocess.run(
        [sys.executable, "-I", launcher, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--linger" in text
    imported = "import hpc_cluster.queuer, hpc_cluster.batch.slurm as s; print(s.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", imported],
        cwd=os.path.dirname(launcher),
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"pilots/{P}/code" in where


def test_all_of_the_package_is_frozen(made):
    code = files.join(made.pilot_folder(P), "code").decode()
    frozen, ours = (edition.names(f"{top}/hpc_cluster") for top in (code, ON_HPC))
    assert frozen == ours


def test_the_launcher_is_the_program_of_the_checkout():
    assert (ON_HPC / "hpc_runner").read_bytes() == pilot.LAUNCHER


def test_what_the_runner_says_lies_over_what_the_queuer_knows(made):
    pilot.write(made, P, {"started": "now", "native_id": "7", "slot": 0}, "runner.json")
    assert pilot.read(made, P)["native_id"] == "7"
    pilot.write(made, P, {"slot": 0, "native_id": "8"})
    known = pilot.read(made, P)
    assert (known["native_id"], known["started"], known["pilot"]) == ("8", "now", P)


def test_a_damaged_file_is_as_good_as_none(made):
    files.write_new(files.join(made.pilot_folder(P), "runner.json"), b"{")
    assert pilot.read(made, P)["slot"] == 0
    assert pilot.read(made, "b" * 16) == {"pilot": "b" * 16, "native_id": None}


def test_heartbeats_have_one_size_and_differ(made):
    texts = {pilot.beat(n, P) for n in (0, 1, 2, 10**9)}
    assert len(texts) == 4 and {len(text) for text in texts} == {64}


# ---- observing -----------------------------------------------------------------------------------


def test_a_heartbeat_that_stands_still_is_counted_and_one_that_moves_is_not(made):
    reads = [pilot.observe(made, P, True).reads for _ in range(3)]
    files.overwrite(files.join(made.pilot_folder(P), "heartbeat"), pilot.beat(1, P))
    assert [*reads, pilot.observe(made, P, True).reads] == [1, 2, 3, 1]


def test_observations_last_between_processes_and_end_with_the_boot(made):
    pilot.observe(made, P, False)
    path = files.join(made.pilot_folder(P), "observed." + clock.node())
    memory_ = files.read_json(path)
    memory_.update(since=memory_["since"] - 100, absent=memory_["absent"] - 50)
    files.write_new(path, json.dumps(memory_).encode())
    seen = pilot.observe(made, P, False)
    assert 100 <= seen.still_s < 110 and 50 <= seen.absent_s < 60 and seen.reads == 2
    assert 50 <= pilot.observe(made, P, None).absent_s < 60
    assert pilot.observe(made, P, True).absent_s == 0
    memory_["boot"] = "another"
    files.write_new(path, json.dumps(memory_).encode())
    assert pilot.observe(made, P, False).reads == 1


def test_an_observer_that_cannot_write_concludes_nothing(made, monkeypatch):
    pilot.observe(made, P, False)

    def full(path, flags, mode=0o600):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(effects, "open", full)
    with pytest.raises(OSError, match="No space"):
        pilot.observe(made, P, False)


# ---- positively dead -----------------------------------------------------------------------------

NEW = {"pilot": P}
SUBMITTED = dict(NEW, native_id="7")
STARTED = dict(SUBMITTED, started="then")
CLOSED = dict(STARTED, closed="then")
FRESH = Observation(0, 1, 0)
STILL = Observation(STILL_S, 2, STILL_S)
LEASE = Observation(LEASE_S, 5, LEASE_S)
RARE = Observation(LEASE_S, 4, 0)


def states(word):
    return {P: PilotState(word, "7", "why")}


@pytest.mark.parametrize(
    ("info", "listed", "seen", "dead"),
    [
        # the batch system says that it ended
        (SUBMITTED, states(ENDED), FRESH, True),
        (STARTED, states(ENDED), FRESH, True),
        # it waits in the queue, for however long
        (SUBMITTED, states(QUEUED), LEASE, False),
        (STARTED, states(QUEUED), LEASE, False),
        # it runs: then the heartbeat alone decides, by the lease
        (STARTED, states(RUNNING), FRESH, False),
        (STARTED, states(RUNNING), STILL, False),
        (STARTED, states(RUNNING), LEASE, True),
        (STARTED, states(RUNNING), RARE, False),
        (SUBMITTED, states(RUNNING), LEASE, False),
        (STARTED, states(UNKNOWN), STILL, False),
        (CLOSED, states(RUNNING), STILL, False),
        # a complete list lacks it
        (STARTED, {}, FRESH, False),
        (STARTED, {}, STILL, True),
        (SUBMITTED, {}, STILL, True),
        (CLOSED, {}, FRESH, True),
        # nobody ever acknowledged it
        (NEW, {}, STILL, False),
        (NEW, {}, LEASE, True),
        (NEW, {}, Observation(LEASE_S, 9, 0), False),
        (NEW, {}, Observation(0, 1, LEASE_S), False),
        # no answer is not an empty list
        (SUBMITTED, None, LEASE, False),
        (NEW, None, LEASE, False),
        (STARTED, None, STILL, False),
        (CLOSED, None, STILL, False),
        (STARTED, None, LEASE, True),
    ],
)
def test_positively_dead(info, listed, seen, dead):
    absent_s = batch.dialect("slurm").absent_s
    assert (pilot.death(info, listed, seen, absent_s) is not None) is dead


# ---- memory and walltime -------------------------------------------------------------------------


def test_kills_for_want_of_memory_are_counted_in_both_kinds_of_control_group(tmp_path):
    own, mount = tmp_path / "cgroup", tmp_path / "fs"
    for folder, name in (("slurm/job_1", "memory.events"), ("memory/job_1", "memory.oom_control")):
        (mount / folder).mkdir(parents=True)
        (mount / folder / name).write_text("oom 3\nunder_oom 0\noom_kill 2\n")
    own.write_text("0::/slurm/job_1\n")
    assert memory.kills(str(own), str(mount)) == 2
    own.write_text("3:cpu,memory:/job_1\n0::/nothing\n")
    assert memory.kills(str(own), str(mount)) == 2
    own.write_text("0::/nothing\n")
    assert memory.kills(str(own), str(mount)) is None
    assert memory.kills(str(tmp_path / "none"), str(mount)) is None


def test_a_walltime_fits_what_ends_before_it():
    full = Walltime.of(1000, {})
    assert full.fits(900, fresh=False) and not full.fits(5000, fresh=True)
    half = full._replace(start=full.start - 500, end=full.end - 500)
    assert half.fits(400, fresh=False) and not half.fits(600, fresh=False)
    assert Walltime.of(None, {}).fits(10**9, fresh=False)


def test_a_fresh_pilot_takes_what_fits_the_walltime_it_was_submitted_for():
    sooner = str(int(clock.unix()) + 500)
    given_less = Walltime.of(1000, {"SLURM_JOB_END_TIME": sooner})
    assert given_less.fits(990, fresh=True) and not given_less.fits(990, fresh=False)
    assert not given_less.fits(991, fresh=True)
    late = Walltime.of(1000, {})
    late = late._replace(start=late.start - 5, end=late.end - 5)
    assert late.fits(990, fresh=True) and not late.fits(990, fresh=False)


def test_slurms_own_end_of_walltime_goes_before_the_option():
    later = str(int(clock.unix()) + 500)
    assert 400 < Walltime.of(1000, {"SLURM_JOB_END_TIME": later}).full_s <= 500
    far = str(int(clock.unix()) + 36000)  # the node's clock is ten hours late
    assert Walltime.of(1000, {"SLURM_JOB_END_TIME": far}).full_s == pytest.approx(1000)
    assert Walltime.of(None, {"SLURM_JOB_END_TIME": far}).full_s == pytest.approx(36000, abs=60)
    assert Walltime.of(1000, {"SLURM_JOB_END_TIME": "garbage"}).full_s == pytest.approx(1000)
