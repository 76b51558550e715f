"""What a power cut cannot take away: each step is durable when it returns, contents before names.

What may be forgotten is named in each test, with its reason.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import MADE, Desk, Willing, making
from watched import Watched
from workshop import INSTANCE, SESSION, Workshop
from world import World

from hpc_batch import node, placing, restore
from hpc_batch.record import Target
from hpc_batch.sight import Sight
from hpc_batch.state import hold
from hpc_cluster import (
    PROTOCOL,
    backoff,
    batch,
    dismissal,
    durable,
    effects,
    files,
    handover,
    lookout,
    pilot,
    queuer,
    reaping,
    slots,
)
from hpc_cluster.attempt import Attempt, Context
from hpc_cluster.frames import Frames
from hpc_cluster.guard import Guard
from hpc_cluster.loading import Load, load_all
from hpc_cluster.spool import Spool
from hpc_cluster.statement import Statement
from hpc_cluster.store import Store
from hpc_cluster.walltime import Walltime

P, Q = secrets.token_hex(8), secrets.token_hex(8)


def check(disk: Watched, *forgotten: str) -> None:
    """Everything is durable but what may be forgotten; then begin anew."""
    early = [path for path in disk.early if not path.endswith(forgotten)]
    assert not early, "renamed before their contents were durable"
    pending = [path for path in disk.pending() if not path.endswith(forgotten)]
    assert not pending, "told before they were durable"
    disk.forget()


# ---- the service host ----------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with making(tmp_path) as make:
        yield make("desk")


def outputs(desk: Desk) -> list[Any]:
    """Give every job an output over an old file; its temporary is durable, as collecting leaves."""
    found = []
    for record in desk.records:
        path = desk.here.out / record.name
        path.write_text("old")
        made = replace(record, targets=(Target("one", str(path)),), attempt=1)
        Path(placing.temporary(made, 0, 1)).write_text("new")
        found.append((made, node.make(made, "completed", "processed OK")))
    return found


def test_beginning_and_taking(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Watched(monkeypatch)
    desk.state.begin()
    check(disk)
    (desk.here.dropbox / "a.job.finished").write_text("unread")
    desk.take()
    check(disk)
    (desk.here.dropbox / "a.job.cancel").touch()
    desk.intake.cancel("a.job", next(iter(desk.records)).id)
    check(disk)


def test_a_reserved_answer_is_durable_before_the_drop_is_ours(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drop that is ours without a reserved answer would count as answered; without a record it
    would be nobody's."""
    disk, seen = Watched(monkeypatch), []
    real = effects.rename

    def rename(source: Any, target: Any) -> None:
        if os.fsdecode(target).endswith(".drop"):
            pending = disk.pending()
            seen.append([p for p in pending if p.endswith((".answer", "/state/journal"))])
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    desk.take()
    assert seen == [[], []]


def test_a_drop_that_was_withdrawn_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the dropbox and the rename that takes it."""
    real = effects.rename

    def rename(source: Any, target: Any) -> None:
        if os.fsdecode(source).endswith("/a.job"):
            os.unlink(source)
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    disk = Watched(monkeypatch)
    desk.take()
    assert [r.name for r in desk.records] == ["b.job"]
    check(disk, ".answer")  # reserved and not used: it comes back as litter without a record


def test_a_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = World(tmp_path)
    disk = Watched(monkeypatch)
    with hold(here.config) as state:
        state.begin()
        check(disk)


def test_outputs_that_were_fetched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placing looks for them by their names, and renames them."""
    desk.take()
    batch = [
        replace(r, targets=(Target("one", str(desk.here.out / r.name)),), layout="flat")
        for r in desk.records
    ]
    disk = Watched(monkeypatch)
    found = desk.collect(batch, {"one": MADE})
    assert len(found.placing) == len(batch) and not found.answering
    check(disk)


def test_what_is_brought_together_after_a_restore(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.take()
    answered, late = desk.records
    os.unlink(desk.state.of_job(answered.id, "drop"))
    desk.records.save_all([late.enter("STAGING")])
    os.unlink(desk.state.of_job(late.id, "answer"))
    disk = Watched(monkeypatch)
    assert len(list(restore._restored(desk.here.config, desk.state, desk.records))) == 2
    assert [r.phase for r in desk.records] == ["CLEANING"]
    check(disk)


def test_drops_that_were_taken_after_the_backup(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is in the dropbox for good before what remembers its name goes."""
    desk.take()
    desk.records.remove_all(list(desk.records))
    disk, early = Watched(monkeypatch), []
    real = effects.unlink

    def unlink(path: Any) -> None:
        if str(path).endswith(".answer"):
            early.extend(path for path in disk.pending() if path.endswith((".drop", ".job")))
        real(path)

    monkeypatch.setattr(effects, "unlink", unlink)
    assert len(list(restore._restored(desk.here.config, desk.state, desk.records))) == 2
    assert sorted(p.name for p in desk.here.dropbox.glob("*.job")) == ["a.job", "b.job"]
    assert early == []
    check(disk)


def test_a_job_that_was_published_after_the_backup(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not be published again, also after a power cut."""
    desk.take()
    spool, _ = Spool.make(str(desk.here.workspace))
    jobs = [record.id for record in desk.records]
    spool.begin_all(jobs, SESSION)
    spool.publish_all([(job, SESSION) for job in jobs])
    disk = Watched(monkeypatch)
    told = restore._restored(desk.here.config, desk.state, desk.records)
    assert len(list(told)) == len(jobs)
    assert {r.phase for r in desk.records} == {"PUBLISHED"}
    check(disk)


def test_placing_and_answering(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.take()
    made = outputs(desk)
    disk = Watched(monkeypatch)
    desk.answers.begin_placing(made)
    check(disk)
    desk.answers.place(list(desk.records))
    check(disk)
    desk.answer()
    check(disk)
    desk.clean(lambda jobs: frozenset(jobs))
    check(disk)


def test_undoing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.take()
    desk.answers.begin_placing(outputs(desk))
    for record in desk.records:
        placing.place(record)
    disk = Watched(monkeypatch)
    desk.answers.begin_unplacing([replace(r, message="no") for r in desk.records])
    check(disk)
    assert not desk.answers.unplace(list(desk.records))
    check(disk)
    desk.decide()
    check(disk)


def test_an_answer_that_is_not_out_after_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.take()
    desk.decide()
    desk.records.save_all([r.enter("CLEANING") for r in desk.records])
    disk = Watched(monkeypatch)
    desk.clean(frozenset)
    assert {r.phase for r in desk.records} == {"ANSWERING"}
    check(disk)


# ---- the cluster ---------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path / "w")
    yield made
    made.close()


def test_a_job_on_its_way(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = shop.spool
    job, other = shop.stage("true"), shop.stage("true")
    disk = Watched(monkeypatch)
    jobs = [job, other, f"{INSTANCE}-0199aabbccd-{0xF << 60:016x}"]
    spool.begin_all(jobs, SESSION)
    spool.furnished(jobs)
    check(disk, "." + SESSION)  # what a ticket holds is durable when the job is loaded
    spool.publish_all([(job, SESSION), (other, SESSION)])
    check(disk)
    for kind in ("release", "crash", "unclaim", "finish"):
        ticket = next(t for t in spool.waiting() if t.job == job)
        ours = spool.claim(ticket, P)
        assert ours is not None
        disk.forget()  # a claim may be forgotten: then it is claimed again
        acts: dict[str, Callable[[], Any]] = {
            "release": lambda t=ours: spool.release(t, 10),
            "crash": lambda t=ours: spool.crash(t, 3, 10),
            "unclaim": lambda t=ours: spool.unclaim(t),
            "finish": lambda t=ours: spool.finish(t, "ok"),
        }
        acts[kind]()
        # The instance's folder is made again where it is missing, each time; begin_all made it.
        check(disk)
    spool.cancel_all([other])
    check(disk, "/cancel")  # told again by each pass
    spool.purge_all([job, other], keep=False)
    check(disk)


def test_a_job_that_is_kept(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop.job("true")
    disk = Watched(monkeypatch)
    shop.spool.purge_all([job], keep=True)
    check(disk)


@pytest.mark.parametrize("protocol", [PROTOCOL, PROTOCOL - 1])
@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_loading(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, *, links: bool, protocol: int
) -> None:
    spool, key = shop.spool, "c" * 32
    jobs = [shop.stage("true", [("x", b"12345")]) for _ in range(2)]
    store = Store(spool.path("inputs"), SESSION)
    files.write_new(store.arriving(key), b"12345")
    store.seal(key, store.now())
    store.enter(key)
    loads = []
    for job in jobs:
        path = files.join(spool.job_folder(job), "description.json")
        described = {**files.read_json(path), "protocol": protocol}
        loads.append(Load(job, described, b"true", [(key, 5)]))
    if not links:

        def link(*paths: Any) -> None:
            raise OSError(18, os.strerror(18))

        monkeypatch.setattr(effects, "link", link)
    disk = Watched(monkeypatch)
    assert load_all(spool, store, SESSION, loads) == (jobs, {})
    check(disk)


@pytest.mark.parametrize("count", [1, durable.FEW + 1], ids=["one", "many"])
@pytest.mark.parametrize("syncfs", [True, False], ids=["with syncfs", "without syncfs"])
@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_what_is_loaded_is_durable_with_all_that_was_announced(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, *, count: int, syncfs: bool, links: bool
) -> None:
    """Nothing else makes the tickets and folders durable that were made when it was announced."""
    monkeypatch.setattr(effects, "has_syncfs", lambda: syncfs)
    spool, job = shop.spool, shop.stage("true")
    described = files.read_json(files.join(spool.job_folder(job), "description.json"))
    jobs = [f"{INSTANCE}-0199aabbccd-{0xF << 60 | n:016x}" for n in range(count)]
    loads = [Load(job, {**described, "id": job}, b"true", []) for job in jobs]
    if not links:

        def link(*paths: Any) -> None:
            raise OSError(18, os.strerror(18))

        monkeypatch.setattr(effects, "link", link)
    disk = Watched(monkeypatch)
    spool.begin_all(jobs, SESSION)
    store = Store(spool.path("inputs"), SESSION)
    assert load_all(spool, store, SESSION, loads) == (jobs, {})
    check(disk)


class Deaf:
    """A channel to nobody."""

    def say(self, *words: Any) -> None:
        assert "refused" not in words[0], words


def test_files_that_arrive(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop.stage("true")
    frames = Frames(shop.spool, SESSION, INSTANCE, Deaf())  # type: ignore[arg-type]
    disk = Watched(monkeypatch)
    for target in (("key", "c" * 32), ("job", job, 0)):
        frames._arrival(target).write(0, bytearray(b"12345"), 5)
    assert frames._sync() == []
    check(disk, "/.clock." + SESSION, "/in0")  # the name of a job's file, when it is loaded


@pytest.mark.parametrize("syncfs", [True, False], ids=["with syncfs", "without syncfs"])
def test_slots_and_pilots(shop: Workshop, monkeypatch: pytest.MonkeyPatch, *, syncfs: bool) -> None:
    monkeypatch.setattr(effects, "has_syncfs", lambda: syncfs)
    spool = shop.spool
    disk = Watched(monkeypatch)
    assert slots.take(spool, 1, P) == 0
    check(disk)
    pilot.make(spool, P, {"slot": 0})
    check(disk)
    pilot.write(spool, P, {"dead": "it is"}, "dead.json")
    check(disk)
    Statement(spool, P).say(started="now")
    check(disk)
    pilot.adopt(spool, Q, {"slot": None})
    check(disk, "/heartbeat")  # made again where it is missing
    backoff.note(spool, "submit", "refused", None)
    check(disk)
    assert slots.free(spool, 0, P)
    check(disk)


def test_a_slot_is_whole_before_it_has_its_name(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without `free` could never be taken, and would never be made again."""
    disk, inside = Watched(monkeypatch), []
    real = effects.rename

    def rename(source: Any, target: Any) -> None:
        if os.path.isdir(source):
            inside.append([path for path in disk.pending() if path.endswith("/free")])
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    assert slots.take(shop.spool, 1, P) == 0
    assert inside == [[]]


def test_a_pilot_that_is_buried(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot.make(shop.spool, P, {"slot": 0, "native_id": "7"})
    disk = Watched(monkeypatch)
    reaping.bury(shop.spool, lookout.Seen(pilot.read(shop.spool, P), None, "it closed"))
    assert pilot.read(shop.spool, P)["dead"] == "it closed"
    check(disk)


def test_a_workspace_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, early = Watched(monkeypatch), []
    real = effects.rename

    def rename(source: Any, target: Any) -> None:
        if os.fsdecode(target).endswith("/PROTOCOL"):
            early.extend(path for path in disk.pending() if os.path.isdir(path))
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    Workshop(tmp_path / "new")
    assert early == []
    check(disk)


@pytest.mark.parametrize("count", [1, handover.FEW + 1], ids=["one", "many"])
@pytest.mark.parametrize("syncfs", [True, False], ids=["with syncfs", "without syncfs"])
def test_a_ticket_is_in_done_only_after_all_that_it_promises(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, *, count: int, syncfs: bool
) -> None:
    """The job's own files are made by another process: that they are synced is what counts."""
    monkeypatch.setattr(effects, "has_syncfs", lambda: syncfs)
    synced: set[int] = set()
    before: dict[str, set[int]] = {}
    fsync, syncfs_, rename = effects.fsync, effects.syncfs, effects.rename

    def one(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def all_of_it(descriptor: int) -> None:
        top = Path(shop.spool.workspace)
        synced.update(path.lstat().st_ino for path in [top, *top.rglob("*")])
        syncfs_(descriptor)

    def moved(source: Any, target: Any) -> None:
        if b"/done/" in os.fsencode(target):
            before[os.path.basename(os.fsdecode(target)).split(".")[0]] = set(synced)
        rename(source, target)

    for name, act in (("fsync", one), ("syncfs", all_of_it), ("rename", moved)):
        monkeypatch.setattr(effects, name, act)
    guard, deadline = Guard(600.0, P), time.monotonic() + 120
    hand = handover.Handover(shop.spool, lambda: None)
    jobs = [shop.job("echo said; echo made > out", outputs=["out"]) for _ in range(count)]
    synced.clear()
    try:
        for ticket in shop.spool.waiting():
            ours = shop.spool.claim(ticket, P)
            assert ours is not None
            walltime = Walltime.of(None, {})
            environment = dict(os.environb)
            context = Context(shop.spool, P, None, walltime, guard, environment, lambda: None)
            attempt = Attempt(context, ours)
            while attempt.phase != "written":
                assert time.monotonic() < deadline
                attempt.step(alone=True)
                attempt.collect()
                time.sleep(0.01)
            hand.add(attempt)
        hand.begin([])
        ended: list[handover.Handed] = []
        while not ended:
            assert time.monotonic() < deadline
            ended = hand.ended()
            time.sleep(0.01)
    finally:
        guard.close()
    assert [(one.ours, one.failure) for one in ended] == [(True, None)] * count
    for job in jobs:
        folder = Path(os.fsdecode(shop.spool.attempt_folder(job, 1)))
        for path in ("work/out", "work", "stdout", "stderr", "result.json", "", ".."):
            assert (folder / path).stat().st_ino in before[job], path


# ---- many at once, and what is asked of the cluster ----------------------------------------------


@pytest.mark.parametrize("syncfs", [True, False], ids=["with syncfs", "without syncfs"])
def test_many_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, syncfs: bool
) -> None:
    monkeypatch.setattr(effects, "has_syncfs", lambda: syncfs)
    disk = Watched(monkeypatch)
    paths = [tmp_path / str(number) / "file" for number in range(2 * durable.FEW)]
    for path in paths:
        files.make_folder(str(path.parent))
        files.write_new(str(path), b"content")
    durable.sync_files([str(path) for path in paths])
    for path in paths:
        files.make_folder(str(path.parent / "inner"))
    durable.sync_folders([str(path.parent) for path in paths] + [str(tmp_path)])
    check(disk)


def test_what_passes_write_of_published_jobs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sight, records = Sight(), desk.records
    steps = desk.steps(Willing(), sight)
    progress = (".submitted", "/probe")  # for people; a clock
    disk = Watched(monkeypatch)
    desk.take()
    check(disk)
    for act, phase in (
        (steps.check, "STAGING"),
        (steps.stage, "PUBLISHING"),
        (steps.publish, "PUBLISHED"),
    ):
        act(list(records))
        check(disk, *progress)
        assert {r.phase for r in records} == {phase}
    sight.census = {}
    steps.miss(list(records))
    check(disk)
    assert {r.missing for r in records} == {1}
    assert len(steps._doubt(dict.fromkeys([r.id for r in records], "it is not there"))) == 2
    check(disk)
    steps._note_waiting(dict.fromkeys([r.id for r in records], "it waits"))
    check(disk)
    steps._note_stuck(dict.fromkeys([r.id for r in records], "it is stuck"), "stage_out")
    check(disk)
    steps.fit(list(records))
    check(disk)
    assert {r.stuck_since for r in records} == {None}
    desk.decide()
    check(disk)
    assert all(steps.mend(record) for record in list(records))
    check(disk)
    assert {r.phase for r in records} == {"PUBLISHED"}


def test_what_is_withdrawn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.take()
    records, steps = desk.records, desk.steps(None)
    disk = Watched(monkeypatch)
    steps.withdraw(list(records))
    check(disk)
    assert all(records.job_file(r.id) for r in records)


def test_a_file_that_fails_to_arrive_leaves_the_others_durable(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listening(Deaf):
        def say(self, *words: Any) -> None:
            return

    frames = Frames(shop.spool, SESSION, INSTANCE, Listening())  # type: ignore[arg-type]
    disk = Watched(monkeypatch)
    for key in ("c" * 32, "d" * 32):
        frames._arrival(("key", key)).write(0, bytearray(b"12345"), 5)
    real, failing = effects.fsync, frames._arrival(("key", "c" * 32)).temporary

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == os.fsdecode(failing):
            raise OSError(5, os.strerror(5))
        real(descriptor)

    monkeypatch.setattr(effects, "fsync", fsync)
    assert len(frames._sync()) == 1
    check(disk, "/.clock." + SESSION, "." + SESSION, ".part")


def test_a_dismissal(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot.make(shop.spool, P, {"slot": 0, "batch": "slurm", "submitted": "now", "native_id": "7"})
    state = batch.PilotState(batch.RUNNING, "7")
    seen = [lookout.Seen(pilot.read(shop.spool, P), state, None)]
    monkeypatch.setattr(lookout, "observe", lambda spool, infos: seen)
    asked: list[Any] = []

    def run(command: Any) -> batch.Captured:
        check(disk)  # before anybody acts on it
        asked.append(command)
        return batch.Captured(0, "", "")

    monkeypatch.setattr(batch, "run", run)
    disk = Watched(monkeypatch)
    assert dismissal.dismiss(shop.spool, [P]) == {P: "asked"}
    assert asked
    assert pilot.read(shop.spool, P)["dismissed"]


@pytest.mark.parametrize(
    "answer",
    [
        batch.Captured(0, "4711\n", ""),
        batch.Captured(1, "", "sbatch: error: Batch job submission failed: Socket timed out"),
        batch.Captured(1, "", "sbatch: error: Batch job submission failed: Invalid account"),
    ],
    ids=["taken", "unclear", "refused"],
)
def test_a_submission(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, answer: batch.Captured
) -> None:
    disk, asked = Watched(monkeypatch), []

    def run(command: Any) -> batch.Captured:
        check(disk)  # everything to look for the pilot by, before there may be one
        asked.append(command)
        return answer

    monkeypatch.setattr(batch, "run", run)
    queuer.submit(shop.spool, {"scheduler": "slurm", "linger": 0}, P)
    assert len(asked) == 1
    check(disk)
