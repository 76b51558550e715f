"""What travels: ranges, targets, the line that starts a far end, and the far end's channel."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workshop import INSTANCE, SESSION, Workshop

from hpc_batch import bulk, far_end
from hpc_batch.config import Remote
from hpc_cluster import arrival, channel, effects, files, frames, loading, store

ENV = {"workspace": "/scratch/it's here/ws", "scripts": "/home/u/hpc batch/on_hpc/scripts"}


@pytest.mark.parametrize(
    ("item", "size", "ranges"),
    [
        ({"what": "output", "offset": 0, "bytes": 10}, 10, [(0, 10)]),
        ({"what": "output", "offset": 4, "bytes": 6}, 10, [(4, 10)]),
        ({"what": "output", "offset": 0, "bytes": 3}, 10, [(0, 3)]),
        ({"what": "output", "offset": 10, "bytes": 0}, 10, [(10, 10)]),
        ({"what": "output", "offset": 20, "bytes": 5}, 10, [(20, 10)]),
        ({"what": "stdout", "head": 3, "tail": 3}, 10, [(0, 3), (7, 10)]),
        ({"what": "stdout", "head": 5, "tail": 5}, 10, [(0, 10)]),
        ({"what": "stderr", "head": 0, "tail": 4}, 10, [(0, 0), (6, 10)]),
        ({"what": "stderr", "head": 9, "tail": 9}, 0, [(0, 0)]),
    ],
)
def test_an_item_names_these_ranges_of_a_file(
    item: dict[str, Any], size: int, ranges: list[tuple[int, int]]
) -> None:
    assert frames._parts(item, size) == ranges


@pytest.mark.parametrize("value", [-1, True, "1", None, 1.5, [1]])
def test_what_is_no_count_is_refused(value: object) -> None:
    with pytest.raises(channel.Misspoken):
        frames._count({"bytes": value}, "bytes")


def test_both_ends_agree_on_the_size_of_frames_and_on_the_window() -> None:
    assert bulk.MOST_BYTES == frames.MOST_BYTES
    assert max(bulk.FRAME_BYTES, frames.FRAME_BYTES) <= bulk.MOST_BYTES
    # An acknowledgement is always due before the window is full, or both ends would wait.
    assert bulk.MOST_BYTES + frames.ACK_BYTES < bulk.WINDOW_BYTES
    assert channel.ALIVE_S * 3 < far_end.ANSWER_S


# ---- the line that starts a far end ------------------------------------------------------------


def test_a_plain_start_can_be_read_in_a_list_of_processes() -> None:
    env = {"workspace": "/scratch/ws", "scripts": "/home/u/scripts"}
    assert far_end.command(Remote(host="h"), env, "serve", "5" * 16, "a" * 8) == (
        "exec /bin/sh -c 'exec python3 /home/u/scripts/hpc_session serve "
        f"--workspace /scratch/ws --session {'5' * 16} --instance {'a' * 8}'"
    )


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh", "csh", "tcsh", "fish"])
def test_every_login_shell_runs_the_line(shell: str, tmp_path: Any) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    nasty = "a'b\"c\\d!e$f`g%h\ni*j ~k#l;m&n|o(p)q{r}s<t>u\\nv\u00e9 \\"
    prologue = f"greeting={shlex.quote(nasty)}\nexport greeting"
    show = "import os, sys; sys.stdout.write(os.environ['greeting'] + '\\n' + sys.argv[1])"
    line = f"{prologue}\nexec {shlex.quote(sys.executable)} -c {shlex.quote(show)} '!x'"
    run = subprocess.run(
        [program, "-c", far_end.for_any_shell(line)],
        capture_output=True,
        env={"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONUTF8": "1"},
    )
    assert (run.stderr, run.stdout.decode()) == (b"", nasty + "\n!x")


def test_nothing_special_stands_within_the_quotes() -> None:
    remote = Remote(host="h", prologue="module load python/3.11 && echo 'it''s!' %s \\n")
    line = far_end.command(remote, ENV, "data", "5" * 16, "a" * 8)
    assert re.fullmatch(
        r"""exec /bin/sh -c 'eval "\$\(printf %b "([-\w ./:=,@+;]|\\0[0-7]{3})*"\)"'""", line
    )


# ---- what arrives ------------------------------------------------------------------------------


class Listening:
    """A channel that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def say(self, line: Any, data: bytes = b"") -> None:
        self.said.append(line)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path / "w")
    yield made
    made.close()


def test_a_late_session_gives_no_file_of_a_job_its_name(shop: Workshop) -> None:
    ours, theirs = shop.stage("true"), shop.stage("true")
    for session, kept in ((SESSION, True), ("f" * 16, False)):
        line: Any = Listening()
        arriving = frames.Frames(shop.spool, session, INSTANCE, line)
        job = ours if kept else theirs
        arriving._arrival(("job", job, 0)).write(0, memoryview(b"12345"), 5)
        failed = arriving._sync()
        assert [entry["errno"] for entry in failed] == ([] if kept else ["ESTALE"])
        assert os.path.exists(shop.spool.input_path(job, 0)) is kept


def test_while_bytes_arrive_pilots_see_that_jobs_are_still_coming(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, line = shop.stage("true"), Listening()
    path = shop.spool.path("incoming", f"{job}.{SESSION}")
    os.utime(path, (1, 1))
    arriving = frames.Frames(shop.spool, SESSION, INSTANCE, line)  # type: ignore[arg-type]
    arriving._renew()
    assert os.stat(path).st_mtime == 1  # not with every frame
    monkeypatch.setattr(frames, "RENEW_S", 0)
    arriving._renew()
    assert os.stat(path).st_mtime > 1


def test_what_lies_where_an_input_goes_is_not_taken_for_it(shop: Workshop) -> None:
    """What a staging before left there may be the file of the day before."""
    job, key = shop.stage("true", [("x", b"older")]), "c" * 32
    stored = store.Store(shop.spool.path("inputs"), SESSION)
    files.write_new(stored.arriving(key), b"today")
    stored.seal(key, stored.now())
    stored.enter(key)
    described = files.read_json(files.join(shop.spool.job_folder(job), "description.json"))
    load = loading.Load(job, described, b"true", [(key, 5)])
    for _ in range(2):
        assert loading.load_all(shop.spool, stored, SESSION, [load]) == ([job], {})
        assert files.read_bytes(shop.spool.input_path(job, 0)) == b"today"


def staged(shop: Workshop) -> tuple[loading.Load, str]:
    """Return a job that is to be loaded, and where its description will lie."""
    job = shop.stage("true")
    path = os.fsdecode(files.join(shop.spool.job_folder(job), "description.json"))
    described = files.read_json(path)
    os.unlink(path)
    return loading.Load(job, described, b"true", []), path


def load_in(shop: Workshop, session: str, load: loading.Load) -> bytes:
    """Load a job in a session of its own; return its ticket."""
    stored = store.Store(shop.spool.path("inputs"), session)
    shop.spool.begin_all([load.job], session)
    assert loading.load_all(shop.spool, stored, session, [load]) == ([load.job], {})
    return shop.spool.incoming_path(load.job, session)


def test_a_description_is_its_ticket_under_another_name(shop: Workshop) -> None:
    load, path = staged(shop)
    for _ in range(2):
        ticket = load_in(shop, SESSION, load)
        assert os.path.samefile(path, ticket)
        assert os.listdir(os.path.dirname(path)) == ["description.json"]
        assert files.read_json(path)["text"] == "true"


def test_where_no_links_can_be_made_a_description_is_a_file(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(effects, "link", refuse)
    load, path = staged(shop)
    for _ in range(2):
        load_in(shop, SESSION, load)
        assert os.stat(path).st_nlink == 1
        assert os.listdir(os.path.dirname(path)) == ["description.json"]
        assert files.read_json(path)["text"] == "true"


def test_a_late_session_takes_nothing_from_the_description_of_a_published_job(
    shop: Workshop,
) -> None:
    """What it writes over and over is its own ticket."""
    load, path = staged(shop)
    late = load_in(shop, "f" * 16, load)
    load_in(shop, SESSION, load)
    shop.spool.publish_all([(load.job, SESSION)])
    assert not os.path.samefile(path, late)
    files.rewrite(late, b"")
    assert files.read_json(path)["text"] == "true"
    load_in(shop, "f" * 16, load)
    assert files.read_json(path)["text"] == "true"
    assert os.listdir(os.path.dirname(path)) == ["description.json"]


def test_bytes_that_leave_a_gap_are_refused(tmp_path: Path) -> None:
    temporary = os.fsencode(tmp_path / "temporary")
    arriving = arrival.Arrival(("key", "c" * 32), temporary, b"/nowhere")
    arriving.write(0, memoryview(b"123"), 9)
    with pytest.raises(arrival.Refused, match="bytes from 6 on came when 3 were there"):
        arriving.write(6, memoryview(b"789"), 9)
    arriving.close()


# ---- the far end's channel ---------------------------------------------------------------------


class Ends:
    """A far end's channel and the other ends of its two pipes."""

    def __init__(self) -> None:
        reader, self.to_far = os.pipe()
        self.from_far, writer = os.pipe()
        self.channel = channel.Channel(reader, writer, silence_s=0.3, alive_s=0.1)


@pytest.fixture
def ends() -> Iterator[Ends]:
    yield Ends()


def test_pings_are_no_requests_and_bytes_follow_lines(ends: Ends) -> None:
    os.write(ends.to_far, b'{"ping":1}\n{"verb":"x"}\nabc{"verb"')
    assert ends.channel.request() == {"verb": "x"}
    assert ends.channel.exactly(3) == b"abc"
    os.write(ends.to_far, b':"y"}\n')
    assert ends.channel.request() == {"verb": "y"}


def test_a_silent_near_end_is_left(ends: Ends) -> None:
    os.write(ends.to_far, b'{"verb"')
    with pytest.raises(channel.Ended, match="silence"):
        ends.channel.request()
    with pytest.raises(channel.Ended, match="silence"):
        ends.channel.exactly(100)


def test_a_near_end_that_has_gone_is_noticed_while_waiting_for_something_else(ends: Ends) -> None:
    os.close(ends.to_far)
    with pytest.raises(channel.Ended, match="end of input"):
        ends.channel.pause(10)


def test_a_near_end_that_reads_nothing_is_left(ends: Ends) -> None:
    with pytest.raises(channel.Ended, match="nobody reads"):
        ends.channel.say({"data": 1}, bytes(1 << 22))


def test_a_near_end_that_closed_its_ear_is_left(ends: Ends) -> None:
    os.close(ends.from_far)
    with pytest.raises(channel.Ended):
        ends.channel.say({"data": 1})


def test_long_work_says_that_it_is_alive(ends: Ends) -> None:
    with ends.channel.working():
        time.sleep(0.5)
    ends.channel.say({"done": 1})
    lines = os.read(ends.from_far, 1 << 16).splitlines()
    assert lines[0] == b'{"alive": 1}' and lines[-1] == b'{"done": 1}'


@pytest.mark.parametrize("line", [b"[1]\n", b"{\n", b"\xff\n", b"1\n"])
def test_what_is_no_request_is_not_guessed_at(ends: Ends, line: bytes) -> None:
    os.write(ends.to_far, line)
    with pytest.raises(channel.Misspoken):
        ends.channel.request()
