"""The session and its verbs, on a real far end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from integration import sshd
from integration.conversation import (
    INSTANCE,
    Near,
    far_ends,
    job_id,
    key_of,
    load,
    outgoing,
    tree,
)

from hpc_batch import far_end, sending
from hpc_batch.bulk import WantedOutput, WantedStream
from hpc_batch.config import Remote
from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import FarEndError, RemoteError, RemoteTimeout
from hpc_batch.session import Session
from hpc_batch.tidings import Carried
from hpc_cluster.session import QUIET_S
from hpc_cluster.spool import Spool
from hpc_cluster.store import Store
from hpc_cluster.verbs import Verbs

MIB = 1 << 20


@pytest.fixture
def near(tmp_path: Path, checkout: Path) -> Iterator[Near]:
    (tmp_path / "local").mkdir()
    made = Near(
        folder=tmp_path / "local",
        remote=Remote(transport="local"),
        scripts=checkout / "on_hpc" / "scripts",
        workspace=tmp_path / "workspace",
    )
    yield made
    made.close()


def python(*versions: str) -> str:
    """Return an interpreter of one of these versions, or skip."""
    for version in versions:
        found = shutil.which(f"python{version}")
        known = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python"))
        for program in [*([found] if found else []), *map(str, known)]:
            asked = [program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            run = subprocess.run(asked, capture_output=True, text=True)
            if run.stdout.strip() == version:
                return program
    pytest.skip(f"needs Python {' or '.join(versions)}")


def end(near: Near, job: str, kind: str = "ok") -> str:
    """Do what a pilot does: finish a published job, with outputs; return its ticket."""
    folder = near.workspace / "jobs" / job / "a1"
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "out.txt").write_bytes(b"result of " + job.encode())
    (folder / "stdout").write_bytes(b"0123456789")
    (folder / "stderr").write_bytes(b"")
    result = {"protocol": 1, "id": job, "attempt": 1, "pilot": "5" * 16, "kind": kind, "rc": 0}
    (folder / "result.json").write_text(json.dumps(result))
    ticket = f"{job}.a1.{'5' * 16}.{kind}"
    ready = near.workspace / "ready" / f"{job}.a0c0"
    ready.rename(near.workspace / "done" / INSTANCE / ticket)
    return ticket


def bring(near: Near, *jobs: str) -> str:
    """Stage and publish jobs without inputs; return the session that did it."""
    with near.begin() as session:
        session.stage(jobs, {})
        assert session.prepare([load(job) for job in jobs]).jobs == set(jobs)
        session.publish(dict.fromkeys(jobs, session.id))
        return session.id


def emptied(near: Near) -> None:
    """Wait until the far end, which has nothing else to do, has deleted what lies in trash."""
    end = time.monotonic() + 60
    while os.listdir(near.workspace / "trash"):
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- the verbs -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "3.6", "3.13"])
def test_a_job_goes_there_and_back_and_every_verb_may_be_repeated(near: Near, version: str) -> None:
    near.remote = Remote(transport="local", python=python(version) if version else "python3")
    large, small = near.file("large", os.urandom(3 * MIB)), near.file("small", b"few bytes")
    job, key = job_id(1), key_of(large)
    session = near.begin()
    assert [session.hello().made for _ in range(2)] == [True, True]
    assert session.hello().free_bytes > 0
    assert near.workspace.stat().st_mode & 0o777 == 0o700

    for _ in range(2):
        assert session.stage([job], {key: 3 * MIB}) == {key}
    data = session.data()
    for _ in range(2):
        assert data.send([outgoing(large), outgoing(small, job, 1)]) == {}
    assert session.stage([job], {key: 3 * MIB}) == set()
    wanted = load(job, Carried(3 * MIB, key), Carried(9), script=b"#!/bin/sh\necho \xff\n")
    for _ in range(2):
        assert session.prepare([wanted]).jobs == {job}
    folder = near.workspace / "jobs" / job
    assert (folder / "in0").read_bytes() == large.read_bytes()
    assert (folder / "in0").stat().st_mode & 0o777 == 0o400
    assert (folder / "in0").samefile(near.workspace / "inputs" / key)
    assert (folder / "in1").read_bytes() == b"few bytes"
    found = json.loads((folder / "description.json").read_text())
    assert found == {**wanted.description, "text": "#!/bin/sh\necho \udcff\n"}
    assert session.census().incoming == (f"{job}.{session.id}",)

    for _ in range(2):
        assert session.publish({job: session.id}) == {job: "published"}
    assert session.census().ready == (f"{job}.a0c0",)

    ticket = end(near, job)
    for _ in range(2):
        assert session.wait(5, [])
        assert not session.wait(0, [ticket])
        assert session.census().done == (ticket,)
        found = session.collect([ticket])[ticket]
        assert found.result is not None and found.result["kind"] == "ok"
        assert (found.error, found.pilots) == (None, ())
        assert session.tail(job, "stdout", 4).text == b"6789"
        fetched = data.fetch([WantedStream(job, 1, "stdout", 3, 3)])
        assert (fetched[0].head, fetched[0].tail, fetched[0].size) == (b"012", b"789", 10)
        assert session.cancel([job]) == {job: "gone"}
        assert session.publish({job: session.id}) == {job: "already"}
    for _ in range(2):
        assert session.purge([job], keep=False) == {job}
    emptied(near)
    assert tree(near.workspace) == [f"done/{INSTANCE}", f"inputs/{key}"]
    for _ in range(2):
        assert session.sweep([], store_bytes=0).trashed == ()


def littered(near: Near, *more: Path) -> Session:
    """Return a session that has just moved a job's files to trash; with more there."""
    bring(near, job_id(1))
    end(near, job_id(1))
    for path in more:
        path.rename(near.workspace / "trash" / path.name)
    session = near.begin()
    assert session.purge([job_id(1)], keep=False) == {job_id(1)}
    return session


def test_the_trash_is_left_alone_while_the_near_end_is_busy(near: Near) -> None:
    """Nobody's disk is disturbed while a service host and its users wait for it."""
    session = littered(near)
    began = asked = time.monotonic()
    while time.monotonic() - began < 2 * QUIET_S:
        there = os.listdir(near.workspace / "trash")
        if time.monotonic() - asked < QUIET_S / 2:  # else this machine was too slow to tell
            assert there
        session.census()
        asked = time.monotonic()
        time.sleep(QUIET_S / 10)
    emptied(near)
    assert time.monotonic() - asked > QUIET_S * 0.9


def test_the_trash_is_emptied_at_once_when_the_near_end_has_gone(near: Near) -> None:
    littered(near).close()
    began = time.monotonic()
    emptied(near)
    assert time.monotonic() - began < QUIET_S


def test_deleting_waits_when_the_near_end_asks_for_something(near: Near) -> None:
    many, much = 30_000, near.folder / "much"
    much.mkdir()
    for number in range(many):
        os.close(os.open(much / str(number), os.O_CREAT | os.O_WRONLY))
    session = littered(near, much)
    there = near.workspace / "trash" / "much"
    while len(os.listdir(there)) == many:
        time.sleep(0.001)
    session.census()
    assert there.exists()
    emptied(near)


def test_a_watch_tells_of_a_ticket_and_ends_with_the_next_request(near: Near) -> None:
    bring(near, job_id(1), job_id(2))
    session, rung = near.begin(), threading.Event()
    session.watch(600, [], rung.set)
    assert session.census().ready == (f"{job_id(1)}.a0c0", f"{job_id(2)}.a0c0")
    session.watch(600, [], rung.set)
    session.watch(600, [], rung.set)
    assert not rung.wait(0.3)
    ticket = end(near, job_id(1))
    assert rung.wait(60)
    assert session.census().done == (ticket,)
    rung.clear()
    session.watch(600, [ticket], rung.set)
    assert not rung.wait(0.3)
    end(near, job_id(2))
    assert rung.wait(60)
    rung.clear()
    session.watch(0, [*session.census().done], rung.set)
    assert session.hello().made is False
    assert not rung.is_set()


def test_a_watch_tells_when_the_far_end_is_gone(near: Near) -> None:
    bring(near, job_id(1))
    session, rung = near.begin(), threading.Event()
    session.watch(600, [], rung.set)
    for pid in far_ends(session.id, "serve"):
        os.kill(pid, signal.SIGKILL)
    assert rung.wait(60)
    with pytest.raises(RemoteError):
        session.census()


def test_a_watch_survives_pings(near: Near, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_batch.session.PING_S", 0.05)
    bring(near, job_id(1))
    session, rung = near.begin(), threading.Event()
    session.watch(600, [], rung.set)
    assert not rung.wait(0.5)
    end(near, job_id(1))
    assert rung.wait(60)


def test_temporary_names_hold_the_session_and_none_stays(near: Near) -> None:
    path = near.file("input", os.urandom(2 * MIB))
    with near.begin() as session:
        session.stage([job_id(1)], {key_of(path): 2 * MIB})
        session.data().send([outgoing(path), outgoing(path, job_id(1), 1)])
        session.prepare([load(job_id(1), Carried(2 * MIB, key_of(path)), Carried(2 * MIB))])
    job = f"jobs/{job_id(1)}"
    assert tree(near.workspace) == [
        f"done/{INSTANCE}",
        f"incoming/{job_id(1)}.{session.id}",
        f"inputs/{key_of(path)}",
        job,
        f"{job}/description.json",
        f"{job}/in0",
        f"{job}/in1",
    ]


def test_a_cancelled_job_that_nobody_claimed_is_done(near: Near) -> None:
    bring(near, job_id(1))
    with near.begin() as session:
        for _ in range(2):
            assert session.cancel([job_id(1), job_id(2)]) == {
                job_id(1): "cancelled",
                job_id(2): "gone",
            }
        ticket = f"{job_id(1)}.a0.-.cancelled"
        found = session.collect([ticket])[ticket]
        assert (found.result, found.pilots, found.error) == (None, (), None)


def test_pilots_are_kept_by_the_session_and_outlive_it(near: Near) -> None:
    bring(near, job_id(1))
    policy = {"scheduler": "local", "linger": 0, "python": sys.executable}
    with near.begin() as session:
        for _ in range(2):
            assert session.pilots({**policy, "submit": False}).pilots == ()
        with pytest.raises(FarEndError, match="unknown key") as caught:
            session.pilots({**policy, "colour": "red"})
        assert caught.value.kind == "usage"
        kept = session.pilots(policy)
        assert len(kept.submitted) == 1 and kept.trouble is None
        assert session.pilots(policy).submitted == ()
    with near.begin() as session:
        assert session.wait(30, [])
        ticket = session.census().done[0]
        found = session.collect([ticket])[ticket]
        # The script does nothing, so its output is missing.
        assert found.result is not None and found.result["reason"] == "stage_out"
        assert found.result["pilot"] == kept.submitted[0]


def test_kept_data_stays_readable(near: Near) -> None:
    bring(near, job_id(1))
    with near.begin() as session:
        assert session.purge([job_id(1)], keep=True) == {job_id(1)}
    assert (near.workspace / "kept" / job_id(1) / "description.json").exists()


def test_a_result_that_cannot_be_read_is_said_to_be_so(near: Near) -> None:
    bring(near, job_id(1), job_id(2))
    tickets = [end(near, job_id(1)), end(near, job_id(2))]
    (near.workspace / "jobs" / job_id(1) / "a1" / "result.json").write_text("{")
    other = near.workspace / "jobs" / job_id(2) / "a1" / "result.json"
    other.unlink()
    other.symlink_to("/etc/hostname")
    with near.begin() as session:
        found = session.collect([*tickets, f"{job_id(3)}.a1.-.ok"])
    assert [bool(f.error) and f.result is None for f in found.values()] == [True] * 3


def test_other_service_hosts_are_counted_and_left_alone(near: Near) -> None:
    bring(near, job_id(1))
    near.instance = "ffffffff"
    with near.begin() as session:
        census = session.census()
        assert (census.ready, census.others_ready, census.complete) == ((), 1, True)
        with pytest.raises(FarEndError, match="another service host"):
            session.cancel([job_id(1)])
        assert session.sweep([]).trashed == ()
    assert (near.workspace / "ready" / f"{job_id(1)}.a0c0").exists()


def test_requests_that_make_no_sense_are_answered_and_the_session_goes_on(near: Near) -> None:
    wire = near.wire("serve")
    bad = [
        {"verb": "stage", "args": {"jobs": ["../../etc"], "keys": []}},
        {"verb": "stage", "args": {"jobs": [], "keys": [["../x", 1]]}},
        {"verb": "stage", "args": {"jobs": [], "keys": [["a" * 32, -1]]}},
        {"verb": "publish", "args": {"jobs": [[job_id(1), "x/y"]]}},
        {"verb": "collect", "args": {"tickets": ["../../../etc/passwd"]}},
        {"verb": "tail", "args": {"job": job_id(1), "stream": "../script", "bytes": 1}},
        {"verb": "__init__", "args": {}},
        {"verb": "census", "args": []},
        {"verb": ["census"], "args": {}},
    ]
    for number, request in enumerate(bad):
        wire.send({"n": number, **request})
        answer = wire.message()
        assert (answer["n"], answer["ok"], answer["error"]["kind"]) == (number, False, "usage")
    wire.send({"n": 99, "verb": "census", "args": {}})
    assert wire.message()["ok"] is True


def test_a_workspace_that_loses_its_folders_is_an_error_and_not_an_empty_census(near: Near) -> None:
    with near.begin() as session:
        shutil.rmtree(near.workspace / "running")
        with pytest.raises(FarEndError) as caught:
            session.census()
    assert caught.value.kind == "workspace"


def test_forgotten_jobs_and_tickets_are_swept_when_they_are_old(near: Near) -> None:
    with near.begin() as session:
        session.stage([job_id(1), job_id(2), job_id(3)], {})
    bring(near, job_id(1), job_id(4))
    known = [job_id(1), job_id(3)]
    with near.begin() as later:
        assert later.sweep(known).trashed == ()
        assert len(later.census().incoming) == 3
    verbs = Verbs(Spool.open(str(near.workspace)), "0" * 16, INSTANCE, time.sleep)
    verbs.orphan_s = -1
    for forgotten in ([job_id(2), job_id(4)], []):
        assert verbs.do("sweep", {"known": known})["trashed"] == forgotten
        census = verbs.do("census", {})
        # The old ticket of a job that is ready is litter; a job's only one might be published.
        assert census["incoming"] == [f"{job_id(3)}.{session.id}"]
        assert census["ready"] == [f"{job_id(1)}.a0c0"]
    assert not (near.workspace / "jobs" / job_id(2)).exists()
    assert os.listdir(near.workspace / "trash") == []


def test_what_killed_makers_left_is_swept_when_it_is_old(near: Near) -> None:
    with near.begin():
        kept = tree(near.workspace)
    session_id, word = "1" * 16, "12345678"
    drafts = [
        f"PROTOCOL.{word}.new",
        f"inputs/.clock.{session_id}",
        f"pilots/trouble.{word}.new",
        f"slots/0.{session_id}/free",
    ]
    for draft in drafts:
        (near.workspace / draft).parent.mkdir(exist_ok=True)
        (near.workspace / draft).touch()
    verbs = Verbs(Spool.open(str(near.workspace)), "0" * 16, INSTANCE, time.sleep)
    verbs.do("sweep", {"known": []})
    assert all((near.workspace / draft).exists() for draft in drafts)
    verbs.orphan_s = -1
    verbs.do("sweep", {"known": []})
    assert tree(near.workspace) == kept


# ---- how it starts ---------------------------------------------------------------------------


def test_banners_before_the_marker_are_ignored(near: Near) -> None:
    with near.begin(
        prologue="echo 'Welcome to \"it'\"'\"'s\" HPC!'\nhead -c 600000 /dev/zero"
    ) as s:
        assert s.census().complete


def test_an_endless_banner_is_refused(near: Near) -> None:
    with pytest.raises(FarEndError) as caught:
        near.begin(prologue="cat /dev/zero")
    assert caught.value.kind == "banner"


def test_a_login_that_hangs_is_given_up(near: Near) -> None:
    with pytest.raises(RemoteTimeout, match="did not start within 1 s"):
        near.begin(prologue="sleep 30", connect_timeout=1)


def test_no_python_is_told_with_what_to_do(near: Near) -> None:
    with pytest.raises(FarEndError) as caught:
        near.begin(python="/nowhere/python3")
    assert (caught.value.kind, "[remote] python" in caught.value.hint) == ("python", True)


def test_a_python_that_is_too_old_is_told(near: Near) -> None:
    with pytest.raises(FarEndError, match=r"Python 2\.7") as caught:
        near.begin(python=python("2.7"))
    assert (caught.value.kind, "[remote] python" in caught.value.hint) == ("python", True)


def test_no_checkout_is_told(near: Near, tmp_path: Path) -> None:
    line = far_end.command(
        Remote(host="cluster", python=sys.executable),
        {"workspace": str(near.workspace), "scripts": str(tmp_path / "none")},
        "serve",
        "0" * 16,
        INSTANCE,
    )
    from hpc_batch import hosts

    host = hosts.connect(near.remote)
    with pytest.raises(FarEndError, match="no checkout") as caught:
        far_end.start(host, line, near.remote, {"scripts": str(tmp_path / "none")})
    assert caught.value.kind == "checkout"


def test_without_a_checkout_this_package_is_the_far_end_and_leaves_no_trace(near: Near) -> None:
    near.scripts = near.folder / "none"
    with near.begin() as session:
        assert session.hello().python == sys.executable
        environ = Path("/proc", str(far_ends(session.id, "serve")[0]), "environ").read_bytes()
    ours = os.environ.get("PYTHONPATH")
    assert (b"PYTHONPATH=" in environ) == (ours is not None)


def test_a_folder_with_other_things_in_it_is_refused_as_workspace(near: Near) -> None:
    (near.workspace / "jobs" / "mine").mkdir(parents=True)
    with pytest.raises(FarEndError) as caught:
        near.begin()
    assert caught.value.kind == "workspace"


def test_another_protocol_is_refused(near: Near) -> None:
    near.begin().close()
    (near.workspace / "PROTOCOL").write_text("77\n")
    with pytest.raises(FarEndError, match="77") as caught:
        near.begin()
    assert caught.value.kind == "workspace"


def test_a_far_end_leaves_when_the_near_end_goes(near: Near) -> None:
    session = near.begin()
    session.data()
    pids = far_ends(session.id, "serve") + far_ends(session.id, "data")
    assert len(pids) == 2
    session.close()
    assert far_ends(session.id, "serve") + far_ends(session.id, "data") == []


def test_a_far_end_that_dies_is_a_remote_error(near: Near) -> None:
    session = near.begin()
    os.kill(far_ends(session.id, "serve")[0], signal.SIGKILL)
    with pytest.raises(RemoteError):
        session.census()


def test_a_person_can_ask_as_well(near: Near) -> None:
    bring(near, job_id(1))
    program = [sys.executable, str(near.scripts / "hpc_session")]
    place = ["--workspace", str(near.workspace)]
    run = subprocess.run([*program, "census", *place], capture_output=True, text=True)
    assert json.loads(run.stdout)["ready"] == [f"{job_id(1)}.a0c0"]
    run = subprocess.run([*program, "cancel", job_id(1), *place], capture_output=True, text=True)
    assert json.loads(run.stdout) == {job_id(1): "cancelled"}
    place = ["--workspace", str(near.folder)]
    run = subprocess.run([*program, "census", *place], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert "no workspace" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING)
@pytest.mark.parametrize("transport", ["fabric", "openssh"])
def test_the_conversation_is_the_same_over_ssh(near: Near, tmp_path: Path, transport: str) -> None:
    with sshd.running(tmp_path / "sshd") as server:
        near.remote = server.remote(transport, python=sys.executable)
        path = near.file("input", os.urandom(9 * MIB))
        with near.begin() as session:
            session.stage([job_id(1)], {key_of(path): 9 * MIB})
            assert session.data().send([outgoing(path)]) == {}
            done = session.prepare([load(job_id(1), Carried(9 * MIB, key_of(path)))])
            assert done.jobs == {job_id(1)}
            assert near.hosts[-1].logins == 1
        near.close()


# ---- any number of jobs ----------------------------------------------------------------------


def test_two_hundred_jobs_take_as_many_exchanges_as_one(near: Near) -> None:
    counts = []
    shared = near.file("shared", os.urandom(2 * MIB))
    for numbers in (range(1), range(1000, 1200)):
        jobs = [job_id(n) for n in numbers]
        own = [near.file(f"own {n}", b"%d" % n) for n in numbers]
        with near.begin() as session:
            missing = session.stage(jobs, {key_of(shared): 2 * MIB})
            files = [outgoing(p, j, 1) for p, j in zip(own, jobs)]
            files += [outgoing(shared)] if missing else []
            assert session.data().send(files) == {}
            carried = Carried(2 * MIB, key_of(shared))
            loads = [load(j, carried, Carried(p.stat().st_size)) for p, j in zip(own, jobs)]
            assert session.prepare(loads).jobs == set(jobs)
            assert set(session.publish(dict.fromkeys(jobs, session.id)).values()) == {"published"}
            counts.append(session.exchanges - bool(missing))
    assert counts[0] == counts[1] == 4


def test_a_thousand_small_files_travel_in_one_stream(near: Near) -> None:
    job = job_id(1)
    files = [near.file(f"f{n}", b"%d" % n * 40) for n in range(1000)]
    with near.begin() as session:
        session.stage([job], {})
        data = session.data()
        before = session.exchanges
        assert data.send([outgoing(p, job, n) for n, p in enumerate(files)]) == {}
        assert session.exchanges - before == 1
    folder = near.workspace / "jobs" / job
    assert all((folder / f"in{n}").read_bytes() == b"%d" % n * 40 for n in range(1000))


def test_one_bad_job_delays_no_other(near: Near) -> None:
    good, bad, foreign = job_id(1), job_id(2), job_id(3)
    with near.begin() as session:
        session.stage([good, bad], {})
        prepared = session.prepare([load(bad, Carried(5)), load(good), load(foreign)])
        assert prepared.jobs == {good}
        assert prepared.again[bad] == "input 0 did not arrive"
        assert "not being staged by this session" in prepared.again[foreign]


def test_what_an_older_service_host_describes_is_laid_out_as_it_was(near: Near) -> None:
    """Pilots that were submitted before the upgrade can run it."""
    path, wanted = near.file("f", b"bytes"), load(job_id(1), Carried(5))
    older = replace(wanted, description={**wanted.description, "protocol": 1})
    with near.begin() as session:
        session.stage([job_id(1)], {})
        assert session.data().send([outgoing(path, job_id(1), 0)]) == {}
        for _ in range(2):
            assert session.prepare([older]).jobs == {job_id(1)}
    folder = near.workspace / "jobs" / job_id(1)
    assert (folder / "in" / "0").read_bytes() == b"bytes"
    assert (folder / "script").read_bytes() == wanted.script
    assert json.loads((folder / "description.json").read_text()) == older.description
    assert sorted(os.listdir(folder)) == ["description.json", "in", "script"]


# ---- what breaks -----------------------------------------------------------------------------


def test_an_interrupted_transfer_is_continued_and_not_repeated(near: Near) -> None:
    path = near.file("input", os.urandom(64 * MIB))
    sent: list[int] = []

    def stop(count: int) -> None:
        sent.append(count)
        if sum(sent) >= 40 * MIB:
            raise KeyboardInterrupt

    first = near.begin()
    with pytest.raises(KeyboardInterrupt):
        first.data().send([outgoing(path)], stop)
    first.close()
    assert [p.name for p in (near.workspace / "inputs").iterdir()] == [f"{key_of(path)}.part"]
    again: list[int] = []
    with near.begin() as session:
        assert session.data().send([outgoing(path)], again.append) == {}
    assert sum(sent) + sum(again) <= 64 * MIB + 4 * MIB
    assert (near.workspace / "inputs" / key_of(path)).read_bytes() == path.read_bytes()


def test_what_a_killed_far_end_left_is_not_taken_while_it_may_still_be_written(near: Near) -> None:
    path = near.file("input", os.urandom(40 * MIB))
    first = near.begin()
    data = first.data()
    pid = far_ends(first.id, "data")[0]
    seen: list[int] = []

    def kill(count: int) -> None:
        seen.append(count)
        if len(seen) == 9:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(RemoteError):
        data.send([outgoing(path)], kill)
    first.close()
    left = near.workspace / "inputs" / f"{key_of(path)}.{first.id}"
    assert 0 < left.stat().st_size < 40 * MIB
    with near.begin() as session:
        failures = session.data().send([outgoing(path)])
    assert failures[("key", key_of(path))].kind == "busy"
    assert left.exists()

    # Two minutes later it is taken over; a store that does not wait so long stands for them.
    store = Store(os.fsencode(near.workspace / "inputs"), "0" * 16)
    store.still_s = -1
    have = store.begin_all([key_of(path)])[key_of(path)].offset
    store.release(key_of(path))
    again: list[int] = []
    with near.begin() as session:
        assert session.data().send([outgoing(path)], again.append) == {}
    assert sum(again) == 40 * MIB - have
    assert (near.workspace / "inputs" / key_of(path)).read_bytes() == path.read_bytes()


def test_a_slow_disk_on_this_side_is_no_silence_of_the_other(
    near: Near, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_end, "ANSWER_S", 0.3)
    monkeypatch.setattr(sending, "DUE_S", 0.3)
    path = near.file("input", os.urandom(10 * MIB))
    with near.begin() as session:
        assert session.data().send([outgoing(path)], lambda sent: time.sleep(0.5)) == {}


def test_a_far_end_that_hangs_is_given_up(near: Near, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_end, "ANSWER_S", 0.3)
    monkeypatch.setattr(sending, "DUE_S", 0.3)
    path = near.file("input", os.urandom(48 * MIB))
    session = near.begin()
    data = session.data()
    (pid,) = far_ends(session.id, "data")

    def hang(count: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    try:
        with pytest.raises(RemoteTimeout):
            data.send([outgoing(path)], hang)
    finally:
        os.kill(pid, signal.SIGCONT)


def out_of_memory(count: int) -> None:
    raise MemoryError


@pytest.mark.parametrize("channel", [Session.data, Session.bulk])
def test_sending_that_fails_here_leaves_the_channel_in_step(
    near: Near, monkeypatch: pytest.MonkeyPatch, channel: Callable[[Session], DataChannel]
) -> None:
    """A pass without memory tries again with half of its jobs."""
    monkeypatch.setattr(far_end, "ANSWER_S", 5)
    monkeypatch.setattr(sending, "DUE_S", 5)
    paths = [near.file(f"input {n}", os.urandom(20 * MIB)) for n in range(2)]
    with near.begin() as session:
        data = channel(session)
        for _ in range(3):
            with pytest.raises(MemoryError):
                data.send([outgoing(path) for path in paths], out_of_memory)
        assert data.send([outgoing(paths[1]), outgoing(paths[0])]) == {}
        assert session.census().complete
    for path in paths:
        assert (near.workspace / "inputs" / key_of(path)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("channel", [Session.data, Session.bulk])
def test_fetching_that_fails_here_leaves_the_channel_in_step(
    near: Near, monkeypatch: pytest.MonkeyPatch, channel: Callable[[Session], DataChannel]
) -> None:
    """What is still on its way must not be taken for another job's."""
    monkeypatch.setattr(far_end, "ANSWER_S", 5)
    bring(near, job_id(1))
    end(near, job_id(1))
    work, wanted, texts = near.workspace / "jobs" / job_id(1) / "a1" / "work", [], []
    for number in range(4):
        texts.append(os.urandom(3 * MIB))
        (work / f"o{number}").write_bytes(texts[-1])
        target = near.folder / f"target {number}"
        wanted.append(WantedOutput(job_id(1), 1, f"o{number}", "flat", 3 * MIB, sink(target)))
    with near.begin() as session:
        data = channel(session)
        for _ in range(3):
            with pytest.raises(MemoryError):
                data.fetch(wanted, out_of_memory)
        found = data.fetch(wanted[::-1])[::-1]
        assert session.census().complete
    assert [f.sha256 for f in found] == [hashlib.sha256(text).hexdigest() for text in texts]
    for number, text in enumerate(texts):
        assert (near.folder / f"target {number}").read_bytes() == text


def test_one_channel_sends_again_and_again(near: Near) -> None:
    paths = [near.file(f"input {n}", os.urandom(40 * MIB)) for n in range(3)]
    with near.begin() as session:
        data = session.data()
        for path in paths:
            assert data.send([outgoing(path)]) == {}
            stored = near.workspace / "inputs" / key_of(path)
            assert stored.read_bytes() == path.read_bytes()
            assert data.send([outgoing(path)]) == {}


def test_a_beginning_with_other_content_is_sent_anew(near: Near) -> None:
    path = near.file("input", os.urandom(6 * MIB))
    near.begin().close()
    (near.workspace / "inputs" / f"{key_of(path)}.part").write_bytes(os.urandom(5 * MIB))
    with near.begin() as session:
        assert session.data().send([outgoing(path)]) == {}
    assert (near.workspace / "inputs" / key_of(path)).read_bytes() == path.read_bytes()


def test_a_damaged_frame_is_refused_and_its_file_never_gets_its_name(near: Near) -> None:
    near.begin().close()
    wire, data, key = near.wire("data"), b"x" * 1000, "a" * 32
    header = {"to": ["key", key], "offset": 0, "bytes": 1000, "total": 1000}
    wire.send({"frame": {**header, "sha256": hashlib.sha256(b"y").hexdigest()}}, data)
    assert wire.message()["refused"]["errno"] == "damaged"
    good = {**header, "to": ["key", "b" * 32], "sha256": hashlib.sha256(data).hexdigest()}
    wire.send({"frame": good}, data)
    wire.send({"sync": 1})
    assert wire.message() == {"synced": {"failed": []}}
    assert [p.name for p in (near.workspace / "inputs").iterdir()] == ["b" * 32]


@pytest.mark.parametrize(
    "to", [["key", "../x"], ["key", "a"], ["job", "x", 0], ["job", job_id(1), "0"], ["job"], "key"]
)
def test_frames_go_nowhere_else(near: Near, to: object) -> None:
    near.begin().close()
    wire = near.wire("data")
    wire.send({"frame": {"to": to, "offset": 0, "bytes": 0, "total": 0, "sha256": ""}})
    answer = wire.message()
    assert (answer["ok"], answer["error"]["kind"]) == (False, "usage")


def test_an_input_that_changes_is_an_error_of_that_input_alone(near: Near) -> None:
    path, other = near.file("input", os.urandom(8 * MIB)), near.file("other", b"other")
    early = outgoing(near.file("early", b"before"))
    Path(early.path).write_bytes(b"after!!")
    files = [early, outgoing(path), outgoing(other)]

    def touch(count: int) -> None:
        if path.stat().st_size == 8 * MIB:
            with path.open("ab") as file:
                file.write(b"more")

    with near.begin() as session:
        failures = session.data().send(files, touch)
    assert {to: f.kind for to, f in failures.items()} == {
        early.to: "changed",
        ("key", key_of(path)): "changed",
    }
    assert [p.name for p in (near.workspace / "inputs").iterdir()] == [key_of(other)]


def test_an_input_that_is_gone_or_no_file_is_an_error_of_that_input_alone(near: Near) -> None:
    gone, other = outgoing(near.file("gone", b"1")), outgoing(near.file("other", b"other"))
    os.unlink(gone.path)
    os.mkfifo(gone.path)
    with near.begin() as session:
        failures = session.data().send([gone, other])
    assert list(failures) == [gone.to]


def test_a_stored_input_that_was_written_to_is_sent_again(near: Near) -> None:
    path = near.file("input", os.urandom(2 * MIB))
    key, job = key_of(path), job_id(1)
    with near.begin() as session:
        session.stage([job], {key: 2 * MIB})
        session.data().send([outgoing(path)])
        stored = near.workspace / "inputs" / key
        stored.chmod(0o600)
        with stored.open("r+b") as file:
            file.write(b"damage")
        again = session.prepare([load(job, Carried(2 * MIB, key))]).again
        assert again == {job: "input 0 must be sent again"}
        assert session.stage([job], {key: 2 * MIB}) == {key}


def test_a_late_far_end_does_no_harm(near: Near) -> None:
    path, job = near.file("input", b"0123456789"), job_id(1)
    old = near.begin()
    old.stage([job], {})
    late = near.wire("data", old.id)
    head = {"to": ["job", job, 0], "offset": 0, "bytes": 5, "total": 5}
    late.send({"frame": {**head, "sha256": hashlib.sha256(b"WRONG").hexdigest()}}, b"WRONG")

    new = near.begin()
    new.stage([job], {})
    assert new.data().send([outgoing(path, job)]) == {}
    assert new.prepare([load(job, Carried(10))]).jobs == {job}
    assert new.publish({job: new.id}) == {job: "published"}
    new.purge([job], keep=False)
    emptied(near)
    before = tree(near.workspace)
    late.send({"sync": 1})
    assert [f["errno"] for f in late.message()["synced"]["failed"]] in ([], ["ENOENT"], ["ESTALE"])
    assert list(old.prepare([load(job, Carried(10))]).again) == [job]
    assert old.publish({job: old.id}) == {job: "already"}
    assert tree(near.workspace) == before


@pytest.fixture
def tiny(near: Near) -> Iterator[Near]:
    """A workspace on a file system of 24 MiB."""
    near.workspace.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(near.workspace)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield near
    near.close()
    subprocess.run(["umount", str(near.workspace)], check=True)


def test_a_full_disk_fails_what_does_not_fit_and_the_rest_arrives(tiny: Near) -> None:
    huge, job = tiny.file("huge", os.urandom(40 * MIB)), job_id(1)
    small = tiny.file("small", b"small")
    with tiny.begin() as session:
        session.stage([job], {})
        data = session.data()
        failures = data.send([outgoing(huge), outgoing(huge, job, 0), outgoing(small, job, 1)])
        assert {to: (f.kind, f.here) for to, f in failures.items()} == {
            ("key", key_of(huge)): ("ENOSPC", False),
            ("job", job, 0): ("ENOSPC", False),
        }
        assert session.census().complete
    # What came of the large file is kept for the day when there is room.
    assert (tiny.workspace / "inputs" / f"{key_of(huge)}.part").stat().st_size >= 16 * MIB
    assert os.listdir(tiny.workspace / "jobs" / job) == ["in1"]


# ---- back ------------------------------------------------------------------------------------


def sink(path: Path, flags: int = os.O_RDWR | os.O_CREAT):  # type: ignore[no-untyped-def]
    return lambda: os.open(path, flags, 0o600)


def test_outputs_come_back_whole_and_what_is_here_is_not_fetched_again(near: Near) -> None:
    bring(near, job_id(1))
    end(near, job_id(1))
    data = os.urandom(11 * MIB)
    name = os.fsdecode(b"a b\n\xff.bin")
    Path(os.fsdecode(bytes(near.workspace / "jobs" / job_id(1) / "a1" / "work")), name).write_bytes(
        data
    )
    target = near.file("target", data[: 5 * MIB])
    written: list[int] = []
    with near.begin() as session:
        wanted = WantedOutput(job_id(1), 1, name, "flat", 11 * MIB, sink(target))
        found = session.data().fetch([wanted], written.append)[0]
    assert (found.size, found.failure) == (11 * MIB, None)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert target.read_bytes() == data and sum(written) == 6 * MIB


def test_a_fetch_that_breaks_is_continued(near: Near) -> None:
    bring(near, job_id(1))
    end(near, job_id(1))
    output = near.workspace / "jobs" / job_id(1) / "a1" / "work" / "big"
    output.write_bytes(os.urandom(80 * MIB))
    target = near.folder / "target"
    wanted = [WantedOutput(job_id(1), 1, "big", "flat", 80 * MIB, sink(target))]
    first = near.begin()
    data = first.data()
    pid = far_ends(first.id, "data")[0]
    written: list[int] = []

    def kill(count: int) -> None:
        written.append(count)
        if len(written) == 5:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(RemoteError):
        data.fetch(wanted, kill)
    assert target.stat().st_size == sum(written) < 80 * MIB
    with near.begin() as session:
        found = session.data().fetch(wanted, written.append)[0]
    assert found.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert target.read_bytes() == output.read_bytes() and sum(written) == 80 * MIB


def test_what_is_not_what_the_result_says_is_fetched_once_more(near: Near) -> None:
    bring(near, job_id(1))
    end(near, job_id(1))
    data = os.urandom(3 * MIB)
    output = near.workspace / "jobs" / job_id(1) / "a1" / "work" / "big"
    output.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    damaged = near.file("damaged", bytes(MIB) + data[MIB : 2 * MIB])
    targets = [near.folder / "fine", damaged, near.folder / "other"]
    told = [digest, digest, "0" * 64]
    wanted = [
        WantedOutput(job_id(1), 1, "big", "flat", 3 * MIB, sink(target), sha256)
        for target, sha256 in zip(targets, told)
    ]
    written: list[int] = []
    with near.begin() as session:
        found = session.data().fetch(wanted, written.append)
        assert sum(written) == (3 + 1 + 3) * MIB + (3 + 3) * MIB
    assert [f.sha256 for f in found] == [digest] * 3
    assert all(target.read_bytes() == data for target in targets)


def test_only_regular_files_inside_the_attempt_are_read(near: Near) -> None:
    bring(near, job_id(1))
    end(near, job_id(1))
    work = near.workspace / "jobs" / job_id(1) / "a1" / "work"
    secret = near.file("secret", b"secret")
    (work / "link").symlink_to(secret)
    (work / "output").symlink_to(secret.parent)
    os.mkfifo(work / "fifo")
    (work / "folder").mkdir()
    cases = [("link", "flat"), ("secret", "split"), ("fifo", "flat"), ("folder", "flat")]
    cases += [("none", "flat"), ("..", "flat"), (".", "flat"), ("", "flat"), ("../stdout", "flat")]
    target = near.folder / "target"
    wanted = [WantedOutput(job_id(1), 1, n, lay, 6, sink(target)) for n, lay in cases]
    wanted.append(WantedOutput(job_id(1), 1, "out.txt", "flat", 100, sink(near.folder / "good")))
    with near.begin() as session:
        found = session.data().fetch(wanted)
    assert [f.failure is not None and not f.failure.here for f in found] == [True] * 9 + [False]
    assert target.read_bytes() == b""
    assert (near.folder / "good").read_bytes() == b"result of " + job_id(1).encode()


def test_a_destination_that_cannot_be_written_fails_its_item_alone(near: Near) -> None:
    bring(near, job_id(1))
    end(near, job_id(1))
    work = near.workspace / "jobs" / job_id(1) / "a1" / "work"
    (work / "big").write_bytes(os.urandom(9 * MIB))
    good = near.folder / "good"
    wanted = [
        WantedOutput(job_id(1), 1, "big", "flat", 9 * MIB, sink(near.folder / "no" / "x")),
        WantedOutput(job_id(1), 1, "big", "flat", 9 * MIB, sink(Path("/dev/full"), os.O_RDWR)),
        WantedOutput(job_id(1), 1, "big", "flat", 9 * MIB, sink(good)),
        WantedStream(job_id(1), 1, "stdout", 1000, 1000),
    ]
    with near.begin() as session:
        found = session.data().fetch(wanted)
    kinds = [f.failure.kind if f.failure else None for f in found]
    assert kinds == ["ENOENT", "ENOSPC", None, None]
    assert good.read_bytes() == (work / "big").read_bytes()
    assert (found[3].head, found[3].tail) == (b"0123456789", b"")
