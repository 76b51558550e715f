"""Files beside a record that are damaged: what they said is found out again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from hpc_batch.record import BESIDE, Damaged, Records
from hpc_cluster import effects

DAMAGES = {"cut": b'{"id": "0123', "garbage": b"\0\xff" * 300, "gone": None}


@pytest.fixture(params=sorted(DAMAGES))
def damage(request: pytest.FixtureRequest) -> bytes | None:
    return DAMAGES[request.param]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A world with one job, whose output is to take the place of an older file."""
    with world(tmp_path) as made:
        (made.out / "x.out").write_text("older")
        made.drop_copy("x")
        yield made


def spoil(here: World, name: str, content: bytes | None) -> None:
    """Damage a file beside the one record."""
    (path,) = (here.state / "jobs").glob("*/" + name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


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


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"[]", b"{}", b'{"status": "ok"}', b"7", b"[" * 9999]
)
def test_what_is_no_document_of_its_kind_is_damaged(tmp_path: Path, content: bytes) -> None:
    records = Records(tmp_path / "jobs")
    (tmp_path / "jobs" / "j").mkdir(parents=True)
    for name in BESIDE:
        Path(records.path("j", name)).write_bytes(content)
        with pytest.raises(Damaged, match=name):
            records.read_json("j", name)


def test_a_document_that_cannot_be_read_now_is_not_damaged(tmp_path: Path) -> None:
    records = Records(tmp_path / "jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(OSError):
            records.read_json("j", "answer.json")


def failing(path: Any, *args: Any, **more: Any) -> int:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)


STAGED = [*(("description.json", content) for content in DAMAGES.values())]
STAGED += [("script", b""), ("script", None)]


@pytest.mark.parametrize(("name", "damage"), STAGED)
def test_a_job_that_is_not_yet_staged_is_checked_again(
    here: World, capsys: pytest.CaptureFixture[str], name: str, damage: bytes | None
) -> None:
    here.configure(remote={"transport": "local", "prologue": "exit 1"})
    assert here.sweep() == 78
    assert phase(here) == "STAGING"
    here.configure(remote={"transport": "local"})
    spoil(here, name, damage)
    capsys.readouterr()
    ends_well(here, capsys)


def test_a_published_job_does_not_need_its_description(here: World, damage: bytes | None) -> None:
    here.sweep()
    assert phase(here) == "PUBLISHED"
    spoil(here, "description.json", damage)
    assert here.until("x")["x"]["status"] == "ok"


@pytest.mark.parametrize("ending", ["x.out", ".finished"], ids=["PLACING", "ANSWERING"])
def test_a_result_whose_answer_is_damaged_is_collected_again(
    here: World, capsys: pytest.CaptureFixture[str], damage: bytes | None, ending: str
) -> None:
    collected(here, ending)
    assert phase(here) == ("PLACING" if ending == "x.out" else "ANSWERING")
    spoil(here, "answer.json", damage)
    capsys.readouterr()
    ends_well(here, capsys)


def test_what_stood_at_a_destination_comes_back_though_the_answer_is_damaged(
    here: World, damage: bytes | None
) -> None:
    """Placed over it, damaged, collected again, and then it cannot be placed any more."""
    collected(here, ".finished")
    assert (here.out / "x.out").read_text() == "hello"
    spoil(here, "answer.json", damage)

    times: list[str] = []

    def denied(path: str) -> int:
        times.extend([path] * path.endswith("x.out"))
        # The first one brings the older file back; those that follow are the placing, tried twice.
        return errno.EACCES if path.endswith("x.out") and len(times) in (2, 3) else 0

    with refusing("rename", denied):
        assert here.until("x")["x"]["reason"] == "stage_out"
    assert (here.out / "x.out").read_text() == "older"


def test_an_undoing_whose_answer_is_damaged_is_undone_and_tried_again(
    here: World, capsys: pytest.CaptureFixture[str], damage: bytes | None
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
    spoil(here, "unplaced.json", damage)
    capsys.readouterr()
    ends_well(here, capsys)


def test_a_refusal_whose_answer_is_damaged_is_found_again(
    tmp_path: Path, damage: bytes | None
) -> None:
    with world(tmp_path) as here:
        here.drop("x", "copi")
        with refusing("rename", not_the(".finished")):
            assert here.sweep() == 75
        assert phase(here) == "ANSWERING"
        before = here.records()[0]["id"]
        spoil(here, "answer.json", damage)
        answer = here.until("x")["x"]
        assert (answer["reason"], answer["id"]) == ("rejected", before)
        assert "did you mean copy?" in answer["message"]


def test_a_cancelled_job_whose_answer_is_damaged_is_cancelled(
    tmp_path: Path, damage: bytes | None
) -> None:
    with world(tmp_path) as here:
        here.drop("x", "say", args={"words": "x"})
        (here.dropbox / "x.job.cancel").touch()
        with refusing("rename", not_the(".finished")):
            assert here.sweep() == 75
        spoil(here, "answer.json", damage)
        assert here.until("x")["x"]["reason"] == "cancelled"


def test_a_job_that_is_cleaned_does_not_need_its_answer(here: World, damage: bytes | None) -> None:
    here.sweep()
    here.wait_for_tickets(1)
    with refusing("unlink", not_the(".drop")):
        assert here.sweep() == 75
    assert phase(here) == "CLEANING"
    spoil(here, "answer.json", damage)
    assert here.sweep() == 0
    assert not here.records()
    assert os.listdir(here.out) == ["x.out"]
    assert (here.out / "x.out").read_text() == "hello"
