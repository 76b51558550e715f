"""Files beside a record that are damaged: what they said is found out again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import journals
import pytest
from world import World, world

from hpc_batch.journal import Damaged, Step
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_cluster import effects

DAMAGES = ("cut", "garbage", "gone")


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A world with one job, whose output is to take the place of an older file."""
    with world(tmp_path) as made:
        (made.out / "x.out").write_text("older")
        made.drop_copy("x")
        yield made


def spoil(here: World, name: str, damage: str) -> None:
    """Damage a paper of the one job."""
    journals.spoil(here.state / "journal", name, damage)


def phase(here: World) -> str:
    (record,) = here.records()
    return str(record["phase"])


@contextmanager
def refusing(name: str, tells: Callable[[str], int]) -> Iterator[None]:
    """Have an effect fail with the errno that `tells` says for its last path; 0: it is done."""
    real = getattr(effects, name)

    def effect(*paths: Any) -> Any:
        code = tells(os.fsdecode(paths[-1]))
        if code:
            raise OSError(code, os.strerror(code), paths[-1])
        return real(*paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, name, effect)
        yield


def not_the(ending: str) -> Callable[[str], int]:
    return lambda path: errno.EIO if path.endswith(ending) else 0


def collected(here: World, ending: str) -> None:
    """Collect the job, as far as no name with this ending is needed."""
    here.sweep()
    here.wait_for_tickets(1)
    with refusing("rename", not_the(ending)):
        assert here.sweep() == 75


def ends_well(here: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The job ends as it would have; what was damaged was told, and is no bug."""
    answer = here.until("x")["x"]
    assert (answer["status"], answer["reason"]) == ("ok", "completed")
    assert (here.out / "x.out").read_text() == "hello"
    assert os.listdir(here.out) == ["x.out"]
    told = capsys.readouterr().err
    assert "is damaged" in told
    assert "Error" not in told
    here.sweep()
    capsys.readouterr()
    here.sweep()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["", [], {}, {"status": "ok"}, 7, None])
def test_what_is_no_paper_of_its_kind_is_damaged(tmp_path: Path, content: Any) -> None:
    record = Record("J", "STAGING", "x.job", "/dropbox", "host", "/workspace").document()
    for name in ("description", "answer"):
        journals.write(tmp_path / "journal", {"J": Step(record, {name: content})})
        with pytest.raises(Damaged, match=f"the {name} of J"):
            Records(tmp_path / "journal").load().document("J", name)


def test_a_journal_that_cannot_be_read_now_is_not_damaged(tmp_path: Path) -> None:
    record = Record("J", "STAGING", "x.job", "/dropbox", "host", "/workspace").document()
    journals.write(tmp_path / "journal", {"J": Step(record, {"answer": {}})})
    records = Records(tmp_path / "journal").load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(OSError):
            records.document("J", "answer")


def failing(path: Any, *args: Any, **more: Any) -> int:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)


@pytest.mark.parametrize("name", ["description", "script"])
def test_a_job_that_is_not_yet_staged_is_checked_again(
    here: World, capsys: pytest.CaptureFixture[str], damage: str, name: str
) -> None:
    here.configure(remote={"transport": "local", "prologue": "exit 1"})
    assert here.sweep() == 78
    assert phase(here) == "STAGING"
    here.configure(remote={"transport": "local"})
    spoil(here, name, damage)
    capsys.readouterr()
    ends_well(here, capsys)


def test_a_published_job_does_not_need_its_description(here: World, damage: str) -> None:
    here.sweep()
    assert phase(here) == "PUBLISHED"
    spoil(here, "description", damage)
    assert here.until("x")["x"]["status"] == "ok"


@pytest.mark.parametrize("ending", ["x.out", ".finished"], ids=["PLACING", "ANSWERING"])
def test_a_result_whose_answer_is_damaged_is_collected_again(
    here: World, capsys: pytest.CaptureFixture[str], damage: str, ending: str
) -> None:
    collected(here, ending)
    assert phase(here) == ("PLACING" if ending == "x.out" else "ANSWERING")
    spoil(here, "answer", damage)
    capsys.readouterr()
    ends_well(here, capsys)


def test_what_stood_at_a_destination_comes_back_though_the_answer_is_damaged(
    here: World, damage: str
) -> None:
    """Placed over it, damaged, collected again, and then it cannot be placed any more."""
    collected(here, ".finished")
    assert (here.out / "x.out").read_text() == "hello"
    spoil(here, "answer", damage)

    times: list[str] = []

    def denied(path: str) -> int:
        times.extend([path] * path.endswith("x.out"))
        # The first one brings the older file back; those that follow are the placing, tried twice.
        return errno.EACCES if path.endswith("x.out") and len(times) in (2, 3) else 0

    with refusing("rename", denied):
        assert here.until("x")["x"]["reason"] == "stage_out"
    assert (here.out / "x.out").read_text() == "older"


def test_an_undoing_whose_answer_is_damaged_is_undone_and_tried_again(
    here: World, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    here.sweep()
    here.wait_for_tickets(1)
    tries: list[str] = []

    def refused(path: str) -> int:
        if not path.endswith("x.out"):
            return 0
        tries.append(path)
        return errno.EACCES if len(tries) <= 2 else errno.EIO  # what is refused is tried twice

    with refusing("rename", refused):
        assert here.sweep() == 75
    assert phase(here) == "UNPLACING"
    spoil(here, "answer", damage)
    capsys.readouterr()
    ends_well(here, capsys)


def test_a_refusal_whose_answer_is_damaged_is_found_again(tmp_path: Path, damage: str) -> None:
    with world(tmp_path) as here:
        here.drop("x", "copi")
        with refusing("rename", not_the(".finished")):
            assert here.sweep() == 75
        assert phase(here) == "ANSWERING"
        before = here.records()[0]["id"]
        spoil(here, "answer", damage)
        answer = here.until("x")["x"]
        assert (answer["reason"], answer["id"]) == ("rejected", before)
        assert "did you mean copy?" in answer["message"]


def test_a_cancelled_job_whose_answer_is_damaged_is_cancelled(tmp_path: Path, damage: str) -> None:
    with world(tmp_path) as here:
        here.drop("x", "say", args={"words": "x"})
        (here.dropbox / "x.job.cancel").touch()
        with refusing("rename", not_the(".finished")):
            assert here.sweep() == 75
        spoil(here, "answer", damage)
        assert here.until("x")["x"]["reason"] == "cancelled"


def test_a_job_that_is_cleaned_does_not_need_its_answer(here: World, damage: str) -> None:
    here.sweep()
    here.wait_for_tickets(1)
    with refusing("unlink", not_the(".drop")), refusing("rename", not_the(".drop")):
        assert here.sweep() == 75
    assert phase(here) == "CLEANING"
    spoil(here, "answer", damage)
    assert here.sweep() == 0
    assert not here.records()
    assert os.listdir(here.out) == ["x.out"]
    assert (here.out / "x.out").read_text() == "hello"
