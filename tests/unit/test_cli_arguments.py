"""What may be typed, and the values it becomes."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from hpc_batch import cli
from hpc_batch.cli import VERBS, main, parser
from hpc_batch.cli import arguments as line
from hpc_batch.cli import requests as typed
from hpc_batch.cli.output import CommandError, escape
from hpc_batch.cli.request import Pass
from hpc_cluster import PROTOCOL


def refused(*argv: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        line.parse(argv)
    assert caught.value.code == 2
    return caught.value


EVERY_VERB = {
    "submit": ["x.job"],
    "run": ["x.job"],
    "wait": ["x"],
    "check": ["x"],
    "list": [],
    "show": ["x"],
    "logs": ["x"],
    "cancel": ["x"],
    "retry": ["x"],
    "lint": [],
    "render": ["x.job"],
    "status": [],
    "pause": [],
    "resume": [],
    "demo": [],
    "pass": [],
    "config": [],
    "clean": [],
    "explain": ["x"],
    "init": [],
    "doctor": [],
    "deploy": [],
    "pilot": [],
    "cron": [],
}


@pytest.mark.parametrize("verb", EVERY_VERB)
def test_every_verb_becomes_the_values_of_its_own_request(verb: str) -> None:
    request = line.parse([verb, *EVERY_VERB[verb]])
    assert type(request).__name__ in VERBS
    assert (request.config, request.dropbox, request.json, request.debug) == (
        None,
        None,
        False,
        False,
    )


def test_every_request_has_a_verb() -> None:
    kinds = {type(line.parse([verb, *more])).__name__ for verb, more in EVERY_VERB.items()}
    assert kinds == set(VERBS)


@pytest.mark.parametrize("verb", EVERY_VERB)
def test_common_options_stand_before_or_after_the_verb(verb: str) -> None:
    common = ["-c", "my.ini", "--json", "--debug", "--dropbox", "box"]
    before = line.parse([*common, verb, *EVERY_VERB[verb]])
    after = line.parse([verb, *EVERY_VERB[verb], *common])
    assert before == after
    assert before.config == Path("my.ini")
    assert before.dropbox == Path("box")
    assert before.json
    assert before.debug


def test_an_option_before_the_verb_survives_the_verbs_own_defaults() -> None:
    assert line.parse(["--json", "list"]).json
    assert not line.parse(["list"]).json


@pytest.mark.parametrize("verb", sorted(EVERY_VERB))
def test_what_changes_something_has_a_dry_run(verb: str) -> None:
    request = line.parse([verb, *EVERY_VERB[verb]])
    changing = {"submit", "run", "cancel", "retry", "pause", "resume", "clean"}
    changing |= {"init", "deploy", "pilot", "cron"}
    assert ("dry_run" in {f.name for f in fields(request)}) == (verb in changing)
    if verb in changing:
        for option in ("-n", "--dry-run"):
            assert line.parse([verb, *EVERY_VERB[verb], option]).dry_run  # type: ignore[attr-defined]


def test_a_job_may_be_put_together_from_options() -> None:
    request = line.parse(
        [
            "submit",
            "--script",
            "s",
            "--arg",
            "a=1",
            "--arg",
            "a=b=c",
            "--arg",
            "d=",
            "--input",
            "i=/x",
            "--output",
            "o=/y",
        ]
    )
    assert isinstance(request, typed.Submit)
    assert request.files == ()
    assert request.script == "s"
    assert request.args == (("a", "1"), ("a", "b=c"), ("d", ""))
    assert request.inputs == (("i", "/x"),)
    assert request.outputs == (("o", "/y"),)


def test_run_takes_one_file() -> None:
    request = line.parse(["run", "x.job", "--timeout", "2m", "--lwlw"])
    assert isinstance(request, typed.Run)
    assert (request.files, request.timeout, request.lwlw) == (("x.job",), 120.0, True)
    assert "extra.job" in str(refused("run", "x.job", "extra.job"))


def test_a_lone_dash_is_a_file() -> None:
    request = line.parse(["submit", "-"])
    assert isinstance(request, typed.Submit)
    assert request.files == ("-",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("1h30m", 5400), ("4d", 345600), ("2w", 1209600)],
)
def test_a_length_of_time_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert line.duration_s(text) == seconds
    assert line.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1x", "m", "1e9", "4 d", "nan", "9" * 40 + "d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    assert "--since" in str(refused("list", f"--since={text}"))


def test_a_moment_is_a_date_or_a_length_from_now() -> None:
    assert line.moment("2026-11-21T06:00Z") == datetime(2026, 11, 21, 6, tzinfo=timezone.utc)
    assert line.moment("2026-11-21T06:00+02:00") == datetime(2026, 11, 21, 4, tzinfo=timezone.utc)
    assert line.moment("2026-11-21T06:00").tzinfo is not None
    ahead = line.moment("6h") - datetime.now(timezone.utc)
    assert timedelta(hours=5, minutes=59) < ahead <= timedelta(hours=6)


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "9" * 40])
def test_what_is_no_moment_is_refused(text: str) -> None:
    assert "--until" in str(refused("pause", f"--until={text}"))


@pytest.mark.parametrize("text", ["level", "=6", ""])
def test_an_argument_needs_a_key_and_a_value(text: str) -> None:
    assert "KEY=VALUE" in str(refused("submit", "--script", "x", f"--arg={text}"))


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["sumbit", "x.job"], "submit"),
        (["cancle", "x"], "cancel"),
        (["list", "--state", "runing"], "running"),
        (["config", "sampel"], "sample"),
    ],
)
def test_an_unknown_word_is_met_with_the_nearest_one(argv: list[str], meant: str) -> None:
    assert f"did you mean {meant}?" in str(refused(*argv))


def test_a_word_near_to_nothing_is_met_with_all() -> None:
    text = str(refused("xyzzy"))
    assert "'xyzzy' is unknown" in text
    assert all(verb in text for verb in EVERY_VERB)


@pytest.mark.parametrize("argv", [[], ["check"], ["check", "a", "b"], ["list", "--sinse", "1d"]])
def test_what_is_missing_or_too_much_is_a_usage_error_with_a_hint(argv: list[str]) -> None:
    assert "--help" in refused(*argv).hint


def test_options_are_not_abbreviated() -> None:
    refused("submit", "x.job", "--dry")


def test_hpc_submitter_takes_the_originals_command_line() -> None:
    request = parser.parse_submitter(["--debug", "--nocleanup", "--email", "a@b.org", "my.ini"])
    assert request == Pass(
        config=Path("my.ini"),
        dropbox=None,
        json=False,
        debug=True,
        nocleanup=True,
        email="a@b.org",
    )
    plain = parser.parse_submitter(["my.ini"])
    assert (plain.debug, plain.nocleanup, plain.email) == (False, False, None)
    assert cli.parse_submitter(["my.ini"]) == plain, "which cron says, and needs no argparse"
    more = ["--debug", "my.ini"]
    assert cli.parse_submitter(more) == parser.parse_submitter(more)
    with pytest.raises(CommandError, match="CONFIG"):
        parser.parse_submitter([])


def test_a_setting_names_section_and_key() -> None:
    request = line.parse(["init", "--set", "remote.host=a=b", "--set=hpc.prologue=x\ny"])
    assert isinstance(request, typed.Init)
    assert request.settings == ((("remote", "host"), "a=b"), (("hpc", "prologue"), "x\ny"))
    for text in ("host=x", "remote.host", ".host=x", "remote.=x"):
        assert "SECTION.KEY=VALUE" in str(refused("init", f"--set={text}"))


@pytest.mark.parametrize(
    ("text", "minutes"), [("2m", 2), ("1h", 60), ("60s", 1), ("0.5h", 30), ("3600", 60)]
)
def test_a_period_is_one_that_cron_can_keep(text: str, minutes: int) -> None:
    request = line.parse(["cron", "install", "--every", text])
    assert isinstance(request, typed.Cron)
    assert (request.what, request.every) == ("install", minutes)


@pytest.mark.parametrize("text", ["7m", "90s", "2h", "0", "30s", "soon"])
def test_other_periods_are_refused_with_the_ones_there_are(text: str) -> None:
    told = str(refused("cron", "install", "--every", text))
    assert "--every" in told


def test_pilots_may_be_named() -> None:
    request = line.parse(["pilot", "cancel", "a", "b", "-y"])
    assert isinstance(request, typed.Pilots)
    assert (request.what, request.pilots, request.yes) == ("cancel", ("a", "b"), True)


def test_checks_are_named_by_commas() -> None:
    request = line.parse(["doctor", "--only", "config,login", "--timeout", "5m"])
    assert isinstance(request, typed.Doctor)
    assert (request.only, request.timeout) == (("config", "login"), 300.0)


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["submit", "--help"]])
def test_help_and_version_are_answers_not_errors(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    told = capsys.readouterr()
    version = f"hpc-batch 0.1.0 (protocol {PROTOCOL})"
    assert told.out.startswith((version, "usage: hpc-batch"))
    assert told.err == ""


def test_help_ends_with_examples_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    examples = [
        text.split()[1:]
        for text in capsys.readouterr().out.splitlines()
        if text.startswith("  hpc-batch ")
    ]
    assert len(examples) == 2
    for argv in examples:
        line.parse(argv)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 😀", "plain é 😀"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\udcff", "\\xff"),
        ("\u202eevil", "\\u202eevil"),
        ("\x9b\x00", "\\x9b\\x00"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_lines_of_a_stream_stay_lines() -> None:
    assert escape("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"
