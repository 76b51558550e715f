"""The checker finds nothing in good evidence, and every fault that is planted in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import journals
import pytest
import yaml
from soak import kinds
from soak.checker import RULES, check

from hpc_batch.journal import Step

PILOT, OTHER = "a" * 16, "b" * 16
JOBS = {f"host0-{n}": f"0123abcd-0199aabbccd-{n:016x}" for n in range(1, 8)}
"""Word: J."""


class Scene:
    """What a small soak left: good evidence, in which a fault can be planted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = folder / "hosts" / "host0"
        self.events: list[dict[str, Any]] = []
        self.journal: list[str] = []
        self.told: list[str] = []
        for inner in ("out", "dropbox/.hpc_batch", "state"):
            (self.host / inner).mkdir(parents=True)
        for name in ("incoming", "ready", "running", "jobs", "done/0123abcd", f"pilots/{PILOT}"):
            (folder / "workspace" / name).mkdir(parents=True)
        for name in kinds_of_folder():
            (self.host / "dropbox" / ".hpc_batch" / name).touch()
        (folder / "facts.json").write_text(json.dumps({"pilots": 2}))
        self.job("host0-1", "good")
        self.job("host0-2", "over", older=True)
        self.job("host0-3", "fail", "error", "exit_code", 3, older=True)
        self.job("host0-4", "unknown", "error", "rejected", None, older=True, ran=0)
        self.note("cancel", word="host0-5")
        self.job("host0-5", "cancelled", "error", "cancelled", None, ran=0)
        self.job("host0-6", "slow", ran=2)
        self.note("kill", what="job", job=JOBS["host0-7"], attempt=1)
        self.job("host0-7", "good", "error", "exit_code", 137)
        self.note("kill", what="runner", pilot=PILOT)
        self.note("pilots", alive=2)
        self.note("pass", host="host0", code=0, said="")
        self.note("pass", host="host0", code=-9, said="")
        self.note("quiet", trouble="")
        self.keep("host0-1")

    def note(self, event: str, **facts: Any) -> None:
        self.events.append({"at": 1.0, "event": event, **facts})

    def outputs(self, word: str) -> dict[str, str]:
        return {key: str(self.host / "out" / f"{word}.{key}") for key in ("first", "second")}

    def job(
        self,
        word: str,
        kind: str,
        status: str = "ok",
        reason: str = "completed",
        rc: int | None = 0,
        *,
        older: bool = False,
        ran: int = 1,
    ) -> None:
        job, outputs = JOBS[word], self.outputs(word)
        self.note(
            "dropping",
            host="host0",
            word=word,
            name=word,
            kind=kind,
            line=word,
            lines=2,
            outputs=outputs,
        )
        for attempt in range(1, ran + 1):
            self.journal.append(f"start {job} {attempt} {PILOT}")
        data = f"older {word}".encode() if older else None
        if status == "ok":
            data = kinds.content(job, ran, word, 2)
            self.journal.append(f"end {job} {ran} {PILOT}")
        if data is not None:
            for path in outputs.values():
                Path(path).write_bytes(data)
        self.note(
            "answer",
            word=word,
            path=str(self.host / "dropbox" / f"{word}.job.finished"),
            id=job,
            status=status,
            reason=reason,
            rc=rc,
            attempts=ran,
            message="",
            outputs=dict.fromkeys(outputs, kinds.digest(data)),
        )
        self.told.append(job)

    def keep(self, word: str, ending: str = "") -> None:
        """Leave an answer in the dropbox."""
        text = yaml.safe_dump({"x-submission": word, "job": {"id": JOBS[word]}})
        (self.host / "dropbox" / f"{word}.job.finished{ending}").write_text(text)

    def event(self, name: str, word: str) -> dict[str, Any]:
        (found,) = (e for e in self.events if e["event"] == name and e.get("word") == word)
        return found

    def check(self) -> dict[str, list[str]]:
        lines = [json.dumps(event) + "\n" for event in self.events]
        (self.folder / "history").write_text("".join(lines))
        (self.folder / "journal").write_text("".join(f"{line}\n" for line in self.journal))
        told = "".join(json.dumps({"id": job}) + "\n" for job in self.told)
        (self.host / "state" / "history.jsonl").write_text(told)
        return check(self.folder)


def kinds_of_folder() -> tuple[str, ...]:
    """Return what always lies in a dropbox's own folder."""
    return ("instance", "probe", "trash")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_good_evidence_is_found_good(scene: Scene) -> None:
    assert scene.check() == {}


def test_evidence_may_be_looked_at_elsewhere(scene: Scene, tmp_path: Path) -> None:
    assert scene.check() == {}
    shutil.move(scene.folder / "hosts", tmp_path / "away" / "hosts")
    for name in ("history", "journal", "facts.json", "workspace"):
        shutil.move(scene.folder / name, tmp_path / "away" / name)
    assert check(tmp_path / "away") == {}


# ---- faults --------------------------------------------------------------------------------------

Fault = Callable[[Scene], None]
FAULTS: list[tuple[str, Fault]] = []


def fault(rule: str) -> Callable[[Fault], Fault]:
    """Register a fault with the rule that must find it."""

    def register(plant: Fault) -> Fault:
        FAULTS.append((rule, plant))
        return plant

    return register


@fault("every drop is answered")
def an_answer_is_lost(scene: Scene) -> None:
    scene.events.remove(scene.event("answer", "host0-2"))


@fault("no drop is answered twice")
def an_answer_comes_twice(scene: Scene) -> None:
    scene.events.append({**scene.event("answer", "host0-2"), "id": JOBS["host0-2"][:-1] + "f"})


@fault("no drop is answered twice")
def an_answer_comes_again_after_it_was_consumed(scene: Scene) -> None:
    scene.note("consumed", word="host0-2")
    scene.events.append(dict(scene.event("answer", "host0-2")))


@fault("no drop is answered twice")
def one_job_answers_two_drops(scene: Scene) -> None:
    scene.event("answer", "host0-2")["id"] = JOBS["host0-1"]


@fault("no drop is answered twice")
def an_answer_comes_for_a_drop_that_was_withdrawn(scene: Scene) -> None:
    scene.note("withdrawn", word="host0-2")


@fault("no drop is answered twice")
def an_answer_is_torn(scene: Scene) -> None:
    scene.note("torn", host="host0", path="x", text="script: wo")


@fault("answers are as undisturbed")
def a_good_job_is_answered_with_an_error(scene: Scene) -> None:
    scene.event("answer", "host0-1").update(status="error", reason="lost")


@fault("answers are as undisturbed")
def a_job_that_fails_is_answered_with_ok(scene: Scene) -> None:
    scene.event("answer", "host0-3").update(status="ok", reason="completed", rc=0)


@fault("answers are as undisturbed")
def a_return_code_is_wrong(scene: Scene) -> None:
    scene.event("answer", "host0-3")["rc"] = 4


@fault("answers are as undisturbed")
def a_job_that_nobody_killed_is_answered_as_killed(scene: Scene) -> None:
    scene.event("answer", "host0-1").update(status="error", reason="exit_code", rc=137)


@fault("answers are as undisturbed")
def the_killed_attempt_was_another(scene: Scene) -> None:
    (kill,) = (e for e in scene.events if e["event"] == "kill" and e["what"] == "job")
    kill["attempt"] = 2


@fault("answers are as undisturbed")
def a_job_is_cancelled_that_nobody_cancelled(scene: Scene) -> None:
    scene.events.remove(scene.event("cancel", "host0-5"))


@fault("answers are as undisturbed")
def a_job_is_given_up_after_two_pilots(scene: Scene) -> None:
    scene.event("answer", "host0-6").update(status="error", reason="pilot_died", rc=None)


@fault("answers are as undisturbed")
def a_job_is_given_up_though_its_pilots_lived(scene: Scene) -> None:
    scene.journal.append(f"start {JOBS['host0-6']} 3 {OTHER}")
    scene.event("answer", "host0-6").update(
        status="error", reason="pilot_died", rc=None, attempts=3
    )


@fault("each history tells the same")
def the_history_lacks_a_job(scene: Scene) -> None:
    scene.told.pop()


@fault("each history tells the same")
def the_history_names_a_job_that_nobody_knows(scene: Scene) -> None:
    scene.told.append(JOBS["host0-1"][:-1] + "f")


@fault("outputs are whole and from one attempt")
def an_output_is_partial(scene: Scene) -> None:
    data = kinds.content(JOBS["host0-1"], 1, "host0-1", 2)[:-1]
    scene.event("answer", "host0-1")["outputs"]["second"] = kinds.digest(data)


@fault("outputs are whole and from one attempt")
def an_output_is_not_there(scene: Scene) -> None:
    scene.event("answer", "host0-1")["outputs"]["second"] = None


@fault("outputs are whole and from one attempt")
def an_output_is_of_another_attempt(scene: Scene) -> None:
    data = kinds.content(JOBS["host0-6"], 1, "host0-6", 2)
    scene.event("answer", "host0-6")["outputs"]["second"] = kinds.digest(data)


@fault("outputs are whole and from one attempt")
def an_output_is_of_another_job(scene: Scene) -> None:
    data = kinds.content(JOBS["host0-1"], 1, "host0-2", 2)
    scene.event("answer", "host0-2")["outputs"]["first"] = kinds.digest(data)


@fault("outputs are whole and from one attempt")
def an_error_takes_away_what_stood_there(scene: Scene) -> None:
    scene.event("answer", "host0-3")["outputs"]["first"] = None


@fault("outputs are whole and from one attempt")
def an_error_places_an_output(scene: Scene) -> None:
    data = kinds.content(JOBS["host0-7"], 1, "host0-7", 2)
    scene.event("answer", "host0-7")["outputs"]["first"] = kinds.digest(data)


@fault("outputs stay")
def an_output_changes_after_its_answer(scene: Scene) -> None:
    Path(scene.outputs("host0-1")["first"]).write_text("something else")


@fault("outputs stay")
def an_output_vanishes_after_its_answer(scene: Scene) -> None:
    Path(scene.outputs("host0-1")["first"]).unlink()


@fault("outputs stay")
def what_was_set_aside_stays(scene: Scene) -> None:
    (scene.host / "out" / f".hpcb-{JOBS['host0-2']}-0.old").touch()


@fault("each attempt starts once")
def an_attempt_begins_twice(scene: Scene) -> None:
    scene.journal.append(f"start {JOBS['host0-1']} 1 {OTHER}")


@fault("each attempt starts once")
def a_job_is_started_too_often(scene: Scene) -> None:
    scene.journal.append(f"start {JOBS['host0-6']} 11 {OTHER}")


@fault("results come from the last attempt")
def an_attempt_begins_after_the_one_that_is_answered(scene: Scene) -> None:
    scene.journal.append(f"start {JOBS['host0-1']} 2 {OTHER}")


@fault("results come from the last attempt")
def a_job_is_ok_that_never_ended(scene: Scene) -> None:
    scene.journal.remove(f"end {JOBS['host0-1']} 1 {PILOT}")


@fault("jobs belong to answers")
def a_job_runs_that_nobody_dropped(scene: Scene) -> None:
    scene.journal.append(f"start {JOBS['host0-1'][:-1]}f 1 {PILOT}")


@fault("pilots stay within their bound")
def a_slot_has_two_pilots(scene: Scene) -> None:
    scene.note("pilots", alive=3)


@fault("it becomes quiet")
def it_never_ends(scene: Scene) -> None:
    scene.note("stuck", trouble="no answer for 300 s")


@fault("passes end well")
def a_pass_finds_a_bug(scene: Scene) -> None:
    scene.note("pass", host="host0", code=70, said="this is a bug in hpc_batch")


@fault("passes end well")
def a_pass_asks_the_operator_to_mend_something(scene: Scene) -> None:
    scene.note("pass", host="host0", code=78, said="configuration")


@fault("passes end well")
def a_pass_prints_a_traceback(scene: Scene) -> None:
    scene.note("pass", host="host0", code=0, said="Traceback (most recent call last)")


LEFT = {
    "a drop that was taken": "hosts/host0/dropbox/.hpc_batch/J.drop",
    "a reserved answer": "hosts/host0/dropbox/.hpc_batch/J.answer",
    "what tells of a job in flight": "hosts/host0/dropbox/x.job.submitted",
    "a drop that nobody takes": "hosts/host0/dropbox/x.job",
    "a cancel": "hosts/host0/dropbox/x.job.cancel",
    "a ticket of a killed session": "workspace/incoming/J.S",
    "a waiting ticket": "workspace/ready/J.a0c0",
    "a claimed ticket": "workspace/running/J.a1c0.P",
    "a ticket that nobody collects": "workspace/done/0123abcd/J.a1.P.ok",
    "a job's data": "workspace/jobs/J",
}


@pytest.mark.parametrize("path", LEFT.values(), ids=list(LEFT))
def test_what_is_left_is_found(scene: Scene, path: str) -> None:
    (scene.folder / path).touch()
    assert set(scene.check()) == {"nothing is left"}


def test_a_record_that_is_left_is_found(scene: Scene) -> None:
    journals.write(scene.host / "state" / "journal", {"J": Step({}, {})})
    assert set(scene.check()) == {"nothing is left"}


def test_a_second_answer_beside_the_first_is_found(scene: Scene) -> None:
    scene.keep("host0-1", ".1")
    assert set(scene.check()) == {"nothing is left"}


@pytest.mark.parametrize(
    ("rule", "plant"), FAULTS, ids=[plant.__name__.replace("_", " ") for _, plant in FAULTS]
)
def test_a_planted_fault_is_found(scene: Scene, rule: str, plant: Fault) -> None:
    plant(scene)
    assert rule in scene.check()


def test_every_rule_has_a_fault(scene: Scene) -> None:
    assert {rule for rule, _ in FAULTS} | {"nothing is left"} == set(RULES)
