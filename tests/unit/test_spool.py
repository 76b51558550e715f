"""The spool: every verb on real folders."""

import errno
import os
import stat
import threading

import pytest

from hpc_cluster import PROTOCOL, effects, files, trash
from hpc_cluster.errors import WorkspaceError
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket, parse
from hpc_cluster.workspace import FOLDERS

OURS, OTHER = "0123abcd", "ffffffff"
S, T = "1" * 16, "2" * 16
P, Q = "a" * 16, "b" * 16


def job(number, instance=OURS):
    return f"{instance}-0199aabbccd-{number:016x}"


@pytest.fixture
def spool(tmp_path):
    return Spool.make(str(tmp_path / "w"))[0]


def published(spool, *jobs):
    spool.begin_all(jobs, S)
    spool.publish_all([(j, S) for j in jobs])


def claimed(spool, number=1, pilot=P):
    published(spool, job(number))
    return spool.claim(Ticket("ready", job(number)), pilot)


def where(spool):
    """All tickets as folder/name."""
    found = []
    for state in ("incoming", "ready", "running"):
        found += [f"{state}/{t.name}" for t in spool.tickets(state)]
    for instance in files.names(spool.path("done")):
        found += [f"done/{t.name}" for t in spool.tickets("done", instance)]
    return found


# ---- the workspace -------------------------------------------------------------------------------


def test_a_missing_workspace_is_made_private_with_protocol_last(tmp_path):
    spool, made = Spool.make(str(tmp_path / "w"))
    assert made and not Spool.make(spool.workspace)[1]
    assert stat.S_IMODE(os.stat(spool.root).st_mode) == 0o700
    assert sorted(files.names(spool.root)) == sorted([*FOLDERS, "PROTOCOL"])
    assert files.read_bytes(spool.path("PROTOCOL")) == b"%d\n" % PROTOCOL


def test_foreign_files_do_not_hinder_a_new_workspace(tmp_path):
    (tmp_path / "README").write_text("x")
    assert Spool.make(str(tmp_path))[1]


def test_an_interrupted_making_is_continued(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "ready").mkdir()
    assert Spool.make(str(tmp_path))[1]


def test_our_names_without_protocol_are_refused(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "something").mkdir()
    with pytest.raises(WorkspaceError, match="holds jobs: not made by hpc_batch, or damaged"):
        Spool.make(str(tmp_path))


def test_another_protocol_is_refused(spool):
    files.write_new(spool.path("PROTOCOL"), b"7\n")
    for use in (Spool.open, Spool.make):
        with pytest.raises(
            WorkspaceError, match=f"protocol '7' and this program speaks {PROTOCOL}"
        ):
            use(spool.workspace)


def test_what_is_no_workspace_is_not_opened(tmp_path):
    with pytest.raises(WorkspaceError, match="is no workspace"):
        Spool.open(str(tmp_path))
    with pytest.raises(WorkspaceError, match="parent folder does not exist"):
        Spool.make(str(tmp_path / "a" / "b"))
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be used"):
        Spool.make(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["lstat", "mkdir"])
def test_a_file_server_that_fails_for_now_is_no_wrong_workspace(tmp_path, monkeypatch, name):
    def failing(*args):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as disk:
        disk.setattr(os, name, failing)
        with pytest.raises(OSError, match="Stale"):
            Spool.make(str(tmp_path / "w"))
    assert Spool.make(str(tmp_path / "w"))[1]


def test_a_missing_folder_is_an_error_and_not_an_empty_list(spool):
    os.rmdir(spool.path("ready"))
    with pytest.raises(WorkspaceError, match="ready is missing"):
        spool.census(OURS)


def test_several_can_make_a_workspace_at_the_same_time(tmp_path):
    made, failures = [], []

    def work():
        try:
            made.append(Spool.make(str(tmp_path / "w"))[0])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and not failures


# ---- names ---------------------------------------------------------------------------------------

TICKETS = [
    Ticket("incoming", job(1), session=S),
    Ticket("ready", job(1), 0, 0),
    Ticket("ready", job(1), 12, 3),
    Ticket("running", job(1), 1, 0, pilot=P),
    Ticket("done", job(1), 2, pilot=P, kind="ok"),
    Ticket("done", job(1), 0, pilot="-", kind="cancelled"),
]


@pytest.mark.parametrize("ticket", TICKETS)
def test_a_tickets_name_says_all_about_it(ticket):
    assert parse(ticket.state, ticket.name) == ticket


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("ready", job(1)),
        ("ready", job(1) + ".a0c0\n"),
        ("ready", job(1) + ".a00c0"),
        ("ready", job(1) + ".a0c0.x"),
        ("ready", job(1).upper() + ".a0c0"),
        ("ready", ".nfs000000000012"),
        ("ready", job(1) + ".a-1c0"),
        ("running", job(1) + ".a1c0"),
        ("running", job(1) + ".a1c0.-"),
        ("done", job(1) + ".a1." + P + ".great"),
        ("incoming", job(1) + ".x"),
    ],
)
def test_foreign_names_are_ignored(spool, state, name):
    assert parse(state, name) is None
    folder = spool.path(state, OURS) if state == "done" else spool.path(state)
    os.makedirs(folder, exist_ok=True)
    files.write_new(files.join(folder, name), b"")
    assert spool.tickets(state, OURS) == []


# ---- verbs ---------------------------------------------------------------------------------------


def test_a_job_goes_its_way(spool):
    j = job(1)
    spool.begin_all([j], S)
    assert where(spool) == [f"incoming/{j}.{S}"]
    assert spool.publish_all([(j, S)]) == {j: "published"}
    assert where(spool) == [f"ready/{j}.a0c0"]
    ticket = spool.claim(spool.waiting()[0], P)
    assert where(spool) == [f"running/{j}.a1c0.{P}"]
    assert spool.finish(ticket, "ok")
    assert where(spool) == [f"done/{j}.a1.{P}.ok"]


def test_publishing_again_is_harmless_however_far_the_job_has_come(spool):
    ticket = claimed(spool)
    assert spool.publish_all([(job(1), S)]) == {job(1): "already"}
    spool.finish(ticket, "fail")
    assert spool.publish_all([(job(1), S)]) == {job(1): "already"}
    assert where(spool) == [f"done/{job(1)}.a1.{P}.fail"]


def test_only_the_session_that_prepared_a_job_is_published(spool):
    spool.begin_all([job(1)], T)
    assert spool.publish_all([(job(1), S)]) == {job(1): "already"}
    assert where(spool) == [f"incoming/{job(1)}.{T}"]


def test_a_claim_is_won_once(spool):
    published(spool, *[job(n) for n in range(100)])
    won = {P: [], Q: []}

    def work(pilot):
        for ticket in spool.waiting():
            if Spool(spool.workspace).claim(ticket, pilot):
                won[pilot].append(ticket.job)

    threads = [threading.Thread(target=work, args=(pilot,)) for pilot in won]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won[P] + won[Q]) == [job(n) for n in range(100)]


def test_a_pilot_declared_dead_cannot_finish(spool):
    ticket = claimed(spool)
    assert spool.crash(ticket, 3, 10) == "ready"
    assert not spool.finish(ticket, "ok")
    assert spool.release(ticket, 10) == "gone"
    assert spool.unclaim(ticket) == "gone"
    assert spool.crash(ticket, 3, 10) == "ready"  # its target is there: it was done
    assert where(spool) == [f"ready/{job(1)}.a1c1"]


def test_finishing_again_is_harmless(spool):
    ticket = claimed(spool)
    assert spool.finish_all([(ticket, "ok")]) == [True]
    assert spool.finish_all([(ticket, "ok")]) == [True]


def test_released_counts_a_start_and_no_crash(spool):
    assert spool.release(claimed(spool), 10) == "ready"
    assert where(spool) == [f"ready/{job(1)}.a1c0"]


def test_unclaimed_counts_nothing(spool):
    assert spool.unclaim(claimed(spool)) == "ready"
    assert where(spool) == [f"ready/{job(1)}.a0c0"]


@pytest.mark.parametrize(
    ("verb", "starts", "crashes", "limits", "end"),
    [
        ("crash", 1, 0, (3, 10), "ready/{}.a1c1"),
        ("crash", 3, 2, (3, 10), "done/{}.a3.{}.died"),
        ("crash", 1, 0, (1, 10), "done/{}.a1.{}.died"),
        ("crash", 10, 0, (3, 10), "done/{}.a10.{}.died"),
        ("release", 9, 2, (10,), "ready/{}.a9c2"),
        ("release", 10, 0, (10,), "done/{}.a10.{}.died"),
    ],
)
def test_crashes_and_starts_have_limits(spool, verb, starts, crashes, limits, end):
    ticket = Ticket("running", job(1), starts, crashes, pilot=P)
    files.write_new(spool.ticket_path(ticket), b"")
    assert getattr(spool, verb)(ticket, *limits) == end.partition("/")[0].replace("done", "died")
    assert where(spool) == [end.format(job(1), P)]


def test_the_oldest_ticket_is_first_and_suspects_are_last(spool):
    for number, age in ((1, 50), (2, 90), (3, 10), (4, 99)):
        published(spool, job(number))
        path = spool.ticket_path(Ticket("ready", job(number)))
        os.utime(path, (0, 1_000_000_000 - age))
    assert spool.crash(spool.claim(Ticket("ready", job(4)), P), 3, 10) == "ready"
    assert [t.job for t in Spool(spool.workspace).waiting()] == [job(n) for n in (2, 1, 3, 4)]


def test_a_census_lists_ours_and_counts_the_others(spool):
    published(spool, job(1), job(2), job(3), job(4, OTHER), job(5, OTHER))
    spool.begin_all([job(6), job(7, OTHER)], S)
    spool.finish(spool.claim(Ticket("ready", job(2)), P), "ok")
    spool.claim(Ticket("ready", job(3)), P)
    spool.claim(Ticket("ready", job(5, OTHER)), P)
    census = spool.census(OURS)
    assert census.incoming == [f"{job(6)}.{S}"]
    assert census.ready == [f"{job(1)}.a0c0"]
    assert census.running == [f"{job(3)}.a1c0.{P}"]
    assert census.done == [f"{job(2)}.a1.{P}.ok"]
    assert (census.others_ready, census.others_running) == (1, 1)


# ---- cancel and purge ----------------------------------------------------------------------------


class Moving(Spool):
    """A spool in which a job moves on just before the listing number `at` of a census."""

    def __init__(self, workspace, at, move):
        super().__init__(workspace)
        self._at, self._move = at, move

    def tickets(self, state, instance=None):
        if self._at == 0:
            self._move()
        self._at -= 1
        return super().tickets(state, instance)


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("move", ["publish", "claim", "finish", "release", "crash"])
def test_a_job_that_moves_during_a_census_is_seen(tmp_path, move, at):
    spool = Spool.make(str(tmp_path / "w"))[0]
    spool.begin_all([job(1)], S)
    ready = Ticket("ready", job(1))
    if move != "publish":
        spool.publish_all([(job(1), S)])
    ours = None if move in ("publish", "claim") else spool.claim(ready, P)
    moves = {
        "publish": lambda: spool.publish_all([(job(1), S)]),
        "claim": lambda: spool.claim(ready, P),
        "finish": lambda: spool.finish(ours, "ok"),
        "release": lambda: spool.release(ours, 10),
        "crash": lambda: spool.crash(ours, 3, 10),
    }
    census = Moving(spool.workspace, at, moves[move]).census(OURS)
    listed = [*census.incoming, *census.ready, *census.running, *census.done]
    assert {name.split(".")[0] for name in listed} == {job(1)}


def test_a_waiting_job_is_cancelled_at_once(spool):
    published(spool, job(1))
    assert spool.cancel_all([job(1)]) == {job(1): "cancelled"}
    assert where(spool) == [f"done/{job(1)}.a0.-.cancelled"]
    assert spool.cancel_all([job(1)]) == {job(1): "cancelled"}


def test_a_running_job_is_asked_to_stop(spool):
    claimed(spool)
    assert not spool.cancel_asked(job(1))
    assert spool.cancel_all([job(1)]) == {job(1): "asked"}
    assert spool.cancel_asked(job(1))
    assert where(spool) == [f"running/{job(1)}.a1c0.{P}"]


def test_a_cancel_that_comes_too_late_leaves_the_real_answer(spool):
    spool.finish(claimed(spool), "ok")
    assert spool.cancel_all([job(1), job(2)]) == {job(1): "gone", job(2): "gone"}
    assert where(spool) == [f"done/{job(1)}.a1.{P}.ok"]


@pytest.mark.parametrize(("keep", "folder"), [(False, "trash"), (True, "kept")])
def test_a_purge_moves_the_data_and_then_removes_the_tickets(spool, keep, folder):
    spool.finish(claimed(spool), "ok")
    spool.begin_all([job(1)], T)
    published(spool, job(2))
    for _ in range(2):
        spool.purge_all([job(1)], keep=keep)
        assert where(spool) == [f"ready/{job(2)}.a0c0"]
        assert files.names(spool.path("jobs")) == [job(2)]
        assert files.names(spool.path(folder)) == [job(1)]


def test_trash_is_emptied_whatever_a_job_left_there(spool):
    published(spool, job(1))
    inner = spool.path("jobs", job(1), "a1", "work", "x", "y")
    os.makedirs(inner)
    files.write_new(files.join(inner, b"\xff name"), b"")
    os.symlink("/", files.join(inner, "link"))
    os.mkfifo(files.join(inner, "fifo"))
    os.chmod(inner, 0o500)
    os.chmod(os.path.dirname(inner), 0)
    spool.purge_all([job(1)], keep=False)
    assert trash.empty(spool, lambda: False) is False
    assert trash.empty(spool, lambda: True) is True
    assert files.names(spool.path("trash")) == []


def test_a_job_purged_twice_under_one_name_has_room_in_the_trash(spool):
    for _ in range(3):
        published(spool, job(1))
        files.write_new(spool.input_path(job(1), 0), b"")
        spool.purge_all([job(1)], keep=False)
    assert len(files.names(spool.path("trash"))) == 3


# ---- the order of removing -----------------------------------------------------------------------


def test_nobody_can_publish_what_is_being_removed_and_a_kill_leaves_its_ticket(spool, monkeypatch):
    """When the data goes, no ticket that could be published is there; the last one goes after."""
    spool.begin_all([job(1), job(2)], S)
    spool.publish_all([(job(1), S)])
    spool.begin_all([job(1)], T)  # litter of another session
    real, seen = effects.rename, []

    def rename(source, target):
        seen.append(where(spool))
        real(source, target)

    monkeypatch.setattr(effects, "rename", rename)
    spool.purge_all([job(1), job(2)], keep=False)
    assert seen == [[f"ready/{job(1)}.a0c0"]] * 2
    assert where(spool) == []


def test_what_is_discarded_twice_has_two_names(spool):
    for content in (b"1", b"2"):
        spool.begin_all([job(1)], S)
        files.write_new(spool.path("jobs", job(1), "in0"), content)
        spool.purge_all([job(1)], keep=True)
    assert sorted(files.names(spool.path("kept"))) == [job(1), job(1) + ".1"]
    found = [files.read_bytes(spool.path("kept", n, "in0")) for n in (job(1), job(1) + ".1")]
    assert found == [b"1", b"2"]
