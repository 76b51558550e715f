"""The operator's verbs against a real cluster: what they find, bring there, and end."""

from __future__ import annotations

import pytest
from cluster.service import Site
from operating import Operator

from hpc_batch.explanation import meaning

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def operate(site: Site) -> Operator:
    return Operator(site)


def test_what_is_deployed_passes_the_deep_doctor(site: Site, operate: Operator) -> None:
    site.change(hpc_env={"scripts": f"{site.home}/elsewhere/on_hpc/scripts"})
    code, found = operate.checks()
    assert (code, found["checkout"]["level"]) == (1, "error")
    assert operate("deploy").code == 0
    site.change(cronjob={"templates": None})
    code, found = operate.checks("--deep", "--timeout", "3m")
    assert code == 0, found
    assert found["checkout"]["detail"].endswith("the same as here")
    assert "/apptainer" in found["containers"]["detail"] or "singularity" in str(found)
    (pilot,) = site.pilots_listed()
    deep = found["deep"]["detail"]
    assert f"node {pilot['node']}" in deep and f"native id {pilot['id']}" in deep
    assert site.cluster.run(site.user, "ls ~/elsewhere/on_hpc/editions").count("\n") == 1


def test_the_checkout_that_is_there_is_the_same_and_stays(site: Site, operate: Operator) -> None:
    done = operate("deploy")
    assert (done.code, "has" in done.out and "already (plain)" in done.out) == (0, True), done.err


def test_a_controller_that_stands_still_is_unknown(site: Site, operate: Operator) -> None:
    site.cluster.stop_slurmctld()
    code, found = operate.checks("--only", "scheduler,workspace")
    assert code == 1
    assert (found["scheduler"]["level"], found["workspace"]["level"]) == ("unknown", "ok")


def test_a_pilot_that_waits_is_shown_explained_and_cancelled(site: Site, operate: Operator) -> None:
    site.cluster.knob("queue_wait", 300)
    site.drop_copy("thing")
    site.sweep()
    site.sweep()
    done = operate("explain", "thing")
    (pilot,) = site.pilots_listed()
    assert f"pilot {pilot['id']} has been queued since" in done.out
    assert f"the scheduler says {pilot['reason']}" in done.out
    assert meaning(pilot["reason"])
    (shown,) = operate("--json", "pilot").document["pilots"]
    assert (shown["native_id"], shown["state"]) == (pilot["id"], "queued")
    assert operate("pilot", "submit").code == 1
    assert operate("pilot", "cancel", "--yes").out == f"{pilot['id']}: asked\n"
    site.wait(lambda: site.pilots_listed()[0]["state"] == "CANCELLED", "Slurm ends it")
    document = operate("--json", "pilot").document
    assert (document["pilots"], document["trouble"]) == ([], None)
    assert site.slots_held() == []
    site.cluster.knob("queue_wait", 0)
    assert site.until("thing")["thing"]["status"] == "ok"


def test_the_job_of_a_cancelled_pilot_runs_again_without_a_crash(
    site: Site, operate: Operator
) -> None:
    pilot = site.start_job("thing", 3)
    site.sweep()
    assert f"it has been running on {pilot['node']} since" in operate("explain", "thing").out
    assert operate("pilot", "cancel", pilot["id"], "--yes").code == 0
    site.wait(lambda: not site.running(), "its ticket goes back")
    (ticket,) = site.workspace.glob("ready/*")
    assert ticket.name.endswith(".a1c0")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["attempts"]) == ("ok", 2)


def test_a_pilot_by_hand_runs_what_comes(site: Site, operate: Operator) -> None:
    site.change(pilot={"linger": 60})
    native_id = operate("pilot", "submit").out.strip()
    site.drop_copy("thing")
    assert site.until("thing")["thing"]["pilot"]["native_id"] == native_id


def test_a_pilot_that_slurm_refuses_is_told_at_once(site: Site, operate: Operator) -> None:
    site.change(hpc={"partition": "nowhere"})
    done = operate("pilot", "submit")
    assert done.code == 1
    assert "nowhere" in done.err or "partition" in done.err
    site.drop_copy("thing")
    site.sweep()
    assert "partition" in operate("explain", "thing").out
