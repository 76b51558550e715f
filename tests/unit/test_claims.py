"""Which job a pilot claims next, and how many pilots are wanted."""

import errno
import os

import pytest
from workshop import INSTANCE, SESSION, Workshop

from hpc_cluster import demand, effects, files
from hpc_cluster.claims import Claims, Pace, take_turns
from hpc_cluster.lookout import Seen
from hpc_cluster.policy import Policy
from hpc_cluster.ticket import Ticket
from hpc_cluster.walltime import Walltime

P = "a" * 16
OTHER = "89abcdef"


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path / "workspace")
    yield shop
    shop.close()


def claims(shop, walltime_s=None, pilot=P):
    return Claims(shop.spool, pilot, Walltime.of(walltime_s, {}))


def jobs_of(tickets):
    return [ticket.job for ticket in tickets]


def test_a_claim_that_fails_after_others_loses_none_of_them(shop, monkeypatch):
    """They are in running/ in the pilot's name, and nobody else would ever begin them."""
    wanted = [shop.job("") for _ in range(3)]
    rename, calls = effects.rename, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(effects, "rename", failing)
    mine = claims(shop)
    assert jobs_of(mine.claim(3, alone=True)) == wanted[:2]
    assert jobs_of(mine.claim(1, alone=False)) == wanted[2:]


# ---- turns ---------------------------------------------------------------------------------------


def ticket(instance, number):
    return Ticket("ready", f"{instance}-0199aabbccd-{number:016x}")


def test_instances_take_turns_each_with_its_oldest_first():
    many = [ticket(INSTANCE, n) for n in range(1000)]
    few = [ticket(OTHER, n) for n in range(2)]
    line = take_turns(many + few, {INSTANCE: 1}, P)
    assert line[:5] == [few[0], many[0], few[1], many[1], many[2]]
    assert len(line) == 1002


def test_the_turn_goes_to_whom_it_was_given_longest_ago():
    tickets = [ticket(INSTANCE, 1), ticket(OTHER, 1)]
    assert take_turns(tickets, {INSTANCE: 7, OTHER: 8}, P) == tickets
    assert take_turns(tickets, {INSTANCE: 9, OTHER: 8}, P) == tickets[::-1]


def test_pilots_that_know_nothing_begin_with_different_instances():
    tickets = [ticket(INSTANCE, 1), ticket(OTHER, 1)]
    first = {take_turns(tickets, {}, f"{n:016x}")[0].instance for n in range(20)}
    assert first == {INSTANCE, OTHER}


def other_hosts(shop, job):
    """Publish a job as if another service host had done so."""
    renamed = job.replace(INSTANCE, OTHER)
    path = shop.spool.path("ready", f"{job}.a0c0")
    files.rename(path, shop.spool.path("ready", f"{renamed}.a0c0"))
    files.rename(shop.spool.job_folder(job), shop.spool.job_folder(renamed))
    return renamed


def test_a_host_with_many_older_jobs_does_not_starve_another(shop):
    for _ in range(20):
        shop.job("#!/bin/sh\n")
    late = [other_hosts(shop, shop.job("#!/bin/sh\n")) for _ in range(3)]
    mine = claims(shop)
    order = [mine.claim(1, alone=True)[0].job for _ in range(8)]
    assert [job for job in order if job in late] == late
    assert {order.index(job) // 2 for job in late} == {0, 1, 2}


# ---- the line ------------------------------------------------------------------------------------


def test_one_listing_serves_for_many_claims(shop):
    jobs = [shop.job("#!/bin/sh\n") for _ in range(10)]
    mine = claims(shop)
    assert jobs_of(mine.claim(1, alone=True)) == jobs[:1]
    late = shop.job("#!/bin/sh\n")
    assert jobs_of(mine.claim(10, alone=False)) == jobs[1:], "it was listed again"
    assert jobs_of(mine.claim(1, alone=False)) == [late]


def test_what_another_pilot_claimed_meanwhile_is_passed_over(shop):
    first, second, third = [shop.job("#!/bin/sh\n") for _ in range(3)]
    mine, other = claims(shop), claims(shop, pilot="b" * 16)
    assert jobs_of(mine.claim(1, alone=True)) == [first]
    assert jobs_of(other.claim(1, alone=True)) == [second]
    assert jobs_of(mine.claim(2, alone=False)) == [third]


def test_a_suspect_is_claimed_only_when_nothing_else_runs(shop):
    suspect = shop.job("#!/bin/sh\n")
    shop.spool.crash(shop.spool.claim(shop.spool.waiting()[0], P), 3, 10)
    plain = shop.job("#!/bin/sh\n")
    mine = claims(shop)
    assert jobs_of(mine.claim(4, alone=True)) == [plain]
    assert jobs_of(mine.claim(4, alone=False)) == []
    assert jobs_of(mine.claim(4, alone=True)) == [suspect]


def test_jobs_that_do_not_fit_are_left_and_counted(shop):
    first = shop.job("#!/bin/sh\n")
    long = shop.job("#!/bin/sh\n", time_limit=900)
    short = shop.job("#!/bin/sh\n", time_limit=5)
    mine = claims(shop, 1000)
    mine._walltime = mine._walltime._replace(end=mine._walltime.end - 500)
    assert jobs_of(mine.claim(1, alone=True)) == [first]
    assert mine.leaves == 0, "there was no room for more"
    assert jobs_of(mine.claim(2, alone=False)) == [short]
    assert mine.leaves == 1 and not mine.is_work_left()
    assert jobs_of(shop.spool.tickets("ready")) == [long]


def test_a_fresh_pilot_begins_with_what_only_a_fresh_one_can_do(shop):
    short = shop.job("#!/bin/sh\n", time_limit=5)
    long = other_hosts(shop, shop.job("#!/bin/sh\n", time_limit=900))
    assert jobs_of(claims(shop, 1000).claim(2, alone=True)) == [long, short]


def test_a_fresh_pilot_begins_with_what_the_end_of_another_interrupted(shop):
    interrupted = shop.job("#!/bin/sh\n")
    shop.spool.release(shop.spool.claim(shop.spool.waiting()[0], P), 10)
    for _ in range(3):
        other_hosts(shop, shop.job("#!/bin/sh\n"))
    for salt in "bcdef":
        mine = claims(shop, 1000, pilot=salt * 16)
        [first] = mine.claim(1, alone=True)
        assert first.job == interrupted
        shop.spool.release(first, 10)


def test_a_job_described_by_a_newer_release_is_left(shop):
    newer = shop.job("#!/bin/sh\n", described={"protocol": 9})
    mine = claims(shop)
    assert mine.claim(1, alone=True) == [] and mine.leaves == 1
    assert not mine.is_work_left()
    assert demand.waiting(shop.spool, Policy()) == 0, "no pilot of this release is submitted for it"
    assert jobs_of(shop.spool.tickets("ready")) == [newer]


# ---- what is left --------------------------------------------------------------------------------


def test_the_work_left_is_the_sum_of_time_limits(shop):
    mine = claims(shop, 1000)
    nothing_known = Pace(0.0, 0)
    assert not mine.outlasts([], nothing_known, 1), "nothing waits"
    for _ in range(4):
        shop.job("#!/bin/sh\n", time_limit=240)
    assert not mine.outlasts([], nothing_known, 1)
    shop.job("#!/bin/sh\n", time_limit=240)
    assert mine.outlasts([], nothing_known, 1)
    assert not mine.outlasts([], nothing_known, 2)


def test_without_time_limits_the_mean_of_the_pilots_own_jobs_counts(shop):
    mine = claims(shop, 1000)
    for _ in range(10):
        shop.job("#!/bin/sh\n")
    assert not mine.outlasts([], Pace(0.0, 0), 1), "nothing is known, so nothing is concluded"
    assert not mine.outlasts([], Pace(160.0, 2), 1)
    assert mine.outlasts([], Pace(400.0, 2), 1)
    [running] = mine.claim(1, alone=True)
    assert mine.outlasts([(running, 400.0)], Pace(400.0, 1), 1), "a long job that runs tells"


def test_a_pilot_without_an_end_is_never_outlasted(shop):
    shop.job("#!/bin/sh\n", time_limit=10**6)
    assert not claims(shop).outlasts([], Pace(10**6, 1), 1)


# ---- the demand ----------------------------------------------------------------------------------


def seen(**info):
    return Seen(dict(info), None, None)


QUEUED = seen()
RUNNING = seen(started="then")
CLOSING = seen(started="then", closing="now")
STOPPING = seen(started="then", stopping="the walltime ends")
LEAVING = seen(started="then", leaves=1)
OUTLASTED = seen(started="then", outlasted=True)


@pytest.mark.parametrize(
    ("policy", "waiting", "busy", "living", "wanted"),
    [
        ({}, 0, 0, [], (0, 1)),
        ({}, 5, 0, [], (1, 1)),
        ({"max": 3}, 5, 0, [], (3, 3)),
        ({"max": 3}, 2, 0, [], (2, 3)),
        ({"max": 3, "slots": 4}, 5, 0, [], (2, 3)),
        ({"max": 3, "slots": 4}, 2, 2, [RUNNING], (0, 3)),
        ({}, 5, 0, [QUEUED], (0, 1)),
        ({}, 5, 1, [RUNNING], (0, 1)),
        ({}, 5, 0, [CLOSING], (1, 1)),
        ({}, 5, 1, [STOPPING], (1, 1)),
        ({"max": 2, "slots": 4}, 1, 1, [LEAVING], (1, 2)),
        ({"max": 2, "slots": 4}, 1, 1, [LEAVING, QUEUED], (0, 2)),
        ({"max": 1, "slots": 4}, 1, 1, [LEAVING], (0, 1)),
        ({}, 5, 1, [OUTLASTED], (0, 1)),
        ({"successor": True}, 5, 1, [RUNNING], (0, 1)),
        ({"successor": True}, 5, 1, [OUTLASTED], (1, 2)),
        ({"successor": True}, 5, 1, [OUTLASTED, QUEUED], (0, 1)),
        ({"successor": True}, 0, 1, [OUTLASTED], (0, 1)),
        ({"successor": True, "max": 2}, 9, 2, [OUTLASTED, RUNNING], (1, 3)),
    ],
)
def test_how_many_pilots_are_wanted_and_in_how_many_slots(policy, waiting, busy, living, wanted):
    assert demand.demand(Policy(**policy), waiting, busy, living) == wanted


def test_only_work_that_fits_a_pilot_of_the_policy_waits(shop):
    shop.job("#!/bin/sh\n", time_limit=100)
    shop.job("#!/bin/sh\n", time_limit=5000)
    unreadable = shop.job("#!/bin/sh\n")
    os.unlink(files.join(shop.spool.job_folder(unreadable), "description.json"))
    assert demand.waiting(shop.spool, Policy(max=9, walltime=1000)) == 2
    assert demand.waiting(shop.spool, Policy(max=9, walltime=6000)) == 3


def test_fresh_staging_counts_as_waiting(shop):
    job = shop.stage("#!/bin/sh\n")
    assert demand.waiting(shop.spool, Policy()) == 1
    os.utime(shop.spool.path("incoming", f"{job}.{SESSION}"), (0, 0))
    assert demand.waiting(shop.spool, Policy()) == 0


@pytest.mark.parametrize(
    "gres", ["gpu", "gpu:1", "gpu:v100:1", "craynetwork:1,gpu:2", "gres/gpu:1"]
)
def test_a_gpu_is_asked_for_by_its_name_in_gres(gres):
    assert Policy(gres=gres).wants_gpu


@pytest.mark.parametrize("gres", [None, "", "craynetwork:1", "gpumem:4", "shard:1"])
def test_other_resources_are_no_gpu(gres):
    assert not Policy(gres=gres).wants_gpu
