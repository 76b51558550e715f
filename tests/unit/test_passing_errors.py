"""What a disk or a file server says for a moment only is waited out, and never taken for an answer.

Calls that look are made to fail here one by one: they answer "no" and "not there" elsewhere.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from hpc_batch import client, config, description, errors, inputs, settling, state, template
from hpc_batch.cli import hpc_submitter
from hpc_batch.hosts import credentials, known_hosts, private_key
from hpc_batch.intake import Intake
from hpc_batch.listing import Drop, may_submit
from hpc_batch.record import Record
from hpc_batch.submitter import Options, run
from hpc_cluster import effects, files

JOB = "0123abcd-00000000001-0123456789abcdef"
CODES = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM)


def failing(
    patch: pytest.MonkeyPatch, place: Any, name: str, path: object, code: int = errno.EIO
) -> None:
    """Have a function fail where its first argument is this path, or lies below it."""
    real: Callable[..., Any] = getattr(place, name)

    def call(first: Any, *args: Any, **more: Any) -> Any:
        text = "" if isinstance(first, int) else os.fsdecode(first)
        if text == str(path) or text.startswith(f"{path}/"):
            raise OSError(code, os.strerror(code), text)
        return real(first, *args, **more)

    patch.setattr(place, name, call)


def described(here: World, text: str) -> description.Described:
    return description.describe(JOB, "x.job", text.encode(), here.config)


def copying(here: World) -> str:
    (here.root / "x.in").write_text("x")
    return (
        "script: copy\n"
        f"input_map: {{source: '{here.root}/x.in'}}\noutput_map: {{target: '{here.out}/x'}}\n"
    )


# ---- the layer -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_a_question_that_fails_is_not_answered_with_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = str(tmp_path)
    assert files.is_folder(folder)
    assert files.permits(folder, os.W_OK)
    failing(monkeypatch, os, "stat", folder, code)
    failing(monkeypatch, effects, "access", folder, code)
    for question in (files.is_folder, files.mode_of, lambda path: files.permits(path, os.W_OK)):
        with pytest.raises(OSError) as caught:
            question(folder)
        assert caught.value.errno == code


def test_what_is_not_there_or_not_permitted_is_no(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert not files.is_folder(missing)
    assert not files.mode_of(missing)
    assert not files.permits(missing, os.R_OK)
    (tmp_path / "file").write_text("")
    assert not files.permits(str(tmp_path / "file"), os.X_OK)
    assert not files.permits(str(tmp_path / "file" / "below"), os.R_OK)


def test_a_real_path_follows_every_link_or_says_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert files.real_path(str(tmp_path / "link" / "x")) == str(tmp_path / "there" / "x")
    assert files.real_path(str(tmp_path / "dangling")) == str(tmp_path / "nowhere")
    assert files.real_path(str(tmp_path / "loop")) == str(tmp_path / "loop")
    for name in ("lstat", "readlink"):
        with monkeypatch.context() as patch:
            failing(patch, os, name, tmp_path / "link")
            with pytest.raises(OSError):
                files.real_path(str(tmp_path / "link" / "x"))


# ---- checking a drop -------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    ("place", "name", "where"),
    [
        (effects, "access", "out"),
        (os, "stat", "out"),
        (os, "stat", "x.in"),
        (os, "open", "x.in"),
        (os, "open", "templates/copy.template"),
        (os, "lstat", "link"),
    ],
)
def test_a_drop_is_not_rejected_because_a_call_failed_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, where: str, code: int
) -> None:
    here = World(tmp_path)
    text = copying(here)
    if where == "link":
        (here.root / "link").symlink_to("templates")
        here.configure(cronjob={"templates": here.root / "link"})
    assert described(here, text).targets
    template.parse.cache_clear()
    settings = here.config
    failing(monkeypatch, place, name, here.root / where, code)
    with pytest.raises(OSError) as caught:
        description.describe(JOB, "x.job", text.encode(), settings)
    assert caught.value.errno in files.PASSING


def test_a_drop_into_a_folder_without_permission_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = World(tmp_path)
    failing(monkeypatch, effects, "access", here.out, errno.EACCES)
    with pytest.raises(errors.JobFileError, match="no permission to write"):
        described(here, copying(here))


@pytest.mark.parametrize("code", CODES)
def test_a_drop_that_cannot_be_read_now_is_not_taken_for_hopeless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    here = World(tmp_path)
    path = here.drop("x", "say", args={"words": "x"})
    failing(monkeypatch, os, "open", path, code)
    with pytest.raises(OSError) as caught:
        settling.look(str(path))
    assert caught.value.errno == code


def test_whether_a_path_lies_below_another_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert inputs.lies_below(str(tmp_path / "link" / "x"), [tmp_path / "there"])
    failing(monkeypatch, os, "lstat", tmp_path / "link")
    with pytest.raises(OSError):
        inputs.lies_below(str(tmp_path / "link" / "x"), [tmp_path / "there"])


def test_a_user_without_a_name_is_not_yet_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.geteuid() + 1

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert may_submit(other, ["galaxy"]) is None
    assert may_submit(other, [str(other)])
    assert may_submit(other, [])


def test_a_disk_that_fails_while_drops_are_checked_only_delays_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path) as here:
        here.drop_copy("x")
        with monkeypatch.context() as patch:
            failing(patch, effects, "access", here.out)
            assert here.sweep() == 75
            assert not here.finished("x").exists()
            (record,) = here.records()
            assert (record["phase"], record["stuck_since"] is None) == ("ACCEPTED", False)
        assert here.until("x")["x"]["status"] == "ok"


def test_a_cancel_is_heeded_though_a_disk_refuses_in_the_middle_of_taking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken before the refusal goes on in the same pass, and would run."""
    with world(tmp_path) as here:
        here.drop_copy("x")
        (here.dropbox / "x.job.cancel").touch()
        taking = Intake.take

        def take(intake: Intake, drops: Iterable[Drop]) -> list[Record]:
            taking(intake, drops)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(Intake, "take", take)
            assert here.sweep() == 75
        assert not list((here.workspace / "jobs").glob("*")), "it is not staged"
        assert here.until("x")["x"]["reason"] == "cancelled"


# ---- a pass itself ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name", "where"),
    [
        (os, "stat", "dropbox"),
        (effects, "access", "dropbox"),
        (effects, "mkdir", "dropbox/.hpc_batch"),
        (effects, "mkdir", "state"),
        (os, "lstat", "state"),
    ],
)
def test_a_folder_that_fails_for_a_moment_is_no_wrong_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, where: str
) -> None:
    here = World(tmp_path)
    settings = here.config
    failing(monkeypatch, place, name, here.root / where)
    with pytest.raises((errors.StorageError, OSError)) as caught:
        run(settings, Options())
    assert getattr(caught.value, "exit_code", 75) == 75


def test_a_machine_whose_id_cannot_be_read_is_not_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = World(tmp_path)
    assert here.sweep() == 0
    with monkeypatch.context() as patch:
        failing(patch, os, "open", os.path.realpath("/etc/machine-id"))
        with pytest.raises(OSError):
            state.machine_id()
        with pytest.raises(errors.StorageError):
            here.sweep()
    assert here.sweep() == 0


def test_a_machine_without_an_id_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.path.realpath("/etc/machine-id")
    failing(monkeypatch, os, "open", path, errno.ENOENT)
    assert state.machine_id() == os.uname().nodename


@pytest.mark.parametrize("code", [*CODES, errno.EACCES])
def test_a_configuration_that_cannot_be_read_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    here = World(tmp_path)
    failing(monkeypatch, os, "open", here.ini, code)
    assert hpc_submitter([str(here.ini)]) == (78 if code == errno.EACCES else 75)


def test_a_configuration_is_not_passed_over_because_its_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = World(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPC_BATCH_CONFIG", raising=False)
    assert config.find(None) == Path(here.ini.name)
    failing(monkeypatch, os, "stat", here.ini.name)
    with pytest.raises(OSError):
        config.find(None)


# ---- clients ---------------------------------------------------------------------------------


def test_a_client_does_not_take_an_error_for_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropbox = client.Dropbox(tmp_path)
    job = dropbox.drop("x", b"script: say\n")
    assert job.state() == "waiting"
    failing(monkeypatch, os, "lstat", tmp_path / "x.job")
    with pytest.raises(OSError):
        job.state()


# ---- logging in ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*CODES, errno.EACCES])
def test_a_file_that_a_login_needs_and_that_cannot_be_read_now_is_no_wrong_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "file"
    path.write_text("")

    def refuse(first: object, *args: Any, **more: Any) -> Any:
        raise OSError(code, os.strerror(code), first)

    remote = config.Remote(passphrase_file=path)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    for act in (
        lambda: private_key.load(path, None),
        lambda: known_hosts.KnownHosts([path]),
        lambda: credentials.passphrase(remote),
    ):
        with pytest.raises(errors.RemoteError) as caught:
            act()
        assert caught.value.exit_code == (78 if code == errno.EACCES else 75)
