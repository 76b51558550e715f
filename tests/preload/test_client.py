"""Clients that are killed while they drop a job: the drop is whole or not there, and no litter."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from preload.library import Act, Call, Role, judging
from preload.rounds import TOOLS, Round

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
EFFECTS = (
    Call.OPEN_WRITE | Call.WRITE | Call.SYNC | Call.RENAME | Call.LINK | Call.UNLINK | Call.CLOSE
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    with judging(tmp_path_factory.mktemp("client"), Round) as made:
        yield made


def submit(here: Round, name: str) -> int:
    """Drop a job by the command, as it is; return its exit code."""
    job = here.root / f"{name}.job"
    job.write_text("script: say\nargs:\n  words: hello\n")
    command = [sys.executable, str(TOOLS / "hpc-batch"), "--config", str(here.ini)]
    return subprocess.run(
        [*command, "submit", str(job)],
        env=here.judge.environment(),
        capture_output=True,
        check=False,
    ).returncode


def hidden(here: Round) -> list[str]:
    return sorted(set(os.listdir(here.dropbox)) - {".hpc_batch"})


@pytest.mark.timeout(1200)
def test_a_client_that_is_killed_leaves_a_whole_drop_or_none(here: Round) -> None:
    here.one_pass()
    at, taken = 1, 0
    while True:
        here.judge.arm(Role.CLIENT, EFFECTS, Act.KILL_AFTER, at, where="dropbox*")
        code = submit(here, f"job{at}")
        hit = bool(here.judge.hit)
        here.judge.disarm()
        path = here.dropbox / f"job{at}.job"
        if path.exists():
            taken += 1
            assert yaml.safe_load(path.read_text())["script"] == "say"
        else:
            assert code != 0
        if not hit:
            break
        at += 1
    assert at > 4 and taken > 0
    assert any(name.startswith(".hpcb-") for name in hidden(here))
    here.judge.server(3600, int(time.time()) + 1)
    time.sleep(1.1)  # what is changed from now on was changed in an hour
    here.one_pass()
    assert not [name for name in hidden(here) if name.startswith(".hpcb-")]
    here.judge.server(0, 0)


def test_a_drop_that_a_killed_client_left_with_two_names_is_taken(here: Round) -> None:
    """Where the file system cannot rename without replacing, the client links and unlinks."""
    draft = here.dropbox / (".hpcb-" + "0" * 16 + ".drop")
    draft.write_text("script: say\nargs:\n  words: hello\n...\n")
    os.link(draft, here.dropbox / "twice.job")
    here.one_pass()
    assert (here.dropbox / "twice.job").exists()
    here.judge.server(3600, int(time.time()) + 1)
    time.sleep(1.1)
    here.one_pass()
    here.one_pass()
    assert not (here.dropbox / "twice.job").exists()
    assert not draft.exists()
    here.judge.server(0, 0)


FAILING = EFFECTS | Call.OPEN_READ | Call.READ | Call.STAT | Call.LIST | Call.TRUNCATE
CODES = (errno.EIO, errno.ENOSPC, errno.ESTALE) if FULL else (errno.EIO,)


def is_whole(path: Path) -> bool:
    """Tell whether a drop is there; then it is whole, and can be taken."""
    if not path.exists():
        return False
    assert yaml.safe_load(path.read_text())["script"] == "say"
    assert path.read_text().endswith("...\n")
    return True


def drafts(here: Round) -> list[str]:
    return [name for name in hidden(here) if name.startswith(".hpcb-")]


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("act", [Act.FAIL, Act.DONE_BUT_ERROR, Act.KILL_BEFORE, Act.SHORT])
def test_after_a_client_that_met_a_fault_the_same_call_works(here: Round, act: Act) -> None:
    """At each of its calls on the dropbox: what it told is true, and it may be repeated."""
    code = CODES[0]
    calls = EFFECTS if act == Act.KILL_BEFORE else FAILING
    calls = Call.WRITE if act == Act.SHORT else calls
    for at in itertools.count(1):
        name = f"{act.name.lower()}{at}"
        path = here.dropbox / f"{name}.job"
        before = drafts(here)
        here.judge.arm(Role.CLIENT, calls, act, at, code, where="dropbox*")
        told = submit(here, name)
        hit = here.judge.hit
        here.judge.disarm()
        there = is_whole(path)
        assert told != 70, hit
        assert there or told != 0, hit
        if act in (Act.FAIL, Act.SHORT) and "unlink" not in hit:
            assert drafts(here) == before, hit
        again = submit(here, name)
        assert again == (75 if there else 0), hit  # 75: it waits there already
        assert is_whole(path)
        if not hit:
            break
    assert at > 1


WAITING = """
import sys
sys.path.insert(0, {tools!r})
from hpc_submit import submit_and_wait
answer = submit_and_wait({dropbox!r}, {{"script": "say", "args": {{"words": "hello"}}}}, 0.05)
print(answer["job"]["status"])
"""


@pytest.mark.timeout(2400)
def test_a_client_that_waits_survives_what_may_pass(here: Round) -> None:
    """Whatever call fails: an error at once and nothing dropped, or the answer in the end."""
    program = WAITING.format(tools=str(TOOLS), dropbox=str(here.dropbox))
    for code in CODES:
        for at in range(1, 200, 1 if FULL else 5):
            here.judge.arm(Role.CLIENT, FAILING, Act.FAIL, at, code, 1, where="dropbox*")
            client = subprocess.Popen(
                [sys.executable, "-c", program],
                env=here.judge.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            answered = False
            while client.poll() is None:
                mine = [*here.dropbox.glob("hpc_submit-*.job")]
                if mine and not answered:
                    answered = True
                    answer(mine[0])
                time.sleep(0.02)
            out, err = client.communicate()
            hit = bool(here.judge.hit)
            here.judge.disarm()
            if client.returncode == 0:
                assert out == "ok\n"
            else:
                assert os.strerror(code) in err
                assert not answered, err
            assert not list(here.dropbox.glob("hpc_submit-*"))
            if not hit:
                break
        assert at > 10


def answer(drop: Path) -> None:
    """Answer a drop as the service does."""
    text = drop.read_text().replace("...\n", "job:\n  status: ok\n")
    drop.unlink()
    aside = drop.with_name(".answer")
    aside.write_text(text)
    aside.rename(drop.with_name(f"{drop.name}.finished"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_client_that_cannot_write_says_so_and_leaves_nothing(here: Round, code: int) -> None:
    before = hidden(here)
    for call in (Call.WRITE, Call.SYNC, Call.RENAME) if FULL else (Call.WRITE,):
        here.judge.arm(Role.CLIENT, call, Act.FAIL, 1, code, where="dropbox*")
        assert submit(here, "full") not in (0, 70)
        assert here.judge.hit
        here.judge.disarm()
        assert hidden(here) == before


def test_a_drop_that_was_made_is_not_called_a_failure(here: Round) -> None:
    """Who is told that it failed drops the job once more."""
    here.judge.arm(Role.CLIENT, Call.RENAME, Act.DONE_BUT_ERROR, 1, errno.EIO, where="dropbox*")
    assert submit(here, "made") == 0
    assert here.judge.hit
    here.judge.disarm()
    assert (here.dropbox / "made.job").exists()
